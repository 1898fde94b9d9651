//! `restore`: a database as it was after any transaction.

use genesis_restore::apply::Restored;
use genesis_restore::plan::plan;
use genesis_restore::target::Target;
use genesis_wal::id::Txid;
use indicatif::{ProgressBar, ProgressStyle};

use super::args::RestoreArgs;
use super::exit::{Code, Failure};
use super::replicate::listen;
use super::{is_watched, open, print};
use crate::restore::{Progress, Request, RestoreError, restore};

pub async fn run(args: RestoreArgs) -> Result<Code, Failure> {
    let target = match (args.txid, args.timestamp) {
        (Some(txid), _) => Target::Txid(Txid(txid)),
        (None, Some(time)) => Target::Time(time),
        (None, None) => Target::Latest,
    };
    let replica = open(&args.replica).await?;
    if args.dry_run {
        let inventory = replica.inventory().await?;
        let plan = plan(&inventory, target, args.generation).map_err(RestoreError::from)?;
        print(&format!("{plan}\n"));
        return Ok(Code::DONE);
    }
    let request = Request {
        target,
        generation: args.generation,
        output: args.output,
        parallelism: args.parallelism,
    };
    let mut display = Display::new();
    let mut shutdown = listen()?;
    let restored = tokio::select! {
        restored = restore(&replica, &request, |progress| display.show(progress)) => Ok(restored),
        signal = shutdown.asked() => Err(signal),
    };
    display.clear();
    match restored {
        Ok(restored) => print(&summary(&request, &restored?)),
        // What was written is gone with the restore.
        Err(signal) => return Ok(Code(128 + signal)),
    }
    Ok(Code::DONE)
}

fn summary(request: &Request, restored: &Restored) -> String {
    let note = restored.left_out.map(|(since, until)| {
        format!(
            "note: the next transaction was committed between {since} and {until}, while nobody \
             looked; it is left out\n"
        )
    });
    format!(
        "restored {} as of transaction {}, committed {}\n{} pages, state {}, verified\n{}",
        request.output.display(),
        restored.txid.0,
        restored.time,
        restored.pages,
        restored.state,
        note.unwrap_or_default(),
    )
}

/// A bar for a person, plain lines for a log.
struct Display {
    bar: Option<ProgressBar>,
    last: &'static str,
}

impl Display {
    fn new() -> Self {
        Self { bar: is_watched().then(|| ProgressBar::new(0)), last: "" }
    }

    fn show(&mut self, progress: Progress) {
        let (step, template, done, total) = match progress {
            Progress::Snapshot(done, total) => {
                ("snapshot", "snapshot {wide_bar} {bytes}/{total_bytes} {eta}", done, total)
            }
            Progress::Segments(done, total) => {
                ("segments", "segments {wide_bar} {pos}/{len} {eta}", done, total)
            }
            Progress::Verify => ("verify", "verifying", 0, 0),
        };
        let new_step = std::mem::replace(&mut self.last, step) != step;
        match &self.bar {
            None if new_step => tracing::info!(step, total, "restoring"),
            None => {}
            Some(bar) => {
                if new_step && let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style);
                }
                bar.set_length(total);
                bar.set_position(done);
            }
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

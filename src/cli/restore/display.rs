//! How far a restore has come: a bar for a person, plain lines for a log.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::is_watched;
use crate::clock;
use crate::restore::Progress;

/// The time between two lines of one step.
const PAUSE: Duration = Duration::from_secs(10);

pub struct Display {
    bar: Option<ProgressBar>,
    step: &'static str,
    next_line: Duration,
}

impl Display {
    pub fn new() -> Self {
        let bar = is_watched().then(|| ProgressBar::new(0));
        Self { bar, step: "", next_line: Duration::ZERO }
    }

    pub fn show(&mut self, progress: Progress) {
        let (step, template, done, total) = match progress {
            Progress::Snapshot(done, total) => {
                ("snapshot", "snapshot {wide_bar} {bytes}/{total_bytes} {eta}", done, total)
            }
            Progress::Segments(done, total) => {
                ("segments", "segments {wide_bar} {pos}/{len} {eta}", done, total)
            }
            Progress::Verify => ("verify", "verifying", 0, 0),
            Progress::Check => ("check", "checking", 0, 0),
        };
        let is_new = std::mem::replace(&mut self.step, step) != step;
        match &self.bar {
            None => {
                let now = clock::monotonic();
                if is_new || now >= self.next_line {
                    tracing::info!(step, done, total, "restoring");
                    self.next_line = now + PAUSE;
                }
            }
            Some(bar) => {
                if is_new && let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style);
                }
                bar.set_length(total);
                bar.set_position(done);
            }
        }
    }
}

/// However it ends, the bar goes.
impl Drop for Display {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

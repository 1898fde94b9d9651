//! Applies segments in order, while those that come next are fetched and proven.

use std::collections::VecDeque;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;

use genesis_restore::apply::{Applier, ApplyError, Flow, Restored};
use genesis_restore::plan::Plan;
use genesis_snapshot::inventory::Cuts;
use genesis_wal::id::Txid;
use genesis_wal::name::SegmentName;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;

use super::{Output, Progress, RestoreError};
use crate::object::{ObjectError, OwnedPart, PartStream};
use crate::store::Store;

/// Parts of one segment that wait to be applied.
const WAITING: usize = 2;

/// Segments that are fetched in their order, several at once.
#[derive(Debug)]
pub struct Segments {
    store: Arc<dyn Store>,
    names: Vec<SegmentName>,
    cuts: Cuts,
    to_begin: VecDeque<SegmentName>,
    ahead: VecDeque<(SegmentName, Receiver<Result<OwnedPart, ObjectError>>)>,
    fetching: JoinSet<()>,
    parallelism: NonZeroUsize,
}

impl Segments {
    /// Fetches the segments of a plan, with at most `parallelism` of them begun and not applied yet.
    #[must_use]
    pub fn new(store: &Arc<dyn Store>, plan: &Plan, parallelism: NonZeroUsize) -> Self {
        Self {
            store: Arc::clone(store),
            names: plan.segments.clone(),
            cuts: plan.cuts.clone(),
            to_begin: plan.segments.iter().copied().collect(),
            ahead: VecDeque::new(),
            fetching: JoinSet::new(),
            parallelism,
        }
    }

    /// Applies them onto what is written, up to the target.
    ///
    /// # Errors
    /// [`RestoreError`] naming the segment that cannot be used.
    pub async fn apply(
        mut self,
        mut applier: Applier,
        output: &mut Output,
        progress: &mut impl FnMut(Progress),
    ) -> Result<Restored, RestoreError> {
        let total = self.to_begin.len() as u64;
        for number in 1..=total {
            self.begin();
            let Some((name, parts)) = self.ahead.pop_front() else { break };
            let last = self.cuts.last_in(&name);
            let flow = apply((name, last), parts, &mut applier, output, &self.names).await?;
            progress(Progress::Segments(number, total));
            if flow == Flow::Reached {
                break;
            }
        }
        applier.finish(output).map_err(|error| refused(error, &self.names, output))
    }

    /// Begins to fetch as many as may be under way.
    fn begin(&mut self) {
        while self.ahead.len() < self.parallelism.get()
            && let Some(name) = self.to_begin.pop_front()
        {
            let (sender, receiver) = channel(WAITING);
            let parts = PartStream::new(Arc::clone(&self.store), name.into());
            self.fetching.spawn(fetch(parts, sender));
            self.ahead.push_back((name, receiver));
        }
    }
}

/// Hands on the parts of a segment, and what ended them if it was no end.
async fn fetch(mut parts: PartStream, sender: Sender<Result<OwnedPart, ObjectError>>) {
    while let Some(part) = parts.next().await.transpose() {
        let failed = part.is_err();
        if sender.send(part).await.is_err() || failed {
            return;
        }
    }
}

/// Applies a segment, whose history ends with `last`.
async fn apply(
    (segment, last): (SegmentName, Txid),
    mut parts: Receiver<Result<OwnedPart, ObjectError>>,
    applier: &mut Applier,
    output: &mut Output,
    names: &[SegmentName],
) -> Result<Flow, RestoreError> {
    let mut flow = Flow::Continue;
    while flow == Flow::Continue
        && let Some(owned) = parts.recv().await
    {
        let pushed = applier.push(&owned?.part(), output);
        flow = pushed.map_err(|error| match refused(error, names, output) {
            RestoreError::Broken(reason) => ObjectError::damaged(segment, reason).into(),
            other => other,
        })?;
    }
    if flow == Flow::Continue && applier.txid() < last {
        let reason = format!("it ends with transaction {}", applier.txid().0);
        return Err(ObjectError::damaged(segment, reason).into());
    }
    let is_whole = flow == Flow::Continue && applier.txid() == segment.last;
    if is_whole && applier.time().ceil_millis() != segment.time {
        let reason = format!("it ends at {}, and not when its name says", applier.time());
        return Err(ObjectError::damaged(segment, reason).into());
    }
    Ok(flow)
}

/// An image is unpacked when its batch is full: the segment that it is from may be an earlier one.
fn refused(error: ApplyError<io::Error>, names: &[SegmentName], output: &Output) -> RestoreError {
    let origin = match &error {
        ApplyError::Image { txid, .. } => {
            names.iter().find(|segment| (segment.first..=segment.last).contains(txid))
        }
        _ => None,
    };
    match (error, origin) {
        (ApplyError::Sink(source), _) => output.failed(source),
        (error, Some(segment)) => ObjectError::damaged(*segment, crate::describe(&error)).into(),
        (error, None) => RestoreError::Broken(crate::describe(&error)),
    }
}

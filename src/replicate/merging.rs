//! Merges what is shipped, on a lane of its own and at idle priority: no transaction waits for it. What is
//! to be merged is for [`Ladder::choose`] to say; here parts are put one after another, from the spool's
//! copies, or where those are gone from the replica, and proven to follow one another. A merged segment is
//! stored after all that it is made of, which stays.
//!
//! Only when something new was shipped is anything merged: an idle database makes no request.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use genesis_snapshot::inventory::{Inventory, Listed};
use genesis_snapshot::merge::{Choice, Ladder, Merge, Rules};
use genesis_wal::id::{Generation, Txid};
use genesis_wal::name::{ObjectName, SegmentName};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use self::output::{MergeError, Output};
use super::idle::idly;
use super::spool::Spool;
use crate::blocking::blocking;
use crate::clock;
use crate::object::PartStream;
use crate::store::{Body, Store, StoreErrorKind};

mod output;

/// The pause after a failure: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_mins(10);

/// What is stored now.
#[derive(Debug)]
enum News {
    /// All that the replica held at the start.
    Known(BTreeMap<Generation, Ladder>),
    /// A segment, with all before it.
    Segment(Listed<SegmentName>),
    /// A snapshot of this transaction.
    Snapshot(Generation, Txid),
}

/// Tells the merger what is stored. When it is dropped with all its clones, the merger ends.
#[derive(Debug, Clone)]
pub struct Teller(UnboundedSender<News>);

impl Teller {
    /// Tells what the replica holds at the start.
    pub fn begin(&self, inventory: &Inventory) {
        let ladders = inventory.generations().map(|line| (line.generation(), Ladder::of(line)));
        self.tell(News::Known(ladders.collect()));
    }

    /// Tells of a segment that is stored with all before it.
    pub fn segment(&self, name: SegmentName, size: u64) {
        self.tell(News::Segment(Listed { name, size }));
    }

    /// Tells of an object of a snapshot.
    pub fn object(&self, name: &ObjectName) {
        if let ObjectName::Manifest(manifest) = name {
            self.tell(News::Snapshot(manifest.generation, manifest.txid));
        }
    }

    fn tell(&self, news: News) {
        // Where nobody merges any more, nobody needs to know.
        self.0.send(news).ok();
    }
}

/// Merges segments.
#[derive(Debug)]
pub struct Merger {
    store: Arc<dyn Store>,
    spool: Spool,
    news: UnboundedReceiver<News>,
    ladders: BTreeMap<Generation, Ladder>,
    /// Something was shipped since everything was merged.
    is_due: bool,
    /// Nothing is merged before this moment, and the pause after the next failure.
    not_before: Duration,
    pause: Duration,
}

impl Merger {
    /// A merger of what is shipped from a spool to a store, and who tells it of that.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, spool: Spool) -> (Teller, Self) {
        let (sender, news) = unbounded_channel();
        let merger = Self {
            store,
            spool,
            news,
            ladders: BTreeMap::new(),
            is_due: false,
            not_before: Duration::ZERO,
            pause: FIRST_PAUSE,
        };
        (Teller(sender), merger)
    }

    /// Merges until nobody tells anything more, and everything told of is merged.
    pub async fn run(mut self) {
        while let Some(news) = self.news.recv().await {
            self.learn(news);
            while let Some(merge) = self.next() {
                match self.merge(&merge).await {
                    Ok(merged) => self.is_stored(merged),
                    Err(error) => self.failed(&merge, &error),
                }
            }
        }
    }

    fn learn(&mut self, news: News) {
        match news {
            News::Known(ladders) => self.ladders = ladders,
            News::Segment(segment) => {
                self.is_due = true;
                self.ladders.entry(segment.name.generation).or_default().add(segment);
            }
            News::Snapshot(generation, txid) => {
                self.ladders.entry(generation).or_default().add_snapshot(txid);
            }
        }
    }

    fn next(&mut self) -> Option<Merge> {
        while let Ok(news) = self.news.try_recv() {
            self.learn(news);
        }
        if !self.is_due || clock::monotonic() < self.not_before {
            return None;
        }
        let rules = Rules { room: self.spool.room_for_merged(), ..Rules::default() };
        // What is newest is restored most.
        let chosen = self.ladders.values().rev().map(|ladder| ladder.choose(&rules));
        let merge = chosen.into_iter().find_map(|choice| match choice {
            Choice::Merge(merge) => Some(merge),
            Choice::Rest => None,
        });
        self.is_due = merge.is_some();
        merge
    }

    fn is_stored(&mut self, merged: Listed<SegmentName>) {
        self.pause = FIRST_PAUSE;
        self.ladders.entry(merged.name.generation).or_default().add(merged);
    }

    fn failed(&mut self, merge: &Merge, error: &MergeError) {
        let (name, reason) = (merge.output, crate::describe(error));
        let useless = match error {
            MergeError::Useless { name, .. } => Some(*name),
            MergeError::Store(error) if error.kind == StoreErrorKind::AlreadyExists => {
                merge.inputs.first().map(|input| input.name)
            }
            MergeError::Store(_) | MergeError::Local(_) => None,
        };
        if let Some(useless) = useless {
            tracing::error!(%useless, %reason, "a segment cannot be merged, and is left as it is");
            self.ladders.entry(name.generation).or_default().leave(useless);
            return;
        }
        let again_in_s = self.pause.as_secs();
        tracing::warn!(%name, %reason, again_in_s, "cannot merge segments; trying again later");
        self.not_before = clock::monotonic() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    async fn merge(&self, merge: &Merge) -> Result<Listed<SegmentName>, MergeError> {
        let mut output = Output::begin(&self.spool, merge.bytes())?;
        let mut fetched = 0;
        for &Listed { name, size } in &merge.inputs {
            if let Some(path) = self.spool.kept(&name) {
                let copied;
                (output, copied) = copy(output, path, name).await?;
                if copied {
                    continue;
                }
                self.spool.drop_kept(&name);
            }
            output = self.fetch(output, name).await?;
            fetched += size;
        }
        let output = output.end()?;
        let (name, size) = (merge.output, output.len());
        self.store.create(&name.into(), Body::File(output.path().to_owned())).await?;
        let (inputs, because) = (merge.inputs.len(), merge.because);
        tracing::debug!(segment = %name, inputs, bytes = size, fetched, ?because, "merged");
        let spool = self.spool.clone();
        let merged_from: Vec<_> = merge.inputs.iter().map(|input| input.name).collect();
        let kept = beside(move || Ok(spool.keep_merged(output, &name, merged_from)?)).await;
        if let Err(error) = kept {
            tracing::debug!(%name, %error, "cannot keep a merged segment");
        }
        Ok(Listed { name, size })
    }

    /// Appends a segment as the replica has it.
    async fn fetch(&self, mut output: Output, name: SegmentName) -> Result<Output, MergeError> {
        let mut parts = PartStream::new(Arc::clone(&self.store), name.into());
        output.begin_segment();
        while let Some(part) = parts.next().await? {
            output = beside(move || {
                output.take(part.bytes(), name)?;
                Ok(output)
            })
            .await?;
        }
        output.end_segment(name)?;
        Ok(output)
    }
}

/// Appends a segment as the spool keeps it; false where that turns out to be damaged.
async fn copy(
    mut output: Output,
    path: PathBuf,
    name: SegmentName,
) -> Result<(Output, bool), MergeError> {
    beside(move || {
        let copied = output.copy(&path, name)?;
        Ok((output, copied))
    })
    .await
}

async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MergeError> + Send + 'static,
) -> Result<T, MergeError> {
    blocking(|| idly(work)).await.unwrap_or_else(|died| Err(MergeError::Local(died.into())))
}

//! A database and its WAL, as a model: every state that it ever had.

use std::sync::Arc;

use genesis_snapshot::block::BlockLayout;
use genesis_wal::checksum::Checksum;
use genesis_wal::header::Salts;
use genesis_wal::page::{PageHash, PageNumber, PageSize, StateHash};
use genesis_wal::position::{WalIdentity, WalPosition};
use genesis_wal::scan::{FrameRef, Transaction};
use tokio::sync::Notify;

use crate::replicate::base::Earlier;
use crate::replicate::record::{Frames, State};
use crate::simulated::Random;
use crate::sqlite::SourceError;

/// Bytes in a page, the fewest that SQLite has.
pub const PAGE: usize = 512;

/// The page size.
pub fn page_size() -> PageSize {
    PageSize::new(512).unwrap()
}

/// The pages of a database in one state.
pub type Pages = Arc<Vec<Arc<[u8; PAGE]>>>;

/// A state's bytes.
pub fn bytes_of(pages: &Pages) -> Vec<u8> {
    pages.iter().flat_map(|page| page.iter().copied()).collect()
}

/// A state's hash.
pub fn hash_of(pages: &Pages) -> StateHash {
    let hashes = (1..).zip(pages.iter()).map(|(n, page)| PageHash::of(number(n), &page[..]));
    hashes.fold(StateHash::default(), StateHash::with)
}

fn number(page: usize) -> PageNumber {
    PageNumber::new(u32::try_from(page).unwrap()).unwrap()
}

/// A commit: a frame for each page that it wrote, the last of which is `frame`.
#[derive(Debug)]
struct Commit {
    written: Vec<PageNumber>,
    after: Pages,
    frame: u32,
    checksum: Checksum,
    identity: WalIdentity,
    change: u32,
}

/// A database.
#[derive(Debug)]
pub struct Database {
    first: Pages,
    commits: Vec<Commit>,
    identity: WalIdentity,
    /// The first commit in the WAL; what it continues is in the file.
    begun: usize,
    change: u32,
    /// What a follower has read, which holds the WAL; `None` where nobody does.
    pub held: Option<usize>,
    /// Rung at each commit, and where a process is told to finish.
    pub bell: Arc<Notify>,
}

impl Database {
    /// A database in some state, with an empty WAL.
    pub fn new(first: Pages, random: &mut Random) -> Self {
        let (commits, identity) = (Vec::new(), identity(random));
        Self { first, commits, identity, begun: 0, change: 0, held: None, bell: Arc::default() }
    }

    /// A state that nobody has.
    pub fn drawn(random: &mut Random) -> Pages {
        let most = random.one_of(&[4, 40, 300]);
        Arc::new((0..=random.below(most)).map(|_| Arc::new(drawn(random))).collect())
    }

    /// Commits so far.
    pub fn commits(&self) -> usize {
        self.commits.len()
    }

    /// The state after so many commits.
    pub fn state(&self, commits: usize) -> &Pages {
        commits.checked_sub(1).map_or(&self.first, |last| &self.commits[last].after)
    }

    /// The state now.
    pub fn current(&self) -> &Pages {
        self.state(self.commits())
    }

    /// Changes some pages.
    pub fn commit(&mut self, random: &mut Random) {
        let mut pages = Vec::clone(self.current());
        let most = random.one_of(&[1, 3, 3, 60]);
        let mut written: Vec<usize> =
            (0..=random.below(most)).map(|_| random.index(pages.len())).collect();
        if random.once_in(6) {
            let grown = pages.len() + 1 + random.index(4);
            written.extend(pages.len()..grown);
            pages.resize_with(grown, || Arc::new(drawn(random)));
        } else if random.once_in(15) {
            pages.truncate(1 + random.index(pages.len()));
            written.retain(|page| *page < pages.len());
            written.push(0);
        }
        written.sort_unstable();
        written.dedup();
        for page in &written {
            let page = Arc::make_mut(&mut pages[*page]);
            if random.once_in(4) {
                *page = drawn(random);
            }
            page[..8].copy_from_slice(&random.bits().to_le_bytes());
        }
        let written: Vec<_> = written.into_iter().map(|page| number(page + 1)).collect();
        let frames = u32::try_from(written.len()).unwrap();
        let frame = self.last_in_wal().map_or(0, |last| last.frame) + frames;
        let checksum = Checksum(low(random.bits()), low(random.bits()));
        self.change = self.change.wrapping_add(1);
        let (after, identity, change) = (Arc::new(pages), self.identity, self.change);
        self.commits.push(Commit { written, after, frame, checksum, identity, change });
        self.bell.notify_one();
    }

    /// Begins the WAL anew, unless somebody holds it who has not read all of it.
    pub fn restart_wal(&mut self, random: &mut Random) {
        if self.held.is_none_or(|read| read == self.commits()) {
            self.identity = identity(random);
            self.begun = self.commits();
        }
    }

    /// Loses the last commits, as a power loss may take them. The WAL begins anew.
    pub fn lose(&mut self, commits: usize, random: &mut Random) {
        let left = self.commits().saturating_sub(commits);
        self.commits.truncate(left);
        self.held = None;
        self.restart_wal(random);
    }

    /// The place in the WAL after so many commits, where it is in a WAL.
    pub fn position(&self, commits: usize) -> Option<WalPosition> {
        let commit = commits.checked_sub(1).map(|last| &self.commits[last])?;
        let pages = u32::try_from(commit.after.len()).unwrap();
        let Commit { identity, frame, checksum, change, .. } = *commit;
        Some(WalPosition { identity, frame, checksum, change, pages })
    }

    /// After how many commits a place in the current WAL is, or the end of one before that nothing
    /// came after.
    pub fn place(&self, position: &WalPosition) -> Option<usize> {
        let is_old = usize::from(self.commits() > self.begun);
        ((self.begun + is_old).max(1)..=self.commits())
            .find(|&commits| self.position(commits) == Some(*position))
    }

    /// Whether the last of so many commits is in the current WAL.
    pub fn has_in_wal(&self, commits: usize) -> bool {
        commits > self.begun
    }

    /// What the commit of this number wrote.
    pub fn transaction(&self, number: usize) -> Transaction {
        let Commit { written, after, frame, checksum, .. } = &self.commits[number];
        let first = frame + 1 - u32::try_from(written.len()).unwrap();
        let images = (first..).zip(written).map(|(frame, &page)| FrameRef { page, frame });
        let pages = u32::try_from(after.len()).unwrap();
        Transaction { pages, images: images.collect(), frame: *frame, checksum: *checksum }
    }

    /// The WAL that holds the commit of this number.
    pub fn frames(&self, number: usize) -> WalFrames<'_> {
        WalFrames { database: self, identity: self.commits[number].identity }
    }

    fn last_in_wal(&self) -> Option<&Commit> {
        self.commits[self.begun..].last()
    }
}

fn identity(random: &mut Random) -> WalIdentity {
    let header_checksum = Checksum(low(random.bits()), low(random.bits()));
    WalIdentity { salts: Salts(random.bits().to_le_bytes()), header_checksum }
}

fn low(bits: u64) -> u32 {
    u32::try_from(bits & u64::from(u32::MAX)).unwrap()
}

fn drawn(random: &mut Random) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    let end = 8 * (1 + random.index(PAGE / 8));
    for bytes in page[..end].chunks_exact_mut(8) {
        bytes.copy_from_slice(&random.bits().to_le_bytes());
    }
    page
}

/// How the pages of a state lie in blocks.
pub fn layout(pages: &Pages) -> BlockLayout {
    BlockLayout { page_size: page_size(), pages: u32::try_from(pages.len()).unwrap() }
}

/// The frames of one WAL.
pub struct WalFrames<'a> {
    database: &'a Database,
    identity: WalIdentity,
}

impl WalFrames<'_> {
    fn find(&self, frame: u32) -> Option<&[u8; PAGE]> {
        let commits = self.database.commits.iter().filter(|c| c.identity == self.identity);
        let commit = commits.clone().find(|commit| frame <= commit.frame)?;
        let behind = (commit.frame - frame) as usize;
        let page = commit.written[commit.written.len() - 1 - behind];
        Some(&commit.after[page.index()])
    }
}

impl Earlier for WalFrames<'_> {
    type Error = SourceError;

    fn read_frame(&mut self, frame: u32, page: &mut [u8]) -> Result<bool, SourceError> {
        let found = self.find(frame);
        page.copy_from_slice(found.unwrap_or(&[0; PAGE]));
        Ok(found.is_some())
    }

    fn read_file(&mut self, number: PageNumber, page: &mut [u8]) -> Result<(), SourceError> {
        let begun = self.database.commits.iter().position(|c| c.identity == self.identity);
        let file = self.database.state(begun.unwrap());
        page.copy_from_slice(file.get(number.index()).map_or(&[0; PAGE], |page| &**page));
        Ok(())
    }
}

impl Frames for WalFrames<'_> {
    fn go_to(&mut self, _first: u32, _last: u32) -> Result<(), SourceError> {
        Ok(())
    }

    fn page(&mut self, image: FrameRef, _salts: Salts) -> Result<Option<&[u8]>, SourceError> {
        Ok(self.find(image.frame).map(|page| &page[..]))
    }

    fn held(&self, frame: u32) -> Option<&[u8]> {
        self.find(frame).map(|page| &page[..])
    }
}

/// Reads a state.
pub struct Still<'a>(pub &'a Pages);

impl State for Still<'_> {
    fn read(&mut self, first: PageNumber, buffer: &mut [u8]) -> Result<(), SourceError> {
        for (page, room) in self.0[first.index()..].iter().zip(buffer.chunks_mut(PAGE)) {
            room.copy_from_slice(&page[..]);
        }
        Ok(())
    }
}

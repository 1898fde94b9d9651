//! The start: `establish.rs`.

use genesis_wal::index::IndexHeader;
use genesis_wal::position::{WalIdentity, WalPosition};
use genesis_wal::scan::{ScanEnd, Scanner};

use super::super::world::{PAGES, State, Tip, index_of, page_size, pages};
use super::{FEW, Held, Life};
use crate::replicate::cursor::Cursor;
use crate::replicate::ratchet::Ratchet;

impl Life {
    pub(super) async fn begin_generation(&mut self, held: &Held) {
        let header = held.look.index.header;
        let wal = self.op(|world| world.wal_header()).await;
        self.cursor = Cursor::at(page_size(), &header, wal, pages());
        let upto = if held.overlay { header.max_frame } else { 0 };
        let state = self.capture(&header, upto, None).await.expect("the held state");
        self.sim.world().tally.generations += 1;
        self.start_from(held, held.look.published, state, false);
        self.seal();
    }

    /// Whether the tip is continued.
    pub(super) async fn resume(&mut self, held: &Held, tip: Tip) -> bool {
        let (recorded, header) = (self.sim.world().state_at(tip.commits), held.look.index.header);
        let wal = self.op(|world| world.wal_header()).await;
        let place =
            tip.position.filter(|p| wal.as_ref().map(WalIdentity::from) == Some(p.identity));
        // On read mark 0 nothing keeps what was committed after the place.
        let kept = |place: &WalPosition| held.overlay || place.frame == header.max_frame;
        if let Some(place) = place.filter(kept) {
            let state = self.capture(&header, place.frame, Some(place)).await;
            if state == Some(recorded) {
                let change = header.change.wrapping_sub(self.commits_after);
                self.cursor = Cursor::at_position(page_size(), &WalPosition { change, ..place });
                self.sim.world().tally.resumed += 1;
                self.start_from(held, tip.commits, recorded, true);
                return true;
            }
        }
        let wal = self.op(|world| world.wal_header()).await;
        let cursor = Cursor::at(page_size(), &header, wal, pages());
        let upto = if held.overlay { header.max_frame } else { 0 };
        let state = self.capture(&header, upto, None).await;
        let proven = state == Some(recorded) && tip.commits == held.look.published;
        if proven {
            self.cursor = cursor;
            self.start_from(held, tip.commits, recorded, false);
        }
        proven
    }

    fn start_from(&mut self, held: &Held, commits: usize, state: State, absent: bool) {
        (self.settled, self.of_two_minds, self.absent) = (None, None, absent);
        (self.counted_at, self.settled_at) = (held.look.recoveries, held.look.recoveries);
        (self.last, self.unsealed) = (self.cursor.position(), 1);
        self.ratchet = Ratchet::with_few(FEW);
        let mut world = self.sim.world();
        assert_eq!(state, world.state_at(commits), "the captured state was never committed");
        let replica = &mut world.replica;
        (replica.commits, replica.state) = (commits, state);
        replica.as_of = (!absent).then_some(held.look.step);
    }

    /// The database with the frames up to `upto` over the file; `None` when `place` is not reached.
    async fn capture(
        &mut self,
        index: &IndexHeader,
        upto: u32,
        place: Option<WalPosition>,
    ) -> Option<State> {
        let mut overlay = [0; PAGES];
        if upto > 0 {
            let wal = self.op(|world| world.wal_header()).await?;
            let scanner = Scanner::new(wal, 0, wal.checksum, index);
            let (end, transactions) = self.run(scanner).await;
            if end != ScanEnd::Clean {
                return None;
            }
            let mut reached = None;
            let after = transactions.iter().filter(|t| t.frame > upto).count();
            self.commits_after = u32::try_from(after).unwrap();
            for transaction in transactions.iter().filter(|t| t.frame <= upto) {
                reached = Some((transaction.frame, transaction.checksum));
                for image in &transaction.images {
                    overlay[index_of(image.page.get())] = image.frame;
                }
            }
            if place.is_some_and(|place| reached != Some((place.frame, place.checksum))) {
                return None;
            }
        }
        let mut state = [0; PAGES];
        for (page, frame) in overlay.into_iter().enumerate() {
            let read = self.op(|world| match frame {
                0 => Some(world.database[page]),
                _ => world.frame(frame).map(|(_, stamp)| stamp),
            });
            state[page] = read.await?;
        }
        Some(state)
    }
}

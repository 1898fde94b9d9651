//! The books of the locks that keep the WAL.

/// One of the locks that keep the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guard {
    /// Not held.
    #[default]
    Free,
    /// Held, and not everything was copied since.
    Fresh,
    /// Held, and everything that was committed when it was acquired has been copied since.
    Proven,
}

/// The locks that keep the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holds {
    /// The older read transaction.
    pub older: Guard,
    /// The newer read transaction.
    pub newer: Guard,
    /// The pin on a read slot.
    pub pin: Guard,
    /// The write lock.
    pub write: Guard,
}

impl Holds {
    /// Everything that was committed by now has been copied.
    pub(super) fn copied(&mut self) {
        for guard in [&mut self.older, &mut self.newer, &mut self.pin, &mut self.write] {
            if *guard == Guard::Fresh {
                *guard = Guard::Proven;
            }
        }
    }

    /// A read transaction was begun.
    pub(super) fn begin(&mut self) {
        let free = if self.older == Guard::Free { &mut self.older } else { &mut self.newer };
        *free = Guard::Fresh;
    }

    /// The older read transaction was ended, or the only one.
    pub(super) fn end(&mut self) {
        self.older = std::mem::take(&mut self.newer);
    }

    /// Whether a successor that was proven is held.
    pub(super) fn is_kept(self) -> bool {
        [self.older, self.newer, self.pin, self.write].contains(&Guard::Proven)
    }
}

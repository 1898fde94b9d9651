//! Choices that a seed repeats.

use genesis_replicate::durable;

use super::setting;

/// `SplitMix64`: enough for choices.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The choices of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `below`.
    pub fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    /// One of several.
    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.next(choices.len() as u64)).unwrap()]
    }
}

/// Tells the seed of a run that fails. `GENESIS_SEED` repeats it.
#[derive(Debug)]
pub struct Repeatable(u64);

impl Repeatable {
    /// A run with the seed that is set, or another.
    pub fn new() -> Self {
        Self(setting("GENESIS_SEED").unwrap_or_else(|| durable::random().unwrap()))
    }

    /// Its choices.
    pub fn random(&self) -> Random {
        Random::new(self.0)
    }
}

impl Drop for Repeatable {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to repeat the choices of this run: GENESIS_SEED={}", self.0);
        }
    }
}

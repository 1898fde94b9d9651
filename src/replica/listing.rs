//! What a listing tells of the epochs of a replica. Names and values only: nothing here knows of a store.

use std::collections::BTreeSet;

use genesis_wal::id::Epoch;
use genesis_wal::name::{ClaimName, ObjectName};

/// What is listed of the epochs of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Epochs {
    claims: Vec<ClaimName>,
    begun: BTreeSet<Epoch>,
    released: BTreeSet<Epoch>,
}

impl Epochs {
    /// The epochs in a listing.
    #[must_use]
    pub fn of(names: impl IntoIterator<Item = ObjectName>) -> Self {
        let mut epochs = Self::default();
        for name in names {
            match name {
                ObjectName::Claim(claim) => epochs.claims.push(claim),
                ObjectName::Base(epoch) => {
                    epochs.begun.insert(epoch);
                }
                ObjectName::Release(epoch) => {
                    epochs.released.insert(epoch);
                }
                _ => {}
            }
        }
        epochs
    }

    /// The claims, in the order of the listing.
    #[must_use]
    pub fn claims(&self) -> &[ClaimName] {
        &self.claims
    }

    /// Whether the writer of an epoch has said what it continues.
    #[must_use]
    pub fn is_begun(&self, epoch: Epoch) -> bool {
        self.begun.contains(&epoch)
    }

    /// Whether an epoch was released.
    #[must_use]
    pub fn is_released(&self, epoch: Epoch) -> bool {
        self.released.contains(&epoch)
    }

    /// The highest epoch that was ever claimed, whether anybody got it or not.
    #[must_use]
    pub fn highest(&self) -> Option<Epoch> {
        self.claims.iter().map(|claim| claim.epoch).max()
    }

    /// Whether the highest epoch was claimed by a name with a nonce, or without.
    #[must_use]
    pub fn highest_is(&self, with_nonce: bool) -> bool {
        let mut claims = self.claims.iter().filter(|claim| Some(claim.epoch) == self.highest());
        claims.any(|claim| claim.nonce.is_some() == with_nonce)
    }

    /// The epochs that were claimed, newest first.
    pub fn claimed(&self) -> impl Iterator<Item = Epoch> {
        let epochs: BTreeSet<Epoch> = self.claims.iter().map(|claim| claim.epoch).collect();
        epochs.into_iter().rev()
    }

    /// The claims of an epoch, in the order of their names: the one without a nonce comes first.
    #[must_use]
    pub fn claims_of(&self, epoch: Epoch) -> Vec<ClaimName> {
        let mut claims: Vec<_> =
            self.claims.iter().filter(|claim| claim.epoch == epoch).copied().collect();
        claims.sort_unstable();
        claims
    }
}

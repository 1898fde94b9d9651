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

    /// The highest epoch that somebody got. One that several claimed, and none of them began, nobody
    /// did.
    #[must_use]
    pub fn last(&self) -> Option<Epoch> {
        let claimed = self.claims.iter().map(|claim| claim.epoch);
        claimed.filter(|&epoch| self.begun.contains(&epoch) || self.claim_of(epoch).is_some()).max()
    }

    /// Whether the highest epoch was claimed by a name with a nonce, or without.
    #[must_use]
    pub fn highest_is(&self, with_nonce: bool) -> bool {
        let mut claims = self.claims.iter().filter(|claim| Some(claim.epoch) == self.highest());
        claims.any(|claim| claim.nonce.is_some() == with_nonce)
    }

    /// The claim of an epoch, where there is only one.
    #[must_use]
    pub fn claim_of(&self, epoch: Epoch) -> Option<ClaimName> {
        let mut claims = self.claims.iter().filter(|claim| claim.epoch == epoch);
        claims.next().filter(|_| claims.next().is_none()).copied()
    }
}

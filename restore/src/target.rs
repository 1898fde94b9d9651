//! Which state is asked for.

use std::fmt;

use genesis_wal::id::Txid;
use genesis_wal::time::Micros;

/// The state that a restore gives back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// The last one recorded.
    Latest,
    /// The state right after a transaction.
    Txid(Txid),
    /// The state at a time: after the last transaction that was committed by then.
    Time(Micros),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("the latest state"),
            Self::Txid(txid) => write!(f, "transaction {}", txid.0),
            Self::Time(time) => write!(f, "the state at {}", *time),
        }
    }
}

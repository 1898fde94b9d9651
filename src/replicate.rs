//! Follows one database and ships it to one replica.
//!
//! | module | holds |
//! | --- | --- |
//! | `cursor`, `engine`, `ratchet`, `table` | the decisions, as values without I/O |
//! | `holds` | how long the application's writers were held |
//! | `scan`, `record`, `capture`, `establish` | the steps: read, record, snapshot, begin |
//! | `follow`, `tail` | the driver: one thread a database |
//! | `spool`, `ship` | what waits for upload, and the upload |
//! | `session` | all of it together, started and stopped |

mod capture;
mod cursor;
mod engine;
mod establish;
mod follow;
mod holds;
mod origin;
mod ratchet;
mod record;
mod scan;
mod session;
mod ship;
#[cfg(test)]
mod simulation;
mod spool;
mod state;
mod table;
mod tail;
mod watch;

pub use establish::EstablishError;
pub use follow::{FollowError, Stage};
pub use holds::WriterHolds;
pub use record::RecordError;
pub use session::{Options, Report, Session, SessionError};
pub use state::StateError;

//! Follows one database and ships it to one replica.
//!
//! | module | holds |
//! | --- | --- |
//! | `base`, `cursor`, `engine`, `ratchet`, `gap`, `passes` | the decisions, as values without I/O |
//! | `ownership`, `likeness` | whether this start may have the replica, and whether the database is the one in it |
//! | `origin`, `establish` | the beginning: what the replica holds, and how the source continues it |
//! | `follow`, `tail`, `scan` | the driver: one thread a database |
//! | `restored` | what a restore leaves for them |
//! | `record`, `segments`, `table` | transactions through the page table into segments |
//! | `attend`, `snapshots`, `capture`, `kept` | beside that: comparing pages, making snapshots |
//! | `times` | when transactions were committed |
//! | `holds` | how long the application's writers were held |
//! | `readback`, `underhand`, `audit` | whether the database holds what was recorded, and only that |
//! | `idle` | threads that run when nothing else wants to |
//! | `spool`, `ship`, `merging` | what waits for upload, the upload, and what is merged after it |
//! | `session` | all of it together, started and stopped |

mod attempts;
mod attend;
mod audit;
mod base;
mod capture;
mod cursor;
mod engine;
mod establish;
mod follow;
mod followed;
mod gap;
mod holds;
mod idle;
mod kept;
mod likeness;
mod merging;
mod origin;
mod ownership;
mod packing;
mod passes;
mod ratchet;
mod readback;
mod record;
mod restored;
mod scan;
mod segments;
mod session;
mod ship;
#[cfg(test)]
mod shipping_simulation;
#[cfg(test)]
mod simulation;
mod snapshots;
mod spool;
mod state;
mod table;
mod tail;
mod times;
mod underhand;
mod watch;

pub use establish::EstablishError;
pub use follow::{FollowError, Stage};
pub use holds::WriterHolds;
pub use ownership::Allowed;
pub use record::RecordError;
pub(crate) use restored::leave;
pub use session::{Options, Report, Session, SessionError, canonical};
pub use ship::ShipError;
pub use spool::Limits as SpoolLimits;
pub(crate) use state::StateFolder;
pub use state::{StateError, state_folder};
pub(crate) use table::{AsOf, PageTable};

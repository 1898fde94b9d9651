//! What the tests share: a place to work in, guarded processes, applications, and comparisons.

mod application;
mod broken_calls;
mod changing;
mod clock;
mod compare;
mod fuse;
mod memory;
mod mount;
mod past;
mod process;
mod proxy;
mod random;
mod s3;
mod sandbox;
mod trace;
mod wait;

pub use application::{Application, Sqlite};
pub use broken_calls::BrokenCalls;
pub use changing::Changing;
pub use clock::WallClock;
pub use compare::{assert_same, contents, contents_of, rows, rows_of, same_bytes, wal_frames};
pub use fuse::Fuse;
pub use memory::{Call, FaultyStore};
pub use mount::Mounted;
pub use past::{Past, time};
pub use process::{Ended, Process};
pub use proxy::{Fault, Proxy, Request};
pub use random::{Random, Repeatable};
pub use s3::Server;
pub use sandbox::{Sandbox, files_below, mode, rename, write};
pub use trace::{can_attach, can_trace, failing_at, failing_on, killed_at, traced};
pub use wait::{setting, wait_until};

//! What the tests share: a place to work in, guarded processes, applications, and comparisons.

mod application;
mod broken_calls;
mod clock;
mod compare;

mod fuse;
mod memory;
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
pub use clock::WallClock;
pub use compare::{assert_same, contents, contents_of, same_bytes};

pub use fuse::Fuse;
pub use memory::{Call, FaultyStore};
pub use past::{Past, time};
pub use process::{Ended, Process};
pub use proxy::{Fault, Proxy, Request};
pub use random::{Random, Repeatable};
pub use s3::{Server, free_port};
pub use sandbox::{Sandbox, files_below, mode};
pub use trace::{can_trace, failing_at, killed_at, traced};
pub use wait::{setting, wait_until};

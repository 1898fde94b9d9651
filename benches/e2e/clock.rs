//! The clock that the writer's times are on, too, and the replicator's of what it recorded.

pub use genesis_replicate::clock::{machine_nanos as nanos, rest};

//! Follows an SQLite database's write-ahead log from beside the application, ships every committed
//! transaction to a replica, and restores the database as it was after any of them.

pub mod clock;
pub mod durable;
pub mod object;
pub mod replica;
pub mod replicate;
pub mod sqlite;
pub mod store;
pub mod telemetry;

//! The `genesis-replicate` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    genesis_replicate::cli::main()
}

//! `ig version`, `gadgetctl version`.

use crate::error::CliError;
use std::process::ExitCode;

pub fn run(program: &str) -> Result<ExitCode, CliError> {
    super::print(format!("{program} v{}\n", env!("CARGO_PKG_VERSION")).as_bytes())
}

/// As `run`, with the version of the contract that client and daemon will agree on.
pub fn client() -> Result<ExitCode, CliError> {
    let (major, minor) = ig_api::CONTRACT_VERSION;
    super::print(format!("gadgetctl v{} (daemon contract v{major}.{minor})\n", env!("CARGO_PKG_VERSION")).as_bytes())
}

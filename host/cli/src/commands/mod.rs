//! One file a command.

pub(crate) mod completion;
pub mod doctor;
pub(crate) mod gadgets;
mod help;
pub mod image;
pub mod list_containers;
pub mod list_gadgets;
pub mod replay;
pub mod run;
pub(crate) mod several;
pub mod version;

use crate::error::CliError;
use std::{io::Write, process::ExitCode};

/// Writes a command's answer to stdout. A closed pipe ends quietly.
pub fn print(text: &[u8]) -> Result<ExitCode, CliError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CliError::environment(format!("writing to stdout: {e}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

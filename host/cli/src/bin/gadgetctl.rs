//! `gadgetctl`: the unprivileged client of `ig daemon`. The daemon is not there yet, so it can only say its version.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("version" | "--version" | "-V") => match ig::commands::version::client() {
            Ok(code) => code,
            Err(e) => e.exit_code(),
        },
        other => {
            if let Some(other) = other {
                ig::output::say(&format!("error: unknown command {other:?}"));
            }
            ig::output::say(
                "usage: gadgetctl version\nThe daemon it is to talk to (`ig daemon`) is not part of this release.",
            );
            ExitCode::from(ig::error::Kind::User as u8)
        }
    }
}

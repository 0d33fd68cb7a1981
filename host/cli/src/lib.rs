//! The command line of ig. The only crate that knows clap, terminals and exit codes, and the only one that prints.

#![forbid(unsafe_code)]

pub mod args;
pub mod columns;
pub mod commands;
pub mod config;
pub mod containers;
pub mod context;
pub mod documents;
pub mod error;
pub mod images;
pub mod output;
mod screen;
pub mod systemd;
pub mod tables;
pub mod verbs;

use args::{Cli, Command};
use clap::{CommandFactory, FromArgMatches};
use std::{ffi::OsString, process::ExitCode};

/// Runs the command line; what the process is to exit with comes back.
pub fn main(args: Vec<OsString>) -> ExitCode {
    match dispatch(args) {
        Ok(code) => code,
        Err((error, verbose)) => {
            output::say(error.render(verbose).trim_end());
            error.exit_code()
        }
    }
}

fn dispatch(args: Vec<OsString>) -> Result<ExitCode, (error::CliError, bool)> {
    let verbose = args.iter().any(|a| a == "-v" || a == "--verbose");
    let fail = |e| (e, verbose);
    if systemd::is_wanted(&args) {
        let ctx = context::Context::new(&args::GlobalArgs::default()).map_err(fail)?;
        return systemd::run(&args, &ctx).map_err(|e| fail(e.into()));
    }
    let verb = verbs::translate(&args).map_err(fail)?;
    let args = verb.as_ref().map_or(args, |v| v.args.clone());
    // `run GADGET` has flags that only the gadget knows: they are added before the real parse.
    let prepared = commands::run::prepare(&args).map_err(fail)?;
    let mut command = verbs::extend(Cli::command());
    if let Some(p) = &prepared {
        command = p.extend(command).map_err(fail)?;
    }
    if let Some(v) = &verb {
        command = v.extend(command);
    }
    let matches = match command.try_get_matches_from_mut(&args) {
        Ok(m) => m,
        Err(e) => {
            return match prepared.as_ref().and_then(|p| p.unknown_flag(&e, &command)) {
                Some(error) => Err(fail(error)),
                None => Ok(usage(&e)),
            };
        }
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(c) => c,
        Err(e) => return Ok(usage(&e)),
    };
    let ctx = context::Context::new(&cli.global).map_err(fail)?;
    let done = match cli.command {
        Command::Run(args) => commands::run::run(&args, prepared, &matches, &ctx),
        Command::Replay(args) => commands::replay::run(&args, &ctx),
        Command::Image(args) => commands::image::run(args, &ctx),
        Command::ListContainers(args) => commands::list_containers::run(&args, &ctx),
        Command::ListGadgets(args) => commands::list_gadgets::run(args, &ctx),
        Command::Doctor(args) => commands::doctor::run(&args, &ctx),
        Command::Version => commands::version::run("ig"),
        Command::Completion { shell } => commands::completion::run(shell, &ctx),
    };
    done.map_err(fail)
}

/// Help and usage errors in clap's words, with our exit codes.
fn usage(e: &clap::Error) -> ExitCode {
    let text = e.render().to_string();
    if e.use_stderr() {
        output::say(text.trim_end());
        ExitCode::from(error::Kind::User as u8)
    } else {
        commands::print(text.as_bytes()).unwrap_or(ExitCode::from(error::Kind::Environment as u8))
    }
}

//! A test machine by hand: `vm SUITE` for a shell in it, `vm SUITE FILTER` for the tests whose name contains FILTER ("" for
//! all). Root is not needed.

#![expect(clippy::print_stderr, reason = "a tool for developers")]

use ig_tests::vm::machine::{Job, Machine};
use std::{path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (suite, job) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [suite] => (suite, Job::Shell),
        [suite, filter] => (suite, Job::Tests { filter: filter.to_owned() }),
        _ => {
            eprintln!("usage: vm bullseye|bookworm|trixie|sid [FILTER]");
            return ExitCode::from(2);
        }
    };
    let init =
        std::env::current_exe().map(|p| p.with_file_name("vm-init")).unwrap_or_else(|_e| PathBuf::from("vm-init"));
    let machine = Machine::new(suite, &init);
    match job {
        Job::Shell => machine.shell(),
        Job::Tests { filter } => {
            let outcome = machine.test(&filter);
            eprintln!("{}", outcome.console);
            if outcome.failures().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}

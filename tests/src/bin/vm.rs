//! A test machine by hand: `vm SUITE` for a shell in it, `vm SUITE FILTER` for the tests whose name contains FILTER ("" for
//! all; IG_VM_EVERY=1 for every test of each gadget). Root is not needed.

#![expect(clippy::print_stderr, reason = "a tool for developers")]

use ig_tests::vm::machine::{Choice, Job, Machine};
use std::{path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (suite, job) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [suite] => (suite, Job::Shell),
        [suite, filter] => (suite, Job::Tests(Choice { filter: filter.to_owned(), ..Choice::from_env() })),
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
        Job::Tests(choice) => {
            let outcome = machine.test(&choice);
            eprintln!("{}", outcome.console);
            if outcome.failures().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}

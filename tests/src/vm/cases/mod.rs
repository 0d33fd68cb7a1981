//! The cases, by name: plain functions that panic when something is wrong, run in the guest with the whole machine to
//! themselves.
//!
//! A new case is a function in one of these files and a line in the list. What it needs in the guest's file system is put
//! there by `machine::pack`.

mod attach;
mod containers;
mod embedded;
mod gadgets;
mod runtimes;
mod tidy;

use super::{EVERY, GADGETS, STORE};
use crate::{gadget_case, ig::Ig};
use std::path::Path;

/// A test that runs in the guest.
pub struct Case {
    pub name: String,
    pub run: Box<dyn Fn()>,
}

/// All cases, in the order in which they run.
pub fn cases() -> Vec<Case> {
    let all: [(&'static str, fn()); 20] = [
        ("trace_exec_shows_one_program_exactly", embedded::trace_exec),
        ("trace_exec_shows_failed_execs", embedded::trace_exec_failed),
        ("trace_open_shows_every_open_exactly", embedded::trace_open),
        ("snapshot_process_shows_each_process_once", embedded::snapshot_process),
        ("comm_filters_compare_whole_names", embedded::comm_filters),
        ("every_kind_of_hook_sees_exact_values", attach::hooks),
        ("uprobes_by_path_see_exact_values", attach::uprobes),
        ("perf_events_follow_gadget_yaml", attach::perf_events),
        ("iterators_show_exact_rows", attach::iterators),
        ("perf_event_arrays_are_read", attach::perf_arrays),
        ("map_tables_are_read", attach::map_tables),
        ("missing_hooks_are_skipped_and_said", attach::missing_hooks),
        ("runc_containers_are_seen_and_named", runtimes::runc),
        ("crun_containers_are_seen_and_named", runtimes::crun),
        ("runc_container_chosen_before_it_exists", runtimes::runc_chosen),
        ("crun_container_chosen_before_it_exists", runtimes::crun_chosen),
        ("sigkill_leaves_nothing_attached", tidy::sigkill),
        ("opens_are_all_seen_or_counted_lost", tidy::opens_accounted),
        ("execs_are_all_seen_or_counted_lost", tidy::execs_accounted),
        ("skipped_runs_of_the_socket_enricher_are_in_the_ledger", tidy::socket_enricher_skipped),
    ];
    let fixed = all.into_iter().map(|(name, run)| Case { name: name.to_owned(), run: Box::new(run) });
    let gadgets = gadget_case::names(Path::new(GADGETS)).into_iter();
    let gadgets = gadgets.map(|g| Case { name: format!("gadget-{g}"), run: Box::new(move || gadgets::run(&g)) });
    fixed.chain(gadgets).collect()
}

/// Whether every test of each gadget is to run, not only the first.
pub fn every() -> bool {
    std::env::var(EVERY).is_ok_and(|v| v == "1")
}

/// `ig run GADGET -o json`, with the machine's store.
fn run(gadget: &str, arguments: &[&str]) -> Ig {
    Ig::new(&["run", gadget, "-o", "json", "--ledger"]).args(arguments).store(Path::new(STORE))
}

/// The kernel's version, as in `(6, 12)`.
fn kernel() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
    let both = numbers.next().zip(numbers.next());
    both.unwrap_or_else(|| panic!("{release} is no kernel's version"))
}

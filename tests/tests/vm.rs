//! The cases of `ig_tests::vm` on other kernels, in QEMU: one test a kernel, so that a failure shows that machine's console. The
//! stable and the old stable Debian run with `make test`, all four with `make test-vm`. `IG_VM_FILTER=name` chooses cases,
//! `IG_VM_EVERY=1` every test of each gadget.

#![expect(clippy::print_stdout, reason = "shown with --nocapture: what each case took")]

use ig_tests::{
    gadget_table,
    vm::machine::{Choice, Machine},
};
use std::path::Path;

fn every_case_passes(suite: &str) {
    let machine = Machine::new(suite, Path::new(env!("CARGO_BIN_EXE_vm-init")));
    let outcome = machine.test(&Choice::from_env());
    let failures = outcome.failures();
    assert!(failures.is_empty(), "Debian {suite}: {}\n{}", failures.join(", "), outcome.console);
    let wrong = gadget_table::compare_or_update(&outcome.kernel, &outcome.gadgets);
    assert!(wrong.is_empty(), "run it with {}=1 and look at the change:\n{}", gadget_table::UPDATE, wrong.join("\n"));
    println!("{}\n{} tests in {:?}", outcome.console, outcome.results.len(), outcome.took);
}

#[test]
#[ignore = "run by make test-vm"]
fn kernel_5_10_of_bullseye() {
    every_case_passes("bullseye");
}

#[test]
fn kernel_6_1_of_bookworm() {
    every_case_passes("bookworm");
}

#[test]
fn kernel_6_12_of_trixie() {
    every_case_passes("trixie");
}

#[test]
#[ignore = "run by make test-vm"]
fn newest_kernel_of_sid() {
    every_case_passes("sid");
}

//! Every gadget of the catalogue: the first test of its `test.yaml`, and those that ask for hooks which not every kernel has
//! (with `IG_VM_EVERY=1` all), with containers of runc. What became of it goes to the console, for `docs/gadgets.md`.

#![expect(clippy::print_stdout, reason = "the console is where facts go")]

use super::{containers::Runc, every};
use crate::{
    gadget_case::{self, Verdict},
    gadget_table,
    vm::{FACT, GADGETS, WITHOUT},
};
use std::path::Path;

/// Runs one gadget's cases, each of them whatever becomes of the others; `ig` may refuse it on kernels that lack what it needs,
/// if it names that. What a case does not ask for on this kernel is said, and makes no cell of the table.
pub(super) fn run(gadget: &str) {
    let folder = Path::new(GADGETS).join(gadget);
    let engine = Runc::new(&folder.join("rootfs"));
    let cases = gadget_case::read(&folder);
    let (mut cell, mut wrong) = (None, Vec::new());
    for (n, case) in cases.iter().enumerate().filter(|(n, c)| *n == 0 || c.has_needs() || every()) {
        let without = case.not_asked_here();
        without.iter().for_each(|what| println!("{WITHOUT} {gadget}: {:?}: {what}", case.name));
        match case.attempt(gadget, &engine, &format!("case-{n}")) {
            Verdict::Passed { stderr } if !case.shows_nothing_here() => {
                cell.get_or_insert_with(|| gadget_table::passed(&gadget_case::hooks(&stderr)));
            }
            Verdict::Passed { .. } => {}
            Verdict::Refused { stderr } => {
                may_be_refused(gadget, &stderr);
                cell.get_or_insert_with(|| gadget_table::refused(&stderr));
            }
            Verdict::Failed(why) => wrong.push(format!("{gadget}: {}: {why}", case.name)),
        }
    }
    assert!(wrong.is_empty(), "{} failed:\n{}", wrong.len(), wrong.join("\n\n"));
    println!("{FACT} {gadget} {}", cell.expect("a case that shows something here"));
}

/// A refusal must say what the kernel lacks.
fn may_be_refused(gadget: &str, stderr: &str) {
    let error = gadget_case::error(stderr);
    assert!(error.contains("this kernel has no "), "{gadget}: a refusal that names no feature:\n{stderr}");
}

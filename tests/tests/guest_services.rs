//! What a guest may ask of its host beyond its rows, and what it must not get: `tests/gadgets/asks` asks for all of it.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its case has failed")]

use ig_tests::{
    alone,
    ig::{Finished, Ig, at},
    source_root,
};
use rustix::{
    process::{Pid, getpgid},
    thread::{CpuSet, sched_setaffinity},
};

/// More calls than a page has room for, each about a process that cannot be: Linux gives no such numbers.
const CALLS: i32 = 3000;
const NOBODY: i32 = 5_000_000;

fn asks(arguments: &[&str]) -> Finished {
    let folder = source_root().join("tests/gadgets/asks");
    let ig = Ig::new(&["run", folder.to_str().unwrap(), "--host", "-o", "json", "--ledger"]);
    let ig = ig.args(&["--of", &std::process::id().to_string()]).args(arguments).start_ready();
    let mut one = CpuSet::new();
    one.set(0);
    sched_setaffinity(None, &one).unwrap();
    for value in 1..=CALLS {
        assert!(getpgid(Pid::from_raw(NOBODY + value)).is_err());
    }
    getpgid(None).unwrap();
    ig.stop()
}

/// The answer after `what: `.
fn answer<'a>(answers: &'a str, what: &str) -> &'a str {
    let start = format!("{what}: ");
    answers.lines().find_map(|l| l.strip_prefix(&start)).unwrap_or_else(|| panic!("no {what} in {answers}"))
}

mod root {
    use super::*;

    #[test]
    fn a_guest_reads_and_writes_its_own_and_nothing_else() {
        let _alone = alone();
        let done = asks(&[]).expect_success();
        let said = done.rows();
        let (documents, rows): (Vec<_>, Vec<_>) = said.iter().partition(|r| r["document"].is_string());
        let answers = documents[0]["document"].as_str().unwrap();
        // What counts records is checked below, by numbers.
        let fixed: Vec<&str> =
            answers.lines().filter(|l| !l.starts_with("first: ") && !l.starts_with("last: ")).collect();
        insta::assert_snapshot!(fixed.join("\n"));

        // The BPF half tells only of processes that the guest put into its map.
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(at(rows[0], "pid"), &std::process::id());

        let numbers = |what: &str| -> Vec<u64> {
            let words = answer(answers, what).split(|c: char| !c.is_ascii_digit());
            words.filter(|w| !w.is_empty()).map(|w| w.parse().unwrap()).collect()
        };
        let (total, nobody) = (CALLS as u64 + 1, NOBODY as u64);
        let [from, to, count, lost] = numbers("first")[..] else { panic!("{answers}") };
        assert_eq!(
            (from - nobody, to - nobody, count + lost),
            (1, count, total),
            "the first ones, without a gap:\n{answers}"
        );
        assert!(answer(answers, "first").contains("true"), "in order:\n{answers}");
        assert!((100..=200).contains(&count), "as many as a page has room for:\n{answers}");

        let [from, to, count, lost_last] = numbers("last")[..] else { panic!("{answers}") };
        assert_eq!((to, lost_last), (0, 0), "{answers}");
        // The newest is getpgid(0), so that the step before it is none by one.
        assert!(
            (100..=200).contains(&count) && from - nobody + count - 1 == total,
            "the last ones, without a gap:\n{answers}"
        );

        let ledger = done.ledger();
        assert_eq!(
            (ledger.gadget_lost, ledger.balanced),
            (lost + 5, true),
            "the kernel's count and the guest's own: {ledger:?}"
        );
    }

    #[test]
    fn what_a_guest_loses_counts_for_fail_on_loss_and_is_told() {
        let _alone = alone();
        let done = asks(&["--fail-on-loss"]);
        assert_eq!(done.code(), 4, "{}", done.stderr);
        assert!(done.stderr.contains("gadget_lost"), "{}", done.stderr);
    }
}

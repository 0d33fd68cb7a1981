//! Whatever ends a run, nothing stays attached or pinned.

use ig_tests::{alone, ig::Ig, ig::Running, kernel, wait_for};
use std::{process::Command, time::Duration};

fn running() -> Running {
    Ig::new(&["run", "trace_exec", "--host", "-o", "json"]).start_ready()
}

/// Runs `end` on a running gadget and checks that its BPF objects are gone afterwards.
fn nothing_is_left_after(end: impl FnOnce(Running)) {
    let pins = kernel::pins();
    let ig = running();
    let held = kernel::Objects::of(ig.pid());
    assert!(!held.programs.is_empty() && !held.maps.is_empty(), "a running gadget holds programs and maps: {held:?}");
    end(ig);
    // The kernel frees them after a grace period.
    wait_for("the kernel to drop every BPF object of the run", Duration::from_secs(120), || {
        held.still_there().is_empty().then_some(())
    });
    let new: Vec<_> = kernel::pins().difference(&pins).cloned().collect();
    assert!(new.is_empty(), "left pinned: {new:?}");
}

mod root {
    use super::*;

    #[test]
    fn sigint_ends_with_success_and_leaves_nothing() {
        let _alone = alone();
        nothing_is_left_after(|ig| {
            ig.stop().expect_success();
        });
    }

    #[test]
    fn sigterm_ends_with_success_and_leaves_nothing() {
        let _alone = alone();
        nothing_is_left_after(|ig| {
            ig.signal("TERM");
            ig.wait().expect_success();
        });
    }

    #[test]
    fn sigkill_leaves_nothing() {
        let _alone = alone();
        nothing_is_left_after(|ig| {
            ig.signal("KILL");
            assert_eq!(ig.wait().status.code(), None);
        });
    }

    #[test]
    fn a_closed_stdout_is_a_quiet_stop() {
        let _alone = alone();
        let ig = ig_tests::ig::binary();
        let dir = tempfile::tempdir().unwrap();
        let script = format!(
            "{} run trace_exec --host -o json --store {}/store 2>{}/err | head -n 1",
            ig.display(),
            dir.path().display(),
            dir.path().display()
        );
        let busy = "while :; do /bin/true; sleep 0.02; done & busy=$!; trap 'kill $busy' EXIT; ";
        let out = Command::new("timeout")
            .args(["180", "bash", "-c", &format!("{busy}{script}; exit ${{PIPESTATUS[0]}}")])
            .output()
            .unwrap();
        let stderr = std::fs::read_to_string(dir.path().join("err")).unwrap();
        assert_eq!(out.status.code(), Some(0), "{stderr}");
        assert_eq!(String::from_utf8_lossy(&out.stdout).lines().count(), 1);
        assert!(!stderr.to_lowercase().contains("broken pipe"), "{stderr}");
    }

    #[test]
    fn a_second_sigint_ends_at_once() {
        let _alone = alone();
        let mut ig = running();
        ig.signal("INT");
        // The first may have ended it already: then there is nobody to signal, which is as good.
        Command::new("kill").args(["-INT", &ig.pid().to_string()]).output().unwrap();
        ig.wait_at_most(Duration::from_secs(60));
    }
}

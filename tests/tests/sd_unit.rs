//! `--auto-sd-unit-restart` with a real systemd: a user instance of root's, in a mount namespace of its own, plays the
//! host's. It speaks the same protocol on the same kind of socket. Some 20 seconds in all.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its case has failed")]

use ig_tests::{
    alone,
    ig::{Ig, at},
};
use tempfile::TempDir;

const TRACE: [&str; 5] = ["run", "trace_exec", "--host", "-o", "json"];
const FLAG: &str = "--auto-sd-unit-restart";

/// Runs `ig` without the capabilities that a container lacks, below a host root with a systemd in it.
fn unprivileged(dir: &TempDir, ig: Ig) -> Ig {
    // `$0` is a directory of our own. systemd wants to be sure that the machine runs it, and ends with `ig`. 00010000: it listens.
    let script = "set -e; d=$0; mkdir \"$d/xdg\" \"$d/host\"; chmod 700 \"$d/xdg\"
mount -t tmpfs none /run; mkdir -p /run/systemd/system; touch /run/systemd/private
XDG_RUNTIME_DIR=$d/xdg setpriv --pdeathsig=TERM -- /usr/bin/systemd --user --unit=basic.target >\"$d/systemd.log\" 2>&1 </dev/null &
for i in $(seq 1200); do grep -q \" 00010000 .* $d/xdg/systemd/private\\$\" /proc/net/unix && break; sleep 0.1; done
mount --bind \"$d/xdg/systemd/private\" /run/systemd/private
mount --rbind / \"$d/host\"
export HOST_ROOT=\"$d/host\"
exec setpriv --bounding-set=-sys_admin,-bpf,-perfmon -- \"$@\"";
    let dir = dir.path().display().to_string();
    ig.through(&["unshare", "-m", "--propagation", "private", "sh", "-c", script, &dir])
}

fn dir() -> TempDir {
    // A socket's name has at most 107 bytes.
    tempfile::Builder::new().prefix("igs").tempdir_in("/tmp").unwrap()
}

mod root {
    use super::*;

    #[test]
    fn it_runs_in_a_unit_and_its_streams_signals_and_exit_code_are_passed() {
        let _alone = alone();
        let dir = dir();
        let ig = unprivileged(&dir, Ig::new(&TRACE).args(&["--ledger", FLAG])).start_ready();
        std::process::Command::new("/bin/echo").arg("from-the-unit").output().unwrap();
        // To the `ig` outside, which passes it on; the one inside drains, accounts and ends.
        let done = ig.stop().expect_success();
        let rows = done.rows();
        assert!(rows.iter().any(|r| at(r, "args") == "/bin/echo from-the-unit"), "{rows:#?}");
        done.ledger().check();
    }

    #[test]
    fn the_exit_code_is_that_of_the_unit() {
        let _alone = alone();
        let dir = dir();
        let done = unprivileged(&dir, Ig::new(&TRACE).args(&["--filter", "nonsense==1", FLAG])).run();
        assert_eq!(done.code(), 2, "{}", done.stderr);
        assert!(done.stderr.contains("has no field \"nonsense\""), "{}", done.stderr);
    }

    #[test]
    fn without_the_flag_the_capability_is_named_and_the_flag_suggested() {
        let _alone = alone();
        let dir = dir();
        let done = unprivileged(&dir, Ig::new(&TRACE)).run();
        assert_eq!(done.code(), 3, "{}", done.stderr);
        assert!(done.stderr.contains("lacks CAP_SYS_ADMIN") && done.stderr.contains(FLAG), "{}", done.stderr);
    }

    #[test]
    fn where_there_is_no_systemd_it_says_so() {
        let _alone = alone();
        let empty = dir();
        let lacking = ["setpriv", "--bounding-set=-sys_admin,-bpf,-perfmon", "--"];
        let at = |root: &str| Ig::new(&TRACE).arg(FLAG).env("HOST_ROOT", root).through(&lacking).run();
        let done = at(empty.path().to_str().unwrap());
        assert_eq!(done.code(), 3);
        assert!(done.stderr.contains("the host's systemd cannot be reached"), "{}", done.stderr);
        let done = at("/");
        assert_eq!(done.code(), 3);
        assert!(done.stderr.contains("the host's root is not known"), "{}", done.stderr);
    }
}

//! What the tests with real daemons share: running a command that must succeed, and waiting for something.

use std::{
    process::{Command, Output},
    thread::sleep,
    time::{Duration, Instant},
};

pub(crate) fn run(command: &mut Command) -> Output {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?} does not run: {e}"));
    assert!(out.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&out.stderr));
    out
}

/// Longer than anything takes here, on a slow and busy machine, too.
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(t) = ready() {
            return t;
        }
        assert!(start.elapsed() < LIMIT, "waited {LIMIT:?} for {what}");
        sleep(Duration::from_millis(5));
    }
}

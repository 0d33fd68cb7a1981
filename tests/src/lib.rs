//! What the end-to-end tests share: running the built `ig`, making exact load, private daemons, and looking at what is
//! left in the kernel.
//!
//! Nothing here links to the host crates on purpose: these tests see what a user sees, the binary and its output. A
//! machine that lacks something (root, a daemon's package, the binary) fails the test with the reason; nothing is skipped.

#![forbid(unsafe_code)]

pub mod container_root;
pub mod containerd;
pub mod cri;
pub mod docker;
pub mod forged;
pub mod fuse;
pub mod gadget_case;
pub mod gadget_table;
pub mod ig;
pub mod kernel;
pub mod kernel_feature;
pub mod load;
pub mod modes;
pub mod plain;
pub mod podman;
pub mod registry;
pub mod sockets;
pub mod truth;
pub mod vm;

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The root of the source tree.
pub fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Held by every test that counts events: the kernel has one event stream for the whole machine.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    assert!(is_root(), "this test loads BPF programs and needs root: run it with `make test` or scripts/e2e");
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|s| {
        s.lines().any(|l| l.strip_prefix("Uid:").is_some_and(|u| u.split_whitespace().nth(1) == Some("0")))
    })
}

/// True when the tests run at the full scale of the acceptance figures (`make test-full`).
pub fn full_scale() -> bool {
    std::env::var("IG_TEST_SCALE").is_ok_and(|v| v == "full")
}

/// Polls until `check` gives a value; panics with `what` after `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(v) = check() {
            return v;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

//! Requests to block devices that end otherwise than they began: sent before the gadget started, put together, ended without a
//! word, more than there is room for.
//!
//! The disk is a loop device whose file lies on a file system of another. Where that is frozen, requests stay under way until it
//! is let go. For what cannot be brought about, a copy of the gadget is changed in one line.

use ig_tests::{
    alone,
    ig::{Finished, Ig, at},
    load, source_root, wait_for,
};
use serde_json::Value;
use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};
use tempfile::TempDir;

/// Slots of the histogram from which on requests took longer.
const HALF_A_SECOND: usize = 19;
const FOUR_SECONDS: usize = 22;
/// What a request of before would seem to have taken. No request takes so long, on a busy machine either.
const LONG_AGO: Duration = Duration::from_secs(5);

/// Runs a line of shell; what it prints.
fn sh(line: &str) -> String {
    let out = Command::new("sh").args(["-c", line]).output().expect("sh");
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// A loop device `disk` on a file system of the loop device `below`.
struct Disk {
    dir: TempDir,
    below: String,
    disk: String,
    minor: u64,
}

impl Disk {
    fn new() -> Disk {
        let dir = tempfile::Builder::new().prefix("igd").tempdir_in("/tmp").expect("a temporary directory");
        let path = dir.path().display();
        let below = sh(&format!("truncate -s 64M {path}/file; losetup -f --show {path}/file"));
        sh(&format!("mkfs.ext4 -q {below}; mkdir {path}/mnt; mount {below} {path}/mnt"));
        let inner = format!("{path}/mnt/file");
        let disk =
            sh(&format!("dd if=/dev/zero of={inner} bs=1M count=8 status=none; sync; losetup -f --show {inner}"));
        let name = disk.trim_start_matches("/dev/");
        // Requests go to it without waiting for others, and nothing looks at what is on it any more.
        sh(&format!("echo none >/sys/block/{name}/queue/scheduler; udevadm settle 2>/dev/null; true"));
        let minor = sh(&format!("cut -d: -f2 /sys/block/{name}/dev")).parse().expect("a number");
        Disk { dir, below, disk, minor }
    }

    fn mounted(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    fn freeze(&self) {
        sh(&format!("fsfreeze -f {}", self.mounted().display()));
    }

    fn thaw(&self) {
        sh(&format!("fsfreeze -u {}", self.mounted().display()));
    }

    /// Starts a program called `name` that writes `count` blocks at the `seek`-th, past the kernel's memory.
    fn start_writing(&self, name: &str, (size, count, seek): (u32, u32, u32)) -> Child {
        let program = self.dir.path().join(name);
        if !program.exists() {
            std::fs::copy("/bin/busybox", &program).expect("busybox (Debian package busybox-static)");
        }
        let mut c = Command::new(&program);
        c.arg0("busybox").args(["dd", "if=/dev/zero", "oflag=direct", "conv=notrunc"]);
        c.args([format!("of={}", self.disk), format!("bs={size}"), format!("count={count}"), format!("seek={seek}")]);
        c.stderr(Stdio::null()).spawn().expect("busybox")
    }

    /// Waits until so many writes are under way.
    fn wait_sent(&self, writes: u64) {
        let file = format!("/sys/block/{}/inflight", self.disk.trim_start_matches("/dev/"));
        wait_for(&format!("{writes} writes under way"), Duration::from_secs(120), || {
            let text = std::fs::read_to_string(&file).expect("a disk of ours");
            (text.split_whitespace().nth(1)?.parse() == Ok(writes)).then_some(())
        });
    }

    fn write(&self, name: &str, what: (u32, u32, u32)) {
        finish(self.start_writing(name, what));
    }

    /// The counts of the histogram of writes; empty where there is none.
    fn writes(&self, rows: &[Value]) -> Vec<u64> {
        let mine = |r: &&Value| at(r, "major") == 7 && at(r, "minor") == self.minor && at(r, "rw") == "write";
        let slots = rows.iter().find(mine).and_then(|r| at(r, "latency").as_array());
        slots.into_iter().flatten().filter_map(Value::as_u64).collect()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let Disk { below, disk, .. } = &*self;
        let mounted = self.mounted().display().to_string();
        // Also after a failure in the middle of it.
        let line = format!("fsfreeze -u {mounted}; losetup -d {disk}; sleep 0.2; umount {mounted}; losetup -d {below}");
        drop(Command::new("sh").args(["-c", &line]).stderr(Stdio::null()).status());
    }
}

fn finish(mut child: Child) {
    assert!(child.wait().expect("a child of ours").success());
}

fn gadget(name: &str, flags: &[&str]) -> Ig {
    Ig::new(&["run", name, "-o", "json", "--ledger"]).args(flags)
}

/// The gadget, with `from` replaced by `to` in its program.
fn changed(name: &str, dir: &Path, from: &str, to: &str) -> String {
    let copy = dir.join(name);
    std::fs::create_dir(&copy).expect("a writable directory");
    let folder = source_root().join("gadgets").join(name);
    std::fs::copy(folder.join("gadget.yaml"), copy.join("gadget.yaml")).expect("a gadget's folder");
    let program = std::fs::read_to_string(folder.join("program.bpf.c")).expect("a gadget's folder");
    assert_eq!(program.matches(from).count(), 1, "{from:?} in the program of {name}");
    std::fs::write(copy.join("program.bpf.c"), program.replace(from, to)).expect("a writable directory");
    copy.display().to_string()
}

/// All that were counted, and those that took so long.
fn sums(counts: &[u64], slow: usize) -> (u64, u64) {
    (counts.iter().sum(), counts.iter().skip(slow).sum())
}

fn lost(done: &Finished) -> u64 {
    let ledger = done.ledger();
    ledger.check();
    assert_eq!(ledger.lost_total(), ledger.lost.get("map_full").copied().unwrap_or(0), "{ledger:?}");
    ledger.lost_total()
}

mod root {
    use super::*;

    #[test]
    fn requests_from_before_the_start_are_left_out_and_slow_ones_are_slow() {
        let _alone = alone();
        let disk = Disk::new();
        disk.freeze();
        let before = disk.start_writing("iobefore", (4096, 1, 0));
        disk.wait_sent(1);
        let profile = gadget("profile_blockio", &[]).start_ready();
        let top = gadget("top_blockio", &["--host", "--interval", "0", "--comm", "iobefore"]).start_ready();
        disk.thaw();
        finish(before);
        disk.freeze();
        let slow = disk.start_writing("iobefore", (8192, 1, 4));
        disk.wait_sent(1);
        sleep(Duration::from_secs(1));
        disk.thaw();
        finish(slow);
        let (profile, top) = (profile.stop().expect_success(), top.stop().expect_success());
        let counts = disk.writes(&profile.rows());
        assert_eq!(sums(&counts, HALF_A_SECOND), (1, 1), "{counts:?}");
        assert_eq!((lost(&profile), lost(&top)), (0, 0));
        let rows = top.rows();
        let row = |r: &Value| ["bytes", "io"].map(|f| at(r, f).as_u64());
        assert_eq!(rows.iter().map(row).collect::<Vec<_>>(), [[Some(8192), Some(1)]], "{rows:#?}");
        assert_eq!((at(&rows[0], "major"), at(&rows[0], "minor")), (&7.into(), &disk.minor.into()));
        assert!(at(&rows[0], "us").as_u64() > Some(900_000), "{rows:#?}");
    }

    #[test]
    fn a_request_that_ended_without_a_word_is_not_the_beginning_of_the_next() {
        let _alone = alone();
        let disk = Disk::new();
        // The ends of requests of this size are not seen, as those of flushes on some disks are not.
        let unseen = changed(
            "profile_blockio",
            disk.dir.path(),
            "	start = bpf_map_lookup_elem(&started, &at);
",
            "	if (bytes == 8192)
		return 0;
	start = bpf_map_lookup_elem(&started, &at);
",
        );
        let ig = gadget(&unseen, &["--queued"]).start_ready();
        disk.write("iounseen", (8192, 300, 0));
        sleep(LONG_AGO);
        disk.write("iounseen", (4096, 300, 0));
        let done = ig.stop().expect_success();
        let counts = disk.writes(&done.rows());
        assert_eq!(sums(&counts, FOUR_SECONDS), (300, 0), "{counts:?}");
        assert_eq!(lost(&done), 0);
    }

    #[test]
    fn requests_that_were_put_together_count_as_one() {
        let _alone = alone();
        let disk = Disk::new();
        let program = disk.dir.path().join("iomerged");
        load::compile(&source_root().join("gadgets/top_blockio/workload.c"), &program);
        sh(&format!("echo mq-deadline >/sys/block/{}/queue/scheduler", disk.disk.trim_start_matches("/dev/")));
        let profile = gadget("profile_blockio", &["--queued"]).start_ready();
        let top = gadget("top_blockio", &["--host", "--interval", "0", "--comm", "iomerged"]).start_ready();
        assert!(Command::new(&program).arg(&disk.disk).status().expect("a program of ours").success());
        sleep(LONG_AGO);
        // In the same memory.
        disk.write("ioafter", (4096, 300, 64));
        let (profile, top) = (profile.stop().expect_success(), top.stop().expect_success());
        let rows = top.rows();
        let total = |field: &str| rows.iter().filter_map(|r| at(r, field).as_u64()).sum::<u64>();
        let (requests, counts) = (total("io"), disk.writes(&profile.rows()));
        assert_eq!(total("bytes"), 32 * 4096, "{rows:#?}");
        assert!((1..32).contains(&requests), "none of 32 blocks were put together: {rows:#?}");
        assert_eq!(sums(&counts, FOUR_SECONDS), (300 + requests, 0), "{counts:?}");
        assert_eq!((lost(&profile), lost(&top)), (0, 0));
    }

    #[test]
    fn requests_without_room_are_counted() {
        const AT_ONCE: u64 = 12;
        const ROOM: u64 = 4;
        let _alone = alone();
        let disk = Disk::new();
        let (from, to) = ("#define MAX_REQUESTS 16384", format!("#define MAX_REQUESTS {ROOM}"));
        let profile = changed("profile_blockio", disk.dir.path(), from, &to);
        let top = changed("top_blockio", disk.dir.path(), from, &to);
        let profile = gadget(&profile, &[]).start_ready();
        let top = gadget(&top, &["--host", "--interval", "0", "--comm", "iofull"]).start_ready();
        disk.freeze();
        let all: Vec<Child> = (0..AT_ONCE as u32).map(|n| disk.start_writing("iofull", (4096, 1, 2 * n))).collect();
        disk.wait_sent(AT_ONCE);
        disk.thaw();
        all.into_iter().for_each(finish);
        let (profile, top) = (profile.stop().expect_success(), top.stop().expect_success());
        let shown: u64 = top.rows().iter().filter_map(|r| at(r, "io").as_u64()).sum();
        assert_eq!((shown, lost(&top)), (ROOM, AT_ONCE - ROOM));
        // Of the whole machine: others may have taken room, and found none.
        let counts = disk.writes(&profile.rows());
        let (counted, _) = sums(&counts, 0);
        assert!(counted <= ROOM && counted + lost(&profile) >= AT_ONCE, "{counts:?}");
    }
}

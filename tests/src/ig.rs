//! Runs the built `ig` and collects what it prints.
//!
//! Output goes to files, not pipes: a reader that is slow must not slow `ig` down and change what is measured.

use crate::{source_root, wait_for};
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The longest that any start or stop may take on a busy machine, or in an emulator on one: a start may compile a guest, and the
/// standard library for it.
const LIMIT: Duration = Duration::from_secs(600);
/// What the line of a gadget holds whose programs are attached.
pub const READY: &str = ": running, ";

/// The binary under test: `$IG_BIN`, else `target/release/ig`.
pub fn binary() -> PathBuf {
    let path = std::env::var_os("IG_BIN").map_or_else(|| source_root().join("target/release/ig"), PathBuf::from);
    assert!(path.is_file(), "{} is missing: run `make build` first", path.display());
    path
}

/// An `ig` command about to run, with a store of its own: an empty disk, unless a test fills it.
pub struct Ig {
    dir: TempDir,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    wrapper: Vec<String>,
    store: Option<PathBuf>,
}

impl Ig {
    pub fn new(arguments: &[&str]) -> Self {
        Ig {
            dir: tempfile::tempdir().expect("a temporary directory"),
            arguments: arguments.iter().map(|a| a.to_string()).collect(),
            environment: Vec::new(),
            wrapper: Vec::new(),
            store: None,
        }
    }

    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|a| a.to_string()));
        self
    }

    /// Uses `store` instead of an empty one.
    pub fn store(mut self, store: &Path) -> Self {
        self.store = Some(store.to_path_buf());
        self
    }

    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.into(), value.into()));
        self
    }

    /// Runs `ig` through another command, such as `unshare -m`.
    pub fn through(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|a| a.to_string()).collect();
        self
    }

    fn command(&self) -> Command {
        let mut words = self.wrapper.clone();
        words.push(binary().display().to_string());
        words.extend(self.arguments.iter().cloned());
        // Not for commands that know no store.
        let first = self.arguments.first().map(String::as_str);
        if matches!(first, Some("run" | "image" | "list-gadgets" | "trace" | "snapshot" | "top" | "profile")) {
            let store = self.store.clone().unwrap_or_else(|| self.dir.path().join("store"));
            words.push("--store".into());
            words.push(store.display().to_string());
        }
        let mut c = Command::new(&words[0]);
        c.args(&words[1..]).envs(self.environment.iter().map(|(k, v)| (k, v)));
        c.env("LC_ALL", "C.UTF-8").env_remove("COLUMNS").stdin(Stdio::null());
        c
    }

    pub fn start(self) -> Running {
        let (out, err) = (self.dir.path().join("out"), self.dir.path().join("err"));
        let child = self
            .command()
            .stdout(File::create(&out).expect("an output file"))
            .stderr(File::create(&err).expect("an output file"))
            .spawn()
            .expect("ig starts");
        Running { child, dir: self.dir, out, err, ended: None }
    }

    /// Starts `ig run`, with `-v`, and returns when its programs are attached.
    pub fn start_ready(self) -> Running {
        let mut r = self.arg("-v").start();
        r.wait_ready();
        r
    }

    /// As `start_ready`, for several gadgets: returns when every one of them is attached.
    pub fn start_ready_all(self, gadgets: &[&str]) -> Running {
        let mut r = self.arg("-v").start();
        gadgets.iter().for_each(|g| r.wait_for_line(&[g, READY]));
        r
    }

    /// Runs to the end; panics when that takes longer than ten minutes.
    pub fn run(self) -> Finished {
        self.start().wait()
    }
}

/// Processor time that a process has used, in the 10 ms of /proc.
pub fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat[stat.rfind(')').expect("a name")..].split(' ').collect();
    fields[12..14].iter().map(|f| f.parse::<u64>().expect("a number")).sum()
}

/// A running `ig`. Killed when dropped, so that a test that fails leaves nothing behind.
pub struct Running {
    child: Child,
    dir: TempDir,
    out: PathBuf,
    err: PathBuf,
    ended: Option<ExitStatus>,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.err).unwrap_or_default()).into_owned()
    }

    /// What it has written so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.out).unwrap_or_default()).into_owned()
    }

    /// Processor time it has used, in the 10 ms of /proc.
    pub fn cpu_ticks(&self) -> u64 {
        cpu_ticks(self.pid())
    }

    pub fn stdout_len(&self) -> u64 {
        self.out.metadata().map_or(0, |m| m.len())
    }

    fn poll(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("a child of ours");
        }
        self.ended
    }

    /// Waits for the `running` line that `-v` prints when everything is attached.
    pub fn wait_ready(&mut self) {
        self.wait_for_line(&[READY]);
    }

    /// As `wait_ready`; gives an `ig` that ended before.
    pub fn wait_ready_or_end(&mut self) -> Option<Finished> {
        self.line_or_end(&[READY])
    }

    /// Waits for a line on stderr that holds all of these.
    fn wait_for_line(&mut self, parts: &[&str]) {
        if let Some(ended) = self.line_or_end(parts) {
            panic!("ig ended early with {}:\n{}", ended.status, ended.stderr);
        }
    }

    fn line_or_end(&mut self, parts: &[&str]) -> Option<Finished> {
        let start = Instant::now();
        loop {
            // A short one may be done before anybody looks.
            let ended = self.poll().is_some();
            if self.stderr().lines().any(|l| parts.iter().all(|p| l.contains(p))) {
                return None;
            }
            if ended {
                return Some(self.wait_at_most(LIMIT));
            }
            assert!(start.elapsed() < LIMIT, "ig was not ready after {LIMIT:?}:\n{}", self.stderr());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn signal(&self, signal: &str) {
        let ok = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(self.pid().to_string())
            .status()
            .is_ok_and(|s| s.success());
        assert!(ok, "signal {signal} could not be sent to ig");
    }

    /// As `stop`, of one that may have ended by itself.
    pub fn interrupt(mut self) -> Finished {
        if self.poll().is_none() {
            self.signal("INT");
        }
        self.wait()
    }

    /// SIGINT, then wait for the end.
    pub fn stop(self) -> Finished {
        self.signal("INT");
        self.wait()
    }

    pub fn wait(mut self) -> Finished {
        self.wait_at_most(LIMIT)
    }

    pub fn wait_at_most(&mut self, limit: Duration) -> Finished {
        let status = wait_for("ig to end", limit, || self.poll());
        // The files outlive this value inside `Finished`.
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().expect("a temporary directory"));
        Finished { status, stderr: self.stderr(), out: self.out.clone(), _dir: dir }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.poll().is_none() {
            // Ended already is as good as killed.
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// An `ig` that has ended.
pub struct Finished {
    pub status: ExitStatus,
    pub stderr: String,
    out: PathBuf,
    _dir: TempDir,
}

/// The account as `--ledger` prints it in JSON, the last line of stderr.
#[derive(Debug, Deserialize)]
pub struct Ledger {
    pub produced: u64,
    pub delivered: u64,
    /// By reason.
    pub lost: BTreeMap<String, u64>,
    /// By reason.
    pub left_out: BTreeMap<String, u64>,
    pub balanced: bool,
    /// Runs of programs that the kernel skipped; each may have been an event.
    pub missed_runs: u64,
    /// Networks, containers and sockets that could not be followed.
    pub blind_spots: u64,
    pub gadget_lost: u64,
}

impl Ledger {
    pub fn lost_total(&self) -> u64 {
        self.lost.values().sum()
    }

    /// Panics unless the account balances by its own word and by our sum.
    pub fn check(&self) {
        assert!(self.balanced, "the ledger says that it does not balance: {self:?}");
        let sum = self.delivered + self.lost_total() + self.left_out.values().sum::<u64>();
        assert_eq!(self.produced, sum, "the ledger does not add up: {self:?}");
    }
}

impl Finished {
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.out).expect("the output file")).into_owned()
    }

    pub fn stdout_path(&self) -> &Path {
        &self.out
    }

    /// Panics with what `ig` said unless it exited with 0.
    pub fn expect_success(self) -> Self {
        assert_eq!(self.code(), 0, "ig failed: {}\n{}", self.status, self.stderr);
        self
    }

    /// Every line of stdout, read one by one: the output may be larger than memory.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        BufReader::new(File::open(&self.out).expect("the output file")).lines().map(|l| l.expect("UTF-8 output"))
    }

    /// Every line of `-o json`, parsed; panics on a line that is no JSON object. Lines with arrays give their members.
    pub fn rows(&self) -> Vec<Value> {
        self.lines()
            .flat_map(|l| match serde_json::from_str(&l) {
                Ok(Value::Array(rows)) => rows,
                Ok(row @ Value::Object(_)) => vec![row],
                other => panic!("not an event: {other:?} in line {l:?}"),
            })
            .collect()
    }

    /// The ledger of a run with `-o json --ledger`.
    pub fn ledger(&self) -> Ledger {
        let line = self.stderr.lines().rev().find(|l| l.starts_with("{\"ledger\":"));
        let line = line.unwrap_or_else(|| panic!("no ledger in:\n{}", self.stderr));
        let v: Value = serde_json::from_str(line).expect("a JSON ledger");
        serde_json::from_value(v["ledger"].clone()).unwrap_or_else(|e| panic!("ledger {line}: {e}"))
    }
}

/// A member by dotted name: `at(row, "proc.parent.pid")`.
pub fn at<'a>(row: &'a Value, name: &str) -> &'a Value {
    name.split('.').fold(row, |v, key| &v[key])
}

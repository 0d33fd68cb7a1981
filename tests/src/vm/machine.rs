//! The host's side: fetches a kernel, packs an initramfs, boots it in QEMU and reads the results from its console.
//!
//! Software emulation: no KVM, no root, no network, one small disk. Nothing here skips: a kernel that cannot be fetched, a tool that
//! is missing or a machine that dies is a failure with the reason. Used by one thread; several machines may share an
//! initramfs.

use super::{DONE, EVERY, FACT, FILTER, GADGETS, LOAD, MODULES, RESULT, ROOTFS, SHELL, STORE};
use crate::{gadget_case, ig, load, source_root};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::{
        fd::AsRawFd,
        unix::fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

/// The longest that the tests of a kernel may take; some four minutes on a machine that does nothing else.
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// The same with every test of every gadget.
const LIMIT_OF_EVERY: Duration = Duration::from_secs(60 * 60);
/// Bytes of the machine's disk.
const DISK_BYTES: u64 = 32 << 20;
/// What the guest finds in /bin besides our own files, with the libraries they need.
const TOOLS: [&str; 5] = ["runc", "crun", "bpftool", "setpriv", "tini-static"];
/// Commands of busybox that cases and people use there.
const APPLETS: [&str; 22] = [
    "sh", "cat", "chmod", "dmesg", "echo", "env", "false", "find", "grep", "head", "kill", "ls", "mkdir", "mount",
    "ps", "readlink", "rm", "sleep", "stat", "tail", "true", "vi",
];
const QEMU: &str = "qemu-system-x86_64";

/// A machine that can be booted any number of times.
pub struct Machine {
    kernel: PathBuf,
    /// Without the modules of the kernel. It has no name, so that nothing of it stays behind.
    initramfs: &'static File,
}

/// Which tests are run.
#[derive(Debug, Default)]
pub struct Choice {
    /// Only cases whose name contains one of these, which commas separate.
    pub filter: String,
    /// Every test of every gadget, not only the first.
    pub every: bool,
}

impl Choice {
    /// By the variables that a developer sets.
    pub fn from_env() -> Choice {
        let every = std::env::var(EVERY).is_ok_and(|v| v == "1");
        Choice { filter: std::env::var(FILTER).unwrap_or_default(), every }
    }
}

/// What a machine is booted for.
pub enum Job {
    Tests(Choice),
    Shell,
}

/// One case's line.
#[derive(Debug)]
pub struct CaseResult {
    pub name: String,
    pub passed: bool,
    pub seconds: f32,
}

/// What came of the tests of one kernel.
#[derive(Debug)]
pub struct Outcome {
    pub results: Vec<CaseResult>,
    /// By gadget: its cell in the table of gadgets.
    pub gadgets: BTreeMap<String, String>,
    /// Its version, as in `6.12`.
    pub kernel: String,
    /// The machine said that it was done.
    pub finished: bool,
    /// Everything it printed.
    pub console: String,
    pub took: Duration,
}

impl Outcome {
    fn read(console: String, took: Duration) -> Outcome {
        let words = |line: &'_ str, mark: &str| -> Option<Vec<String>> {
            // Messages of the kernel may precede it on the same line.
            let (_, rest) = line.split_once(mark)?;
            Some(rest.split_whitespace().map(str::to_owned).collect())
        };
        let results = console.lines().filter_map(|l| match &words(l, RESULT)?[..] {
            [name, verdict, seconds] => Some(CaseResult {
                name: name.clone(),
                passed: verdict == "ok",
                seconds: seconds.parse().unwrap_or_default(),
            }),
            _ => None,
        });
        let results: Vec<_> = results.collect();
        let counts = console.lines().rev().find_map(|l| words(l, DONE));
        let counted = |n: Option<&String>| n.and_then(|n| n.parse::<usize>().ok());
        let total = counts.and_then(|c| Some(counted(c.first())? + counted(c.get(1))?));
        let facts = console.lines().filter_map(|l| l.split_once(FACT)?.1.trim().split_once(' '));
        let gadgets = facts.map(|(gadget, cell)| (gadget.to_owned(), cell.to_owned())).collect();
        let release = console.lines().find_map(|l| l.split_once("kernel ")?.1.split_once('-')).map_or("", |(v, _)| v);
        let kernel = release.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
        Outcome { finished: total == Some(results.len()), results, gadgets, kernel, console, took }
    }

    /// What is wrong, for a person; empty if nothing is.
    pub fn failures(&self) -> Vec<String> {
        let failed = self.results.iter().filter(|r| !r.passed).map(|r| r.name.clone());
        let mut all: Vec<String> = failed.collect();
        if !self.finished {
            all.push(format!("the machine ended or was stopped after {:?} without finishing", self.took));
        } else if self.results.is_empty() {
            all.push("no test was run".to_owned());
        }
        all
    }
}

impl Machine {
    /// `suite` of Debian names the kernel; `init` is the built `vm-init`.
    pub fn new(suite: &str, init: &Path) -> Machine {
        static INITRAMFS: OnceLock<File> = OnceLock::new();
        Machine { kernel: kernel(suite), initramfs: INITRAMFS.get_or_init(|| pack(init)) }
    }

    /// Writes what the kernel unpacks when it starts: what all machines have, and behind it the modules of this one.
    fn write_initramfs(&self, dir: &Path) -> PathBuf {
        let modules = self.kernel.with_file_name("modules");
        let root = dir.join("root");
        let to = root.join(MODULES.trim_start_matches('/'));
        fs::create_dir_all(&to).expect("a writable directory");
        for module in fs::read_dir(&modules).unwrap_or_else(|e| panic!("{}: {e}", modules.display())).flatten() {
            put(&module.path(), &to.join(module.file_name()));
        }
        let path = dir.join("initramfs.cpio");
        let mut image = File::create(&path).expect("a writable directory");
        // A descriptor with a position of its own.
        let packed = File::open(format!("/proc/self/fd/{}", self.initramfs.as_raw_fd()));
        std::io::copy(&mut packed.expect("a file of ours"), &mut image).expect("room for an initramfs");
        pack_into(&root, &image);
        path
    }

    /// `dir` gets its disk, which is empty, and its initramfs.
    fn qemu(&self, variables: &[(&str, &str)], dir: &Path) -> Command {
        let disk = dir.join("disk");
        File::create(&disk).and_then(|f| f.set_len(DISK_BYTES)).expect("a file for the disk");
        // An oops ends the machine at once. The check of the timer gives up too early for an emulator on a busy machine.
        let mut line = "console=ttyS0 quiet loglevel=4 oops=panic panic=-1 no_timer_check mitigations=off".to_owned();
        line.push_str(" lsm=lockdown,yama,bpf");
        for (name, value) in variables {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.,".contains(&b);
            assert!(value.bytes().all(plain), "{name}={value:?} cannot stand on a kernel's command line");
            line.push_str(&format!(" {name}={value}"));
        }
        let mut c = Command::new(QEMU);
        // cmpxchg16b leaves wrong flags behind in QEMU 7.2 when an interrupt comes with it, which breaks the kernel's allocator
        // now and then: without it, the kernel takes another way. Two processors in turns are as quick as side by side on a
        // machine of two. Page tables of four levels are quicker to walk than five.
        c.args(["-accel", "tcg,thread=single", "-cpu", "max,la57=off,cx16=off", "-smp", "2", "-m", "2G"])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(self.write_initramfs(dir))
            .args(["-append", &line])
            .args(["-drive", &format!("file={},if=none,id=disk,format=raw,cache=unsafe", disk.display())])
            .args(["-device", "nvme,serial=disk,drive=disk"]);
        c
    }

    /// A shell on the terminal; Ctrl-A X ends the machine.
    pub fn shell(&self) -> ExitCode {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let status = self
            .qemu(&[(SHELL, "1")], dir.path())
            .args(["-chardev", "stdio,id=s,mux=on", "-serial", "chardev:s"])
            .status();
        match status {
            Ok(s) if s.success() => ExitCode::SUCCESS,
            Ok(_) => ExitCode::FAILURE,
            Err(e) => panic!("{QEMU} (Debian package qemu-system-x86): {e}"),
        }
    }

    /// Runs the chosen cases; never takes longer than the limit.
    pub fn test(&self, choice: &Choice) -> Outcome {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("console");
        let console = File::create(&path).expect("a file for the console");
        let start = Instant::now();
        let mut variables = Vec::new();
        if !choice.filter.is_empty() {
            variables.push((FILTER, choice.filter.as_str()));
        }
        if choice.every {
            variables.push((EVERY, "1"));
        }
        let limit = if choice.every { LIMIT_OF_EVERY } else { LIMIT };
        let mut child = self
            .qemu(&variables, dir.path())
            .args(["-serial", "stdio"])
            .stdin(Stdio::null())
            .stdout(console.try_clone().expect("a second descriptor"))
            .stderr(console)
            .spawn()
            .unwrap_or_else(|e| panic!("{QEMU} (Debian package qemu-system-x86): {e}"));
        while child.try_wait().expect("a child of ours").is_none() {
            if start.elapsed() > limit {
                // One that has just ended by itself is as good.
                drop(child.kill());
                child.wait().expect("a child of ours");
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let text = String::from_utf8_lossy(&fs::read(&path).expect("the console")).replace('\r', "");
        Outcome::read(text, start.elapsed())
    }
}

/// The vmlinuz of a suite; fetched if it is not there.
fn kernel(suite: &str) -> PathBuf {
    let script = source_root().join("tests/vm/kernel");
    let out = Command::new(&script).arg(suite).stderr(Stdio::inherit()).output().expect("bash");
    assert!(out.status.success(), "no kernel of Debian {suite}: {} failed, see above", script.display());
    PathBuf::from(String::from_utf8_lossy(&out.stdout).trim())
}

/// Builds the file system of the guest and packs it.
fn pack(init: &Path) -> File {
    let dir = tempfile::Builder::new().prefix("ig-vm").tempdir().expect("a temporary directory");
    let root = dir.path().join("root");
    for d in ["bin", "etc", "root", "dev", "proc", "sys", "tmp", "run", "var/lib/vm"] {
        fs::create_dir_all(root.join(d)).expect("a writable directory");
    }
    put(init, &root.join("init"));
    put(&ig::binary(), &root.join("bin/ig"));
    for tool in TOOLS {
        with_libraries(tool, &root);
    }
    let busybox = root.join("bin/busybox");
    put(&find("busybox"), &busybox);
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).expect("a link");
    }
    let inside = |path: &str| root.join(path.trim_start_matches('/'));
    fs::create_dir_all(inside(ROOTFS).join("bin")).expect("a writable directory");
    put(&busybox, &inside(ROOTFS).join("bin/busybox"));
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").expect("a writable directory");
    fs::write(root.join("etc/group"), "root:x:0:\n").expect("a writable directory");

    fs::create_dir_all(inside(LOAD)).expect("a writable directory");
    load::compile_into(&inside(LOAD));
    load::compile(&source_root().join("tests/vm/target.c"), &root.join("bin/target"));
    build_gadgets(&inside(STORE));
    copy_cases(&inside(GADGETS));
    let image = tempfile::tempfile().expect("a temporary file");
    pack_into(&root, &image);
    image
}

/// Appends a folder's files to an archive, which the kernel takes to be many.
fn pack_into(root: &Path, image: &File) {
    let packed = Command::new("sh")
        .args(["-c", "find . -print0 | cpio --null --quiet -o -H newc -R 0:0"])
        .current_dir(root)
        .stdout(image.try_clone().expect("a second descriptor"))
        .status();
    assert!(packed.is_ok_and(|s| s.success()), "cpio (Debian package cpio) failed");
}

fn put(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap_or_else(|e| panic!("{} to {}: {e}", from.display(), to.display()));
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).expect("a file of ours");
}

fn find(tool: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    let dirs = path.split(':').chain(["/usr/sbin", "/sbin"]).map(PathBuf::from);
    let mut found = dirs.map(|d| d.join(tool)).filter(|p| p.is_file());
    found.next().unwrap_or_else(|| panic!("there is no {tool} (scripts/setup vm installs it)"))
}

/// Copies a program and the shared libraries that the dynamic linker would give it.
fn with_libraries(tool: &str, root: &Path) {
    let program = find(tool);
    put(&program, &root.join("bin").join(tool));
    let out = Command::new("ldd").arg(&program).output().expect("ldd");
    let text = String::from_utf8_lossy(&out.stdout);
    for word in text.split_whitespace().filter(|w| w.starts_with('/')) {
        let to = root.join(word.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("a file in a directory")).expect("a writable directory");
        put(Path::new(word), &to);
    }
}

/// What the cases of the catalogue's gadgets need: their files, and their workloads compiled.
fn copy_cases(to: &Path) {
    for name in gadget_case::gadgets() {
        let (from, to) = (source_root().join("gadgets").join(&name), to.join(&name));
        fs::create_dir_all(&to).expect("a writable directory");
        for file in ["gadget.yaml", "test.yaml"] {
            put(&from.join(file), &to.join(file));
        }
        let extra = to.join("rootfs");
        fs::create_dir_all(&extra).expect("a writable directory");
        let compiled = tempfile::tempdir().expect("a temporary directory");
        for (file, at) in gadget_case::workload_files(&from, compiled.path()) {
            let copy = extra.join(at.trim_start_matches('/'));
            fs::create_dir_all(copy.parent().expect("a file in a directory")).expect("a writable directory");
            put(&file, &copy);
        }
    }
}

/// Builds every gadget of tests/vm/gadgets into an image store, with the binary under test.
fn build_gadgets(store: &Path) {
    let dir = source_root().join("tests/vm/gadgets");
    let folders = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    for folder in folders.flatten() {
        let name = folder.file_name();
        let out = Command::new(ig::binary())
            .args(["image", "build"])
            .arg(folder.path())
            .arg("-t")
            .arg(&name)
            .arg("--store")
            .arg(store)
            .output()
            .expect("ig starts");
        assert!(out.status.success(), "gadget {}: {}", name.to_string_lossy(), String::from_utf8_lossy(&out.stderr));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(console: &str) -> Outcome {
        Outcome::read(console.to_owned(), Duration::ZERO)
    }

    #[test]
    fn results_are_read_from_between_other_lines() {
        let o = read(
            "kernel 6.12.107-cloud\n[    1.0] boot\nVM-GADGET g ✓ `x`\n[ 2.0] oops VM-TEST a ok 1.5\nhm\nVM-TEST b FAIL 20.0\nVM-DONE 1 1\n",
        );
        let seen: Vec<_> = o.results.iter().map(|r| (r.name.as_str(), r.passed, r.seconds)).collect();
        assert_eq!(seen, [("a", true, 1.5), ("b", false, 20.0)]);
        assert_eq!(o.failures(), ["b"]);
        assert_eq!((o.kernel.as_str(), o.gadgets["g"].as_str()), ("6.12", "✓ `x`"));
    }

    #[test]
    fn a_machine_that_dies_or_runs_nothing_has_failed() {
        assert_eq!(read("VM-TEST a ok 1.0\nKernel panic\n").failures().len(), 1);
        assert_eq!(read("VM-TEST a ok 1.0\nVM-DONE 2 0\n").failures().len(), 1, "a line is missing");
        assert_eq!(read("VM-DONE 0 0\n").failures(), ["no test was run"]);
        assert!(read("VM-TEST a ok 1.0\nVM-DONE 1 0\n").failures().is_empty());
    }
}

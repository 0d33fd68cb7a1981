//! The init process of the virtual machine: file systems, the cases one by one, their results on the console, power off.
//!
//! Each case runs in a process of its own (this program again, with `--case NAME`), so that one that panics or hangs is one
//! failed test. Runs only as PID 1 of a machine made by `machine`: it mounts and reboots.

#![expect(clippy::print_stdout, reason = "the console is where results go")]

use super::{DISK, DONE, FACT, FILTER, MODULES, RESULT, SHELL, WITHOUT, cases::cases};
use rustix::{
    mount::{MountFlags, mount, mount_move},
    process::{Pid, Signal, WaitOptions, WaitStatus, chroot, kill_process_group, setsid, wait},
    system::{RebootCommand, finit_module, reboot},
};
use std::{
    ffi::CStr,
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

/// The longest a case may take; software emulation is some 10 to 30 times slower than the machine below.
const CASE_LIMIT: Duration = Duration::from_secs(600);
/// The same where a case is every test of a gadget.
const CASE_LIMIT_OF_EVERY: Duration = Duration::from_secs(900);
/// The machine's disk. Its driver looks for it while the machine already runs.
const DEVICE: &str = "/dev/nvme0n1";
/// The longest that takes.
const DISK_LIMIT: Duration = Duration::from_secs(300);
/// Bytes of a failed case's output that are shown, from its end.
const SHOWN: usize = 32 << 10;
/// The environment of the cases. The kernel gives init next to none.
const ENVIRONMENT: [(&str, &str); 4] =
    [("PATH", "/bin"), ("HOME", "/root"), ("IG_BIN", "/bin/ig"), ("RUST_BACKTRACE", "0")];

/// What `/init` does, by its arguments.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--case", name] => case(name),
        _ if !std::process::id().eq(&1) => {
            println!("this is the init process of the test machine, see docs/guides/kernel-tests.md");
            ExitCode::FAILURE
        }
        ["--on-tmpfs"] => power_off(serve()),
        _ => power_off(move_to_tmpfs()),
    }
}

fn case(name: &str) -> ExitCode {
    let Some(found) = cases().into_iter().find(|c| c.name == name) else {
        println!("there is no case {name}");
        return ExitCode::FAILURE;
    };
    (found.run)();
    ExitCode::SUCCESS
}

fn power_off(ended: io::Result<()>) -> ExitCode {
    if let Err(e) = ended {
        println!("init: {e}");
    }
    // QEMU is told to end at a reboot; that needs no ACPI.
    let refused = reboot(RebootCommand::Restart);
    println!("init: cannot reboot: {refused:?}");
    ExitCode::FAILURE
}

/// From the initramfs to a tmpfs: runtimes call pivot_root, which is not possible on the first file system.
fn move_to_tmpfs() -> io::Result<()> {
    let new = Path::new("/new-root");
    fs::create_dir_all(new)?;
    mount("tmpfs", new, "tmpfs", MountFlags::empty(), None::<&CStr>)?;
    for entry in fs::read_dir("/")?.flatten().filter(|e| e.path() != new) {
        copy(&entry.path(), &new.join(entry.file_name()))?;
        // The space is needed again; what cannot be removed (a mount point) does no harm.
        let removed =
            if entry.path().is_dir() { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        drop(removed);
    }
    std::env::set_current_dir(new)?;
    mount_move(".", "/")?;
    chroot(".")?;
    std::env::set_current_dir("/")?;
    Err(Command::new("/init").arg("--on-tmpfs").exec())
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let kind = fs::symlink_metadata(from)?.file_type();
    if kind.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from)?, to)
    } else if kind.is_dir() {
        fs::create_dir_all(to)?;
        fs::set_permissions(to, fs::metadata(from)?.permissions())?;
        fs::read_dir(from)?.try_for_each(|e| e.and_then(|e| copy(&e.path(), &to.join(e.file_name()))))
    } else if kind.is_file() {
        fs::copy(from, to).map(drop)
    } else {
        // /dev/console: the new root gets a devtmpfs
        Ok(())
    }
}

fn mount_all() -> io::Result<()> {
    for (kind, at) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
        ("bpf", "/sys/fs/bpf"),
        ("tracefs", "/sys/kernel/tracing"),
        ("cgroup2", "/sys/fs/cgroup"),
    ] {
        fs::create_dir_all(at)?;
        mount(kind, at, kind, MountFlags::empty(), None::<&CStr>)
            .map_err(|e| io::Error::other(format!("cannot mount {kind} on {at}: {e}")))?;
    }
    // A page fault for each page: what tests count. A kernel without huge pages needs no telling.
    drop(fs::write("/sys/kernel/mm/transparent_hugepage/enabled", "never"));
    Ok(())
}

/// What this kernel does not have built in.
fn load_modules() -> io::Result<()> {
    let mut files: Vec<_> = fs::read_dir(MODULES)?.map(|e| e.map(|e| e.path())).collect::<io::Result<_>>()?;
    files.sort();
    for file in files {
        finit_module(File::open(&file)?, c"", 0)
            .map_err(|e| io::Error::other(format!("cannot load {}: {e}", file.display())))?;
    }
    Ok(())
}

/// A file system on the disk: what is on a tmpfs makes no request to any.
fn mount_disk() -> io::Result<()> {
    let start = Instant::now();
    while !Path::new(DEVICE).exists() {
        if start.elapsed() > DISK_LIMIT {
            return Err(io::Error::other(format!("there is no {DEVICE} after {DISK_LIMIT:?}")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let made = Command::new("/bin/busybox").args(["mke2fs", "-F", DEVICE]).output()?;
    if !made.status.success() {
        return Err(io::Error::other(format!("mke2fs {DEVICE}: {}", String::from_utf8_lossy(&made.stderr))));
    }
    fs::create_dir_all(DISK)?;
    mount(DEVICE, DISK, "ext2", MountFlags::empty(), None::<&CStr>)
        .map_err(|e| io::Error::other(format!("cannot mount {DEVICE}: {e}")))
}

fn serve() -> io::Result<()> {
    mount_all()?;
    load_modules()?;
    mount_disk()?;
    // Until then it is in group 0, that of the kernel's threads.
    setsid()?;
    println!("kernel {}", rustix::system::uname().release().to_string_lossy());
    if std::env::var_os(SHELL).is_some() {
        println!("`init --case NAME` runs a test; leave the shell to power off");
        let mut shell = Command::new("/bin/sh");
        shell.envs(ENVIRONMENT).env("PS1", "vm# ").spawn()?.wait()?;
        return Ok(());
    }
    let filter = std::env::var(FILTER).unwrap_or_default();
    let (mut passed, mut failed) = (0, 0);
    let wanted: Vec<&str> = filter.split(',').filter(|f| !f.is_empty()).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|f| name.contains(f));
    for case in cases().iter().filter(|c| is_wanted(&c.name)) {
        let start = Instant::now();
        let failure = run(&case.name)?;
        let took = start.elapsed().as_secs_f32();
        if let Some(why) = &failure {
            println!("---- {}: {why}\n{}\n----", case.name, tail(&log_of(&case.name)));
        }
        let log = fs::read_to_string(log_of(&case.name)).unwrap_or_default();
        let facts = log.lines().filter(|l| l.starts_with(FACT) || l.starts_with(WITHOUT));
        facts.for_each(|l| println!("{l}"));
        println!("{RESULT} {} {} {took:.1}", case.name, if failure.is_none() { "ok" } else { "FAIL" });
        if failure.is_none() { passed += 1 } else { failed += 1 }
    }
    println!("{DONE} {passed} {failed}");
    Ok(())
}

fn log_of(case: &str) -> String {
    format!("/run/{case}.log")
}

/// Runs a case in a process group of its own; gives what went wrong.
fn run(case: &str) -> io::Result<Option<String>> {
    let log = File::create(log_of(case))?;
    let limit = if super::cases::every() { CASE_LIMIT_OF_EVERY } else { CASE_LIMIT };
    let child = Command::new("/init")
        .args(["--case", case])
        .envs(ENVIRONMENT)
        .stdin(File::open("/dev/null")?)
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("a child without a pid"))?;
    let start = Instant::now();
    let mut late = false;
    loop {
        // Every dead process is init's to collect: those of containers, too.
        match wait(WaitOptions::NOHANG) {
            Ok(Some((who, status))) if who == pid => {
                // What it left running would disturb the next one.
                kill_process_group(pid, Signal::KILL).ok();
                return Ok(failure(status, late.then_some(limit)));
            }
            Ok(Some(_)) => continue,
            Ok(None) => {}
            Err(e) => return Err(e.into()),
        }
        if start.elapsed() > limit && !late {
            late = true;
            kill_process_group(pid, Signal::KILL)?;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn failure(status: WaitStatus, late: Option<Duration>) -> Option<String> {
    if let Some(limit) = late {
        return Some(format!("not done after {limit:?}"));
    }
    match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(format!("exit code {code}")),
        (_, signal) => Some(format!("killed by signal {signal:?}")),
    }
}

fn tail(path: &str) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(SHOWN)..]).into_owned()
}

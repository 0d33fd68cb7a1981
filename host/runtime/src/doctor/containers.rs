//! The container tracker and the runtimes behind it, started as a run would start them, and stopped again.

use super::{Check, privileges::Privileges};
use crate::{
    bpf::KernelBtf,
    containers::{Containers, ContainersOptions, ContainersStatus, RuntimeName, default_sockets},
    host_root,
};
use std::{
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long the runtimes' answers are waited for.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// Checks of the tracker, and of the runtimes.
pub(super) fn checks(
    options: &ContainersOptions,
    privileges: &Privileges,
    btf: &KernelBtf,
) -> (Vec<Check>, Vec<Check>) {
    let sockets: Vec<(RuntimeName, Socket)> = asked(options).map(|r| (r, find(options, r))).collect();
    if !(privileges.is_root() && privileges.can_load()) {
        let tracker = Check::unknown("tracker", "not permitted to try");
        return (vec![tracker], sockets.iter().map(|(r, s)| runtime(*r, s, None)).collect());
    }
    match Containers::start_with(options.clone(), btf) {
        Err(e) => {
            let failed = Check::fail("tracker", e.to_string());
            let failed = match e.hint() {
                Some(hint) => failed.remedy(hint),
                None => failed.remedy("the checks of the kernel and of programs above say what is missing"),
            };
            (vec![failed], sockets.iter().map(|(r, s)| runtime(*r, s, None)).collect())
        }
        Ok(containers) => {
            let there = |s: &Socket| matches!(s, Socket::At(_));
            let expected = sockets.iter().filter(|(_, s)| there(s)).map(|(r, _)| *r).collect();
            let status = answers(&containers, expected);
            let all = containers.list();
            let count = |r: RuntimeName| all.iter().filter(|c| c.runtime == r).count();
            let runtimes = sockets.iter().map(|(r, s)| runtime(*r, s, Some((&status, count(*r))))).collect();
            (tracker(&status, all.len()), runtimes)
        }
    }
}

/// Runtimes that have an API.
fn asked(options: &ContainersOptions) -> impl Iterator<Item = RuntimeName> + '_ {
    options.runtimes.iter().copied().filter(|r| !default_sockets(*r).is_empty())
}

/// What lies where a runtime listens.
enum Socket {
    At(PathBuf),
    /// Something else.
    OtherFile(PathBuf),
    Missing(PathBuf),
}

fn find(options: &ContainersOptions, runtime: RuntimeName) -> Socket {
    let named = options.sockets.get(&runtime).map(PathBuf::as_path);
    let paths: Vec<&Path> = match named {
        Some(path) => vec![path],
        None => default_sockets(runtime).iter().map(Path::new).collect(),
    };
    let mut other = None;
    for path in &paths {
        let path = host_root::join(&options.host_root, path);
        match std::fs::metadata(&path) {
            Ok(m) if m.file_type().is_socket() => return Socket::At(path),
            Ok(_) => other = Some(path),
            Err(_) => {}
        }
    }
    let first = || host_root::join(&options.host_root, paths.first().copied().unwrap_or(Path::new("/")));
    other.map_or_else(|| Socket::Missing(first()), Socket::OtherFile)
}

/// Waits until every runtime whose socket is there has answered or failed.
fn answers(containers: &Containers, expected: Vec<RuntimeName>) -> ContainersStatus {
    let start = Instant::now();
    loop {
        let status = containers.status();
        let heard = |r: &RuntimeName| status.connected.contains(r) || status.failed.iter().any(|e| e.runtime() == *r);
        if expected.iter().all(heard) || start.elapsed() > ANSWERS_WITHIN {
            return status;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn tracker(status: &ContainersStatus, running: usize) -> Vec<Check> {
    let mut all = vec![Check::ok("tracker", format!("starts; {running} containers run now"))];
    all.push(Check::ok("hooks", format!("{} attached: {}", status.attached.len(), status.attached.join(", "))));
    for (hook, reason) in &status.missing {
        all.push(
            Check::warn(format!("hook {hook}"), reason.clone())
                .remedy("containers made by unshare(2) are found at their first exec; mounting tracefs may help"),
        );
    }
    let lost = status.loss.events + status.malformed;
    all.push(match lost {
        0 => Check::ok("loss", "none"),
        n => Check::warn("loss", format!("{n} kernel events of the tracker in the time of this check"))
            .remedy("the machine starts very many processes; running containers are looked up again after a loss"),
    });
    all
}

fn runtime(runtime: RuntimeName, socket: &Socket, status: Option<(&ContainersStatus, usize)>) -> Check {
    let name = runtime.as_str();
    let path = match socket {
        Socket::At(path) => path,
        Socket::Missing(path) => return Check::ok(name, format!("not here: no socket at {}", path.display())),
        Socket::OtherFile(path) => {
            return Check::warn(name, format!("{} is no socket", path.display()))
                .remedy(format!("name the right one with {}", socket_flag(runtime)));
        }
    };
    let Some((status, running)) = status else {
        return Check::unknown(name, format!("socket at {}; not asked", path.display()));
    };
    if status.connected.contains(&runtime) {
        return Check::ok(name, format!("answers at {}; {running} containers run now", path.display()));
    }
    let cause = match status.failed.iter().find(|e| e.runtime() == runtime) {
        Some(e) => e.to_string(),
        None => format!("{} has not answered within {} s", path.display(), ANSWERS_WITHIN.as_secs()),
    };
    Check::warn(name, cause)
        .remedy(format!("is {name} healthy? its containers are seen all the same, without its names"))
}

fn socket_flag(runtime: RuntimeName) -> String {
    format!("--{}-socketpath PATH", runtime.as_str().replace('-', ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{containers::TrackerLoss, doctor::Status};

    fn status() -> ContainersStatus {
        ContainersStatus {
            attached: vec!["raw_tp/sched_process_fork".into()],
            missing: vec![("tracepoint/syscalls/sys_exit_unshare".into(), "no tracefs".into())],
            connected: vec![RuntimeName::Docker],
            ..ContainersStatus::default()
        }
    }

    #[test]
    fn the_trackers_state_is_told() {
        let all = tracker(&status(), 3);
        let shown: String = all.iter().map(|c| format!("{:?} {}: {}\n", c.status, c.name, c.finding)).collect();
        insta::assert_snapshot!(shown, @"
        Ok tracker: starts; 3 containers run now
        Ok hooks: 1 attached: raw_tp/sched_process_fork
        Warn hook tracepoint/syscalls/sys_exit_unshare: no tracefs
        Ok loss: none
        ");
        let lossy = ContainersStatus { loss: TrackerLoss { events: 2, ..TrackerLoss::default() }, ..status() };
        assert_eq!(tracker(&lossy, 0).last().map(|c| c.status), Some(Status::Warn));
    }

    #[test]
    fn a_runtime_answers_or_the_reason_is_said() {
        let at = Socket::At("/run/docker.sock".into());
        let status = status();
        let check = |r, s: &Socket, st| runtime(r, s, st).finding;
        assert_eq!(
            check(RuntimeName::Docker, &at, Some((&status, 2))),
            "answers at /run/docker.sock; 2 containers run now"
        );
        assert_eq!(check(RuntimeName::Podman, &at, Some((&status, 0))), "/run/docker.sock has not answered within 3 s");
        assert_eq!(check(RuntimeName::Docker, &at, None), "socket at /run/docker.sock; not asked");
        let missing = Socket::Missing("/run/docker.sock".into());
        assert_eq!(runtime(RuntimeName::Docker, &missing, Some((&status, 0))).status, Status::Ok);
        let file = runtime(RuntimeName::CriO, &Socket::OtherFile("/run/x".into()), None);
        assert_eq!(file.remedy.as_deref(), Some("name the right one with --crio-socketpath PATH"));
    }

    #[test]
    fn what_lies_at_a_socket_is_looked_at_below_the_hosts_root() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("run")).unwrap();
        std::os::unix::fs::symlink("/run", root.path().join("var")).unwrap();
        let options = ContainersOptions { host_root: root.path().into(), ..ContainersOptions::default() };
        assert!(matches!(find(&options, RuntimeName::Docker), Socket::Missing(_)));
        std::fs::write(root.path().join("run/docker.sock"), "").unwrap();
        assert!(matches!(find(&options, RuntimeName::Docker), Socket::OtherFile(_)));
        std::fs::remove_file(root.path().join("run/docker.sock")).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(root.path().join("run/docker.sock")).unwrap();
        assert!(
            matches!(find(&options, RuntimeName::Docker), Socket::At(p) if p == root.path().join("run/docker.sock"))
        );
    }
}

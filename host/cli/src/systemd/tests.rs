//! The whole conversation, with a systemd that a thread of the test plays.

use super::{
    wire::{
        ERROR, SIGNAL, Writer,
        tests::{REPLY, answer},
    },
    *,
};
use std::{io::Write, os::unix::net::UnixListener, thread::JoinHandle, time::Duration};

const JOB: &str = "/org/freedesktop/systemd1/job/5";

/// Plays systemd for one client; gives the calls it got. `script`: what it does at a call, by member.
fn systemd(listener: UnixListener, code: (i32, i32), refuse: Option<&'static str>) -> JoinHandle<Vec<wire::Message>> {
    std::thread::spawn(move || {
        let (mut s, _) = listener.accept().unwrap();
        s.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        let lines = b"\0AUTH EXTERNAL 30\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n";
        let mut got = vec![0; lines.len()];
        s.read_exact(&mut got).unwrap();
        assert_eq!(got, lines);
        s.write_all(b"OK 0123456789abcdef0123456789abcdef\r\nAGREE_UNIX_FD\r\n").unwrap();
        let (mut buf, mut calls) = (Vec::new(), Vec::new());
        let text = |t: &str| {
            let mut w = Writer::default();
            w.string(t);
            w.bytes
        };
        loop {
            while let Some(call) = wire::Message::take(&mut buf).unwrap() {
                let n = call.serial;
                let reply = match call.member.as_str() {
                    m if Some(m) == refuse => answer(ERROR, n, "org.x.Denied", "s", &text("not for you")),
                    "StartTransientUnit" => answer(REPLY, n, "", "o", &text(JOB)),
                    "Get" => {
                        let status = call.body.windows(14).any(|w| w == b"ExecMainStatus");
                        let value = if status { code.1 } else { code.0 };
                        let body = [&b"\x01i\0\0"[..], &value.to_le_bytes()].concat();
                        answer(REPLY, n, "", "v", &body)
                    }
                    "ResetFailedUnit" => answer(ERROR, n, "org.freedesktop.systemd1.NoSuchUnit", "", b""),
                    _ => answer(REPLY, n, "", "", b""),
                };
                s.write_all(&reply).unwrap();
                // It ends when it is told to, and once it is started where nobody will tell it.
                let over = if code.0 == 2 { "KillUnit" } else { "StartTransientUnit" };
                if call.member == over && refuse.is_none() {
                    for job in ["/org/freedesktop/systemd1/job/4", JOB] {
                        let mut w = Writer::default();
                        w.u32(5).string(job).string("ig.service").string("done");
                        s.write_all(&answer(SIGNAL, 0, "JobRemoved", "uoss", &w.bytes)).unwrap();
                    }
                }
                calls.push(call);
            }
            let mut chunk = [0; 1024];
            match s.read(&mut chunk) {
                Ok(0) | Err(_) => return calls,
                Ok(n) => buf.extend_from_slice(&chunk[..n]),
            }
        }
    })
}

fn unit() -> Unit {
    Unit {
        name: "ig-1.service".into(),
        command: vec!["/proc/7/root/usr/bin/ig".into(), "run".into(), "trace_exec".into()],
        environment: vec!["IG_IN_SYSTEMD_UNIT=1".into()],
    }
}

fn quiet() -> (Signals, UnixStream) {
    let (pipe, writer) = UnixStream::pair().unwrap();
    pipe.set_nonblocking(true).unwrap();
    (Signals { pipe, last: Arc::default() }, writer)
}

fn members(calls: &[wire::Message]) -> Vec<&str> {
    calls.iter().map(|c| c.member.as_str()).collect()
}

#[test]
fn a_unit_is_started_awaited_asked_and_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("private");
    let played = systemd(UnixListener::bind(&socket).unwrap(), (1, 4), None);
    let (signals, _writer) = quiet();
    let outcome = drive(unit(), Connection::open(&socket, 0, false).unwrap(), &signals).unwrap();
    assert_eq!(outcome, Outcome::Exited(4));
    let calls = played.join().unwrap();
    let expected = ["Subscribe", "StartTransientUnit", "Get", "Get", "StopUnit", "ResetFailedUnit"];
    assert_eq!(members(&calls), expected);
    let body = String::from_utf8_lossy(&calls[1].body).into_owned();
    for part in ["ig-1.service", "oneshot", "/proc/7/root/usr/bin/ig", "trace_exec", "IG_IN_SYSTEMD_UNIT=1"] {
        assert!(body.contains(part), "{part}: {body:?}");
    }
}

#[test]
fn signals_are_passed_on_and_a_kill_is_told_as_shells_do() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("private");
    let played = systemd(UnixListener::bind(&socket).unwrap(), (2, 15), None);
    let (signals, mut writer) = quiet();
    signals.last.store(SIGTERM as usize, Ordering::Release);
    writer.write_all(b"x").unwrap();
    let outcome = drive(unit(), Connection::open(&socket, 0, false).unwrap(), &signals).unwrap();
    assert_eq!(outcome.code(), 143);
    let calls = played.join().unwrap();
    let kill = calls.iter().find(|c| c.member == "KillUnit").unwrap();
    assert!(kill.body.ends_with(&SIGTERM.to_le_bytes()), "{:?}", kill.body);
}

#[test]
fn a_refusal_is_told_with_systemds_words() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("private");
    let played = systemd(UnixListener::bind(&socket).unwrap(), (1, 0), Some("StartTransientUnit"));
    let (signals, _writer) = quiet();
    let e = drive(unit(), Connection::open(&socket, 0, false).unwrap(), &signals).unwrap_err();
    assert_eq!(e.to_string(), "systemd refused StartTransientUnit: org.x.Denied: not for you");
    played.join().unwrap();
}

#[test]
fn who_hangs_up_or_talks_nonsense_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for (name, reply) in [("a", ""), ("b", "REJECTED KERBEROS\r\n"), ("c", "x")] {
        let socket = dir.path().join(name);
        let listener = UnixListener::bind(&socket).unwrap();
        let played = std::thread::spawn(move || {
            let (mut s, _) = listener.accept().unwrap();
            s.write_all(reply.as_bytes()).unwrap();
        });
        assert!(Connection::open(&socket, 0, false).is_err(), "{reply:?}");
        played.join().unwrap();
    }
    assert!(matches!(Connection::open(&dir.path().join("none"), 0, false), Err(SystemdError::Connect { .. })));
}

#[test]
fn the_hosts_socket_is_found_below_its_root() {
    let dir = tempfile::tempdir().unwrap();
    assert!(socket(dir.path()).is_none() && !would_help(dir.path()));
    std::fs::create_dir_all(dir.path().join("run/dbus")).unwrap();
    std::fs::create_dir_all(dir.path().join("run/systemd")).unwrap();
    std::fs::write(dir.path().join("run/dbus/system_bus_socket"), "").unwrap();
    assert!(socket(dir.path()).is_some_and(|(_, on_bus)| on_bus));
    std::fs::write(dir.path().join("run/systemd/private"), "").unwrap();
    assert!(socket(dir.path()).is_some_and(|(_, on_bus)| !on_bus));
}

//! The transient unit: what is asked of systemd about it, and what its answers mean. Pure.

use super::{
    SystemdError,
    wire::{Call, ERROR, Message, Reader, SIGNAL, Writer},
};

const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// A command to run as a service of its own.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    pub(super) name: String,
    /// Absolute path of the program, then its arguments.
    pub(super) command: Vec<String>,
    /// `KEY=VALUE`
    pub(super) environment: Vec<String>,
}

/// How the unit's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Exited(u8),
    Killed(u8),
}

impl Outcome {
    /// As a shell tells it.
    pub(super) fn code(self) -> u8 {
        match self {
            Outcome::Exited(code) => code,
            Outcome::Killed(signal) => signal.saturating_add(128),
        }
    }
}

impl Unit {
    fn manager(&self, member: &'static str, signature: &'static str, body: Writer) -> Call {
        Call {
            path: "/org/freedesktop/systemd1".into(),
            interface: MANAGER,
            member,
            signature,
            body: body.bytes,
            ..Call::default()
        }
    }

    /// Without it systemd sends no signals.
    pub(super) fn subscribe(&self) -> Call {
        self.manager("Subscribe", "", Writer::default())
    }

    /// Goes with three descriptors: standard input, output and error.
    pub(super) fn start(&self) -> Call {
        let mut w = Writer::default();
        w.string(&self.name).string("fail").array(8, |w| self.properties(w));
        // No auxiliary units.
        w.array(8, |_w| {});
        Call { fds: 3, ..self.manager("StartTransientUnit", "ssa(sv)a(sa(sv))", w) }
    }

    /// A one-shot service: its start is over when its process is, and it stays loaded until its exit code is read.
    fn properties(&self, w: &mut Writer) {
        let program = self.command.first().map(String::as_str).unwrap_or_default();
        w.property("Description", "s", |w| {
            w.string("ig, started from a container");
        });
        w.property("Type", "s", |w| {
            w.string("oneshot");
        });
        w.property("RemainAfterExit", "b", |w| {
            w.bool(true);
        });
        w.property("ExecStart", "a(sasb)", |w| {
            w.array(8, |w| {
                w.align(8).string(program).strings(self.command.iter().map(String::as_str)).bool(false);
            });
        });
        w.property("Environment", "as", |w| {
            w.strings(self.environment.iter().map(String::as_str));
        });
        for (index, name) in
            ["StandardInputFileDescriptor", "StandardOutputFileDescriptor", "StandardErrorFileDescriptor"]
                .into_iter()
                .enumerate()
        {
            w.property(name, "h", |w| {
                w.u32(index as u32);
            });
        }
    }

    pub(super) fn kill(&self, signal: i32) -> Call {
        let mut w = Writer::default();
        w.string(&self.name).string("main").u32(signal as u32);
        self.manager("KillUnit", "ssi", w)
    }

    pub(super) fn stop(&self) -> Call {
        let mut w = Writer::default();
        w.string(&self.name).string("replace");
        self.manager("StopUnit", "ss", w)
    }

    /// Forgets a failed unit.
    pub(super) fn reset(&self) -> Call {
        let mut w = Writer::default();
        w.string(&self.name);
        self.manager("ResetFailedUnit", "s", w)
    }

    pub(super) fn property(&self, name: &str) -> Call {
        let mut w = Writer::default();
        w.string("org.freedesktop.systemd1.Service").string(name);
        Call {
            path: format!("/org/freedesktop/systemd1/unit/{}", escaped(&self.name)),
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
            signature: "ss",
            body: w.bytes,
            ..Call::default()
        }
    }

    /// `ExecMainCode` (as `si_code` of SIGCHLD) and `ExecMainStatus` with the job's result.
    pub(super) fn outcome(&self, (code, status): (i32, i32), result: &str) -> Result<Outcome, SystemdError> {
        const EXITED: i32 = 1;
        const KILLED: i32 = 2;
        const DUMPED: i32 = 3;
        // systemd itself ends with codes from here on what it cannot even start.
        const NOT_STARTED: u8 = 200;
        let number = u8::try_from(status).unwrap_or(u8::MAX);
        match code {
            EXITED if number < NOT_STARTED => Ok(Outcome::Exited(number)),
            KILLED | DUMPED => Ok(Outcome::Killed(number)),
            EXITED => Err(SystemdError::DidNotRun { unit: self.name.clone(), result: format!("exit code {status}") }),
            _ => Err(SystemdError::DidNotRun { unit: self.name.clone(), result: result.to_owned() }),
        }
    }
}

/// A unit's name as part of an object path.
fn escaped(name: &str) -> String {
    let mut out = String::new();
    for (i, b) in name.bytes().enumerate() {
        if b.is_ascii_alphabetic() || i > 0 && b.is_ascii_digit() {
            out.push(b as char);
        } else {
            out.push_str(&format!("_{b:02x}"));
        }
    }
    out
}

/// The answer to a call, unless it is an error.
pub(super) fn accepted(member: &'static str, answer: Message) -> Result<Message, SystemdError> {
    if answer.kind != ERROR {
        return Ok(answer);
    }
    let message = Reader::new(&answer.body).string().unwrap_or_default().to_owned();
    Err(SystemdError::Call { member, error: answer.error, message })
}

/// The job that starting the unit made.
pub(super) fn job(answer: &Message) -> Option<String> {
    Reader::new(&answer.body).string().map(str::to_owned)
}

/// The result of this job, where the message says that it is over.
pub(super) fn removed(m: &Message, job: &str) -> Option<String> {
    if m.kind != SIGNAL || m.interface != MANAGER || m.member != "JobRemoved" {
        return None;
    }
    let mut r = Reader::new(&m.body);
    let (_id, path, _unit, result) = (r.u32()?, r.string()?, r.string()?, r.string()?);
    (path == job).then(|| result.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit() -> Unit {
        Unit { name: "ig-1.service".into(), command: vec!["/p/ig".into()], environment: Vec::new() }
    }

    #[test]
    fn names_become_object_paths() {
        assert_eq!(escaped("ig-1a.service"), "ig_2d1a_2eservice");
        assert_eq!(escaped("1"), "_31");
        assert_eq!(unit().property("X").path, "/org/freedesktop/systemd1/unit/ig_2d1_2eservice");
    }

    #[test]
    fn exit_codes_pass_through() {
        let outcome = |code, status| unit().outcome((code, status), "done").map(Outcome::code);
        assert_eq!(outcome(1, 0).unwrap(), 0);
        assert_eq!(outcome(1, 4).unwrap(), 4);
        assert_eq!(outcome(2, 9).unwrap(), 137);
        for (code, status) in [(1, 203), (0, 0)] {
            assert!(matches!(outcome(code, status), Err(SystemdError::DidNotRun { .. })), "{code} {status}");
        }
    }

    #[test]
    fn only_its_own_jobs_end_counts() {
        let body = |job: &str| {
            let mut w = Writer::default();
            w.u32(1).string(job).string("ig-1.service").string("done");
            w.bytes
        };
        let signal = |job: &str| Message {
            kind: SIGNAL,
            interface: MANAGER.into(),
            member: "JobRemoved".into(),
            body: body(job),
            ..Message::default()
        };
        assert_eq!(removed(&signal("/job/1"), "/job/1").as_deref(), Some("done"));
        assert_eq!(removed(&signal("/job/2"), "/job/1"), None);
        assert_eq!(removed(&Message { body: Vec::new(), ..signal("/job/1") }, "/job/1"), None);
    }
}

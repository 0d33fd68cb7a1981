//! A connection to systemd: its own private socket, or the system bus. Authenticates, numbers calls, waits with an end.

use super::{
    SystemdError,
    wire::{Call, Message, Writer},
};
use ig_runtime::fd_passing;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long an answer may take. The systemd of tests may have to wait for a processor.
const ANSWER_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 120 } else { 10 });

pub(super) struct Connection {
    stream: UnixStream,
    socket: PathBuf,
    buf: Vec<u8>,
    serial: u32,
    destination: Option<&'static str>,
}

impl Connection {
    /// Connects and authenticates as `uid`. `on_bus`: a bus daemon stands between.
    pub(super) fn open(socket: &Path, uid: u32, on_bus: bool) -> Result<Connection, SystemdError> {
        let failed = |source| SystemdError::Connect { socket: socket.to_owned(), source };
        let stream = UnixStream::connect(socket).map_err(failed)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN)).map_err(failed)?;
        stream.set_write_timeout(Some(ANSWER_WITHIN)).map_err(failed)?;
        let destination = on_bus.then_some("org.freedesktop.systemd1");
        let mut c = Connection { stream, socket: socket.to_owned(), buf: Vec::new(), serial: 0, destination };
        // The user's number in decimal, its digits in hexadecimal.
        let who: String = uid.to_string().bytes().map(|b| format!("{b:02x}")).collect();
        // In one piece: systemd forgets to look at a message that it reads together with a late BEGIN, and by the answers
        // to the lines before we know that it has read this one.
        c.write(format!("\0AUTH EXTERNAL {who}\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n").as_bytes(), &[])?;
        c.line("OK ")?;
        c.line("AGREE_UNIX_FD")?;
        if on_bus {
            c.bus("Hello", "", Vec::new())?;
            let mut rule = Writer::default();
            rule.string("type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'");
            c.bus("AddMatch", "s", rule.bytes)?;
        }
        Ok(c)
    }

    fn bus(&mut self, member: &'static str, signature: &'static str, body: Vec<u8>) -> Result<(), SystemdError> {
        let call = Call {
            destination: Some("org.freedesktop.DBus"),
            path: "/org/freedesktop/DBus".into(),
            interface: "org.freedesktop.DBus",
            member,
            signature,
            body,
            fds: 0,
        };
        self.ask(call, &[], &mut Vec::new()).map(drop)
    }

    fn failed(&self, source: io::Error) -> SystemdError {
        SystemdError::Connect { socket: self.socket.clone(), source }
    }

    fn write(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), SystemdError> {
        let mut sent = 0;
        while sent < bytes.len() {
            let with = if sent == 0 { fds } else { &[] };
            match fd_passing::send(self.stream.as_fd(), &bytes[sent..], with) {
                Ok(n) => sent += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.failed(e)),
            }
        }
        Ok(())
    }

    /// An answer to a line of the authentication, by its beginning.
    fn line(&mut self, expected: &str) -> Result<(), SystemdError> {
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).map_err(|e| self.failed(e))?;
            answer.push(byte[0]);
            if answer.len() > 512 {
                return Err(SystemdError::Garbage);
            }
        }
        let answer = String::from_utf8_lossy(&answer).trim_end().to_owned();
        if answer.starts_with(expected) { Ok(()) } else { Err(SystemdError::Refused { answer }) }
    }

    /// Sends a call; gives its number.
    pub(super) fn send(&mut self, mut call: Call, fds: &[BorrowedFd<'_>]) -> Result<u32, SystemdError> {
        self.serial += 1;
        call.destination = call.destination.or(self.destination);
        let bytes = call.bytes(self.serial);
        self.write(&bytes, fds)?;
        Ok(self.serial)
    }

    /// Sends a call and waits for its answer; what else comes meanwhile goes to `others`.
    pub(super) fn ask(
        &mut self,
        call: Call,
        fds: &[BorrowedFd<'_>],
        others: &mut Vec<Message>,
    ) -> Result<Message, SystemdError> {
        let member = call.member;
        let serial = self.send(call, fds)?;
        let start = Instant::now();
        loop {
            let left = ANSWER_WITHIN.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(SystemdError::Silent { member, seconds: ANSWER_WITHIN.as_secs() });
            }
            match self.next(Some(left), None)? {
                Heard::Message(m) if m.reply_to == serial => return Ok(m),
                Heard::Message(m) => others.push(m),
                Heard::Other | Heard::Nothing => {}
            }
        }
    }

    /// Waits for a message, or until `other` can be read, or for `limit`.
    pub(super) fn next(
        &mut self,
        limit: Option<Duration>,
        other: Option<BorrowedFd<'_>>,
    ) -> Result<Heard, SystemdError> {
        loop {
            if let Some(m) = Message::take(&mut self.buf)? {
                return Ok(Heard::Message(m));
            }
            let limit = limit.map(|l| Timespec { tv_sec: l.as_secs() as i64, tv_nsec: i64::from(l.subsec_nanos()) });
            let mut fds = vec![PollFd::new(&self.stream, PollFlags::IN)];
            fds.extend(other.iter().map(|o| PollFd::from_borrowed_fd(*o, PollFlags::IN)));
            match poll(&mut fds, limit.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(self.failed(e.into())),
                Ok(0) => return Ok(Heard::Nothing),
                Ok(_) => {}
            }
            if fds.get(1).is_some_and(|o| !o.revents().is_empty()) {
                return Ok(Heard::Other);
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(SystemdError::Gone),
                Ok(n) => self.buf.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.failed(e)),
            }
        }
    }
}

/// What ended a wait.
pub(super) enum Heard {
    Message(Message),
    /// The other descriptor can be read.
    Other,
    Nothing,
}

//! The way to end a run from outside: a flag for the loop, and a file descriptor that wakes it.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Asks a run to stop. Safe to use from a signal handler: setting the flag and writing a byte is all it takes.
#[derive(Debug)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    /// Whether the tables are to be read at once.
    look: Arc<AtomicBool>,
    reader: UnixStream,
    writer: UnixStream,
}

impl Stop {
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        Ok(Stop { flag: Arc::default(), look: Arc::default(), reader, writer })
    }

    /// The flag itself, for a signal handler.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.flag.clone()
    }

    /// A byte written here wakes the run.
    pub fn waker(&self) -> io::Result<UnixStream> {
        self.writer.try_clone()
    }

    pub fn request(&self) {
        self.flag.store(true, Ordering::SeqCst);
        // A full pipe wakes the run just as well.
        match io::Write::write(&mut &self.writer, b"s") {
            Ok(_) | Err(_) => {}
        }
    }

    /// The flag that has tables of maps read at once, besides their interval. Whoever sets it then writes to the waker.
    pub fn look_flag(&self) -> Arc<AtomicBool> {
        self.look.clone()
    }

    /// Whether somebody wants to see the tables; once for each request.
    pub(super) fn take_look(&self) -> bool {
        if !self.look.swap(false, Ordering::SeqCst) {
            return false;
        }
        // The byte that woke the run would wake it for ever. That of a stop may go with it: its flag says it all.
        let mut bytes = [0u8; 64];
        while io::Read::read(&mut &self.reader, &mut bytes).is_ok_and(|n| n == bytes.len()) {}
        true
    }

    pub fn requested(&self) -> bool {
        self.flag.load(Ordering::SeqCst)
    }
}

impl AsFd for Stop {
    /// Readable once a stop was asked for.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_look_is_taken_once_and_wakes_nobody_afterwards() {
        let stop = Stop::new().unwrap();
        assert!(!stop.take_look());
        stop.look_flag().store(true, Ordering::SeqCst);
        stop.waker().unwrap().write_all(b"s").unwrap();
        assert!(stop.take_look() && !stop.take_look());
        let left = io::Read::read(&mut &stop.reader, &mut [0u8; 1]).unwrap_err();
        assert_eq!(left.kind(), io::ErrorKind::WouldBlock);
        stop.request();
        assert!(stop.requested() && !stop.take_look());
    }
}

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
    reader: UnixStream,
    writer: UnixStream,
}

impl Stop {
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        Ok(Stop { flag: Arc::default(), reader, writer })
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

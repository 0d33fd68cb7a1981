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

    /// One for another run that stops with this one, and hears of looks by `pass_on`: a byte wakes only who reads it.
    pub(super) fn child(&self) -> io::Result<Self> {
        Ok(Stop { flag: self.flag.clone(), ..Stop::new()? })
    }

    /// Takes every look and the stop to `children`, until it has taken the stop. For the one thread that waits for this.
    pub(super) fn pass_on(&self, children: &[Stop]) {
        while !self.requested() {
            let mut fds = [rustix::event::PollFd::new(self, rustix::event::PollFlags::IN)];
            // Interrupted by a signal, or woken by one whose flag is still to come: looked at again.
            if rustix::event::poll(&mut fds, None).is_ok() && self.take_look() {
                // The byte before the flag, see `look_flag`.
                children.iter().for_each(|c| {
                    c.wake();
                    c.look.store(true, Ordering::SeqCst);
                });
            }
        }
        children.iter().for_each(Stop::wake);
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
        self.wake();
    }

    fn wake(&self) {
        // A full pipe wakes the run just as well.
        match io::Write::write(&mut &self.writer, b"s") {
            Ok(_) | Err(_) => {}
        }
    }

    /// The flag that has tables of maps read at once, besides their interval. Whoever sets it has written to the waker
    /// before: a byte that came later would be taken by nobody, and wake the run for ever.
    pub fn look_flag(&self) -> Arc<AtomicBool> {
        self.look.clone()
    }

    /// Whether somebody wants to see the tables; once for each request.
    pub(super) fn take_look(&self) -> bool {
        if !self.look.swap(false, Ordering::SeqCst) {
            return false;
        }
        let mut bytes = [0u8; 64];
        while io::Read::read(&mut &self.reader, &mut bytes).is_ok_and(|n| n == bytes.len()) {}
        // That of a stop may have gone with it, after its flag was looked at.
        if self.requested() {
            self.wake();
        }
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
        stop.waker().unwrap().write_all(b"s").unwrap();
        stop.look_flag().store(true, Ordering::SeqCst);
        assert!(stop.take_look() && !stop.take_look());
        let left = io::Read::read(&mut &stop.reader, &mut [0u8; 1]).unwrap_err();
        assert_eq!(left.kind(), io::ErrorKind::WouldBlock);
        stop.request();
        assert!(stop.requested() && !stop.take_look());
    }

    fn wakes(stop: &Stop) -> bool {
        io::Read::read(&mut &stop.reader, &mut [0u8; 64]).is_ok()
    }

    #[test]
    fn a_look_does_not_take_the_byte_of_a_stop_away() {
        let stop = Stop::new().unwrap();
        stop.look_flag().store(true, Ordering::SeqCst);
        stop.request();
        assert!(stop.take_look());
        assert!(wakes(&stop));
    }

    #[test]
    fn every_child_hears_of_every_look_and_of_the_stop() {
        let parent = Stop::new().unwrap();
        let children = [parent.child().unwrap(), parent.child().unwrap()];
        // Told afterwards: who fails in here leaves a thread that never stops.
        let mut woken_again = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| parent.pass_on(&children));
            for look in 0..100 {
                parent.wake();
                parent.look.store(true, Ordering::SeqCst);
                for child in &children {
                    while !child.take_look() {
                        std::thread::yield_now();
                    }
                    if wakes(child) || child.requested() {
                        woken_again.push(look);
                    }
                }
            }
            parent.request();
        });
        assert_eq!(woken_again, [0; 0]);
        assert!(children.iter().all(|c| c.requested() && wakes(c)));
    }
}

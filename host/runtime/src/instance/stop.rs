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
            // Interrupted by a signal, or woken by the late byte of a look that was taken already: looked at again.
            if rustix::event::poll(&mut fds, None).is_ok() && self.take_look() {
                children.iter().for_each(Stop::ask_for_look);
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

    fn ask_for_look(&self) {
        self.look.store(true, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        // A full pipe wakes the run just as well.
        match io::Write::write(&mut &self.writer, b"s") {
            Ok(_) | Err(_) => {}
        }
    }

    /// The flag that has tables of maps read at once, besides their interval. Whoever sets it writes to the waker after it.
    pub fn look_flag(&self) -> Arc<AtomicBool> {
        self.look.clone()
    }

    /// Whether somebody wants to see the tables; once for each request. To be asked after each waking: the bytes are taken
    /// before the flag, so that none of them goes without its look, and one that is late wakes in vain, but once only.
    pub(super) fn take_look(&self) -> bool {
        let mut bytes = [0u8; 64];
        let mut taken = false;
        while let Ok(n @ 1..) = io::Read::read(&mut &self.reader, &mut bytes) {
            taken = true;
            if n < bytes.len() {
                break;
            }
        }
        let look = self.look.swap(false, Ordering::SeqCst);
        // That of a stop may have gone with them.
        if taken && self.requested() {
            self.wake();
        }
        look
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

    /// Waits for a byte, for a minute at most.
    fn readable(stop: &Stop) -> bool {
        let mut fds = [rustix::event::PollFd::new(stop, rustix::event::PollFlags::IN)];
        let minute = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&minute)) == Ok(1)
    }

    fn wakes(stop: &Stop) -> bool {
        io::Read::read(&mut &stop.reader, &mut [0u8; 64]).is_ok()
    }

    #[test]
    fn a_byte_that_is_late_wakes_once_and_asks_for_nothing() {
        let stop = Stop::new().unwrap();
        stop.look_flag().store(true, Ordering::SeqCst);
        assert!(stop.take_look());
        stop.waker().unwrap().write_all(b"s").unwrap();
        assert!(!stop.take_look() && !wakes(&stop));
    }

    #[test]
    fn a_look_does_not_take_the_byte_of_a_stop_away() {
        let stop = Stop::new().unwrap();
        stop.look_flag().store(true, Ordering::SeqCst);
        stop.request();
        assert!(stop.take_look());
        assert!(wakes(&stop));
    }

    struct RequestedAtTheEnd<'a>(&'a Stop);

    impl Drop for RequestedAtTheEnd<'_> {
        fn drop(&mut self) {
            self.0.request();
        }
    }

    #[test]
    fn every_child_hears_of_every_look_and_of_the_stop() {
        let parent = Stop::new().unwrap();
        let children = [parent.child().unwrap(), parent.child().unwrap()];
        std::thread::scope(|scope| {
            scope.spawn(|| parent.pass_on(&children));
            // also after a panic, which would wait for that thread else
            let _end = RequestedAtTheEnd(&parent);
            for _ in 0..3 {
                parent.ask_for_look();
                for child in &children {
                    // woken each time, be it by the late byte of the look before
                    while !child.take_look() {
                        assert!(readable(child));
                    }
                    assert!(!child.requested());
                }
            }
        });
        assert!(children.iter().all(|c| c.requested() && wakes(c)));
    }
}

//! Detaches probes beside the thread that attaches them: the kernel takes a tenth of a second and more for each, one after the
//! other, and holds up who attaches meanwhile.
//!
//! A thread of its own closes what it is sent, and pauses while something is attached. Bounded: who sends too much waits.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

/// Probes that wait to be detached.
const QUEUE: usize = 4096;

/// How many are attaching.
#[derive(Default)]
struct Attaching(Mutex<usize>, Condvar);

impl Attaching {
    fn count(&self) -> MutexGuard<'_, usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While it lives, no other probe begins to be detached.
pub(super) struct Pause(Arc<Attaching>);

impl Drop for Pause {
    fn drop(&mut self) {
        *self.0.count() -= 1;
        self.0.1.notify_all();
    }
}

/// Dropping it waits until all that it was given is closed.
pub(super) struct Closer {
    sender: Option<SyncSender<OwnedFd>>,
    attaching: Arc<Attaching>,
    thread: Option<JoinHandle<()>>,
}

impl Closer {
    pub(super) fn start() -> io::Result<Closer> {
        let (sender, receiver) = sync_channel(QUEUE);
        let attaching = Arc::<Attaching>::default();
        let shared = attaching.clone();
        let thread = std::thread::Builder::new().name("uprobes-closing".into());
        let thread = thread.spawn(move || close_all(&receiver, &shared))?;
        Ok(Closer { sender: Some(sender), attaching, thread: Some(thread) })
    }

    pub(super) fn close(&self, events: impl Iterator<Item = OwnedFd>) {
        let Some(sender) = &self.sender else { return };
        // What the thread cannot take any more is closed right here.
        events.for_each(|event| drop(sender.send(event)));
    }

    pub(super) fn pause(&self) -> Pause {
        *self.attaching.count() += 1;
        Pause(self.attaching.clone())
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            // A panic over there was already reported by the panic hook.
            drop(thread.join());
        }
    }
}

fn close_all(events: &Receiver<OwnedFd>, attaching: &Attaching) {
    while let Ok(event) = events.recv() {
        let now = attaching.1.wait_while(attaching.count(), |n| *n > 0);
        // Not held while it is closed: who attaches must not wait for more than this one.
        drop(now.unwrap_or_else(PoisonError::into_inner));
        drop(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{self, Read, Write},
        time::Duration,
    };

    #[test]
    fn nothing_is_closed_while_somebody_attaches_and_all_of_it_before_the_end() {
        let (mut reader, writer) = io::pipe().unwrap();
        let closer = Closer::start().unwrap();
        let pause = closer.pause();
        let again = closer.pause();
        let mut own = writer.try_clone().unwrap();
        closer.close((0..3).map(|_| writer.try_clone().unwrap().into()));
        drop((writer, pause));
        std::thread::sleep(Duration::from_millis(50));
        own.write_all(b"x").unwrap();
        drop(own);
        reader.read_exact(&mut [0]).unwrap();
        let open = |reader: &io::PipeReader| {
            let mut fds = [rustix::event::PollFd::new(reader, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 0
        };
        assert!(open(&reader), "they wait");
        drop(again);
        drop(closer);
        assert_eq!(io::read_to_string(reader).unwrap(), "", "the last writer is gone");
    }
}

//! When to look at the buffers: every millisecond while there is much, less often while there is little, and not at all
//! while there is nothing, until the kernel says so.
//!
//! Owned by the run's thread.

use super::{
    maps::RawMap,
    object::MAP_PERCPU_ARRAY,
    ring::{Rest, Ring},
    sys,
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

const SHORT: Duration = Duration::from_millis(1);
/// Bounded by what a burst can write meanwhile: 400,000 records of 1 kB a second fill 2 MiB in this time.
const LONG: Duration = Duration::from_millis(5);
/// Rows of one look from which the next comes after a millisecond, and below which it may come later.
pub const MANY: usize = 64;
/// Looks in vain before the reader goes to sleep.
const EMPTY_LOOKS: u32 = 3;

/// What to do before the next look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Let time pass; wakeups are not wanted.
    Nap(Duration),
    /// Release everything and wait for the kernel.
    Sleep,
}

/// Chooses the pace from how much the last looks found. Pure: no clock, no system call.
#[derive(Debug, Default)]
pub struct Pacer {
    nap: Duration,
    empty: u32,
}

impl Pacer {
    /// `rows`: what the last look found.
    pub fn next(&mut self, rows: usize) -> Pace {
        if rows == 0 {
            self.empty += 1;
            if self.empty >= EMPTY_LOOKS || self.nap.is_zero() {
                self.nap = Duration::ZERO;
                return Pace::Sleep;
            }
            return Pace::Nap(self.nap);
        }
        self.empty = 0;
        self.nap = if rows >= MANY || self.nap.is_zero() { SHORT } else { (self.nap * 2).min(LONG) };
        Pace::Nap(self.nap)
    }
}

/// Waits for the buffers of one run, and for whatever else may end its sleep.
#[derive(Debug)]
pub struct Waiter {
    epoll: OwnedFd,
    pacer: Pacer,
}

impl Waiter {
    pub fn new() -> io::Result<Waiter> {
        Ok(Waiter { epoll: sys::epoll_create()?, pacer: Pacer::default() })
    }

    /// Adds a descriptor that ends a sleep when it becomes readable: a ring's, a perf buffer's, or a request to stop.
    pub fn add(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        sys::epoll_add(self.epoll.as_fd(), fd)
    }

    /// Waits as the pace wants it. `rows`: what the last look found. `deadline`: return by then at the latest.
    pub fn wait(&mut self, rows: usize, rings: &mut [&mut Ring], deadline: Option<Instant>) -> io::Result<()> {
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        if left.is_some_and(|l| l.is_zero()) {
            return Ok(());
        }
        match self.pacer.next(rows) {
            // the last look was cut short, or the load is too high for pauses
            Pace::Nap(_) if rings.iter().any(|r| r.is_behind()) => Ok(()),
            Pace::Nap(nap) => {
                std::thread::sleep(left.map_or(nap, |l| l.min(nap)));
                Ok(())
            }
            Pace::Sleep => self.sleep(rings, left),
        }
    }

    fn sleep(&mut self, rings: &mut [&mut Ring], left: Option<Duration>) -> io::Result<()> {
        let mut may_sleep = true;
        for r in rings.iter_mut() {
            may_sleep &= r.release() != Rest::More;
        }
        if !may_sleep {
            return Ok(());
        }
        // rounded up, so that a wait for half a millisecond does not become a busy loop
        let ms = left.map_or(-1, |l| i32::try_from(l.as_micros().div_ceil(1000)).unwrap_or(i32::MAX));
        sys::epoll_wait(self.epoll.as_fd(), ms)
    }
}

/// A per-CPU counter of a BPF program, read as differences and never reset, so that no count is lost between two reads.
#[derive(Debug)]
pub struct LostCounter {
    map: RawMap<OwnedFd>,
    seen: u64,
}

impl LostCounter {
    /// The suffix of the map that counts what did not fit into a buffer: `events` has `events_lost_samples`.
    pub const SUFFIX: &'static str = "_lost_samples";
    /// The map that counts what did not fit into the gadget's other maps.
    pub const MAP_FULL: &'static str = "gadget_map_full";
    /// The map that counts where the gadget could not follow a stream.
    pub const STREAM_GAP: &'static str = "gadget_stream_gap";

    /// `map`: a per-CPU array of one u64. What it holds already counts from the first read on.
    pub fn new(map: BorrowedFd<'_>) -> io::Result<LostCounter> {
        let map = RawMap::new(map.try_clone_to_owned()?)?;
        let i = map.info();
        if (i.kind, i.key_size, i.value_size) != (MAP_PERCPU_ARRAY, 4, 8) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a counter of losses is a per-CPU array of u64"));
        }
        Ok(LostCounter { map, seen: 0 })
    }

    /// Counted since the last call.
    pub fn take(&mut self) -> io::Result<u64> {
        let now = self.map.sum_u64(0)?;
        let new = now.saturating_sub(self.seen);
        self.seen = now;
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_looks_every_millisecond_and_slow_ones_less_often() {
        let mut p = Pacer::default();
        assert_eq!(p.next(1), Pace::Nap(SHORT), "after sleep the first look comes soon");
        assert_eq!(p.next(1000), Pace::Nap(SHORT));
        assert_eq!(p.next(3), Pace::Nap(SHORT * 2));
        assert_eq!(p.next(3), Pace::Nap(SHORT * 4));
        assert_eq!(p.next(3), Pace::Nap(LONG));
        assert_eq!(p.next(MANY), Pace::Nap(SHORT));
    }

    #[test]
    fn nothing_to_read_ends_in_sleep() {
        let mut p = Pacer::default();
        assert_eq!(p.next(0), Pace::Sleep, "nothing at the start: no polling at all");
        assert_eq!(p.next(5), Pace::Nap(SHORT));
        assert_eq!(p.next(0), Pace::Nap(SHORT));
        assert_eq!(p.next(0), Pace::Nap(SHORT));
        assert_eq!(p.next(0), Pace::Sleep);
        assert_eq!(p.next(0), Pace::Sleep);
    }

    #[test]
    fn a_sleep_ends_with_its_deadline_and_with_whatever_was_added() {
        let mut w = Waiter::new().unwrap();
        let t = Instant::now();
        w.wait(0, &mut [], Some(t + Duration::from_millis(5))).unwrap();
        assert!(t.elapsed() >= Duration::from_millis(5));
        let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        w.add(reader.as_fd()).unwrap();
        std::thread::spawn(move || io::Write::write_all(&mut &writer, b"s").unwrap()).join().unwrap();
        w.wait(0, &mut [], None).unwrap();
    }
}

//! A reader of BPF ring buffers that leaves the traced programs alone.
//!
//! The kernel wakes the reader when a record is committed exactly where the reader stands. A reader that polls and always
//! keeps its last record unreleased ("lag") is never woken, and the traced program saves the microseconds of waking it.
//! Before going to sleep the reader releases everything and looks again (`release`), so the next record does wake it.
//! One reader per map; used by one thread. Nothing is copied: records are lent to the caller one by one.

use super::sys::{self, Mapping};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU32, Ordering, fence},
};

const BUSY: u32 = 1 << 31;
const DISCARD: u32 = 1 << 30;
const HEADER: u64 = 8;

/// What a ring buffer still holds when it has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    Nothing,
    /// A record that some program has begun and not yet committed; others may stand behind it. Its end wakes the reader.
    Unfinished,
    /// Records that can be read now.
    More,
}

/// The consumer's end of a ring buffer map.
pub struct Ring {
    fd: OwnedFd,
    /// The page with our position.
    consumer: Mapping,
    /// The page with the kernel's position, then the data twice, so that no record wraps.
    data: Mapping,
    page: usize,
    mask: u64,
    /// Where the next record starts.
    position: u64,
    /// What the kernel was told.
    released: u64,
    lag: bool,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ring({} bytes at {}, lag {})", self.mask + 1, self.position, self.lag)
    }
}

impl Ring {
    /// Maps the ring buffer `fd` of `size` bytes (its `max_entries`). Starts in lag mode.
    pub fn new(fd: BorrowedFd<'_>, size: u32) -> io::Result<Ring> {
        let page = sys::page_size();
        if !size.is_power_of_two() || (size as usize) < page {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the size of a ring buffer is a power of two"));
        }
        let consumer = Mapping::new(fd, page, 0, true)?;
        let data = Mapping::new(fd, page + 2 * size as usize, page, false)?;
        let position = consumer.load(0);
        Ok(Ring {
            fd: fd.try_clone_to_owned()?,
            consumer,
            data,
            page,
            mask: u64::from(size) - 1,
            position,
            released: position,
            lag: true,
        })
    }

    /// For epoll: readable when the kernel wakes the reader.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// With lag the last record stays unreleased, so that new ones do not wake the reader.
    pub fn set_lag(&mut self, lag: bool) {
        self.lag = lag;
    }

    /// Bytes that wait, headers and discarded records included.
    pub fn pending(&self) -> u64 {
        self.data.load(0).wrapping_sub(self.position)
    }

    /// True where so much waits that the ring may fill up before a reader that pauses comes back.
    pub fn is_behind(&self) -> bool {
        self.pending() > (self.mask + 1) / 8
    }

    fn header(&self, position: u64) -> &AtomicU32 {
        let at = self.page + (position & self.mask) as usize;
        // SAFETY: `at` lies in the data area (masked), records start at multiples of 8, and headers are accessed only
        // atomically, as the kernel does
        unsafe { &*self.data.as_ptr().add(at).cast::<AtomicU32>() }
    }

    /// Lends committed records to `f`, oldest first, until there are no more, or `max_rows` records or `max_bytes` bytes
    /// were lent. Returns how many were. Then gives their room back to the kernel.
    pub fn drain(&mut self, max_rows: usize, max_bytes: usize, mut f: impl FnMut(&[u8])) -> usize {
        let (mut rows, mut bytes) = (0, 0);
        let mut last = None;
        while rows < max_rows && bytes < max_bytes {
            // acquire: the header is written before the producer's position is moved past it
            if self.position >= self.data.load(0) {
                break;
            }
            // acquire: the record's bytes are written before its busy bit is cleared
            let head = self.header(self.position).load(Ordering::Acquire);
            if head & BUSY != 0 {
                break;
            }
            let len = head & !(BUSY | DISCARD);
            if u64::from(len) + HEADER > self.mask + 1 {
                // cannot be: the kernel writes the header, and no program can
                break;
            }
            if head & DISCARD == 0 {
                let at = self.page + (self.position & self.mask) as usize + HEADER as usize;
                // SAFETY: the record starts in the first copy of the data and is at most as long as the ring, so it ends
                // in the second; the kernel does not write to a committed record before its room is given back, which
                // happens below, after `f` has returned
                f(unsafe { std::slice::from_raw_parts(self.data.as_ptr().add(at), len as usize) });
                rows += 1;
                bytes += len as usize;
            }
            last = Some(self.position);
            self.position += (u64::from(len) + HEADER).next_multiple_of(8);
            // give room back now and then, so that a full ring can be written to while it is read
            if self.position - self.released > (self.mask + 1) / 8 {
                self.give_back(if self.lag { last.unwrap_or(self.position) } else { self.position });
            }
        }
        if let Some(start) = last {
            self.give_back(if self.lag { start } else { self.position });
        }
        rows
    }

    fn give_back(&mut self, to: u64) {
        if to != self.released {
            self.consumer.store(0, to);
            self.released = to;
        }
    }

    /// Gives everything back and looks again. Unless there is more the reader may sleep, because the next record will wake it.
    pub fn release(&mut self) -> Rest {
        self.give_back(self.position);
        // pairs with the full barrier between the kernel's commit of a record and its look at our position: either it
        // sees us there and wakes us, or we see its record
        fence(Ordering::SeqCst);
        if self.position >= self.data.load(0) {
            Rest::Nothing
        } else if self.header(self.position).load(Ordering::Acquire) & BUSY != 0 {
            Rest::Unfinished
        } else {
            Rest::More
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    /// A file laid out as a ring buffer of one page: positions of consumer and producer on a page each, then the data.
    fn file() -> std::fs::File {
        let page = sys::page_size() as u64;
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 * page).unwrap();
        file
    }

    fn put(file: &std::fs::File, at: u64, head: u32, produced: u64) {
        let page = sys::page_size() as u64;
        file.write_at(&head.to_ne_bytes(), 2 * page + at).unwrap();
        file.write_at(&produced.to_ne_bytes(), page).unwrap();
    }

    #[test]
    fn a_record_that_is_being_written_is_not_the_end() {
        let file = file();
        let mut ring = Ring::new(file.as_fd(), sys::page_size() as u32).unwrap();
        let read = |ring: &mut Ring| (ring.drain(10, 1000, |_| {}), ring.release());
        assert_eq!(read(&mut ring), (0, Rest::Nothing));
        // One that is not committed, and behind it one that is.
        put(&file, 16, 8, 0);
        put(&file, 0, 8 | BUSY, 32);
        assert_eq!(read(&mut ring), (0, Rest::Unfinished));
        put(&file, 0, 8, 32);
        assert_eq!(ring.release(), Rest::More);
        assert_eq!(read(&mut ring), (2, Rest::Nothing));
    }
}

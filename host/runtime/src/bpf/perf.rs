//! Readers of perf event arrays, which have one buffer per CPU: `PerfReader` for what comes, for gadgets that declare one
//! and for kernels without ring buffers; `PerfRecorder` for the last of it, where the kernel overwrites what is oldest.
//!
//! Each is used by one thread. What the kernel could not write it counts itself, per buffer: since Linux 6.0 it tells when it
//! is asked, before that only in a record, which comes with the next one that does find room.

use super::{
    maps::{RawMap, Update},
    sys::{self, Mapping, PerfAttr},
};
use std::{
    io,
    ops::Range,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

const HEAD: usize = 1024;
const TAIL: usize = 1032;
const RECORD_LOST: u32 = 2;
const RECORD_SAMPLE: u32 = 9;

/// The reader's end of a perf event array.
#[derive(Debug)]
pub struct PerfReader {
    cpus: Vec<CpuBuffer>,
    record: Vec<u8>,
    lost: u64,
    /// The CPU that is drained first the next time: one that never runs dry must not keep the others waiting.
    first: usize,
}

struct CpuBuffer {
    event: OwnedFd,
    map: Mapping,
    page: usize,
    size: u64,
    /// The kernel tells how many records were lost when it is asked.
    tells: bool,
    /// As many as have been told by it.
    told: u64,
}

impl std::fmt::Debug for CpuBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CpuBuffer({} bytes)", self.size)
    }
}

impl PerfReader {
    /// Opens a buffer of `bytes` (a power of two, at least a page) on each CPU that runs, and puts it into the array.
    pub fn new(array: BorrowedFd<'_>, bytes: u32) -> io::Result<PerfReader> {
        Ok(PerfReader { cpus: open(array, bytes, Full::LoseNew)?, record: Vec::new(), lost: 0, first: 0 })
    }

    /// For epoll.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.cpus.iter().map(|c| c.event.as_fd())
    }

    /// Records the kernel had no room for, since the last call.
    pub fn take_lost(&mut self) -> io::Result<u64> {
        let mut lost = 0;
        for c in &mut self.cpus {
            lost += c.take_lost()?.unwrap_or(0);
        }
        // Both are zero where the other counts.
        Ok(lost + std::mem::take(&mut self.lost))
    }

    /// Hands out samples, CPU by CPU, at most about `max_rows`; the next call goes on where they ended. Up to seven bytes of padding may follow the record.
    pub fn drain(&mut self, max_rows: usize, mut f: impl FnMut(&[u8])) -> usize {
        let mut rows = 0;
        let (before, from) = self.cpus.split_at(self.first);
        for c in from.iter().chain(before) {
            if rows >= max_rows {
                break;
            }
            self.first = (self.first + 1) % self.cpus.len();
            rows += c.drain(max_rows - rows, &mut self.record, &mut self.lost, &mut f);
        }
        rows
    }
}

/// What the kernel does with a record for which there is no room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Full {
    LoseNew,
    OverwriteOld,
}

fn open(array: BorrowedFd<'_>, bytes: u32, full: Full) -> io::Result<Vec<CpuBuffer>> {
    let page = sys::page_size();
    if !bytes.is_power_of_two() || (bytes as usize) < page {
        let what = format!("a perf buffer has a power of two of bytes, at least {page}, not {bytes}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let raw = RawMap::new(array)?;
    let cpus = sys::online_cpus()?;
    cpus.into_iter().map(|cpu| CpuBuffer::open(&raw, cpu, page, bytes, full)).collect()
}

impl CpuBuffer {
    fn open(array: &RawMap<BorrowedFd<'_>>, cpu: u32, page: usize, bytes: u32, full: Full) -> io::Result<CpuBuffer> {
        const PERF_TYPE_SOFTWARE: u32 = 1;
        const PERF_COUNT_SW_BPF_OUTPUT: u64 = 10;
        const SAMPLE_RAW: u64 = 1 << 10;
        const FORMAT_LOST: u64 = 1 << 4;
        let mut attr = PerfAttr {
            kind: PERF_TYPE_SOFTWARE,
            config: PERF_COUNT_SW_BPF_OUTPUT,
            sample: 1,
            sample_type: SAMPLE_RAW,
            read_format: FORMAT_LOST,
            flags: match full {
                Full::LoseNew => sys::PERF_WATERMARK,
                Full::OverwriteOld => sys::PERF_WRITE_BACKWARD,
            },
            // any record wakes a sleeping reader; while it polls nobody waits
            wakeup: u32::from(full == Full::LoseNew),
            ..PerfAttr::default()
        };
        let mut event = sys::perf_event_open(&mut attr, -1, cpu as i32);
        let tells = event.is_ok();
        if event.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::EINVAL)) {
            attr.read_format = 0;
            event = sys::perf_event_open(&mut attr, -1, cpu as i32);
        }
        let event = event?;
        // A buffer that its reader cannot mark as read is one that the kernel overwrites.
        let map = Mapping::new(event.as_fd(), page + bytes as usize, 0, full == Full::LoseNew)?;
        array.update(&cpu.to_le_bytes(), &(event.as_raw_fd() as u32).to_le_bytes(), Update::Any)?;
        sys::perf_enable(event.as_fd())?;
        Ok(CpuBuffer { event, map, page, size: bytes.into(), tells, told: 0 })
    }

    /// As many as were lost since the last call; `None` where the kernel does not tell.
    fn take_lost(&mut self) -> io::Result<Option<u64>> {
        if !self.tells {
            return Ok(None);
        }
        let now = sys::perf_lost(self.event.as_fd())?;
        Ok(Some(now.saturating_sub(std::mem::replace(&mut self.told, now))))
    }

    fn copy(&self, position: u64, out: &mut [u8]) {
        let at = (position & (self.size - 1)) as usize;
        let first = out.len().min(self.size as usize - at);
        let (a, b) = out.split_at_mut(first);
        self.map.copy(self.page + at, a);
        self.map.copy(self.page, b);
    }

    fn drain(&self, max_rows: usize, record: &mut Vec<u8>, lost: &mut u64, f: &mut impl FnMut(&[u8])) -> usize {
        let head = self.map.load(HEAD);
        let mut tail = self.map.load(TAIL);
        let mut rows = 0;
        while head.wrapping_sub(tail) >= 8 && rows < max_rows {
            let mut header = [0u8; 8];
            self.copy(tail, &mut header);
            let kind = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
            let size = usize::from(u16::from_le_bytes([header[6], header[7]]));
            if size < 8 || size as u64 > head.wrapping_sub(tail) {
                // cannot be; going on would read the same bytes for ever
                tail = head;
                break;
            }
            record.resize(size - 8, 0);
            self.copy(tail + 8, record);
            tail += size as u64;
            let word = |at: usize| record.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
            match kind {
                RECORD_LOST if !self.tells => *lost = lost.saturating_add(word(8)),
                RECORD_SAMPLE => {
                    let len = word(0) as u32 as usize;
                    if let Some(sample) = record.get(4..4 + len) {
                        f(sample);
                        rows += 1;
                    }
                }
                _ => {}
            }
        }
        self.map.store(TAIL, tail);
        rows
    }
}

/// The last records of each CPU.
#[derive(Debug)]
pub struct PerfRecorder {
    cpus: Vec<Recorded>,
}

#[derive(Debug)]
struct Recorded {
    buffer: CpuBuffer,
    /// The kernel's position when it was read the last time. It only goes down.
    read_to: u64,
}

/// What was in the buffer of one CPU, oldest first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recent {
    bytes: Vec<u8>,
    /// Where in `bytes` each record lies, newest first.
    records: Vec<Range<usize>>,
    pub lost: u64,
}

impl Recent {
    /// Takes the oldest record. Up to seven bytes of padding may follow it.
    pub fn pop(&mut self) -> Option<&[u8]> {
        self.records.pop().and_then(|at| self.bytes.get(at))
    }

    /// Bytes of the oldest record.
    pub fn next_len(&self) -> Option<usize> {
        self.records.last().map(ExactSizeIterator::len)
    }

    /// Finds the records in what was copied, from the newest on. `whole` tells that nothing of it can have been overwritten
    /// while it was copied.
    fn index(bytes: Vec<u8>, whole: bool) -> Recent {
        let word = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
        let (mut at, mut largest) = (0, 0);
        let mut losses: Vec<(usize, u64)> = Vec::new();
        let mut found: Vec<(usize, Range<usize>)> = Vec::new();
        // Where the oldest record was overwritten in part, its size says more than is there.
        while at + 8 <= bytes.len() {
            let header = word(at);
            let (kind, size) = (header as u32, (header >> 48) as usize);
            if size < 8 || at + size > bytes.len() {
                break;
            }
            largest = largest.max(size);
            match kind {
                RECORD_LOST => losses.push((at + size, word(at + 16))),
                RECORD_SAMPLE => {
                    let (start, len) = (at + 12, word(at + 8) as u32 as usize);
                    if start + len <= at + size {
                        found.push((at + size, start..start + len));
                    }
                }
                _ => {}
            }
            at += size;
        }
        // Who began to write before the buffer was closed may still have been at it, over the oldest records: the thread,
        // and in the middle of it interrupts of three kinds.
        let sound = if whole { at } else { at.saturating_sub(WRITERS * largest) };
        let records = found.into_iter().take_while(|(end, _)| *end <= sound).map(|(_, r)| r).collect();
        let lost =
            losses.into_iter().take_while(|(end, _)| *end <= sound).fold(0u64, |sum, (_, n)| sum.saturating_add(n));
        Recent { bytes, records, lost }
    }
}

/// Contexts that can be writing into the buffer of one CPU at the same time.
const WRITERS: usize = 4;

impl PerfRecorder {
    /// As `PerfReader::new`.
    pub fn new(array: BorrowedFd<'_>, bytes: u32) -> io::Result<PerfRecorder> {
        let cpus = open(array, bytes, Full::OverwriteOld)?;
        Ok(PerfRecorder { cpus: cpus.into_iter().map(|buffer| Recorded { buffer, read_to: 0 }).collect() })
    }

    /// How many CPUs there are to be read.
    pub fn cpus(&self) -> usize {
        self.cpus.len()
    }

    /// What has come on one CPU since it was read the last time, and is not overwritten. The kernel writes nothing while it
    /// is copied, and counts what it would have written.
    pub fn read(&mut self, cpu: usize) -> io::Result<Recent> {
        let Some(recorded) = self.cpus.get_mut(cpu) else { return Ok(Recent::default()) };
        let b = &mut recorded.buffer;
        sys::perf_pause(b.event.as_fd(), true)?;
        let head = b.map.load(HEAD);
        let new = recorded.read_to.wrapping_sub(head);
        let mut bytes = vec![0; new.min(b.size) as usize];
        b.copy(head, &mut bytes);
        sys::perf_pause(b.event.as_fd(), false)?;
        recorded.read_to = head;
        let mut recent = Recent::index(bytes, new + WRITERS as u64 * LARGEST_RECORD <= b.size);
        recent.lost = b.take_lost()?.unwrap_or(recent.lost);
        Ok(recent)
    }
}

/// The size of a record is a number of 16 bits.
const LARGEST_RECORD: u64 = 1 << 16;

/// Whatever lies in a buffer: records are parts of it, and to trust less gives no more of them.
#[cfg(fuzzing)]
pub(crate) fn fuzz(bytes: &[u8]) {
    let count = |whole| {
        let mut recent = Recent::index(bytes.to_vec(), whole);
        let mut total = 0;
        let records = std::iter::from_fn(|| recent.pop().map(<[u8]>::len)).inspect(|len| total += len).count();
        assert!(total <= bytes.len());
        records
    };
    assert!(count(false) <= count(true));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, body: &[u8]) -> Vec<u8> {
        let size = (8 + body.len()) as u64;
        [&(size << 48 | u64::from(kind)).to_le_bytes()[..], body].concat()
    }

    fn sample(text: &[u8; 12]) -> Vec<u8> {
        record(RECORD_SAMPLE, &[&12u32.to_le_bytes()[..], text].concat())
    }

    fn lost(count: u64) -> Vec<u8> {
        record(RECORD_LOST, &[7u64.to_le_bytes(), count.to_le_bytes()].concat())
    }

    fn texts(mut recent: Recent) -> Vec<String> {
        std::iter::from_fn(|| recent.pop().map(|r| String::from_utf8_lossy(r).into_owned())).collect()
    }

    #[test]
    fn what_was_recorded_comes_oldest_first_and_what_the_kernel_lost_is_counted() {
        let bytes = [sample(b"newest......"), lost(3), sample(b"middle......"), sample(b"oldest......")].concat();
        let recent = Recent::index(bytes, true);
        assert_eq!(recent.lost, 3);
        assert_eq!(texts(recent), ["oldest......", "middle......", "newest......"]);
        assert_eq!(Recent::index(Vec::new(), true), Recent::default());
    }

    #[test]
    fn a_record_that_was_overwritten_is_none_and_those_under_the_pen_are_not_trusted() {
        let all: Vec<Vec<u8>> = (0..8u8).map(|i| sample(&[b'a' + i; 12])).collect();
        let mut bytes = all.concat();
        bytes.truncate(7 * 24 + 20);
        assert_eq!(texts(Recent::index(bytes.clone(), true)).len(), 7);
        assert_eq!(texts(Recent::index(bytes.clone(), false)), ["cccccccccccc", "bbbbbbbbbbbb", "aaaaaaaaaaaa"]);
        // Nor is a count that may have been.
        let count =
            [sample(b"newest......"), lost(1), sample(b"middle......"), lost(2), lost(u64::MAX), lost(u64::MAX)]
                .concat();
        assert_eq!([true, false].map(|whole| Recent::index(count.clone(), whole).lost), [u64::MAX, 1]);
        bytes.truncate(24);
        assert!(texts(Recent::index(bytes, false)).is_empty());
    }

    #[test]
    fn bytes_that_are_no_records_give_none() {
        for bytes in [vec![0; 64], vec![0xff; 64], record(RECORD_SAMPLE, &[0xff; 8]), record(9, &[]), vec![1; 7]] {
            assert_eq!(Recent::index(bytes.clone(), true).records, Vec::<Range<usize>>::new(), "{bytes:?}");
        }
    }
}

//! A reader of perf event arrays: one buffer per CPU, for gadgets that declare one and for kernels without ring buffers.
//!
//! Used by one thread. What the kernel could not write it counts itself, per buffer, in records of their own.

use super::{
    maps::{RawMap, Update},
    sys::{self, Mapping, PerfAttr},
};
use std::{
    io,
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
}

struct CpuBuffer {
    event: OwnedFd,
    map: Mapping,
    page: usize,
    size: u64,
}

impl std::fmt::Debug for CpuBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CpuBuffer({} bytes)", self.size)
    }
}

impl PerfReader {
    /// Opens a buffer of `bytes` (a power of two, at least a page) on each CPU that runs, and puts it into the array.
    pub fn new(array: BorrowedFd<'_>, bytes: u32) -> io::Result<PerfReader> {
        const PERF_TYPE_SOFTWARE: u32 = 1;
        const PERF_COUNT_SW_BPF_OUTPUT: u64 = 10;
        const SAMPLE_RAW: u64 = 1 << 10;
        let page = sys::page_size();
        if !bytes.is_power_of_two() || (bytes as usize) < page {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the size of a perf buffer is a power of two"));
        }
        let raw = RawMap::new(array)?;
        let mut cpus = Vec::new();
        for cpu in sys::online_cpus()? {
            let mut attr = PerfAttr {
                kind: PERF_TYPE_SOFTWARE,
                config: PERF_COUNT_SW_BPF_OUTPUT,
                sample: 1,
                sample_type: SAMPLE_RAW,
                flags: sys::PERF_WATERMARK,
                // any record wakes a sleeping reader; while it polls nobody waits
                wakeup: 1,
                ..PerfAttr::default()
            };
            let event = sys::perf_event_open(&mut attr, -1, cpu as i32)?;
            let map = Mapping::new(event.as_fd(), page + bytes as usize, 0, true)?;
            raw.update(&cpu.to_le_bytes(), &(event.as_raw_fd() as u32).to_le_bytes(), Update::Any)?;
            sys::perf_enable(event.as_fd())?;
            cpus.push(CpuBuffer { event, map, page, size: bytes.into() });
        }
        Ok(PerfReader { cpus, record: Vec::new(), lost: 0 })
    }

    /// For epoll.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.cpus.iter().map(|c| c.event.as_fd())
    }

    /// Records the kernel had no room for, since the last call.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Hands out samples, CPU by CPU, at most about `max_rows`. Up to seven bytes of padding may follow the record.
    pub fn drain(&mut self, max_rows: usize, mut f: impl FnMut(&[u8])) -> usize {
        let mut rows = 0;
        for c in &self.cpus {
            rows += c.drain(max_rows.saturating_sub(rows), &mut self.record, &mut self.lost, &mut f);
        }
        rows
    }
}

impl CpuBuffer {
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
                RECORD_LOST => *lost += word(8),
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

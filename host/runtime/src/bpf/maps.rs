//! Map operations by bytes: keys and values of sizes known only at run time, through raw system calls.
//!
//! Every function checks the length of what it is given against the map's own sizes, so that the kernel never reads or
//! writes past a buffer. No state but the sizes; usable from any thread.

use super::{
    object,
    sys::{self, Cmd},
};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

/// What the kernel says about a map.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MapInfo {
    pub id: u32,
    pub kind: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub flags: u32,
    /// At most 15 characters, as the kernel keeps it.
    pub name: String,
}

impl MapInfo {
    fn per_cpu(&self) -> bool {
        matches!(
            self.kind,
            object::MAP_PERCPU_HASH
                | object::MAP_PERCPU_ARRAY
                | object::MAP_LRU_PERCPU_HASH
                | object::MAP_PERCPU_CGROUP_STORAGE
        )
    }
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

/// The start of `struct bpf_map_info`, the same since 4.15.
#[repr(C)]
#[derive(Default)]
struct RawInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    name: [u8; 16],
}

/// Asks the kernel about a map.
pub fn info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut raw = RawInfo::default();
    let mut attr = InfoAttr {
        fd: map.as_raw_fd() as u32,
        len: size_of::<RawInfo>() as u32,
        info: std::ptr::from_mut(&mut raw) as u64,
    };
    // SAFETY: `info` is valid for writes of `len` bytes
    unsafe { sys::bpf(Cmd::ObjGetInfoByFd, &mut attr) }?;
    let end = memchr::memchr(0, &raw.name).unwrap_or(raw.name.len());
    Ok(MapInfo {
        id: raw.id,
        kind: raw.kind,
        key_size: raw.key_size,
        value_size: raw.value_size,
        max_entries: raw.max_entries,
        flags: raw.flags,
        name: String::from_utf8_lossy(&raw.name[..end]).into_owned(),
    })
}

/// How often the kernel did not run a program because it was running on that CPU already; 0 before Linux 5.12, which does
/// not count it.
pub(super) fn missed_runs(program: BorrowedFd<'_>) -> io::Result<u64> {
    /// The start of `struct bpf_prog_info` up to `recursion_misses`, in words.
    const WORDS: usize = 27;
    let mut raw = [0u64; WORDS];
    let mut attr = InfoAttr {
        fd: program.as_raw_fd() as u32,
        len: size_of_val(&raw) as u32,
        info: std::ptr::from_mut(&mut raw) as u64,
    };
    // SAFETY: `info` is valid for writes of `len` bytes, and zero: the kernel takes lengths and pointers in it for requests
    unsafe { sys::bpf(Cmd::ObjGetInfoByFd, &mut attr) }?;
    Ok(raw[WORDS - 1])
}

#[repr(C)]
#[derive(Default)]
struct ElemAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// A map with its sizes: what operations need to be safe.
#[derive(Debug)]
pub struct RawMap<F> {
    fd: F,
    info: MapInfo,
    /// Bytes of one value as the kernel copies it: for per-CPU maps, of all CPUs.
    value_len: usize,
}

/// How a map is updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Update {
    Any = 0,
    OnlyNew = 1,
    OnlyExisting = 2,
}

fn wrong_length(what: &str, wanted: usize, got: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what} of {got} bytes, the map's has {wanted}"))
}

impl<F: AsFd> RawMap<F> {
    /// Reads the map's sizes from the kernel.
    pub fn new(fd: F) -> io::Result<RawMap<F>> {
        let info = info(fd.as_fd())?;
        let value_len = if info.per_cpu() {
            (info.value_size as usize).next_multiple_of(8) * sys::possible_cpus()?
        } else {
            info.value_size as usize
        };
        Ok(RawMap { fd, info, value_len })
    }

    pub fn info(&self) -> &MapInfo {
        &self.info
    }

    /// Bytes of each value that a lookup gives, and how many: one, or for per-CPU maps one for each possible CPU.
    pub fn value_parts(&self) -> (usize, usize) {
        let one = (self.info.value_size as usize).next_multiple_of(8);
        if self.info.per_cpu() { (one, self.value_len / one.max(1)) } else { (self.value_len, 1) }
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn check_key(&self, key: &[u8]) -> io::Result<()> {
        let wanted = self.info.key_size as usize;
        if key.len() == wanted { Ok(()) } else { Err(wrong_length("key", wanted, key.len())) }
    }

    fn attr(&self, key: &[u8], value: u64, flags: u64) -> ElemAttr {
        ElemAttr {
            map_fd: self.fd.as_fd().as_raw_fd() as u32,
            key: key.as_ptr() as u64,
            value,
            flags,
            ..ElemAttr::default()
        }
    }

    /// The value of `key` (of all CPUs, each padded to 8 bytes, for per-CPU maps); `None` where there is none.
    pub fn lookup(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.check_key(key)?;
        let mut value = vec![0u8; self.value_len];
        let mut attr = self.attr(key, value.as_mut_ptr() as u64, 0);
        // SAFETY: `key` has the map's key size, `value` room for what the kernel copies (checked, by map type)
        match unsafe { sys::bpf(Cmd::MapLookup, &mut attr) } {
            Ok(_) => Ok(Some(value)),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The values of a per-CPU map, one slice per possible CPU.
    pub fn lookup_per_cpu(&self, key: &[u8]) -> io::Result<Option<Vec<Vec<u8>>>> {
        let size = self.info.value_size as usize;
        let all = self.lookup(key)?;
        Ok(all.map(|v| v.chunks(size.next_multiple_of(8).max(1)).map(|c| c[..size.min(c.len())].to_vec()).collect()))
    }

    /// Sum over all CPUs of a per-CPU array of 64-bit counters at `index`.
    pub fn sum_u64(&self, index: u32) -> io::Result<u64> {
        let v = self.lookup(&index.to_le_bytes())?.unwrap_or_default();
        Ok(v.as_chunks::<8>().0.iter().fold(0u64, |sum, c| sum.wrapping_add(u64::from_le_bytes(*c))))
    }

    /// Sets a value (of all CPUs for per-CPU maps, laid out as `lookup` gives them).
    pub fn update(&self, key: &[u8], value: &[u8], how: Update) -> io::Result<()> {
        self.check_key(key)?;
        if value.len() != self.value_len {
            return Err(wrong_length("value", self.value_len, value.len()));
        }
        let mut attr = self.attr(key, value.as_ptr() as u64, how as u64);
        // SAFETY: key and value have the lengths the kernel reads (checked)
        unsafe { sys::bpf(Cmd::MapUpdate, &mut attr) }.map(drop)
    }

    /// True where there was such a key.
    pub fn delete(&self, key: &[u8]) -> io::Result<bool> {
        self.check_key(key)?;
        let mut attr = self.attr(key, 0, 0);
        // SAFETY: `key` has the map's key size (checked)
        match unsafe { sys::bpf(Cmd::MapDelete, &mut attr) } {
            Ok(_) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The key after `key` in the kernel's order (the first for `None`).
    pub fn next_key(&self, key: Option<&[u8]>) -> io::Result<Option<Vec<u8>>> {
        if let Some(k) = key {
            self.check_key(k)?;
        }
        let mut next = vec![0u8; self.info.key_size as usize];
        let mut attr = self.attr(key.unwrap_or(&[]), next.as_mut_ptr() as u64, 0);
        if key.is_none() {
            attr.key = 0;
        }
        // SAFETY: `key` is null or has the map's key size, `next` has it too
        match unsafe { sys::bpf(Cmd::MapGetNextKey, &mut attr) } {
            Ok(_) => Ok(Some(next)),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Takes all entries out of the map: `f` gets key and value of each. Returns how many. Entries added meanwhile may
    /// or may not be among them; none is given twice.
    pub fn drain(&self, mut f: impl FnMut(&[u8], &[u8])) -> io::Result<usize> {
        // ENOTSUPP: the kernel's own number for "this map type has no such operation"
        const ENOTSUPP: i32 = 524;
        let hash = matches!(
            self.info.kind,
            object::MAP_HASH | object::MAP_PERCPU_HASH | object::MAP_LRU_HASH | object::MAP_LRU_PERCPU_HASH
        );
        if !hash {
            return self.drain_singly(&mut f);
        }
        match self.drain_batched(&mut f) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | ENOTSUPP)) => self.drain_singly(&mut f),
            r => r,
        }
    }

    fn drain_batched(&self, f: &mut impl FnMut(&[u8], &[u8])) -> io::Result<usize> {
        let (ks, vs) = (self.info.key_size as usize, self.value_len);
        let room = (self.info.max_entries as usize).clamp(1, 4096);
        let (mut keys, mut values) = (vec![0u8; ks * room], vec![0u8; vs * room]);
        let (mut cursor, mut next) = ([0u8; 8], [0u8; 8]);
        let (mut first, mut total) = (true, 0);
        // a bound, because a map that grows as fast as it is read would keep this going for ever
        for _ in 0..(self.info.max_entries as usize / room + 2) * 2 {
            let mut attr = BatchAttr {
                in_batch: if first { 0 } else { cursor.as_mut_ptr() as u64 },
                out_batch: next.as_mut_ptr() as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: room as u32,
                map_fd: self.fd.as_fd().as_raw_fd() as u32,
                ..BatchAttr::default()
            };
            // SAFETY: keys and values have room for `count` entries; the cursor of hash maps (the caller checked that it
            // is one) has four bytes
            let r = unsafe { sys::bpf(Cmd::MapLookupAndDeleteBatch, &mut attr) };
            let done = match r {
                Ok(_) => false,
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => true,
                // one bucket holds more than the room for a batch
                Err(e) if e.raw_os_error() == Some(libc::ENOSPC) => {
                    return self.drain_singly(f).map(|n| n + total);
                }
                Err(e) => return Err(e),
            };
            let n = (attr.count as usize).min(room);
            for i in 0..n {
                f(&keys[i * ks..(i + 1) * ks], &values[i * vs..(i + 1) * vs]);
            }
            total += n;
            if done {
                break;
            }
            cursor = next;
            first = false;
        }
        Ok(total)
    }

    fn drain_singly(&self, f: &mut impl FnMut(&[u8], &[u8])) -> io::Result<usize> {
        let mut keys = Vec::new();
        let mut key = self.next_key(None)?;
        // collected first: deleting while walking would start the walk again
        while let Some(k) = key {
            key = if keys.len() < self.info.max_entries as usize { self.next_key(Some(&k))? } else { None };
            keys.push(k);
        }
        let mut n = 0;
        for k in keys {
            let Some(v) = self.lookup(&k)? else { continue };
            if self.delete(&k)? {
                f(&k, &v);
                n += 1;
            }
        }
        Ok(n)
    }
}

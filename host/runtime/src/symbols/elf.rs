//! The few parts of an ELF file that symbols and probes need: segments, build id, function names.
//!
//! Files are foreign, often a container's own, and may change while they are read: nothing is mapped (a file that shrinks
//! would end the process), every table is bounded before it is read, every index is checked. Little-endian files of 64 and
//! 32 bits. Any thread; no state.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

/// Bytes of a table of symbols or names that are read; larger ones are those of debug builds of browsers.
const MAX_TABLE: u64 = 96 << 20;
/// Bytes of all such tables of one file: a file may name one table thousands of times.
const MAX_TABLES: u64 = 4 * MAX_TABLE;
/// Sections and segments that are looked at.
const MAX_HEADERS: u64 = 4096;
/// Notes that are looked through for the build id.
const MAX_NOTES: u64 = 64 << 10;
/// A name is cut here.
const MAX_NAME: usize = 4096;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;
const SHT_SYMTAB: u32 = 2;
const SHT_DYNSYM: u32 = 11;
const STT_NOTYPE: u8 = 0;
const STT_FUNC: u8 = 2;
const STT_GNU_IFUNC: u8 = 10;

/// Why a file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is no regular file")]
    NotRegular,
    #[error("it is no ELF file of this machine's byte order")]
    NotElf,
    #[error("its {what} is damaged")]
    Damaged { what: &'static str },
    #[error("its {what} of {bytes} bytes is too large")]
    TooLarge { what: &'static str, bytes: u64 },
}

/// Which file it is, and in which state: what was read of it holds as long as this is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    pub device: u64,
    pub inode: u64,
    pub mtime: i64,
    pub mtime_nsec: i64,
    pub size: u64,
}

impl Identity {
    pub fn of(meta: &fs::Metadata) -> Identity {
        Identity {
            device: meta.dev(),
            inode: meta.ino(),
            mtime: meta.mtime(),
            mtime_nsec: meta.mtime_nsec(),
            size: meta.size(),
        }
    }
}

/// Opens a regular file and nothing else: a pipe or device in its place neither blocks nor does anything.
pub fn open_regular(path: &Path) -> Result<(File, Identity), ElfError> {
    if !fs::metadata(path)?.is_file() {
        return Err(ElfError::NotRegular);
    }
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(ElfError::NotRegular);
    }
    Ok((file, Identity::of(&meta)))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    offset: u64,
    address: u64,
    size: u64,
}

/// Which part of a file is loaded at which address, as the file numbers addresses.
#[derive(Clone, Debug, Default)]
pub struct Layout(Vec<Segment>);

impl Layout {
    /// The address of what is at a position in the file.
    pub fn address_of(&self, offset: u64) -> Option<u64> {
        let s = self.0.iter().find(|s| offset >= s.offset && offset - s.offset < s.size)?;
        s.address.checked_add(offset - s.offset)
    }

    /// As numbers, three for each part, that [`Layout::from_numbers`] makes the same of.
    pub fn numbers(&self) -> Vec<[u64; 3]> {
        self.0.iter().map(|s| [s.offset, s.address, s.size]).collect()
    }

    pub fn from_numbers(numbers: impl Iterator<Item = [u64; 3]>) -> Layout {
        Layout(numbers.map(|[offset, address, size]| Segment { offset, address, size }).collect())
    }

    /// Where in the file the code of an address is.
    pub fn offset_of(&self, address: u64) -> Option<u64> {
        let s = self.0.iter().find(|s| address >= s.address && address - s.address < s.size)?;
        s.offset.checked_add(address - s.address)
    }
}

#[derive(Clone, Copy, Debug)]
struct Section {
    kind: u32,
    address: u64,
    offset: u64,
    size: u64,
    link: u32,
    entry: u64,
}

/// An ELF file: what is loaded where, and where its tables are.
#[derive(Debug)]
pub struct Elf {
    file: File,
    wide: bool,
    /// The machine it is for, as in the header.
    pub machine: u16,
    pub layout: Layout,
    notes: Vec<Segment>,
    sections: Vec<Section>,
}

/// One function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function<'a> {
    pub address: u64,
    /// 0 where the file does not say.
    pub size: u64,
    /// Bytes from its beginning to the end of its section, which it cannot exceed; 0: not known.
    pub room: u64,
    pub name: &'a [u8],
}

impl Elf {
    pub fn read(file: File) -> Result<Elf, ElfError> {
        let mut head = [0u8; 64];
        let got = read_some(&file, 0, &mut head)?;
        if got < 52 || &head[..4] != b"\x7fELF" || head[5] != 1 || !matches!(head[4], 1 | 2) {
            return Err(ElfError::NotElf);
        }
        let wide = head[4] == 2;
        if wide && got < 64 {
            return Err(ElfError::NotElf);
        }
        let (phoff, shoff) = match wide {
            true => (u64_at(&head, 32), u64_at(&head, 40)),
            false => (u32_at(&head, 28).into(), u32_at(&head, 32).into()),
        };
        let counts = if wide { &head[54..64] } else { &head[42..52] };
        let [phsize, phnum, shsize, shnum] =
            [0, 2, 4, 6].map(|at| u64::from(u16::from_le_bytes([counts[at], counts[at + 1]])));
        let mut elf = Elf {
            file,
            wide,
            machine: u16::from_le_bytes([head[18], head[19]]),
            layout: Layout::default(),
            notes: Vec::new(),
            sections: Vec::new(),
        };
        elf.read_segments(phoff, phsize, phnum)?;
        elf.read_sections(shoff, shsize, shnum)?;
        Ok(elf)
    }

    fn read_segments(&mut self, at: u64, size: u64, count: u64) -> Result<(), ElfError> {
        let table = self.headers(at, size, count, if self.wide { 56 } else { 32 }, "program header")?;
        for h in table.chunks_exact(size.max(1) as usize) {
            let kind = u32_at(h, 0);
            let (offset, address, size) = match self.wide {
                true => (u64_at(h, 8), u64_at(h, 16), u64_at(h, 32)),
                false => (u32_at(h, 4).into(), u32_at(h, 8).into(), u32_at(h, 16).into()),
            };
            match kind {
                PT_LOAD => self.layout.0.push(Segment { offset, address, size }),
                PT_NOTE => self.notes.push(Segment { offset, address, size }),
                _ => {}
            }
        }
        Ok(())
    }

    fn read_sections(&mut self, at: u64, size: u64, count: u64) -> Result<(), ElfError> {
        if at == 0 {
            return Ok(());
        }
        let table = self.headers(at, size, count, if self.wide { 64 } else { 40 }, "section header")?;
        for h in table.chunks_exact(size.max(1) as usize) {
            self.sections.push(match self.wide {
                true => Section {
                    kind: u32_at(h, 4),
                    address: u64_at(h, 16),
                    offset: u64_at(h, 24),
                    size: u64_at(h, 32),
                    link: u32_at(h, 40),
                    entry: u64_at(h, 56),
                },
                false => Section {
                    kind: u32_at(h, 4),
                    address: u32_at(h, 12).into(),
                    offset: u32_at(h, 16).into(),
                    size: u32_at(h, 20).into(),
                    link: u32_at(h, 24),
                    entry: u32_at(h, 36).into(),
                },
            });
        }
        Ok(())
    }

    fn headers(&self, at: u64, size: u64, count: u64, least: u64, what: &'static str) -> Result<Vec<u8>, ElfError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        if size < least || size > 4096 {
            return Err(ElfError::Damaged { what });
        }
        self.bytes(at, size * count.min(MAX_HEADERS), what)
    }

    /// Bytes of the file, all of them or an error.
    fn bytes(&self, at: u64, len: u64, what: &'static str) -> Result<Vec<u8>, ElfError> {
        if len > MAX_TABLE {
            return Err(ElfError::TooLarge { what, bytes: len });
        }
        // a sparse file may claim any length, so memory follows what is there
        if at.checked_add(len).is_none_or(|end| self.file.metadata().is_ok_and(|m| end > m.size())) {
            return Err(ElfError::Damaged { what });
        }
        let mut out = vec![0; len as usize];
        self.file.read_exact_at(&mut out, at)?;
        Ok(out)
    }

    /// What the linker made of the content, to know it again in another place.
    pub fn build_id(&self) -> Option<Vec<u8>> {
        self.notes.iter().find_map(|n| build_id(&self.bytes(n.offset, n.size.min(MAX_NOTES), "notes").ok()?))
    }

    /// Calls `visit` with every function the file has a name for, those for linking last. A damaged table ends there.
    pub fn functions(&self, mut visit: impl FnMut(Function<'_>)) -> Result<(), ElfError> {
        let mut read = 0u64;
        for wanted in [SHT_SYMTAB, SHT_DYNSYM] {
            for s in self.sections.iter().filter(|s| s.kind == wanted) {
                read = read.saturating_add(self.table(s, MAX_TABLES.saturating_sub(read), &mut visit)?);
            }
        }
        Ok(())
    }

    /// Returns how many bytes were read, `room` at most.
    fn table(&self, section: &Section, room: u64, visit: &mut impl FnMut(Function<'_>)) -> Result<u64, ElfError> {
        let entry = if self.wide { 24 } else { 16 };
        if section.entry != entry {
            return Err(ElfError::Damaged { what: "symbol table" });
        }
        let names = self.sections.get(section.link as usize).ok_or(ElfError::Damaged { what: "symbol table" })?;
        let bytes = names.size.saturating_add(section.size);
        if bytes > room {
            return Err(ElfError::TooLarge { what: "symbol tables", bytes });
        }
        let names = self.bytes(names.offset, names.size, "table of names")?;
        let table = self.bytes(section.offset, section.size, "symbol table")?;
        for s in table.chunks_exact(entry as usize) {
            let (info, index, address, size) = match self.wide {
                true => (s[4], u16::from_le_bytes([s[6], s[7]]), u64_at(s, 8), u64_at(s, 16)),
                false => (s[12], u16::from_le_bytes([s[14], s[15]]), u64::from(u32_at(s, 4)), u64::from(u32_at(s, 8))),
            };
            let code = matches!(info & 0xf, STT_FUNC | STT_GNU_IFUNC | STT_NOTYPE);
            // undefined ones are in another file, and those of special sections are no addresses
            if !code || address == 0 || index == 0 || index >= 0xff00 {
                continue;
            }
            let Some(name) = names.get(u32_at(s, 0) as usize..) else { continue };
            // cut before it is looked through: each of a million symbols may have a name without an end
            let name = &name[..name.len().min(MAX_NAME)];
            let end = memchr::memchr(0, name).unwrap_or(name.len());
            if end > 0 {
                let section = self.sections.get(usize::from(index)).filter(|s| address >= s.address);
                let room = section.map_or(0, |s| s.size.saturating_sub(address - s.address).max(1));
                visit(Function { address, size, room, name: &name[..end] });
            }
        }
        Ok(bytes)
    }
}

fn build_id(notes: &[u8]) -> Option<Vec<u8>> {
    let mut rest = notes;
    while rest.len() >= 12 {
        let (name, desc, kind) = (u32_at(rest, 0) as usize, u32_at(rest, 4) as usize, u32_at(rest, 8));
        let start = 12usize.checked_add(name.checked_next_multiple_of(4)?)?;
        let end = start.checked_add(desc)?;
        if kind == NT_GNU_BUILD_ID && rest.get(12..12 + name.min(4)) == Some(b"GNU\0") {
            return rest.get(start..end).filter(|id| (8..=64).contains(&id.len())).map(<[u8]>::to_vec);
        }
        rest = rest.get(start.checked_add(desc.checked_next_multiple_of(4)?)?..)?;
    }
    None
}

fn read_some(file: &File, at: u64, out: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < out.len() {
        match file.read_at(&mut out[got..], at + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

/// Callers have checked the length.
fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from(u32_at(b, at)) | u64::from(u32_at(b, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn elf(bytes: &[u8]) -> Result<Elf, ElfError> {
        let mut f = tempfile::tempfile().unwrap();
        f.write_all(bytes).unwrap();
        Elf::read(f)
    }

    #[test]
    fn our_own_binary_has_names_and_places() {
        let (file, _) = open_regular(Path::new("/proc/self/exe")).unwrap();
        let elf = Elf::read(file).unwrap();
        let mut found = None;
        elf.functions(|f| {
            if f.name.windows(28).any(|w| w == b"our_own_binary_has_names_and") {
                found = Some(f.address);
            }
        })
        .unwrap();
        let address = found.unwrap();
        let offset = elf.layout.offset_of(address).unwrap();
        assert_eq!(elf.layout.address_of(offset), Some(address));
    }

    #[test]
    fn pipes_and_devices_are_not_opened() {
        assert!(matches!(open_regular(Path::new("/dev/zero")), Err(ElfError::NotRegular)));
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        assert!(matches!(open_regular(&pipe), Err(ElfError::NotRegular)));
    }

    #[test]
    fn damaged_files_are_errors_and_never_more() {
        assert!(matches!(elf(b""), Err(ElfError::NotElf)));
        assert!(matches!(elf(b"#!/bin/sh\n"), Err(ElfError::NotElf)));
        let own = std::fs::read("/proc/self/exe").unwrap();
        for len in [4, 51, 60, 64, 100, 4096] {
            let short = elf(&own[..len]);
            assert!(short.is_err() || short.unwrap().functions(|_| {}).is_err(), "{len}");
        }
        // every byte of the headers in turn is wrong
        for at in 4..64 {
            for value in [0, 0x7f, 0xff] {
                let mut bytes = own[..own.len().min(64 << 10)].to_vec();
                bytes[at] = value;
                if let Ok(elf) = elf(&bytes) {
                    drop(elf.functions(|_| {}));
                    drop(elf.build_id());
                }
            }
        }
    }

    /// A file of 64 bits with a table of names, and as many tables of symbols as wanted, all of them the same.
    fn with_tables(names: &[u8], symbols: &[u8], tables: usize) -> Vec<u8> {
        let mut out = vec![0u8; 64];
        out[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let (names_at, symbols_at) = (out.len(), out.len() + names.len());
        out.extend_from_slice(names);
        out.extend_from_slice(symbols);
        let headers_at = out.len() as u64;
        out[40..48].copy_from_slice(&headers_at.to_le_bytes());
        out[58..60].copy_from_slice(&64u16.to_le_bytes());
        out[60..62].copy_from_slice(&(tables as u16 + 1).to_le_bytes());
        for n in 0..=tables {
            let (kind, at, size, entry) = match n {
                0 => (3, names_at, names.len(), 0),
                _ => (SHT_SYMTAB, symbols_at, symbols.len(), 24u64),
            };
            let mut header = [0u8; 64];
            header[4..8].copy_from_slice(&kind.to_le_bytes());
            header[24..32].copy_from_slice(&(at as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            header[56..64].copy_from_slice(&entry.to_le_bytes());
            out.extend(header);
        }
        out
    }

    fn symbol(name: u32, address: u64) -> Vec<u8> {
        let mut s = name.to_le_bytes().to_vec();
        s.extend([STT_FUNC, 0, 1, 0]);
        s.extend(address.to_le_bytes());
        s.extend(4u64.to_le_bytes());
        s
    }

    #[test]
    fn names_without_an_end_are_cut_before_they_are_looked_through() {
        // looked through to the end, this would be five terabytes
        let names = vec![b'x'; 32 << 20];
        let symbols: Vec<u8> = (0..160_000).flat_map(|n| symbol(n, 1 + u64::from(n))).collect();
        let file = elf(&with_tables(&names, &symbols, 1)).unwrap();
        // what this thread worked, however long it waited for its processor
        let worked = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).tv_sec;
        let (mut seen, start) = (0, worked());
        file.functions(|f| {
            assert_eq!(f.name.len(), MAX_NAME);
            seen += 1;
        })
        .unwrap();
        assert_eq!(seen, 160_000);
        assert!(worked() - start < 60, "{} s", worked() - start);
    }

    #[test]
    fn one_table_that_is_named_thousands_of_times_is_not_read_each_time() {
        let symbols: Vec<u8> = (0..100_000).flat_map(|n| symbol(1, n)).collect();
        let file = elf(&with_tables(&vec![0; 8 << 20], &symbols, 4000)).unwrap();
        let mut seen = 0u64;
        let ended = file.functions(|_| seen += 1);
        assert!(matches!(ended, Err(ElfError::TooLarge { what: "symbol tables", .. })), "{ended:?}");
        // the names, which are empty, cost as well
        assert_eq!(seen, 0);
        // two are what most files have
        let file = elf(&with_tables(b"\0main\0", &symbol(1, 9), 2)).unwrap();
        let mut all = Vec::new();
        file.functions(|f| all.push((f.name.to_vec(), f.address))).unwrap();
        assert_eq!(all, [(b"main".to_vec(), 9), (b"main".to_vec(), 9)]);
    }

    #[test]
    fn build_ids_come_from_the_gnu_note_only() {
        let note = |kind: u32, name: &[u8; 4], id: &[u8]| {
            let mut n = Vec::new();
            for word in [4u32, id.len() as u32, kind] {
                n.extend(word.to_le_bytes());
            }
            n.extend(name);
            n.extend(id);
            n.resize(n.len().next_multiple_of(4), 0);
            n
        };
        let mut all = note(1, b"GNU\0", &[0; 16]);
        all.extend(note(3, b"ABC\0", &[1; 8]));
        all.extend(note(3, b"GNU\0", &[7; 20]));
        assert_eq!(build_id(&all), Some(vec![7; 20]));
        assert_eq!(build_id(&all[..all.len() - 1]), None);
        assert_eq!(build_id(&[0xff; 40]), None);
    }
}

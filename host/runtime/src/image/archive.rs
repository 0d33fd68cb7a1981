//! An OCI image layout inside a tar: written by export, read in place by import, `run FILE.tar` and the embedded
//! catalogue.
//!
//! Reading unpacks nothing: one pass over the headers remembers where each file's bytes are, and blobs are then read
//! with pread. Writing is deterministic: sorted names, no times, no owners. In the embedded catalogue, and only there, a blob
//! may be packed with gzip under its name with `.gz`; it is unpacked when it is asked for.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::digest::Digest;
use super::document::{ANNOTATION_REF, Index};
use super::error::ImageError;
use super::source::{ImageContent, MAX_DOCUMENT, Origin, Source, parse};

pub(super) const LAYOUT_FILE: &str = "oci-layout";
pub(super) const LAYOUT_VERSION: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
pub(super) const INDEX_FILE: &str = "index.json";

/// More files than this in one tar are taken for an attack.
const MAX_ENTRIES: usize = 1 << 20;

/// An open tar file, or a part of a file, that holds an OCI image layout.
#[derive(Debug)]
pub struct TarLayout {
    file: File,
    path: PathBuf,
    origin: Origin,
    /// Where each regular file's bytes are, from the start of `file`.
    entries: HashMap<String, Extent>,
}

#[derive(Clone, Copy, Debug)]
struct Extent {
    start: u64,
    len: u64,
}

impl TarLayout {
    /// Opens a tar file.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let read = |source| ImageError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read)?;
        let len = file.metadata().map_err(read)?.len();
        Self::within(file, path, 0, len, Origin::Tar)
    }

    /// Opens the tar in bytes `start..start+len` of a file.
    pub(super) fn within(file: File, path: &Path, start: u64, len: u64, origin: Origin) -> Result<Self, ImageError> {
        let entries =
            scan(Window { file: &file, start, len, at: 0 }).map_err(|source| match source.raw_os_error() {
                Some(_) => ImageError::Read { path: path.to_owned(), source },
                None => ImageError::Archive { path: path.to_owned() },
            })?;
        if !entries.contains_key(INDEX_FILE) {
            return Err(ImageError::NoLayout { path: path.to_owned(), lacks: INDEX_FILE });
        }
        Ok(Self { file, path: path.to_owned(), origin, entries })
    }

    fn read(&self, extent: Extent, limit: u64) -> Result<Vec<u8>, ImageError> {
        // One byte more than expected shows that a file is too large without reading all of it.
        let len = extent.len.min(limit.saturating_add(1));
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        self.file
            .read_exact_at(&mut bytes, extent.start)
            .map_err(|source| ImageError::Read { path: self.path.clone(), source })?;
        Ok(bytes)
    }
}

impl Source for TarLayout {
    fn origin(&self) -> Origin {
        self.origin
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn index(&self) -> Result<Index, ImageError> {
        let Some(extent) = self.entries.get(INDEX_FILE) else {
            return Err(ImageError::NoLayout { path: self.path.clone(), lacks: INDEX_FILE });
        };
        parse(&self.read(*extent, MAX_DOCUMENT)?, INDEX_FILE, &self.place())
    }

    fn raw_blob(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, ImageError> {
        let path = blob_path(digest);
        if let Some(extent) = self.entries.get(&path) {
            return self.read(*extent, limit).map(Some);
        }
        let packed = (self.origin == Origin::Bundle).then(|| self.entries.get(&format!("{path}.gz"))).flatten();
        let Some(extent) = packed else { return Ok(None) };
        // Packed bytes of more than the limit are no blob within it.
        let unpacked = unpack(&self.read(*extent, limit)?, limit);
        unpacked.map(Some).ok_or_else(|| ImageError::Archive { path: self.path.clone() })
    }
}

/// What gzip made of one file, without the name of that file. `None` where it is none. At most `limit` bytes and one more.
/// The sum at the end is not looked at: whoever reads a blob compares its digest.
fn unpack(bytes: &[u8], limit: u64) -> Option<Vec<u8>> {
    // Magic, method (deflate), and no flags, so that nothing optional follows the fixed header.
    const HEADER: [u8; 4] = [0x1f, 0x8b, 8, 0];
    const HEADER_LEN: usize = 10;
    let body = bytes.strip_prefix(&HEADER)?.get(HEADER_LEN - HEADER.len()..)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1);
    match miniz_oxide::inflate::decompress_to_vec_with_limit(body, limit) {
        Ok(bytes) => Some(bytes),
        Err(e) if e.status == miniz_oxide::inflate::TINFLStatus::HasMoreOutput => Some(e.output),
        Err(_) => None,
    }
}

pub(super) fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn scan(window: Window<'_>) -> io::Result<HashMap<String, Extent>> {
    let (start, end) = (window.start, window.start + window.len);
    let mut entries = HashMap::new();
    let mut archive = tar::Archive::new(window);
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let extent = Extent { start: start + entry.raw_file_position(), len: entry.size() };
        if extent.start.saturating_add(extent.len) > end {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the tar ends in the middle of a file"));
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        entries.insert(name.strip_prefix("./").unwrap_or(&name).to_owned(), extent);
        if entries.len() > MAX_ENTRIES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the tar holds too many files"));
        }
    }
    Ok(entries)
}

/// A part of a file as a stream of its own, so that the tar reader never sees what is around it.
struct Window<'a> {
    file: &'a File,
    start: u64,
    len: u64,
    at: u64,
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let want = buffer.len().min(left);
        let got = self.file.read_at(&mut buffer[..want], self.start + self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

/// Writes images, each with the reference it is listed under, as one tar. All or nothing: the file appears under its
/// name when it is complete. What is there and is no file, such as `/dev/stdout`, is written to and never replaced.
pub fn write_tar(images: &[(Option<String>, ImageContent)], path: &Path) -> Result<(), ImageError> {
    let fail = |source| ImageError::Write { path: path.to_owned(), source };
    if path.symlink_metadata().is_ok_and(|m| !m.is_file() && !m.is_dir()) {
        let file = File::options().write(true).create(true).truncate(true).open(path).map_err(fail)?;
        return write_layout(images, io::BufWriter::new(file)).map_err(fail);
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::Builder::new()
        .prefix(".ig-export-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(fail)?;
    write_layout(images, io::BufWriter::new(temporary.as_file_mut())).map_err(fail)?;
    temporary.as_file().sync_all().map_err(fail)?;
    temporary.persist(path).map_err(|error| fail(error.error))?;
    Ok(())
}

/// The tar of [`write_tar`] into any stream.
pub fn write_layout(images: &[(Option<String>, ImageContent)], out: impl Write) -> io::Result<()> {
    let mut entries = Vec::new();
    let mut blobs: BTreeMap<Digest, &[u8]> = BTreeMap::new();
    for (reference, image) in images {
        let mut descriptor = image.root.clone();
        if let Some(reference) = reference {
            descriptor.annotations.insert(ANNOTATION_REF.to_owned(), reference.clone());
        }
        entries.push(descriptor);
        blobs.extend(image.blobs.iter().map(|(digest, bytes)| (*digest, bytes.as_slice())));
    }
    entries.sort_by(|a, b| (a.reference(), a.digest).cmp(&(b.reference(), b.digest)));
    entries.dedup();
    let index = serde_json::to_vec(&Index::new(entries))?;

    let mut tar = tar::Builder::new(out);
    append(&mut tar, LAYOUT_FILE, LAYOUT_VERSION)?;
    append(&mut tar, INDEX_FILE, &index)?;
    for (digest, bytes) in blobs {
        append(&mut tar, &blob_path(&digest), bytes)?;
    }
    tar.into_inner()?.flush()
}

fn append(tar: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_entry_type(tar::EntryType::Regular);
    tar.append_data(&mut header, name, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf 'hello hello hello hello\n' | gzip -9n`
    const HELLO: [u8; 29] = [
        0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0xcb, 0x48, 0xcd, 0xc9, 0xc9, 0x57, 0xc8, 0x40,
        0x27, 0xb9, 0x00, 0x00, 0x88, 0x59, 0x0b, 0x18, 0x00, 0x00, 0x00,
    ];

    #[test]
    fn what_gzip_packed_is_unpacked_within_the_limit_and_anything_else_is_nothing() {
        let text = b"hello hello hello hello\n";
        assert_eq!(unpack(&HELLO, 1000).as_deref(), Some(&text[..]));
        assert_eq!(unpack(&HELLO, text.len() as u64).as_deref(), Some(&text[..]));
        // One byte more than the limit shows that there is more.
        assert_eq!(unpack(&HELLO, 5).map(|b| b.len()), Some(6));
        for end in 0..HELLO.len() - 8 {
            assert_eq!(unpack(&HELLO[..end], 1000), None, "{end}");
        }
        let mut named = HELLO;
        named[3] = 8;
        assert_eq!(unpack(&named, 1000), None);
    }

    #[test]
    fn a_device_or_a_link_is_written_to_and_stays_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "longer than the archive ".repeat(1000)).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for (target, link) in [("file", "link"), ("/dev/full", "full")] {
            std::os::unix::fs::symlink(target, at(link)).unwrap();
        }
        write_tar(&[], &at("link")).unwrap();
        write_tar(&[], &at("new")).unwrap();
        assert_eq!(std::fs::read(at("file")).unwrap(), std::fs::read(at("new")).unwrap());
        assert!(write_tar(&[], &at("full")).unwrap_err().to_string().contains("cannot write"));
        assert!(write_tar(&[], &at("socket")).is_err());
        for (name, is) in [("link", true), ("full", true), ("socket", false), ("new", false)] {
            let kind = at(name).symlink_metadata().unwrap().file_type();
            assert_eq!((kind.is_symlink(), kind.is_file()), (is, name == "new"), "{name}");
        }
        drop(socket);
    }

    #[test]
    fn packed_blobs_are_read_from_the_catalogue_and_from_nothing_else() {
        let digest = Digest::of(b"hello hello hello hello\n");
        let mut tar = tar::Builder::new(Vec::new());
        append(&mut tar, INDEX_FILE, br#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
        append(&mut tar, &format!("{}.gz", blob_path(&digest)), &HELLO).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), tar.into_inner().unwrap()).unwrap();
        let len = file.as_file().metadata().unwrap().len();
        let read = |origin| {
            let layout = TarLayout::within(File::open(file.path()).unwrap(), file.path(), 0, len, origin).unwrap();
            layout.raw_blob(&digest, 1000).unwrap()
        };
        assert_eq!(read(Origin::Bundle).as_deref(), Some(&b"hello hello hello hello\n"[..]));
        assert_eq!(read(Origin::Tar), None);
    }
}

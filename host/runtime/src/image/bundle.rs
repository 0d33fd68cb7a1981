//! The embedded catalogue: an OCI image layout as a tar in a section of the released program, read in place.
//!
//! It is read-only and costs nothing until a gadget is asked for: the section is found through the ELF headers, the
//! tar's headers are scanned with pread, and only the blobs of the gadget that is run are read. Building the section is
//! a step after linking: `objcopy --add-section .ig.bundle=FILE.tar`, where FILE.tar comes from `ig image export`.

use std::fs::File;
use std::path::Path;

use object::read::elf::{FileHeader as _, SectionHeader as _};
use object::{Endianness, ReadCache, elf::FileHeader64};

use super::archive::TarLayout;
use super::digest::Digest;
use super::document::{Descriptor, Index};
use super::error::ImageError;
use super::reference::{NameRules, Reference};
use super::source::{Origin, Source};

/// Name of the section that holds the tar.
pub const SECTION: &str = ".ig.bundle";

/// The gadgets that come with the program.
#[derive(Debug)]
pub struct Bundle {
    layout: TarLayout,
    index: Index,
}

impl Bundle {
    /// Finds the catalogue in a program's file (usually `/proc/self/exe`). None when the program has no such section,
    /// as when it was built without the second step.
    pub fn from_executable(path: &Path) -> Result<Option<Self>, ImageError> {
        let file = File::open(path).map_err(|source| ImageError::Read { path: path.to_owned(), source })?;
        let Some((start, len)) =
            find_section(&file).map_err(|source| ImageError::Bundle { path: path.to_owned(), source })?
        else {
            return Ok(None);
        };
        TarLayout::within(file, path, start, len, Origin::Bundle).and_then(Self::over).map(Some)
    }

    /// Uses a tar of its own as catalogue.
    pub fn from_tar(path: &Path) -> Result<Self, ImageError> {
        let read = |source| ImageError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read)?;
        let len = file.metadata().map_err(read)?.len();
        TarLayout::within(file, path, 0, len, Origin::Bundle).and_then(Self::over)
    }

    fn over(layout: TarLayout) -> Result<Self, ImageError> {
        let index = layout.index()?;
        Ok(Self { layout, index })
    }

    /// The gadget that a bare name means, whatever registry the name would stand for.
    pub fn find(&self, wanted: &Reference) -> Option<&Descriptor> {
        if !wanted.is_bare() {
            return None;
        }
        self.entries()
            .find(|(reference, descriptor)| {
                reference.name() == wanted.name()
                    && match wanted.digest() {
                        Some(digest) => descriptor.digest == digest,
                        None => reference.tag() == wanted.tag(),
                    }
            })
            .map(|(_, descriptor)| descriptor)
    }

    /// Names of the gadgets, without registry and path.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.entries().map(|(reference, _)| reference.name().to_owned())
    }

    /// Every gadget with its reference.
    pub fn entries(&self) -> impl Iterator<Item = (Reference, &Descriptor)> {
        let rules = NameRules::default();
        self.index.manifests.iter().filter_map(move |descriptor| {
            let reference = Reference::parse(descriptor.reference()?, &rules).ok()?;
            Some((reference, descriptor))
        })
    }
}

/// Offset and length of the section. Only the section headers and their names are read: symbols may be megabytes.
fn find_section(file: &File) -> Result<Option<(u64, u64)>, object::Error> {
    let cache = ReadCache::new(file);
    let header = FileHeader64::<Endianness>::parse(&cache)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, &cache)?;
    let found = sections.section_by_name(endian, SECTION.as_bytes());
    Ok(found.and_then(|(_, section)| section.file_range(endian)))
}

impl Source for Bundle {
    fn origin(&self) -> Origin {
        Origin::Bundle
    }

    fn place(&self) -> String {
        "the built-in catalogue".to_owned()
    }

    fn index(&self) -> Result<Index, ImageError> {
        Ok(self.index.clone())
    }

    fn raw_blob(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, ImageError> {
        self.layout.raw_blob(digest, limit)
    }
}

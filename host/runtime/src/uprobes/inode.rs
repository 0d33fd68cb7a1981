//! Which file of the disk a file is: containers of one image see one library under as many names and numbers as there are
//! containers, and the kernel probes the library, not the name. Probed twice, every call would be seen twice.
//!
//! overlayfs tells by the handle it makes of a file, which holds that of the file below (Linux 6.6), or before that in the
//! list of mappings, which has the numbers of the file below.

use crate::bpf::sys;
use std::{
    fs::{self, File},
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::MetadataExt,
    },
};

/// Equal for two names of one file of the disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Inode {
    /// A file handle's kind and content.
    Handle(i32, Vec<u8>),
    /// Device and inode as the list of mappings or stat(2) tells them.
    Numbers(String, u64),
}

/// Handles of overlayfs: one made of the file above or below, behind a header.
const OVERLAY: std::ops::RangeInclusive<i32> = 0xf8..=0xfb;
const OVERLAY_MAGIC: u8 = 0xfb;

pub(super) fn of(file: &File) -> Inode {
    let handle = sys::file_handle(file.as_fd()).map(|(kind, bytes)| inner(kind, &bytes));
    handle.ok().or_else(|| by_mapping(file)).unwrap_or_else(|| {
        let (device, inode) = file.metadata().map_or((0, 0), |m| (m.dev(), m.ino()));
        Inode::Numbers(format!("stat {device}"), inode)
    })
}

/// The handle of the file below all overlays: `pad[3], version, magic, length, flags, kind, uuid[16], handle`.
fn inner(kind: i32, bytes: &[u8]) -> Inode {
    let below = bytes.get(3..).filter(|b| OVERLAY.contains(&kind) && b.get(1) == Some(&OVERLAY_MAGIC));
    match below.and_then(|b| Some((*b.get(4)?, b.get(21..b.len().min((*b.get(2)?).into()))?))) {
        Some((kind, handle)) => inner(kind.into(), handle),
        None => Inode::Handle(kind, bytes.to_vec()),
    }
}

/// Maps a page of the file, which nobody touches, and reads which file the kernel says that is.
fn by_mapping(file: &File) -> Option<Inode> {
    let mapping = sys::Mapping::new(file.as_fd(), sys::page_size(), 0, false).ok()?;
    let start = format!("{:x}-", mapping.as_ptr() as usize);
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let mut words = maps.lines().find(|l| l.starts_with(&start))?.split_ascii_whitespace().skip(3);
    let (device, inode) = (words.next()?, words.next()?.parse().ok()?);
    debug_assert!(file.as_raw_fd() >= 0);
    Some(Inode::Numbers(device.to_owned(), inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_itself_under_two_names_and_a_copy_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, c) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("c"));
        fs::write(&a, "x").unwrap();
        fs::hard_link(&a, &b).unwrap();
        fs::copy(&a, &c).unwrap();
        let [a, b, c] = [a, b, c].map(|p| File::open(p).unwrap());
        assert_eq!(of(&a), of(&b));
        assert_ne!(of(&a), of(&c));
        assert_eq!(by_mapping(&a), by_mapping(&b));
        assert_ne!(by_mapping(&a), by_mapping(&c));
    }

    #[test]
    fn handles_of_overlays_are_those_of_the_file_below() {
        let hex = "00000000fb21000156ed4418a2c548918bc8b5c595c8d98ff655889c0900000000000000";
        let overlay = hex::decode(hex).unwrap();
        let below = hex::decode("f655889c0900000000000000").unwrap();
        assert_eq!(inner(248, &overlay), Inode::Handle(1, below.clone()));
        assert_eq!(inner(1, &below), Inode::Handle(1, below));
        // damaged: kept as it is
        for len in 0..24 {
            assert_eq!(inner(248, &overlay[..len]), Inode::Handle(248, overlay[..len].to_vec()));
        }
    }
}

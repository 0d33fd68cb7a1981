//! Which file of the disk a file is: containers of one image see one library under as many names and numbers as there are
//! containers, and the kernel probes the library, not the name. Probed twice, every call would be seen twice.
//!
//! overlayfs tells by the handle it makes of a file, which holds that of the file below (Linux 6.6), or before that in the
//! list of mappings, which has the numbers of the file below.

use crate::bpf::sys;
use std::{
    fs::{self, File},
    os::{fd::AsFd, unix::fs::MetadataExt},
};

/// Equal for two names of one file of the disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub(super) enum Inode {
    /// A file handle's kind and content, which name a file of one disk.
    Handle(Disk, i32, Vec<u8>),
    /// Device and inode as the list of mappings or stat(2) tells them.
    Numbers(String, u64),
}

/// Which file system a handle is of: two images that are disks of their own may number their files alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub(super) enum Disk {
    /// All zero where the file system below an overlay has none, as squashfs; such are not told apart.
    Uuid([u8; 16]),
    /// Where nobody tells the uuid: before Linux 6.9, or because there is none.
    Device(u64),
}

/// Handles of overlayfs: one made of the file above or below, behind a header.
const OVERLAY: std::ops::RangeInclusive<i32> = 0xf8..=0xfb;
const OVERLAY_MAGIC: u8 = 0xfb;

pub(super) fn of(file: &File) -> Inode {
    let stat = || file.metadata().map_or((0, 0), |m| (m.dev(), m.ino()));
    let disk = || sys::file_system_uuid(file.as_fd()).map_or_else(|_| Disk::Device(stat().0), Disk::Uuid);
    let handle = sys::file_handle(file.as_fd()).map(|(kind, bytes)| inner(kind, &bytes, disk()));
    handle.ok().or_else(|| by_mapping(file)).unwrap_or_else(|| {
        let (device, inode) = stat();
        Inode::Numbers(format!("stat {device}"), inode)
    })
}

/// The handle of the file below all overlays: `pad[3], version, magic, length, flags, kind, uuid[16], handle`. `disk`: that of
/// the file itself, if it is of no overlay.
fn inner(kind: i32, bytes: &[u8], disk: Disk) -> Inode {
    let below = bytes.get(3..).filter(|b| OVERLAY.contains(&kind) && b.get(1) == Some(&OVERLAY_MAGIC));
    let parts = |b: &[u8]| {
        let end = b.len().min((*b.get(2)?).into());
        let uuid = b.get(5..21)?.try_into().ok()?;
        Some(inner((*b.get(4)?).into(), b.get(21..end)?, Disk::Uuid(uuid)))
    };
    below.and_then(parts).unwrap_or_else(|| Inode::Handle(disk, kind, bytes.to_vec()))
}

/// Maps a page of the file, which nobody touches, and reads which file the kernel says that is.
fn by_mapping(file: &File) -> Option<Inode> {
    let mapping = sys::Mapping::new(file.as_fd(), sys::page_size(), 0, false).ok()?;
    let start = format!("{:x}-", mapping.as_ptr() as usize);
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let mut words = maps.lines().find(|l| l.starts_with(&start))?.split_ascii_whitespace().skip(3);
    let (device, inode) = (words.next()?, words.next()?.parse().ok()?);
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
        let uuid: [u8; 16] = hex::decode("56ed4418a2c548918bc8b5c595c8d98f").unwrap().try_into().unwrap();
        let other = Disk::Device(7);
        let found = inner(248, &overlay, other.clone());
        assert_eq!(found, Inode::Handle(Disk::Uuid(uuid), 1, below.clone()));
        // the file below, seen without the overlay
        assert_eq!(inner(1, &below, Disk::Uuid(uuid)), found);
        // the same numbers on another disk, below an overlay and without
        let mut elsewhere = overlay.clone();
        elsewhere[8] ^= 1;
        assert_ne!(inner(248, &elsewhere, other.clone()), found);
        assert_ne!(inner(1, &below, other.clone()), found);
        // damaged: kept as it is
        for len in 0..24 {
            let kept = Inode::Handle(other.clone(), 248, overlay[..len].to_vec());
            assert_eq!(inner(248, &overlay[..len], other.clone()), kept);
        }
    }
}

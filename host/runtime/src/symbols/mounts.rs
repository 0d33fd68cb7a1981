//! Which files a process has mapped may never answer: those of file systems that somebody's program or another machine
//! serves. Told from `/proc/PID/mountinfo` alone; the file systems themselves are not asked, which could take for ever, too.

use rustc_hash::FxHashMap;
use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// Numbers of a device, as mappings and mounts have them.
pub(super) type Device = (u32, u32);

/// File systems that answer as fast as the machine's own disks and memory.
const LOCAL: [&str; 24] = [
    "bcachefs",
    "btrfs",
    "devtmpfs",
    "erofs",
    "exfat",
    "ext2",
    "ext3",
    "ext4",
    "f2fs",
    "hugetlbfs",
    "iso9660",
    "jfs",
    "msdos",
    "nilfs2",
    "ntfs3",
    "overlay",
    "ramfs",
    "reiserfs",
    "rootfs",
    "squashfs",
    "tmpfs",
    "vfat",
    "xfs",
    "zfs",
];
const MAX_BYTES: u64 = 16 << 20;
const MAX_MOUNTS: usize = 16_384;
/// Lists are kept so long: a host with many containers has thousands of mounts, and processes come by the second.
const KEPT: Duration = Duration::from_secs(10);
/// Mount namespaces whose lists are kept.
const MAX_LISTS: usize = 1024;

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    device: Device,
    at: PathBuf,
    local: bool,
    /// Below an overlay, as far as they are absolute paths (of whoever mounted it).
    layers: Vec<PathBuf>,
}

/// The mounts that were seen lately, by mount namespace.
#[derive(Debug, Default)]
pub(super) struct Mounts(FxHashMap<u64, (Instant, Arc<Vec<Mount>>)>);

impl Mounts {
    /// Whether files of a device that a process has mapped may be waited for.
    pub(super) fn is_local(&mut self, process: &Path, device: Device) -> bool {
        let host = process.with_file_name("1");
        View { own: self.list(process), host: self.list(&host) }.is_local(device)
    }

    fn list(&mut self, process: &Path) -> Arc<Vec<Mount>> {
        let namespace = fs::metadata(process.join("ns/mnt")).map_or(0, |m| m.ino());
        match self.0.get(&namespace) {
            Some((at, list)) if namespace != 0 && at.elapsed() < KEPT => list.clone(),
            _ => {
                let list = Arc::new(read(&process.join("mountinfo")));
                if self.0.len() >= MAX_LISTS {
                    self.0.clear();
                }
                self.0.insert(namespace, (Instant::now(), list.clone()));
                list
            }
        }
    }
}

/// The mounts of a process, and those of the host.
struct View {
    own: Arc<Vec<Mount>>,
    host: Arc<Vec<Mount>>,
}

impl View {
    /// Whether files of a device may be waited for.
    fn is_local(&self, device: Device) -> bool {
        match self.own.iter().chain(self.host.iter()).find(|m| m.device == device) {
            Some(m) => m.local && m.layers.iter().all(|dir| self.holds(dir)),
            // seen in no mount: below an overlay, where older kernels show the disk of the file itself
            None => device.0 != 0,
        }
    }

    /// Whether a directory of the host is on a file system that may be waited for.
    fn holds(&self, dir: &Path) -> bool {
        // of mounts at one place the last is on top
        let above = self.host.iter().filter(|m| dir.starts_with(&m.at));
        above.max_by_key(|m| m.at.as_os_str().len()).is_none_or(|m| m.local)
    }
}

fn read(mountinfo: &Path) -> Vec<Mount> {
    let mut text = Vec::new();
    let read = File::open(mountinfo).and_then(|f| f.take(MAX_BYTES).read_to_end(&mut text));
    read.map_or_else(|_| Vec::new(), |_| parse(&String::from_utf8_lossy(&text)))
}

/// Lines of `id parent device root place options [optional ...] - type source options`.
fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(mount).take(MAX_MOUNTS).collect()
}

fn mount(line: &str) -> Option<Mount> {
    let (first, last) = line.split_once(" - ")?;
    let mut first = first.split(' ').skip(2);
    let (major, minor) = first.next()?.split_once(':')?;
    let at = PathBuf::from(unescaped(first.nth(1)?));
    let mut last = last.split(' ');
    let kind = last.next()?;
    let layers = match kind {
        "overlay" => layers(last.nth(1).unwrap_or_default()),
        _ => Vec::new(),
    };
    let device = (major.parse().ok()?, minor.parse().ok()?);
    Some(Mount { device, at, local: LOCAL.contains(&kind), layers })
}

/// `lowerdir=/a:/b`, or since Linux 6.5 `lowerdir+=/a,lowerdir+=/b`.
fn layers(options: &str) -> Vec<PathBuf> {
    let dirs = options.split(',').filter_map(|o| o.strip_prefix("lowerdir")?.trim_start_matches('+').strip_prefix('='));
    let dirs = dirs.flat_map(|d| d.split(':')).map(unescaped).map(PathBuf::from);
    dirs.filter(|d| d.is_absolute()).collect()
}

/// Spaces and the like stand there as `\040`.
fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        match after.get(..3).and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) => {
                out.push(byte.into());
                rest = &after[3..];
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// What a fuzzer calls.
#[cfg(fuzzing)]
pub(super) fn fuzz(text: &str) {
    let list = Arc::new(parse(text));
    let mounts = View { own: list.clone(), host: list };
    for device in mounts.own.iter().map(|m| m.device) {
        mounts.is_local(device);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_serves_files_is_told_from_the_mounts() {
        let own = "22 28 0:20 / / rw - overlay overlay rw,lowerdir=/var/lib/a:/var/lib/b,upperdir=/u\n\
                   23 22 0:44 / /data rw,relatime shared:5 - fuse.sshfs me@there:/ rw,user_id=0\n\
                   24 22 0:45 / /with\\040space rw - nfs4 server:/x rw\n\
                   25 22 8:1 /x /disk rw - ext4 /dev/sda1 rw\n\
                   26 22 8:17 / /stick rw - fuseblk /dev/sdb1 rw\n\
                   27 22 0:50 / /lazy rw - overlay overlay rw,lowerdir+=/var/lib/a,lowerdir+=/var/lib/stargz/1/fs\n\
                   28 22 0:51 / /relative rw - overlay overlay rw,lowerdir=l/ABC:l/DEF\n\
                   nonsense\n29 22 0:x / / rw - ext4 a b\n";
        let host = "1 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                    2 1 0:60 / /var/lib/stargz/1/fs rw - fuse.rawBridge stargz ro\n";
        let mounts = View { own: Arc::new(parse(own)), host: Arc::new(parse(host)) };
        assert_eq!((mounts.own.len(), mounts.host.len()), (7, 2));
        assert_eq!(mounts.own[2].at, Path::new("/with space"));
        let local = |major, minor| mounts.is_local((major, minor));
        assert!(local(0, 20) && local(8, 1) && local(0, 51));
        assert!(!local(0, 44) && !local(0, 45) && !local(8, 17) && !local(0, 50) && !local(0, 60));
        // in no list: a disk below an overlay, and memory of the kernel's own
        assert!(local(259, 3) && !local(0, 1));
        assert_eq!(unescaped("a\\134b\\"), "a\\b\\");
        assert!(!View { own: Arc::default(), host: Arc::default() }.is_local((0, 1)));
    }

    #[test]
    fn lists_are_read_once_for_all_processes_of_a_namespace() {
        let mut mounts = Mounts::default();
        let own = mounts.list(Path::new("/proc/self"));
        assert!(!own.is_empty());
        // as if it were read in an hour, so that a slow machine reads it once as well
        mounts.0.values_mut().for_each(|(at, _)| *at += Duration::from_secs(3600));
        let pid = std::process::id().to_string();
        assert!(Arc::ptr_eq(&own, &mounts.list(&Path::new("/proc").join(pid))));
        // one that has gone
        assert!(mounts.list(Path::new("/proc/0")).is_empty() && mounts.list(Path::new("/proc/0")).is_empty());
    }
}

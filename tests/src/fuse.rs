//! A file system served by this process, in the kernel's FUSE protocol by hand: a directory with a few files, which
//! answers until it is told not to.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
    mount::{MountFlags, UnmountFlags, mount, unmount},
    process::setpriority_process,
    thread::gettid,
};
use std::{
    fs::File,
    io::{Read, Write},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};
use tempfile::TempDir;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
const RELEASEDIR: u32 = 29;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
/// Pages that were read stay when the file is opened again.
const KEEP_CACHE: u32 = 2;
const ENOENT: i32 = 2;
const ENOSYS: i32 = 38;
/// The number of the first file; the directory is 1.
const FIRST: u64 = 2;

/// The mounted file system.
pub struct Fuse {
    dir: TempDir,
    silent: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl Fuse {
    /// Mounts a directory with these files, all of them executable.
    pub fn serve(files: &[(&str, Vec<u8>)]) -> Fuse {
        let dir = tempfile::Builder::new().prefix("ig-fuse").tempdir_in("/tmp").expect("a temporary directory");
        let nonblocking = OFlags::NONBLOCK.bits() as i32;
        let device = File::options().read(true).write(true).custom_flags(nonblocking).open("/dev/fuse");
        let device = device.expect("/dev/fuse (a kernel with FUSE, modprobe fuse)");
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let options = std::ffi::CString::new(options).expect("no zero in it");
        mount("ig-test", dir.path(), "fuse", MountFlags::empty(), Some(options.as_c_str())).expect("mount -t fuse");
        let (silent, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let files: Vec<(String, Vec<u8>)> = files.iter().map(|(n, b)| ((*n).to_owned(), b.clone())).collect();
        let server = {
            let (silent, over) = (silent.clone(), over.clone());
            std::thread::spawn(move || serve(device, &files, &silent, &over))
        };
        Fuse { dir, silent, over, server: Some(server) }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// From now on requests are taken and never answered.
    pub fn silence(&self) {
        self.silent.store(true, Ordering::Release);
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        // Closing the device ends all that waits.
        self.over.store(true, Ordering::Release);
        let ended = self.server.take().map(JoinHandle::join);
        let unmounted = unmount(self.dir.path(), UnmountFlags::DETACH);
        if !std::thread::panicking() {
            ended.transpose().expect("the server of the file system");
            unmounted.expect("umount");
        }
    }
}

fn serve(mut device: File, files: &[(String, Vec<u8>)], silent: &AtomicBool, over: &AtomicBool) {
    // Before it falls silent it answers at once, on a busy machine too: `ig` waits for a second only.
    setpriority_process(Some(gettid()), -20).expect("the rights of root");
    let mut request = vec![0; 1 << 20];
    let tick = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    while !over.load(Ordering::Acquire) {
        let ready = poll(&mut [PollFd::new(&device, PollFlags::IN)], Some(&tick));
        // An error is a request that was given up meanwhile.
        let Ok(len) = (if ready == Ok(1) { device.read(&mut request) } else { Ok(0) }) else { continue };
        let request = &request[..len];
        if len < 40 || silent.load(Ordering::Acquire) {
            continue;
        }
        let (operation, unique, node) = (u32_at(request, 4), u64_at(request, 8), u64_at(request, 16));
        if matches!(operation, FORGET | BATCH_FORGET | INTERRUPT) {
            continue;
        }
        let (error, body) = match answer(operation, node, &request[40..], files) {
            Ok(body) => (0, body),
            Err(error) => (-error, Vec::new()),
        };
        let mut out = (16 + body.len() as u32).to_le_bytes().to_vec();
        out.extend(error.to_le_bytes());
        out.extend(unique.to_le_bytes());
        out.extend(body);
        // One that was given up wants no answer.
        let (Ok(_) | Err(_)) = device.write(&out);
    }
}

fn answer(operation: u32, node: u64, body: &[u8], files: &[(String, Vec<u8>)]) -> Result<Vec<u8>, i32> {
    let content = |node: u64| files.get(usize::try_from(node.wrapping_sub(FIRST)).ok()?).map(|f| f.1.as_slice());
    match operation {
        INIT => {
            let mut out = [7u32, 31, 1 << 16, 0, 0, 1 << 16, 1].map(u32::to_le_bytes).concat();
            out.resize(64, 0);
            Ok(out)
        }
        LOOKUP => {
            let name = body.split(|b| *b == 0).next().unwrap_or_default();
            let at = files.iter().position(|f| f.0.as_bytes() == name).ok_or(ENOENT)?;
            // Number, generation, and how long this and the attributes hold: not at all.
            let mut out = [FIRST + at as u64, 0, 0, 0, 0].map(u64::to_le_bytes).concat();
            out.extend(attributes(FIRST + at as u64, Some(files[at].1.len())));
            Ok(out)
        }
        GETATTR => {
            let mut out = vec![0; 16];
            out.extend(attributes(node, content(node).map(<[u8]>::len)));
            Ok(out)
        }
        OPEN | OPENDIR => Ok([0, 0, KEEP_CACHE, 0].map(u32::to_le_bytes).concat()),
        READ => {
            let (content, from) = (content(node).unwrap_or_default(), u64_at(body, 8) as usize);
            let to = from.saturating_add(u32_at(body, 16) as usize).min(content.len());
            Ok(content.get(from..to).unwrap_or_default().to_vec())
        }
        READDIR | FLUSH | RELEASE | RELEASEDIR => Ok(Vec::new()),
        _ => Err(ENOSYS),
    }
}

/// Of a file of this size, or of the directory.
fn attributes(node: u64, size: Option<usize>) -> Vec<u8> {
    let len = size.unwrap_or(0) as u64;
    let mut out = [node, len, len.div_ceil(512), 1, 1, 1].map(u64::to_le_bytes).concat();
    let mode = if size.is_some() { 0o100_755 } else { 0o040_755 };
    // Three parts of seconds, mode, links, owner, group, device, block, flags.
    out.extend([0, 0, 0, mode, 1, 0, 0, 0, 4096, 0].map(u32::to_le_bytes).concat());
    out
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

//! Work on files that may never answer, such as a container's on FUSE or a network file system: a child process does it,
//! and is waited for only so long.
//!
//! A thread would not do. One that waits for such a server can often not be ended, not even by SIGKILL, and with it its whole
//! process cannot: `ig` would be left behind by its own exit. A child is left to itself; it holds no descriptor of ours, no program and no
//! pipe of the user's, and goes when its server answers or ends. From any thread; those that were left behind are counted
//! for the whole process, and above a bound nothing is tried any more.

use crate::fd_passing;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};
use std::{
    io::{self, IoSliceMut, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Children that are left behind at a time, each with the memory that it had of ours.
const MAX_LEFT: usize = 16;
/// Descriptors in one message.
const FDS: usize = 8;
/// `chunks of descriptors: u32, bytes: u64`
const HEAD: usize = 12;

/// Children that have not ended yet.
static LEFT: Mutex<Vec<libc::pid_t>> = Mutex::new(Vec::new());

/// What the child found out.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub bytes: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum AsideError {
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    #[error("too many files do not answer")]
    Crowded,
    #[error("the child process that was to read it failed")]
    Broken,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Runs `work` in a child process, with a copy of all memory and no descriptors, and gives what it returned, at most `max`
/// bytes. It must take no lock that other threads of this process may hold, and print nothing.
pub(crate) fn call(limit: Duration, max: usize, work: impl FnOnce() -> Answer) -> Result<Answer, AsideError> {
    if reap() >= MAX_LEFT {
        return Err(AsideError::Crowded);
    }
    let (ours, theirs) = UnixStream::pair()?;
    // SAFETY: the child only closes descriptors, does `work` and ends; the C library keeps its allocator usable in it
    let pid = match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error().into()),
        0 => child(theirs, work),
        pid => pid,
    };
    drop(theirs);
    let answer = receive(&ours, limit, max);
    if answer.is_err() {
        // SAFETY: a child of ours that nobody has waited for, so that the number is still its own
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    // even its end may wait for the server, when it closes the file
    LEFT.lock().unwrap_or_else(PoisonError::into_inner).push(pid);
    reap();
    answer
}

/// Forgets children that have ended; how many there still are.
fn reap() -> usize {
    let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: no pointer but a null one, which is allowed
    left.retain(|pid| unsafe { libc::waitpid(*pid, std::ptr::null_mut(), libc::WNOHANG) } == 0);
    left.len()
}

fn child(socket: UnixStream, work: impl FnOnce() -> Answer) -> ! {
    leave_all_behind(socket.as_raw_fd());
    let done = catch_unwind(AssertUnwindSafe(|| {
        let answer = work();
        send(socket, &answer)
    }));
    let code = i32::from(!matches!(done, Ok(Ok(()))));
    // SAFETY: ends this process without running what the parent has registered for its end
    unsafe { libc::_exit(code) }
}

/// Nothing of the parent may live on in a child that does not end, and nothing that is meant for the parent come here.
fn leave_all_behind(socket: RawFd) {
    // SAFETY: plain system calls; `all` is filled before it is used. No owner of a descriptor in this copy of the memory uses it again.
    unsafe {
        let mut all = MaybeUninit::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::sigprocmask(libc::SIG_BLOCK, all.as_ptr(), std::ptr::null_mut());
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        let close = |from: u32, to: u32| from > to || libc::syscall(libc::SYS_close_range, from, to, 0) == 0;
        let socket = socket as u32;
        if close(0, socket.saturating_sub(1)) && close(socket + 1, u32::MAX) {
            return;
        }
        // before Linux 5.9
        for fd in 0..libc::sysconf(libc::_SC_OPEN_MAX).clamp(0, 1 << 20) as u32 {
            if fd != socket {
                libc::close(fd as RawFd);
            }
        }
    }
}

fn send(mut socket: UnixStream, answer: &Answer) -> io::Result<()> {
    let chunks = answer.fds.chunks(FDS);
    let mut head = (chunks.len() as u32).to_le_bytes().to_vec();
    head.extend((answer.bytes.len() as u64).to_le_bytes());
    socket.write_all(&head)?;
    for chunk in chunks {
        let fds: Vec<BorrowedFd<'_>> = chunk.iter().map(AsFd::as_fd).collect();
        fd_passing::send(socket.as_fd(), b".", &fds)?;
    }
    socket.write_all(&answer.bytes)
}

fn receive(socket: &UnixStream, limit: Duration, max: usize) -> Result<Answer, AsideError> {
    let until = Instant::now() + limit;
    let mut answer = Answer::default();
    let mut part = vec![0; 64 << 10];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let time = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&time)) {
            Ok(0) => return Err(AsideError::Late(limit)),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(e) => return Err(io::Error::from(e).into()),
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let got = match recvmsg(socket, &mut [IoSliceMut::new(&mut part)], &mut control, flags) {
            Ok(message) => message.bytes,
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(e) => return Err(io::Error::from(e).into()),
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                answer.fds.extend(fds);
            }
        }
        answer.bytes.extend_from_slice(&part[..got]);
        if let Some(whole) = whole(&answer.bytes) {
            answer.bytes.drain(..whole);
            return Ok(answer);
        }
        if got == 0 || answer.bytes.len() > max {
            return Err(AsideError::Broken);
        }
    }
}

/// Where the answer itself begins, once all of it is there.
fn whole(bytes: &[u8]) -> Option<usize> {
    let (chunks, rest) = bytes.split_first_chunk::<4>()?;
    let (len, rest) = rest.split_first_chunk::<8>()?;
    let chunks = u32::from_le_bytes(*chunks) as usize;
    let wanted = u64::from_le_bytes(*len).checked_add(chunks as u64)?;
    (rest.len() as u64 >= wanted).then_some(HEAD + chunks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, io::Read};

    #[test]
    fn what_the_child_found_comes_back_with_its_descriptors() {
        let bytes: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        let answer = call(Duration::from_secs(120), 1 << 20, || {
            let fds = (0..11).map(|_| File::open("/proc/self/stat").unwrap().into()).collect();
            Answer { bytes: bytes.clone(), fds }
        });
        let answer = answer.unwrap();
        assert_eq!((answer.bytes, answer.fds.len()), (bytes, 11));
        for fd in answer.fds {
            let mut text = String::new();
            // a descriptor of the child's own status file, whoever reads it
            let read = File::from(fd).read_to_string(&mut text);
            assert!(read.is_err() || !text.starts_with(&format!("{} ", std::process::id())), "{text}");
        }
    }

    #[test]
    fn the_child_has_nothing_of_ours_open() {
        let (_held, other) = UnixStream::pair().unwrap();
        let number = other.as_raw_fd();
        let answer = call(Duration::from_secs(120), 1024, || {
            let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            let open: Vec<String> = links.filter_map(|l| l.file_name().into_string().ok()).collect();
            Answer { bytes: open.join(",").into_bytes(), fds: Vec::new() }
        });
        let text = String::from_utf8(answer.unwrap().bytes).unwrap();
        // the socket of the answer, and the directory that was read
        assert!(text.split(',').count() == 2 && !text.split(',').any(|n| n == number.to_string()), "{text}");
    }

    #[test]
    fn one_that_is_late_breaks_or_says_too_much_is_left() {
        let start = Instant::now();
        let late = call(Duration::from_millis(200), 1024, || {
            std::thread::sleep(Duration::from_secs(600));
            Answer::default()
        });
        assert!(matches!(late, Err(AsideError::Late(_))), "{late:?}");
        assert!(start.elapsed() < Duration::from_secs(120));
        let broken = call(Duration::from_secs(120), 1024, || std::process::abort());
        assert!(matches!(broken, Err(AsideError::Broken)), "{broken:?}");
        let long = call(Duration::from_secs(120), 1024, || Answer { bytes: vec![0; 1 << 20], fds: Vec::new() });
        assert!(matches!(long, Err(AsideError::Broken)), "{long:?}");
        // all of them can be ended
        assert!((0..3000).any(|_| reap() == 0 || (std::thread::sleep(Duration::from_millis(20)), false).1));
    }
}

//! Descriptors that travel with bytes over a unix socket (SCM_RIGHTS): std has no stable call for it.
//!
//! One function around one system call; any thread.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
};

/// Descriptors in one message, at most.
const MAX_FDS: usize = 8;
/// Room for a control message with `MAX_FDS` descriptors: `CMSG_SPACE` of them, rounded up.
const CONTROL_WORDS: usize = 16;

/// Sends `bytes` with `fds`; returns how many bytes went out. The descriptors went with the first of them.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    if fds.len() > MAX_FDS || bytes.is_empty() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let payload = size_of_val(raw.as_slice());
    let mut control = [0u64; CONTROL_WORDS];
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: a msghdr of zeroes is valid: no name, no parts, no control
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if !raw.is_empty() {
        message.msg_control = control.as_mut_ptr().cast();
        // SAFETY: computes a size
        message.msg_controllen = unsafe { libc::CMSG_SPACE(payload as u32) } as _;
        debug_assert!(message.msg_controllen as usize <= size_of_val(&control));
        // SAFETY: the control buffer is aligned for, and has room for, one header with `MAX_FDS` descriptors
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(payload as u32) as _;
            std::ptr::copy_nonoverlapping(raw.as_ptr().cast::<u8>(), libc::CMSG_DATA(header), payload);
        }
    }
    // SAFETY: `message` and all it points to live through the call
    let n = unsafe { libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_NOSIGNAL) };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n as usize) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Seek, Write},
        os::{fd::AsFd, unix::net::UnixStream},
    };

    #[test]
    fn a_descriptor_survives_its_senders_copy() {
        let (a, mut b) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"x").unwrap();
        file.rewind().unwrap();
        assert_eq!(send(a.as_fd(), b"hello", &[file.as_fd(), file.as_fd()]).unwrap(), 5);
        let mut bytes = [0; 5];
        b.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
        assert!(send(a.as_fd(), b"", &[]).is_err(), "descriptors travel with bytes only");
        assert!(send(a.as_fd(), b"x", &[file.as_fd(); 9]).is_err());
    }
}

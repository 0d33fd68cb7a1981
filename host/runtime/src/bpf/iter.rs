//! Runs an attached iterator once and hands out what its program wrote, cut into rows of the declared size.

use super::sys;
use std::{
    fs::File,
    io::{self, Read},
    os::fd::BorrowedFd,
};

/// What came of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IterRun {
    pub rows: usize,
    /// Bytes at the end that make no whole row: the program wrote something else than it declared.
    pub rest: usize,
}

/// Runs the iterator of `link` (see `Loaded::iterator`); `f` gets each row of `row_size` bytes.
pub fn read(link: BorrowedFd<'_>, row_size: usize, mut f: impl FnMut(&[u8])) -> io::Result<IterRun> {
    if row_size == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "rows of no bytes"));
    }
    let mut file = File::from(sys::iter_create(link)?);
    let mut buffer = vec![0u8; row_size.max(64 << 10)];
    let (mut have, mut rows) = (0, 0);
    loop {
        let n = match file.read(&mut buffer[have..]) {
            Ok(0) => return Ok(IterRun { rows, rest: have }),
            Ok(n) => n,
            // the kernel gives up its time slice after a million objects without output
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                continue;
            }
            Err(e) => return Err(e),
        };
        have += n;
        let whole = have / row_size * row_size;
        for row in buffer[..whole].chunks_exact(row_size) {
            f(row);
            rows += 1;
        }
        buffer.copy_within(whole..have, 0);
        have -= whole;
    }
}

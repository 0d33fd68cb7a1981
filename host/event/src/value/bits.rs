//! Numbers whose bits have names: file modes, open(2) flags, the gadget's own enums and bit sets.

use super::number;

/// `drwxr-xr-x`, `-rwsr-xr-x`; bits without a file type, as open(2) gets them, start with `-`.
pub(crate) fn file_mode(mode: u64, out: &mut Vec<u8>) {
    out.push(match mode & 0o170000 {
        0o140000 => b's',
        0o120000 => b'l',
        0o060000 => b'b',
        0o040000 => b'd',
        0o020000 => b'c',
        0o010000 => b'p',
        _ => b'-',
    });
    for (shift, special, letter) in [(6, 0o4000, b's'), (3, 0o2000, b's'), (0, 0o1000, b't')] {
        let bits = mode >> shift;
        out.push(if bits & 4 != 0 { b'r' } else { b'-' });
        out.push(if bits & 2 != 0 { b'w' } else { b'-' });
        out.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => b'x',
            (false, false) => b'-',
        });
    }
}

/// Longer masks come before their parts.
#[rustfmt::skip]
const OPEN_FLAGS: &[(u64, &str)] = &[
    (0o100, "O_CREAT"), (0o200, "O_EXCL"), (0o400, "O_NOCTTY"), (0o1000, "O_TRUNC"), (0o2000, "O_APPEND"),
    (0o4000, "O_NONBLOCK"), (0o4010000, "O_SYNC"), (0o10000, "O_DSYNC"), (0o20000, "O_ASYNC"),
    (O_DIRECT, "O_DIRECT"), (O_LARGEFILE, "O_LARGEFILE"), (0o20000000 | O_DIRECTORY, "O_TMPFILE"),
    (O_DIRECTORY, "O_DIRECTORY"), (O_NOFOLLOW, "O_NOFOLLOW"), (0o1000000, "O_NOATIME"), (0o2000000, "O_CLOEXEC"),
    (0o10000000, "O_PATH"),
];

// These four bits are the only ones that arm and arm64 number differently.
const ARM: bool = cfg!(any(target_arch = "aarch64", target_arch = "arm"));
const O_DIRECT: u64 = if ARM { 0o200000 } else { 0o40000 };
const O_LARGEFILE: u64 = if ARM { 0o400000 } else { 0o100000 };
const O_DIRECTORY: u64 = if ARM { 0o40000 } else { 0o200000 };
const O_NOFOLLOW: u64 = if ARM { 0o100000 } else { 0o400000 };

/// `O_RDONLY|O_CREAT`; bits without a name follow in hexadecimal.
pub(crate) fn open_flags(flags: u64, out: &mut Vec<u8>) {
    let access: &[u8] = match flags & 3 {
        0 => b"O_RDONLY",
        1 => b"O_WRONLY",
        2 => b"O_RDWR",
        _ => b"O_ACCMODE",
    };
    out.extend_from_slice(access);
    let mut left = flags & !3;
    for (mask, name) in OPEN_FLAGS {
        if left & mask == *mask {
            left &= !mask;
            out.push(b'|');
            out.extend_from_slice(name.as_bytes());
        }
    }
    if left != 0 {
        out.extend_from_slice(b"|0x");
        number::hex(left, number::LOWER, out);
    }
}

/// Names of an enum, found by bisection; built once.
#[derive(Clone, Debug)]
pub(crate) struct Names(Vec<(i64, Box<str>)>);

impl Names {
    /// Where two names share a number, the first one counts.
    pub(crate) fn new(names: &[(i64, String)]) -> Self {
        let mut sorted: Vec<(i64, Box<str>)> = names.iter().map(|(n, s)| (*n, s.as_str().into())).collect();
        sorted.sort_by_key(|(n, _)| *n);
        sorted.dedup_by_key(|(n, _)| *n);
        Names(sorted)
    }

    /// The name, or the number where it has none.
    pub(crate) fn write(&self, n: i64, out: &mut Vec<u8>) {
        match self.0.binary_search_by_key(&n, |(k, _)| *k) {
            Ok(i) => out.extend_from_slice(self.0[i].1.as_bytes()),
            Err(_) => number::int(n, out),
        }
    }
}

/// Names of the set bits, joined; bits without a name follow in hexadecimal. A name for 0 shows when no bit is set.
pub(crate) fn set(value: u64, names: &[(u64, String)], separator: &str, out: &mut Vec<u8>) {
    let start = out.len();
    let mut left = value;
    for (mask, name) in names {
        let hit = if *mask == 0 { value == 0 } else { value & mask == *mask };
        if hit {
            if out.len() > start {
                out.extend_from_slice(separator.as_bytes());
            }
            left &= !mask;
            out.extend_from_slice(name.as_bytes());
        }
    }
    if left != 0 {
        if out.len() > start {
            out.extend_from_slice(separator.as_bytes());
        }
        out.extend_from_slice(b"0x");
        number::hex(left, number::LOWER, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(f: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        f(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn modes_read_as_ls_shows_them() {
        for (mode, expected) in [
            (0o644, "-rw-r--r--"),
            (0o40755, "drwxr-xr-x"),
            (0o104755, "-rwsr-xr-x"),
            (0o41777, "drwxrwxrwt"),
            (0o2640, "-rw-r-S---"),
            (0o140777, "srwxrwxrwx"),
        ] {
            assert_eq!(text(|o| file_mode(mode, o)), expected);
        }
    }

    #[cfg(not(any(target_arch = "aarch64", target_arch = "arm")))]
    #[test]
    fn open_flags_by_name() {
        for (flags, expected) in [
            (0, "O_RDONLY"),
            (0o101, "O_WRONLY|O_CREAT"),
            (0o2000000, "O_RDONLY|O_CLOEXEC"),
            (0o4010002, "O_RDWR|O_SYNC"),
            (0o20200002, "O_RDWR|O_TMPFILE"),
            (0x8000_0000, "O_RDONLY|0x80000000"),
        ] {
            assert_eq!(text(|o| open_flags(flags, o)), expected);
        }
    }

    #[test]
    fn enums_and_sets_show_what_they_cannot_name_as_numbers() {
        let names = Names::new(&[(2, "two".into()), (-1, "minus".into()), (2, "again".into())]);
        assert_eq!(text(|o| names.write(2, o)), "two");
        assert_eq!(text(|o| names.write(-1, o)), "minus");
        assert_eq!(text(|o| names.write(7, o)), "7");
        let bits = [(0, "NONE".to_owned()), (1, "A".to_owned()), (4, "B".to_owned())];
        assert_eq!(text(|o| set(5, &bits, "|", o)), "A|B");
        assert_eq!(text(|o| set(0, &bits, "|", o)), "NONE");
        assert_eq!(text(|o| set(0x11, &bits, ",", o)), "A,0x10");
    }
}

//! Numbers to text: decimal, hexadecimal, floats. Shared by all outputs; appends to a buffer and never allocates.

use std::io::Write;

pub(crate) fn uint(n: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

pub(crate) fn int(n: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

/// `n` with zeros in front, `digits` wide (at most 20).
pub(crate) fn padded(n: u64, digits: usize, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(n).as_bytes();
    out.extend_from_slice(&b"00000000000000000000"[..digits.saturating_sub(text.len()).min(20)]);
    out.extend_from_slice(text);
}

pub(crate) fn hex(mut n: u64, alphabet: &[u8; 16], out: &mut Vec<u8>) {
    let mut text = [0u8; 16];
    let mut at = text.len();
    loop {
        at -= 1;
        text[at] = alphabet[(n & 15) as usize];
        n >>= 4;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
}

pub(crate) const LOWER: &[u8; 16] = b"0123456789abcdef";
pub(crate) const UPPER: &[u8; 16] = b"0123456789ABCDEF";

/// Two hexadecimal digits a byte.
pub(crate) fn hex_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() * 2);
    for b in bytes {
        out.extend_from_slice(&[LOWER[usize::from(b >> 4)], LOWER[usize::from(b & 15)]]);
    }
}

/// The shortest text that reads back as the same float; `null` for what JSON has no number for.
pub(crate) fn json_float(f: f64, out: &mut Vec<u8>) {
    if !f.is_finite() {
        return out.extend_from_slice(b"null");
    }
    let mut buffer = ryu::Buffer::new();
    let text = buffer.format_finite(f);
    out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
}

/// `precision` digits after the point.
pub(crate) fn fixed_float(f: f64, precision: usize, out: &mut Vec<u8>) {
    // Correct rounding matters more here than the cost of the standard formatter: floats are rare, and it does not allocate.
    let result = write!(out, "{f:.precision$}");
    debug_assert!(result.is_ok(), "writing to memory does not fail");
}

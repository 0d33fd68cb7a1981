//! Text out of raw bytes, many at a time: a guest pays for every turn of a loop, so a loop over single bytes costs double.

const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// Appends a NUL-separated list with one space for each NUL between two values; the NUL that ends the last is left out.
/// Nothing else is changed, so empty values show as two spaces in a row.
///
/// ```
/// let mut out = Vec::new();
/// gadget_sdk::text::join_nul(b"ls\0-l\0\0/tmp\0", &mut out);
/// assert_eq!(out, b"ls -l  /tmp");
/// ```
pub fn join_nul(list: &[u8], out: &mut Vec<u8>) {
    let list = list.strip_suffix(b"\0").unwrap_or(list);
    out.reserve(list.len());
    match list.len() {
        64.. => join_blocks::<64>(list, out),
        16.. => join_blocks::<16>(list, out),
        8.. => join_blocks::<8>(list, out),
        _ => out.extend(list.iter().copied().map(nul_to_space)),
    }
}

/// Copied and changed in one pass, in blocks whose size the compiler knows: it makes vector code of them, and no call of a
/// general copy, which costs a guest more than the copying. The last bytes are done as a whole block, too, which overlaps
/// what was done before; so there must be at least one.
#[inline]
fn join_blocks<const N: usize>(list: &[u8], out: &mut Vec<u8>) {
    let append = |block: &[u8; N], out: &mut Vec<u8>| {
        let mut block = *block;
        block.iter_mut().for_each(|b| *b = nul_to_space(*b));
        out.extend_from_slice(&block);
    };
    let (blocks, rest) = list.as_chunks::<N>();
    blocks.iter().for_each(|block| append(block, out));
    if let Some(last) = list.last_chunk()
        && !rest.is_empty()
    {
        out.truncate(out.len() - (N - rest.len()));
        append(last, out);
    }
}

#[inline]
fn nul_to_space(byte: u8) -> u8 {
    byte | u8::from(byte == 0) << 5
}

/// The bytes before the first NUL.
///
/// ```
/// assert_eq!(gadget_sdk::text::until_nul(b"sh\0junk"), b"sh");
/// ```
pub fn until_nul(bytes: &[u8]) -> &[u8] {
    let (words, rest) = bytes.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The top bit of `(b & 0x7f) + 0x7f | b` is clear only in a zero.
        let zero = !(((word & LOW) + LOW) | word | LOW);
        if zero != 0 {
            return &bytes[..i * 8 + zero.trailing_zeros() as usize / 8];
        }
    }
    let tail = bytes.len() - rest.len();
    &bytes[..rest.iter().position(|b| *b == 0).map_or(bytes.len(), |i| tail + i)]
}

/// The bytes before the first NUL, without white space at either end.
///
/// ```
/// assert_eq!(gadget_sdk::text::trim(b"  eth0 \0\0"), b"eth0");
/// ```
pub fn trim(bytes: &[u8]) -> &[u8] {
    until_nul(bytes).trim_ascii()
}

/// Appends lower-case hexadecimal digits, two a byte.
///
/// ```
/// let mut out = Vec::new();
/// gadget_sdk::text::hex(&[0xde, 0xad, 0x01], &mut out);
/// assert_eq!(out, b"dead01");
/// ```
pub fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() * 2);
    let (quads, rest) = bytes.as_chunks::<4>();
    for quad in quads {
        out.extend_from_slice(&hex_word(u32::from_le_bytes(*quad)));
    }
    for byte in rest {
        out.extend_from_slice(&hex_word((*byte).into())[..2]);
    }
}

/// Eight digits for four bytes, first byte first: nibbles are spread over eight bytes and turned into digits together.
#[inline]
fn hex_word(word: u32) -> [u8; 8] {
    let mut w = u64::from(word);
    w = (w | w << 16) & 0x0000_ffff_0000_ffff;
    w = (w | w << 8) & 0x00ff_00ff_00ff_00ff;
    let nibbles = (w >> 4 & 0x000f_000f_000f_000f) | (w & 0x000f_000f_000f_000f) << 8;
    let letters = (nibbles + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (nibbles + 0x3030_3030_3030_3030 + letters * 0x27).to_le_bytes()
}

/// Appends a decimal number.
///
/// ```
/// let mut out = Vec::new();
/// gadget_sdk::text::decimal(1024, &mut out);
/// assert_eq!(out, b"1024");
/// ```
pub fn decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends an IPv4 address in network byte order: `10.0.0.1`.
///
/// ```
/// let mut out = Vec::new();
/// gadget_sdk::text::ipv4([10, 0, 0, 1], &mut out);
/// assert_eq!(out, b"10.0.0.1");
/// ```
pub fn ipv4(address: [u8; 4], out: &mut Vec<u8>) {
    for (i, part) in address.into_iter().enumerate() {
        if i > 0 {
            out.push(b'.');
        }
        decimal(part.into(), out);
    }
}

/// Appends an IPv6 address in network byte order, in its canonical short form (RFC 5952).
///
/// ```
/// let mut out = Vec::new();
/// gadget_sdk::text::ipv6([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], &mut out);
/// assert_eq!(out, b"fe80::1");
/// ```
pub fn ipv6(address: [u8; 16], out: &mut Vec<u8>) {
    use std::io::Write;
    write!(out, "{}", std::net::Ipv6Addr::from(address)).expect("writing to memory does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(len: usize, nul_every: usize) -> Vec<u8> {
        (0..len).map(|i| if i % nul_every == nul_every - 1 { 0 } else { (i * 37 % 255 + 1) as u8 }).collect()
    }

    #[test]
    fn join_nul_equals_the_obvious_loop_at_every_length() {
        for len in 0..200 {
            for every in [1, 2, 3, 7, 8, 9, 300] {
                let list = pattern(len, every);
                let mut out = b"x".to_vec();
                join_nul(&list, &mut out);
                let mut want: Vec<u8> = list.iter().map(|b| if *b == 0 { b' ' } else { *b }).collect();
                if list.last() == Some(&0) {
                    want.pop();
                }
                assert_eq!(out, [b"x".to_vec(), want].concat(), "length {len}, a NUL every {every}");
            }
        }
    }

    #[test]
    fn until_nul_finds_the_first_at_every_place() {
        for len in 0..40 {
            for nul in 0..=len {
                let mut bytes = vec![0x80u8; len];
                bytes.iter_mut().skip(nul).for_each(|b| *b = 0);
                assert_eq!(until_nul(&bytes).len(), nul, "length {len}");
            }
        }
    }

    #[test]
    fn hex_equals_format_for_every_byte() {
        let bytes: Vec<u8> = (0..=255).chain(0..3).collect();
        let mut out = Vec::new();
        hex(&bytes, &mut out);
        let want: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn decimal_reaches_the_largest_number() {
        let mut out = Vec::new();
        decimal(u64::MAX, &mut out);
        out.push(b' ');
        decimal(0, &mut out);
        assert_eq!(out, b"18446744073709551615 0");
    }
}

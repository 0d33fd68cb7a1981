//! Escaping: strings into JSON, and text into terminal cells. What a gadget shows comes from whoever runs programs on
//! the host, so every byte of it is hostile until it has been through here.
//!
//! Both scan eight bytes at a time for the first byte that needs a look; text that needs none is copied in one go.

use crate::value::number;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Length of the longest prefix of printable ASCII without `"` and `\`: the bytes that stand for themselves everywhere.
#[inline]
pub(crate) fn plain_prefix(bytes: &[u8]) -> usize {
    let mut done = 0;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let hits = special(u64::from_le_bytes(*word));
        if hits != 0 {
            return done + hits.trailing_zeros() as usize / 8;
        }
        done += 8;
    }
    done + rest.iter().take_while(|b| is_plain(**b)).count()
}

fn is_plain(b: u8) -> bool {
    (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\'
}

/// The high bit of each byte that is not plain. Borrows can mark bytes above the first such byte wrongly, never below.
#[inline]
fn special(x: u64) -> u64 {
    let zero = |x: u64| x.wrapping_sub(ONES) & !x;
    let control = x.wrapping_sub(ONES * 0x20) & !x;
    let quote = zero(x ^ (ONES * u64::from(b'"')));
    let backslash = zero(x ^ (ONES * u64::from(b'\\')));
    let delete = zero(x ^ (ONES * 0x7f));
    (x | control | quote | backslash | delete) & HIGH
}

/// Appends the inside of a JSON string. Invalid UTF-8 becomes one `\ufffd` a byte; `<`, `>` and `&` stay as they are.
#[inline]
pub(crate) fn json(bytes: &[u8], out: &mut Vec<u8>) {
    let n = plain_prefix(bytes);
    out.extend_from_slice(&bytes[..n]);
    if n < bytes.len() {
        json_special(&bytes[n..], out);
    }
}

#[cold]
fn json_special(bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.utf8_chunks() {
        let mut rest = chunk.valid().as_bytes();
        while let Some(&b) = rest.first() {
            let n = plain_prefix(rest);
            if n > 0 {
                out.extend_from_slice(&rest[..n]);
                rest = &rest[n..];
                continue;
            }
            let taken = match b {
                b'"' | b'\\' => push(out, &[b'\\', b]),
                b'\n' => push(out, b"\\n"),
                b'\r' => push(out, b"\\r"),
                b'\t' => push(out, b"\\t"),
                0x08 => push(out, b"\\b"),
                0x0c => push(out, b"\\f"),
                0..0x20 => {
                    out.extend_from_slice(b"\\u00");
                    number::hex_bytes(&[b], out);
                    1
                }
                // U+2028 and U+2029 end a line in JavaScript, though not in JSON.
                0xe2 if rest.starts_with(&[0xe2, 0x80, 0xa8]) => push(out, b"\\u2028") + 2,
                0xe2 if rest.starts_with(&[0xe2, 0x80, 0xa9]) => push(out, b"\\u2029") + 2,
                b => push(out, &rest[..char_len(b)]) - 1 + char_len(b),
            };
            rest = &rest[taken..];
        }
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

/// Appends and answers 1: the bytes taken from the input, in the common case.
fn push(out: &mut Vec<u8>, text: &[u8]) -> usize {
    out.extend_from_slice(text);
    1
}

/// Length of a valid UTF-8 sequence by its first byte.
fn char_len(first: u8) -> usize {
    match first {
        0..0x80 => 1,
        0x80..0xe0 => 2,
        0xe0..0xf0 => 3,
        _ => 4,
    }
}

/// Appends text for a terminal cell: control, invisible and direction-changing characters, quotes, backslashes and
/// invalid bytes are written as escapes (`\n`, `\x1b`, `\u202e`), so that a cell can neither move the cursor nor lie.
pub(crate) fn cell(bytes: &[u8], out: &mut Vec<u8>) {
    let n = plain_prefix(bytes);
    out.extend_from_slice(&bytes[..n]);
    for chunk in bytes[n..].utf8_chunks() {
        for c in chunk.valid().chars() {
            cell_char(c, out);
        }
        for b in chunk.invalid() {
            hex_escape(*b, out);
        }
    }
}

fn hex_escape(b: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\x");
    number::hex_bytes(&[b], out);
}

fn cell_char(c: char, out: &mut Vec<u8>) {
    let short: &[u8] = match c {
        '"' => b"\\\"",
        '\\' => b"\\\\",
        '\x07' => b"\\a",
        '\x08' => b"\\b",
        '\x0c' => b"\\f",
        '\n' => b"\\n",
        '\r' => b"\\r",
        '\t' => b"\\t",
        '\x0b' => b"\\v",
        _ => b"",
    };
    if !short.is_empty() {
        out.extend_from_slice(short);
    } else if c < ' ' || c == '\x7f' {
        hex_escape(c as u8, out);
    } else if is_printable(c) {
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    } else {
        let n = u32::from(c);
        let (prefix, bytes): (&[u8], &[u8]) =
            if n <= 0xffff { (b"\\u", &n.to_be_bytes()[2..]) } else { (b"\\U", &n.to_be_bytes()) };
        out.extend_from_slice(prefix);
        number::hex_bytes(bytes, out);
    }
}

/// Letters, marks, numbers, punctuation, symbols and the ASCII space: what the standard library prints in a debug
/// string after another character (in first place it would escape combining marks as well).
fn is_printable(c: char) -> bool {
    let mut text = [0; 5];
    text[0] = b'a';
    let len = 1 + c.encode_utf8(&mut text[1..]).len();
    c == '\'' || std::str::from_utf8(&text[..len]).is_ok_and(|s| s.escape_debug().count() == 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn escaped(f: fn(&[u8], &mut Vec<u8>), bytes: &[u8]) -> String {
        let mut out = Vec::new();
        f(bytes, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_escapes_what_go_escapes() {
        for (bytes, expected) in [
            (&b"plain <a href=\"x\">&"[..], r#"plain <a href=\"x\">&"#),
            (b"\0\x1b[31m\n\r\t\x08\x0c\x7f\\", "\\u0000\\u001b[31m\\n\\r\\t\\b\\f\x7f\\\\"),
            ("é\u{2028}\u{2029}\u{2030}日本😀".as_bytes(), "é\\u2028\\u2029\u{2030}日本😀"),
            (b"a\xff\xe2\x80z", "a\\ufffd\\ufffd\\ufffdz"),
        ] {
            assert_eq!(escaped(json, bytes), expected);
        }
    }

    #[test]
    fn cells_escape_all_that_does_not_print() {
        for (bytes, expected) in [
            (&b"a b'c"[..], "a b'c"),
            (b"\x1b]0;x\x07\n\"\\\x7f\x0b", r#"\x1b]0;x\a\n\"\\\x7f\v"#),
            ("日本 e\u{301} 😀".as_bytes(), "日本 e\u{301} 😀"),
            (
                "\u{202e}\u{2066}\u{200b}\u{feff}\u{a0}\u{9b}\u{e000}".as_bytes(),
                r"\u202e\u2066\u200b\ufeff\u00a0\u009b\ue000",
            ),
            ("\u{e0001}".as_bytes(), r"\U000e0001"),
            (b"\xc3\x28\xff", r"\xc3(\xff"),
        ] {
            assert_eq!(escaped(cell, bytes), expected);
        }
    }

    proptest! {
        #[test]
        fn the_plain_prefix_is_what_a_byte_loop_finds(bytes in prop_oneof![
            any::<Vec<u8>>(),
            proptest::collection::vec(prop_oneof![20 => 0x20u8..0x7f, 1 => any::<u8>()], 0..64),
        ]) {
            let expected = bytes.iter().take_while(|b| is_plain(**b)).count();
            prop_assert_eq!(plain_prefix(&bytes), expected);
        }

        #[test]
        fn json_reads_back(bytes in any::<Vec<u8>>(), text in any::<String>()) {
            let read = |b: &[u8]| serde_json::from_str::<String>(&format!("\"{}\"", escaped(json, b)));
            prop_assert!(read(&bytes).is_ok());
            prop_assert_eq!(read(text.as_bytes()).unwrap(), text);
        }

        #[test]
        fn cells_hold_no_control_characters(bytes in any::<Vec<u8>>(), text in any::<String>()) {
            for shown in [escaped(cell, &bytes), escaped(cell, text.as_bytes())] {
                prop_assert!(shown.chars().all(|c| !c.is_control() && !('\u{202a}'..='\u{202e}').contains(&c)), "{shown:?}");
            }
        }
    }
}

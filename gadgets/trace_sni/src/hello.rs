//! Finding the server name in a TLS ClientHello: bytes of strangers, any of which may be wrong.
//!
//! Pure, bounded and free of panics. The message may be spread over several TLS records, whose headers lie in between; they
//! are taken out first, into a buffer that is used again.

const RECORD_HEADER: usize = 5;
const HANDSHAKE: u8 = 0x16;
const CLIENT_HELLO: u8 = 1;
/// Version, random bytes.
const FIXED: usize = 2 + 32;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// What is wrong with a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It ends before it should: cut, or wrong.
    Short,
    /// It does not begin as one, or its records are of several kinds.
    NoHello,
    /// A part is longer than what it is a part of.
    Length,
}

impl Fault {
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::Short => "ClientHello ends too early",
            Fault::NoHello => "no ClientHello",
            Fault::Length => "part of the ClientHello longer than the whole",
        }
    }
}

/// Reads hellos, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Hellos {
    /// The handshake message, without records.
    message: Vec<u8>,
}

impl Hellos {
    /// Appends the server name to `out`, in which bytes that are no printable ASCII show as `\DDD`. False: it names none.
    pub fn server_name(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<bool, Fault> {
        let whole = self.unpack(bytes)?;
        let found = find(&self.message, whole);
        match found {
            // What is missing lies behind the last record that came.
            Err(Fault::Length) if !whole => Err(Fault::Short),
            Err(e) => Err(e),
            Ok(None) => Ok(false),
            Ok(Some(name)) => {
                name.iter().for_each(|b| escape(*b, out));
                Ok(true)
            }
        }
    }

    /// Takes the message out of its records; false where not all of it is there.
    fn unpack(&mut self, bytes: &[u8]) -> Result<bool, Fault> {
        self.message.clear();
        let mut rest = bytes;
        while let Some((header, data)) = rest.split_at_checked(RECORD_HEADER) {
            if header[0] != HANDSHAKE || header[1] != 3 {
                return Err(Fault::NoHello);
            }
            let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
            let there = len.min(data.len());
            self.message.extend_from_slice(&data[..there]);
            rest = &data[there..];
            if let [kind, a, b, c, ..] = self.message[..] {
                let all = 4 + u32::from_be_bytes([0, a, b, c]) as usize;
                if kind != CLIENT_HELLO {
                    return Err(Fault::NoHello);
                }
                if self.message.len() >= all {
                    self.message.truncate(all);
                    return Ok(true);
                }
            }
        }
        if self.message.len() < 4 { Err(Fault::Short) } else { Ok(false) }
    }
}

/// The first host name of a handshake message whose type and length were looked at; `whole`: it is all there.
fn find(message: &[u8], whole: bool) -> Result<Option<&[u8]>, Fault> {
    let mut r = Reader(message);
    r.take(4 + FIXED)?;
    let session = r.number8()?;
    r.take(session)?;
    let ciphers = r.number16()?;
    r.take(ciphers)?;
    let compressions = r.number8()?;
    r.take(compressions)?;
    if whole && r.0.is_empty() {
        // Before TLS 1.0 there were no extensions, and there need not be any.
        return Ok(None);
    }
    // To the end of the message or of what came, whichever is first: the name mostly stands before the end.
    let all = r.number16()?;
    let mut r = Reader(&r.0[..all.min(r.0.len())]);
    let mut left = all;
    while left > 0 {
        let (kind, len) = (r.number16()?, r.number16()?);
        let data = r.take(len)?;
        left = left.saturating_sub(4 + len);
        if kind as u16 == SERVER_NAME {
            return host_name(data);
        }
    }
    Ok(None)
}

fn host_name(extension: &[u8]) -> Result<Option<&[u8]>, Fault> {
    let mut r = Reader(extension);
    // A server says by an empty one that it took the name; a client's has a list.
    if extension.is_empty() {
        return Ok(None);
    }
    let all = r.number16()?;
    let mut r = Reader(r.take(all)?);
    while !r.0.is_empty() {
        let kind = r.number8()?;
        let len = r.number16()?;
        let name = r.take(len)?;
        if kind == usize::from(HOST_NAME) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(Fault::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number8(&mut self) -> Result<usize, Fault> {
        self.take(1).map(|b| b[0].into())
    }

    fn number16(&mut self) -> Result<usize, Fault> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]).into())
    }
}

fn escape(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'\\' => out.extend(*b"\\\\"),
        b'!'..=b'~' => out.push(byte),
        _ => out.extend([b'\\', b'0' + byte / 100, b'0' + byte / 10 % 10, b'0' + byte % 10]),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn counted16(data: &[u8]) -> Vec<u8> {
        [&(data.len() as u16).to_be_bytes(), data].concat()
    }

    fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &counted16(data)].concat()
    }

    fn server_name(name: &[u8]) -> Vec<u8> {
        extension(0, &counted16(&[&[0][..], &counted16(name)].concat()))
    }

    /// A handshake message with these extensions; `None`: not even their length.
    fn message(extensions: Option<&[u8]>) -> Vec<u8> {
        let mut body = [&[3, 3][..], &[7; 32], &[32], &[9; 32], &counted16(&[0x13, 1, 0x13, 2]), &[1, 0]].concat();
        body.extend(extensions.map(counted16).unwrap_or_default());
        let len = (body.len() as u32).to_be_bytes();
        [&[1], &len[1..], &body].concat()
    }

    fn record(data: &[u8]) -> Vec<u8> {
        [&[0x16, 3, 1][..], &counted16(data)].concat()
    }

    pub(crate) fn hello(name: &str) -> Vec<u8> {
        let extensions =
            [extension(0x0a0a, &[]), extension(51, &[5; 40]), server_name(name.as_bytes()), extension(16, &[1; 9])];
        record(&message(Some(&extensions.concat())))
    }

    fn read(bytes: &[u8]) -> (Result<bool, Fault>, String) {
        let mut out = Vec::new();
        let found = Hellos::default().server_name(bytes, &mut out);
        (found, String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_name_is_found_and_shown_safely() {
        assert_eq!(read(&hello("www.example.com")), (Ok(true), "www.example.com".into()));
        let odd = record(&message(Some(&server_name(b"a\\b \xff\0"))));
        assert_eq!(read(&odd), (Ok(true), "a\\\\b\\032\\255\\000".into()));
        let other_kind = extension(0, &counted16(&[&[1][..], &counted16(b"x"), &[0], &counted16(b"y")].concat()));
        assert_eq!(read(&record(&message(Some(&other_kind)))).1, "y");
    }

    #[test]
    fn a_hello_without_a_name_is_no_fault() {
        for without in [None, Some(&[][..]), Some(&extension(0, &[])[..]), Some(&extension(16, &[1])[..])] {
            assert_eq!(read(&record(&message(without))), (Ok(false), String::new()), "{without:?}");
        }
    }

    #[test]
    fn records_in_the_middle_are_taken_out() {
        let whole = message(Some(&server_name(b"www.example.com")));
        for size in [1, 2, 5, 60] {
            let split: Vec<u8> = whole.chunks(size).flat_map(record).collect();
            assert_eq!(read(&split), (Ok(true), "www.example.com".into()), "records of {size}");
        }
        let mut other = record(&whole[..20]);
        other.extend([0x17, 3, 3, 0, 1, 0]);
        assert_eq!(read(&other).0, Err(Fault::NoHello));
    }

    #[test]
    fn at_every_length_it_is_found_or_short() {
        let whole = hello("www.example.com");
        let name_ends = whole.len() - 4 - 9;
        for len in 0..whole.len() {
            let want = if len >= name_ends { Ok(true) } else { Err(Fault::Short) };
            assert_eq!(read(&whole[..len]).0, want, "{len} of {} bytes", whole.len());
        }
    }

    #[test]
    fn lengths_that_lie_are_told() {
        let whole = hello("www.example.com");
        // Session id, cipher suites, the list of extensions, the list of names.
        for at in [5 + 4 + 34, 5 + 4 + 34 + 1 + 32] {
            let mut bad = whole.clone();
            bad[at] = 0xff;
            assert_eq!(read(&bad).0, Err(Fault::Length), "at {at}");
        }
        let names = extension(0, &[0, 200, 0, 0, 1, b'x']);
        assert_eq!(read(&record(&message(Some(&names)))).0, Err(Fault::Length));
        assert_eq!(read(b"GET / HTTP/1.1\r\n\r\n").0, Err(Fault::NoHello));
        assert_eq!(read(&record(&[2, 0, 0, 1, 0])).0, Err(Fault::NoHello), "a ServerHello");
        assert_eq!(read(&[]).0, Err(Fault::Short));
        let empty: Vec<u8> = (0..1000).flat_map(|_| record(&[])).collect();
        assert_eq!(read(&empty).0, Err(Fault::Short));
    }
}

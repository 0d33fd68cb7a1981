//! D-Bus messages as bytes: the little of the protocol that starting one unit needs. Pure.
//!
//! Little-endian, version 1. Whatever the other side sends is checked before it is believed, and bounded.

use super::SystemdError;

/// Larger messages are refused.
const MAX_MESSAGE: usize = 1 << 20;

/// Kinds of message.
pub(super) const CALL: u8 = 1;
pub(super) const ERROR: u8 = 3;
pub(super) const SIGNAL: u8 = 4;

/// Header fields by number.
mod field {
    pub(super) const PATH: u8 = 1;
    pub(super) const INTERFACE: u8 = 2;
    pub(super) const MEMBER: u8 = 3;
    pub(super) const ERROR_NAME: u8 = 4;
    pub(super) const REPLY_SERIAL: u8 = 5;
    pub(super) const DESTINATION: u8 = 6;
    pub(super) const SIGNATURE: u8 = 8;
    pub(super) const UNIX_FDS: u8 = 9;
}

/// Writes values one after the other, each at its alignment.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn align(&mut self, to: usize) -> &mut Self {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
        self
    }

    pub(super) fn u32(&mut self, n: u32) -> &mut Self {
        self.align(4).bytes.extend(n.to_le_bytes());
        self
    }

    pub(super) fn bool(&mut self, b: bool) -> &mut Self {
        self.u32(u32::from(b))
    }

    pub(super) fn string(&mut self, s: &str) -> &mut Self {
        self.u32(s.len() as u32);
        self.bytes.extend(s.as_bytes());
        self.bytes.push(0);
        self
    }

    fn signature(&mut self, s: &str) -> &mut Self {
        self.bytes.push(s.len() as u8);
        self.bytes.extend(s.as_bytes());
        self.bytes.push(0);
        self
    }

    /// Elements that are aligned to `align`; its length is known when `f` has written them.
    pub(super) fn array(&mut self, align: usize, f: impl FnOnce(&mut Self)) -> &mut Self {
        self.u32(0);
        let at = self.bytes.len() - 4;
        self.align(align);
        let start = self.bytes.len();
        f(self);
        let len = (self.bytes.len() - start) as u32;
        self.bytes[at..at + 4].copy_from_slice(&len.to_le_bytes());
        self
    }

    pub(super) fn strings<'a>(&mut self, all: impl IntoIterator<Item = &'a str>) -> &mut Self {
        self.array(4, |w| {
            for s in all {
                w.string(s);
            }
        })
    }

    /// A member of an `a(sv)`.
    pub(super) fn property(&mut self, name: &str, signature: &str, value: impl FnOnce(&mut Self)) -> &mut Self {
        self.align(8).string(name).signature(signature);
        value(self);
        self
    }
}

/// A method call before it has a number.
#[derive(Clone, Debug, Default)]
pub(super) struct Call {
    /// The name of who is called, on a bus.
    pub(super) destination: Option<&'static str>,
    pub(super) path: String,
    pub(super) interface: &'static str,
    pub(super) member: &'static str,
    pub(super) signature: &'static str,
    pub(super) body: Vec<u8>,
    /// Descriptors that go with it.
    pub(super) fds: u32,
}

impl Call {
    pub(super) fn bytes(&self, serial: u32) -> Vec<u8> {
        let mut fields: Vec<(u8, &str, &str)> = vec![
            (field::PATH, "o", &self.path),
            (field::INTERFACE, "s", self.interface),
            (field::MEMBER, "s", self.member),
        ];
        fields.extend(self.destination.map(|d| (field::DESTINATION, "s", d)));
        message(CALL, serial, &fields, &[(field::UNIX_FDS, self.fds)], self.signature, &self.body)
    }
}

fn message(
    kind: u8,
    serial: u32,
    texts: &[(u8, &str, &str)],
    numbers: &[(u8, u32)],
    signature: &str,
    body: &[u8],
) -> Vec<u8> {
    let mut w = Writer { bytes: vec![b'l', kind, 0, 1] };
    w.u32(body.len() as u32).u32(serial);
    w.array(8, |w| {
        for (code, kind, text) in texts {
            w.align(8).bytes.push(*code);
            w.signature(kind).string(text);
        }
        for (code, n) in numbers.iter().filter(|(_, n)| *n > 0) {
            w.align(8).bytes.push(*code);
            w.signature("u").u32(*n);
        }
        if !signature.is_empty() {
            w.align(8).bytes.push(field::SIGNATURE);
            w.signature("g").signature(signature);
        }
    });
    w.align(8).bytes.extend(body);
    w.bytes
}

/// Reads values one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    fn take(&mut self, align: usize, n: usize) -> Option<&'a [u8]> {
        let start = self.at.next_multiple_of(align);
        let taken = self.bytes.get(start..start.checked_add(n)?)?;
        self.at = start + n;
        Some(taken)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4, 4)?.try_into().ok()?))
    }

    pub(super) fn string(&mut self) -> Option<&'a str> {
        let len = self.u32()? as usize;
        let text = self.take(1, len.checked_add(1)?)?;
        std::str::from_utf8(&text[..len]).ok()
    }

    fn signature(&mut self) -> Option<&'a str> {
        let len = usize::from(*self.take(1, 1)?.first()?);
        std::str::from_utf8(&self.take(1, len + 1)?[..len]).ok()
    }

    /// A variant with a 32-bit number in it.
    pub(super) fn variant_number(&mut self) -> Option<i32> {
        matches!(self.signature()?, "i" | "u").then(|| self.u32())?.map(|n| n as i32)
    }
}

/// A message of the other side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: u8,
    pub(super) serial: u32,
    pub(super) reply_to: u32,
    pub(super) path: String,
    pub(super) interface: String,
    pub(super) member: String,
    pub(super) error: String,
    pub(super) body: Vec<u8>,
}

impl Message {
    /// Takes the first whole message off `buf`; `None`: more bytes are needed.
    pub(super) fn take(buf: &mut Vec<u8>) -> Result<Option<Message>, SystemdError> {
        let Some(head) = buf.get(..16) else { return Ok(None) };
        if head[0] != b'l' || head[3] != 1 {
            return Err(SystemdError::Garbage);
        }
        let number = |at: usize| head[at..at + 4].try_into().map_or(0, u32::from_le_bytes) as usize;
        let (body, fields) = (number(4), number(12));
        let start = (16 + fields.min(MAX_MESSAGE)).next_multiple_of(8);
        let total = start + body.min(MAX_MESSAGE);
        if fields > MAX_MESSAGE || body > MAX_MESSAGE {
            return Err(SystemdError::Garbage);
        }
        if buf.len() < total {
            return Ok(None);
        }
        let message = Message::parse(&buf[..16 + fields], &buf[start..total]).ok_or(SystemdError::Garbage)?;
        buf.drain(..total);
        Ok(Some(message))
    }

    fn parse(header: &[u8], body: &[u8]) -> Option<Message> {
        let mut m = Message { kind: header[1], body: body.to_vec(), ..Message::default() };
        m.serial = Reader { bytes: header, at: 8 }.u32()?;
        let mut r = Reader { bytes: header, at: 16 };
        while r.at < header.len() {
            let code = *r.take(8, 1)?.first()?;
            match (code, r.signature()?) {
                (field::REPLY_SERIAL, "u") => m.reply_to = r.u32()?,
                (_, "u") => drop(r.u32()?),
                (_, "g") => drop(r.signature()?),
                (code, "s" | "o") => {
                    let text = r.string()?.to_owned();
                    match code {
                        field::PATH => m.path = text,
                        field::INTERFACE => m.interface = text,
                        field::MEMBER => m.member = text,
                        field::ERROR_NAME => m.error = text,
                        _ => {}
                    }
                }
                _ => return None,
            }
        }
        Some(m)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::systemd) const REPLY: u8 = 2;

    /// What systemd would send.
    pub(in crate::systemd) fn answer(kind: u8, reply_to: u32, member: &str, signature: &str, body: &[u8]) -> Vec<u8> {
        let mut texts = vec![];
        if kind == SIGNAL {
            texts.push((field::PATH, "o", "/org/freedesktop/systemd1"));
            texts.push((field::INTERFACE, "s", "org.freedesktop.systemd1.Manager"));
            texts.push((field::MEMBER, "s", member));
        }
        if kind == ERROR {
            texts.push((field::ERROR_NAME, "s", member));
        }
        message(kind, 7, &texts, &[(field::REPLY_SERIAL, reply_to)], signature, body)
    }

    #[test]
    fn a_call_has_the_bytes_of_the_specification() {
        let call = Call { path: "/a".into(), interface: "b.c", member: "D", ..Call::default() };
        let expected: &[u8] = &[
            b'l', 1, 0, 1, 0, 0, 0, 0, 5, 0, 0, 0, 42, 0, 0, 0, // fixed part, 42 bytes of fields
            1, 1, b'o', 0, 2, 0, 0, 0, b'/', b'a', 0, 0, 0, 0, 0, 0, // path
            2, 1, b's', 0, 3, 0, 0, 0, b'b', b'.', b'c', 0, 0, 0, 0, 0, // interface
            3, 1, b's', 0, 1, 0, 0, 0, b'D', 0, 0, 0, 0, 0, 0, 0, // member, padding
        ];
        assert_eq!(call.bytes(5), expected);
    }

    #[test]
    fn what_is_written_is_read_also_in_pieces() {
        let mut body = Writer::default();
        body.string("x").u32(9).strings(["a", "bc"]);
        let call = Call {
            destination: Some("org.x"),
            path: "/p".into(),
            interface: "i.i",
            member: "M",
            signature: "suas",
            body: body.bytes,
            fds: 3,
        };
        let bytes = [call.bytes(1), call.bytes(2)].concat();
        let mut buf = Vec::new();
        let mut serials = Vec::new();
        for byte in bytes {
            buf.push(byte);
            while let Some(m) = Message::take(&mut buf).unwrap() {
                assert_eq!((m.path.as_str(), m.interface.as_str(), m.member.as_str()), ("/p", "i.i", "M"));
                let mut r = Reader::new(&m.body);
                assert_eq!((r.string(), r.u32()), (Some("x"), Some(9)));
                serials.push(m.serial);
            }
        }
        assert_eq!(serials, [1, 2]);
    }

    #[test]
    fn garbage_is_refused_and_never_waited_for() {
        let mut huge = b"l\x02\x00\x01\xff\xff\xff\x7f\x01\0\0\0\x08\0\0\0".to_vec();
        assert!(Message::take(&mut huge).is_err(), "a body of 2 GiB");
        assert!(Message::take(&mut vec![b'B'; 16]).is_err(), "another byte order");
        let mut bytes = answer(REPLY, 1, "", "s", b"\x05\0\0\0ab");
        let m = Message::take(&mut bytes).unwrap().unwrap();
        assert_eq!(Reader::new(&m.body).string(), None, "a string that is longer than its message");
        let mut odd = answer(REPLY, 1, "", "", b"");
        odd[18] = b'x';
        assert!(Message::take(&mut odd).is_err(), "a field of a type that no field has");
    }
}

//! Reading a DNS message: bytes of strangers, any of which may be wrong.
//!
//! Pure, bounded and free of panics: pointers in names lead only backwards, names end at 255 bytes, records at the end of
//! the message. What was understood before a fault is kept. Allocates nothing beyond the buffers that are handed in.

use gadget_sdk::text;

/// Bytes of a message's header.
pub const HEADER: usize = 12;
/// Bytes of a name on the wire, at most.
const NAME_MAX: usize = 255;
/// Addresses that are listed; a message of 64 KiB has room for some four thousand.
const ADDRESSES_MAX: usize = 64;

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const TYPE_OPT: u16 = 41;

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It ends before it should: cut, or wrong.
    Short,
    /// A name's pointer does not lead backwards.
    Pointer,
    /// A label of a kind that does not exist.
    Label,
    /// A name of more than 255 bytes.
    LongName,
}

impl Fault {
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::Short => "message ends too early",
            Fault::Pointer => "name with a pointer that does not lead back",
            Fault::Label => "name with a label of unknown kind",
            Fault::LongName => "name longer than 255 bytes",
        }
    }
}

/// What a message says, as far as it could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub id: u16,
    pub response: bool,
    /// Twelve bits, of which the OPT record has the upper eight. Where the message ends before it, the lower four.
    pub rcode: u16,
    /// Of the first question; of a message without one, of its first answer.
    pub qtype: u16,
    /// In presentation form with its final dot: bytes that are no printable ASCII as `\DDD`.
    pub name: Vec<u8>,
    /// Answers, by the message's own account.
    pub answers: u16,
    /// IPv4 and IPv6 addresses among the answers, joined by commas.
    pub addresses: Vec<u8>,
    pub fault: Option<Fault>,
}

impl Message {
    /// Reads `bytes` into this message, whose buffers are used again.
    pub fn read(&mut self, bytes: &[u8]) {
        let (mut name, mut addresses) = (std::mem::take(&mut self.name), std::mem::take(&mut self.addresses));
        name.clear();
        addresses.clear();
        *self = Message { name, addresses, ..Message::default() };
        self.fault = self.fill(bytes).err();
    }

    fn fill(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let mut r = Reader { bytes, at: 0 };
        self.id = r.number()?;
        let flags = r.number()?;
        self.response = flags & 0x8000 != 0;
        self.rcode = flags & 0xf;
        let questions = r.number()?;
        self.answers = r.number()?;
        let (authorities, additional) = (r.number()?, r.number()?);
        for n in 0..questions {
            match n {
                0 => r.name(&mut self.name)?,
                _ => r.skip_name()?,
            }
            let qtype = r.number()?;
            r.skip(2)?;
            if n == 0 {
                self.qtype = qtype;
            }
        }
        let mut listed = 0;
        for n in 0..self.answers {
            match questions == 0 && n == 0 {
                true => r.name(&mut self.name)?,
                false => r.skip_name()?,
            }
            let kind = r.number()?;
            if questions == 0 && n == 0 {
                self.qtype = kind;
            }
            r.skip(6)?;
            let len = r.number()?;
            let data = r.take(len.into())?;
            if listed < ADDRESSES_MAX && self.address(kind, data) {
                listed += 1;
            }
        }
        // Nothing else is shown of these two sections, nor whether they are whole.
        if let Ok(Some(upper)) = r.extended_rcode(authorities, additional) {
            self.rcode |= u16::from(upper) << 4;
        }
        Ok(())
    }

    fn address(&mut self, kind: u16, data: &[u8]) -> bool {
        let start = self.addresses.len();
        if start > 0 {
            self.addresses.push(b',');
        }
        match (kind, data.len()) {
            (TYPE_A, 4) => text::ipv4([data[0], data[1], data[2], data[3]], &mut self.addresses),
            (TYPE_AAAA, 16) => {
                let mut address = [0; 16];
                address.copy_from_slice(data);
                text::ipv6(address, &mut self.addresses);
            }
            _ => {
                self.addresses.truncate(start);
                return false;
            }
        }
        true
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Fault> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..n).ok_or(Fault::Short)?;
        self.at += n;
        Ok(taken)
    }

    fn skip(&mut self, n: usize) -> Result<(), Fault> {
        self.take(n).map(drop)
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        self.take(1).map(|b| b[0])
    }

    fn number(&mut self) -> Result<u16, Fault> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    /// What the OPT record (RFC 6891) says of the response code, read from behind the answers on.
    fn extended_rcode(&mut self, authorities: u16, additional: u16) -> Result<Option<u8>, Fault> {
        for n in 0..u32::from(authorities) + u32::from(additional) {
            let root = self.bytes.get(self.at) == Some(&0);
            self.skip_name()?;
            let kind = self.number()?;
            self.skip(2)?;
            let upper = self.byte()?;
            self.skip(3)?;
            let len = self.number()?;
            self.skip(len.into())?;
            if n >= authorities.into() && root && kind == TYPE_OPT {
                return Ok(Some(upper));
            }
        }
        Ok(None)
    }

    /// Goes past a name without following its pointers.
    fn skip_name(&mut self) -> Result<(), Fault> {
        loop {
            let len = self.byte()?;
            match len >> 6 {
                0 if len == 0 => return Ok(()),
                0 => self.skip(len.into())?,
                3 => return self.skip(1),
                _ => return Err(Fault::Label),
            }
        }
    }

    /// Reads a name in presentation form.
    fn name(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        let mut wire = 1;
        // Where reading goes on after the name: behind its first pointer.
        let mut after = None;
        // Each pointer leads before the part that it stands in, so that there is an end.
        let mut part = self.at;
        loop {
            let len = self.byte()?;
            match len >> 6 {
                0 if len == 0 => break,
                0 => {
                    wire += usize::from(len) + 1;
                    if wire > NAME_MAX {
                        return Err(Fault::LongName);
                    }
                    self.take(len.into())?.iter().for_each(|b| escape(*b, out));
                    out.push(b'.');
                }
                3 => {
                    let to = usize::from(len & 0x3f) << 8 | usize::from(self.byte()?);
                    if to >= part {
                        return Err(Fault::Pointer);
                    }
                    after.get_or_insert(self.at);
                    (self.at, part) = (to, to);
                }
                _ => return Err(Fault::Label),
            }
        }
        if out.is_empty() {
            out.push(b'.');
        }
        self.at = after.unwrap_or(self.at);
        Ok(())
    }
}

fn escape(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'.' | b'\\' => out.extend([b'\\', byte]),
        b'!'..=b'~' => out.push(byte),
        _ => out.extend([b'\\', b'0' + byte / 100, b'0' + byte / 10 % 10, b'0' + byte % 10]),
    }
}

/// The name of a record type; one without a name is a number (RFC 3597).
pub fn type_name(qtype: u16, out: &mut Vec<u8>) {
    let name = match qtype {
        TYPE_A => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        12 => "PTR",
        13 => "HINFO",
        15 => "MX",
        16 => "TXT",
        17 => "RP",
        18 => "AFSDB",
        24 => "SIG",
        25 => "KEY",
        TYPE_AAAA => "AAAA",
        29 => "LOC",
        33 => "SRV",
        35 => "NAPTR",
        36 => "KX",
        37 => "CERT",
        39 => "DNAME",
        TYPE_OPT => "OPT",
        42 => "APL",
        43 => "DS",
        44 => "SSHFP",
        45 => "IPSECKEY",
        46 => "RRSIG",
        47 => "NSEC",
        48 => "DNSKEY",
        49 => "DHCID",
        50 => "NSEC3",
        51 => "NSEC3PARAM",
        52 => "TLSA",
        53 => "SMIMEA",
        55 => "HIP",
        59 => "CDS",
        60 => "CDNSKEY",
        61 => "OPENPGPKEY",
        62 => "CSYNC",
        63 => "ZONEMD",
        64 => "SVCB",
        65 => "HTTPS",
        249 => "TKEY",
        250 => "TSIG",
        251 => "IXFR",
        252 => "AXFR",
        255 => "ANY",
        256 => "URI",
        257 => "CAA",
        _ => {
            out.extend_from_slice(b"TYPE");
            return text::decimal(qtype.into(), out);
        }
    };
    out.extend_from_slice(name.as_bytes());
}

/// The name of a response code; one without a name is a number.
pub fn rcode_name(rcode: u16, out: &mut Vec<u8>) {
    match RCODES.get(usize::from(rcode)) {
        Some(name) => out.extend_from_slice(name.as_bytes()),
        None => {
            out.extend_from_slice(b"RCode");
            text::decimal(rcode.into(), out);
        }
    }
}

const RCODES: [&str; 24] = [
    "Success",
    "FormatError",
    "ServerFailure",
    "NameError",
    "NotImplemented",
    "Refused",
    "YXDomain",
    "YXRRSet",
    "NXRRSet",
    "NotAuth",
    "NotZone",
    "DSOTypeNotImplemented",
    "RCode12",
    "RCode13",
    "RCode14",
    "RCode15",
    "BadVersion",
    "BadKey",
    "BadTime",
    "BadMode",
    "BadName",
    "BadAlgorithm",
    "BadTruncation",
    "BadCookie",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with these flags and counts of questions and answers.
    fn header(flags: u16, questions: u16, answers: u16) -> Vec<u8> {
        [0xbeef, flags, questions, answers, 0, 0].into_iter().flat_map(u16::to_be_bytes).collect()
    }

    fn wire(name: &str) -> Vec<u8> {
        let labels = name.split('.').filter(|l| !l.is_empty());
        let mut out: Vec<u8> = labels.flat_map(|l| [&[l.len() as u8], l.as_bytes()].concat()).collect();
        out.push(0);
        out
    }

    fn question(name: &str, qtype: u16) -> Vec<u8> {
        [wire(name), qtype.to_be_bytes().to_vec(), vec![0, 1]].concat()
    }

    fn answer(name: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
        let len = (data.len() as u16).to_be_bytes();
        [name, &kind.to_be_bytes(), &[0, 1, 0, 0, 0, 60], &len, data].concat()
    }

    fn read(bytes: &[u8]) -> Message {
        let mut m = Message { name: b"left over".to_vec(), addresses: b"1.1.1.1".to_vec(), ..Message::default() };
        m.read(bytes);
        m
    }

    fn name_of(wire: &[u8]) -> (String, Option<Fault>) {
        let m = read(&[&header(0, 1, 0)[..], wire, &[0, 1, 0, 1]].concat());
        (String::from_utf8(m.name).unwrap(), m.fault)
    }

    #[test]
    fn a_query_and_its_response() {
        let q = read(&[header(0x0100, 1, 0), question("www.example.com", 28)].concat());
        assert_eq!((q.id, q.response, q.qtype, q.answers), (0xbeef, false, 28, 0));
        assert_eq!((&q.name[..], q.fault), (&b"www.example.com."[..], None));
        let r = [
            header(0x8183, 1, 4),
            question("www.example.com", 1),
            answer(&[0xc0, 12], 5, &wire("other")),
            answer(&[0xc0, 12], 1, &[10, 0, 0, 7]),
            answer(&[0xc0, 16], 28, &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]),
            answer(&[0xc0, 12], 1, &[10, 0, 7]),
        ];
        let r = read(&r.concat());
        assert_eq!((r.response, r.rcode, r.answers, r.fault), (true, 3, 4, None));
        assert_eq!(r.addresses, b"10.0.0.7,fd00::9", "an address of three bytes is none");
    }

    #[test]
    fn names_are_shown_safely() {
        assert_eq!(name_of(&[0]), (".".into(), None));
        assert_eq!(name_of(b"\x04a.\\\x07\x02\xff \0"), ("a\\.\\\\\\007.\\255\\032.".into(), None));
        assert_eq!(name_of(&wire("*._tcp.ex-ample")), ("*._tcp.ex-ample.".into(), None));
    }

    #[test]
    fn pointers_only_lead_back() {
        let at = HEADER as u8;
        for (bad, what) in [
            (vec![0xc0, at], "to itself"),
            (vec![0xc0, at + 2, 0], "forwards"),
            (vec![1, b'a', 0xc0, at], "to the name it stands in"),
            (vec![0xff, 0xff], "beyond the end"),
        ] {
            assert_eq!(name_of(&bad).1, Some(Fault::Pointer), "{what}");
        }
        let twice = [header(0, 2, 0), question("a.b", 1), vec![1, b'c', 0xc0, at + 2, 0, 1, 0, 1]].concat();
        assert_eq!(read(&twice).fault, None);
        // An answer's owner, two pointers deep, where there is no question.
        let mut deep = header(0x8000, 0, 2);
        deep.extend(answer(&wire("x.y"), 1, &[1, 2, 3, 4]));
        assert_eq!(read(&deep).name, b"x.y.");
        assert_eq!(read(&deep).fault, Some(Fault::Short), "the second answer is not there");
    }

    #[test]
    fn names_end_at_255_bytes() {
        let label = [&[63][..], &[b'a'; 63]].concat();
        let fits = [&label[..], &label, &label, &[61], &[b'b'; 61], &[0]].concat();
        assert_eq!(fits.len(), NAME_MAX);
        assert_eq!(name_of(&fits).1, None);
        let long = [&label[..], &label, &label, &[62], &[b'b'; 62], &[0]].concat();
        assert_eq!(name_of(&long).1, Some(Fault::LongName));
        assert_eq!(name_of(&[0x40, 0]).1, Some(Fault::Label));
        assert_eq!(name_of(&[0x80, 0]).1, Some(Fault::Label));
    }

    #[test]
    fn what_was_read_before_the_end_is_kept_at_every_length() {
        let whole =
            [header(0x8180, 1, 1), question("www.example.com", 1), answer(&[0xc0, 12], 1, &[9, 9, 9, 9])].concat();
        for len in 0..whole.len() {
            let m = read(&whole[..len]);
            assert_eq!(m.fault, Some(Fault::Short), "{len} bytes");
            assert_eq!(m.name.ends_with(b"com."), len >= HEADER + 16, "{len} bytes");
        }
        assert_eq!((read(&whole).addresses, read(&whole).fault), (b"9.9.9.9".to_vec(), None));
    }

    #[test]
    fn counts_that_lie_cost_nothing() {
        let m = read(&header(0x8000, u16::MAX, u16::MAX));
        assert_eq!((m.fault, m.answers), (Some(Fault::Short), u16::MAX));
        let many = [header(0x8000, 1, 500), question("a", 1), answer(&[0xc0, 12], 1, &[1, 1, 1, 1]).repeat(500)];
        let m = read(&many.concat());
        assert_eq!((m.fault, m.addresses.split(|b| *b == b',').count()), (None, ADDRESSES_MAX));
    }

    #[test]
    fn types_and_codes_have_names() {
        let name = |t| {
            let mut out = Vec::new();
            type_name(t, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!([1, 28, 65, 255, 4711].map(name), ["A", "AAAA", "HTTPS", "ANY", "TYPE4711"]);
        let rcode = |c| {
            let mut out = Vec::new();
            rcode_name(c, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            [0, 3, 15, 16, 23, 24, 4095].map(rcode),
            ["Success", "NameError", "RCode15", "BadVersion", "BadCookie", "RCode24", "RCode4095"]
        );
    }

    #[test]
    fn the_upper_half_of_a_code_is_in_the_opt_record() {
        let opt = |upper: u8| [&[0, 0, 41, 4, 0xd0, upper, 0, 0, 0, 0, 4][..], &[0, 3, 0, 0]].concat();
        let with = |counts: [u16; 2], rest: &[u8]| {
            let mut h = header(0x8180 | 7, 1, 1);
            h[8..12].copy_from_slice(&counts.map(u16::to_be_bytes).concat());
            read(&[&h[..], &question("a", 1), &answer(&[0xc0, 12], 1, &[1, 2, 3, 4]), rest].concat())
        };
        let soa = answer(&wire("a"), 6, &[9; 22]);
        assert_eq!(with([1, 1], &[&soa[..], &opt(1)].concat()).rcode, 0x17);
        assert_eq!(with([0, 2], &[&soa[..], &opt(0xff)].concat()).rcode, 0xff7);
        for (counts, rest, what) in [
            ([0, 1], opt(0), "it says nothing"),
            ([1, 0], opt(1), "in another section it is none"),
            ([0, 1], soa.clone(), "it is not there"),
            ([0, 0], opt(1), "behind the end of the message"),
            ([0, 1], [&wire("a")[..], &opt(1)[1..]].concat(), "its name is the root"),
        ] {
            assert_eq!((with(counts, &rest).rcode, with(counts, &rest).fault), (7, None), "{what}");
        }
        for cut in 0..opt(1).len() {
            let m = with([0, 1], &opt(1)[..cut]);
            assert_eq!((m.rcode, m.fault, &m.addresses[..]), (7, None, &b"1.2.3.4"[..]), "{cut} bytes of it");
        }
        assert_eq!(with([u16::MAX, u16::MAX], &[]).rcode, 7);
    }
}

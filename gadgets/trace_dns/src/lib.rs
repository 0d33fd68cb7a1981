//! The reading half of trace_dns: what a DNS message says.
//!
//! The kernel sends messages as they were on the wire, up to 4 KiB of each. Whatever they hold, each gives a row: of one
//! that cannot be read, as far as it could be, with the reason in `malformed`.

pub mod message;

use gadget_sdk::{
    Answer, BytesField, CodesColumn, Decoder, Error, FieldDef, NumberColumn, NumberField, Rows, Setup, TextColumn, text,
};
use message::{Fault, HEADER, Message};

/// Before the message, if they were asked for: which of the paths were cut, and the paths (gadget/socket_paths.h).
const CUT: usize = 8;
const PATH: usize = 512;
const CUTS: [&str; 4] = ["", "cwd", "exepath", "cwd|exepath"];

/// Reads `data`: `paths_len` bytes, and then the message of `data_len` bytes.
pub struct Dns {
    data: BytesField,
    data_len: NumberField<u32>,
    paths_len: NumberField<u32>,
    /// Bytes of the message, also of those that were not copied.
    len: NumberField<u32>,
    message: Message,
    id: TextColumn,
    qr: CodesColumn,
    qtype: TextColumn,
    qtype_raw: NumberColumn<u16>,
    name: TextColumn,
    rcode: TextColumn,
    rcode_raw: NumberColumn<u16>,
    num_answers: NumberColumn<u32>,
    addresses: TextColumn,
    malformed: TextColumn,
    cwd: TextColumn,
    exepath: TextColumn,
    cut_paths: CodesColumn,
}

fn hidden(name: &str, description: &str) -> FieldDef {
    shown(name, description, 8).annotate("columns.hidden", "true")
}

fn shown(name: &str, description: &str, width: u32) -> FieldDef {
    FieldDef::new(name).annotate("description", description).annotate("columns.width", width.to_string())
}

impl Decoder for Dns {
    fn open(setup: &mut Setup) -> Result<Self, Error> {
        let dns = setup.source("dns")?;
        dns.hide("data")?;
        Ok(Dns {
            data: dns.bytes("data")?,
            data_len: dns.number("data_len")?,
            paths_len: dns.number("paths_len")?,
            len: dns.number("len")?,
            message: Message::default(),
            id: dns.add_text(hidden("id", "Number by which a response belongs to its query, in hexadecimal"))?,
            qr: dns.add_codes(shown("qr", "Q: query, R: response", 2), &["Q", "R"])?,
            qtype: dns.add_text(shown("qtype", "Type of record that is asked for", 6))?,
            qtype_raw: dns.add_number(hidden("qtype_raw", "Its number"))?,
            name: dns.add_text(shown("name", "Name that is asked for; odd bytes as \\DDD", 32))?,
            rcode: dns.add_text(shown("rcode", "How the server answered; of a query empty", 14))?,
            rcode_raw: dns.add_number(hidden("rcode_raw", "Its number; of a query 0"))?,
            num_answers: dns.add_number(hidden("num_answers", "Number of answers, as the message says"))?,
            addresses: dns.add_text(shown("addresses", "Addresses among the answers, up to 64", 32))?,
            cwd: dns.add_text(
                hidden("cwd", "Working directory of the process; only with --paths").annotate("columns.width", "20"),
            )?,
            exepath: dns.add_text(
                hidden("exepath", "Path of its executable; only with --paths").annotate("columns.width", "20"),
            )?,
            cut_paths: dns.add_codes(hidden("cut_paths", "Which of cwd and exepath did not fit"), &CUTS)?,
            // Shown: a row without a name would say nothing else of why it has none. Mostly empty, and so the last.
            malformed: dns.add_text(shown("malformed", "What is wrong with the message; mostly empty", 24))?,
        })
    }

    fn decode(&mut self, rows: &Rows, out: &mut Answer) -> Result<(), Error> {
        for row in rows {
            let data = row.bytes(self.data);
            let paths_len = row.number(self.paths_len) as usize;
            let (paths, data) = data.split_at(data.len().min(paths_len));
            let m = &mut self.message;
            let used = row.number(self.data_len);
            m.read(&data[..data.len().min(used as usize)]);
            let has_header = used as usize >= HEADER;
            // One that was cut on its way here is not wrong for it.
            let fault = m.fault.filter(|f| *f != Fault::Short || used == row.number(self.len));
            out.text(self.id).push_with(|o| text::hex(&m.id.to_be_bytes(), o));
            out.codes(self.qr).push(m.response.into());
            out.text(self.qtype).push_with(|o| {
                if m.qtype != 0 {
                    message::type_name(m.qtype, o)
                }
            });
            out.numbers(self.qtype_raw).push(m.qtype);
            out.text(self.name).push(&m.name);
            let rcode = if m.response { m.rcode } else { 0 };
            out.text(self.rcode).push_with(|o| {
                if m.response && has_header {
                    message::rcode_name(rcode, o)
                }
            });
            out.numbers(self.rcode_raw).push(rcode);
            out.numbers(self.num_answers).push(m.answers.into());
            out.text(self.addresses).push(&m.addresses);
            out.text(self.malformed).push(fault.map_or("", Fault::as_str).as_bytes());
            let path = |at: usize| text::trim(paths.get(at..at + PATH).unwrap_or_default());
            out.text(self.cwd).push(path(CUT));
            out.text(self.exepath).push(path(CUT + PATH));
            out.codes(self.cut_paths).push(paths.first().map_or(0, |cut| u16::from(cut & 3)));
        }
        Ok(())
    }
}

gadget_sdk::export!(Dns);

#[cfg(test)]
mod tests {
    use super::*;
    use gadget_sdk::{
        Kind,
        testing::{Decoded, Fixture},
    };

    fn decode(messages: &[(&[u8], u32)]) -> Decoded {
        decode_with(b"", messages)
    }

    fn decode_with(paths: &[u8], messages: &[(&[u8], u32)]) -> Decoded {
        let number = |f: Fixture, name| f.field(name, Kind::Uint32, 4);
        let dns = ["data_len", "len", "paths_len"].into_iter().fold(Fixture::new("dns"), number);
        let record = |(data, len): &(&[u8], u32)| {
            let numbers = [data.len() as u32, *len, paths.len() as u32].map(u32::to_le_bytes);
            [&numbers.concat(), paths, data, b"left over"].concat()
        };
        let records: Vec<Vec<u8>> = messages.iter().map(record).collect();
        let mut dns = dns.field("data", Kind::Bytes, 5128);
        dns.decode::<Dns>(&records.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
    }

    const RESPONSE: &[u8] = b"\x12\x34\x81\x83\0\x01\0\0\0\0\0\0\x02no\0\0\x1c\0\x01";

    #[test]
    fn every_message_gives_a_row() {
        let whole = RESPONSE.len() as u32;
        let d = decode(&[(RESPONSE, whole), (&RESPONSE[..14], whole), (&RESPONSE[..14], 14), (b"", 0), (b"\x12", 1)]);
        let text = |field, row| String::from_utf8(d.text(field, row).unwrap().to_vec()).unwrap();
        let all = ["id", "qr", "qtype", "name", "rcode", "addresses", "malformed"];
        assert_eq!(all.map(|f| text(f, 0)), ["1234", "R", "AAAA", "no.", "NameError", "", ""]);
        assert_eq!((d.number("rcode_raw", 0), d.number("qtype_raw", 0)), (Some(3.0), Some(28.0)));
        assert_eq!(all.map(|f| text(f, 1)), ["1234", "R", "", "", "NameError", "", ""], "cut on its way here");
        assert_eq!(text("malformed", 2), "message ends too early");
        assert_eq!(all.map(|f| text(f, 3)), ["0000", "Q", "", "", "", "", "message ends too early"]);
        assert_eq!(text("malformed", 4), "message ends too early");
        assert_eq!(d.hidden(), ["data"]);
    }

    #[test]
    fn paths_stand_before_the_message() {
        let mut paths = vec![0; CUT + 2 * PATH];
        paths[0] = 2;
        paths[CUT..CUT + 4].copy_from_slice(b"/srv");
        paths[CUT + PATH..].fill(b'x');
        let d = decode_with(&paths, &[(RESPONSE, RESPONSE.len() as u32)]);
        let text = |field| d.text(field, 0).unwrap().to_vec();
        assert_eq!((text("name"), text("cwd"), text("exepath")), (b"no.".to_vec(), b"/srv".to_vec(), vec![b'x'; PATH]));
        assert_eq!((text("cut_paths"), text("malformed")), (b"exepath".to_vec(), b"".to_vec()));
        let none = decode(&[(RESPONSE, RESPONSE.len() as u32)]);
        assert!(["cwd", "exepath", "cut_paths"].iter().all(|f| none.text(f, 0) == Some(&b""[..])));
        // less than it says
        let short = decode_with(b"abc", &[(b"", 0)]);
        assert_eq!(short.text("cwd", 0), Some(&b""[..]));
    }

    #[test]
    fn a_query_has_no_answer() {
        let mut query = RESPONSE.to_vec();
        query[2] = 1;
        let d = decode(&[(&query, query.len() as u32)]);
        assert_eq!((d.text("qr", 0), d.text("rcode", 0)), (Some(&b"Q"[..]), Some(&b""[..])));
        assert_eq!(d.number("rcode_raw", 0), Some(0.0));
    }
}

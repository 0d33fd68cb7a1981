//! The reading half of trace_sni: the server name in a ClientHello.
//!
//! The kernel sends hellos put together from their TCP segments. One that names no server gives no row; one that cannot be
//! read gives one, with the reason in `malformed`.

pub mod hello;

use gadget_sdk::{Answer, BytesField, Decoder, Error, FieldDef, NumberField, Rows, Setup, TextColumn};
use hello::{Fault, Hellos};

/// Reads `data`, of which `data_len` bytes are used.
pub struct Sni {
    data: BytesField,
    data_len: NumberField<u32>,
    hellos: Hellos,
    found: Vec<u8>,
    name: TextColumn,
    malformed: TextColumn,
}

impl Decoder for Sni {
    fn open(setup: &mut Setup) -> Result<Self, Error> {
        let sni = setup.source("sni")?;
        sni.hide("data")?;
        let name = FieldDef::new("name")
            .annotate("description", "Server that the client wants; odd bytes as \\DDD")
            .annotate("columns.width", "40");
        let malformed = FieldDef::new("malformed")
            .annotate("description", "Why no name could be found; mostly empty")
            .annotate("columns.width", "24");
        Ok(Sni {
            data: sni.bytes("data")?,
            data_len: sni.number("data_len")?,
            hellos: Hellos::default(),
            found: Vec::new(),
            name: sni.add_text(name)?,
            malformed: sni.add_text(malformed)?,
        })
    }

    fn decode(&mut self, rows: &Rows, out: &mut Answer) -> Result<(), Error> {
        for row in rows {
            let data = row.bytes(self.data);
            let used = &data[..data.len().min(row.number(self.data_len) as usize)];
            self.found.clear();
            let fault = match self.hellos.server_name(used, &mut self.found) {
                Ok(true) => "",
                Ok(false) => {
                    out.drop_row(row);
                    continue;
                }
                Err(fault) => Fault::as_str(fault),
            };
            out.text(self.name).push(&self.found);
            out.text(self.malformed).push(fault.as_bytes());
        }
        Ok(())
    }
}

gadget_sdk::export!(Sni);

#[cfg(test)]
mod tests {
    use super::*;
    use gadget_sdk::{Kind, testing::Fixture};

    #[test]
    fn names_and_faults_give_rows_and_the_nameless_none() {
        let hello = hello::tests::hello("www.example.com");
        // The same without extensions: everything up to the compression methods.
        let mut nameless = hello[..5 + 4 + 34 + 33 + 6 + 2].to_vec();
        (nameless[4], nameless[8]) = (nameless.len() as u8 - 5, nameless.len() as u8 - 9);
        (nameless[3], nameless[7]) = (0, 0);
        let mut sni = Fixture::new("sni").field("data_len", Kind::Uint32, 4).field("data", Kind::Bytes, 8192);
        let records: Vec<Vec<u8>> = [&hello[..], &nameless, &hello[..40], b""]
            .iter()
            .map(|data| [&(data.len() as u32).to_le_bytes()[..], data, b"left over"].concat())
            .collect();
        let d = sni.decode::<Sni>(&records.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        assert_eq!(d.text("name", 0), Some(&b"www.example.com"[..]));
        assert_eq!([0, 1, 2, 3].map(|row| d.kept(row)), [true, false, true, true]);
        for row in [2, 3] {
            assert_eq!(d.text("malformed", row), Some(&b"ClientHello ends too early"[..]));
        }
        assert_eq!((d.text("malformed", 0), d.hidden()), (Some(&b""[..]), &["data".to_owned()][..]));
    }
}

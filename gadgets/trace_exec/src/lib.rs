//! The decoding half of trace_exec: the argument list, as one line of text.
//!
//! The kernel sends the arguments as they lie in memory, each ended by a NUL, and only as many bytes as there are. The text
//! has one space between two arguments and is otherwise exact: nothing is escaped, empty arguments keep their place, and it
//! need not be UTF-8. That a list was cut short is said by the field `args_truncated`, never by the text.

use gadget_sdk::{Answer, BytesField, Decoder, Error, FieldDef, NumberField, Rows, Setup, TextColumn, text};

/// Reads `args_raw`, of which `args_size` bytes are used, and provides `args`.
pub struct Exec {
    raw: BytesField,
    size: NumberField<u32>,
    args: TextColumn,
}

impl Decoder for Exec {
    fn open(setup: &mut Setup) -> Result<Self, Error> {
        let exec = setup.source("exec")?;
        let args = FieldDef::new("args")
            .annotate("description", "Arguments, joined by one space each")
            .annotate("columns.width", "40");
        exec.hide("args_raw")?;
        Ok(Exec { raw: exec.bytes("args_raw")?, size: exec.number("args_size")?, args: exec.add_text(args)? })
    }

    fn decode(&mut self, rows: &Rows, out: &mut Answer) -> Result<(), Error> {
        for row in rows {
            let raw = row.bytes(self.raw);
            let used = &raw[..raw.len().min(row.number(self.size) as usize)];
            out.text(self.args).push_with(|text| text::join_nul(used, text));
        }
        Ok(())
    }
}

gadget_sdk::export!(Exec);

#[cfg(test)]
mod tests {
    use super::*;
    use gadget_sdk::{Kind, testing::Fixture};

    const ROOM: u32 = 128 * 1024;

    fn fixture() -> Fixture {
        Fixture::new("exec")
            .field("args_size", Kind::Uint32, 4)
            .field("args_count", Kind::Uint32, 4)
            .field("args_truncated", Kind::Bool, 1)
            .field("args_raw", Kind::CString, ROOM)
    }

    fn record(args: &[u8], count: u32) -> Vec<u8> {
        let mut r = (args.len() as u32).to_le_bytes().to_vec();
        r.extend(count.to_le_bytes());
        r.push(0);
        r.extend(args);
        r
    }

    fn decode(args: &[u8], count: u32) -> Vec<u8> {
        let decoded = fixture().decode::<Exec>(&[&record(args, count)]).unwrap();
        decoded.text("args", 0).unwrap().to_vec()
    }

    #[test]
    fn arguments_are_joined_and_nothing_else_is_changed() {
        assert_eq!(decode(b"", 0), b"");
        assert_eq!(decode(b"/bin/true\0", 1), b"/bin/true");
        assert_eq!(decode(b"sh\0-c\0echo 'a  b' \\n\n\0", 3), b"sh -c echo 'a  b' \\n\n");
        assert_eq!(decode(b"a\0\xff\xfe\0\xc3\0", 3), b"a \xff\xfe \xc3");
    }

    #[test]
    fn empty_arguments_keep_their_place() {
        assert_eq!(decode(b"a\0\0c\0", 3), b"a  c");
        assert_eq!(decode(b"a\0\0", 2), b"a ");
        assert_eq!(decode(b"\0", 1), b"");
    }

    #[test]
    fn five_thousand_arguments_come_through_whole() {
        let args: Vec<String> = (0..5000).map(|i| format!("argument-{i}")).collect();
        let raw: Vec<u8> = args.iter().flat_map(|a| [a.as_bytes(), b"\0"].concat()).collect();
        assert!(raw.len() < ROOM as usize);
        assert_eq!(decode(&raw, 5000), args.join(" ").into_bytes());
    }

    #[test]
    fn a_list_cut_in_the_middle_of_an_argument_shows_what_there_is() {
        assert_eq!(decode(b"cat\0/etc/pas", 2), b"cat /etc/pas");
    }

    #[test]
    fn bytes_behind_the_used_ones_are_ignored_and_missing_ones_not_invented() {
        let mut padded = record(b"ls\0", 1);
        padded.extend(b"left over\0\0\0");
        let mut short = record(b"ls\0-l\0", 2);
        short.truncate(12);
        let decoded = fixture().decode::<Exec>(&[&padded, &short, b""]).unwrap();
        assert_eq!(decoded.text("args", 0), Some(&b"ls"[..]));
        assert_eq!(decoded.text("args", 1), Some(&b"ls"[..]));
        assert_eq!(decoded.text("args", 2), Some(&b""[..]));
        assert!(decoded.kept(0) && decoded.kept(2));
        assert_eq!(decoded.hidden(), ["args_raw"]);
    }

    #[test]
    fn a_source_without_the_fields_is_refused_by_name() {
        let e = Fixture::new("exec").field("args_size", Kind::Uint32, 4).decode::<Exec>(&[]).err().unwrap();
        assert_eq!(e.message, "data source exec has no field args_raw");
    }
}

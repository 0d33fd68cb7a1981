//! The decoding half of trace_mount: flags and commands by name, and the call as it would stand in a C program.
//!
//! Text in a call stands in quotes, with quotes, backslashes and control characters escaped as in C; bytes that are no UTF-8
//! pass. Where a text was cut, three dots follow the closing quote.

mod flags;

use gadget_sdk::{Answer, BytesField, Decoder, Error, FieldDef, NumberField, Row, Rows, Setup, TextColumn, text};

/// Numbers of `enum mount_op`.
mod op {
    pub(crate) const MOUNT: u32 = 1;
    pub(crate) const UMOUNT: u32 = 2;
    pub(crate) const FSOPEN: u32 = 3;
    pub(crate) const FSPICK: u32 = 4;
    pub(crate) const FSCONFIG: u32 = 5;
    pub(crate) const FSMOUNT: u32 = 6;
    pub(crate) const MOVE_MOUNT: u32 = 7;
    pub(crate) const OPEN_TREE: u32 = 8;
    pub(crate) const MOUNT_SETATTR: u32 = 9;
}

/// fsconfig(2).
const COMMANDS: [&str; 9] = [
    "FSCONFIG_SET_FLAG",
    "FSCONFIG_SET_STRING",
    "FSCONFIG_SET_BINARY",
    "FSCONFIG_SET_PATH",
    "FSCONFIG_SET_PATH_EMPTY",
    "FSCONFIG_SET_FD",
    "FSCONFIG_CMD_CREATE",
    "FSCONFIG_CMD_RECONFIGURE",
    "FSCONFIG_CMD_CREATE_EXCL",
];
/// Commands from this one on set no option.
const FIRST_COMMAND: i32 = 6;
const AT_FDCWD: i32 = -100;

/// A text of the record, and whether it was cut.
struct Text {
    bytes: BytesField,
    cut: NumberField<u8>,
}

/// Reads the record's parts and provides `flags`, `cmd` and `call`.
pub struct Mount {
    op: NumberField<u32>,
    error: NumberField<u32>,
    flags: NumberField<u64>,
    attr_set: NumberField<u64>,
    attr_clr: NumberField<u64>,
    propagation: NumberField<u64>,
    cmd: NumberField<i32>,
    fd: NumberField<i32>,
    dfd: NumberField<i32>,
    from_dfd: NumberField<i32>,
    fs: Text,
    key: Text,
    src: Text,
    dest: Text,
    data: Text,
    flags_text: TextColumn,
    cmd_text: TextColumn,
    call: TextColumn,
}

impl Decoder for Mount {
    fn open(setup: &mut Setup) -> Result<Self, Error> {
        let mount = setup.source("mount")?;
        let flags_text = mount.add_text(FieldDef::new("flags").annotate("description", "Flags of the call by name"))?;
        let cmd_text = mount.add_text(FieldDef::new("cmd").annotate("description", "What FSCONFIG does"))?;
        let call = mount.add_text(FieldDef::new("call").annotate("description", "The call, as in a C program"))?;
        let cut = |name: &str, flag: &str| Ok::<_, Error>(Text { bytes: mount.bytes(name)?, cut: mount.number(flag)? });
        Ok(Mount {
            op: mount.number("op_raw")?,
            error: mount.number("error_raw")?,
            flags: mount.number("flags_raw")?,
            attr_set: mount.number("attr_set")?,
            attr_clr: mount.number("attr_clr")?,
            propagation: mount.number("propagation")?,
            cmd: mount.number("cmd_raw")?,
            fd: mount.number("fd")?,
            dfd: mount.number("dfd")?,
            from_dfd: mount.number("from_dfd")?,
            fs: cut("fs", "fs_truncated")?,
            key: cut("key", "key_truncated")?,
            src: cut("src", "src_truncated")?,
            dest: cut("dest", "dest_truncated")?,
            data: cut("data", "data_truncated")?,
            flags_text,
            cmd_text,
            call,
        })
    }

    fn decode(&mut self, rows: &Rows, out: &mut Answer) -> Result<(), Error> {
        for row in rows {
            let names = flag_names(row.number(self.op));
            out.text(self.flags_text).push_with(|text| flags::write(self.flags_of(row), names, text));
            out.text(self.cmd_text).push_with(|text| {
                if row.number(self.op) == op::FSCONFIG {
                    write_command(row.number(self.cmd), text);
                }
            });
            out.text(self.call).push_with(|text| self.write_call(row, text));
        }
        Ok(())
    }
}

gadget_sdk::export!(Mount);

fn flag_names(op: u32) -> &'static flags::Names {
    match op {
        op::MOUNT => flags::MOUNT,
        op::UMOUNT => flags::UMOUNT,
        op::FSOPEN => flags::FSOPEN,
        op::FSPICK => flags::FSPICK,
        op::FSMOUNT => flags::FSMOUNT,
        op::MOVE_MOUNT => flags::MOVE_MOUNT,
        op::OPEN_TREE | op::MOUNT_SETATTR => flags::AT,
        _ => &[],
    }
}

/// Arguments, one by one, with commas between them.
struct Arguments<'a> {
    row: Row<'a>,
    out: &'a mut Vec<u8>,
    first: bool,
}

impl Arguments<'_> {
    fn next(&mut self) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.first) {
            self.out.extend_from_slice(b", ");
        }
        self.out
    }

    fn text(&mut self, text: &Text) -> &mut Self {
        let (row, out) = (self.row, self.next());
        quote(text::until_nul(row.bytes(text.bytes)), out);
        if row.number(text.cut) != 0 {
            out.extend_from_slice(b"...");
        }
        self
    }

    fn flags(&mut self, flags: u64, names: &flags::Names) -> &mut Self {
        flags::write_argument(flags, names, self.next());
        self
    }

    fn descriptor(&mut self, fd: NumberField<i32>) -> &mut Self {
        let row = self.row;
        match row.number(fd) {
            AT_FDCWD => self.next().extend_from_slice(b"AT_FDCWD"),
            fd => signed(fd.into(), self.next()),
        }
        self
    }
}

impl Mount {
    fn write_call(&self, row: Row<'_>, out: &mut Vec<u8>) {
        let op = row.number(self.op);
        let name = match op {
            op::MOUNT => "mount",
            op::UMOUNT => "umount2",
            op::FSOPEN => "fsopen",
            op::FSPICK => "fspick",
            op::FSCONFIG => "fsconfig",
            op::FSMOUNT => "fsmount",
            op::MOVE_MOUNT => "move_mount",
            op::OPEN_TREE => "open_tree",
            op::MOUNT_SETATTR => "mount_setattr",
            _ => "?",
        };
        out.extend_from_slice(name.as_bytes());
        out.push(b'(');
        self.arguments(op, &mut Arguments { row, out, first: true });
        out.extend_from_slice(b") = ");
        let made = matches!(op, op::FSOPEN | op::FSPICK | op::FSMOUNT | op::OPEN_TREE);
        match row.number(self.error) {
            0 if made => signed(row.number(self.fd).into(), out),
            error => signed(-i64::from(error), out),
        }
    }

    fn flags_of(&self, row: Row<'_>) -> u64 {
        match row.number(self.op) {
            op::MOUNT => flags::without_magic(row.number(self.flags)),
            _ => row.number(self.flags),
        }
    }

    fn arguments(&self, op: u32, a: &mut Arguments<'_>) {
        let (names, all) = (flag_names(op), self.flags_of(a.row));
        let attributes = a.row.number(self.attr_set);
        match op {
            op::MOUNT => a.text(&self.src).text(&self.dest).text(&self.fs).flags(all, names).text(&self.data),
            op::UMOUNT => a.text(&self.dest).flags(all, names),
            op::FSOPEN => a.text(&self.fs).flags(all, names),
            op::FSPICK => a.descriptor(self.dfd).text(&self.dest).flags(all, names),
            op::FSCONFIG => self.config(a),
            op::FSMOUNT => a.descriptor(self.from_dfd).flags(all, names).flags(attributes, flags::ATTR),
            op::MOVE_MOUNT => self.moved(a).flags(all, names),
            op::OPEN_TREE => a.descriptor(self.dfd).text(&self.src).flags(all, names),
            op::MOUNT_SETATTR => {
                a.descriptor(self.dfd).text(&self.dest).flags(all, names);
                a.next().extend_from_slice(b"{set ");
                flags::write_argument(attributes, flags::ATTR, a.out);
                a.out.extend_from_slice(b", clear ");
                flags::write_argument(a.row.number(self.attr_clr), flags::ATTR, a.out);
                a.out.extend_from_slice(b", propagation ");
                flags::write_argument(a.row.number(self.propagation), flags::MOUNT, a.out);
                a.out.push(b'}');
                a
            }
            _ => a,
        };
    }

    fn config<'a, 'b>(&self, a: &'b mut Arguments<'a>) -> &'b mut Arguments<'a> {
        a.descriptor(self.fd);
        let cmd = a.row.number(self.cmd);
        write_command(cmd, a.next());
        if (0..FIRST_COMMAND).contains(&cmd) {
            a.text(&self.key);
        }
        // Commands whose value is a text.
        if matches!(cmd, 1 | 3 | 4) {
            a.text(&self.data);
        }
        a
    }

    /// A mount that is moved by its descriptor has an empty path; what `src` says then is its device.
    fn moved<'a, 'b>(&self, a: &'b mut Arguments<'a>) -> &'b mut Arguments<'a> {
        const F_EMPTY_PATH: u64 = 4;
        a.descriptor(self.from_dfd);
        if a.row.number(self.flags) & F_EMPTY_PATH != 0 {
            a.next().extend_from_slice(b"\"\"");
        } else {
            a.text(&self.src);
        }
        a.descriptor(self.dfd).text(&self.dest)
    }
}

fn write_command(cmd: i32, out: &mut Vec<u8>) {
    match usize::try_from(cmd).ok().and_then(|n| COMMANDS.get(n)) {
        Some(name) => out.extend_from_slice(name.as_bytes()),
        None => signed(cmd.into(), out),
    }
}

fn quote(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..32 | 127 => {
                out.extend_from_slice(b"\\x");
                text::hex(&[*byte], out);
            }
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
}

fn signed(number: i64, out: &mut Vec<u8>) {
    if number < 0 {
        out.push(b'-');
    }
    text::decimal(number.unsigned_abs(), out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use gadget_sdk::{Kind, testing::Fixture};

    #[derive(Default)]
    struct Record<'a> {
        op: u32,
        error: u32,
        flags: u64,
        attr: [u64; 3],
        cmd: i32,
        fds: [i32; 3],
        cut: [u8; 5],
        texts: [&'a [u8]; 5],
    }

    const ROOM: usize = 32;

    fn fixture() -> Fixture {
        let mut f = Fixture::new("mount").field("op_raw", Kind::Uint32, 4).field("error_raw", Kind::Uint32, 4);
        for name in ["flags_raw", "attr_set", "attr_clr", "propagation"] {
            f = f.field(name, Kind::Uint64, 8);
        }
        f = f.field("cmd_raw", Kind::Int32, 4);
        for name in ["fd", "dfd", "from_dfd"] {
            f = f.field(name, Kind::Int32, 4);
        }
        for name in ["src_truncated", "dest_truncated", "data_truncated", "fs_truncated", "key_truncated"] {
            f = f.field(name, Kind::Bool, 1);
        }
        for name in ["fs", "key", "src", "dest", "data"] {
            f = f.field(name, Kind::CString, ROOM as u32);
        }
        f
    }

    fn bytes(r: &Record<'_>) -> Vec<u8> {
        let mut b = [r.op, r.error].map(u32::to_le_bytes).concat();
        b.extend([r.flags, r.attr[0], r.attr[1], r.attr[2]].map(u64::to_le_bytes).concat());
        b.extend(r.cmd.to_le_bytes());
        b.extend(r.fds.map(i32::to_le_bytes).concat());
        b.extend(r.cut);
        for text in r.texts {
            let mut room = [0; ROOM];
            room[..text.len()].copy_from_slice(text);
            b.extend(room);
        }
        b
    }

    fn call(record: &Record<'_>) -> String {
        let decoded = fixture().decode::<Mount>(&[&bytes(record)]).unwrap();
        String::from_utf8_lossy(decoded.text("call", 0).unwrap()).into_owned()
    }

    #[test]
    fn every_call_reads_like_c() {
        let texts: [&[u8]; 5] = [b"tmpfs", b"source", b"none", b"/mnt", b"size=1m"];
        let of = |op, flags| call(&Record { op, flags, fds: [5, AT_FDCWD, 4], texts, ..Record::default() });
        assert_eq!(of(op::MOUNT, 0x1001), r#"mount("none", "/mnt", "tmpfs", MS_RDONLY|MS_BIND, "size=1m") = 0"#);
        assert_eq!(of(op::UMOUNT, 2), r#"umount2("/mnt", MNT_DETACH) = 0"#);
        assert_eq!(of(op::FSOPEN, 1), r#"fsopen("tmpfs", FSOPEN_CLOEXEC) = 5"#);
        assert_eq!(of(op::FSPICK, 0), r#"fspick(AT_FDCWD, "/mnt", 0) = 5"#);
        assert_eq!(of(op::FSMOUNT, 0), "fsmount(4, 0, 0) = 5");
        assert_eq!(of(op::MOVE_MOUNT, 4), r#"move_mount(4, "", AT_FDCWD, "/mnt", MOVE_MOUNT_F_EMPTY_PATH) = 0"#);
        assert_eq!(of(op::MOVE_MOUNT, 0), r#"move_mount(4, "none", AT_FDCWD, "/mnt", 0) = 0"#);
        assert_eq!(of(op::OPEN_TREE, 1), r#"open_tree(AT_FDCWD, "none", OPEN_TREE_CLONE) = 5"#);
        assert_eq!(of(77, 0), "?() = 0");
    }

    #[test]
    fn commands_of_fsconfig_have_what_they_need() {
        let texts: [&[u8]; 5] = [b"tmpfs", b"size", b"", b"", b"1m"];
        let of = |cmd| call(&Record { op: op::FSCONFIG, cmd, fds: [5, -1, -1], texts, ..Record::default() });
        assert_eq!(of(0), r#"fsconfig(5, FSCONFIG_SET_FLAG, "size") = 0"#);
        assert_eq!(of(1), r#"fsconfig(5, FSCONFIG_SET_STRING, "size", "1m") = 0"#);
        assert_eq!(of(6), "fsconfig(5, FSCONFIG_CMD_CREATE) = 0");
        assert_eq!(of(99), "fsconfig(5, 99) = 0");
        assert_eq!(of(-2), "fsconfig(5, -2) = 0");
    }

    #[test]
    fn only_fsconfig_has_a_command() {
        let of = |op, cmd| {
            let record = bytes(&Record { op, cmd, ..Record::default() });
            let decoded = fixture().decode::<Mount>(&[&record]).unwrap();
            String::from_utf8_lossy(decoded.text("cmd", 0).unwrap()).into_owned()
        };
        assert_eq!(of(op::FSCONFIG, 0), "FSCONFIG_SET_FLAG");
        assert_eq!(of(op::FSCONFIG, 99), "99");
        assert_eq!((of(op::MOUNT, -1), of(op::UMOUNT, 0)), (String::new(), String::new()));
    }

    #[test]
    fn attributes_are_set_and_cleared() {
        let record = Record {
            op: op::MOUNT_SETATTR,
            flags: 0x8000,
            attr: [3, 8, 1 << 18],
            fds: [-1, AT_FDCWD, -1],
            texts: [b"", b"", b"", b"/mnt", b""],
            ..Record::default()
        };
        assert_eq!(
            call(&record),
            "mount_setattr(AT_FDCWD, \"/mnt\", AT_RECURSIVE, {set MOUNT_ATTR_RDONLY|MOUNT_ATTR_NOSUID, \
             clear MOUNT_ATTR_NOEXEC, propagation MS_PRIVATE}) = 0"
        );
    }

    #[test]
    fn failures_cut_texts_and_odd_bytes_are_shown() {
        let texts: [&[u8]; 5] = [b"", b"", b"a\"\\\n\x1b\xff", b"/long", b""];
        let record = Record { op: op::MOUNT, error: 13, cut: [0, 1, 0, 1, 0], texts, ..Record::default() };
        assert_eq!(call(&record), "mount(\"a\\\"\\\\\\n\\x1b\u{fffd}\", \"/long\"..., \"\"..., 0, \"\") = -13");
        let short = fixture().decode::<Mount>(&[&bytes(&record)[..10], b""]).unwrap();
        assert_eq!(short.text("call", 0), Some(&b"mount(\"\", \"\", \"\", 0, \"\") = -13"[..]));
        assert_eq!(short.text("call", 1), Some(&b"?() = 0"[..]));
    }
}

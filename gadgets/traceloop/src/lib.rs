//! The reading half of traceloop: what the recorder kept, as strace would show it.
//!
//! A row has numbers and up to two texts that the BPF half read from the program's memory. Here the number becomes a name,
//! each argument gets the kernel's own name for it and a form by its type, and the result becomes a number with the name of
//! the error. Nothing is left out: an address whose text could not be read is shown as an address.

use gadget_sdk::{
    Answer, BytesField, Decoder, Error, ErrorCode, FieldDef, Level, NumberField, Row, Rows, Setup, TextColumn,
    host::{self, Abi, SyscallParam},
    log,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
};

/// Calls whose result is an address.
const ADDRESSES: [&str; 5] = ["brk", "mmap", "mmap2", "mremap", "shmat"];

/// Results from -4095 to -1 are errors.
const LAST_ERRNO: i64 = 4095;

/// The names of the running kernel; parameters are asked for when a call is first seen.
#[derive(Default)]
pub struct Names {
    native: Vec<String>,
    compat: Vec<String>,
    errnos: Vec<String>,
    /// `None`: the kernel says nothing of them.
    params: BTreeMap<String, Option<Vec<SyscallParam>>>,
}

/// One recorded call.
struct Call<'a> {
    number: u16,
    compat: bool,
    args: [u64; 6],
    /// `None`: it has not returned.
    ret: Option<i64>,
    /// Which argument, from 1, with its text and whether that is cut.
    texts: [(u8, &'a [u8], bool); 2],
}

impl Names {
    fn of_kernel() -> Names {
        Names {
            native: host::syscall_names(Abi::Native),
            compat: host::syscall_names(Abi::Compat),
            errnos: host::errno_names(),
            params: BTreeMap::new(),
        }
    }

    fn call(&self, number: u16, compat: bool) -> Option<&str> {
        let table = if compat { &self.compat } else { &self.native };
        table.get(usize::from(number)).map(String::as_str).filter(|n| !n.is_empty())
    }

    fn gives_address(&self, call: &Call<'_>) -> bool {
        self.call(call.number, call.compat).is_some_and(|name| ADDRESSES.contains(&name))
    }

    fn learn(&mut self, number: u16, compat: bool) {
        let Some(name) = self.call(number, compat).map(str::to_owned) else { return };
        self.params.entry(name).or_insert_with_key(|name| host::syscall_params(name));
    }

    fn write_name(&self, call: &Call<'_>, out: &mut Vec<u8>) {
        match self.call(call.number, call.compat) {
            Some(name) => out.extend_from_slice(name.as_bytes()),
            None => put(out, format_args!("syscall#{}", call.number)),
        }
    }

    fn write_parameters(&self, call: &Call<'_>, out: &mut Vec<u8>) {
        let params = self.call(call.number, call.compat).and_then(|name| self.params.get(name));
        let known = params.and_then(Option::as_ref);
        let count = known.map_or(6, Vec::len).min(6);
        for (i, arg) in call.args.iter().enumerate().take(count) {
            if i > 0 {
                out.extend_from_slice(b", ");
            }
            let param = known.and_then(|p| p.get(i));
            match param {
                Some(p) => put(out, format_args!("{}=", p.name)),
                None => put(out, format_args!("arg{i}=")),
            }
            match call.texts.iter().find(|(of, ..)| usize::from(*of) == i + 1) {
                Some((_, text, cut)) => quote(text, *cut, out),
                None => write_value(*arg, param, call.compat, out),
            }
        }
    }

    fn write_ret(&self, call: &Call<'_>, out: &mut Vec<u8>) {
        match call.ret {
            None => out.extend_from_slice(b"..."),
            Some(ret) if (-LAST_ERRNO..0).contains(&ret) => {
                let name = self.errnos.get(ret.unsigned_abs() as usize).filter(|n| !n.is_empty());
                match name {
                    Some(name) => put(out, format_args!("{ret} ({name})")),
                    None => put(out, format_args!("{ret}")),
                }
            }
            Some(ret) if ret > i64::from(u32::MAX) || ret < 0 || self.gives_address(call) => {
                put(out, format_args!("{ret:#x}"))
            }
            Some(ret) => put(out, format_args!("{ret}")),
        }
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Memory takes everything.
    drop(out.write_fmt(text));
}

/// In quotes, dots where the text goes on. What a terminal must not see is escaped by the output, which knows where it
/// goes; single quotes are none of what it escapes.
fn quote(text: &[u8], cut: bool, out: &mut Vec<u8>) {
    out.push(b'\'');
    for (i, part) in text.split(|b| *b == b'\'').enumerate() {
        out.extend_from_slice(if i > 0 { b"\\'" } else { b"" });
        out.extend_from_slice(part);
    }
    out.extend_from_slice(if cut { b"'..." } else { b"'" });
}

fn write_value(value: u64, param: Option<&SyscallParam>, compat: bool, out: &mut Vec<u8>) {
    let Some(p) = param else { return put(out, format_args!("{value:#x}")) };
    let hex = ["flags", "prot", "mask", "how"].iter().any(|h| p.name.contains(h));
    if p.pointer {
        return match value {
            0 => out.extend_from_slice(b"NULL"),
            value => put(out, format_args!("{value:#x}")),
        };
    }
    // The upper half of a register means nothing for the narrow types.
    match p.type_name.as_str() {
        "int" | "pid_t" | "clockid_t" | "const clockid_t" | "timer_t" | "key_t" | "mqd_t" | "key_serial_t" | "s32" => {
            let narrow = value as u32 as i32;
            match p.name.contains("dfd") || p.name == "fd" {
                true if narrow == -100 => out.extend_from_slice(b"AT_FDCWD"),
                _ if hex => put(out, format_args!("{narrow:#x}")),
                _ => put(out, format_args!("{narrow}")),
            }
        }
        "umode_t" => put(out, format_args!("{:#o}", value as u16)),
        "unsigned int" | "unsigned" | "u32" | "uid_t" | "gid_t" | "qid_t" if hex => {
            put(out, format_args!("{:#x}", value as u32))
        }
        "unsigned int" | "unsigned" | "u32" | "uid_t" | "gid_t" | "qid_t" => put(out, format_args!("{}", value as u32)),
        "long" | "loff_t" | "off_t" if compat => put(out, format_args!("{}", value as u32 as i32)),
        "long" | "loff_t" | "off_t" => put(out, format_args!("{}", value as i64)),
        // Mostly addresses.
        "unsigned long" if value > 0xffff => put(out, format_args!("{value:#x}")),
        _ if hex || value > u64::from(u32::MAX) => put(out, format_args!("{value:#x}")),
        _ => put(out, format_args!("{value}")),
    }
}

/// Which fields it reads and which it provides.
pub struct Traceloop {
    names: Names,
    wanted: BTreeSet<String>,
    /// By mount namespace: the highest number of a call, and how many calls were read.
    read: BTreeMap<u64, (u64, u64)>,
    fields: Fields,
    syscall: TextColumn,
    parameters: TextColumn,
    ret: TextColumn,
}

struct Fields {
    mntns: NumberField<u64>,
    number: NumberField<u64>,
    syscall: NumberField<u16>,
    compat: Flag,
    returned: Flag,
    ret: NumberField<i64>,
    args: [NumberField<u64>; 6],
    texts: [TextFields; 2],
}

/// A boolean of the record.
type Flag = NumberField<u8>;

struct TextFields {
    of: NumberField<u8>,
    cut: Flag,
    size: NumberField<u16>,
    text: BytesField,
}

fn wanted(list: &str, names: &Names) -> Result<BTreeSet<String>, Error> {
    let wanted: BTreeSet<String> =
        list.split(',').map(str::trim).filter(|n| !n.is_empty()).map(str::to_owned).collect();
    for name in &wanted {
        if !names.native.contains(name) && !names.compat.contains(name) {
            let message = format!("parameter syscall-filters: there is no system call {name:?}");
            return Err(Error::new(ErrorCode::Invalid, message));
        }
    }
    Ok(wanted)
}

impl Fields {
    fn call<'a>(&self, row: Row<'a>) -> Call<'a> {
        let text = |f: &TextFields| {
            let all = row.bytes(f.text);
            let used = &all[..all.len().min(row.number(f.size).into())];
            (row.number(f.of), used, row.number(f.cut) != 0)
        };
        Call {
            number: row.number(self.syscall),
            compat: row.number(self.compat) != 0,
            args: self.args.map(|a| row.number(a)),
            ret: (row.number(self.returned) != 0).then(|| row.number(self.ret)),
            texts: [text(&self.texts[0]), text(&self.texts[1])],
        }
    }
}

impl Decoder for Traceloop {
    fn open(setup: &mut Setup) -> Result<Self, Error> {
        let names = Names::of_kernel();
        let wanted = wanted(&setup.param("syscall-filters").unwrap_or_default(), &names)?;
        let source = setup.source("traceloop")?;
        let text = |n: u8| -> Result<TextFields, Error> {
            Ok(TextFields {
                of: source.number(&format!("text{n}_of"))?,
                cut: source.number(&format!("text{n}_cut"))?,
                size: source.number(&format!("text{n}_size"))?,
                text: source.bytes(&format!("text{n}"))?,
            })
        };
        let arg = |n: u8| source.number(&format!("a{n}"));
        let fields = Fields {
            mntns: source.number("mntns_id")?,
            number: source.number("number")?,
            syscall: source.number("syscall_raw")?,
            compat: source.number("compat")?,
            returned: source.number("returned")?,
            ret: source.number("ret_raw")?,
            args: [arg(0)?, arg(1)?, arg(2)?, arg(3)?, arg(4)?, arg(5)?],
            texts: [text(1)?, text(2)?],
        };
        let new = |name: &str, description: &str, width: &str| {
            FieldDef::new(name).annotate("description", description).annotate("columns.width", width)
        };
        Ok(Traceloop {
            syscall: source.add_text(new("syscall", "Name of the system call", "18"))?,
            parameters: source.add_text(new("parameters", "Its arguments, by the kernel's names for them", "64"))?,
            ret: source.add_text(new(
                "ret",
                "Its result; ... if it has not returned: the thread was still in it, or ended in it",
                "16",
            ))?,
            names,
            wanted,
            read: BTreeMap::new(),
            fields,
        })
    }

    fn decode(&mut self, rows: &Rows, out: &mut Answer) -> Result<(), Error> {
        for row in rows {
            let (highest, count) = self.read.entry(row.number(self.fields.mntns)).or_default();
            *highest = row.number(self.fields.number).max(*highest);
            *count += 1;
            let call = self.fields.call(row);
            let wanted = self.wanted.is_empty()
                || self.names.call(call.number, call.compat).is_some_and(|name| self.wanted.contains(name));
            if !wanted {
                out.drop_row(row);
                continue;
            }
            self.names.learn(call.number, call.compat);
            out.text(self.syscall).push_with(|text| self.names.write_name(&call, text));
            out.text(self.parameters).push_with(|text| self.names.write_parameters(&call, text));
            out.text(self.ret).push_with(|text| self.names.write_ret(&call, text));
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<(), Error> {
        let gone: u64 = self.read.values().map(|(highest, count)| highest.saturating_sub(*count)).sum();
        if gone > 0 {
            log(Level::Warn, &format!("{gone} earlier calls were overwritten; the field number says which are shown"));
        }
        Ok(())
    }
}

gadget_sdk::export!(Traceloop);

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let table = |pairs: &[(usize, &str)]| {
            let mut all = vec![String::new(); 300];
            pairs.iter().for_each(|(n, name)| all[*n] = (*name).to_owned());
            all
        };
        let param = |type_name: &str, name: &str| SyscallParam {
            name: name.into(),
            type_name: type_name.into(),
            pointer: type_name.contains('*'),
        };
        let openat = vec![
            param("int", "dfd"),
            param("const char *", "filename"),
            param("int", "flags"),
            param("umode_t", "mode"),
        ];
        Names {
            native: table(&[(257, "openat"), (39, "getpid"), (8, "lseek"), (12, "brk")]),
            compat: table(&[(19, "lseek")]),
            errnos: table(&[(2, "ENOENT")]),
            params: BTreeMap::from([
                ("openat".to_owned(), Some(openat)),
                ("getpid".to_owned(), Some(Vec::new())),
                (
                    "lseek".to_owned(),
                    Some(vec![param("unsigned int", "fd"), param("off_t", "offset"), param("unsigned int", "whence")]),
                ),
            ]),
        }
    }

    fn call(number: u16, args: [u64; 6], ret: Option<i64>) -> Call<'static> {
        Call { number, compat: false, args, ret, texts: [(0, b"", false), (0, b"", false)] }
    }

    fn shown(call: &Call<'_>) -> String {
        let (names, mut out) = (names(), Vec::new());
        names.write_name(call, &mut out);
        out.push(b'(');
        names.write_parameters(call, &mut out);
        out.extend_from_slice(b") = ");
        names.write_ret(call, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_call_reads_as_strace_would_show_it() {
        let mut c = call(257, [0xffff_ff9c, 0x7fff_1234, 0x80000, 0o644, 0, 0], Some(-2));
        c.texts[0] = (2, b"/no\nsuch'x", false);
        assert_eq!(
            shown(&c),
            "openat(dfd=AT_FDCWD, filename='/no\nsuch\\'x', flags=0x80000, mode=0o644) = -2 (ENOENT)"
        );
        c.texts[0] = (2, b"long", true);
        assert!(shown(&c).contains("filename='long'..., "));
        c.texts[0] = (0, b"", false);
        assert!(shown(&c).contains("filename=0x7fff1234"), "an address that could not be read stays one");
        c.args[1] = 0;
        assert!(shown(&c).contains("filename=NULL"));
    }

    #[test]
    fn results_are_numbers_errors_addresses_or_still_to_come() {
        let ret = |r| shown(&call(8, [0; 6], r)).rsplit_once(" = ").unwrap().1.to_owned();
        assert_eq!([ret(None), ret(Some(0)), ret(Some(-4095)), ret(Some(7))], ["...", "0", "-4095", "7"]);
        assert_eq!([ret(Some(0x7f00_0000_0000)), ret(Some(-4096))], ["0x7f0000000000", "0xfffffffffffff000"]);
        let brk = |r| shown(&call(12, [0; 6], Some(r))).rsplit_once(" = ").unwrap().1.to_owned();
        assert_eq!([brk(890_249_216), brk(-2), brk(-1)], ["0x35102000", "-2 (ENOENT)", "-1"], "an address below 4 GiB");
    }

    #[test]
    fn numbers_are_as_wide_as_their_type_and_the_caller() {
        let mut c = call(8, [3, (-5i64) as u64, 1, 0, 0, 0], Some(0));
        assert_eq!(shown(&c), "lseek(fd=3, offset=-5, whence=1) = 0");
        c.number = 19;
        c.compat = true;
        c.args[1] = 0xffff_fffb;
        assert_eq!(shown(&c), "lseek(fd=3, offset=-5, whence=1) = 0");
    }

    #[test]
    fn what_is_not_known_is_shown_raw() {
        assert_eq!(shown(&call(39, [1; 6], Some(5))), "getpid() = 5");
        assert_eq!(
            shown(&call(299, [1, 2, 3, 4, 5, 6], None)),
            "syscall#299(arg0=0x1, arg1=0x2, arg2=0x3, arg3=0x4, arg4=0x5, arg5=0x6) = ..."
        );
    }

    #[test]
    fn only_calls_that_exist_can_be_asked_for() {
        assert_eq!(wanted(" openat,,lseek ", &names()).unwrap().len(), 2);
        assert!(wanted("", &names()).unwrap().is_empty());
        assert!(wanted("opena", &names()).unwrap_err().message.contains("opena"));
    }
}

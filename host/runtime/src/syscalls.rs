//! System calls by number: their names, from the kernel's own headers, and the parameters that the running kernel gives
//! them in tracefs. Pure look-ups; usable from any thread.

use std::{fs::File, io::Read, path::PathBuf, sync::OnceLock};

use crate::instance::filesystems::TRACEFS;

/// A line a call: number, then name.
#[cfg(target_arch = "x86_64")]
const NATIVE: &str = include_str!("syscalls/x86_64.txt");
#[cfg(target_arch = "x86_64")]
const COMPAT: &str = include_str!("syscalls/i386.txt");
#[cfg(target_arch = "aarch64")]
const NATIVE: &str = include_str!("syscalls/aarch64.txt");
/// 32-bit calls on arm64 have no names here.
#[cfg(target_arch = "aarch64")]
const COMPAT: &str = "";

/// Larger descriptions of one call are none of the kernel's.
const LARGEST_FORMAT: u64 = 64 << 10;

/// One parameter of a system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Param {
    pub(crate) name: String,
    pub(crate) type_name: String,
    pub(crate) pointer: bool,
}

/// The machine's own calls, by number; an empty name where there is none.
pub(crate) fn native() -> &'static [&'static str] {
    static TABLE: OnceLock<Vec<&str>> = OnceLock::new();
    TABLE.get_or_init(|| table(NATIVE))
}

/// Those of 32-bit programs.
pub(crate) fn compat() -> &'static [&'static str] {
    static TABLE: OnceLock<Vec<&str>> = OnceLock::new();
    TABLE.get_or_init(|| table(COMPAT))
}

fn table(text: &'static str) -> Vec<&'static str> {
    let mut names = Vec::new();
    for (number, name) in text.lines().filter_map(|l| l.split_once(' ')) {
        let Ok(number) = number.parse::<usize>() else { continue };
        if names.len() <= number {
            names.resize(number + 1, "");
        }
        names[number] = name;
    }
    names
}

/// The parameters of a call as the kernel names them; `None` where it says nothing.
pub(crate) fn params(name: &str) -> Option<Vec<Param>> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return None;
    }
    let file = PathBuf::from(TRACEFS.mounted_at()?)
        .join("events/syscalls")
        .join(format!("sys_enter_{}", kernels_name(name)))
        .join("format");
    let mut text = String::new();
    File::open(file).ok()?.take(LARGEST_FORMAT).read_to_string(&mut text).ok()?;
    Some(parse_format(&text))
}

/// A few calls have another name inside the kernel.
fn kernels_name(name: &str) -> &str {
    match name {
        "stat" => "newstat",
        "lstat" => "newlstat",
        "fstat" => "newfstat",
        "uname" => "newuname",
        "umount2" => "umount",
        "sendfile" => "sendfile64",
        name => name,
    }
}

/// Fields after `__syscall_nr` are the parameters: `field:const char * filename; offset:24; …`. Newer kernels (7.2 does) append copies of
/// the texts that they point to, as fields `__data_loc char[] __filename_val`: no parameters.
fn parse_format(text: &str) -> Vec<Param> {
    let fields = text.lines().filter_map(|l| l.trim_start().strip_prefix("field:")?.split(';').next());
    let after_number =
        fields.skip_while(|f| !f.ends_with("__syscall_nr")).skip(1).filter(|f| !f.starts_with("__data_loc "));
    let one = |field: &str| {
        let (type_name, name) = field.trim().rsplit_once(' ')?;
        let stars = name.len() - name.trim_start_matches('*').len();
        let type_name = format!("{}{}", type_name.trim(), "*".repeat(stars));
        Some(Param { name: name[stars..].to_owned(), pointer: type_name.contains('*'), type_name })
    };
    after_number.filter_map(one).take(6).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_to_names() {
        let native = native();
        let number = |name: &str| native.iter().position(|n| *n == name);
        #[cfg(target_arch = "x86_64")]
        {
            let known = ["read", "execve", "openat", "clone3", "faccessat2"].map(number);
            assert_eq!(known, [Some(0), Some(59), Some(257), Some(435), Some(439)]);
            assert_eq!((native[512], native[400]), ("rt_sigaction", ""));
            assert_eq!((compat()[1], compat()[11], compat()[295]), ("exit", "execve", "openat"));
        }
        #[cfg(target_arch = "aarch64")]
        assert_eq!(["openat", "execve", "clone3"].map(number), [Some(56), Some(221), Some(435)]);
        assert!(native.len() < 1024 && compat().len() < 512);
    }

    #[test]
    fn the_kernels_description_of_a_call_is_read() {
        let text = "name: sys_enter_openat\nID: 782\nformat:\n\tfield:unsigned short common_type;\toffset:0;\n\n\
            \tfield:int __syscall_nr;\toffset:8;\tsize:4;\tsigned:1;\n\tfield:int dfd;\toffset:16;\tsize:8;\n\
            \tfield:const char * filename;\toffset:24;\n\tfield:umode_t mode;\toffset:40;\n\tfield:char *buf;\n\nprint fmt: \"x\"";
        let got: Vec<_> =
            parse_format(text).into_iter().map(|p| format!("{}|{}|{}", p.type_name, p.name, p.pointer)).collect();
        assert_eq!(got, ["int|dfd|false", "const char *|filename|true", "umode_t|mode|false", "char*|buf|true"]);
        let copied = text.replace(
            "\n\nprint",
            "\n\tfield:__data_loc char[] __filename_val;\toffset:48;\tsize:4;\tsigned:0;\n\nprint",
        );
        assert_eq!((parse_format(&copied).len(), parse_format(&copied)), (4, parse_format(text)));
        assert!(parse_format("").is_empty() && parse_format("field:;\nfield:int __syscall_nr;\nfield:x;").is_empty());
    }

    #[test]
    fn a_name_is_no_path() {
        for bad in ["", "../x", "a/b", "a\0b"] {
            assert_eq!(params(bad), None);
        }
    }
}

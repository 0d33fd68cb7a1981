//! Linux error and signal numbers to their names.

use super::number;

/// The errno's name, nothing for 0, `error#N` for a number without a name.
pub(crate) fn errno(n: i64, out: &mut Vec<u8>) {
    named(n, errno_name, b"error#", out);
}

/// The signal's name, nothing for 0, `signal#N` for real-time signals and numbers without a name.
pub(crate) fn signal(n: i64, out: &mut Vec<u8>) {
    named(n, |i| SIGNAL.get(i).copied().unwrap_or_default(), b"signal#", out);
}

fn named(n: i64, name: impl Fn(usize) -> &'static str, unknown: &[u8], out: &mut Vec<u8>) {
    if n == 0 {
        return;
    }
    match usize::try_from(n).map(name) {
        Ok(name) if !name.is_empty() => out.extend_from_slice(name.as_bytes()),
        _ => {
            out.extend_from_slice(unknown);
            number::int(n, out);
        }
    }
}

/// Names by number, from 0 on; empty where there is none.
pub fn errno_names() -> impl Iterator<Item = &'static str> {
    (0..KERNELS_FIRST + KERNELS.len()).map(errno_name)
}

fn errno_name(n: usize) -> &'static str {
    let name = n.checked_sub(KERNELS_FIRST).map_or_else(|| ERRNO.get(n), |i| KERNELS.get(i));
    name.copied().unwrap_or_default()
}

/// By number; the same on every architecture this host runs on.
#[rustfmt::skip]
const ERRNO: &[&str] = &[
    "", "EPERM", "ENOENT", "ESRCH", "EINTR", "EIO", "ENXIO", "E2BIG", "ENOEXEC", "EBADF",
    "ECHILD", "EAGAIN", "ENOMEM", "EACCES", "EFAULT", "ENOTBLK", "EBUSY", "EEXIST", "EXDEV", "ENODEV",
    "ENOTDIR", "EISDIR", "EINVAL", "ENFILE", "EMFILE", "ENOTTY", "ETXTBSY", "EFBIG", "ENOSPC", "ESPIPE",
    "EROFS", "EMLINK", "EPIPE", "EDOM", "ERANGE", "EDEADLK", "ENAMETOOLONG", "ENOLCK", "ENOSYS", "ENOTEMPTY",
    "ELOOP", "", "ENOMSG", "EIDRM", "ECHRNG", "EL2NSYNC", "EL3HLT", "EL3RST", "ELNRNG", "EUNATCH",
    "ENOCSI", "EL2HLT", "EBADE", "EBADR", "EXFULL", "ENOANO", "EBADRQC", "EBADSLT", "", "EBFONT",
    "ENOSTR", "ENODATA", "ETIME", "ENOSR", "ENONET", "ENOPKG", "EREMOTE", "ENOLINK", "EADV", "ESRMNT",
    "ECOMM", "EPROTO", "EMULTIHOP", "EDOTDOT", "EBADMSG", "EOVERFLOW", "ENOTUNIQ", "EBADFD", "EREMCHG", "ELIBACC",
    "ELIBBAD", "ELIBSCN", "ELIBMAX", "ELIBEXEC", "EILSEQ", "ERESTART", "ESTRPIPE", "EUSERS", "ENOTSOCK", "EDESTADDRREQ",
    "EMSGSIZE", "EPROTOTYPE", "ENOPROTOOPT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "EOPNOTSUPP", "EPFNOSUPPORT", "EAFNOSUPPORT", "EADDRINUSE", "EADDRNOTAVAIL",
    "ENETDOWN", "ENETUNREACH", "ENETRESET", "ECONNABORTED", "ECONNRESET", "ENOBUFS", "EISCONN", "ENOTCONN", "ESHUTDOWN", "ETOOMANYREFS",
    "ETIMEDOUT", "ECONNREFUSED", "EHOSTDOWN", "EHOSTUNREACH", "EALREADY", "EINPROGRESS", "ESTALE", "EUCLEAN", "ENOTNAM", "ENAVAIL",
    "EISNAM", "EREMOTEIO", "EDQUOT", "ENOMEDIUM", "EMEDIUMTYPE", "ECANCELED", "ENOKEY", "EKEYEXPIRED", "EKEYREVOKED", "EKEYREJECTED",
    "EOWNERDEAD", "ENOTRECOVERABLE", "ERFKILL", "EHWPOISON",
];

/// What the kernel tells itself: hooks see it where a call is begun anew after a signal, and some of it gets out.
const KERNELS_FIRST: usize = 512;
#[rustfmt::skip]
const KERNELS: &[&str] = &[
    "ERESTARTSYS", "ERESTARTNOINTR", "ERESTARTNOHAND", "ENOIOCTLCMD", "ERESTART_RESTARTBLOCK", "EPROBE_DEFER", "EOPENSTALE", "ENOPARAM",
    "", "EBADHANDLE", "ENOTSYNC", "EBADCOOKIE", "ENOTSUPP", "ETOOSMALL", "ESERVERFAULT", "EBADTYPE", "EJUKEBOX", "EIOCBQUEUED",
    "ERECALLCONFLICT", "ENOGRACE",
];

#[rustfmt::skip]
const SIGNAL: &[&str] = &[
    "", "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL",
    "SIGUSR1", "SIGSEGV", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM", "SIGSTKFLT", "SIGCHLD", "SIGCONT", "SIGSTOP",
    "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGXCPU", "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO",
    "SIGPWR", "SIGSYS",
];

/// The highest signal there is.
pub const LAST_SIGNAL: u32 = 64;

/// The number of a signal that is written as its name, with or without SIG, as it is shown, or as a number.
pub fn signal_number(text: &str) -> Option<u32> {
    let upper = text.to_ascii_uppercase();
    let digits = upper.strip_prefix("SIGNAL#").unwrap_or(&upper);
    let number = if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        digits.parse().ok()
    } else {
        let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
        let at = SIGNAL.iter().position(|name| name.strip_prefix("SIG") == Some(bare));
        at.and_then(|n| u32::try_from(n).ok())
    };
    number.filter(|n| (1..=LAST_SIGNAL).contains(n))
}

#[cfg(test)]
mod tests {
    fn text(f: fn(i64, &mut Vec<u8>), n: i64) -> String {
        let mut out = Vec::new();
        f(n, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn known_names_sit_at_their_numbers() {
        // The numbers at both ends of every row that is easy to shift, as <asm-generic/errno.h> has them.
        for (n, name) in [(1, "EPERM"), (2, "ENOENT"), (35, "EDEADLK"), (40, "ELOOP"), (42, "ENOMSG"), (71, "EPROTO")] {
            assert_eq!(text(super::errno, n), name);
        }
        for (n, name) in
            [(95, "EOPNOTSUPP"), (98, "EADDRINUSE"), (111, "ECONNREFUSED"), (115, "EINPROGRESS"), (133, "EHWPOISON")]
        {
            assert_eq!(text(super::errno, n), name);
        }
        let own = [
            (512, "ERESTARTSYS"),
            (516, "ERESTART_RESTARTBLOCK"),
            (521, "EBADHANDLE"),
            (524, "ENOTSUPP"),
            (531, "ENOGRACE"),
        ];
        for (n, name) in own {
            assert_eq!(text(super::errno, n), name);
        }
        for (n, name) in [(9, "SIGKILL"), (15, "SIGTERM"), (17, "SIGCHLD"), (31, "SIGSYS")] {
            assert_eq!(text(super::signal, n), name);
        }
    }

    #[test]
    fn signals_are_read_as_they_are_shown_and_as_kill_takes_them() {
        use super::signal_number as n;
        for good in ["9", "KILL", "SIGKILL", "sigkill", "kill"] {
            assert_eq!(n(good), Some(9), "{good}");
        }
        assert_eq!([n("SIGHUP"), n("SYS"), n("signal#34"), n("64")], [Some(1), Some(31), Some(34), Some(64)]);
        for bad in ["", "0", "65", "-1", "+9", "99999", "SIG", "SIGFOO", "signal#", "signal#65", "9 ", "SIGSIGKILL"] {
            assert_eq!(n(bad), None, "{bad}");
        }
        for number in 1..=64 {
            assert_eq!(n(&text(super::signal, number)), u32::try_from(number).ok());
        }
    }

    #[test]
    fn zero_is_nothing_and_unknown_numbers_stay_numbers() {
        assert_eq!(text(super::errno, 0), "");
        assert_eq!(text(super::errno, 41), "error#41");
        for none in [134, 511, 520, 532, 4095] {
            assert_eq!(text(super::errno, none), format!("error#{none}"));
        }
        assert_eq!(text(super::errno, -2), "error#-2");
        assert_eq!(text(super::signal, 34), "signal#34");
    }
}

//! The verbs: old command, gadget, and what has become of flags that are called otherwise today. Data only.
//!
//! A flag that is not here is passed on as it is. `tests.rs` holds the table against the gadgets' folders.

use crate::error::CliError;
use std::fmt;

/// One old command.
#[derive(Debug)]
pub(super) struct Verb {
    /// Empty: the name alone is the command.
    pub(super) category: &'static str,
    pub(super) name: &'static str,
    pub(super) image: &'static str,
    pub(super) about: &'static str,
    pub(super) flags: &'static [&'static [OldFlag]],
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        command(f, self.category, self.name)
    }
}

fn command(f: &mut fmt::Formatter<'_>, category: &str, name: &str) -> fmt::Result {
    match category {
        "" => write!(f, "ig {name}"),
        _ => write!(f, "ig {category} {name}"),
    }
}

/// A flag that was called otherwise.
#[derive(Debug)]
pub(super) struct OldFlag {
    pub(super) long: &'static str,
    pub(super) short: Option<char>,
    /// Takes a value; a switch otherwise.
    pub(super) value: bool,
    pub(super) to: To,
}

/// What does an old flag's work today.
#[derive(Clone, Copy, Debug)]
pub(super) enum To {
    /// This flag, with the same value.
    Flag(&'static str),
    /// These fields as columns, and the switch that fills them.
    Shown { param: Option<&'static str>, fields: &'static [&'static str] },
    /// This flag, where the value says its unit.
    Seconds(&'static str),
    /// Nothing; the text says what to do instead.
    Nothing(&'static str),
}

/// A command that there is no gadget for.
#[derive(Debug)]
pub(super) struct Gone {
    pub(super) category: &'static str,
    pub(super) name: &'static str,
    hint: &'static str,
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        command(f, self.category, self.name)
    }
}

impl Gone {
    pub(super) fn error(&self) -> CliError {
        CliError::user(format!("there is no `{self}`")).hint(self.hint)
    }
}

pub(super) const CATEGORIES: [(&str, &str); 6] = [
    ("advise", "Write profiles and policies from what containers do"),
    ("audit", "Show what security mechanisms did"),
    ("profile", "Measure where time goes"),
    ("snapshot", "Show what there is now"),
    ("top", "Show the busiest, again and again"),
    ("trace", "Show events as they happen"),
];

const fn verb(
    category: &'static str,
    name: &'static str,
    image: &'static str,
    about: &'static str,
    flags: &'static [&'static [OldFlag]],
) -> Verb {
    Verb { category, name, image, about, flags }
}

const fn switch(long: &'static str, short: Option<char>, to: To) -> OldFlag {
    OldFlag { long, short, value: false, to }
}

const fn value(long: &'static str, short: Option<char>, to: To) -> OldFlag {
    OldFlag { long, short, value: true, to }
}

/// Of every `top`.
const TOP: &[OldFlag] =
    &[value("interval", None, To::Seconds("interval")), value("max-rows", Some('m'), To::Flag("max-entries"))];

const BY_PORTS: &str = "connections are chosen by their ports: --sport, --dport";

pub(super) const VERBS: &[Verb] = &[
    verb(
        "advise",
        "network-policy",
        "advise_networkpolicy",
        "Kubernetes network policies from the traffic of pods",
        &[],
    ),
    verb("advise", "seccomp-profile", "advise_seccomp", "Seccomp profiles from the system calls of containers", &[]),
    verb("audit", "seccomp", "audit_seccomp", "System calls that seccomp stopped or logged", &[]),
    verb("profile", "block-io", "profile_blockio", "How long disks take, as a histogram", &[]),
    verb(
        "profile",
        "cpu",
        "profile_cpu",
        "Where the CPUs spend their time, by stack",
        &[&[
            switch("user-stack", Some('U'), To::Flag("user-stacks-only")),
            switch("kernel-stack", Some('K'), To::Flag("kernel-stacks-only")),
        ]],
    ),
    verb(
        "profile",
        "tcprtt",
        "profile_tcprtt",
        "Round-trip times of TCP, as a histogram",
        &[&[
            switch("milliseconds", Some('m'), To::Flag("ms")),
            value("lport", Some('p'), To::Flag("sport")),
            value("rport", Some('P'), To::Flag("dport")),
            value("laddr", Some('a'), To::Nothing(BY_PORTS)),
            value("raddr", Some('A'), To::Nothing(BY_PORTS)),
            switch("byladdr", Some('b'), To::Nothing(BY_PORTS)),
            switch("byraddr", Some('B'), To::Nothing(BY_PORTS)),
        ]],
    ),
    verb("snapshot", "file", "snapshot_file", "Files that are open", &[]),
    verb(
        "snapshot",
        "process",
        "snapshot_process",
        "Processes that are running",
        &[&[switch("threads", Some('t'), To::Flag("threads"))]],
    ),
    verb(
        "snapshot",
        "socket",
        "snapshot_socket",
        "TCP and UDP sockets",
        &[&[switch("extend", None, To::Shown { param: None, fields: &["ino", "netns_id"] })]],
    ),
    verb("top", "block-io", "top_blockio", "Processes by what they read from and write to disks", &[TOP]),
    verb("top", "ebpf", "bpfstats", "eBPF programs by the time they take", &[TOP]),
    verb("top", "file", "top_file", "Files by what is read from and written to them", &[TOP]),
    verb("top", "process", "top_process", "Processes by CPU and memory", &[TOP]),
    verb(
        "top",
        "tcp",
        "top_tcp",
        "TCP connections by what they send and receive",
        &[TOP, &[value("family", Some('f'), To::Flag("family"))]],
    ),
    verb(
        "trace",
        "bind",
        "trace_bind",
        "Sockets that are bound to an address",
        &[&[
            value("ports", Some('P'), To::Flag("ports")),
            switch("ignore-errors", Some('i'), To::Flag("ignore-errors")),
        ]],
    ),
    verb("trace", "capabilities", "trace_capabilities", "Checks of capabilities", &[]),
    verb(
        "trace",
        "dns",
        "trace_dns",
        "DNS queries and responses",
        &[&[value(
            "dns-timeout",
            None,
            To::Nothing("a response carries its latency however late it is; leave the flag out"),
        )]],
    ),
    verb(
        "trace",
        "exec",
        "trace_exec",
        "Programs that are started",
        &[&[
            switch("cwd", None, To::Shown { param: Some("paths"), fields: &["cwd"] }),
            switch("ignore-errors", None, To::Flag("ignore-failed")),
        ]],
    ),
    verb("trace", "init-module", "trace_init_module", "Kernel modules that are loaded", &[]),
    verb("trace", "link", "trace_link", "Hard and symbolic links that are made", &[]),
    verb("trace", "lsm", "trace_lsm", "Calls of security hooks", &[]),
    verb("trace", "malloc", "trace_malloc", "Memory that is allocated and freed", &[]),
    verb("trace", "mount", "trace_mount", "File systems that are mounted and unmounted", &[]),
    verb("trace", "oomkill", "trace_oomkill", "Processes that the kernel kills for want of memory", &[]),
    verb(
        "trace",
        "open",
        "trace_open",
        "Files that are opened",
        &[&[switch("full-path", None, To::Shown { param: Some("paths"), fields: &["fpath"] })]],
    ),
    verb(
        "trace",
        "signal",
        "trace_signal",
        "Signals that are sent",
        &[&[
            switch("failed-only", Some('f'), To::Flag("failed")),
            switch("kill-only", Some('k'), To::Flag("kill-only")),
        ]],
    ),
    verb("trace", "sni", "trace_sni", "Server names in TLS handshakes", &[]),
    verb("trace", "ssl", "trace_ssl", "What programs send and receive through TLS libraries", &[]),
    verb("trace", "tcp", "trace_tcp", "TCP connections that are made, accepted and closed", &[]),
    verb("trace", "tcpconnect", "trace_tcpconnect", "TCP connections that are made, and how long it took", &[]),
    verb("trace", "tcpdrop", "trace_tcpdrop", "TCP packets that the kernel drops", &[]),
    verb("trace", "tcpretrans", "trace_tcpretrans", "TCP packets that are sent again", &[]),
    verb("", "traceloop", "traceloop", "The last system calls of containers", &[]),
];

/// Commands that have no gadget.
pub(super) const GONE: &[Gone] = &[
    Gone {
        category: "",
        name: "prometheus",
        hint: "metrics are not exported; -o json of `ig run GADGET` can be fed to a collector",
    },
    Gone { category: "", name: "script", hint: "run the script with bpftrace itself" },
    Gone {
        category: "trace",
        name: "fsslower",
        hint: "no gadget measures single file operations; `ig profile block-io` shows how long disks take",
    },
    Gone {
        category: "trace",
        name: "network",
        hint: "`ig advise network-policy` gathers who talks to whom, and `ig trace tcp` shows connections",
    },
];

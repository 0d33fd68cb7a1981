//! The places in the kernel that programs are attached to, as section names spell them.

/// Where a program is to be attached.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Hook {
    Tracepoint {
        category: String,
        name: String,
    },
    RawTracepoint {
        name: String,
    },
    BtfTracepoint {
        name: String,
    },
    Kprobe {
        function: String,
        ret: bool,
    },
    Fentry {
        function: String,
        exit: bool,
    },
    Lsm {
        hook: String,
    },
    Iter {
        target: String,
    },
    PerfEvent {
        name: String,
    },
    Uprobe {
        path: String,
        symbol: String,
        ret: bool,
    },
    SocketFilter {
        section: String,
    },
    Classifier {
        section: String,
    },
    /// Of a control group: `cgroup/…` and `sockops`. Only the host's own objects get to attach there.
    Cgroup {
        section: String,
    },
    /// A section name this host does not know.
    Unknown {
        section: String,
    },
}

impl Hook {
    /// From a section name, or a section name's first part and an overriding target.
    pub fn parse(section: &str) -> Hook {
        let (kind, rest) = section.split_once('/').unwrap_or((section, ""));
        let owned = rest.to_owned();
        match kind.trim_end_matches(".s") {
            "tracepoint" | "tp" => match rest.split_once('/') {
                Some((c, n)) => Hook::Tracepoint { category: c.into(), name: n.into() },
                None => Hook::Unknown { section: section.into() },
            },
            "raw_tp" | "raw_tracepoint" => Hook::RawTracepoint { name: owned },
            "tp_btf" => Hook::BtfTracepoint { name: owned },
            "kprobe" => Hook::Kprobe { function: owned, ret: false },
            "kretprobe" => Hook::Kprobe { function: owned, ret: true },
            "fentry" => Hook::Fentry { function: owned, exit: false },
            "fexit" => Hook::Fentry { function: owned, exit: true },
            "lsm" => Hook::Lsm { hook: owned },
            "iter" => Hook::Iter { target: owned },
            "perf_event" => Hook::PerfEvent { name: owned },
            k @ ("uprobe" | "uretprobe") => {
                let (path, symbol) = rest.rsplit_once(':').unwrap_or((rest, ""));
                Hook::Uprobe { path: path.into(), symbol: symbol.into(), ret: k == "uretprobe" }
            }
            k if k.starts_with("socket") => Hook::SocketFilter { section: section.into() },
            "classifier" | "tc" | "action" => Hook::Classifier { section: section.into() },
            "cgroup" | "sockops" => Hook::Cgroup { section: section.into() },
            _ => Hook::Unknown { section: section.into() },
        }
    }

    /// The same kind of hook at another target (`attach_to` of gadget.yaml).
    pub fn retarget(&self, target: &str) -> Hook {
        let prefix = match self {
            Hook::Tracepoint { .. } => "tracepoint",
            Hook::RawTracepoint { .. } => "raw_tp",
            Hook::BtfTracepoint { .. } => "tp_btf",
            Hook::Kprobe { ret: false, .. } => "kprobe",
            Hook::Kprobe { ret: true, .. } => "kretprobe",
            Hook::Fentry { exit: false, .. } => "fentry",
            Hook::Fentry { exit: true, .. } => "fexit",
            Hook::Lsm { .. } => "lsm",
            Hook::Iter { .. } => "iter",
            Hook::PerfEvent { .. } => "perf_event",
            Hook::Uprobe { ret: false, .. } => "uprobe",
            Hook::Uprobe { ret: true, .. } => "uretprobe",
            Hook::SocketFilter { .. } | Hook::Classifier { .. } | Hook::Cgroup { .. } | Hook::Unknown { .. } => {
                return self.clone();
            }
        };
        Hook::parse(&format!("{prefix}/{target}"))
    }
}

impl std::fmt::Display for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Hook::Tracepoint { category, name } => write!(f, "tracepoint/{category}/{name}"),
            Hook::RawTracepoint { name } => write!(f, "raw_tp/{name}"),
            Hook::BtfTracepoint { name } => write!(f, "tp_btf/{name}"),
            Hook::Kprobe { function, ret } => write!(f, "{}/{function}", if *ret { "kretprobe" } else { "kprobe" }),
            Hook::Fentry { function, exit } => {
                write!(f, "{}/{function}", if *exit { "fexit" } else { "fentry" })
            }
            Hook::Lsm { hook } => write!(f, "lsm/{hook}"),
            Hook::Iter { target } => write!(f, "iter/{target}"),
            Hook::PerfEvent { name } => write!(f, "perf_event/{name}"),
            Hook::Uprobe { path, symbol, ret } => {
                write!(f, "{}/{path}:{symbol}", if *ret { "uretprobe" } else { "uprobe" })
            }
            Hook::SocketFilter { section }
            | Hook::Classifier { section }
            | Hook::Cgroup { section }
            | Hook::Unknown { section } => f.write_str(section),
        }
    }
}

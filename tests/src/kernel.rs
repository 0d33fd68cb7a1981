//! What BPF objects a process holds, and which of them the kernel still has.

use std::{collections::BTreeSet, path::Path, process::Command};

/// Kernel ids of programs, maps and links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    pub programs: BTreeSet<u64>,
    pub maps: BTreeSet<u64>,
    pub links: BTreeSet<u64>,
}

impl Objects {
    /// Those that process `pid` holds, from its file descriptors: nobody else's are mixed in.
    pub fn of(pid: u32) -> Objects {
        let mut o = Objects::default();
        let dir = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("the process runs");
        for entry in dir.flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let number = |key: &str| {
                text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':')?.trim().parse::<u64>().ok())
            };
            o.links.extend(number("link_id"));
            o.maps.extend(number("map_id"));
            o.programs.extend(number("prog_id"));
        }
        o
    }

    pub fn is_empty(&self) -> bool {
        self.programs.is_empty() && self.maps.is_empty() && self.links.is_empty()
    }

    /// Those of them that the kernel still has.
    pub fn still_there(&self) -> Objects {
        Objects {
            programs: self.programs.intersection(&listed("prog")).copied().collect(),
            maps: self.maps.intersection(&listed("map")).copied().collect(),
            links: self.links.intersection(&listed("link")).copied().collect(),
        }
    }
}

fn listed(kind: &str) -> BTreeSet<u64> {
    let out = Command::new("bpftool").args(["-j", kind, "list"]).output().expect("bpftool (Debian package bpftool)");
    assert!(out.status.success(), "bpftool {kind} list: {}", String::from_utf8_lossy(&out.stderr));
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&out.stdout).expect("bpftool's JSON");
    rows.iter().filter_map(|r| r["id"].as_u64()).collect()
}

/// Everything pinned in bpffs.
pub fn pins() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    walk(Path::new("/sys/fs/bpf"), &mut found);
    found
}

fn walk(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            walk(&entry.path(), found);
        }
        found.insert(entry.path().display().to_string());
    }
}

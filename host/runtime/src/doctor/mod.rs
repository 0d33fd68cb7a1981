//! What this host can do: every check that `ig doctor` shows, as data.
//!
//! Facts are gathered by really trying (programs are loaded, the tracker is started, sockets are asked), and turned into
//! checks by pure functions, so that each case can be tested. Runs on the caller's thread, for some seconds at most, and
//! leaves nothing behind. Works without privileges and says what it could not look at. Prints nothing.

mod containers;
mod kernel;
mod place;
mod privileges;

use crate::{bpf::KernelBtf, containers::ContainersOptions};
use serde::Serialize;
use std::path::PathBuf;

/// What the caller knows.
#[derive(Clone, Debug)]
pub struct DoctorOptions {
    pub containers: ContainersOptions,
    /// The OCI store's directory; it need not exist yet. An error: why there is no place for one.
    pub store: Result<PathBuf, String>,
    /// Whether a run would mount missing file systems.
    pub auto_mount: bool,
    /// Gadgets embedded in this binary.
    pub catalogue: usize,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    /// Some gadgets, or some of what they could tell, will be missing.
    Warn,
    /// No gadget can run.
    Fail,
    /// Could not be looked at.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: String,
    pub status: Status,
    pub finding: String,
    /// What to do about it, in one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Check {
    fn new(name: impl Into<String>, status: Status, finding: impl Into<String>) -> Check {
        Check { name: name.into(), status, finding: finding.into(), remedy: None }
    }

    fn ok(name: impl Into<String>, finding: impl Into<String>) -> Check {
        Check::new(name, Status::Ok, finding)
    }

    fn warn(name: impl Into<String>, finding: impl Into<String>) -> Check {
        Check::new(name, Status::Warn, finding)
    }

    fn fail(name: impl Into<String>, finding: impl Into<String>) -> Check {
        Check::new(name, Status::Fail, finding)
    }

    fn unknown(name: impl Into<String>, finding: impl Into<String>) -> Check {
        Check::new(name, Status::Unknown, finding)
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Check {
        self.remedy = Some(remedy.into());
        self
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    pub name: &'static str,
    pub checks: Vec<Check>,
}

/// All checks, in the order in which they are shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Gadgets can run here.
    pub ready: bool,
    /// Names of the checks that failed.
    pub missing: Vec<String>,
    pub groups: Vec<Group>,
}

impl Report {
    pub fn new(groups: Vec<Group>) -> Report {
        let failed = |c: &&Check| c.status == Status::Fail;
        let missing: Vec<String> =
            groups.iter().flat_map(|g| &g.checks).filter(failed).map(|c| c.name.clone()).collect();
        Report { ready: missing.is_empty(), missing, groups }
    }
}

/// True where this process has CAP_SYS_ADMIN, without which most containers can neither mount nor load anything.
pub fn has_sys_admin() -> bool {
    privileges::Privileges::own().has_sys_admin()
}

/// Looks at everything.
pub fn examine(options: &DoctorOptions) -> Report {
    let btf = KernelBtf::new();
    let privileges = privileges::Privileges::own();
    let (tracker, runtimes) = containers::checks(&options.containers, &privileges, &btf);
    let programs = kernel::programs(&privileges, &btf);
    Report::new(vec![
        Group { name: "kernel", checks: kernel::checks(&btf) },
        Group { name: "privileges", checks: privileges::checks(&privileges) },
        Group { name: "programs and hooks", checks: programs },
        Group { name: "file systems", checks: place::filesystems(options.auto_mount) },
        Group { name: "host", checks: place::host(&options.containers.host_root) },
        Group { name: "container tracker", checks: tracker },
        Group { name: "container runtimes", checks: runtimes },
        Group {
            name: "images",
            checks: place::images(options.store.as_deref().map_err(String::as_str), options.catalogue),
        },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_ready_unless_something_failed() {
        let group = |checks| vec![Group { name: "g", checks }];
        let fine = Report::new(group(vec![Check::ok("a", ""), Check::warn("b", ""), Check::unknown("c", "")]));
        assert!(fine.ready && fine.missing.is_empty());
        let bad = Report::new(group(vec![Check::ok("a", ""), Check::fail("root", "")]));
        assert!(!bad.ready);
        assert_eq!(bad.missing, ["root"]);
    }
}

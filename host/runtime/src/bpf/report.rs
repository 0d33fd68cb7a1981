//! What became of an object's programs, and why it could not be loaded: the words that users read.
//!
//! Only data: nothing here asks the kernel.

use super::{attach::AttachError, btf::KernelBtfError, core_reloc::CoreError, prepare::PrepareError};
use aya::EbpfError;
use std::io;

/// Lines of the verifier's log that a message shows; all of it is in the error.
const LOG_TAIL: usize = 8;
/// Programs that a message names of those refused for one reason.
const NAMED: usize = 3;

/// Why an object could not be loaded at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{image}: {source}")]
    KernelBtf { image: String, source: KernelBtfError },
    #[error("{image}: {source}")]
    Core { image: String, source: CoreError },
    #[error("{image}: {source}")]
    Prepare { image: String, source: PrepareError },
    #[error("{image}: there is no map {map}")]
    NoMap { image: String, map: String },
    #[error("{image}: there is no program {program}")]
    NoProgram { image: String, program: String },
    #[error("{image}: {target:?} is no place that program {program} could be attached to")]
    BadTarget { image: String, program: String, target: String },
    #[error("{image}: a buffer of {bytes} bytes is not possible: it must be a power of two, at least one page (4096)")]
    RingSize { image: String, bytes: u32 },
    #[error("{image}: cannot prepare the injection of maps")]
    Inject { image: String, source: io::Error },
    #[error("{image}: the map injected as {map} is of another shape ({found}, wanted {wanted})")]
    InjectShape { image: String, map: String, found: String, wanted: String },
    #[error("{image}: cannot use map {map}")]
    Map { image: String, map: String, source: io::Error },
    #[error("{image}: cannot create its maps or link its programs")]
    Create { image: String, source: Box<EbpfError> },
    #[error("{image}: not permitted to load BPF programs")]
    NotPermitted { image: String, source: io::Error },
    #[error("{image}: all of its programs are switched off")]
    AllOff {
        image: String,
        /// A flag that would switch one on.
        flag: Option<String>,
    },
    #[error("{image}: no program could be started{}", list(.reports))]
    NothingStarted { image: String, reports: Vec<ProgramReport> },
    #[error("{image}: none of the ways to do {job} works{}", list(.reports))]
    NoAlternative { image: String, job: String, reports: Vec<ProgramReport> },
    #[error("{image}: the kernel refused program {program} ({hook}){}", tail(.log))]
    Verifier { image: String, program: String, hook: String, log: String, source: io::Error },
}

impl LoadError {
    pub fn hint(&self) -> Option<String> {
        match self {
            LoadError::KernelBtf { source, .. } => source.hint(),
            LoadError::NotPermitted { .. } => Some("run as root".into()),
            LoadError::AllOff { image, flag } => {
                let such_as = flag.as_ref().map_or(String::new(), |flag| format!(", such as --{flag}"));
                Some(format!("`ig run {image} --help` lists the flags that choose what is to be looked at{such_as}"))
            }
            LoadError::Verifier { log, .. } if log.contains("195896080") => {
                Some("the gadget reads a field or type that this kernel does not have".into())
            }
            LoadError::Verifier { log, .. } if log.lines().count() > LOG_TAIL => {
                Some("-v shows all of the verifier's log".into())
            }
            LoadError::NothingStarted { reports, .. } | LoadError::NoAlternative { reports, .. } => {
                reports.iter().find_map(|r| match &r.state {
                    State::Skipped { hint, .. } => hint.clone(),
                    _ => None,
                })
            }
            _ => None,
        }
    }

    /// All of the verifier's log, where there is one.
    pub fn log(&self) -> Option<&str> {
        match self {
            LoadError::Verifier { log, .. } => Some(log),
            _ => None,
        }
    }
}

fn list(reports: &[ProgramReport]) -> String {
    skips(reports).iter().map(|s| format!("\n  {}: {}", s.programs(), s.reason)).collect()
}

/// Programs that were skipped for one reason: a gadget may have two hundred that all lack the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    pub reason: String,
    pub hint: Option<String>,
    /// Each as its name and hook.
    pub programs: Vec<(String, String)>,
}

impl Skip {
    fn programs(&self) -> String {
        let named: Vec<String> =
            self.programs.iter().take(NAMED).map(|(name, hook)| format!("{name} ({hook})")).collect();
        match self.programs.len().saturating_sub(NAMED) {
            0 => named.join(", "),
            more => format!("{} and {more} more", named.join(", ")),
        }
    }
}

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (noun, verb) = if self.programs.len() == 1 { ("program", "was") } else { ("programs", "were") };
        write!(f, "{noun} {} {verb} skipped: {}", self.programs(), self.reason)?;
        self.hint.as_ref().map_or(Ok(()), |h| write!(f, "; {h}"))
    }
}

/// The programs that were skipped, by reason, in the order in which the reasons come.
pub fn skips(reports: &[ProgramReport]) -> Vec<Skip> {
    let mut out: Vec<Skip> = Vec::new();
    for r in reports {
        let State::Skipped { reason, hint } = &r.state else { continue };
        let program = (r.name.clone(), r.hook.clone());
        match out.iter_mut().find(|s| s.reason == *reason) {
            Some(s) => s.programs.push(program),
            None => out.push(Skip { reason: reason.clone(), hint: hint.clone(), programs: vec![program] }),
        }
    }
    out
}

pub(super) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|l| !l.trim().is_empty()).collect();
    let shown = &lines[lines.len().saturating_sub(LOG_TAIL)..];
    shown.iter().map(|l| format!("\n  {l}")).collect()
}

/// What became of a program.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    Loaded,
    Attached,
    /// A uprobe that the caller attaches wherever its file is.
    PerFile,
    Skipped {
        reason: String,
        hint: Option<String>,
    },
    /// Switched off by gadget.yaml.
    Disabled,
    /// Another alternative for the same job is in use.
    NotNeeded,
}

/// One program's fate, for stderr and `inspect`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ProgramReport {
    pub name: String,
    pub hook: String,
    #[serde(flatten)]
    pub state: State,
    /// All of the verifier's log, where it refused the program.
    #[serde(skip)]
    pub log: Option<String>,
}

impl ProgramReport {
    pub fn is_attached(&self) -> bool {
        self.state == State::Attached
    }
}

pub(super) fn skipped(e: &AttachError) -> State {
    State::Skipped { reason: with_causes(e), hint: e.hint() }
}

fn with_causes(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut next = e.source();
    while let Some(s) = next {
        text.push_str(": ");
        text.push_str(&s.to_string());
        next = s.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_programs_lack_is_said_once() {
        let skipped = |name: &str, reason: &str| ProgramReport {
            name: name.into(),
            hook: format!("lsm/{name}"),
            state: State::Skipped { reason: reason.into(), hint: None },
            log: None,
        };
        let mut reports: Vec<_> = ["a", "b", "c", "d", "e"].iter().map(|n| skipped(n, "no hooks")).collect();
        reports.insert(1, skipped("x", "refused"));
        let said: Vec<String> = skips(&reports).iter().map(Skip::to_string).collect();
        assert_eq!(
            said,
            [
                "programs a (lsm/a), b (lsm/b), c (lsm/c) and 2 more were skipped: no hooks",
                "program x (lsm/x) was skipped: refused"
            ]
        );
        let e = LoadError::NothingStarted { image: "g".into(), reports };
        assert_eq!(
            e.to_string(),
            "g: no program could be started\n  a (lsm/a), b (lsm/b), c (lsm/c) and 2 more: no hooks\n  x (lsm/x): refused"
        );
    }
}

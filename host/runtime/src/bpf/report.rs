//! What became of an object's programs, and why it could not be loaded: the words that users read.
//!
//! Only data: nothing here asks the kernel.

use super::{attach::AttachError, btf::KernelBtfError, core_reloc::CoreError, prepare::PrepareError};
use aya::EbpfError;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

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

/// What a run cannot do here, because programs were skipped and no other does their work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// In the gadget's own words.
    pub what: String,
    pub skips: Vec<Skip>,
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let skips: Vec<String> = self.skips.iter().map(Skip::to_string).collect();
        write!(f, "{}: {}", self.what, skips.join("; "))
    }
}

/// What gadget.yaml says of programs that may be skipped.
#[derive(Clone, Debug, Default)]
pub struct Roles {
    /// By program, what is lost without it. Programs with the same words stand in for each other.
    pub without: BTreeMap<String, String>,
    /// Programs of which another may do the job.
    pub replaceable: BTreeSet<String>,
}

/// Programs that were skipped, by what that means for the run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Something is lost, and it is known what.
    pub gaps: Vec<Gap>,
    /// Something is lost.
    pub unexplained: Vec<Skip>,
    /// Others do their work.
    pub replaced: Vec<Skip>,
}

impl Roles {
    /// Sorts the programs that were skipped in a run in which every job has found its programs.
    pub fn sort(&self, reports: &[ProgramReport]) -> Skipped {
        let at_work = |words: &String| {
            let mut same = reports.iter().filter(|r| self.without.get(&r.name) == Some(words));
            same.any(|r| matches!(r.state, State::Attached | State::PerFile))
        };
        let (mut lost, mut unexplained, mut replaced) = (Vec::<(&String, Vec<_>)>::new(), Vec::new(), Vec::new());
        for r in reports.iter().filter(|r| matches!(r.state, State::Skipped { .. })) {
            match self.without.get(&r.name) {
                Some(words) if at_work(words) => replaced.push(r.clone()),
                Some(words) => match lost.iter_mut().find(|(w, _)| *w == words) {
                    Some((_, programs)) => programs.push(r.clone()),
                    None => lost.push((words, vec![r.clone()])),
                },
                None if self.replaceable.contains(&r.name) => replaced.push(r.clone()),
                None => unexplained.push(r.clone()),
            }
        }
        let gaps = lost.into_iter().map(|(what, programs)| Gap { what: what.clone(), skips: skips(&programs) });
        Skipped { gaps: gaps.collect(), unexplained: skips(&unexplained), replaced: skips(&replaced) }
    }
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
    fn what_is_lost_is_told_and_what_another_does_is_not() {
        let roles = Roles {
            without: [("best", "x is unknown"), ("old", "x is unknown"), ("extra", "y is unknown")]
                .map(|(p, w)| (p.to_owned(), w.to_owned()))
                .into(),
            replaceable: ["best", "old", "poor", "plain"].map(str::to_owned).into(),
        };
        let report = |name: &str, state| ProgramReport { name: name.into(), hook: "h".into(), state, log: None };
        let skipped = |name: &str| report(name, State::Skipped { reason: format!("no {name}"), hint: None });
        let all = |rest: Vec<ProgramReport>| {
            let mut all = vec![skipped("best"), skipped("plain"), skipped("other")];
            all.extend(rest);
            let Skipped { gaps, unexplained, replaced } = roles.sort(&all);
            let text = |s: &[Skip]| s.iter().map(Skip::to_string).collect::<Vec<_>>();
            (gaps.iter().map(Gap::to_string).collect::<Vec<_>>(), text(&unexplained), text(&replaced))
        };
        let other = "program other (h) was skipped: no other";
        let (gaps, unexplained, replaced) =
            all(vec![skipped("old"), report("poor", State::Attached), skipped("extra")]);
        assert_eq!(
            gaps,
            [
                "x is unknown: program best (h) was skipped: no best; program old (h) was skipped: no old",
                "y is unknown: program extra (h) was skipped: no extra"
            ]
        );
        assert_eq!(
            (unexplained, replaced),
            (vec![other.into()], vec!["program plain (h) was skipped: no plain".into()])
        );
        let (gaps, unexplained, replaced) = all(vec![report("old", State::Attached), report("extra", State::PerFile)]);
        assert_eq!((gaps, unexplained), (vec![], vec![other.into()]));
        assert_eq!(replaced.len(), 2);
    }

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

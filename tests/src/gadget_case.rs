//! Reads and runs `gadgets/*/test.yaml`: real workloads in containers, and the rows a gadget must make of them.
//! The format: `docs/reference/test-yaml.md`.

mod place;

pub use place::{Container, Engine, PROBED, Place, patience, workload_files};

use crate::{
    ig::{Finished, Ig, READY, Running, at},
    kernel_feature::Feature,
};
use place::{SHOWN, run_under};
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Output,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    libraries: Option<Vec<String>>,
    #[serde(default)]
    musl: bool,
    tests: Vec<Case>,
}

/// One test of a gadget.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    #[serde(default)]
    params: BTreeMap<String, String>,
    script: String,
    #[serde(default)]
    hold: bool,
    #[serde(default)]
    docker: Vec<String>,
    #[serde(default)]
    needs: Vec<Feature>,
    #[serde(default)]
    seen_with: Vec<Feature>,
    seconds: Option<u32>,
    #[serde(default)]
    expect: Vec<Match>,
    #[serde(default)]
    forbid: Vec<Match>,
    /// Exactly these documents: none, where none are named.
    #[serde(default)]
    documents: Vec<Paper>,
    /// Where the run is recorded.
    #[serde(skip)]
    recording: Option<PathBuf>,
}

/// A document that the gadget must write.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Paper {
    name: String,
    #[serde(default)]
    contains: Vec<String>,
    #[serde(default)]
    lacks: Vec<String>,
    /// What the script prints when it is run once more, under this document as its seccomp profile.
    seccomp: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Match {
    source: String,
    row: BTreeMap<String, Value>,
    times: Option<usize>,
    /// Asked for only where the kernel has all of these.
    #[serde(default)]
    with: Vec<Feature>,
    /// Asked for only where the kernel lacks one of these.
    #[serde(default)]
    without: Vec<Feature>,
}

/// The names of all gadgets of the repository, sorted.
pub fn gadgets() -> Vec<String> {
    names(&crate::source_root().join("gadgets"))
}

/// The folders of gadgets below `dir`, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let mut found: Vec<String> = std::fs::read_dir(dir)
        .expect("a folder of gadgets")
        .flatten()
        .filter(|e| e.path().join("gadget.yaml").is_file())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    found.sort();
    found
}

fn parse(folder: &Path) -> File {
    let path = folder.join("test.yaml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The tests of a gadget's folder; panics on a file that is not as documented.
pub fn read(folder: &Path) -> Vec<Case> {
    let path = folder.join("test.yaml");
    let file = parse(folder);
    assert!(!file.tests.is_empty(), "{} holds no test", path.display());
    let yaml = std::fs::read_to_string(folder.join("gadget.yaml")).unwrap_or_default();
    for case in &file.tests {
        let name = &case.name;
        assert!(
            !case.expect.is_empty() || !case.forbid.is_empty() || !case.documents.is_empty(),
            "{}: test {name:?} expects nothing",
            path.display()
        );
        assert!(
            case.forbid.iter().all(|m| m.times.is_none()),
            "{}: test {name:?}: times is for expect only",
            path.display()
        );
        assert!(
            case.needs.iter().all(|f| f.is_hook()),
            "{}: test {name:?}: no gadget is refused for what is no hook",
            path.display()
        );
        assert_eq!(file.tests.iter().filter(|c| c.name == *name).count(), 1, "{}: two tests {name:?}", path.display());
        for m in case.expect.iter().chain(&case.forbid) {
            // Rows do not name their source; our gadgets have one each, which must be the one that is meant.
            assert!(yaml.contains(&format!("\n  {}:\n", m.source)), "{}: no data source {}", path.display(), m.source);
        }
    }
    file.tests
}

/// What became of a case.
#[derive(Debug)]
pub enum Verdict {
    /// All as expected; what `ig -v` said.
    Passed {
        stderr: String,
    },
    /// The gadget cannot run on this kernel; what `ig` said.
    Refused {
        stderr: String,
    },
    Failed(String),
}

impl Case {
    /// What the case needs and the kernel of this machine lacks.
    pub fn lacking(&self) -> Option<Feature> {
        self.needs.iter().find(|n| !n.is_here()).copied()
    }

    /// True for a case that asks for something that not every kernel has.
    pub fn has_needs(&self) -> bool {
        !self.needs.is_empty() || !self.seen_with.is_empty()
    }

    /// What there is to be seen only with a feature that this kernel lacks.
    fn blind_for_lack_of(&self) -> Option<Feature> {
        self.seen_with.iter().find(|n| !n.is_here()).copied()
    }

    /// What the case does not ask for on this kernel, and why; to be said wherever it runs.
    pub fn not_asked_here(&self) -> Vec<String> {
        let nothing = self.blind_for_lack_of().map(|f| format!("nothing to be seen: this kernel has no {}", f.word()));
        let fewer = |(what, all): (&str, &[Match])| {
            let lacking: Vec<&str> = all.iter().filter_map(|m| Some(m.lacking()?.word())).collect();
            let why = lacking.first()?;
            Some(format!("{} of {} in {what} not asked for: this kernel has no {why}", lacking.len(), all.len()))
        };
        let fewer = [("expect", &self.expect[..]), ("forbid", &self.forbid[..])].into_iter().filter_map(fewer);
        nothing.into_iter().chain(fewer).collect()
    }

    /// True for a case that would find something elsewhere, and finds nothing on this kernel by its own words: that it passes
    /// says nothing of the gadget.
    pub fn shows_nothing_here(&self) -> bool {
        let none =
            !self.expect.is_empty() && self.documents.is_empty() && !self.expect.iter().any(Match::is_asked_here);
        none || self.blind_for_lack_of().is_some()
    }

    /// Records the run as well.
    pub fn record(&mut self, file: &Path) {
        self.recording = Some(file.to_owned());
    }

    /// Whether rows are expected on this kernel.
    pub fn shows_rows(&self) -> bool {
        let asked = self.expect.iter().any(Match::is_asked_here);
        asked && self.blind_for_lack_of().is_none() && self.lacking().is_none()
    }

    /// Runs the workload under the gadget; gives what is wrong, or what `ig -v` said. Where the kernel lacks what the case
    /// needs, the gadget must be refused.
    pub fn run(&self, gadget: &str, engine: &dyn Engine, container: &str) -> Result<String, String> {
        let lacking = self.lacking();
        match (self.attempt(gadget, engine, container), lacking) {
            (Verdict::Refused { stderr }, Some(need)) if error(&stderr).to_lowercase().contains(need.word()) => {
                Ok(stderr)
            }
            (verdict, Some(need)) => Err(format!("without {need:?} it must be refused and name that: {verdict:?}")),
            (Verdict::Passed { stderr }, None) => Ok(stderr),
            (Verdict::Refused { stderr }, None) => Err(format!("ig could not run it:\n{stderr}")),
            (Verdict::Failed(why), None) => Err(why),
        }
    }

    /// The gadget with the case's parameters.
    pub fn command(&self, gadget: &str) -> Ig {
        let ig = Ig::new(&["run", gadget, "-o", "json", "--ledger", "-v"]);
        let ig = self.recording.iter().fold(ig, |ig, file| ig.arg(format!("--record={}", file.display())));
        self.params.iter().fold(ig, |ig, (key, value)| ig.arg(format!("--{key}={value}")))
    }

    /// Runs the workload under the gadget, whatever the case says of its needs.
    pub fn attempt(&self, gadget: &str, engine: &dyn Engine, container: &str) -> Verdict {
        let mut ig = self.command(gadget);
        for flag in engine.flags() {
            ig = ig.arg(flag);
        }
        if let Some(seconds) = self.seconds {
            ig = ig.arg(format!("--timeout={seconds}"));
        }
        if !self.documents.is_empty() {
            // Other containers of the machine would have theirs.
            ig = ig.arg(format!("--containername={container}"));
        }
        let probed = tempfile::tempdir().expect("a temporary directory");
        let container =
            Container { name: container, options: &self.docker, script: &self.script, probed: probed.path() };
        let (done, script) = match self.hold {
            true => (run_held(ig, engine, &container), None),
            false => self.run_live(ig, engine, &container),
        };
        match done.code() {
            0 => {}
            3 if is_refusal(&done.stderr) => return Verdict::Refused { stderr: done.stderr },
            _ => return Verdict::Failed(format!("ig ended with {}:\n{}", done.status, done.stderr)),
        }
        let ledger = done.ledger();
        ledger.check();
        if ledger.lost_total() > 0 {
            return Verdict::Failed(format!("events were lost: {ledger:?}"));
        }
        let is_document = |r: &Value| r["mediaType"].is_string() && !r["document"].is_null();
        let (documents, rows): (Vec<Value>, Vec<Value>) = done.rows().into_iter().partition(is_document);
        let judged = self.judge(&rows, container.name);
        match judged.and_then(|()| self.judge_documents(&documents, engine, &container)) {
            Ok(()) => Verdict::Passed { stderr: done.stderr },
            // The account says whether rows that are missing were seen at all, and the script whether there was anything to see.
            Err(why) => {
                let script = script.map(|out| became_of(&out)).unwrap_or_default();
                Verdict::Failed(format!("{why}\n{ledger:?}\nig said:\n{}\n{script}", done.stderr))
            }
        }
    }

    /// Gadget first, then the script, then the gadget is stopped. No output of the script where the gadget did not run.
    fn run_live(&self, ig: Ig, engine: &dyn Engine, container: &Container<'_>) -> (Finished, Option<Output>) {
        let mut running: Running = ig.start();
        if let Some(ended) = running.wait_ready_or_end() {
            return (ended, None);
        }
        let over = AtomicBool::new(false);
        let script = std::thread::scope(|s| {
            s.spawn(|| self.tell_script(&running, container, &over));
            // Also after a panic, which would wait for the thread else.
            let _over = Over(&over);
            engine.run(container)
        });
        // One with a time of its own is let end by itself, so that what it shows last is the table of the whole time.
        let done = if self.seconds.is_some() { running.wait() } else { running.stop() };
        (done, Some(script))
    }

    /// Makes the files that the script may wait for.
    fn tell_script(&self, ig: &Running, container: &Container<'_>, over: &AtomicBool) {
        let line = format!("container {}: ", container.name);
        let probed = || ig.stderr().lines().any(|l| l.strip_prefix(&line).is_some_and(|rest| rest.contains(" probes")));
        // The last line may not be whole yet.
        let rows = || ig.stdout().lines().filter_map(|l| serde_json::from_str(l).ok()).collect::<Vec<Value>>();
        let shown = || self.judge(&flat(rows()), container.name).is_ok();
        let (mut is_probed, mut is_shown) = (false, !container.script.contains(SHOWN));
        while !(over.load(Ordering::Acquire) || is_probed && is_shown) {
            for (done, check, file) in
                [(&mut is_probed, &probed as &dyn Fn() -> bool, "now"), (&mut is_shown, &shown, "shown")]
            {
                if !*done && check() {
                    std::fs::write(container.probed.join(file), "").expect("a writable directory");
                    *done = true;
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn judge_documents(
        &self,
        documents: &[Value],
        engine: &dyn Engine,
        container: &Container<'_>,
    ) -> Result<(), String> {
        if documents.len() != self.documents.len() {
            return Err(format!("{} documents instead of {}: {documents:?}", documents.len(), self.documents.len()));
        }
        for paper in &self.documents {
            let name = paper.name.replace("{container}", container.name);
            let found = documents.iter().find(|d| d["name"] == name).ok_or_else(|| format!("no document {name}"))?;
            let text = found["document"].as_str().map_or_else(|| found["document"].to_string(), str::to_owned);
            let has = |t: &str| text.contains(&t.replace("{container}", container.name));
            let lacking = paper.contains.iter().find(|t| !has(t)).map(|t| format!("{name} lacks {t}: {text}"));
            let wrong = paper.lacks.iter().find(|t| has(t)).map(|t| format!("{name} has {t}: {text}"));
            if let Some(why) = lacking.or(wrong) {
                return Err(why);
            }
            if let Some(prints) = &paper.seccomp {
                run_under(&text, prints, engine, container)?;
            }
        }
        Ok(())
    }

    fn judge(&self, rows: &[Value], container: &str) -> Result<(), String> {
        let mut wrong = Vec::new();
        let blind = self.blind_for_lack_of().is_some();
        for m in self.expect.iter().filter(|m| m.is_asked_here()) {
            let found = rows.iter().filter(|r| m.matches(r, container)).count();
            match m.times {
                _ if blind && found == 0 => {}
                _ if blind => wrong.push(format!("{found} rows match {:?}, which cannot be seen here", m.row)),
                Some(n) if n != found => wrong.push(format!("{found} rows instead of {n} match {:?}", m.row)),
                None if found == 0 => wrong.push(format!("no row matches {:?}", m.row)),
                _ => {}
            }
        }
        for m in self.forbid.iter().filter(|m| m.is_asked_here()) {
            wrong.extend(
                rows.iter().find(|r| m.matches(r, container)).map(|r| format!("forbidden {:?} matches {r}", m.row)),
            );
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let shown: Vec<_> = rows.iter().take(40).map(|r| r.to_string().chars().take(600).collect::<String>()).collect();
        Err(format!("{}\namong {} rows:\n{}", wrong.join("\n"), rows.len(), shown.join("\n")))
    }
}

impl Match {
    /// A feature that this kernel lacks, for which the match is not asked for.
    fn lacking(&self) -> Option<Feature> {
        self.with.iter().find(|f| !f.is_here()).copied()
    }

    fn is_asked_here(&self) -> bool {
        self.lacking().is_none() && (self.without.is_empty() || self.without.iter().any(|f| !f.is_here()))
    }

    fn matches(&self, row: &Value, container: &str) -> bool {
        self.row.iter().all(|(field, wanted)| {
            let found = at(row, field);
            match wanted {
                _ if found.is_null() => false,
                Value::String(text) => is_text(&text.replace("{container}", container), found),
                other => other == found,
            }
        })
    }
}

/// Says that it is over when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Tables are arrays of rows.
fn flat(values: Vec<Value>) -> Vec<Value> {
    let rows = values.into_iter().flat_map(|v| match v {
        Value::Array(rows) => rows,
        row => vec![row],
    });
    rows.collect()
}

/// How a script ended, and the beginning of what it printed.
fn became_of(script: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).chars().take(4000).collect::<String>();
    format!("the script ended with {}:\n{}{}", script.status, text(&script.stdout), text(&script.stderr))
}

/// The script first, up to its line `READY`; then the gadget, to its end.
fn run_held(ig: Ig, engine: &dyn Engine, container: &Container<'_>) -> Finished {
    engine.start(container);
    let done = ig.run();
    engine.remove(container.name);
    done
}

/// Whether an `ig` that ended with 3 never ran the gadget. What goes wrong later has the same code: a disk that is full.
pub fn is_refusal(stderr: &str) -> bool {
    !stderr.lines().any(|l| l.contains(READY))
}

/// The error that `ig` ended with, and what it says of its reasons: not what `-v` said before.
pub fn error(stderr: &str) -> &str {
    let at = if stderr.starts_with("error: ") { Some(0) } else { stderr.find("\nerror: ").map(|at| at + 1) };
    at.map_or("", |at| &stderr[at..])
}

/// The hooks that `ig -v` says the gadget's programs are attached to, each once, in its order.
pub fn hooks(stderr: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let hook = |line: &'_ str| -> Option<String> {
        let (_name, rest) = line.strip_prefix("program ")?.split_once(' ')?;
        let of_file = || rest.strip_prefix("goes to ")?.strip_suffix(" in each container");
        rest.strip_prefix("attached to ").or_else(of_file).map(str::to_owned)
    };
    for hook in stderr.lines().filter_map(hook) {
        if !found.contains(&hook) {
            found.push(hook);
        }
    }
    found
}

/// `~…` is a regular expression on the value's text, anything else the text itself.
fn is_text(wanted: &str, found: &Value) -> bool {
    let Some(pattern) = wanted.strip_prefix('~') else { return found == wanted };
    let regex = Regex::new(pattern).unwrap_or_else(|e| panic!("regular expression {pattern:?}: {e}"));
    match found {
        Value::String(text) => regex.is_match(text),
        other => regex.is_match(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn matches(row: &str, found: Value) -> bool {
        let m: Match = serde_saphyr::from_str(&format!("source: s\nrow: {row}\n")).unwrap();
        m.matches(&found, "box")
    }

    #[test]
    fn values_match_as_documented() {
        let row = json!({"a": {"b": 5, "t": "x1"}, "n": "box", "f": false, "e": ""});
        assert!(matches("{ a.b: 5, a.t: '~^x[0-9]$', n: '{container}', f: false, e: '' }", row.clone()));
        assert!(matches("{ a.b: '~^5$', f: '~false' }", row.clone()));
        for wrong in [
            "{ a.b: '5' }",
            "{ f: 'false' }",
            "{ missing: '' }",
            "{ missing: '~' }",
            "{ a.t: 'x' }",
            "{ n: container }",
        ] {
            assert!(!matches(wrong, row.clone()), "{wrong}");
        }
    }

    #[test]
    fn of_two_matches_for_a_feature_one_is_asked_for_and_what_is_not_is_said() {
        for feature in [Feature::Mptcp, Feature::MountSetattr, Feature::DropReasons] {
            let word = feature.word();
            let text = |key: &str| format!("{{ source: s, {key}: [{word}], row: {{ f: 1 }} }}");
            let yaml = format!("{{ name: n, script: x, expect: [{}, {}] }}", text("with"), text("without"));
            let case: Case = serde_saphyr::from_str(&yaml).unwrap();
            assert_eq!(
                case.expect.iter().map(Match::is_asked_here).collect::<Vec<_>>(),
                [feature.is_here(), !feature.is_here()]
            );
            let said = format!("1 of 2 in expect not asked for: this kernel has no {word}");
            let wanted = if feature.is_here() { vec![] } else { vec![said] };
            assert_eq!(case.not_asked_here(), wanted);
            assert!(!case.shows_nothing_here(), "one of the two is always asked for");
        }
    }

    #[test]
    fn hooks_are_those_of_the_kernel_and_those_in_containers() {
        let said = "program a attached to tracepoint/x/y\nprogram b goes to uprobe/libc:malloc in each container\n\
                    program c attached to tracepoint/x/y\nprogram d skipped: attached to nothing\n\
                    container attached to web\n";
        assert_eq!(hooks(said), ["tracepoint/x/y", "uprobe/libc:malloc"]);
    }

    #[test]
    fn only_what_never_ran_was_refused_and_only_the_error_says_why() {
        let ran = "program a skipped: this kernel has no kprobes\ng: running, 1 programs attached\nerror: disk full\n";
        assert!(!is_refusal(ran));
        assert_eq!(error(ran), "error: disk full\n");
        let refused = "error: g: no program could be started\n  p (kprobe/f): this kernel has no kprobes\nhint: x\n";
        assert!(is_refusal(refused) && is_refusal("error: running gadget g needs root\n"));
        assert_eq!(error(refused), refused);
        assert_eq!(error("warning: error: x\n"), "");
    }

    #[test]
    fn every_gadgets_file_is_as_documented() {
        for name in gadgets() {
            assert!(!read(&crate::source_root().join("gadgets").join(name)).is_empty());
        }
    }
}

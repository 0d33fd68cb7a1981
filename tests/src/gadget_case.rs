//! Reads and runs `gadgets/*/test.yaml`: real workloads in containers, and the rows a gadget must make of them.
//! The format: `docs/reference/test-yaml.md`.

use crate::{
    docker::Docker,
    ig::{Finished, Ig, at},
    load, wait_for,
};
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
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
    needs: Vec<Need>,
    seconds: Option<u32>,
    #[serde(default)]
    expect: Vec<Match>,
    #[serde(default)]
    forbid: Vec<Match>,
    /// Exactly these documents, if any are named.
    #[serde(default)]
    documents: Vec<Paper>,
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

/// What a case asks of the kernel that not every kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    /// kprobe and kretprobe
    Kprobe,
    /// fentry and fexit
    Fentry,
    Lsm,
}

impl Need {
    /// Whether the kernel of this machine has it, by the word of `ig doctor`. Were that wrong, the case would fail either way:
    /// by a gadget that runs where it must be refused, or by one that does not run.
    pub fn is_here(self) -> bool {
        let done = Ig::new(&["doctor", "-o", "json"]).run();
        let told: Value = serde_json::from_str(&done.stdout()).unwrap_or_else(|e| panic!("ig doctor: {e}"));
        let groups = told["groups"].as_array().into_iter().flatten();
        let mut checks = groups.flat_map(|g| g["checks"].as_array().into_iter().flatten());
        let check = checks.find(|c| c["name"] == self.word());
        check.unwrap_or_else(|| panic!("ig doctor does not look for {}", self.word()))["status"] == "ok"
    }

    /// Its name in `ig doctor`, which the refusal on a kernel without it must hold, too.
    fn word(self) -> &'static str {
        match self {
            Need::Kprobe => "kprobe",
            Need::Fentry => "fentry",
            Need::Lsm => "lsm",
        }
    }
}

/// On a kernel that lacks what the case needs, the gadget must be refused, and the lack be named.
fn refused(ig: Ig, lacking: Need) -> Result<(), String> {
    let done = ig.arg("--timeout=5").run();
    let told = done.stderr.to_lowercase();
    if done.code() == 3 && told.contains(lacking.word()) {
        return Ok(());
    }
    Err(format!("without {lacking:?} it must be refused, not end with {}:\n{}", done.status, done.stderr))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Match {
    source: String,
    row: BTreeMap<String, Value>,
    times: Option<usize>,
}

/// The names of all gadgets of the repository, sorted.
pub fn gadgets() -> Vec<String> {
    let mut found: Vec<String> = std::fs::read_dir(crate::source_root().join("gadgets"))
        .expect("a folder of gadgets")
        .flatten()
        .filter(|e| e.path().join("gadget.yaml").is_file())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    found.sort();
    found
}

/// The tests of a gadget's folder; panics on a file that is not as documented.
pub fn read(folder: &Path) -> Vec<Case> {
    let path = folder.join("test.yaml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file: File = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
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
        assert_eq!(file.tests.iter().filter(|c| c.name == *name).count(), 1, "{}: two tests {name:?}", path.display());
        for m in case.expect.iter().chain(&case.forbid) {
            // Rows do not name their source; our gadgets have one each, which must be the one that is meant.
            assert!(yaml.contains(&format!("\n  {}:\n", m.source)), "{}: no data source {}", path.display(), m.source);
        }
    }
    file.tests
}

/// Where the containers run, and the program that the gadget's folder may give them.
pub struct Place<'a> {
    docker: &'a Docker,
    /// `--volume` of the compiled workload.
    mount: Option<String>,
    _dir: TempDir,
}

impl<'a> Place<'a> {
    /// Compiles `workload.c` of the gadget's folder, if there is one.
    pub fn new(docker: &'a Docker, folder: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mount = workload(folder).map(|source| {
            let binary = dir.path().join("workload");
            load::compile(&source, &binary);
            format!("{}:/workload:ro", binary.display())
        });
        Place { docker, mount, _dir: dir }
    }
}

/// The source of a gadget's own workload.
pub fn workload(folder: &Path) -> Option<PathBuf> {
    Some(folder.join("workload.c")).filter(|p| p.is_file())
}

impl Case {
    /// Runs the workload under the gadget; gives what is wrong, or nothing.
    pub fn run(&self, gadget: &str, on: &Place<'_>, container: &str) -> Result<(), String> {
        let docker = on.docker;
        let socket = docker.socket().display().to_string();
        let mut ig = Ig::new(&["run", gadget, "-o", "json", "--ledger", "--docker-socketpath", &socket]);
        for (key, value) in &self.params {
            ig = ig.arg(format!("--{key}={value}"));
        }
        if let Some(lacking) = self.needs.iter().find(|n| !n.is_here()) {
            return refused(ig, *lacking);
        }
        if let Some(seconds) = self.seconds {
            ig = ig.arg(format!("--timeout={seconds}"));
        }
        let done = if self.hold { self.run_held(ig, on, container) } else { self.run_live(ig, on, container) };
        if done.code() != 0 {
            return Err(format!("ig ended with {}:\n{}", done.status, done.stderr));
        }
        let ledger = done.ledger();
        ledger.check();
        if ledger.lost_total() > 0 {
            return Err(format!("events were lost: {ledger:?}"));
        }
        let is_document = |r: &Value| r["mediaType"].is_string() && !r["document"].is_null();
        let (documents, rows): (Vec<Value>, Vec<Value>) = done.rows().into_iter().partition(is_document);
        self.judge(&rows, container)?;
        self.judge_documents(&documents, on, container)
    }

    /// The arguments of `docker run`; `how` is `-d` or `--rm`.
    fn docker_run<'a>(&'a self, how: &'a str, container: &'a str, on: &'a Place<'_>) -> Vec<&'a str> {
        let mut all = vec!["run", how, "--net=none", "--name", container];
        all.extend(self.docker.iter().map(String::as_str));
        all.extend(on.mount.iter().flat_map(|m| ["--volume", m]));
        all.extend(["busybox", "/bin/sh", "-c", &self.script]);
        all
    }

    /// Gadget first, then the script, then the gadget is stopped.
    fn run_live(&self, ig: Ig, on: &Place<'_>, container: &str) -> Finished {
        let running = ig.start_ready();
        let mut script = on.docker.command(&self.docker_run("--rm", container, on));
        // Scripts may end as they like: some run programs that are not there.
        let out = script.output().expect("the docker client");
        assert!(
            out.status.code() != Some(125),
            "docker could not run the script: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        // One with a time of its own is let end by itself, so that what it shows last is the table of the whole time.
        if self.seconds.is_some() { running.wait() } else { running.stop() }
    }

    /// The script first, up to its line `READY`; then the gadget, to its end.
    fn run_held(&self, ig: Ig, on: &Place<'_>, container: &str) -> Finished {
        let docker = on.docker;
        docker.run(&self.docker_run("-d", container, on));
        wait_for("READY from the script", Duration::from_secs(20), || {
            docker.run(&["logs", container]).lines().any(|l| l == "READY").then_some(())
        });
        let done = ig.run();
        docker.run(&["rm", "-f", container]);
        done
    }

    fn judge_documents(&self, documents: &[Value], on: &Place<'_>, container: &str) -> Result<(), String> {
        if documents.len() != self.documents.len() {
            return Err(format!("{} documents instead of {}: {documents:?}", documents.len(), self.documents.len()));
        }
        for paper in &self.documents {
            let name = paper.name.replace("{container}", container);
            let found = documents.iter().find(|d| d["name"] == name).ok_or_else(|| format!("no document {name}"))?;
            let text = found["document"].as_str().map_or_else(|| found["document"].to_string(), str::to_owned);
            let lacking =
                paper.contains.iter().find(|t| !text.contains(*t)).map(|t| format!("{name} lacks {t}: {text}"));
            let wrong = paper.lacks.iter().find(|t| text.contains(*t)).map(|t| format!("{name} has {t}: {text}"));
            if let Some(why) = lacking.or(wrong) {
                return Err(why);
            }
            if let Some(prints) = &paper.seccomp {
                self.run_under(&text, prints, on, container)?;
            }
        }
        Ok(())
    }

    /// The same container again, which may do nothing but what the profile allows.
    fn run_under(&self, profile: &str, prints: &str, on: &Place<'_>, container: &str) -> Result<(), String> {
        let file = on.docker.file(&format!("{container}.json"), profile);
        let option = format!("--security-opt=seccomp={}", file.display());
        let mut run = self.docker_run("--rm", container, on);
        run.retain(|a| !a.contains("seccomp=unconfined"));
        run.insert(1, &option);
        let out = on.docker.command(&run).output().expect("the docker client");
        let printed = String::from_utf8_lossy(&out.stdout);
        if out.status.success() && printed.trim() == prints.trim() {
            return Ok(());
        }
        let told = String::from_utf8_lossy(&out.stderr);
        Err(format!("under its profile {container} ends with {} and prints {printed:?}: {told}\n{profile}", out.status))
    }

    fn judge(&self, rows: &[Value], container: &str) -> Result<(), String> {
        let mut wrong = Vec::new();
        for m in &self.expect {
            let found = rows.iter().filter(|r| m.matches(r, container)).count();
            match m.times {
                Some(n) if n != found => wrong.push(format!("{found} rows instead of {n} match {:?}", m.row)),
                None if found == 0 => wrong.push(format!("no row matches {:?}", m.row)),
                _ => {}
            }
        }
        for m in &self.forbid {
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
    fn every_gadgets_file_is_as_documented() {
        for name in gadgets() {
            assert!(!read(&crate::source_root().join("gadgets").join(name)).is_empty());
        }
    }
}

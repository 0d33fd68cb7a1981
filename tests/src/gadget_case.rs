//! Reads and runs `gadgets/*/test.yaml`: real workloads in containers, and the rows a gadget must make of them.
//! The format: `docs/reference/test-yaml.md`.

use crate::{
    docker::Docker,
    ig::{Finished, Ig, at},
    wait_for,
};
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, path::Path, time::Duration};

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
    expect: Vec<Match>,
    #[serde(default)]
    forbid: Vec<Match>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Match {
    source: String,
    row: BTreeMap<String, Value>,
    times: Option<usize>,
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
            !case.expect.is_empty() || !case.forbid.is_empty(),
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

impl Case {
    /// Runs the workload under the gadget; gives what is wrong, or nothing.
    pub fn run(&self, gadget: &str, docker: &Docker, container: &str) -> Result<(), String> {
        let socket = docker.socket().display().to_string();
        let mut ig = Ig::new(&["run", gadget, "-o", "json", "--ledger", "--docker-socketpath", &socket]);
        for (key, value) in &self.params {
            ig = ig.arg(format!("--{key}={value}"));
        }
        let done = if self.hold { self.run_held(ig, docker, container) } else { self.run_live(ig, docker, container) };
        if done.code() != 0 {
            return Err(format!("ig ended with {}:\n{}", done.status, done.stderr));
        }
        let ledger = done.ledger();
        ledger.check();
        if ledger.lost_total() > 0 {
            return Err(format!("events were lost: {ledger:?}"));
        }
        self.judge(&done.rows(), container)
    }

    /// Gadget first, then the script, then the gadget is stopped.
    fn run_live(&self, ig: Ig, docker: &Docker, container: &str) -> Finished {
        let running = ig.start_ready();
        let mut script = docker.command(&[
            "run",
            "--rm",
            "--net=none",
            "--name",
            container,
            "busybox",
            "/bin/sh",
            "-c",
            &self.script,
        ]);
        // Scripts may end as they like: some run programs that are not there.
        let out = script.output().expect("the docker client");
        assert!(
            out.status.code() != Some(125),
            "docker could not run the script: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        running.stop()
    }

    /// The script first, up to its line `READY`; then the gadget, to its end.
    fn run_held(&self, ig: Ig, docker: &Docker, container: &str) -> Finished {
        docker.run(&["run", "-d", "--net=none", "--name", container, "busybox", "/bin/sh", "-c", &self.script]);
        wait_for("READY from the script", Duration::from_secs(20), || {
            docker.run(&["logs", container]).lines().any(|l| l == "READY").then_some(())
        });
        let done = ig.run();
        docker.run(&["rm", "-f", container]);
        done
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
        for name in ["trace_exec", "trace_open", "snapshot_process"] {
            assert!(!read(&crate::source_root().join("gadgets").join(name)).is_empty());
        }
    }
}

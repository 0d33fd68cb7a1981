//! `docs/guides/first-gadget.md`, followed to the letter: its code blocks are built, pushed, removed, pulled and run.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its case has failed")]

use ig_tests::{
    alone,
    ig::{Ig, at},
    registry::Registry,
    source_root,
};
use std::{path::Path, process::Command};

/// The first code block of `language` in the guide.
fn block(language: &str) -> String {
    let guide = std::fs::read_to_string(source_root().join("docs/guides/first-gadget.md")).unwrap();
    let start = format!("```{language}\n");
    let at = guide.find(&start).unwrap_or_else(|| panic!("the guide has no {language} block")) + start.len();
    guide[at..].split("```").next().unwrap().to_string()
}

fn written(dir: &Path) -> String {
    let gadget = dir.join("trace_unlink");
    std::fs::create_dir(&gadget).unwrap();
    std::fs::write(gadget.join("program.bpf.c"), block("c")).unwrap();
    std::fs::write(gadget.join("gadget.yaml"), block("yaml")).unwrap();
    gadget.display().to_string()
}

/// Removes a file while `ig` runs and checks that its row came.
fn sees_a_removal(ig: Ig) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("to be removed");
    std::fs::write(&file, "").unwrap();
    let running = ig.args(&["--host", "-o", "json", "--comm", "rm"]).start_ready();
    assert!(Command::new("rm").arg(&file).status().unwrap().success());
    let rows = running.stop().expect_success().rows();
    assert!(rows.iter().any(|r| at(r, "fname") == file.to_str().unwrap()), "no row of {} in {rows:#?}", file.display());
    assert!(rows.iter().all(|r| at(r, "proc.comm") == "rm"));
}

mod root {
    use super::*;

    #[test]
    fn the_guides_gadget_runs_from_its_folder() {
        let _alone = alone();
        let dir = tempfile::tempdir().unwrap();
        sees_a_removal(Ig::new(&["run", &written(dir.path())]));
    }

    #[test]
    fn the_guides_gadget_goes_through_a_registry_and_runs_by_digest() {
        let _alone = alone();
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let registry = Registry::start();
        let name = format!("{}/gadgets/trace_unlink", registry.host());
        let tagged = format!("{name}:v1");
        let insecure = format!("--insecure-registries={}", registry.host());
        let ok = |arguments: &[&str]| Ig::new(arguments).store(&store).run().expect_success();
        let folder = written(dir.path());
        ok(&["image", "build", &folder, "-t", "trace_unlink"]);
        ok(&["image", "tag", "trace_unlink", &tagged]);
        let pushed = ok(&["image", "push", &tagged, &insecure]);
        let said = format!("{}{}", pushed.stdout(), pushed.stderr);
        let at = said.find("sha256:").unwrap_or_else(|| panic!("push prints no digest: {said:?}"));
        let digest: String = said[at..].chars().take("sha256:".len() + 64).collect();
        ok(&["image", "remove", "trace_unlink", &tagged]);
        let listed = ok(&["image", "list"]).stdout();
        assert!(!listed.contains("trace_unlink"), "{listed}");
        sees_a_removal(Ig::new(&["run", &format!("{name}@{digest}"), &insecure]).store(&store));
    }
}

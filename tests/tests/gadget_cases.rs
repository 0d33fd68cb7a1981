//! Every `gadgets/*/test.yaml`, against the embedded catalogue, in containers of a private Docker.

use ig_tests::{alone, docker::Docker, gadget_case, source_root};

fn all_cases_of(gadget: &str) {
    let _alone = alone();
    let docker = Docker::start();
    let cases = gadget_case::read(&source_root().join("gadgets").join(gadget));
    let mut wrong = Vec::new();
    for (n, case) in cases.iter().enumerate() {
        if let Err(what) = case.run(gadget, &docker, &format!("case-{n}")) {
            wrong.push(format!("{gadget}: {}: {what}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {} failed:\n{}", wrong.len(), cases.len(), wrong.join("\n\n"));
}

mod root {
    use super::*;

    #[test]
    fn trace_exec() {
        all_cases_of("trace_exec");
    }

    #[test]
    fn trace_open() {
        all_cases_of("trace_open");
    }

    #[test]
    fn profile_cpu() {
        all_cases_of("profile_cpu");
    }

    #[test]
    fn snapshot_process() {
        all_cases_of("snapshot_process");
    }

    #[test]
    fn every_gadget_of_the_repository_is_tested_here() {
        let _alone = alone();
        let mut found: Vec<String> = std::fs::read_dir(source_root().join("gadgets"))
            .expect("a folder of gadgets")
            .flatten()
            .filter(|e| e.path().join("gadget.yaml").is_file())
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        found.sort();
        assert_eq!(found, ["profile_cpu", "snapshot_process", "trace_exec", "trace_open"], "add the new gadget's test above");
    }
}

//! Images against a real registry, archives, and the embedded catalogue.

use ig_tests::{alone, ig::Ig, ig::at, registry::Registry, source_root};
use std::path::Path;

fn ok(arguments: &[&str], store: &Path) -> String {
    Ig::new(arguments).store(store).run().expect_success().stdout()
}

/// The digest in a text such as `name@sha256:…`.
fn digest(text: &str) -> String {
    let start = text.find("sha256:").unwrap_or_else(|| panic!("no digest in {text:?}"));
    text[start..].chars().take("sha256:".len() + 64).collect()
}

fn gadget(name: &str) -> String {
    source_root().join("gadgets").join(name).display().to_string()
}

#[test]
fn the_same_input_gives_the_same_digest() {
    let one = tempfile::tempdir().unwrap();
    let two = tempfile::tempdir().unwrap();
    // Elsewhere on the disk, and with other times: neither may show in the image.
    let copy = two.path().join("trace_open");
    assert!(
        std::process::Command::new("cp").arg("-r").arg(gadget("trace_open")).arg(&copy).status().unwrap().success()
    );
    let build = |dir: &str, store: &Path| digest(&ok(&["image", "build", dir, "-t", "opens"], &store.join("store")));
    assert_eq!(build(&gadget("trace_open"), one.path()), build(copy.to_str().unwrap(), two.path()));
}

#[test]
fn an_archive_carries_an_image_from_store_to_store() {
    let from = tempfile::tempdir().unwrap();
    let to = tempfile::tempdir().unwrap();
    let tar = from.path().join("opens.tar");
    let built = digest(&ok(&["image", "build", &gadget("trace_open"), "-t", "opens"], from.path()));
    ok(&["image", "export", "opens", tar.to_str().unwrap()], from.path());
    ok(&["image", "import", tar.to_str().unwrap()], to.path());
    let listed: serde_json::Value =
        serde_json::from_str(&ok(&["image", "list", "-o", "json", "--no-trunc"], to.path())).unwrap();
    assert!(listed.to_string().contains(&built), "{listed}");
    ok(&["image", "tag", "opens", "registry.example/other:v1"], to.path());
    ok(&["image", "remove", "opens"], to.path());
    let listed = ok(&["image", "list"], to.path());
    assert!(listed.contains("registry.example/other") && !listed.contains("opens"), "{listed}");
}

#[test]
fn the_catalogue_is_embedded() {
    let empty = tempfile::tempdir().unwrap();
    let listed = ok(&["list-gadgets"], empty.path());
    for name in ["trace_exec", "trace_open", "snapshot_process"] {
        assert!(listed.contains(name), "{name} is not in:\n{listed}");
    }
}

#[test]
fn inspect_lists_what_an_image_may_do() {
    let empty = tempfile::tempdir().unwrap();
    let text = ok(&["image", "inspect", "trace_exec", "-o", "json"], empty.path());
    let v: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert!(v.is_object(), "{text}");
    assert!(text.contains("sched_process_exec"), "hooks are listed: {text}");
    assert!(text.contains("ig:gadget"), "Wasm imports are listed: {text}");
}

mod root {
    use super::*;

    #[test]
    fn an_image_goes_to_a_registry_and_comes_back_by_digest_and_runs() {
        let _alone = alone();
        let registry = Registry::start();
        let store = tempfile::tempdir().unwrap();
        let name = format!("{}/gadgets/processes:v1", registry.host());
        let insecure = format!("--insecure-registries={}", registry.host());
        let built = digest(&ok(&["image", "build", &gadget("snapshot_process"), "-t", &name], store.path()));
        ok(&["image", "push", &name, &insecure], store.path());
        ok(&["image", "remove", &name], store.path());
        let by_digest = format!("{}/gadgets/processes@{built}", registry.host());
        let missing =
            Ig::new(&["run", &by_digest, "--host", "--pull", "never", "-o", "json"]).store(store.path()).run();
        assert_eq!(missing.code(), 2, "an image that is not there, and may not be pulled: {}", missing.stderr);
        let rows = Ig::new(&["run", &by_digest, "--host", "-o", "json", &insecure])
            .store(store.path())
            .run()
            .expect_success()
            .rows();
        assert!(rows.iter().any(|r| at(r, "pid") == std::process::id()), "{} rows", rows.len());
    }

    #[test]
    fn a_directory_and_an_archive_run_as_they_are() {
        let _alone = alone();
        let store = tempfile::tempdir().unwrap();
        let tar = store.path().join("p.tar");
        ok(&["image", "build", &gadget("snapshot_process"), "-t", "p"], store.path());
        ok(&["image", "export", "p", tar.to_str().unwrap()], store.path());
        for image in [gadget("snapshot_process"), tar.display().to_string()] {
            let rows = Ig::new(&["run", &image, "--host", "-o", "json"]).run().expect_success().rows();
            assert!(!rows.is_empty(), "{image} gave nothing");
        }
    }
}

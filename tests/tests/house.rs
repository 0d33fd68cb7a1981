//! The rules of the house that a compiler does not check. Needs no root and no built binary.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its case has failed")]

use ig_tests::source_root;
use serde_json::Value;
use std::{collections::BTreeMap, path::Path, process::Command};

/// Who may depend on whom inside this repository. A crate that is neither listed nor a gadget may not exist.
const ALLOWED: &[(&str, &[&str])] = &[
    ("ig-event", &[]),
    ("ig-runtime", &["ig-event"]),
    ("ig-api", &["ig-event"]),
    ("ig", &["ig-api", "ig-event", "ig-runtime"]),
    ("gadget-sdk", &[]),
    ("ig-tests", &[]),
];

/// What the Wasm half of a gadget may depend on: never on the host.
const ALLOWED_IN_GADGETS: &[&str] = &["gadget-sdk"];

fn metadata(manifest: &Path) -> Vec<Value> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline", "--manifest-path"])
        .arg(manifest)
        .output()
        .unwrap();
    assert!(out.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&out.stderr));
    let v: Value = serde_json::from_slice(&out.stdout).unwrap();
    v["packages"].as_array().unwrap().clone()
}

/// Names of the dependencies by path, so those inside this repository. What only tests and examples of the host use does
/// not count: the runtime measures a decoder against the same code in Wasm.
fn inside(package: &Value) -> Vec<String> {
    let deps = package["dependencies"].as_array().unwrap();
    let counts = |d: &Value| d["path"].is_string() && (is_gadget(package) || d["kind"] != "dev");
    deps.iter().filter(|d| counts(d)).map(|d| d["name"].as_str().unwrap().to_string()).collect()
}

/// The manifests of every package here: the workspace's members, and gadgets that are workspaces of their own.
fn packages() -> Vec<Value> {
    let mut found = metadata(&source_root().join("Cargo.toml"));
    for manifest in gadget_manifests() {
        if !found.iter().any(|p| p["manifest_path"].as_str() == manifest.to_str()) {
            found.extend(metadata(&manifest));
        }
    }
    found
}

fn gadget_manifests() -> Vec<std::path::PathBuf> {
    let dirs = std::fs::read_dir(source_root().join("gadgets")).expect("a folder of gadgets");
    let mut found: Vec<_> = dirs.flatten().map(|d| d.path().join("Cargo.toml")).filter(|m| m.is_file()).collect();
    found.sort();
    found
}

fn is_gadget(package: &Value) -> bool {
    let manifest = Path::new(package["manifest_path"].as_str().unwrap());
    ["gadgets", "tests/gadgets"].iter().any(|folder| manifest.starts_with(source_root().join(folder)))
}

#[test]
fn dependencies_point_one_way() {
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let packages = packages();
    assert!(packages.iter().any(is_gadget), "no gadget has a Wasm half: this test would not check gadgets");
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let may = match allowed.get(name) {
            _ if is_gadget(&package) => ALLOWED_IN_GADGETS,
            Some(may) => may,
            None => panic!("package {name} is not in the table of allowed dependencies"),
        };
        for dependency in inside(&package) {
            assert!(may.contains(&dependency.as_str()), "{name} must not depend on {dependency}");
        }
    }
}

#[test]
fn every_member_opts_into_the_workspace_lints() {
    for package in packages() {
        let path = package["manifest_path"].as_str().unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let lints = text.split("\n[").find_map(|section| section.strip_prefix("lints]"));
        assert!(lints.is_some_and(|l| l.contains("workspace = true")), "{path} lacks `[lints] workspace = true`");
    }
}

#[test]
fn every_rust_file_says_what_it_is_for() {
    let out = Command::new("git").args(["ls-files", "*.rs"]).current_dir(source_root()).output().unwrap();
    assert!(out.status.success(), "git ls-files failed: {}", String::from_utf8_lossy(&out.stderr));
    let files = String::from_utf8(out.stdout).unwrap();
    assert!(files.lines().count() > 10, "git lists too few files: {files}");
    for file in files.lines().filter(|f| source_root().join(f).is_file()) {
        let text = std::fs::read_to_string(source_root().join(file)).unwrap();
        assert!(text.starts_with("//!"), "{file} does not start with a `//!` comment");
    }
}

#[test]
fn every_gadget_has_its_files() {
    for entry in std::fs::read_dir(source_root().join("gadgets")).unwrap().flatten().filter(|e| e.path().is_dir()) {
        let yaml = std::fs::read_to_string(entry.path().join("gadget.yaml")).unwrap_or_default();
        // The host makes the rows of some.
        let program = (!yaml.contains("emitstats: \"true\"")).then_some("program.bpf.c");
        for file in ["gadget.yaml", "README.md", "test.yaml"].into_iter().chain(program) {
            assert!(entry.path().join(file).is_file(), "gadget {} lacks {file}", entry.file_name().to_string_lossy());
        }
    }
}

/// Every crate that `deny.toml` makes an exception for is named, with the version that is used, to those who get the program.
#[test]
fn libraries_under_other_licences_are_in_the_notice() {
    let text = |name: &str| std::fs::read_to_string(source_root().join(name)).unwrap();
    let (deny, notice, lock) = (text("deny.toml"), text("NOTICE"), text("Cargo.lock"));
    let (_, exceptions) = deny.split_once("exceptions = [").unwrap();
    let (exceptions, _) = exceptions.split_once("\n]").unwrap();
    let crates: Vec<&str> = exceptions.split("crate = \"").skip(1).map(|e| e.split('"').next().unwrap()).collect();
    assert!(!crates.is_empty());
    for name in crates {
        let (_, entry) = lock.split_once(&format!("name = \"{name}\"\nversion = \"")).unwrap();
        let version = entry.split('"').next().unwrap();
        assert!(notice.contains(&format!("{name} {version}")), "NOTICE does not name {name} {version}");
    }
}

#[test]
fn no_module_has_a_name_that_says_nothing() {
    const EMPTY_WORDS: [&str; 6] = ["utils", "util", "common", "helpers", "manager", "types"];
    let out = Command::new("git").args(["ls-files", "*.rs"]).current_dir(source_root()).output().unwrap();
    for file in String::from_utf8(out.stdout).unwrap().lines() {
        let path = Path::new(file);
        let names = path.with_extension("");
        for part in names.iter().map(|p| p.to_string_lossy()) {
            assert!(!EMPTY_WORDS.contains(&part.as_ref()), "{file}: name it after what it does");
        }
    }
}

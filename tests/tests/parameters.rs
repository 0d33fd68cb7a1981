//! Gadgets' own flags: how they are told, and values of theirs that mean nothing: each is an error that names the parameter, never
//! an empty table.
//!
//! The texts are golden (insta). After a change on purpose: `INSTA_UPDATE=always`, then read the difference.

use ig_tests::{
    ig::{Finished, Ig},
    source_root,
};
use serde_json::Value;
use std::collections::BTreeSet;

const WRONG_INPUT: i32 = 2;

fn gadgets() -> Vec<String> {
    let folders = std::fs::read_dir(source_root().join("gadgets")).expect("the gadgets' folders");
    let mut names: Vec<String> =
        folders.map(|f| f.expect("a folder").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn with(gadget: &str, flag: &str, value: &str) -> Finished {
    Ig::new(&["run", gadget, "--timeout", "1", "-o", "json"]).arg(format!("--{flag}={value}")).run()
}

/// The gadget's parameters that are no free text, as name and kind. Of its switches one: they are all read by the same code.
fn narrow_parameters(gadget: &str) -> Vec<(String, String)> {
    let done = Ig::new(&["image", "inspect", gadget, "-o", "json"]).run().expect_success();
    let image: Value = serde_json::from_str(&done.stdout()).expect("JSON");
    let written = &image["metadata"]["params"];
    let mut all = Vec::new();
    let mut switches = 0;
    for p in image["ebpf"]["params"].as_array().into_iter().flatten() {
        let (name, kind) = (p["name"].as_str().expect("a name"), p["kind"].as_str().expect("a kind"));
        let note = written["ebpf"].as_object().into_iter().flatten().map(|(_, n)| n).find(|n| n["key"] == name);
        switches += usize::from(kind == "bool");
        let free = kind == "string" && note.is_none_or(|n| n["oneOf"].is_null() && n["typeHint"] != "ports");
        if !free && (kind != "bool" || switches == 1) {
            all.push((name.to_owned(), kind.to_owned()));
        }
    }
    for (_, p) in written["wasm"].as_object().into_iter().flatten() {
        let key = p["key"].as_str().expect("a key");
        all.push((key.to_owned(), "text".to_owned()));
    }
    all
}

/// Golden, under this name.
fn snapshot(name: &str, text: &str) {
    insta::with_settings!({ prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, text);
    });
}

/// A gadget with flags and tables of its own, and fields that only its guest knows.
#[test]
fn help_begins_with_what_is_the_gadgets_own() {
    for gadget in ["trace_signal", "traceloop"] {
        let help = Ig::new(&["run", gadget, "--help"]).run().expect_success().stdout();
        let (own, others) = help.split_once("\nOutput:\n").expect("flags of every gadget");
        let (_, fields) = others.split_once("\nFields of ").expect("fields");
        snapshot(&format!("help_of_{gadget}"), &format!("{own}\n…\n\nFields of {fields}"));
    }
}

#[test]
fn a_flag_that_is_given_twice_counts_once() {
    let twice = ["run", "snapshot_process", "--host", "--pid=1", "--pid=4194305", "-o", "json", "-t", "1", "-t", "2"];
    // The last value is wrong, and the second -t is not.
    let done = Ig::new(&twice).run();
    assert_eq!((done.code(), done.stderr.contains("parameter pid: 4194305")), (WRONG_INPUT, true), "{}", done.stderr);
    let turned = ["run", "snapshot_process", "--host", "--pid=4194305", "--pid=1", "-o", "xml", "-o", "json"];
    Ig::new(&turned).run().expect_success();
}

#[test]
fn tables_flags_on_streams_and_flags_of_nobody_are_told_apart() {
    let mut said = String::new();
    for line in [
        "trace_open --count 2",
        "trace_open trace_exec --interval 1s",
        "trace_open --map-fetch-count=2",
        "trace_dns -t 4 -t 6 --prot 5353",
        "trace_open --nosuch",
        "trace_open -Z",
    ] {
        let words: Vec<&str> = std::iter::once("run").chain(line.split(' ')).collect();
        let done = Ig::new(&words).run();
        assert_eq!((done.code(), done.stdout().as_str()), (WRONG_INPUT, ""), "{line}: {}", done.stderr);
        said.push_str(&format!("{line}\n{}\n", done.stderr));
    }
    snapshot("flags_of_nobody", &said);
}

#[test]
fn no_parameter_takes_what_is_no_value_of_it() {
    let gadgets = gadgets();
    assert!(gadgets.len() > 30, "{gadgets:?}");
    let mut seen = BTreeSet::new();
    for gadget in &gadgets {
        for (name, kind) in narrow_parameters(gadget) {
            // Those that all gadgets share are read once.
            let shared = matches!(name.as_str(), "pid" | "tid" | "uid" | "gid" | "collect-ustack" | "collect-kstack");
            if shared && !seen.insert(name.clone()) {
                continue;
            }
            let done = with(gadget, &name, "no-such-value");
            let said = format!("error: parameter {name}: ");
            assert_eq!(done.code(), WRONG_INPUT, "{gadget} --{name} ({kind}): {}", done.stderr);
            assert!(done.stderr.starts_with(&said), "{gadget} --{name} ({kind}): {}", done.stderr);
            assert_eq!(done.stdout(), "", "{gadget} --{name}");
        }
    }
}

#[test]
fn no_parameter_takes_a_value_that_nothing_could_match() {
    let table = [
        ("advise_seccomp", "interval", "-1"),
        ("advise_seccomp", "interval", "100000"),
        ("profile_tcprtt", "dport", "65536"),
        ("profile_tcprtt", "sport", "-1"),
        ("snapshot_file", "type-mask", "0"),
        ("snapshot_file", "type-mask", "4096"),
        ("snapshot_file", "type-mask", "regular,files"),
        ("snapshot_socket", "proto", "sctp"),
        ("top_tcp", "family", "5"),
        ("trace_bind", "ports", "0"),
        ("trace_bind", "ports", "80,"),
        ("trace_dns", "port", "0"),
        ("trace_dns", "mdns-port", "70000"),
        ("trace_exec", "pid", "4194305"),
        ("trace_exec", "tid", "-1"),
        ("trace_exec", "uid", "4294967296"),
        ("trace_exec", "comm", "a-name-of-16-byte"),
        ("trace_signal", "signal", "99999"),
        ("trace_signal", "signal", "-1"),
        ("trace_signal", "signal", "SIGKILL,SIGFOO"),
        ("trace_tcpconnect", "min", "18446744073709551615"),
        ("traceloop", "syscall-filters", "openat,nope"),
    ];
    let mut said = String::new();
    for (gadget, flag, value) in table {
        let done = with(gadget, flag, value);
        assert_eq!(done.code(), WRONG_INPUT, "{gadget} --{flag}={value}: {}", done.stderr);
        assert_eq!(done.stdout(), "", "{gadget} --{flag}={value}");
        said.push_str(&format!("{gadget} --{flag}={value}\n{}\n", done.stderr));
    }
    snapshot("values_that_mean_nothing", &said);
}

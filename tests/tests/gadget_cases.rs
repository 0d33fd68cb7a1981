//! Every `gadgets/*/test.yaml`, against the embedded catalogue, in containers of a private Docker.

use ig_tests::{alone, docker::Docker, gadget_case, gadget_table, ig, modes, source_root};
use std::io::Write as _;

fn all_cases_of(gadget: &str) {
    let _alone = alone();
    let docker = Docker::start();
    let folder = source_root().join("gadgets").join(gadget);
    let place = gadget_case::Place::new(&docker, &folder);
    let mut cases = gadget_case::read(&folder);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let recording = dir.path().join("recording");
    // One is enough: it has every field.
    cases[0].record(&recording);
    let (mut wrong, mut said) = (Vec::new(), String::new());
    for (n, case) in cases.iter().enumerate() {
        for what in case.not_asked_here() {
            // Past the test harness, which shows nothing of a test that passes.
            writeln!(std::io::stderr(), "{gadget}: {:?}: {what}", case.name).expect("a standard error");
        }
        match case.run(gadget, &place, &format!("case-{n}")) {
            Ok(stderr) if n == 0 => said = stderr,
            Ok(_) => {}
            Err(what) => wrong.push(format!("{gadget}: {}: {what}", case.name)),
        }
    }
    // Not of a gadget that has documents alone, or was refused, as its first case wants it on this kernel.
    if wrong.is_empty() && cases[0].shows_rows() {
        match modes::agree(&recording) {
            Ok(0) => wrong.push(format!("{gadget}: the replay has no rows")),
            Ok(_) => {}
            Err(what) => wrong.push(format!("{gadget}: {what}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {} failed:\n{}", wrong.len(), cases.len(), wrong.join("\n\n"));
    note_in_docs(gadget, &said);
}

/// The column of this machine's kernel, where the table is written. It is not compared: the table is of another machine.
fn note_in_docs(gadget: &str, said: &str) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs");
    let kernel = release.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
    if gadget_table::updating() && gadget_table::KERNELS.contains(&kernel.as_str()) {
        let hooks = gadget_case::hooks(said);
        let cell = if hooks.is_empty() && said.contains("error: ") {
            gadget_table::refused(said)
        } else {
            gadget_table::passed(&hooks)
        };
        gadget_table::compare_or_update(&kernel, &[(gadget.to_owned(), cell)].into());
    }
}

/// One test a gadget, and the list of them.
macro_rules! gadgets {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                all_cases_of(stringify!($name));
            }
        )*

        const LISTED: &[&str] = &[$(stringify!($name)),*];
    };
}

mod root {
    use super::*;

    // In alphabetical order, one a line.
    gadgets! {
        advise_networkpolicy
        advise_seccomp
        audit_seccomp
        bpfstats
        profile_blockio
        profile_cpu
        profile_tcprtt
        snapshot_file
        snapshot_process
        snapshot_socket
        top_blockio
        top_file
        top_process
        top_tcp
        trace_bind
        trace_capabilities
        trace_dns
        trace_exec
        trace_init_module
        trace_link
        trace_lsm
        trace_malloc
        trace_mount
        trace_oomkill
        trace_open
        trace_sched
        trace_signal
        trace_sni
        trace_ssl
        trace_tcp
        trace_tcpconnect
        trace_tcpdrop
        trace_tcpretrans
        traceloop
    }

    #[test]
    fn every_object_of_the_catalogue_is_small() {
        const LIMIT: u64 = 100 * 1000;
        for gadget in LISTED {
            let done = ig::Ig::new(&["image", "inspect", gadget, "-o", "json"]).run().expect_success();
            let told: serde_json::Value = serde_json::from_str(&done.stdout()).expect("JSON");
            let layers = told["oci"]["layers"].as_array().expect("layers");
            let objects = layers.iter().filter(|l| l["mediaType"].as_str().is_some_and(|t| t.contains("ebpf.program")));
            let sizes: Vec<u64> = objects.filter_map(|l| l["size"].as_u64()).collect();
            assert!(sizes.iter().all(|s| *s <= LIMIT), "{gadget}: its BPF object has {sizes:?} bytes");
        }
    }

    #[test]
    fn every_gadget_of_the_repository_is_tested_here() {
        let _alone = alone();
        assert_eq!(gadget_case::gadgets(), LISTED, "the list above names other gadgets than there are folders");
    }
}

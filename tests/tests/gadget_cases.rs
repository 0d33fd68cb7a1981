//! Every `gadgets/*/test.yaml`, against the embedded catalogue, in containers of a private Docker.

use ig_tests::{alone, docker::Docker, gadget_case, source_root};

fn all_cases_of(gadget: &str) {
    let _alone = alone();
    let docker = Docker::start();
    let folder = source_root().join("gadgets").join(gadget);
    let place = gadget_case::Place::new(&docker, &folder);
    let cases = gadget_case::read(&folder);
    let mut wrong = Vec::new();
    for (n, case) in cases.iter().enumerate() {
        if let Err(what) = case.run(gadget, &place, &format!("case-{n}")) {
            wrong.push(format!("{gadget}: {}: {what}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {} failed:\n{}", wrong.len(), cases.len(), wrong.join("\n\n"));
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
        snapshot_file
        snapshot_process
        snapshot_socket
        top_blockio
        top_file
        top_process
        trace_bind
        trace_capabilities
        trace_dns
        trace_exec
        trace_init_module
        trace_link
        trace_lsm
        trace_mount
        trace_oomkill
        trace_open
        trace_signal
        trace_sni
        trace_tcp
        trace_tcpconnect
        traceloop
    }

    #[test]
    fn every_gadget_of_the_repository_is_tested_here() {
        let _alone = alone();
        assert_eq!(gadget_case::gadgets(), LISTED, "the list above names other gadgets than there are folders");
    }
}

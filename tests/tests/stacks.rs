//! Probes in containers' own libraries, and the stacks of their programs: each call seen once, under its container, and
//! functions by their names.

use ig_tests::{
    alone,
    docker::Docker,
    ig::{Ig, at},
    load, source_root, wait_for,
};
use std::{path::Path, process::Command, time::Duration};
use tempfile::TempDir;

/// Burns time in functions whose names are to be found again.
const BURNER: &str = "__attribute__((noinline)) unsigned long burn_inner(unsigned long n) {
    unsigned long sum = 0;
    for (volatile unsigned long i = 0; i < n; i++) sum += i * i;
    return sum;
}
__attribute__((noinline)) unsigned long burn_outer(unsigned long n) { return burn_inner(n) + 1; }
int main(void) { for (;;) burn_outer(1000000); }
";

/// Allocates some two thousand times a second for as long as it runs.
const ALLOCATES: &str = "#include <stdlib.h>
#include <unistd.h>
int main(void) { for (;;) { void *volatile p = malloc(100); free(p); usleep(500); } }
";

/// Imports an image whose files are a busybox, `program`, and the libraries it needs.
fn image(docker: &Docker, name: &str, program: &Path, libraries: &[String]) {
    let dir = TempDir::new().expect("a temporary directory");
    let put = |from: &Path, to: &str| {
        let to = dir.path().join(to.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().expect("a path of a file")).expect("a writable directory");
        std::fs::copy(from, &to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    };
    put(Path::new("/bin/busybox"), "bin/sh");
    put(Path::new("/bin/busybox"), "bin/sleep");
    put(program, "program");
    libraries.iter().for_each(|l| put(Path::new(l), l));
    let socket = docker.socket().display().to_string();
    let script = format!("tar -C '{}' -c . | docker -H 'unix://{socket}' import - {name}", dir.path().display());
    let ok = Command::new("sh").args(["-c", &script]).status().is_ok_and(|s| s.success());
    assert!(ok, "docker import");
}

fn on(docker: &Docker, arguments: &[&str]) -> Ig {
    Ig::new(arguments).args(&["--docker-socketpath", &docker.socket().display().to_string()])
}

/// A name that no other run of these tests on the same machine gives its containers: `ig` sees all of them.
fn own(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

mod root {
    use super::*;

    #[test]
    fn containers_of_one_image_are_probed_once_and_each_sees_its_own_calls() {
        let _alone = alone();
        let docker = Docker::start();
        let dir = TempDir::new().expect("a temporary directory");
        let program = dir.path().join("program");
        let source = source_root().join("gadgets/trace_malloc/workload.c");
        let libraries = load::compile_dynamic(&source, &program, &[]);
        image(&docker, "with-libc", &program, &libraries);
        image(&docker, "with-another", &program, &libraries);

        // one that runs already, one that starts later while the first still runs, one when the library was let go again, and one
        // with a library of its own while the probes of the one before are detached
        let names = ["early", "later", "last", "next", "static"].map(own);
        let [early, later, last, next, bare] = names.each_ref().map(String::as_str);
        // Each calls when it is told to.
        let go = TempDir::new().expect("a temporary directory");
        let volume = format!("{}:/go:ro", go.path().display());
        let start = |name: &str, image: &str| {
            let calls = format!("until [ -e /go/{name} ]; do sleep 0.1; done; /program many");
            docker.run(
                &[
                    &["run", "-d", "--net=none", "--name", name, "--volume", &volume][..],
                    &[image, "/bin/sh", "-c", &calls],
                ]
                .concat(),
            );
        };
        let call = |name: &str| {
            std::fs::write(go.path().join(name), "").expect("a writable directory");
            docker.run(&["wait", name]);
        };
        start(early, "with-libc");
        let running = on(&docker, &["run", "trace_malloc", "-o", "json", "--ledger"]).start_ready();
        let told = |what: &str| {
            wait_for(what, Duration::from_secs(120), || running.stderr().contains(what).then_some(()));
        };
        let probed = |name: &str| told(&format!("\ncontainer {name}: "));
        probed(early);
        start(later, "with-libc");
        probed(later);
        call(early);
        call(later);
        start(last, "with-libc");
        probed(last);
        call(last);
        start(next, "with-another");
        probed(next);
        call(next);
        docker.run(&["run", "-d", "--net=none", "--name", bare, "busybox", "/bin/sleep", "1000"]);
        // said by name: a container without a C library
        told(&format!("container {bare}: nothing to probe"));
        docker.run(&["rm", "-f", bare]);
        let done = running.stop();
        let rows = done.rows();
        for name in [early, later, last, next] {
            for size in [777, 778] {
                let seen = rows
                    .iter()
                    .filter(|r| at(r, "runtime.containerName") == name && at(r, "operation") == "malloc")
                    .filter(|r| *at(r, "size") == size)
                    .count();
                assert_eq!(seen, 500, "malloc({size}) of {name}\n{}", done.stderr);
            }
        }
        assert!(rows.iter().all(|r| at(r, "runtime.containerName") != ""), "rows of the host");
        done.ledger().check();
    }

    #[test]
    fn a_stop_loses_nothing_while_probes_are_detached_one_by_one() {
        let _alone = alone();
        let docker = Docker::start();
        let dir = TempDir::new().expect("a temporary directory");
        let (source, program) = (dir.path().join("allocates.c"), dir.path().join("program"));
        std::fs::write(&source, ALLOCATES).expect("a writable directory");
        let libraries = load::compile_dynamic(&source, &program, &[]);
        image(&docker, "allocates", &program, &libraries);
        let name = own("allocates");
        docker.run(&["run", "-d", "--net=none", "--name", &name, "allocates", "/program"]);

        // The buffer has room for about a second, and detaching takes some. On a machine whose processors others have, too, the reader
        // may be kept waiting for longer; one that does not read meanwhile loses every time.
        const TRIES: usize = 4;
        let flags = ["-c", name.as_str(), "-o", "none", "--buffer-size", "256KiB", "--ledger", "--fail-on-loss"];
        let mut told = Vec::new();
        for _ in 0..TRIES {
            let running = on(&docker, &["run", "trace_malloc"]).args(&flags).start_ready();
            std::thread::sleep(Duration::from_secs(1));
            let done = running.stop();
            let said = &done.stderr;
            assert!(matches!(done.code(), 0 | 4), "{said}");
            assert!(said.contains(" produced = ") && !said.contains("ledger: 0 produced"), "{said}");
            if done.code() == 0 {
                return;
            }
            told.push(done.stderr);
        }
        panic!("{}", told.join("\n"));
    }

    #[test]
    fn time_is_found_under_the_functions_that_spend_it() {
        let _alone = alone();
        let docker = Docker::start();
        let dir = TempDir::new().expect("a temporary directory");
        let (source, program) = (dir.path().join("burn.c"), dir.path().join("program"));
        std::fs::write(&source, BURNER).expect("a writable directory");
        let libraries = load::compile_dynamic(&source, &program, &[]);
        image(&docker, "burner", &program, &libraries);
        let name = own("burn");
        docker.run(&["run", "-d", "--net=none", "--name", &name, "burner", "/program"]);

        let folded = on(&docker, &["run", "profile_cpu", "-c", &name, "-o", "folded", "--timeout", "4"]).run();
        let text = folded.expect_success().stdout();
        let samples: u64 = text
            .lines()
            .filter(|l| l.starts_with(&format!("{name};program;")) && l.contains(";main;burn_outer;burn_inner "))
            .filter_map(|l| l.rsplit_once(' ')?.1.parse::<u64>().ok())
            .sum();
        let all: u64 = text.lines().filter_map(|l| l.rsplit_once(' ')?.1.parse::<u64>().ok()).sum();
        assert!(samples > 20 && samples * 10 > all * 9, "{samples} of {all}:\n{text}");
        assert!(text.lines().all(|l| l.starts_with(&format!("{name};"))), "{text}");

        let svg = on(&docker, &["run", "profile_cpu", "-c", &name, "-o", "flamegraph", "--timeout", "3"]).run();
        let svg = svg.expect_success().stdout();
        assert!(svg.starts_with("<?xml") && svg.ends_with("</svg>\n"), "{svg}");
        assert!(svg.contains("<title>burn_inner ("), "{svg}");
        docker.run(&["rm", "-f", &name]);

        let none = on(&docker, &["run", "trace_signal", "-o", "flamegraph", "--timeout", "1"]).run();
        assert_eq!(none.code(), 2, "{}", none.stderr);
        assert!(none.stderr.contains("has no stacks"), "{}", none.stderr);
        let off = on(&docker, &["run", "trace_open", "-o", "flamegraph", "--timeout", "1"]).run();
        assert_eq!(off.code(), 2, "{}", off.stderr);
        assert!(off.stderr.contains("hint: add --collect-ustack"), "{}", off.stderr);
        on(&docker, &["run", "trace_open", "-o", "folded", "--collect-ustack", "-t", "1"]).run().expect_success();
    }
}

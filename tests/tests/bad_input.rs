//! What bad input gets: an error that names the thing, a hint, a documented exit code (`docs/reference/exit-codes.md`), and
//! nothing on stdout.
//!
//! The texts are golden (insta). After a change on purpose: `INSTA_UPDATE=always`, then read the difference.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its case has failed")]

use ig_tests::{
    alone,
    forged::{EBPF, Forged, WASM},
    ig::{Finished, Ig, binary},
    source_root,
};
use std::{
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

const WRONG_INPUT: i32 = 2;
const ENVIRONMENT: i32 = 3;

/// Checks code, empty stdout and the message. What differs from run to run (temporary paths, digests, ports) is masked.
#[track_caller]
fn refused(name: &str, done: &Finished, code: i32) {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"/tmp/(\.tmp|igd|ig-load)[A-Za-z0-9]+", "[TMP]");
    settings.add_filter(r"\.ig-tmp-[A-Za-z0-9]+", "[NEW]");
    settings.add_filter(r"[0-9a-f]{64}", "[SHA256]");
    settings.add_filter(r"\b[0-9a-f]{12}\b", "[SHORT]");
    settings.add_filter(r"127\.0\.0\.1:\d+", "[REGISTRY]");
    settings.add_filter(r"/[^\s\x22]*/ig-tests/\.\.", "[SOURCE]");
    settings.set_prepend_module_to_snapshot(false);
    settings.bind(|| insta::assert_snapshot!(name, done.stderr));
    assert_eq!(done.code(), code, "{name}: {}", done.stderr);
    assert_eq!(done.stdout(), "", "{name}: nothing may be printed before the error");
}

fn run(arguments: &[&str]) -> Finished {
    Ig::new(arguments).run()
}

/// A copy of a gadget's folder in which one file is changed.
fn changed(gadget: &str, file: &str, change: impl FnOnce(String) -> String) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join(gadget);
    let from = source_root().join("gadgets").join(gadget);
    assert!(Command::new("cp").arg("-r").arg(from).arg(&copy).status().unwrap().success());
    let path = copy.join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    let new = change(text.clone());
    assert_ne!(new, text, "the change did not apply");
    std::fs::write(&path, new).unwrap();
    (dir, copy)
}

fn build(dir: &Path) -> Finished {
    run(&["image", "build", dir.to_str().unwrap(), "-t", "broken"])
}

mod command_line {
    use super::*;

    #[test]
    fn unknown_command() {
        refused("unknown_command", &run(&["rum"]), WRONG_INPUT);
    }

    #[test]
    fn unknown_flag() {
        refused("unknown_flag", &run(&["run", "trace_exec", "--hots"]), WRONG_INPUT);
    }

    #[test]
    fn parameter_of_another_gadget() {
        refused("parameter_of_another_gadget", &run(&["run", "snapshot_process", "--failed"]), WRONG_INPUT);
    }

    #[test]
    fn parameter_of_wrong_type() {
        refused("parameter_of_wrong_type", &run(&["run", "trace_exec", "--pid", "init"]), WRONG_INPUT);
    }

    #[test]
    fn unknown_output_mode() {
        refused("unknown_output_mode", &run(&["run", "trace_exec", "-o", "xml"]), WRONG_INPUT);
    }

    #[test]
    fn unknown_field() {
        refused("unknown_field", &run(&["run", "trace_exec", "--fields", "proc.comm,proc.pidd"]), WRONG_INPUT);
    }

    #[test]
    fn unknown_filter_field() {
        refused("unknown_filter_field", &run(&["run", "trace_exec", "--filter", "prok.comm==sh"]), WRONG_INPUT);
    }

    #[test]
    fn unknown_filter_operator() {
        refused("unknown_filter_operator", &run(&["run", "trace_exec", "--filter", "proc.comm=>sh"]), WRONG_INPUT);
    }

    #[test]
    fn filter_value_of_wrong_type() {
        refused("filter_value_of_wrong_type", &run(&["run", "trace_exec", "--filter", "proc.pid==sh"]), WRONG_INPUT);
    }

    #[test]
    fn unknown_sort_field() {
        refused("unknown_sort_field", &run(&["run", "snapshot_process", "--sort", "nothing"]), WRONG_INPUT);
    }

    #[test]
    fn parameter_of_several_gadgets() {
        refused("parameter_of_several_gadgets", &run(&["run", "trace_exec", "trace_open", "--pid", "1"]), WRONG_INPUT);
    }

    #[test]
    fn parameter_of_none_of_several_gadgets() {
        let done = run(&["run", "trace_exec", "trace_open", "--trace_exec.faild"]);
        refused("parameter_of_none_of_several_gadgets", &done, WRONG_INPUT);
    }

    #[test]
    fn switch_with_its_value_apart() {
        refused("switch_with_its_value_apart", &run(&["run", "trace_open", "--failed", "true"]), WRONG_INPUT);
    }

    #[test]
    fn gadget_named_twice() {
        refused("gadget_named_twice", &run(&["run", "trace_exec", "trace_open", "trace_exec"]), WRONG_INPUT);
    }

    #[test]
    fn one_recording_of_several_gadgets() {
        let done = run(&["run", "trace_exec", "trace_open", "--record", "/tmp/x.igrec"]);
        refused("one_recording_of_several_gadgets", &done, WRONG_INPUT);
    }

    #[test]
    fn field_that_one_of_several_gadgets_lacks() {
        let done = run(&["run", "trace_open", "trace_exec", "--filter", "fname~passwd"]);
        refused("field_that_one_of_several_gadgets_lacks", &done, WRONG_INPUT);
    }

    #[test]
    fn unknown_gadget_among_several() {
        let done = run(&["run", "trace_exec", "trace_opne", "--pull=never"]);
        refused("unknown_gadget_among_several", &done, WRONG_INPUT);
    }

    #[test]
    fn verb_that_is_none() {
        refused("verb_that_is_none", &run(&["trace", "exce"]), WRONG_INPUT);
    }

    #[test]
    fn verb_that_is_no_more() {
        refused("verb_that_is_no_more", &run(&["trace", "fsslower", "-m", "10"]), WRONG_INPUT);
    }

    #[test]
    fn flag_of_a_verb_that_is_no_more() {
        refused("flag_of_a_verb_that_is_no_more", &run(&["trace", "dns", "--dns-timeout", "5s"]), WRONG_INPUT);
    }

    #[test]
    fn flag_of_a_verb_with_a_wrong_value() {
        refused("flag_of_a_verb_with_a_wrong_value", &run(&["snapshot", "process", "--threads=some"]), WRONG_INPUT);
    }

    #[test]
    fn wrong_value_beside_a_flag_of_the_gadget() {
        let done = run(&["run", "trace_open", "--pid", "1", "--timeout", "soon"]);
        refused("wrong_value_beside_a_flag_of_the_gadget", &done, WRONG_INPUT);
    }

    #[test]
    fn no_value_beside_a_flag_of_tables() {
        let done = run(&["run", "top_process", "--count", "1", "--max-entries"]);
        refused("no_value_beside_a_flag_of_tables", &done, WRONG_INPUT);
    }

    #[test]
    fn flag_of_another_verb() {
        refused("flag_of_another_verb", &run(&["trace", "exec", "--full-path"]), WRONG_INPUT);
    }

    #[test]
    fn column_of_another_gadget() {
        let done = run(&["trace", "exec", "-o", "custom-columns=container,saddr"]);
        refused("column_of_another_gadget", &done, WRONG_INPUT);
    }

    #[test]
    fn columns_without_a_name() {
        refused("columns_without_a_name", &run(&["run", "trace_exec", "-o", "custom-columns"]), WRONG_INPUT);
    }

    #[test]
    fn columns_chosen_twice() {
        let done = run(&["run", "trace_exec", "-o", "columns=comm", "--fields", "args"]);
        refused("columns_chosen_twice", &done, WRONG_INPUT);
    }

    #[test]
    fn columns_of_a_list_that_are_none() {
        refused("columns_of_a_list_that_are_none", &run(&["list-gadgets", "-o", "columns=colour"]), WRONG_INPUT);
    }

    #[test]
    fn buffer_size_without_sense() {
        refused("buffer_size_without_sense", &run(&["run", "trace_exec", "--buffer-size", "4 bananas"]), WRONG_INPUT);
    }
}

mod images {
    use super::*;

    #[test]
    fn unknown_gadget() {
        refused("unknown_gadget", &run(&["run", "trace_exek", "--pull", "never"]), WRONG_INPUT);
    }

    #[test]
    fn names_that_are_nearly_gadgets() {
        let mut said = String::new();
        for name in ["trace_opne", "open", "gadget/trace_open", "TRACE_OPEN", "trace_", "", "./nothing", "/nothing"] {
            let done = run(&["run", name, "--pull", "never"]);
            assert_eq!((done.code(), done.stdout().as_str()), (WRONG_INPUT, ""), "{name}: {}", done.stderr);
            said.push_str(&format!("{name:?}\n{}\n", done.stderr));
        }
        insta::with_settings!({
            prepend_module_to_snapshot => false,
            filters => vec![(r"/tmp/\.tmp[A-Za-z0-9]+", "[TMP]")],
        }, { insta::assert_snapshot!("names_that_are_nearly_gadgets", said); });
    }

    #[test]
    fn name_that_is_no_name() {
        refused("name_that_is_no_name", &run(&["run", "Trace Exec"]), WRONG_INPUT);
    }

    #[test]
    fn archive_that_is_not_there() {
        refused("archive_that_is_not_there", &run(&["run", "./no-such-file.tar"]), WRONG_INPUT);
    }

    #[test]
    fn image_that_is_no_gadget() {
        let dir = tempfile::tempdir().unwrap();
        let tar = Forged::container().write(&dir.path().join("image"));
        refused("image_that_is_no_gadget", &run(&["run", tar.to_str().unwrap()]), WRONG_INPUT);
    }

    #[test]
    fn archive_that_is_no_archive() {
        let dir = tempfile::tempdir().unwrap();
        let tar = dir.path().join("noise.tar");
        std::fs::write(&tar, [7u8; 4096]).unwrap();
        refused("archive_that_is_no_archive", &run(&["image", "import", tar.to_str().unwrap()]), WRONG_INPUT);
    }

    #[test]
    fn recording_that_is_no_recording() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("noise.igrec");
        std::fs::write(&file, [7u8; 4096]).unwrap();
        refused("recording_that_is_no_recording", &run(&["replay", file.to_str().unwrap()]), WRONG_INPUT);
    }

    /// Spoils the largest blob of a store that holds one image, and runs the image.
    fn spoilt(name: &str, spoil: impl Fn(&mut Vec<u8>)) {
        let store = tempfile::tempdir().unwrap();
        let gadget = source_root().join("gadgets/snapshot_process");
        Ig::new(&["image", "build", gadget.to_str().unwrap(), "-t", "spoilt"])
            .store(store.path())
            .run()
            .expect_success();
        let blobs = std::fs::read_dir(store.path().join("blobs/sha256")).unwrap();
        let largest = blobs.flatten().max_by_key(|e| e.metadata().unwrap().len()).unwrap().path();
        let mut bytes = std::fs::read(&largest).unwrap();
        spoil(&mut bytes);
        assert!(Command::new("chmod").arg("u+w").arg(&largest).status().unwrap().success());
        std::fs::write(&largest, bytes).unwrap();
        let done = Ig::new(&["run", "spoilt", "--pull", "never", "--host"]).store(store.path()).run();
        refused(name, &done, WRONG_INPUT);
    }

    #[test]
    fn tampered_blob() {
        spoilt("tampered_blob", |b| b[100] ^= 1);
    }

    #[test]
    fn truncated_blob() {
        spoilt("truncated_blob", |b| b.truncate(100));
    }
}

mod gadgets {
    use super::*;

    #[test]
    fn yaml_with_an_unknown_key() {
        let (_dir, gadget) = changed("trace_open", "gadget.yaml", |t| format!("{t}\nnaem: typo\n"));
        refused("yaml_with_an_unknown_key", &build(&gadget), WRONG_INPUT);
    }

    #[test]
    fn yaml_with_a_wrong_type() {
        let (_dir, gadget) = changed("trace_open", "gadget.yaml", |t| t.replacen("name: ", "name: [] # ", 1));
        refused("yaml_with_a_wrong_type", &build(&gadget), WRONG_INPUT);
    }

    #[test]
    fn yaml_with_a_field_that_does_not_exist() {
        let (_dir, gadget) = changed("trace_open", "gadget.yaml", |t| {
            t.replacen(
                "fields:\n",
                "fields:\n      no_such_field:\n        annotations:\n          description: none\n",
                1,
            )
        });
        // Only the gadget as a whole tells: its Wasm may add fields.
        refused("yaml_with_a_field_that_does_not_exist", &run(&["run", gadget.to_str().unwrap()]), WRONG_INPUT);
    }

    #[test]
    fn yaml_that_is_no_yaml() {
        let (_dir, gadget) = changed("trace_open", "gadget.yaml", |_| "{{{".into());
        refused("yaml_that_is_no_yaml", &build(&gadget), WRONG_INPUT);
    }

    #[test]
    fn folder_without_gadget_yaml() {
        let dir = tempfile::tempdir().unwrap();
        refused("folder_without_gadget_yaml", &build(dir.path()), WRONG_INPUT);
    }

    #[test]
    fn c_that_does_not_compile() {
        let (_dir, gadget) = changed("trace_open", "program.bpf.c", |t| format!("{t}\nint broken(\n"));
        let done = build(&gadget);
        // The compiler's own words differ between its versions: only that they are passed on is checked.
        assert_eq!(done.code(), WRONG_INPUT, "{}", done.stderr);
        assert!(done.stderr.contains("program.bpf.c") && done.stderr.contains("error:"), "{}", done.stderr);
    }
}

mod root {
    use super::*;

    const YAML: &str = "name: forged\n";

    #[test]
    fn elf_that_is_no_bpf() {
        let _alone = alone();
        let dir = tempfile::tempdir().unwrap();
        let program = std::fs::read("/bin/true").unwrap();
        let tar = Forged::gadget(YAML).layer(EBPF, &program).write(&dir.path().join("image"));
        refused("elf_that_is_no_bpf", &run(&["run", tar.to_str().unwrap(), "--host"]), WRONG_INPUT);
    }

    #[test]
    fn program_that_is_no_elf() {
        let _alone = alone();
        let dir = tempfile::tempdir().unwrap();
        let tar = Forged::gadget(YAML).layer(EBPF, b"#!/bin/sh\n").write(&dir.path().join("image"));
        refused("program_that_is_no_elf", &run(&["run", tar.to_str().unwrap(), "--host"]), WRONG_INPUT);
    }

    /// A minimal gadget with `body` as its program, compiled here.
    fn compiled(dir: &Path, body: &str) -> Vec<u8> {
        let source = dir.join("p.bpf.c");
        let object = dir.join("p.bpf.o");
        let text = format!(
            "#include <gadget/common.h>\n\
             struct event {{ gadget_timestamp timestamp_raw; int value; }};\n\
             GADGET_TRACER_MAP(events, 256 * 1024);\nGADGET_TRACER(things, events, event);\n\
             {body}\nchar LICENSE[] SEC(\"license\") = \"GPL\";\n"
        );
        std::fs::write(&source, text).unwrap();
        let ok = Command::new("clang-19")
            .args([
                "-O2",
                "-g",
                "-target",
                "bpf",
                "-mcpu=v3",
                "-D__TARGET_ARCH_x86",
                "-I/usr/include/x86_64-linux-gnu",
                "-c",
            ])
            .arg(format!("-I{}", source_root().join("bpf/include").display()))
            .arg(&source)
            .arg("-o")
            .arg(&object)
            .status()
            .unwrap();
        assert!(ok.success());
        std::fs::read(object).unwrap()
    }

    #[test]
    fn program_that_the_verifier_refuses() {
        let _alone = alone();
        let dir = tempfile::tempdir().unwrap();
        let body = "SEC(\"tracepoint/syscalls/sys_enter_openat\") int bad(void *ctx) { long *null = 0; __asm__ volatile(\"\" : \"+r\"(null)); return *null; }";
        let tar = Forged::gadget(YAML).layer(EBPF, &compiled(dir.path(), body)).write(&dir.path().join("image"));
        let done = run(&["run", tar.to_str().unwrap(), "--host"]);
        // Another kernel may well accept it: hence the environment.
        assert_eq!(done.code(), ENVIRONMENT, "{}", done.stderr);
        // The log is the kernel's: what it says differs between versions.
        for part in ["bad", "sys_enter_openat", "R1"] {
            assert!(done.stderr.contains(part), "{part} is not named:\n{}", done.stderr);
        }
    }

    #[test]
    fn hook_that_the_kernel_lacks() {
        let _alone = alone();
        let dir = tempfile::tempdir().unwrap();
        let body = "SEC(\"tracepoint/syscalls/sys_enter_no_such_call\") int lost(void *ctx) { return 0; }";
        let tar = Forged::gadget(YAML).layer(EBPF, &compiled(dir.path(), body)).write(&dir.path().join("image"));
        let done = run(&["run", tar.to_str().unwrap(), "--host", "--timeout", "1"]);
        refused("hook_that_the_kernel_lacks", &done, ENVIRONMENT);
    }

    #[test]
    fn garbage_btf() {
        let _alone = alone();
        let dir = tempfile::tempdir().unwrap();
        let body = "SEC(\"tracepoint/syscalls/sys_enter_openat\") int fine(void *ctx) { return 0; }";
        let mut object = compiled(dir.path(), body);
        // The magic number of .BTF, little endian, with its version: everything after it becomes noise.
        let at = object.windows(4).position(|w| w == [0x9f, 0xeb, 0x01, 0x00]).expect("a BTF header");
        object[at + 4..at + 24].fill(0xff);
        let tar = Forged::gadget(YAML).layer(EBPF, &object).write(&dir.path().join("image"));
        refused("garbage_btf", &run(&["run", tar.to_str().unwrap(), "--host"]), WRONG_INPUT);
    }

    #[test]
    fn wasm_that_is_no_component() {
        let _alone = alone();
        let dir = tempfile::tempdir().unwrap();
        let body = "SEC(\"tracepoint/syscalls/sys_enter_openat\") int fine(void *ctx) { return 0; }";
        let object = compiled(dir.path(), body);
        for (name, wasm) in [("wasm_noise", &b"not wasm at all"[..]), ("wasm_empty_component", b"\0asm\x0d\0\x01\0")] {
            let tar = Forged::gadget(YAML).layer(EBPF, &object).layer(WASM, wasm).write(&dir.path().join(name));
            refused(name, &run(&["run", tar.to_str().unwrap(), "--host"]), WRONG_INPUT);
        }
    }

    #[test]
    fn not_root() {
        let _alone = alone();
        let dir = tempfile::Builder::new().prefix("igd").tempdir_in("/tmp").unwrap();
        let copy = dir.path().join("ig");
        std::fs::copy(binary(), &copy).unwrap();
        assert!(Command::new("chmod").args(["a+rx"]).arg(dir.path()).arg(&copy).status().unwrap().success());
        let out = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(&copy)
            .args(["run", "trace_exec", "--store", "/tmp/ig-no-such-store"])
            .env("HOME", dir.path())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
        insta::with_settings!({prepend_module_to_snapshot => false}, { insta::assert_snapshot!("not_root", stderr) });
        assert_eq!(out.status.code(), Some(ENVIRONMENT));
    }

    /// As su and setpriv leave it: HOME is that of somebody else, who lets nobody in.
    #[test]
    fn a_home_of_somebody_else_is_as_none() {
        let dir = tempfile::Builder::new().prefix("igd").tempdir_in("/tmp").unwrap();
        let (copy, home) = (dir.path().join("ig"), dir.path().join("home"));
        std::fs::copy(binary(), &copy).unwrap();
        std::fs::create_dir(&home).unwrap();
        assert!(Command::new("chmod").args(["a+rx"]).arg(dir.path()).arg(&copy).status().unwrap().success());
        assert!(Command::new("chmod").arg("700").arg(&home).status().unwrap().success());
        let tar = dir.path().join("image.tar");
        run(&["image", "export", "trace_open", tar.to_str().unwrap()]).expect_success();
        let ig = |home: Option<&Path>, arguments: &[&str]| {
            let mut c = Command::new("setpriv");
            c.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
                .arg(&copy)
                .args(arguments)
                .env_remove("HOME");
            let out = c.envs(home.map(|h| ("HOME", h))).output().unwrap();
            (
                out.status.code(),
                String::from_utf8_lossy(&out.stdout).into_owned(),
                String::from_utf8_lossy(&out.stderr).into_owned(),
            )
        };
        for home in [None, Some(home.as_path())] {
            let (code, stdout, stderr) = ig(home, &["list-gadgets"]);
            assert_eq!((code, stderr.as_str(), stdout.contains("trace_open")), (Some(0), "", true), "{stderr}");
            let (code, _, stderr) = ig(home, &["run", "trace_open"]);
            assert_eq!(
                (code, stderr.lines().next()),
                (Some(ENVIRONMENT), Some("error: running gadget trace_open needs root"))
            );
            let (code, _, stderr) = ig(home, &["image", "import", tar.to_str().unwrap()]);
            assert_eq!(
                (code, stderr.contains("there is no place for images: HOME is")),
                (Some(WRONG_INPUT), true),
                "{stderr}"
            );
            let (code, _, stderr) = ig(home, &["-v", "image", "list"]);
            let why = home.map_or("HOME is not set".to_owned(), |h| format!("HOME is {}, which", h.display()));
            assert!(code == Some(0) && stderr.contains(&why), "{stderr}");
        }
        let config = home.join("config.yaml");
        let (code, _, stderr) = ig(Some(&home), &["list-gadgets", "--config", config.to_str().unwrap()]);
        assert!(code == Some(ENVIRONMENT) && stderr.contains("Permission denied"), "one that was named: {stderr}");
    }

    /// Runs `trace_exec` in a mount namespace of its own, prepared by a shell line.
    fn in_namespace(prepare: &str, arguments: &[&str]) -> Finished {
        let script = format!("{prepare} && exec \"$@\"");
        let ig = Ig::new(&["run", "trace_exec", "--host", "-o", "none", "--timeout", "1"]).args(arguments);
        ig.through(&["unshare", "-m", "--propagation", "private", "sh", "-c", &script, "sh"]).run()
    }

    #[test]
    fn kernel_without_btf() {
        let _alone = alone();
        refused("kernel_without_btf", &in_namespace("mount -t tmpfs none /sys/kernel/btf", &[]), ENVIRONMENT);
    }

    const NO_TRACEFS: &str = "{ umount /sys/kernel/debug/tracing 2>/dev/null; umount /sys/kernel/debug 2>/dev/null; umount /sys/kernel/tracing; }";

    #[test]
    fn no_tracefs() {
        let _alone = alone();
        refused("no_tracefs", &in_namespace(NO_TRACEFS, &[]), ENVIRONMENT);
    }

    #[test]
    fn no_tracefs_is_mounted_on_request() {
        let _alone = alone();
        in_namespace(NO_TRACEFS, &["--auto-mount-filesystems"]).expect_success();
    }

    #[test]
    fn store_on_a_read_only_or_full_disk() {
        let _alone = alone();
        let gadget = source_root().join("gadgets/snapshot_process");
        for (name, options) in [("store_read_only", "ro"), ("store_full", "size=4k")] {
            let dir = tempfile::tempdir().unwrap();
            let script = format!("mount -t tmpfs -o {options} none {0} && exec \"$@\"", dir.path().display());
            let ig = Ig::new(&["image", "build", gadget.to_str().unwrap(), "-t", "x"]).store(dir.path());
            let done = ig.through(&["unshare", "-m", "--propagation", "private", "sh", "-c", &script, "sh"]).run();
            refused(name, &done, ENVIRONMENT);
        }
    }
}

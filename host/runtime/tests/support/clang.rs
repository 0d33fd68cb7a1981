//! Compiles a small BPF object of `tests/bpf` for a test. Without clang the test fails, and says so.

use std::{path::Path, process::Command};

/// The object of `tests/bpf`, stripped of debug information but for BTF. Where there is no compiler, as in a small
/// virtual machine with another kernel, `IG_TEST_BPF_OBJECTS` names a folder of objects made elsewhere.
pub(crate) fn object(name: &str) -> Vec<u8> {
    if let Some(dir) = std::env::var_os("IG_TEST_BPF_OBJECTS") {
        return std::fs::read(Path::new(&dir).join(name).with_extension("o")).unwrap();
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    compile(&here.join("tests/bpf").join(name).with_extension("bpf.c"), &[&here.join("../../bpf/include")])
}

/// Compiles any BPF C file with further include folders.
pub(crate) fn compile(source: &Path, include: &[&Path]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.o");
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang-19".into());
    let strip = std::env::var("LLVM_STRIP").unwrap_or_else(|_| "llvm-strip-19".into());
    let mut command = Command::new(&clang);
    command.args(["-target", "bpf", "-g", "-O2", "-mcpu=v3", "-Wall", "-Werror", "-D__TARGET_ARCH_x86"]);
    command.args(["-I", "/usr/include/x86_64-linux-gnu"]);
    for i in include {
        command.arg("-I").arg(i);
    }
    command.arg("-c").arg(source).arg("-o").arg(&out);
    run(&mut command);
    run(Command::new(strip).arg("-g").arg(&out));
    std::fs::read(out).unwrap()
}

fn run(command: &mut Command) {
    let out = command
        .output()
        .unwrap_or_else(|e| panic!("cannot run {command:?}: {e}; install clang-19, llvm-19 and libbpf-dev"));
    assert!(out.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&out.stderr));
}

//! Compiles the BPF programs that the host itself needs (`bpf/host/*.bpf.c`) into `OUT_DIR`, from where they are embedded.
//!
//! Needs clang with the BPF target and libbpf's headers, nothing else; reruns only when a source changes.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            message.lines().for_each(|line| println!("cargo::error={line}"));
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let manifest_dir = PathBuf::from(var("CARGO_MANIFEST_DIR")?);
    let out_dir = PathBuf::from(var("OUT_DIR")?);
    let sources = manifest_dir.join("../../bpf/host");
    println!("cargo::rerun-if-changed={}", sources.display());
    // Embedded whole for `ig image build`; without this a new header would not be noticed.
    let include = manifest_dir.join("../../bpf/include");
    println!("cargo::rerun-if-changed={}", include.display());
    println!("cargo::rerun-if-env-changed=CLANG");
    let entries = fs::read_dir(&sources).map_err(|e| format!("cannot read {}: {e}", sources.display()))?;
    let mut clang = None;
    for entry in entries {
        let path = entry.map_err(|e| format!("cannot read {}: {e}", sources.display()))?.path();
        let Some(stem) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".bpf.c")) else {
            continue;
        };
        println!("cargo::rerun-if-changed={}", path.display());
        let clang = match &clang {
            Some(c) => c,
            None => clang.insert(find_clang()?),
        };
        compile(clang, &path, &include, &out_dir.join(format!("{stem}.bpf.o")))?;
    }
    Ok(())
}

fn var(name: &str) -> Result<String, String> {
    env::var(name).map_err(|e| format!("{name}: {e}"))
}

/// The newest clang that is there; `CLANG` names another.
fn find_clang() -> Result<String, String> {
    let chosen = env::var("CLANG").ok();
    let names = match &chosen {
        Some(c) => vec![c.clone()],
        None => (14..=22).rev().map(|v| format!("clang-{v}")).chain(["clang".to_owned()]).collect(),
    };
    names.into_iter().find(|n| Command::new(n).arg("--version").output().is_ok_and(|o| o.status.success())).ok_or_else(
        || match chosen {
            Some(c) => format!("CLANG={c} does not run; unset CLANG or install it"),
            None => {
                "clang is missing, and the host's BPF programs need it: apt-get install clang-19 llvm-19 libbpf-dev"
                    .to_owned()
            }
        },
    )
}

/// What libbpf's headers and ours call the architecture whose registers a program reads.
fn bpf_arch(arch: &str) -> &'static str {
    if arch == "aarch64" { "-D__TARGET_ARCH_arm64" } else { "-D__TARGET_ARCH_x86" }
}

fn compile(clang: &str, source: &Path, include: &Path, object: &Path) -> Result<(), String> {
    let arch = var("CARGO_CFG_TARGET_ARCH")?;
    let out = Command::new(clang)
        .args(["-target", "bpf", "-g", "-O2", "-mcpu=v3", "-Wall", "-Werror"])
        // Debian keeps asm/types.h in a directory per architecture, which clang's BPF target does not search.
        .args(["-I", "../../bpf/include", bpf_arch(&arch)])
        .arg("-I")
        .arg(include)
        .arg(bpf_arch(&arch))
        .args(["-idirafter", &format!("/usr/include/{arch}-linux-gnu")])
        .arg("-c")
        .arg(source)
        .arg("-o")
        .arg(object)
        .output()
        .map_err(|e| format!("cannot run {clang}: {e}"))?;
    if out.status.success() {
        return Ok(());
    }
    let log = String::from_utf8_lossy(&out.stderr);
    let hint = if log.contains("bpf/bpf_") {
        "\nlibbpf's headers are missing: apt-get install libbpf-dev"
    } else if log.contains("linux/bpf.h") || log.contains("asm/types.h") {
        "\nthe kernel's user-space headers are missing: apt-get install linux-libc-dev"
    } else {
        ""
    };
    Err(format!("{clang} cannot compile {}:\n{log}{hint}", source.display()))
}

//! Runs clang on a gadget's BPF C, with the gadget headers that this program carries.
//!
//! The headers are unpacked into a temporary directory for the time of the compilation; libbpf's own come from the
//! system. Paths of this machine are mapped away, so that they do not end up in the object.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use include_dir::{Dir, include_dir};

use super::document::Arch;

/// What gadgets include as `<gadget/….h>`.
static HEADERS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../bpf/include");

/// Newest first is not the order: the one our gadgets are tested with comes first.
const CLANG_VERSIONS: [&str; 7] = ["-19", "-20", "-21", "-18", "-17", "-16", ""];

/// Compilers to use instead of the ones found in PATH.
#[derive(Clone, Debug, Default)]
pub struct Toolchain {
    pub clang: Option<PathBuf>,
    pub llvm_strip: Option<PathBuf>,
    /// Where temporary files go; `/tmp` if not given.
    pub scratch: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error("no C compiler for BPF: none of {} can be run", tried.join(", "))]
    NoClang { tried: Vec<String> },
    #[error("no tool to strip BPF objects: none of {} can be run", tried.join(", "))]
    NoStrip { tried: Vec<String> },
    #[error("cannot run {program}: {source}", program = program.display())]
    Run { program: PathBuf, source: io::Error },
    #[error("cannot write {path}: {source}", path = path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{file} does not compile for {arch}:\n{diagnostics}", file = file.display(), diagnostics = diagnostics.trim_end())]
    Diagnostics { file: PathBuf, arch: Arch, diagnostics: String },
    #[error("{program} failed: {message}", program = program.display(), message = message.trim_end())]
    Strip { program: PathBuf, message: String },
}

impl CompileError {
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoClang { .. } | Self::NoStrip { .. } => Some(
                "apt-get install clang-19 llvm-19 libbpf-dev, or say where they are with CLANG and LLVM_STRIP"
                    .to_owned(),
            ),
            Self::Diagnostics { diagnostics, .. } if diagnostics.contains("'bpf/bpf_") => {
                Some("libbpf's headers are missing: apt-get install libbpf-dev".to_owned())
            }
            Self::Diagnostics { diagnostics, .. } if diagnostics.contains("'vmlinux.h'") => Some(
                "make it: bpftool btf dump file /sys/kernel/btf/vmlinux format c > vmlinux.h in the gadget's folder"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

pub(super) struct Compiled {
    pub(super) object: Vec<u8>,
    pub(super) warnings: String,
}

/// The compiler and strip tool that will be used.
pub(super) struct Compiler {
    clang: PathBuf,
    strip: PathBuf,
    scratch: PathBuf,
}

impl Compiler {
    pub(super) fn find(toolchain: &Toolchain) -> Result<Self, CompileError> {
        let clang = match &toolchain.clang {
            Some(path) => path.clone(),
            None => first_that_runs("clang").map_err(|tried| CompileError::NoClang { tried })?,
        };
        let strip = match &toolchain.llvm_strip {
            Some(path) => path.clone(),
            None => strip_beside(&clang)
                .map_or_else(|| first_that_runs("llvm-strip"), Ok)
                .map_err(|tried| CompileError::NoStrip { tried })?,
        };
        Ok(Self { clang, strip, scratch: toolchain.scratch.clone().unwrap_or_else(|| PathBuf::from("/tmp")) })
    }

    /// Compiles one file for one architecture. Diagnostics name files relative to `dir`.
    pub(super) fn compile(&self, dir: &Path, program: &Path, arch: Arch) -> Result<Compiled, CompileError> {
        let scratch = tempfile::Builder::new()
            .prefix("ig-build-")
            .tempdir_in(&self.scratch)
            .map_err(|source| CompileError::Write { path: self.scratch.clone(), source })?;
        let headers = scratch.path().join("include");
        unpack(&headers)?;
        let object = scratch.path().join("program.o");
        let output = run(self.command(dir, program, arch, &headers).arg("-o").arg(&object))?;
        let diagnostics = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            return Err(CompileError::Diagnostics { file: program.to_owned(), arch, diagnostics });
        }
        // Only debug information goes; BTF and symbols are what the host reads.
        let stripped = run(Command::new(&self.strip).arg("-g").arg(&object))?;
        if !stripped.status.success() {
            let message = String::from_utf8_lossy(&stripped.stderr).into_owned();
            return Err(CompileError::Strip { program: self.strip.clone(), message });
        }
        let object = std::fs::read(&object).map_err(|source| CompileError::Write { path: object.clone(), source })?;
        Ok(Compiled { object, warnings: diagnostics })
    }

    fn command(&self, dir: &Path, program: &Path, arch: Arch, headers: &Path) -> Command {
        let mut command = Command::new(&self.clang);
        command.current_dir(dir);
        // These change what is found or compiled; the result must not depend on them.
        for variable in ["CPATH", "C_INCLUDE_PATH", "CCC_OVERRIDE_OPTIONS", "SOURCE_DATE_EPOCH"] {
            command.env_remove(variable);
        }
        command.args(["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-fdiagnostics-color=never"]);
        command.arg(match arch {
            Arch::Amd64 => "-D__TARGET_ARCH_x86",
            Arch::Arm64 => "-D__TARGET_ARCH_arm64",
        });
        command.arg("-fdebug-compilation-dir=.");
        command.arg(prefix_map(headers, "include")).arg(prefix_map(dir, "."));
        command.arg("-I").arg(headers).arg("-I").arg(".");
        if let Some(system) = system_headers(arch) {
            command.arg("-idirafter").arg(system);
        }
        command.arg("-c").arg(program.strip_prefix(dir).unwrap_or(program));
        command
    }
}

fn prefix_map(from: &Path, to: &str) -> OsString {
    let mut argument = OsString::from("-ffile-prefix-map=");
    argument.push(from);
    argument.push("=");
    argument.push(to);
    argument
}

/// clang for BPF does not look into Debian's per-architecture folder, where asm/types.h lies. That header is the same
/// for both architectures, so the host's serves a cross build too.
fn system_headers(arch: Arch) -> Option<&'static str> {
    let (amd64, arm64) = ("/usr/include/x86_64-linux-gnu", "/usr/include/aarch64-linux-gnu");
    let order = if arch == Arch::Amd64 { [amd64, arm64] } else { [arm64, amd64] };
    order.into_iter().find(|dir| Path::new(dir).is_dir())
}

fn unpack(into: &Path) -> Result<(), CompileError> {
    let fail = |source| CompileError::Write { path: into.to_owned(), source };
    std::fs::create_dir_all(into).map_err(fail)?;
    HEADERS.extract(into).map_err(fail)
}

/// `llvm-strip-19` for `clang-19`, from the same folder.
fn strip_beside(clang: &Path) -> Option<PathBuf> {
    let name = clang.file_name().and_then(OsStr::to_str)?.strip_prefix("clang")?;
    let strip = clang.with_file_name(format!("llvm-strip{name}"));
    runs(&strip).then_some(strip)
}

fn first_that_runs(name: &str) -> Result<PathBuf, Vec<String>> {
    let candidates = CLANG_VERSIONS.map(|version| format!("{name}{version}"));
    let found = candidates.iter().find(|candidate| runs(Path::new(candidate)));
    found.map(PathBuf::from).ok_or_else(|| candidates.to_vec())
}

fn runs(program: &Path) -> bool {
    let output = Command::new(program).arg("--version").output();
    output.is_ok_and(|output| output.status.success())
}

fn run(command: &mut Command) -> Result<Output, CompileError> {
    command.output().map_err(|source| CompileError::Run { program: PathBuf::from(command.get_program()), source })
}

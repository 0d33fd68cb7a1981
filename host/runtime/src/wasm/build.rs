//! From a folder of Rust source to a component: what `ig image build` does with a gadget that has a decoder.
//!
//! The ordinary toolchain is used where it has the Wasm target. Where it has not, Debian's `rustc-web` with its sources
//! builds the standard library as well. Paths of the machine are mapped away, so that the same source gives the same bytes.

use serde::Deserialize;
use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};
use wit_component::ComponentEncoder;

const TARGET: &str = "wasm32-unknown-unknown";

/// Settings of the caller's own build, which must not reach the guest's.
const LEAKING: [&str; 17] = [
    "CARGO",
    "CARGO_BUILD_RUSTC",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_INCREMENTAL",
    "CARGO_MAKEFLAGS",
    "CARGO_MANIFEST_DIR",
    "CARGO_TARGET_DIR",
    "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS",
    "RUSTC",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("{} cannot be built: no Rust toolchain here has the target {TARGET}", dir.display())]
    NoToolchain { dir: PathBuf },
    #[error("{} cannot be built: no linker for WebAssembly was found", dir.display())]
    NoLinker { dir: PathBuf },
    #[error("{program} could not be started")]
    Start { program: String, source: io::Error },
    #[error("{} does not build:\n{log}", dir.display())]
    Failed { dir: PathBuf, log: String },
    #[error("what {program} says about {} could not be read", dir.display())]
    Output { program: &'static str, dir: PathBuf, source: serde_json::Error },
    #[error("building {} gave no .wasm file; is it a library?", dir.display())]
    NoArtifact { dir: PathBuf },
    #[error("{} could not be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the module built from {} does not fit the interface: {reason}", dir.display())]
    Encode { dir: PathBuf, reason: String },
}

impl BuildError {
    /// The next step for the user, where there is one.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            BuildError::NoToolchain { .. } => {
                format!("rustup target add {TARGET}, or on Debian: apt-get install rustc-web cargo-web rust-web-src")
            }
            BuildError::NoLinker { .. } => "on Debian: apt-get install lld".into(),
            BuildError::Start { program, .. } if program == "cargo" => {
                "install Rust, for instance from https://rustup.rs".into()
            }
            BuildError::Encode { .. } => {
                "does the crate call gadget_sdk::export!, with the SDK of this version of ig?".into()
            }
            _ => return None,
        })
    }
}

/// Builds the crate in `dir` and encodes it. `target_dir` keeps what can be reused; it may be shared by all gadgets.
///
/// Blocks for as long as cargo does: half a minute for a first guest, a second for later ones.
pub fn build(dir: &Path, target_dir: &Path) -> Result<Vec<u8>, BuildError> {
    let dir = dir.canonicalize().map_err(|source| BuildError::Read { path: dir.to_owned(), source })?;
    let toolchain = Toolchain::find(&dir)?;
    let mut cargo = toolchain.cargo(&dir);
    cargo
        .args(["rustc", "--release", "--lib", "--crate-type", "cdylib", "--target", TARGET])
        .arg("--target-dir")
        .arg(target_dir)
        .arg("--message-format=json-render-diagnostics")
        .args(toolchain.arguments())
        // A workspace's settings for its dependencies hold for macros, too, which are run once and need no optimisation.
        // What goes into the guest is told by `flags`, which macros do not get.
        .args(["--config", "profile.release.package.\"*\".opt-level=0"])
        .env("CARGO_ENCODED_RUSTFLAGS", toolchain.flags(&dir)?.join("\x1f"))
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
        .env("CARGO_PROFILE_RELEASE_LTO", "true")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_STRIP", "true");
    let output = run(&mut cargo)?;
    if !output.status.success() {
        return Err(BuildError::Failed { dir, log: String::from_utf8_lossy(&output.stderr).trim_end().to_owned() });
    }
    let path = artifact(&output.stdout).ok_or_else(|| BuildError::NoArtifact { dir: dir.clone() })?;
    let module = std::fs::read(&path).map_err(|source| BuildError::Read { path, source })?;
    encode(&dir, &module)
}

/// Turns a core module that was built with the SDK into a component. `dir` is for messages.
pub fn encode(dir: &Path, module: &[u8]) -> Result<Vec<u8>, BuildError> {
    let mut encoder = ComponentEncoder::default();
    let encoded = encoder.module(module).and_then(|e| e.validate(true).encode());
    encoded.map_err(|e| BuildError::Encode { dir: dir.to_owned(), reason: format!("{e:#}") })
}

enum Toolchain {
    /// What is first in PATH, with the target installed.
    Ordinary,
    /// Debian's, which builds the standard library from source. `linker` and whether it has to be told what it is.
    FromSource { linker: PathBuf, flavour: bool },
}

impl Toolchain {
    fn find(dir: &Path) -> Result<Self, BuildError> {
        let ordinary = ask_rustc(Path::new("rustc"), dir, &["--print", "target-libdir", "--target", TARGET]);
        if ordinary.is_some_and(|libs| libs.read_dir().is_ok_and(|mut d| d.next().is_some())) {
            return Ok(Toolchain::Ordinary);
        }
        let debian = ["/usr/bin/cargo", "/usr/bin/rustc", "/usr/lib/rustlib/src/rust/library/std"];
        if !debian.iter().all(|p| Path::new(p).exists()) {
            return Err(BuildError::NoToolchain { dir: dir.to_owned() });
        }
        let (linker, flavour) = find_linker(dir).ok_or_else(|| BuildError::NoLinker { dir: dir.to_owned() })?;
        Ok(Toolchain::FromSource { linker, flavour })
    }

    fn cargo(&self, dir: &Path) -> Command {
        let mut cargo = match self {
            Toolchain::Ordinary => Command::new("cargo"),
            Toolchain::FromSource { .. } => Command::new("/usr/bin/cargo"),
        };
        for name in LEAKING {
            cargo.env_remove(name);
        }
        if let Toolchain::FromSource { linker, .. } = self {
            cargo
                .env("RUSTC", "/usr/bin/rustc")
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        }
        cargo.current_dir(dir).stdin(Stdio::null());
        cargo
    }

    fn arguments(&self) -> &'static [&'static str] {
        match self {
            Toolchain::Ordinary => &[],
            Toolchain::FromSource { .. } => &["-Zbuild-std=std,panic_abort"],
        }
    }

    /// Compiler flags: every folder that a panic message could name gets a name that is the same everywhere.
    fn flags(&self, dir: &Path) -> Result<Vec<String>, BuildError> {
        let mut cargo = self.cargo(dir);
        let output = run(cargo.args(["metadata", "--format-version", "1", "--filter-platform", TARGET]))?;
        if !output.status.success() {
            let log = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
            return Err(BuildError::Failed { dir: dir.to_owned(), log });
        }
        let metadata: Metadata = serde_json::from_slice(&output.stdout).map_err(|source| BuildError::Output {
            program: "cargo metadata",
            dir: dir.to_owned(),
            source,
        })?;
        let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
        // Every host has it, and text is what decoders are about.
        let mut flags =
            vec!["-Copt-level=3".into(), "-Ctarget-feature=+simd128".into(), remap(&metadata.workspace_root, "/src")];
        for package in &metadata.packages {
            match package.manifest_path.parent() {
                // All packages of a registry lie in one folder, those that only the standard library needs as well.
                Some(folder) if package.source.as_deref().is_some_and(|s| s.starts_with("registry+")) => {
                    flags.extend(folder.parent().map(|registry| remap(registry, "/registry")));
                }
                Some(folder) => flags.push(remap(folder, &format!("/src/{}-{}", package.name, package.version))),
                None => {}
            }
        }
        let mut seen = std::collections::HashSet::new();
        flags.retain(|f| seen.insert(f.clone()));
        if let Toolchain::FromSource { flavour, .. } = self {
            flags.push(remap(Path::new("/usr/lib/rustlib/src/rust"), "/rust"));
            if *flavour {
                flags.push("-Clinker-flavor=wasm-ld".into());
            }
        }
        Ok(flags)
    }
}

#[derive(Deserialize)]
struct Metadata {
    workspace_root: PathBuf,
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    source: Option<String>,
    manifest_path: PathBuf,
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// The last .wasm file that cargo says it made; the crate itself is built last.
fn artifact(messages: &[u8]) -> Option<PathBuf> {
    let lines = messages.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice::<Message>(line).ok());
    let mut files = lines.filter(|m| m.reason == "compiler-artifact").flat_map(|m| m.filenames).rev();
    files.find(|f| f.extension().is_some_and(|e| e == "wasm"))
}

/// The linker of the ordinary toolchain, which needs no package; else one of LLVM's. `true`: its name does not tell what
/// it is.
fn find_linker(dir: &Path) -> Option<(PathBuf, bool)> {
    let libs = ask_rustc(Path::new("rustc"), dir, &["--print", "target-libdir"]);
    if let Some(lld) = libs.and_then(|l| l.parent().map(|p| p.join("bin/rust-lld"))).filter(|p| p.exists()) {
        return Some((lld, false));
    }
    let versions = (14..40).rev().map(|v| format!("/usr/bin/wasm-ld-{v}"));
    let found = std::iter::once("/usr/bin/wasm-ld".to_owned()).chain(versions).find(|p| Path::new(p).exists());
    found.map(|p| (p.into(), true))
}

/// A path that rustc prints; `None` when there is no rustc or it refuses.
fn ask_rustc(rustc: &Path, dir: &Path, arguments: &[&str]) -> Option<PathBuf> {
    let mut command = Command::new(rustc);
    for name in LEAKING {
        command.env_remove(name);
    }
    let output = command.args(arguments).current_dir(dir).stdin(Stdio::null()).output().ok()?;
    let printed = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(printed.trim()))
}

fn run(command: &mut Command) -> Result<Output, BuildError> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.output().map_err(|source| BuildError::Start { program, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_wasm_artifact_is_the_crate_itself() {
        let messages = br#"{"reason":"compiler-artifact","filenames":["/t/libdep.rlib"]}
not json
{"reason":"compiler-artifact","filenames":["/t/dep.wasm"]}
{"reason":"compiler-artifact","filenames":["/t/guest.wasm","/t/guest.d"]}
{"reason":"build-finished","success":true}"#;
        assert_eq!(artifact(messages), Some("/t/guest.wasm".into()));
        assert_eq!(artifact(b""), None);
    }

    #[test]
    fn a_module_without_the_interface_is_refused_with_a_hint() {
        let module = wat::parse_str(r#"(module (import "env" "puts" (func)))"#).unwrap();
        let e = encode(Path::new("/gadgets/x"), &module).unwrap_err();
        assert!(e.to_string().starts_with("the module built from /gadgets/x does not fit the interface: "), "{e}");
        assert!(e.hint().is_some());
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let e = build(Path::new("/no/such/gadget"), Path::new("/tmp")).unwrap_err();
        assert_eq!(e.to_string(), "/no/such/gadget could not be read");
    }
}

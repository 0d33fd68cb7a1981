//! An exact number of events, made by `tests/bench/load.c` under a user id that nobody else has.
//!
//! The user id is the trick: a gadget told `--uid` sees this load and nothing else of a busy machine, so counts can be
//! compared exactly.

use serde::Deserialize;
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

/// No account has it, and no runtime hands it out.
pub const UID: u32 = 54_321;

pub struct Load {
    dir: PathBuf,
    /// Removes the directory at the end, if it is ours.
    _own: Option<TempDir>,
}

/// What the generator counted.
#[derive(Debug, Deserialize)]
pub struct Done {
    pub ops: u64,
    pub ops_per_s: f64,
}

impl Load {
    /// Compiles the generator, static so that it opens no file of its own.
    pub fn build() -> Load {
        let dir = tempfile::Builder::new().prefix("ig-load").tempdir().expect("a temporary directory");
        compile_into(dir.path());
        let ok = Command::new("chmod").arg("-R").arg("a+rX").arg(dir.path()).status().is_ok_and(|s| s.success());
        assert!(ok, "chmod failed");
        Load { dir: dir.path().to_path_buf(), _own: Some(dir) }
    }

    /// One that `compile_into` made earlier.
    pub fn at(dir: &Path) -> Load {
        assert!(dir.join("load").is_file(), "no load generator in {}", dir.display());
        Load { dir: dir.to_path_buf(), _own: None }
    }

    /// A path that cannot be opened: the cheapest open there is.
    pub fn missing_path(&self) -> PathBuf {
        self.dir.join("missing")
    }

    /// A static program that does nothing.
    pub fn nothing(&self) -> PathBuf {
        self.dir.join("nothing")
    }

    /// Starts `load ARGUMENTS` as `UID`. Starting it is one exec of that user by itself.
    pub fn start(&self, arguments: &[&str], path: &Path) -> Child {
        Command::new("setpriv")
            .arg(format!("--reuid={UID}"))
            .args(["--clear-groups", "--pdeathsig=KILL", "--"])
            .arg(self.dir.join("load"))
            .args(arguments)
            .env("LOAD_PATH", path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("setpriv of util-linux")
    }

    pub fn run(&self, arguments: &[&str], path: &Path) -> Done {
        finish(self.start(arguments, path))
    }
}

/// Ends the load between two operations and returns its exact count.
pub fn stop(child: Child) -> Done {
    let ok = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().is_ok_and(|s| s.success());
    assert!(ok, "the load had ended already");
    finish(child)
}

pub fn finish(child: Child) -> Done {
    let out = child.wait_with_output().expect("a child of ours");
    assert!(out.status.success(), "the load failed: {}", out.status);
    serde_json::from_slice(&out.stdout).expect("the load's JSON line")
}

/// Compiles the generator and the program that does nothing.
pub fn compile_into(dir: &Path) {
    compile(&crate::source_root().join("tests/bench/load.c"), &dir.join("load"));
    let nothing = dir.join("nothing.c");
    std::fs::write(&nothing, "int main(void){return 0;}\n").expect("a writable directory");
    compile(&nothing, &dir.join("nothing"));
}

/// Compiles a program that is linked when it starts, with frame pointers; gives the files it then needs, its loader included.
pub fn compile_dynamic(source: &Path, binary: &Path, libraries: &[String]) -> Vec<String> {
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-pthread", "-o"])
        .arg(binary)
        .arg(source);
    let ok = cc.args(libraries.iter().map(|l| format!("-l{l}"))).status().is_ok_and(|s| s.success());
    assert!(ok, "cc failed on {}", source.display());
    let ldd = Command::new("ldd").arg(binary).output().expect("ldd");
    let text = String::from_utf8_lossy(&ldd.stdout).into_owned();
    // `name => /path (address)`, and of the loader `/path (address)`
    let path = |line: &str| line.split_whitespace().find(|w| w.starts_with('/')).map(str::to_owned);
    let found: Vec<String> = text.lines().filter_map(path).collect();
    assert!(found.iter().any(|f| f.contains("libc.so")), "ldd {}: {text}", binary.display());
    found
}

/// Compiles a program against musl (Debian package musl-tools), with frame pointers; gives musl's one file, which is library and
/// loader, and where the program looks for it.
pub fn compile_musl(source: &Path, binary: &Path) -> (PathBuf, String) {
    let mut cc = Command::new("musl-gcc");
    cc.args(["-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-o"]).arg(binary).arg(source);
    assert!(cc.status().is_ok_and(|s| s.success()), "musl-gcc (scripts/setup test) failed on {}", source.display());
    let arch = std::env::consts::ARCH;
    let loader = format!("/lib/ld-musl-{arch}.so.1");
    (PathBuf::from(format!("/usr/lib/{arch}-linux-musl/libc.so")), loader)
}

/// Compiles a static program.
pub fn compile(source: &Path, binary: &Path) {
    let ok =
        Command::new("cc").args(["-O2", "-static", "-o"]).arg(binary).arg(source).status().is_ok_and(|s| s.success());
    assert!(ok, "cc failed on {}", source.display());
}

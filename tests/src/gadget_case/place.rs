//! The containers in which a gadget's scripts run: what they bring, and how they are run with a private Docker.

use super::parse;
use crate::{docker::Docker, load, wait_for};
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};
use tempfile::TempDir;

/// Where containers find the file `now` as soon as `ig` has said that it probes them.
pub const PROBED: &str = "/probed";
/// The file that is there as soon as all is as the test expects it.
pub(super) const SHOWN: &str = "/probed/shown";

/// The variable that tells a workload for how many seconds it works where `ig` must look into its files meanwhile.
pub fn patience(seconds: u32) -> String {
    format!("PATIENCE={seconds}")
}

/// Seconds of it on the machine itself.
const PATIENCE: u32 = 5;

/// A container as a test wants it.
pub struct Container<'a> {
    pub name: &'a str,
    /// Arguments of `docker run`.
    pub options: &'a [String],
    /// For `/bin/sh -c`.
    pub script: &'a str,
    /// What it finds at `PROBED`.
    pub probed: &'a Path,
}

/// What runs the containers.
pub trait Engine {
    /// Flags by which `ig` finds it.
    fn flags(&self) -> Vec<String>;
    /// Runs a container to its end; what became of its script, which may end as it likes: some run programs that are not there.
    fn run(&self, container: &Container<'_>) -> Output;
    /// Starts a container, and returns when its script has printed the line `READY`.
    fn start(&self, container: &Container<'_>);
    /// Ends a container that was started.
    fn remove(&self, name: &str);
    /// Runs a container under a seccomp profile. `None` where the engine takes none: what is said of profiles is tested with
    /// Docker.
    fn run_under(&self, _profile: &str, _container: &Container<'_>) -> Option<Output> {
        None
    }
}

/// A private Docker, and the program that the gadget's folder may give its containers.
pub struct Place<'a> {
    docker: &'a Docker,
    /// `--volume` of the compiled workload, and of the libraries it is linked with.
    mounts: Vec<String>,
    patience: String,
    _dir: TempDir,
}

impl<'a> Place<'a> {
    /// Compiles `workload.c` of the gadget's folder, if there is one.
    pub fn new(docker: &'a Docker, folder: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let files = workload_files(folder, dir.path()).into_iter();
        let mounts = files.map(|(file, at)| format!("{}:{at}:ro", file.display())).collect();
        Place { docker, mounts, patience: patience(PATIENCE), _dir: dir }
    }

    /// The arguments of `docker run`; `how` is `-d` or `--rm`.
    fn arguments(&self, how: &str, container: &Container<'_>) -> Vec<String> {
        let mut all: Vec<String> = ["run", how, "--net=none", "--env", &self.patience].map(str::to_owned).into();
        all.extend(["--name", container.name].map(str::to_owned));
        all.extend(container.options.iter().cloned());
        let probed = format!("{}:{PROBED}:ro", container.probed.display());
        all.extend(self.mounts.iter().chain([&probed]).flat_map(|m| ["--volume".to_owned(), m.clone()]));
        all.extend(["busybox", "/bin/sh", "-c", container.script].map(str::to_owned));
        all
    }

    fn command(&self, arguments: &[String]) -> Command {
        self.docker.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

impl Engine for Place<'_> {
    fn flags(&self) -> Vec<String> {
        vec!["--docker-socketpath".to_owned(), self.docker.socket().display().to_string()]
    }

    fn run(&self, container: &Container<'_>) -> Output {
        let out = self.command(&self.arguments("--rm", container)).output().expect("the docker client");
        assert!(
            out.status.code() != Some(125),
            "docker could not run the script: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        out
    }

    fn start(&self, container: &Container<'_>) {
        let out = self.command(&self.arguments("-d", container)).output().expect("the docker client");
        assert!(out.status.success(), "docker run: {}", String::from_utf8_lossy(&out.stderr));
        wait_for("READY from the script", Duration::from_secs(180), || {
            self.docker.run(&["logs", container.name]).lines().any(|l| l == "READY").then_some(())
        });
    }

    fn remove(&self, name: &str) {
        self.docker.run(&["rm", "-f", name]);
    }

    fn run_under(&self, profile: &str, container: &Container<'_>) -> Option<Output> {
        let file = self.docker.file(&format!("{}.json", container.name), profile);
        let option = format!("--security-opt=seccomp={}", file.display());
        let mut run = self.arguments("--rm", container);
        run.retain(|a| !a.contains("seccomp=unconfined"));
        run.insert(1, option);
        Some(self.command(&run).output().expect("the docker client"))
    }
}

/// The same container again, which may do nothing but what the profile allows.
pub(super) fn run_under(
    profile: &str,
    prints: &str,
    engine: &dyn Engine,
    container: &Container<'_>,
) -> Result<(), String> {
    let Some(out) = engine.run_under(profile, container) else { return Ok(()) };
    let printed = String::from_utf8_lossy(&out.stdout);
    if out.status.success() && printed.trim() == prints.trim() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&out.stderr);
    let name = container.name;
    Err(format!("under its profile {name} ends with {} and prints {printed:?}: {told}\n{profile}", out.status))
}

/// Compiles a gadget's own workload, if it has one. Gives files in `dir`, and where they belong in a container: the program, and
/// the shared libraries that it needs.
pub fn workload_files(folder: &Path, dir: &Path) -> Vec<(PathBuf, String)> {
    let source = folder.join("workload.c");
    if !source.is_file() {
        return Vec::new();
    }
    let file = parse(folder);
    let program = dir.join("workload");
    let mut libraries: Vec<(PathBuf, String)> = Vec::new();
    match &file.libraries {
        Some(names) => {
            let found = load::compile_dynamic(&source, &program, names);
            libraries.extend(found.into_iter().map(|l| (l.clone().into(), l)));
        }
        None => load::compile(&source, &program),
    }
    let mut files = vec![(program, "/workload".to_owned())];
    if file.musl {
        let program = dir.join("workload-musl");
        libraries.push(load::compile_musl(&source, &program));
        files.push((program, "/workload-musl".to_owned()));
    }
    for (n, (library, at)) in libraries.into_iter().enumerate() {
        // A copy: the host's own programs use another file.
        let copy = dir.join(n.to_string());
        std::fs::copy(&library, &copy).unwrap_or_else(|e| panic!("{}: {e}", library.display()));
        files.push((copy, at));
    }
    files
}

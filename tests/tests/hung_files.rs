//! Files whose file system has stopped to answer: what needs them is done without, in time, and says which they were.

use ig_tests::{alone, docker::Docker, fuse::Fuse, ig::Ig, load};
use std::{
    process::{Child, Command},
    time::{Duration, Instant},
};

/// Burns time in a function whose name is to be found again.
const BURNER: &str = "__attribute__((noinline)) unsigned long burn_inner(unsigned long n) {
    unsigned long sum = 0;
    for (volatile unsigned long i = 0; i < n; i++) sum += i * i;
    return sum;
}
int main(void) { for (;;) burn_inner(1000000); }
";

/// Without an end to its waiting `ig` would never end; with one it takes seconds, of which a slow machine makes more.
const PATIENCE: Duration = Duration::from_secs(120);

/// Ends with the test, however that ends.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // One that has ended already is as good.
        let (Ok(()) | Err(_)) = self.0.kill();
        let (Ok(_) | Err(_)) = self.0.wait();
    }
}

mod root {
    use super::*;

    #[test]
    fn a_program_whose_file_does_not_answer_has_addresses_for_names() {
        let _alone = alone();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (source, program) = (dir.path().join("burn.c"), dir.path().join("burner"));
        std::fs::write(&source, BURNER).expect("a writable directory");
        load::compile_dynamic(&source, &program, &[]);
        let fuse = Fuse::serve(&[("burner", std::fs::read(&program).expect("the program"))]);
        let burner = Program(Command::new(fuse.file("burner")).spawn().expect("a program that runs from there"));
        let profile = || {
            let flags =
                ["run", "profile_cpu", "--host", "-F", "proc.comm==burner", "-o", "json", "-t", "3", "--ledger"];
            let done = Ig::new(&flags).run();
            assert_eq!(done.code(), 0, "{}", done.stderr);
            done.ledger().check();
            let stack = |r: &serde_json::Value| r["user_stack"].as_str().unwrap_or_default().to_owned();
            (done.rows().iter().map(stack).collect::<Vec<_>>().join("\n"), done.stderr)
        };
        // On a machine that is kept waiting, its answers may be late, too.
        let in_time = |(text, _): &(String, String)| text.contains("burn_inner");
        let (before, told) = (0..5).map(|_| profile()).find(in_time).unwrap_or_else(profile);
        assert!(before.contains("burn_inner") && !told.contains("burner"), "{before}\n{told}");

        fuse.silence();
        let start = Instant::now();
        let (after, told) = profile();
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
        assert!(after.contains(" [burner]") && !after.contains("burn_inner"), "{after}\n{told}");
        let path = fuse.file("burner").display().to_string();
        assert!(told.contains(&path) && told.contains("no answer within 1000 ms"), "{told}");
        drop(burner);
    }

    #[test]
    fn a_container_whose_files_do_not_answer_is_not_probed_and_said_to_be_so() {
        let _alone = alone();
        let docker = Docker::start();
        let fuse = Fuse::serve(&[]);
        let name = format!("hung-{}", std::process::id());
        let volume = format!("{}:/usr/local/lib", fuse.path().display());
        docker.run(&["run", "-d", "--net=none", "--name", &name, "-v", &volume, "busybox", "/bin/sleep", "3000"]);
        fuse.silence();
        let socket = docker.socket().display().to_string();
        let flags = ["run", "trace_malloc", "-c", &name, "-t", "2", "--ledger", "--docker-socketpath", &socket];
        let start = Instant::now();
        let done = Ig::new(&flags).run();
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
        drop(fuse);
        docker.run(&["rm", "-f", &name]);
        assert_eq!(done.code(), 0, "{}", done.stderr);
        assert!(done.stderr.contains(&format!("container {name}: ")), "{}", done.stderr);
        assert!(done.stderr.contains("cannot be looked at: no answer within 3000 ms"), "{}", done.stderr);
    }
}

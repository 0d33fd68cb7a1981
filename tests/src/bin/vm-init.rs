//! `/init` of the test machines: see `ig_tests::vm::guest`. Not for the host: it would do nothing there but say so.

fn main() -> std::process::ExitCode {
    ig_tests::vm::guest::main()
}

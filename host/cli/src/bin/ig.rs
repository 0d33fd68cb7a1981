//! `ig`: runs gadgets on this machine.

fn main() -> std::process::ExitCode {
    ig::main(std::env::args_os().collect())
}

//! What container runtimes and other people's processes leave to be read: command lines, cgroup paths, bundles, state
//! files, and the tracker's own records.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| ig_runtime::fuzzing::runtimes(bytes));

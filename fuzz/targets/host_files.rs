//! What containers and /proc tell of libraries and processes: the loader's cache, mappings, states, the kernel's functions.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| ig_runtime::fuzzing::host_files(bytes));

//! A program or library of a container, whose functions are named and found by address; and what compilers make of names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::{
    fs::File,
    io::{Seek, Write},
};

// One file for all inputs: making a new one takes longer than reading it.
std::thread_local! {
    static FILE: File = tempfile::tempfile_in("/dev/shm").expect("a file in memory");
}

fuzz_target!(|bytes: &[u8]| {
    FILE.with(|mut file| {
        file.set_len(0).expect("a file can be emptied");
        file.rewind().expect("a file has a beginning");
        file.write_all(bytes).expect("room for the input");
        ig_runtime::fuzzing::elf_symbols(file.try_clone().expect("one more descriptor"));
    });
    ig_runtime::fuzzing::function_name(bytes);
    // The beginnings of the two languages' names need not be guessed.
    for start in [&b"_Z"[..], b"_R"] {
        ig_runtime::fuzzing::function_name(&[start, &bytes[..bytes.len().min(4096)]].concat());
    }
});

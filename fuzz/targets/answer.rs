//! What a guest answers to a batch: any lengths, ends, codes and kinds.
#![no_main]

use ig_runtime::fuzzing::{Answer, answers};
use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};

fuzz_target!(|bytes: &[u8]| {
    let mut input = Unstructured::new(bytes);
    let mut next = || -> Option<Answer> {
        Some(Answer {
            skip: input.arbitrary().ok()?,
            // A chunk without rows is never asked about.
            rows: input.int_in_range(1..=u8::MAX).ok()?,
            kind: input.arbitrary().ok()?,
            view: input.arbitrary().ok()?,
            numbers: input.arbitrary().ok()?,
            data: input.arbitrary().ok()?,
            keep: input.arbitrary().ok()?,
            reject: input.arbitrary().ok()?,
            undo: input.arbitrary().ok()?,
        })
    };
    let mut all = Vec::new();
    while let Some(answer) = next().filter(|_| all.len() < 8) {
        all.push(answer);
    }
    answers(&all);
});

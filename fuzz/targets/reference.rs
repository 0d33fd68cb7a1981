//! Image references: what was understood is shown, and names the same image when it is read back.
#![no_main]

use ig_runtime::image::{NameRules, Reference};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let rules = NameRules::default();
    if let Ok(reference) = Reference::parse(text, &rules) {
        let shown = reference.to_string();
        let again = Reference::parse(&shown, &rules).expect("its own form is a reference");
        assert_eq!(again.to_string(), shown);
    }
});

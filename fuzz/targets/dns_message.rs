//! What trace_dns makes of a packet: anything at all, and a message that begins as one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trace_dns::message::{Message, type_name};

fn check(bytes: &[u8], m: &mut Message) {
    m.read(bytes);
    // 255 bytes on the wire, of which each may become four; a dot for each label.
    assert!(m.name.len() <= 4 * 255, "a name of {} bytes", m.name.len());
    assert!(m.addresses.len() <= 64 * 40, "addresses of {} bytes", m.addresses.len());
    for text in [&m.name, &m.addresses] {
        assert!(text.iter().all(|b| (b'!'..=b'~').contains(b)), "{text:?} is not safe to show");
    }
    let mut name = Vec::new();
    type_name(m.qtype, &mut name);
    assert!(!name.is_empty());
}

fuzz_target!(|bytes: &[u8]| {
    let mut m = Message::default();
    check(bytes, &mut m);
    let again = m.clone();
    // A response with a question and as many answers as follow; buffers are used again and must not show.
    let message = [&[0, 1, 0x81, 0x80, 0, 1, 0, 9, 0, 0, 0, 0], bytes].concat();
    check(&message, &mut m);
    check(bytes, &mut m);
    assert_eq!(m, again);
});

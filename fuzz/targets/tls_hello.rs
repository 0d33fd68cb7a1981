//! What trace_sni makes of the first bytes of a connection: anything at all, and a hello that begins as one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trace_sni::hello::Hellos;

fn check(bytes: &[u8], hellos: &mut Hellos) {
    let mut name = b"x".to_vec();
    let found = hellos.server_name(bytes, &mut name);
    assert!(name.iter().all(|b| (b'!'..=b'~').contains(b)), "{name:?} is not safe to show");
    assert!(name.len() <= 1 + 4 * bytes.len());
    assert!(found == Ok(true) || name == b"x", "a name that was not found: {name:?}");
}

fuzz_target!(|bytes: &[u8]| {
    let mut hellos = Hellos::default();
    check(bytes, &mut hellos);
    // As the extensions of a hello, in records whose size the input says.
    let Some((size, rest)) = bytes.split_first() else { return };
    let len = |n: usize| (n as u16).to_be_bytes();
    let body = [&[3, 3][..], &[0; 32], &[0, 0, 2, 0x13, 1, 1, 0], &len(rest.len()), rest].concat();
    let message = [&[1, 0][..], &len(body.len()), &body].concat();
    let records =
        message.chunks(usize::from(*size).max(1)).flat_map(|c| [&[0x16, 3, 1][..], &len(c.len()), c].concat());
    check(&records.collect::<Vec<u8>>(), &mut hellos);
});

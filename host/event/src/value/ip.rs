//! IP addresses, endpoints and protocol numbers to text, without the standard formatter.

use super::number;
use std::net::{Ipv4Addr, Ipv6Addr};

/// An address as the record holds it: 16 bytes of which IPv4 uses the first four, or four. `version` 4 or 6; with any
/// other the length decides, and an all-zero one is no address at all and shows as nothing.
pub(crate) fn address(bytes: &[u8], version: u64, out: &mut Vec<u8>) {
    match (version, <[u8; 16]>::try_from(bytes)) {
        (6, Ok(b)) => v6(Ipv6Addr::from(b), out),
        (4, _) => v4(first_four(bytes), out),
        _ if bytes.iter().all(|b| *b == 0) => {}
        (_, Ok(b)) => v6(Ipv6Addr::from(b), out),
        (_, Err(_)) => v4(first_four(bytes), out),
    }
}

fn first_four(bytes: &[u8]) -> [u8; 4] {
    let mut four = [0; 4];
    let n = bytes.len().min(4);
    four[..n].copy_from_slice(&bytes[..n]);
    four
}

fn v4(octets: [u8; 4], out: &mut Vec<u8>) {
    for (i, octet) in octets.into_iter().enumerate() {
        if i > 0 {
            out.push(b'.');
        }
        number::uint(octet.into(), out);
    }
}

/// RFC 5952: lower case, the longest run of two or more zero groups as `::`, mapped IPv4 in dotted form.
fn v6(address: Ipv6Addr, out: &mut Vec<u8>) {
    if let Some(mapped) = address.to_ipv4_mapped() {
        out.extend_from_slice(b"::ffff:");
        return v4(Ipv4Addr::octets(&mapped), out);
    }
    let groups = address.segments();
    let (mut gap_start, mut gap_len) = (8, 1);
    let mut i = 0;
    while i < 8 {
        let run = groups[i..].iter().take_while(|g| **g == 0).count();
        if run > gap_len {
            (gap_start, gap_len) = (i, run);
        }
        i += run.max(1);
    }
    let mut i = 0;
    while i < 8 {
        if i == gap_start {
            out.extend_from_slice(b"::");
            i += gap_len;
            continue;
        }
        if i > 0 && i != gap_start + gap_len {
            out.push(b':');
        }
        number::hex(groups[i].into(), number::LOWER, out);
        i += 1;
    }
}

/// Protocol number to its usual short name; others as `proto#N`.
pub(crate) fn protocol(number: u64, out: &mut Vec<u8>) {
    let name = match number {
        0 => "IP",
        1 => "ICMP",
        2 => "IGMP",
        4 => "IPIP",
        6 => "TCP",
        17 => "UDP",
        33 => "DCCP",
        41 => "IPv6",
        47 => "GRE",
        50 => "ESP",
        51 => "AH",
        58 => "ICMPv6",
        89 => "OSPF",
        132 => "SCTP",
        136 => "UDPLite",
        255 => "RAW",
        262 => "MPTCP",
        _ => "",
    };
    out.extend_from_slice(name.as_bytes());
    if name.is_empty() {
        out.extend_from_slice(b"proto#");
        number::uint(number, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(bytes: &[u8], version: u64) -> String {
        let mut out = Vec::new();
        address(bytes, version, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn version_chooses_the_family_and_length_stands_in_for_it() {
        let mut b = [0u8; 16];
        b[..4].copy_from_slice(&[10, 0, 0, 1]);
        assert_eq!(text(&b, 4), "10.0.0.1");
        assert_eq!(text(&b, 6), "a00:1::");
        assert_eq!(text(&[0; 16], 6), "::");
        assert_eq!(text(&[0; 16], 4), "0.0.0.0");
        assert_eq!(text(&[0; 16], 0), "");
        assert_eq!(text(&[1, 2, 3, 4], 0), "1.2.3.4");
        assert_eq!(text(&[1, 2], 6), "1.2.0.0", "a short field still shows what is there");
    }

    proptest! {
        #[test]
        fn v6_text_is_the_standard_librarys(groups in proptest::array::uniform8(prop_oneof![Just(0u16), Just(1), any::<u16>()])) {
            let a = Ipv6Addr::from(groups);
            prop_assert_eq!(text(&a.octets(), 6), a.to_string());
        }

        #[test]
        fn v4_text_is_the_standard_librarys(a in any::<[u8; 4]>()) {
            prop_assert_eq!(text(&a, 4), Ipv4Addr::from(a).to_string());
        }
    }
}

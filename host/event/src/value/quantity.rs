//! Byte counts and durations as people write them: `1.2 MB`, `1.50µs`, `1m30.5s`.

use super::number;

/// Decimal units, two significant digits below ten: `7 B`, `1.2 MB`, `83 MB`.
pub(crate) fn bytes(n: u64, out: &mut Vec<u8>) {
    const UNITS: [&str; 7] = [" B", " kB", " MB", " GB", " TB", " PB", " EB"];
    let (mut unit, mut scale) = (0, 1u64);
    while unit + 1 < UNITS.len() && n / scale >= 1000 {
        unit += 1;
        scale *= 1000;
    }
    if unit == 0 {
        number::uint(n, out);
    } else {
        let tenths = ((u128::from(n) * 10 + u128::from(scale) / 2) / u128::from(scale)) as u64;
        if tenths < 100 {
            number::uint(tenths / 10, out);
            out.push(b'.');
            out.push(b'0' + (tenths % 10) as u8);
        } else {
            // Half to even, as the floating-point formatters that people compare with do.
            let up = tenths % 10 > 5 || (tenths % 10 == 5 && tenths / 10 % 2 == 1);
            number::uint(tenths / 10 + u64::from(up), out);
        }
    }
    out.extend_from_slice(UNITS[unit].as_bytes());
}

/// `950ns`, `1.50µs`, `2.00ms`; from one second on `1.5s`, `1m30s`, `2h0m4.25s`.
pub(crate) fn duration(ns: u64, out: &mut Vec<u8>) {
    match ns {
        0..1_000 => {
            number::uint(ns, out);
            out.extend_from_slice(b"ns");
        }
        1_000..1_000_000 => hundredths(ns, 1_000, "µs", out),
        1_000_000..1_000_000_000 => hundredths(ns, 1_000_000, "ms", out),
        _ => clock(ns, out),
    }
}

fn hundredths(ns: u64, unit: u64, name: &str, out: &mut Vec<u8>) {
    let n = (ns * 100 + unit / 2) / unit;
    number::uint(n / 100, out);
    out.push(b'.');
    number::padded(n % 100, 2, out);
    out.extend_from_slice(name.as_bytes());
}

fn clock(ns: u64, out: &mut Vec<u8>) {
    let (seconds, mut fraction) = (ns / 1_000_000_000, ns % 1_000_000_000);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    if hours > 0 {
        number::uint(hours, out);
        out.push(b'h');
    }
    if hours > 0 || minutes > 0 {
        number::uint(minutes, out);
        out.push(b'm');
    }
    number::uint(seconds % 60, out);
    if fraction > 0 {
        let mut digits = 9;
        while fraction.is_multiple_of(10) {
            fraction /= 10;
            digits -= 1;
        }
        out.push(b'.');
        number::padded(fraction, digits, out);
    }
    out.push(b's');
}

#[cfg(test)]
mod tests {
    fn text(f: fn(u64, &mut Vec<u8>), n: u64) -> String {
        let mut out = Vec::new();
        f(n, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn byte_counts() {
        for (n, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1_150_000, "1.2 MB"),
            (9_949_999, "9.9 MB"),
            (9_950_000, "10 MB"),
            (82_854_982, "83 MB"),
            (999_999, "1000 kB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(text(super::bytes, n), expected);
        }
    }

    #[test]
    fn durations() {
        for (n, expected) in [
            (0, "0ns"),
            (950, "950ns"),
            (1500, "1.50µs"),
            (2_000_000, "2.00ms"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (7_204_250_000_000, "2h0m4.25s"),
            (1_000_000_001, "1.000000001s"),
        ] {
            assert_eq!(text(super::duration, n), expected);
        }
    }
}

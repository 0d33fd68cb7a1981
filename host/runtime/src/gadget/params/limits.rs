//! Numbers that stand for several things at once: sums with names for their parts, and sets of signals.
//!
//! Pure, like the rest of the parameters.

use super::ParamError;
use ig_event::signal_number;
use std::collections::BTreeMap;

/// The smallest first, which is how people add them up.
pub(super) fn in_order(bits: BTreeMap<String, u64>) -> Vec<(String, u64)> {
    let mut bits: Vec<_> = bits.into_iter().collect();
    bits.sort_by_key(|(_, bit)| *bit);
    bits
}

/// A sum of `known`, given as a number or as names with commas between them. Nothing at all is no sum: nothing would match.
pub(super) fn bits(key: &str, text: &str, known: &[(String, u64)], width: u32) -> Result<Vec<u8>, ParamError> {
    let all = known.iter().fold(0, |all, (_, bit)| all | bit);
    let wrong = |part: &str| ParamError::NotBits { key: key.to_owned(), part: part.to_owned(), bits: known.to_vec() };
    let mut sum = 0;
    for part in text.split(',').map(str::trim) {
        let named = known.iter().find(|(name, _)| name.eq_ignore_ascii_case(part)).map(|(_, bit)| *bit);
        let bit = named.or_else(|| number(part)).filter(|bit| *bit != 0 && bit & !all == 0);
        sum |= bit.ok_or_else(|| wrong(part))?;
    }
    Ok(sum.to_le_bytes()[..width as usize / 8].to_vec())
}

/// Without a sign, which `parse` would take.
fn number(text: &str) -> Option<u64> {
    let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |hex| (hex, 16));
    let only_digits = digits.chars().all(|c| c.is_digit(radix));
    u64::from_str_radix(digits, radix).ok().filter(|_| only_digits)
}

/// Signal n is bit n - 1. Nothing and `0` are the empty set.
pub(super) fn signals(key: &str, text: &str) -> Result<Vec<u8>, ParamError> {
    let text = text.trim();
    let mut set = 0u64;
    if !matches!(text, "" | "0") {
        for part in text.split(',').map(str::trim) {
            let wrong = || ParamError::NotSignal { key: key.to_owned(), part: part.to_owned() };
            set |= 1 << (signal_number(part).ok_or_else(wrong)? - 1);
        }
    }
    Ok(set.to_le_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_given_as_a_number_or_by_names() {
        let known = in_order([("pipe", 4), ("file", 1), ("dir", 16)].map(|(n, b)| (n.to_owned(), b)).into());
        let sum = |text| bits("mask", text, &known, 32);
        for good in ["17", "0x11", "file,dir", "1,16", "dir, FILE", "file,file,dir"] {
            assert_eq!(sum(good), Ok(vec![17, 0, 0, 0]), "{good}");
        }
        for (text, part) in
            [("0", "0"), ("", ""), ("2", "2"), ("file,", ""), ("4096", "4096"), ("-1", "-1"), ("+1", "+1")]
        {
            let e = sum(text).unwrap_err();
            assert!(matches!(&e, ParamError::NotBits { part: p, .. } if p == part), "{text}: {e}");
        }
        assert_eq!(
            sum("files").unwrap_err().to_string(),
            "parameter mask: \"files\" is neither one of its values nor a sum of them: file (1), pipe (4), dir (16)"
        );
    }

    #[test]
    fn signals_are_a_set() {
        let set = |text| signals("signal", text).map(|b| u64::from_le_bytes(b.try_into().unwrap()));
        assert_eq!((set(""), set("0")), (Ok(0), Ok(0)));
        assert_eq!((set("SIGKILL"), set("kill"), set("9")), (Ok(1 << 8), Ok(1 << 8), Ok(1 << 8)));
        assert_eq!(set("HUP, 64,SIGUSR1"), Ok(1 | 1 << 63 | 1 << 9));
        for (text, part) in [("99999", "99999"), ("-1", "-1"), ("KILL,", ""), ("9,0", "0"), ("KIL", "KIL")] {
            assert_eq!(set(text), Err(ParamError::NotSignal { key: "signal".into(), part: part.into() }), "{text}");
        }
    }
}

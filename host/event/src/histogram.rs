//! Histograms over powers of two: which fields are one, and how it is drawn with bars of stars.
//!
//! A field is one where its elements are of a type `gadget_histogram_slot__…` (`bpf/include/gadget/types.h`). Its value is
//! the counts: slot 0 of the values 0 and 1, slot n of 2^n to 2^(n+1) - 1, the last slot of all that is larger, too.

use crate::{Field, Kind, output::display_width};

/// Cells of the longest bar, where there is room for it.
const BAR: usize = 40;
/// Cells of a range's number, where there is room for it.
const NUMBER: usize = 8;
/// Cells of a count, where there is room for it.
const COUNT: usize = 8;

/// The counts of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slots {
    /// Bytes of one count.
    size: usize,
}

impl Slots {
    /// `None` where the field is no histogram.
    pub(crate) fn of(field: &Field) -> Option<Slots> {
        let size = match field.def.kind {
            Kind::Bytes if field.has_tag("type:gadget_histogram_slot__u32") => 4,
            Kind::Bytes if field.has_tag("type:gadget_histogram_slot__u64") => 8,
            _ => return None,
        };
        Some(Slots { size })
    }

    /// The counts in a value; bytes that make no whole count are none.
    pub(crate) fn counts(self, bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
        bytes.chunks_exact(self.size).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(word)
        })
    }
}

/// First and last value of a slot.
fn range(slot: usize) -> (u64, u64) {
    let power = |n: usize| u32::try_from(n).ok().and_then(|n| 1u64.checked_shl(n));
    let from = if slot == 0 { 0 } else { power(slot).unwrap_or(u64::MAX) };
    (from, power(slot + 1).map_or(u64::MAX, |n| n - 1))
}

/// Appends the histogram with its heading, a line a slot up to the last that is not empty. `unit` is escaped. Where the
/// terminal is narrow, first padding and then the bars give way; without a terminal (`None`) nothing does.
pub(crate) fn draw(counts: &[u64], unit: &str, terminal: Option<usize>, out: &mut Vec<u8>) {
    let Some(last) = counts.iter().rposition(|n| *n > 0) else {
        return out.extend_from_slice(b"(no values)\n");
    };
    let most = counts.iter().copied().max().unwrap_or(1).max(1);
    let ranges: Vec<(String, String)> = (0..=last)
        .map(|slot| {
            let (from, to) = range(slot);
            // What is too large for the last slot is in it.
            let to = if slot + 1 == counts.len() { "inf".to_owned() } else { to.to_string() };
            (from.to_string(), to)
        })
        .collect();
    let digits = ranges.iter().map(|(from, to)| from.len().max(to.len())).max().unwrap_or(1);
    let counted = most.to_string().len();
    // ` -> `, ` : `, ` |` and `|`.
    let fixed = |number: usize, count: usize| 2 * number + 4 + 3 + count + 3;
    let roomy = (digits.max(NUMBER), counted.max(COUNT));
    let fits = terminal.is_none_or(|width| fixed(roomy.0, roomy.1) + BAR / 2 <= width);
    let (number, count) = if fits { roomy } else { (digits, counted) };
    let bar = terminal.map_or(BAR, |width| width.saturating_sub(fixed(number, count)).clamp(1, BAR));

    let left = (2 * number + 4).saturating_sub(display_width(unit));
    let line = format!(
        "{:left$}{unit}{:right$} : {:<count$} distribution",
        "",
        "",
        "count",
        left = left / 2,
        right = left - left / 2
    );
    out.extend_from_slice(line.trim_end().as_bytes());
    out.push(b'\n');
    for ((from, to), n) in ranges.iter().zip(counts) {
        let stars = (u128::from(*n) * bar as u128 / u128::from(most)) as usize;
        let line = format!(
            "{from:>number$} -> {to:<number$} : {n:<count$} |{:*<stars$}{:rest$}|\n",
            "",
            "",
            rest = bar - stars
        );
        out.extend_from_slice(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drawn(counts: &[u64], unit: &str, width: Option<usize>) -> String {
        let mut out = Vec::new();
        draw(counts, unit, width, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_histogram_at_several_widths() {
        let counts = [0, 3, 12, 400, 77, 1, 0, 9, 0, 0];
        let text: Vec<String> = [None, Some(120), Some(60), Some(40), Some(10)]
            .into_iter()
            .map(|width| format!("width {width:?}\n{}", drawn(&counts, "µs", width)))
            .collect();
        insta::assert_snapshot!(text.join("\n"));
    }

    #[test]
    fn the_last_slot_is_open_and_no_values_are_no_bars() {
        assert_eq!(drawn(&[0, 0], "ms", None), "(no values)\n");
        assert_eq!(drawn(&[], "", None), "(no values)\n");
        let full = drawn(&[u64::MAX; 64], "ns", Some(80));
        insta::assert_snapshot!(full);
        assert_eq!(drawn(&[1; 70], "ns", None).lines().count(), 71);
    }

    #[test]
    fn slots_are_powers_of_two() {
        assert_eq!([range(0), range(1), range(2), range(26)], [(0, 1), (2, 3), (4, 7), (1 << 26, (1 << 27) - 1)]);
        assert_eq!(range(63), (1 << 63, u64::MAX));
        assert_eq!(range(90), (u64::MAX, u64::MAX));
        let small = Slots { size: 4 };
        assert_eq!(small.counts(&[1, 0, 0, 0, 0, 1, 0, 0, 9]).collect::<Vec<_>>(), [1, 256]);
    }

    proptest! {
        #[test]
        fn lines_fit_where_there_is_room_for_a_bar(
            counts in proptest::collection::vec(any::<u32>().prop_map(u64::from), 0..30),
            width in 50usize..200,
        ) {
            for line in drawn(&counts, "µs", Some(width)).lines() {
                prop_assert!(display_width(line) <= width, "{line:?} is wider than {width}");
            }
        }
    }
}

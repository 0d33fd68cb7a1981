//! A flame graph as one SVG file that needs nothing else: a rectangle for each function, above those that called it, as
//! wide as its share. A browser shows the whole name on hovering, zooms on a click, and marks what Ctrl-F asks for.
//!
//! `inferno` draws it; here is what it must be given so that nothing is lost or misread. Pure: from counted lines of
//! `;`-separated frames to text. Deep recursion and foreign names are harmless.

use inferno::flamegraph::{
    self, Options, TextTruncateDirection,
    color::{MultiPalette, Palette},
};
use std::{borrow::Cow, collections::BTreeMap, io};

/// Frames above this depth are not drawn; they count for the ones below.
const MAX_DEPTH: usize = 512;
/// A blank that is none to those who look for the count at the end of a line.
const FIXED_BLANK: &str = "\u{a0}";

/// Writes the graph of `counts`.
pub(super) fn write(title: &str, counts: &BTreeMap<String, u64>, out: &mut Vec<u8>) {
    let lines = lines(counts);
    let start = out.len();
    let drawn = match lines.is_empty() {
        true => Err(io::Error::other("no stacks were found")),
        false => flamegraph::from_lines(&mut options(title), lines.iter().map(String::as_str), &mut *out),
    };
    if let Err(e) = drawn {
        out.truncate(start);
        let text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1200\" \
             height=\"60\"><text x=\"10\" y=\"30\" font-family=\"monospace\">{e}</text></svg>"
        );
        out.extend_from_slice(text.as_bytes());
    }
    out.push(b'\n');
}

fn options(title: &str) -> Options<'static> {
    let mut options = Options::default();
    options.title = format!("Flame graph: {}", writable(title));
    options.subtitle = Some("orange: functions of the kernel".to_owned());
    options.notes =
        "drawn by inferno, which is under CDDL-1.0; its source: https://crates.io/crates/inferno".to_owned();
    // by what names end in and look like: those of the kernel differ from the others
    options.colors = Palette::Multi(MultiPalette::Java);
    // one name has one colour, in every picture
    options.deterministic = true;
    // the beginning of a name says more than its end
    options.text_truncate_direction = TextTruncateDirection::Right;
    // Taken as they come, last first: sorted as text, `a b` would stand between `a` and `a;c` and split the rectangle of `a`.
    options.flame_chart = true;
    options
}

/// The lines to draw, last first: sorted by frames, so that neighbours share what they have in common.
fn lines(counts: &BTreeMap<String, u64>) -> Vec<String> {
    let frames = |line: &'_ str| line.split(';').take(MAX_DEPTH).map(writable).map(Cow::into_owned).collect();
    let mut stacks: Vec<(Vec<String>, u64)> = counts.iter().map(|(line, n)| (frames(line), *n)).collect();
    for (stack, _) in &mut stacks {
        unmistakable(stack);
    }
    stacks.sort();
    let mut room = u64::MAX;
    for (_, count) in &mut stacks {
        // their sum is a number of 64 bits, too
        *count = (*count).min(room);
        room -= *count;
    }
    let counted = stacks.iter().rev().filter(|(_, n)| *n > 0);
    counted.map(|(stack, n)| format!("{} {n}", stack.join(";"))).collect()
}

/// What XML has no way to write becomes a question mark; the rest, markup included, is escaped where it is drawn.
fn writable(name: &str) -> Cow<'_, str> {
    let bad = |c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}');
    match name.contains(bad) {
        true => Cow::Owned(name.replace(bad, "?")),
        false => Cow::Borrowed(name),
    }
}

/// Keeps the beginning of a line from being taken for a comment, and the end of its last name for a count.
fn unmistakable(stack: &mut [String]) {
    if let Some(first) = stack.first_mut() {
        let name = first.trim();
        *first = match (name, name.strip_prefix("# ")) {
            ("", _) => "[unknown]".to_owned(),
            ("#", _) => format!("#{FIXED_BLANK}"),
            (_, Some(rest)) => format!("#{FIXED_BLANK}{rest}"),
            _ => name.to_owned(),
        };
    }
    if let Some(last) = stack.last_mut()
        && let Some((name, end)) = last.trim_end().rsplit_once(' ')
        && end.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    {
        *last = format!("{name}{FIXED_BLANK}{end}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts(lines: &[(&str, u64)]) -> BTreeMap<String, u64> {
        lines.iter().map(|(l, n)| ((*l).to_owned(), *n)).collect()
    }

    fn drawn(counts: &BTreeMap<String, u64>) -> String {
        let mut out = Vec::new();
        write("samples", counts, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// Names and samples of all rectangles, in the order of the picture: from the left, and callers first.
    fn rectangles(svg: &str) -> Vec<(String, u64)> {
        let attribute = |text: &str, name: &str| -> u64 {
            let (_, rest) = text.split_once(&format!(" {name}=\"")).unwrap_or_else(|| panic!("{name} in {text}"));
            rest.split_once('"').unwrap().0.parse().unwrap()
        };
        let mut all: Vec<(u64, std::cmp::Reverse<u64>, String, u64)> = Vec::new();
        for part in svg.split("<g><title>").skip(1) {
            let (title, rest) = part.split_once("</title>").unwrap();
            let name = title.rsplit_once(" (").unwrap().0.to_owned();
            all.push((attribute(rest, "fg:x"), std::cmp::Reverse(attribute(rest, "y")), name, attribute(rest, "fg:w")));
        }
        all.sort();
        all.into_iter().map(|(_, _, name, width)| (name, width)).collect()
    }

    #[test]
    fn neighbours_share_what_they_have_in_common() {
        let svg = drawn(&counts(&[("a;b;c", 1), ("a;b", 2), ("a;b d", 4), ("a;d", 8), ("e", 16)]));
        let wanted = [("all", 31), ("a", 15), ("b", 3), ("c", 1), ("b d", 4), ("d", 8), ("e", 16)];
        assert_eq!(rectangles(&svg), wanted.map(|(name, n)| (name.to_owned(), n)));
        assert!(svg.contains("total_samples=\"31\""), "{svg}");
        assert!(svg.contains("<title>a (15 samples, 48.39%)</title>"), "{svg}");
    }

    #[test]
    fn names_that_look_like_counts_or_comments_are_names() {
        let svg = drawn(&counts(&[
            ("# c;f", 1),
            ("a;f 12", 2),
            ("a;f 12 7.", 4),
            ("a;f 3 x", 8),
            ("  ;9", 16),
            ("", 32),
            ("5", 64),
        ]));
        let shown: BTreeMap<String, u64> =
            rectangles(&svg).into_iter().map(|(name, n)| (name.replace(FIXED_BLANK, " "), n)).collect();
        let wanted = [
            ("all", 127),
            ("# c", 1),
            ("f", 1),
            ("a", 14),
            ("f 12", 2),
            ("f 12 7.", 4),
            ("f 3 x", 8),
            ("[unknown]", 48),
            ("9", 16),
            ("5", 64),
        ];
        assert_eq!(shown, counts(&wanted));
    }

    #[test]
    fn nothing_gives_a_graph_that_says_so() {
        for empty in [BTreeMap::new(), counts(&[("a;b", 0)])] {
            let text = drawn(&empty);
            assert!(text.starts_with("<?xml") && text.ends_with("</svg>\n") && text.contains("no stacks"), "{text}");
        }
    }

    #[test]
    fn foreign_names_never_become_markup() {
        let name = "</title></text><script>alert(\"1\")</script>' onclick='x' <!-- ]]> &lt\x1b\u{ffff}";
        let mut out = Vec::new();
        write("x<y\x07", &counts(&[(name, 7)]), &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches("<script").count(), 1, "{text}");
        assert!(text.contains("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;"), "{text}");
        assert!(text.contains("x&lt;y?") && !text.contains("onclick='x'") && !text.contains("<!-- ]]"));
        assert!(text.contains("&amp;lt??") && !text.contains('\x1b') && !text.contains('\u{ffff}'));
    }

    #[test]
    fn deep_stacks_and_huge_counts_are_drawn_as_far_as_they_can_be() {
        let deep = vec!["f"; 5000].join(";");
        let shown = rectangles(&drawn(&counts(&[(&deep, 1)])));
        assert_eq!(shown.len(), 1 + MAX_DEPTH);
        assert!(shown.iter().all(|(_, n)| *n == 1));
        let svg = drawn(&counts(&[("a", u64::MAX), ("b", u64::MAX)]));
        assert!(svg.contains(&format!("total_samples=\"{}\"", u64::MAX)) && !svg.contains("NaN"));
    }

    proptest! {
        #[test]
        fn no_sample_of_any_stack_is_lost(stacks in proptest::collection::btree_map("[ -~é;#0-9 .]{0,12}", 1u64..1000, 1..20)) {
            let svg = drawn(&stacks);
            let total: u64 = stacks.values().sum();
            prop_assert!(svg.contains(&format!("total_samples=\"{total}\"")), "{total} in {svg}");
            prop_assert_eq!(svg.matches("<script").count(), 1);
        }
    }
}

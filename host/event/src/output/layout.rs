//! Widths and cells of columns: how a terminal's width is shared out, and how a text is fitted into a cell.
//!
//! Widths are display cells, not characters: a CJK character takes two, a combining mark none.

use crate::template::{Align, Ellipsis};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// How wide a column wants to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) width: usize,
    pub(super) min: usize,
    pub(super) max: Option<usize>,
}

/// Shares `total` cells out by weight: widths in proportion to the wanted ones, within their limits, with one cell
/// between columns. Where even the least does not fit, lines are longer than the terminal.
pub(super) fn fit(sizes: &[Sizes], total: usize) -> Vec<usize> {
    let room = total.saturating_sub(sizes.len().saturating_sub(1));
    let mut fixed: Vec<Option<usize>> = vec![None; sizes.len()];
    loop {
        let free = || sizes.iter().zip(&fixed).filter(|(_, f)| f.is_none()).map(|(s, _)| s);
        let left = room.saturating_sub(fixed.iter().flatten().sum());
        let weights: usize = free().map(|s| s.width).sum();
        let share = |s: &Sizes| (s.width * left).checked_div(weights).unwrap_or(0);
        let clamped = |s: &Sizes| share(s).min(s.max.unwrap_or(usize::MAX)).max(s.min);
        let beyond = |wrong: fn(usize, usize) -> bool| -> Vec<usize> {
            (0..sizes.len()).filter(|i| fixed[*i].is_none() && wrong(clamped(&sizes[*i]), share(&sizes[*i]))).collect()
        };
        // The least first: what it takes from the others may bring them back below their most.
        let mut hit = beyond(|allowed, share| allowed > share);
        if hit.is_empty() {
            hit = beyond(|allowed, share| allowed < share);
        }
        if hit.is_empty() {
            let mut widths: Vec<usize> = sizes.iter().zip(&fixed).map(|(s, f)| f.unwrap_or(share(s))).collect();
            let may_grow = |i: usize, width: usize| fixed[i].is_none() && sizes[i].max.is_none_or(|max| width < max);
            hand_out(&mut widths, room, may_grow);
            return widths;
        }
        for i in hit {
            let held = clamped(&sizes[i]);
            fixed[i] = Some(held);
        }
    }
}

/// Cells that rounding left over go one by one, from the left, to columns which may still grow.
fn hand_out(widths: &mut [usize], room: usize, may_grow: impl Fn(usize, usize) -> bool) {
    let mut spare = room.saturating_sub(widths.iter().sum());
    while spare > 0 {
        let before = spare;
        for (i, width) in widths.iter_mut().enumerate() {
            if spare > 0 && may_grow(i, *width) {
                *width += 1;
                spare -= 1;
            }
        }
        if spare == before {
            return;
        }
    }
}

/// How wide an escaped text is on the screen.
pub(crate) fn display_width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// A cell's place: `cut` is where a text too long is cut, `pad` where a short one is filled up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    pub(super) pad: usize,
    pub(super) cut: Option<usize>,
    pub(super) align: Align,
    pub(super) ellipsis: Ellipsis,
}

impl Cell {
    /// Appends printable ASCII.
    #[inline]
    pub(super) fn ascii(&self, text: &[u8], out: &mut Vec<u8>) {
        match self.cut {
            Some(cut) if text.len() > cut => {
                let (head, mark, tail) = self.share(cut);
                out.extend_from_slice(&text[..head]);
                out.extend_from_slice(if mark { "…".as_bytes() } else { b"" });
                out.extend_from_slice(&text[text.len() - tail..]);
            }
            _ => self.padded(text, text.len(), out),
        }
    }

    /// Appends escaped text of any script.
    pub(super) fn text(&self, text: &str, out: &mut Vec<u8>) {
        let width = display_width(text);
        match self.cut {
            Some(cut) if width > cut => {
                let (head, mark, tail) = self.share(cut);
                let start = out.len();
                let head = head_of(text, head);
                let tail = tail_of(&text[head.len()..], tail);
                out.extend_from_slice(head.as_bytes());
                out.extend_from_slice(if mark { "…".as_bytes() } else { b"" });
                out.extend_from_slice(tail.as_bytes());
                // A wide character that would be cut in half leaves a cell free.
                let used = display_width(head) + usize::from(mark) + display_width(tail);
                let missing = self.pad.min(cut).saturating_sub(used);
                match self.align {
                    Align::Left => spaces(missing, out),
                    Align::Right => {
                        out.splice(start..start, std::iter::repeat_n(b' ', missing));
                    }
                }
            }
            _ => self.padded(text.as_bytes(), width, out),
        }
    }

    fn padded(&self, text: &[u8], width: usize, out: &mut Vec<u8>) {
        let missing = self.pad.saturating_sub(width);
        if self.align == Align::Right {
            spaces(missing, out);
        }
        out.extend_from_slice(text);
        if self.align == Align::Left {
            spaces(missing, out);
        }
    }

    /// Cells of the head, whether the mark is shown, cells of the tail.
    fn share(&self, cut: usize) -> (usize, bool, usize) {
        match self.ellipsis {
            _ if cut == 0 => (0, false, 0),
            Ellipsis::None => (cut, false, 0),
            Ellipsis::End => (cut - 1, true, 0),
            Ellipsis::Start => (0, true, cut - 1),
            Ellipsis::Middle => {
                let head = (cut / 2).min(cut - 1);
                (head, true, cut - 1 - head)
            }
        }
    }
}

fn spaces(n: usize, out: &mut Vec<u8>) {
    out.resize(out.len() + n, b' ');
}

/// The longest beginning that is at most `width` cells wide.
fn head_of(text: &str, width: usize) -> &str {
    let mut used = 0;
    let mut end = text.len();
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        if used > width {
            end = at;
            break;
        }
    }
    // Some sequences are wider than their characters (a variation selector makes an emoji of a letter).
    while display_width(&text[..end]) > width {
        end = text[..end].char_indices().next_back().map_or(0, |(at, _)| at);
    }
    &text[..end]
}

/// The longest end that is at most `width` cells wide.
fn tail_of(text: &str, width: usize) -> &str {
    let mut used = 0;
    let mut start = 0;
    for (at, c) in text.char_indices().rev() {
        used += c.width().unwrap_or(0);
        if used > width {
            start = at + c.len_utf8();
            break;
        }
    }
    while display_width(&text[start..]) > width {
        start += text[start..].chars().next().map_or(1, char::len_utf8);
    }
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn size(width: usize, min: usize, max: Option<usize>) -> Sizes {
        Sizes { width, min, max }
    }

    #[test]
    fn widths_share_the_terminal_by_weight_within_limits() {
        let plain = size(16, 1, None);
        assert_eq!(fit(&[plain, plain, plain], 50), [16, 16, 16]);
        assert_eq!(fit(&[plain, plain, plain], 55), [18, 18, 17], "53 cells: 17 each, and 2 from the left");
        assert_eq!(fit(&[size(16, 7, None), size(16, 1, Some(16)), size(30, 1, None)], 200), [64, 16, 118]);
        assert_eq!(fit(&[size(16, 10, None), size(16, 10, None)], 9), [10, 10], "the least needed overflows");
        assert_eq!(fit(&[size(35, 1, Some(35))], 80), [35]);
        assert_eq!(fit(&[], 80), Vec::<usize>::new());
    }

    fn cell(text: &str, pad: usize, align: Align, ellipsis: Ellipsis) -> String {
        let mut out = Vec::new();
        Cell { pad, cut: Some(pad), align, ellipsis }.text(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn long_texts_are_cut_where_the_ellipsis_says() {
        use {Align::*, Ellipsis::*};
        assert_eq!(cell("abcdefgh", 5, Left, End), "abcd…");
        assert_eq!(cell("abcdefgh", 5, Left, Start), "…efgh");
        assert_eq!(cell("abcdefgh", 5, Left, Middle), "ab…gh");
        assert_eq!(cell("abcdefgh", 6, Left, Middle), "abc…gh");
        assert_eq!(cell("abcdefgh", 5, Left, Ellipsis::None), "abcde");
        assert_eq!(cell("abcdefgh", 1, Left, Middle), "…");
        assert_eq!(cell("abc", 5, Right, End), "  abc");
        assert_eq!(cell("日本語日本語", 6, Left, End), "日本… ", "half of a wide character is a space");
        assert_eq!(cell("日本語日本語", 6, Right, End), " 日本…");
        assert_eq!(cell("日本", 6, Left, End), "日本  ");
    }

    proptest! {
        #[test]
        fn a_cut_cell_is_exactly_as_wide_as_its_column(
            text in any::<String>(),
            pad in 1usize..40,
            right in any::<bool>(),
            ellipsis in prop_oneof![Just(Ellipsis::End), Just(Ellipsis::Middle), Just(Ellipsis::Start), Just(Ellipsis::None)],
        ) {
            let mut escaped = Vec::new();
            crate::output::escape::cell(text.as_bytes(), &mut escaped);
            let align = if right { Align::Right } else { Align::Left };
            let shown = cell(std::str::from_utf8(&escaped).unwrap(), pad, align, ellipsis);
            prop_assert!(display_width(&shown) <= pad, "{shown:?} is wider than {pad}");
        }

        #[test]
        fn both_ways_of_cutting_agree_on_ascii(text in "[ -~]{0,60}", pad in 0usize..40) {
            for ellipsis in [Ellipsis::End, Ellipsis::Middle, Ellipsis::Start, Ellipsis::None] {
                let cell = Cell { pad, cut: Some(pad), align: Align::Left, ellipsis };
                let (mut a, mut b) = (Vec::new(), Vec::new());
                cell.ascii(text.as_bytes(), &mut a);
                cell.text(&text, &mut b);
                prop_assert_eq!(a, b);
            }
        }

        #[test]
        fn fitting_fills_the_terminal_or_reaches_a_limit(
            sizes in proptest::collection::vec((1usize..50, 1usize..10, proptest::option::of(10usize..60)), 1..12),
            total in 0usize..300,
        ) {
            let sizes: Vec<Sizes> = sizes.into_iter().map(|(width, min, max)| Sizes { width, min, max }).collect();
            let widths = fit(&sizes, total);
            for (w, s) in widths.iter().zip(&sizes) {
                prop_assert!(*w >= s.min && s.max.is_none_or(|m| *w <= m));
            }
            let line = widths.iter().sum::<usize>() + widths.len() - 1;
            let least = sizes.iter().map(|s| s.min).sum::<usize>() + widths.len() - 1;
            let most = sizes.iter().map(|s| s.max.unwrap_or(usize::MAX)).fold(widths.len() - 1, usize::saturating_add);
            prop_assert!(total < least || line <= total.max(least), "{widths:?} is wider than {total}");
            prop_assert!(line >= total.min(most) || widths.iter().zip(&sizes).all(|(w, s)| *w == s.min || Some(*w) == s.max));
        }
    }
}

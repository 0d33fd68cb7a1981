//! One terminal for the tables of several gadgets: each has its lines, under its gadget's name, and is drawn there anew.
//!
//! Pure: it only says which bytes to write. Whoever writes them holds the page meanwhile.

/// To the first line, everything gone.
const CLEAR: &[u8] = b"\x1b[H\x1b[2J";
/// Lines that are too long end at the edge, so that they stay one line; and go on below again.
const NO_WRAP: &[u8] = b"\x1b[?7l";
const WRAP: &[u8] = b"\x1b[?7h";
/// The rest of this line gone, and everything below it.
const END_OF_LINE: &[u8] = b"\x1b[K";
const BELOW: &[u8] = b"\x1b[J";
/// Lines that a section has at least: its title, the headings, a row.
const LEAST: usize = 3;

struct Section {
    title: String,
    /// As it was drawn last.
    table: Vec<u8>,
}

/// The sections, from the top down.
pub(crate) struct Screen {
    sections: Vec<Section>,
    size: Option<(usize, usize)>,
}

impl Screen {
    pub(crate) fn new(titles: impl IntoIterator<Item = String>) -> Self {
        let sections = titles.into_iter().map(|title| Section { title, table: Vec::new() }).collect();
        Screen { sections, size: None }
    }

    /// First line and number of lines of a section, its title included; the cursor waits in the line below all.
    fn place(&self, section: usize, height: usize) -> (usize, usize) {
        let count = self.sections.len().max(1);
        let all = height.saturating_sub(1).max(1);
        let each = (all / count).max(LEAST);
        let top = section * each;
        let room = if section + 1 == count { all.saturating_sub(top) } else { each };
        (top, room.min(all.saturating_sub(top)))
    }

    /// Lines that the table of a section may have on a terminal of this height.
    pub(crate) fn room(&self, section: usize, height: usize) -> usize {
        self.place(section, height).1.saturating_sub(1)
    }

    /// Appends what shows `table` in its section, on a terminal of `size` (columns, lines). Where that is another than before, all
    /// sections are drawn.
    pub(crate) fn draw(&mut self, section: usize, table: &[u8], size: (usize, usize), out: &mut Vec<u8>) {
        let Some(this) = self.sections.get_mut(section) else { return };
        this.table.clear();
        this.table.extend_from_slice(table);
        out.extend_from_slice(NO_WRAP);
        if self.size.replace(size) == Some(size) {
            self.lines(section, size.1, out);
        } else {
            out.extend_from_slice(CLEAR);
            (0..self.sections.len()).for_each(|i| self.lines(i, size.1, out));
        }
        out.extend_from_slice(format!("\x1b[{};1H", size.1.max(1)).as_bytes());
        out.extend_from_slice(BELOW);
        out.extend_from_slice(WRAP);
    }

    fn lines(&self, section: usize, height: usize, out: &mut Vec<u8>) {
        let (top, room) = self.place(section, height);
        let Section { title, table } = &self.sections[section];
        let table = table.strip_suffix(b"\n").unwrap_or(table);
        let lines = std::iter::once(title.as_bytes()).chain(table.split(|b| *b == b'\n'));
        for (at, line) in lines.chain(std::iter::repeat(&b""[..])).take(room).enumerate() {
            out.extend_from_slice(format!("\x1b[{};1H", top + at + 1).as_bytes());
            out.extend_from_slice(line);
            out.extend_from_slice(END_OF_LINE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(screen: &mut Screen, section: usize, table: &str, size: (usize, usize)) -> String {
        let mut out = Vec::new();
        screen.draw(section, table.as_bytes(), size, &mut out);
        String::from_utf8(out).unwrap().replace('\x1b', "ESC").replace("ESC[K", "|\n")
    }

    #[test]
    fn sections_share_the_screen_and_keep_their_places() {
        let mut screen = Screen::new(["top_a".to_owned(), "top_b".to_owned()]);
        assert_eq!([screen.room(0, 12), screen.room(1, 12)], [4, 5], "the last has what is left");
        let steps = [
            shown(&mut screen, 1, "PID\n1\n2\n", (40, 10)),
            shown(&mut screen, 0, "FILE\nx\n", (40, 10)),
            shown(&mut screen, 1, "PID\n", (40, 10)),
            shown(&mut screen, 1, "PID\n7\n", (40, 8)),
        ];
        insta::assert_snapshot!(steps.join("\n--\n"));
    }

    #[test]
    fn a_screen_that_is_too_low_shows_the_first_sections() {
        let screen = Screen::new((0..4).map(|n| format!("top_{n}")));
        let places: Vec<_> = (0..4).map(|i| screen.place(i, 9)).collect();
        assert_eq!(places, [(0, 3), (3, 3), (6, 2), (9, 0)]);
        for height in 0..40 {
            for section in 0..4 {
                let (top, room) = screen.place(section, height);
                assert!(room == 0 || top + room < height.max(2), "{section} of {height}: {top} {room}");
            }
        }
    }
}

//! What a guest says, until its owner takes it: bounded in length, rate and number, so that a guest can neither fill a disk,
//! nor a screen, nor memory. What is left out is counted and said.

use std::{
    mem::take,
    time::{Duration, Instant},
};

/// How important a message is; the first is the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

const LINES_A_SECOND: u32 = 50;
const BYTES_A_LINE: usize = 2048;
/// Lines that nobody has taken yet.
const MOST_WAITING: usize = 500;
const WINDOW: Duration = Duration::from_secs(1);

pub(super) struct LogGate {
    lines: Vec<(Level, String)>,
    pub(super) level: Level,
    since: Option<Instant>,
    said: u32,
    left_out: u64,
}

impl LogGate {
    pub(super) fn new(level: Level) -> Self {
        LogGate { lines: Vec::new(), level, since: None, said: 0, left_out: 0 }
    }

    pub(super) fn say(&mut self, now: Instant, level: Level, message: &str) {
        if level > self.level {
            return;
        }
        if self.since.is_none_or(|s| now.duration_since(s) >= WINDOW) {
            self.close_window();
            self.since = Some(now);
        }
        if self.said == LINES_A_SECOND || self.lines.len() >= MOST_WAITING {
            self.left_out += 1;
            return;
        }
        self.said += 1;
        let end = message.floor_char_boundary(BYTES_A_LINE);
        self.lines.push((level, message[..end].to_owned()));
    }

    /// What was said since the last time.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (Level, String)> {
        take(&mut self.lines).into_iter()
    }

    /// Says how many messages were left out since it last said something about it.
    pub(super) fn close_window(&mut self) {
        self.said = 0;
        if self.left_out > 0 {
            let text =
                format!("{} messages of the gadget were left out: more than {LINES_A_SECOND} a second", self.left_out);
            self.lines.push((Level::Warn, text));
            self.left_out = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_said_and_long_lines_are_cut_at_a_character() {
        let mut gate = LogGate::new(Level::Info);
        let t = Instant::now();
        gate.say(t, Level::Debug, "not asked for");
        for i in 0..60 {
            gate.say(t, Level::Info, &format!("line {i}"));
        }
        gate.say(t + WINDOW, Level::Error, &format!("x{}", "é".repeat(2000)));
        let seen: Vec<_> = gate.take().collect();
        assert_eq!(seen.len(), 52);
        assert_eq!(
            seen[50],
            (Level::Warn, "10 messages of the gadget were left out: more than 50 a second".to_owned())
        );
        assert_eq!(seen[51].1.len(), 2047);
    }
}

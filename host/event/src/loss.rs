//! Why a row can leave the stream, and the account of it.
//!
//! `Reason` is exhaustive on purpose: a new way to lose events is a new variant, and the compiler then lists every place
//! that has to show it. Counts only ever grow; a reader takes differences.

/// Why a row did not reach the output, or reached it incomplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
pub enum Reason {
    /// The kernel found no room in the ring buffer (or perf buffer).
    RingFull,
    /// A BPF map was full, so the program could not correlate or store an event.
    MapFull,
    /// The record was too short or otherwise not of the declared shape.
    Malformed,
    /// Rows waiting for a container's name ran over the bound of the queue.
    HoldOverflow,
    /// Records still in the buffer when the run was cut short (second SIGINT).
    Aborted,
    /// The output could not be written (closed pipe, full disk).
    OutputClosed,
    /// The user's `--filter`, or the container selection applied after the kernel.
    Filtered,
    /// `--max-entries`.
    Limited,
    /// The gadget's Wasm asked for it.
    DroppedByGuest,
    /// Not one of the containers asked for, found out after the kernel let it pass.
    OtherContainer,
    /// Of a container's runtime, before the container's first program ran.
    Setup,
    /// Shown, but the guest trapped or refused it, so its decoded fields are missing.
    Undecoded,
    /// Shown, but its container could not be named in time.
    Unlabelled,
    /// Shown without its stack: the map of stacks was full, or another stack had its place.
    Stackless,
    /// A stream had a gap, or was more than the gadget reads of it: one message or more was not seen.
    StreamGap,
}

/// What a reason means for the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The user wanted the row and does not get it.
    Loss,
    /// The row was left out because somebody asked for that.
    Intent,
    /// The row is delivered, with something missing.
    Degraded,
}

impl Reason {
    pub const ALL: [Reason; 15] = [
        Reason::RingFull,
        Reason::MapFull,
        Reason::Malformed,
        Reason::HoldOverflow,
        Reason::Aborted,
        Reason::OutputClosed,
        Reason::Filtered,
        Reason::Limited,
        Reason::DroppedByGuest,
        Reason::OtherContainer,
        Reason::Setup,
        Reason::Undecoded,
        Reason::Unlabelled,
        Reason::Stackless,
        Reason::StreamGap,
    ];

    pub fn class(self) -> Class {
        match self {
            Reason::RingFull
            | Reason::MapFull
            | Reason::StreamGap
            | Reason::Malformed
            | Reason::HoldOverflow
            | Reason::Aborted
            | Reason::OutputClosed => Class::Loss,
            Reason::Filtered | Reason::Limited | Reason::DroppedByGuest | Reason::OtherContainer | Reason::Setup => {
                Class::Intent
            }
            Reason::Undecoded | Reason::Unlabelled | Reason::Stackless => Class::Degraded,
        }
    }

    /// Stable name for machines.
    pub fn key(self) -> &'static str {
        match self {
            Reason::RingFull => "ring_full",
            Reason::MapFull => "map_full",
            Reason::StreamGap => "stream_gap",
            Reason::Malformed => "malformed",
            Reason::HoldOverflow => "hold_overflow",
            Reason::Aborted => "aborted",
            Reason::OutputClosed => "output_closed",
            Reason::Filtered => "filtered",
            Reason::Limited => "limited",
            Reason::DroppedByGuest => "dropped_by_guest",
            Reason::OtherContainer => "other_container",
            Reason::Setup => "setup",
            Reason::Undecoded => "undecoded",
            Reason::Unlabelled => "unlabelled",
            Reason::Stackless => "stackless",
        }
    }

    /// For people, after a number of events: `12 events were lost: <text>`.
    pub fn text(self) -> &'static str {
        match self {
            Reason::RingFull => "the kernel's event buffer was full",
            Reason::MapFull => "a BPF map was full",
            Reason::StreamGap => "a stream had a gap, or could not be read further",
            Reason::Malformed => "the record was not of the declared shape",
            Reason::HoldOverflow => "too many events waited for their container's name",
            Reason::Aborted => "the run was cut short",
            Reason::OutputClosed => "the output could not be written",
            Reason::Filtered => "filtered out",
            Reason::Limited => "over --max-entries",
            Reason::DroppedByGuest => "dropped by the gadget",
            Reason::OtherContainer => "of containers not asked for",
            Reason::Setup => "of runtimes setting up containers",
            Reason::Undecoded => "shown without the gadget's decoding",
            Reason::Unlabelled => "shown without their container's name",
            Reason::Stackless => "shown without their stack: the map of stacks had no room",
        }
    }
}

/// Counts by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    counts: [u64; Reason::ALL.len()],
}

impl Loss {
    pub fn add(&mut self, reason: Reason, count: u64) {
        let n = &mut self.counts[reason as usize];
        // Counts of a recording are foreign: they must not wrap around to something plausible.
        *n = n.saturating_add(count);
    }

    pub fn merge(&mut self, other: &Loss) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine = mine.saturating_add(theirs);
        }
    }

    pub fn get(&self, reason: Reason) -> u64 {
        self.counts[reason as usize]
    }

    pub fn of(&self, class: Class) -> u64 {
        self.iter().filter(|(r, _)| r.class() == class).fold(0, |sum, (_, n)| sum.saturating_add(n))
    }

    /// Reasons that happened, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.into_iter().map(|r| (r, self.get(r))).filter(|(_, n)| *n > 0)
    }

    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|n| *n == 0)
    }

    pub fn clear(&mut self) {
        self.counts.fill(0);
    }
}

/// The account of a run: `produced = delivered + lost + left out`, or it does not balance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Rows the kernel (or the recording) produced, those it could not hand over included.
    pub produced: u64,
    pub delivered: u64,
    pub loss: Loss,
    /// Runs of the gadget's programs, and of those that tell it whose a socket is, that the kernel skipped. Only the program
    /// could say which of them would have been an event, so they stand beside the equation, and count as loss where one has
    /// to be feared.
    pub missed_runs: u64,
    /// What the gadget's Wasm says it lost, or the kernel of what it reads itself: of what becomes documents, or a row only
    /// later, so that it is beside the equation as well.
    pub gadget_lost: u64,
    /// Networks that could not be entered, containers that could not be followed or probed, sockets whose process found no
    /// room: nobody can say how many events that cost, so they stand beside the equation, too.
    pub blind_spots: u64,
}

impl Ledger {
    pub fn lost(&self) -> u64 {
        self.loss.of(Class::Loss)
    }

    pub fn left_out(&self) -> u64 {
        self.loss.of(Class::Intent)
    }

    /// Rows of which is known what became of them.
    fn accounted(&self) -> u64 {
        self.delivered.saturating_add(self.lost()).saturating_add(self.left_out())
    }

    pub fn balanced(&self) -> bool {
        self.produced == self.accounted()
    }

    pub fn merge(&mut self, other: &Ledger) {
        self.produced = self.produced.saturating_add(other.produced);
        self.delivered = self.delivered.saturating_add(other.delivered);
        self.loss.merge(&other.loss);
        self.missed_runs = self.missed_runs.saturating_add(other.missed_runs);
        self.gadget_lost = self.gadget_lost.saturating_add(other.gadget_lost);
        self.blind_spots = self.blind_spots.saturating_add(other.blind_spots);
    }

    /// True where something was lost, or may have been, that the equation does not show, or where it does not balance: then a
    /// row was lost without a reason.
    pub fn has_doubt(&self) -> bool {
        self.gadget_lost > 0 || self.missed_runs > 0 || self.blind_spots > 0 || !self.balanced()
    }

    /// True where a row was lost, or may have been.
    pub fn has_loss(&self) -> bool {
        self.lost() > 0 || self.has_doubt()
    }

    /// For people: one line with the equation, one for each reason. Ends with a newline.
    pub fn summary(&self) -> String {
        let (lost, left_out) = (self.lost(), self.left_out());
        let mut text = format!(
            "ledger: {} produced = {} delivered + {lost} lost + {left_out} left out\n",
            self.produced, self.delivered
        );
        for (class, title) in
            [(Class::Loss, "lost"), (Class::Intent, "left out"), (Class::Degraded, "delivered, but incomplete")]
        {
            for (reason, count) in self.loss.iter().filter(|(r, _)| r.class() == class) {
                text.push_str(&format!("  {title}: {count} {} ({})\n", reason.text(), reason.key()));
            }
        }
        if self.gadget_lost > 0 {
            text.push_str(&format!(
                "  lost: {} of what the gadget gathered by itself (gadget_lost)\n",
                self.gadget_lost
            ));
        }
        if self.missed_runs > 0 {
            text.push_str(&format!(
                "  maybe lost: the kernel skipped {} runs of the gadget's programs (missed_runs)\n",
                self.missed_runs
            ));
        }
        if self.blind_spots > 0 {
            text.push_str(&format!(
                "  maybe lost: {} networks, containers or sockets could not be followed (blind_spots)\n",
                self.blind_spots
            ));
        }
        let accounted = self.accounted();
        if self.produced > accounted {
            text.push_str(&format!("  unaccounted for: {} events\n", self.produced - accounted));
        } else if accounted > self.produced {
            text.push_str(&format!("  accounted for twice: {} events\n", accounted - self.produced));
        }
        text
    }

    /// For machines: one JSON object without a newline; keys sorted, reasons by their [`Reason::key`].
    pub fn to_json(&self) -> String {
        let of = |class: Class| -> serde_json::Map<String, serde_json::Value> {
            let mut reasons: Vec<(Reason, u64)> = self.loss.iter().filter(|(r, _)| r.class() == class).collect();
            reasons.sort_by_key(|(r, _)| r.key());
            reasons.into_iter().map(|(r, n)| (r.key().to_owned(), n.into())).collect()
        };
        serde_json::json!({
            "balanced": self.balanced(),
            "blind_spots": self.blind_spots,
            "delivered": self.delivered,
            "gadget_lost": self.gadget_lost,
            "incomplete": of(Class::Degraded),
            "left_out": of(Class::Intent),
            "lost": of(Class::Loss),
            "missed_runs": self.missed_runs,
            "produced": self.produced,
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lists_every_reason_at_its_own_index() {
        for (i, r) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(r as usize, i);
        }
    }

    #[test]
    fn ledger_balances_only_when_every_row_is_accounted_for() {
        let mut l = Ledger { produced: 10, delivered: 7, ..Ledger::default() };
        assert!(!l.balanced());
        l.loss.add(Reason::RingFull, 1);
        l.loss.add(Reason::Filtered, 2);
        l.loss.add(Reason::Undecoded, 5);
        assert!(l.balanced(), "degraded rows were delivered: they are not subtracted again");
        assert_eq!((l.lost(), l.left_out()), (1, 2));
    }

    #[test]
    fn a_ledger_reads_as_an_equation_with_its_reasons() {
        let mut l = Ledger { produced: 1000, delivered: 980, ..Ledger::default() };
        assert_eq!(l.summary().lines().last(), Some("  unaccounted for: 20 events"));
        assert!(l.has_loss());
        l.loss.add(Reason::RingFull, 7);
        l.loss.add(Reason::Malformed, 1);
        l.loss.add(Reason::Filtered, 12);
        l.loss.add(Reason::Undecoded, 3);
        l.missed_runs = 4;
        l.blind_spots = 2;
        l.gadget_lost = 6;
        insta::assert_snapshot!(format!("{}{}\n", l.summary(), l.to_json()));
        l.delivered += 1;
        assert_eq!(l.summary().lines().last(), Some("  accounted for twice: 1 events"));
        assert_eq!(Ledger::default().summary(), "ledger: 0 produced = 0 delivered + 0 lost + 0 left out\n");
        assert!(!Ledger::default().has_loss());
        assert!(Ledger { missed_runs: 1, ..Ledger::default() }.has_loss(), "a skipped run may have been an event");
        assert!(Ledger { gadget_lost: 1, ..Ledger::default() }.has_loss());
        assert!(Ledger { blind_spots: 1, ..Ledger::default() }.has_loss(), "nobody knows what was not seen");
    }
}

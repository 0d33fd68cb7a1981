//! Where the rows of a run come from: event buffers, iterators and maps, and when each is looked at.

use super::TableTimes;
use crate::{
    bpf::{
        Hook, Loaded, Object, iter,
        maps::RawMap,
        perf::PerfReader,
        ring::Ring,
        wait::{self, LostCounter},
    },
    containers::{ClosedNetwork, NetworkSurvey},
    enrich::container::ContainerEnricher,
    host_sources::HostTable,
};
use ig_event::Batch;
use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

pub(super) enum Buffer {
    Ring(Ring),
    Perf(PerfReader),
}

/// One data source and where its rows come from.
pub(super) enum Feed {
    Tracer { buffer: Buffer, lost: Option<LostCounter> },
    Iterator { programs: Vec<Iteration> },
    Map { map: RawMap<OwnedFd> },
    Host(HostTable),
}

/// What one pass over the buffers found.
#[derive(Clone, Copy, Default)]
pub(super) struct Drained {
    pub(super) rows: usize,
    pub(super) bytes: usize,
    /// A batch was full, so there is probably more.
    pub(super) more: bool,
}

impl Drained {
    pub(super) fn add(&mut self, other: Drained) {
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.more |= other.more;
    }

    /// Rows as the pacer should see them: a few large records fill a buffer as fast as many small ones.
    pub(super) fn pace(&self, ring_bytes: u32) -> usize {
        if self.bytes > ring_bytes as usize / 16 { self.rows.max(wait::MANY) } else { self.rows }
    }
}

/// When tables are read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Tables {
    /// Once, before anything else.
    Start,
    /// Every interval.
    Due,
    /// After the programs are detached.
    End,
}

/// When tables are read over time, and how often.
#[derive(Clone, Debug)]
pub(super) struct TablePlan {
    interval: Duration,
    /// Until the first reading, where that is not the interval.
    first: Option<Duration>,
    /// Iterators are read every interval too, not only at the start.
    again: bool,
    /// Readings still to come; `None` for no limit.
    left: Option<u64>,
    pub(super) due: Option<Instant>,
}

impl TablePlan {
    /// `asked`: the user gave an interval or a count.
    pub(super) fn new(times: &TableTimes, asked: bool) -> Self {
        TablePlan {
            interval: times.interval,
            first: times.first,
            again: asked && !times.interval.is_zero(),
            left: (times.count > 0).then_some(times.count),
            due: None,
        }
    }

    /// Whether a source of this kind is read at this time.
    pub(super) fn reads(&self, feed: &Feed, when: Tables) -> bool {
        match (feed, when) {
            (Feed::Iterator { .. }, Tables::Start) => true,
            (Feed::Iterator { .. }, Tables::Due) => self.again,
            // What the maps have gathered since the last reading is not thrown away.
            (Feed::Map { .. }, Tables::Due | Tables::End) => true,
            (Feed::Host(_), Tables::Due) => true,
            (Feed::Host(_), Tables::End) => self.interval.is_zero(),
            _ => false,
        }
    }

    /// Sets the time of the first reading after those of the start.
    pub(super) fn begin(&mut self, now: Instant, only_iterators: bool) {
        if only_iterators {
            // They have been shown once.
            self.left = self.left.map(|n| n.saturating_sub(1));
        }
        self.due = self.wanted().then(|| now.checked_add(self.first.unwrap_or(self.interval))).flatten();
    }

    /// Counts a reading and sets the time of the next one; there may be none.
    pub(super) fn advance(&mut self, now: Instant) {
        self.left = self.left.map(|n| n.saturating_sub(1));
        let last = self.due.unwrap_or(now);
        let next = last.checked_add(self.interval);
        // In step, unless one took longer than the interval.
        let next = next.filter(|t| *t > now).or_else(|| now.checked_add(self.interval));
        self.due = if self.wanted() { next } else { None };
    }

    fn wanted(&self) -> bool {
        !self.interval.is_zero() && !self.done()
    }

    /// All tables that were asked for have been read.
    pub(super) fn done(&self) -> bool {
        self.left == Some(0)
    }
}

impl Feed {
    /// Records that found no room since the last call. What the programs count themselves is exact; what the kernel says
    /// of a perf buffer comes before Linux 6.0 only with the next record that does find room, so it is second choice.
    pub(super) fn lost(&mut self) -> Option<std::io::Result<u64>> {
        match self {
            Feed::Tracer { lost: Some(counter), .. } => Some(counter.take()),
            Feed::Tracer { buffer: Buffer::Perf(p), .. } => Some(p.take_lost()),
            _ => None,
        }
    }
}

pub(super) struct Source {
    pub(super) batch: Batch,
    pub(super) enricher: Option<ContainerEnricher>,
    pub(super) feed: Option<Feed>,
}

impl Source {
    pub(super) fn ring(&mut self) -> Option<&mut Ring> {
        match &mut self.feed {
            Some(Feed::Tracer { buffer: Buffer::Ring(r), .. }) => Some(r),
            _ => None,
        }
    }

    /// Whether no row was set aside until it is known whose it is.
    pub(super) fn holds_nothing(&self) -> bool {
        self.enricher.as_ref().is_none_or(|e| e.held() == 0)
    }

    /// Bytes in the ring that were not read yet.
    pub(super) fn pending(&mut self) -> u64 {
        self.ring().map_or(0, |r| r.pending())
    }
}

/// An iterator program of a source.
pub(super) struct Iteration {
    program: String,
    row: usize,
    /// It shows only the network namespace of whoever runs it.
    of_network: bool,
}

impl Iteration {
    pub(super) fn new(program: &str, row: usize, object: &Object) -> Iteration {
        let hook = object.program(program).map(|p| &p.hook);
        let of_network =
            matches!(hook, Some(Hook::Iter { target }) if matches!(target.as_str(), "tcp" | "udp" | "unix"));
        Iteration { program: program.to_owned(), row, of_network }
    }
}

/// Runs each program once, and those that show a network once in each of `networks`. What comes back are the networks that
/// could not be entered.
pub(super) fn run_iterators(
    loaded: &Loaded,
    programs: &[Iteration],
    networks: impl FnOnce() -> NetworkSurvey,
    push: &mut (impl FnMut(&[u8]) + Send),
) -> io::Result<Vec<ClosedNetwork>> {
    // One that was skipped has been reported.
    let runs = |of_network| {
        let of = programs.iter().filter(move |p| p.of_network == of_network);
        of.filter_map(|p| Some((p, loaded.iterator(&p.program)?))).collect::<Vec<_>>()
    };
    for (p, link) in runs(false) {
        run_iterator(p, link, push)?;
    }
    let runs = runs(true);
    if runs.is_empty() {
        return Ok(Vec::new());
    }
    let NetworkSurvey { found, mut closed } = networks();
    // A thread of its own, because it ends in another network than it began in.
    let all = || {
        for network in &found {
            if let Err(e) = network.enter() {
                let why = format!("cannot be entered: {e}");
                closed.push(ClosedNetwork { number: network.number, instance: 0, why });
                continue;
            }
            for (p, link) in &runs {
                run_iterator(p, *link, push)?;
            }
        }
        Ok(closed)
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("ig-iterators".into()).spawn_scoped(scope, all)?;
        thread.join().unwrap_or_else(|_panic| Err(io::Error::other("the thread that runs iterators panicked")))
    })
}

fn run_iterator(p: &Iteration, link: BorrowedFd<'_>, push: &mut impl FnMut(&[u8])) -> io::Result<()> {
    let run = iter::read(link, p.row, &mut *push)?;
    if run.rest > 0 {
        let what = format!("iterator {} wrote {} bytes that make no whole row of {}", p.program, run.rest, p.row);
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(interval: u64, count: u64, asked: bool) -> TablePlan {
        TablePlan::new(&TableTimes { interval: Duration::from_secs(interval), count, ..TableTimes::default() }, asked)
    }

    #[test]
    fn readings_keep_step_unless_one_takes_too_long() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut p = plan(2, 0, false);
        p.begin(start, false);
        assert_eq!(p.due, Some(at(2)));
        p.advance(at(2) + Duration::from_millis(500));
        assert_eq!(p.due, Some(at(4)));
        p.advance(at(9));
        assert_eq!(p.due, Some(at(11)));
        p.first = Some(Duration::from_millis(250));
        p.begin(start, false);
        assert_eq!(p.due, Some(start + Duration::from_millis(250)));
    }

    #[test]
    fn the_count_ends_them_and_an_iterator_counts_from_the_start() {
        let now = Instant::now();
        let mut maps = plan(1, 2, true);
        maps.begin(now, false);
        maps.advance(now);
        assert!(maps.due.is_some() && !maps.done());
        maps.advance(now);
        assert!(maps.due.is_none() && maps.done());
        let mut once = plan(1, 1, true);
        once.begin(now, true);
        assert!(once.due.is_none() && once.done());
        let mut at_the_end = plan(0, 0, true);
        at_the_end.begin(now, false);
        assert!(at_the_end.due.is_none() && !at_the_end.done());
    }

    #[test]
    fn iterators_are_read_once_unless_asked_for() {
        let feed = Feed::Iterator { programs: Vec::new() };
        let reads = |p: &TablePlan| [Tables::Start, Tables::Due, Tables::End].map(|t| p.reads(&feed, t));
        assert_eq!(reads(&plan(1, 0, false)), [true, false, false]);
        assert_eq!(reads(&plan(1, 0, true)), [true, true, false]);
        assert_eq!(reads(&plan(0, 0, true)), [true, false, false]);
    }
}

//! Where the rows of a run come from: event buffers, iterators and maps, and when each is looked at.

use crate::{
    bpf::{
        Loaded, Object, iter,
        maps::RawMap,
        object::Hook,
        perf::PerfReader,
        ring::Ring,
        wait::{self, LostCounter},
    },
    containers::NetworkNamespace,
    enrich::container::ContainerEnricher,
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

/// Kinds of tables, by when they are read.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Tables {
    /// Once, at the start.
    Iterators,
    /// Every interval, and at the end.
    Maps,
}

/// When maps that are tables are read.
pub(super) struct MapPlan {
    pub(super) interval: Duration,
    /// Readings still to come; `None` for no limit.
    pub(super) left: Option<u64>,
    pub(super) due: Option<Instant>,
}

impl MapPlan {
    pub(super) fn new(interval: Duration, count: u64) -> Self {
        MapPlan { interval, left: (count > 0).then_some(count), due: None }
    }

    /// Sets the time of the next reading; there may be none.
    pub(super) fn advance(&mut self, from: Instant) {
        self.due =
            (!self.interval.is_zero() && self.left != Some(0)).then(|| from.checked_add(self.interval)).flatten();
    }
}

impl Feed {
    /// Records that found no room since the last call. What the programs count themselves is exact; what the kernel says
    /// of a perf buffer comes only with the next record that does find room, so it is second choice.
    pub(super) fn lost(&mut self) -> Option<std::io::Result<u64>> {
        match self {
            Feed::Tracer { lost: Some(counter), .. } => Some(counter.take()),
            Feed::Tracer { buffer: Buffer::Perf(p), .. } => Some(Ok(p.take_lost())),
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

/// Runs each program once, and those that show a network once in each of `networks`.
pub(super) fn run_iterators(
    loaded: &Loaded,
    programs: &[Iteration],
    networks: impl FnOnce() -> Vec<NetworkNamespace>,
    push: &mut (impl FnMut(&[u8]) + Send),
) -> io::Result<()> {
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
        return Ok(());
    }
    let networks = networks();
    // A thread of its own, because it ends in another network than it began in.
    let all = || {
        for network in &networks {
            network.enter()?;
            for (p, link) in &runs {
                run_iterator(p, *link, push)?;
            }
        }
        Ok(())
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

//! Several gadgets in one process: one tracker, one engine for guests, and for each gadget an event loop on a thread of
//! its own, with a sink of its own. Whatever the sinks have in common they must guard themselves.
//!
//! Everything is checked and loaded on the caller's thread, one gadget after the other, and only then attached: what is
//! wrong with the last gadget is known before the first one runs. The caller's thread then waits for the others.

use super::{Gadget, Live, LiveOptions, RunError, Sink, Stop, Summary, load::Shared};
use ig_event::{DataSource, FieldDef, Kind, SourceKind, Storage};
use std::{sync::Arc, thread};

/// Field of the rows of one of several gadgets.
const TAG_FIELD: &str = "gadget";
/// In front of all that the host or the gadget has to say.
const TAG_ORDER: &str = "-40";

/// What a gadget's rows are to be called among those of others: value of their field `gadget`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    pub name: String,
    /// Cells of its column, the same for all.
    pub width: usize,
    /// Tables stand under the gadget's name, so that their rows need not say it unless asked.
    pub over_tables: bool,
}

impl Tag {
    /// Adds the field, unless the gadget has one of that name: then its rows could not be told apart by it.
    pub(super) fn add(&self, source: &mut DataSource) -> Result<(), RunError> {
        let field = FieldDef::new(TAG_FIELD, Kind::Text, Storage::Constant(Arc::from(self.name.as_str())))
            .annotate("description", "The gadget the row is of")
            .annotate("columns.order", TAG_ORDER)
            .annotate("columns.width", self.width.to_string())
            .annotate("columns.minwidth", self.width.to_string());
        let field = match self.over_tables && source.kind == SourceKind::Snapshot {
            true => field.annotate("columns.hidden", "true"),
            false => field,
        };
        match source.add(field) {
            Some(_) => Ok(()),
            None => Err(RunError::TagTaken { source_name: source.name.clone() }),
        }
    }
}

/// Why several gadgets did not start: the first of them that cannot.
#[derive(Debug, thiserror::Error)]
#[error("{gadget}: {source}")]
pub struct MemberError {
    pub gadget: String,
    pub source: RunError,
}

/// A gadget that has run, or was to.
#[derive(Debug)]
pub struct Ended {
    pub gadget: String,
    pub summary: Summary,
    pub failed: Option<RunError>,
}

struct Member {
    name: String,
    live: Live,
}

/// Gadgets that are loaded and not yet attached, or running.
pub struct Several {
    members: Vec<Member>,
}

impl Several {
    /// Puts the gadgets into the kernel without starting them; with each comes the name that messages and rows call it.
    pub fn load(gadgets: Vec<(String, Gadget, LiveOptions)>) -> Result<Several, MemberError> {
        let mut shared = Shared::default();
        let mut members = Vec::with_capacity(gadgets.len());
        for (name, gadget, options) in gadgets {
            match gadget.load_with(options, &mut shared) {
                Ok(live) => members.push(Member { name, live }),
                Err(source) => return Err(MemberError { gadget: name, source }),
            }
        }
        Ok(Several { members })
    }

    /// Each gadget's name and final schema, in the order of `load`.
    pub fn sources(&self) -> impl Iterator<Item = (&str, &[Arc<DataSource>])> {
        self.members.iter().map(|m| (m.name.as_str(), m.live.sources()))
    }

    /// Lets the programs of all run. `sinks` are in the order of `load`.
    pub fn attach<S: Sink>(&mut self, sinks: &mut [S]) -> Result<(), MemberError> {
        for (member, sink) in self.members.iter_mut().zip(sinks) {
            member.live.attach(sink).map_err(|source| MemberError { gadget: member.name.clone(), source })?;
        }
        Ok(())
    }

    /// Runs until every gadget has ended. One that is done, such as a snapshot, leaves the others running; one that fails,
    /// or whose reader has gone, ends them all.
    pub fn run<S: Sink + Send>(self, stop: &Stop, sinks: &mut [S]) -> Vec<Ended> {
        let stops: std::io::Result<Vec<Stop>> = self.members.iter().map(|_| stop.child()).collect();
        let stops = match stops {
            Ok(stops) => stops,
            Err(e) => return self.members.into_iter().map(|m| not_started(m.name, again(&e))).collect(),
        };
        thread::scope(|scope| {
            let relay = thread::Builder::new().name("ig-signals".into()).spawn_scoped(scope, || stop.pass_on(&stops));
            if relay.is_err() {
                // Without it nobody would hear of a stop.
                stop.request();
            }
            let mut threads = Vec::with_capacity(self.members.len());
            for ((Member { name, live }, sink), own) in self.members.into_iter().zip(sinks).zip(&stops) {
                let run = move || {
                    let (summary, failed) = live.run(own, sink);
                    if failed.is_some() || summary.closed {
                        stop.request();
                    }
                    (summary, failed)
                };
                let started = thread::Builder::new().name(name.replace('\0', "")).spawn_scoped(scope, run);
                if started.is_err() {
                    stop.request();
                }
                threads.push((name, started));
            }
            let mut all: Vec<Ended> = threads.into_iter().map(|(gadget, started)| ended(gadget, started)).collect();
            // Ends the relay, where nothing else has.
            stop.request();
            if let (Err(e), Some(first)) = (&relay, all.first_mut()) {
                let failed = RunError::Thread { gadget: first.gadget.clone(), source: again(e) };
                first.failed.get_or_insert(failed);
            }
            all
        })
    }
}

type Run<'a> = thread::ScopedJoinHandle<'a, (Summary, Option<RunError>)>;

fn ended(gadget: String, started: std::io::Result<Run<'_>>) -> Ended {
    match started.map(Run::join) {
        Ok(Ok((summary, failed))) => Ended { gadget, summary, failed },
        // Only where a panic does not end the process at once, as in tests.
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(source) => not_started(gadget, source),
    }
}

fn not_started(gadget: String, source: std::io::Error) -> Ended {
    let failed = Some(RunError::Thread { gadget: gadget.clone(), source });
    Ended { gadget, summary: Summary::default(), failed }
}

/// Errors of the system cannot be copied, and one may keep several from starting.
fn again(e: &std::io::Error) -> std::io::Error {
    e.raw_os_error().map_or_else(|| e.kind().into(), std::io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ig_event::Batch;

    #[test]
    fn a_tag_stands_in_every_row_and_is_refused_where_the_name_is_taken() {
        let tag = Tag { name: "trace_open".into(), width: 12, over_tables: true };
        let mut source = DataSource::new("open", SourceKind::Events, 8);
        source.add(FieldDef::new("fd", Kind::U32, Storage::Record { offset: 0, size: 4 })).unwrap();
        tag.add(&mut source).unwrap();
        let id = source.find("gadget").unwrap().id;
        let mut batch = Batch::new(Arc::new(source.clone()));
        batch.push(&[0; 8]);
        batch.push(&[1; 8]);
        for row in 0..2 {
            assert_eq!(batch.value(row, id), ig_event::Value::Text("trace_open".as_bytes().into()));
        }
        let hidden = |s: &DataSource| s.find("gadget").unwrap().annotation("columns.hidden") == Some("true");
        let mut table = DataSource::new("top", SourceKind::Snapshot, 8);
        tag.add(&mut table).unwrap();
        assert_eq!([hidden(&source), hidden(&table)], [false, true]);
        let e = tag.add(&mut source).unwrap_err();
        assert!(matches!(&e, RunError::TagTaken { source_name } if source_name == "open"), "{e}");
    }
}

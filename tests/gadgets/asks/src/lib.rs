//! A guest that asks its host for everything there is, also for what it must not get, and writes down the answers: the
//! document `answers`, a line each, of which tests/tests/guest_services.rs knows what must be in it.

use gadget_sdk::{
    Decoder, Error, Setup,
    host::{self, Document, Map, PerfReader, Update, WhenFull},
};
use std::fmt::Debug;

const PAGE: u32 = 4096;

pub struct Asks {
    of: u32,
    answers: String,
    readers: Option<(PerfReader, PerfReader)>,
}

impl Asks {
    fn note<T: Debug>(&mut self, what: &str, answer: Result<T, Error>) {
        let answer = match answer {
            Ok(v) => format!("{v:?}"),
            Err(e) => format!("{:?}: {}", e.code, e.message),
        };
        self.answers.push_str(&format!("{what}: {answer}\n"));
    }

    fn write_maps(&mut self) -> Result<(), Error> {
        let (wanted, key) = (Map::open("wanted")?, self.of.to_le_bytes());
        self.note("update existing that is not", wanted.update(&key, &[0; 8], Update::OnlyExisting).map_err(kind_only));
        self.note("update", wanted.update(&key, &[1; 8], Update::OnlyNew));
        self.note("update new that is not", wanted.update(&key, &[2; 8], Update::OnlyNew).map_err(kind_only));
        self.note("lookup", wanted.lookup(&key));
        self.note("delete nothing", wanted.delete(&[0; 4]));
        self.note("short key", wanted.update(&key[..3], &[1; 8], Update::Any));
        self.note("long value", wanted.update(&key, &[1; 9], Update::Any));
        self.note("second", wanted.update(&[1, 0, 0, 0], &[1; 8], Update::Any));
        self.note("full", wanted.update(&[2, 0, 0, 0], &[1; 8], Update::Any).map_err(kind_only));
        self.note("delete", wanted.delete(&[1, 0, 0, 0]));
        let each = Map::open("on_each_cpu")?;
        let info = each.info();
        let values = [7u64.to_le_bytes()].repeat(info.cpus as usize).concat();
        self.note("one CPU's value", each.update(&[0; 4], &values[..4], Update::Any).map_err(kind_only));
        self.note("every CPU's value", each.update(&[0; 4], &values, Update::Any));
        self.note("programs", Map::open("programs")?.update(&[0; 4], &[0; 4], Update::Any));
        self.note("the host's filter", Map::open("gadget_mntns_filter_map")?.update(&[0; 8], &[0; 4], Update::Any));
        self.note("delete of the host's", Map::open("gadget_mntns_filter_map")?.delete(&[0; 8]));
        Ok(())
    }

    fn open_buffers(&mut self) -> Result<(), Error> {
        let (first, last) = (Map::open("first")?, Map::open("last")?);
        let buffers = |map: &Map, bytes| PerfReader::open(map, bytes, WhenFull::LoseNew).map(drop);
        self.note("buffers of a hash", buffers(&Map::open("wanted")?, PAGE));
        self.note("the host's buffers", buffers(&Map::open("rows")?, PAGE));
        self.note("an odd size", buffers(&first, 5000));
        self.note("less than a page", buffers(&first, 2048));
        self.note("too much", buffers(&first, 1 << 30));
        self.note("opened and closed", buffers(&first, PAGE));
        let readers = (
            PerfReader::open(&first, PAGE, WhenFull::LoseNew)?,
            PerfReader::open(&last, PAGE, WhenFull::OverwriteOld)?,
        );
        self.note("a second reader", buffers(&first, PAGE));
        self.note("nothing yet", count(&readers.0));
        self.note("nothing recorded yet", count(&readers.1));
        self.readers = Some(readers);
        Ok(())
    }

    fn read(&mut self) {
        let Some((first, last)) = self.readers.take() else { return };
        for (what, reader) in [("first", first), ("last", last)] {
            let mut values = Vec::new();
            let lost = reader
                .each(|r| values.extend(r.get(4..8).and_then(|v| v.first_chunk()).map(|v| u32::from_le_bytes(*v))));
            let (from, to) = (values.first().copied(), values.last().copied());
            let in_order = values.windows(2).all(|w| w[0] + 1 == w[1]);
            self.note(what, lost.map(|lost| (from, to, values.len(), in_order, lost)));
            self.note(&format!("{what} again"), count(&reader));
        }
    }
}

/// Numbers of the kernel's errors are for others to check.
fn kind_only(e: Error) -> Error {
    Error::new(e.code, "")
}

fn count(reader: &PerfReader) -> Result<usize, Error> {
    let mut n = 0;
    reader.each(|_| n += 1).map(|_lost| n)
}

impl Decoder for Asks {
    fn open(setup: &mut Setup) -> Result<Self, Error> {
        let of = setup.param("of").and_then(|p| p.parse().ok()).unwrap_or_default();
        let mut asks = Asks { of, answers: String::new(), readers: None };
        asks.note("before the start", Map::open("wanted").map(drop));
        Ok(asks)
    }

    fn start(&mut self) -> Result<(), Error> {
        self.note("no such map", Map::open("nobody").map(drop));
        self.write_maps()?;
        self.open_buffers()
    }

    fn stop(&mut self) -> Result<(), Error> {
        self.read();
        host::lost(5);
        let text = std::mem::take(&mut self.answers);
        Document { name: "answers".into(), media_type: "text/plain".into(), annotations: Vec::new(), text }.publish()
    }
}

gadget_sdk::export!(Asks);

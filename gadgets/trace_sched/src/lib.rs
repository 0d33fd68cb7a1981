//! The drawing half of trace_sched: what the perf buffers hold, as a timeline in the trace event format that Perfetto and
//! Chromium draw.
//!
//! Each CPU is a row of the drawing, and each time that a thread had it a slice. Records come one CPU after the other; only the
//! newest [`MOST`] of all are kept, so that a machine of many CPUs gives no document that nothing can open.

use gadget_sdk::{
    Decoder, Error, ErrorCode, Level, Setup,
    host::{self, Document, Map, Owner, PerfReader, WhenFull},
    log, text,
};
use std::collections::{BTreeMap, BTreeSet};

/// Slices of one document, and its bytes: a little less than the host takes. With usual names a slice has 150 bytes.
const MOST: usize = 80_000;
const MOST_BYTES: usize = 15 << 20;
/// All CPUs together may not have more.
const MOST_KIB: u32 = 65_536;

/// Why a thread left its CPU, in the order of the BPF half's `enum left`.
const LEFT: [&str; 5] = ["preempted", "sleeps", "waits", "ended", "stopped"];

/// One time that a thread had a CPU. Times are nanoseconds of the boot clock.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slice {
    start: u64,
    /// 0: it still has it.
    end: u64,
    mntns: u64,
    cpu: u32,
    left: u32,
    pid: u32,
    tid: u32,
    comm: [u8; 16],
}

impl Slice {
    /// `None` for a record that is too short.
    fn parse(record: &[u8]) -> Option<Slice> {
        let long = |at: usize| record.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b));
        let word = |at: usize| record.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b));
        Some(Slice {
            start: long(0)?,
            end: long(8)?,
            mntns: long(16)?,
            cpu: word(24)?,
            left: word(28)?,
            pid: word(32)?,
            tid: word(36)?,
            comm: *record.get(40..)?.first_chunk()?,
        })
    }
}

pub struct Recorder {
    interval_ms: u32,
    kib: u32,
    reader: Option<PerfReader>,
}

impl Decoder for Recorder {
    fn open(setup: &mut Setup) -> Result<Self, Error> {
        let seconds = number(setup, "interval")?;
        let kib = number(setup, "recorder-size")?;
        if !kib.is_power_of_two() || !(4..=MOST_KIB).contains(&kib) {
            let text = format!("parameter recorder-size: {kib} is no power of two from 4 to {MOST_KIB}");
            return Err(Error::new(ErrorCode::Invalid, text));
        }
        Ok(Recorder { interval_ms: seconds.saturating_mul(1000), kib, reader: None })
    }

    fn start(&mut self) -> Result<(), Error> {
        let map = Map::open("slices")?;
        let mut kib = self.kib;
        self.reader = Some(loop {
            match PerfReader::open(&map, kib * 1024, WhenFull::OverwriteOld) {
                Err(e) if e.code == ErrorCode::Exhausted && kib > 4 => kib /= 2,
                opened => break opened?,
            }
        });
        if kib < self.kib {
            log(Level::Warn, &format!("the buffer of each CPU has {kib} KiB: there are many CPUs"));
        }
        Ok(())
    }

    fn interval_ms(&self) -> u32 {
        self.interval_ms
    }

    fn tick(&mut self) -> Result<(), Error> {
        self.publish(Vec::new())
    }

    /// Whoever has a CPU when the run ends has left no record. The programs run no more, so what they noted is whole.
    fn stop(&mut self) -> Result<(), Error> {
        let map = Map::open("running")?;
        let size = map.info().value_size as usize;
        let values = map.lookup(&0u32.to_le_bytes())?.unwrap_or_default();
        let running = values.chunks(size.max(1)).filter_map(Slice::parse).filter(|s| s.start > 0 && s.tid > 0);
        self.publish(running.collect())
    }
}

fn number(setup: &mut Setup, key: &str) -> Result<u32, Error> {
    let text = setup.param(key).unwrap_or_default();
    text.parse().map_err(|_e| Error::new(ErrorCode::Invalid, format!("parameter {key}: {text:?} is no whole number")))
}

impl Recorder {
    fn publish(&self, running: Vec<Slice>) -> Result<(), Error> {
        let Some(reader) = &self.reader else { return Ok(()) };
        let (mut kept, mut wrong) = (Newest::default(), 0);
        let lost = reader.each(|record| match Slice::parse(record) {
            Some(slice) => kept.push(slice),
            None => wrong += 1,
        })?;
        if wrong > 0 {
            return Err(Error::new(ErrorCode::Other, format!("{wrong} records are not of the known shape")));
        }
        if lost > 0 {
            log(Level::Warn, &format!("{lost} slices came while the buffers were being read, and are missing"));
        }
        let (mut slices, mut older) = kept.finish();
        slices = with_running(slices, running);
        let (names, doubtful) = names(&slices, host::owner);
        if doubtful > 0 {
            log(Level::Warn, &format!("{doubtful} slices are missing: of which container they are is not known"));
            host::lost(doubtful);
        }
        let (text, too_many) = fitting(&mut slices, &names);
        older += too_many;
        if older > 0 {
            log(Level::Warn, &format!("the newest {} slices are drawn; {older} older ones are not", slices.len()));
        }
        Document { name: "cpus".into(), media_type: "application/json".into(), annotations: Vec::new(), text }.publish()
    }
}

/// The newest slices of those that were pushed.
#[derive(Default)]
struct Newest {
    slices: Vec<Slice>,
    older: usize,
}

impl Newest {
    fn push(&mut self, slice: Slice) {
        self.slices.push(slice);
        if self.slices.len() >= 2 * MOST {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if let Some(too_many) = self.slices.len().checked_sub(MOST).filter(|n| *n > 0) {
            self.slices.select_nth_unstable_by_key(too_many, |s| s.end);
            self.slices.drain(..too_many);
            self.older += too_many;
        }
    }

    /// In the order of time, and how many were older.
    fn finish(mut self) -> (Vec<Slice>, usize) {
        self.cut();
        self.slices.sort_unstable_by_key(|s| (s.start, s.cpu));
        (self.slices, self.older)
    }
}

/// Threads that still have their CPU: until the end of the last slice, as nobody knows more.
fn with_running(mut slices: Vec<Slice>, running: Vec<Slice>) -> Vec<Slice> {
    let last = slices.iter().map(|s| s.end).chain(running.iter().map(|s| s.start)).max().unwrap_or_default();
    slices.extend(running.into_iter().map(|s| Slice { end: last, left: u32::MAX, ..s }));
    slices
}

/// The container of each mount namespace; `None` for one that was not asked for. And how many slices are left out because
/// that is not known.
fn names(slices: &[Slice], owner: impl Fn(u64, u64) -> Owner) -> (BTreeMap<u64, Option<String>>, u64) {
    let (mut names, mut doubtful) = (BTreeMap::new(), 0);
    let mut unclear = BTreeSet::new();
    for s in slices {
        let name = names.entry(s.mntns).or_insert_with(|| match owner(s.mntns, s.end) {
            Owner::Container(c) if c.name.is_empty() => Some(c.id.chars().take(12).collect()),
            Owner::Container(c) => Some(c.name),
            Owner::Nobody => Some(String::new()),
            Owner::LeftOut => None,
            Owner::Doubtful => {
                unclear.insert(s.mntns);
                None
            }
        });
        doubtful += u64::from(name.is_none() && unclear.contains(&s.mntns));
    }
    (names, doubtful)
}

/// The process that all rows of the drawing belong to. Rows have numbers of their own beside it, none of which is 0: that is
/// the idle thread's.
const DRAWING: u32 = 1;

fn row(cpu: u32) -> u32 {
    cpu + DRAWING + 1
}

/// The timeline of as many slices as a document has room for, and how many of the oldest were given up: names may be long, or
/// full of what JSON must escape.
fn fitting(slices: &mut Vec<Slice>, names: &BTreeMap<u64, Option<String>>) -> (String, usize) {
    let all = slices.len();
    loop {
        let text = timeline(slices, names);
        if text.len() <= MOST_BYTES || slices.len() < 2 {
            return (text, all - slices.len());
        }
        slices.drain(..slices.len() / 2);
    }
}

fn timeline(slices: &[Slice], names: &BTreeMap<u64, Option<String>>) -> String {
    let mut out = Vec::with_capacity(slices.len() * 150);
    out.extend_from_slice(b"{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n");
    meta(&mut out, "process_name", DRAWING, "CPUs");
    let cpus: BTreeSet<u32> = slices.iter().map(|s| s.cpu).collect();
    for cpu in cpus {
        out.extend_from_slice(b",\n");
        meta(&mut out, "thread_name", row(cpu), &format!("CPU {cpu}"));
    }
    for s in slices {
        if let Some(Some(container)) = names.get(&s.mntns) {
            out.extend_from_slice(b",\n");
            slice(&mut out, s, container);
        }
    }
    out.extend_from_slice(b"\n]}\n");
    // Nothing but UTF-8 was written.
    String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

fn meta(out: &mut Vec<u8>, what: &str, tid: u32, name: &str) {
    let text = format!(
        "{{\"ph\":\"M\",\"pid\":{DRAWING},\"tid\":{tid},\"name\":\"{what}\",\"args\":{{\"name\":\"{name}\"}}}}"
    );
    out.extend_from_slice(text.as_bytes());
}

fn slice(out: &mut Vec<u8>, s: &Slice, container: &str) {
    let mut number = |before: &str, n: u64| {
        out.extend_from_slice(before.as_bytes());
        text::decimal(n, out);
    };
    number("{\"ph\":\"X\",\"pid\":", DRAWING.into());
    number(",\"tid\":", row(s.cpu).into());
    let (start, end) = (s.start / EIGHTH_NS, s.end / EIGHTH_NS);
    eighths(out, ",\"ts\":", start);
    eighths(out, ",\"dur\":", end.saturating_sub(start));
    out.extend_from_slice(b",\"name\":");
    quote(out, text::until_nul(&s.comm));
    out.extend_from_slice(b",\"args\":{\"container\":");
    quote(out, container.as_bytes());
    let mut number = |before: &str, n: u64| {
        out.extend_from_slice(before.as_bytes());
        text::decimal(n, out);
    };
    number(",\"pid\":", s.pid.into());
    number(",\"tid\":", s.tid.into());
    if let Some(left) = LEFT.get(s.left as usize) {
        out.extend_from_slice(b",\"left\":");
        quote(out, left.as_bytes());
    }
    out.extend_from_slice(b"}}");
}

/// Nanoseconds in an eighth of a microsecond, the finest time that is drawn. Viewers reckon with binary fractions of microseconds,
/// the unit of the format, and there only eighths and the like are exact: with thousandths a slice would end a hair's breadth after
/// the next one's start, and a viewer that puts what overlaps below each other draws stairs.
const EIGHTH_NS: u64 = 125;

fn eighths(out: &mut Vec<u8>, before: &str, n: u64) {
    const FRACTIONS: [&str; 8] = ["", ".125", ".25", ".375", ".5", ".625", ".75", ".875"];
    out.extend_from_slice(before.as_bytes());
    text::decimal(n / 8, out);
    out.extend_from_slice(FRACTIONS[(n % 8) as usize].as_bytes());
}

/// A text of JSON. What is not UTF-8 is replaced, for JSON has no other way.
fn quote(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for c in String::from_utf8_lossy(bytes).chars() {
        match c {
            '"' | '\\' => out.extend([b'\\', c as u8]),
            c if c < ' ' => out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes()),
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

gadget_sdk::export!(Recorder);

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(start: u64, end: u64, mntns: u64, comm: &[u8]) -> Slice {
        let mut name = [0; 16];
        name[..comm.len()].copy_from_slice(comm);
        Slice { start, end, mntns, cpu: 1, left: 2, pid: 10, tid: 11, comm: name }
    }

    #[test]
    fn a_record_is_read_where_its_parts_lie_and_a_short_one_is_none() {
        let words = [1u64.to_le_bytes(), 2u64.to_le_bytes(), 3u64.to_le_bytes()].concat();
        let numbers: Vec<u8> = [4u32, 5, 6, 7].iter().flat_map(|n| n.to_le_bytes()).collect();
        let record = [&words[..], &numbers, b"a name\0\0\0\0\0\0\0\0\0\0", b"padding"].concat();
        let s = Slice::parse(&record).unwrap();
        assert_eq!((s.start, s.end, s.mntns, s.cpu, s.left, s.pid, s.tid), (1, 2, 3, 4, 5, 6, 7));
        assert_eq!(text::until_nul(&s.comm), b"a name");
        assert_eq!(Slice::parse(&record[..55]), None);
        assert_eq!(Slice::parse(&[]), None);
    }

    #[test]
    fn the_newest_are_kept_in_the_order_of_time() {
        let mut newest = Newest::default();
        let total = 3 * MOST as u64 + 7;
        // Backwards, as if every CPU had been slower than the one before.
        for i in (0..total).rev() {
            newest.push(slice(i, i + 1, 0, b""));
        }
        let (kept, older) = newest.finish();
        assert_eq!(older, 2 * MOST + 7);
        assert_eq!((kept.len(), kept[0].start, kept[MOST - 1].start), (MOST, total - MOST as u64, total - 1));
    }

    #[test]
    fn who_still_runs_is_drawn_to_the_end_and_who_was_not_asked_for_is_not() {
        let slices = vec![slice(1_000, 2_500, 7, b"first"), slice(2_000, 9_007, 8, b"other")];
        let slices = with_running(slices, vec![slice(3_000, 0, 7, b"a \"hog\"\x1b\xff")]);
        let (names, doubtful) = names(&slices, |mntns, _at| match mntns {
            7 => Owner::Nobody,
            _ => Owner::LeftOut,
        });
        assert_eq!(doubtful, 0);
        let want = concat!(
            "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n",
            "{\"ph\":\"M\",\"pid\":1,\"tid\":1,\"name\":\"process_name\",\"args\":{\"name\":\"CPUs\"}},\n",
            "{\"ph\":\"M\",\"pid\":1,\"tid\":3,\"name\":\"thread_name\",\"args\":{\"name\":\"CPU 1\"}},\n",
            "{\"ph\":\"X\",\"pid\":1,\"tid\":3,\"ts\":1,\"dur\":1.5,\"name\":\"first\",\"args\":{\"container\":\"\",\"pid\":10,\"tid\":11,\"left\":\"waits\"}},\n",
            "{\"ph\":\"X\",\"pid\":1,\"tid\":3,\"ts\":3,\"dur\":6,\"name\":\"a \\\"hog\\\"\\u001b\u{fffd}\",\"args\":{\"container\":\"\",\"pid\":10,\"tid\":11}}\n",
            "]}\n"
        );
        assert_eq!(timeline(&slices, &names), want);
    }

    #[test]
    fn a_slice_ends_where_the_next_begins_in_binary_fractions_too() {
        // Odd lengths, a machine that is up for years.
        let times: Vec<u64> = (0..5_000).map(|i| 123_456_789_012_345_678 + i * i * 7_919).collect();
        let slices: Vec<Slice> = times.windows(2).map(|t| slice(t[0], t[1], 5, b"")).collect();
        let drawn = timeline(&slices, &BTreeMap::from([(5, Some(String::new()))]));
        let number = |line: &str, key: &str| -> f64 {
            line.split_once(key).and_then(|(_, rest)| rest.split(',').next()).unwrap().parse().unwrap()
        };
        let drawn: Vec<(f64, f64)> = drawn
            .lines()
            .filter(|line| line.contains("\"ph\":\"X\""))
            .map(|line| (number(line, "\"ts\":"), number(line, "\"dur\":")))
            .collect();
        assert_eq!(drawn.len(), slices.len());
        for (pair, time) in drawn.windows(2).zip(&times) {
            assert_eq!(pair[0].0 + pair[0].1, pair[1].0, "at {time}");
        }
    }

    #[test]
    fn of_slices_with_long_names_the_newest_are_drawn_that_a_document_has_room_for() {
        let mut slices: Vec<Slice> = (0..MOST as u64).map(|i| slice(i, i + 1, 5, b"")).collect();
        let (text, older) = fitting(&mut slices, &BTreeMap::from([(5, Some("x".repeat(200)))]));
        assert!(text.len() <= MOST_BYTES, "{}", text.len());
        assert_eq!((older, slices[0].start), (MOST / 2, MOST as u64 / 2));
        assert_eq!(text.matches("\"ph\":\"X\"").count(), MOST / 2);
    }

    #[test]
    fn slices_of_nobody_knows_whom_are_counted_each() {
        let slices = [slice(1, 2, 5, b""), slice(2, 3, 5, b""), slice(3, 4, 6, b"")];
        let (names, doubtful) = names(&slices, |mntns, _at| if mntns == 5 { Owner::Doubtful } else { Owner::Nobody });
        assert_eq!((doubtful, names[&5].as_deref(), names[&6].as_deref()), (2, None, Some("")));
    }
}

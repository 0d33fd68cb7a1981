//! Recordings: the raw records of a run with all that is needed to replay them elsewhere, without root and without the image.
//!
//! A recording is a magic line and a sequence of chunks `kind: u8, length: u32 LE, payload`. The first chunk is the header
//! (JSON), the second the guest's Wasm (empty where the gadget has none); then entities and batches in the order they came.
//! An entity is written when a row first needs it. Neither side keeps them for ever: the writer forgets all from time to time,
//! says so, and writes those again that come back.
//! A recording that ends without its end chunk was cut short: what is whole is replayed, then that is an error.
//! The tap sits after the container enricher and before the guest, so that a replay runs the rest of the pipeline for real.
//! Layout in detail: `docs/reference/record-format.md`.

use ig_event::{Batch, DataSource, Derive, Entity, EntityValue, FieldId, Loss, Reason, Storage};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::{
    io::{self, Read, Write},
    sync::Arc,
};

const MAGIC: &[u8; 8] = b"IGREC 2\n";
/// As it began before entities were forgotten; otherwise it is the same.
const MAGIC_1: &[u8; 8] = b"IGREC 1\n";
/// No chunk may be larger: a batch is bounded far below this, and so is memory when a file lies about a length.
const MAX_CHUNK: u32 = 256 << 20;
const NO_ENTITY: u32 = u32::MAX;
/// Entities are forgotten before the next batch when there are more, or when their texts are longer. A busy host has
/// hundreds of containers, and thousands of different stacks.
const MAX_ENTITIES: usize = 8192;
const MAX_ENTITY_BYTES: usize = 16 << 20;

/// What a recording says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Reference the user ran.
    pub image: String,
    /// Manifest digest of the image.
    pub digest: String,
    /// gadget.yaml.
    pub metadata: String,
    /// `uname -r` of the recorded host.
    pub kernel: String,
    /// Parameters in force, `key=value`.
    pub params: Vec<(String, String)>,
    /// Data sources as the loader and the container enricher made them, before the guest added to them.
    pub sources: Vec<DataSource>,
}

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("recording: {0}")]
    Io(#[from] io::Error),
    #[error("this file is no ig recording")]
    NotARecording,
    #[error("the recording is damaged at byte {at}: {what}")]
    Damaged { at: u64, what: &'static str },
    #[error("a batch of {bytes} bytes is too large to be recorded")]
    TooLarge { bytes: usize },
    #[error("the recording ends at byte {at} without its end mark: it was cut short")]
    CutShort { at: u64 },
}

impl RecordError {
    pub fn hint(&self) -> Option<String> {
        match self {
            RecordError::NotARecording => Some("recordings are made with `ig run GADGET --record FILE`".into()),
            RecordError::CutShort { .. } => {
                Some("every whole batch was replayed; stop a recording with SIGINT to keep it all".into())
            }
            _ => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Chunk {
    Header = 1,
    Wasm = 2,
    Entity = 3,
    Batch = 4,
    End = 5,
    /// Entities written so far are not referred to any more; the next has number 0.
    Forget = 6,
}

/// Writes a recording.
pub struct Recorder<W: Write> {
    out: W,
    /// Numbers of the entities already written, by address; the `Arc` keeps the address from being used again.
    entities: FxHashMap<usize, (Arc<Entity>, u32)>,
    /// What these take in the file.
    entity_bytes: usize,
    buf: Vec<u8>,
}

impl<W: Write> Recorder<W> {
    pub fn new(mut out: W, header: &Header, wasm: Option<&[u8]>) -> Result<Self, RecordError> {
        out.write_all(MAGIC)?;
        let mut r = Recorder { out, entities: FxHashMap::default(), entity_bytes: 0, buf: Vec::new() };
        r.chunk(Chunk::Header, &serde_json::to_vec(header).map_err(io::Error::other)?)?;
        r.chunk(Chunk::Wasm, wasm.unwrap_or_default())?;
        Ok(r)
    }

    fn chunk(&mut self, kind: Chunk, payload: &[u8]) -> Result<(), RecordError> {
        // What no reader would accept is not written.
        if payload.len() > MAX_CHUNK as usize {
            return Err(RecordError::TooLarge { bytes: payload.len() });
        }
        self.out.write_all(&[kind as u8])?;
        self.out.write_all(&(payload.len() as u32).to_le_bytes())?;
        self.out.write_all(payload)?;
        Ok(())
    }

    /// Writes the rows that are still live, with their entities and the batch's loss so far.
    pub fn batch(&mut self, source: u32, batch: &Batch) -> Result<(), RecordError> {
        if self.entities.len() > MAX_ENTITIES || self.entity_bytes > MAX_ENTITY_BYTES {
            self.chunk(Chunk::Forget, &[])?;
            self.entities.clear();
            self.entity_bytes = 0;
        }
        let slots = batch.source().entity_slots();
        let mut buf = std::mem::take(&mut self.buf);
        buf.clear();
        buf.extend_from_slice(&source.to_le_bytes());
        buf.extend_from_slice(&batch.boot_to_wall.to_le_bytes());
        let losses: Vec<_> = batch.loss.iter().collect();
        buf.extend_from_slice(&(losses.len() as u32).to_le_bytes());
        for (reason, n) in losses {
            buf.extend_from_slice(&(reason as u32).to_le_bytes());
            buf.extend_from_slice(&n.to_le_bytes());
        }
        buf.extend_from_slice(&(batch.live() as u32).to_le_bytes());
        for row in batch.iter() {
            for slot in 0..slots {
                let id = match batch.entity(slot, row) {
                    Some(e) => self.entity(e)?,
                    None => NO_ENTITY,
                };
                buf.extend_from_slice(&id.to_le_bytes());
            }
            let rec = batch.record(row);
            buf.extend_from_slice(&(rec.len() as u32).to_le_bytes());
            buf.extend_from_slice(rec);
        }
        let r = self.chunk(Chunk::Batch, &buf);
        self.buf = buf;
        r
    }

    fn entity(&mut self, e: &Arc<Entity>) -> Result<u32, RecordError> {
        let key = Arc::as_ptr(e) as usize;
        if let Some((_, id)) = self.entities.get(&key) {
            return Ok(*id);
        }
        let id = self.entities.len() as u32;
        let values: Vec<RecordedValue> = e.values.iter().map(RecordedValue::from).collect();
        let text = serde_json::to_vec(&values).map_err(io::Error::other)?;
        self.chunk(Chunk::Entity, &text)?;
        self.entity_bytes += text.len();
        self.entities.insert(key, (e.clone(), id));
        Ok(id)
    }

    /// Marks the recording as whole.
    pub fn finish(mut self) -> Result<W, RecordError> {
        self.chunk(Chunk::End, &[])?;
        self.out.flush()?;
        Ok(self.out)
    }
}

#[derive(Serialize, Deserialize)]
enum RecordedValue {
    Text(String),
    Uint(u64),
    Bool(bool),
}

impl From<&EntityValue> for RecordedValue {
    fn from(v: &EntityValue) -> Self {
        match v {
            EntityValue::Text(t) => RecordedValue::Text(t.to_string()),
            EntityValue::Uint(n) => RecordedValue::Uint(*n),
            EntityValue::Bool(b) => RecordedValue::Bool(*b),
        }
    }
}

impl From<RecordedValue> for EntityValue {
    fn from(v: RecordedValue) -> Self {
        match v {
            RecordedValue::Text(t) => EntityValue::Text(t.into()),
            RecordedValue::Uint(n) => EntityValue::Uint(n),
            RecordedValue::Bool(b) => EntityValue::Bool(b),
        }
    }
}

/// Reads a recording. The file is foreign: nothing in it is trusted.
pub struct Replayer<R: Read> {
    input: R,
    at: u64,
    pub header: Header,
    pub wasm: Option<Vec<u8>>,
    entities: Vec<Arc<Entity>>,
    buf: Vec<u8>,
}

impl<R: Read> Replayer<R> {
    pub fn open(mut input: R) -> Result<Self, RecordError> {
        let mut magic = [0; MAGIC.len()];
        match input.read_exact(&mut magic) {
            Ok(()) if [MAGIC, MAGIC_1].contains(&&magic) => {}
            Ok(()) => return Err(RecordError::NotARecording),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(RecordError::NotARecording),
            Err(e) => return Err(e.into()),
        }
        let header = Header {
            image: String::new(),
            digest: String::new(),
            metadata: String::new(),
            kernel: String::new(),
            params: vec![],
            sources: vec![],
        };
        let mut r =
            Replayer { input, at: MAGIC.len() as u64, header, wasm: None, entities: Vec::new(), buf: Vec::new() };
        if r.next_chunk()? != Chunk::Header {
            return Err(r.damaged("the first chunk is not the header"));
        }
        r.header = match serde_json::from_slice(&r.buf) {
            Ok(h) => h,
            Err(_) => return Err(r.damaged("the header is not readable")),
        };
        if !r.header.sources.iter().all(is_sound) {
            return Err(r.damaged("a data source of the header is not consistent"));
        }
        if r.next_chunk()? != Chunk::Wasm {
            return Err(r.damaged("the second chunk is not the guest"));
        }
        r.wasm = (!r.buf.is_empty()).then(|| r.buf.clone());
        Ok(r)
    }

    fn damaged(&self, what: &'static str) -> RecordError {
        RecordError::Damaged { at: self.at, what }
    }

    fn next_chunk(&mut self) -> Result<Chunk, RecordError> {
        let mut head = [0; 5];
        self.fill(&mut head)?;
        let kind = match head[0] {
            1 => Chunk::Header,
            2 => Chunk::Wasm,
            3 => Chunk::Entity,
            4 => Chunk::Batch,
            5 => Chunk::End,
            6 => Chunk::Forget,
            _ => return Err(self.damaged("unknown chunk")),
        };
        let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
        if len > MAX_CHUNK {
            return Err(self.damaged("a chunk claims to be larger than any can be"));
        }
        let mut buf = std::mem::take(&mut self.buf);
        buf.clear();
        // `take` + `read_to_end` grows with what is there, not with what the length claims.
        let got = (&mut self.input).take(len.into()).read_to_end(&mut buf)?;
        self.at += got as u64;
        self.buf = buf;
        if got < len as usize {
            return Err(RecordError::CutShort { at: self.at });
        }
        Ok(kind)
    }

    fn fill(&mut self, to: &mut [u8]) -> Result<(), RecordError> {
        match self.input.read_exact(to) {
            Ok(()) => {
                self.at += to.len() as u64;
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(RecordError::CutShort { at: self.at }),
            Err(e) => Err(e.into()),
        }
    }

    /// Fills the batch of the next recorded source and returns that source's number; `None` at the end.
    /// `batches` holds one empty batch per source, made from the schema after the guest has added its fields.
    pub fn next(&mut self, batches: &mut [Batch]) -> Result<Option<usize>, RecordError> {
        loop {
            match self.next_chunk()? {
                Chunk::End => return Ok(None),
                Chunk::Entity => {
                    let values: Vec<RecordedValue> = match serde_json::from_slice(&self.buf) {
                        Ok(v) => v,
                        Err(_) => return Err(self.damaged("an entity is not readable")),
                    };
                    self.entities.push(Arc::new(Entity { values: values.into_iter().map(Into::into).collect() }));
                }
                Chunk::Batch => {
                    let buf = std::mem::take(&mut self.buf);
                    let source = parse_batch(&buf, batches, &self.entities);
                    self.buf = buf;
                    return source.map(Some).ok_or_else(|| self.damaged("a batch is not of the declared shape"));
                }
                Chunk::Forget => self.entities.clear(),
                Chunk::Header | Chunk::Wasm => return Err(self.damaged("a chunk out of place")),
            }
        }
    }
}

/// A cursor over a chunk; every read is checked.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes)
    }
}

fn parse_batch(buf: &[u8], batches: &mut [Batch], entities: &[Arc<Entity>]) -> Option<usize> {
    let mut c = Cursor(buf);
    let source = c.u32()? as usize;
    let batch = batches.get_mut(source)?;
    batch.boot_to_wall = c.u64()? as i64;
    let mut loss = Loss::default();
    for _ in 0..c.u32()? {
        let reason = *Reason::ALL.get(c.u32()? as usize)?;
        loss.add(reason, c.u64()?);
    }
    batch.loss.merge(&loss);
    let slots = batch.source().entity_slots();
    for _ in 0..c.u32()? {
        let mut row_entities = [NO_ENTITY; MAX_SLOTS];
        for slot in 0..slots as usize {
            *row_entities.get_mut(slot)? = c.u32()?;
        }
        let len = c.u32()? as usize;
        let row = batch.push(c.take(len)?);
        for (slot, id) in row_entities.iter().take(slots as usize).enumerate() {
            if *id != NO_ENTITY {
                batch.set_entity(slot as u32, row, Some(entities.get(*id as usize)?.clone()));
            }
        }
    }
    c.0.is_empty().then_some(source)
}

/// More than any source has; bounds what a foreign header may claim.
const MAX_SLOTS: usize = 8;

/// True where every reference inside the schema leads somewhere and no chain of derived fields runs in a circle.
fn is_sound(s: &DataSource) -> bool {
    let n = s.fields().len();
    let exists = |id: FieldId| (id.0 as usize) < n;
    s.entity_slots() as usize <= MAX_SLOTS
        && s.fields().iter().enumerate().all(|(i, f)| {
            f.id.0 as usize == i
                && f.def.parent.is_none_or(|p| (p.0 as usize) < i)
                && match &f.def.storage {
                    Storage::Column(c) => (*c as usize) < s.column_kinds().len(),
                    Storage::Entity { slot, .. } => *slot < s.entity_slots(),
                    Storage::Record { offset, size } => offset.checked_add(*size).is_some(),
                    Storage::BootTime { offset } => offset.checked_add(8).is_some(),
                    Storage::Constant(_) | Storage::Group => true,
                    Storage::Derived { from, how } => {
                        let others = match how {
                            Derive::Ip { version } => vec![*version],
                            Derive::Endpoint { port, version } => vec![*port, *version],
                            _ => vec![],
                        };
                        others.into_iter().all(|o| exists(o) && ends(s, o)) && exists(*from) && ends(s, *from)
                    }
                }
        })
}

fn ends(s: &DataSource, mut id: FieldId) -> bool {
    for _ in 0..=s.fields().len() {
        match s.fields().get(id.0 as usize).map(|f| &f.def.storage) {
            Some(Storage::Derived { from, .. }) => id = *from,
            Some(_) => return true,
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use ig_event::{FieldDef, Kind, SourceKind};
    use proptest::prelude::*;

    fn source() -> DataSource {
        let mut s = DataSource::new("t", SourceKind::Events, 8);
        s.add(FieldDef::new("a", Kind::U64, Storage::Record { offset: 0, size: 8 })).unwrap();
        let slot = s.new_entity_slot();
        s.add(FieldDef::new("name", Kind::Text, Storage::Entity { slot, member: 0 })).unwrap();
        s
    }

    fn header() -> Header {
        Header {
            image: "t".into(),
            digest: "sha256:0".into(),
            metadata: "name: t".into(),
            kernel: "6".into(),
            params: vec![("a".into(), "b".into())],
            sources: vec![source()],
        }
    }

    fn recording(wasm: Option<&[u8]>) -> Vec<u8> {
        let mut r = Recorder::new(Vec::new(), &header(), wasm).unwrap();
        let mut b = Batch::new(Arc::new(source()));
        b.boot_to_wall = -7;
        for i in 0..3u64 {
            b.push(&i.to_le_bytes());
        }
        let e = Arc::new(Entity { values: vec![EntityValue::Text("web".into())] });
        b.set_entity(0, 2, Some(e.clone()));
        b.set_entity(0, 0, Some(e));
        b.discard(1, Reason::OtherContainer);
        b.loss.add(Reason::RingFull, 5);
        r.batch(0, &b).unwrap();
        r.finish().unwrap()
    }

    #[test]
    fn what_is_recorded_comes_back() {
        let file = recording(Some(b"wasm"));
        let mut r = Replayer::open(&file[..]).unwrap();
        assert_eq!(r.header, header());
        assert_eq!(r.wasm.as_deref(), Some(&b"wasm"[..]));
        let mut batches = vec![Batch::new(Arc::new(r.header.sources[0].clone()))];
        assert_eq!(r.next(&mut batches).unwrap(), Some(0));
        let b = &batches[0];
        assert_eq!((b.live(), b.boot_to_wall), (2, -7));
        assert_eq!((b.loss.get(Reason::RingFull), b.loss.get(Reason::OtherContainer)), (5, 1));
        assert_eq!(b.record(1), 2u64.to_le_bytes());
        assert_eq!(b.entity(0, 1).unwrap().values[0], EntityValue::Text("web".into()));
        assert_eq!(r.next(&mut batches).unwrap(), None);
    }

    /// A batch of rows with an entity each.
    fn of_entities(entities: &[Arc<Entity>]) -> Batch {
        let mut b = Batch::new(Arc::new(source()));
        for (i, e) in entities.iter().enumerate() {
            b.push(&(i as u64).to_le_bytes());
            b.set_entity(0, i, Some(e.clone()));
        }
        b
    }

    fn named(name: impl Into<String>) -> Arc<Entity> {
        Arc::new(Entity { values: vec![EntityValue::Text(name.into().into())] })
    }

    #[test]
    fn entities_without_end_take_no_memory_without_end_and_all_come_back() {
        const COUNT: usize = 100_000;
        const IN_BATCH: usize = 50;
        // one that is there from beginning to end, among many that are there once
        let stays = named("stays");
        let mut r = Recorder::new(Vec::new(), &header(), None).unwrap();
        let mut forgotten = 0;
        for n in 0..COUNT / IN_BATCH {
            let mut rows = vec![stays.clone()];
            rows.extend((0..IN_BATCH).map(|i| named(format!("{}", n * IN_BATCH + i))));
            let before = r.entities.len();
            r.batch(0, &of_entities(&rows)).unwrap();
            forgotten += usize::from(r.entities.len() < before);
            assert!(r.entities.len() <= MAX_ENTITIES + 1 + IN_BATCH);
            assert!(r.entities.capacity() < 4 * MAX_ENTITIES);
        }
        assert!(forgotten >= COUNT / (MAX_ENTITIES + IN_BATCH + 1), "{forgotten}");
        let file = r.finish().unwrap();
        let mut r = Replayer::open(&file[..]).unwrap();
        let mut batches = vec![Batch::new(Arc::new(r.header.sources[0].clone()))];
        let mut next = 0;
        while r.next(&mut batches).unwrap().is_some() {
            assert!(r.entities.len() <= MAX_ENTITIES + 1 + IN_BATCH);
            let b = &mut batches[0];
            let name = |row: usize| match &b.entity(0, row).unwrap().values[0] {
                EntityValue::Text(t) => t.to_string(),
                other => panic!("{other:?}"),
            };
            assert_eq!(name(0), "stays");
            for row in 1..b.len() {
                assert_eq!(name(row), next.to_string());
                next += 1;
            }
            b.clear();
        }
        assert_eq!(next, COUNT);
    }

    #[test]
    fn few_entities_with_long_texts_are_bounded_too() {
        let mut r = Recorder::new(std::io::sink(), &header(), None).unwrap();
        let long = "x".repeat(64 << 10);
        for _ in 0..1000 {
            r.batch(0, &of_entities(&[named(long.as_str())])).unwrap();
            assert!(r.entity_bytes <= MAX_ENTITY_BYTES + (65 << 10));
            assert!(r.entities.len() <= 300);
        }
    }

    #[test]
    fn recordings_of_the_first_version_are_read() {
        let mut file = recording(None);
        file[..MAGIC_1.len()].copy_from_slice(MAGIC_1);
        assert_eq!(Replayer::open(&file[..]).unwrap().header, header());
        file[6] = b'3';
        assert!(matches!(Replayer::open(&file[..]), Err(RecordError::NotARecording)));
    }

    #[test]
    fn a_row_cannot_refer_to_what_was_forgotten() {
        let mut r = Recorder::new(Vec::new(), &header(), None).unwrap();
        let e = named("web");
        r.batch(0, &of_entities(std::slice::from_ref(&e))).unwrap();
        r.chunk(Chunk::Forget, &[]).unwrap();
        r.batch(0, &of_entities(&[e])).unwrap();
        let file = r.finish().unwrap();
        let mut r = Replayer::open(&file[..]).unwrap();
        let mut batches = vec![Batch::new(Arc::new(r.header.sources[0].clone()))];
        assert_eq!(r.next(&mut batches).unwrap(), Some(0));
        assert!(matches!(r.next(&mut batches), Err(RecordError::Damaged { .. })));
    }

    #[test]
    fn a_cut_recording_says_so_wherever_it_was_cut() {
        let file = recording(None);
        for n in MAGIC.len()..file.len() {
            let err = match Replayer::open(&file[..n]) {
                Err(e) => e,
                Ok(mut r) => {
                    let mut batches = vec![Batch::new(Arc::new(source()))];
                    loop {
                        match r.next(&mut batches) {
                            Ok(Some(_)) => {}
                            Ok(None) => panic!("no end mark at {n}, yet it ended well"),
                            Err(e) => break e,
                        }
                    }
                }
            };
            assert!(matches!(err, RecordError::CutShort { .. }), "{n}: {err}");
        }
    }

    proptest! {
        #[test]
        fn a_damaged_recording_never_panics(at in 0usize..400, byte: u8) {
            let mut file = recording(Some(b"w"));
            let at = at % file.len();
            file[at] = byte;
            if let Ok(mut r) = Replayer::open(&file[..]) {
                let mut batches: Vec<_> = r.header.sources.iter().map(|s| Batch::new(Arc::new(s.clone()))).collect();
                while let Ok(Some(i)) = r.next(&mut batches) {
                    for row in batches[i].iter() {
                        for f in batches[i].source().fields() {
                            batches[i].value(row, f.id);
                        }
                    }
                }
            }
        }
    }
}

//! What of the host a guest may reach through interfaces beyond its own rows: documents it makes, its maps and perf buffers
//! (`services/maps.rs`), the containers, the ledger. Plain data and its limits; knows nothing of Wasm.
//!
//! One for each run of a guest, shared by the instances that follow one another; used on the thread of the run.

mod maps;

use crate::containers::{Container, Containers, Resolution, Selector, Verdict};
use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

pub use maps::Lent;
use maps::Maps;
pub(super) use maps::WhenFull;
#[expect(unreachable_pub, reason = "generated code names them in public aliases")]
pub use maps::{OpenMap, PerfBuffers};

/// Bytes of one document, and of all that one call publishes.
const LARGEST_DOCUMENT: usize = 16 << 20;
pub(super) const LARGEST_CALL: usize = 64 << 20;
const MOST_DOCUMENTS: usize = 1 << 16;
const MOST_ANNOTATIONS: usize = 64;
/// Longest name, media type, or annotation.
const LONGEST_TEXT: usize = 4096;

/// Something a gadget wrote, as opposed to rows: a security profile, a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// For people: the name of the container it is about, for instance.
    pub name: String,
    pub media_type: String,
    pub annotations: Vec<(String, String)>,
    pub text: String,
}

/// Why the host does not do what a guest asks; the guest is told and may go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServiceError {
    #[error("more than {limit} {what}")]
    TooMuch { what: &'static str, limit: usize },
    #[error("document {name:?} is not UTF-8")]
    NotText { name: String },
    #[error("no map {name:?}; there is {known}")]
    NoMap { name: String, known: String },
    #[error("there are no maps before the gadget runs, nor in a replay")]
    NoMaps,
    #[error("a {what} of {got} bytes, that of map {map} has {want}")]
    Length { map: String, what: &'static str, got: usize, want: usize },
    #[error("map {name} is filled by the host")]
    HostsMap { name: String },
    #[error("map {name} is {kind}, wanted is {wanted}")]
    MapKind { name: String, kind: &'static str, wanted: &'static str },
    #[error("the buffers of map {name} are read already")]
    ReadAlready { name: String },
    #[error("a perf buffer has a power of two of bytes, at least {least}, not {got}")]
    BufferSize { least: usize, got: u32 },
    #[error("{doing} map {name}: {source}")]
    Map { doing: &'static str, name: String, source: io::Error },
}

/// A document that a guest is writing.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "generated code names it in a public alias")]
pub struct Draft {
    name: String,
    media_type: String,
    annotations: Vec<(String, String)>,
    content: Vec<u8>,
}

impl Draft {
    /// Names that are too long are cut.
    pub(super) fn new(name: &str, media_type: &str) -> Draft {
        let cut = |text: &str| text[..text.floor_char_boundary(LONGEST_TEXT)].to_owned();
        Draft { name: cut(name), media_type: cut(media_type), annotations: Vec::new(), content: Vec::new() }
    }

    pub(super) fn annotate(&mut self, key: String, value: String) -> Result<(), ServiceError> {
        if self.annotations.len() == MOST_ANNOTATIONS {
            return Err(ServiceError::TooMuch { what: "annotations of one document", limit: MOST_ANNOTATIONS });
        }
        if key.len().max(value.len()) > LONGEST_TEXT {
            return Err(ServiceError::TooMuch { what: "bytes in an annotation", limit: LONGEST_TEXT });
        }
        self.annotations.retain(|(k, _)| *k != key);
        self.annotations.push((key, value));
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.content.len()
    }

    pub(super) fn write(&mut self, chunk: &[u8]) -> Result<(), ServiceError> {
        if self.content.len() + chunk.len() > LARGEST_DOCUMENT {
            return Err(ServiceError::TooMuch { what: "bytes in one document", limit: LARGEST_DOCUMENT });
        }
        self.content.extend_from_slice(chunk);
        Ok(())
    }

    fn finish(&mut self) -> Result<Document, ServiceError> {
        let text = String::from_utf8(std::mem::take(&mut self.content));
        let text = text.map_err(|_bytes| ServiceError::NotText { name: self.name.clone() })?;
        Ok(Document {
            name: self.name.clone(),
            media_type: self.media_type.clone(),
            annotations: self.annotations.clone(),
            text,
        })
    }
}

/// What one call has published.
#[derive(Debug, Default)]
pub(super) struct Published {
    pub(super) documents: Vec<Document>,
    bytes: usize,
}

impl Published {
    pub(super) fn publish(&mut self, draft: &mut Draft) -> Result<(), ServiceError> {
        if self.documents.len() == MOST_DOCUMENTS {
            return Err(ServiceError::TooMuch { what: "documents in one call", limit: MOST_DOCUMENTS });
        }
        if self.bytes + draft.content.len() > LARGEST_CALL {
            return Err(ServiceError::TooMuch { what: "bytes of documents in one call", limit: LARGEST_CALL });
        }
        self.bytes += draft.content.len();
        self.documents.push(draft.finish()?);
        Ok(())
    }
}

/// What a run lends its guest. Empty in a replay.
#[derive(Default)]
pub struct Services {
    /// With whom the user asked for, and whether the host's programs are asked for too.
    containers: Option<(Containers, Arc<Selector>, bool)>,
    /// From the moment the object is loaded.
    maps: OnceLock<Maps>,
    lost: AtomicU64,
}

impl Services {
    /// For a live run, whose containers may not be known.
    pub fn live(containers: Option<Containers>, selector: Arc<Selector>, host: bool) -> Services {
        Services { containers: containers.map(|c| (c, selector, host)), ..Services::default() }
    }

    /// Lends the maps of a loaded object; the first call counts.
    pub fn lend_maps(&self, maps: impl IntoIterator<Item = Lent>) -> io::Result<()> {
        let maps = Maps::new(maps)?;
        self.maps.get_or_init(|| maps);
        Ok(())
    }

    pub(super) fn map(&self, name: &str) -> Result<OpenMap, ServiceError> {
        self.maps.get().ok_or(ServiceError::NoMaps)?.open(name)
    }

    /// Something that should have been shown is not; see `Ledger::gadget_lost`.
    pub(super) fn lose(&self, count: u64) {
        // Never wraps around to something plausible; nobody else writes it.
        self.lost.store(self.lost().saturating_add(count), Ordering::Relaxed);
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Whose namespace it was at that time.
    pub(super) fn owner(&self, mntns: u64, boot_ns: u64) -> Owner {
        let Some((containers, selector, host)) = &self.containers else { return Owner::Nobody };
        Owner::of(containers.resolve(mntns, boot_ns), selector, *host)
    }
}

/// Whose something is, for a guest that gathers by itself: what no row comes of, nobody else can leave out.
#[derive(Debug)]
pub(super) enum Owner {
    Container(Arc<Container>),
    Nobody,
    LeftOut,
    Doubtful,
}

impl Owner {
    fn of(resolution: Resolution, selector: &Selector, host: bool) -> Owner {
        match resolution {
            Resolution::Known(c) => match selector.verdict(&c) {
                Verdict::Yes => Owner::Container(c),
                Verdict::No => Owner::LeftOut,
                // A document has no mark that says so, as a row has; under another's name it would be used.
                Verdict::Unknown => Owner::Doubtful,
            },
            Resolution::Host if host => Owner::Nobody,
            Resolution::Host => Owner::LeftOut,
            Resolution::Pending | Resolution::Unknown if selector.selects_all() => Owner::Nobody,
            Resolution::Pending | Resolution::Unknown => Owner::Doubtful,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::testing::named;

    #[test]
    fn a_document_has_its_limits_and_is_empty_after_publishing() {
        let mut published = Published::default();
        let mut d = Draft::new(&"é".repeat(LONGEST_TEXT), "text/plain");
        assert!(d.name.len() <= LONGEST_TEXT);
        d.write(b"one").unwrap();
        published.publish(&mut d).unwrap();
        d.write(&[0xff]).unwrap();
        let e = published.publish(&mut d).unwrap_err();
        assert!(e.to_string().ends_with("is not UTF-8"), "{e}");
        published.publish(&mut d).unwrap();
        let texts: Vec<&str> = published.documents.iter().map(|d| d.text.as_str()).collect();
        assert_eq!(texts, ["one", ""]);
        d.write(&vec![b'x'; LARGEST_DOCUMENT]).unwrap();
        assert_eq!(d.write(b"x").unwrap_err().to_string(), "more than 16777216 bytes in one document");
        for _ in 0..3 {
            published.publish(&mut d).unwrap();
            d.write(&vec![b'x'; LARGEST_DOCUMENT]).unwrap();
        }
        let e = published.publish(&mut d).unwrap_err();
        assert_eq!(e.to_string(), "more than 67108864 bytes of documents in one call");
    }

    #[test]
    fn annotations_are_few_and_the_last_of_a_name_counts() {
        let mut d = Draft::new("n", "t");
        d.annotate("a".into(), "1".into()).unwrap();
        d.annotate("a".into(), "2".into()).unwrap();
        assert_eq!(d.annotations, [("a".to_owned(), "2".to_owned())]);
        assert!(d.annotate("b".into(), "x".repeat(LONGEST_TEXT + 1)).is_err());
        for i in 1..MOST_ANNOTATIONS {
            d.annotate(i.to_string(), String::new()).unwrap();
        }
        assert!(d.annotate("one more".into(), String::new()).is_err());
    }

    #[test]
    fn without_a_running_gadget_there_are_no_maps_and_no_containers() {
        let services = Services::default();
        assert!(matches!(services.map("m"), Err(ServiceError::NoMaps)));
        assert!(matches!(services.owner(1, 0), Owner::Nobody));
        services.lend_maps([]).unwrap();
        assert_eq!(services.map("m").unwrap_err().to_string(), "no map \"m\"; there is ");
    }

    #[test]
    fn what_a_guest_loses_adds_up_and_never_wraps() {
        let services = Services::default();
        services.lose(2);
        services.lose(3);
        assert_eq!(services.lost(), 5);
        services.lose(u64::MAX);
        assert_eq!(services.lost(), u64::MAX);
    }

    #[test]
    fn nobody_elses_gets_a_name_when_certain_containers_are_asked_for() {
        let container = |name: &str| Resolution::Known(named(name));
        let nameless = || Resolution::Known(crate::containers::testing::container(1, 2));
        let only = Selector::parse("web").unwrap();
        let said = |r: Resolution, s: &Selector, host: bool| match Owner::of(r, s, host) {
            Owner::Container(c) => c.name.as_deref().unwrap_or_default().to_owned(),
            other => format!("{other:?}"),
        };
        assert_eq!(said(container("web"), &only, false), "web");
        assert_eq!(said(container("db"), &only, true), "LeftOut");
        assert_eq!(said(nameless(), &only, false), "Doubtful");
        assert_eq!(said(nameless(), &Selector::all(), false), "");
        assert_eq!(said(Resolution::Unknown, &only, false), "Doubtful");
        assert_eq!(said(Resolution::Pending, &only, false), "Doubtful");
        assert_eq!(said(Resolution::Unknown, &Selector::all(), false), "Nobody");
        assert_eq!(said(Resolution::Host, &only, false), "LeftOut");
        assert_eq!(said(Resolution::Host, &only, true), "Nobody");
    }
}

//! The schema as a decoder sees it: looking fields up and adding new ones while it is open.

use crate::{
    Answer, BytesColumn, CodesColumn, NumberColumn, TextColumn,
    answer::{ColumnData, Number},
    rows::{BytesField, NumberField},
};
use std::{fmt, marker::PhantomData};

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Float32,
    Float64,
    /// UTF-8 of any length.
    Text,
    /// Text in an array of fixed size, up to the first NUL.
    CString,
    Bytes,
}

/// What went wrong, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    NotFound,
    Invalid,
    Denied,
    Busy,
    Exhausted,
    Unsupported,
    Kernel,
    Other,
}

/// What went wrong, for people: lower case, naming the thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub code: ErrorCode,
    pub message: String,
}

impl Error {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Error { code, message: message.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// A field to be added. `&str` turns into one with that name and no annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldDef {
    /// Full dotted name; the part before the last dot must exist.
    pub name: String,
    pub tags: Vec<String>,
    /// `columns.width`, `columns.hidden`, `json.skip`, `description`, …
    pub annotations: Vec<(String, String)>,
}

impl FieldDef {
    pub fn new(name: impl Into<String>) -> Self {
        FieldDef { name: name.into(), ..FieldDef::default() }
    }

    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    pub fn annotate(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.annotations.push((key.into(), value.into()));
        self
    }
}

impl From<&str> for FieldDef {
    fn from(name: &str) -> Self {
        FieldDef::new(name)
    }
}

/// A field that the host knows.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct FieldInfo {
    pub id: u32,
    pub name: String,
    pub kind: Kind,
    pub offset: Option<u32>,
    pub size: u32,
}

#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct SourceInfo {
    pub id: u32,
    pub fields: Vec<FieldInfo>,
}

/// What a setup asks of its host; the guest and the test fixture each have one.
#[doc(hidden)]
pub trait Host {
    fn source(&mut self, name: &str) -> Result<SourceInfo, Error>;
    fn add_field(&mut self, source: u32, def: &FieldDef, kind: Kind) -> Result<u32, Error>;
    fn set_dictionary(&mut self, field: u32, values: &[&str]) -> Result<(), Error>;
    fn hide_field(&mut self, field: u32) -> Result<(), Error>;
    fn subscribe(&mut self, source: u32, provides: &[u32]) -> Result<(), Error>;
    /// A guest asks the boundary directly: a reference from here would keep the import in every component, and the
    /// imports are the list of what a gadget may do.
    #[cfg(not(target_arch = "wasm32"))]
    fn param(&mut self, key: &str) -> Option<String>;
}

/// Tells batches of several sources apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceId(pub(crate) u32);

/// The open schema.
pub struct Setup {
    host: Box<dyn Host>,
    sources: Vec<SourceSetup>,
}

impl Setup {
    #[doc(hidden)]
    pub fn new(host: Box<dyn Host>) -> Self {
        Setup { host, sources: Vec::new() }
    }

    /// The value of one of the gadget's parameters.
    pub fn param(&mut self, key: &str) -> Option<String> {
        #[cfg(target_arch = "wasm32")]
        return crate::guest::param(key);
        #[cfg(not(target_arch = "wasm32"))]
        self.host.param(key)
    }

    /// A data source of the gadget; its rows will then come to [`crate::Decoder::decode`].
    pub fn source(&mut self, name: &str) -> Result<&mut SourceSetup, Error> {
        let at = match self.sources.iter().position(|s| s.name == name) {
            Some(at) => at,
            None => {
                let info = self.host.source(name)?;
                self.sources.push(SourceSetup {
                    name: name.to_owned(),
                    info,
                    requests: Vec::new(),
                    columns: Vec::new(),
                });
                self.sources.len() - 1
            }
        };
        Ok(&mut self.sources[at])
    }

    /// Carries out what was asked for and subscribes; gives each source's empty answer.
    #[doc(hidden)]
    pub fn finish(mut self) -> Result<Vec<Answer>, Error> {
        let mut all = Vec::new();
        for source in self.sources {
            let mut provides = Vec::new();
            for request in &source.requests {
                match request {
                    Request::Add { def, kind, dictionary } => {
                        let id = self.host.add_field(source.info.id, def, *kind)?;
                        if !dictionary.is_empty() {
                            let values: Vec<&str> = dictionary.iter().map(String::as_str).collect();
                            self.host.set_dictionary(id, &values)?;
                        }
                        provides.push(id);
                    }
                    Request::Hide(id) => self.host.hide_field(*id)?,
                }
            }
            self.host.subscribe(source.info.id, &provides)?;
            all.push(Answer::new(source.info.id, source.columns));
        }
        Ok(all)
    }
}

enum Request {
    Add { def: FieldDef, kind: Kind, dictionary: Vec<String> },
    Hide(u32),
}

/// One data source while the schema is open.
pub struct SourceSetup {
    name: String,
    info: SourceInfo,
    requests: Vec<Request>,
    columns: Vec<(String, ColumnData)>,
}

impl SourceSetup {
    pub fn id(&self) -> SourceId {
        SourceId(self.info.id)
    }

    /// Whether the source has a field of this full dotted name.
    pub fn has(&self, field: &str) -> bool {
        self.find(field).is_ok()
    }

    /// A number in the record, of exactly the type it has there. A truth value is a `u8`.
    pub fn number<T: Number>(&self, field: &str) -> Result<NumberField<T>, Error> {
        let f = self.find(field)?;
        if f.kind != T::KIND && (f.kind, T::KIND) != (Kind::Bool, Kind::Uint8) {
            let want = T::KIND;
            return Err(Error::new(
                ErrorCode::Invalid,
                format!("field {}.{field} is {:?}, not {want:?}", self.name, f.kind),
            ));
        }
        Ok(NumberField { offset: self.offset(f)?, number: PhantomData })
    }

    /// Text or bytes in the record, of at most the field's size: less where the record ends early.
    pub fn bytes(&self, field: &str) -> Result<BytesField, Error> {
        let f = self.find(field)?;
        if !matches!(f.kind, Kind::Text | Kind::CString | Kind::Bytes) {
            return Err(Error::new(
                ErrorCode::Invalid,
                format!("field {}.{field} is {:?}, neither text nor bytes", self.name, f.kind),
            ));
        }
        Ok(BytesField { offset: self.offset(f)?, size: f.size as usize })
    }

    /// Adds a field of text. The text is passed on as it is; it need not be UTF-8.
    pub fn add_text(&mut self, field: impl Into<FieldDef>) -> Result<TextColumn, Error> {
        self.add(field.into(), Kind::Text, ColumnData::Text(Default::default()), Vec::new()).map(TextColumn)
    }

    /// Adds a field of bytes.
    pub fn add_bytes(&mut self, field: impl Into<FieldDef>) -> Result<BytesColumn, Error> {
        self.add(field.into(), Kind::Bytes, ColumnData::Bytes(Default::default()), Vec::new()).map(BytesColumn)
    }

    /// Adds a field of numbers.
    pub fn add_number<T: Number>(&mut self, field: impl Into<FieldDef>) -> Result<NumberColumn<T>, Error> {
        let at = self.add(field.into(), T::KIND, T::column(), Vec::new())?;
        Ok(NumberColumn { at, number: PhantomData })
    }

    /// Adds a field of text of which there are few different values: rows carry an index into `names`, which is sent once.
    pub fn add_codes(&mut self, field: impl Into<FieldDef>, names: &[&str]) -> Result<CodesColumn, Error> {
        let names = names.iter().map(|n| (*n).to_owned()).collect();
        self.add(field.into(), Kind::Text, ColumnData::Codes(Vec::new()), names).map(CodesColumn)
    }

    /// Takes a field out of every output: for a raw one that a decoded one replaces.
    pub fn hide(&mut self, field: &str) -> Result<(), Error> {
        let id = self.find(field)?.id;
        self.requests.push(Request::Hide(id));
        Ok(())
    }

    fn add(&mut self, def: FieldDef, kind: Kind, data: ColumnData, dictionary: Vec<String>) -> Result<ColumnAt, Error> {
        if self.has(&def.name) || self.columns.iter().any(|(n, _)| *n == def.name) {
            return Err(Error::new(ErrorCode::Invalid, format!("field {}.{} exists already", self.name, def.name)));
        }
        self.columns.push((def.name.clone(), data));
        self.requests.push(Request::Add { def, kind, dictionary });
        Ok(ColumnAt { source: self.info.id, column: self.columns.len() - 1 })
    }

    fn find(&self, field: &str) -> Result<&FieldInfo, Error> {
        self.info
            .fields
            .iter()
            .find(|f| f.name == field)
            .ok_or_else(|| Error::new(ErrorCode::NotFound, format!("data source {} has no field {field}", self.name)))
    }

    fn offset(&self, f: &FieldInfo) -> Result<usize, Error> {
        f.offset.map(|o| o as usize).ok_or_else(|| {
            Error::new(ErrorCode::Unsupported, format!("field {}.{} is no part of the record", self.name, f.name))
        })
    }
}

/// Which column of which source a handle means.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ColumnAt {
    pub(crate) source: u32,
    pub(crate) column: usize,
}

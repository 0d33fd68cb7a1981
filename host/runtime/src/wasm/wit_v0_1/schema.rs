//! `sources`: the schema as a guest sees and changes it. What it may do is decided in `opening`.
//!
//! Runs on the thread of the run, inside a call of the guest.

use super::{State, WitResult, error, sources, types};
use crate::wasm::opening::{OpenError, Opening, Wants, field_id};
use ig_event::{DataSource, Field, Kind, SourceKind, Storage};
use wasmtime::{
    StoreContextMut,
    component::{WasmList, WasmStr},
};

pub(super) fn set_dictionary(
    mut cx: StoreContextMut<'_, State>,
    (field, values): (u32, WasmList<WasmStr>),
) -> wasmtime::Result<(WitResult,)> {
    let Some(mut opening) = cx.data_mut().opening.take() else { return Ok((Err(frozen()),)) };
    let mut broken = None;
    let strings: Vec<_> = values.iter(&mut cx)?.take(1 << 17).collect::<wasmtime::Result<_>>()?;
    let texts = strings.iter().map_while(|s| match s.to_str(&cx) {
        Ok(text) => Some(text.into_owned()),
        Err(e) => {
            broken = Some(e);
            None
        }
    });
    let done = opening.set_dictionary(field, texts);
    cx.data_mut().opening = Some(opening);
    broken.map_or_else(|| Ok((done.map_err(refused),)), Err)
}

impl State {
    fn open<T>(&mut self, f: impl FnOnce(&mut Opening) -> Result<T, OpenError>) -> Result<T, types::Error> {
        self.opening.as_mut().map_or_else(|| Err(frozen()), |o| f(o).map_err(refused))
    }
}

impl sources::Host for State {
    fn get(&mut self, name: String) -> Result<sources::SourceInfo, types::Error> {
        self.open(|o| o.source(&name).map(|(id, s)| source_info(id, s)))
    }

    fn add_field(&mut self, source: u32, def: types::FieldDef) -> Result<u32, types::Error> {
        self.open(|o| o.add_field(source, &def.name, kind_from(def.kind), def.tags, def.annotations))
    }

    fn set_dictionary(&mut self, _field: u32, _values: Vec<String>) -> WitResult {
        // Shadowed, as those of the sink are.
        Err(frozen())
    }

    fn hide_field(&mut self, field: u32) -> WitResult {
        self.open(|o| o.hide_field(field))
    }

    fn subscribe(&mut self, source: u32, want: sources::Want, provides: Vec<u32>, max_rows: u32) -> WitResult {
        let (raw, columns) = match want {
            sources::Want::Raw => (true, Vec::new()),
            sources::Want::Columns(c) => (false, c),
            sources::Want::Both(c) => (true, c),
        };
        self.open(|o| o.subscribe(source, raw, &columns, provides, max_rows))
    }
}

impl Wants {
    /// Records as the guest asked for them: none if it only wants columns.
    pub(in crate::wasm) fn raw_of<'a>(&self, raw: &'a [u8]) -> &'a [u8] {
        if self.raw { raw } else { &[] }
    }
}

fn source_info(id: u32, source: &DataSource) -> sources::SourceInfo {
    let field = |f: &Field| {
        let (offset, size) = match f.def.storage {
            Storage::Record { offset, size } => (Some(offset), size),
            Storage::BootTime { offset } => (Some(offset), 8),
            Storage::Column(_)
            | Storage::Entity { .. }
            | Storage::Constant(_)
            | Storage::Derived { .. }
            | Storage::Group => (None, f.def.kind.size().unwrap_or(0)),
        };
        let def = types::FieldDef {
            name: f.full_name.clone(),
            kind: kind_to(f.def.kind),
            tags: f.def.tags.clone(),
            annotations: f.def.annotations.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        };
        types::FieldInfo { id: field_id(id, f.id), def, offset, size }
    };
    let kind = match source.kind {
        SourceKind::Events => types::SourceKind::Events,
        SourceKind::Snapshot => types::SourceKind::Snapshot,
    };
    sources::SourceInfo { id, kind, stride: source.record_size, fields: source.fields().iter().map(field).collect() }
}

fn frozen() -> types::Error {
    error(types::ErrorCode::Busy, "the schema is frozen since pre-start".into())
}

fn refused(e: OpenError) -> types::Error {
    let code = match &e {
        OpenError::NoSource { .. }
        | OpenError::NoSourceId { .. }
        | OpenError::NoField { .. }
        | OpenError::NoParent { .. } => types::ErrorCode::NotFound,
        OpenError::NotOwn { .. } => types::ErrorCode::Denied,
        OpenError::TooMany { .. } => types::ErrorCode::Exhausted,
        OpenError::Taken { .. }
        | OpenError::NoText { .. }
        | OpenError::BadName { .. }
        | OpenError::OtherSource { .. }
        | OpenError::Subscribed { .. } => types::ErrorCode::Invalid,
    };
    error(code, e.to_string())
}

macro_rules! kinds {
    ($($wit:ident = $ours:ident),* $(,)?) => {
        fn kind_from(kind: types::Kind) -> Kind {
            match kind { $(types::Kind::$wit => Kind::$ours),* }
        }

        fn kind_to(kind: Kind) -> types::Kind {
            match kind { $(Kind::$ours => types::Kind::$wit),* }
        }
    };
}

kinds! {
    Boolean = Bool, Int8 = I8, Int16 = I16, Int32 = I32, Int64 = I64, Uint8 = U8, Uint16 = U16, Uint32 = U32,
    Uint64 = U64, Float32 = F32, Float64 = F64, Text = Text, Cstring = CString, Bytes = Bytes,
}

//! `sink`: a guest's answers, read where they lie in its memory; and columns on their way to it.
//!
//! Runs on the thread of the run, inside a call of the guest.

use super::{State, WitResult, bindings, invalid, processor, types};
use crate::wasm::answer::{AnswerError, Answering, View};
use ig_event::{Column, Vars};
use std::mem::take;
use wasmtime::{
    StoreContextMut,
    component::{ComponentType, Lift, WasmList, WasmStr},
};

// Views of the same types, which copy nothing (but floats, for which wasmtime has no such view).

#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct VarsList {
    ends: WasmList<u32>,
    data: WasmList<u8>,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub(super) enum ColumnList {
    #[component(name = "u8s")]
    U8s(WasmList<u8>),
    #[component(name = "u16s")]
    U16s(WasmList<u16>),
    #[component(name = "u32s")]
    U32s(WasmList<u32>),
    #[component(name = "u64s")]
    U64s(WasmList<u64>),
    #[component(name = "s8s")]
    S8s(WasmList<i8>),
    #[component(name = "s16s")]
    S16s(WasmList<i16>),
    #[component(name = "s32s")]
    S32s(WasmList<i32>),
    #[component(name = "s64s")]
    S64s(WasmList<i64>),
    #[component(name = "f32s")]
    F32s(Vec<f32>),
    #[component(name = "f64s")]
    F64s(Vec<f64>),
    #[component(name = "bits")]
    Bits(WasmList<u8>),
    #[component(name = "fixed")]
    Fixed(WasmList<u8>),
    #[component(name = "text")]
    Text(VarsList),
    #[component(name = "bytes")]
    Bytes(VarsList),
    #[component(name = "codes")]
    Codes(WasmList<u16>),
}

impl ColumnList {
    fn view<'a>(&'a self, cx: &'a StoreContextMut<'_, State>) -> View<'a> {
        match self {
            ColumnList::U8s(v) => View::U8(v.as_le_slice(cx)),
            ColumnList::U16s(v) => View::U16(v.as_le_slice(cx)),
            ColumnList::U32s(v) => View::U32(v.as_le_slice(cx)),
            ColumnList::U64s(v) => View::U64(v.as_le_slice(cx)),
            ColumnList::S8s(v) => View::I8(v.as_le_slice(cx)),
            ColumnList::S16s(v) => View::I16(v.as_le_slice(cx)),
            ColumnList::S32s(v) => View::I32(v.as_le_slice(cx)),
            ColumnList::S64s(v) => View::I64(v.as_le_slice(cx)),
            ColumnList::F32s(v) => View::F32(v),
            ColumnList::F64s(v) => View::F64(v),
            ColumnList::Bits(v) => View::Bits(v.as_le_slice(cx)),
            ColumnList::Fixed(v) => View::Fixed(v.as_le_slice(cx)),
            ColumnList::Text(v) => View::Text { ends: v.ends.as_le_slice(cx), data: v.data.as_le_slice(cx) },
            ColumnList::Bytes(v) => View::Bytes { ends: v.ends.as_le_slice(cx), data: v.data.as_le_slice(cx) },
            ColumnList::Codes(v) => View::Codes(v.as_le_slice(cx)),
        }
    }
}

pub(super) fn finish(
    mut cx: StoreContextMut<'_, State>,
    (keep, columns): (WasmList<u8>, Vec<ColumnList>),
) -> wasmtime::Result<(WitResult,)> {
    let mut answering = take(&mut cx.data_mut().answering);
    let views: Vec<_> = columns.iter().map(|c| c.view(&cx)).collect();
    let finished = answering.finish(keep.as_le_slice(&cx), &views);
    drop(views);
    let told = finished.as_ref().copied().map_err(invalid);
    note_wrong(&mut answering, finished);
    cx.data_mut().answering = answering;
    Ok((told,))
}

pub(super) fn reject(mut cx: StoreContextMut<'_, State>, (row, reason): (u32, WasmStr)) -> wasmtime::Result<()> {
    let reason = reason.to_str(&cx)?;
    let reason = reason[..reason.floor_char_boundary(256)].to_owned();
    let answering = &mut cx.data_mut().answering;
    let rejected = answering.reject(row, reason);
    note_wrong(answering, rejected);
    Ok(())
}

/// Keeps the first thing that was wrong.
fn note_wrong(answering: &mut Answering, result: Result<(), AnswerError>) {
    if let Err(e) = result {
        answering.wrong.get_or_insert(e);
    }
}

impl bindings::ig::gadget::sink::Host for State {
    // Both are shadowed by functions that read the lists in place; see `linker`.
    fn finish(&mut self, _keep: Vec<u8>, _columns: Vec<bindings::ig::gadget::sink::Column>) -> WitResult {
        Err(invalid(&AnswerError::NotAsked))
    }

    fn reject(&mut self, _row: u32, _reason: String) {}
}

/// A column on its way to the guest.
pub(super) fn lend(column: &Column) -> processor::Column<'_> {
    use processor::Column as C;
    fn vars(v: &Vars) -> types::VarsParam<'_> {
        types::VarsParam { ends: &v.ends, data: &v.data }
    }
    match column {
        Column::U8(v) => C::U8s(v),
        Column::U16(v) => C::U16s(v),
        Column::U32(v) => C::U32s(v),
        Column::U64(v) => C::U64s(v),
        Column::I8(v) => C::S8s(v),
        Column::I16(v) => C::S16s(v),
        Column::I32(v) => C::S32s(v),
        Column::I64(v) => C::S64s(v),
        Column::F32(v) => C::F32s(v),
        Column::F64(v) => C::F64s(v),
        Column::Bits(v) => C::Bits(v),
        Column::Fixed { data, .. } => C::Fixed(data),
        Column::Text(v) => C::Text(vars(v)),
        Column::Bytes(v) => C::Bytes(vars(v)),
        Column::Codes { codes, .. } => C::Codes(codes),
        Column::Empty => C::Fixed(&[]),
    }
}

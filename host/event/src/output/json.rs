//! JSON: keys sorted at every level, groups as objects, straight from the batch into the buffer.
//!
//! The schema is compiled into a list of steps, each a literal (all keys, braces and quotes up to the next value) and a
//! value. A group whose members all belong to one entity, such as a container, is rendered once for each entity and
//! kept for as long as the printer holds that entity. The line before is kept too: see [`super::repeat`].

use super::{
    FieldSelection, OutputError, Printer, escape,
    repeat::{Changes, Line},
};
use crate::{
    Batch, DataSource, Entity, FieldId, Kind, TextEnv, Value,
    histogram::Slots,
    output::select::has_cell,
    value::{Format, Load, Row, Text, inputs, number},
};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// White space, and whether a batch is an array.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pretty: bool,
    array: bool,
}

impl Style {
    pub(super) fn compact(array: bool) -> Self {
        Style { pretty: false, array }
    }

    pub(super) fn pretty(array: bool) -> Self {
        Style { pretty: true, array }
    }
}

#[derive(Debug)]
pub(super) struct JsonPrinter {
    plan: Plan,
    style: Style,
    fields: Vec<FieldId>,
    changes: Changes,
    line: Line,
    scratch: Vec<u8>,
}

/// Steps of one object, and the literal after the last of them.
#[derive(Debug)]
struct Plan {
    steps: Vec<Step>,
    tail: Box<[u8]>,
}

#[derive(Debug)]
struct Step {
    before: Box<[u8]>,
    value: Slot,
}

/// What follows the literal.
#[derive(Debug)]
enum Slot {
    /// A number or bool; its text needs no quotes.
    Bare {
        load: Load,
        kind: Kind,
    },
    /// Text or bytes; the quotes are in the literals.
    Quoted(Load),
    /// The text of a derived field; the quotes are in the literals.
    Derived {
        load: Load,
        format: Format,
    },
    /// A list of numbers.
    Counts {
        load: Load,
        slots: Slots,
    },
    Entity(Box<Fragment>),
}

/// An object that depends on nothing but the entity in `slot`.
#[derive(Debug)]
struct Fragment {
    slot: u32,
    plan: Plan,
    /// For rows without an entity.
    missing: Option<Box<[u8]>>,
    /// By address; holding the entity keeps its address from being used again.
    rendered: FxHashMap<usize, (Arc<Entity>, Box<[u8]>)>,
}

/// Entities whose text is kept before all of it is thrown away: far more than run at a time, and still only megabytes.
const MAX_RENDERED: usize = 4096;

impl JsonPrinter {
    pub(super) fn new(
        source: &DataSource,
        selection: &FieldSelection,
        env: &TextEnv,
        style: Style,
    ) -> Result<Self, OutputError> {
        let tree = tree(source, selection, None);
        if tree.is_empty() {
            return Err(OutputError::NothingToShow { source_name: source.name.clone() });
        }
        let mut fields = Vec::new();
        leaves(&tree, &mut |id| inputs(source, id, &mut fields));
        fields.sort_unstable();
        let mut compiler =
            Compiler { source, env, pretty: style.pretty, literal: Vec::new(), steps: Vec::new(), inputs: Vec::new() };
        compiler.object(&tree, usize::from(style.array));
        let changes = Changes::new(source, &compiler.inputs);
        let plan = compiler.finish();
        Ok(JsonPrinter { plan, style, fields, changes, line: Line::default(), scratch: Vec::new() })
    }

    /// Appends one row, without anything after it. The row before stands in `out` at `last`, if it still does.
    pub(super) fn row(&mut self, batch: &Batch, row: usize, last: Option<usize>, out: &mut Vec<u8>) {
        let row = Row::new(batch, row);
        let JsonPrinter { plan, changes, line, scratch, .. } = self;
        let changed = changes.since_last(row);
        if let Some(last) = last {
            return line.repeat(last, changed, out, |step, out| plan.steps[step].value.write(row, scratch, out));
        }
        let first = out.len();
        line.clear();
        plan.write(row, scratch, out, |start, end| line.mark(start - first..end - first));
        line.end(out.len() - first);
    }
}

impl Printer for JsonPrinter {
    fn header(&mut self, _out: &mut Vec<u8>) {}

    fn batch(&mut self, batch: &Batch, out: &mut Vec<u8>) {
        let (first, next, end): (&[u8], &[u8], &[u8]) = match self.style {
            Style { array: false, .. } => (b"", b"\n", b"\n"),
            Style { pretty: true, .. } => (b"[\n  ", b",\n  ", b"\n]\n"),
            Style { .. } => (b"[", b",", b"]\n"),
        };
        let mut last = None;
        for row in batch.iter() {
            out.extend_from_slice(if last.is_none() { first } else { next });
            let start = out.len();
            self.row(batch, row, last, out);
            last = Some(start);
        }
        match last {
            Some(_) => out.extend_from_slice(end),
            None if self.style.array => out.extend_from_slice(b"[]\n"),
            None => {}
        }
    }

    fn needed_fields(&self) -> Vec<FieldId> {
        self.fields.clone()
    }
}

impl Plan {
    /// Tells `mark` where each value stands.
    fn write(&mut self, row: Row<'_>, scratch: &mut Vec<u8>, out: &mut Vec<u8>, mut mark: impl FnMut(usize, usize)) {
        for step in &mut self.steps {
            out.extend_from_slice(&step.before);
            let start = out.len();
            step.value.write(row, scratch, out);
            mark(start, out.len());
        }
        out.extend_from_slice(&self.tail);
    }
}

impl Slot {
    fn write(&mut self, row: Row<'_>, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
        match self {
            Slot::Bare { load, kind } => bare(&load.get(row), *kind, out),
            Slot::Quoted(load) => quoted(&load.get(row), out),
            Slot::Derived { load, format } if format.is_plain() => format.write(&load.get(row), row, out),
            Slot::Derived { load, format } => {
                scratch.clear();
                format.write(&load.get(row), row, scratch);
                escape::json(scratch, out);
            }
            Slot::Counts { load, slots } => counts(&load.get(row), *slots, out),
            Slot::Entity(fragment) => fragment.write(row, scratch, out),
        }
    }
}

impl Fragment {
    fn write(&mut self, row: Row<'_>, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
        let entity = row.batch.entity(self.slot, row.index);
        let known = match entity {
            Some(e) => self.rendered.get(&(Arc::as_ptr(e) as usize)).map(|(_, text)| text),
            None => self.missing.as_ref(),
        };
        if let Some(text) = known {
            return out.extend_from_slice(text);
        }
        let start = out.len();
        self.plan.write(row, scratch, out, |_, _| {});
        let text: Box<[u8]> = out[start..].into();
        match entity {
            Some(e) => {
                if self.rendered.len() >= MAX_RENDERED {
                    self.rendered.clear();
                }
                self.rendered.insert(Arc::as_ptr(e) as usize, (e.clone(), text));
            }
            None => self.missing = Some(text),
        }
    }
}

/// A value where the schema promises a number or bool. Anything else, which only a faulty producer sends, is quoted, so
/// that the line stays valid.
#[inline]
fn bare(value: &Value<'_>, kind: Kind, out: &mut Vec<u8>) {
    match value {
        Value::Uint(n) => number::uint(*n, out),
        Value::Int(n) => number::int(*n, out),
        Value::Bool(b) => out.extend_from_slice(if *b { b"true" } else { b"false" }),
        Value::Float(f) => number::json_float(*f, out),
        Value::Missing if kind == Kind::Bool => out.extend_from_slice(b"false"),
        Value::Missing => out.push(b'0'),
        Value::Text(_) | Value::Bytes(_) => {
            out.push(b'"');
            quoted(value, out);
            out.push(b'"');
        }
    }
}

/// A value inside quotes.
#[inline]
fn quoted(value: &Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Text(text) => escape::json(text, out),
        Value::Bytes(bytes) => number::hex_bytes(bytes, out),
        Value::Missing => {}
        Value::Uint(_) | Value::Int(_) | Value::Bool(_) | Value::Float(_) => bare(value, Kind::U64, out),
    }
}

/// The counts of a histogram, one a slot.
fn counts(value: &Value<'_>, slots: Slots, out: &mut Vec<u8>) {
    out.push(b'[');
    if let Value::Bytes(bytes) = value {
        for (i, n) in slots.counts(bytes).enumerate() {
            if i > 0 {
                out.push(b',');
            }
            number::uint(n, out);
        }
    }
    out.push(b']');
}

/// The shown part of the schema, sorted by key at every level.
enum Node<'a> {
    Value { name: &'a str, id: FieldId },
    Object { name: &'a str, members: Vec<Node<'a>> },
}

impl Node<'_> {
    fn name(&self) -> &str {
        match self {
            Node::Value { name, .. } | Node::Object { name, .. } => name,
        }
    }
}

fn tree<'a>(source: &'a DataSource, selection: &FieldSelection, parent: Option<FieldId>) -> Vec<Node<'a>> {
    let mut nodes: Vec<Node<'a>> = source
        .children(parent)
        .filter_map(|field| {
            let name = field.def.name.as_str();
            let members = tree(source, selection, Some(field.id));
            if !members.is_empty() {
                Some(Node::Object { name, members })
            } else if has_cell(source, field) && selection.in_object(source, field.id) {
                Some(Node::Value { name, id: field.id })
            } else {
                None
            }
        })
        .collect();
    nodes.sort_by(|a, b| a.name().cmp(b.name()));
    nodes
}

fn leaves(nodes: &[Node<'_>], visit: &mut impl FnMut(FieldId)) {
    for node in nodes {
        match node {
            Node::Value { id, .. } => visit(*id),
            Node::Object { members, .. } => leaves(members, visit),
        }
    }
}

struct Compiler<'a> {
    source: &'a DataSource,
    env: &'a TextEnv,
    pretty: bool,
    /// Text since the last value.
    literal: Vec<u8>,
    steps: Vec<Step>,
    /// Fields that each step reads.
    inputs: Vec<Vec<FieldId>>,
}

impl Compiler<'_> {
    fn object(&mut self, members: &[Node<'_>], depth: usize) {
        self.literal.push(b'{');
        for (i, member) in members.iter().enumerate() {
            if i > 0 {
                self.literal.push(b',');
            }
            self.new_line(depth + 1);
            self.literal.push(b'"');
            escape::json(member.name().as_bytes(), &mut self.literal);
            self.literal.extend_from_slice(if self.pretty { b"\": " } else { b"\":" });
            match member {
                Node::Value { id, .. } => self.value(*id),
                Node::Object { members, .. } => self.member_object(members, depth + 1),
            }
        }
        self.new_line(depth);
        self.literal.push(b'}');
    }

    fn member_object(&mut self, members: &[Node<'_>], depth: usize) {
        let Some(slot) = only_slot(self.source, members) else {
            return self.object(members, depth);
        };
        let mut inner = Compiler {
            source: self.source,
            env: self.env,
            pretty: self.pretty,
            literal: Vec::new(),
            steps: Vec::new(),
            inputs: Vec::new(),
        };
        inner.object(members, depth);
        let needed = inner.inputs.concat();
        let plan = inner.finish();
        let fragment = Fragment { slot, plan, missing: None, rendered: FxHashMap::default() };
        self.step(Slot::Entity(Box::new(fragment)), needed);
    }

    fn value(&mut self, id: FieldId) {
        let kind = self.source.field(id).def.kind;
        let Text { load, format } = Text::new(self.source, id, self.env);
        let mut needed = Vec::new();
        inputs(self.source, id, &mut needed);
        if let Some(slots) = Slots::of(self.source.field(id)) {
            return self.step(Slot::Counts { load, slots }, needed);
        }
        let slot = match format {
            Some(format) => Slot::Derived { load, format },
            None if kind.is_text() || kind == Kind::Bytes => Slot::Quoted(load),
            None => return self.step(Slot::Bare { load, kind }, needed),
        };
        self.literal.push(b'"');
        self.step(slot, needed);
        self.literal.push(b'"');
    }

    fn step(&mut self, value: Slot, inputs: Vec<FieldId>) {
        self.inputs.push(inputs);
        self.steps.push(Step { before: std::mem::take(&mut self.literal).into(), value });
    }

    fn new_line(&mut self, depth: usize) {
        if self.pretty {
            self.literal.push(b'\n');
            self.literal.resize(self.literal.len() + 2 * depth, b' ');
        }
    }

    fn finish(self) -> Plan {
        Plan { steps: self.steps, tail: self.literal.into() }
    }
}

/// The entity slot that all values below are members of, if there is one.
fn only_slot(source: &DataSource, members: &[Node<'_>]) -> Option<u32> {
    let mut needed = Vec::new();
    leaves(members, &mut |id| inputs(source, id, &mut needed));
    let mut slots = needed.into_iter().map(|id| Load::new(source, id).slot());
    let first = slots.next()??;
    slots.all(|s| s == Some(first)).then_some(first)
}

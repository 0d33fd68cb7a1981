//! Columns for people: one line a row, every cell escaped, headings once for a stream and once a batch for a table.
//!
//! On a terminal the columns share its width and long values are cut; where stdout is no terminal, columns keep their
//! declared widths for reading and nothing is ever cut.
//!
//! A histogram is no cell: below each row with its other cells it is drawn with bars.
//!
//! Rows of a table that say how often a stack was found (`stack.weight`) are one where nothing else tells them apart: stacks of
//! the same functions differ by addresses inside them, which are no columns.

use super::{
    FieldSelection, OutputError, Printer, PrinterEnv, escape,
    layout::{Cell, Sizes, display_width, fit},
};
use rustc_hash::FxHashMap;

use crate::{
    Batch, DataSource, Field, FieldId, Kind, SourceKind, TextEnv, Value, histogram,
    histogram::Slots,
    template::{Align, Ellipsis, Template},
    value::{Row, Text, inputs, number},
};

#[derive(Debug)]
pub(super) struct ColumnsPrinter {
    columns: Vec<Column>,
    histograms: Vec<Histogram>,
    fields: Vec<FieldId>,
    table: bool,
    /// Cells of the terminal.
    width: Option<usize>,
    /// Lines of the terminal, where tables take each other's place.
    height: Option<usize>,
    /// These lines are a part of the screen, which somebody else clears.
    section: bool,
    /// The column whose numbers are added up where rows look the same.
    weight: Option<usize>,
    scratch: Vec<u8>,
    escaped: Vec<u8>,
}

/// What is drawn below a row.
#[derive(Debug)]
struct Histogram {
    name: String,
    unit: String,
    slots: Slots,
    text: Text,
}

#[derive(Debug)]
struct Column {
    heading: String,
    sizes: Sizes,
    cell: Cell,
    text: Text,
    kind: Kind,
    precision: usize,
    hex: bool,
    /// The number that says that there is none.
    unset: Option<i128>,
    /// It says how often the row was found.
    weighs: bool,
}

impl ColumnsPrinter {
    pub(super) fn new(source: &DataSource, selection: &FieldSelection, env: &PrinterEnv) -> Result<Self, OutputError> {
        let ids = selection.columns(source);
        if ids.is_empty() {
            return Err(OutputError::NothingToShow { source_name: source.name.clone() });
        }
        let text_env = env.text();
        let (mut columns, mut histograms) = (Vec::new(), Vec::new());
        for field in ids.iter().map(|id| source.field(*id)) {
            match Slots::of(field) {
                Some(slots) => histograms.push(Histogram::new(source, field, slots, &text_env)),
                None => columns.push(Column::new(source, field, &text_env)),
            }
        }
        set_widths(&mut columns, env.width);
        let table = source.kind == SourceKind::Snapshot;
        let weighs = |c: &Column| table && c.weighs;
        let weight = columns.iter().position(weighs).filter(|_| columns.len() > 1 && histograms.is_empty());
        let mut fields = Vec::new();
        ids.iter().for_each(|id| inputs(source, *id, &mut fields));
        fields.sort_unstable();
        Ok(ColumnsPrinter {
            columns,
            histograms,
            fields,
            table,
            weight,
            width: env.width,
            height: None,
            section: false,
            scratch: Vec::new(),
            escaped: Vec::new(),
        })
    }

    fn headings(&mut self, out: &mut Vec<u8>) {
        for (i, column) in self.columns.iter().enumerate() {
            if i > 0 {
                out.push(b' ');
            }
            Cell { ellipsis: Ellipsis::End, ..column.cell }.text(&column.heading, out);
        }
        out.push(b'\n');
    }

    fn cells(&mut self, row: Row<'_>, sum: Option<u64>, out: &mut Vec<u8>) {
        for (i, column) in self.columns.iter_mut().enumerate() {
            if i > 0 {
                out.push(b' ');
            }
            match sum.filter(|_| self.weight == Some(i)) {
                Some(sum) => column.cell.ascii(itoa::Buffer::new().format(sum).as_bytes(), out),
                None => column.write(row, &mut self.scratch, &mut self.escaped, out),
            }
        }
        out.push(b'\n');
    }

    /// The rows to show, each by the first of those that look like it, and what its weight adds up to.
    fn rows(&mut self, batch: &Batch) -> Vec<(usize, Option<u64>)> {
        let Some(weight) = self.weight else { return batch.iter().map(|index| (index, None)).collect() };
        let mut rows: Vec<(usize, u64)> = Vec::new();
        let mut known: FxHashMap<Vec<u8>, usize> = FxHashMap::default();
        let (mut key, mut falling, mut last) = (Vec::new(), true, u64::MAX);
        for index in batch.iter() {
            let row = Row::new(batch, index);
            key.clear();
            for (_, column) in self.columns.iter_mut().enumerate().filter(|(i, _)| *i != weight) {
                // As a whole, whatever there is room for.
                let place = column.cell;
                column.cell = Cell { pad: 0, cut: None, ..place };
                column.write(row, &mut self.scratch, &mut self.escaped, &mut key);
                column.cell = place;
                key.push(b'\n');
            }
            let n = match self.columns[weight].text.load.get(row) {
                Value::Uint(n) => n,
                Value::Int(n) => n.max(0) as u64,
                _ => 0,
            };
            falling &= n <= last;
            last = n;
            match known.get(&key) {
                Some(at) => rows[*at].1 = rows[*at].1.saturating_add(n),
                None => {
                    known.insert(key.clone(), rows.len());
                    rows.push((index, n));
                }
            }
        }
        if falling {
            // They came with the heaviest first, and stay so.
            rows.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        }
        rows.into_iter().map(|(index, n)| (index, Some(n))).collect()
    }

    /// A row with its own headings, and its histograms below.
    fn drawing(&mut self, row: Row<'_>, out: &mut Vec<u8>) {
        if !self.columns.is_empty() {
            self.headings(out);
            self.cells(row, None, out);
        }
        for h in &self.histograms {
            out.extend_from_slice(h.name.as_bytes());
            out.push(b'\n');
            let value = h.text.load.get(row);
            let counts: Vec<u64> = match &value {
                Value::Bytes(bytes) => h.slots.counts(bytes).collect(),
                _ => Vec::new(),
            };
            histogram::draw(&counts, &h.unit, self.width, out);
        }
        out.push(b'\n');
    }
}

impl Printer for ColumnsPrinter {
    fn header(&mut self, out: &mut Vec<u8>) {
        if !self.table && self.histograms.is_empty() {
            self.headings(out);
        }
    }

    fn batch(&mut self, batch: &Batch, out: &mut Vec<u8>) {
        let whole_screen = self.height.is_some() && !self.section;
        if whole_screen {
            out.extend_from_slice(CLEAR);
        }
        let start = out.len();
        if self.table && (self.histograms.is_empty() || batch.live() == 0) && !self.columns.is_empty() {
            self.headings(out);
        }
        // Where each row ends, for a screen that does not take all of them.
        let mut ends = Vec::new();
        let rows = self.rows(batch);
        for (index, sum) in &rows {
            let row = Row::new(batch, *index);
            match self.histograms.is_empty() {
                true => self.cells(row, *sum, out),
                false => self.drawing(row, out),
            }
            if let Some(height) = self.height {
                ends.push(out.len());
                if ends.len() > height {
                    break;
                }
            }
        }
        if let Some(height) = self.height {
            crop(out, start, height, &ends, rows.len());
        }
        if whole_screen {
            out.extend_from_slice(WRAP);
        }
    }

    fn on_screen(&mut self, width: usize, height: usize) {
        if !self.table {
            return;
        }
        self.height = Some(height);
        if self.width != Some(width) {
            self.width = Some(width);
            set_widths(&mut self.columns, self.width);
        }
    }

    fn in_section(&mut self, width: usize, lines: usize) {
        // As on a screen with one more line, in which the cursor would wait.
        self.on_screen(width, lines + 1);
        self.section = true;
    }

    fn needed_fields(&self) -> Vec<FieldId> {
        self.fields.clone()
    }
}

/// To the first line, everything gone; lines that are too long end at the edge, so that they stay one line.
const CLEAR: &[u8] = b"\x1b[H\x1b[2J\x1b[?7l";
/// Long lines go on below again.
const WRAP: &[u8] = b"\x1b[?7h";

/// Leaves of the text from `start` on what a screen can show at once, and says how many of `rows` are missing.
fn crop(out: &mut Vec<u8>, start: usize, height: usize, ends: &[usize], rows: usize) {
    // The cursor waits in the line after the last, and one is taken by what is said here.
    let room = height.saturating_sub(2).max(1);
    let mut lines = memchr::memchr_iter(b'\n', &out[start..]);
    let Some(cut) = lines.nth(room - 1).map(|at| start + at + 1) else { return };
    // What is missing may be the empty line at the end, or one line, which fits in place of the message.
    if lines.next().is_none_or(|at| start + at + 1 == out.len()) && ends.len() == rows {
        return;
    }
    let shown = ends.iter().take_while(|end| **end <= cut).count();
    out.truncate(cut);
    let text = format!("… {} more of {rows} rows do not fit the screen\n", rows - shown);
    out.extend_from_slice(text.as_bytes());
}

impl Histogram {
    fn new(source: &DataSource, field: &Field, slots: Slots, env: &TextEnv) -> Self {
        let mut unit = Vec::new();
        escape::cell(field.annotation("metrics.unit").unwrap_or_default().as_bytes(), &mut unit);
        Histogram {
            name: heading(field, |name| name.to_owned()),
            unit: String::from_utf8_lossy(&unit).into_owned(),
            slots,
            text: Text::new(source, field.id, env),
        }
    }
}

/// What a column is called, escaped.
fn heading(field: &Field, style: impl Fn(&str) -> String) -> String {
    let name = field.annotation("columns.alias").unwrap_or(&field.full_name);
    let mut heading = Vec::new();
    escape::cell(style(name).as_bytes(), &mut heading);
    String::from_utf8_lossy(&heading).into_owned()
}

impl Column {
    fn new(source: &DataSource, field: &Field, env: &TextEnv) -> Self {
        let template = Template::of(field);
        Column {
            heading: heading(field, str::to_uppercase),
            sizes: sizes(field, &template),
            cell: Cell { pad: 0, cut: None, align: align(field, &template), ellipsis: ellipsis(field, &template) },
            text: Text::new(source, field.id, env),
            kind: field.def.kind,
            // More digits than a float has say nothing.
            precision: cells(field, "columns.precision").unwrap_or(2).min(17),
            hex: field.flag("columns.hex"),
            unset: field.annotation("columns.unset").and_then(|n| n.parse().ok()),
            weighs: field.flag("stack.weight"),
        }
    }

    fn write(&mut self, row: Row<'_>, scratch: &mut Vec<u8>, escaped: &mut Vec<u8>, out: &mut Vec<u8>) {
        let value = self.text.load.get(row);
        if self.unset.is_some() && self.unset == whole(&value) {
            return self.cell.ascii(b"", out);
        }
        if let Some(format) = &mut self.text.format {
            scratch.clear();
            format.write(&value, row, scratch);
            return if format.is_plain() { self.cell.ascii(scratch, out) } else { self.hostile(scratch, escaped, out) };
        }
        match value {
            Value::Uint(n) if self.hex => self.hexadecimal(n, scratch, out),
            Value::Int(n) if self.hex => self.hexadecimal(n as u64, scratch, out),
            Value::Uint(n) => self.cell.ascii(itoa::Buffer::new().format(n).as_bytes(), out),
            Value::Int(n) => self.cell.ascii(itoa::Buffer::new().format(n).as_bytes(), out),
            Value::Bool(b) => self.cell.ascii(if b { b"true" } else { b"false" }, out),
            Value::Text(text) => self.hostile(&text, escaped, out),
            Value::Float(f) => {
                scratch.clear();
                number::fixed_float(f, self.precision, scratch);
                self.cell.ascii(scratch, out);
            }
            Value::Bytes(bytes) => {
                scratch.clear();
                scratch.push(b'<');
                number::uint(bytes.len() as u64, scratch);
                scratch.extend_from_slice(b" bytes>");
                self.cell.ascii(scratch, out);
            }
            Value::Missing => self.cell.ascii(missing(self.kind), out),
        }
    }

    /// Text that may hold anything.
    #[inline]
    fn hostile(&self, text: &[u8], escaped: &mut Vec<u8>, out: &mut Vec<u8>) {
        if escape::plain_prefix(text) == text.len() {
            return self.cell.ascii(text, out);
        }
        escaped.clear();
        escape::cell(text, escaped);
        // Escaping leaves valid UTF-8; were it ever not, showing nothing is the safe answer.
        self.cell.text(std::str::from_utf8(escaped).unwrap_or_default(), out);
    }

    fn hexadecimal(&self, n: u64, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
        scratch.clear();
        scratch.extend_from_slice(b"0x");
        // A negative number shows the bits it has, not those of the wider type it is carried in.
        let bits = self.kind.size().unwrap_or(8) * 8;
        number::hex(if bits < 64 { n & ((1 << bits) - 1) } else { n }, number::UPPER, scratch);
        self.cell.ascii(scratch, out);
    }
}

fn whole(value: &Value<'_>) -> Option<i128> {
    match value {
        Value::Uint(n) => Some((*n).into()),
        Value::Int(n) => Some((*n).into()),
        _ => None,
    }
}

/// What a row without the value shows, the same as in JSON.
fn missing(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::Text | Kind::CString | Kind::Bytes => b"",
        Kind::Bool => b"false",
        Kind::F32 | Kind::F64 => b"0.00",
        _ => b"0",
    }
}

fn set_widths(columns: &mut [Column], terminal: Option<usize>) {
    let sizes: Vec<Sizes> = columns.iter().map(|c| c.sizes).collect();
    match terminal {
        Some(width) => {
            for (column, width) in columns.iter_mut().zip(fit(&sizes, width)) {
                column.cell.pad = width;
                column.cell.cut = Some(width);
            }
        }
        None => {
            for column in columns.iter_mut() {
                let Sizes { width, min, max } = column.sizes;
                column.cell.pad = width.min(max.unwrap_or(width)).max(min).max(display_width(&column.heading));
            }
        }
    }
    if let Some(last) = columns.last_mut()
        && last.cell.align == Align::Left
    {
        // Nothing stands to the right: padding would only be blanks at the end of the line.
        last.cell.pad = 0;
    }
}

/// A number annotation; one that is no number, or absurd, counts as absent.
fn cells(field: &Field, key: &str) -> Option<usize> {
    field.annotation(key).and_then(|v| v.parse().ok()).filter(|n| *n <= 4096)
}

fn sizes(field: &Field, template: &Template) -> Sizes {
    let needed = kind_width(field.def.kind);
    let or_needed = |n: usize| if n == 0 { needed.unwrap_or(16) } else { n };
    let max = cells(field, "columns.maxwidth").map(or_needed).or(template.max);
    let min = cells(field, "columns.minwidth").or(template.min).unwrap_or(1).max(1);
    let width = cells(field, "columns.width").map(or_needed).or(template.width).unwrap_or(16);
    Sizes { width, min, max: max.map(|max| max.max(min)) }
}

/// Cells that the longest value of a kind takes.
fn kind_width(kind: Kind) -> Option<usize> {
    Some(match kind {
        Kind::Bool | Kind::U16 => 5,
        Kind::U8 => 3,
        Kind::I8 => 4,
        Kind::I16 => 6,
        Kind::U32 => 10,
        Kind::I32 => 11,
        Kind::U64 | Kind::I64 => 20,
        Kind::F32 | Kind::F64 | Kind::Text | Kind::CString | Kind::Bytes => return None,
    })
}

fn align(field: &Field, template: &Template) -> Align {
    match field.annotation("columns.alignment") {
        Some("left") => Align::Left,
        Some("right") => Align::Right,
        _ => template.align,
    }
}

fn ellipsis(field: &Field, template: &Template) -> Ellipsis {
    match field.annotation("columns.ellipsis") {
        Some("end") => Ellipsis::End,
        Some("middle") => Ellipsis::Middle,
        Some("start") => Ellipsis::Start,
        Some("none") => Ellipsis::None,
        _ => template.ellipsis,
    }
}

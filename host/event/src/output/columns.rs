//! Columns for people: one line a row, every cell escaped, headings once for a stream and once a batch for a table.
//!
//! On a terminal the columns share its width and long values are cut; where stdout is no terminal, columns keep their
//! declared widths for reading and nothing is ever cut.

use super::{
    FieldSelection, OutputError, Printer, PrinterEnv, escape,
    layout::{Cell, Sizes, display_width, fit},
};
use crate::{
    Batch, DataSource, Field, FieldId, Kind, SourceKind, TextEnv, Value,
    template::{Align, Ellipsis, Template},
    value::{Row, Text, inputs, number},
};

#[derive(Debug)]
pub(super) struct ColumnsPrinter {
    columns: Vec<Column>,
    fields: Vec<FieldId>,
    table: bool,
    clear_screen: bool,
    scratch: Vec<u8>,
    escaped: Vec<u8>,
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
}

impl ColumnsPrinter {
    pub(super) fn new(source: &DataSource, selection: &FieldSelection, env: &PrinterEnv) -> Result<Self, OutputError> {
        let ids = selection.columns(source);
        if ids.is_empty() {
            return Err(OutputError::NothingToShow { source_name: source.name.clone() });
        }
        let text_env = env.text();
        let mut columns: Vec<Column> = ids.iter().map(|id| Column::new(source, source.field(*id), &text_env)).collect();
        set_widths(&mut columns, env.width);
        let mut fields = Vec::new();
        ids.iter().for_each(|id| inputs(source, *id, &mut fields));
        fields.sort_unstable();
        Ok(ColumnsPrinter {
            columns,
            fields,
            table: source.kind == SourceKind::Snapshot,
            clear_screen: env.clear_screen,
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
}

impl Printer for ColumnsPrinter {
    fn header(&mut self, out: &mut Vec<u8>) {
        if !self.table {
            self.headings(out);
        }
    }

    fn batch(&mut self, batch: &Batch, out: &mut Vec<u8>) {
        if self.table {
            if self.clear_screen {
                out.extend_from_slice(b"\x1b[H\x1b[2J");
            }
            self.headings(out);
        }
        for index in batch.iter() {
            let row = Row::new(batch, index);
            for (i, column) in self.columns.iter_mut().enumerate() {
                if i > 0 {
                    out.push(b' ');
                }
                column.write(row, &mut self.scratch, &mut self.escaped, out);
            }
            out.push(b'\n');
        }
    }

    fn needed_fields(&self) -> Vec<FieldId> {
        self.fields.clone()
    }
}

impl Column {
    fn new(source: &DataSource, field: &Field, env: &TextEnv) -> Self {
        let template = Template::of(field);
        let name = field.annotation("columns.alias").unwrap_or(&field.full_name);
        let mut heading = Vec::new();
        escape::cell(name.to_uppercase().as_bytes(), &mut heading);
        Column {
            heading: String::from_utf8_lossy(&heading).into_owned(),
            sizes: sizes(field, &template),
            cell: Cell { pad: 0, cut: None, align: align(field, &template), ellipsis: ellipsis(field, &template) },
            text: Text::new(source, field.id, env),
            kind: field.def.kind,
            // More digits than a float has say nothing.
            precision: cells(field, "columns.precision").unwrap_or(2).min(17),
            hex: field.flag("columns.hex"),
        }
    }

    fn write(&mut self, row: Row<'_>, scratch: &mut Vec<u8>, escaped: &mut Vec<u8>, out: &mut Vec<u8>) {
        let value = self.text.load.get(row);
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

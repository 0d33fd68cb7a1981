//! How rows are shown: one compiled printer a data source, which appends a whole batch to a buffer.
//!
//! A printer is owned by the thread that owns the batch. It never writes anywhere: the caller writes the buffer, once a
//! batch. An output mode is one file here, one variant of [`OutputMode`], and its goldens.

mod columns;
mod escape;
mod flamegraph;
mod folded;
mod json;
mod layout;
mod repeat;
mod select;
#[cfg(test)]
mod tests;
mod yaml;

pub use folded::{KERNEL_STACK_TAG, USER_STACK_TAG, WEIGHT};
pub(crate) use layout::display_width;
pub use select::{FieldSelection, FieldsError};

use crate::{Batch, DataSource, FieldId, HostNames, SourceKind, TextEnv};
use folded::{FoldedPrinter, Shape};
pub use jiff::tz::TimeZone;
use std::{str::FromStr, sync::Arc};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputMode {
    #[default]
    Columns,
    /// One object a line; a table is one array a line.
    Json,
    JsonPretty,
    /// One document a row.
    Yaml,
    /// No rows, only the documents that the gadget writes.
    Advise,
    /// Stacks added up, one a line, at the end of the run.
    Folded,
    /// The same as a picture (SVG).
    Flamegraph,
    None,
}

impl OutputMode {
    pub const ALL: [OutputMode; 8] = [
        OutputMode::Columns,
        OutputMode::Json,
        OutputMode::JsonPretty,
        OutputMode::Yaml,
        OutputMode::Advise,
        OutputMode::Folded,
        OutputMode::Flamegraph,
        OutputMode::None,
    ];

    pub fn name(self) -> &'static str {
        match self {
            OutputMode::Columns => "columns",
            OutputMode::Json => "json",
            OutputMode::JsonPretty => "jsonpretty",
            OutputMode::Yaml => "yaml",
            OutputMode::Advise => "advise",
            OutputMode::Folded => "folded",
            OutputMode::Flamegraph => "flamegraph",
            OutputMode::None => "none",
        }
    }
}

impl FromStr for OutputMode {
    type Err = OutputError;

    fn from_str(s: &str) -> Result<Self, OutputError> {
        OutputMode::ALL
            .into_iter()
            .find(|m| m.name() == s)
            .ok_or_else(|| OutputError::UnknownMode { mode: s.to_owned() })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    #[error(
        "unknown output mode {mode:?}: valid modes are columns, json, jsonpretty, yaml, advise, folded, flamegraph, none"
    )]
    UnknownMode { mode: String },
    #[error("data source {source_name:?} has no field left to show")]
    NothingToShow { source_name: String },
    #[error("data source {source_name:?} has no stacks, so there is nothing to fold")]
    NoStacks { source_name: String },
}

impl OutputError {
    pub fn hint(&self) -> Option<String> {
        match self {
            OutputError::UnknownMode { .. } => None,
            OutputError::NoStacks { .. } => {
                Some("-o folded and -o flamegraph are for gadgets with stacks, such as profile_cpu".to_owned())
            }
            OutputError::NothingToShow { .. } => Some("choose other --fields, or use -o none".to_owned()),
        }
    }
}

/// What a printer depends on besides schema and selection.
#[derive(Clone, Debug)]
pub struct PrinterEnv {
    pub names: Arc<HostNames>,
    /// The zone times are shown in.
    pub zone: TimeZone,
    /// Cells of the terminal; `None` where stdout is none, and then nothing is cut.
    pub width: Option<usize>,
}

impl PrinterEnv {
    fn text(&self) -> TextEnv {
        TextEnv { names: self.names.clone(), zone: self.zone.clone() }
    }
}

/// Shows the rows of one data source. Both methods append to `out`.
pub trait Printer {
    /// What stands once before everything else; call it once, before the first batch.
    fn header(&mut self, out: &mut Vec<u8>);

    /// All live rows of a batch, in output order. `batch` must be of the data source the printer was made for.
    fn batch(&mut self, batch: &Batch, out: &mut Vec<u8>);

    /// From now on tables take each other's place on a terminal of this size, and are cut to its lines. For columns of
    /// tables; other outputs stay as they are. May be called before each table.
    fn on_screen(&mut self, _width: usize, _height: usize) {}

    /// From now on tables are cut to so many lines of this width, and somebody else puts them in their place.
    fn in_section(&mut self, _width: usize, _lines: usize) {}

    /// What stands after everything else; call it once, after the last batch.
    fn finish(&mut self, _out: &mut Vec<u8>) {}

    /// Fields whose values the output depends on; nobody need compute any other.
    fn needed_fields(&self) -> Vec<FieldId>;
}

/// Cells that a text takes in a column, escaped as it is shown there.
pub fn cell_width(text: &str) -> usize {
    let mut escaped = Vec::new();
    escape::cell(text.as_bytes(), &mut escaped);
    display_width(&String::from_utf8_lossy(&escaped))
}

/// Compiles the printer of a data source.
pub fn printer(
    source: &Arc<DataSource>,
    mode: OutputMode,
    fields: &FieldSelection,
    env: PrinterEnv,
) -> Result<Box<dyn Printer + Send>, OutputError> {
    let table = source.kind == SourceKind::Snapshot;
    Ok(match mode {
        OutputMode::None | OutputMode::Advise => Box::new(NonePrinter),
        OutputMode::Columns => Box::new(columns::ColumnsPrinter::new(source, fields, &env)?),
        OutputMode::Json => Box::new(json::JsonPrinter::new(source, fields, &env.text(), json::Style::compact(table))?),
        OutputMode::JsonPretty => {
            Box::new(json::JsonPrinter::new(source, fields, &env.text(), json::Style::pretty(table))?)
        }
        OutputMode::Folded => Box::new(FoldedPrinter::new(source, &env.text(), Shape::Lines)?),
        OutputMode::Flamegraph => Box::new(FoldedPrinter::new(source, &env.text(), Shape::Graph)?),
        OutputMode::Yaml => Box::new(yaml::YamlPrinter::new(source, fields, &env.text())?),
    })
}

/// Shows nothing: for runs that only count, export or record.
struct NonePrinter;

impl Printer for NonePrinter {
    fn header(&mut self, _out: &mut Vec<u8>) {}

    fn batch(&mut self, _batch: &Batch, _out: &mut Vec<u8>) {}

    fn needed_fields(&self) -> Vec<FieldId> {
        Vec::new()
    }
}

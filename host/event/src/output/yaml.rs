//! YAML: one document a row, with the fields and the order of keys of JSON. Made for people and small runs: it goes
//! through a JSON value for each row, so that the two can never differ.

use super::{FieldSelection, OutputError, Printer, json};
use crate::{Batch, DataSource, FieldId, TextEnv};

#[derive(Debug)]
pub(super) struct YamlPrinter {
    json: json::JsonPrinter,
    options: serde_saphyr::SerializerOptions,
    line: Vec<u8>,
}

impl YamlPrinter {
    pub(super) fn new(source: &DataSource, selection: &FieldSelection, env: &TextEnv) -> Result<Self, OutputError> {
        let json = json::JsonPrinter::new(source, selection, env, json::Style::compact(false))?;
        // One line a value, however long: line-based tools read this too.
        let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
        Ok(YamlPrinter { json, options, line: Vec::new() })
    }
}

impl Printer for YamlPrinter {
    fn header(&mut self, _out: &mut Vec<u8>) {}

    fn batch(&mut self, batch: &Batch, out: &mut Vec<u8>) {
        for row in batch.iter() {
            self.line.clear();
            self.json.row(batch, row, None, &mut self.line);
            out.extend_from_slice(b"---\n");
            // The JSON of a row is valid by construction, and JSON is YAML: if ever one step failed, its text is the
            // document.
            let document = serde_json::from_slice::<serde_json::Value>(&self.line)
                .ok()
                .and_then(|value| serde_saphyr::to_string_with_options(&value, self.options.clone()).ok());
            match document {
                Some(text) => out.extend_from_slice(text.trim_end_matches('\n').as_bytes()),
                None => out.extend_from_slice(&self.line),
            }
            out.push(b'\n');
        }
    }

    fn needed_fields(&self) -> Vec<FieldId> {
        self.json.needed_fields()
    }
}

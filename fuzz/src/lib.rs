//! What several fuzz targets share: showing a batch in every way, and looking whether JSON is JSON.

use ig_event::{Batch, FieldSelection, OutputMode, PrinterEnv, TextEnv, printer};
use std::sync::Arc;

/// Shows the batch in every output mode. Panics where a line of JSON is none.
pub fn show(batch: &Batch) {
    let source = Arc::clone(batch.source());
    for mode in OutputMode::ALL {
        for width in [None, Some(40)] {
            let env = PrinterEnv { names: Arc::default(), zone: TextEnv::default().zone, width };
            let Ok(mut printer) = printer(&source, mode, &FieldSelection::default(), env) else { continue };
            let mut out = Vec::new();
            printer.header(&mut out);
            printer.batch(batch, &mut out);
            printer.finish(&mut out);
            if mode == OutputMode::Json {
                let text = std::str::from_utf8(&out).expect("JSON is UTF-8");
                for line in text.lines() {
                    serde_json::from_str::<serde_json::Value>(line).expect("every line is JSON");
                }
            }
        }
    }
}

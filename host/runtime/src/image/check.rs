//! Whether gadget.yaml and the compiled program speak of the same things.
//!
//! Programs, parameters and data sources leave symbols in the object, so a look at the symbol table is enough to catch
//! a misspelt name while the author is still there. Types and fields are checked by the loader's reading of BTF.

use std::collections::BTreeSet;
use std::path::Path;

use object::{Object as _, ObjectSymbol as _, SymbolKind};

use super::build::BuildError;
use super::error::near_names;
use crate::gadget::metadata::GadgetMetadata;

/// Markers before the name of a data source.
const SOURCE_MARKERS: [&str; 4] = ["gadget_tracer_", "gadget_iter_", "gadget_snapshotter_", "gadget_mapiter_"];
const PARAM_MARKER: &str = "gadget_param_";
/// Between the parts of a marker.
const SEPARATOR: &str = "___";

/// What an object declares.
#[derive(Debug, Default)]
struct Declared {
    programs: BTreeSet<String>,
    params: BTreeSet<String>,
    sources: BTreeSet<String>,
}

pub(super) fn object(
    program: &Path,
    bytes: &[u8],
    metadata: &GadgetMetadata,
    has_wasm: bool,
) -> Result<(), BuildError> {
    let declared = declared(bytes).map_err(|source| BuildError::Object { program: program.to_owned(), source })?;
    if declared.programs.is_empty() {
        return Err(BuildError::NoProgram { program: program.to_owned() });
    }
    let mut mismatches = Vec::new();
    let mut compare = |what: &str, names: &mut dyn Iterator<Item = &String>, there: &BTreeSet<String>| {
        for name in names.filter(|name| !there.contains(*name)) {
            let near = near_names(name, there.iter().map(String::as_str));
            let near = if near.is_empty() { String::new() } else { format!(" (did you mean {}?)", near.join(", ")) };
            mismatches.push(format!("{what} {name} does not exist{near}"));
        }
    };
    compare("program", &mut metadata.programs.keys(), &declared.programs);
    compare("program", &mut metadata.alternatives.values().flatten().flatten(), &declared.programs);
    compare("parameter", &mut metadata.params.ebpf.keys(), &declared.params);
    compare("parameter", &mut metadata.programs.values().flat_map(|p| &p.when), &declared.params);
    // A Wasm half may add data sources of its own.
    if !has_wasm {
        compare("data source", &mut metadata.datasources.keys(), &declared.sources);
    }
    if mismatches.is_empty() {
        return Ok(());
    }
    mismatches.dedup();
    Err(BuildError::Mismatch { program: program.to_owned(), mismatches })
}

fn declared(bytes: &[u8]) -> Result<Declared, object::Error> {
    let elf = object::File::parse(bytes)?;
    let mut declared = Declared::default();
    for symbol in elf.symbols().filter(|symbol| symbol.is_global() && symbol.is_definition()) {
        let Ok(name) = symbol.name() else { continue };
        if symbol.kind() == SymbolKind::Text {
            // A packet filter's placeholder is a function, and a parameter.
            match name.strip_prefix("gadget_pf_") {
                Some("") => drop(declared.params.insert("pf".to_owned())),
                Some(filter) => drop(declared.params.insert(format!("pf-{filter}"))),
                None => drop(declared.programs.insert(name.to_owned())),
            }
            continue;
        }
        if let Some(param) = name.strip_prefix(PARAM_MARKER) {
            declared.params.insert(param.to_owned());
        }
        for marker in SOURCE_MARKERS {
            if let Some((source, _)) = name.strip_prefix(marker).and_then(|rest| rest.split_once(SEPARATOR)) {
                declared.sources.insert(source.to_owned());
            }
        }
    }
    Ok(declared)
}

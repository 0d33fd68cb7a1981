//! `ig list-gadgets`: what `ig run` can run right now without a network, and where each gadget comes from.

use super::image::{columns, escaped, json};
use crate::{commands::print, context::Context, error::CliError, images::Images, output::say};
use ig_runtime::{
    gadget::metadata,
    image::{Arch, Descriptor, GadgetImage, ImageError, Reference, Source},
};
use serde::Serialize;
use std::{collections::BTreeMap, process::ExitCode};

#[derive(Debug, clap::Args)]
pub struct ListGadgetsArgs {
    /// Output mode: columns, columns=COLUMN,…, json, jsonpretty, yaml
    #[arg(short, long, value_name = "MODE", default_value = "columns")]
    output: String,
}

#[derive(Debug, Serialize)]
struct Row {
    /// What to write after `ig run`.
    name: String,
    /// `store` or `built-in`.
    from: &'static str,
    digest: String,
    /// Bytes of all its parts for this machine; none where it cannot be run here.
    size: Option<u64>,
    description: String,
}

pub fn run(args: ListGadgetsArgs, ctx: &Context) -> Result<ExitCode, CliError> {
    let images = Images::new(None, ctx)?;
    let rows = rows(&images)?;
    let text = match (columns(&args.output, &HEADINGS, cells(&rows))?, args.output.as_str()) {
        (Some(table), _) => table,
        (None, "json") => json(&rows, false)?,
        (None, "jsonpretty") => json(&rows, true)?,
        (None, "yaml") => {
            serde_saphyr::to_string(&rows).map_err(|e| CliError::internal(format!("writing YAML: {e}")))?
        }
        (None, other) => {
            return Err(CliError::user(format!("-o {other:?} is no output mode of list-gadgets"))
                .hint("valid values are columns, columns=COLUMN,…, json, jsonpretty, yaml"));
        }
    };
    if rows.is_empty() {
        say("no gadgets: this ig was built without a catalogue, and its store is empty");
    }
    print(text.as_bytes())
}

/// Of every gadget, as `ig run` takes them.
pub(super) fn names(images: &Images) -> Result<Vec<String>, CliError> {
    Ok(rows(images)?.into_iter().map(|row| row.name).collect())
}

/// By name: a gadget in the store is the one that runs, so it stands for a built-in one of the same name.
fn rows(images: &Images) -> Result<Vec<Row>, CliError> {
    let mut rows = BTreeMap::new();
    if let Some(bundle) = &images.bundle {
        for (reference, root) in bundle.entries() {
            let name = with_tag(reference.name().to_owned(), &reference);
            add(&mut rows, name, "built-in", bundle, root);
        }
    }
    for root in &images.store.index()?.manifests {
        let Some(reference) = root.reference().and_then(|text| Reference::parse(text, &images.rules).ok()) else {
            continue;
        };
        let name = with_tag(reference.short_repository(&images.rules), &reference);
        add(&mut rows, name, "store", &images.store, root);
    }
    Ok(rows.into_values().collect())
}

fn with_tag(name: String, reference: &Reference) -> String {
    match reference.tag() {
        None | Some("latest") => name,
        Some(tag) => format!("{name}:{tag}"),
    }
}

fn add(rows: &mut BTreeMap<String, Row>, name: String, from: &'static str, source: &dyn Source, root: &Descriptor) {
    let (description, size) = match GadgetImage::load_metadata(source, root, &name, Arch::host()) {
        // Other artifacts, such as signatures, lie in the same store.
        Err(ImageError::NotAGadget { .. }) => return,
        Err(error) => (format!("cannot be run: {error}"), None),
        Ok((bytes, size)) => match metadata::parse(&bytes, "gadget.yaml") {
            Ok(parsed) => (parsed.metadata.description, Some(size)),
            Err(error) => (format!("cannot be run: {error}"), Some(size)),
        },
    };
    rows.insert(name.clone(), Row { name, from, digest: root.digest.to_string(), size, description });
}

const HEADINGS: [&str; 5] = ["GADGET", "FROM", "SIZE", "DIGEST", "DESCRIPTION"];

fn cells(rows: &[Row]) -> Vec<Vec<String>> {
    let cells = rows.iter().map(|row| {
        let size = row.size.map_or(String::new(), |bytes| format!("{} KiB", bytes.div_ceil(1024)));
        let digest = row.digest.strip_prefix("sha256:").and_then(|hex| hex.get(..12)).unwrap_or(&row.digest);
        vec![escaped(&row.name), row.from.to_owned(), size, digest.to_owned(), escaped(&row.description)]
    });
    cells.collect()
}

//! `ig list-gadgets`: what `ig run` can run right now without a network, and where each gadget comes from.

use super::image::{escaped, json, table};
use crate::{commands::print, context::Context, error::CliError, images::Images, output::say};
use ig_runtime::{
    gadget::metadata,
    image::{Arch, Descriptor, GadgetImage, ImageError, Reference, Source},
};
use serde::Serialize;
use std::{collections::BTreeMap, process::ExitCode};

#[derive(Debug, clap::Args)]
pub struct ListGadgetsArgs {
    /// Output mode: columns, json, jsonpretty
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
    description: String,
}

pub fn run(args: ListGadgetsArgs, ctx: &Context) -> Result<ExitCode, CliError> {
    let images = Images::new(None, ctx)?;
    let rows = rows(&images)?;
    let text = match args.output.as_str() {
        "columns" => columns(&rows),
        "json" => json(&rows, false)?,
        "jsonpretty" => json(&rows, true)?,
        other => {
            return Err(CliError::user(format!("-o {other:?} is no output mode of list-gadgets"))
                .hint("valid values are columns, json, jsonpretty"));
        }
    };
    if rows.is_empty() {
        say("no gadgets: this ig was built without a catalogue, and its store is empty");
    }
    print(text.as_bytes())
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
    let description = match GadgetImage::load_metadata(source, root, &name, Arch::host()) {
        // Other artifacts, such as signatures, lie in the same store.
        Err(ImageError::NotAGadget { .. }) => return,
        Err(error) => format!("cannot be run: {error}"),
        Ok(bytes) => match metadata::parse(&bytes, "gadget.yaml") {
            Ok(parsed) => parsed.metadata.description,
            Err(error) => format!("cannot be run: {error}"),
        },
    };
    rows.insert(name.clone(), Row { name, from, digest: root.digest.to_string(), description });
}

fn columns(rows: &[Row]) -> String {
    let mut cells = vec![["GADGET", "FROM", "DESCRIPTION"].map(str::to_owned).to_vec()];
    cells.extend(rows.iter().map(|row| vec![escaped(&row.name), row.from.to_owned(), escaped(&row.description)]));
    table(&cells)
}

//! `ig image list`: the images in the store.

use super::{columns, json};
use crate::{commands::print, context::Context, error::CliError, images::Images};
use ig_runtime::image::Listed;
use serde::Serialize;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Show whole digests
    #[arg(long)]
    no_trunc: bool,
    /// Output mode: columns, columns=COLUMN,…, json, jsonpretty
    #[arg(short, long, value_name = "MODE", default_value = "columns")]
    output: String,
}

/// Keys are spelt as scripts for the reference tool expect them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    repository: String,
    tag: String,
    digest: String,
    created: String,
}

pub(super) fn run(args: &ListArgs, ctx: &Context) -> Result<ExitCode, CliError> {
    let images = Images::new(None, ctx)?;
    let rows: Vec<Row> = images.store.list()?.into_iter().map(|image| row(image, &images, args.no_trunc)).collect();
    let text = match (columns(&args.output, &HEADINGS, cells(&rows))?, args.output.as_str()) {
        (Some(table), _) => table,
        (None, "json") => json(&rows, false)?,
        (None, "jsonpretty") => json(&rows, true)?,
        (None, other) => {
            return Err(CliError::user(format!("-o {other:?} is no output mode of image list"))
                .hint("valid values are columns, columns=COLUMN,…, json, jsonpretty"));
        }
    };
    print(text.as_bytes())
}

fn row(image: Listed, images: &Images, no_trunc: bool) -> Row {
    let (repository, tag) = match &image.reference {
        Some(reference) => (reference.short_repository(&images.rules), reference.tag().unwrap_or_default().to_owned()),
        None => (String::new(), String::new()),
    };
    let digest = if no_trunc { image.digest.to_string() } else { image.digest.short() };
    Row { repository, tag, digest, created: image.created.unwrap_or_default() }
}

const HEADINGS: [&str; 4] = ["REPOSITORY", "TAG", "DIGEST", "CREATED"];

fn cells(rows: &[Row]) -> Vec<Vec<String>> {
    let shown = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { super::escaped(text) };
    let cells = rows.iter().map(|row| {
        vec![shown(&row.repository, "<none>"), shown(&row.tag, "<none>"), row.digest.clone(), shown(&row.created, "")]
    });
    cells.collect()
}

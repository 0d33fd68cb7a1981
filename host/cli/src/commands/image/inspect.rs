//! `ig image inspect NAME`: what an image holds and what it would be allowed to do. Nothing is loaded or run.

use super::{escaped, json, table};
use crate::{args::PullArgs, commands::print, context::Context, error::CliError, images::Images, output::say};
use ig_runtime::image::{ImageReport, ProgramParts, WasmParts, inspect};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(super) struct InspectArgs {
    /// Gadget: a name, an image reference, a digest, an image tar, or a gadget's folder
    image: String,
    /// Output mode: columns, json, jsonpretty, yaml
    #[arg(short, long, value_name = "MODE", default_value = "columns")]
    output: String,
    #[command(flatten)]
    pull: PullArgs,
}

pub(super) fn run(args: &InspectArgs, ctx: &Context) -> Result<ExitCode, CliError> {
    // A wrong mode is found before anything is fetched.
    if !matches!(args.output.as_str(), "columns" | "json" | "jsonpretty" | "yaml") {
        return Err(CliError::user(format!("-o {:?} is no output mode of image inspect", args.output))
            .hint("valid values are columns, json, jsonpretty, yaml"));
    }
    let images = Images::new(Some(&args.pull), ctx)?;
    let report = inspect(&images.resolve(&args.image)?)?;
    let text = match args.output.as_str() {
        "json" => json(&report, false)?,
        "jsonpretty" => json(&report, true)?,
        "yaml" => serde_saphyr::to_string(&report).map_err(|e| CliError::internal(format!("writing YAML: {e}")))?,
        _ => {
            for warning in &report.warnings {
                say(&format!("warning: gadget.yaml: {}", escaped(warning)));
            }
            columns(&report)
        }
    };
    print(text.as_bytes())
}

fn columns(report: &ImageReport) -> String {
    let oci = &report.oci;
    let pair = |key: &str, value: &str| vec![key.to_owned(), escaped(value)];
    let mut head = vec![
        pair("Name", &report.metadata.name),
        pair("Description", &report.metadata.description),
        pair("Reference", &oci.reference),
        pair("Digest", &oci.digest),
        pair("Architecture", &oci.architecture),
    ];
    for (key, value) in [
        ("Created", oci.created.as_deref().unwrap_or_default()),
        ("Homepage", &report.metadata.homepage_url),
        ("Documentation", &report.metadata.documentation_url),
        ("Source", &report.metadata.source_url),
    ] {
        if !value.is_empty() {
            head.push(pair(key, value));
        }
    }
    let mut text = table(&head);
    section(
        &mut text,
        &["LAYER", "BYTES", "DIGEST"],
        oci.layers.iter().map(|layer| vec![layer.media_type.clone(), layer.size.to_string(), layer.digest.clone()]),
    );
    if let Some(parts) = &report.ebpf {
        programs(&mut text, parts);
    }
    if let Some(wasm) = &report.wasm {
        imports(&mut text, wasm);
    }
    text
}

fn programs(text: &mut String, parts: &ProgramParts) {
    section(
        text,
        &["PROGRAM", "HOOK", "ALTERNATIVE FOR", "ON THIS MACHINE"],
        parts.programs.iter().map(|program| {
            let here = program.skipped.as_ref().map_or("available".to_owned(), |why| format!("skipped: {why}"));
            let job = program.alternative_for.clone().unwrap_or_default();
            vec![program.name.clone(), program.hook.clone(), job, here]
        }),
    );
    section(
        text,
        &["MAP", "TYPE", "KEY", "VALUE", "ENTRIES"],
        parts.maps.iter().map(|map| {
            vec![
                map.name.clone(),
                map.kind.clone(),
                map.key_size.to_string(),
                map.value_size.to_string(),
                map.max_entries.to_string(),
            ]
        }),
    );
    section(
        text,
        &["PARAMETER", "TYPE", "DEFAULT", "DESCRIPTION"],
        parts.params.iter().map(|param| {
            vec![param.name.clone(), param.kind.clone(), param.default.clone(), param.description.clone()]
        }),
    );
    for (source, fields) in &parts.fields {
        let header = format!("FIELD OF {source}");
        section(text, &[&header, "TYPE"], fields.iter().map(|field| vec![field.name.clone(), field.kind.clone()]));
    }
}

fn imports(text: &mut String, wasm: &WasmParts) {
    if let Some(reason) = &wasm.unusable {
        text.push_str(&format!("\nThe Wasm half cannot be run: {}\n", escaped(reason)));
    }
    section(text, &["WASM MAY USE"], wasm.imports.iter().map(|import| vec![import.clone()]));
}

/// A table after an empty line; nothing for no rows.
fn section(text: &mut String, header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let mut cells = vec![header.iter().map(|title| escaped(title)).collect::<Vec<_>>()];
    cells.extend(rows.map(|row| row.iter().map(|cell| escaped(cell)).collect()));
    if cells.len() > 1 {
        text.push('\n');
        text.push_str(&table(&cells));
    }
}

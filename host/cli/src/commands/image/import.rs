//! `ig image import FILE.tar`: reads the images of an archive into the store, all or none.

use super::json;
use crate::{commands::print, context::Context, error::CliError, images::Images};
use std::{path::PathBuf, process::ExitCode};

#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    /// The archive: an OCI image layout in a tar
    file: PathBuf,
    /// Output mode: text, json, jsonpretty
    #[arg(short, long, value_name = "MODE", default_value = "text")]
    output: String,
}

pub(super) fn run(args: &ImportArgs, ctx: &Context) -> Result<ExitCode, CliError> {
    if !matches!(args.output.as_str(), "text" | "json" | "jsonpretty") {
        return Err(CliError::user(format!("-o {:?} is no output mode of image import", args.output))
            .hint("valid values are text, json, jsonpretty"));
    }
    let images = Images::new(None, ctx)?;
    let names = images.store.import(&args.file, &images.rules)?;
    let text = match args.output.as_str() {
        "text" => {
            let lines: String = names.iter().map(|name| format!("  {}\n", super::escaped(name))).collect();
            format!("Successfully imported images:\n{lines}")
        }
        mode => json(&names, mode == "jsonpretty")?,
    };
    print(text.as_bytes())
}

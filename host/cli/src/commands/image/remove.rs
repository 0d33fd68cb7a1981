//! `ig image remove NAME…`: takes names out of the store, and images with their last name.

use crate::{commands::print, context::Context, error::CliError, images::Images};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(super) struct RemoveArgs {
    /// Images in the store: names or references; a digest stands for all names of its image
    #[arg(required = true)]
    images: Vec<String>,
}

pub(super) fn run(args: &RemoveArgs, ctx: &Context) -> Result<ExitCode, CliError> {
    let images = Images::new(None, ctx)?;
    // All names are checked before the first is removed.
    let names: Vec<_> = args.images.iter().map(|text| super::stored_name(&images, text)).collect::<Result<_, _>>()?;
    for (name, text) in names.iter().zip(&args.images) {
        images.store.find(name, text, &images.rules)?;
    }
    let mut said = String::new();
    for (name, text) in names.iter().zip(&args.images) {
        let removed = images.store.remove(name, text, &images.rules)?;
        for name in removed.names {
            said.push_str(&format!("Successfully removed {name}\n"));
        }
    }
    print(said.as_bytes())
}

//! `ig image pull NAME…`: fetches images from their registries into the store, even if they are there already.

use super::RegistryArgs;
use crate::{commands::print, context::Context, error::CliError, output::say};
use ig_runtime::image::PullPolicy;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(super) struct PullImageArgs {
    /// Image names or references
    #[arg(required = true)]
    images: Vec<String>,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub(super) fn run(args: &PullImageArgs, ctx: &Context) -> Result<ExitCode, CliError> {
    let images = args.registry.images(ctx)?;
    for text in &args.images {
        let reference = super::reference(&images, text)?;
        say(&format!("Pulling {reference}..."));
        let located = super::locate(&images, text, PullPolicy::Always)?;
        let digest = located.root.digest;
        let name = reference.tagged().unwrap_or_else(|| format!("{}/{}", reference.registry(), reference.repository()));
        print(format!("Successfully pulled {name}@{digest}\n").as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

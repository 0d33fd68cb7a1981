//! `ig image push NAME`: sends an image of the store to the registry its name says.

use super::RegistryArgs;
use crate::{commands::print, context::Context, error::CliError, images::ProgressBar, output::say};
use ig_runtime::image::{ImageContent, ImageError, Registry};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(super) struct PushArgs {
    /// An image in the store, by its whole name
    image: String,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub(super) fn run(args: &PushArgs, ctx: &Context) -> Result<ExitCode, CliError> {
    let images = args.registry.images(ctx)?;
    let target = super::reference(&images, &args.image)?;
    let name = super::stored_name(&images, &args.image)?;
    let (shown, root) = images.store.find(&name, &args.image, &images.rules)?;
    let content = ImageContent::collect(&images.store, &root, &shown)?;
    say(&format!("Pushing {target}..."));
    let mut bar = ProgressBar::default();
    let registry = Registry::new(images.registry.clone()).map_err(ImageError::from)?;
    let pushed = registry.push(&target, &content, &mut |progress| bar.show(progress)).map_err(ImageError::from)?;
    let name = target.tagged().unwrap_or_else(|| format!("{}/{}", target.registry(), target.repository()));
    print(format!("Successfully pushed {name}@{pushed}\n").as_bytes())
}

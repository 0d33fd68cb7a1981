//! `ig image tag SOURCE TARGET`: gives an image in the store another name.

use crate::{commands::print, context::Context, error::CliError, images::Images};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(super) struct TagArgs {
    /// An image in the store: name, reference or digest
    source: String,
    /// The further name
    target: String,
}

pub(super) fn run(args: &TagArgs, ctx: &Context) -> Result<ExitCode, CliError> {
    let images = Images::new(None, ctx)?;
    let target = super::reference(&images, &args.target)?;
    if target.digest().is_some() {
        return Err(CliError::user(format!("{} has a digest, so it is no name to give", args.target)));
    }
    let source = super::stored_name(&images, &args.source)?;
    let digest = images.store.tag(&source, &args.source, &target, &images.rules)?;
    print(format!("Successfully tagged with {target}@{digest}\n").as_bytes())
}

//! `ig image export NAME… FILE.tar`: writes images to an archive, for a machine without a network or for the catalogue.

use crate::{commands::print, context::Context, error::CliError, images::Images, output::say};
use ig_runtime::image::{ImageName, PullPolicy, Reference, write_tar};
use std::{path::PathBuf, process::ExitCode};

#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    /// Images, from the store or the built-in catalogue, and the archive to write
    #[arg(required = true, num_args = 2.., value_name = "NAME… FILE.tar")]
    names: Vec<String>,
}

pub(super) fn run(args: &ExportArgs, ctx: &Context) -> Result<ExitCode, CliError> {
    let images = Images::new(None, ctx)?;
    let Some((file, names)) = args.names.split_last() else {
        return Err(CliError::user("an image and an archive to write are needed"));
    };
    let file = PathBuf::from(file);
    let mut content = Vec::new();
    for name in names {
        let located = super::locate(&images, name, PullPolicy::Never)?;
        content.push((listed_as(&images, name, &located.reference), located.content()?));
    }
    write_tar(&content, &file)?;
    let done = format!("Successfully exported {} to {}", names.join(", "), file.display());
    match file.is_file() && !file.is_symlink() {
        true => print(format!("{done}\n").as_bytes()),
        false => {
            // It may be what stdout is.
            say(&done);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The name in the archive. What was asked for by digest has the name it has in the store, if any.
fn listed_as(images: &Images, text: &str, found: &str) -> Option<String> {
    match ImageName::parse(text, &images.rules).ok()? {
        ImageName::Path(_) => None,
        _ => Reference::parse(found, &images.rules).ok()?.tagged(),
    }
}

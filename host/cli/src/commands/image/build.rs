//! `ig image build DIR`: compiles a gadget's folder and puts the image into the store.

use crate::{commands::print, context::Context, error::CliError, images::Images, output::say};
use ig_runtime::image::Arch;
use std::{path::PathBuf, process::ExitCode};

#[derive(Debug, clap::Args)]
pub(super) struct BuildArgs {
    /// The gadget's folder: gadget.yaml, program.bpf.c, and a Rust crate or program.wasm if it has a Wasm half
    dir: PathBuf,
    /// Name of the image [default: the folder's name]
    #[arg(short, long, value_name = "NAME")]
    tag: Option<String>,
    /// Architectures, comma-separated: amd64, arm64, all [default: this machine's]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    arch: Vec<String>,
}

pub(super) fn run(args: &BuildArgs, ctx: &Context) -> Result<ExitCode, CliError> {
    let images = Images::new(None, ctx)?;
    let name = match &args.tag {
        Some(tag) => tag.clone(),
        None => folder_name(args)?,
    };
    // A bad name is found before minutes of compiling.
    let reference = super::reference(&images, &name)?;
    if reference.digest().is_some() {
        return Err(CliError::user(format!("image name {name:?} has a digest, which only the build can tell")));
    }
    let built = images.build(&args.dir, &archs(&args.arch)?)?;
    if !built.warnings.is_empty() {
        say(built.warnings.trim_end());
    }
    images.store.add(Some(&reference), &built.image)?;
    print(format!("Successfully built {reference}@{}\n", built.image.digest()).as_bytes())
}

fn folder_name(args: &BuildArgs) -> Result<String, CliError> {
    // `.` has no name of its own.
    let path = std::fs::canonicalize(&args.dir)
        .map_err(|e| CliError::user(format!("cannot read {}: {e}", args.dir.display())))?;
    let name = path.file_name().and_then(|name| name.to_str()).map(str::to_lowercase);
    name.ok_or_else(|| {
        CliError::user(format!("{} has no name to call the image", path.display())).hint("give one with -t NAME")
    })
}

fn archs(names: &[String]) -> Result<Vec<Arch>, CliError> {
    if names.is_empty() {
        return Ok(vec![Arch::host()]);
    }
    let mut archs = Vec::new();
    for name in names {
        match (name.as_str(), Arch::from_name(name)) {
            ("all", _) => archs.extend(Arch::ALL),
            (_, Some(arch)) => archs.push(arch),
            _ => {
                return Err(CliError::user(format!("--arch {name:?} is no architecture"))
                    .hint("valid values are amd64, arm64, all"));
            }
        }
    }
    archs.sort_unstable();
    archs.dedup();
    Ok(archs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_are_sorted_and_named_once() {
        let names = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert_eq!(archs(&names(&["arm64", "all", "amd64"])).unwrap(), Arch::ALL);
        assert_eq!(archs(&[]).unwrap(), [Arch::host()]);
        assert!(archs(&names(&["x86"])).is_err());
    }
}

//! `ig image …`: one file a command below this one; here is what they share. None needs root, unless the store does.

mod build;
mod export;
mod import;
mod inspect;
mod list;
mod pull;
mod push;
mod remove;
mod tag;

use crate::{
    args::PullArgs,
    columns::Columns,
    context::Context,
    error::{CliError, Kind},
    images::{Images, ProgressBar},
    output::harmless,
};
use clap::{Args, Subcommand};
use ig_runtime::image::{Arch, ImageName, Located, PullPolicy, Reference, Resolver};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

#[derive(Debug, Args)]
pub struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Build a gadget's folder into the store
    Build(build::BuildArgs),
    /// List the images in the store
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    /// Show what an image holds: metadata, programs and hooks, maps, parameters, fields, Wasm imports
    Inspect(inspect::InspectArgs),
    /// Give an image another name
    Tag(tag::TagArgs),
    /// Remove names; an image goes with its last name
    #[command(visible_alias = "rm")]
    Remove(remove::RemoveArgs),
    /// Write images to an archive (OCI image layout in a tar)
    Export(export::ExportArgs),
    /// Read the images of an archive into the store
    Import(import::ImportArgs),
    /// Fetch an image from its registry
    Pull(pull::PullImageArgs),
    /// Send an image to its registry
    Push(push::PushArgs),
}

/// How a registry is spoken to.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Registry")]
pub(crate) struct RegistryArgs {
    /// Registries to speak to in plain HTTP, `host[:port]`, comma-separated
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    insecure_registries: Vec<String>,
    /// Registry credentials, in Docker's config.json format
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
}

pub fn run(args: ImageArgs, ctx: &Context) -> Result<ExitCode, CliError> {
    match args.command {
        ImageCommand::Build(args) => build::run(&args, ctx),
        ImageCommand::List(args) => list::run(&args, ctx),
        ImageCommand::Inspect(args) => inspect::run(&args, ctx),
        ImageCommand::Tag(args) => tag::run(&args, ctx),
        ImageCommand::Remove(args) => remove::run(&args, ctx),
        ImageCommand::Export(args) => export::run(&args, ctx),
        ImageCommand::Import(args) => import::run(&args, ctx),
        ImageCommand::Pull(args) => pull::run(&args, ctx),
        ImageCommand::Push(args) => push::run(&args, ctx),
    }
}

impl RegistryArgs {
    fn images(&self, ctx: &Context) -> Result<Images, CliError> {
        let pull = PullArgs {
            pull: "missing".to_owned(),
            insecure_registries: self.insecure_registries.clone(),
            authfile: self.authfile.clone(),
        };
        Images::new(Some(&pull), ctx)
    }
}

/// Finds an image by whatever the user called it, with a progress bar where it has to be fetched.
fn locate<'a>(images: &'a Images, name: &str, policy: PullPolicy) -> Result<Located<'a>, CliError> {
    let builder = |dir: &Path, archs: &[Arch]| images.build(dir, archs);
    let resolver = Resolver {
        store: &images.store,
        bundle: images.bundle.as_ref(),
        rules: &images.rules,
        registry: Some(&images.registry),
        builder: Some(&builder),
        arch: Arch::host(),
    };
    let mut bar = ProgressBar::default();
    // The image that comes back borrows from the store and the catalogue only, not from the resolver.
    Ok(resolver.locate(name, policy, &mut |progress| bar.show(progress))?)
}

/// A name for an image in the store: a reference, not a digest or a path.
fn reference(images: &Images, text: &str) -> Result<Reference, CliError> {
    Reference::parse(text, &images.rules).map_err(|e| CliError::chain(Kind::User, &e, e.hint()))
}

/// What the user means by an image in the store.
fn stored_name(images: &Images, text: &str) -> Result<ImageName, CliError> {
    let name = ImageName::parse(text, &images.rules).map_err(|e| CliError::chain(Kind::User, &e, e.hint()))?;
    if let ImageName::Path(path) = &name {
        return Err(CliError::user(format!("{} is a path, not an image in the store", path.display()))
            .hint("import it first: ig image import FILE.tar"));
    }
    Ok(name)
}

/// Rows with columns as wide as their widest cell; the last one is left as it is.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| display_width(cell)).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            line.push_str(cell);
            line.push_str(&" ".repeat(widths[column] - display_width(cell) + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A table in `-o columns`, or of the columns in `-o columns=a,b`, by their headings; `None` for another mode.
pub(crate) fn columns(mode: &str, headings: &[&str], rows: Vec<Vec<String>>) -> Result<Option<String>, CliError> {
    let list = Columns::of(mode)?;
    if list.is_none() && mode != "columns" {
        return Ok(None);
    }
    let mut cells = vec![headings.iter().map(|h| (*h).to_owned()).collect()];
    cells.extend(rows);
    let Some(list) = list else { return Ok(Some(table(&cells))) };
    let place = |name: &str| headings.iter().position(|h| h.eq_ignore_ascii_case(name));
    let unknown = |name: &str| {
        CliError::user(format!("there is no column {name:?}"))
            .hint(format!("columns are {}", headings.join(", ").to_lowercase()))
    };
    let places = list.each().map(|name| place(name).ok_or_else(|| unknown(name))).collect::<Result<Vec<_>, _>>()?;
    let pick = |row: &Vec<String>| places.iter().map(|i| row.get(*i).cloned().unwrap_or_default()).collect();
    Ok(Some(table(&cells.iter().map(pick).collect::<Vec<_>>())))
}

/// Cells are escaped, so a character is never a control character; wide ones are rare in names and only shift a line.
fn display_width(cell: &str) -> usize {
    cell.chars().count()
}

/// Text from an image, made safe for a terminal and for one line.
pub(crate) fn escaped(text: &str) -> String {
    harmless(text.trim()).replace(['\n', '\t'], " ")
}

/// JSON of a command's answer.
pub(crate) fn json(value: &impl serde::Serialize, pretty: bool) -> Result<String, CliError> {
    let text = if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    text.map(|mut text| {
        text.push('\n');
        text
    })
    .map_err(|e| CliError::internal(format!("writing JSON: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_is_cut() {
        let cell = |text: &str| text.to_owned();
        let rows = vec![vec![cell("A"), cell("B")], vec![cell("long"), cell("x")], vec![cell(""), cell("y")]];
        assert_eq!(table(&rows), "A     B\nlong  x\n      y\n");
    }

    #[test]
    fn columns_are_chosen_by_their_headings() {
        let rows = || vec![vec!["a".to_owned(), "1".to_owned()]];
        let of = |mode| columns(mode, &["NAME", "SIZE"], rows());
        assert_eq!(of("columns").unwrap().as_deref(), Some("NAME  SIZE\na     1\n"));
        assert_eq!(of("custom-columns=size,Name").unwrap().as_deref(), Some("SIZE  NAME\n1     a\n"));
        assert_eq!(of("json").unwrap(), None);
        let e = of("columns=size,colour").unwrap_err();
        assert_eq!(e.message, "there is no column \"colour\"");
        assert_eq!(e.hint.as_deref(), Some("columns are name, size"));
    }

    #[test]
    fn an_image_cannot_write_to_the_terminal() {
        assert_eq!(escaped("a\x1b[31mb\nc\u{202e}d"), "a\\u{1b}[31mb c\\u{202e}d");
    }
}

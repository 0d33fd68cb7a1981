//! `ig completion SHELL`: the script a shell completes with, the names of the gadgets of this moment included.

use super::{list_gadgets, print};
use crate::{args::Cli, context::Context, error::CliError, images::Images, verbs};
use clap::{CommandFactory, builder::PossibleValuesParser};
use std::process::ExitCode;

pub(crate) fn run(shell: clap_complete::Shell, ctx: &Context) -> Result<ExitCode, CliError> {
    // A store that cannot be read is no reason to complete nothing.
    let names = Images::new(None, ctx).and_then(|images| list_gadgets::names(&images)).unwrap_or_default();
    let mut command = verbs::extend(Cli::command()).mut_subcommand("run", |run| {
        run.mut_arg("images", |gadget| match names.is_empty() {
            true => gadget,
            false => gadget.value_parser(PossibleValuesParser::new(names)),
        })
    });
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "ig", &mut script);
    print(&script)
}

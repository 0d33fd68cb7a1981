//! `ig replay FILE`: a recording through the same pipeline, without root.

use crate::{
    args::ReplayArgs,
    commands::run::{check_documents, finish, pipeline_options, report, start, stop_on_signals},
    context::Context,
    error::{CliError, Kind},
    output::{Interruptible, Terminal, output_mode},
};
use ig_runtime::{
    enrich::names::host_names,
    instance::{Replay, Stop},
};
use std::{fs::File, os::fd::AsFd, path::Path, process::ExitCode, sync::Arc};

pub fn run(args: &ReplayArgs, ctx: &Context) -> Result<ExitCode, CliError> {
    let stop = Arc::new(Stop::new().map_err(|e| CliError::chain(Kind::Environment, &e, None))?);
    stop_on_signals(&stop)?;
    let input = Interruptible { input: open(&args.file)?, stop: stop.clone() };
    let names = Arc::new(host_names(&ctx.host_root));
    let options = pipeline_options(&args.out, &names);
    let named = |e: CliError| CliError { message: format!("{}: {}", args.file.display(), e.message), ..e };
    let replay = Replay::open(std::io::BufReader::with_capacity(1 << 20, input), &options, ctx.wasm_cache())
        .map_err(|e| named(e.into()))?;
    check_documents(output_mode(&args.out)?, replay.makes_documents(), &args.file.display().to_string())?;
    let mut terminal = Terminal::new(replay.sources(), &args.out, &names, ctx.verbose)?;
    start(&mut terminal, &stop)?;
    let (mut summary, failed) = replay.run(&stop, &mut terminal);
    // Whatever becomes of the last words, the account comes.
    let finished = finish(&mut terminal, &mut summary);
    let code = report(&summary, &args.out, ctx.verbose)?;
    match failed {
        Some(e) => Err(named(e.into())),
        None => finished.map(|()| code),
    }
}

fn open(path: &Path) -> Result<File, CliError> {
    let opened = match path == Path::new("-") {
        true => std::io::stdin().as_fd().try_clone_to_owned().map(File::from),
        false => File::open(path),
    };
    opened.map_err(|e| CliError::user(format!("recording {}: {e}", path.display())))
}

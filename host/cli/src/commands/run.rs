//! `ig run GADGET`: find the image, learn its flags, run it, account for every event. What is different with several
//! gadgets is in `several`, how they are found in `gadgets`.

use super::{
    gadgets::{self, Named},
    help,
    image::escaped,
    several,
};
use crate::{
    args::{NO_LIMIT, OutputArgs, RunArgs},
    containers,
    context::Context,
    error::{CliError, Kind},
    output::{Terminal, harmless, output_mode, say, stop_when_nobody_reads},
    systemd, tables,
};
use clap::{Arg, ArgAction, ArgMatches, Command};
use ig_event::{HostNames, Ledger, Reason, TextEnv, output::OutputMode};
use ig_runtime::{
    containers::{ContainersOptions, Selector},
    doctor::has_sys_admin,
    enrich::{container::Include, names::host_names},
    gadget::params::{Param, ParamType},
    instance::{Gadget, LiveOptions, PipelineOptions, RunError, SinkError, Stop, Summary},
};
use std::{ffi::OsString, process::ExitCode, sync::Arc, time::Duration};

/// Heading of a gadget's own flags in its help.
pub(crate) const GADGET_HEADING: &str = "Gadget parameters";

/// A `run` whose gadgets have been found, so that their flags are known.
pub struct Prepared {
    gadgets: Vec<Named>,
}

impl Prepared {
    /// Adds the gadgets' parameters to `run` as flags.
    pub fn extend(&self, command: Command) -> Result<Command, CliError> {
        let of_tables = |times| tables::flags(times, GADGET_HEADING);
        for g in &self.gadgets {
            // Those of another's tables leave it `--GADGET.KEY`.
            let own = g.gadget.table_times().map(of_tables);
            let ours = command.get_arguments().chain(run_flags(&command)).chain(own.iter().flatten());
            check_flags(g.gadget.params(), ours)
                .map_err(|e| CliError { message: format!("{}: {}", g.name(), e.message), ..e })?;
        }
        let own = self.gadgets.iter().find_map(|g| g.gadget.table_times()).map(of_tables);
        let own = own.as_ref().map_or(&[][..], |flags| flags);
        let [Named { gadget, .. }] = &self.gadgets[..] else {
            let flags = several::flags(&self.gadgets, own)?;
            let flags = flags.into_iter().chain(own.iter().cloned());
            let after = "The fields of each gadget's rows are in its own help: `ig run GADGET --help`.";
            return Ok(command.mut_subcommand("run", |run| help::with_flags_first(&run, flags).after_help(after)));
        };
        let (params, metadata) = (gadget.params(), gadget.metadata());
        let flags = params.iter().map(flag_of).chain(own.iter().cloned());
        Ok(command.mut_subcommand("run", |run| {
            let run = help::with_flags_first(&run, flags).after_help(help::fields(gadget));
            if metadata.description.is_empty() {
                return run;
            }
            run.before_help(format!(
                "{}: {}\n(the fields of its rows are at the end)",
                harmless(&metadata.name),
                harmless(&metadata.description)
            ))
        }))
    }

    /// What to say instead of clap, which suggests flags that have nothing to do with the gadget.
    pub fn unknown_flag(&self, e: &clap::Error, command: &Command) -> Option<CliError> {
        help::unknown_flag(&self.gadgets, e, command)
    }
}

fn run_flags(command: &Command) -> impl Iterator<Item = &Arg> {
    command.find_subcommand("run").into_iter().flat_map(Command::get_arguments)
}

/// A gadget's flags must be good names, and neither ours nor each other's: clap would panic, and users be misled.
fn check_flags<'a>(params: &[Param], ours: impl Iterator<Item = &'a Arg>) -> Result<(), CliError> {
    let mut longs: Vec<String> = vec!["help".to_owned(), "version".to_owned()];
    let mut shorts = vec!['h', 'V'];
    for arg in ours {
        longs.extend(arg.get_long_and_visible_aliases().into_iter().flatten().map(str::to_owned));
        longs.extend(arg.get_all_aliases().into_iter().flatten().map(str::to_owned));
        shorts.extend(arg.get_short());
    }
    for p in params {
        let wrong = |what: String| {
            Err(CliError::user(format!("parameter {} of the gadget {what}", escaped(&p.key)))
                .hint("its gadget.yaml can give it another key or alias"))
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
        if p.key.is_empty() || p.key.starts_with('-') || !p.key.chars().all(fits) {
            return wrong("has a name that cannot be a flag".to_owned());
        }
        if longs.contains(&p.key) {
            return wrong(format!("needs the flag --{}, which is taken", p.key));
        }
        longs.push(p.key.clone());
        if let Some(alias) = p.alias {
            if shorts.contains(&alias) {
                return wrong(format!("needs the flag -{alias}, which is taken"));
            }
            shorts.push(alias);
        }
    }
    Ok(())
}

/// Ids of gadget flags are prefixed, so that a parameter named like one of ours cannot shadow it inside clap.
fn flag_id(p: &Param) -> String {
    format!("gadget.{}", p.key)
}

pub(super) fn flag_of(p: &Param) -> Arg {
    let mut help = harmless(&p.description);
    if !p.one_of.is_empty() {
        help.push_str(&format!(" [values: {}]", harmless(&p.one_of.join(", "))));
    }
    if !p.bits.is_empty() {
        let bits: Vec<String> = p.bits.iter().map(|(name, bit)| format!("{name} ({bit})")).collect();
        help.push_str(&format!(" [values: {}]", harmless(&bits.join(", "))));
    }
    if p.mandatory {
        help.push_str(" [must be given]");
    } else if !p.default.is_empty() {
        help.push_str(&format!(" [default: {}]", harmless(&p.default)));
    }
    let mut arg = Arg::new(flag_id(p))
        .long(p.key.clone())
        .help(help.trim_start().to_owned())
        .help_heading(GADGET_HEADING)
        .allow_hyphen_values(true)
        .action(ArgAction::Set);
    if let Some(alias) = p.alias {
        arg = arg.short(alias);
    }
    if p.ty == ParamType::Bool {
        arg.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("BOOL")
    } else {
        arg.value_name("VALUE")
    }
}

/// Finds the gadgets of a `run` command line and opens them. `None` where the command is another, or names no gadget.
pub fn prepare(args: &[OsString]) -> Result<Option<Prepared>, CliError> {
    let gadgets = gadgets::prepare(args)?;
    Ok((!gadgets.is_empty()).then_some(Prepared { gadgets }))
}

pub fn run(
    args: &RunArgs,
    prepared: Option<Prepared>,
    matches: &ArgMatches,
    ctx: &Context,
) -> Result<ExitCode, CliError> {
    let mut gadgets = match prepared {
        Some(p) => p.gadgets,
        None => gadgets::open_all(&args.images, &args.pull, ctx)?,
    };
    gadgets::check(&gadgets, &args.images)?;
    for g in &gadgets {
        check_documents(output_mode(&args.out)?, g.gadget.makes_documents(), g.name())?;
    }
    let setup = Setup::new(args, ctx, &gadgets)?;
    match gadgets.len() {
        1 => one(gadgets.remove(0).gadget, &setup, matches),
        _ => several::run(gadgets, &setup, matches),
    }
}

/// What a run needs besides its gadgets, the same for one and for several.
pub(super) struct Setup<'a> {
    pub(super) args: &'a RunArgs,
    pub(super) ctx: &'a Context,
    selector: Arc<Selector>,
    containers: ContainersOptions,
    pub(super) names: Arc<HostNames>,
    pub(super) stop: Stop,
}

impl<'a> Setup<'a> {
    fn new(args: &'a RunArgs, ctx: &'a Context, gadgets: &[Named]) -> Result<Self, CliError> {
        output_mode(&args.out)?;
        let selector = Arc::new(containers::selector(&args.containers.select)?);
        let containers = containers::options(&args.containers.runtimes, ctx)?;
        if !ctx.is_root {
            let names: Vec<&str> = gadgets.iter().map(|g| g.gadget.metadata().name.as_str()).collect();
            return Err(CliError::environment(format!("running gadget {} needs root", names.join(", ")))
                .hint("run it with sudo; `ig image` and `ig replay` work without"));
        }
        let names = Arc::new(host_names(&ctx.host_root));
        let stop = Stop::new().map_err(|e| CliError::chain(Kind::Environment, &e, None))?;
        stop_on_signals(&stop)?;
        look_on_signal(&stop)?;
        Ok(Setup { args, ctx, selector, containers, names, stop })
    }

    /// For a gadget with these parameters, and rows that are wanted like this.
    pub(super) fn options(&self, params: Vec<(String, String)>, out: &OutputArgs, matches: &ArgMatches) -> LiveOptions {
        let args = self.args;
        let times = given_times(matches);
        LiveOptions {
            params,
            pipeline: PipelineOptions { fail_on_trap: args.fail_on_trap, ..pipeline_options(out, &self.names) },
            ring_bytes: args.buffer_size,
            selector: self.selector.clone(),
            include: Include { host: args.containers.host, setup: args.containers.include_setup },
            containers: self.containers.clone(),
            record: args.record.clone(),
            wasm_cache: self.ctx.wasm_cache(),
            auto_mount: self.ctx.auto_mount,
            timeout: (args.timeout > 0).then(|| Duration::from_secs(args.timeout)),
            table_interval: times.interval,
            table_count: times.count,
            tag: None,
        }
    }
}

/// What the user said of the times of tables.
pub(super) fn given_times(matches: &ArgMatches) -> tables::Given {
    matches.subcommand_matches("run").map(tables::Given::of).unwrap_or_default()
}

fn one(gadget: Gadget, setup: &Setup<'_>, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let (args, ctx) = (setup.args, setup.ctx);
    let params = given_params(&gadget, matches, flag_id);
    check_stacks(output_mode(&args.out)?, &gadget, &params)?;
    let options = setup.options(params, &args.out, matches);
    let repeats = given_times(matches).repeats(gadget.table_times());
    let mut live = gadget.load(options).map_err(|e| refused(e, ctx))?;
    let mut terminal = Terminal::new(live.sources(), &args.out, &setup.names, ctx.verbose)?;
    if repeats {
        terminal.refresh(live.sources());
    }
    live.attach(&mut terminal)?;
    let started = start(&mut terminal, &setup.stop);
    if started.is_err() {
        setup.stop.request();
    }
    let (mut summary, failed) = live.run(&setup.stop, &mut terminal);
    // Whatever becomes of the first words and the last, the account comes.
    let finished = started.and(finish(&mut terminal, &mut summary));
    let code = report(&summary, &args.out, ctx.verbose)?;
    match failed {
        Some(e) => Err(e.into()),
        None => finished.map(|()| code),
    }
}

/// `-o advise` shows documents and nothing else, so that there must be some.
pub fn check_documents(mode: OutputMode, makes_documents: bool, gadget: &str) -> Result<(), CliError> {
    if mode != OutputMode::Advise || makes_documents {
        return Ok(());
    }
    Err(CliError::user(format!("gadget {gadget} writes no documents, which are all that -o advise shows"))
        .hint("use -o columns, json, jsonpretty or yaml"))
}

/// Flags of gadgets that take stacks only on request.
const STACK_FLAGS: [&str; 2] = ["collect-ustack", "collect-kstack"];

/// Stacks that nobody asked the gadget to take would be a graph of nothing.
fn check_stacks(mode: OutputMode, gadget: &Gadget, given: &[(String, String)]) -> Result<(), CliError> {
    let mut flags = gadget.params().iter().filter(|p| STACK_FLAGS.contains(&p.key.as_str())).peekable();
    let (true, Some(first)) = (matches!(mode, OutputMode::Folded | OutputMode::Flamegraph), flags.peek()) else {
        return Ok(());
    };
    let name = &gadget.metadata().name;
    let missing = CliError::user(format!(
        "gadget {name} takes no stacks unless asked to, and -o {} shows nothing else",
        mode.name()
    ))
    .hint(format!("add --{}", first.key));
    let off = |p: &Param| {
        let text = given.iter().find(|(key, _)| *key == p.key).map_or(p.default.as_str(), |(_, text)| text.as_str());
        // What cannot be read is told as such when it is used.
        p.parse(text).is_ok_and(|bytes| bytes.iter().all(|b| *b == 0))
    };
    if flags.all(off) { Err(missing) } else { Ok(()) }
}

/// An error on the way into the kernel; where the kernel refused for want of a capability, it is named.
pub(super) fn refused(e: RunError, ctx: &Context) -> CliError {
    let denied = is_denied(&e);
    let e = CliError::from(e);
    if !denied || has_sys_admin() {
        return e;
    }
    let flag = match systemd::would_help(&ctx.host_root) {
        true => ", or add --auto-sd-unit-restart",
        false => "",
    };
    CliError { message: format!("{} (this process lacks CAP_SYS_ADMIN)", e.message), ..e }
        .hint(format!("run the container privileged (docker: --privileged, pod: privileged: true){flag}"))
}

/// True where the kernel said that something is not permitted.
fn is_denied(e: &(dyn std::error::Error + 'static)) -> bool {
    let own = e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied);
    own || e.source().is_some_and(is_denied)
}

/// Shows that the run has begun, and sees to it that it ends when nobody reads any more.
pub fn start(terminal: &mut Terminal, stop: &Stop) -> Result<(), CliError> {
    match terminal.start() {
        Ok(()) => {}
        Err(SinkError::Closed) => stop.request(),
        Err(e) => return Err(CliError::chain(Kind::Environment, &e, None)),
    }
    stop_when_nobody_reads(stop).map_err(|e| CliError::internal(format!("watching stdout: {e}")))
}

/// Prints what some outputs keep for the end of the run; where that fails, the account says that nothing was delivered.
pub fn finish(terminal: &mut Terminal, summary: &mut Summary) -> Result<(), CliError> {
    let done = terminal.finish();
    if done.is_err() && terminal.writes_at_the_end() {
        summary.undeliver();
    }
    match done {
        Ok(()) => Ok(()),
        Err(SinkError::Closed) => {
            summary.closed = true;
            Ok(())
        }
        Err(e) => Err(CliError::chain(Kind::Environment, &e, None)),
    }
}

/// The value of a flag that only some gadgets have.
pub(super) fn given<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, flag: &str) -> Option<T> {
    matches.subcommand_matches("run")?.try_get_one::<T>(flag).ok().flatten().cloned()
}

/// The gadget's flags that were given, as `(key, text)`.
pub(super) fn given_params(
    gadget: &Gadget,
    matches: &ArgMatches,
    id: impl Fn(&Param) -> String,
) -> Vec<(String, String)> {
    let Some(run) = matches.subcommand_matches("run") else { return Vec::new() };
    gadget
        .params()
        .iter()
        .filter_map(|p| {
            let value = run.try_get_one::<String>(&id(p)).ok().flatten()?;
            Some((p.key.clone(), value.clone()))
        })
        .collect()
}

/// What the output flags mean for the pipeline.
pub fn pipeline_options(args: &OutputArgs, names: &Arc<HostNames>) -> PipelineOptions {
    PipelineOptions {
        filter: args.filter.clone(),
        sort: args.sort.clone(),
        max_entries: args.max_entries.filter(|n| *n != NO_LIMIT),
        text: TextEnv { names: names.clone(), zone: jiff::tz::TimeZone::system() },
        fail_on_trap: false,
    }
}

/// First SIGINT or SIGTERM: detach, drain, account, exit 0. A second one ends the process at once.
pub fn stop_on_signals(stop: &Stop) -> Result<(), CliError> {
    let failed = |e: std::io::Error| CliError::internal(format!("installing signal handlers: {e}"));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // Order matters: the conditional shutdown must see the flag as it was before this signal.
        signal_hook::flag::register_conditional_shutdown(signal, 130, stop.flag()).map_err(failed)?;
        signal_hook::flag::register(signal, stop.flag()).map_err(failed)?;
        signal_hook::low_level::pipe::register(signal, stop.waker().map_err(failed)?).map_err(failed)?;
    }
    Ok(())
}

/// As strace-like recorders have it: what was gathered so far, and the run goes on.
fn look_on_signal(stop: &Stop) -> Result<(), CliError> {
    let failed = |e: std::io::Error| CliError::internal(format!("installing signal handlers: {e}"));
    // The flag before the byte, see `look_flag`.
    let look = signal_hook::consts::SIGUSR1;
    signal_hook::flag::register(look, stop.look_flag()).map_err(failed)?;
    signal_hook::low_level::pipe::register(look, stop.waker().map_err(failed)?).map_err(failed).map(drop)
}

/// The accounts of all sources in one.
pub(super) fn total(summary: &Summary) -> Ledger {
    let mut total = Ledger::default();
    summary.ledgers.iter().for_each(|(_, ledger)| total.merge(ledger));
    total
}

/// Whoever closes the output has seen enough: what was on its way then is in the ledger, and is nothing to warn of.
pub(super) fn has_lost(ledger: &Ledger, closed: bool) -> bool {
    let unread = if closed { ledger.loss.get(Reason::OutputClosed) } else { 0 };
    ledger.lost() > unread || ledger.has_doubt()
}

/// Says what was lost, if anything was or if asked, and turns it into the exit code.
pub fn report(summary: &Summary, args: &OutputArgs, verbose: bool) -> Result<ExitCode, CliError> {
    let total = total(summary);
    let lost = has_lost(&total, summary.closed);
    let json = matches!(output_mode(args)?, OutputMode::Json | OutputMode::JsonPretty);
    if args.ledger && json {
        say(&format!("{{\"ledger\":{}}}", total.to_json()));
    } else if args.ledger || verbose || lost {
        say(total.summary().trim_end());
    }
    Ok(if args.fail_on_loss && lost { ExitCode::from(Kind::Loss as u8) } else { ExitCode::SUCCESS })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::CommandFactory;

    fn param(key: &str, alias: Option<char>) -> Param {
        Param {
            key: key.into(),
            var: None,
            ty: ParamType::Text,
            description: "a\x1b[2Jb".into(),
            default: "x\u{202e}".into(),
            alias,
            mandatory: false,
            one_of: Vec::new(),
            ports: false,
            signals: false,
            min: None,
            max: None,
            bits: Vec::new(),
        }
    }

    #[test]
    fn gadget_flags_are_neither_ours_nor_each_others() {
        let command = Cli::command();
        let check = |params: &[Param]| check_flags(params, command.get_arguments().chain(run_flags(&command)));
        assert!(check(&[param("paths", Some('p')), param("map-fetch-count", None)]).is_ok());
        for key in ["host", "verbose", "store", "help", "runtime-containername", "", "-x", "a b", "a\x1b"] {
            let e = check(&[param(key, None)]).unwrap_err();
            assert_eq!(e.kind, Kind::User, "{key}");
            assert!(e.message.contains(&escaped(key)) && !e.message.contains('\x1b'), "{}", e.message);
        }
        for alias in ['h', 'o', 'v', 'F', 'c', 't'] {
            assert!(check(&[param("paths", Some(alias))]).is_err(), "{alias}");
        }
        assert!(check(&[param("a", None), param("a", None)]).is_err());
        assert!(check(&[param("a", Some('x')), param("b", Some('x'))]).is_err());
        let own = tables::flags(&ig_runtime::instance::TableTimes::default(), GADGET_HEADING);
        for key in ["interval", "map-fetch-count"] {
            assert!(check_flags(&[param(key, None)], own.iter()).is_err(), "{key}");
        }
    }

    #[test]
    fn an_images_words_cannot_steer_the_terminal_in_help() {
        let help = Command::new("run").arg(flag_of(&param("a", None))).render_help().to_string();
        assert!(help.contains("\\u{1b}[2J") && help.contains("\\u{202e}"), "{help}");
        assert!(!help.contains(['\x1b', '\u{202e}']));
    }
}

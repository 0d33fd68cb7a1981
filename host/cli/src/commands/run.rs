//! `ig run GADGET`: find the image, learn its flags, run it, account for every event.

use crate::{
    args::{Cli, GlobalArgs, OutputArgs, PullArgs, RunArgs},
    commands::image::escaped,
    containers,
    context::Context,
    error::{CliError, Kind},
    images::Images,
    output::{Terminal, harmless, output_mode, say, stop_when_nobody_reads},
    systemd,
};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, CommandFactory, FromArgMatches};
use ig_event::{HostNames, Ledger, Reason, TextEnv, output::OutputMode};
use ig_runtime::{
    doctor::has_sys_admin,
    enrich::{container::Include, names::host_names},
    gadget::params::{Param, ParamType},
    instance::{Gadget, LiveOptions, PipelineOptions, RunError, SinkError, Stop, Summary},
};
use std::{ffi::OsString, process::ExitCode, sync::Arc, time::Duration};

/// Heading of a gadget's own flags in its help.
const GADGET_HEADING: &str = "Gadget parameters";
const MAP_INTERVAL: &str = "map-fetch-interval";
const MAP_COUNT: &str = "map-fetch-count";

/// A `run` whose gadget has been found, so that its flags are known.
pub struct Prepared {
    gadget: Gadget,
}

impl Prepared {
    /// Adds the gadget's parameters to `run` as flags.
    pub fn extend(&self, command: Command) -> Result<Command, CliError> {
        let params = self.gadget.params();
        let own: &[Arg] = match self.gadget.has_map_tables() {
            true => &map_flags(self.gadget.map_interval().unwrap_or("1000ms"))?,
            false => &[],
        };
        check_flags(params, command.get_arguments().chain(run_flags(&command)).chain(own))?;
        let metadata = self.gadget.metadata();
        Ok(command.mut_subcommand("run", |run| {
            let run = run.args(params.iter().map(flag_of)).args(own);
            if metadata.description.is_empty() {
                return run;
            }
            run.before_help(format!("{}: {}", harmless(&metadata.name), harmless(&metadata.description)))
        }))
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

fn flag_of(p: &Param) -> Arg {
    let mut help = harmless(&p.description);
    if !p.one_of.is_empty() {
        help.push_str(&format!(" [values: {}]", harmless(&p.one_of.join(", "))));
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

/// Flags of gadgets whose rows are the entries of a map.
fn map_flags(interval: &str) -> Result<[Arg; 2], CliError> {
    if let Err(e) = parse_duration(interval) {
        return Err(CliError::user(format!("the gadget reads its maps every {}: {e}", escaped(interval)))
            .hint("`0`, `500ms` or `2s` in its gadget.yaml"));
    }
    Ok([
        Arg::new(MAP_INTERVAL)
            .long(MAP_INTERVAL)
            .help("Time between two tables, such as 500ms or 2s; 0 shows one at the end")
            .value_name("TIME")
            .default_value(interval.to_owned())
            .value_parser(parse_duration)
            .help_heading(GADGET_HEADING),
        Arg::new(MAP_COUNT)
            .long(MAP_COUNT)
            .help("Stop after this many tables; 0 never stops")
            .value_name("N")
            .default_value("0")
            .value_parser(clap::value_parser!(u64))
            .help_heading(GADGET_HEADING),
    ])
}

/// `500ms`, `2s`, `0`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number =
        number.parse().map_err(|e: std::num::ParseIntError| format!("{e}; expected a time such as 500ms or 2s"))?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "" if number == 0 => Ok(Duration::ZERO),
        _ => Err("expected a time such as 500ms or 2s".to_owned()),
    }
}

/// Finds the gadget of a `run` command line and opens it. `None` where the command is another, or names no gadget.
pub fn prepare(args: &[OsString]) -> Result<Option<Prepared>, CliError> {
    let Some(known) = known_part(args) else { return Ok(None) };
    // Whatever is wrong with it is reported by the real parse, which knows all flags.
    let Ok(matches) = Cli::command().try_get_matches_from(known) else { return Ok(None) };
    let Some(run) = matches.subcommand_matches("run") else { return Ok(None) };
    let (Ok(global), Ok(run)) = (GlobalArgs::from_arg_matches(run), RunArgs::from_arg_matches(run)) else {
        return Ok(None);
    };
    let ctx = Context::new(&global)?;
    Ok(Some(Prepared { gadget: open(&run.image, &run.pull, &ctx)? }))
}

fn open(name: &str, pull: &PullArgs, ctx: &Context) -> Result<Gadget, CliError> {
    Gadget::open(Images::new(Some(pull), ctx)?.resolve(name)?).map_err(Into::into)
}

/// The command line without the flags that only the gadget can know: what can be parsed before the gadget is found.
/// `None` where it is no `run`, or asks for help of `run` itself.
fn known_part(args: &[OsString]) -> Option<Vec<OsString>> {
    let run = RunArgs::augment_args(GlobalArgs::augment_args(Command::new("run")));
    // None: unknown. Some(true): takes a value.
    let long = |name: &str| {
        run.get_arguments()
            .find(|a| a.get_long() == Some(name) || a.get_all_aliases().is_some_and(|all| all.contains(&name)))
            .map(|a| a.get_action().takes_values())
    };
    let short = |c: char| run.get_arguments().find(|a| a.get_short() == Some(c)).map(|a| a.get_action().takes_values());

    let mut known = vec![args.first()?.clone()];
    let mut positionals = 0;
    let mut i = 1;
    while let Some(arg) = args.get(i) {
        i += 1;
        let text = arg.to_string_lossy();
        let takes_next = if text == "--" {
            break;
        } else if let Some(flag) = text.strip_prefix("--") {
            let (name, inline) = flag.split_once('=').map_or((flag, false), |(n, _)| (n, true));
            long(name).map(|value| value && !inline)
        } else if let Some(flag) = text.strip_prefix('-').filter(|f| !f.is_empty()) {
            cluster(flag, &short)
        } else {
            positionals += 1;
            match positionals {
                1 if text != "run" => return None,
                1 | 2 => Some(false),
                // The value of a flag we do not know.
                _ => None,
            }
        };
        if let Some(takes_next) = takes_next {
            known.push(arg.clone());
            if takes_next && let Some(value) = args.get(i) {
                known.push(value.clone());
                i += 1;
            }
        }
    }
    (positionals >= 2).then_some(known)
}

/// A bundle of short flags such as `vo`: whether the last of them takes the next argument; `None` if one is unknown.
fn cluster(flags: &str, short: &impl Fn(char) -> Option<bool>) -> Option<bool> {
    for (at, c) in flags.char_indices() {
        if short(c)? {
            return Some(at + c.len_utf8() == flags.len());
        }
    }
    Some(false)
}

pub fn run(
    args: &RunArgs,
    prepared: Option<Prepared>,
    matches: &ArgMatches,
    ctx: &Context,
) -> Result<ExitCode, CliError> {
    let gadget = match prepared {
        Some(p) => p.gadget,
        None => open(&args.image, &args.pull, ctx)?,
    };
    check_documents(output_mode(&args.out)?, gadget.makes_documents(), &gadget.metadata().name)?;
    let selector = containers::selector(&args.containers.select)?;
    let runtimes = containers::options(&args.containers.runtimes, ctx)?;
    let params = given_params(&gadget, matches);
    if !ctx.is_root {
        return Err(CliError::environment(format!("running gadget {} needs root", gadget.metadata().name))
            .hint("run it with sudo; `ig image` and `ig replay` work without"));
    }
    let names = Arc::new(host_names(&ctx.host_root));
    let stop = Stop::new().map_err(|e| CliError::chain(Kind::Environment, &e, None))?;
    stop_on_signals(&stop)?;
    let options = LiveOptions {
        params,
        pipeline: PipelineOptions { fail_on_trap: args.fail_on_trap, ..pipeline_options(&args.out, &names) },
        ring_bytes: args.buffer_size,
        selector: Arc::new(selector),
        include: Include { host: args.containers.host, setup: args.containers.include_setup },
        containers: runtimes,
        record: args.record.clone(),
        wasm_cache: Some(ctx.wasm_cache()),
        auto_mount: ctx.auto_mount,
        timeout: (args.timeout > 0).then(|| Duration::from_secs(args.timeout)),
        map_interval: given(matches, MAP_INTERVAL).unwrap_or(Duration::from_secs(1)),
        map_count: given(matches, MAP_COUNT).unwrap_or(0),
    };
    let mut live = gadget.load(options).map_err(|e| refused(e, ctx))?;
    let mut terminal = Terminal::new(live.sources(), &args.out, &names, ctx.verbose)?;
    live.attach(&mut terminal)?;
    start(&mut terminal, &stop)?;
    let (summary, failed) = live.run(&stop, &mut terminal);
    let code = report(&summary, &args.out, ctx.verbose)?;
    match failed {
        Some(e) => Err(e.into()),
        None => Ok(code),
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

/// An error on the way into the kernel; where the kernel refused for want of a capability, it is named.
fn refused(e: RunError, ctx: &Context) -> CliError {
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

/// The value of a flag that only some gadgets have.
fn given<T: Copy + Send + Sync + 'static>(matches: &ArgMatches, flag: &str) -> Option<T> {
    matches.subcommand_matches("run")?.try_get_one::<T>(flag).ok().flatten().copied()
}

/// The gadget's flags that were given, as `(key, text)`.
fn given_params(gadget: &Gadget, matches: &ArgMatches) -> Vec<(String, String)> {
    let Some(run) = matches.subcommand_matches("run") else { return Vec::new() };
    gadget
        .params()
        .iter()
        .filter_map(|p| {
            let value = run.try_get_one::<String>(&flag_id(p)).ok().flatten()?;
            Some((p.key.clone(), value.clone()))
        })
        .collect()
}

/// What the output flags mean for the pipeline.
pub fn pipeline_options(args: &OutputArgs, names: &Arc<HostNames>) -> PipelineOptions {
    PipelineOptions {
        filter: args.filter.clone(),
        sort: args.sort.clone(),
        max_entries: args.max_entries,
        text: TextEnv { names: names.clone(), zone: jiff::tz::TimeZone::system() },
        fail_on_trap: false,
    }
}

/// First SIGINT or SIGTERM: detach, drain, account, exit 0. A second one ends the process at once. SIGUSR1: tables now.
pub fn stop_on_signals(stop: &Stop) -> Result<(), CliError> {
    let failed = |e: std::io::Error| CliError::internal(format!("installing signal handlers: {e}"));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // Order matters: the conditional shutdown must see the flag as it was before this signal.
        signal_hook::flag::register_conditional_shutdown(signal, 130, stop.flag()).map_err(failed)?;
        signal_hook::flag::register(signal, stop.flag()).map_err(failed)?;
        signal_hook::low_level::pipe::register(signal, stop.waker().map_err(failed)?).map_err(failed)?;
    }
    // As strace-like recorders have it: what was gathered so far, and the run goes on.
    signal_hook::flag::register(signal_hook::consts::SIGUSR1, stop.look_flag()).map_err(failed)?;
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGUSR1, stop.waker().map_err(failed)?).map_err(failed)?;
    Ok(())
}

/// Says what was lost, if anything was or if asked, and turns it into the exit code.
pub fn report(summary: &Summary, args: &OutputArgs, verbose: bool) -> Result<ExitCode, CliError> {
    let mut total = Ledger::default();
    for (_, ledger) in &summary.ledgers {
        total.merge(ledger);
    }
    // Whoever closes the output has seen enough: what was on its way then is in the ledger, and is nothing to warn of.
    let unread = if summary.closed { total.loss.get(Reason::OutputClosed) } else { 0 };
    let lost = total.lost() > unread || !total.balanced();
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

    fn known(line: &str) -> Option<String> {
        let args: Vec<OsString> = line.split(' ').map(Into::into).collect();
        known_part(&args).map(|k| k.iter().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" "))
    }

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
        let map = map_flags("0").unwrap();
        assert!(map_flags("soon").is_err());
        assert!(check_flags(&[param("map-fetch-count", None)], map.iter()).is_err());
    }

    #[test]
    fn an_images_words_cannot_steer_the_terminal_in_help() {
        let help = Command::new("run").arg(flag_of(&param("a", None))).render_help().to_string();
        assert!(help.contains("\\u{1b}[2J") && help.contains("\\u{202e}"), "{help}");
        assert!(!help.contains(['\x1b', '\u{202e}']));
    }

    #[test]
    fn gadget_flags_are_left_out_until_the_gadget_is_known() {
        assert_eq!(known("ig run trace_exec").as_deref(), Some("ig run trace_exec"));
        assert_eq!(known("ig run trace_exec --pid 5 -o json --paths").as_deref(), Some("ig run trace_exec -o json"));
        assert_eq!(
            known("ig -v run --store /s trace_exec --pid=5 -F a==b").as_deref(),
            Some("ig -v run --store /s trace_exec -F a==b")
        );
        assert_eq!(known("ig run -vo json trace_exec -k").as_deref(), Some("ig run -vo json trace_exec"));
        assert_eq!(known("ig run -ojson x").as_deref(), Some("ig run -ojson x"));
        assert_eq!(known("ig image list"), None);
        assert_eq!(known("ig run --help"), None);
        assert_eq!(known("ig run"), None);
    }
}

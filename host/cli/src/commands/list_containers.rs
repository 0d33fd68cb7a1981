//! `ig list-containers`: the containers that run, or with `--watch` those that start and end.
//!
//! Works without BPF and, as far as it goes, without root; what cannot be known then is said on stderr.

use super::run::stop_on_signals;
use crate::{
    args::{RuntimeArgs, SelectArgs},
    columns::{self, Columns},
    commands::print,
    containers::{error, options, selector},
    context::Context,
    error::{CliError, Kind},
    output::{say, stop_when_nobody_reads, terminal_width},
};
use ig_event::{
    Batch, DataSource, Filter, Operator, Sort, TextEnv,
    output::{OutputMode, Printer, PrinterEnv, TimeZone, printer},
};
use ig_runtime::{
    containers::{
        Change, Container, Containers, ContainersError, Selector, Verdict,
        listing::{Details, Host, Listing, Object, Row},
    },
    enrich::names::host_names,
    instance::Stop,
};
use serde::Serialize;
use std::{
    collections::HashMap,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long the runtimes have for their first answer.
const ANSWER: Duration = Duration::from_secs(4);
/// How often a watch looks whether it is to end.
const TURN: Duration = Duration::from_millis(100);

#[derive(Clone, Debug, clap::Args)]
pub struct ListContainersArgs {
    /// Output mode: columns, columns=FIELD,…, json, jsonpretty, yaml
    #[arg(short, long, value_name = "MODE", default_value = "columns")]
    output: String,
    /// Keep containers that match, e.g. 'runtime.runtimeName==docker'; operators as for `ig run`
    #[arg(short = 'F', long, value_name = "EXPR", allow_hyphen_values = true)]
    filter: Option<String>,
    /// Sort by fields; `-field` for descending [default: runtime, then container name]
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    sort: Option<String>,
    /// Show containers as they start and end, until Ctrl-C or --timeout
    #[arg(short, long)]
    watch: bool,
    /// Stop watching after this many seconds; 0 never stops
    #[arg(short, long, value_name = "SECONDS", requires = "watch")]
    timeout: Option<u64>,
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    runtimes: RuntimeArgs,
}

/// `-o`, with the columns that were asked for.
#[derive(Debug, PartialEq)]
struct Output<'a> {
    mode: OutputMode,
    columns: Option<Columns<'a>>,
}

fn output(text: &str) -> Result<Output<'_>, CliError> {
    let columns = Columns::of(text)?;
    let mode = match text {
        _ if columns.is_some() => OutputMode::Columns,
        "columns" => OutputMode::Columns,
        "json" => OutputMode::Json,
        "jsonpretty" => OutputMode::JsonPretty,
        "yaml" => OutputMode::Yaml,
        _ => return Err(unknown_mode(text)),
    };
    Ok(Output { mode, columns })
}

fn unknown_mode(text: &str) -> CliError {
    CliError::user(format!("-o {text:?} is no output mode of list-containers"))
        .hint("valid values are columns, columns=FIELD,…, json, jsonpretty, yaml")
}

pub fn run(args: &ListContainersArgs, ctx: &Context) -> Result<ExitCode, CliError> {
    let output = output(&args.output)?;
    let selector = Arc::new(selector(&args.select)?);
    // What is wrong with these is said before anything is looked for.
    let listing = if args.watch { Listing::changes() } else { Listing::table(&[], false) };
    Shown::new(&listing, &output, args, ctx)?;
    let options = options(&args.runtimes, ctx)?;
    let containers = start(options, ctx)?;
    if args.watch {
        return watch(&containers, selector, &output, args, ctx);
    }
    let all = containers.settled(ANSWER);
    warn(&containers, true);
    let rows = chosen(all, &selector, &Host::at(&ctx.host_root));
    let listing = Listing::table(&rows, terminal_width().is_some());
    let mut shown = Shown::new(&listing, &output, args, ctx)?;
    print(&shown.table(&rows)?)
}

/// With the tracker where that is possible.
fn start(options: ig_runtime::containers::ContainersOptions, ctx: &Context) -> Result<Containers, CliError> {
    if !ctx.is_root {
        say("warning: not root: only processes of this user can be looked at, and few runtimes will answer");
    }
    let e = match Containers::start(options.clone()) {
        Ok(containers) => return Ok(containers),
        Err(e @ (ContainersError::NoSocket { .. } | ContainersError::Client { .. })) => return Err(error(&e)),
        Err(e) => e,
    };
    let reason = CliError::chain(Kind::Environment, &e, None).message;
    say(&format!("warning: listing without the container tracker: {reason}"));
    say(
        "warning: containers are found by /proc, runtimes' files and APIs only: one that none of them names is not listed",
    );
    Containers::start_without_tracker(options).map_err(|e| error(&e))
}

/// Says what could not be learnt; whether a runtime has not answered at all only where one was waited for.
fn warn(containers: &Containers, waited: bool) {
    containers.notes().iter().for_each(|note| say(&format!("warning: {note}")));
    let asking = containers.status().asking;
    if waited && asking > 0 {
        let seconds = ANSWER.as_secs();
        say(&format!("warning: {asking} of the runtimes' sockets did not answer within {seconds} s"));
    }
}

fn chosen(all: Vec<Arc<Container>>, selector: &Selector, host: &Host) -> Vec<Row> {
    let (mut rows, mut open) = (Vec::new(), 0);
    for c in all {
        match selector.verdict(&c) {
            Verdict::No => {}
            Verdict::Unknown => open += 1,
            Verdict::Yes => rows.push(Row::new(c, host)),
        }
    }
    if open > 0 {
        say(&format!(
            "warning: {open} containers are left out, of which it could not be learnt whether they are meant"
        ));
    }
    rows.sort_by(|a, b| a.key().cmp(&b.key()));
    rows
}

/// The way from rows to text.
struct Shown {
    listing: Listing,
    filter: Option<Filter>,
    sort: Option<Sort>,
    printer: Box<dyn Printer + Send>,
    mode: OutputMode,
}

impl Shown {
    fn new(
        listing: &Listing,
        output: &Output<'_>,
        args: &ListContainersArgs,
        ctx: &Context,
    ) -> Result<Shown, CliError> {
        let source: &Arc<DataSource> = listing.source();
        let names = Arc::new(host_names(&ctx.host_root));
        let text = TextEnv { names: names.clone(), zone: TimeZone::system() };
        let filter = args.filter.as_deref().map(|f| Filter::parse(f, source, &text)).transpose();
        let filter = filter.map_err(|e| CliError::chain(Kind::User, &e, e.hint()))?;
        let sort = args.sort.as_deref().map(|s| Sort::parse(s, source, &text)).transpose();
        let sort = sort.map_err(|e| CliError::chain(Kind::User, &e, e.hint()))?;
        let fields = columns::selection(output.columns, "", source)?;
        let env = PrinterEnv { names, zone: text.zone, width: terminal_width() };
        let printer = printer(source, OutputMode::Columns, &fields, env)
            .map_err(|e| CliError::chain(Kind::User, &e, e.hint()))?;
        Ok(Shown { listing: listing.clone(), filter, sort, printer, mode: output.mode })
    }

    /// The rows that are to be shown, in order, with the batch they are in.
    fn batch(&mut self, rows: &[Row]) -> Result<Batch, CliError> {
        let mut batch = Batch::new(self.listing.source().clone());
        rows.iter().for_each(|r| self.listing.push(&mut batch, r));
        let failed = |e: ig_event::OperatorError| CliError::internal(e.to_string());
        if let Some(filter) = &mut self.filter {
            filter.process(&mut batch).map_err(failed)?;
        }
        if let Some(sort) = &mut self.sort {
            sort.process(&mut batch).map_err(failed)?;
        }
        Ok(batch)
    }

    fn table(&mut self, rows: &[Row]) -> Result<Vec<u8>, CliError> {
        let batch = self.batch(rows)?;
        let objects: Vec<Object<'_>> = batch.iter().map(|i| rows[i].object()).collect();
        let mut text = match self.mode {
            OutputMode::Json => serde_json::to_vec(&objects).map_err(unwritable)?,
            OutputMode::JsonPretty => serde_json::to_vec_pretty(&objects).map_err(unwritable)?,
            OutputMode::Yaml => serde_saphyr::to_string(&objects).map_err(unwritable)?.into_bytes(),
            OutputMode::Columns
            | OutputMode::Advise
            | OutputMode::Folded
            | OutputMode::Flamegraph
            | OutputMode::None => {
                let mut text = Vec::new();
                self.printer.batch(&batch, &mut text);
                text
            }
        };
        if !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        Ok(text)
    }

    /// One change, or nothing where it is filtered out.
    fn change(&mut self, row: &Row) -> Result<Vec<u8>, CliError> {
        let batch = self.batch(std::slice::from_ref(row))?;
        let mut text = Vec::new();
        if batch.live() == 0 {
            return Ok(text);
        }
        let (event, at) = row.event.unwrap_or_default();
        let change = ChangeObject { timestamp: rfc3339(at), event, container: row.object() };
        match self.mode {
            OutputMode::Json => serde_json::to_writer(&mut text, &change).map_err(unwritable)?,
            OutputMode::JsonPretty => serde_json::to_writer_pretty(&mut text, &change).map_err(unwritable)?,
            OutputMode::Yaml => {
                text.extend_from_slice(b"---\n");
                let document = serde_saphyr::to_string(&change).map_err(unwritable)?;
                text.extend_from_slice(document.trim_end_matches('\n').as_bytes());
            }
            OutputMode::Columns
            | OutputMode::Advise
            | OutputMode::Folded
            | OutputMode::Flamegraph
            | OutputMode::None => {
                self.printer.batch(&batch, &mut text);
                return Ok(text);
            }
        }
        text.push(b'\n');
        Ok(text)
    }
}

fn unwritable(e: impl std::fmt::Display) -> CliError {
    CliError::internal(format!("writing the list: {e}"))
}

/// What a line of `--watch -o json` holds.
#[derive(Debug, Serialize)]
struct ChangeObject<'a> {
    timestamp: String,
    event: &'a str,
    container: Object<'a>,
}

/// A wall-clock time as columns show it.
fn rfc3339(nanoseconds: u64) -> String {
    let time = jiff::Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or_default();
    time.to_zoned(TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S.%9f%:z").to_string()
}

/// When to stop, if ever: a time too far off to be told is no end.
fn end_of(seconds: u64) -> Option<Instant> {
    Instant::now().checked_add(Duration::from_secs(seconds)).filter(|_| seconds > 0)
}

fn watch(
    containers: &Containers,
    selector: Arc<Selector>,
    output: &Output<'_>,
    args: &ListContainersArgs,
    ctx: &Context,
) -> Result<ExitCode, CliError> {
    let stop = Stop::new().map_err(|e| CliError::chain(Kind::Environment, &e, None))?;
    stop_on_signals(&stop)?;
    let mut shown = Shown::new(&Listing::changes(), output, args, ctx)?;
    let mut header = Vec::new();
    if output.mode == OutputMode::Columns {
        shown.printer.header(&mut header);
    }
    print(&header)?;
    stop_when_nobody_reads(&stop).map_err(|e| CliError::internal(format!("watching stdout: {e}")))?;
    let end = args.timeout.and_then(end_of);
    let mut changes = containers.changes(selector);
    let (mut known, host) = (Known::default(), Host::at(&ctx.host_root));
    let mut said = Vec::new();
    while !stop.requested() && end.is_none_or(|end| Instant::now() < end) {
        let turn = end.map_or(TURN, |end| TURN.min(end.saturating_duration_since(Instant::now())));
        match changes.next(turn) {
            Some(Change::Undecided(c)) => {
                say(&format!("warning: container {} is left out: it could not be learnt whether it is meant", c.id));
            }
            Some(Change::Missed(n)) => say(&format!("warning: {n} changes came too fast and are missing")),
            Some(change) => {
                if let Some(row) = known.row(change, &host) {
                    print(&shown.change(&row)?)?;
                }
            }
            None => {}
        }
        let notes = containers.notes();
        notes.iter().filter(|n| !said.contains(*n)).for_each(|note| say(&format!("warning: {note}")));
        said = notes;
    }
    Ok(ExitCode::SUCCESS)
}

/// What was read of the containers that run: of one that has ended there is nothing left to read.
#[derive(Default)]
struct Known(HashMap<u64, Details>);

impl Known {
    fn row(&mut self, change: Change, host: &Host) -> Option<Row> {
        match change {
            Change::Created(c) => {
                let mut row = Row::new(c, host);
                row.event = Some(("CREATED", row.container.started_at));
                // Large, and shown once.
                let details = Details { oci_config: None, ..row.details.clone() };
                self.0.insert(row.container.instance, details);
                Some(row)
            }
            Change::Removed { container, at } => {
                let details = self.0.remove(&container.instance).unwrap_or_default();
                Some(Row { container, details, event: Some(("DELETED", at)) })
            }
            Change::Undecided(_) | Change::Missed(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_modes_are_read_and_others_refused() {
        for text in ["columns=a,b", "custom-columns=a"] {
            let chosen = output(text).unwrap();
            assert!(chosen.mode == OutputMode::Columns && chosen.columns.is_some(), "{text}");
        }
        for (text, mode) in [
            ("columns", OutputMode::Columns),
            ("json", OutputMode::Json),
            ("jsonpretty", OutputMode::JsonPretty),
            ("yaml", OutputMode::Yaml),
        ] {
            assert_eq!(output(text).unwrap(), Output { mode, columns: None });
        }
        for bad in ["", "xml", "json=a", "columns=", "custom-columns", "none"] {
            let e = output(bad).unwrap_err();
            assert!(e.kind == Kind::User && e.hint.is_some(), "{bad}");
        }
    }

    #[test]
    fn a_watch_ends_after_its_time_and_never_where_that_cannot_be_told() {
        assert_eq!([end_of(0), end_of(u64::MAX)], [None; 2]);
        assert!(end_of(60).unwrap() > Instant::now());
    }

    #[test]
    fn times_have_a_zone_and_nine_decimals() {
        let text = rfc3339(1_700_000_000_000_000_001);
        assert!(text.contains(".000000001") && text.len() == "2023-11-14T22:13:20.000000001+00:00".len(), "{text}");
    }
}

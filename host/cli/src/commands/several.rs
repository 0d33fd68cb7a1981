//! `ig run GADGET GADGET…`: the flags that say which gadget they are for, one output for all, and their accounts.
//!
//! Each gadget's thread renders its rows by itself; only writing them takes turns, a whole batch at a time. On a terminal, where
//! all are tables that are shown again and again, each has its place on the screen.

use super::{
    gadgets::Named,
    image::escaped,
    run::{Setup, finish, flag_of, given, given_params, given_times, has_lost, refused, total},
};
use crate::{
    args::{OutputArgs, RunArgs, parse_most},
    error::{CliError, Kind},
    output::{Terminal, harmless, may_be_cleared, output_mode, say, screen_size, stop_when_nobody_reads},
    screen::Screen,
};
use clap::{Arg, ArgMatches};
use ig_event::{Batch, DataSource, Ledger, SourceKind, output::OutputMode};
use ig_runtime::{
    gadget::params::Param,
    instance::{Ended, LiveOptions, Note, RunError, Several, Sink, SinkError, Tag},
    wasm::Document,
};
use std::{
    collections::BTreeSet,
    io::IsTerminal,
    path::PathBuf,
    process::ExitCode,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Flags that may be given for one gadget, as `--GADGET.FLAG`: name, what its value is called, help.
pub(super) const PER_GADGET: [(&str, &str, &str); 5] = [
    ("fields", "LIST", "As --fields, for this gadget"),
    ("filter", "EXPR", "As --filter, for this gadget"),
    ("sort", "LIST", "As --sort, for this gadget"),
    ("max-entries", "N", "As --max-entries, for this gadget"),
    ("record", "FILE", "As --record, for this gadget"),
];

fn own_id(gadget: &str, flag: &str) -> String {
    format!("own.{gadget}.{flag}")
}

fn param_id(gadget: &str, p: &Param) -> String {
    format!("gadget.{gadget}.{}", p.key)
}

/// Whether `--NAME` is this flag.
pub(super) fn answers_to(flag: &Arg, name: &str) -> bool {
    flag.get_long() == Some(name) || flag.get_all_aliases().is_some_and(|all| all.contains(&name))
}

/// The flags of all gadgets: `--GADGET.KEY`, and `--KEY` too where only one gadget has it, and it is none of `taken`.
pub(super) fn flags(gadgets: &[Named], taken: &[Arg]) -> Result<Vec<Arg>, CliError> {
    let mut flags = Vec::new();
    for g in gadgets {
        let name = g.name();
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || name.starts_with('-') || !name.chars().all(fits) {
            let message = format!("gadget {} has a name that cannot be part of a flag", escaped(name));
            return Err(CliError::user(message).hint("it can run alone"));
        }
        let heading = || format!("Parameters of {name}: {}", harmless(&g.gadget.metadata().description));
        let others = || gadgets.iter().filter(|o| o.name() != name).flat_map(|o| o.gadget.params());
        for p in g.gadget.params() {
            let mut flag = flag_of(p).id(param_id(name, p)).long(format!("{name}.{}", p.key)).help_heading(heading());
            let is_taken = taken.iter().any(|t| answers_to(t, &p.key));
            if others().all(|o| o.key != p.key) && !is_taken {
                flag = flag.visible_alias(p.key.clone());
            }
            if p.alias.is_some_and(|a| others().any(|o| o.alias == Some(a))) {
                flag = flag.short(None);
            }
            flags.push(flag);
        }
        flags.extend(PER_GADGET.iter().map(|(flag, value, help)| {
            let arg = Arg::new(own_id(name, flag)).long(format!("{name}.{flag}")).value_name(*value).help(*help);
            let arg = arg.help_heading(heading()).allow_hyphen_values(*flag != "record");
            match *flag {
                "max-entries" => arg.value_parser(parse_most),
                "record" => arg.value_parser(clap::value_parser!(PathBuf)),
                _ => arg,
            }
        }));
    }
    Ok(flags)
}

/// The flags on output, as they are for one gadget.
fn out_args(name: &str, args: &RunArgs, matches: &ArgMatches) -> OutputArgs {
    let own = |flag: &str| given::<String>(matches, &own_id(name, flag));
    let mut out = args.out.clone();
    if let Some(fields) = own("fields") {
        // Columns chosen for all give way to those chosen for this one.
        out.output = out.output.map(|o| if o.contains('=') { "columns".to_owned() } else { o });
        out.fields = fields;
    }
    out.filter = own("filter").or(out.filter);
    out.sort = own("sort").or(out.sort);
    out.max_entries = given::<u64>(matches, &own_id(name, "max-entries")).or(out.max_entries);
    out
}

pub(super) fn run(gadgets: Vec<Named>, setup: &Setup<'_>, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let (args, ctx) = (setup.args, setup.ctx);
    if args.record.is_some() {
        let each: Vec<String> = gadgets.iter().map(|g| format!("--{}.record FILE", g.name())).collect();
        return Err(CliError::user("--record writes one gadget's records, and several are to run")
            .hint(format!("give each a file of its own: {}", each.join(" "))));
    }
    if let mode @ (OutputMode::Folded | OutputMode::Flamegraph) = output_mode(&args.out)? {
        return Err(CliError::user(format!(
            "-o {} adds up the stacks of one gadget, and several are to run",
            mode.name()
        )));
    }
    let outs: Vec<OutputArgs> = gadgets.iter().map(|g| out_args(g.name(), args, matches)).collect();
    let width = gadgets.iter().map(|g| g.name().len()).max().unwrap_or(0);
    let over_tables = share_a_screen(&gadgets, args, matches)?;
    let record = |g: &Named| given::<PathBuf>(matches, &own_id(g.name(), "record"));
    distinct_recordings(&gadgets.iter().map(|g| (g.name(), record(g))).collect::<Vec<_>>())?;
    let options = |g: &Named, out: &OutputArgs| {
        let name = g.name();
        let params = given_params(&g.gadget, matches, |p| param_id(name, p));
        let record = record(g);
        let tag = Some(Tag { name: name.to_owned(), width, over_tables });
        LiveOptions { record, tag, ..setup.options(params, out, matches) }
    };
    let members = gadgets.into_iter().zip(&outs).map(|(g, out)| {
        let options = options(&g, out);
        (g.name().to_owned(), g.gadget, options)
    });
    let mut several = Several::load(members.collect()).map_err(|e| {
        let hint = own_flag(&e.source).map(|flag| format!("what is meant for one gadget is written --GADGET.{flag}"));
        let e = named(&e.gadget, refused(e.source, ctx));
        CliError { hint: e.hint.or(hint), ..e }
    })?;

    let page = Page::new(&several, over_tables);
    let mut sinks = Vec::new();
    for (i, ((name, sources), out)) in several.sources().zip(&outs).enumerate() {
        let mut terminal = Terminal::new(sources, out, &setup.names, ctx.verbose).map_err(|e| named(name, e))?;
        terminal.name_gadget(name);
        let tables = sources.iter().map(|s| over_tables && s.kind == SourceKind::Snapshot).collect();
        sinks.push(Shown { gadget: i, name: name.to_owned(), terminal, tables, page: &page });
    }
    several.attach(&mut sinks).map_err(|e| named(&e.gadget, refused(e.source, ctx)))?;
    if std::io::stdout().is_terminal() {
        let names: Vec<&str> = sinks.iter().map(|s| s.name.as_str()).collect();
        say(&format!("running {}; Ctrl-C ends them", names.join(", ")));
    }
    stop_when_nobody_reads(&setup.stop).map_err(|e| CliError::internal(format!("watching stdout: {e}")))?;
    let mut ended = several.run(&setup.stop, &mut sinks);
    // All are finished, and whatever becomes of their last words, the account comes.
    let finish_one =
        |(s, e): (&mut Shown<'_>, &mut Ended)| finish(&mut s.terminal, &mut e.summary).map_err(|e| named(&s.name, e));
    let finished: Vec<Result<(), CliError>> = sinks.iter_mut().zip(&mut ended).map(finish_one).collect();
    let code = report(&ended, &args.out, ctx.verbose)?;
    let failed = ended.into_iter().filter_map(|e| Some(named(&e.gadget, e.failed?.into())));
    let mut errors = failed.chain(finished.into_iter().filter_map(Result::err)).collect::<Vec<_>>();
    match errors.len() {
        0 => Ok(code),
        // One becomes the exit code, the others are said.
        _ => {
            let first = errors.remove(0);
            errors.iter().for_each(|e| say(e.render(ctx.verbose).trim_end()));
            Err(first)
        }
    }
}

/// Whether each gadget shows a table again and again, on a terminal, so that each can have its place there.
fn share_a_screen(gadgets: &[Named], args: &RunArgs, matches: &ArgMatches) -> Result<bool, CliError> {
    let times = given_times(matches);
    let is_table = |s: &DataSource| s.kind == SourceKind::Snapshot && may_be_cleared(s);
    let repeats = |g: &Named| {
        let mut sources = g.gadget.plans().iter().map(|p| &p.source);
        times.repeats(g.gadget.table_times()) && sources.all(is_table)
    };
    let columns = output_mode(&args.out)? == OutputMode::Columns;
    Ok(columns && gadgets.iter().all(repeats) && screen_size().is_some())
}

/// Two records in one file would be neither's.
fn distinct_recordings(records: &[(&str, Option<PathBuf>)]) -> Result<(), CliError> {
    let mut seen: Vec<(PathBuf, &str)> = Vec::new();
    for (gadget, path) in records.iter().filter_map(|(g, p)| Some((g, p.as_ref()?))) {
        let whole = std::path::absolute(path).unwrap_or_else(|_e| path.clone());
        if let Some((_, other)) = seen.iter().find(|(p, _)| *p == whole) {
            let message = format!("{other} and {gadget} are both to be recorded to {}", path.display());
            return Err(CliError::user(message).hint("give each a file of its own"));
        }
        seen.push((whole, gadget));
    }
    Ok(())
}

/// The flag that was meant for all and does not suit this one.
fn own_flag(e: &RunError) -> Option<&'static str> {
    match e {
        RunError::Filter(_) => Some("filter"),
        RunError::Sort(_) => Some("sort"),
        RunError::Limit(_) => Some("max-entries"),
        _ => None,
    }
}

/// An error of one of several gadgets says of which, once.
fn named(gadget: &str, e: CliError) -> CliError {
    match e.message.strip_prefix(gadget).is_some_and(|rest| rest.starts_with(": ")) {
        true => e,
        false => CliError { message: format!("{gadget}: {}", e.message), ..e },
    }
}

/// The output that the gadgets share.
#[derive(Default)]
struct Page {
    state: Mutex<PageState>,
}

#[derive(Default)]
struct PageState {
    /// Where tables have their places on a terminal, and the number of each gadget's first section.
    screen: Option<(Screen, Vec<usize>)>,
    /// Gadget and source whose rows stand last: rows of another need their own heading.
    last: Option<(usize, usize)>,
    /// What was said of the containers' tracker, which all share.
    told: BTreeSet<String>,
}

impl Page {
    /// With a place for each table, where that is wanted and nothing else would be in the way.
    fn new(several: &Several, over_tables: bool) -> Page {
        let only_tables = several.sources().all(|(_, s)| s.iter().all(|s| s.kind == SourceKind::Snapshot));
        let (mut titles, mut first) = (Vec::new(), Vec::new());
        for (name, sources) in several.sources() {
            first.push(titles.len());
            titles.extend(sources.iter().map(|s| title(name, s, sources.len())));
        }
        let screen = (over_tables && only_tables).then(|| (Screen::new(titles), first));
        Page { state: Mutex::new(PageState { screen, ..PageState::default() }) }
    }

    fn lock(&self) -> MutexGuard<'_, PageState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stands over a table of one of several gadgets.
fn title(gadget: &str, source: &DataSource, sources: usize) -> String {
    if sources == 1 { format!("{gadget}:") } else { format!("{gadget} ({}):", harmless(&source.name)) }
}

/// One gadget's way to the output.
struct Shown<'a> {
    gadget: usize,
    name: String,
    terminal: Terminal,
    /// By source: whether its rows do not say which gadget they are of.
    tables: Vec<bool>,
    page: &'a Page,
}

impl Shown<'_> {
    /// Draws a table in its place; `None` where there is no such place.
    fn on_screen(&mut self, source: usize, batch: &Batch) -> Option<Result<(), SinkError>> {
        let mut page = self.page.lock();
        let (screen, first) = page.screen.as_mut()?;
        // Asked each time: the window may have another size by now.
        let size = screen_size()?;
        let section = first.get(self.gadget)? + source;
        self.terminal.render_lines(source, batch, size.0, screen.room(section, size.1));
        let table = std::mem::take(self.terminal.buffer());
        screen.draw(section, &table, size, self.terminal.buffer());
        Some(self.terminal.flush())
    }
}

impl Sink for Shown<'_> {
    fn batch(&mut self, source: usize, batch: &Batch) -> Result<(), SinkError> {
        if let Some(drawn) = self.on_screen(source, batch) {
            return drawn;
        }
        if !self.terminal.render(source, batch) {
            return Ok(());
        }
        let mut page = self.page.lock();
        let this = Some((self.gadget, source));
        if std::mem::replace(&mut page.last, this) != this {
            self.terminal.head(source);
        }
        if self.tables[source] {
            let name = format!("{}:\n", self.name);
            self.terminal.buffer().splice(0..0, name.into_bytes());
        }
        // Written while the page is held: a batch is whole, and stands under its own heading.
        self.terminal.flush()
    }

    fn documents(&mut self, documents: &[Document]) -> Result<(), SinkError> {
        let mut page = self.page.lock();
        // Rows that follow need their heading again.
        page.last = None;
        self.terminal.documents(documents)
    }

    fn note(&mut self, note: Note) {
        if !self.terminal.tells(&note) {
            return;
        }
        let (text, again) = (note.to_string(), note.is_for_everybody());
        let text = match note {
            Note::Containers(_) if !self.page.lock().told.insert(text.clone()) => return,
            // These name the gadget themselves, or are of no gadget.
            Note::Containers(_) | Note::Running { .. } | Note::MissedRuns { .. } => text,
            _ => format!("{}: {text}", self.name),
        };
        say(&text);
        if again && self.page.lock().screen.is_some() {
            self.terminal.say_again(text);
        }
    }
}

/// The accounts, by gadget and source, and their sum.
fn report(ended: &[Ended], args: &OutputArgs, verbose: bool) -> Result<ExitCode, CliError> {
    let json = matches!(output_mode(args)?, OutputMode::Json | OutputMode::JsonPretty);
    let lost = ended.iter().any(|e| has_lost(&total(&e.summary), e.summary.closed));
    if args.ledger && json {
        say(&ledger_json(ended));
    } else {
        let all = args.ledger || verbose;
        let text = ledger_text(ended, |e, ledger| all || has_lost(ledger, e.summary.closed), all || lost);
        if !text.is_empty() {
            say(text.trim_end());
        }
    }
    Ok(if args.fail_on_loss && lost { ExitCode::from(Kind::Loss as u8) } else { ExitCode::SUCCESS })
}

fn sum(ended: &[Ended]) -> Ledger {
    let mut sum = Ledger::default();
    ended.iter().for_each(|e| sum.merge(&total(&e.summary)));
    sum
}

fn ledger_text(ended: &[Ended], shown: impl Fn(&Ended, &Ledger) -> bool, with_total: bool) -> String {
    let mut text = String::new();
    for e in ended {
        for (source, ledger) in e.summary.ledgers.iter().filter(|(_, ledger)| shown(e, ledger)) {
            text.push_str(&format!("{} ({source}) {}", e.gadget, ledger.summary()));
        }
    }
    if with_total {
        text.push_str(&format!("all gadgets {}", sum(ended).summary()));
    }
    text
}

/// `ledger` is the sum, as it is with one gadget.
fn ledger_json(ended: &[Ended]) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let gadgets = ended.iter().map(|e| {
        let sources = e.summary.ledgers.iter().map(|(source, l)| format!("{}:{}", quoted(source), l.to_json()));
        format!("{}:{{{}}}", quoted(&e.gadget), sources.collect::<Vec<_>>().join(","))
    });
    format!("{{\"ledger\":{},\"gadgets\":{{{}}}}}", sum(ended).to_json(), gadgets.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ig_event::Reason;
    use ig_runtime::instance::Summary;

    fn ended() -> Vec<Ended> {
        let mut lossy = Ledger { produced: 10, delivered: 7, ..Ledger::default() };
        lossy.loss.add(Reason::RingFull, 3);
        let well = Ledger { produced: 4, delivered: 4, ..Ledger::default() };
        let of = |gadget: &str, ledgers: Vec<(&str, Ledger)>| Ended {
            gadget: gadget.to_owned(),
            summary: Summary {
                ledgers: ledgers.into_iter().map(|(s, l)| (s.to_owned(), l)).collect(),
                ..Summary::default()
            },
            failed: None,
        };
        vec![of("trace_exec", vec![("exec", well)]), of("trace_open", vec![("open", lossy)])]
    }

    #[test]
    fn accounts_name_the_gadget_and_the_source_and_add_up() {
        let all = ledger_text(&ended(), |_, _| true, true);
        let lossy = ledger_text(&ended(), |_, l| l.lost() > 0, true);
        insta::assert_snapshot!(format!("{all}---\n{lossy}---\n{}\n", ledger_json(&ended())));
        assert_eq!(ledger_text(&ended()[..1], |_, l| l.lost() > 0, false), "");
    }

    #[test]
    fn two_gadgets_are_not_recorded_to_one_file() {
        let to = |path: &str| Some(PathBuf::from(path));
        assert!(distinct_recordings(&[("a", to("x")), ("b", None), ("c", to("y"))]).is_ok());
        let e = distinct_recordings(&[("a", to("x")), ("b", to("./x"))]).unwrap_err();
        assert_eq!(e.message, "a and b are both to be recorded to ./x");
    }
}

//! Standard output as a sink of batches: printers render into one reused buffer, which is written once per batch.
//!
//! A closed pipe is not an error: the reader has seen enough. The rows it did not get are counted as such.

use ig_event::{
    Batch, DataSource, FieldId, HostNames,
    output::{OutputMode, Printer, PrinterEnv, printer},
};
use ig_runtime::{
    instance::{Note, Sink, SinkError, Stop},
    wasm::Document,
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use std::{
    io::{IsTerminal, Read, Write},
    os::fd::AsFd,
    sync::Arc,
};

use crate::{
    args::OutputArgs,
    columns::{self, Columns},
    documents::Documents,
    error::{CliError, Kind},
};

/// Annotation of a table: `false` keeps it from clearing the screen.
const CLEAR_SCREEN: &str = "cli.clear-screen-before";

/// Prints batches to stdout and notes to stderr.
pub struct Terminal {
    printers: Vec<Box<dyn Printer + Send>>,
    mode: OutputMode,
    buf: Vec<u8>,
    verbose: bool,
    header_due: bool,
    documents: Documents,
    /// Tables take each other's place on the screen.
    refresh: bool,
    /// What was said meanwhile, and wiped away by the next table.
    wiped: Vec<String>,
}

/// Messages that are said once more at the end.
const MAX_WIPED: usize = 32;

/// The output mode asked for, or columns.
pub fn output_mode(args: &OutputArgs) -> Result<OutputMode, CliError> {
    match &args.output {
        None => Ok(OutputMode::Columns),
        Some(m) if Columns::of(m)?.is_some() => match args.fields.is_empty() {
            true => Ok(OutputMode::Columns),
            false => Err(CliError::user(format!("-o {m} and --fields {} both choose the columns", args.fields))
                .hint("leave one of them out")),
        },
        Some(m) => m.parse().map_err(|e: ig_event::output::OutputError| CliError::chain(Kind::User, &e, e.hint())),
    }
}

/// Whether the gadget has its tables take each other's place.
pub(crate) fn may_be_cleared(source: &DataSource) -> bool {
    source.annotations.get(CLEAR_SCREEN).is_none_or(|v| v != "false")
}

/// Columns and lines of the terminal on stdout, as they are by now; `None` when stdout is none.
pub(crate) fn screen_size() -> Option<(usize, usize)> {
    let (width, height) = terminal_size::terminal_size_of(std::io::stdout())?;
    Some((width.0.into(), height.0.into()))
}

impl Terminal {
    /// One printer per source, compiled for these fields.
    pub fn new(
        sources: &[Arc<DataSource>],
        args: &OutputArgs,
        names: &Arc<HostNames>,
        verbose: bool,
    ) -> Result<Self, CliError> {
        let mode = output_mode(args)?;
        let columns = args.output.as_deref().map_or(Ok(None), Columns::of)?;
        let width = terminal_width();
        if sources.is_empty() && matches!(mode, OutputMode::Folded | OutputMode::Flamegraph) {
            return Err(CliError::user("the gadget has no rows, so there are no stacks to fold")
                .hint("-o folded and -o flamegraph are for gadgets with stacks, such as profile_cpu"));
        }
        let mut printers = Vec::with_capacity(sources.len());
        for source in sources {
            let selection = columns::selection(columns, &args.fields, source)?;
            let env = PrinterEnv { names: names.clone(), zone: jiff::tz::TimeZone::system(), width };
            printers
                .push(printer(source, mode, &selection, env).map_err(|e| CliError::chain(Kind::User, &e, e.hint()))?);
        }
        let (buf, documents) = (Vec::with_capacity(128 << 10), Documents::new(mode));
        Ok(Terminal { printers, mode, buf, verbose, header_due: true, documents, refresh: false, wiped: Vec::new() })
    }

    /// Fields that some printer reads, by source.
    pub fn needed_fields(&self, source: usize) -> Vec<FieldId> {
        self.printers[source].needed_fields()
    }

    /// Lets each table take the place of the one before, if stdout is a terminal. Not with several sources: each would wipe
    /// away the others; and not where the gadget does not want it.
    pub fn refresh(&mut self, sources: &[Arc<DataSource>]) {
        let wanted = sources.iter().all(|s| may_be_cleared(s));
        self.refresh = sources.len() == 1 && wanted && std::io::stdout().is_terminal();
    }

    /// Prints what comes before the first row, so that a quiet gadget still shows that it runs.
    pub fn start(&mut self) -> Result<(), SinkError> {
        if std::mem::take(&mut self.header_due) && self.mode != OutputMode::None {
            for p in &mut self.printers {
                p.header(&mut self.buf);
            }
        }
        self.flush()
    }

    /// Says of documents which of several gadgets they are of.
    pub(crate) fn name_gadget(&mut self, gadget: &str) {
        self.documents.name_gadget(gadget);
    }

    /// Whether a note is shown.
    pub(crate) fn tells(&self, note: &Note) -> bool {
        note.is_for_everybody() || self.verbose
    }

    /// Appends rows to what is to be written; false where nothing is shown.
    pub(crate) fn render(&mut self, source: usize, batch: &Batch) -> bool {
        let shown = self.mode != OutputMode::None;
        if shown {
            self.printers[source].batch(batch, &mut self.buf);
        }
        shown
    }

    /// As `render`, cut to so many lines of this width.
    pub(crate) fn render_lines(&mut self, source: usize, batch: &Batch, width: usize, lines: usize) -> bool {
        self.printers[source].in_section(width, lines);
        self.render(source, batch)
    }

    /// What is to be written.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buf
    }

    /// Says a note once more at the end, because it will be wiped off the screen.
    pub(crate) fn say_again(&mut self, text: String) {
        if self.wiped.len() < MAX_WIPED && std::io::stderr().is_terminal() {
            self.wiped.push(text);
        }
    }

    /// Puts the heading of a source in front of what is to be written.
    pub(crate) fn head(&mut self, source: usize) {
        let mut heading = Vec::new();
        self.printers[source].header(&mut heading);
        self.buf.splice(0..0, heading);
    }

    /// True where rows are added up, and nothing is written before the end.
    pub(crate) fn writes_at_the_end(&self) -> bool {
        matches!(self.mode, OutputMode::Folded | OutputMode::Flamegraph)
    }

    /// Prints what comes after the last row.
    pub fn finish(&mut self) -> Result<(), SinkError> {
        for p in &mut self.printers {
            p.finish(&mut self.buf);
        }
        self.flush()?;
        self.wiped.drain(..).for_each(|text| say(&text));
        Ok(())
    }

    /// Writes what was rendered, at once.
    pub(crate) fn flush(&mut self) -> Result<(), SinkError> {
        if self.buf.is_empty() {
            return Ok(());
        }
        let r = write_out(&self.buf);
        self.buf.clear();
        r.map_err(|e| match e.kind() {
            std::io::ErrorKind::BrokenPipe => SinkError::Closed,
            _ => SinkError::Io(e),
        })
    }
}

impl Sink for Terminal {
    fn batch(&mut self, source: usize, batch: &Batch) -> Result<(), SinkError> {
        if self.refresh
            && let Some((width, height)) = screen_size()
        {
            // Asked each time: the window may have another size by now.
            self.printers[source].on_screen(width, height);
        }
        self.render(source, batch);
        self.flush()
    }

    fn documents(&mut self, documents: &[Document]) -> Result<(), SinkError> {
        self.documents.render(documents, &mut self.buf);
        if std::io::stdout().is_terminal() {
            self.buf = harmless(&String::from_utf8_lossy(&self.buf)).into_bytes();
        }
        self.flush()
    }

    fn note(&mut self, note: Note) {
        if self.tells(&note) {
            let text = note.to_string();
            say(&text);
            if self.refresh && note.is_for_everybody() {
                self.say_again(text);
            }
        }
    }
}

/// Writes all of `bytes` to stdout, also where somebody has made it non-blocking.
fn write_out(mut bytes: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => wait_for_room()?,
            Err(e) => return Err(e),
        }
    }
    loop {
        match out.flush() {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => wait_for_room()?,
            done => return done,
        }
    }
}

fn wait_for_room() -> std::io::Result<()> {
    let out = std::io::stdout();
    match poll(&mut [PollFd::new(&out, PollFlags::OUT)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Ends the run when the reader of stdout goes away, also while there is nothing to write to it.
pub fn stop_when_nobody_reads(stop: &Stop) -> std::io::Result<()> {
    let (flag, mut waker) = (stop.flag(), stop.waker()?);
    // The thread sleeps until then, or for ever; it ends with the process.
    let watch = move || {
        let out = std::io::stdout();
        loop {
            // Errors and hang-ups are reported unasked; a plain file reports neither.
            let mut fds = [PollFd::new(&out, PollFlags::empty())];
            match poll(&mut fds, None) {
                Err(Errno::INTR) => {}
                Ok(_) if fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) => {
                    flag.store(true, std::sync::atomic::Ordering::SeqCst);
                    match waker.write(b"s") {
                        Ok(_) | Err(_) => return,
                    }
                }
                Ok(_) | Err(_) => return,
            }
        }
    };
    std::thread::Builder::new().name("stdout-watch".into()).stack_size(64 << 10).spawn(watch).map(|_| ())
}

/// An input that can be waited for, and whose waiting ends when the run is to stop: it then reads as ended.
pub struct Interruptible<R> {
    pub input: R,
    pub stop: Arc<Stop>,
}

impl<R: Read + AsFd> Read for Interruptible<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let mut fds = [PollFd::new(&self.input, PollFlags::IN), PollFd::new(&*self.stop, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
                Ok(_) if self.stop.requested() => return Ok(0),
                Ok(_) if fds[0].revents().is_empty() => {}
                Ok(_) => return self.input.read(buf),
            }
        }
    }
}

/// Text that may hold anything, made safe for a terminal: control characters and those that change the direction of
/// writing are shown as escapes. New lines and tabs stay.
pub(crate) fn harmless(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        let turns =
            matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() && !matches!(c, '\n' | '\t') || turns {
            safe.extend(c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// A line for people, on stderr: often with words of an image, a registry or a guest in it. Failing to complain is not
/// worth an error.
pub fn say(text: &str) {
    let mut err = std::io::stderr().lock();
    match writeln!(err, "{}", harmless(text)) {
        Ok(()) | Err(_) => {}
    }
}

/// Columns of the terminal on stdout; `None` when stdout is none.
pub(crate) fn terminal_width() -> Option<usize> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    terminal_size::terminal_size_of(std::io::stdout()).map(|(w, _)| w.0 as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_of_a_gadget_without_rows_are_refused() {
        for mode in ["folded", "flamegraph"] {
            let args = OutputArgs { output: Some(mode.into()), ..OutputArgs::default() };
            let e = Terminal::new(&[], &args, &Arc::new(HostNames::default()), false).map(drop).unwrap_err();
            assert_eq!(
                (e.kind, e.message.as_str()),
                (Kind::User, "the gadget has no rows, so there are no stacks to fold")
            );
        }
    }

    #[test]
    fn what_is_said_cannot_steer_the_terminal() {
        assert_eq!(harmless("error: a\tb\nhint: é 日本"), "error: a\tb\nhint: é 日本");
        assert_eq!(harmless("\x1b[2J\r\u{9b}x\u{202e}y\u{2067}"), "\\u{1b}[2J\\u{d}\\u{9b}x\\u{202e}y\\u{2067}");
    }
}

//! Which gadgets a `run` command line names, told before their flags are known.
//!
//! A gadget's flags can only be parsed once its image is open, and an image can only be opened once it is told from the
//! value of a flag that nobody knows yet. So the line is read again and again: a word that cannot be a value is a gadget;
//! each gadget that is opened makes its flags known, and with them the words that follow those flags.

use crate::{
    args::{Cli, GlobalArgs, PullArgs, RunArgs},
    context::Context,
    error::CliError,
    images::Images,
};
use clap::{Arg, Args, Command, CommandFactory, FromArgMatches};
use ig_runtime::{
    bpf::KernelBtf,
    gadget::params::{Param, ParamType},
    instance::Gadget,
};
use std::{ffi::OsString, rc::Rc};

use super::{image::escaped, run::GADGET_HEADING, several::answers_to};
use crate::tables;

/// An opened gadget.
pub(crate) struct Named {
    /// As the user called it.
    pub(crate) text: String,
    pub(crate) gadget: Gadget,
}

impl Named {
    /// As rows, flags and messages call it.
    pub(crate) fn name(&self) -> &str {
        &self.gadget.metadata().name
    }

    /// The parameter that a flag of this name sets, `KEY` or `GADGET.KEY`.
    fn param(&self, flag: &str) -> Option<&Param> {
        let key = flag.strip_prefix(self.name()).and_then(|rest| rest.strip_prefix('.')).unwrap_or(flag);
        self.gadget.params().iter().find(|p| p.key == key)
    }

    fn alias(&self, letter: char) -> Option<&Param> {
        self.gadget.params().iter().find(|p| p.alias == Some(letter))
    }
}

/// Opens the gadgets of a `run` command line, in its order. None where the command is another, or names no gadget.
pub(crate) fn prepare(args: &[OsString]) -> Result<Vec<Named>, CliError> {
    let mut opened: Vec<Named> = Vec::new();
    let (mut images, kernel) = (None, Rc::new(KernelBtf::new()));
    loop {
        let Some(line) = Line::read(args, &opened) else { return Ok(Vec::new()) };
        let names = line.gadgets();
        let Some(next) = names.iter().find(|n| opened.iter().all(|o| o.text != **n)) else {
            opened.retain(|o| names.contains(&o.text));
            opened.sort_by_key(|o| names.iter().position(|n| *n == o.text));
            line.check(&opened)?;
            return Ok(opened);
        };
        if let Some((flag, word)) = &line.stray {
            return Err(CliError::user(format!("`{}` after --{flag} is no gadget", escaped(word)))
                .hint(format!("a switch takes its value behind an equals sign: --{flag}={word}")));
        }
        if images.is_none() {
            let Some(found) = line.images()? else { return Ok(Vec::new()) };
            images = Some(found);
        }
        let Some(images) = &images else { return Ok(Vec::new()) };
        let gadget = Gadget::open_with(images.resolve(next)?, kernel.clone())?;
        opened.push(Named { text: next.clone(), gadget });
    }
}

/// Opens gadgets by name, where the command line could not be read before it was parsed.
pub(crate) fn open_all(names: &[String], pull: &PullArgs, ctx: &Context) -> Result<Vec<Named>, CliError> {
    let (images, kernel) = (Images::new(Some(pull), ctx)?, Rc::new(KernelBtf::new()));
    let open = |name: &String| {
        let gadget = Gadget::open_with(images.resolve(name)?, kernel.clone())?;
        Ok(Named { text: name.clone(), gadget })
    };
    names.iter().map(open).collect()
}

/// The gadgets must be those that the whole parse found, and each must be told from the others by its name.
pub(crate) fn check(gadgets: &[Named], parsed: &[String]) -> Result<(), CliError> {
    for (i, g) in gadgets.iter().enumerate() {
        if gadgets[..i].iter().any(|other| other.name() == g.name()) {
            return Err(twice(g.name()));
        }
    }
    if let Some(text) = parsed.iter().enumerate().find_map(|(i, p)| parsed[..i].contains(p).then_some(p)) {
        return Err(twice(text));
    }
    if gadgets.iter().map(|g| &g.text).ne(parsed) {
        return Err(CliError::user(format!(
            "it cannot be told which words are gadgets: {}",
            escaped(&parsed.join(", "))
        ))
        .hint("write the values of flags behind an equals sign: --flag=value"));
    }
    Ok(())
}

fn twice(name: &str) -> CliError {
    CliError::user(format!("gadget {} is named twice", escaped(name)))
        .hint("rows and flags are told apart by the gadget's name: run the second one in another `ig`")
}

/// Whether a word is a flag of `run` whose value is the next word.
pub(crate) fn run_flag_takes_value(text: &str) -> bool {
    let run = run_flags();
    let flags = Flags { ours: run.get_arguments().collect(), opened: &[] };
    let flag = flags.read(text);
    text.starts_with('-') && flag.theirs.is_empty() && flag.takes_next == Some(true)
}

/// The flags that a `run` may have before its gadget is known.
fn run_flags() -> Command {
    RunArgs::augment_args(GlobalArgs::augment_args(Command::new("run"))).args(tables::any_flags(GADGET_HEADING))
}

/// What a word in front of another means for it.
#[derive(Clone, Debug, PartialEq)]
enum Before {
    Nothing,
    /// A flag that nobody knows: what follows may be its value.
    Unknown,
    /// A gadget's switch.
    Switch(String),
}

/// A `run` command line, as far as it can be understood.
struct Line {
    /// Flags that every `run` has, with their values.
    ours: Vec<OsString>,
    program: OsString,
    /// Words that can only be gadgets.
    sure: Vec<String>,
    /// The first word that may be one, or the value of a flag that nobody knows yet.
    maybe: Option<String>,
    /// A switch, and `true` or `false` as a word of its own behind it.
    stray: Option<(String, String)>,
    /// Flags of gadgets, without dashes; letters one by one.
    theirs: Vec<String>,
}

impl Line {
    /// `None` where it is no `run`.
    fn read(args: &[OsString], opened: &[Named]) -> Option<Line> {
        let run = run_flags();
        let flags = Flags { ours: run.get_arguments().collect(), opened };
        let (mut line, mut is_run) = (Line::new(args.first()?), false);
        let (mut before, mut i) = (Before::Nothing, 1);
        while let Some(arg) = args.get(i) {
            i += 1;
            let text = arg.to_string_lossy();
            if text == "--" {
                break;
            }
            if !text.starts_with('-') || text == "-" {
                match is_run {
                    false if text != "run" => return None,
                    false => is_run = true,
                    true => line.word(&text, &before),
                }
                before = Before::Nothing;
                continue;
            }
            let flag = flags.read(&text);
            before = flag.before();
            line.theirs.extend(flag.theirs);
            if flag.ours {
                line.ours.push(arg.clone());
            }
            if flag.takes_next == Some(true)
                && let Some(value) = args.get(i)
            {
                if flag.ours {
                    line.ours.push(value.clone());
                }
                i += 1;
            }
        }
        is_run.then_some(line)
    }

    fn new(program: &OsString) -> Line {
        let program = program.clone();
        Line { ours: Vec::new(), program, sure: Vec::new(), maybe: None, stray: None, theirs: Vec::new() }
    }

    fn word(&mut self, text: &str, before: &Before) {
        match before {
            Before::Unknown if self.maybe.is_none() => self.maybe = Some(text.to_owned()),
            Before::Unknown => {}
            Before::Switch(flag) if matches!(text, "true" | "false") => {
                self.stray = Some((flag.clone(), text.to_owned()));
                self.sure.push(text.to_owned());
            }
            Before::Nothing | Before::Switch(_) => self.sure.push(text.to_owned()),
        }
    }

    /// The words to take for gadgets. Where every word may be a value, the first is taken, or nothing could ever be known.
    fn gadgets(&self) -> Vec<String> {
        match (&self.sure[..], &self.maybe) {
            ([], Some(maybe)) => vec![maybe.clone()],
            (sure, _) => sure.to_vec(),
        }
    }

    /// A flag that several gadgets have must say which one it is for.
    fn check(&self, opened: &[Named]) -> Result<(), CliError> {
        for flag in &self.theirs {
            let mut letters = flag.chars();
            let letter = letters.next().filter(|_| letters.next().is_none());
            let has = |g: &&Named| match letter {
                Some(letter) => g.alias(letter).is_some(),
                None => g.gadget.params().iter().any(|p| p.key == *flag),
            };
            let have: Vec<&Named> = opened.iter().filter(has).collect();
            if have.len() < 2 {
                continue;
            }
            let key = |g: &&Named| letter.and_then(|c| g.alias(c)).map_or(flag.clone(), |p| p.key.clone());
            let names: Vec<&str> = have.iter().map(|g| g.name()).collect();
            let forms: Vec<String> = have.iter().map(|g| format!("--{}.{}", g.name(), key(g))).collect();
            let dashes = if letter.is_some() { "-" } else { "--" };
            let message = format!("{dashes}{flag} is a parameter of {}: say of which it is meant", names.join(", "));
            return Err(CliError::user(message).hint(format!("write {}", forms.join(" or "))));
        }
        Ok(())
    }

    /// Where images come from, by the flags that are known. Where even those are wrong, that is said: the whole parse would begin
    /// with the gadget's flags, which nobody knows then. `None` leaves it to the whole parse all the same.
    fn images(&self) -> Result<Option<Images>, CliError> {
        let words = [self.program.clone(), "run".into(), "-".into()];
        let matches = match Cli::command().try_get_matches_from(words.into_iter().chain(self.ours.clone())) {
            Ok(matches) => matches,
            Err(e) => {
                let text = e.render().to_string();
                return Err(CliError::user(text.strip_prefix("error: ").unwrap_or(&text).trim_end()));
            }
        };
        let Some(run) = matches.subcommand_matches("run") else { return Ok(None) };
        let (Ok(global), Ok(run)) = (GlobalArgs::from_arg_matches(run), RunArgs::from_arg_matches(run)) else {
            return Ok(None);
        };
        Images::new(Some(&run.pull), &Context::new(&global)?).map(Some)
    }
}

/// Flags that are known, so far.
struct Flags<'a> {
    ours: Vec<&'a Arg>,
    opened: &'a [Named],
}

/// One word that begins with a dash.
#[derive(Debug, Default, PartialEq)]
struct Flag {
    /// All of it is of `run` itself.
    ours: bool,
    /// Whether the next word is its value; `None` where nobody knows.
    takes_next: Option<bool>,
    theirs: Vec<String>,
}

impl Flag {
    fn before(&self) -> Before {
        match (self.takes_next, self.theirs.last()) {
            (None, _) => Before::Unknown,
            (Some(false), Some(flag)) => Before::Switch(flag.clone()),
            (Some(_), _) => Before::Nothing,
        }
    }
}

impl Flags<'_> {
    fn read(&self, text: &str) -> Flag {
        let Some(long) = text.strip_prefix("--") else { return self.cluster(text.trim_start_matches('-')) };
        let (name, inline) = long.split_once('=').map_or((long, false), |(name, _)| (name, true));
        let is = |a: &&&Arg| answers_to(a, name);
        if let Some(arg) = self.ours.iter().find(is) {
            // Those for tables are known to the whole parse only where a gadget has tables.
            let ours = !tables::any_flags(GADGET_HEADING).iter().any(|m| is(&&m));
            return Flag { ours, takes_next: Some(arg.get_action().takes_values() && !inline), theirs: Vec::new() };
        }
        let theirs = vec![name.to_owned()];
        let own = super::several::PER_GADGET.iter().any(|(flag, ..)| {
            self.opened.iter().any(|g| name.strip_prefix(g.name()).is_some_and(|rest| rest == format!(".{flag}")))
        });
        let takes = match self.opened.iter().find_map(|g| g.param(name)) {
            Some(p) => Some(p.ty != ParamType::Bool),
            None => own.then_some(true),
        };
        // With a value behind an equals sign it is no matter who knows it.
        Flag { ours: false, takes_next: if inline { Some(false) } else { takes }, theirs }
    }

    /// A bundle of short flags such as `vo`: the first that takes a value takes the rest of the word, or the next.
    fn cluster(&self, letters: &str) -> Flag {
        let mut flag = Flag { ours: true, takes_next: Some(false), theirs: Vec::new() };
        for (at, c) in letters.char_indices() {
            let ours = self.ours.iter().find(|a| a.get_short() == Some(c)).map(|a| a.get_action().takes_values());
            let takes = match ours {
                Some(takes) => Some(takes),
                None => {
                    flag.ours = false;
                    flag.theirs.push(c.to_string());
                    self.opened.iter().find_map(|g| g.alias(c)).map(|p| p.ty != ParamType::Bool)
                }
            };
            match takes {
                Some(false) => {}
                Some(true) => {
                    flag.takes_next = Some(at + c.len_utf8() == letters.len());
                    return flag;
                }
                None => {
                    flag.takes_next = None;
                    return flag;
                }
            }
        }
        flag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read before any gadget is open: the flags of `run`, and the gadgets.
    fn read(line: &str) -> Option<(String, String)> {
        let args: Vec<OsString> = line.split(' ').map(Into::into).collect();
        let line = Line::read(&args, &[])?;
        let ours: Vec<_> = line.ours.iter().map(|a| a.to_string_lossy().into_owned()).collect();
        Some((ours.join(" "), line.gadgets().join(" ")))
    }

    fn is(ours: &str, gadgets: &str) -> Option<(String, String)> {
        Some((ours.to_owned(), gadgets.to_owned()))
    }

    #[test]
    fn gadget_flags_are_left_out_until_the_gadget_is_known() {
        assert_eq!(read("ig run trace_exec"), is("", "trace_exec"));
        assert_eq!(read("ig run trace_exec --pid 5 -o json --paths"), is("-o json", "trace_exec"));
        assert_eq!(read("ig -v run --store /s trace_exec --pid=5 -F a==b"), is("-v --store /s -F a==b", "trace_exec"));
        assert_eq!(read("ig run -vo json trace_exec -k"), is("-vo json", "trace_exec"));
        assert_eq!(read("ig run -ojson x"), is("-ojson", "x"));
        assert_eq!(read("ig image list"), None);
        assert_eq!(read("ig"), None);
    }

    #[test]
    fn a_word_behind_an_unknown_flag_is_a_gadget_only_where_there_is_no_other() {
        assert_eq!(read("ig run a b --pid 5 c"), is("", "a b c"));
        assert_eq!(read("ig run --pid 5 a"), is("", "a"));
        assert_eq!(read("ig run --paths a"), is("", "a"));
        assert_eq!(read("ig run -k a b"), is("", "b"));
        assert_eq!(read("ig run --map-fetch-interval 2s a"), is("", "a"));
        assert_eq!(read("ig run a -- b"), is("", "a"));
    }
}

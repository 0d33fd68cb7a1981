//! `ig trace exec`, `ig top file` …: the commands that users of earlier tools know, as other spellings of `ig run GADGET`.
//!
//! What each means is in `table`. A command line is rewritten word by word before it is parsed: the verb becomes the
//! gadget, an old flag becomes what does its work today, or an error that names it. All other words stay as they are.

mod table;

use crate::{columns::Columns, commands::gadgets::run_flag_takes_value, error::CliError};
use clap::Command;
use std::ffi::{OsStr, OsString};
use table::{CATEGORIES, GONE, OldFlag, To, VERBS, Verb};

/// A command line that was written with a verb.
#[derive(Debug)]
pub struct Translated {
    pub args: Vec<OsString>,
    verb: &'static Verb,
}

impl Translated {
    /// Tells the old flags in the help of the gadget.
    pub fn extend(&self, command: Command) -> Command {
        command.mut_subcommand("run", |run| {
            let before = run.get_after_help().map(|text| format!("{text}\n\n")).unwrap_or_default();
            run.after_help(format!("{before}{}", old_flags(self.verb)).trim_end().to_owned())
        })
    }
}

/// The command line with `run GADGET` in place of a verb; `None` where there is no verb in it, or only a part of one.
pub fn translate(args: &[OsString]) -> Result<Option<Translated>, CliError> {
    let Some((first, category)) = next_word(args, 1) else { return Ok(None) };
    let single = VERBS.iter().find(|v| v.category.is_empty() && v.name == category);
    let (second, verb) = match single {
        Some(verb) => (first, verb),
        None => {
            if let Some(gone) = GONE.iter().find(|g| g.category.is_empty() && g.name == category) {
                return Err(gone.error());
            }
            if CATEGORIES.iter().all(|(name, _)| *name != category) {
                return Ok(None);
            }
            let Some((second, name)) = next_word(args, first + 1) else { return Ok(None) };
            if let Some(gone) = GONE.iter().find(|g| g.category == category && g.name == name) {
                return Err(gone.error());
            }
            let is = |v: &&Verb| v.category == category && v.name == name;
            match VERBS.iter().find(is) {
                Some(verb) => (second, verb),
                // Clap knows the names, and suggests near ones.
                None => return Ok(None),
            }
        }
    };
    let mut out: Vec<OsString> = args[..second].to_vec();
    if single.is_none() {
        out.remove(first);
    }
    out.extend(["run".into(), verb.image.into()]);
    let mut line = Line { verb, out, fields: Vec::new(), chosen: false };
    line.read(&args[second + 1..])?;
    Ok(Some(Translated { args: line.finish(), verb }))
}

/// The next word that is neither a flag of every command nor its value.
fn next_word(args: &[OsString], from: usize) -> Option<(usize, String)> {
    let mut i = from;
    while let Some(arg) = args.get(i) {
        let text = arg.to_str()?;
        match text {
            "--config" | "--store" => i += 2,
            "-v" | "--verbose" | "--auto-mount-filesystems" | "--auto-sd-unit-restart" => i += 1,
            _ if text.starts_with("--config=") || text.starts_with("--store=") => i += 1,
            _ if text.starts_with('-') => return None,
            _ => return Some((i, text.to_owned())),
        }
    }
    None
}

struct Line {
    verb: &'static Verb,
    out: Vec<OsString>,
    /// Fields that an old flag added to the columns.
    fields: Vec<&'static str>,
    /// The user chose columns.
    chosen: bool,
}

impl Line {
    fn flags(&self) -> impl Iterator<Item = &'static OldFlag> {
        self.verb.flags.iter().copied().flatten()
    }

    fn read(&mut self, args: &[OsString]) -> Result<(), CliError> {
        let mut i = 0;
        while let Some(arg) = args.get(i) {
            i += 1;
            let text = arg.to_string_lossy();
            if text == "--" {
                self.out.extend(args[i - 1..].iter().cloned());
                return Ok(());
            }
            if text.starts_with("--fields") {
                self.chosen = true;
            }
            let next = args.get(i).map(OsString::as_os_str);
            let used = match text.strip_prefix("--") {
                Some(long) => self.long(long, next)?,
                None => match text.strip_prefix('-').filter(|letters| !letters.is_empty()) {
                    Some(letters) => self.short(letters, next)?,
                    None => None,
                },
            };
            match used {
                Some(used) => i += used,
                None => {
                    self.out.push(arg.clone());
                    if run_flag_takes_value(&text)
                        && let Some(value) = next
                    {
                        self.out.push(value.to_owned());
                        i += 1;
                    }
                }
            }
        }
        Ok(())
    }

    /// How many of the following words were used; `None` where it is no old flag.
    fn long(&mut self, long: &str, next: Option<&OsStr>) -> Result<Option<usize>, CliError> {
        let (name, inline) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
        let Some(flag) = self.flags().find(|f| f.long == name) else { return Ok(None) };
        if !flag.value {
            self.switch(flag, inline)?;
            return Ok(Some(0));
        }
        let (value, used) = match inline {
            Some(value) => (value.to_owned(), 0),
            None => (self.value(flag, next)?, 1),
        };
        self.set(flag, &value)?;
        Ok(Some(used))
    }

    /// A bundle of letters; from the first that is no old flag on it is left as it is.
    fn short(&mut self, letters: &str, next: Option<&OsStr>) -> Result<Option<usize>, CliError> {
        for (at, c) in letters.char_indices() {
            let Some(flag) = self.flags().find(|f| f.short == Some(c)) else {
                if at == 0 {
                    return Ok(None);
                }
                let rest = format!("-{}", &letters[at..]);
                let takes = run_flag_takes_value(&rest);
                self.out.push(rest.into());
                self.out.extend(next.filter(|_| takes).map(OsStr::to_owned));
                return Ok(Some(usize::from(takes && next.is_some())));
            };
            let rest = &letters[at + c.len_utf8()..];
            if !flag.value {
                match rest.strip_prefix('=') {
                    Some(value) => {
                        self.switch(flag, Some(value))?;
                        return Ok(Some(0));
                    }
                    None => self.switch(flag, None)?,
                }
                continue;
            }
            let (value, used) = match rest.trim_start_matches('=') {
                "" => (self.value(flag, next)?, 1),
                value => (value.to_owned(), 0),
            };
            self.set(flag, &value)?;
            return Ok(Some(used));
        }
        Ok(Some(0))
    }

    fn value(&self, flag: &OldFlag, next: Option<&OsStr>) -> Result<String, CliError> {
        let value = next.and_then(OsStr::to_str);
        value.map(str::to_owned).ok_or_else(|| {
            CliError::user(format!("--{} of {} needs a value", flag.long, self.verb))
                .hint(format!("see {} --help", self.verb))
        })
    }

    fn switch(&mut self, flag: &'static OldFlag, value: Option<&str>) -> Result<(), CliError> {
        let on = match value {
            None | Some("true" | "1" | "t") => true,
            Some("false" | "0" | "f") => false,
            Some(other) => {
                return Err(CliError::user(format!(
                    "--{} of {}: {other:?} is neither true nor false",
                    flag.long, self.verb
                )));
            }
        };
        self.set(flag, if on { "true" } else { "false" })
    }

    fn set(&mut self, flag: &'static OldFlag, value: &str) -> Result<(), CliError> {
        match flag.to {
            To::Flag(new) => self.out.push(format!("--{new}={value}").into()),
            To::Shown { param, fields } => {
                if value == "true" {
                    self.fields.extend(fields);
                }
                self.out.extend(param.map(|p| format!("--{p}={value}").into()));
            }
            // A bare number was seconds; what has a unit is written as it is today.
            To::Seconds(new) => {
                let unit = if value.parse::<u64>().is_ok() { "s" } else { "" };
                self.out.push(format!("--{new}={value}{unit}").into());
            }
            To::Nothing(why) => {
                return Err(CliError::user(format!("{} has no --{} any more", self.verb, flag.long)).hint(why));
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Vec<OsString> {
        let modes = self.out.windows(2).filter(|w| w[0] == "-o" || w[0] == "--output").map(|w| w[1].to_string_lossy());
        let inline = self.out.iter().filter_map(|a| {
            let text = a.to_str()?;
            text.strip_prefix("--output=").or_else(|| text.strip_prefix("-o"))
        });
        let has_list = |mode: &str| mode.contains('=') && !matches!(Columns::of(mode), Ok(None));
        let chosen = self.chosen || modes.into_iter().any(|m| has_list(&m)) || inline.into_iter().any(has_list);
        if !chosen && !self.fields.is_empty() {
            let list: Vec<String> = self.fields.iter().map(|f| format!("+{f}")).collect();
            // Before a `--`, after which no flag is one.
            let at = self.out.iter().position(|a| a == "--").unwrap_or(self.out.len());
            self.out.insert(at, format!("--fields={}", list.join(",")).into());
        }
        self.out
    }
}

/// Adds the verbs to the commands, for help, completion and suggestions; their command lines never get that far.
pub fn extend(command: Command) -> Command {
    let stub = |v: &Verb| {
        let same =
            format!("The same as `ig run {0}`, whose flags it takes: see `{v} --help`.\n\n{1}", v.image, old_flags(v));
        Command::new(v.name).about(v.about).after_help(same.trim_end().to_owned())
    };
    let command = CATEGORIES.iter().fold(command, |command, (category, about)| {
        let verbs = VERBS.iter().filter(|v| v.category == *category).map(stub);
        let text = format!("Each is a gadget: `ig {category} NAME` is `ig run GADGET`, with the same flags.");
        let category = Command::new(*category).about(*about).after_help(text);
        command.subcommand(category.subcommand_required(true).arg_required_else_help(true).subcommands(verbs))
    });
    command.subcommands(VERBS.iter().filter(|v| v.category.is_empty()).map(stub))
}

/// What the flags of before have become.
fn old_flags(verb: &Verb) -> String {
    let mut text = String::new();
    for flag in verb.flags.iter().copied().flatten() {
        let short = flag.short.map_or(String::new(), |c| format!("-{c}, "));
        let value = match flag.to {
            _ if !flag.value => "",
            To::Seconds(_) => " N",
            _ => " VALUE",
        };
        let now = match flag.to {
            To::Flag(new) => format!("--{new}"),
            To::Shown { param, fields } => {
                let fields: Vec<String> = fields.iter().map(|f| format!("+{f}")).collect();
                let param = param.map_or(String::new(), |p| format!("--{p} "));
                format!("{param}--fields={}", fields.join(","))
            }
            To::Seconds(new) => format!("--{new} Ns"),
            To::Nothing(_) => continue,
        };
        text.push_str(&format!("  {short}--{}{value}  {now}\n", flag.long));
    }
    if !text.is_empty() {
        text.insert_str(0, "Old flags and what they are today:\n");
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests;

//! What `ig run GADGET` says of the gadget itself: its flags before those of every gadget, the fields of its rows, and which
//! of them was meant where a flag is none.

use super::{gadgets::Named, image::escaped, run::GADGET_HEADING};
use crate::{args::RunArgs, error::CliError, output::harmless, tables};
use clap::{
    Arg, Args, Command,
    error::{ContextKind, ContextValue, ErrorKind},
};
use ig_event::{DataSource, Field, Storage};
use ig_runtime::{gadget::metadata::DataSourceMetadata, image::near_names, instance::Gadget};

/// Cells of a line of the list of fields.
const WIDTH: usize = 100;
/// Names longer than this have their description on the next line.
const NAME: usize = 24;

/// `run` with these flags before its own, which clap shows in the order in which they were added.
pub(super) fn with_flags_first(run: &Command, flags: impl IntoIterator<Item = Arg>) -> Command {
    let first = RunArgs::augment_args(Command::new("run").args(flags));
    match run.get_about() {
        Some(about) => first.about(about.clone()),
        None => first,
    }
}

/// The fields of a gadget's rows; those that the host adds of containers are the same for all.
pub(super) fn fields(gadget: &Gadget) -> String {
    let mut text = String::new();
    for plan in gadget.plans() {
        let list = list(&plan.source, gadget.metadata().datasources.get(&plan.source.name));
        text.push_str(&format!(
            "Fields of {}, for --fields, --filter and --sort (in brackets: no column unless asked for; *: there is NAME_raw, \
             the number, too):\n",
            harmless(&plan.source.name)
        ));
        for Listed { name, shown, raw, description } in list {
            let mark = if raw { "*" } else { "" };
            let name = if shown { format!("{name}{mark}") } else { format!("[{name}]{mark}") };
            line(&name, &description, &mut text);
        }
        text.push('\n');
    }
    text.push_str(
        "Rows of containers have fields of the container too, such as runtime.containerName and k8s.podName: see \
         `ig list-containers -o json`.",
    );
    text
}

/// A line of the list.
struct Listed {
    name: String,
    /// A column by itself.
    shown: bool,
    /// A text that stands for a number, which is a field of its own.
    raw: bool,
    description: String,
}

fn list(source: &DataSource, written: Option<&DataSourceMetadata>) -> Vec<Listed> {
    // What no output shows is the gadget's own business.
    let is_field = |f: &&Field| {
        !f.unreferenced && !matches!(f.def.storage, Storage::Group) && f.annotation("json.skip") != Some("true")
    };
    let fields = || source.fields().iter().filter(is_field);
    let raw_of = |name: &str| fields().find(|f| f.full_name.strip_suffix("_raw") == Some(name));
    let is_raw =
        |f: &&Field| f.full_name.strip_suffix("_raw").is_some_and(|name| fields().any(|t| t.full_name == name));
    let known = fields().filter(|f| !is_raw(f)).map(|f| {
        let raw = raw_of(&f.full_name);
        let described = |f: &&Field| f.annotation("description").is_some();
        let description = Some(f).filter(described).or(raw).and_then(|f| f.annotation("description"));
        Listed {
            name: harmless(&f.full_name),
            shown: !f.hidden(),
            raw: raw.is_some(),
            description: harmless(description.unwrap_or_default()),
        }
    });
    let mut all: Vec<Listed> = known.collect();
    // Those that the guest will add are known by what gadget.yaml says of them.
    for (name, field) in written.iter().flat_map(|w| &w.fields) {
        let annotation = |key| field.annotations.get(key);
        if let Some(description) = annotation("description")
            && source.find(name).is_none()
        {
            let shown = annotation("columns.hidden").is_none_or(|hidden| hidden == "false");
            all.push(Listed { name: harmless(name), shown, raw: false, description: harmless(description) });
        }
    }
    all
}

fn line(name: &str, description: &str, text: &mut String) {
    text.push_str("  ");
    text.push_str(name);
    let mut at = 2 + name.chars().count();
    let indent = 2 + NAME + 1;
    for (i, word) in description.split_whitespace().enumerate() {
        let long = word.chars().count();
        if i == 0 && at < indent {
            text.extend(std::iter::repeat_n(' ', indent - at));
            at = indent;
        } else if i == 0 || at + 1 + long > WIDTH {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent));
            at = indent;
        } else {
            text.push(' ');
            at += 1;
        }
        text.push_str(word);
        at += long;
    }
    text.push('\n');
}

/// What to say of a flag that none of the gadgets has; `None` where something else is wrong with the line.
pub(super) fn unknown_flag(gadgets: &[Named], e: &clap::Error, command: &Command) -> Option<CliError> {
    let (ErrorKind::UnknownArgument, Some(ContextValue::String(flag))) = (e.kind(), e.get(ContextKind::InvalidArg))
    else {
        return None;
    };
    let names: Vec<&str> = gadgets.iter().map(|g| g.text.as_str()).collect();
    let (one, bare) = (names.len() == 1, flag.trim_start_matches('-'));
    let (names, flag) = (escaped(&names.join(", ")), escaped(flag));
    let of_tables = tables::any_flags(GADGET_HEADING);
    let is = |a: &Arg| a.get_long_and_visible_aliases().is_some_and(|all| all.contains(&bare));
    if of_tables.iter().any(is) {
        let what = if one { "is a stream of events and has" } else { "are streams of events and have" };
        return Some(
            CliError::user(format!("{names} {what} no {flag}, which is for tables"))
                .hint("--timeout SECONDS ends the run; --filter chooses rows"),
        );
    }
    let run = command.find_subcommand("run")?;
    let all = || run.get_arguments().chain(command.get_arguments());
    let known = all().flat_map(|a| a.get_long_and_visible_aliases().into_iter().flatten());
    let near = near_names(bare, known);
    let error = CliError::user(format!("{names} {} no flag {flag}", if one { "has" } else { "have" }));
    let help = names.replace(", ", " ");
    Some(match near.is_empty() {
        true => error.hint(format!("`ig run {help} --help` lists the flags")),
        false => error.hint(format!("did you mean --{}?", near.join(" or --"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_description_goes_on_below_itself() {
        let mut text = String::new();
        line("pid", &"word ".repeat(20), &mut text);
        line("a.name.that.is.longer.than.others", "short", &mut text);
        line("bare", "", &mut text);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("  pid                      word word") && lines[0].len() <= WIDTH, "{text}");
        assert!(lines[1].starts_with(&format!("{}word", " ".repeat(27))), "{text}");
        assert_eq!(lines[2], "  a.name.that.is.longer.than.others");
        assert_eq!(lines[3], format!("{}short", " ".repeat(27)));
        assert_eq!(lines[4], "  bare");
    }
}

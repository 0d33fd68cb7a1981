//! `docs/gadgets.md`: every gadget, and what became of it on each kernel. Written and checked by the tests that run them:
//! with `UPDATE_DOCS=1` they write their column, without they compare it with what they saw.

use crate::{gadget_case, source_root};
use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

/// Set to write the table instead of comparing it.
pub const UPDATE: &str = "UPDATE_DOCS";
/// Headings of the kernels, in order. The first is whatever kernel the rest of the tests ran on when the table was written.
pub const KERNELS: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "7.2"];
/// A gadget that nobody has run there yet.
const UNKNOWN: &str = "?";
const BEGIN: &str = "<!-- begin: written by the tests, UPDATE_DOCS=1 -->\n";
const END: &str = "<!-- end -->\n";

/// By gadget, then by kernel: a cell.
type Table = BTreeMap<String, BTreeMap<String, String>>;

fn path() -> PathBuf {
    source_root().join("docs/gadgets.md")
}

fn text() -> String {
    std::fs::read_to_string(path()).unwrap_or_else(|e| panic!("{}: {e}", path().display()))
}

/// True when the table is to be written.
pub fn updating() -> bool {
    std::env::var(UPDATE).is_ok_and(|v| v == "1")
}

fn parse(text: &str) -> Table {
    let (_, rest) = text.split_once(BEGIN).expect("docs/gadgets.md has a mark where the table begins");
    let (table, _) = rest.split_once(END).expect("docs/gadgets.md has a mark where the table ends");
    let rows = table.lines().skip(2).filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let name = cells.first()?.trim_matches('`').to_owned();
        let kernels = KERNELS.iter().map(|k| (*k).to_owned()).zip(cells.iter().skip(2).map(|c| (*c).to_owned()));
        Some((name, kernels.collect()))
    });
    rows.collect()
}

fn render(table: &Table) -> String {
    let mut out = format!("| gadget | shows | {} |\n| --- | --- |", KERNELS.join(" | "));
    out.push_str(&" --- |".repeat(KERNELS.len()));
    out.push('\n');
    for (name, cells) in table {
        // A text of ours, which cannot fail to be written.
        let _written = write!(out, "| `{name}` | {}", description(name));
        for kernel in KERNELS {
            let cell = cells.get(kernel).map_or(UNKNOWN, String::as_str);
            let _written = write!(out, " | {}", cell.replace('|', "/"));
        }
        out.push_str(" |\n");
    }
    out
}

/// The gadget's own words.
fn description(name: &str) -> String {
    let file = source_root().join("gadgets").join(name).join("gadget.yaml");
    let yaml = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let line = yaml.lines().find_map(|l| l.strip_prefix("description: "));
    line.unwrap_or_else(|| panic!("{}: no description", file.display())).trim_matches('"').replace('|', "/")
}

/// Rows for all gadgets there are and for no others; cells that are known stay.
fn complete(mut table: Table) -> Table {
    let names = gadget_case::gadgets();
    table.retain(|name, _| names.contains(name));
    for name in names {
        table.entry(name).or_default();
    }
    table
}

/// What the table must be, apart from the cells.
pub fn check_list() {
    let text = text();
    if updating() {
        store(&text, &complete(parse(&text)));
        return;
    }
    let table = parse(&text);
    assert_eq!(
        render(&complete(table.clone())),
        render(&table),
        "run the tests with {UPDATE}=1 and commit docs/gadgets.md"
    );
}

fn store(text: &str, table: &Table) {
    let (before, rest) = text.split_once(BEGIN).expect("docs/gadgets.md has a mark where the table begins");
    let (_, after) = rest.split_once(END).expect("docs/gadgets.md has a mark where the table ends");
    let new = format!("{before}{BEGIN}{}{END}{after}", render(table));
    std::fs::write(path(), new).unwrap_or_else(|e| panic!("{}: {e}", path().display()));
}

/// Compares what a kernel gave with its column, or writes the column. Gives what differs.
pub fn compare_or_update(kernel: &str, seen: &BTreeMap<String, String>) -> Vec<String> {
    assert!(KERNELS.contains(&kernel), "no column for Linux {kernel}");
    let text = text();
    let mut table = complete(parse(&text));
    if updating() {
        for (gadget, cell) in seen {
            table.entry(gadget.clone()).or_default().insert(kernel.to_owned(), cell.clone());
        }
        store(&text, &table);
        return Vec::new();
    }
    let written = |gadget: &str| table.get(gadget).and_then(|c| c.get(kernel)).map_or(UNKNOWN, String::as_str);
    // What nobody has run there yet cannot differ; the table says so by its question mark.
    let known = seen.iter().filter(|(gadget, _)| written(gadget) != UNKNOWN);
    let differ = known.filter(|(gadget, cell)| written(gadget) != cell.replace('|', "/"));
    differ
        .map(|(g, cell)| format!("{g} on {kernel}: docs/gadgets.md says {:?}, seen was {cell:?}", written(g)))
        .collect()
}

/// The cell of a gadget that ran: its hooks.
pub fn passed(hooks: &[String]) -> String {
    let mut hooks: Vec<String> = hooks.to_vec();
    // Whole families of hooks make no table.
    const SHOWN: usize = 4;
    let more = hooks.len().saturating_sub(SHOWN);
    hooks.truncate(SHOWN);
    let mut text = hooks.iter().map(|h| format!("`{h}`")).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    if text.is_empty() { "✓".to_owned() } else { format!("✓ {text}") }
}

/// The cell of a gadget that was refused: why, by the words of `ig`.
pub fn refused(stderr: &str) -> String {
    let error = stderr.lines().skip_while(|l| !l.starts_with("error: "));
    let mut reasons: Vec<&str> = error
        .clone()
        .take_while(|l| !l.starts_with("hint: "))
        .filter(|l| l.starts_with("  "))
        .filter_map(|l| l.split_once("): ").map(|(_, reason)| reason.trim()))
        .collect();
    reasons.dedup();
    let first = error.clone().next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    match reasons.is_empty() {
        true => format!("refused: {first}"),
        false => format!("refused: {}", reasons.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_reads_as_it_was_written() {
        let mut table = Table::new();
        let cells = KERNELS.iter().map(|k| ((*k).to_owned(), format!("✓ `tp_btf/x`, `y` {k}"))).collect();
        table.insert("trace_open".to_owned(), cells);
        let text = format!("before\n{BEGIN}{}{END}after", render(&table));
        assert_eq!(parse(&text), table);
    }

    #[test]
    fn cells_say_hooks_or_reasons() {
        assert_eq!(passed(&[]), "✓");
        assert_eq!(passed(&["a".into(), "b".into()]), "✓ `a`, `b`");
        assert_eq!(passed(&["a", "b", "c", "d", "e"].map(str::to_owned)), "✓ `a`, `b`, `c`, `d` and 1 more");
        let told = "warning: x\nerror: g: no program could be started\n  p (kprobe/f): this kernel has no kprobes\n";
        assert_eq!(refused(told), "refused: this kernel has no kprobes");
        assert_eq!(refused("error: g: not permitted\nhint: x\n"), "refused: g: not permitted");
    }

    #[test]
    fn the_table_holds_every_gadget() {
        check_list();
    }
}

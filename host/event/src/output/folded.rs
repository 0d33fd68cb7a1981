//! Stacks, added up over a whole run: one line for each (`-o folded`), or a flame graph of all (`-o flamegraph`).
//!
//! Lines are `container;thread;outermost;…;innermost count`, as flamegraph.pl and its kin read them. Functions of the kernel
//! end in `_[k]`. Nothing is written before the end of the run. What is kept is bounded: stacks beyond the bound are added
//! up under `[more]`.

use super::{OutputError, Printer, escape, flamegraph};
use crate::{
    Batch, DataSource, FieldId, TextEnv, Value,
    value::{Row, Text, inputs},
};
use std::collections::BTreeMap;

/// A field that holds the text of a stack: `[0]innermost; [1]…`.
pub const KERNEL_STACK_TAG: &str = "stack:kernel";
pub const USER_STACK_TAG: &str = "stack:user";
/// The field whose number says how often a row's stack was found; without one, each row counts once.
pub const WEIGHT: &str = "stack.weight";
/// Bytes of different stacks that are kept.
const MAX_BYTES: usize = 256 << 20;
const MORE: &str = "[more]";

/// How the stacks are written at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Lines,
    Graph,
}

#[derive(Debug)]
pub(super) struct FoldedPrinter {
    shape: Shape,
    title: String,
    container: Option<Text>,
    comm: Option<Text>,
    user: Option<Text>,
    kernel: Option<Text>,
    weight: Option<Text>,
    fields: Vec<FieldId>,
    counts: BTreeMap<String, u64>,
    bytes: usize,
    scratch: Vec<u8>,
}

impl FoldedPrinter {
    pub(super) fn new(source: &DataSource, env: &TextEnv, shape: Shape) -> Result<Self, OutputError> {
        let mut fields = Vec::new();
        let mut find = |wanted: &dyn Fn(&crate::Field) -> bool| {
            let id = source.fields().iter().find(|f| wanted(f))?.id;
            inputs(source, id, &mut fields);
            Some(Text::new(source, id, env))
        };
        let user = find(&|f| f.has_tag(USER_STACK_TAG));
        let kernel = find(&|f| f.has_tag(KERNEL_STACK_TAG));
        if user.is_none() && kernel.is_none() {
            return Err(OutputError::NoStacks { source_name: source.name.clone() });
        }
        Ok(FoldedPrinter {
            shape,
            title: source.name.clone(),
            container: find(&|f| f.full_name == "runtime.containerName"),
            comm: find(&|f| f.has_tag("type:gadget_comm")),
            weight: find(&|f| f.flag(WEIGHT) && f.def.kind.is_unsigned()),
            user,
            kernel,
            fields,
            counts: BTreeMap::new(),
            bytes: 0,
            scratch: Vec::new(),
        })
    }

    fn line(&mut self, row: Row<'_>) -> String {
        let mut line = String::new();
        for (text, missing) in [(&mut self.container, "[host]"), (&mut self.comm, "[unknown]")] {
            let Some(text) = text else { continue };
            self.scratch.clear();
            text.write(row, &mut self.scratch);
            if !line.is_empty() {
                line.push(';');
            }
            match self.scratch.is_empty() {
                true => line.push_str(missing),
                false => frame(&self.scratch, "", &mut line),
            }
        }
        for (text, suffix) in [(&mut self.user, ""), (&mut self.kernel, "_[k]")] {
            let Some(text) = text else { continue };
            self.scratch.clear();
            text.write(row, &mut self.scratch);
            let shown = String::from_utf8_lossy(&self.scratch);
            for part in shown.split("; ").filter(|p| !p.is_empty()).collect::<Vec<_>>().into_iter().rev() {
                if !line.is_empty() {
                    line.push(';');
                }
                frame(function(part).as_bytes(), suffix, &mut line);
            }
        }
        line
    }

    fn add(&mut self, line: String, count: u64) {
        if let Some(n) = self.counts.get_mut(&line) {
            *n = n.saturating_add(count);
            return;
        }
        let line = if self.bytes > MAX_BYTES { MORE.to_owned() } else { line };
        self.bytes += line.len();
        let n = self.counts.entry(line).or_default();
        *n = n.saturating_add(count);
    }
}

/// `[3]name` → `name`; `[3]0x7f… [libfoo.so]` → `[libfoo.so]`, because addresses would keep equal stacks apart.
fn function(part: &str) -> &str {
    let name = part.strip_prefix('[').and_then(|p| p.split_once(']')).map_or(part, |(_, name)| name);
    match name.rfind(" [") {
        Some(at) if name.starts_with("0x") && name.ends_with(']') => &name[at + 1..],
        _ => name,
    }
}

/// A part of a line: nothing in it may be taken for the end of the part, of the line, or steer a terminal.
fn frame(text: &[u8], suffix: &str, line: &mut String) {
    let mut escaped = Vec::new();
    escape::cell(text, &mut escaped);
    line.extend(String::from_utf8_lossy(&escaped).chars().map(|c| if c == ';' { ':' } else { c }));
    line.push_str(suffix);
}

impl Printer for FoldedPrinter {
    fn header(&mut self, _out: &mut Vec<u8>) {}

    fn batch(&mut self, batch: &Batch, _out: &mut Vec<u8>) {
        for index in batch.iter() {
            let row = Row::new(batch, index);
            let count = match self.weight.as_ref().map(|w| w.load.get(row)) {
                Some(Value::Uint(n)) => n,
                _ => 1,
            };
            let line = self.line(row);
            self.add(line, count);
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        let counts = std::mem::take(&mut self.counts);
        match self.shape {
            Shape::Lines => {
                for (line, count) in &counts {
                    out.extend_from_slice(line.as_bytes());
                    out.extend_from_slice(format!(" {count}\n").as_bytes());
                }
            }
            Shape::Graph => flamegraph::write(&self.title, &counts, out),
        }
    }

    fn needed_fields(&self) -> Vec<FieldId> {
        self.fields.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FieldDef, Kind, SourceKind, Storage};
    use std::sync::Arc;

    fn source() -> Arc<DataSource> {
        let mut s = DataSource::new("samples", SourceKind::Events, 168);
        let at = |offset, size| Storage::Record { offset, size };
        s.add(FieldDef::new("comm", Kind::CString, at(0, 16)).tag("type:gadget_comm")).unwrap();
        s.add(FieldDef::new("ustack", Kind::CString, at(16, 72)).tag(USER_STACK_TAG)).unwrap();
        s.add(FieldDef::new("kstack", Kind::CString, at(88, 72)).tag(KERNEL_STACK_TAG)).unwrap();
        s.add(FieldDef::new("samples", Kind::U64, at(160, 8)).annotate(WEIGHT, "true")).unwrap();
        Arc::new(s)
    }

    fn record(comm: &str, user: &str, kernel: &str, samples: u64) -> Vec<u8> {
        let mut r = vec![0; 168];
        for (at, text) in [(0, comm), (16, user), (88, kernel)] {
            r[at..at + text.len()].copy_from_slice(text.as_bytes());
        }
        r[160..].copy_from_slice(&samples.to_le_bytes());
        r
    }

    fn shown(rows: &[Vec<u8>], shape: Shape) -> String {
        let source = source();
        let mut p = FoldedPrinter::new(&source, &TextEnv::default(), shape).unwrap();
        let mut out = Vec::new();
        for row in rows {
            let mut batch = Batch::new(source.clone());
            batch.push(row);
            p.batch(&batch, &mut out);
        }
        assert!(out.is_empty());
        p.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn equal_stacks_are_added_up_and_the_outermost_comes_first() {
        let rows = [
            record("sh", "[0]read; [1]main", "[0]vfs_read", 2),
            record("sh", "[0]read; [1]main", "[0]vfs_read", 3),
            record("sh", "[0]0x00007f0000001234 [libc.so.6]; [1]main", "", 1),
            record("sh", "[0]0x00007f0000001299 [libc.so.6]; [1]main", "", 1),
            record("sh", "", "", 1),
        ];
        assert_eq!(shown(&rows, Shape::Lines), "sh 1\nsh;main;[libc.so.6] 2\nsh;main;read;vfs_read_[k] 5\n");
    }

    #[test]
    fn foreign_text_breaks_no_line() {
        let rows = [record("a;b\n\x1b[2J", "[0]operator new(unsigned long); [1]x::y<int, 3>", "", 1)];
        assert_eq!(shown(&rows, Shape::Lines), "a:b\\n\\x1b[2J;x::y<int, 3>;operator new(unsigned long) 1\n");
    }

    #[test]
    fn sources_without_stacks_are_refused() {
        let s = DataSource::new("t", SourceKind::Events, 0);
        let e = FoldedPrinter::new(&s, &TextEnv::default(), Shape::Lines).unwrap_err();
        assert_eq!(e.to_string(), "data source \"t\" has no stacks, so there is nothing to fold");
    }

    #[test]
    fn graphs_are_golden() {
        let rows = [
            record("sh", "[0]read; [1]main", "[0]vfs_read", 30),
            record("sh", "[0]<&\"'>; [1]main", "", 10),
            record("cat", "[0]main", "", 5),
        ];
        let svg = shown(&rows, Shape::Graph);
        // before it are the script and the style, which are inferno's
        let (_, frames) = svg.split_once("<svg id=\"frames\"").unwrap();
        insta::assert_snapshot!(frames.replace("<g>", "\n<g>"));
    }
}

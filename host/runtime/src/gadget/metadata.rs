//! gadget.yaml: what a gadget says of itself.
//!
//! The keys are the ones gadget images in the field use, plus `alternatives`. A value of the wrong type is always an
//! error. An unknown key is an error when a gadget is built ([`parse_strict`]) and a warning when it is run ([`parse`]):
//! somebody else's image may be newer than this program. Every problem names line, column and key path. Pure, no I/O.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::document::{self, Node, Value};
use super::sampling::{self, SamplingError};
use crate::bpf::attach::PerfOptions;
use crate::image::near_names;

/// What messages call the file when it comes out of an image.
pub const FILE: &str = "gadget.yaml";

/// A whole gadget.yaml.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GadgetMetadata {
    pub name: String,
    pub description: String,
    #[serde(rename = "homepageURL", skip_serializing_if = "String::is_empty")]
    pub homepage_url: String,
    #[serde(rename = "documentationURL", skip_serializing_if = "String::is_empty")]
    pub documentation_url: String,
    #[serde(rename = "sourceURL", skip_serializing_if = "String::is_empty")]
    pub source_url: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub datasources: BTreeMap<String, DataSourceMetadata>,
    #[serde(skip_serializing_if = "ParamGroups::is_empty")]
    pub params: ParamGroups,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub programs: BTreeMap<String, ProgramMetadata>,
    /// By job: sets of programs that do it. The first set whose programs all load and attach is used, the others are
    /// not loaded.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub alternatives: BTreeMap<String, Vec<Vec<String>>>,
    /// Settings for parts of the host, by dotted name (`process.interval`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub operator: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DataSourceMetadata {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// By dotted field name (`proc.comm`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, FieldMetadata>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FieldMetadata {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Parameters, by who receives them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ParamGroups {
    /// By the name of the C variable.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ebpf: BTreeMap<String, ParamMetadata>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub wasm: BTreeMap<String, ParamMetadata>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub custom: BTreeMap<String, ParamMetadata>,
}

impl ParamGroups {
    pub fn is_empty(&self) -> bool {
        self.ebpf.is_empty() && self.wasm.is_empty() && self.custom.is_empty()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParamMetadata {
    /// The flag's name; empty means the parameter's own name.
    pub key: String,
    /// One-letter flag.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub alias: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub title: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// As written, whatever its type; None when not given, which leaves a BPF variable's own value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_value: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value_hint: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub type_hint: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_mandatory: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub one_of: Vec<String>,
    /// The smallest whole number that is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    /// The largest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
    /// Names of the parts of a number that is a sum.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub bits: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProgramMetadata {
    /// Replaces the target in the program's section name; `gadget_program_disabled` leaves the program unattached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attach_to: Option<String>,
    /// Parameters of which one must be true for the program to be loaded; none: it always is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<String>,
    /// What is lost where the program is skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without: Option<String>,
    /// By dotted name: `perf.type`, `perf.config`, `perf.sampleType`, `sampler.frequency`, `sampler.period`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// What the options mean; None leaves the host's own choice.
    #[serde(skip)]
    pub perf: Option<PerfOptions>,
}

/// A gadget.yaml that could be read, with what was odd about it.
#[derive(Clone, Debug)]
pub struct Parsed {
    pub metadata: GadgetMetadata,
    /// Keys that are unknown or mean nothing here, in the order of the file.
    pub warnings: Vec<Problem>,
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1.
    pub line: u64,
    /// Counted from 1, in characters.
    pub column: u64,
    /// Dotted path of keys from the top (`params.ebpf.targ_pid.key`).
    pub path: String,
    pub kind: ProblemKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    UnknownKey { near: Vec<String> },
    NotSupported,
    WrongType { expected: &'static str, found: &'static str },
    MissingName,
    BadName,
    EmptyAlternative,
    ProgramTwice { program: String },
    AliasLength { alias: String },
    DefaultNotOffered { default: String },
    Sampling(SamplingError),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: ", self.line, self.column)?;
        let path = &self.path;
        match &self.kind {
            ProblemKind::UnknownKey { near } if near.is_empty() => write!(f, "unknown key {path}"),
            ProblemKind::UnknownKey { near } => write!(f, "unknown key {path}; did you mean {}?", near.join(", ")),
            ProblemKind::NotSupported => write!(f, "{path} is not supported: nothing would receive it"),
            ProblemKind::WrongType { expected, found } if path.is_empty() => {
                write!(f, "expected {expected}, found {found}")
            }
            ProblemKind::WrongType { expected, found } => write!(f, "{path}: expected {expected}, found {found}"),
            ProblemKind::MissingName => write!(f, "name is missing"),
            ProblemKind::BadName => write!(f, "name may only hold letters, digits, spaces, _ - and ."),
            ProblemKind::EmptyAlternative => write!(f, "{path}: an alternative needs at least one program"),
            ProblemKind::ProgramTwice { program } => {
                write!(f, "{path}: program {program} already belongs to another job")
            }
            ProblemKind::AliasLength { alias } => write!(f, "{path}: \"{alias}\" is not one letter or digit"),
            ProblemKind::DefaultNotOffered { default } => {
                write!(f, "{path}: default \"{default}\" is not one of the values in oneOf")
            }
            ProblemKind::Sampling(error) => write!(f, "{path}: {error}"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    #[error("{file} is not UTF-8: byte {offset} is wrong")]
    NotText { file: String, offset: usize },
    #[error("{file}: line {line}, column {column}: {message}")]
    Syntax { file: String, line: u64, column: u64, message: String },
    #[error("{file}: {}", Listed(problems))]
    Problems { file: String, problems: Vec<Problem> },
}

struct Listed<'a>(&'a [Problem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.0.iter().enumerate() {
            let between = if position == 0 { "" } else { "\n" };
            write!(f, "{between}{problem}")?;
        }
        Ok(())
    }
}

impl MetadataError {
    pub fn hint(&self) -> Option<String> {
        matches!(self, Self::Problems { .. }).then(|| "docs/reference/gadget-yaml.md lists the keys".to_owned())
    }
}

/// Reads gadget.yaml of an image that is to be run. `file` is only for messages.
pub fn parse(bytes: &[u8], file: &str) -> Result<Parsed, MetadataError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| MetadataError::NotText { file: file.to_owned(), offset: error.valid_up_to() })?;
    let root = document::parse(text).map_err(|error| MetadataError::Syntax {
        file: file.to_owned(),
        line: error.line,
        column: error.column,
        message: error.message,
    })?;
    let mut reader = Reader::default();
    let metadata = reader.gadget(&root);
    if reader.errors.is_empty() {
        return Ok(Parsed { metadata, warnings: reader.warnings });
    }
    Err(MetadataError::Problems { file: file.to_owned(), problems: reader.errors })
}

/// Reads gadget.yaml of a gadget that is being built: unknown keys are errors too.
pub fn parse_strict(bytes: &[u8], file: &str) -> Result<GadgetMetadata, MetadataError> {
    let (metadata, mut problems) = match parse(bytes, file) {
        Ok(parsed) if parsed.warnings.is_empty() => return Ok(parsed.metadata),
        Ok(parsed) => (Some(parsed.metadata), parsed.warnings),
        Err(error) => return Err(error),
    };
    drop(metadata);
    problems.sort_by_key(|p| (p.line, p.column));
    Err(MetadataError::Problems { file: file.to_owned(), problems })
}

/// Walks the tree, notes every problem and goes on, so that one run shows all of them.
#[derive(Default)]
struct Reader {
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    path: Vec<String>,
}

type Entries<'n> = &'n [(Node, String, Node)];

impl Reader {
    fn problem(&self, at: &Node, kind: ProblemKind) -> Problem {
        Problem { line: at.line, column: at.column, path: self.path.join("."), kind }
    }

    fn error(&mut self, at: &Node, kind: ProblemKind) {
        let problem = self.problem(at, kind);
        self.errors.push(problem);
    }

    fn wrong_type(&mut self, at: &Node, expected: &'static str) {
        self.error(at, ProblemKind::WrongType { expected, found: at.kind() });
    }

    fn unknown(&mut self, key: &Node, name: &str, known: &[&str]) {
        let near = near_names(name, known.iter().copied());
        let problem = self.problem(key, ProblemKind::UnknownKey { near });
        self.warnings.push(problem);
    }

    fn within<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(key.to_owned());
        let value = read(self);
        self.path.pop();
        value
    }

    /// The entries of a mapping; nothing at all (`params:` with no value) is an empty one.
    fn map<'n>(&mut self, node: &'n Node) -> Entries<'n> {
        match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            _ => {
                self.wrong_type(node, "a mapping");
                &[]
            }
        }
    }

    /// Any scalar, as it was written.
    fn text(&mut self, node: &Node) -> String {
        match &node.value {
            Value::Text { text, .. } | Value::Bool { text, .. } => text.clone(),
            Value::Null => String::new(),
            Value::List(_) | Value::Map(_) => {
                self.wrong_type(node, "a text");
                String::new()
            }
        }
    }

    fn flag(&mut self, node: &Node) -> bool {
        match &node.value {
            Value::Bool { value, .. } => *value,
            _ => {
                self.wrong_type(node, "true or false");
                false
            }
        }
    }

    fn number(&mut self, node: &Node, min: i64) -> Option<i64> {
        let number = match &node.value {
            Value::Text { text, .. } => text.parse().ok().filter(|n| *n >= min),
            _ => None,
        };
        if number.is_none() {
            self.wrong_type(node, if min > 0 { "a whole number above 0" } else { "a whole number" });
        }
        number
    }

    fn texts(&mut self, node: &Node) -> Vec<String> {
        match &node.value {
            Value::List(items) => items.iter().map(|item| self.text(item)).collect(),
            Value::Null => Vec::new(),
            _ => {
                self.wrong_type(node, "a list");
                Vec::new()
            }
        }
    }

    fn text_map(&mut self, node: &Node) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        for (_, name, value) in self.map(node) {
            let text = self.within(name, |r| r.text(value));
            texts.insert(name.clone(), text);
        }
        texts
    }

    fn named<T>(&mut self, node: &Node, mut read: impl FnMut(&mut Self, &Node) -> T) -> BTreeMap<String, T> {
        let mut named = BTreeMap::new();
        for (_, name, value) in self.map(node) {
            let item = self.within(name, |r| read(r, value));
            named.insert(name.clone(), item);
        }
        named
    }

    fn gadget(&mut self, root: &Node) -> GadgetMetadata {
        let mut gadget = GadgetMetadata::default();
        let entries = match &root.value {
            Value::Map(entries) => entries.as_slice(),
            _ => {
                self.wrong_type(root, "a mapping");
                return gadget;
            }
        };
        for (key, name, value) in entries {
            self.within(name, |r| r.top_level(&mut gadget, key, name, value));
        }
        if gadget.name.is_empty() {
            self.error(root, ProblemKind::MissingName);
        }
        gadget
    }

    fn top_level(&mut self, gadget: &mut GadgetMetadata, key: &Node, name: &str, value: &Node) {
        const KNOWN: &[&str] = &[
            "name",
            "description",
            "homepageURL",
            "documentationURL",
            "sourceURL",
            "annotations",
            "datasources",
            "params",
            "programs",
            "alternatives",
            "operator",
        ];
        match name {
            "name" => {
                gadget.name = self.text(value);
                let fits = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '_' | '-' | '.');
                if !gadget.name.chars().all(fits) {
                    self.error(value, ProblemKind::BadName);
                }
            }
            "description" => gadget.description = self.text(value),
            "homepageURL" => gadget.homepage_url = self.text(value),
            "documentationURL" => gadget.documentation_url = self.text(value),
            "sourceURL" => gadget.source_url = self.text(value),
            "annotations" => gadget.annotations = self.text_map(value),
            "datasources" => gadget.datasources = self.named(value, Self::data_source),
            "params" => gadget.params = self.param_groups(value),
            "programs" => gadget.programs = self.named(value, Self::program),
            "alternatives" => gadget.alternatives = self.alternatives(value),
            "operator" => self.flatten(value, &mut String::new(), &mut gadget.operator),
            _ => self.unknown(key, name, KNOWN),
        }
    }

    fn data_source(&mut self, node: &Node) -> DataSourceMetadata {
        let mut source = DataSourceMetadata::default();
        for (key, name, value) in self.map(node) {
            self.within(name, |r| match name.as_str() {
                "annotations" => source.annotations = r.text_map(value),
                "fields" => source.fields = r.named(value, Self::field),
                _ => r.unknown(key, name, &["annotations", "fields"]),
            });
        }
        source
    }

    fn field(&mut self, node: &Node) -> FieldMetadata {
        let mut field = FieldMetadata::default();
        for (key, name, value) in self.map(node) {
            self.within(name, |r| match name.as_str() {
                "annotations" => field.annotations = r.text_map(value),
                _ => r.unknown(key, name, &["annotations"]),
            });
        }
        field
    }

    fn param_groups(&mut self, node: &Node) -> ParamGroups {
        let mut groups = ParamGroups::default();
        for (key, name, value) in self.map(node) {
            self.within(name, |r| match name.as_str() {
                "ebpf" => groups.ebpf = r.named(value, Self::param),
                "wasm" => groups.wasm = r.named(value, Self::param),
                "custom" => {
                    groups.custom = r.named(value, Self::param);
                    if !groups.custom.is_empty() {
                        let problem = r.problem(key, ProblemKind::NotSupported);
                        r.warnings.push(problem);
                    }
                }
                _ => r.unknown(key, name, &["ebpf", "wasm", "custom"]),
            });
        }
        groups
    }

    fn param(&mut self, node: &Node) -> ParamMetadata {
        const KNOWN: &[&str] = &[
            "key",
            "alias",
            "title",
            "description",
            "defaultValue",
            "valueHint",
            "typeHint",
            "isMandatory",
            "oneOf",
            "min",
            "max",
            "bits",
            "tags",
        ];
        let mut param = ParamMetadata::default();
        for (key, name, value) in self.map(node) {
            self.within(name, |r| match name.as_str() {
                "key" => param.key = r.text(value),
                "alias" => {
                    param.alias = r.text(value);
                    let mut letters = param.alias.chars();
                    let one = letters.next().is_some_and(|c| c.is_ascii_alphanumeric()) && letters.next().is_none();
                    if !one && !param.alias.is_empty() {
                        r.error(value, ProblemKind::AliasLength { alias: param.alias.clone() });
                    }
                }
                "title" => param.title = r.text(value),
                "description" => param.description = r.text(value),
                "defaultValue" => param.default_value = Some(r.text(value)),
                "valueHint" => param.value_hint = r.text(value),
                "typeHint" => param.type_hint = r.text(value),
                "isMandatory" => param.is_mandatory = r.flag(value),
                "oneOf" => param.one_of = r.texts(value),
                "min" => param.min = r.number(value, i64::MIN),
                "max" => param.max = r.number(value, i64::MIN),
                "bits" => param.bits = r.named(value, |r, bit| r.number(bit, 1).unwrap_or(1).unsigned_abs()),
                "tags" => param.tags = r.texts(value),
                _ => r.unknown(key, name, KNOWN),
            });
        }
        if let Some(default) = &param.default_value
            && !default.is_empty()
            && !param.one_of.is_empty()
            && !param.one_of.contains(default)
        {
            self.error(node, ProblemKind::DefaultNotOffered { default: default.clone() });
        }
        param
    }

    fn program(&mut self, node: &Node) -> ProgramMetadata {
        let known: Vec<&str> = ["attach_to", "when", "without"].into_iter().chain(sampling::KEYS).collect();
        let mut options = BTreeMap::new();
        self.flatten(node, &mut String::new(), &mut options);
        let attach_to = options.remove("attach_to");
        let without = options.remove("without").filter(|w| !w.is_empty());
        let when = options.remove("when").unwrap_or_default();
        let when = when.split(',').map(str::trim).filter(|w| !w.is_empty()).map(str::to_owned).collect();
        for name in options.keys() {
            if !known.contains(&name.as_str()) {
                let node = node.clone();
                self.within(name, |r| r.unknown(&node, name, &known));
            }
        }
        options.retain(|name, _| known.contains(&name.as_str()));
        let perf = sampling::options(&options).unwrap_or_else(|error| {
            self.error(node, ProblemKind::Sampling(error));
            None
        });
        ProgramMetadata { attach_to, when, without, options, perf }
    }

    /// Nested mappings as one with dotted names.
    fn flatten(&mut self, node: &Node, prefix: &mut String, into: &mut BTreeMap<String, String>) {
        for (_, name, value) in self.map(node) {
            let before = prefix.len();
            if before > 0 {
                prefix.push('.');
            }
            prefix.push_str(name);
            if matches!(value.value, Value::Map(_)) {
                self.within(name, |r| r.flatten(value, prefix, into));
            } else {
                let text = self.within(name, |r| r.text(value));
                into.insert(prefix.clone(), text);
            }
            prefix.truncate(before);
        }
    }

    fn alternatives(&mut self, node: &Node) -> BTreeMap<String, Vec<Vec<String>>> {
        let jobs = self.named(node, |reader, job| match &job.value {
            Value::List(sets) => sets.iter().map(|set| reader.alternative(set)).collect(),
            _ => {
                reader.wrong_type(job, "a list of lists of programs");
                Vec::new()
            }
        });
        let mut owner: BTreeMap<&str, &str> = BTreeMap::new();
        for (job, sets) in &jobs {
            for program in sets.iter().flatten() {
                if owner.insert(program, job).is_some_and(|other| other != job) {
                    let program = program.clone();
                    self.within(job, |r| r.error(node, ProblemKind::ProgramTwice { program }));
                }
            }
        }
        jobs
    }

    fn alternative(&mut self, set: &Node) -> Vec<String> {
        let programs = self.texts(set);
        if programs.is_empty() && matches!(set.value, Value::List(_)) {
            self.error(set, ProblemKind::EmptyAlternative);
        }
        programs
    }
}

#[cfg(test)]
#[path = "metadata_tests.rs"]
mod tests;

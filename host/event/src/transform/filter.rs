//! `--filter`: rules `field operator value`, joined by commas that all must hold.
//!
//! Operators: `==` (or `=`), `!=`, `>=`, `>`, `<=`, `<` on numbers and text; `~` and `!~` match a regular expression on
//! text. A comma inside a value is written `\,`. The value may be empty: `error==` keeps rows without an error.
//!
//! Rules see what the outputs show: a derived field is compared as its text (`error==ENOENT`), and a value that is
//! missing reads as the empty text, 0 or false. Compiled once; comparing numbers and plain text does not allocate.

use crate::{
    Batch, DataSource, Derive, Field, FieldId, Kind, Operator, OperatorError, Reason, Stage, Storage, Value,
    lookup::{UnknownField, find_field},
    value::{Row, Text, TextEnv, inputs},
};
use regex::bytes::Regex;
use std::cmp::Ordering;

/// A filter that cannot be compiled; every variant names the rule or the field it is about.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FilterError {
    #[error("filter rule {rule:?} ({operator}): {cause}")]
    UnknownField { rule: String, operator: &'static str, cause: UnknownField },
    #[error("filter {filter:?} has an empty rule")]
    EmptyRule { filter: String },
    #[error("filter rule {rule:?} names no field")]
    NoField { rule: String },
    #[error("filter rule {rule:?} has no operator")]
    NoOperator { rule: String },
    #[error("filter rule {rule:?} has an unknown operator {operator:?}")]
    UnknownOperator { rule: String, operator: String },
    #[error("cannot filter on {field:?} of data source {source_name:?}: it is a group of fields")]
    Group { field: String, source_name: String, members: Vec<String> },
    #[error("operator {operator} does not work on field {field:?} of data source {source_name:?}, which is {what}")]
    WrongOperator {
        operator: &'static str,
        field: String,
        source_name: String,
        what: &'static str,
        raw: Option<String>,
    },
    #[error("{value:?} is no value for field {field:?} of data source {source_name:?}, which is {what}")]
    BadValue { value: String, field: String, source_name: String, what: &'static str },
    #[error("bad regular expression {pattern:?} for field {field:?} of data source {source_name:?}: {cause}")]
    BadRegex { pattern: String, field: String, source_name: String, cause: regex::Error },
}

impl FilterError {
    pub fn hint(&self) -> Option<String> {
        match self {
            FilterError::UnknownField { cause, .. } => cause.hint(),
            FilterError::EmptyRule { .. } => Some("a comma inside a value is written \\,".to_owned()),
            FilterError::NoOperator { .. } | FilterError::UnknownOperator { .. } => {
                Some(format!("operators are {}", ALL_OPERATORS.map(|(text, _)| text).join(" ")))
            }
            FilterError::NoField { .. } => Some("a rule is FIELD OPERATOR VALUE, such as comm==cat".to_owned()),
            FilterError::Group { members, .. } => {
                (!members.is_empty()).then(|| format!("filter on one of {}", members.join(", ")))
            }
            FilterError::WrongOperator { raw, .. } => raw.as_ref().map(|r| format!("filter on {r} instead")),
            FilterError::BadValue { .. } | FilterError::BadRegex { .. } => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Eq,
    Ne,
    Ge,
    Gt,
    Le,
    Lt,
    Match,
    NoMatch,
}

/// Longer spellings first: the first that fits is the operator.
const ALL_OPERATORS: [(&str, Op); 9] = [
    ("==", Op::Eq),
    ("!=", Op::Ne),
    (">=", Op::Ge),
    ("<=", Op::Le),
    ("!~", Op::NoMatch),
    ("=", Op::Eq),
    (">", Op::Gt),
    ("<", Op::Lt),
    ("~", Op::Match),
];

impl Op {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Op::Eq => ordering.is_eq(),
            Op::Ne => ordering.is_ne(),
            Op::Ge => ordering.is_ge(),
            Op::Gt => ordering.is_gt(),
            Op::Le => ordering.is_le(),
            Op::Lt => ordering.is_lt(),
            Op::Match | Op::NoMatch => false,
        }
    }

    fn is_order(self) -> bool {
        matches!(self, Op::Ge | Op::Gt | Op::Le | Op::Lt)
    }

    fn is_regex(self) -> bool {
        matches!(self, Op::Match | Op::NoMatch)
    }
}

/// What a rule compares with; listed from the cheapest to the dearest, which is the order rules are tried in.
#[derive(Debug)]
enum Test {
    Int { op: Op, wanted: i128 },
    Float { op: Op, wanted: f64 },
    Bool { equal: bool, wanted: bool },
    Text { op: Op, wanted: Vec<u8> },
    Regex { regex: Box<Regex>, negated: bool },
}

#[derive(Debug)]
struct Rule {
    text: Text,
    test: Test,
}

/// A compiled filter; rows for which a rule does not hold leave with [`Reason::Filtered`].
#[derive(Debug, Default)]
pub struct Filter {
    rules: Vec<Rule>,
    fields: Vec<FieldId>,
    scratch: Vec<u8>,
}

impl Filter {
    /// Compiles `expr` for batches of `source`. An empty expression keeps every row.
    pub fn parse(expr: &str, source: &DataSource, env: &TextEnv) -> Result<Self, FilterError> {
        let mut filter = Filter::default();
        if expr.trim().is_empty() {
            return Ok(filter);
        }
        for rule in split_rules(expr) {
            if rule.trim().is_empty() {
                return Err(FilterError::EmptyRule { filter: expr.to_owned() });
            }
            let (name, spelling, op, value) = split_rule(&rule)?;
            let field = find_field(source, name).map_err(|cause| FilterError::UnknownField {
                rule: rule.clone(),
                operator: spelling,
                cause,
            })?;
            let test = Test::new(Wanted { source, field, spelling, op, value })?;
            inputs(source, field.id, &mut filter.fields);
            filter.rules.push(Rule { text: Text::new(source, field.id, env), test });
        }
        filter.rules.sort_by_key(Rule::cost);
        Ok(filter)
    }

    /// True where the filter keeps every row, so that it need not run at all.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Fields whose values the rules look at.
    pub fn needed_fields(&self) -> Vec<FieldId> {
        self.fields.clone()
    }

    /// True where every rule holds for `row`.
    pub fn keeps(&mut self, batch: &Batch, row: usize) -> bool {
        let row = Row::new(batch, row);
        let scratch = &mut self.scratch;
        self.rules.iter_mut().all(|rule| rule.holds(row, scratch))
    }
}

impl Operator for Filter {
    fn name(&self) -> &str {
        "filter"
    }

    fn stage(&self) -> Stage {
        Stage::Filter
    }

    fn process(&mut self, batch: &mut Batch) -> Result<(), OperatorError> {
        if self.rules.is_empty() {
            return Ok(());
        }
        for row in 0..batch.len() {
            if batch.is_live(row) && !self.keeps(batch, row) {
                batch.discard(row, Reason::Filtered);
            }
        }
        Ok(())
    }
}

impl Rule {
    fn cost(&self) -> u8 {
        let test = match self.test {
            Test::Int { .. } | Test::Float { .. } | Test::Bool { .. } => 0,
            Test::Text { .. } => 1,
            Test::Regex { .. } => 4,
        };
        test + 2 * u8::from(self.text.format.is_some())
    }

    fn holds(&mut self, row: Row<'_>, scratch: &mut Vec<u8>) -> bool {
        match &self.test {
            Test::Int { op, wanted } => {
                let n = match self.text.load.get(row) {
                    Value::Uint(n) => i128::from(n),
                    Value::Int(n) => i128::from(n),
                    Value::Bool(b) => i128::from(b),
                    Value::Missing | Value::Float(_) | Value::Text(_) | Value::Bytes(_) => 0,
                };
                op.holds(n.cmp(wanted))
            }
            Test::Float { op, wanted } => {
                let f = match self.text.load.get(row) {
                    Value::Float(f) => f,
                    _ => 0.0,
                };
                f.partial_cmp(wanted).map_or(*op == Op::Ne, |ordering| op.holds(ordering))
            }
            Test::Bool { equal, wanted } => {
                let b = match self.text.load.get(row) {
                    Value::Bool(b) => b,
                    Value::Uint(n) => n != 0,
                    Value::Int(n) => n != 0,
                    Value::Missing | Value::Float(_) | Value::Text(_) | Value::Bytes(_) => false,
                };
                (b == *wanted) == *equal
            }
            Test::Text { op, wanted } => {
                on_text(&mut self.text, row, scratch, |text| op.holds(text.cmp(wanted.as_slice())))
            }
            Test::Regex { regex, negated } => {
                on_text(&mut self.text, row, scratch, |text| regex.is_match(text) != *negated)
            }
        }
    }
}

/// Calls `test` with the field's text: in place where it is stored as text, else rendered into `scratch`.
fn on_text(field: &mut Text, row: Row<'_>, scratch: &mut Vec<u8>, test: impl Fn(&[u8]) -> bool) -> bool {
    if field.format.is_none()
        && let Value::Text(text) = field.load.get(row)
    {
        return test(&text);
    }
    scratch.clear();
    field.write(row, scratch);
    test(scratch)
}

/// Splits at commas that no backslash precedes, and takes those backslashes away.
fn split_rules(expr: &str) -> Vec<String> {
    let mut rules = vec![String::new()];
    let mut chars = expr.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, rules.last_mut()) {
            (',', _) => rules.push(String::new()),
            ('\\', Some(rule)) if chars.peek() == Some(&',') => {
                chars.next();
                rule.push(',');
            }
            (c, Some(rule)) => rule.push(c),
            (_, None) => {}
        }
    }
    rules
}

/// Field name, operator as spelled and as meant, value.
fn split_rule(rule: &str) -> Result<(&str, &'static str, Op, &str), FilterError> {
    let at = rule.find(['=', '!', '<', '>', '~']).ok_or_else(|| FilterError::NoOperator { rule: rule.to_owned() })?;
    let (name, rest) = (rule[..at].trim(), &rule[at..]);
    if name.is_empty() {
        return Err(FilterError::NoField { rule: rule.to_owned() });
    }
    let found = ALL_OPERATORS.into_iter().find(|(spelling, _)| rest.starts_with(spelling));
    let unknown = |len: usize| FilterError::UnknownOperator { rule: rule.to_owned(), operator: rest[..len].to_owned() };
    let Some((spelling, op)) = found else { return Err(unknown(1)) };
    let value = &rest[spelling.len()..];
    // `=>`, `=~`, `<>`: meant as one operator, and taken for `=` or `<` they would silently match nothing.
    let twisted = spelling.len() == 1 && spelling != "~" && value.starts_with(['=', '<', '>', '~']);
    if twisted {
        return Err(unknown(2));
    }
    Ok((name, spelling, op, value))
}

/// A rule's parts, before they are known to fit together.
struct Wanted<'a> {
    source: &'a DataSource,
    field: &'a Field,
    spelling: &'static str,
    op: Op,
    value: &'a str,
}

impl Wanted<'_> {
    fn wrong_operator(&self, what: &'static str, raw: Option<String>) -> FilterError {
        FilterError::WrongOperator {
            operator: self.spelling,
            field: self.field.full_name.clone(),
            source_name: self.source.name.clone(),
            what,
            raw,
        }
    }

    fn bad_value(&self, what: &'static str) -> FilterError {
        FilterError::BadValue {
            value: self.value.to_owned(),
            field: self.field.full_name.clone(),
            source_name: self.source.name.clone(),
            what,
        }
    }

    fn group(&self) -> FilterError {
        FilterError::Group {
            field: self.field.full_name.clone(),
            source_name: self.source.name.clone(),
            members: self.source.children(Some(self.field.id)).map(|f| f.full_name.clone()).take(4).collect(),
        }
    }

    fn int(&self) -> Result<Test, FilterError> {
        let what = kind_text(self.field.def.kind);
        if self.op.is_regex() {
            return Err(self.wrong_operator(what, None));
        }
        let wanted = integer(self.value, self.field.def.kind).ok_or_else(|| self.bad_value(what))?;
        Ok(Test::Int { op: self.op, wanted })
    }

    fn float(&self) -> Result<Test, FilterError> {
        let what = kind_text(self.field.def.kind);
        if self.op.is_regex() {
            return Err(self.wrong_operator(what, None));
        }
        let wanted = self.value.trim().parse().ok().ok_or_else(|| self.bad_value(what))?;
        Ok(Test::Float { op: self.op, wanted })
    }

    fn bool(&self) -> Result<Test, FilterError> {
        let what = kind_text(Kind::Bool);
        if !matches!(self.op, Op::Eq | Op::Ne) {
            return Err(self.wrong_operator(what, None));
        }
        let wanted = match self.value.trim() {
            "true" | "1" => true,
            "false" | "0" => false,
            _ => return Err(self.bad_value(what)),
        };
        Ok(Test::Bool { equal: self.op == Op::Eq, wanted })
    }

    fn text(&self) -> Result<Test, FilterError> {
        if self.op.is_regex() {
            let regex = Regex::new(self.value).map_err(|cause| FilterError::BadRegex {
                pattern: self.value.to_owned(),
                field: self.field.full_name.clone(),
                source_name: self.source.name.clone(),
                cause,
            })?;
            return Ok(Test::Regex { regex: Box::new(regex), negated: self.op == Op::NoMatch });
        }
        Ok(Test::Text { op: self.op, wanted: self.value.as_bytes().to_vec() })
    }
}

impl Test {
    fn new(wanted: Wanted<'_>) -> Result<Self, FilterError> {
        match &wanted.field.def.storage {
            Storage::Group => Err(wanted.group()),
            Storage::Derived { from, how: Derive::Bytes | Derive::Duration } if wanted.op.is_order() => {
                let raw = wanted.source.fields().get(from.0 as usize).map(|f| f.full_name.clone());
                Err(wanted.wrong_operator("a quantity with a unit", raw))
            }
            Storage::Derived { .. } => wanted.text(),
            _ => match wanted.field.def.kind {
                Kind::Bool => wanted.bool(),
                Kind::F32 | Kind::F64 => wanted.float(),
                Kind::Text | Kind::CString | Kind::Bytes => wanted.text(),
                _ => wanted.int(),
            },
        }
    }
}

fn kind_text(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "a bool (true or false)",
        Kind::I8 => "an 8-bit integer",
        Kind::I16 => "a 16-bit integer",
        Kind::I32 => "a 32-bit integer",
        Kind::I64 => "a 64-bit integer",
        Kind::U8 => "an unsigned 8-bit integer",
        Kind::U16 => "an unsigned 16-bit integer",
        Kind::U32 => "an unsigned 32-bit integer",
        Kind::U64 => "an unsigned 64-bit integer",
        Kind::F32 | Kind::F64 => "a floating-point number",
        Kind::Text | Kind::CString => "text",
        Kind::Bytes => "a string of bytes",
    }
}

/// A decimal or `0x` number that fits the kind.
fn integer(text: &str, kind: Kind) -> Option<i128> {
    let text = text.trim();
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let magnitude = match hex {
        Some(hex) if !hex.starts_with('+') => u64::from_str_radix(hex, 16).ok()?,
        Some(_) => return None,
        None => digits.strip_prefix('+').unwrap_or(digits).parse::<u64>().ok()?,
    };
    let n = if negative { -i128::from(magnitude) } else { i128::from(magnitude) };
    let bits = kind.size()? * 8;
    let range =
        if kind.is_signed() { -(1i128 << (bits - 1))..=(1i128 << (bits - 1)) - 1 } else { 0..=(1i128 << bits) - 1 };
    range.contains(&n).then_some(n)
}

#[cfg(test)]
mod tests;

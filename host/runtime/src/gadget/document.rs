//! A YAML document as a tree that knows where each value stands in its file.
//!
//! serde-saphyr parses (with its limits on depth, aliases and size); this keeps what serde forgets: the line and column,
//! and the text of a scalar as it was written, so that `1.50` stays `1.50` where a text is wanted. Pure, no I/O.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A value and its place, both counted from 1.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) line: u64,
    pub(super) column: u64,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool {
        value: bool,
        text: String,
    },
    /// Any other scalar; `quoted` ones can be nothing but text.
    Text {
        text: String,
        number: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Node, String, Node)>),
}

/// Why a text is no YAML.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) line: u64,
    pub(super) column: u64,
    pub(super) message: String,
}

pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let raw: Spanned<Raw> = serde_saphyr::from_str(text).map_err(|error| {
        let place = error.location();
        SyntaxError {
            line: place.map_or(1, |p| p.line()),
            column: place.map_or(1, |p| p.column()),
            // The first line is the message; the rest is a picture of the file, which the caller's own message replaces.
            message: plain(&error),
        }
    })?;
    Ok(finish(raw, text))
}

/// The message alone, without a picture of the file and without the place, which callers give themselves.
pub(crate) fn plain(error: &serde_saphyr::Error) -> String {
    match error.without_snippet() {
        serde_saphyr::Error::MultipleDocuments { .. } => return "a second document begins here".to_owned(),
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => return format!("key {key} is there twice"),
        _ => {}
    }
    let text = error.without_snippet().to_string();
    let line = text.lines().next().unwrap_or_default();
    line.rfind(" at line ").map_or(line, |place| &line[..place]).to_owned()
}

impl Node {
    /// What the value is, for "expected a list, found …".
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool { .. } => "true or false",
            Value::Text { number: true, .. } => "a number",
            Value::Text { .. } => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// What serde delivers, before the source text is consulted.
enum Raw {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<Raw>, Spanned<Raw>)>),
}

fn finish(raw: Spanned<Raw>, source: &str) -> Node {
    let span = raw.defined.span();
    let written = || {
        let start = usize::try_from(span.byte_offset()?).ok()?;
        let end = start.checked_add(usize::try_from(span.byte_len()?).ok()?)?;
        let text = source.get(start..end)?.trim();
        (!text.is_empty() && !text.contains('\n')).then(|| text.to_owned())
    };
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Bool(value) => Value::Bool { value, text: written().unwrap_or_else(|| value.to_string()) },
        Raw::Number(text) => Value::Text { text: written().unwrap_or(text), number: true },
        Raw::Text(text) => Value::Text { text, number: false },
        Raw::List(items) => Value::List(items.into_iter().map(|item| finish(item, source)).collect()),
        Raw::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let key = finish(key, source);
                    let name = match &key.value {
                        Value::Text { text, .. } | Value::Bool { text, .. } => text.clone(),
                        Value::Null => "null".to_owned(),
                        Value::List(_) | Value::Map(_) => String::new(),
                    };
                    (key, name, finish(value, source))
                })
                .collect(),
        ),
    };
    Node { value, line: raw.referenced.line(), column: raw.referenced.column() }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

//! The outputs that are made of JSON say the same: a recording is replayed in each, read by a parser, and compared.

use crate::ig::Ig;
use serde_json::Value;
use std::path::Path;

/// Replays a recording as `json`, `jsonpretty` and `yaml`; how many rows each of them has, or what differs.
pub fn agree(recording: &Path) -> Result<usize, String> {
    let file = recording.display().to_string();
    let shown = |mode: &str| {
        let done = Ig::new(&["replay", &file, "-o", mode]).run();
        match done.code() {
            0 => Ok(done.stdout()),
            code => Err(format!("replay -o {mode} ended with {code}:\n{}", done.stderr)),
        }
    };
    let json = rows(values(&shown("json")?).map_err(|e| format!("-o json: {e}"))?);
    let pretty = rows(values(&shown("jsonpretty")?).map_err(|e| format!("-o jsonpretty: {e}"))?);
    let yaml = rows(documents(&shown("yaml")?)?);
    for (mode, others) in [("jsonpretty", &pretty), ("yaml", &yaml)] {
        if others.len() != json.len() {
            return Err(format!("-o json has {} rows, -o {mode} {}", json.len(), others.len()));
        }
        if let Some((a, b)) = json.iter().zip(others).find(|(a, b)| a != b) {
            return Err(format!("-o json and -o {mode} differ:\n{a}\n{b}"));
        }
    }
    Ok(json.len())
}

/// The values in a text of JSON, one after the other.
fn values(text: &str) -> Result<Vec<Value>, serde_json::Error> {
    serde_json::Deserializer::from_str(text).into_iter().collect()
}

/// The documents in a text of YAML, each after a line `---`.
fn documents(text: &str) -> Result<Vec<Value>, String> {
    let Some(text) = text.strip_prefix("---\n") else {
        return if text.is_empty() {
            Ok(Vec::new())
        } else {
            Err(format!("-o yaml does not begin with ---: {text:.80}"))
        };
    };
    let document = |part: &str| serde_saphyr::from_str(part).map_err(|e| format!("-o yaml: {e} in:\n{part}"));
    text.split("\n---\n").map(document).collect()
}

/// Tables are arrays of rows.
fn rows(values: Vec<Value>) -> Vec<Value> {
    let flat = values.into_iter().flat_map(|v| match v {
        Value::Array(rows) => rows,
        row => vec![row],
    });
    flat.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_are_taken_apart() {
        let two = [json!({"a": 1}), json!({"a": "1"})];
        assert_eq!(rows(values("[{\"a\":1},{\"a\":\"1\"}]\n[]\n").unwrap()), two);
        assert_eq!(documents("---\na: 1\n---\na: \"1\"\n").unwrap(), two);
        assert_eq!(documents("").unwrap(), Vec::<Value>::new());
        assert!(documents("a: 1\n").is_err() && documents("---\na: [\n").is_err() && values("{").is_err());
    }
}

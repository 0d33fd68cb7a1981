//! What a gadget wrote, as bytes for stdout: the text itself, or one object a line for programs.
//!
//! One document alone is printed as it is, so that it can go to a file; several are told apart by a line with their name.

use ig_event::OutputMode;
use ig_runtime::wasm::Document;
use serde_json::{Value, json};

/// Renders the documents of a run.
pub struct Documents {
    mode: OutputMode,
    /// Some document was printed before.
    any: bool,
    /// The gadget they are of, where several run.
    gadget: Option<String>,
}

impl Documents {
    pub fn new(mode: OutputMode) -> Self {
        Documents { mode, any: false, gadget: None }
    }

    /// Says in front of every document, or in its object, which gadget it is of.
    pub fn name_gadget(&mut self, gadget: &str) {
        self.gadget = Some(gadget.to_owned());
    }

    /// Appends the documents that were published together.
    pub fn render(&mut self, documents: &[Document], out: &mut Vec<u8>) {
        let several = self.any || documents.len() > 1 || self.gadget.is_some();
        for document in documents {
            match self.mode {
                OutputMode::None | OutputMode::Folded | OutputMode::Flamegraph => {}
                OutputMode::Json => {
                    out.extend_from_slice(format!("{}\n", object(document, self.gadget.as_deref())).as_bytes())
                }
                OutputMode::JsonPretty => {
                    out.extend_from_slice(format!("{:#}\n", object(document, self.gadget.as_deref())).as_bytes())
                }
                OutputMode::Yaml => {
                    out.extend_from_slice(b"---\n");
                    self.text(document, true, out);
                }
                OutputMode::Columns | OutputMode::Advise => {
                    if several && is_yaml(document) {
                        out.extend_from_slice(b"---\n");
                    }
                    self.text(document, several, out);
                }
            }
            self.any = true;
        }
    }

    fn text(&self, d: &Document, named: bool, out: &mut Vec<u8>) {
        if named {
            let mark = if is_json(d) { "//" } else { "#" };
            let gadget = self.gadget.as_ref().map_or(String::new(), |g| format!("{}: ", g.escape_debug()));
            // On one line, whatever the name holds.
            out.extend_from_slice(format!("{mark} {gadget}{}\n", d.name.escape_debug()).as_bytes());
        }
        out.extend_from_slice(d.text.as_bytes());
        if !d.text.ends_with('\n') {
            out.push(b'\n');
        }
    }
}

fn is_json(d: &Document) -> bool {
    d.media_type == "application/json" || d.media_type.ends_with("+json")
}

fn is_yaml(d: &Document) -> bool {
    d.media_type == "application/yaml" || d.media_type.ends_with("+yaml")
}

/// Keys are sorted. A document that is JSON stands there as such, any other as text.
fn object(d: &Document, gadget: Option<&str>) -> Value {
    let parsed = if is_json(d) { serde_json::from_str(&d.text).ok() } else { None };
    let annotations: serde_json::Map<String, Value> =
        d.annotations.iter().map(|(k, v)| (k.clone(), Value::String(v.clone()))).collect();
    let mut object = json!({
        "annotations": annotations,
        "document": parsed.unwrap_or_else(|| Value::String(d.text.clone())),
        "mediaType": d.media_type,
        "name": d.name,
    });
    if let Some(gadget) = gadget {
        object["gadget"] = gadget.into();
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(name: &str, media_type: &str, text: &str) -> Document {
        let annotations = vec![("containerId".to_owned(), "abc".to_owned())];
        Document { name: name.into(), media_type: media_type.into(), annotations, text: text.into() }
    }

    fn shown(mode: OutputMode, documents: &[Document]) -> String {
        let mut out = Vec::new();
        Documents::new(mode).render(documents, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn one_document_is_itself_and_several_bear_their_names() {
        let (a, b) = (document("a", "application/json", "{\"x\":1}\n"), document("b\nc", "application/json", "{}"));
        let y = document("y", "application/yaml", "k: v\n");
        for mode in [OutputMode::Columns, OutputMode::Advise] {
            assert_eq!(shown(mode, std::slice::from_ref(&a)), "{\"x\":1}\n");
            assert_eq!(shown(mode, &[a.clone(), b.clone()]), "// a\n{\"x\":1}\n// b\\nc\n{}\n");
            assert_eq!(shown(mode, &[y.clone(), y.clone()]), "---\n# y\nk: v\n---\n# y\nk: v\n");
        }
        assert_eq!(shown(OutputMode::Yaml, std::slice::from_ref(&y)), "---\n# y\nk: v\n");
        assert_eq!(shown(OutputMode::None, &[a]), "");
    }

    #[test]
    fn a_later_one_is_told_apart_too() {
        let mut d = Documents::new(OutputMode::Advise);
        let mut out = Vec::new();
        let t = document("t", "text/plain", "one");
        d.render(std::slice::from_ref(&t), &mut out);
        d.render(&[t], &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "one\n# t\none\n");
    }

    #[test]
    fn of_several_gadgets_each_is_named() {
        let of = |mode| {
            let mut d = Documents::new(mode);
            d.name_gadget("advise_seccomp");
            let mut out = Vec::new();
            d.render(&[document("web", "application/json", "{}")], &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(of(OutputMode::Columns), "// advise_seccomp: web\n{}\n");
        let object: Value = serde_json::from_str(&of(OutputMode::Json)).unwrap();
        assert_eq!(object["gadget"], "advise_seccomp");
    }

    #[test]
    fn for_programs_each_is_an_object() {
        let a = document("a", "application/json", "{\"x\":1}");
        let broken = document("b", "application/json", "{");
        assert_eq!(
            shown(OutputMode::Json, &[a, broken]),
            "{\"annotations\":{\"containerId\":\"abc\"},\"document\":{\"x\":1},\"mediaType\":\"application/json\",\"name\":\"a\"}\n\
             {\"annotations\":{\"containerId\":\"abc\"},\"document\":\"{\",\"mediaType\":\"application/json\",\"name\":\"b\"}\n"
        );
    }
}

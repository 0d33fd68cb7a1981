//! Tests of gadget.yaml: what is read, and what every mistake is answered with.

use proptest::prelude::*;

use super::*;

const WHOLE: &str = r#"
name: trace open
description: "files opened"
homepageURL: https://example.org/
documentationURL: https://example.org/docs
sourceURL: https://example.org/src
annotations:
  enable.x: true
datasources:
  open:
    annotations:
      cli.supported-output-modes: json, columns
    fields:
      proc.comm:
        annotations:
          columns.width: 16
          columns.hidden: false
          precision: 1.50
          leading: 0o17
params:
  ebpf:
    targ_failed:
      key: failed
      alias: f
      defaultValue: false
      description: >-
        only those
        that failed
      isMandatory: true
      oneOf: [false, true]
      tags: ["a", b]
    kinds: {min: -1, max: 17, bits: {file: 1, dir: 16}}
  wasm:
programs:
  ig_open:
    attach_to: "gadget_program_disabled"
    without: nothing is known
  sample:
    sampler:
      frequency: 97
    perf.type: software
alternatives:
  enter:
    - [a_btf, b_btf]
    - [a_tp]
operator:
  process:
    interval: 60s
"#;

#[test]
fn every_key_is_read() {
    let parsed = parse(WHOLE.as_bytes(), "gadget.yaml").unwrap();
    assert_eq!(parsed.warnings, []);
    insta::assert_snapshot!(serde_json::to_string_pretty(&parsed.metadata).unwrap());
}

#[test]
fn scalars_keep_the_text_they_were_written_with() {
    let metadata = parse_strict(WHOLE.as_bytes(), "gadget.yaml").unwrap();
    let annotations = &metadata.datasources["open"].fields["proc.comm"].annotations;
    assert_eq!(annotations["precision"], "1.50");
    assert_eq!(annotations["leading"], "0o17");
    assert_eq!(annotations["columns.hidden"], "false");
    assert_eq!(metadata.annotations["enable.x"], "true");
}

fn shown(text: &str) -> String {
    match parse_strict(text.as_bytes(), "gadget.yaml") {
        Ok(metadata) => format!("accepted: {metadata:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn mistakes_say_where_and_what() {
    let mistakes = [
        "name: x\ndescripton: y\n",
        "name: x\nparams:\n  ebpf:\n    targ_pid:\n      kye: pid\n",
        "name: x\nparams:\n  ebpf:\n    targ_pid:\n      isMandatory: maybe\n      alias: pid\n      oneOf: a\n",
        "name: x\nparams: [a]\n",
        "name: x\nparams:\n  bpf: {}\n",
        "name: x\ndatasources:\n  open:\n    fields:\n      fd:\n        annotation:\n          a: b\n",
        "name: x\nprograms:\n  p:\n    attachto: y\n",
        "name: x\nalternatives:\n  a: [[], [p]]\n  b: [p, [p]]\n",
        "name: [x]\n",
        "description: y\n",
        "name: a/b\n",
        "name: x\nname: y\n",
        "name: \"x\n",
        "- a\n",
        "",
        "name: x\nparams:\n  ebpf:\n    m:\n      defaultValue: c\n      oneOf: [a, b]\n",
        "name: x\n---\nname: y\n",
        "name: x\nprograms:\n  p:\n    perf: {type: software, config: instructions}\n",
        "name: x\nprograms:\n  p:\n    sampler: {frequency: 9, period: 9}\n",
    ];
    let answers: Vec<String> = mistakes.iter().map(|text| format!("{text:?}\n{}", shown(text))).collect();
    insta::assert_snapshot!(answers.join("\n\n"));
}

#[test]
fn unknown_keys_only_warn_when_running() {
    let parsed = parse(b"name: x\nnovelty: 1\nparams:\n  ebpf:\n    p: {kye: a, key: b}\n", "gadget.yaml").unwrap();
    let paths: Vec<&str> = parsed.warnings.iter().map(|p| p.path.as_str()).collect();
    assert_eq!(paths, ["novelty", "params.ebpf.p.kye"]);
    assert_eq!(parsed.metadata.params.ebpf["p"].key, "b");
}

#[test]
fn aliases_and_deep_nesting_are_bounded() {
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let name = |n: u8| (b'a' + n) as char;
        let list = vec![format!("*{}", name(level - 1)); 10].join(", ");
        bomb.push_str(&format!("{0}: &{0} [{list}]\n", name(level)));
    }
    assert!(parse(bomb.as_bytes(), "gadget.yaml").is_err());
    let deep = format!("name: x\ny: {}", "[".repeat(100_000));
    assert!(parse(deep.as_bytes(), "gadget.yaml").is_err());
    assert!(matches!(parse(b"name: \xff", "gadget.yaml"), Err(MetadataError::NotText { offset: 6, .. })));
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(parse(&bytes, "gadget.yaml"));
    }

    #[test]
    fn any_yaml_like_text_is_answered(text in "[a-c:{}\\[\\]\\-&*!|>'\"#, \n]{0,120}") {
        drop(parse(format!("name: x\n{text}").as_bytes(), "gadget.yaml"));
    }

    #[test]
    fn a_damaged_file_is_answered(at in 0..WHOLE.len(), byte in any::<u8>()) {
        let mut bytes = WHOLE.as_bytes().to_vec();
        bytes[at] = byte;
        drop(parse(&bytes, "gadget.yaml"));
    }
}

#[test]
fn parameters_that_nothing_receives_are_told() {
    let yaml = b"name: g\nparams:\n  custom:\n    a: {}\n";
    let warnings: Vec<String> = parse(yaml, FILE).unwrap().warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings, ["line 3, column 3: params.custom is not supported: nothing would receive it"]);
    assert!(parse_strict(yaml, FILE).is_err());
    assert!(parse_strict(b"name: g\nparams:\n  custom:\n", FILE).is_ok());
}

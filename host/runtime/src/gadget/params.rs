//! Parameters of a gadget: of its BPF half, with types and defaults from the object, and of its Wasm half, which are text.
//! Users' text is checked here, and turned into bytes for the BPF half.
//!
//! Pure. Every error names the parameter; nothing is cut, wrapped or guessed. A value that could not mean anything is as wrong as
//! one of the wrong type: an empty table would hide the mistake.

mod limits;

use super::metadata::{GadgetMetadata, ParamMetadata};
use crate::bpf::{
    Marker, Object,
    btf::{Kind, Type},
};
use limits::{bits, in_order, signals};
use std::{collections::BTreeMap, net::IpAddr, num::IntErrorKind};

/// What a parameter holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ParamType {
    Bool,
    Int {
        bits: u32,
    },
    Uint {
        bits: u32,
    },
    Float {
        bits: u32,
    },
    /// Text of at most `len - 1` bytes, ended by a NUL.
    String {
        len: usize,
    },
    /// Text of any length, for the Wasm half.
    #[serde(rename = "string")]
    Text,
    /// An IPv4 or IPv6 address, as `struct gadget_l3endpoint_t`.
    Ip {
        len: usize,
    },
}

impl std::fmt::Display for ParamType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ParamType::Bool => write!(f, "bool"),
            ParamType::Int { bits } => write!(f, "int{bits}"),
            ParamType::Uint { bits } => write!(f, "uint{bits}"),
            ParamType::Float { bits } => write!(f, "float{bits}"),
            ParamType::String { .. } | ParamType::Text => write!(f, "string"),
            ParamType::Ip { .. } => write!(f, "ip"),
        }
    }
}

/// What gadget.yaml says about one parameter (`params.ebpf.<variable>`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParamNotes {
    /// The flag's name; empty: the variable's.
    pub key: String,
    /// One-letter flag.
    pub alias: Option<char>,
    pub description: String,
    /// Replaces the value that was compiled in.
    pub default: Option<String>,
    /// Must be given, unless there is a default.
    pub mandatory: bool,
    /// The only values that are taken; empty: any.
    pub one_of: Vec<String>,
    /// A list of ports (`typeHint: ports`).
    pub ports: bool,
    /// A set of signals (`typeHint: signals`).
    pub signals: bool,
    /// The smallest and the largest number that mean something.
    pub min: Option<i64>,
    pub max: Option<i64>,
    /// Names of the parts of a sum.
    pub bits: BTreeMap<String, u64>,
}

impl From<&ParamMetadata> for ParamNotes {
    fn from(p: &ParamMetadata) -> Self {
        ParamNotes {
            key: p.key.clone(),
            alias: p.alias.chars().next(),
            description: p.description.clone(),
            default: p.default_value.clone(),
            mandatory: p.is_mandatory,
            one_of: p.one_of.clone(),
            ports: p.type_hint == "ports",
            signals: p.type_hint == "signals",
            min: p.min,
            max: p.max,
            bits: p.bits.clone(),
        }
    }
}

/// What gadget.yaml says about the parameters of the BPF half, by variable.
pub fn notes(metadata: &GadgetMetadata) -> BTreeMap<String, ParamNotes> {
    metadata.params.ebpf.iter().map(|(var, p)| (var.clone(), p.into())).collect()
}

/// The parameters of the Wasm half (`params.wasm.<name>`).
pub fn wasm_params(metadata: &GadgetMetadata) -> Vec<Param> {
    let param = |(name, p): (&String, &ParamMetadata)| Param::new(name, None, ParamType::Text, p.into(), String::new());
    metadata.params.wasm.iter().map(param).collect()
}

/// A parameter users can set.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Param {
    /// Name of the flag.
    pub key: String,
    /// Name of the variable in the object; none for a parameter of the Wasm half.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub var: Option<String>,
    #[serde(flatten)]
    pub ty: ParamType,
    pub description: String,
    /// As text that `parse` takes.
    pub default: String,
    /// One-letter flag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<char>,
    /// There is no default worth the name: the user must give a value.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mandatory: bool,
    /// The only values that users may give; empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub one_of: Vec<String>,
    /// A text that holds ports, with commas between them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ports: bool,
    /// A number whose bits are signals, given by name or number with commas between them; 0 and the empty text for none.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub signals: bool,
    /// The smallest and the largest number that mean something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
    /// A number that is a sum of these, the smallest first; given as the sum, or as names with commas between them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bits: Vec<(String, u64)>,
}

/// What is wrong with a parameter or a value for it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParamError {
    #[error("{object}: parameter {var} is of a type that cannot be a parameter")]
    Type { object: String, var: String },
    #[error("{object}: gadget.yaml describes parameter {var}, which does not exist")]
    Unknown { object: String, var: String, known: Vec<String> },
    #[error("parameter {key}: {text:?} is neither true nor false")]
    NotBool { key: String, text: String },
    #[error("parameter {key}: {text:?} is not a whole number")]
    NotNumber { key: String, text: String },
    #[error("parameter {key}: {text} is out of range, {min} to {max}")]
    Range { key: String, text: String, min: i128, max: i128 },
    #[error("parameter {key}: {text:?} is not a number")]
    NotFloat { key: String, text: String },
    #[error("parameter {key}: text of {got} bytes is too long, at most {max} fit")]
    TooLong { key: String, got: usize, max: usize },
    #[error("parameter {key}: text must not hold a NUL")]
    Nul { key: String },
    #[error("parameter {key}: {text:?} is not an IP address")]
    NotIp { key: String, text: String },
    #[error("parameter {key}: {text:?} is none of the values it takes: {}", one_of.join(", "))]
    NotOffered { key: String, text: String, one_of: Vec<String> },
    #[error("parameter {key}: {part:?} is no port, which is a number from 1 to 65535")]
    NotPort { key: String, part: String },
    #[error(
        "parameter {key}: {part:?} is no signal, which is a name such as SIGTERM or TERM, or a number from 1 to 64"
    )]
    NotSignal { key: String, part: String },
    #[error("parameter {key}: {part:?} is neither one of its values nor a sum of them: {}", terms(.bits))]
    NotBits { key: String, part: String, bits: Vec<(String, u64)> },
    #[error("parameter {key} must be given{}", offered(.one_of))]
    Missing { key: String, one_of: Vec<String> },
}

fn terms(bits: &[(String, u64)]) -> String {
    bits.iter().map(|(name, bit)| format!("{name} ({bit})")).collect::<Vec<_>>().join(", ")
}

fn offered(one_of: &[String]) -> String {
    if one_of.is_empty() { String::new() } else { format!("; it takes {}", one_of.join(", ")) }
}

impl ParamError {
    pub fn hint(&self) -> Option<String> {
        match self {
            ParamError::Unknown { known, .. } if !known.is_empty() => {
                Some(format!("the object's parameters are: {}", known.join(", ")))
            }
            ParamError::Missing { key, .. } => Some(format!("add --{key} VALUE")),
            _ => None,
        }
    }
}

/// No process or thread of Linux has a higher number.
const LAST_PID: i64 = 1 << 22;

/// What is known of variables that common headers bring: the name of the flag, and its help where gadget.yaml has none.
const COMMON: [(&str, &str, &str); 7] = [
    ("targ_pid", "pid", "Show only this process, by its number on the host; 0 shows all"),
    ("targ_tid", "tid", "Show only this thread, by its number on the host; 0 shows all"),
    ("targ_uid", "uid", "Show only processes of this user; 4294967295 shows those of all"),
    ("targ_gid", "gid", "Show only processes of this group; 4294967295 shows those of all"),
    ("targ_comm", "comm", "Show only processes of this name, of which the kernel keeps 15 bytes; empty shows all"),
    ("collect_ustack", "collect-ustack", "Take the program's stack with each event"),
    ("collect_kstack", "collect-kstack", "Take the kernel's stack with each event"),
];

/// The parameters an object declares. `notes` is `params.ebpf` of gadget.yaml, by variable.
pub fn params(object: &Object, notes: &BTreeMap<String, ParamNotes>) -> Result<Vec<Param>, ParamError> {
    let mut out: Vec<Param> = Vec::new();
    for m in &object.markers {
        let Marker::Param { var: name } = m else {
            continue;
        };
        // the object checked that the variable is there
        let Some(var) = object.var(name) else {
            continue;
        };
        if out.iter().any(|p| p.var.as_ref() == Some(name)) {
            continue;
        }
        let bad = || ParamError::Type { object: object.name.clone(), var: name.clone() };
        let t = object.btf.resolve(var.type_id).ok_or_else(bad)?;
        let ty = param_type(object, &t, var.default.len()).ok_or_else(bad)?;
        let mut note = notes.get(name).cloned().unwrap_or_default();
        let known = COMMON.iter().find(|(v, ..)| v == name);
        if let Some((_, _, help)) = known.filter(|_| note.description.is_empty()) {
            note.description = (*help).to_owned();
        }
        if matches!(name.as_str(), "targ_pid" | "targ_tid") {
            note.max = note.max.or(Some(LAST_PID));
        }
        let common = known.map_or(name.as_str(), |(_, key, _)| key);
        let p = Param::new(common, Some(name.clone()), ty, note, ty.show(&var.default));
        // a default that would be refused when used is the author's mistake, and told at once
        p.parse(&p.default)?;
        out.push(p);
    }
    for var in notes.keys() {
        if !out.iter().any(|p| p.var.as_ref() == Some(var)) {
            let known = out.iter().filter_map(|p| p.var.clone()).collect();
            return Err(ParamError::Unknown { object: object.name.clone(), var: var.clone(), known });
        }
    }
    Ok(out)
}

fn param_type(object: &Object, t: &Type, len: usize) -> Option<ParamType> {
    let btf = &object.btf;
    let bits = u32::try_from(len).ok()?.checked_mul(8)?;
    let number = |signed| match (len, signed) {
        (1 | 2 | 4 | 8, true) => Some(ParamType::Int { bits }),
        (1 | 2 | 4 | 8, false) => Some(ParamType::Uint { bits }),
        _ => None,
    };
    match t.kind {
        Kind::Int => {
            let i = btf.int(t)?;
            if i.bool && len == 1 { Some(ParamType::Bool) } else { number(i.signed) }
        }
        Kind::Enum | Kind::Enum64 => number(t.kflag),
        Kind::Float => matches!(len, 4 | 8).then_some(ParamType::Float { bits }),
        Kind::Array => {
            let elem = btf.resolve(btf.array(t)?.elem)?;
            let char = elem.kind == Kind::Int && elem.size_or_type == 1 && btf.name(elem.name_off) == "char";
            (char && len > 0).then_some(ParamType::String { len })
        }
        Kind::Struct if btf.name(t.name_off) == "gadget_l3endpoint_t" => (len >= 17).then_some(ParamType::Ip { len }),
        _ => None,
    }
}

impl ParamType {
    /// Whether the empty text is a value.
    fn takes_nothing(self) -> bool {
        matches!(self, ParamType::String { .. } | ParamType::Text | ParamType::Ip { .. })
    }

    /// A value's bytes as text.
    pub fn show(self, bytes: &[u8]) -> String {
        let mut word = [0u8; 8];
        let n = bytes.len().min(8);
        word[..n].copy_from_slice(&bytes[..n]);
        let raw = u64::from_le_bytes(word);
        match self {
            ParamType::Bool => (raw & 0xff != 0).to_string(),
            ParamType::Uint { .. } => raw.to_string(),
            ParamType::Int { bits } => {
                let unused = 64 - bits.clamp(1, 64);
                ((raw << unused) as i64 >> unused).to_string()
            }
            ParamType::Float { bits: 32 } => f32::from_bits(raw as u32).to_string(),
            ParamType::Float { .. } => f64::from_bits(raw).to_string(),
            ParamType::String { .. } | ParamType::Text => {
                let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
                String::from_utf8_lossy(&bytes[..end]).into_owned()
            }
            ParamType::Ip { .. } => match bytes.get(16) {
                Some(4) => {
                    <[u8; 4]>::try_from(&bytes[..4]).map_or_else(|_| String::new(), |a| IpAddr::from(a).to_string())
                }
                Some(6) => {
                    <[u8; 16]>::try_from(&bytes[..16]).map_or_else(|_| String::new(), |a| IpAddr::from(a).to_string())
                }
                _ => String::new(),
            },
        }
    }
}

impl Param {
    fn new(name: &str, var: Option<String>, ty: ParamType, note: ParamNotes, compiled_in: String) -> Param {
        Param {
            key: if note.key.is_empty() { name.to_owned() } else { note.key },
            var,
            ty,
            description: note.description,
            alias: note.alias,
            mandatory: note.mandatory && note.default.as_deref().is_none_or(str::is_empty),
            one_of: note.one_of,
            ports: note.ports,
            signals: note.signals && ty == ParamType::Uint { bits: 64 },
            min: note.min,
            max: note.max,
            bits: in_order(note.bits),
            // Images in the field write "" where a number is meant to stay what it was compiled with.
            default: note.default.filter(|d| !d.is_empty() || ty.takes_nothing()).unwrap_or(compiled_in),
        }
    }

    /// A switch of the host's own, off unless it is given.
    pub(crate) fn yes_or_no(key: &str, description: &str) -> Param {
        let note = ParamNotes { description: description.to_owned(), ..ParamNotes::default() };
        Param::new(key, None, ParamType::Bool, note, "false".to_owned())
    }

    /// The text in force, from what the user gave.
    pub fn choose<'a>(&'a self, given: Option<&'a str>) -> Result<&'a str, ParamError> {
        match given {
            None | Some("") if self.mandatory => {
                Err(ParamError::Missing { key: self.key.clone(), one_of: self.one_of.clone() })
            }
            None => Ok(&self.default),
            Some(text) if self.ports => {
                let wrong = |p: &&str| !p.parse().is_ok_and(|n: u16| n > 0);
                match text.split(',').filter(|_| !text.is_empty()).find(wrong) {
                    Some(part) => Err(ParamError::NotPort { key: self.key.clone(), part: part.to_owned() }),
                    None => Ok(text),
                }
            }
            Some(text) if self.one_of.is_empty() || self.one_of.iter().any(|o| o == text) => Ok(text),
            Some(text) => Err(ParamError::NotOffered {
                key: self.key.clone(),
                text: text.to_owned(),
                one_of: self.one_of.clone(),
            }),
        }
    }

    /// The variable's bytes for a text from the user.
    pub fn parse(&self, text: &str) -> Result<Vec<u8>, ParamError> {
        let key = || self.key.clone();
        match self.ty {
            ParamType::Bool => match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "t" => Ok(vec![1]),
                "false" | "0" | "f" => Ok(vec![0]),
                _ => Err(ParamError::NotBool { key: key(), text: text.into() }),
            },
            _ if self.signals => signals(&self.key, text),
            ParamType::Int { bits: width } | ParamType::Uint { bits: width } if !self.bits.is_empty() => {
                bits(&self.key, text, &self.bits, width)
            }
            ParamType::Int { bits } => {
                let max = (1i128 << (bits - 1)) - 1;
                self.integer(text, bits, -max - 1, max)
            }
            ParamType::Uint { bits } => self.integer(text, bits, 0, (1i128 << bits) - 1),
            ParamType::Float { bits } => {
                let f: f64 = text
                    .trim()
                    .parse()
                    .map_err(|_e: std::num::ParseFloatError| ParamError::NotFloat { key: key(), text: text.into() })?;
                Ok(if bits == 32 { (f as f32).to_le_bytes().to_vec() } else { f.to_le_bytes().to_vec() })
            }
            ParamType::String { len } => {
                if text.contains('\0') {
                    return Err(ParamError::Nul { key: key() });
                }
                if text.len() >= len {
                    return Err(ParamError::TooLong { key: key(), got: text.len(), max: len - 1 });
                }
                let mut out = text.as_bytes().to_vec();
                out.resize(len, 0);
                Ok(out)
            }
            ParamType::Text if self.min.is_some() || self.max.is_some() => {
                self.integer(text, 64, i64::MIN.into(), i64::MAX.into())?;
                Ok(text.as_bytes().to_vec())
            }
            ParamType::Text => Ok(text.as_bytes().to_vec()),
            ParamType::Ip { len } => {
                let mut out = vec![0u8; len];
                if text.is_empty() {
                    return Ok(out);
                }
                let ip: IpAddr = text
                    .parse()
                    .map_err(|_e: std::net::AddrParseError| ParamError::NotIp { key: key(), text: text.into() })?;
                match ip {
                    IpAddr::V4(a) => {
                        out[..4].copy_from_slice(&a.octets());
                        out[16] = 4;
                    }
                    IpAddr::V6(a) => {
                        out[..16].copy_from_slice(&a.octets());
                        out[16] = 6;
                    }
                }
                Ok(out)
            }
        }
    }

    fn integer(&self, text: &str, bits: u32, min: i128, max: i128) -> Result<Vec<u8>, ParamError> {
        let min = self.min.map_or(min, |m| min.max(m.into()));
        let max = self.max.map_or(max, |m| max.min(m.into()));
        let range = || ParamError::Range { key: self.key.clone(), text: text.into(), min, max };
        let t = text.trim();
        let (sign, digits) = t.strip_prefix('-').map_or((1, t), |d| (-1, d));
        let (digits, radix) = digits.strip_prefix("0x").map_or((digits, 10), |h| (h, 16));
        let n = i128::from_str_radix(digits, radix).map_err(|e| match e.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => range(),
            _ => ParamError::NotNumber { key: self.key.clone(), text: text.into() },
        })?;
        // a second sign would pass through the parser
        if digits.starts_with(['-', '+']) {
            return Err(ParamError::NotNumber { key: self.key.clone(), text: text.into() });
        }
        let n = n * sign;
        if n < min || n > max {
            return Err(range());
        }
        Ok(n.to_le_bytes()[..bits as usize / 8].to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wasm(yaml: &str) -> Vec<Param> {
        let yaml = format!("name: g\nparams:\n  wasm:\n{yaml}");
        wasm_params(&super::super::metadata::parse_strict(yaml.as_bytes(), "gadget.yaml").unwrap())
    }

    #[test]
    fn parameters_of_the_wasm_half_are_text() {
        let all = wasm("    paths: {key: show-paths, alias: p, description: d, defaultValue: \"1\"}\n    plain: {}\n");
        assert_eq!(
            all.iter().map(|p| (p.key.as_str(), p.alias)).collect::<Vec<_>>(),
            [("show-paths", Some('p')), ("plain", None)]
        );
        assert_eq!((all[0].var.as_ref(), all[0].ty.to_string().as_str()), (None, "string"));
        assert_eq!((all[0].choose(None), all[0].choose(Some("any"))), (Ok("1"), Ok("any")));
        assert_eq!(all[1].choose(None), Ok(""));
    }

    #[test]
    fn lists_of_ports_are_checked() {
        let p = &wasm("    ports: {typeHint: ports}\n")[0];
        for good in ["", "1", "53,65535"] {
            assert_eq!(p.choose(Some(good)), Ok(good));
        }
        for (text, bad) in [("abc", "abc"), ("53,", ""), ("0", "0"), ("53,65536", "65536"), ("1-5", "1-5")] {
            let e = ParamError::NotPort { key: "ports".into(), part: bad.into() };
            assert_eq!(p.choose(Some(text)), Err(e), "{text}");
        }
    }

    #[test]
    fn a_number_for_the_guest_has_bounds_too() {
        let p = &wasm("    interval: {min: 0, max: 60, defaultValue: \"0\"}\n")[0];
        assert_eq!((p.parse("0"), p.parse("60")), (Ok(b"0".to_vec()), Ok(b"60".to_vec())));
        for (text, wrong) in [
            ("-1", "-1 is out of range, 0 to 60"),
            ("61", "61 is out"),
            ("often", "is not a whole"),
            ("", "is not a whole"),
        ] {
            let e = p.parse(text).unwrap_err().to_string();
            assert!(e.starts_with("parameter interval: ") && e.contains(wrong), "{e}");
        }
    }

    #[test]
    fn only_offered_values_are_taken() {
        let p = &wasm("    mode: {oneOf: [fast, slow], defaultValue: fast}\n")[0];
        assert_eq!((p.choose(None), p.choose(Some("slow"))), (Ok("fast"), Ok("slow")));
        for bad in ["medium", "", "FAST"] {
            let e = p.choose(Some(bad)).unwrap_err().to_string();
            assert_eq!(e, format!("parameter mode: {bad:?} is none of the values it takes: fast, slow"));
        }
    }

    #[test]
    fn an_empty_default_leaves_a_number_what_it_was_compiled_with() {
        let of = |ty, compiled_in: &str| {
            let note = ParamNotes { default: Some(String::new()), ..ParamNotes::default() };
            Param::new("p", Some("p".into()), ty, note, compiled_in.into()).default
        };
        assert_eq!(of(ParamType::Int { bits: 32 }, "-1"), "-1");
        assert_eq!(of(ParamType::Uint { bits: 16 }, "443"), "443");
        assert_eq!(of(ParamType::Bool, "true"), "true");
        assert_eq!(of(ParamType::Float { bits: 64 }, "0.5"), "0.5");
        assert_eq!(of(ParamType::String { len: 16 }, "sh"), "");
    }

    #[test]
    fn a_mandatory_parameter_without_a_default_must_be_given() {
        let all = wasm("    a: {isMandatory: true}\n    b: {isMandatory: true, defaultValue: x}\n");
        for given in [None, Some("")] {
            assert_eq!(all[0].choose(given).unwrap_err().to_string(), "parameter a must be given");
        }
        assert_eq!((all[0].choose(Some("y")), all[1].choose(None)), (Ok("y"), Ok("x")));
    }
}

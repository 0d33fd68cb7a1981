//! Image names: what a user may write, and what it stands for.
//!
//! Pure parsing, no I/O: whether a path exists or a digest is known is for the resolver to find out. The rules are those
//! of the gadget ecosystem: no registry means the default one, a name alone gets the default path, no tag means `latest`.

use std::fmt;
use std::path::PathBuf;

use super::digest::{Digest, DigestError};

/// Longest repository name a registry takes, in characters.
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;
/// Shortest digest prefix that is taken for a digest rather than for a name, in hex digits.
const MIN_DIGEST_PREFIX: usize = 12;

/// What the parts that a user leaves out stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRules {
    /// Registry of references that name none.
    pub registry: String,
    /// Path put before a bare name, without slashes at its ends; may be empty.
    pub prefix: String,
}

impl Default for NameRules {
    fn default() -> Self {
        Self { registry: "ghcr.io".to_owned(), prefix: "inspektor-gadget/gadget".to_owned() }
    }
}

/// A fully spelled out image reference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
    bare: bool,
}

/// What a user wrote where an image is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageName {
    Reference(Reference),
    /// `@sha256:…` or `sha256:…`
    Digest(Digest),
    /// 12 to 64 hex digits; it may also be read as the name of a gadget, which comes second.
    DigestPrefix(String, Option<Reference>),
    /// A tar file or a directory: written with a leading `/`, `./` or `../`, or ending in `.tar`.
    Path(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("the image name is empty")]
    Empty,
    #[error("image name \"{text}\": registry \"{registry}\" is not HOST or HOST:PORT")]
    Registry { text: String, registry: String },
    #[error("image name \"{text}\": \"{part}\" may only hold lower-case letters, digits and single . _ - between them")]
    Repository { text: String, part: String },
    #[error("image name \"{text}\": longer than {MAX_NAME} characters")]
    TooLong { text: String },
    #[error(
        "image name \"{text}\": tag \"{tag}\" is not up to {MAX_TAG} letters, digits, . _ -, starting with no . or -"
    )]
    Tag { text: String, tag: String },
    #[error("image name \"{text}\": {source}")]
    Digest { text: String, source: DigestError },
}

impl ReferenceError {
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Repository { part, .. } if part.bytes().any(|b| b.is_ascii_uppercase()) => {
                Some(format!("image names are lower case: \"{}\"", part.to_lowercase()))
            }
            Self::Registry { .. } | Self::Repository { .. } | Self::Empty => Some(
                "write NAME, NAME:TAG, REGISTRY/PATH:TAG, …@sha256:DIGEST, or a path such as ./gadget.tar".to_owned(),
            ),
            _ => None,
        }
    }
}

impl Reference {
    /// Reads `name`, `name:tag`, `path/name`, `host[:port]/path[:tag][@digest]`.
    pub fn parse(text: &str, rules: &NameRules) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let (rest, digest) = split_digest(text)?;
        let (name, tag) = split_tag(rest);
        if let Some(tag) = tag {
            check_tag(text, tag)?;
        }
        let (registry, path) = split_registry(name);
        if let Some(registry) = registry {
            check_registry(text, registry)?;
        }
        check_repository(text, path)?;
        let bare = registry.is_none() && !path.contains('/');
        let repository =
            if bare && !rules.prefix.is_empty() { format!("{}/{path}", rules.prefix) } else { path.to_owned() };
        let registry = registry.unwrap_or(&rules.registry).to_owned();
        if registry.len() + 1 + repository.len() > MAX_NAME {
            return Err(ReferenceError::TooLong { text: text.to_owned() });
        }
        let tag = match (tag, digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(Self { registry, repository, tag, digest, bare })
    }

    /// Host and port of the registry.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path within the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// None only when a digest is given without a tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The last part of the path: the gadget's name.
    pub fn name(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or(&self.repository)
    }

    /// Written as a name alone, so the embedded catalogue may answer. A reference that names a registry or a path never
    /// means an embedded gadget.
    pub fn is_bare(&self) -> bool {
        self.bare
    }

    /// The same image without the digest: what a store lists it under.
    pub fn tagged(&self) -> Option<String> {
        self.tag.as_ref().map(|tag| format!("{}/{}:{tag}", self.registry, self.repository))
    }

    /// Registry and path, with the default ones left out.
    pub fn short_repository(&self, rules: &NameRules) -> String {
        let prefix = if rules.prefix.is_empty() { String::new() } else { format!("{}/", rules.prefix) };
        if self.registry == rules.registry
            && let Some(name) = self.repository.strip_prefix(&prefix)
            && !name.contains('/')
        {
            return name.to_owned();
        }
        format!("{}/{}", self.registry, self.repository)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl ImageName {
    pub fn parse(text: &str, rules: &NameRules) -> Result<Self, ReferenceError> {
        if looks_like_path(text) {
            return Ok(Self::Path(PathBuf::from(text)));
        }
        let bare_digest = text.strip_prefix('@').unwrap_or(text);
        if bare_digest.starts_with("sha256:") {
            let digest =
                bare_digest.parse().map_err(|source| ReferenceError::Digest { text: text.to_owned(), source })?;
            return Ok(Self::Digest(digest));
        }
        let reference = Reference::parse(text, rules);
        let hex_only = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if hex_only && (MIN_DIGEST_PREFIX..=64).contains(&text.len()) {
            return Ok(Self::DigestPrefix(text.to_owned(), reference.ok()));
        }
        reference.map(Self::Reference)
    }
}

fn looks_like_path(text: &str) -> bool {
    text.starts_with('/')
        || text.starts_with("./")
        || text.starts_with("../")
        || matches!(text, "." | "..")
        || text.ends_with(".tar")
}

fn split_digest(text: &str) -> Result<(&str, Option<Digest>), ReferenceError> {
    let Some((rest, digest)) = text.split_once('@') else {
        return Ok((text, None));
    };
    let digest = digest.parse().map_err(|source| ReferenceError::Digest { text: text.to_owned(), source })?;
    Ok((rest, Some(digest)))
}

/// The tag is what follows a colon after the last slash; a colon before it belongs to the registry's port.
fn split_tag(rest: &str) -> (&str, Option<&str>) {
    let last = rest.rfind('/').map_or(0, |slash| slash + 1);
    match rest[last..].find(':') {
        Some(colon) => (&rest[..last + colon], Some(&rest[last + colon + 1..])),
        None => (rest, None),
    }
}

/// The first part is a registry when it could not be a path: it has a dot or a port, or is `localhost`.
fn split_registry(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((first, path)) if first.contains(['.', ':', '[']) || first == "localhost" => (Some(first), path),
        _ => (None, name),
    }
}

fn check_registry(text: &str, registry: &str) -> Result<(), ReferenceError> {
    let bad = || ReferenceError::Registry { text: text.to_owned(), registry: registry.to_owned() };
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or_else(bad)?;
            let known = address.parse::<std::net::Ipv6Addr>().is_ok();
            let port = if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(bad)?) };
            return if known && port.is_none_or(is_port) { Ok(()) } else { Err(bad()) };
        }
        None => registry.split_once(':').map_or((registry, None), |(host, port)| (host, Some(port))),
    };
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if host.split('.').all(label) && port.is_none_or(is_port) { Ok(()) } else { Err(bad()) }
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

fn check_repository(text: &str, path: &str) -> Result<(), ReferenceError> {
    for part in path.split('/') {
        if !is_repository_part(part) {
            return Err(ReferenceError::Repository { text: text.to_owned(), part: part.to_owned() });
        }
    }
    Ok(())
}

/// Runs of letters and digits with `.`, `_`, `__` or any number of `-` between them.
fn is_repository_part(part: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends = bytes.first().copied().is_some_and(word) && bytes.last().copied().is_some_and(word);
    let separators_fit = part
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|between| matches!(between, "" | "." | "_" | "__") || between.bytes().all(|b| b == b'-'));
    ends && separators_fit
}

fn check_tag(text: &str, tag: &str) -> Result<(), ReferenceError> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    let fits = bytes.len() <= MAX_TAG
        && bytes.first().copied().is_some_and(word)
        && bytes.iter().all(|&b| word(b) || matches!(b, b'.' | b'-'));
    if fits { Ok(()) } else { Err(ReferenceError::Tag { text: text.to_owned(), tag: tag.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Reference, ReferenceError> {
        Reference::parse(text, &NameRules::default())
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        for (text, full, bare) in [
            ("trace_exec", "ghcr.io/inspektor-gadget/gadget/trace_exec:latest", true),
            ("trace_exec:v0.1", "ghcr.io/inspektor-gadget/gadget/trace_exec:v0.1", true),
            ("me/trace_exec", "ghcr.io/me/trace_exec:latest", false),
            ("localhost/trace_exec", "localhost/trace_exec:latest", false),
            ("localhost:5000/trace_exec", "localhost:5000/trace_exec:latest", false),
            ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c", false),
            ("[::1]:5000/a:b", "[::1]:5000/a:b", false),
            ("ci_datasource-containers", "ghcr.io/inspektor-gadget/gadget/ci_datasource-containers:latest", true),
        ] {
            let got = parse(text).unwrap();
            assert_eq!((got.to_string().as_str(), got.is_bare()), (full, bare), "{text}");
        }
    }

    #[test]
    fn a_digest_needs_no_tag() {
        let digest = Digest::of(b"x");
        let got = parse(&format!("trace_exec@{digest}")).unwrap();
        assert_eq!((got.tag(), got.digest()), (None, Some(digest)));
        let got = parse(&format!("h.io/p:t@{digest}")).unwrap();
        assert_eq!(got.to_string(), format!("h.io/p:t@{digest}"));
    }

    #[test]
    fn other_defaults_are_honoured() {
        let rules = NameRules { registry: "mirror.example:5000".into(), prefix: String::new() };
        let got = Reference::parse("trace_exec", &rules).unwrap();
        assert_eq!(got.to_string(), "mirror.example:5000/trace_exec:latest");
        assert_eq!(got.short_repository(&rules), "trace_exec");
        assert_eq!(got.short_repository(&NameRules::default()), "mirror.example:5000/trace_exec");
    }

    #[test]
    fn wrong_names_are_refused() {
        for text in [
            "",
            "Trace_exec",
            "a//b",
            "/",
            "a b",
            "a:",
            "a:b:c",
            "a@",
            "a@sha256:00",
            "h.io/",
            "h.io/-a",
            "a_-b",
            "a___b",
            "ex..ample/a",
            "h.io:99999/a",
            "h.io:/a",
            "[::1/a",
            "a:.b",
            "../a/../b\0",
            "a:té",
        ] {
            assert!(parse(text).is_err(), "{text:?} was taken for {:?}", parse(text));
        }
        assert_eq!(parse("Exec").unwrap_err().hint().unwrap(), "image names are lower case: \"exec\"");
    }

    #[test]
    fn paths_and_digests_are_told_from_names() {
        let rules = NameRules::default();
        let name = |t: &str| ImageName::parse(t, &rules).unwrap();
        for path in ["./x", "../x", "/x", ".", "..", "x.tar", "d/x.tar"] {
            assert_eq!(name(path), ImageName::Path(path.into()));
        }
        let digest = Digest::of(b"x");
        assert_eq!(name(&digest.to_string()), ImageName::Digest(digest));
        assert_eq!(name(&format!("@{digest}")), ImageName::Digest(digest));
        assert!(matches!(name(&digest.short()), ImageName::DigestPrefix(p, Some(_)) if p == digest.short()));
        assert!(matches!(name("facade"), ImageName::Reference(_)));
        assert!(ImageName::parse("sha256:12", &rules).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,80}") {
            if let Ok(reference) = parse(&text) {
                prop_assert_eq!(&parse(&reference.to_string()).unwrap().to_string(), &reference.to_string());
            }
            drop(ImageName::parse(&text, &NameRules::default()));
        }

        #[test]
        fn what_we_print_other_clients_read(
            host in "[a-z][a-z0-9]{0,8}\\.[a-z]{2,3}(:[1-9][0-9]{1,3})?",
            path in "[a-z0-9]{1,8}((\\.|_|__|-{1,3})[a-z0-9]{1,8}){0,2}(/[a-z0-9]{1,8}){0,3}",
            tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}",
        ) {
            let text = format!("{host}/{path}:{tag}");
            let ours = parse(&text).unwrap();
            prop_assert_eq!(ours.to_string(), text.clone());
            let theirs: oci_client::Reference = text.parse().unwrap();
            prop_assert_eq!(theirs.registry(), ours.registry());
            prop_assert_eq!(theirs.repository(), ours.repository());
            prop_assert_eq!(theirs.tag(), ours.tag());
        }
    }
}

//! What can go wrong with images, each naming the image, blob or file concerned.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::build::BuildError;
use super::digest::Digest;
use super::reference::ReferenceError;
use super::registry::RegistryError;
use crate::bpf::object::ObjectError;
use crate::gadget::metadata::MetadataError;
use crate::gadget::params::ParamError;
use crate::gadget::schema::SchemaError;

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error(transparent)]
    Registry(Box<RegistryError>),
    #[error(transparent)]
    Build(Box<BuildError>),
    #[error("image {image}: {source}")]
    Metadata { image: String, source: Box<MetadataError> },
    #[error("image {image}: {source}")]
    Object { image: String, source: Box<ObjectError> },
    #[error("image {image}: {source}")]
    Params { image: String, source: Box<ParamError> },
    #[error("image {image}: {source}")]
    Schema { image: String, source: Box<SchemaError> },

    #[error("image {image}: blob {expected} in {place} is damaged: its content has the digest {actual}")]
    DamagedBlob { image: String, place: String, expected: Digest, actual: Digest },
    #[error("image {image}: blob {digest} in {place} has {actual} bytes instead of {expected}")]
    BlobSize { image: String, place: String, digest: Digest, expected: u64, actual: u64 },
    #[error("image {image}: blob {digest} is missing in {place}")]
    MissingBlob { image: String, place: String, digest: Digest },
    #[error("image {image}: blob {digest} has {size} bytes, more than the {limit} that are accepted")]
    BlobTooLarge { image: String, digest: Digest, size: u64, limit: u64 },
    #[error("image {image} has more than the {limit} bytes that are accepted, all architectures together")]
    ImageTooLarge { image: String, limit: u64 },
    #[error("image {image} is made of {count} manifests, more than the {limit} that are accepted")]
    Manifests { image: String, count: usize, limit: usize },
    #[error("{place}: {what} is not valid: {source}")]
    Document { place: String, what: &'static str, source: serde_json::Error },
    #[error("image {image}: {media_type} in {place} is neither an image manifest nor an image index")]
    MediaType { image: String, place: String, media_type: String },

    #[error("cannot read {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}: {source}", path = path.display())]
    Write { path: PathBuf, source: io::Error },
    /// What the reader of archives says of a header quotes its bytes, which helps nobody.
    #[error("{path} is no tar archive, or a damaged one", path = path.display())]
    Archive { path: PathBuf },
    #[error("{path} is no OCI image layout: it has no {lacks}", path = path.display())]
    NoLayout { path: PathBuf, lacks: &'static str },
    #[error("{path} is no gadget: it holds neither gadget.yaml nor an OCI image layout", path = path.display())]
    NoGadgetDirectory { path: PathBuf },
    #[error("{path} lists no image", path = path.display())]
    EmptyLayout { path: PathBuf },
    #[error("{path} holds {} images: {}", names.len(), names.join(", "), path = path.display())]
    SeveralImages { path: PathBuf, names: Vec<String> },
    #[error("the embedded catalogue of {path} cannot be read: {source}", path = path.display())]
    Bundle { path: PathBuf, source: object::Error },

    #[error("there is no place for images: {why}")]
    NoStore { why: String },
    #[error("no image {name} in {place}")]
    NotInStore { name: String, place: String, near: Vec<String> },
    #[error("no gadget {name}: {}", Looked(looked))]
    Unknown {
        name: String,
        looked: Vec<Lookup>,
        near: Vec<String>,
        /// A file or folder has this name, but names without `./` are never paths.
        is_path: bool,
    },
    #[error("digest {prefix} stands for {} images: {}", matches.len(), matches.join(", "))]
    AmbiguousDigest { prefix: String, matches: Vec<String> },
    #[error("image {image} is no gadget: its config is {config_type}, and its artifact type {artifact_type}")]
    NotAGadget { image: String, config_type: String, artifact_type: String },
    #[error("image {image} is not built for {wanted}, only for {}", available.join(", "))]
    NoArchitecture { image: String, wanted: String, available: Vec<String> },
}

impl From<RegistryError> for ImageError {
    fn from(error: RegistryError) -> Self {
        Self::Registry(Box::new(error))
    }
}

impl From<BuildError> for ImageError {
    fn from(error: BuildError) -> Self {
        Self::Build(Box::new(error))
    }
}

/// A place where a gadget was looked for, and what came of it.
#[derive(Debug)]
pub enum Lookup {
    Store(PathBuf),
    Catalogue,
    NoCatalogue,
    Registry(Box<RegistryError>),
    PullNever,
    PullingDisallowed,
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(path) => write!(f, "not in the store {}", path.display()),
            Self::Catalogue => write!(f, "not among the built-in gadgets"),
            Self::NoCatalogue => write!(f, "this program has no built-in gadgets"),
            Self::Registry(error) => write!(f, "{error}"),
            Self::PullNever => write!(f, "not pulled because of the pull policy \"never\""),
            Self::PullingDisallowed => write!(f, "pulling is disallowed"),
        }
    }
}

struct Looked<'a>(&'a [Lookup]);

impl fmt::Display for Looked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, lookup) in self.0.iter().enumerate() {
            let between = if position == 0 { "" } else { "; " };
            write!(f, "{between}{lookup}")?;
        }
        Ok(())
    }
}

impl ImageError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Reference(error) => error.hint(),
            Self::Registry(error) => error.hint(),
            Self::Build(error) => error.hint(),
            Self::Metadata { source, .. } => source.hint(),
            Self::Object { source, .. } => source.hint(),
            Self::Params { source, .. } => source.hint(),
            Self::Schema { source, .. } => source.hint(),
            Self::DamagedBlob { image, .. } | Self::BlobSize { image, .. } | Self::MissingBlob { image, .. } => {
                Some(format!("get it again: ig image pull {image}, or ig image import FILE.tar"))
            }
            Self::Write { source, path } => write_hint(source, path),
            Self::Read { source, path } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some(format!("run as the owner of {}, or choose another store with --store DIR", path.display()))
            }
            Self::NoStore { .. } => Some("name one with --store DIR".to_owned()),
            Self::NotInStore { near, .. } => Some(near_hint(near, "ig image list shows what is there")),
            Self::Unknown { name, is_path: true, .. } => {
                Some(format!("for the file or folder of that name write ./{name}"))
            }
            Self::Unknown { near, looked, .. } => Some(unknown_hint(near, looked)),
            Self::Archive { .. } => Some("ig image export makes archives that can be imported and run".to_owned()),
            Self::AmbiguousDigest { .. } => Some("give more digits".to_owned()),
            Self::SeveralImages { path, .. } => {
                Some(format!("import them, then use one by name: ig image import {}", path.display()))
            }
            Self::NoGadgetDirectory { .. } => Some(
                "a gadget's folder holds gadget.yaml and program.bpf.c; see docs/guides/first-gadget.md".to_owned(),
            ),
            Self::NoArchitecture { wanted, .. } => Some(format!("build it: ig image build DIR --arch {wanted}")),
            _ => None,
        }
    }
}

fn write_hint(source: &io::Error, path: &std::path::Path) -> Option<String> {
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Some("run as root, or choose another store with --store DIR".to_owned())
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some(format!("nothing was changed; free space on the disk of {}", path.display()))
        }
        _ => None,
    }
}

fn near_hint(near: &[String], otherwise: &str) -> String {
    if near.is_empty() { otherwise.to_owned() } else { format!("did you mean {}?", near.join(", ")) }
}

fn unknown_hint(near: &[String], looked: &[Lookup]) -> String {
    if near.is_empty() {
        for lookup in looked {
            match lookup {
                Lookup::Registry(error) => {
                    if let Some(hint) = error.hint() {
                        return hint;
                    }
                }
                Lookup::PullNever => return "pull it first: ig image pull NAME, or leave out --pull never".to_owned(),
                _ => {}
            }
        }
    }
    near_hint(near, "ig list-gadgets shows what can be run")
}

/// The known names closest to a misspelt one, best first; at most three, none that is not close.
pub fn near_names<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let limit = (wanted.chars().count() / 3).clamp(1, 3);
    let mut close: Vec<(usize, &str)> = known
        .into_iter()
        .filter_map(|name| {
            let distance = edit_distance(wanted, name, limit);
            // `exec` for `trace_exec`: a whole word of a name is near too.
            let word = wanted.len() >= 3 && name.split(['_', '-', '/', ':']).any(|part| part == wanted);
            match distance {
                Some(distance) => Some((distance, name)),
                None if word => Some((limit + 1, name)),
                None => None,
            }
        })
        .collect();
    close.sort_unstable();
    close.dedup();
    // Beside a likely slip, names that would take several are noise.
    let best = close.first().map_or(0, |(distance, _)| *distance);
    close.retain(|(distance, _)| *distance <= best + 1);
    close.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}

/// Letters to add, remove, replace or swap to get from one to the other; None when more than `limit`.
fn edit_distance(from: &str, to: &str, limit: usize) -> Option<usize> {
    // Names are short, and a hostile one must not make this quadratic.
    if from.len().abs_diff(to.len()) > limit * 4 || from.len() > 128 {
        return None;
    }
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut before = vec![0; to.len() + 1];
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1; to.len() + 1];
        for (j, b) in to.iter().enumerate() {
            let mut cost = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                cost = cost.min(before[j - 1] + 1);
            }
            row[j + 1] = cost;
        }
        before = std::mem::replace(&mut last, row);
    }
    Some(last[to.len()]).filter(|distance| *distance <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_close_ones_best_first() {
        let known = ["trace_exec", "trace_open", "snapshot_process"];
        assert_eq!(near_names("trace_exce", known), ["trace_exec"]);
        assert_eq!(near_names("trace_exek", known), ["trace_exec"]);
        assert_eq!(near_names("traceexec", known), ["trace_exec"]);
        assert_eq!(near_names("exec", known), ["trace_exec"]);
        assert!(near_names("profile_cpu", known).is_empty());
        assert!(near_names(&"x".repeat(10_000), known).is_empty());
    }
}

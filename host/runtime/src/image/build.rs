//! `ig image build`: from a gadget's folder to an image, with the host's compilers and no container.
//!
//! The same folder, compilers and version give the same digest: no times, no paths of this machine, sorted keys. A
//! temporary directory holds what is being made and is gone afterwards; the folder itself is only read. Compilers run
//! as child processes of the caller's thread.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::check;
use super::compile::{CompileError, Compiler, Toolchain};
use super::digest::Digest;
use super::document::{
    ANNOTATION_BUILDER, ANNOTATION_CREATED, Arch, Descriptor, GADGET_ARTIFACT, GADGET_CONFIG, GADGET_EBPF, GADGET_WASM,
    Index, MEDIA_MANIFEST, Manifest,
};
use super::source::{ImageContent, Origin, index_descriptor};
use crate::gadget::metadata::{self, GadgetMetadata, MetadataError};

pub const METADATA_FILE: &str = "gadget.yaml";
const BUILD_FILE: &str = "build.yaml";
const PROGRAM_FILE: &str = "program.bpf.c";
const WASM_FILE: &str = "program.wasm";
const CARGO_FILE: &str = "Cargo.toml";

/// Compiles the Rust crate in a folder to a Wasm component.
pub type WasmBuilder<'a> = dyn Fn(&Path) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> + 'a;

pub struct BuildRequest<'a> {
    pub dir: &'a Path,
    /// One manifest each; usually only [`Arch::host`].
    pub archs: &'a [Arch],
    pub toolchain: &'a Toolchain,
    pub wasm: &'a WasmBuilder<'a>,
    /// Written into the manifest: which program built the image.
    pub builder_version: &'a str,
    /// Seconds since 1970 to record as the time of creation; without it none is recorded.
    pub source_date_epoch: Option<i64>,
}

/// What [`build`] made.
#[derive(Debug)]
pub struct Built {
    pub image: ImageContent,
    pub metadata: GadgetMetadata,
    /// The compilers' warnings, for stderr; empty when there were none.
    pub warnings: String,
}

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("cannot read {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{dir} is no gadget: it has no {METADATA_FILE}", dir = dir.display())]
    NoMetadata { dir: PathBuf },
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error("{path}: line {line}, column {column}: {message}", path = path.display())]
    BuildFile { path: PathBuf, line: u64, column: u64, message: String },
    #[error("{file} names {part} as {key}, which does not exist", file = file.display(), part = part.display())]
    NoPart { file: PathBuf, key: &'static str, part: PathBuf },
    #[error("{dir} holds neither {PROGRAM_FILE} nor {CARGO_FILE} nor {WASM_FILE}", dir = dir.display())]
    Nothing { dir: PathBuf },
    #[error("{path} cannot be compiled: only Rust ({CARGO_FILE}) and ready .wasm files are supported", path = path.display())]
    WasmLanguage { path: PathBuf },
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error("building the Wasm half in {dir}: {source}", dir = dir.display())]
    Wasm { dir: PathBuf, source: Box<dyn Error + Send + Sync> },
    #[error("{path} is no WebAssembly: it does not start with \\0asm", path = path.display())]
    NoWasm { path: PathBuf },
    #[error("{METADATA_FILE} does not fit {program}: {}", mismatches.join("; "), program = program.display())]
    Mismatch { program: PathBuf, mismatches: Vec<String> },
    #[error("{program} does not compile to a BPF object: {source}", program = program.display())]
    Object { program: PathBuf, source: object::Error },
    #[error("{program} compiles to an object without a BPF program", program = program.display())]
    NoProgram { program: PathBuf },
    #[error("the time {seconds} cannot be written as a date")]
    Date { seconds: i64 },
    #[error("writing the manifest: {source}")]
    Document { source: serde_json::Error },
}

impl BuildError {
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Compile(error) => error.hint(),
            Self::Metadata(error) => error.hint(),
            Self::NoMetadata { .. } | Self::Nothing { .. } => {
                Some("docs/guides/first-gadget.md shows what belongs in a gadget's folder".to_owned())
            }
            Self::BuildFile { .. } => Some("build.yaml may hold ebpfsource, wasm and metadata".to_owned()),
            Self::NoProgram { .. } => Some("give a function a section: SEC(\"tracepoint/…\")".to_owned()),
            _ => None,
        }
    }
}

/// `build.yaml`: where the parts are, when not in the usual places.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BuildFile {
    ebpfsource: Option<PathBuf>,
    wasm: Option<PathBuf>,
    metadata: Option<PathBuf>,
}

/// The parts of a gadget's folder.
struct Parts {
    metadata: PathBuf,
    program: Option<PathBuf>,
    wasm: Option<WasmPart>,
}

enum WasmPart {
    Crate(PathBuf),
    Ready(PathBuf),
}

/// Builds the gadget in a folder.
pub fn build(request: &BuildRequest<'_>) -> Result<Built, BuildError> {
    let parts = Parts::find(request.dir)?;
    let metadata_bytes = read(&parts.metadata)?;
    let metadata = metadata::parse_strict(&metadata_bytes, &parts.metadata.display().to_string())?;
    if parts.program.is_none() && parts.wasm.is_none() && metadata.operator.is_empty() {
        return Err(BuildError::Nothing { dir: request.dir.to_owned() });
    }
    let mut made = Made { blobs: BTreeMap::new(), warnings: String::new() };
    let objects = parts.program.as_ref().map(|program| made.programs(request, program)).transpose()?;
    let wasm = parts.wasm.as_ref().map(|part| part.bytes(request)).transpose()?;
    if let (Some(program), Some(objects)) = (&parts.program, &objects) {
        for object in objects {
            check::object(program, object, &metadata, wasm.is_some())?;
        }
    }
    let annotations = annotations(&metadata, request)?;
    let config = made.blob(GADGET_CONFIG, &metadata_bytes);
    let mut manifests = Vec::new();
    for (position, arch) in request.archs.iter().enumerate() {
        let object = objects.as_ref().map(|objects| made.blob(GADGET_EBPF, &objects[position]));
        let component = wasm.as_ref().map(|bytes| made.blob(GADGET_WASM, bytes));
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(MEDIA_MANIFEST.to_owned()),
            artifact_type: Some(GADGET_ARTIFACT.to_owned()),
            config: config.clone(),
            layers: object.into_iter().chain(component).collect(),
            annotations: annotations.clone(),
        };
        let bytes = serde_json::to_vec(&manifest).map_err(|source| BuildError::Document { source })?;
        let mut descriptor = made.blob(MEDIA_MANIFEST, &bytes);
        // No artifact type here, though OCI 1.1 allows one: skopeo 1.9 drops it and then cannot keep the digest.
        descriptor.platform = Some(arch.platform());
        manifests.push(descriptor);
    }
    let index = Index { annotations, ..Index::new(manifests) };
    let bytes = serde_json::to_vec(&index).map_err(|source| BuildError::Document { source })?;
    let root = index_descriptor(&bytes);
    made.blobs.insert(root.digest, bytes);
    Ok(Built { image: ImageContent::new(root, made.blobs, Origin::Directory), metadata, warnings: made.warnings })
}

struct Made {
    blobs: BTreeMap<Digest, Vec<u8>>,
    warnings: String,
}

impl Made {
    fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Descriptor {
        let descriptor = Descriptor::new(media_type, bytes);
        self.blobs.insert(descriptor.digest, bytes.to_vec());
        descriptor
    }

    /// One object per architecture, in their order.
    fn programs(&mut self, request: &BuildRequest<'_>, program: &Path) -> Result<Vec<Vec<u8>>, BuildError> {
        let compiler = Compiler::find(request.toolchain)?;
        let mut objects = Vec::new();
        for arch in request.archs {
            let compiled = compiler.compile(request.dir, program, *arch)?;
            if !self.warnings.contains(&compiled.warnings) {
                self.warnings.push_str(&compiled.warnings);
            }
            objects.push(compiled.object);
        }
        Ok(objects)
    }
}

impl Parts {
    fn find(dir: &Path) -> Result<Self, BuildError> {
        let file = dir.join(BUILD_FILE);
        let build = if file.is_file() { build_file(&file)? } else { BuildFile::default() };
        let named = |key: &'static str, part: Option<PathBuf>| {
            part.map(|part| {
                let path = dir.join(&part);
                if path.exists() { Ok(path) } else { Err(BuildError::NoPart { file: file.clone(), key, part }) }
            })
            .transpose()
        };
        let usual = |name: &str| Some(dir.join(name)).filter(|path| path.is_file());
        let metadata = match named("metadata", build.metadata)? {
            Some(path) => path,
            None => usual(METADATA_FILE).ok_or_else(|| BuildError::NoMetadata { dir: dir.to_owned() })?,
        };
        let program = match named("ebpfsource", build.ebpfsource)? {
            Some(path) => Some(path),
            None => usual(PROGRAM_FILE),
        };
        let wasm = match named("wasm", build.wasm)? {
            Some(path) => Some(WasmPart::named(path)?),
            // A ready file beside a crate is what an earlier build left there.
            None if usual(CARGO_FILE).is_some() => Some(WasmPart::Crate(dir.to_owned())),
            None => usual(WASM_FILE).map(WasmPart::Ready),
        };
        Ok(Self { metadata, program, wasm })
    }
}

impl WasmPart {
    fn named(path: PathBuf) -> Result<Self, BuildError> {
        if path.is_dir() && path.join(CARGO_FILE).is_file() {
            return Ok(Self::Crate(path));
        }
        match path.extension().and_then(|e| e.to_str()) {
            Some("wasm") => Ok(Self::Ready(path)),
            Some("toml") => Ok(Self::Crate(path.parent().unwrap_or(Path::new(".")).to_owned())),
            // The source file's crate is in a folder above it.
            Some("rs") => match path.ancestors().skip(1).find(|dir| dir.join(CARGO_FILE).is_file()) {
                Some(dir) => Ok(Self::Crate(dir.to_owned())),
                None => Err(BuildError::WasmLanguage { path }),
            },
            _ => Err(BuildError::WasmLanguage { path }),
        }
    }

    fn bytes(&self, request: &BuildRequest<'_>) -> Result<Vec<u8>, BuildError> {
        match self {
            Self::Crate(dir) => (request.wasm)(dir).map_err(|source| BuildError::Wasm { dir: dir.clone(), source }),
            Self::Ready(path) => {
                let bytes = read(path)?;
                if !bytes.starts_with(b"\0asm") {
                    return Err(BuildError::NoWasm { path: path.clone() });
                }
                Ok(bytes)
            }
        }
    }
}

fn build_file(path: &Path) -> Result<BuildFile, BuildError> {
    let bytes = read(path)?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(BuildFile::default());
    }
    serde_saphyr::from_slice(&bytes).map_err(|error| BuildError::BuildFile {
        path: path.to_owned(),
        line: error.location().map_or(1, |place| place.line()),
        column: error.location().map_or(1, |place| place.column()),
        message: crate::gadget::plain_yaml_error(&error),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, BuildError> {
    std::fs::read(path).map_err(|source| BuildError::Read { path: path.to_owned(), source })
}

fn annotations(metadata: &GadgetMetadata, request: &BuildRequest<'_>) -> Result<BTreeMap<String, String>, BuildError> {
    let mut annotations = BTreeMap::new();
    for (key, value) in [
        ("org.opencontainers.image.title", &metadata.name),
        ("org.opencontainers.image.description", &metadata.description),
        ("org.opencontainers.image.url", &metadata.homepage_url),
        ("org.opencontainers.image.documentation", &metadata.documentation_url),
        ("org.opencontainers.image.source", &metadata.source_url),
    ] {
        if !value.is_empty() {
            annotations.insert(key.to_owned(), value.clone());
        }
    }
    annotations.insert(ANNOTATION_BUILDER.to_owned(), request.builder_version.to_owned());
    if let Some(seconds) = request.source_date_epoch {
        annotations.insert(ANNOTATION_CREATED.to_owned(), rfc3339(seconds).ok_or(BuildError::Date { seconds })?);
    }
    Ok(annotations)
}

/// Seconds since 1970 as `2026-01-02T03:04:05Z`; only years 0 to 9999 have such a form.
fn rfc3339(seconds: i64) -> Option<String> {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Civil date from a day count, in eras of 400 years that begin on 1 March.
    let shifted = days.checked_add(719_468)?;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era.checked_mul(400)? + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    (0..=9_999).contains(&year).then(|| format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_the_civil_ones() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_305_599, "2026-11-21T23:59:59Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds).as_deref(), Some(date));
        }
        assert_eq!(rfc3339(253_402_300_800), None);
        assert_eq!(rfc3339(i64::MAX), None);
        assert_eq!(rfc3339(i64::MIN), None);
    }
}

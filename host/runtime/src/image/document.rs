//! The three JSON documents of an OCI image: descriptor, manifest and index, plus the media types of gadgets.
//!
//! Pure data. The raw bytes of a document are what is stored and pushed; these types are for reading them and for
//! writing new ones, with sorted keys so that the same input has the same digest.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::digest::Digest;

pub(super) const MEDIA_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const MEDIA_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const MEDIA_DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(super) const MEDIA_DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// What makes an image a gadget image.
pub const GADGET_ARTIFACT: &str = "application/vnd.gadget.v1+binary";
/// The config blob: gadget.yaml, byte for byte.
pub const GADGET_CONFIG: &str = "application/vnd.gadget.config.v1+yaml";
pub const GADGET_EBPF: &str = "application/vnd.gadget.ebpf.program.v1+binary";
pub const GADGET_WASM: &str = "application/vnd.gadget.wasm.program.v1+binary";

pub(super) const ANNOTATION_REF: &str = "org.opencontainers.image.ref.name";
pub(super) const ANNOTATION_CREATED: &str = "org.opencontainers.image.created";
pub(super) const ANNOTATION_BUILDER: &str = "io.inspektor-gadget.builder.version";

/// A pointer to a blob.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What other tools put there; kept when index.json is written again.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

impl Descriptor {
    pub fn new(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            artifact_type: None,
            annotations: BTreeMap::new(),
            platform: None,
            other: BTreeMap::new(),
        }
    }

    pub fn is_index(&self) -> bool {
        matches!(self.media_type.as_str(), MEDIA_INDEX | MEDIA_DOCKER_INDEX)
    }

    pub fn is_manifest(&self) -> bool {
        matches!(self.media_type.as_str(), MEDIA_MANIFEST | MEDIA_DOCKER_MANIFEST)
    }

    /// The full reference under which a layout lists this image, if any.
    pub fn reference(&self) -> Option<&str> {
        self.annotations.get(ANNOTATION_REF).map(String::as_str)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Older images say it in the config's media type only, newer ones in `artifactType` too.
    pub fn is_gadget(&self) -> bool {
        self.artifact_type.as_deref() == Some(GADGET_ARTIFACT) || self.config.media_type == GADGET_CONFIG
    }

    pub fn layer(&self, media_type: &str) -> Option<&Descriptor> {
        self.layers.iter().find(|l| l.media_type == media_type)
    }
}

/// `index.json` of a layout, and the index of a multi-architecture image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(MEDIA_INDEX.to_owned()),
            artifact_type: None,
            manifests,
            annotations: BTreeMap::new(),
        }
    }
}

/// The processor architectures a gadget can be built for, in OCI's spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Arch {
    Amd64,
    Arm64,
}

impl Arch {
    pub const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// The architecture this program runs on.
    pub const fn host() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.name() == name)
    }

    pub fn platform(self) -> Platform {
        Platform { architecture: self.name().to_owned(), os: "linux".to_owned(), variant: None }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

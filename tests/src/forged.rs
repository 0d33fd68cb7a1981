//! Images that `ig image build` would never make: an OCI layout with any layers, as a directory.
//!
//! Digests are right unless a test spoils them afterwards, so that each image is wrong in one way only.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

pub const EBPF: &str = "application/vnd.gadget.ebpf.program.v1+binary";
pub const WASM: &str = "application/vnd.gadget.wasm.program.v1+binary";
const CONFIG: &str = "application/vnd.gadget.config.v1+yaml";
const GADGET: &str = "application/vnd.gadget.v1+binary";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image to be written.
pub struct Forged {
    /// `gadget.yaml`.
    pub config: Vec<u8>,
    pub config_type: &'static str,
    pub artifact_type: &'static str,
    /// Media type and content.
    pub layers: Vec<(&'static str, Vec<u8>)>,
}

impl Forged {
    pub fn gadget(config: &str) -> Self {
        Forged { config: config.into(), config_type: CONFIG, artifact_type: GADGET, layers: Vec::new() }
    }

    /// An ordinary container image.
    pub fn container() -> Self {
        Forged {
            config: br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#.to_vec(),
            config_type: "application/vnd.oci.image.config.v1+json",
            artifact_type: "",
            layers: vec![("application/vnd.oci.image.layer.v1.tar", vec![0; 1024])],
        }
    }

    pub fn layer(mut self, media_type: &'static str, content: &[u8]) -> Self {
        self.layers.push((media_type, content.to_vec()));
        self
    }

    /// Writes the layout into a new `dir`, packs it as `dir.tar` beside it, and returns the archive.
    pub fn write(&self, dir: &Path) -> PathBuf {
        let blobs = dir.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).expect("a writable directory");
        let put = |media_type: &str, content: &[u8]| -> Value {
            let digest: String = Sha256::digest(content).iter().map(|b| format!("{b:02x}")).collect();
            std::fs::write(blobs.join(&digest), content).expect("a writable directory");
            json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": content.len()})
        };
        let layers: Vec<_> = self.layers.iter().map(|(t, c)| put(t, c)).collect();
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": put(self.config_type, &self.config), "layers": layers,
        });
        if !self.artifact_type.is_empty() {
            manifest["artifactType"] = self.artifact_type.into();
        }
        let mut descriptor = put(MANIFEST, manifest.to_string().as_bytes());
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        descriptor["platform"] = json!({"architecture": arch, "os": "linux"});
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor]});
        let mut top = put(INDEX, index.to_string().as_bytes());
        top["annotations"] =
            json!({"org.opencontainers.image.ref.name": "ghcr.io/inspektor-gadget/gadget/forged:latest"});
        let top = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [top]});
        std::fs::write(dir.join("index.json"), top.to_string()).expect("a writable directory");
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a writable directory");
        let tar = dir.with_extension("tar");
        let ok = std::process::Command::new("tar").arg("-C").arg(dir).arg("-cf").arg(&tar).arg(".").status();
        assert!(ok.is_ok_and(|s| s.success()), "tar failed");
        tar
    }
}

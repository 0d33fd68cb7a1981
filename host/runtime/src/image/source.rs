//! Where images are read from: one trait for the store, a tar, the embedded catalogue and an image held in memory, and
//! the walk from a descriptor to everything it needs.
//!
//! Every blob is checked against its digest here, and only here, on the way in. Nothing is trusted because of where it
//! lies: the store's files can be damaged, and a tar comes from anywhere.

use std::collections::{BTreeMap, btree_map::Entry};

use serde::de::DeserializeOwned;

use super::digest::Digest;
use super::document::{Arch, Descriptor, Index, MEDIA_INDEX, Manifest};
use super::error::ImageError;
use super::reference::Reference;

/// Manifests and indexes larger than this are refused, in bytes. Registries set the same limit.
pub(super) const MAX_DOCUMENT: u64 = 4 << 20;
/// Blobs larger than this are refused, in bytes. The largest gadget known is under 10 MB.
pub(super) const MAX_BLOB: u64 = 256 << 20;

/// Images larger than this, all architectures together, are refused, in bytes: they are held in memory.
pub(super) const MAX_IMAGE: u64 = 512 << 20;
/// Images for more platforms than this are refused.
pub(super) const MAX_MANIFESTS: usize = 64;

/// Where an image came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    Store,
    Bundle,
    Tar,
    Directory,
    Registry,
}

/// A place that holds images.
pub trait Source {
    fn origin(&self) -> Origin;

    /// The place as messages show it.
    fn place(&self) -> String;

    /// The images it lists.
    fn index(&self) -> Result<Index, ImageError>;

    /// The bytes filed under this digest, unchecked; None when there are none. At most `limit` bytes are read and one
    /// more, so that an oversized blob is noticed without reading all of it.
    fn raw_blob(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, ImageError>;
}

/// Reads a blob and checks its size and digest. `image` is only for messages.
pub(super) fn read_blob(source: &dyn Source, blob: &Descriptor, image: &str) -> Result<Vec<u8>, ImageError> {
    let limit = if blob.is_index() || blob.is_manifest() { MAX_DOCUMENT } else { MAX_BLOB };
    if blob.size > limit {
        return Err(ImageError::BlobTooLarge { image: image.to_owned(), digest: blob.digest, size: blob.size, limit });
    }
    let bytes = source.raw_blob(&blob.digest, blob.size)?.ok_or_else(|| ImageError::MissingBlob {
        image: image.to_owned(),
        place: source.place(),
        digest: blob.digest,
    })?;
    if bytes.len() as u64 != blob.size {
        return Err(ImageError::BlobSize {
            image: image.to_owned(),
            place: source.place(),
            digest: blob.digest,
            expected: blob.size,
            actual: bytes.len() as u64,
        });
    }
    let actual = Digest::of(&bytes);
    if actual != blob.digest {
        return Err(ImageError::DamagedBlob {
            image: image.to_owned(),
            place: source.place(),
            expected: blob.digest,
            actual,
        });
    }
    Ok(bytes)
}

/// Parses a JSON document of an image.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8], what: &'static str, place: &str) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|source| ImageError::Document { place: place.to_owned(), what, source })
}

/// An image with all its blobs, in memory: what is built, pulled, pushed, imported and exported.
#[derive(Clone, Debug)]
pub struct ImageContent {
    /// The image index, or the manifest of an image for one architecture only.
    pub root: Descriptor,
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    origin: Origin,
}

impl ImageContent {
    pub fn new(root: Descriptor, blobs: BTreeMap<Digest, Vec<u8>>, origin: Origin) -> Self {
        Self { root, blobs, origin }
    }

    /// Reads the whole image behind `root`, for every architecture it has, checking each blob.
    pub fn collect(source: &dyn Source, root: &Descriptor, image: &str) -> Result<Self, ImageError> {
        let mut content = Self::new(root.clone(), BTreeMap::new(), source.origin());
        // A listing's annotations are not part of the image.
        content.root.annotations.clear();
        let bytes = read_blob(source, root, image)?;
        if root.is_index() {
            let index: Index = parse(&bytes, "image index", image)?;
            if index.manifests.len() > MAX_MANIFESTS {
                return Err(ImageError::Manifests {
                    image: image.to_owned(),
                    count: index.manifests.len(),
                    limit: MAX_MANIFESTS,
                });
            }
            for manifest in &index.manifests {
                content.collect_manifest(source, manifest, image)?;
            }
            content.blobs.insert(root.digest, bytes);
        } else {
            content.collect_manifest(source, root, image)?;
        }
        Ok(content)
    }

    fn collect_manifest(&mut self, source: &dyn Source, at: &Descriptor, image: &str) -> Result<(), ImageError> {
        if !at.is_manifest() {
            return Err(media_type_error(source, at, image));
        }
        let bytes = read_blob(source, at, image)?;
        let manifest: Manifest = parse(&bytes, "manifest", image)?;
        self.blobs.insert(at.digest, bytes);
        let mut size = self.size();
        for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
            if let Entry::Vacant(slot) = self.blobs.entry(blob.digest) {
                // Before it is read: a blob never has more bytes than its descriptor says.
                size = size.saturating_add(blob.size);
                if size > MAX_IMAGE {
                    return Err(ImageError::ImageTooLarge { image: image.to_owned(), limit: MAX_IMAGE });
                }
                slot.insert(read_blob(source, blob, image)?);
            }
        }
        Ok(())
    }

    fn size(&self) -> u64 {
        self.blobs.values().map(|bytes| bytes.len() as u64).sum()
    }

    /// The digest that users see: of the index, or of the only manifest.
    pub fn digest(&self) -> Digest {
        self.root.digest
    }
}

impl Source for ImageContent {
    fn origin(&self) -> Origin {
        self.origin
    }

    fn place(&self) -> String {
        "memory".to_owned()
    }

    fn index(&self) -> Result<Index, ImageError> {
        Ok(Index::new(vec![self.root.clone()]))
    }

    fn raw_blob(&self, digest: &Digest, _limit: u64) -> Result<Option<Vec<u8>>, ImageError> {
        Ok(self.blobs.get(digest).cloned())
    }
}

pub(super) fn media_type_error(source: &dyn Source, at: &Descriptor, image: &str) -> ImageError {
    ImageError::MediaType { image: image.to_owned(), place: source.place(), media_type: at.media_type.clone() }
}

/// A gadget's parts for one architecture, checked and ready to run.
#[derive(Clone, Debug)]
pub struct GadgetImage {
    /// Full reference, or the path it was read from.
    pub reference: String,
    /// As the user called it: the one name of the gadget in messages, short where a short one was given.
    pub called: String,
    /// What `NAME@…` means: the digest of the index, or of the manifest when there is no index.
    pub digest: String,
    /// Digest of the manifest for this architecture.
    pub manifest_digest: String,
    /// RFC 3339, as its builder wrote it; absent in reproducible builds.
    pub created: Option<String>,
    /// gadget.yaml, byte for byte.
    pub metadata: Vec<u8>,
    /// The BPF object; a gadget may have none.
    pub ebpf: Option<Vec<u8>>,
    /// The Wasm half; a gadget may have none.
    pub wasm: Option<Vec<u8>>,
    /// Digest of the Wasm half, under which compiled code is cached.
    pub wasm_digest: Option<String>,
    /// Of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// The raw manifest.
    pub manifest: Vec<u8>,
    pub arch: Arch,
    pub origin: Origin,
}

impl GadgetImage {
    /// Reads the gadget behind `root` for one architecture. Only that architecture's blobs are read. `reference` is also what
    /// messages call it, unless the caller knows better.
    pub fn load(source: &dyn Source, root: &Descriptor, reference: &str, arch: Arch) -> Result<Self, ImageError> {
        let Chosen { bytes: manifest_bytes, digest: manifest_digest, manifest, index_annotations } =
            Chosen::find(source, root, reference, arch)?;
        let part = |media_type| -> Result<Option<(Vec<u8>, Digest)>, ImageError> {
            let Some(layer) = manifest.layer(media_type) else { return Ok(None) };
            Ok(Some((read_blob(source, layer, reference)?, layer.digest)))
        };
        let ebpf = part(super::document::GADGET_EBPF)?;
        let wasm = part(super::document::GADGET_WASM)?;
        let created = super::document::ANNOTATION_CREATED;
        Ok(Self {
            reference: reference.to_owned(),
            called: reference.to_owned(),
            digest: root.digest.to_string(),
            manifest_digest: manifest_digest.to_string(),
            created: manifest.annotations.get(created).or_else(|| index_annotations.get(created)).cloned(),
            metadata: read_blob(source, &manifest.config, reference)?,
            ebpf: ebpf.map(|(bytes, _)| bytes),
            wasm_digest: wasm.as_ref().map(|(_, digest)| digest.to_string()),
            wasm: wasm.map(|(bytes, _)| bytes),
            annotations: manifest.annotations,
            manifest: manifest_bytes,
            arch,
            origin: source.origin(),
        })
    }

    /// Reads only gadget.yaml; the size of all parts for this architecture, in bytes, comes with it.
    pub fn load_metadata(
        source: &dyn Source,
        root: &Descriptor,
        reference: &str,
        arch: Arch,
    ) -> Result<(Vec<u8>, u64), ImageError> {
        let Chosen { manifest, .. } = Chosen::find(source, root, reference, arch)?;
        let parts = std::iter::once(&manifest.config).chain(&manifest.layers);
        let size = parts.fold(0u64, |sum, part| sum.saturating_add(part.size));
        Ok((read_blob(source, &manifest.config, reference)?, size))
    }
}

/// The manifest for one architecture.
struct Chosen {
    bytes: Vec<u8>,
    digest: Digest,
    manifest: Manifest,
    index_annotations: BTreeMap<String, String>,
}

impl Chosen {
    fn find(source: &dyn Source, root: &Descriptor, reference: &str, arch: Arch) -> Result<Self, ImageError> {
        let root_bytes = read_blob(source, root, reference)?;
        let (bytes, digest, index_annotations) = if root.is_index() {
            let index: Index = parse(&root_bytes, "image index", reference)?;
            let chosen = choose(&index, arch, reference)?;
            if !chosen.is_manifest() {
                return Err(media_type_error(source, chosen, reference));
            }
            (read_blob(source, chosen, reference)?, chosen.digest, index.annotations)
        } else if root.is_manifest() {
            (root_bytes, root.digest, BTreeMap::new())
        } else {
            return Err(media_type_error(source, root, reference));
        };
        let manifest: Manifest = parse(&bytes, "manifest", reference)?;
        check_gadget(&manifest, reference)?;
        Ok(Self { bytes, digest, manifest, index_annotations })
    }
}

fn choose<'a>(index: &'a Index, arch: Arch, image: &str) -> Result<&'a Descriptor, ImageError> {
    let is_for =
        |d: &&Descriptor| d.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == arch.name());
    if let Some(found) = index.manifests.iter().find(is_for) {
        return Ok(found);
    }
    let available = index
        .manifests
        .iter()
        .map(|d| d.platform.as_ref().map_or_else(|| "an unnamed platform".to_owned(), |p| p.architecture.clone()))
        .collect();
    Err(ImageError::NoArchitecture { image: image.to_owned(), wanted: arch.to_string(), available })
}

fn check_gadget(manifest: &Manifest, image: &str) -> Result<(), ImageError> {
    if manifest.is_gadget() {
        return Ok(());
    }
    Err(ImageError::NotAGadget {
        image: image.to_owned(),
        config_type: manifest.config.media_type.clone(),
        artifact_type: manifest.artifact_type.clone().unwrap_or_else(|| "absent".to_owned()),
    })
}

/// The entry a reference means: its digest when it has one, else its tag.
pub(super) fn find_reference(source: &dyn Source, wanted: &Reference) -> Result<Option<Descriptor>, ImageError> {
    if let Some(digest) = wanted.digest() {
        let found = find_digest(source, &digest.hex())?;
        return Ok(found.into_iter().next());
    }
    let tagged = wanted.tagged();
    let index = source.index()?;
    Ok(index.manifests.into_iter().find(|d| tagged.is_some() && d.reference() == tagged.as_deref()))
}

/// Every image whose digest starts with these hex digits: listed ones, else manifests for one architecture within them.
pub(super) fn find_digest(source: &dyn Source, prefix: &str) -> Result<Vec<Descriptor>, ImageError> {
    let index = source.index()?;
    let mut found = matching(&index.manifests, prefix);
    if found.is_empty() {
        for entry in index.manifests.iter().filter(|d| d.is_index()) {
            // A damaged neighbour must not hide the image that is asked for.
            let Ok(bytes) = read_blob(source, entry, entry.reference().unwrap_or("")) else { continue };
            let Ok(inner) = parse::<Index>(&bytes, "image index", "") else { continue };
            found.extend(matching(&inner.manifests, prefix));
        }
    }
    found.sort_by_key(|d| d.digest);
    found.dedup_by_key(|d| d.digest);
    Ok(found)
}

fn matching(entries: &[Descriptor], prefix: &str) -> Vec<Descriptor> {
    entries.iter().filter(|d| d.digest.hex().starts_with(prefix)).cloned().collect()
}

/// A descriptor of an image index with these bytes.
pub(super) fn index_descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor::new(MEDIA_INDEX, bytes)
}

#[cfg(test)]
mod tests {
    use super::super::document::{GADGET_CONFIG, GADGET_EBPF, MEDIA_MANIFEST};
    use super::*;
    use serde_json::json;

    /// Lists blobs that are never to be read.
    struct Claims(ImageContent);

    impl Source for Claims {
        fn origin(&self) -> Origin {
            Origin::Tar
        }

        fn place(&self) -> String {
            "a test".to_owned()
        }

        fn index(&self) -> Result<Index, ImageError> {
            self.0.index()
        }

        fn raw_blob(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, ImageError> {
            let known = self.0.raw_blob(digest, limit)?;
            Ok(Some(known.unwrap_or_else(|| panic!("blob {digest} was read"))))
        }
    }

    fn collect(blobs: &[&[u8]], root: Descriptor) -> Result<ImageContent, ImageError> {
        let blobs = blobs.iter().map(|bytes| (Digest::of(bytes), bytes.to_vec())).collect();
        let source = Claims(ImageContent::new(root.clone(), blobs, Origin::Tar));
        ImageContent::collect(&source, &root, "img")
    }

    #[test]
    fn an_image_is_bounded_as_a_whole() {
        let config = b"{}";
        let layer = |i: u8| json!({"mediaType": GADGET_EBPF, "digest": Digest::of(&[i]).to_string(), "size": MAX_BLOB});
        let manifest = json!({
            "schemaVersion": 2,
            "config": {"mediaType": GADGET_CONFIG, "digest": Digest::of(config).to_string(), "size": MAX_IMAGE - 1},
            "layers": [layer(1)],
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let e = collect(&[&manifest], Descriptor::new(MEDIA_MANIFEST, &manifest)).unwrap_err();
        assert!(matches!(&e, ImageError::ImageTooLarge { image, .. } if image == "img"), "{e}");

        let entry = Descriptor::new(MEDIA_MANIFEST, b"m");
        let index = serde_json::to_vec(&Index::new(vec![entry; MAX_MANIFESTS + 1])).unwrap();
        let e = collect(&[&index], Descriptor::new(MEDIA_INDEX, &index)).unwrap_err();
        assert!(matches!(&e, ImageError::Manifests { count: 65, limit: 64, .. }), "{e}");
    }
}

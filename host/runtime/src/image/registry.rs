//! Pull from and push to OCI registries.
//!
//! Blocking calls over a private single-threaded tokio runtime: they must not be made from async code. Manifests travel
//! as raw bytes, so a pulled image has exactly the digest it has in the registry. Nothing is written to disk here and
//! nothing is printed: progress goes to the caller.

use std::collections::{BTreeMap, btree_map::Entry};
use std::sync::Once;
use std::time::Duration;

use futures_util::StreamExt as _;
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::errors::{DigestError, OciDistributionError, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::{Reference as OciReference, RegistryOperation};

use super::auth::{AuthError, AuthFiles, Found};
use super::digest::Digest;
use super::document::{
    Descriptor, Index, MEDIA_DOCKER_INDEX, MEDIA_DOCKER_MANIFEST, MEDIA_INDEX, MEDIA_MANIFEST, Manifest,
};
use super::reference::Reference;
use super::source::{ImageContent, MAX_BLOB, MAX_DOCUMENT, MAX_IMAGE, MAX_MANIFESTS, Origin};

/// How registries are talked to.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// Registries (HOST or HOST:PORT) that are spoken to over plain HTTP.
    pub insecure: Vec<String>,
    pub auth: AuthFiles,
    pub connect_timeout: Duration,
    /// Longest silence of the registry within a transfer.
    pub read_timeout: Duration,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            auth: AuthFiles::default(),
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
        }
    }
}

/// How far a transfer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A blob begins; sizes are in bytes.
    Started {
        digest: Digest,
        total: u64,
    },
    Moved {
        digest: Digest,
        done: u64,
        total: u64,
    },
    /// The other side already has the blob.
    Skipped {
        digest: Digest,
    },
    Finished {
        digest: Digest,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("cannot set up the registry client: {cause}")]
    Setup { cause: String },
    #[error("registry {registry} cannot be reached: {cause}")]
    Unreachable { registry: String, cause: String },
    #[error("registry {registry} does not speak TLS")]
    NoTls { registry: String },
    #[error("registry {registry} did not answer in time: {cause}")]
    Timeout { registry: String, cause: String },
    #[error("registry {registry} does not allow access to {image}{}", if *.logged_in { " with the credentials given" } else { " without logging in" })]
    Denied { registry: String, image: String, logged_in: bool, helper: Option<String> },
    #[error("registry {registry} has no image {image}")]
    NotFound { registry: String, image: String },
    #[error("image {image}: registry {registry} sent content with the digest {actual} instead of {expected}")]
    Digest { image: String, registry: String, expected: String, actual: String },
    #[error("image {image}: blob {digest} has {size} bytes, more than the {limit} that are accepted")]
    TooLarge { image: String, digest: String, size: u64, limit: u64 },
    #[error("image {image} has more than the {limit} bytes that are accepted, all architectures together")]
    ImageTooLarge { image: String, limit: u64 },
    #[error("image {image} is made of {count} manifests, more than the {limit} that are accepted")]
    Manifests { image: String, count: usize, limit: usize },
    #[error("image {image}: {what} from the registry is not valid: {source}")]
    Document { image: String, what: &'static str, source: serde_json::Error },
    #[error("image {image}: {media_type} is neither an image manifest nor an image index")]
    MediaType { image: String, media_type: String },
    #[error("image {image}: registry {registry} answered with HTTP status {code}: {message}")]
    Server { image: String, registry: String, code: u16, message: String },
    #[error("image {image}: registry {registry}: {source}")]
    Protocol { image: String, registry: String, source: Box<OciDistributionError> },
    #[error("image {image} cannot be pushed: blob {digest} is not part of what is to be pushed")]
    Incomplete { image: String, digest: String },
    #[error("image {image} cannot be pushed as {wanted}: its digest is {actual}")]
    PushDigest { image: String, wanted: String, actual: String },
}

impl RegistryError {
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoTls { registry } => {
                Some(format!("to speak to it in plain HTTP add --insecure-registries {registry}"))
            }
            Self::Unreachable { .. } | Self::Timeout { .. } => {
                Some("check the name and the network; ig image import FILE.tar needs none".to_owned())
            }
            Self::Denied { registry, helper: Some(helper), .. } => Some(format!(
                "credential helpers (\"{helper}\") are not run: put the credentials for {registry} into a file and give it with --authfile"
            )),
            Self::Denied { registry, .. } => Some(format!(
                "check the name, and log in (docker login {registry}) or give --authfile FILE; some registries answer so for images that do not exist"
            )),
            Self::NotFound { .. } => Some("check the name and the tag".to_owned()),
            _ => None,
        }
    }
}

/// A client for any number of registries.
pub struct Registry {
    client: Client,
    options: RegistryOptions,
    runtime: tokio::runtime::Runtime,
}

/// What error messages need to know about a transfer.
struct Transfer<'a> {
    image: String,
    registry: &'a str,
    secure: bool,
    found: Found,
}

impl Registry {
    pub fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        install_tls();
        let config = ClientConfig {
            protocol: ClientProtocol::HttpsExcept(options.insecure.clone()),
            connect_timeout: Some(options.connect_timeout),
            read_timeout: Some(options.read_timeout),
            user_agent: concat!("ig/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|error| RegistryError::Setup { cause: innermost(&error) })?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| RegistryError::Setup { cause: error.to_string() })?;
        Ok(Self { client, options, runtime })
    }

    /// Fetches an image with all its architectures. Every blob is checked against its digest.
    pub fn pull(
        &self,
        reference: &Reference,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ImageContent, RegistryError> {
        let transfer = self.transfer(reference)?;
        self.runtime.block_on(self.pull_async(reference, &transfer, progress))
    }

    /// Sends an image under the reference's tag (or, without a tag, by digest only) and returns its digest.
    pub fn push(
        &self,
        reference: &Reference,
        image: &ImageContent,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Digest, RegistryError> {
        if let Some(wanted) = reference.digest().filter(|digest| *digest != image.digest()) {
            return Err(RegistryError::PushDigest {
                image: reference.to_string(),
                wanted: wanted.to_string(),
                actual: image.digest().to_string(),
            });
        }
        let transfer = self.transfer(reference)?;
        self.runtime.block_on(self.push_async(reference, &transfer, image, progress))?;
        Ok(image.digest())
    }

    fn transfer<'a>(&self, reference: &'a Reference) -> Result<Transfer<'a>, RegistryError> {
        Ok(Transfer {
            image: reference.to_string(),
            registry: reference.registry(),
            secure: !self.options.insecure.iter().any(|r| r == reference.registry()),
            found: self.options.auth.lookup(reference.registry(), reference.repository())?,
        })
    }

    async fn pull_async(
        &self,
        reference: &Reference,
        transfer: &Transfer<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ImageContent, RegistryError> {
        let at = oci_reference(reference, reference.digest());
        self.log_in(&at, transfer, RegistryOperation::Pull).await?;
        let (bytes, digest) = self.manifest(&at, reference.digest(), transfer).await?;
        let media_type = media_type_of(&bytes, transfer)?;
        let root = Descriptor { digest, ..Descriptor::new(&media_type, &bytes) };
        let mut blobs = BTreeMap::new();
        if root.is_index() {
            let index: Index = parse(&bytes, "image index", transfer)?;
            transfer.check_index(&index)?;
            for manifest in &index.manifests {
                let at = oci_reference(reference, Some(manifest.digest));
                let (bytes, _) = self.manifest(&at, Some(manifest.digest), transfer).await?;
                self.pull_parts(&at, &bytes, transfer, &mut blobs, progress).await?;
                blobs.insert(manifest.digest, bytes);
            }
        } else if root.is_manifest() {
            self.pull_parts(&at, &bytes, transfer, &mut blobs, progress).await?;
        } else {
            return Err(RegistryError::MediaType { image: transfer.image.clone(), media_type });
        }
        blobs.insert(digest, bytes);
        Ok(ImageContent::new(root, blobs, Origin::Registry))
    }

    async fn manifest(
        &self,
        at: &OciReference,
        expected: Option<Digest>,
        transfer: &Transfer<'_>,
    ) -> Result<(Vec<u8>, Digest), RegistryError> {
        let accepted = [MEDIA_INDEX, MEDIA_MANIFEST, MEDIA_DOCKER_INDEX, MEDIA_DOCKER_MANIFEST];
        let (bytes, _) = self
            .client
            .pull_manifest_raw(at, &transfer.found.auth, &accepted)
            .await
            .map_err(|error| transfer.error(error))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(transfer.too_large(&at.to_string(), bytes.len() as u64, MAX_DOCUMENT));
        }
        let actual = Digest::of(&bytes);
        match expected {
            Some(expected) if expected != actual => {
                Err(transfer.wrong_digest(&expected.to_string(), &actual.to_string()))
            }
            _ => Ok((bytes.to_vec(), actual)),
        }
    }

    async fn pull_parts(
        &self,
        at: &OciReference,
        manifest: &[u8],
        transfer: &Transfer<'_>,
        blobs: &mut BTreeMap<Digest, Vec<u8>>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), RegistryError> {
        let manifest: Manifest = parse(manifest, "manifest", transfer)?;
        let mut size: u64 = blobs.values().map(|bytes| bytes.len() as u64).sum();
        for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
            if let Entry::Vacant(slot) = blobs.entry(blob.digest) {
                size = size.saturating_add(blob.size);
                if size > MAX_IMAGE {
                    return Err(RegistryError::ImageTooLarge { image: transfer.image.clone(), limit: MAX_IMAGE });
                }
                slot.insert(self.pull_blob(at, blob, transfer, progress).await?);
            }
        }
        Ok(())
    }

    async fn pull_blob(
        &self,
        at: &OciReference,
        blob: &Descriptor,
        transfer: &Transfer<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<u8>, RegistryError> {
        let (digest, total) = (blob.digest, blob.size);
        if total > MAX_BLOB {
            return Err(transfer.too_large(&digest.to_string(), total, MAX_BLOB));
        }
        progress(Progress::Started { digest, total });
        let wanted = OciDescriptor {
            media_type: blob.media_type.clone(),
            digest: digest.to_string(),
            size: i64::try_from(total).unwrap_or(i64::MAX),
            ..OciDescriptor::default()
        };
        let mut stream = self.client.pull_blob_stream(at, &wanted).await.map_err(|error| transfer.error(error))?.stream;
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk.map_err(|error| transfer.stream_error(&digest, &bytes, error))?);
            if bytes.len() as u64 > total {
                return Err(transfer.too_large(&digest.to_string(), bytes.len() as u64, total));
            }
            progress(Progress::Moved { digest, done: bytes.len() as u64, total });
        }
        let actual = Digest::of(&bytes);
        if actual != digest {
            return Err(transfer.wrong_digest(&digest.to_string(), &actual.to_string()));
        }
        progress(Progress::Finished { digest });
        Ok(bytes)
    }

    async fn push_async(
        &self,
        reference: &Reference,
        transfer: &Transfer<'_>,
        image: &ImageContent,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), RegistryError> {
        let at = oci_reference(reference, None);
        self.log_in(&at, transfer, RegistryOperation::Push).await?;
        let root = transfer.part(image, &image.root.digest)?;
        let manifests = if image.root.is_index() {
            parse::<Index>(root, "image index", transfer)?.manifests
        } else {
            vec![image.root.clone()]
        };
        // Blobs first, then what mentions them: a registry refuses a manifest whose blobs it lacks.
        for manifest in &manifests {
            let bytes = transfer.part(image, &manifest.digest)?;
            let parts: Manifest = parse(bytes, "manifest", transfer)?;
            for blob in std::iter::once(&parts.config).chain(&parts.layers) {
                let data = transfer.part(image, &blob.digest)?;
                self.push_blob(&at, &blob.digest, data, transfer, progress).await?;
            }
            if image.root.is_index() {
                let at = oci_reference(reference, Some(manifest.digest));
                self.push_manifest(&at, bytes, &manifest.media_type, transfer).await?;
            }
        }
        let at = if reference.tag().is_some() { at } else { oci_reference(reference, reference.digest()) };
        self.push_manifest(&at, root, &image.root.media_type, transfer).await
    }

    async fn push_blob(
        &self,
        at: &OciReference,
        digest: &Digest,
        data: &[u8],
        transfer: &Transfer<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), RegistryError> {
        let (digest, text, total) = (*digest, digest.to_string(), data.len() as u64);
        if self.client.blob_exists(at, &text).await.map_err(|error| transfer.error(error))? {
            progress(Progress::Skipped { digest });
            return Ok(());
        }
        progress(Progress::Started { digest, total });
        self.client.push_blob(at, data.to_vec(), &text).await.map_err(|error| transfer.error(error))?;
        progress(Progress::Finished { digest });
        Ok(())
    }

    async fn push_manifest(
        &self,
        at: &OciReference,
        bytes: &[u8],
        media_type: &str,
        transfer: &Transfer<'_>,
    ) -> Result<(), RegistryError> {
        let unfit = || RegistryError::MediaType { image: transfer.image.clone(), media_type: media_type.to_owned() };
        let Ok(content_type) = media_type.parse() else { return Err(unfit()) };
        let pushed = self.client.push_manifest_raw(at, bytes.to_vec(), content_type).await;
        pushed.map(drop).map_err(|error| transfer.error(error))
    }

    async fn log_in(
        &self,
        at: &OciReference,
        transfer: &Transfer<'_>,
        operation: RegistryOperation,
    ) -> Result<(), RegistryError> {
        let token = self.client.auth(at, &transfer.found.auth, operation).await;
        token.map(drop).map_err(|error| transfer.error(error))
    }
}

/// The process-wide TLS provider. A second call, or one by the embedding program, changes nothing.
fn install_tls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

fn oci_reference(reference: &Reference, digest: Option<Digest>) -> OciReference {
    let (registry, repository) = (reference.registry().to_owned(), reference.repository().to_owned());
    match digest {
        Some(digest) => OciReference::with_digest(registry, repository, digest.to_string()),
        None => OciReference::with_tag(registry, repository, reference.tag().unwrap_or("latest").to_owned()),
    }
}

fn parse<T: serde::de::DeserializeOwned>(
    bytes: &[u8],
    what: &'static str,
    transfer: &Transfer<'_>,
) -> Result<T, RegistryError> {
    serde_json::from_slice(bytes).map_err(|source| RegistryError::Document {
        image: transfer.image.clone(),
        what,
        source,
    })
}

/// The document's own word, or what its shape says: the field is optional for OCI documents.
fn media_type_of(bytes: &[u8], transfer: &Transfer<'_>) -> Result<String, RegistryError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let shape: Shape = parse(bytes, "manifest", transfer)?;
    let by_shape = if shape.manifests.is_some() { MEDIA_INDEX } else { MEDIA_MANIFEST };
    Ok(shape.media_type.unwrap_or_else(|| by_shape.to_owned()))
}

impl Transfer<'_> {
    fn part<'c>(&self, image: &'c ImageContent, digest: &Digest) -> Result<&'c [u8], RegistryError> {
        image
            .blobs
            .get(digest)
            .map(Vec::as_slice)
            .ok_or_else(|| RegistryError::Incomplete { image: self.image.clone(), digest: digest.to_string() })
    }

    /// What an index lists is fetched only where it can be part of an image.
    fn check_index(&self, index: &Index) -> Result<(), RegistryError> {
        let (image, count) = (self.image.clone(), index.manifests.len());
        if count > MAX_MANIFESTS {
            return Err(RegistryError::Manifests { image, count, limit: MAX_MANIFESTS });
        }
        match index.manifests.iter().find(|m| !m.is_manifest()) {
            Some(other) => Err(RegistryError::MediaType { image, media_type: other.media_type.clone() }),
            None => Ok(()),
        }
    }

    fn wrong_digest(&self, expected: &str, actual: &str) -> RegistryError {
        RegistryError::Digest {
            image: self.image.clone(),
            registry: self.registry.to_owned(),
            expected: expected.to_owned(),
            actual: actual.to_owned(),
        }
    }

    fn too_large(&self, digest: &str, size: u64, limit: u64) -> RegistryError {
        RegistryError::TooLarge { image: self.image.clone(), digest: digest.to_owned(), size, limit }
    }

    fn denied(&self) -> RegistryError {
        RegistryError::Denied {
            registry: self.registry.to_owned(),
            image: self.image.clone(),
            logged_in: self.found.auth != oci_client::secrets::RegistryAuth::Anonymous,
            helper: self.found.helper.clone(),
        }
    }

    fn not_found(&self) -> RegistryError {
        RegistryError::NotFound { registry: self.registry.to_owned(), image: self.image.clone() }
    }

    /// The stream checks the digest itself and reports a wrong one as an I/O error at its end.
    fn stream_error(&self, digest: &Digest, received: &[u8], error: std::io::Error) -> RegistryError {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<DigestError>());
        if let Some(DigestError::VerificationError { expected, actual }) = inner {
            return self.wrong_digest(expected, actual);
        }
        if error.kind() == std::io::ErrorKind::TimedOut {
            return RegistryError::Timeout { registry: self.registry.to_owned(), cause: innermost(&error) };
        }
        let cause = format!("after {} bytes of blob {digest}: {}", received.len(), innermost(&error));
        RegistryError::Unreachable { registry: self.registry.to_owned(), cause }
    }

    fn error(&self, error: OciDistributionError) -> RegistryError {
        let registry = self.registry.to_owned();
        match error {
            OciDistributionError::RequestError(ref inner) if inner.is_timeout() => {
                RegistryError::Timeout { registry, cause: innermost(inner) }
            }
            OciDistributionError::RequestError(ref inner) => match inner.status().map(|status| status.as_u16()) {
                None => self.no_connection(innermost(inner)),
                Some(code) => self.status(code, &innermost(inner)),
            },
            OciDistributionError::AuthenticationFailure(_) | OciDistributionError::UnauthorizedError { .. } => {
                self.denied()
            }
            OciDistributionError::ImageManifestNotFoundError(_) => self.not_found(),
            OciDistributionError::DigestError(DigestError::VerificationError { expected, actual }) => {
                self.wrong_digest(&expected, &actual)
            }
            OciDistributionError::ServerError { code, message, .. } => self.status(code, &message),
            OciDistributionError::RegistryError { ref envelope, .. } => {
                let has = |codes: &[OciErrorCode]| envelope.errors.iter().any(|e| codes.contains(&e.code));
                if has(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) {
                    self.denied()
                } else if has(&[OciErrorCode::ManifestUnknown, OciErrorCode::NameUnknown, OciErrorCode::NotFound]) {
                    self.not_found()
                } else {
                    RegistryError::Protocol { image: self.image.clone(), registry, source: Box::new(error) }
                }
            }
            other => RegistryError::Protocol { image: self.image.clone(), registry, source: Box::new(other) },
        }
    }

    fn no_connection(&self, cause: String) -> RegistryError {
        let registry = self.registry.to_owned();
        // What rustls says when the other side answers in plain HTTP.
        if self.secure && cause.contains("InvalidContentType") {
            return RegistryError::NoTls { registry };
        }
        // The resolver's own words are about queries and records.
        let unknown = cause.starts_with("no records found") || cause.starts_with("dns error");
        let cause = if unknown { "its name cannot be resolved to an address".to_owned() } else { cause };
        RegistryError::Unreachable { registry, cause }
    }

    fn status(&self, code: u16, message: &str) -> RegistryError {
        match code {
            401 | 403 => self.denied(),
            404 => self.not_found(),
            _ => RegistryError::Server {
                image: self.image.clone(),
                registry: self.registry.to_owned(),
                code,
                // A proxy may send a whole page.
                message: message.chars().take(200).collect(),
            },
        }
    }
}

/// The last cause of a chain: `Connection refused` rather than `error sending request`.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_followed_only_to_a_sensible_number_of_manifests() {
        let found = AuthFiles::default().lookup("r", "i").unwrap();
        let transfer = Transfer { image: "r/i:latest".into(), registry: "r", secure: true, found };
        let entry = |media_type| Descriptor::new(media_type, b"m");
        let check = |entries| transfer.check_index(&Index::new(entries));
        assert!(check(vec![entry(MEDIA_MANIFEST); MAX_MANIFESTS]).is_ok());
        let e = check(vec![entry(MEDIA_MANIFEST); MAX_MANIFESTS + 1]).unwrap_err();
        assert!(matches!(&e, RegistryError::Manifests { count: 65, limit: 64, .. }), "{e}");
        let e = check(vec![entry(MEDIA_MANIFEST), entry(MEDIA_INDEX)]).unwrap_err();
        assert!(matches!(&e, RegistryError::MediaType { image, .. } if image == "r/i:latest"), "{e}");
    }
}

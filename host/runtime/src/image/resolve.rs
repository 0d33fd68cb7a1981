//! From what a user wrote to a gadget's bytes: the one place that knows the order in which places are asked.
//!
//! A bare name is looked up in the local store, then in the embedded catalogue, then in the default registry. A
//! reference with a registry or a path never means an embedded gadget. Paths are read or built in place and never
//! enter the store; what is pulled does.

use std::path::Path;

use super::archive::{INDEX_FILE, TarLayout};
use super::build::{BuildError, Built, METADATA_FILE};
use super::bundle::Bundle;
use super::digest::Digest;
use super::document::{Arch, Descriptor};
use super::error::{ImageError, Lookup, near_names};
use super::reference::{ImageName, NameRules, Reference};
use super::registry::{Progress, Registry, RegistryError, RegistryOptions};
use super::source::{GadgetImage, ImageContent, Source, find_digest, find_reference};
use super::store::Store;

/// When the registry is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// Even if the image is here.
    Always,
    #[default]
    Missing,
    Never,
}

/// Builds a gadget's folder for some architectures.
pub type Builder<'a> = dyn Fn(&Path, &[Arch]) -> Result<Built, BuildError> + 'a;

/// Everything that can answer for a name.
pub struct Resolver<'a, 'b> {
    pub store: &'a Store,
    pub bundle: Option<&'a Bundle>,
    pub rules: &'a NameRules,
    /// None when pulling is disallowed. The client is set up only when it is needed.
    pub registry: Option<&'a RegistryOptions>,
    /// None where folders are not to be built.
    pub builder: Option<&'b Builder<'b>>,
    pub arch: Arch,
}

/// An image that was found, not yet read.
pub struct Located<'a> {
    /// Full reference, digest or path: what tables of images show.
    pub reference: String,
    /// As the user called it: what messages do.
    pub called: String,
    pub root: Descriptor,
    pub source: Box<dyn Source + 'a>,
}

impl<'a> Located<'a> {
    fn new(reference: String, root: Descriptor, source: impl Source + 'a) -> Self {
        Located { called: reference.clone(), reference, root, source: Box::new(source) }
    }

    /// The gadget for one architecture.
    pub fn load(&self, arch: Arch) -> Result<GadgetImage, ImageError> {
        let image = GadgetImage::load(self.source.as_ref(), &self.root, &self.called, arch)?;
        Ok(GadgetImage { reference: self.reference.clone(), ..image })
    }

    /// The image with all its architectures.
    pub fn content(&self) -> Result<ImageContent, ImageError> {
        ImageContent::collect(self.source.as_ref(), &self.root, &self.called)
    }
}

impl<'a> Resolver<'a, '_> {
    /// Finds an image and reads the gadget in it.
    pub fn resolve(
        &self,
        text: &str,
        policy: PullPolicy,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<GadgetImage, ImageError> {
        self.locate(text, policy, progress)?.load(self.arch)
    }

    /// Finds an image: by name, reference, digest, tar file or folder.
    pub fn locate(
        &self,
        text: &str,
        policy: PullPolicy,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Located<'a>, ImageError> {
        let found = self.find(text, policy, progress)?;
        Ok(Located { called: text.to_owned(), ..found })
    }

    fn find(
        &self,
        text: &str,
        policy: PullPolicy,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Located<'a>, ImageError> {
        match ImageName::parse(text, self.rules)? {
            ImageName::Path(path) => self.path(&path),
            ImageName::Digest(digest) => {
                self.digest(&digest.hex())?.ok_or_else(|| self.unknown(text, self.looked_here(true)))
            }
            ImageName::DigestPrefix(prefix, reference) => match (self.digest(&prefix)?, reference) {
                (Some(found), _) => Ok(found),
                (None, Some(reference)) => self.reference(text, &reference, policy, progress),
                (None, None) => Err(self.unknown(text, self.looked_here(true))),
            },
            ImageName::Reference(reference) => self.reference(text, &reference, policy, progress),
        }
    }

    fn reference(
        &self,
        text: &str,
        wanted: &Reference,
        policy: PullPolicy,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Located<'a>, ImageError> {
        let mut looked = Vec::new();
        if policy != PullPolicy::Always {
            if let Some(root) = find_reference(self.store, wanted)? {
                return Ok(Located::new(wanted.to_string(), root, self.store.clone()));
            }
            if let Some(found) = self.embedded(wanted) {
                return Ok(found);
            }
            looked = self.looked_here(wanted.is_bare());
        }
        if policy == PullPolicy::Never {
            looked.push(Lookup::PullNever);
            return Err(self.unknown(text, looked));
        }
        let Some(options) = self.registry else {
            looked.push(Lookup::PullingDisallowed);
            return Err(self.unknown(text, looked));
        };
        match self.pull(wanted, options, progress) {
            Err(ImageError::Registry(error)) if is_absence(&error) => {
                looked.push(Lookup::Registry(error));
                Err(self.unknown(text, looked))
            }
            result => result,
        }
    }

    fn pull(
        &self,
        wanted: &Reference,
        options: &RegistryOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Located<'a>, ImageError> {
        let content = Registry::new(options.clone())?.pull(wanted, progress)?;
        // What is pinned by digest must not change what the tag means here.
        let name = wanted.digest().is_none().then_some(wanted);
        self.store.add(name, &content)?;
        Ok(Located::new(wanted.to_string(), content.root.clone(), content))
    }

    fn embedded(&self, wanted: &Reference) -> Option<Located<'a>> {
        let bundle = self.bundle?;
        let root = bundle.find(wanted)?.clone();
        Some(Located::new(wanted.to_string(), root, Shared(bundle)))
    }

    fn digest(&self, prefix: &str) -> Result<Option<Located<'a>>, ImageError> {
        let found = one(find_digest(self.store, prefix)?, prefix)?;
        if let Some(root) = found {
            return Ok(Some(Located::new(name_of(&root), root, self.store.clone())));
        }
        let Some(bundle) = self.bundle else { return Ok(None) };
        let found = one(find_digest(bundle, prefix)?, prefix)?;
        Ok(found.map(|root| Located::new(name_of(&root), root, Shared(bundle))))
    }

    fn path(&self, path: &Path) -> Result<Located<'a>, ImageError> {
        let reference = path.display().to_string();
        let read = |source| ImageError::Read { path: path.to_owned(), source };
        if !std::fs::metadata(path).map_err(read)?.is_dir() {
            let tar = TarLayout::open(path)?;
            let root = only_image(&tar, path)?;
            return Ok(Located::new(reference, root, tar));
        }
        if path.join(INDEX_FILE).is_file() {
            let layout = Store::foreign(path)?;
            let root = only_image(&layout, path)?;
            return Ok(Located::new(reference, root, layout));
        }
        match self.builder {
            Some(builder) if path.join(METADATA_FILE).is_file() || path.join("build.yaml").is_file() => {
                let built = builder(path, &[self.arch])?;
                Ok(Located::new(reference, built.image.root.clone(), built.image))
            }
            _ => Err(ImageError::NoGadgetDirectory { path: path.to_owned() }),
        }
    }

    fn looked_here(&self, in_catalogue: bool) -> Vec<Lookup> {
        let mut looked: Vec<Lookup> = Vec::new();
        if self.store.has_place() {
            looked.push(Lookup::Store(self.store.dir().to_owned()));
        }
        if in_catalogue {
            looked.push(if self.bundle.is_some() { Lookup::Catalogue } else { Lookup::NoCatalogue });
        }
        looked
    }

    fn unknown(&self, text: &str, looked: Vec<Lookup>) -> ImageError {
        let mut known: Vec<String> = self.bundle.into_iter().flat_map(Bundle::names).collect();
        // The store was read a moment ago; should it be unreadable now, the suggestions are just fewer.
        known.extend(self.store.short_names(self.rules).unwrap_or_default());
        let path = text.split(['@']).next().unwrap_or(text);
        // A path of the default registry may be that of a gadget which is here under its last part.
        let wanted = match path.split_once('/') {
            Some((first, _)) if !first.contains(['.', ':']) => path.rsplit('/').next().unwrap_or(path),
            _ => path,
        };
        let wanted = wanted.split(':').next().unwrap_or(wanted);
        ImageError::Unknown {
            name: text.to_owned(),
            looked,
            near: near_names(wanted, known.iter().map(String::as_str)),
            is_path: Path::new(text).exists(),
        }
    }
}

/// A source that is only borrowed.
struct Shared<'a>(&'a Bundle);

impl Source for Shared<'_> {
    fn origin(&self) -> super::source::Origin {
        self.0.origin()
    }

    fn place(&self) -> String {
        self.0.place()
    }

    fn index(&self) -> Result<super::document::Index, ImageError> {
        self.0.index()
    }

    fn raw_blob(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, ImageError> {
        self.0.raw_blob(digest, limit)
    }
}

/// The registry's answer belongs to the list of places that were asked; any other failure stands for itself.
fn is_absence(error: &RegistryError) -> bool {
    matches!(
        error,
        RegistryError::NotFound { .. }
            | RegistryError::Denied { .. }
            | RegistryError::Unreachable { .. }
            | RegistryError::NoTls { .. }
            | RegistryError::Timeout { .. }
    )
}

fn name_of(root: &Descriptor) -> String {
    root.reference().map_or_else(|| root.digest.to_string(), str::to_owned)
}

fn one(mut found: Vec<Descriptor>, prefix: &str) -> Result<Option<Descriptor>, ImageError> {
    if found.len() > 1 {
        let matches = found.iter().map(|d| d.digest.to_string()).collect();
        return Err(ImageError::AmbiguousDigest { prefix: prefix.to_owned(), matches });
    }
    Ok(found.pop())
}

fn only_image(source: &dyn Source, path: &Path) -> Result<Descriptor, ImageError> {
    let mut entries = source.index()?.manifests;
    // One image under two names is still one.
    entries.sort_by_key(|d| d.digest);
    entries.dedup_by_key(|d| d.digest);
    match entries.len() {
        0 => Err(ImageError::EmptyLayout { path: path.to_owned() }),
        1 => Ok(entries.remove(0)),
        _ => Err(ImageError::SeveralImages { path: path.to_owned(), names: entries.iter().map(name_of).collect() }),
    }
}

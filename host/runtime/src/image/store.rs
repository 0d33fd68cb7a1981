//! The local store: an OCI image layout in a directory, shared by every ig on the machine.
//!
//! Writers hold an exclusive flock on `index.lock` for the whole of a change, readers a shared one while they look at the
//! index. A file appears under its name only when it is complete and on disk (write, fsync, rename), blobs before the
//! index that mentions them: a crash at any point leaves the old state, and what a killed writer left behind is removed by the next
//! one. A store that does not exist is empty; it is created by the first write.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::archive::{INDEX_FILE, LAYOUT_FILE, LAYOUT_VERSION, TarLayout, blob_path};
use super::digest::Digest;
use super::document::{ANNOTATION_CREATED, ANNOTATION_REF, Descriptor, Index, Manifest};
use super::error::{ImageError, near_names};
use super::reference::{ImageName, NameRules, Reference};
use super::source::{ImageContent, MAX_DOCUMENT, Origin, Source, find_digest, find_reference, parse, read_blob};

const LOCK_FILE: &str = "index.lock";
const BLOB_DIR: &str = "blobs/sha256";
/// Temporary files start so; whoever holds the exclusive lock may delete them.
const TEMPORARY: &str = ".ig-tmp-";

/// An OCI image layout directory.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
    origin: Origin,
    /// There is no directory: why. It is empty, and nothing can be put into it.
    nowhere: Option<String>,
}

/// One line of `ig image list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// None for an image that was imported without a name, or has lost it.
    pub reference: Option<Reference>,
    pub digest: Digest,
    /// RFC 3339, when its builder recorded it.
    pub created: Option<String>,
}

/// What [`Store::remove`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The names that are gone.
    pub names: Vec<String>,
    /// Blobs that nothing needed any more. 0 when another name still has the image.
    pub blobs: usize,
}

impl Store {
    /// The store in this directory, which need not exist. Does no I/O.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), origin: Origin::Store, nowhere: None }
    }

    /// The store of somebody who has no place for one, which is empty.
    pub fn nowhere(why: impl Into<String>) -> Self {
        Self { dir: PathBuf::new(), origin: Origin::Store, nowhere: Some(why.into()) }
    }

    /// A layout directory that some other tool wrote, to be read only.
    pub fn foreign(dir: impl Into<PathBuf>) -> Result<Self, ImageError> {
        let store = Self { dir: dir.into(), origin: Origin::Directory, nowhere: None };
        for lacks in [INDEX_FILE, LAYOUT_FILE] {
            if !store.dir.join(lacks).is_file() {
                return Err(ImageError::NoLayout { path: store.dir, lacks });
            }
        }
        Ok(store)
    }

    /// Empty where there is no place for one.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn has_place(&self) -> bool {
        self.nowhere.is_none()
    }

    /// Every image, sorted by reference; the ones without a name come first.
    pub fn list(&self) -> Result<Vec<Listed>, ImageError> {
        let rules = NameRules::default();
        let mut images: Vec<Listed> = self
            .index()?
            .manifests
            .iter()
            .map(|entry| Listed {
                reference: entry.reference().and_then(|text| Reference::parse(text, &rules).ok()),
                digest: entry.digest,
                created: self.created(entry),
            })
            .collect();
        images.sort_by(|a, b| (&a.reference, a.digest).cmp(&(&b.reference, b.digest)));
        Ok(images)
    }

    /// A damaged image is still listed, without its date.
    fn created(&self, entry: &Descriptor) -> Option<String> {
        let bytes = read_blob(self, entry, "").ok()?;
        if !entry.is_index() {
            return parse::<Manifest>(&bytes, "manifest", "").ok()?.annotations.remove(ANNOTATION_CREATED);
        }
        let mut index: Index = parse(&bytes, "image index", "").ok()?;
        if let Some(created) = index.annotations.remove(ANNOTATION_CREATED) {
            return Some(created);
        }
        let manifest = read_blob(self, index.manifests.first()?, "").ok()?;
        parse::<Manifest>(&manifest, "manifest", "").ok()?.annotations.remove(ANNOTATION_CREATED)
    }

    /// The image a name, digest or digest prefix stands for, with the name it is listed under.
    pub fn find(&self, name: &ImageName, text: &str, rules: &NameRules) -> Result<(String, Descriptor), ImageError> {
        let found = match name {
            ImageName::Reference(reference) => find_reference(self, reference)?,
            ImageName::Digest(digest) => self.find_one_digest(&digest.hex())?,
            ImageName::DigestPrefix(prefix, reference) => match self.find_one_digest(prefix)? {
                None => reference.as_ref().map(|r| find_reference(self, r)).transpose()?.flatten(),
                found => found,
            },
            ImageName::Path(_) => None,
        };
        match (found, name) {
            (Some(entry), ImageName::Reference(reference)) => Ok((reference.to_string(), entry)),
            (Some(entry), _) => Ok((entry.reference().map_or_else(|| entry.digest.to_string(), str::to_owned), entry)),
            (None, _) => Err(ImageError::NotInStore {
                name: text.to_owned(),
                place: self.place(),
                near: near_names(text, self.short_names(rules)?.iter().map(String::as_str)),
            }),
        }
    }

    fn find_one_digest(&self, prefix: &str) -> Result<Option<Descriptor>, ImageError> {
        let mut found = find_digest(self, prefix)?;
        if found.len() > 1 {
            let matches = found.iter().map(|d| d.digest.to_string()).collect();
            return Err(ImageError::AmbiguousDigest { prefix: prefix.to_owned(), matches });
        }
        Ok(found.pop())
    }

    /// The names a user would type for the images here.
    pub fn short_names(&self, rules: &NameRules) -> Result<Vec<String>, ImageError> {
        let names = self.list()?.into_iter().filter_map(|image| image.reference).map(|r| r.short_repository(rules));
        Ok(names.collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// Stores an image, under a name if one is given. An image that had the name before loses it, and goes if it has no
    /// other.
    pub fn add(&self, reference: Option<&Reference>, image: &ImageContent) -> Result<(), ImageError> {
        let name = reference.and_then(Reference::tagged);
        self.add_all(&[(name, image)])
    }

    /// Stores several images in one change: all of them or none.
    fn add_all(&self, images: &[(Option<String>, &ImageContent)]) -> Result<(), ImageError> {
        let mut change = Change::begin(self)?;
        for (name, image) in images {
            change.write_blobs(image, name.as_deref().unwrap_or("without a name"))?;
            change.list(name.as_deref(), &image.root);
        }
        change.commit()
    }

    /// Gives an image another name.
    pub fn tag(
        &self,
        source: &ImageName,
        text: &str,
        target: &Reference,
        rules: &NameRules,
    ) -> Result<Digest, ImageError> {
        let (_, entry) = self.find(source, text, rules)?;
        let mut change = Change::begin(self)?;
        let digest = entry.digest;
        change.list(target.tagged().as_deref(), &entry);
        change.commit()?;
        Ok(digest)
    }

    /// Removes a name, or with a digest all names of that image. The image goes with its last name.
    pub fn remove(&self, name: &ImageName, text: &str, rules: &NameRules) -> Result<Removed, ImageError> {
        let (reference, found) = self.find(name, text, rules)?;
        let by_tag = match name {
            ImageName::Reference(r) | ImageName::DigestPrefix(_, Some(r)) => r.digest().is_none().then(|| r.tagged()),
            _ => None,
        };
        let by_tag = by_tag.flatten().filter(|tagged| found.reference() == Some(tagged));
        let mut change = Change::begin(self)?;
        let goes = |d: &Descriptor| match &by_tag {
            Some(tagged) => d.reference() == Some(tagged),
            None => d.digest == found.digest,
        };
        let gone: Vec<Descriptor> = change.index.manifests.extract_if(.., |d| goes(d)).collect();
        if gone.is_empty() {
            // Only a part of a listed image has this digest, or another process was faster.
            return Err(ImageError::NotInStore { name: text.to_owned(), place: self.place(), near: Vec::new() });
        }
        let blobs = change.commit_and_collect()?;
        let mut names: Vec<String> = gone.iter().filter_map(|d| d.reference().map(str::to_owned)).collect();
        if names.is_empty() {
            names.push(reference);
        }
        Ok(Removed { names, blobs })
    }

    /// Reads images out of a layout tar, all or none, and returns their names (or digests, for those without).
    pub fn import(&self, tar: &Path, rules: &NameRules) -> Result<Vec<String>, ImageError> {
        let layout = TarLayout::open(tar)?;
        let index = layout.index()?;
        if index.manifests.is_empty() {
            return Err(ImageError::EmptyLayout { path: tar.to_owned() });
        }
        let mut images = Vec::new();
        for entry in &index.manifests {
            let name = match entry.reference() {
                Some(text) => Reference::parse(text, rules)?.tagged(),
                None => None,
            };
            let shown = name.clone().unwrap_or_else(|| entry.digest.to_string());
            images.push((name, ImageContent::collect(&layout, entry, &shown)?));
        }
        let borrowed: Vec<_> = images.iter().map(|(name, image)| (name.clone(), image)).collect();
        self.add_all(&borrowed)?;
        Ok(images.iter().map(|(name, image)| name.clone().unwrap_or_else(|| image.digest().to_string())).collect())
    }

    fn blob_file(&self, digest: &Digest) -> PathBuf {
        self.dir.join(blob_path(digest))
    }
}

impl Source for Store {
    fn origin(&self) -> Origin {
        self.origin
    }

    fn place(&self) -> String {
        match self.has_place() {
            true => format!("the store {}", self.dir.display()),
            false => "the store, which has no place".to_owned(),
        }
    }

    fn index(&self) -> Result<Index, ImageError> {
        if !self.has_place() {
            return Ok(Index::new(Vec::new()));
        }
        // Without the lock a reader could see an index whose blobs a remove is just deleting. A store on a read-only
        // disk, or one written by another tool, has no lock file and no writer.
        let _lock = lock_shared(&self.dir);
        read_index(self)
    }

    fn raw_blob(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, ImageError> {
        if !self.has_place() {
            return Ok(None);
        }
        read_limited(&self.blob_file(digest), limit)
    }
}

fn lock_shared(dir: &Path) -> Option<File> {
    let file = File::open(dir.join(LOCK_FILE)).ok()?;
    file.lock_shared().ok()?;
    Some(file)
}

fn read_index(store: &Store) -> Result<Index, ImageError> {
    match read_limited(&store.dir.join(INDEX_FILE), MAX_DOCUMENT)? {
        Some(bytes) => parse(&bytes, INDEX_FILE, &store.place()),
        None => Ok(Index::new(Vec::new())),
    }
}

/// At most one byte more than `limit`; None when there is no such file.
fn read_limited(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, ImageError> {
    let read = |source| ImageError::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read(error)),
    };
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(read)?;
    Ok(Some(bytes))
}

/// A change to the store, under the exclusive lock. Dropped without [`Change::commit`] it leaves the store as it was.
struct Change<'a> {
    store: &'a Store,
    index: Index,
    /// Blobs this change brought; deleted again when it fails.
    brought: Vec<PathBuf>,
    committed: bool,
    /// Held to the end; the lock goes with the file.
    _lock: File,
}

impl<'a> Change<'a> {
    fn begin(store: &'a Store) -> Result<Self, ImageError> {
        if let Some(why) = &store.nowhere {
            return Err(ImageError::NoStore { why: why.clone() });
        }
        let blobs = store.dir.join(BLOB_DIR);
        fs::create_dir_all(&blobs).map_err(|source| ImageError::Write { path: blobs.clone(), source })?;
        let path = store.dir.join(LOCK_FILE);
        let fail = |source| ImageError::Write { path: path.clone(), source };
        let lock = File::options().create(true).truncate(false).write(true).read(true).open(&path).map_err(fail)?;
        lock.lock().map_err(fail)?;
        let index = read_index(store)?;
        let change = Self { store, index, brought: Vec::new(), committed: false, _lock: lock };
        change.sweep();
        Ok(change)
    }

    /// Removes what a killed writer left: nobody else writes while the lock is held.
    fn sweep(&self) {
        for dir in [self.store.dir.clone(), self.store.dir.join(BLOB_DIR)] {
            let Ok(entries) = fs::read_dir(&dir) else { continue };
            for entry in entries.flatten() {
                if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                    // It is only clutter: what cannot be deleted harms nobody.
                    drop(fs::remove_file(entry.path()));
                }
            }
        }
    }

    fn write_blobs(&mut self, image: &ImageContent, name: &str) -> Result<(), ImageError> {
        for (digest, bytes) in &image.blobs {
            let actual = Digest::of(bytes);
            if actual != *digest {
                let (image, place) = (name.to_owned(), "memory".to_owned());
                return Err(ImageError::DamagedBlob { image, place, expected: *digest, actual });
            }
            self.write_blob(digest, bytes)?;
        }
        Ok(())
    }

    fn write_blob(&mut self, digest: &Digest, bytes: &[u8]) -> Result<(), ImageError> {
        let path = self.store.blob_file(digest);
        // Adding an image again is how a user repairs a damaged blob, so what is there is looked at, not just counted.
        if let Ok(Some(there)) = read_limited(&path, bytes.len() as u64)
            && there == bytes
        {
            return Ok(());
        }
        let existed = path.exists();
        write_file(&path, bytes)?;
        if !existed {
            self.brought.push(path);
        }
        Ok(())
    }

    fn list(&mut self, name: Option<&str>, root: &Descriptor) {
        let mut entry = root.clone();
        entry.annotations.remove(ANNOTATION_REF);
        let entries = &mut self.index.manifests;
        match name {
            Some(name) => {
                // The image that had the name keeps its place when that was its only one: without a name, by digest,
                // it would be litter.
                entries
                    .retain(|d| d.reference() != Some(name) && (d.reference().is_some() || d.digest != entry.digest));
                entry.annotations.insert(ANNOTATION_REF.to_owned(), name.to_owned());
                entries.push(entry);
            }
            None if entries.iter().any(|d| d.digest == entry.digest) => {}
            None => entries.push(entry),
        }
        entries.sort_by(|a, b| (a.reference(), a.digest).cmp(&(b.reference(), b.digest)));
    }

    fn commit(self) -> Result<(), ImageError> {
        self.commit_and_collect().map(drop)
    }

    /// Writes the index, then deletes blobs that no image needs; returns how many.
    fn commit_and_collect(mut self) -> Result<usize, ImageError> {
        let dir = &self.store.dir;
        let layout = dir.join(LAYOUT_FILE);
        if !layout.exists() {
            write_file(&layout, LAYOUT_VERSION)?;
        }
        sync_dir(&dir.join(BLOB_DIR))?;
        self.index.schema_version = 2;
        let path = dir.join(INDEX_FILE);
        let bytes = serde_json::to_vec(&self.index)
            .map_err(|error| ImageError::Write { path: path.clone(), source: error.into() })?;
        write_file(&path, &bytes)?;
        self.committed = true;
        sync_dir(dir)?;
        Ok(self.collect_garbage())
    }

    fn collect_garbage(&self) -> usize {
        let Some(needed) = self.needed_blobs() else { return 0 };
        let Ok(entries) = fs::read_dir(self.store.dir.join(BLOB_DIR)) else { return 0 };
        let unneeded = entries.flatten().filter(|entry| {
            // Files that are no blobs are not ours to delete.
            let digest = entry.file_name().to_str().and_then(Digest::from_hex);
            digest.is_some_and(|digest| !needed.contains(&digest))
        });
        unneeded.filter(|entry| fs::remove_file(entry.path()).is_ok()).count()
    }

    /// Everything the listed images refer to. None when one of them cannot be read: then nobody can tell what it needs,
    /// and nothing is deleted.
    fn needed_blobs(&self) -> Option<BTreeSet<Digest>> {
        let mut needed = BTreeSet::new();
        for root in &self.index.manifests {
            needed.insert(root.digest);
            let manifests = if root.is_index() {
                let bytes = read_blob(self.store, root, "").ok()?;
                parse::<Index>(&bytes, "image index", "").ok()?.manifests
            } else {
                vec![root.clone()]
            };
            for at in manifests.iter().filter(|d| d.is_manifest()) {
                needed.insert(at.digest);
                let bytes = read_blob(self.store, at, "").ok()?;
                let manifest: Manifest = parse(&bytes, "manifest", "").ok()?;
                needed.insert(manifest.config.digest);
                needed.extend(manifest.layers.iter().map(|layer| layer.digest));
            }
        }
        Some(needed)
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        if !self.committed {
            for path in &self.brought {
                // The change failed already; a blob that stays is unlisted and goes with the next collection.
                drop(fs::remove_file(path));
            }
        }
    }
}

/// Writes a file so that it is there completely or not at all.
fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    let fail = |source| ImageError::Write { path: path.to_owned(), source };
    let mut temporary = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(path.parent().unwrap_or(Path::new(".")))
        .map_err(fail)?;
    temporary.write_all(bytes).map_err(fail)?;
    temporary.as_file().sync_all().map_err(fail)?;
    temporary.persist(path).map_err(|error| fail(error.error))?;
    Ok(())
}

fn sync_dir(dir: &Path) -> Result<(), ImageError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|source| ImageError::Write { path: dir.to_owned(), source })
}

//! Where images come from, for every command: the store, the embedded catalogue, registries, and the builder for folders.

use crate::{
    args::PullArgs,
    context::Context,
    error::{CliError, Kind},
};
use ig_runtime::{
    image::{
        Arch, AuthFiles, BuildError, BuildRequest, Built, Bundle, GadgetImage, Lookup, NameRules, Progress, PullPolicy,
        RegistryError, RegistryOptions, Resolver, Store, Toolchain,
    },
    wasm,
};
use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
};

/// Everything an image command needs, opened once.
pub struct Images {
    pub store: Store,
    pub bundle: Option<Bundle>,
    pub rules: NameRules,
    pub registry: RegistryOptions,
    pub policy: PullPolicy,
    /// Where cargo keeps what it builds for guests, so that a second build is quick.
    wasm_target: Option<PathBuf>,
    toolchain: Toolchain,
    source_date_epoch: Option<i64>,
}

impl Images {
    pub fn new(pull: Option<&PullArgs>, ctx: &Context) -> Result<Self, CliError> {
        let bundle = Bundle::from_executable(Path::new("/proc/self/exe"))?;
        let defaults = NameRules::default();
        let rules = NameRules {
            registry: ctx.config.default_registry.clone().unwrap_or(defaults.registry),
            prefix: ctx.config.default_prefix.clone().unwrap_or(defaults.prefix),
        };
        let mut insecure = ctx.config.insecure_registries.clone();
        insecure.extend(pull.iter().flat_map(|p| p.insecure_registries.iter().cloned()));
        let explicit = pull.and_then(|p| p.authfile.clone()).or_else(|| ctx.config.authfile.clone());
        let auth = AuthFiles { explicit, defaults: default_authfiles(ctx) };
        let registry = RegistryOptions { insecure, auth, ..RegistryOptions::default() };
        Ok(Images {
            store: match &ctx.store {
                Ok(dir) => Store::at(dir),
                Err(why) => Store::nowhere(why),
            },
            bundle,
            rules,
            registry,
            policy: policy(pull)?,
            wasm_target: std::env::var_os("IG_WASM_TARGET_DIR")
                .map(PathBuf::from)
                .or_else(|| build_cache(ctx.home.as_deref(), ctx.is_root)),
            toolchain: toolchain(),
            source_date_epoch: source_date_epoch()?,
        })
    }

    /// Finds and reads a gadget by whatever the user called it.
    pub fn resolve(&self, name: &str) -> Result<GadgetImage, CliError> {
        let arch = Arch::host();
        let builder = |dir: &Path, archs: &[Arch]| self.build(dir, archs);
        let resolver = Resolver {
            store: &self.store,
            bundle: self.bundle.as_ref(),
            rules: &self.rules,
            registry: Some(&self.registry),
            builder: Some(&builder),
            arch,
        };
        let mut bar = ProgressBar::default();
        Ok(resolver.resolve(name, self.policy, &mut |p| bar.show(p))?)
    }

    /// Builds a gadget's folder.
    pub fn build(&self, dir: &Path, archs: &[Arch]) -> Result<Built, BuildError> {
        let wasm_builder = |crate_dir: &Path| {
            let target = self.wasm_target.as_deref().ok_or(NoBuildCache)?;
            wasm::build::build(crate_dir, target).map_err(|e| Box::new(e) as Box<dyn std::error::Error + Send + Sync>)
        };
        ig_runtime::image::build(&BuildRequest {
            dir,
            archs,
            toolchain: &self.toolchain,
            wasm: &wasm_builder,
            builder_version: concat!("v", env!("CARGO_PKG_VERSION")),
            source_date_epoch: self.source_date_epoch,
        })
    }
}

fn policy(pull: Option<&PullArgs>) -> Result<PullPolicy, CliError> {
    match pull.map(|p| p.pull.as_str()) {
        None | Some("missing") => Ok(PullPolicy::Missing),
        Some("always") => Ok(PullPolicy::Always),
        Some("never") => Ok(PullPolicy::Never),
        Some(other) => {
            Err(CliError::user(format!("--pull {other:?} is no policy"))
                .hint("valid values are always, missing, never"))
        }
    }
}

/// In the order of the reference tool: ig's own, the environment's, Docker's.
fn default_authfiles(ctx: &Context) -> Vec<PathBuf> {
    let own = ctx.is_root.then(|| PathBuf::from("/var/lib/ig/config.json"));
    let env = std::env::var_os("REGISTRY_AUTH_FILE").map(PathBuf::from);
    let docker = ctx.home.as_ref().map(|h| h.join(".docker/config.json"));
    [own, env, docker].into_iter().flatten().collect()
}

/// Never a folder that others can write to, or make before us: what lies in it is run.
fn build_cache(home: Option<&Path>, is_root: bool) -> Option<PathBuf> {
    match home {
        Some(home) => Some(home.join(".cache/ig/wasm-build")),
        None => is_root.then(|| PathBuf::from("/var/cache/ig/wasm-build")),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("HOME is not set, so there is no place for what cargo builds; name one with IG_WASM_TARGET_DIR")]
struct NoBuildCache;

fn toolchain() -> Toolchain {
    Toolchain {
        clang: std::env::var_os("CLANG").map(PathBuf::from),
        llvm_strip: std::env::var_os("LLVM_STRIP").map(PathBuf::from),
        scratch: None,
    }
}

fn source_date_epoch() -> Result<Option<i64>, CliError> {
    let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let text = text.to_string_lossy();
    match text.parse() {
        Ok(seconds) => Ok(Some(seconds)),
        Err(e) => {
            Err(CliError::user(format!("SOURCE_DATE_EPOCH={text}: {e}")).hint("it is a number of seconds since 1970"))
        }
    }
}

/// A progress bar on stderr, only where that is a terminal.
#[derive(Default)]
pub struct ProgressBar {
    bar: Option<indicatif::ProgressBar>,
}

impl ProgressBar {
    pub fn show(&mut self, progress: Progress) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        match progress {
            Progress::Started { digest, total } => {
                let bar = indicatif::ProgressBar::new(total);
                bar.set_message(digest.to_string());
                self.bar = Some(bar);
            }
            Progress::Moved { done, .. } => self.bar.iter().for_each(|b| b.set_position(done)),
            Progress::Skipped { .. } => {}
            Progress::Finished { .. } => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
            }
        }
    }
}

impl From<ig_runtime::image::ImageError> for CliError {
    fn from(e: ig_runtime::image::ImageError) -> Self {
        use ig_runtime::image::ImageError as E;
        let kind = match &e {
            E::Registry(e) => registry_kind(e),
            // A slip of the pen, whatever the network is like.
            E::Unknown { near, .. } if !near.is_empty() => Kind::User,
            E::Unknown { looked, .. } => looked
                .iter()
                .find_map(|l| match l {
                    Lookup::Registry(e) => Some(registry_kind(e)),
                    _ => None,
                })
                .unwrap_or(Kind::User),
            E::Write { .. } => Kind::Environment,
            _ => Kind::User,
        };
        CliError::chain(kind, &e, e.hint())
    }
}

/// Whether it is the name, the image or the credentials that are wrong, or the way to the registry.
fn registry_kind(e: &RegistryError) -> Kind {
    use RegistryError as E;
    match e {
        E::Setup { .. } | E::Unreachable { .. } | E::NoTls { .. } | E::Timeout { .. } => Kind::Environment,
        E::Server { .. } | E::Protocol { .. } => Kind::Environment,
        E::Auth(_)
        | E::Denied { .. }
        | E::NotFound { .. }
        | E::Digest { .. }
        | E::TooLarge { .. }
        | E::ImageTooLarge { .. }
        | E::Manifests { .. }
        | E::Document { .. }
        | E::MediaType { .. }
        | E::Incomplete { .. }
        | E::PushDigest { .. } => Kind::User,
    }
}

impl From<BuildError> for CliError {
    fn from(e: BuildError) -> Self {
        CliError::chain(Kind::User, &e, e.hint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ig_runtime::image::ImageError;

    #[test]
    fn guests_are_built_where_nobody_else_writes() {
        assert_eq!(build_cache(Some(Path::new("/home/a")), false), Some("/home/a/.cache/ig/wasm-build".into()));
        assert_eq!(build_cache(None, true), Some("/var/cache/ig/wasm-build".into()));
        assert_eq!(build_cache(None, false), None);
    }

    #[test]
    fn the_exit_code_tells_a_wrong_image_from_a_network_that_is_down() {
        let registry = || "r".to_owned();
        let image = || "r/i:latest".to_owned();
        let down = || RegistryError::Unreachable { registry: registry(), cause: "refused".into() };
        let absent = || RegistryError::NotFound { registry: registry(), image: image() };
        let wrong =
            RegistryError::Digest { image: image(), registry: registry(), expected: "a".into(), actual: "b".into() };
        let unknown = |looked| ImageError::Unknown { name: "i".into(), looked, near: Vec::new(), is_path: false };
        let near = vec!["trace_open".to_owned()];
        let misspelt = ImageError::Unknown {
            name: "i".into(),
            looked: vec![Lookup::Registry(Box::new(down()))],
            near,
            is_path: false,
        };
        for (error, kind) in [
            (unknown(vec![Lookup::Store("/s".into()), Lookup::Registry(Box::new(down()))]), Kind::Environment),
            (misspelt, Kind::User),
            (unknown(vec![Lookup::Registry(Box::new(absent()))]), Kind::User),
            (unknown(vec![Lookup::PullNever]), Kind::User),
            (ImageError::from(down()), Kind::Environment),
            (ImageError::from(wrong), Kind::User),
        ] {
            let e = CliError::from(error);
            assert_eq!(e.kind, kind, "{}", e.message);
        }
    }
}

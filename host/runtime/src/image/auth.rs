//! Credentials for registries, from the files that docker, podman and oras write.
//!
//! The caller says which files to read, in which order; nothing here knows of home directories. Credential helpers are
//! other programs and are not run: the error for a refused login says so.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;

/// Where to look for credentials.
#[derive(Clone, Debug, Default)]
pub struct AuthFiles {
    /// Named by the user: it must exist.
    pub explicit: Option<PathBuf>,
    /// Read in this order if they exist, unless one is named; the first that knows the registry wins.
    pub defaults: Vec<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error("cannot read the credentials file {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the credentials file {path} is not valid: {source}", path = path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("the credentials file {path}: the entry for {registry} is not base64 of USER:PASSWORD", path = path.display())]
    Entry { path: PathBuf, registry: String },
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct File {
    auths: BTreeMap<String, Entry>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    registrytoken: Option<String>,
}

/// What was found for a registry.
pub(super) struct Found {
    pub(super) auth: RegistryAuth,
    /// A credential helper is set up for the registry, and was not asked.
    pub(super) helper: Option<String>,
}

impl AuthFiles {
    pub(super) fn lookup(&self, registry: &str, repository: &str) -> Result<Found, AuthError> {
        let mut helper = None;
        let files = match &self.explicit {
            Some(path) => vec![(path, true)],
            None => self.defaults.iter().map(|path| (path, false)).collect(),
        };
        for (path, required) in files {
            let Some(file) = read(path, required)? else { continue };
            if let Some((key, entry)) = find(&file.auths, registry, repository)
                && let Some(auth) = credentials(entry)
                    .ok_or_else(|| AuthError::Entry { path: path.clone(), registry: key.to_owned() })?
            {
                return Ok(Found { auth, helper: None });
            }
            helper = helper.or_else(|| file.helpers.get(registry).cloned()).or(file.store);
        }
        Ok(Found { auth: RegistryAuth::Anonymous, helper })
    }
}

fn read(path: &Path, required: bool) -> Result<Option<File>, AuthError> {
    match std::fs::read(path) {
        Ok(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => Ok(None),
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(|source| AuthError::Json { path: path.to_owned(), source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && !required => Ok(None),
        Err(source) => Err(AuthError::Read { path: path.to_owned(), source }),
    }
}

/// The entry with the longest path: podman keeps credentials for `host/team` beside those for `host`.
fn find<'a>(entries: &'a BTreeMap<String, Entry>, registry: &str, repository: &str) -> Option<(&'a str, &'a Entry)> {
    let whole = format!("{registry}/{repository}");
    let fits = |key: &str| {
        let plain = key.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
        // Docker writes whole API addresses for its own hub.
        let plain = plain.strip_suffix("/v1").or_else(|| plain.strip_suffix("/v2")).unwrap_or(plain);
        let plain = if registry == "docker.io" && plain == "index.docker.io" { "docker.io" } else { plain };
        let rest = whole.strip_prefix(plain)?;
        rest.starts_with('/').then_some(plain.len())
    };
    let fitting = entries.iter().filter_map(|(key, entry)| Some((fits(key)?, key.as_str(), entry)));
    fitting.max_by_key(|(length, ..)| *length).map(|(_, key, entry)| (key, entry))
}

/// Outer None: the entry is damaged. Inner None: it holds nothing, as docker leaves it beside a credential helper.
#[expect(clippy::option_option, reason = "three answers: damaged, empty, credentials")]
fn credentials(entry: &Entry) -> Option<Option<RegistryAuth>> {
    if let Some(token) = &entry.registrytoken {
        return Some(Some(RegistryAuth::Bearer(token.clone())));
    }
    if let (Some(user), Some(password)) = (&entry.username, &entry.password) {
        return Some(Some(RegistryAuth::Basic(user.clone(), password.clone())));
    }
    let Some(encoded) = entry.auth.as_deref().filter(|text| !text.is_empty()) else { return Some(None) };
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(Some(RegistryAuth::Basic(user.to_owned(), password.trim_end_matches('\0').to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(json: &str, registry: &str, repository: &str) -> Result<RegistryAuth, AuthError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), json).unwrap();
        let files = AuthFiles { explicit: None, defaults: vec![file.path().to_owned()] };
        files.lookup(registry, repository).map(|found| found.auth)
    }

    const FILE: &str = r#"{"auths": {
        "r.example": {"auth": "dXNlcjpwYTpzcw=="},
        "r.example/team": {"username": "t", "password": "p"},
        "https://index.docker.io/v1/": {"auth": "aHViOmg="},
        "empty.example": {}, "broken.example": {"auth": "!!"}}}"#;

    #[test]
    fn the_longest_entry_wins() {
        let basic = |u: &str, p: &str| RegistryAuth::Basic(u.into(), p.into());
        assert!(lookup(FILE, "r.example", "a/b").unwrap() == basic("user", "pa:ss"));
        assert!(lookup(FILE, "r.example", "team/b").unwrap() == basic("t", "p"));
        assert!(lookup(FILE, "r.example", "teams/b").unwrap() == basic("user", "pa:ss"));
        assert!(lookup(FILE, "docker.io", "library/b").unwrap() == basic("hub", "h"));
        assert!(lookup(FILE, "empty.example", "b").unwrap() == RegistryAuth::Anonymous);
        assert!(lookup(FILE, "r.example.org", "b").unwrap() == RegistryAuth::Anonymous);
    }

    #[test]
    fn a_damaged_file_is_an_error_not_an_anonymous_pull() {
        assert!(matches!(lookup(FILE, "broken.example", "b"), Err(AuthError::Entry { .. })));
        assert!(matches!(lookup("{", "r.example", "b"), Err(AuthError::Json { .. })));
        let files = AuthFiles { explicit: Some("/nowhere/config.json".into()), defaults: Vec::new() };
        assert!(matches!(files.lookup("r.example", "b"), Err(AuthError::Read { .. })));
    }
}

//! Pull and push against a real registry: Debian's docker-registry on loopback.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[expect(dead_code, reason = "each test file uses its own part of the shared code")]
mod support;

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ig_runtime::image::{
    Arch, AuthFiles, ImageError, Lookup, NameRules, Origin, Progress, PullPolicy, Reference, Registry, RegistryError,
    RegistryOptions, Resolver, Store,
};
use rustix::net::{AddressFamily, SocketType};
use support::{METADATA, gadget_dir, reference, tiny, try_build};
use tempfile::TempDir;

/// A registry of its own for each test; stopped and deleted at the end.
struct Server {
    child: Child,
    port: u16,
    dir: TempDir,
}

impl Server {
    fn start(with_login: bool) -> Self {
        // A port that is free now may be somebody's a moment later: then the registry ends, and another is looked for.
        (0..10).find_map(|_| Self::try_start(with_login)).expect("a docker-registry that stays")
    }

    fn try_start(with_login: bool) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let data = dir.path().join("data");
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n",
            data.display()
        );
        if with_login {
            let users = dir.path().join("htpasswd");
            // "user" with the password "secret"; docker-registry takes bcrypt only.
            fs::write(&users, format!("user:{BCRYPT_OF_SECRET}\n")).unwrap();
            config.push_str(&format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", users.display()));
        }
        let file = dir.path().join("config.yml");
        fs::write(&file, config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed (apt-get install docker-registry)");
        let mut server = Self { child, port, dir };
        server.wait().then_some(server)
    }

    /// Whether it listens, and has not ended.
    fn wait(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(120);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(Instant::now() < deadline, "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child.try_wait().unwrap().is_none()
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn options(&self) -> RegistryOptions {
        RegistryOptions { insecure: vec![self.host()], ..RegistryOptions::default() }
    }

    fn reference(&self, rest: &str) -> Reference {
        reference(&format!("{}/{rest}", self.host()))
    }

    fn authfile(&self, login: &str) -> PathBuf {
        let path = self.dir.path().join("auth.json");
        fs::write(&path, format!(r#"{{"auths": {{"{}": {login}}}}}"#, self.host())).unwrap();
        path
    }
}

const BCRYPT_OF_SECRET: &str = "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already is as good.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn resolve(
    store: &Store,
    options: &RegistryOptions,
    text: &str,
    policy: PullPolicy,
) -> Result<ig_runtime::image::GadgetImage, ImageError> {
    let rules = NameRules::default();
    let resolver =
        Resolver { store, bundle: None, rules: &rules, registry: Some(options), builder: None, arch: Arch::host() };
    resolver.resolve(text, policy, &mut |_| ())
}

#[test]
fn push_remove_and_pull_by_digest() {
    let server = Server::start(false);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::at(dir.path());
    let gadget = gadget_dir(METADATA);
    let image = try_build(gadget.path(), &Arch::ALL).unwrap().image;
    let registry = Registry::new(server.options()).unwrap();
    let mut seen = Vec::new();
    let pushed = registry.push(&server.reference("team/tiny:v1"), &image, &mut |p| seen.push(p)).unwrap();
    assert_eq!(pushed, image.digest());
    assert!(seen.iter().any(|p| matches!(p, Progress::Finished { .. })));

    seen.clear();
    registry.push(&server.reference("team/tiny:v2"), &image, &mut |p| seen.push(p)).unwrap();
    assert!(seen.iter().all(|p| matches!(p, Progress::Skipped { .. })), "blobs were sent twice: {seen:?}");

    let by_digest = format!("{}/team/tiny@{}", server.host(), image.digest());
    let got = resolve(&store, &server.options(), &by_digest, PullPolicy::Missing).unwrap();
    assert_eq!((got.digest.as_str(), got.origin), (image.digest().to_string().as_str(), Origin::Registry));
    for (digest, bytes) in &image.blobs {
        assert_eq!(&fs::read(store.dir().join("blobs/sha256").join(digest.hex())).unwrap(), bytes);
    }
    // It is here now, so nothing is asked.
    assert_eq!(resolve(&store, &server.options(), &by_digest, PullPolicy::Never).unwrap().origin, Origin::Store);

    let tagged = format!("{}/team/tiny:v1", server.host());
    let error = resolve(&store, &server.options(), &tagged, PullPolicy::Never).unwrap_err();
    assert!(
        matches!(&error, ImageError::Unknown { looked, .. } if matches!(looked[..], [Lookup::Store(_), Lookup::PullNever])),
        "{error}"
    );
    resolve(&store, &server.options(), &tagged, PullPolicy::Missing).unwrap();

    let changed = gadget_dir(&METADATA.replace("one event", "an event"));
    let newer = try_build(changed.path(), &[Arch::host()]).unwrap().image;
    registry.push(&server.reference("team/tiny:v1"), &newer, &mut |_| ()).unwrap();
    let old = resolve(&store, &server.options(), &tagged, PullPolicy::Missing).unwrap();
    assert_eq!(old.digest, image.digest().to_string());
    let new = resolve(&store, &server.options(), &tagged, PullPolicy::Always).unwrap();
    assert_eq!(new.digest, newer.digest().to_string());
    let kept = resolve(&store, &server.options(), &tagged, PullPolicy::Never).unwrap();
    assert_eq!(kept.digest, newer.digest().to_string());
}

#[test]
fn skopeo_reads_what_we_push() {
    let server = Server::start(false);
    let image = tiny();
    let registry = Registry::new(server.options()).unwrap();
    registry.push(&server.reference("tiny:latest"), &image, &mut |_| ()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--all", "--preserve-digests", "--src-tls-verify=false"])
        .arg(format!("docker://{}/tiny:latest", server.host()))
        .arg(format!("oci:{}:tiny", dir.path().join("layout").display()))
        .output()
        .expect("skopeo is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let layout = Store::foreign(dir.path().join("layout")).unwrap();
    assert_eq!(layout.list().unwrap()[0].digest, image.digest());
}

#[test]
fn what_is_not_there_is_said_with_the_places_asked() {
    let server = Server::start(false);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::at(dir.path().join("store"));
    let text = format!("{}/team/absent", server.host());
    let error = resolve(&store, &server.options(), &text, PullPolicy::Missing).unwrap_err();
    let ImageError::Unknown { looked, .. } = &error else { panic!("{error}") };
    assert!(
        matches!(&looked[..], [Lookup::Store(_), Lookup::Registry(e)] if matches!(**e, RegistryError::NotFound { .. })),
        "{error}"
    );
    let missing = format!("{text}@{}", tiny().digest());
    let error = resolve(&store, &server.options(), &missing, PullPolicy::Missing).unwrap_err();
    assert!(matches!(&error, ImageError::Unknown { .. }), "{error}");
    assert!(!store.dir().exists());
}

#[test]
fn a_registry_that_is_not_there() {
    // A socket that does not listen keeps the port from anybody who would.
    let silent = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&silent, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    let host = SocketAddrV4::try_from(rustix::net::getsockname(&silent).unwrap()).unwrap().to_string();
    let options = RegistryOptions { insecure: vec![host.clone()], ..RegistryOptions::default() };
    let error = Registry::new(options).unwrap().pull(&reference(&format!("{host}/a:b")), &mut |_| ()).unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("Connection refused"), "{error}");
}

#[test]
fn a_registry_that_does_not_exist_is_said_so_in_plain_words() {
    let registry = Registry::new(RegistryOptions::default()).unwrap();
    let error = registry.pull(&reference("registry.invalid/a:b"), &mut |_| ()).unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. } | RegistryError::Timeout { .. }), "{error:?}");
    assert!(!error.to_string().contains("Query"), "{error}");
}

#[test]
fn a_silent_registry_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let options = RegistryOptions {
        insecure: vec![host.clone()],
        read_timeout: Duration::from_millis(200),
        ..RegistryOptions::default()
    };
    let error = Registry::new(options).unwrap().pull(&reference(&format!("{host}/a:b")), &mut |_| ()).unwrap_err();
    assert!(matches!(error, RegistryError::Timeout { .. }), "{error:?}");
}

#[test]
fn plain_http_needs_permission() {
    let server = Server::start(false);
    let error =
        Registry::new(RegistryOptions::default()).unwrap().pull(&server.reference("a:b"), &mut |_| ()).unwrap_err();
    assert!(matches!(error, RegistryError::NoTls { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains(&format!("--insecure-registries {}", server.host())));
}

#[test]
fn a_registry_that_sends_something_else_is_not_believed() {
    let server = Server::start(false);
    let image = tiny();
    let registry = Registry::new(server.options()).unwrap();
    registry.push(&server.reference("tiny:v1"), &image, &mut |_| ()).unwrap();
    // The registry's own files are changed behind its back: first the BPF object, then the index.
    let (object, _) = image.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    for digest in [object, &image.root.digest] {
        let hex = digest.hex();
        let blob =
            server.dir.path().join("data/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(&hex).join("data");
        let good = fs::read(&blob).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        fs::write(&blob, &bad).unwrap();
        let by_digest = reference(&format!("{}/tiny@{}", server.host(), image.digest()));
        let error = registry.pull(&by_digest, &mut |_| ()).unwrap_err();
        assert!(
            matches!(&error, RegistryError::Digest { expected, .. } if *expected == digest.to_string()),
            "{error:?}"
        );
        fs::write(&blob, &good).unwrap();
        registry.pull(&by_digest, &mut |_| ()).unwrap();
    }
}

#[test]
fn credentials_come_from_the_file() {
    let server = Server::start(true);
    let image = tiny();
    let with = |login: &str| {
        let auth = AuthFiles { explicit: Some(server.authfile(login)), defaults: Vec::new() };
        Registry::new(RegistryOptions { auth, ..server.options() }).unwrap()
    };
    let anonymous = Registry::new(server.options()).unwrap();
    let error = anonymous.push(&server.reference("tiny:v1"), &image, &mut |_| ()).unwrap_err();
    assert!(matches!(error, RegistryError::Denied { logged_in: false, .. }), "{error:?}");
    let wrong = with(r#"{"username": "user", "password": "wrong"}"#);
    let error = wrong.push(&server.reference("tiny:v1"), &image, &mut |_| ()).unwrap_err();
    assert!(matches!(error, RegistryError::Denied { logged_in: true, .. }), "{error:?}");

    // dXNlcjpzZWNyZXQ= is user:secret
    let right = with(r#"{"auth": "dXNlcjpzZWNyZXQ="}"#);
    right.push(&server.reference("tiny:v1"), &image, &mut |_| ()).unwrap();
    assert_eq!(right.pull(&server.reference("tiny:v1"), &mut |_| ()).unwrap().digest(), image.digest());
    let error = anonymous.pull(&server.reference("tiny:v1"), &mut |_| ()).unwrap_err();
    assert!(matches!(error, RegistryError::Denied { logged_in: false, .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("--authfile"));
}

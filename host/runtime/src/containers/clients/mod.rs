//! What a container runtime's API adds to what the kernel and the bundles tell: names, images, containers found late.
//!
//! Clients live on the containers' thread as tasks. They never decide whether something is a container, and nothing waits
//! for them but rows whose container has no name yet. A runtime is one file here, and one line where clients are started.

pub(super) mod docker;

use super::{ContainersError, ContainersOptions, container::RuntimeName, identify};
use std::{
    future::Future,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use tokio::sync::mpsc;

/// How long a single question to a runtime may take.
const LOOKUP_DEADLINE: Duration = Duration::from_millis(1500);
const LIST_DEADLINE: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// A container as its runtime describes it; what is `None` was not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) id: Box<str>,
    pub(super) name: Option<Box<str>>,
    pub(super) image_name: Option<Box<str>>,
    pub(super) image_id: Option<Box<str>>,
    /// First process, as the host numbers it, while it runs.
    pub(super) pid: Option<u32>,
}

/// What a client tells the containers' thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// The connection stands and what ran before is listed.
    Connected(RuntimeName),
    Lost(RuntimeName, ClientError),
    /// New or better knowledge of a container, running or not.
    Known(RuntimeName, Described),
    /// The digest of an image in its registry; `None`: it was never in one.
    Image {
        id: Box<str>,
        digest: Option<Box<str>>,
    },
    /// The runtime forgot the container.
    Removed(RuntimeName, Box<str>),
}

/// What the containers' thread asks a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Container(Box<str>),
    /// By the image's id.
    Image(Box<str>),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    #[error("{runtime}: cannot use {socket}: {cause}", socket = socket.display())]
    Connect { runtime: RuntimeName, socket: PathBuf, cause: String },
    #[error("{runtime}: {what} at {socket} failed: {cause}", socket = socket.display())]
    Request { runtime: RuntimeName, socket: PathBuf, what: &'static str, cause: String },
    #[error("{runtime}: {socket} ended the event stream", socket = socket.display())]
    StreamEnded { runtime: RuntimeName, socket: PathBuf },
    #[error("{runtime}: {what} at {socket} took longer than {} ms", deadline.as_millis(), socket = socket.display())]
    Deadline { runtime: RuntimeName, socket: PathBuf, what: &'static str, deadline: Duration },
}

impl ClientError {
    pub fn runtime(&self) -> RuntimeName {
        let (ClientError::Connect { runtime, .. }
        | ClientError::Request { runtime, .. }
        | ClientError::StreamEnded { runtime, .. }
        | ClientError::Deadline { runtime, .. }) = self;
        *runtime
    }
}

/// Where a runtime's API listens by default, on the observed host; none for those without an API.
pub(crate) fn default_sockets(runtime: RuntimeName) -> &'static [&'static str] {
    match runtime {
        RuntimeName::Docker => docker::SOCKETS,
        _ => &[],
    }
}

/// Where a runtime's API is: a path named by the user must exist, the default ones need not, now or ever.
#[derive(Clone, Debug)]
pub(super) enum Socket {
    Named(PathBuf),
    Default { host_root: PathBuf, paths: &'static [&'static str] },
}

impl Socket {
    /// `None`: the runtime's API is not to be asked. `paths`: where it listens by default, on the observed host.
    pub(super) fn of(
        options: &ContainersOptions,
        runtime: RuntimeName,
        paths: &'static [&'static str],
    ) -> Result<Option<Socket>, ContainersError> {
        if !options.runtimes.contains(&runtime) {
            return Ok(None);
        }
        let host_root = options.host_root.clone();
        let Some(path) = options.sockets.get(&runtime) else {
            return Ok(Some(Socket::Default { host_root, paths }));
        };
        let path = identify::on_host(&host_root, path);
        if !path.exists() {
            return Err(ContainersError::NoSocket { runtime, path });
        }
        Ok(Some(Socket::Named(path)))
    }

    /// The socket to connect to now; `None`: there is none yet.
    pub(super) fn find(&self) -> Option<PathBuf> {
        match self {
            Socket::Named(path) => Some(path.clone()),
            Socket::Default { host_root, paths } => {
                paths.iter().map(|p| identify::on_host(host_root, Path::new(p))).find(|p| p.exists())
            }
        }
    }
}

/// A runtime's API. Every call is one attempt; `follow` repeats them.
pub(super) trait Client: Sized + Send + Sync + 'static {
    /// Reports every change since `since` until the connection ends.
    fn watch(&self, since: SystemTime, news: &mpsc::Sender<News>) -> impl Future<Output = ClientError> + Send;

    /// All running containers.
    fn list(&self) -> impl Future<Output = Result<Vec<Described>, ClientError>> + Send;

    /// One container by its id, with its first process; `None`: the runtime does not know it.
    fn lookup(&self, id: &str) -> impl Future<Output = Result<Option<Described>, ClientError>> + Send;

    /// The digest of an image in its registry.
    fn image_digest(&self, image_id: &str) -> impl Future<Output = Result<Option<Box<str>>, ClientError>> + Send;

    fn runtime(&self) -> RuntimeName;
}

/// Keeps a client going for ever: watch, list, answer, and connect anew with growing pauses.
pub(super) async fn follow<C: Client>(
    connect: impl Fn() -> Result<Option<C>, ClientError> + Send + 'static,
    news: mpsc::Sender<News>,
    mut questions: mpsc::Receiver<Question>,
) {
    let mut pause = FIRST_RETRY;
    loop {
        match connect() {
            Ok(Some(client)) => {
                let runtime = client.runtime();
                let end = serve(&client, &news, &mut questions, &mut pause).await;
                if news.send(News::Lost(runtime, end)).await.is_err() {
                    return;
                }
            }
            // Not installed, or not started yet.
            Ok(None) => {}
            Err(e) => {
                if news.send(News::Lost(e.runtime(), e)).await.is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_RETRY);
    }
}

async fn serve<C: Client>(
    client: &C,
    news: &mpsc::Sender<News>,
    questions: &mut mpsc::Receiver<Question>,
    pause: &mut Duration,
) -> ClientError {
    let runtime = client.runtime();
    // The stream begins before the list: what starts in between is then in the one or the other.
    let watch = client.watch(SystemTime::now(), news);
    let answer = async {
        match client.list().await {
            Ok(all) => {
                for d in all {
                    drop(news.send(News::Known(runtime, d)).await);
                }
            }
            Err(e) => return e,
        }
        *pause = FIRST_RETRY;
        drop(news.send(News::Connected(runtime)).await);
        while let Some(question) = questions.recv().await {
            let answer = match question {
                Question::Container(id) => client.lookup(&id).await.map(|d| d.map(|d| News::Known(runtime, d))),
                Question::Image(id) => client.image_digest(&id).await.map(|digest| Some(News::Image { id, digest })),
            };
            match answer {
                Ok(Some(n)) => drop(news.send(n).await),
                // One slow answer is no reason to give up the stream.
                Ok(None) | Err(ClientError::Deadline { .. }) => {}
                Err(e) => return e,
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        end = watch => end,
        end = answer => end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    #[test]
    fn a_named_socket_must_exist_and_a_default_one_is_looked_for_below_the_hosts_root() {
        let root = tempfile::tempdir().unwrap();
        let mut options = ContainersOptions { host_root: root.path().to_owned(), ..ContainersOptions::default() };
        let of = |options: &ContainersOptions| Socket::of(options, RuntimeName::Docker, &["/run/a", "/var/run/b"]);
        let socket = of(&options).unwrap().unwrap();
        assert_eq!(socket.find(), None);
        let path = root.path().join("var/run/b");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "").unwrap();
        assert_eq!(socket.find(), Some(path.clone()));
        options.sockets.insert(RuntimeName::Docker, "/run/c".into());
        assert!(matches!(of(&options), Err(ContainersError::NoSocket { runtime: RuntimeName::Docker, .. })));
        options.sockets.insert(RuntimeName::Docker, "/var/run/b".into());
        assert_eq!(of(&options).unwrap().unwrap().find(), Some(path));
        options.runtimes.clear();
        assert!(of(&options).unwrap().is_none());
    }

    /// Ends its stream at once for the first `failures` connections.
    struct Scripted {
        connection: u32,
        failures: u32,
    }

    fn described(id: &str) -> Described {
        Described { id: id.into(), ..Described::default() }
    }

    impl Client for Scripted {
        async fn watch(&self, _since: SystemTime, news: &mpsc::Sender<News>) -> ClientError {
            if self.connection > self.failures {
                news.send(News::Removed(RuntimeName::Docker, "watched".into())).await.unwrap();
                std::future::pending::<()>().await;
            }
            ClientError::StreamEnded { runtime: RuntimeName::Docker, socket: "/s".into() }
        }

        async fn list(&self) -> Result<Vec<Described>, ClientError> {
            Ok(vec![described("listed")])
        }

        async fn lookup(&self, id: &str) -> Result<Option<Described>, ClientError> {
            Ok((id != "nobody").then(|| described(id)))
        }

        async fn image_digest(&self, _image_id: &str) -> Result<Option<Box<str>>, ClientError> {
            Ok(Some("sha256:d".into()))
        }

        fn runtime(&self) -> RuntimeName {
            RuntimeName::Docker
        }
    }

    #[test]
    fn a_client_that_is_cut_off_comes_back_lists_anew_and_answers() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (news, mut hear) = mpsc::channel(16);
            let (ask, questions) = mpsc::channel(16);
            let connections = Arc::new(AtomicU32::new(0));
            let counted = connections.clone();
            let connect = move || match counted.fetch_add(1, Ordering::Relaxed) {
                // Not there yet, then there.
                0 => Ok(None),
                n => Ok(Some(Scripted { connection: n, failures: 1 })),
            };
            tokio::spawn(follow(connect, news, questions));
            for question in
                [Question::Container("nobody".into()), Question::Container("asked".into()), Question::Image("i".into())]
            {
                ask.send(question).await.unwrap();
            }
            // Whether the first connection lists before it is cut off, and when questions are answered, is left open.
            let lost = |n: &News| matches!(n, News::Lost(RuntimeName::Docker, ClientError::StreamEnded { .. }));
            let mut expected = vec![
                News::Removed(RuntimeName::Docker, "watched".into()),
                News::Known(RuntimeName::Docker, described("listed")),
                News::Connected(RuntimeName::Docker),
                News::Known(RuntimeName::Docker, described("asked")),
                News::Image { id: "i".into(), digest: Some("sha256:d".into()) },
            ];
            let mut heard = Vec::new();
            while !(expected.is_empty() && heard.iter().any(lost) && connections.load(Ordering::Relaxed) == 3) {
                let n = tokio::time::timeout(Duration::from_secs(5), hear.recv()).await;
                let n = n.unwrap_or_else(|_| panic!("after {heard:?} nothing came, but not yet {expected:?}")).unwrap();
                expected.retain(|e| *e != n);
                heard.push(n);
            }
            assert_eq!(connections.load(Ordering::Relaxed), 3);
        });
    }
}

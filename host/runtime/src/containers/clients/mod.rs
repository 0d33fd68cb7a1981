//! What a container runtime's API adds to what the kernel and the bundles tell: names, images, pods, containers found late.
//!
//! Clients live on the containers' thread as tasks. They never decide whether something is a container, and nothing waits
//! for them but rows whose container lacks a name, or whose pod its labels. A runtime is one file here, and one line in
//! `roster.rs`, where clients are started. What a daemon says is bounded here, in length and in number.

mod containerd;
mod cri;
mod docker;
mod grpc;
mod podman;
mod roster;

pub(crate) use roster::default_sockets;
pub(super) use roster::{Clients, Roster};

use super::{
    ContainersError, ContainersOptions,
    container::{Pod, RuntimeName},
    identify,
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use std::{
    collections::BTreeMap,
    future::Future,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use tokio::{sync::mpsc, time::Instant};

/// How long a single question to a runtime may take. The runtimes of tests may have to wait for a processor.
const LOOKUP_DEADLINE: Duration = Duration::from_millis(if cfg!(test) { 8000 } else { 1500 });
const LIST_DEADLINE: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(10);
/// A container that is just being made may be asked for before its runtime lists it: for this long it is asked again.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 60 } else { 2 });
const FIRST_REPEAT: Duration = Duration::from_millis(20);
const LAST_REPEAT: Duration = Duration::from_millis(400);
/// Questions to one client on their way at the same time.
const CONCURRENT: usize = 32;
/// So many questions in a row without an answer in time, and the connection is given up.
const UNANSWERED: u32 = 3;
/// Longest text taken over from a daemon, in bytes, and most labels of a pod.
const MAX_TEXT: usize = 4096;
const MAX_LABELS: usize = 512;
/// Most containers taken over from one listing.
const MAX_LISTED: usize = 65_536;

/// A container as its runtime describes it; what is `None` was not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) id: Box<str>,
    /// containerd's namespace.
    pub(super) namespace: Option<Box<str>>,
    pub(super) name: Option<Box<str>>,
    pub(super) image_name: Option<Box<str>>,
    pub(super) image_id: Option<Box<str>>,
    /// Where the runtime is not asked for it image by image.
    pub(super) image_digest: Option<Box<str>>,
    /// The unprivileged user whose word this is: id and name begin with their number then.
    pub(super) user: Option<u32>,
    /// First process, as the host numbers it, while it runs.
    pub(super) pid: Option<u32>,
    /// Listed as running, perhaps without its first process: worth a lookup where the kernel did not give it away.
    pub(super) listed: bool,
    pub(super) pod: Option<Pod>,
    /// Id of its pod's sandbox, which is its own where it is the sandbox.
    pub(super) sandbox: Option<Box<str>>,
}

impl Described {
    /// Takes over what `newer` says, and keeps what it does not say.
    pub(super) fn merge(&mut self, newer: Described) {
        fn take<T>(old: &mut Option<T>, new: Option<T>) {
            if new.is_some() {
                *old = new;
            }
        }
        take(&mut self.namespace, newer.namespace);
        take(&mut self.name, newer.name);
        take(&mut self.image_name, newer.image_name);
        take(&mut self.image_id, newer.image_id);
        take(&mut self.image_digest, newer.image_digest);
        take(&mut self.user, newer.user);
        take(&mut self.pid, newer.pid);
        take(&mut self.sandbox, newer.sandbox);
        self.listed = newer.listed;
        match (&mut self.pod, newer.pod) {
            (Some(old), Some(new)) => old.fill(&new),
            (None, new) => self.pod = new,
            (Some(_), None) => {}
        }
    }
}

/// One client: a runtime may have several, which differ in their sockets or in what they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Source {
    pub(super) number: usize,
    pub(super) runtime: RuntimeName,
}

/// What a client tells the containers' thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// A listing of containers begins: what this client said before and does not say again is out of date once it is connected.
    Listing(Source),
    /// The connection stands and what ran before is listed. `pods`: whether it knows the pods' labels; `None`: they are
    /// not its business.
    Connected {
        source: Source,
        pods: Option<bool>,
    },
    Lost(Source, ClientError),
    /// New or better knowledge of a container, running or not.
    Known(RuntimeName, Described),
    /// The digest of an image in its registry; `None`: it was never in one.
    Image {
        id: Box<str>,
        digest: Option<Box<str>>,
    },
    /// The runtime forgot the container.
    Removed(RuntimeName, Box<str>),
    /// A client has listed its containers for the first time, or could not: each says so once.
    FirstAnswer,
}

/// What the containers' thread asks a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Container(Box<str>),
    /// The pod's sandbox with this id, for the labels of the pod.
    Sandbox(Box<str>),
    /// By the image's id.
    Image(Box<str>),
}

/// A question and when it came up.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) question: Question,
    pub(super) at: Instant,
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
    /// A first exchange, so that a daemon that hangs is found out soon.
    fn hello(&self) -> impl Future<Output = Result<(), ClientError>> + Send {
        std::future::ready(Ok(()))
    }

    /// Reports every change since `since` until the connection ends.
    fn watch(&self, since: SystemTime, news: &mpsc::Sender<News>) -> impl Future<Output = ClientError> + Send;

    /// All running containers, and the sandboxes of pods where they are known.
    fn list(&self) -> impl Future<Output = Result<Vec<Described>, ClientError>> + Send;

    /// One container by its id, with its first process; `None`: the runtime does not know it.
    fn lookup(&self, id: &str) -> impl Future<Output = Result<Option<Described>, ClientError>> + Send;

    /// A pod's sandbox by its id, with the labels of the pod; `None`: not known, or not this client's business.
    fn sandbox(&self, _id: &str) -> impl Future<Output = Result<Option<Described>, ClientError>> + Send {
        std::future::ready(Ok(None))
    }

    /// The digest of an image in its registry.
    fn image_digest(&self, image_id: &str) -> impl Future<Output = Result<Option<Box<str>>, ClientError>> + Send;

    /// After `list`: whether it knows the labels of pods; `None`: they are not its business.
    fn knows_pods(&self) -> Option<bool> {
        None
    }

    /// Whether such questions are for this client.
    fn answers(&self, question: &Question) -> bool {
        !matches!(question, Question::Sandbox(_))
    }

    fn runtime(&self) -> RuntimeName;

    /// True for a daemon of an unprivileged user: whether it answers is nobody else's news.
    fn is_a_users(&self) -> bool {
        false
    }
}

/// Keeps a client going for ever: watch, list, answer, and connect anew with growing pauses.
pub(super) async fn follow<C: Client>(
    source: Source,
    connect: impl Fn() -> Result<Option<C>, ClientError> + Send + 'static,
    news: mpsc::Sender<News>,
    mut questions: mpsc::Receiver<Asked>,
) {
    let mut pause = FIRST_RETRY;
    let mut owed = Some(News::FirstAnswer);
    loop {
        let began = Instant::now();
        let mut is_a_users = false;
        let end = match connect() {
            Ok(Some(client)) => {
                is_a_users = client.is_a_users();
                Some(serve(source, &client, &news, &mut questions, &mut owed).await)
            }
            // Not installed, or not started yet.
            Ok(None) => None,
            Err(e) => Some(e),
        };
        if let Some(e) = end.filter(|_| !is_a_users)
            && news.send(News::Lost(source, e)).await.is_err()
        {
            return;
        }
        // One that is cut off at once, again and again, is not asked ever faster.
        if began.elapsed() > LAST_RETRY {
            pause = FIRST_RETRY;
        }
        if let Some(first) = owed.take() {
            drop(news.send(first).await);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_RETRY);
    }
}

async fn serve<C: Client>(
    source: Source,
    client: &C,
    news: &mpsc::Sender<News>,
    questions: &mut mpsc::Receiver<Asked>,
    owed: &mut Option<News>,
) -> ClientError {
    if let Err(e) = client.hello().await {
        return e;
    }
    // The stream begins before the list: what starts in between is then in the one or the other.
    let watch = client.watch(SystemTime::now(), news);
    let answer = async {
        if client.answers(&Question::Container("".into())) && !client.is_a_users() {
            drop(news.send(News::Listing(source)).await);
        }
        match client.list().await {
            Ok(all) => {
                for d in all {
                    drop(news.send(News::Known(source.runtime, d)).await);
                }
            }
            Err(e) => return e,
        }
        if !client.is_a_users() {
            drop(news.send(News::Connected { source, pods: client.knows_pods() }).await);
        }
        if let Some(first) = owed.take() {
            drop(news.send(first).await);
        }
        answer_all(client, news, questions).await
    };
    tokio::select! {
        end = watch => end,
        end = answer => end,
    }
}

/// Answers side by side: one that takes long keeps none of the others.
async fn answer_all<C: Client>(
    client: &C,
    news: &mpsc::Sender<News>,
    questions: &mut mpsc::Receiver<Asked>,
) -> ClientError {
    let (mut open, mut unanswered, mut closed) = (FuturesUnordered::new(), 0, false);
    loop {
        tokio::select! {
            asked = questions.recv(), if !closed && open.len() < CONCURRENT => match asked {
                Some(a) if !client.answers(&a.question) => {}
                // What came up while nobody was there to ask has been listed since.
                Some(a) if a.at.elapsed() > PATIENCE && !matches!(a.question, Question::Image(_)) => {}
                Some(a) => open.push(answer(client, a)),
                None => closed = true,
            },
            Some(answer) = open.next() => match answer {
                Ok(n) => {
                    unanswered = 0;
                    if let Some(n) = n {
                        drop(news.send(n).await);
                    }
                }
                // One slow answer is no reason to give up the stream.
                Err(ClientError::Deadline { .. }) if unanswered + 1 < UNANSWERED => unanswered += 1,
                Err(e) => return e,
            },
            else => std::future::pending().await,
        }
    }
}

async fn answer<C: Client>(client: &C, asked: Asked) -> Result<Option<News>, ClientError> {
    let runtime = client.runtime();
    let mut pause = FIRST_REPEAT;
    loop {
        let found = match &asked.question {
            Question::Container(id) => client.lookup(id).await?,
            Question::Sandbox(id) => client.sandbox(id).await?,
            Question::Image(id) => {
                let digest = client.image_digest(id).await?;
                return Ok(Some(News::Image { id: id.clone(), digest }));
            }
        };
        if found.is_some() || asked.at.elapsed() + pause > PATIENCE {
            return Ok(found.map(|d| News::Known(runtime, d)));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_REPEAT);
    }
}

/// Text of a daemon, cut where it is longer than any name or reference.
fn text(s: &str) -> Option<Box<str>> {
    let mut end = s.len().min(MAX_TEXT);
    while !s.is_char_boundary(end) {
        end -= 1;
    }
    (!s.is_empty()).then(|| s[..end].into())
}

/// A pod's labels as its owner wrote them: without those that the kubelet adds for itself.
pub(super) fn pod_labels<'a>(all: impl IntoIterator<Item = (&'a String, &'a String)>) -> BTreeMap<Box<str>, Box<str>> {
    let own = |k: &str| !k.starts_with("io.kubernetes.pod.") && !k.starts_with("io.kubernetes.container.");
    let mut labels: Vec<_> = all.into_iter().filter(|(k, _)| own(k)).collect();
    labels.sort();
    let labels = labels.into_iter().take(MAX_LABELS);
    labels.filter_map(|(k, v)| Some((text(k)?, text(v).unwrap_or_default()))).collect()
}

#[cfg(test)]
mod bad_servers;

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
        // Time passes where everybody waits for it, and only there: no question is too old because the machine is busy.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
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
            let source = Source { number: 0, runtime: RuntimeName::Docker };
            tokio::spawn(follow(source, connect, news, questions));
            for question in
                [Question::Container("nobody".into()), Question::Container("asked".into()), Question::Image("i".into())]
            {
                ask.send(Asked { question, at: Instant::now() }).await.unwrap();
            }
            // Whether the first connection lists before it is cut off, and when questions are answered, is left open.
            let lost = |n: &News| matches!(n, News::Lost(_, ClientError::StreamEnded { .. }));
            let mut expected = vec![
                News::Removed(RuntimeName::Docker, "watched".into()),
                News::Known(RuntimeName::Docker, described("listed")),
                News::Connected { source, pods: None },
                News::Known(RuntimeName::Docker, described("asked")),
                News::Image { id: "i".into(), digest: Some("sha256:d".into()) },
                News::FirstAnswer,
            ];
            let mut heard = Vec::new();
            while !(expected.is_empty() && heard.iter().any(lost) && connections.load(Ordering::Relaxed) == 3) {
                let n = tokio::time::timeout(Duration::from_secs(60), hear.recv()).await;
                let n = n.unwrap_or_else(|_| panic!("after {heard:?} nothing came, but not yet {expected:?}")).unwrap();
                expected.retain(|e| *e != n);
                heard.push(n);
            }
            assert_eq!(connections.load(Ordering::Relaxed), 3);
        });
    }
}

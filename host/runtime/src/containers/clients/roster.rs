//! Which clients run, and how questions reach them.
//!
//! A runtime may have several clients: they hear the same questions, and each answers what is its business. Started once,
//! on the containers' thread.

use super::{
    Asked, Client, ClientError, News, Question, Socket, Source,
    containerd::{self, ContainerdClient},
    cri::{self, CriClient},
    docker::{self, DockerClient},
    follow,
    podman::{self, PodmanClient},
};
use crate::containers::{ContainersError, ContainersOptions, RuntimeProtocol, container::RuntimeName};
use rustc_hash::FxHashMap;
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{sync::mpsc, time::Instant};

const QUEUE: usize = 1024;

/// Where a runtime's API listens by default, on the observed host; none for those without an API.
pub(crate) fn default_sockets(runtime: RuntimeName) -> &'static [&'static str] {
    match runtime {
        RuntimeName::Docker => docker::SOCKETS,
        RuntimeName::Containerd => containerd::SOCKETS,
        RuntimeName::CriO => cri::CRIO_SOCKETS,
        RuntimeName::Podman => podman::SOCKETS,
        _ => &[],
    }
}

type Start = Box<dyn FnOnce(Source, mpsc::Sender<News>, mpsc::Receiver<Asked>) + Send>;

/// The clients to start.
#[derive(Default)]
pub(in crate::containers) struct Roster {
    planned: Vec<(RuntimeName, Start)>,
    /// Runtimes of which somebody may tell the labels of pods: their socket is there.
    pub(in crate::containers) pods: Vec<RuntimeName>,
    /// Runtimes whose socket is there.
    pub(in crate::containers) present: Vec<RuntimeName>,
    /// The observed host's root, where every user's Podman is to be followed too.
    users: Option<PathBuf>,
}

impl Roster {
    /// Checks the sockets that the user named.
    pub(in crate::containers) fn of(options: &ContainersOptions) -> Result<Roster, ContainersError> {
        use RuntimeName::{Containerd, CriO, Docker, Podman};
        let mut r = Roster::default();
        let docker = Socket::of(options, Docker, docker::SOCKETS)?;
        let containerd = Socket::of(options, Containerd, containerd::SOCKETS)?;
        let crio = Socket::of(options, CriO, cri::CRIO_SOCKETS)?;
        let podman = Socket::of(options, Podman, podman::SOCKETS)?;
        // With a socket of the user's choice nobody else's are looked for.
        r.users = matches!(podman, Some(Socket::Default { .. })).then(|| options.host_root.clone());
        let namespaces = options.containerd_namespaces.clone();
        let by_cri = options.protocol == RuntimeProtocol::Cri;
        r.expect_pods(&[(Containerd, &containerd), (CriO, &crio)]);
        // One line a client.
        r.add(Docker, docker, DockerClient::new);
        if by_cri {
            r.add(Containerd, containerd, |s| Ok(CriClient::new(Containerd, s)));
        } else {
            r.add(Containerd, containerd.clone(), move |s| Ok(ContainerdClient::new(s, &namespaces)));
            r.add(Containerd, containerd, |s| Ok(CriClient::for_pods(Containerd, s)));
        }
        r.add(CriO, crio, |s| Ok(CriClient::new(CriO, s)));
        r.add(Podman, podman, |s| Ok(PodmanClient::new(s)));
        Ok(r)
    }

    fn expect_pods(&mut self, sockets: &[(RuntimeName, &Option<Socket>)]) {
        let there = sockets.iter().filter(|(_, s)| s.as_ref().is_some_and(|s| s.find().is_some()));
        self.pods = there.map(|(runtime, _)| *runtime).collect();
    }

    /// Adds a client that connects to wherever `socket` is found at the time; `None`: it is not to be asked.
    fn add<C: Client>(
        &mut self,
        runtime: RuntimeName,
        socket: Option<Socket>,
        connect: impl Fn(&Path) -> Result<C, ClientError> + Send + 'static,
    ) {
        let Some(socket) = socket else { return };
        if socket.find().is_some() && !self.present.contains(&runtime) {
            self.present.push(runtime);
        }
        let start = move |source, news, questions| {
            let connect = move || socket.find().map(|path| connect(&path)).transpose();
            tokio::spawn(follow(source, connect, news, questions));
        };
        self.planned.push((runtime, Box::new(start)));
    }

    /// Starts them all; to be called within the thread's tokio runtime. `asking` counts those that owe a first answer.
    pub(in crate::containers) fn start(self, news: &mpsc::Sender<News>, asking: &Arc<AtomicUsize>) -> Clients {
        asking.fetch_add(self.planned.len() + usize::from(self.users.is_some()), Ordering::AcqRel);
        if let Some(host_root) = self.users {
            tokio::spawn(podman::follow_users(host_root, news.clone(), asking.clone()));
        }
        let mut questions = FxHashMap::<RuntimeName, Vec<_>>::default();
        for (number, (runtime, start)) in self.planned.into_iter().enumerate() {
            let (ask, hear) = mpsc::channel(QUEUE);
            start(Source { number, runtime }, news.clone(), hear);
            questions.entry(runtime).or_default().push(ask);
        }
        Clients { questions }
    }
}

/// The clients that run.
pub(in crate::containers) struct Clients {
    questions: FxHashMap<RuntimeName, Vec<mpsc::Sender<Asked>>>,
}

impl Clients {
    /// Puts a question to every client of the runtime. The answer comes as news, if it comes.
    pub(in crate::containers) fn ask(&self, runtime: RuntimeName, question: &Question) {
        for client in self.questions.get(&runtime).into_iter().flatten() {
            // A full queue means a runtime that does not answer; the deadline takes care of the rows that wait.
            drop(client.try_send(Asked { question: question.clone(), at: Instant::now() }));
        }
    }
}

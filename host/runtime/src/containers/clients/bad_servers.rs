//! All clients against sockets that are none, and servers that are no good: each ends with an error that names the
//! runtime and the socket, in time, without asking ever faster.

use super::{containerd::ContainerdClient, cri::CriClient, docker::DockerClient, *};
use std::{
    os::unix::net::UnixListener as StdListener,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bad {
    /// A regular file.
    File,
    /// The server died and left its socket.
    Refuses,
    /// Accepts, reads, says nothing.
    Hangs,
    /// Never even accepts.
    Sleeps,
    ClosesAtOnce,
    Garbage,
    EndlessGarbage,
    /// Breaks off in the middle of an answer.
    HalfAnAnswer,
    /// Speaks HTTP, as a web server does, but has nothing.
    NotFound,
}

const ALL: [Bad; 9] = [
    Bad::File,
    Bad::Refuses,
    Bad::Hangs,
    Bad::Sleeps,
    Bad::ClosesAtOnce,
    Bad::Garbage,
    Bad::EndlessGarbage,
    Bad::HalfAnAnswer,
    Bad::NotFound,
];

async fn misbehave(bad: Bad, mut stream: UnixStream) {
    let mut request = vec![0; 4096];
    if bad != Bad::ClosesAtOnce {
        drop(stream.read(&mut request).await);
    }
    let answer: &[u8] = match bad {
        Bad::Hangs => return std::future::pending().await,
        Bad::Garbage | Bad::EndlessGarbage => b"\xff\x00\x1b[2Jgarbage\r\n\r\n",
        Bad::HalfAnAnswer => b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n[{",
        Bad::NotFound => b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\nnope",
        _ => b"",
    };
    drop(stream.write_all(answer).await);
    while bad == Bad::EndlessGarbage && stream.write_all(&[b'x'; 65536]).await.is_ok() {}
}

/// A socket of that kind, and how often somebody connected.
fn socket(bad: Bad, dir: &Path) -> (PathBuf, Arc<AtomicU32>) {
    let path = dir.join(format!("{bad:?}.sock"));
    let connections = Arc::new(AtomicU32::new(0));
    match bad {
        Bad::File => std::fs::write(&path, "not a socket").unwrap(),
        Bad::Refuses => drop(StdListener::bind(&path).unwrap()),
        Bad::Sleeps => std::mem::forget(StdListener::bind(&path).unwrap()),
        _ => {
            let (listener, count) = (UnixListener::bind(&path).unwrap(), connections.clone());
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    count.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(misbehave(bad, stream));
                }
            });
        }
    }
    (path, connections)
}

/// What happens in the first seconds with such a server.
async fn first_failure<C: Client>(bad: Bad, runtime: RuntimeName, make: fn(&Path) -> Result<C, ClientError>) {
    let dir = tempfile::tempdir().unwrap();
    let (path, connections) = socket(bad, dir.path());
    let (news, mut hear) = mpsc::channel(64);
    let (_ask, questions) = mpsc::channel(4);
    let source = Source { number: 0, runtime };
    let at = path.clone();
    let following = tokio::spawn(follow(source, move || make(&at).map(Some), news, questions));
    let told = async {
        loop {
            match hear.recv().await {
                Some(News::Lost(s, e)) => break (s, e),
                Some(News::Known(..) | News::Connected { .. }) => panic!("{runtime} believed {bad:?}"),
                Some(_) => {}
                None => panic!("{runtime} gave up at {bad:?}"),
            }
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(120), told).await;
    let (s, e) = told.unwrap_or_else(|_| panic!("{runtime} says nothing of {bad:?}"));
    let said = e.to_string();
    assert_eq!((s, e.runtime()), (source, runtime));
    assert!(said.starts_with(&format!("{runtime}: ")) && said.contains(&*path.to_string_lossy()), "{bad:?}: {said}");
    assert!(said.len() < 1000, "{bad:?}: {said}");
    // Two more tries at most in the next second: a quarter, then half a second apart.
    let (before, start) = (connections.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (more, seconds) = (connections.load(Ordering::Relaxed) - before, start.elapsed().as_secs_f64());
    // Docker's library opens a connection for every request. On a busy machine a second lasts longer.
    assert!(f64::from(more) <= 8.0 * seconds, "{runtime} connected {more} times in {seconds} s to {bad:?}");
    following.abort();
}

async fn every_bad_server<C: Client>(runtime: RuntimeName, make: fn(&Path) -> Result<C, ClientError>) {
    let attempts = ALL.map(|bad| tokio::spawn(first_failure(bad, runtime, make)));
    for attempt in attempts {
        attempt.await.unwrap();
    }
}

fn block_on(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}

#[test]
fn docker() {
    block_on(every_bad_server(RuntimeName::Docker, DockerClient::new));
}

#[test]
fn containerd() {
    block_on(every_bad_server(RuntimeName::Containerd, |s| Ok(ContainerdClient::new(s, &[]))));
}

#[test]
fn cri() {
    block_on(every_bad_server(RuntimeName::CriO, |s| Ok(CriClient::new(RuntimeName::CriO, s))));
}

#[test]
fn pods() {
    block_on(every_bad_server(RuntimeName::Containerd, |s| Ok(CriClient::for_pods(RuntimeName::Containerd, s))));
}

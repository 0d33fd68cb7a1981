//! Against daemons made for the test: what they say is scripted, and some of it is hostile.

use super::*;
use std::os::unix::fs::MetadataExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Answers each connection's request with what `answer` makes of its path, then closes.
fn daemon(socket: &Path, answer: impl Fn(&str) -> (u16, Vec<u8>) + Send + 'static) {
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let n = stream.read(&mut request).await.unwrap();
            let text = String::from_utf8_lossy(&request[..n]).into_owned();
            let (code, body) = answer(text.split(' ').nth(1).unwrap_or_default());
            let head = format!("HTTP/1.1 {code} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            drop(stream.write_all(head.as_bytes()).await);
            drop(stream.write_all(&body).await);
        }
    });
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(120), test).await.expect("in time") })
}

fn me(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().uid()
}

/// What the peer is believed to be: these tests run as any user.
fn as_i(dir: &Path, d: Described) -> Described {
    said_by(Some(me(dir)).filter(|uid| *uid != 0), d)
}

#[test]
fn lists_looks_up_and_finds_digests() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("p.sock");
        daemon(&socket, |path| {
            let text = match path {
                "/v4.0.0/libpod/containers/json" => format!(
                    r#"[{{"Id":"{ID}","Names":["web"],"Image":"localhost/busybox:latest","ImageID":"ab12","Pid":42,"More":[]}},
                        {{"Id":"../etc","Names":null}},{{"Id":"cd","Names":null,"Pid":-1}}]"#
                ),
                p if p == format!("/v4.0.0/libpod/containers/{ID}/json") => format!(
                    r#"{{"Id":"{ID}","Name":"web","Image":"ab12","ImageName":"localhost/busybox:latest","State":{{"Pid":42}}}}"#
                ),
                "/v4.0.0/libpod/images/ab12/json" => {
                    r#"{"RepoDigests":["localhost/busybox@sha256:99"],"Digest":"sha256:11"}"#.to_owned()
                }
                "/v4.0.0/libpod/images/none/json" => r#"{"RepoDigests":null}"#.to_owned(),
                _ => return (404, b"{}".to_vec()),
            };
            (200, text.into_bytes())
        });
        let client = PodmanClient::new(&socket);
        let web = Described {
            id: ID.into(),
            name: Some("web".into()),
            image_name: Some("localhost/busybox:latest".into()),
            image_id: Some("ab12".into()),
            pid: Some(42),
            ..Described::default()
        };
        let mut expected = as_i(dir.path(), web);
        if expected.user.is_some() {
            expected.image_digest = Some("sha256:99".into());
        }
        let bare = as_i(dir.path(), Described { id: "cd".into(), listed: true, ..Described::default() });
        let listed = Described { listed: true, ..expected.clone() };
        assert_eq!(client.list().await.unwrap(), [listed, bare], "an id that is no id is left out");
        assert_eq!(client.lookup(ID).await.unwrap(), Some(expected));
        assert_eq!(client.lookup("ff").await.unwrap(), None);
        assert_eq!(client.lookup("../images").await.unwrap(), None);
        assert_eq!(client.image_digest("sha256:ab12").await.unwrap().as_deref(), Some("sha256:99"));
        assert_eq!(client.image_digest("none").await.unwrap(), None);
        assert_eq!(client.image_digest("ff").await.unwrap(), None);
    });
}

#[test]
fn events_name_containers_and_forget_them() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("p.sock");
        daemon(&socket, |path| {
            if !path.starts_with("/v4.0.0/libpod/events?stream=true&since=") {
                return (404, Vec::new());
            }
            let event = |action: &str| {
                format!(r#"{{"Action":"{action}","Actor":{{"ID":"ab","Attributes":{{"name":"web","image":"bb"}}}}}}"#)
            };
            let lines = [event("create"), "no json".to_owned(), event("died"), event("remove")];
            (200, (lines.join("\n") + "\n").into_bytes())
        });
        let (news, mut hear) = mpsc::channel(16);
        let end = PodmanClient::new(&socket).watch(SystemTime::now(), &news).await;
        assert!(matches!(end, ClientError::StreamEnded { .. }), "{end}");
        let web = Described {
            id: "ab".into(),
            name: Some("web".into()),
            image_name: Some("bb".into()),
            ..Described::default()
        };
        let web = as_i(dir.path(), web);
        assert_eq!(hear.recv().await, Some(News::Known(RuntimeName::Podman, web.clone())));
        assert_eq!(hear.recv().await, Some(News::Removed(RuntimeName::Podman, web.id)));
        assert!(hear.try_recv().is_err());
    });
}

#[test]
fn what_a_user_says_is_about_that_users_containers_only() {
    let d = Described { id: ID.into(), name: Some("web".into()), pid: Some(7), ..Described::default() };
    let claim = said_by(Some(1000), d.clone());
    assert_eq!((&*claim.id, claim.name.as_deref(), claim.user), (&*format!("1000/{ID}"), Some("1000/web"), Some(1000)));
    assert_eq!(said_by(None, d.clone()), d);
}

#[test]
fn a_socket_in_a_users_place_must_be_that_users() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("p.sock");
        daemon(&socket, |_| (200, b"[]".to_vec()));
        let uid = me(dir.path());
        assert_eq!(PodmanClient::of_user(socket.clone(), uid).list().await.unwrap(), []);
        let e = PodmanClient::of_user(socket, uid + 1).list().await.unwrap_err();
        assert!(e.to_string().contains(&format!("it is user {uid} who listens there, not {}", uid + 1)), "{e}");
    });
}

#[test]
fn garbage_endless_answers_and_refusals_are_errors_that_name_the_socket() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        for (name, code, body) in [
            ("garbage", 200, b"\xff\xfe".to_vec()),
            ("refusal", 500, Vec::new()),
            ("endless", 200, vec![b' '; MAX_ANSWER + 1]),
        ] {
            let socket = dir.path().join(name);
            daemon(&socket, move |_| (code, body.clone()));
            let e = PodmanClient::new(&socket).list().await.unwrap_err().to_string();
            assert!(e.starts_with("podman: listing containers at ") && e.contains(name), "{e}");
        }
        let socket = dir.path().join("long");
        daemon(&socket, |_| (200, vec![b'x'; MAX_EVENT + 10]));
        let (news, _hear) = mpsc::channel(1);
        let end = PodmanClient::new(&socket).watch(SystemTime::now(), &news).await;
        assert!(end.to_string().contains("too long"), "{end}");
        let e = PodmanClient::new(&dir.path().join("nobody")).list().await.unwrap_err();
        assert!(matches!(e, ClientError::Connect { .. }), "{e}");
    });
}

#[test]
fn a_daemon_that_hangs_is_given_up() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("p.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        let e = PodmanClient::new(&socket).lookup(ID).await.unwrap_err();
        assert!(matches!(e, ClientError::Deadline { .. }), "{e}");
    });
}

#[test]
fn users_sockets_are_found_and_nothing_else() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        for place in ["1000/podman", "1001/podman", "0/podman", "nobody/podman", "1002"] {
            std::fs::create_dir_all(dir.path().join(place)).unwrap();
        }
        let socket = |user: &str| dir.path().join(user).join("podman/podman.sock");
        let _listeners = ["1000", "0", "nobody"].map(|user| UnixListener::bind(socket(user)).unwrap());
        std::fs::write(socket("1001"), "a file").unwrap();
        assert_eq!(sockets(dir.path()), [(1000, socket("1000"))]);
        assert_eq!(sockets(&dir.path().join("gone")), []);
    });
}

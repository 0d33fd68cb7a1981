//! Docker's API over its unix socket: events, list, inspect, and the digest of each image once.

use super::{
    Client, ClientError, Described, LIST_DEADLINE, LOOKUP_DEADLINE, MAX_LISTED, News,
    http::{Http, Lines, in_path},
    text,
};
use crate::containers::container::RuntimeName;
use serde::Deserialize;
use std::{collections::BTreeMap, path::Path, time::SystemTime};
use tokio::sync::mpsc;

/// Where Docker listens by default.
pub(super) const SOCKETS: &[&str] = &["/run/docker.sock", "/var/run/docker.sock"];

pub(super) struct DockerClient {
    http: Http,
}

/// One line of the event stream.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Event {
    action: String,
    actor: Actor,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Attributes")]
    attributes: BTreeMap<String, String>,
}

/// An entry of the list.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Listed {
    id: String,
    names: Option<Vec<String>>,
    image: String,
    #[serde(rename = "ImageID")]
    image_id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Inspected {
    id: String,
    name: String,
    /// The image's id.
    image: String,
    config: Config,
    state: State,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Config {
    image: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct State {
    pid: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Image {
    repo_digests: Option<Vec<String>>,
}

impl DockerClient {
    /// Prepares a client; the first request connects.
    pub(super) fn new(socket: &Path) -> Self {
        DockerClient { http: Http::new(RuntimeName::Docker, socket) }
    }
}

/// What an event says of a container.
fn told(event: &Event) -> Option<News> {
    let id = text(&event.actor.id)?;
    let attribute = |key: &str| event.actor.attributes.get(key).map(String::as_str);
    match &*event.action {
        "create" | "start" | "rename" => {
            let name = attribute("name").and_then(self::name);
            let image_name = attribute("image").and_then(text);
            Some(News::Known(RuntimeName::Docker, Described { id, name, image_name, ..Described::default() }))
        }
        "destroy" => Some(News::Removed(RuntimeName::Docker, id)),
        _ => None,
    }
}

fn name(s: &str) -> Option<Box<str>> {
    text(s.strip_prefix('/').unwrap_or(s))
}

impl Listed {
    fn described(self) -> Option<Described> {
        Some(Described {
            id: text(&self.id)?,
            name: self.names.unwrap_or_default().first().and_then(|n| name(n)),
            image_name: text(&self.image),
            image_id: text(&self.image_id),
            listed: true,
            ..Described::default()
        })
    }
}

impl Client for DockerClient {
    async fn hello(&self) -> Result<(), ClientError> {
        let what = "asking whether it is there";
        match self.http.bytes("/_ping", what, LOOKUP_DEADLINE).await? {
            Some(_) => Ok(()),
            None => Err(self.http.failed(what, "this is no Docker")),
        }
    }

    async fn watch(&self, since: SystemTime, news: &mpsc::Sender<News>) -> ClientError {
        let what = "reading events";
        let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (seconds, nanos) = (since.as_secs(), since.subsec_nanos());
        // {"type":["container"]}
        let filters = "%7B%22type%22%3A%5B%22container%22%5D%7D";
        let body = match self.http.get(&format!("/events?since={seconds}.{nanos:09}&filters={filters}"), what).await {
            Ok(Some(body)) => body,
            Ok(None) => return self.http.failed(what, "not found"),
            Err(e) => return e,
        };
        let mut lines = Lines::new(body);
        loop {
            match lines.next().await {
                // What is no event of a container says nothing of one.
                Ok(Some(line)) => {
                    if let Some(n) = serde_json::from_slice(line).ok().and_then(|event| told(&event)) {
                        drop(news.send(n).await);
                    }
                }
                Ok(None) => return self.http.stream_ended(),
                Err(cause) => return self.http.failed(what, cause),
            }
        }
    }

    async fn list(&self) -> Result<Vec<Described>, ClientError> {
        let all = self.http.json::<Vec<Listed>>("/containers/json", "listing containers", LIST_DEADLINE).await?;
        Ok(all.unwrap_or_default().into_iter().take(MAX_LISTED).filter_map(Listed::described).collect())
    }

    async fn lookup(&self, id: &str) -> Result<Option<Described>, ClientError> {
        let Some(id) = in_path(id) else { return Ok(None) };
        let path = format!("/containers/{id}/json");
        let Some(c) = self.http.json::<Inspected>(&path, "inspecting a container", LOOKUP_DEADLINE).await? else {
            return Ok(None);
        };
        Ok(Some(Described {
            id: text(&c.id).unwrap_or_else(|| id.into()),
            name: name(&c.name),
            image_name: text(&c.config.image),
            image_id: text(&c.image),
            pid: u32::try_from(c.state.pid).ok().filter(|p| *p != 0),
            ..Described::default()
        }))
    }

    async fn image_digest(&self, image_id: &str) -> Result<Option<Box<str>>, ClientError> {
        let Some(id) = in_path(image_id) else { return Ok(None) };
        let image = self.http.json::<Image>(&format!("/images/{id}/json"), "inspecting an image", LOOKUP_DEADLINE);
        let digests = image.await?.and_then(|i| i.repo_digests).unwrap_or_default();
        Ok(digests.iter().find_map(|d| text(d.rsplit_once('@')?.1)))
    }

    fn runtime(&self) -> RuntimeName {
        RuntimeName::Docker
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str, id: &str, attributes: &[(&str, &str)]) -> Event {
        let attributes = attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Event { action: action.to_owned(), actor: Actor { id: id.to_owned(), attributes } }
    }

    #[test]
    fn events_name_containers_and_forget_them() {
        let named = |action| told(&event(action, "x", &[("name", "web"), ("image", "nginx"), ("oldName", "/old")]));
        let known = Described {
            id: "x".into(),
            name: Some("web".into()),
            image_name: Some("nginx".into()),
            ..Described::default()
        };
        for action in ["create", "start", "rename"] {
            assert_eq!(named(action), Some(News::Known(RuntimeName::Docker, known.clone())), "{action}");
        }
        assert_eq!(named("destroy"), Some(News::Removed(RuntimeName::Docker, "x".into())));
    }

    #[test]
    fn other_events_say_nothing() {
        assert_eq!(told(&event("die", "x", &[])), None);
        assert_eq!(told(&event("exec_start: sh", "x", &[])), None);
        assert_eq!(told(&event("create", "", &[("name", "web")])), None);
        assert_eq!(told(&Event::default()), None);
    }

    #[test]
    fn answers_are_read_as_docker_writes_them() {
        let line = r#"{"status":"create","id":"x","from":"nginx","Type":"container","Action":"create",
            "Actor":{"ID":"x","Attributes":{"image":"nginx","name":"web"}},"scope":"local","time":1,"timeNano":1}"#;
        let News::Known(_, d) = told(&serde_json::from_str(line).unwrap()).unwrap() else { panic!("{line}") };
        assert_eq!((d.name.as_deref(), d.image_name.as_deref()), (Some("web"), Some("nginx")));
        let listed = r#"{"Id":"x","Names":["/web"],"Image":"nginx","ImageID":"sha256:1","State":"running","Ports":[]}"#;
        let d = serde_json::from_str::<Listed>(listed).unwrap().described().unwrap();
        assert_eq!((d.name.as_deref(), d.image_id.as_deref(), d.listed), (Some("web"), Some("sha256:1"), true));
        let nameless: Listed = serde_json::from_str(r#"{"Id":"x","Names":null}"#).unwrap();
        assert_eq!(nameless.described().unwrap().name, None);
        let inspected = r#"{"Id":"x","Name":"/web","Image":"sha256:1","Config":{"Image":"nginx"},"State":{"Pid":7}}"#;
        let i: Inspected = serde_json::from_str(inspected).unwrap();
        assert_eq!((&*i.name, &*i.image, &*i.config.image, i.state.pid), ("/web", "sha256:1", "nginx", 7));
        let image: Image = serde_json::from_str(r#"{"Id":"sha256:1","RepoDigests":["nginx@sha256:2"]}"#).unwrap();
        assert_eq!(image.repo_digests.unwrap(), ["nginx@sha256:2"]);
    }

    #[test]
    fn names_lose_their_slash() {
        assert_eq!(name("/web").as_deref(), Some("web"));
        assert_eq!(name("web").as_deref(), Some("web"));
        assert_eq!(name("/"), None);
    }

    #[test]
    fn nothing_but_an_id_gets_into_a_requests_path() {
        assert_eq!(in_path("sha256:0ab"), Some("sha256:0ab"));
        for id in ["", "..", "a/b", "a b", "a?b", "a%2f", "ä", &"a".repeat(300)] {
            assert_eq!(in_path(id), None, "{id}");
        }
    }

    #[test]
    fn a_socket_that_is_not_there_is_an_error_that_names_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let e = runtime.block_on(DockerClient::new(Path::new("/nonexistent/d.sock")).hello()).unwrap_err();
        assert!(e.to_string().starts_with("docker: cannot use /nonexistent/d.sock: "), "{e}");
    }
}

//! Docker's API over its unix socket: events, list, inspect, and the digest of each image once.

use super::{Client, ClientError, Described, LIST_DEADLINE, LOOKUP_DEADLINE, MAX_LISTED, News};
use crate::containers::container::RuntimeName;
use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error as DockerError,
    models::{EventActor, EventMessage},
    query_parameters::EventsOptionsBuilder,
};
use futures_util::{StreamExt, pin_mut};
use std::{
    collections::HashMap,
    future::Future,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use tokio::sync::mpsc;

/// Where Docker listens by default.
pub(super) const SOCKETS: &[&str] = &["/run/docker.sock", "/var/run/docker.sock"];

pub(super) struct DockerClient {
    docker: Docker,
    socket: PathBuf,
}

impl DockerClient {
    /// Prepares a client; the first request connects.
    pub(super) fn new(socket: &Path) -> Result<Self, ClientError> {
        let timeout = LIST_DEADLINE.as_secs();
        let docker =
            Docker::connect_with_unix(&socket.to_string_lossy(), timeout, API_DEFAULT_VERSION).map_err(|e| {
                ClientError::Connect { runtime: RuntimeName::Docker, socket: socket.to_owned(), cause: e.to_string() }
            })?;
        Ok(DockerClient { docker, socket: socket.to_owned() })
    }

    async fn within<T>(
        &self,
        what: &'static str,
        deadline: Duration,
        request: impl Future<Output = Result<T, DockerError>>,
    ) -> Result<T, RequestError> {
        let (runtime, socket) = (RuntimeName::Docker, self.socket.clone());
        match tokio::time::timeout(deadline, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(DockerError::DockerResponseServerError { status_code: 404, .. })) => Err(RequestError::NotFound),
            Ok(Err(e)) => {
                Err(RequestError::Client(ClientError::Request { runtime, socket, what, cause: e.to_string() }))
            }
            // The deadline is all that is to be known of the timer's error.
            Err(tokio::time::error::Elapsed { .. }) => {
                Err(RequestError::Client(ClientError::Deadline { runtime, socket, what, deadline }))
            }
        }
    }

    async fn inspect(&self, id: &str) -> Result<Option<Described>, ClientError> {
        let answer =
            self.within("inspecting a container", LOOKUP_DEADLINE, self.docker.inspect_container(id, None)).await;
        let c = match answer {
            Ok(c) => c,
            Err(RequestError::NotFound) => return Ok(None),
            Err(RequestError::Client(e)) => return Err(e),
        };
        Ok(Some(Described {
            id: c.id.unwrap_or_else(|| id.to_owned()).into(),
            name: c.name.and_then(|n| name(&n)),
            image_name: c.config.and_then(|c| c.image).map(Into::into),
            image_id: c.image.map(Into::into),
            pid: c.state.and_then(|s| s.pid).and_then(|p| u32::try_from(p).ok()).filter(|p| *p != 0),
            ..Described::default()
        }))
    }
}

/// What an event says of a container.
fn told(event: EventMessage) -> Option<News> {
    let EventActor { id, attributes } = event.actor?;
    let id = id?.into();
    let attribute = |key: &str| attributes.as_ref().and_then(|a| a.get(key)).map(String::as_str);
    match event.action.as_deref()? {
        "create" | "start" | "rename" => {
            let name = attribute("name").and_then(self::name);
            let image_name = attribute("image").map(Into::into);
            Some(News::Known(RuntimeName::Docker, Described { id, name, image_name, ..Described::default() }))
        }
        "destroy" => Some(News::Removed(RuntimeName::Docker, id)),
        _ => None,
    }
}

enum RequestError {
    NotFound,
    Client(ClientError),
}

fn name(s: &str) -> Option<Box<str>> {
    let s = s.strip_prefix('/').unwrap_or(s);
    (!s.is_empty()).then(|| s.into())
}

impl Client for DockerClient {
    async fn hello(&self) -> Result<(), ClientError> {
        match self.within("asking whether it is there", LOOKUP_DEADLINE, self.docker.ping()).await {
            Ok(_) | Err(RequestError::NotFound) => Ok(()),
            Err(RequestError::Client(e)) => Err(e),
        }
    }

    async fn watch(&self, since: SystemTime, news: &mpsc::Sender<News>) -> ClientError {
        let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
        let filters = HashMap::from([("type", vec!["container"])]);
        let events = self.docker.events(Some(EventsOptionsBuilder::default().since(&since).filters(&filters).build()));
        pin_mut!(events);
        loop {
            let (runtime, socket) = (RuntimeName::Docker, self.socket.clone());
            match events.next().await {
                Some(Ok(event)) => {
                    if let Some(n) = told(event) {
                        drop(news.send(n).await);
                    }
                }
                Some(Err(e)) => {
                    return ClientError::Request { runtime, socket, what: "reading events", cause: e.to_string() };
                }
                None => return ClientError::StreamEnded { runtime, socket },
            }
        }
    }

    async fn list(&self) -> Result<Vec<Described>, ClientError> {
        let all = match self.within("listing containers", LIST_DEADLINE, self.docker.list_containers(None)).await {
            Ok(all) => all,
            Err(RequestError::NotFound) => return Ok(Vec::new()),
            Err(RequestError::Client(e)) => return Err(e),
        };
        let described = all.into_iter().take(MAX_LISTED).filter_map(|c| {
            Some(Described {
                id: c.id?.into(),
                name: c.names.unwrap_or_default().first().and_then(|n| name(n)),
                image_name: c.image.map(Into::into),
                image_id: c.image_id.map(Into::into),
                listed: true,
                ..Described::default()
            })
        });
        Ok(described.collect())
    }

    async fn lookup(&self, id: &str) -> Result<Option<Described>, ClientError> {
        self.inspect(id).await
    }

    async fn image_digest(&self, image_id: &str) -> Result<Option<Box<str>>, ClientError> {
        match self.within("inspecting an image", LOOKUP_DEADLINE, self.docker.inspect_image(image_id)).await {
            Ok(image) => {
                Ok(image.repo_digests.unwrap_or_default().iter().find_map(|d| Some(d.rsplit_once('@')?.1.into())))
            }
            Err(RequestError::NotFound) => Ok(None),
            Err(RequestError::Client(e)) => Err(e),
        }
    }

    fn runtime(&self) -> RuntimeName {
        RuntimeName::Docker
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str, id: Option<&str>, attributes: &[(&str, &str)]) -> EventMessage {
        let attributes = attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let actor = EventActor { id: id.map(str::to_owned), attributes: Some(attributes) };
        EventMessage { action: Some(action.to_owned()), actor: Some(actor), ..EventMessage::default() }
    }

    #[test]
    fn events_name_containers_and_forget_them() {
        let named =
            |action| told(event(action, Some("x"), &[("name", "web"), ("image", "nginx"), ("oldName", "/old")]));
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
        assert_eq!(told(event("die", Some("x"), &[])), None);
        assert_eq!(told(event("exec_start: sh", Some("x"), &[])), None);
        assert_eq!(told(event("create", None, &[("name", "web")])), None);
        assert_eq!(told(EventMessage::default()), None);
    }

    #[test]
    fn names_lose_their_slash() {
        assert_eq!(name("/web").as_deref(), Some("web"));
        assert_eq!(name("web").as_deref(), Some("web"));
        assert_eq!(name("/"), None);
    }

    #[test]
    fn a_socket_that_is_not_there_is_an_error_that_names_it() {
        let e = DockerClient::new(Path::new("/nonexistent/d.sock")).err().unwrap();
        assert!(e.to_string().starts_with("docker: cannot use /nonexistent/d.sock: "), "{e}");
    }
}

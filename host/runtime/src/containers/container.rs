//! What is known of one start of one container, and how that is shown on events.
//!
//! A `Container` never changes: news about it makes another one, so that printers may cache what they rendered.

use ig_event::{Entity, EntityValue, Kind};
use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr, sync::Arc};

/// The program that people asked for the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RuntimeName {
    Docker,
    Containerd,
    CriO,
    Podman,
    Buildkit,
    Runc,
    Crun,
    Youki,
}

impl RuntimeName {
    pub const ALL: [RuntimeName; 8] = [
        RuntimeName::Docker,
        RuntimeName::Containerd,
        RuntimeName::CriO,
        RuntimeName::Podman,
        RuntimeName::Buildkit,
        RuntimeName::Runc,
        RuntimeName::Crun,
        RuntimeName::Youki,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            RuntimeName::Docker => "docker",
            RuntimeName::Containerd => "containerd",
            RuntimeName::CriO => "cri-o",
            RuntimeName::Podman => "podman",
            RuntimeName::Buildkit => "buildkit",
            RuntimeName::Runc => "runc",
            RuntimeName::Crun => "crun",
            RuntimeName::Youki => "youki",
        }
    }

    /// True where the id is all the name there is.
    pub(super) fn named_by_id(self) -> bool {
        matches!(self, RuntimeName::Buildkit | RuntimeName::Runc | RuntimeName::Crun | RuntimeName::Youki)
    }
}

impl fmt::Display for RuntimeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `--runtimes` was given something that is no runtime.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no container runtime")]
pub struct UnknownRuntime(pub String);

impl UnknownRuntime {
    pub fn hint(&self) -> Option<String> {
        Some(format!("one of: {}", RuntimeName::ALL.map(RuntimeName::as_str).join(", ")))
    }
}

impl FromStr for RuntimeName {
    type Err = UnknownRuntime;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        RuntimeName::ALL.into_iter().find(|r| r.as_str() == s).ok_or_else(|| UnknownRuntime(s.to_owned()))
    }
}

/// The Kubernetes side of a container, as far as the runtime wrote it down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    pub node: Box<str>,
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub uid: Box<str>,
    pub container_name: Box<str>,
    /// `None`: not known. While the container is not `complete` they may still come; after that they will hardly.
    pub labels: Option<BTreeMap<Box<str>, Box<str>>>,
}

/// Whether the runtime has said all it can of a container's image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageAnswer {
    /// Id or digest may still come, within seconds.
    #[default]
    Awaited,
    /// Nobody answered in time.
    TimeUp,
    /// What is `None` now is not there: a container without an image, an image that was never in a registry.
    Given,
}

impl Pod {
    /// Adds what `other` knows and this one does not.
    pub(super) fn fill(&mut self, other: &Pod) {
        let texts = [
            (&mut self.node, &other.node),
            (&mut self.namespace, &other.namespace),
            (&mut self.name, &other.name),
            (&mut self.uid, &other.uid),
            (&mut self.container_name, &other.container_name),
        ];
        for (mine, theirs) in texts.into_iter().filter(|(mine, _)| mine.is_empty()) {
            mine.clone_from(theirs);
        }
        if self.labels.is_none() {
            self.labels.clone_from(&other.labels);
        }
    }
}

/// One start of one container.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// Differs between two starts of the same container.
    pub instance: u64,
    pub id: Box<str>,
    /// `None`: not known (yet); see `complete`.
    pub name: Option<Box<str>>,
    pub runtime: RuntimeName,
    /// The first process, as the host numbers it; 0 until its first program runs.
    pub pid: u32,
    pub mntns: u64,
    /// 0 until the first program runs.
    pub netns: u64,
    pub host_network: bool,
    /// Id in the default cgroup hierarchy; 0 where the container has no cgroup of its own.
    pub cgroup_id: u64,
    pub cgroup_path: Option<Box<str>>,
    pub bundle: Option<PathBuf>,
    pub image_name: Option<Box<str>>,
    pub image_id: Option<Box<str>>,
    pub image_digest: Option<Box<str>>,
    pub image_answer: ImageAnswer,
    /// Wall-clock nanoseconds of the birth of its mount namespace.
    pub started_at: u64,
    pub pod: Option<Arc<Pod>>,
    /// Boot-clock nanoseconds at which its first program began; what came before in its namespace was its runtime's doing.
    /// 0: not known.
    pub first_exec: u64,
    /// Id of its pod's sandbox.
    pub sandbox: Option<Box<str>>,
    /// containerd's namespace, where the container is one of containerd's.
    pub namespace: Option<Box<str>>,
    /// Nothing more is awaited that a selection or a label needs: the name and, of a pod, its labels are known, or their
    /// time is up. What is `None` in a complete container counts as not there; knowledge that comes late is taken all the
    /// same, and every selection decided anew.
    pub complete: bool,
    pub(super) entity: Arc<Entity>,
}

impl Container {
    pub(super) fn new(instance: u64, id: Box<str>, runtime: RuntimeName, mntns: u64) -> Self {
        Container {
            instance,
            id,
            name: None,
            runtime,
            pid: 0,
            mntns,
            netns: 0,
            host_network: false,
            cgroup_id: 0,
            cgroup_path: None,
            bundle: None,
            image_name: None,
            image_id: None,
            image_digest: None,
            image_answer: ImageAnswer::Awaited,
            started_at: 0,
            pod: None,
            sandbox: None,
            namespace: None,
            first_exec: 0,
            complete: false,
            entity: Arc::default(),
        }
    }

    /// Renders the entity anew; to be called once after every change.
    pub(super) fn seal(mut self) -> Arc<Self> {
        self.entity = Arc::new(Entity { values: MEMBERS.iter().map(|m| (m.value)(&self)).collect() });
        Arc::new(self)
    }

    /// Something that a selection may depend on can still come.
    pub fn is_settling(&self) -> bool {
        !self.complete || self.image_answer == ImageAnswer::Awaited
    }

    /// The word of an unprivileged user: its id and name begin with that user's number and a slash.
    pub fn is_claim(&self) -> bool {
        self.id.contains('/')
    }

    /// True for the container that holds a pod together and runs nothing of the user's ("pause").
    pub fn is_sandbox(&self) -> bool {
        self.sandbox.as_deref() == Some(&*self.id)
    }

    /// Labels of its pod; `None`: not known, see `complete`, or it is in no pod.
    pub fn pod_labels(&self) -> Option<&BTreeMap<Box<str>, Box<str>>> {
        self.pod.as_deref()?.labels.as_ref()
    }

    /// The object that the rows of this container refer to; values in the order of `MEMBERS`.
    pub fn entity(&self) -> &Arc<Entity> {
        &self.entity
    }
}

/// One field of a container as it appears on events.
pub(crate) struct Member {
    /// `k8s` or `runtime`: the field that groups it.
    pub(crate) group: &'static str,
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Column width; 0: the kind's own.
    pub(crate) width: u32,
    pub(crate) hidden: bool,
    pub(crate) description: &'static str,
    value: fn(&Container) -> EntityValue,
}

fn text(s: Option<&str>) -> EntityValue {
    EntityValue::Text(s.unwrap_or_default().into())
}

fn pod_text(c: &Container, part: fn(&Pod) -> &str) -> EntityValue {
    text(c.pod.as_deref().map(part))
}

fn labels(c: &Container) -> EntityValue {
    let Some(labels) = c.pod_labels() else { return text(None) };
    EntityValue::Text(labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",").into())
}

const fn member(
    group: &'static str,
    name: &'static str,
    kind: Kind,
    width: u32,
    description: &'static str,
    value: fn(&Container) -> EntityValue,
) -> Member {
    Member { group, name, kind, width, hidden: true, description, value }
}

const fn shown(mut m: Member) -> Member {
    m.hidden = false;
    m
}

/// All fields of a container, in column order.
pub(crate) const MEMBERS: &[Member] = &[
    member("k8s", "node", Kind::Text, 30, "Name of the node", |c| pod_text(c, |p| &p.node)),
    member("k8s", "namespace", Kind::Text, 30, "Namespace of the pod", |c| pod_text(c, |p| &p.namespace)),
    member("k8s", "podName", Kind::Text, 30, "Name of the pod", |c| pod_text(c, |p| &p.name)),
    member("k8s", "containerName", Kind::Text, 30, "Name of the container in the pod", |c| {
        pod_text(c, |p| &p.container_name)
    }),
    member("k8s", "podUID", Kind::Text, 36, "Unique id of the pod", |c| pod_text(c, |p| &p.uid)),
    member("k8s", "podLabels", Kind::Text, 32, "Labels of the pod", labels),
    member("k8s", "hostnetwork", Kind::Bool, 0, "Whether the container shares the host's network", |c| {
        EntityValue::Bool(c.host_network)
    }),
    member("runtime", "runtimeName", Kind::Text, 19, "Name of the container runtime", |c| {
        text(Some(c.runtime.as_str()))
    }),
    shown(member("runtime", "containerName", Kind::Text, 30, "Name of the container", |c| text(c.name.as_deref()))),
    member("runtime", "containerId", Kind::Text, 13, "Id of the container", |c| text(Some(&c.id))),
    member("runtime", "containerPid", Kind::U32, 6, "First process of the container, as the host numbers it", |c| {
        EntityValue::Uint(c.pid.into())
    }),
    member("runtime", "containerImageName", Kind::Text, 24, "Name of the container's image", |c| {
        text(c.image_name.as_deref())
    }),
    member("runtime", "containerImageId", Kind::Text, 24, "Id of the container's image", |c| {
        text(c.image_id.as_deref())
    }),
    member("runtime", "containerImageDigest", Kind::Text, 24, "Digest of the container's image in its registry", |c| {
        text(c.image_digest.as_deref())
    }),
    member(
        "runtime",
        "containerStartedAt",
        Kind::U64,
        20,
        "Wall-clock time of the container's start, in nanoseconds",
        |c| EntityValue::Uint(c.started_at),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entity_has_a_value_of_its_kind_for_every_member() {
        let c = Container::new(1, "abc".into(), RuntimeName::Docker, 7).seal();
        for (m, v) in MEMBERS.iter().zip(&c.entity().values) {
            let fits = match v {
                EntityValue::Text(_) => m.kind.is_text(),
                EntityValue::Uint(_) => m.kind.is_unsigned(),
                EntityValue::Bool(_) => m.kind == Kind::Bool,
            };
            assert!(fits, "{}.{}", m.group, m.name);
        }
        assert_eq!(c.entity().values.len(), MEMBERS.len());
    }

    #[test]
    fn runtimes_parse_back_and_others_are_refused_with_the_list() {
        for r in RuntimeName::ALL {
            assert_eq!(r.as_str().parse(), Ok(r));
        }
        let e = "dockr".parse::<RuntimeName>().unwrap_err();
        assert_eq!(e.to_string(), "`dockr` is no container runtime");
        assert!(e.hint().unwrap().contains("cri-o"));
    }
}

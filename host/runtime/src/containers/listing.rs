//! Containers as somebody lists them: a data source for columns, filters and sorting, and the object that JSON and YAML
//! show. What is read here of a container (its bundle, its cgroups) is read when it is listed and at no other time.
//!
//! Used by whoever lists; never on the containers' thread. What is not known is left out, never guessed.

use super::{
    cgroups::Cgroups,
    container::{Container, Pod},
    identify, snapshot,
};
use crate::{enrich::container::add_fields, host_root};
use ig_event::{
    Batch, DataSource, Derive, Entity, EntityValue, FieldDef, FieldId, Kind, SourceKind, Storage, output::cell_width,
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The longest content that a column is widened for.
const WIDEST: usize = 80;

/// What only a look at the host tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// `config.json` of the bundle as it is, and only of containers that root started.
    pub oci_config: Option<String>,
    /// The directory of its cgroup on the host.
    pub cgroup_path: Option<PathBuf>,
    /// Path in the pids hierarchy of version 1.
    pub cgroup_v1: Option<Box<str>>,
    /// Path in the default hierarchy.
    pub cgroup_v2: Option<Box<str>>,
}

impl Details {
    fn read(c: &Container, host: &Host) -> Details {
        // The files of an unprivileged user's container are theirs, and may be anything.
        let bundle = c.bundle.as_ref().filter(|_| !c.is_claim());
        let oci_config = bundle.and_then(|b| {
            let path = identify::on_host(&host.root, b).join("config.json");
            String::from_utf8(identify::read_plain(&path).ok()?).ok()
        });
        let (cgroup_v1, cgroup_v2) = host.cgroups_of(c);
        let dir = host.hierarchies.directory(cgroup_v2.as_deref(), cgroup_v1.as_deref());
        // As the host itself would name it.
        let cgroup_path = dir.map(|d| Path::new("/").join(d.strip_prefix(&host.root).unwrap_or(&d)));
        Details { oci_config, cgroup_path, cgroup_v1, cgroup_v2 }
    }
}

/// Where the details of containers are read.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
    /// Where processes are by the numbers that the kernel reports.
    proc: Option<PathBuf>,
    hierarchies: Cgroups,
}

impl Host {
    /// `root`: where the observed host's root file system is.
    pub fn at(root: &Path) -> Host {
        Host { root: root.to_owned(), proc: host_root::proc(root), hierarchies: Cgroups::find(root) }
    }

    /// Paths in the pids hierarchy and in the default one.
    fn cgroups_of(&self, c: &Container) -> (Option<Box<str>>, Option<Box<str>>) {
        let Some(process) = self.proc.as_ref().map(|p| p.join(c.pid.to_string())) else {
            return (None, None);
        };
        // Another process may have the number by now.
        let same = c.pid != 0 && snapshot::namespace(&process.join("ns/mnt")) == Some(c.mntns);
        let text = same.then(|| std::fs::read_to_string(process.join("cgroup")).ok()).flatten().unwrap_or_default();
        let (unified, pids) = identify::cgroup_paths(&text);
        (pids.map(Into::into), unified.map(Into::into))
    }
}

/// One line of a listing.
#[derive(Clone, Debug)]
pub struct Row {
    pub container: Arc<Container>,
    pub details: Details,
    /// What happened to it and when (wall-clock nanoseconds), where changes are listed.
    pub event: Option<(&'static str, u64)>,
}

impl Row {
    pub fn new(container: Arc<Container>, host: &Host) -> Row {
        let details = Details::read(&container, host);
        Row { container, details, event: None }
    }

    /// Runtime name, then container name, then id: the order of listings.
    pub fn key(&self) -> (&str, &str, &str) {
        let c = &*self.container;
        (c.runtime.as_str(), c.name.as_deref().unwrap_or_default(), &c.id)
    }

    /// As JSON and YAML show it.
    pub fn object(&self) -> Object<'_> {
        let (c, d) = (&*self.container, &self.details);
        Object {
            runtime: RuntimeObject {
                runtime_name: c.runtime.as_str(),
                container_id: &c.id,
                container_name: c.name.as_deref(),
                container_pid: c.pid,
                container_image_name: c.image_name.as_deref(),
                container_image_id: c.image_id.as_deref(),
                container_image_digest: c.image_digest.as_deref(),
                container_started_at: c.started_at,
            },
            k8s: c.pod.as_deref().map(PodObject::new).unwrap_or_default(),
            oci_config: d.oci_config.as_deref(),
            bundle: c.bundle.as_deref().map(Path::to_string_lossy),
            sandbox_id: c.sandbox.as_deref(),
            mntns: c.mntns,
            netns: c.netns,
            host_network: c.host_network,
            cgroup_path: d.cgroup_path.as_deref().map(Path::to_string_lossy),
            cgroup_id: c.cgroup_id,
            cgroup_v1: d.cgroup_v1.as_deref(),
            cgroup_v2: d.cgroup_v2.as_deref(),
        }
    }
}

type Lossy<'a> = std::borrow::Cow<'a, str>;

/// A container with the keys that scripts for the reference tool know. A key is missing where its value is not known.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Object<'a> {
    runtime: RuntimeObject<'a>,
    k8s: PodObject<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oci_config: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bundle: Option<Lossy<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox_id: Option<&'a str>,
    mntns: u64,
    #[serde(skip_serializing_if = "is_zero")]
    netns: u64,
    host_network: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup_path: Option<Lossy<'a>>,
    #[serde(rename = "cgroupID", skip_serializing_if = "is_zero")]
    cgroup_id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup_v1: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup_v2: Option<&'a str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RuntimeObject<'a> {
    runtime_name: &'a str,
    container_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_name: Option<&'a str>,
    #[serde(skip_serializing_if = "is_zero_u32")]
    container_pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_image_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_image_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_image_digest: Option<&'a str>,
    #[serde(skip_serializing_if = "is_zero")]
    container_started_at: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct PodObject<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pod_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_labels: Option<&'a BTreeMap<Box<str>, Box<str>>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    container_name: &'a str,
    #[serde(rename = "podUID", skip_serializing_if = "str::is_empty")]
    pod_uid: &'a str,
}

impl<'a> PodObject<'a> {
    fn new(pod: &'a Pod) -> Self {
        PodObject {
            namespace: &pod.namespace,
            pod_name: &pod.name,
            pod_labels: pod.labels.as_ref(),
            container_name: &pod.container_name,
            pod_uid: &pod.uid,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero_u32(n: &u32) -> bool {
    *n == 0
}

/// A field that only listings have.
struct Own {
    name: &'static str,
    kind: Kind,
    width: u32,
    description: &'static str,
    value: fn(&Row) -> EntityValue,
}

fn text(s: Option<&str>) -> EntityValue {
    EntityValue::Text(s.unwrap_or_default().into())
}

fn path(p: Option<&Path>) -> EntityValue {
    EntityValue::Text(p.map(Path::to_string_lossy).unwrap_or_default().into())
}

const fn own(
    name: &'static str,
    kind: Kind,
    width: u32,
    description: &'static str,
    value: fn(&Row) -> EntityValue,
) -> Own {
    Own { name, kind, width, description, value }
}

const OWN: &[Own] = &[
    own("mntns", Kind::U64, 12, "Mount namespace", |r| EntityValue::Uint(r.container.mntns)),
    own("netns", Kind::U64, 12, "Network namespace", |r| EntityValue::Uint(r.container.netns)),
    own("hostNetwork", Kind::Bool, 11, "Whether it shares the host's network", |r| {
        EntityValue::Bool(r.container.host_network)
    }),
    own("cgroupID", Kind::U64, 12, "Id of its cgroup in the default hierarchy", |r| {
        EntityValue::Uint(r.container.cgroup_id)
    }),
    own("cgroupPath", Kind::Text, 40, "Directory of its cgroup", |r| path(r.details.cgroup_path.as_deref())),
    own("cgroupV1", Kind::Text, 40, "Path of its cgroup in the pids hierarchy of version 1", |r| {
        text(r.details.cgroup_v1.as_deref())
    }),
    own("cgroupV2", Kind::Text, 40, "Path of its cgroup in the default hierarchy", |r| {
        text(r.details.cgroup_v2.as_deref())
    }),
    own("bundle", Kind::Text, 40, "Directory of its OCI bundle", |r| path(r.container.bundle.as_deref())),
    own("sandboxId", Kind::Text, 13, "Id of its pod's sandbox", |r| text(r.container.sandbox.as_deref())),
];

/// Columns that are shown unless others are asked for.
const SHOWN: [&str; 5] = [
    "runtime.runtimeName",
    "runtime.containerId",
    "runtime.containerName",
    "runtime.containerPid",
    "runtime.containerImageName",
];
/// The same where a container is in a pod.
const SHOWN_OF_PODS: [&str; 3] = ["k8s.namespace", "k8s.podName", "k8s.containerName"];

/// Listings as a data source.
#[derive(Clone, Debug)]
pub struct Listing {
    source: Arc<DataSource>,
    members: u32,
    own: u32,
}

impl Listing {
    /// A table of these rows, with columns as wide as they need: at most as wide as is usual where `narrow`, for a
    /// terminal.
    pub fn table(rows: &[Row], narrow: bool) -> Listing {
        let mut listing = Self::build(SourceKind::Snapshot, rows.iter().any(|r| r.container.pod.is_some()));
        listing.fit(rows, narrow);
        listing
    }

    /// Changes as they come.
    pub fn changes() -> Listing {
        Self::build(SourceKind::Events, false)
    }

    pub fn source(&self) -> &Arc<DataSource> {
        &self.source
    }

    /// Appends a row.
    pub fn push(&self, batch: &mut Batch, row: &Row) {
        let number = batch.push(&[]);
        batch.set_entity(self.members, number, Some(row.container.entity().clone()));
        let (event, at) = row.event.unwrap_or_default();
        let extra = [EntityValue::Uint(at), EntityValue::Text(event.into())];
        let values = extra.into_iter().chain(OWN.iter().map(|o| (o.value)(row))).collect();
        batch.set_entity(self.own, number, Some(Arc::new(Entity { values })));
    }

    fn build(kind: SourceKind, pods: bool) -> Listing {
        let mut source = DataSource::new("containers", kind, 0);
        let own = source.new_entity_slot();
        let member = |member: usize| Storage::Entity { slot: own, member: member as u32 };
        if kind == SourceKind::Events {
            let raw = FieldDef::new("timestamp_raw", Kind::U64, member(0)).annotate("columns.hidden", "true");
            if let Some(raw) = source.add(raw) {
                add_time(&mut source, "timestamp", raw, -100, "When it happened");
            }
            let event = FieldDef::new("event", Kind::Text, member(1));
            source.add(event.annotate("columns.order", "-99").annotate("columns.width", "7"));
        }
        let members = add_fields(&mut source);
        for (i, o) in OWN.iter().enumerate() {
            let def = FieldDef::new(o.name, o.kind, member(i + 2))
                .annotate("description", o.description)
                .annotate("columns.hidden", "true")
                .annotate("columns.order", i.to_string())
                .annotate("columns.width", o.width.to_string());
            source.add(def);
        }
        if let Some(raw) = source.find("runtime.containerStartedAt").map(|f| f.id) {
            add_time(&mut source, "started", raw, -1, "When the container started");
        }
        choose(&mut source, pods);
        Listing { source: Arc::new(source), members, own }
    }

    fn fit(&mut self, rows: &[Row], narrow: bool) {
        let mut batch = Batch::new(self.source.clone());
        rows.iter().for_each(|r| self.push(&mut batch, r));
        let source = Arc::make_mut(&mut self.source);
        let ids: Vec<FieldId> = source.fields().iter().map(|f| f.id).collect();
        for id in ids {
            let field = source.field(id);
            if !matches!(field.def.storage, Storage::Entity { .. }) {
                continue;
            }
            let width = |row| match batch.value(row, id) {
                ig_event::Value::Text(t) => cell_width(&String::from_utf8_lossy(&t)),
                ig_event::Value::Uint(n) => n.to_string().len(),
                _ => 5,
            };
            let content = batch.iter().map(width).max().unwrap_or(0).min(WIDEST);
            let usual = field.annotation("columns.width").and_then(|w| w.parse().ok()).filter(|_| narrow);
            let heading = field.annotation("columns.alias").unwrap_or(&field.full_name).len();
            let width = usual.map_or(content, |usual| content.min(usual)).max(heading);
            source.field_mut(id).def.annotations.insert("columns.width".to_owned(), width.to_string());
        }
    }
}

fn add_time(source: &mut DataSource, name: &str, raw: FieldId, order: i64, description: &str) {
    let storage = Storage::Derived { from: raw, how: Derive::Timestamp };
    let def = FieldDef::new(name, Kind::Text, storage)
        .annotate("description", description)
        .annotate("columns.order", order.to_string())
        .annotate("columns.hidden", "false")
        .annotate("columns.width", "35");
    source.add(def);
}

/// Says which columns are shown, and heads those of the runtime by their own names.
fn choose(source: &mut DataSource, pods: bool) {
    let ids: Vec<FieldId> = source.fields().iter().map(|f| f.id).collect();
    for id in ids {
        let field = source.field_mut(id);
        let name = field.full_name.as_str();
        let alias = name.strip_prefix("runtime.").map(str::to_owned);
        let of_member = alias.is_some() || name.starts_with("k8s.");
        let shown = SHOWN.contains(&name) || pods && SHOWN_OF_PODS.contains(&name);
        if of_member {
            field.def.annotations.insert("columns.hidden".to_owned(), (!shown).to_string());
        }
        if let Some(alias) = alias {
            field.def.annotations.insert("columns.alias".to_owned(), alias);
        }
    }
}

#[cfg(test)]
mod tests;

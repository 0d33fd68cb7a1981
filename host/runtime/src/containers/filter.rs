//! Which containers somebody wants to see: exact names, lists, `!` for exclusion, and three answers instead of two.
//!
//! Pure; used by the tracker's thread for the kernel's filter maps and by the event thread for rows.

use super::container::{Container, ImageAnswer};

/// Whether a container is wanted, as far as can be told now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Yes,
    No,
    /// What it depends on is not known: not yet, or because nobody answered in time.
    Unknown,
}

/// What of a container a condition looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// `runtime.containerName`
    ContainerName,
    /// `runtime.containerImageDigest`, by at least 12 hexadecimal digits.
    ImageDigest,
    /// `runtime.containerImageId`, likewise.
    ImageId,
    /// `k8s.namespace`
    PodNamespace,
    /// `k8s.podName`
    PodName,
    /// `k8s.containerName`
    PodContainerName,
}

/// What is known of an attribute.
enum Fact<'a> {
    Is(&'a str),
    /// The container has none.
    Absent,
    NotKnown,
}

impl Attribute {
    fn describe(self) -> &'static str {
        match self {
            Attribute::ContainerName => "container name",
            Attribute::ImageDigest => "image digest",
            Attribute::ImageId => "image id",
            Attribute::PodNamespace => "pod namespace",
            Attribute::PodName => "pod name",
            Attribute::PodContainerName => "name in the pod",
        }
    }

    fn is_digest(self) -> bool {
        matches!(self, Attribute::ImageDigest | Attribute::ImageId)
    }

    /// True where a container outside every pod is never meant, not even by an exclusion.
    fn is_of_pods(self) -> bool {
        matches!(self, Attribute::PodNamespace | Attribute::PodName | Attribute::PodContainerName)
    }

    fn of(self, c: &Container) -> Fact<'_> {
        let none = (c.image_answer == ImageAnswer::Given).then_some("");
        let value = match self {
            Attribute::ContainerName => c.name.as_deref(),
            Attribute::ImageDigest => c.image_digest.as_deref().or(none),
            Attribute::ImageId => c.image_id.as_deref().or(none),
            Attribute::PodNamespace | Attribute::PodName | Attribute::PodContainerName => match c.pod.as_deref() {
                Some(pod) => Some(match self {
                    Attribute::PodNamespace => &*pod.namespace,
                    Attribute::PodName => &*pod.name,
                    _ => &*pod.container_name,
                }),
                None => return if c.complete { Fact::Absent } else { Fact::NotKnown },
            },
        };
        match value {
            Some("") if self.is_digest() => Fact::Absent,
            Some(value) => Fact::Is(value),
            None => Fact::NotKnown,
        }
    }

    /// The name as conditions keep it: digests without their algorithm, in small letters.
    fn normal(self, name: &str) -> Option<Box<str>> {
        if !self.is_digest() {
            return Some(name.into());
        }
        let hex = hex_of(name).to_ascii_lowercase();
        let fits = (DIGITS..=64).contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_hexdigit());
        fits.then(|| hex.into())
    }

    fn matches(self, wanted: &str, value: &str) -> bool {
        if !self.is_digest() {
            return wanted == value;
        }
        let value = hex_of(value);
        let n = wanted.len().min(value.len());
        n >= DIGITS && wanted.as_bytes()[..n].eq_ignore_ascii_case(&value.as_bytes()[..n])
    }
}

/// Hexadecimal digits that tell one image from another.
const DIGITS: usize = 12;

/// A digest without its algorithm.
fn hex_of(digest: &str) -> &str {
    digest.rsplit_once(':').map_or(digest, |(_, hex)| hex)
}

/// A list of names that selects nothing sensible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("empty {what} in `{list}`")]
    Empty { what: &'static str, list: String },
    #[error("{what} `{name}` is both asked for and excluded in `{list}`")]
    Contradiction { what: &'static str, name: String, list: String },
    #[error("`{name}` in `{list}` is no {what}")]
    NotADigest { what: &'static str, name: String, list: String },
    #[error("`{item}` in the pod selector `{list}` is no label with a value")]
    NotALabel { item: String, list: String },
    #[error("no pod has two values of label `{key}`, as the selector `{list}` asks for")]
    TwoValues { key: String, list: String },
}

impl SelectorError {
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            SelectorError::Empty { .. } => {
                "names are separated by commas, `!name` leaves one out: web,db or !proxy".to_owned()
            }
            SelectorError::Contradiction { .. } => return None,
            SelectorError::NotADigest { .. } => {
                format!("give {DIGITS} to 64 hexadecimal digits, with or without `sha256:`")
            }
            SelectorError::NotALabel { .. } => {
                "labels are separated by commas: app=web,tier=db; `!app=web` or `app=!web` leaves out".to_owned()
            }
            SelectorError::TwoValues { .. } => "all parts of a selector must hold: ask for one value".to_owned(),
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Names { attribute: Attribute, wanted: Vec<Box<str>>, excluded: Vec<Box<str>> },
    Labels(Vec<Label>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Label {
    key: Box<str>,
    value: Box<str>,
    excluded: bool,
}

impl Condition {
    fn verdict(&self, c: &Container) -> Verdict {
        let holds = match self {
            Condition::Labels(labels) => match (c.pod.is_some(), c.pod_labels()) {
                (false, _) if c.complete => false,
                (false, _) | (true, None) => return Verdict::Unknown,
                (true, Some(known)) => {
                    labels.iter().all(|l| (known.get(&l.key).is_some_and(|v| *v == l.value)) != l.excluded)
                }
            },
            Condition::Names { attribute, wanted, excluded } => match attribute.of(c) {
                Fact::NotKnown => return Verdict::Unknown,
                Fact::Absent => !attribute.is_of_pods() && wanted.is_empty(),
                Fact::Is(value) => {
                    let among = |names: &[Box<str>]| names.iter().any(|n| attribute.matches(n, value));
                    !among(excluded) && (wanted.is_empty() || among(wanted))
                }
            },
        };
        if holds { Verdict::Yes } else { Verdict::No }
    }
}

/// Conditions on containers, all of which must hold; none: every container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    conditions: Vec<Condition>,
}

impl Selector {
    /// Every container.
    pub fn all() -> Self {
        Selector::default()
    }

    /// Containers by their runtime's name for them: `web,db`, `!proxy`. Names are exact; an empty list means every container.
    pub fn parse(names: &str) -> Result<Self, SelectorError> {
        if names.is_empty() { Ok(Selector::all()) } else { Selector::all().and(Attribute::ContainerName, names) }
    }

    /// Adds a condition on `attribute`: one of the names in `list`, and none of those behind a `!`. One on a pod's
    /// attribute rules out containers that are in no pod.
    pub fn and(mut self, attribute: Attribute, list: &str) -> Result<Self, SelectorError> {
        let what = attribute.describe();
        let (mut wanted, mut excluded) = (Vec::<Box<str>>::new(), Vec::<Box<str>>::new());
        for item in list.split(',').map(str::trim) {
            let (names, name) = match item.strip_prefix('!') {
                Some(name) => (&mut excluded, name.trim()),
                None => (&mut wanted, item),
            };
            if name.is_empty() {
                return Err(SelectorError::Empty { what, list: list.to_owned() });
            }
            let Some(normal) = attribute.normal(name) else {
                return Err(SelectorError::NotADigest { what, name: name.to_owned(), list: list.to_owned() });
            };
            names.push(normal);
        }
        if let Some(name) = wanted.iter().find(|n| excluded.contains(n)) {
            let name = name.to_string();
            return Err(SelectorError::Contradiction { what, name, list: list.to_owned() });
        }
        self.conditions.push(Condition::Names { attribute, wanted, excluded });
        Ok(self)
    }

    /// Adds a condition on the labels of the container's pod: `k=v,k2=v2`, of which all must hold; `!k=v` and `k=!v` rule
    /// that value out, and hold for a pod without the label. Containers that are in no pod are ruled out.
    pub fn and_labels(mut self, list: &str) -> Result<Self, SelectorError> {
        let mut labels = Vec::<Label>::new();
        for item in list.split(',').map(str::trim) {
            let wrong = || SelectorError::NotALabel { item: item.to_owned(), list: list.to_owned() };
            let (key, value) = item.split_once('=').ok_or_else(wrong)?;
            let (not_key, not_value) = (key.strip_prefix('!'), value.strip_prefix('!'));
            let (key, value) = (not_key.unwrap_or(key).trim(), not_value.unwrap_or(value).trim());
            if key.is_empty() || value.starts_with('=') || not_key.is_some() && not_value.is_some() {
                return Err(wrong());
            }
            let label =
                Label { key: key.into(), value: value.into(), excluded: not_key.is_some() || not_value.is_some() };
            check_beside(&labels, &label, list)?;
            labels.push(label);
        }
        self.conditions.push(Condition::Labels(labels));
        Ok(self)
    }

    pub fn selects_all(&self) -> bool {
        self.conditions.is_empty()
    }

    /// One certain No decides; else one Unknown leaves it open.
    pub fn verdict(&self, c: &Container) -> Verdict {
        let mut all = Verdict::Yes;
        for condition in &self.conditions {
            match condition.verdict(c) {
                Verdict::No => return Verdict::No,
                Verdict::Unknown => all = Verdict::Unknown,
                Verdict::Yes => {}
            }
        }
        all
    }
}

fn check_beside(labels: &[Label], new: &Label, list: &str) -> Result<(), SelectorError> {
    for old in labels.iter().filter(|l| l.key == new.key) {
        if old.value == new.value && old.excluded != new.excluded {
            let name = format!("{}={}", new.key, new.value);
            return Err(SelectorError::Contradiction { what: "label", name, list: list.to_owned() });
        }
        if old.value != new.value && !old.excluded && !new.excluded {
            return Err(SelectorError::TwoValues { key: new.key.to_string(), list: list.to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! Which containers somebody wants to see: exact names, lists, `!` for exclusion, and three answers instead of two.
//!
//! Pure; used by the tracker's thread for the kernel's filter maps and by the event thread for rows.

use super::container::Container;

/// Whether a container is wanted, as far as can be told now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Yes,
    No,
    /// What it depends on is not known yet.
    Unknown,
}

/// What of a container a condition looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// `runtime.containerName`
    ContainerName,
}

impl Attribute {
    fn describe(self) -> &'static str {
        match self {
            Attribute::ContainerName => "container name",
        }
    }

    fn of(self, c: &Container) -> Option<&str> {
        match self {
            Attribute::ContainerName => c.name.as_deref(),
        }
    }
}

/// A list of names that selects nothing sensible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("empty {what} in `{list}`")]
    Empty { what: &'static str, list: String },
    #[error("{what} `{name}` is both asked for and excluded in `{list}`")]
    Contradiction { what: &'static str, name: String, list: String },
}

impl SelectorError {
    pub fn hint(&self) -> Option<String> {
        match self {
            SelectorError::Empty { .. } => {
                Some("names are separated by commas, `!name` leaves one out: web,db or !proxy".into())
            }
            SelectorError::Contradiction { .. } => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    attribute: Attribute,
    wanted: Vec<Box<str>>,
    excluded: Vec<Box<str>>,
}

impl Condition {
    fn verdict(&self, c: &Container) -> Verdict {
        let Some(value) = self.attribute.of(c) else {
            // A name that will never come is none of those asked for, and none of those excluded.
            return match (c.complete, self.wanted.is_empty()) {
                (false, _) => Verdict::Unknown,
                (true, true) => Verdict::Yes,
                (true, false) => Verdict::No,
            };
        };
        let among = |names: &[Box<str>]| names.iter().any(|n| **n == *value);
        if among(&self.excluded) || !self.wanted.is_empty() && !among(&self.wanted) {
            Verdict::No
        } else {
            Verdict::Yes
        }
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

    /// Adds a condition on `attribute`: one of the names in `list`, and none of those behind a `!`.
    pub fn and(mut self, attribute: Attribute, list: &str) -> Result<Self, SelectorError> {
        let (mut wanted, mut excluded) = (Vec::<Box<str>>::new(), Vec::<Box<str>>::new());
        for item in list.split(',').map(str::trim) {
            let (names, name) = match item.strip_prefix('!') {
                Some(name) => (&mut excluded, name.trim()),
                None => (&mut wanted, item),
            };
            if name.is_empty() {
                return Err(SelectorError::Empty { what: attribute.describe(), list: list.to_owned() });
            }
            names.push(name.into());
        }
        if let Some(name) = wanted.iter().find(|n| excluded.contains(n)) {
            let (what, name) = (attribute.describe(), name.to_string());
            return Err(SelectorError::Contradiction { what, name, list: list.to_owned() });
        }
        self.conditions.push(Condition { attribute, wanted, excluded });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::container::RuntimeName;

    fn container(name: Option<&str>, complete: bool) -> Container {
        let mut c = Container::new(1, "id".into(), RuntimeName::Docker, 1);
        c.name = name.map(Into::into);
        c.complete = complete;
        c
    }

    fn verdict(list: &str, name: &str) -> Verdict {
        Selector::parse(list).unwrap().verdict(&container(Some(name), true))
    }

    #[test]
    fn lists_and_exclusions() {
        use Verdict::{No, Yes};
        for (list, name, expected) in [
            ("", "web", Yes),
            ("web", "web", Yes),
            ("web", "web2", No),
            ("web", "We", No),
            ("web,db", "db", Yes),
            (" web , db ", "db", Yes),
            ("!web", "db", Yes),
            ("!web", "web", No),
            ("!web,!db", "db", No),
            ("web,!db", "other", No),
        ] {
            assert_eq!(verdict(list, name), expected, "`{list}` on {name}");
        }
    }

    #[test]
    fn an_unknown_name_leaves_it_open_until_it_will_never_come() {
        let s = Selector::parse("web").unwrap();
        assert_eq!(s.verdict(&container(None, false)), Verdict::Unknown);
        assert_eq!(s.verdict(&container(None, true)), Verdict::No);
        let s = Selector::parse("!web").unwrap();
        assert_eq!(s.verdict(&container(None, false)), Verdict::Unknown);
        assert_eq!(s.verdict(&container(None, true)), Verdict::Yes);
        assert_eq!(Selector::all().verdict(&container(None, false)), Verdict::Yes);
    }

    #[test]
    fn senseless_lists_are_errors() {
        for list in [",", "web,", "!", "a,,b", " "] {
            assert!(matches!(Selector::parse(list), Err(SelectorError::Empty { .. })), "`{list}`");
        }
        let e = Selector::parse("a,!a").unwrap_err();
        assert_eq!(e.to_string(), "container name `a` is both asked for and excluded in `a,!a`");
    }
}

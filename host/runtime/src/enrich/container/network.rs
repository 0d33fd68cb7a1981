//! Labels of rows that name a network namespace and no program: whose packet it was, as far as the network tells.
//!
//! Containers may share a network. A row of a network with one container (beside a pod's sandbox, which only holds it) is
//! that container's; of one with several it carries what they have in common: in a pod everything of the pod.

use super::{Answer, ContainerEnricher, IS_NETNS, Remembered};
use crate::containers::{Container, NetworkOwner, Verdict};
use ig_event::{Entity, EntityValue};
use std::sync::Arc;

impl ContainerEnricher {
    /// As `answer`, for the key of a network namespace.
    pub(super) fn answer_network(&mut self, key: u64, time: u64) -> (Answer, Option<u64>) {
        let netns = key & !IS_NETNS;
        let owner = self.reader.network(netns, time);
        let (lasting, birth) = match owner {
            NetworkOwner::Host => (true, Some(0)),
            NetworkOwner::Containers(_) => (true, self.reader.present_network(netns)),
            NetworkOwner::Pending | NetworkOwner::Unknown => (false, None),
        };
        let answer = match &owner {
            NetworkOwner::Host if self.include.host => Answer::ShowHost,
            NetworkOwner::Host => Answer::LeaveOut,
            NetworkOwner::Containers(_)
                if self.has_times() && self.reader.network_may_be_the_next_ones(netns, time) =>
            {
                Answer::Wait
            }
            NetworkOwner::Containers(all) => self.judge_network(all),
            NetworkOwner::Pending => Answer::Wait,
            NetworkOwner::Unknown if self.reader.may_have_missed() => Answer::ShowUnlabelled(None),
            NetworkOwner::Unknown if self.include.host => Answer::ShowHost,
            NetworkOwner::Unknown => Answer::LeaveOut,
        };
        let birth = birth.filter(|birth| lasting && time >= *birth);
        if let Some(birth) = birth {
            self.remembered.insert(key, Remembered { birth, answer: answer.clone() });
        }
        (answer, birth)
    }

    /// Shown where one of those it may belong to was asked for.
    fn judge_network(&self, all: &[Arc<Container>]) -> Answer {
        let verdicts = || all.iter().map(|c| self.selector.verdict(c));
        if verdicts().any(|v| v == Verdict::Yes) {
            return label(all);
        }
        let settling = |c: &Arc<Container>| self.selector.verdict(c) == Verdict::Unknown && c.is_settling();
        match () {
            () if verdicts().all(|v| v == Verdict::No) => Answer::LeaveOut,
            () if all.iter().any(settling) => Answer::Wait,
            () => Answer::ShowUnlabelled(common(all)),
        }
    }

    /// As `give_up`, for the key of a network namespace.
    pub(super) fn give_up_network(&self, key: u64, time: u64) -> Answer {
        let all = self.reader.network_members(key & !IS_NETNS, time);
        let none = !all.is_empty() && all.iter().all(|c| self.selector.verdict(c) == Verdict::No);
        if none { Answer::LeaveOut } else { Answer::ShowUnlabelled(common(&all)) }
    }
}

fn label(all: &[Arc<Container>]) -> Answer {
    let entity = common(all);
    let named = all.iter().all(|c| c.name.is_some());
    match (entity, all.iter().all(|c| c.pod.is_some()) || own(all).len() == 1) {
        (Some(entity), true) if named => Answer::Show(entity),
        (entity, _) => Answer::ShowUnlabelled(entity),
    }
}

/// Without a pod's sandbox, unless that is all there is.
fn own(all: &[Arc<Container>]) -> Vec<&Arc<Container>> {
    let own: Vec<_> = all.iter().filter(|c| !c.is_sandbox()).collect();
    if own.is_empty() { all.iter().collect() } else { own }
}

/// What these containers have in common.
fn common(all: &[Arc<Container>]) -> Option<Arc<Entity>> {
    let own = own(all);
    let (first, rest) = own.split_first()?;
    if rest.is_empty() {
        return Some(first.entity().clone());
    }
    let values = first.entity().values.iter().enumerate().map(|(i, value)| {
        match rest.iter().all(|c| c.entity().values.get(i) == Some(value)) {
            true => value.clone(),
            false => nothing(value),
        }
    });
    Some(Arc::new(Entity { values: values.collect() }))
}

/// The value that says nothing, of the same kind.
fn nothing(value: &EntityValue) -> EntityValue {
    match value {
        EntityValue::Text(_) => EntityValue::Text("".into()),
        EntityValue::Uint(_) => EntityValue::Uint(0),
        EntityValue::Bool(_) => EntityValue::Bool(false),
    }
}

#[cfg(test)]
mod tests;

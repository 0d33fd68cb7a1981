//! When a guest that failed may try again. Pure: the clock is the caller's.

use std::{
    collections::VecDeque,
    mem::replace,
    time::{Duration, Instant},
};

/// Failures within `WINDOW` after which the guest stays away.
pub(super) const MOST_FAILURES: usize = 5;
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Wait before the second restart in a window; doubles with each further one. The first is immediate.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// When a failed guest may try again.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    failures: VecDeque<Instant>,
    next: Option<Instant>,
    given_up: bool,
}

impl Restarts {
    /// Counts a failure; `true` when it was the one too many.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        while self.failures.front().is_some_and(|t| now.duration_since(*t) > WINDOW) {
            self.failures.pop_front();
        }
        self.failures.push_back(now);
        let recent = self.failures.len();
        self.next = (recent > 1).then(|| now + FIRST_WAIT * (1 << (recent - 2).min(16)));
        let given_up = recent >= MOST_FAILURES;
        given_up && !replace(&mut self.given_up, true)
    }

    pub(super) fn due(&self, now: Instant) -> bool {
        !self.given_up && self.next.is_none_or(|t| now >= t)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_immediate_then_it_waits_longer_and_then_gives_up() {
        let (mut r, t) = (Restarts::default(), Instant::now());
        assert!(!r.failed(t) && r.due(t));
        assert!(!r.failed(t) && !r.due(t) && r.due(t + FIRST_WAIT));
        assert!(!r.failed(t) && !r.due(t + FIRST_WAIT) && r.due(t + 2 * FIRST_WAIT));
        assert!(!r.failed(t) && r.due(t + 4 * FIRST_WAIT));
        assert!(r.failed(t), "the fifth is too many");
        assert!(!r.due(t + 100 * WINDOW));
        assert!(!r.failed(t), "and is said once");
    }

    #[test]
    fn old_failures_are_forgotten() {
        let (mut r, t) = (Restarts::default(), Instant::now());
        for i in 0..20 {
            assert!(!r.failed(t + i * WINDOW / 3));
        }
        let later = t + 30 * WINDOW;
        assert!(!r.failed(later) && r.due(later));
    }
}

//! What a guest does wrong, and what it says, for the user.

use super::restarts::{MOST_FAILURES, WINDOW};
use crate::wasm::{Phase, answer::AnswerError, error::Halt, log_gate::Level};
use std::fmt;

/// What a guest did wrong while running.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("{0}")]
    Halted(Halt),
    #[error("{0}")]
    Answer(AnswerError),
    #[error("could not decode: {message} ({code})")]
    Refused { code: &'static str, message: String },
    #[error("rejected events: {reason}")]
    Rejected { reason: String },
    #[error("failed in {phase}: {message} ({code})")]
    Tick { phase: Phase, code: &'static str, message: String },
    #[error("failed to restart in {phase}: {halt}")]
    RestartHalted { phase: Phase, halt: Halt },
    #[error("refused to restart in {phase}: {message} ({code})")]
    RestartRefused { phase: Phase, code: &'static str, message: String },
    #[error("asked for other fields when it was restarted")]
    OtherPlan,
    #[error("failed {MOST_FAILURES} times within {} s and stays away from now on", WINDOW.as_secs())]
    GivenUp,
}

impl Problem {
    /// One word for machines, the same for every run of the same fault.
    pub fn key(&self) -> &'static str {
        match self {
            Problem::Halted(h) => h.key(),
            Problem::Answer(e) => e.key(),
            Problem::Refused { .. } => "refused",
            Problem::Rejected { .. } => "rejected",
            Problem::Tick { .. } => "tick",
            Problem::RestartHalted { .. } | Problem::RestartRefused { .. } => "restart",
            Problem::OtherPlan => "other-plan",
            Problem::GivenUp => "given-up",
        }
    }
}

/// Something the user should know.
#[derive(Debug)]
pub enum GuestNote {
    /// The guest did something wrong; once for each kind of problem.
    Problem { gadget: String, problem: Problem },
    /// The guest said something; bounded in rate and length.
    Said { gadget: String, level: Level, message: String },
}

impl GuestNote {
    /// What went wrong, if anything did.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            GuestNote::Problem { problem, .. } => Some(problem),
            GuestNote::Said { .. } => None,
        }
    }

    /// Whether the guest broke, as opposed to saying something or saying that it cannot decode an event.
    pub fn is_failure(&self) -> bool {
        self.problem()
            .is_some_and(|p| !matches!(p, Problem::Refused { .. } | Problem::Rejected { .. } | Problem::Tick { .. }))
    }

    /// False for what only those want to read who asked for more.
    pub fn is_for_everybody(&self) -> bool {
        match self {
            GuestNote::Problem { .. } => true,
            GuestNote::Said { level, .. } => *level <= Level::Warn,
        }
    }
}

impl fmt::Display for GuestNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GuestNote::Said { gadget, message, .. } => write!(f, "gadget {gadget}: {message}"),
            GuestNote::Problem { gadget, problem } => {
                write!(f, "gadget {gadget}: its wasm {problem}; ")?;
                f.write_str(match problem {
                    Problem::GivenUp => "events are shown undecoded",
                    Problem::Tick { .. } => "it goes on",
                    Problem::Refused { .. } | Problem::Rejected { .. } => {
                        "these events are shown undecoded and counted"
                    }
                    _ => "the events at hand are shown undecoded and counted, and it is restarted",
                })
            }
        }
    }
}

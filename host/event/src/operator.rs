//! What the user asked of the rows: operators, in a fixed order of stages, after labels and the guest's fields are there.

use crate::Batch;

/// Operators run in this order; within a stage, in the order they were listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Filter,
    Sort,
    Limit,
}

/// An operator that cannot go on. What it can survive it counts in the batch's loss instead.
#[derive(Debug, thiserror::Error)]
#[error("{operator}: {message}")]
pub struct OperatorError {
    pub operator: String,
    pub message: String,
}

/// Works on a batch in place, on the thread that owns the run.
pub trait Operator: Send {
    fn name(&self) -> &str;
    fn stage(&self) -> Stage;
    fn process(&mut self, batch: &mut Batch) -> Result<(), OperatorError>;
}

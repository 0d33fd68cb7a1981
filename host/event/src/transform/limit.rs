//! `--max-entries`: the first rows of each table, counted from the top of the output order.

use crate::{Batch, DataSource, Operator, OperatorError, Reason, SourceKind, Stage};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    #[error("max-entries needs a table, and data source {source_name:?} is a stream of events")]
    NotATable { source_name: String },
}

impl LimitError {
    pub fn hint(&self) -> Option<String> {
        match self {
            LimitError::NotATable { .. } => Some("use --filter or --timeout to get fewer events".to_owned()),
        }
    }
}

/// Leaves at most `max` rows in a batch.
#[derive(Clone, Debug)]
pub struct Limit {
    max: usize,
    over: Vec<u32>,
}

impl Limit {
    pub fn new(max: usize, source: &DataSource) -> Result<Self, LimitError> {
        match source.kind {
            SourceKind::Snapshot => Ok(Limit { max, over: Vec::new() }),
            SourceKind::Events => Err(LimitError::NotATable { source_name: source.name.clone() }),
        }
    }
}

impl Operator for Limit {
    fn name(&self) -> &str {
        "limit"
    }

    fn stage(&self) -> Stage {
        Stage::Limit
    }

    fn process(&mut self, batch: &mut Batch) -> Result<(), OperatorError> {
        self.over.clear();
        self.over.extend(batch.iter().skip(self.max).map(|row| row as u32));
        for row in &self.over {
            batch.discard(*row as usize, Reason::Limited);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn keeps_the_first_rows_in_output_order() {
        let source = Arc::new(DataSource::new("t", SourceKind::Snapshot, 0));
        let mut batch = Batch::new(source.clone());
        (0..4u8).for_each(|i| {
            batch.push(&[i]);
        });
        batch.set_order(vec![3, 1, 2, 0]);
        batch.discard(3, Reason::Filtered);
        Limit::new(2, &source).unwrap().process(&mut batch).unwrap();
        assert_eq!(batch.iter().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(batch.loss.get(Reason::Limited), 1);
    }

    #[test]
    fn a_stream_has_no_first_rows() {
        let e = Limit::new(2, &DataSource::new("open", SourceKind::Events, 0)).unwrap_err();
        assert_eq!(e.to_string(), r#"max-entries needs a table, and data source "open" is a stream of events"#);
    }
}

//! Operators of the host itself, which take rows away or put them in order: filter, sort, limit.
//!
//! Each is compiled once from text and schema, then runs on the thread that owns the batch.

pub mod filter;
pub mod limit;
pub mod sort;

pub use filter::{Filter, FilterError};
pub use limit::{Limit, LimitError};
pub use sort::{Sort, SortError};

//! The data model of ig: what a data source is, what a batch of events is, how a row may leave it, and how it is shown.
//!
//! Rules of this crate: no I/O, no async, no unsafe, nothing Linux-specific. Everything here can be tested and fuzzed
//! without root, and the same code serves the live run, the replay of a recording and the daemon.

#![forbid(unsafe_code)]

pub mod batch;
mod histogram;
pub mod lookup;
pub mod loss;
pub mod names;
pub mod operator;
pub mod output;
pub mod schema;
pub mod template;
pub mod transform;
pub mod value;

pub use batch::{Batch, Column, Entity, EntityValue, Value, Vars};
pub use loss::{Ledger, Loss, Reason};
pub use names::HostNames;
pub use operator::{Operator, OperatorError, Stage};
pub use output::{FieldSelection, OutputMode, Printer, PrinterEnv, printer};
pub use schema::{DataSource, Derive, Field, FieldDef, FieldId, Kind, SourceKind, Storage};
pub use transform::{Filter, Limit, Sort};
pub use value::{TextEnv, errno_names, signal_number};

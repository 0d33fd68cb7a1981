//! Wasm: the sandbox for the decoding half of a gadget. A guest sees batches and answers with columns; whatever it does
//! wrong costs it its own rows' decoding, which is counted, and nothing else.
//!
//! - `engine`  compiles, keeps compiled code on disk (`cache`) and keeps time (`ticker`)
//! - `guest`   one running guest: batches in chunks (`chunk`), restarts, notes for the user
//! - `wit_v0_1` the interface `wit/v0.1`; what a guest may change in the schema is in `opening`, its answers in `answer`
//! - `services` what of the host a guest may reach besides its rows: documents, maps, containers
//! - `build`   from a folder of source to a component, for `ig image build`

pub mod answer;
pub mod build;
mod cache;
mod chunk;
pub mod engine;
pub mod error;
pub mod guest;
mod log_gate;
mod opening;
mod services;
mod ticker;
mod wit_v0_1;

pub use cache::CacheProblem;
pub use engine::{Engine, EngineOptions, imports};
pub use error::{Phase, WasmError};
pub use guest::{Guest, GuestNote, GuestOptions, Problem};
pub use log_gate::Level;
pub use services::{Document, Lent, Services};

#[cfg(test)]
mod tests;

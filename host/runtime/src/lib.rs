//! From a gadget image to a running gadget: images, BPF, Wasm, containers, enrichment.
//!
//! Rules of this crate: it never prints and never reads argv, environment or home directories; the caller passes what it
//! needs. Async (tokio) stays at the edges: the registry and the runtime clients.

mod aside;
pub mod bpf;
mod clocks;
pub mod containers;
pub mod doctor;
pub mod enrich;
pub mod fd_passing;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod gadget;
pub mod host_root;
pub mod host_sources;
pub mod image;
pub mod instance;
pub mod symbols;
mod syscalls;
pub mod uprobes;
pub mod wasm;

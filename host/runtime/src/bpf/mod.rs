//! BPF: the pre-pass over the ELF, CO-RE, loading and attaching with aya, and reading what the programs produce.
//!
//! An image's object is untrusted: everything up to the system calls works on checked bytes and never panics.

pub mod attach;
pub mod btf;
pub(crate) mod core_patch;
pub mod core_reloc;
pub(crate) mod core_shapes;
pub mod elf;
pub mod hook;
pub mod insn;
pub mod iter;
pub mod kernel_form;
pub(crate) mod label;
pub mod loaded;
pub mod loader;
pub mod maps;
pub mod marker;
pub mod object;
pub mod perf;
pub mod prepare;
pub(crate) mod probe;
pub(crate) mod programs;
pub mod report;
pub mod ring;
pub(crate) mod socket;
pub(crate) mod sys;
pub mod wait;

pub use btf::{Btf, KernelBtf};
pub use hook::Hook;
pub use loaded::Loaded;
pub use loader::{LoadOptions, load, missing_here};
pub use marker::Marker;
pub use object::Object;
pub use report::{Gap, LoadError, ProgramReport, Roles, Skip, Skipped, State};

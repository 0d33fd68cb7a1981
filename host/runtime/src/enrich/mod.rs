//! Operators that add what the host knows to events.

pub mod container;
pub mod names;
pub mod sockets;
pub mod stacks;

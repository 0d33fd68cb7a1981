//! The wire contract between `ig daemon` and `gadgetctl`, and only that.
//!
//! The daemon is not built yet; what is fixed already is the name both sides will greet each other with.

#![forbid(unsafe_code)]

/// Version of the contract. The two sides talk when the major parts agree.
pub const CONTRACT_VERSION: (u16, u16) = (0, 1);

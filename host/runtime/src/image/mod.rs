//! Images: references, the OCI store, registries, the embedded catalogue, and building a gadget from its folder.
//!
//! All calls block and belong on the caller's thread; none prints. What a name means is decided in `resolve`, what the
//! bytes are worth in `source` (every blob is checked against its digest there), what is kept in `store`.

mod archive;
mod auth;
mod build;
mod bundle;
mod check;
mod compile;
mod digest;
mod document;
mod error;
mod inspect;
mod reference;
mod registry;
mod resolve;
mod source;
mod store;

pub use archive::{TarLayout, write_layout, write_tar};
pub use auth::{AuthError, AuthFiles};
pub use build::{BuildError, BuildRequest, Built, METADATA_FILE, WasmBuilder, build};
pub use bundle::{Bundle, SECTION as BUNDLE_SECTION};
pub use compile::{CompileError, Toolchain};
pub use digest::{Digest, DigestError};
pub use document::{
    Arch, Descriptor, GADGET_ARTIFACT, GADGET_CONFIG, GADGET_EBPF, GADGET_WASM, Index, Manifest, Platform,
};
pub use error::{ImageError, Lookup, near_names};
pub use inspect::{
    FieldReport, ImageReport, LayerReport, MapReport, OciReport, ParamReport, ProgramParts, ProgramReport, WasmParts,
    inspect,
};
pub use reference::{ImageName, NameRules, Reference, ReferenceError};
pub use registry::{Progress, Registry, RegistryError, RegistryOptions};
pub use resolve::{Builder, Located, PullPolicy, Resolver};
pub use source::{GadgetImage, ImageContent, Origin, Source};
pub use store::{Listed, Removed, Store};

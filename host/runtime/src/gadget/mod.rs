//! What a gadget says of itself: gadget.yaml, its parameters, and the data sources its BTF declares.

mod document;
pub mod metadata;
pub mod params;
pub mod sampling;
pub mod schema;

pub(crate) use document::plain as plain_yaml_error;

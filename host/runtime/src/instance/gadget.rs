//! A gadget as its image describes it: everything that can be known without loading it into the kernel.

use crate::{
    bpf::{KernelBtf, Object, object::ObjectError},
    gadget::{
        metadata::{self, GadgetMetadata, MetadataError, Problem},
        params::{self, Param, ParamError},
        schema::{Annotations, Producer, SchemaError, SourceAnnotations, SourcePlan, data_sources},
    },
    image::GadgetImage,
};
use std::rc::Rc;

/// An opened gadget image.
pub struct Gadget {
    pub(super) image: GadgetImage,
    pub(super) metadata: GadgetMetadata,
    pub(super) object: Object,
    pub(super) kernel: Rc<KernelBtf>,
    pub(super) plans: Vec<SourcePlan>,
    params: Vec<Param>,
    /// What is odd about gadget.yaml, but does not keep the gadget from running.
    pub(super) warnings: Vec<Problem>,
}

/// An image that is no runnable gadget.
#[derive(Debug, thiserror::Error)]
pub enum GadgetError {
    #[error("image {image} is no gadget that can run: it has no eBPF layer")]
    NoProgram { image: String },
    #[error("image {image}: {source}")]
    Metadata { image: String, source: MetadataError },
    #[error("image {image}: {source}")]
    Object { image: String, source: ObjectError },
    #[error("image {image}: {source}")]
    Schema { image: String, source: SchemaError },
    #[error("image {image}: {source}")]
    Params { image: String, source: ParamError },
    #[error("image {image} declares no data source, so there is nothing to show")]
    NoSource { image: String },
}

impl GadgetError {
    pub fn hint(&self) -> Option<String> {
        match self {
            GadgetError::NoProgram { .. } | GadgetError::NoSource { .. } => {
                Some("`ig image inspect IMAGE` shows what the image holds".into())
            }
            GadgetError::Metadata { source, .. } => source.hint(),
            GadgetError::Object { source, .. } => source.hint(),
            GadgetError::Schema { source, .. } => source.hint(),
            GadgetError::Params { source, .. } => source.hint(),
        }
    }
}

impl Gadget {
    /// Reads metadata, object, parameters and schema. Needs no privileges.
    pub fn open(image: GadgetImage) -> Result<Gadget, GadgetError> {
        Gadget::open_with(image, Rc::new(KernelBtf::new()))
    }

    /// As `open`, for one of several gadgets: the kernel's types are read once for all.
    pub fn open_with(image: GadgetImage, kernel: Rc<KernelBtf>) -> Result<Gadget, GadgetError> {
        let name = image.reference.clone();
        let named = || name.clone();
        let parsed = metadata::parse(&image.metadata, metadata::FILE)
            .map_err(|source| GadgetError::Metadata { image: named(), source })?;
        let metadata = parsed.metadata;
        let elf = image.ebpf.as_deref().ok_or_else(|| GadgetError::NoProgram { image: named() })?;
        let object =
            Object::parse(&metadata.name, elf).map_err(|source| GadgetError::Object { image: named(), source })?;
        let plans = data_sources(&object, &kernel, &annotations(&metadata))
            .map_err(|source| GadgetError::Schema { image: named(), source })?;
        if plans.is_empty() {
            return Err(GadgetError::NoSource { image: named() });
        }
        let mut params = params::params(&object, &params::notes(&metadata))
            .map_err(|source| GadgetError::Params { image: named(), source })?;
        params.extend(params::wasm_params(&metadata));
        Ok(Gadget { image, metadata, object, kernel, plans, params, warnings: parsed.warnings })
    }

    pub fn image(&self) -> &GadgetImage {
        &self.image
    }

    pub fn metadata(&self) -> &GadgetMetadata {
        &self.metadata
    }

    pub fn object(&self) -> &Object {
        &self.object
    }

    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// Whether some rows are the entries of a map, which is read again and again.
    pub fn has_map_tables(&self) -> bool {
        self.plans.iter().any(|p| matches!(p.producer, Producer::MapIter { .. }))
    }

    pub fn plans(&self) -> &[SourcePlan] {
        &self.plans
    }

    /// The values of the variables to set, from what the user gave. What is for the guest is checked too.
    pub(super) fn values(&self, given: &[(String, String)]) -> Result<Vec<(String, Vec<u8>)>, ParamError> {
        let mut values = Vec::new();
        for p in &self.params {
            let text = given.iter().find(|(k, _)| *k == p.key).map(|(_, v)| v.as_str());
            let bytes = p.parse(p.choose(text)?)?;
            values.extend(p.var.clone().map(|var| (var, bytes)));
        }
        Ok(values)
    }

    /// Every parameter with the value in force, for the guest and the recording.
    pub(super) fn final_params(&self, given: &[(String, String)]) -> Vec<(String, String)> {
        self.params.iter().map(|p| (p.key.clone(), self.text_of(p, given).to_owned())).collect()
    }

    fn text_of<'a>(&self, p: &'a Param, given: &'a [(String, String)]) -> &'a str {
        given.iter().find(|(k, _)| *k == p.key).map_or(p.default.as_str(), |(_, v)| v.as_str())
    }
}

/// What gadget.yaml says about data sources, as the schema wants it.
pub(super) fn annotations(metadata: &GadgetMetadata) -> Annotations {
    let sources = metadata.datasources.iter().map(|(name, s)| {
        let fields = s.fields.iter().map(|(f, m)| (f.clone(), m.annotations.clone())).collect();
        (name.clone(), SourceAnnotations { annotations: s.annotations.clone(), fields })
    });
    Annotations { sources: sources.collect() }
}

//! What `ig image inspect` shows, as data. Rendering is the caller's.

use std::collections::BTreeMap;

use ig_event::{DataSource, FieldDef, Storage};
use serde::Serialize;

use super::error::ImageError;
use super::source::{GadgetImage, Origin};
use crate::bpf::object::{MapDef, Object, Program, map_kind_name};
use crate::bpf::{KernelBtf, missing_here};
use crate::gadget::metadata::{self, GadgetMetadata};
use crate::gadget::params::{self, Param};
use crate::gadget::schema::{Annotations, data_sources};
use crate::wasm;

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageReport {
    pub oci: OciReport,
    pub metadata: GadgetMetadata,
    /// What is odd about gadget.yaml.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// None for a gadget without BPF.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ebpf: Option<ProgramParts>,
    /// None for a gadget without a Wasm half.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wasm: Option<WasmParts>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OciReport {
    pub reference: String,
    pub digest: String,
    pub manifest_digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    pub architecture: String,
    pub origin: Origin,
    pub annotations: BTreeMap<String, String>,
    pub layers: Vec<LayerReport>,
    /// The manifest as it is stored.
    pub manifest: serde_json::Value,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerReport {
    pub media_type: String,
    pub digest: String,
    /// In bytes.
    pub size: u64,
}

/// What the pre-pass over the BPF object finds.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgramParts {
    pub programs: Vec<ProgramReport>,
    pub maps: Vec<MapReport>,
    pub params: Vec<ParamReport>,
    /// By data source, in the order of the record.
    pub fields: BTreeMap<String, Vec<FieldReport>>,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgramReport {
    pub name: String,
    /// Kind and target, as in the section name (`tracepoint/syscalls/sys_enter_openat`).
    pub hook: String,
    /// The job for which this program is one of several alternatives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alternative_for: Option<String>,
    /// Why this machine's kernel would not run it, as far as that shows without trying; None when nothing speaks
    /// against it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MapReport {
    pub name: String,
    pub kind: String,
    /// In bytes.
    pub key_size: u32,
    /// In bytes.
    pub value_size: u32,
    pub max_entries: u32,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParamReport {
    pub name: String,
    pub kind: String,
    pub default: String,
    pub description: String,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldReport {
    pub name: String,
    pub kind: String,
}

/// What the Wasm half needs. Its imports are what it is allowed to do.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WasmParts {
    pub imports: Vec<String>,
    /// In bytes.
    pub size: u64,
    /// Why it cannot be run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unusable: Option<String>,
}

/// Reads everything an image says about itself. Nothing is loaded, compiled or run, and no privileges are needed.
pub fn inspect(image: &GadgetImage) -> Result<ImageReport, ImageError> {
    let parsed = metadata::parse(&image.metadata, metadata::FILE)
        .map_err(|source| ImageError::Metadata { image: image.called.clone(), source: Box::new(source) })?;
    let ebpf = image.ebpf.as_deref().map(|bytes| program_parts(image, bytes, &parsed.metadata)).transpose()?;
    let wasm = image.wasm.as_deref().map(|bytes| wasm_parts(image, bytes));
    Ok(ImageReport {
        oci: oci(image)?,
        warnings: parsed.warnings.iter().map(ToString::to_string).collect(),
        metadata: parsed.metadata,
        ebpf,
        wasm,
    })
}

fn oci(image: &GadgetImage) -> Result<OciReport, ImageError> {
    let document = |source| ImageError::Document { place: image.called.clone(), what: "manifest", source };
    let manifest: super::document::Manifest = serde_json::from_slice(&image.manifest).map_err(document)?;
    let layers = manifest.layers.iter().map(|layer| LayerReport {
        media_type: layer.media_type.clone(),
        digest: layer.digest.to_string(),
        size: layer.size,
    });
    Ok(OciReport {
        reference: image.reference.clone(),
        digest: image.digest.clone(),
        manifest_digest: image.manifest_digest.clone(),
        created: image.created.clone(),
        architecture: image.arch.to_string(),
        origin: image.origin,
        annotations: image.annotations.clone(),
        layers: layers.collect(),
        manifest: serde_json::from_slice(&image.manifest).map_err(document)?,
    })
}

fn program_parts(image: &GadgetImage, bytes: &[u8], metadata: &GadgetMetadata) -> Result<ProgramParts, ImageError> {
    let named = || image.called.clone();
    let object = Object::parse(&metadata.name, bytes)
        .map_err(|source| ImageError::Object { image: named(), source: Box::new(source) })?;
    let params = params::params(&object, &params::notes(metadata))
        .map_err(|source| ImageError::Params { image: named(), source: Box::new(source) })?;
    // Annotations change how fields are shown, not which there are.
    let kernel = KernelBtf::new();
    let plans = data_sources(&object, &kernel, &Annotations::default())
        .map_err(|source| ImageError::Schema { image: named(), source: Box::new(source) })?;
    let fields = plans.iter().map(|plan| (plan.source.name.clone(), fields(&plan.source)));
    Ok(ProgramParts {
        programs: object.programs.iter().map(|program| program_report(program, metadata, &kernel)).collect(),
        maps: object.maps.iter().map(map_report).collect(),
        params: params.into_iter().map(param_report).collect(),
        fields: fields.collect(),
    })
}

fn program_report(program: &Program, metadata: &GadgetMetadata, kernel: &KernelBtf) -> ProgramReport {
    let attach_to = metadata.programs.get(&program.name).and_then(|p| p.attach_to.as_deref());
    let job = metadata.alternatives.iter().find(|(_, sets)| sets.iter().flatten().any(|name| *name == program.name));
    let hook = attach_to.map_or_else(|| program.hook.clone(), |target| program.hook.retarget(target));
    ProgramReport {
        name: program.name.clone(),
        skipped: missing_here(&hook, kernel),
        hook: hook.to_string(),
        alternative_for: job.map(|(job, _)| job.clone()),
    }
}

fn map_report(map: &MapDef) -> MapReport {
    MapReport {
        name: map.name.clone(),
        kind: map_kind_name(map.kind).to_owned(),
        key_size: map.key_size,
        value_size: map.value_size,
        max_entries: map.max_entries,
    }
}

fn param_report(param: Param) -> ParamReport {
    ParamReport { name: param.key, kind: param.ty.to_string(), default: param.default, description: param.description }
}

fn fields(source: &DataSource) -> Vec<FieldReport> {
    let kind = |def: &FieldDef| match def.storage {
        Storage::Group => "group".to_owned(),
        _ => format!("{:?}", def.kind).to_lowercase(),
    };
    let seen = source.fields().iter().filter(|field| !field.unreferenced);
    seen.map(|field| FieldReport { name: field.full_name.clone(), kind: kind(&field.def) }).collect()
}

/// A Wasm half that this program cannot run is shown as such: the image may be made for another one.
fn wasm_parts(image: &GadgetImage, bytes: &[u8]) -> WasmParts {
    let digest = image.wasm_digest.as_deref().unwrap_or_default();
    let size = bytes.len() as u64;
    match wasm::imports(&image.called, digest, bytes) {
        Ok(imports) => WasmParts { imports, size, unusable: None },
        Err(error) => WasmParts { imports: Vec::new(), size, unusable: Some(error.to_string()) },
    }
}

//! A gadget as its image describes it: everything that can be known without loading it into the kernel.

use crate::{
    bpf::{KernelBtf, Object, object::ObjectError},
    gadget::{
        metadata::{self, GadgetMetadata, MetadataError},
        params::{self, Param, ParamError},
        schema::{
            Annotations, Producer, SchemaError, SourceAnnotations, SourcePlan, data_sources, drop_unknown, host_plan,
        },
    },
    host_sources::{self, HostSettings, HostSourceError},
    image::{GadgetImage, Origin},
};
use ig_event::SourceKind;
use std::{rc::Rc, time::Duration};

/// An opened gadget image.
pub struct Gadget {
    pub(super) image: GadgetImage,
    pub(super) metadata: GadgetMetadata,
    /// `None` for a gadget whose rows the host makes itself.
    pub(super) object: Option<Object>,
    pub(super) kernel: Rc<KernelBtf>,
    pub(super) plans: Vec<SourcePlan>,
    params: Vec<Param>,
    times: Option<TableTimes>,
    /// What is odd about gadget.yaml, but does not keep the gadget from running.
    pub(super) warnings: Vec<String>,
}

/// When the tables of a gadget are read, unless the user says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableTimes {
    /// Between two readings; zero for one at the end.
    pub interval: Duration,
    /// Until the first reading, where that is not the interval.
    pub first: Option<Duration>,
    /// Readings after which it is done; 0 for no end.
    pub count: u64,
    /// False where tables are read once, unless an interval or a count is given.
    pub again: bool,
}

impl Default for TableTimes {
    fn default() -> Self {
        TableTimes { interval: Duration::from_secs(1), first: None, count: 0, again: true }
    }
}

/// An image that is no runnable gadget.
#[derive(Debug, thiserror::Error)]
pub enum GadgetError {
    #[error("image {image} is no gadget that can run: it has neither an eBPF layer nor asks for a table of the host")]
    NoProgram { image: String },
    #[error("image {image}: {source}")]
    Metadata { image: String, source: MetadataError },
    #[error("image {image}: {source}")]
    Object { image: String, source: ObjectError },
    #[error("image {image}: {source}")]
    Schema { image: String, source: SchemaError },
    #[error("image {image}: {source}")]
    Params { image: String, source: ParamError },
    #[error("image {image}: gadget.yaml: {source}")]
    HostSource { image: String, source: HostSourceError },
    #[error("image {image}: data source {source_name}: {text:?} in {FETCH_INTERVAL} is no time such as 500ms or 2s")]
    Interval { image: String, source_name: String, text: String },
    #[error("image {image} declares no data source and has no Wasm, so there is nothing to show")]
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
            GadgetError::HostSource { source, .. } => source.hint(),
            GadgetError::Interval { .. } => None,
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
        let name = image.called.clone();
        let named = || name.clone();
        let parsed = metadata::parse(&image.metadata, metadata::FILE)
            .map_err(|source| GadgetError::Metadata { image: named(), source })?;
        let metadata = parsed.metadata;
        let mut warnings: Vec<String> = parsed.warnings.iter().map(ToString::to_string).collect();
        let host =
            host_sources::settings(&metadata).map_err(|source| GadgetError::HostSource { image: named(), source })?;
        let schema = |source| GadgetError::Schema { image: named(), source };
        let (object, plans, mut params) = match (&image.ebpf, &host) {
            (Some(elf), _) => {
                let object = Object::parse(&metadata.name, elf)
                    .map_err(|source| GadgetError::Object { image: named(), source })?;
                let mut annotations = annotations(&metadata);
                if !own_work(&image) {
                    let unknown = drop_unknown(&mut annotations, &object).into_iter();
                    warnings.extend(unknown.map(|name| format!("data source {name} does not exist")));
                }
                let plans = data_sources(&object, &kernel, &annotations).map_err(schema)?;
                let params = params::params(&object, &params::notes(&metadata))
                    .map_err(|source| GadgetError::Params { image: named(), source })?;
                (Some(object), plans, params)
            }
            (None, Some(host)) => {
                let plan = host_plan(&metadata.name, host.source, &annotations(&metadata)).map_err(schema)?;
                (None, vec![plan], host.source.params())
            }
            (None, None) => return Err(GadgetError::NoProgram { image: named() }),
        };
        if plans.is_empty() && image.wasm.is_none() {
            return Err(GadgetError::NoSource { image: named() });
        }
        let times = table_times(&plans, host.as_ref().filter(|_| object.is_none()))
            .map_err(|(source_name, text)| GadgetError::Interval { image: named(), source_name, text })?;
        params.extend(params::wasm_params(&metadata));
        Ok(Gadget { image, metadata, object, kernel, plans, params, times, warnings })
    }

    pub fn image(&self) -> &GadgetImage {
        &self.image
    }

    pub fn metadata(&self) -> &GadgetMetadata {
        &self.metadata
    }

    pub fn object(&self) -> Option<&Object> {
        self.object.as_ref()
    }

    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// Whether a word of gadget.yaml about a field that does not exist is an error: see [`own_work`].
    pub(super) fn is_strict(&self) -> bool {
        own_work(&self.image)
    }

    /// When its tables are read; `None` where it has none, only events.
    pub fn table_times(&self) -> Option<&TableTimes> {
        self.times.as_ref()
    }

    /// The interval and the count in force, and whether the user asked for either.
    pub(super) fn times(&self, interval: Option<Duration>, count: Option<u64>) -> (TableTimes, bool) {
        let mut times = self.times.clone().unwrap_or_default();
        times.first = times.first.filter(|_| interval.is_none_or(|i| !i.is_zero()));
        times.interval = interval.unwrap_or(times.interval);
        times.count = count.unwrap_or(times.count);
        (times, interval.is_some() || count.is_some())
    }

    /// Whether it writes documents beside rows, or instead of them.
    pub fn makes_documents(&self) -> bool {
        let Some(wasm) = &self.image.wasm else { return false };
        let imports = crate::wasm::imports(&self.metadata.name, &self.image.digest, wasm);
        imports.is_ok_and(|all| all.iter().any(|i| crate::wasm::guest::makes_documents(i)))
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

    /// Whether a switch that is not of the BPF half is on.
    pub(super) fn is_on(&self, key: &str, given: &[(String, String)]) -> bool {
        let own = self.params.iter().find(|p| p.key == key && p.var.is_none());
        own.and_then(|p| p.parse(self.text_of(p, given)).ok()).is_some_and(|bytes| bytes == [1])
    }

    fn text_of<'a>(&self, p: &'a Param, given: &'a [(String, String)]) -> &'a str {
        given.iter().find(|(k, _)| *k == p.key).map_or(p.default.as_str(), |(_, v)| v.as_str())
    }
}

/// A gadget in a folder is being written: what it says of things that do not exist is a mistake to be mended. An image
/// cannot be mended by who runs it, and such a word changes nothing but a layout: it is told, and passed over.
fn own_work(image: &GadgetImage) -> bool {
    image.origin == Origin::Directory
}

/// Annotation of a data source whose rows are the entries of a map: the time between two readings.
const FETCH_INTERVAL: &str = "ebpf.map.fetch-interval";

/// What the gadget says of the times of its tables; an error is the source and the text of a time that is none.
fn table_times(plans: &[SourcePlan], host: Option<&HostSettings>) -> Result<Option<TableTimes>, (String, String)> {
    if let Some(host) = host {
        let HostSettings { interval, first, count, .. } = *host;
        return Ok(Some(TableTimes { interval, first, count, again: true }));
    }
    if !plans.iter().any(|p| p.source.kind == SourceKind::Snapshot) {
        return Ok(None);
    }
    let again = plans.iter().any(|p| matches!(p.producer, Producer::MapIter { .. }));
    let mut times = TableTimes { again, ..TableTimes::default() };
    for plan in plans {
        if let Some(text) = plan.source.annotations.get(FETCH_INTERVAL) {
            let wrong = || (plan.source.name.clone(), text.clone());
            times.interval = host_sources::parse_duration(text).ok_or_else(wrong)?;
        }
    }
    Ok(Some(times))
}

/// What gadget.yaml says about data sources, as the schema wants it.
pub(super) fn annotations(metadata: &GadgetMetadata) -> Annotations {
    let sources = metadata.datasources.iter().map(|(name, s)| {
        let fields = s.fields.iter().map(|(f, m)| (f.clone(), m.annotations.clone())).collect();
        (name.clone(), SourceAnnotations { annotations: s.annotations.clone(), fields })
    });
    Annotations { sources: sources.collect() }
}

//! From a gadget to a run that is ready to start: tracker, schema, guest, pipeline, programs, filter map, in this order.
//! Whatever the user got wrong comes out here, before anything is attached.

use super::{
    Gadget, GadgetError, Live, LiveOptions, Note, RunError,
    feed::{Source, TablePlan},
    filesystems,
    live::Whose,
    pipeline::Pipeline,
    record::{Header, RecordError, Recorder},
};
use crate::{
    bpf::{Hook, KernelBtf, LoadError, LoadOptions, Loaded, Object, Roles, loader::DISABLED, sys, wait::LostCounter},
    containers::Containers,
    enrich::{
        container::ContainerEnricher,
        sockets::{PATHS_MAP, SOCKETS_MAP, Sockets},
        stacks::{self, Stacks},
    },
    gadget::{
        metadata::ProgramMetadata,
        params::Param,
        schema::{self, Producer},
    },
    host_root,
    host_sources::GADGETS_ONLY,
    symbols::Taken,
    uprobes::{Probe, Scope, Uprobes},
    wasm::{Engine, EngineOptions, Guest, GuestOptions, Lent, Level, Services},
};
use ig_event::{Batch, DataSource, Ledger};
use std::{
    collections::BTreeSet,
    fs::File,
    io::BufWriter,
    os::{fd::BorrowedFd, unix::fs::OpenOptionsExt},
    path::PathBuf,
    sync::Arc,
};

/// Map of mount namespaces that the gadget looks at.
pub(super) const FILTER_MAP: &str = "gadget_mntns_filter_map";
const FILTER_VAR: &str = "gadget_filter_by_mntns";
/// Whether stacks of processes are taken.
const USER_STACKS_VAR: &str = "collect_ustack";
/// Whether paths of processes are found.
const PATHS_VAR: &str = "paths";
/// Containers alive at once that a filter map has room for; upstream's objects declare 1,024.
const FILTER_ENTRIES: u32 = 65_536;

impl Gadget {
    /// Puts the gadget into the kernel without starting it.
    pub fn load(self, options: LiveOptions) -> Result<Live, RunError> {
        self.load_with(options, &mut Shared::default())
    }

    /// As `load`; what other gadgets of this process have started already is used, what is missing is started for all.
    pub(super) fn load_with(self, options: LiveOptions, shared: &mut Shared) -> Result<Live, RunError> {
        filesystems::ensure(options.auto_mount)?;
        // Each probe of each library, each buffer of a processor, each network is one.
        sys::raise_open_files();
        let values = self.values(&options.params)?;
        let mut notes = Vec::new();
        notes.extend(self.warnings.iter().map(|w| Note::Metadata(format!("{}: {w}", self.image.called))));
        let mut sources: Vec<DataSource> = self.plans.iter().map(|p| p.source.clone()).collect();
        let producers: Vec<Producer> = self.plans.iter().map(|p| p.producer.clone()).collect();

        let containers = match needs_containers(&self, &sources) {
            true => shared.containers(&options, &self.kernel, &mut notes)?,
            false => None,
        };
        let filters = self.object.as_ref().is_some_and(|o| o.map(FILTER_MAP).is_some());
        let mut enrichers = Vec::new();
        for (s, plan) in sources.iter_mut().zip(&self.plans) {
            let gathered = filters && matches!(plan.producer, Producer::MapIter { .. });
            let enricher = containers
                .as_ref()
                .and_then(|c| ContainerEnricher::new(s, c.clone(), options.selector.clone(), options.include));
            enrichers.push(enricher.map(|e| if gathered { e.of_gathered_rows() } else { e }));
        }
        let mut stacks = Stacks::new(&mut sources, &options.containers.host_root);
        let recording = options.record.clone().map(|path| self.recording(path, &options, &sources));
        let services = Arc::new(Services::live(containers.clone(), options.selector.clone(), options.include.host));
        let guest = self.guest(&options, (shared, &services), &mut sources, &mut notes)?;
        let has_guest = guest.is_some();
        for (plan, source) in self.plans.iter().zip(&mut sources) {
            if let Err(source) = plan.finish(source) {
                let image = self.image.called.clone();
                if self.is_strict() {
                    return Err(GadgetError::Schema { image, source }.into());
                }
                notes.push(Note::Metadata(format!("{image}: {source}")));
            }
        }
        let chosen = self.final_params(&options.params);
        sources.iter_mut().for_each(|s| schema::choose_columns(s, &chosen));
        if let Some(tag) = &options.tag {
            sources.iter_mut().try_for_each(|s| tag.add(s))?;
        }
        let sources: Vec<_> = sources.into_iter().map(Arc::new).collect();
        let pipeline = Pipeline::new(&sources, guest, &options.pipeline)?;

        let sockets = match self.object.as_ref().filter(|o| Sockets::wanted_by(o)) {
            Some(object) => {
                let paths = object.map(PATHS_MAP).is_some() && is_on(object, &values, PATHS_VAR);
                Some(shared.sockets(&options, &self.kernel, paths)?)
            }
            None => None,
        };
        let load = |object| {
            let mut load = self.load_options(object, &options, values, containers.is_some());
            if let Some(sockets) = &sockets {
                load.inject.insert(SOCKETS_MAP.into(), sockets.map());
                load.inject.extend(sockets.paths().map(|fd| (PATHS_MAP.into(), fd)));
                load.host_types = Some(sockets.types());
            }
            crate::bpf::load(&self.image.called, object, &self.kernel, load).map_err(|e| match e {
                LoadError::AllOff { image, .. } => LoadError::AllOff { image, flag: self.switch() },
                e => e,
            })
        };
        let loaded = self.object.as_ref().map(load).transpose()?;
        if let (true, Some(loaded)) = (has_guest, &loaded) {
            lend_maps(&services, loaded, &producers).map_err(|source| self.unread("the maps", source))?;
        }
        if let (Some(stacks), Some(loaded)) = (&mut stacks, &loaded) {
            share_stacks(stacks, loaded).map_err(|source| self.unread("the maps of stacks", source))?;
        }
        let filter = match (&containers, loaded.as_ref().and_then(|l| l.map_fd(FILTER_MAP))) {
            (Some(c), Some(map)) if !options.include.host => Some(c.add_filter(map, options.selector.clone())?),
            _ => None,
        };
        let state = sources
            .iter()
            .zip(enrichers)
            .map(|(s, enricher)| Source { batch: Batch::new(s.clone()), enricher, feed: None })
            .collect();
        let gadgets_only = self.is_on(GADGETS_ONLY, &options.params);
        let roles = self.roles();
        let (times, asked) = self.times(options.table_interval, options.table_count);
        Ok(Live {
            name: self.image.called,
            ring_bytes: options.ring_bytes,
            loaded,
            producers,
            sources,
            state,
            pipeline,
            stacks,
            scope: containers.clone().map(|c| scope(c, &options)),
            uprobes: None,
            counters: Vec::new(),
            silent: Ledger::default(),
            recording,
            containers,
            networks: None,
            whose: Whose {
                selector: options.selector.clone(),
                include: options.include,
                host_root: options.containers.host_root,
            },
            object: self.object,
            sockets,
            filter,
            roles,
            notes,
            told: BTreeSet::new(),
            look_for_wanted: None,
            closed_networks: BTreeSet::new(),
            unprobed: 0,
            timeout: options.timeout,
            tables: TablePlan::new(&times, asked),
            gadgets_only,
        })
    }

    fn load_options(
        &self,
        object: &Object,
        options: &LiveOptions,
        values: Vec<(String, Vec<u8>)>,
        tracked: bool,
    ) -> LoadOptions<'_> {
        let mut load = LoadOptions { params: values, ring_bytes: options.ring_bytes, ..LoadOptions::default() };
        if object.var(FILTER_VAR).is_some() {
            load.params.push((FILTER_VAR.into(), vec![u8::from(tracked && !options.include.host)]));
        }
        if object.map(FILTER_MAP).is_some() {
            load.max_entries.insert(FILTER_MAP.into(), FILTER_ENTRIES);
        }
        // Ten megabytes for stacks that nobody asked for.
        let no_stacks = object.var(USER_STACKS_VAR).is_some() && !is_on(object, &load.params, USER_STACKS_VAR);
        if no_stacks && object.map(stacks::USER_MAP).is_some() {
            load.max_entries.insert(stacks::USER_MAP.into(), 1);
        }
        load.alternatives = self.metadata.alternatives.iter().map(|(job, sets)| (job.clone(), sets.clone())).collect();
        load.attach_to =
            self.metadata.programs.iter().filter_map(|(p, m)| Some((p.clone(), m.attach_to.clone()?))).collect();
        load.attach_to.extend(self.not_chosen(object, &load.params).map(|p| (p.to_owned(), DISABLED.to_owned())));
        load.defer_uprobes = tracked;
        load.perf = self.metadata.programs.iter().filter_map(|(p, m)| Some((p.clone(), m.perf?))).collect();
        load
    }

    /// Programs that wait for a parameter (`when`), none of which is true.
    fn not_chosen<'a>(&'a self, object: &Object, values: &[(String, Vec<u8>)]) -> impl Iterator<Item = &'a str> {
        let on = |name: &String| is_on(object, values, name);
        let programs = self.metadata.programs.iter();
        let waiting = programs.filter(move |(_, p)| !p.when.is_empty() && !p.when.iter().any(on));
        waiting.map(|(name, _)| name.as_str()).collect::<Vec<_>>().into_iter()
    }

    fn roles(&self) -> Roles {
        let programs = &self.metadata.programs;
        Roles {
            without: programs.iter().filter_map(|(name, p)| Some((name.clone(), p.without.clone()?))).collect(),
            replaceable: self.metadata.alternatives.values().flatten().flatten().cloned().collect(),
        }
    }

    /// The flag that most programs wait for, as an example.
    fn switch(&self) -> Option<String> {
        let waits = |p: &&Param| {
            let on = |m: &&ProgramMetadata| p.var.as_ref().is_some_and(|var| m.when.contains(var));
            self.metadata.programs.values().filter(on).count()
        };
        let most = self.params().iter().filter(|p| waits(p) > 0).max_by_key(waits);
        most.map(|p| p.key.clone())
    }

    fn guest(
        &self,
        options: &LiveOptions,
        (shared, services): (&mut Shared, &Arc<Services>),
        sources: &mut Vec<DataSource>,
        notes: &mut Vec<Note>,
    ) -> Result<Option<Guest>, RunError> {
        let Some(wasm) = &self.image.wasm else { return Ok(None) };
        let engine = shared.engine(options)?;
        let digest = self.image.wasm_digest.as_deref().unwrap_or(&self.image.digest);
        let guest_options = GuestOptions {
            gadget: self.metadata.name.clone(),
            params: self.final_params(&options.params),
            log_level: Level::Info,
            services: Arc::clone(services),
        };
        let guest = Guest::new(&engine, wasm, digest, guest_options, sources)?;
        notes.extend(engine.cache_problem().map(Note::WasmCache));
        Ok(Some(guest))
    }

    fn unread(&self, what: &str, source: std::io::Error) -> RunError {
        RunError::Read { gadget: self.image.called.clone(), what: what.into(), source }
    }

    fn recording(&self, path: PathBuf, options: &LiveOptions, sources: &[DataSource]) -> Recording {
        let header = Header {
            image: self.image.reference.clone(),
            digest: self.image.digest.clone(),
            metadata: String::from_utf8_lossy(&self.image.metadata).into_owned(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            params: self.final_params(&options.params),
            sources: sources.to_vec(),
        };
        Recording { path, header, wasm: self.image.wasm.clone(), recorder: None }
    }
}

/// A recording that is to be made, or is being made.
pub(super) struct Recording {
    pub(super) path: PathBuf,
    pub(super) header: Header,
    pub(super) wasm: Option<Vec<u8>>,
    pub(super) recorder: Option<Recorder<BufWriter<File>>>,
}

impl Recording {
    /// Creates the file. Not before everything else is known to be right: an older recording would be gone for nothing.
    pub(super) fn open(&mut self) -> Result<(), RunError> {
        // For the owner only: command lines and paths of the whole machine may hold secrets.
        // A pipe that nobody reads is an error: waiting for a reader could not be ended by a signal.
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NONBLOCK);
        let file = options.open(&self.path).and_then(|file| {
            rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::empty())?;
            Ok(file)
        });
        let file = file.map_err(|e| self.failed(e.into()))?;
        let made = Recorder::new(BufWriter::with_capacity(1 << 20, file), &self.header, self.wasm.as_deref());
        self.recorder = Some(made.map_err(|e| self.failed(e))?);
        Ok(())
    }

    /// After a failure nothing more is written, the end mark included, so that a replay says that it was cut short.
    pub(super) fn batch(&mut self, source: u32, batch: &Batch) -> Result<(), RunError> {
        let Some(recorder) = &mut self.recorder else { return Ok(()) };
        recorder.batch(source, batch).map_err(|e| {
            self.recorder = None;
            self.failed(e)
        })
    }

    pub(super) fn finish(mut self) -> Result<(), RunError> {
        let done = self.recorder.take().map_or(Ok(()), |r| r.finish().map(|_| ()));
        done.map_err(|e| self.failed(e))
    }

    pub(super) fn failed(&self, e: RecordError) -> RunError {
        match e {
            RecordError::Io(source) => RunError::RecordFile { path: self.path.display().to_string(), source },
            e => e.into(),
        }
    }
}

/// Whether the host fills or reads this map: what all gadgets share, what becomes rows, and the counts of what was lost, which
/// nobody may make smaller.
fn is_hosts(name: &str, producers: &[Producer]) -> bool {
    let read = |p: &Producer| matches!(p, Producer::Tracer { map } | Producer::MapIter { map } if map == name);
    [FILTER_MAP, SOCKETS_MAP, PATHS_MAP, LostCounter::MAP_FULL, LostCounter::STREAM_GAP].contains(&name)
        || name.ends_with(LostCounter::SUFFIX)
        || producers.iter().any(read)
}

fn lend_maps(services: &Services, loaded: &Loaded, producers: &[Producer]) -> std::io::Result<()> {
    let all = loaded.map_names().filter_map(|name| Some((name.to_owned(), loaded.map_fd(name)?)));
    let lent = |(name, fd): (String, BorrowedFd<'_>)| {
        Ok(Lent { fd: fd.try_clone_to_owned()?, hosts: is_hosts(&name, producers), name })
    };
    services.lend_maps(all.map(lent).collect::<std::io::Result<Vec<_>>>()?)
}

fn scope(containers: Containers, options: &LiveOptions) -> Scope {
    let root = &options.containers.host_root;
    Scope {
        containers,
        selector: options.selector.clone(),
        host: options.include.host.then(|| root.clone()),
        proc: host_root::proc(root),
    }
}

/// Attaches the programs that the loader left to us; `None` where there are none.
pub(super) fn start_uprobes(loaded: &Loaded, scope: Scope, gadget: &str) -> Result<Option<Uprobes>, RunError> {
    let mut probes = Vec::new();
    for (program, hook) in loaded.uprobes() {
        let (Hook::Uprobe { path, symbol, ret }, Some(fd)) = (hook, loaded.program_fd(program)) else { continue };
        let failed = |source| RunError::Read { gadget: gadget.to_owned(), what: format!("program {program}"), source };
        probes.push(Probe {
            program: program.to_owned(),
            fd: fd.try_clone_to_owned().map_err(failed)?,
            file: path.clone(),
            symbol: symbol.clone(),
            at_return: *ret,
        });
    }
    match probes.is_empty() {
        true => Ok(None),
        false => Ok(Some(Uprobes::start(probes, scope)?)),
    }
}

fn share_stacks(stacks: &mut Stacks, loaded: &Loaded) -> std::io::Result<()> {
    let map = |name| loaded.map_fd(name).map(|fd| fd.try_clone_to_owned()).transpose();
    let taken = if loaded.samples() { Taken::AtInterrupt } else { Taken::InCall };
    stacks.set_maps(map(stacks::KERNEL_MAP)?, map(stacks::USER_MAP)?, taken)
}

/// Whether a variable of the BPF program that says yes or no will say yes.
fn is_on(object: &Object, values: &[(String, Vec<u8>)], name: &str) -> bool {
    let given = values.iter().find(|(n, _)| n == name).map(|(_, bytes)| bytes);
    given.or_else(|| Some(&object.var(name)?.default)).is_some_and(|bytes| bytes.iter().any(|b| *b != 0))
}

/// A gadget without a namespace in its events, a filter map and a socket filter has nothing to do with containers.
fn needs_containers(gadget: &Gadget, sources: &[DataSource]) -> bool {
    let names = |s: &DataSource| {
        s.fields().iter().any(|f| f.has_tag("type:gadget_mntns_id") || f.has_tag("type:gadget_netns_id"))
    };
    let filters = |o: &Object| {
        o.map(FILTER_MAP).is_some() || o.programs.iter().any(|p| matches!(p.hook, Hook::SocketFilter { .. }))
    };
    gadget.object.as_ref().is_some_and(filters) || sources.iter().any(names)
}

/// What the gadgets of one process have in common. Each part is started by the first gadget that needs it.
#[derive(Default)]
pub(super) struct Shared {
    containers: Option<Containers>,
    engine: Option<Arc<Engine>>,
    /// Without and with paths: who does not ask for them does not pay for them.
    sockets: [Option<Arc<Sockets>>; 2],
}

impl Shared {
    /// Without the tracker, events of the host can still be shown, without labels; a choice of containers cannot be made.
    fn containers(
        &mut self,
        options: &LiveOptions,
        kernel: &KernelBtf,
        notes: &mut Vec<Note>,
    ) -> Result<Option<Containers>, RunError> {
        if let Some(running) = &self.containers {
            return Ok(Some(running.clone()));
        }
        // The kernel's types are read once for the tracker and the gadget.
        match Containers::start_with(options.containers.clone(), kernel) {
            Ok(c) => {
                self.containers = Some(c.clone());
                Ok(Some(c))
            }
            Err(e) if options.include.host && options.selector.selects_all() => {
                notes.push(Note::Containers(format!("not tracked, so events carry no container: {e}")));
                Ok(None)
            }
            Err(e) => Err(e.into()),
        }
    }

    fn sockets(&mut self, options: &LiveOptions, kernel: &KernelBtf, paths: bool) -> Result<Arc<Sockets>, RunError> {
        let place = &mut self.sockets[usize::from(paths)];
        if let Some(running) = place {
            return Ok(running.clone());
        }
        let sockets = Arc::new(Sockets::start(kernel, &options.containers.host_root, paths)?);
        *place = Some(sockets.clone());
        Ok(sockets)
    }

    fn engine(&mut self, options: &LiveOptions) -> Result<Arc<Engine>, RunError> {
        if let Some(engine) = &self.engine {
            return Ok(engine.clone());
        }
        let cache_dir = options.wasm_cache.clone();
        let engine = Arc::new(Engine::new(EngineOptions { cache_dir, ..EngineOptions::default() })?);
        self.engine = Some(engine.clone());
        Ok(engine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_recorded_to_while_somebody_reads_it_and_is_an_error_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let recording = || Recording {
            path: path.clone(),
            header: Header {
                image: String::new(),
                digest: String::new(),
                metadata: "x".repeat(1 << 20),
                kernel: String::new(),
                params: Vec::new(),
                sources: Vec::new(),
            },
            wasm: None,
            recorder: None,
        };
        let e = recording().open().unwrap_err();
        assert!(matches!(&e, RunError::RecordFile { path, .. } if path.ends_with("pipe")), "{e}");
        let reader = {
            let path = path.clone();
            std::thread::spawn(move || std::fs::read(path).unwrap().len())
        };
        let mut opened = recording();
        while opened.open().is_err() {
            std::thread::yield_now();
        }
        opened.finish().unwrap();
        // More than a pipe has room for: it was waited for.
        assert!(reader.join().unwrap() > 1 << 20);
    }

    #[test]
    fn a_guest_may_not_write_what_the_host_shares_shows_or_counts() {
        let producers = [Producer::MapIter { map: "table".into() }, Producer::Tracer { map: "events".into() }];
        let hosts = |name: &str| is_hosts(name, &producers);
        let all = [FILTER_MAP, SOCKETS_MAP, PATHS_MAP, "table", "events", "events_lost_samples", "gadget_map_full"];
        assert!(all.into_iter().all(hosts) && hosts("gadget_stream_gap"));
        assert!(!["settings", "events_", "lost_samples_"].into_iter().any(hosts));
    }
}

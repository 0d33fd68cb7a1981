//! One wasmtime engine for all guests of a process: settings, compilation, and the compiled code kept on disk.
//!
//! The settings are measured ones: concurrency support triples the cost of a call and is off; epochs cost a few per cent
//! and are how a guest that loops is stopped; guard pages are cheaper than bounds checks; guests live for minutes, so
//! instances are made on demand.

use super::{
    WasmError,
    cache::{Cache, CacheProblem},
    ticker::Ticker,
};
use sha2::{Digest, Sha256};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::PathBuf,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};
use wasmparser::{Encoding, Payload};
use wasmtime::component::Component;

/// Larger guests are refused before anything looks at them: compilation cannot be interrupted.
const LARGEST_GUEST: usize = 32 << 20;

#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Where compiled guests are kept; `None` compiles at every start.
    pub cache_dir: Option<PathBuf>,
    /// Bytes of linear memory for each guest.
    pub memory_limit: usize,
    /// Longest time of one call, and after it as much of processor time again; exact to some 10 ms.
    pub deadline: Duration,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions { cache_dir: None, memory_limit: 64 << 20, deadline: Duration::from_millis(500) }
    }
}

/// Compiles guests and keeps their time.
pub struct Engine {
    pub(super) wasmtime: wasmtime::Engine,
    pub(super) memory_limit: usize,
    pub(super) deadline: Duration,
    cache: Option<Cache>,
    problem: Mutex<Option<Arc<CacheProblem>>>,
    ticker: Mutex<Weak<Ticker>>,
}

/// Where compiled code came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compiled {
    FromCache,
    Now,
}

impl Engine {
    pub fn new(options: EngineOptions) -> Result<Self, WasmError> {
        let mut config = wasmtime::Config::new();
        config
            .wasm_component_model(true)
            .concurrency_support(false)
            .epoch_interruption(true)
            .cranelift_opt_level(wasmtime::OptLevel::Speed);
        let wasmtime = wasmtime::Engine::new(&config).map_err(WasmError::Engine)?;
        let (cache, problem) = match options.cache_dir.map(|dir| Cache::open(&dir)) {
            None => (None, None),
            Some(Ok(cache)) => (Some(cache), None),
            Some(Err(problem)) => (None, Some(Arc::new(problem))),
        };
        Ok(Engine {
            wasmtime,
            memory_limit: options.memory_limit,
            deadline: options.deadline,
            cache,
            problem: Mutex::new(problem),
            ticker: Mutex::new(Weak::new()),
        })
    }

    /// Why compiled guests are not kept, if they should be and are not. For the user, once.
    pub fn cache_problem(&self) -> Option<Arc<CacheProblem>> {
        self.problem.lock().map_or(None, |p| p.clone())
    }

    /// Compiles a guest, or takes it from the cache. At pull time this moves the cost of compilation (tens of milliseconds
    /// for a Rust guest) out of the first run.
    pub fn prepare(&self, gadget: &str, digest: &str, wasm: &[u8]) -> Result<Compiled, WasmError> {
        self.component(gadget, digest, wasm).map(|(_, how)| how)
    }

    pub(super) fn component(
        &self,
        gadget: &str,
        digest: &str,
        wasm: &[u8],
    ) -> Result<(Component, Compiled), WasmError> {
        check_header(gadget, digest, wasm)?;
        let key = self.key(wasm);
        if let Some(cache) = &self.cache
            && let Some(code) = cache.load(&key)
        {
            // SAFETY: `deserialize` demands bytes that `serialize` of a trusted wasmtime wrote. The cache only gives back
            // bytes with the checksum they were stored with, out of a folder and a file that only our own user can
            // write; the key has the engine's configuration in it, and wasmtime checks its version itself. The bytes
            // were read into memory first, so what was checked is what is used.
            match unsafe { Component::deserialize(&self.wasmtime, &code) } {
                Ok(component) => return Ok((component, Compiled::FromCache)),
                Err(_stale) => cache.remove(&key),
            }
        }
        let failed = |source| WasmError::Compile { gadget: gadget.into(), digest: digest.into(), source };
        let component = Component::from_binary(&self.wasmtime, wasm).map_err(failed)?;
        if let Some(cache) = &self.cache {
            let code = component.serialize().map_err(failed)?;
            if let Err(problem) = cache.store(&key, &code)
                && let Ok(mut slot) = self.problem.lock()
            {
                *slot = Some(Arc::new(problem));
            }
        }
        Ok((component, Compiled::Now))
    }

    /// The ticker that all guests of this engine share; it ends with the last of them.
    pub(super) fn ticker(&self) -> Result<Arc<Ticker>, WasmError> {
        let mut slot = match self.ticker.lock() {
            Ok(slot) => slot,
            Err(poisoned) => poisoned.into_inner(),
        };
        if let Some(ticker) = slot.upgrade() {
            return Ok(ticker);
        }
        let engine = self.wasmtime.clone();
        let ticker = Arc::new(Ticker::start(move || engine.increment_epoch()).map_err(WasmError::Ticker)?);
        *slot = Arc::downgrade(&ticker);
        Ok(ticker)
    }

    fn key(&self, wasm: &[u8]) -> String {
        let mut hasher = DefaultHasher::new();
        self.wasmtime.precompile_compatibility_hash().hash(&mut hasher);
        format!("{}-{:016x}.cwasm", hex::encode(Sha256::digest(wasm)), hasher.finish())
    }
}

/// What a guest asks of the host, in the order it asks: the list of what it may do. Nothing is compiled or run.
pub fn imports(gadget: &str, digest: &str, wasm: &[u8]) -> Result<Vec<String>, WasmError> {
    check_header(gadget, digest, wasm)?;
    let malformed = |e: wasmparser::BinaryReaderError| WasmError::Malformed {
        gadget: gadget.into(),
        digest: digest.into(),
        offset: e.offset() as u64,
        reason: e.message().to_owned(),
    };
    let mut names = Vec::new();
    let mut depth = 0u32;
    for payload in wasmparser::Parser::new(0).parse_all(wasm) {
        match payload.map_err(malformed)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    names.push(import.map_err(malformed)?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(names)
}

fn check_header(gadget: &str, digest: &str, wasm: &[u8]) -> Result<(), WasmError> {
    let (gadget, digest) = (gadget.to_owned(), digest.to_owned());
    if wasm.len() > LARGEST_GUEST {
        return Err(WasmError::TooLarge { gadget, digest, size: wasm.len(), limit: LARGEST_GUEST });
    }
    match wasmparser::Parser::new(0).parse_all(wasm).next() {
        Some(Ok(Payload::Version { encoding: Encoding::Component, .. })) => Ok(()),
        Some(Ok(Payload::Version { encoding: Encoding::Module, .. })) => Err(WasmError::CoreModule { gadget, digest }),
        _ => Err(WasmError::NotWasm { gadget, digest }),
    }
}

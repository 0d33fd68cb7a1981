//! Why a guest could not be compiled, linked or opened. What goes wrong later is a `Problem`, which the run survives.

use std::time::Duration;

/// Which lifecycle function of the guest was running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Instantiate,
    Init,
    PreStart,
    Start,
    Process,
    Tick,
    Stop,
    PostStop,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Phase::Instantiate => "instantiate",
            Phase::Init => "init",
            Phase::PreStart => "pre-start",
            Phase::Start => "start",
            Phase::Process => "process",
            Phase::Tick => "tick",
            Phase::Stop => "stop",
            Phase::PostStop => "post-stop",
        })
    }
}

/// How a call into a guest ended, other than by returning.
#[derive(Debug, thiserror::Error)]
pub enum Halt {
    #[error("ran longer than {} ms", .0.as_millis())]
    Deadline(Duration),
    #[error("wanted more than {} MiB of memory", .0 >> 20)]
    Memory(usize),
    #[error("trapped: {}", trap_text(.0))]
    Trap(wasmtime::Trap),
    #[error("broke the rules of the interface: {}", .0.root_cause())]
    Call(wasmtime::Error),
}

/// In our own order: wasmtime begins each text with the same two words.
fn trap_text(trap: &wasmtime::Trap) -> String {
    trap.to_string().trim_start_matches("wasm trap: ").to_owned()
}

impl Halt {
    /// One word for machines, the same for every run of the same fault.
    pub fn key(&self) -> &'static str {
        match self {
            Halt::Deadline(_) => "deadline",
            Halt::Memory(_) => "memory",
            Halt::Trap(_) => "trap",
            Halt::Call(_) => "call",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum WasmError {
    #[error("the Wasm engine could not be set up")]
    Engine(#[source] wasmtime::Error),
    #[error("the thread that keeps the guests' time could not be started")]
    Ticker(#[source] std::io::Error),
    #[error("gadget {gadget}: its wasm layer ({digest}) is not WebAssembly")]
    NotWasm { gadget: String, digest: String },
    #[error("gadget {gadget}: its wasm layer ({digest}) is a core module, not a component")]
    CoreModule { gadget: String, digest: String },
    #[error("gadget {gadget}: its wasm layer ({digest}) has {size} bytes, at most {limit} are accepted")]
    TooLarge { gadget: String, digest: String, size: usize, limit: usize },
    #[error("gadget {gadget}: its wasm layer ({digest}) is malformed at byte {offset}: {reason}")]
    Malformed { gadget: String, digest: String, offset: u64, reason: String },
    #[error("gadget {gadget}: its wasm ({digest}) does not compile")]
    Compile { gadget: String, digest: String, source: wasmtime::Error },
    #[error("gadget {gadget}: its wasm imports {import}, which this host does not offer")]
    UnknownImport { gadget: String, import: String },
    #[error("gadget {gadget}: its wasm does not fit the interface ig:gadget@0.1.0")]
    Link { gadget: String, source: wasmtime::Error },
    /// What the user gave for a parameter is wrong, and only the guest could tell: its words name the parameter.
    #[error("{message}")]
    Param { message: String },
    #[error("gadget {gadget}: its wasm refused in {phase}: {message} ({code})")]
    Refused { gadget: String, phase: Phase, code: &'static str, message: String },
    #[error("gadget {gadget}: its wasm failed in {phase}: {halt}")]
    Halted { gadget: String, phase: Phase, halt: Halt },
    #[error("gadget {gadget}: its wasm failed too often and stays away, so its documents are missing")]
    Away { gadget: String },
    #[error("gadget {gadget}: its wasm broke and was started anew, so its documents may lack what came before that")]
    Forgot { gadget: String },
}

impl WasmError {
    /// The next step for the user, where there is one.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            WasmError::CoreModule { .. } => {
                "modules made for the older, handle-based interface do not run yet; build the gadget with gadget-sdk"
                    .into()
            }
            WasmError::UnknownImport { import, .. } if import.starts_with("ig:gadget/") => {
                "the gadget was built for a newer ig: update ig, or use an older version of the gadget".into()
            }
            WasmError::UnknownImport { import, .. } if import.starts_with("wasi:") => {
                "guests have no WASI: build for wasm32-unknown-unknown, as `ig image build` does".into()
            }
            WasmError::Link { .. } => "build the gadget with the gadget-sdk of this version of ig".into(),
            WasmError::Halted { halt: Halt::Deadline(_), .. } => "the gadget loops; report it to its author".into(),
            WasmError::Halted { halt: Halt::Trap(wasmtime::Trap::UnreachableCodeReached), .. } => {
                "the gadget panicked; report it to its author".into()
            }
            _ => return None,
        })
    }
}

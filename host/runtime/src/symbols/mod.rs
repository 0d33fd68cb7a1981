//! From addresses to the names of functions: of the kernel, and of processes in any container.
//!
//! A `Symbolizer` belongs to one thread. It never fails: what cannot be named is shown as its address and what is known of
//! it, `0x7f… [libfoo.so]` or `0x7f… [unknown]`. All it keeps is bounded. Names are foreign text: the outputs escape them.

pub mod elf;
mod kernel;
mod mounts;
mod process;
mod served;

use elf::{Elf, ElfError, Identity, Layout};
use kernel::KernelSymbols;
use mounts::Mounts;
pub use process::Written;
use process::{Mapping, Program};
use rustc_hash::FxHashMap;
use served::Served;
use std::{
    fmt::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// Bytes of symbols that are kept; when there are more, all are dropped and read again as needed.
const MAX_MODULE_BYTES: usize = 192 << 20;
/// Names of one file that are kept, and functions: a file may name a place without end, and none of its own code.
const MAX_NAME_BYTES: usize = 96 << 20;
const MAX_FUNCTIONS: usize = 4 << 20;
/// Files and processes that are remembered.
const MAX_MODULES: usize = 4096;
const MAX_PROCESSES: usize = 4096;
/// Bytes of the mappings of all of them: one alone may have some forty megabytes, and as many children with the same.
const MAX_MAPPING_BYTES: usize = 96 << 20;
/// How soon the mappings of a process are read again because an address is in none of them.
const MAPS_AGAIN: Duration = Duration::from_millis(50);
/// How long a process is trusted to be the same, and to run the same program.
const TRUSTED: Duration = Duration::from_millis(200);
/// Functions that handlers of signals return to, from the C libraries and the kernel.
const AFTER_SIGNAL: [&[u8]; 4] = [b"__restore_rt", b"__restore", b"__kernel_rt_sigreturn", b"__kernel_sigreturn"];
/// Characters of a readable name; the rest is cut.
const MAX_READABLE: usize = 512;

/// How a stack of the kernel came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// By a program that what is looked at called: it begins with that program, and with how the kernel came there.
    InCall,
    /// Of what was at work when a clock struck; if that was a BPF program, it is what people look for.
    AtInterrupt,
}

/// Functions of one file.
#[derive(Debug, Default)]
struct Module {
    layout: Layout,
    /// By address; of several names of a place the first that was listed.
    functions: Vec<Placed>,
    names: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Placed {
    address: u64,
    /// 0: up to the next.
    size: u32,
    name: u32,
}

impl Module {
    fn read(elf: &Elf) -> Result<Module, ElfError> {
        let mut m = Module { layout: elf.layout.clone(), ..Module::default() };
        let mut all = Vec::new();
        elf.functions(|f| {
            if m.names.len() + f.name.len() < MAX_NAME_BYTES && all.len() < MAX_FUNCTIONS {
                // without a size it goes on to the next, but not into another section, such as `_init` into the calls to libraries
                let size = if f.size == 0 { f.room } else { f.size };
                let (name, bytes) = (m.names.len() as u32, size.min(u32::MAX.into()) as u32);
                all.push((f.size == 0, Placed { address: f.address, size: bytes, name }));
                m.names.extend_from_slice(f.name);
                m.names.push(0);
            }
        })?;
        // of names for one place those with a size first: they are functions, not labels
        all.sort_by_key(|(label, f)| (f.address, *label));
        m.functions = all.into_iter().map(|(_, f)| f).collect();
        m.functions.dedup_by_key(|f| f.address);
        m.functions.shrink_to_fit();
        m.names.shrink_to_fit();
        Ok(m)
    }

    fn bytes(&self) -> usize {
        self.names.len() + self.functions.len() * size_of::<Placed>()
    }

    #[cfg(any(test, fuzzing))]
    fn name(&self, offset: u64) -> Option<&[u8]> {
        self.place(offset).map(|(name, _)| name)
    }

    /// The function that a place in the file is in, and how far from its beginning.
    fn place(&self, offset: u64) -> Option<(&[u8], u64)> {
        let address = self.layout.address_of(offset)?;
        let next = self.functions.partition_point(|f| f.address <= address);
        let f = self.functions.get(next.checked_sub(1)?)?;
        let inside = address - f.address;
        if f.size > 0 && inside >= f.size.into() {
            return None;
        }
        let name = self.names.get(f.name as usize..).and_then(|n| n.split(|b| *b == 0).next())?;
        Some((name, inside))
    }
}

/// A process as it was when its mappings were last read.
#[derive(Debug)]
struct Process {
    program: Program,
    mappings: Vec<(Mapping, Option<Arc<Module>>)>,
    /// When the mappings were read.
    mapped: Instant,
    /// When it was last seen to be the same program.
    checked: Instant,
}

impl Process {
    fn bytes(&self) -> usize {
        self.mappings.iter().map(|(m, _)| size_of::<(Mapping, Option<Arc<Module>>)>() + m.path.as_os_str().len()).sum()
    }
}

/// Names addresses.
#[derive(Debug)]
pub struct Symbolizer {
    /// The mount of proc that numbers processes as BPF programs do.
    proc: Option<PathBuf>,
    kallsyms: PathBuf,
    kernel: Option<KernelSymbols>,
    processes: FxHashMap<u32, Process>,
    mapping_bytes: usize,
    modules: FxHashMap<Identity, Arc<Module>>,
    by_build_id: FxHashMap<Vec<u8>, Arc<Module>>,
    module_bytes: usize,
    mounts: Mounts,
    served: Served,
}

impl Symbolizer {
    /// `proc` is the observed host's; `None` where none can be had, and then no process is named.
    pub fn new(proc: Option<PathBuf>) -> Symbolizer {
        let kallsyms = proc.clone().unwrap_or_else(|| "/proc".into()).join("kallsyms");
        Symbolizer {
            proc,
            kallsyms,
            kernel: None,
            processes: FxHashMap::default(),
            mapping_bytes: 0,
            modules: FxHashMap::default(),
            by_build_id: FxHashMap::default(),
            module_bytes: 0,
            mounts: Mounts::default(),
            served: Served::default(),
        }
    }

    /// What people should know and were not told yet.
    pub fn take_note(&mut self) -> Option<String> {
        self.served.take_note()
    }

    /// Whether the kernel tells the addresses of its functions to this process.
    pub fn knows_kernel(&mut self) -> bool {
        !self.kernel().is_empty()
    }

    fn kernel(&mut self) -> &KernelSymbols {
        self.kernel.get_or_insert_with(|| KernelSymbols::read(&self.kallsyms))
    }

    /// Appends the frames of a kernel stack, innermost first: `[0]name; [1]name`. `taken` tells whose the innermost are.
    pub fn kernel_stack(&mut self, addresses: &[u64], taken: Taken, out: &mut String) {
        let kernel = self.kernel();
        let first = if taken == Taken::AtInterrupt { 0 } else { kernel.frames_of_tracing(addresses) };
        for (depth, address) in addresses.iter().enumerate().skip(first) {
            frame_start(depth - first, out);
            match kernel.name(called_from(depth, *address)) {
                Some(name) => readable(name, out),
                None => unknown(*address, "unknown", out),
            }
        }
    }

    /// Appends the frames of a process's stack. `written` tells the program whose stack it is, because the process may run
    /// another one by now, and another process may have its number.
    pub fn user_stack(&mut self, pid: u32, addresses: &[u64], written: Option<Written>, out: &mut String) {
        let mut trusted = self.look_at(pid, written);
        for (depth, address) in addresses.iter().enumerate() {
            frame_start(depth, out);
            match trusted {
                true => trusted = self.user_frame(pid, depth, *address, out) || depth == 0,
                false => unknown(*address, "unknown", out),
            }
        }
    }

    /// Has the mappings of a process at hand, if it is there or was known; whether they are those of the program.
    fn look_at(&mut self, pid: u32, written: Option<Written>) -> bool {
        let known = self.processes.get(&pid);
        if known.is_some_and(|p| p.checked.elapsed() < TRUSTED && p.program.is(written)) {
            return true;
        }
        let now = self.directory(pid).as_deref().and_then(Program::of);
        match (now, self.processes.get_mut(&pid)) {
            // gone: what was known of it still holds
            (None, _) => {}
            (Some(now), Some(known)) if known.program == now => known.checked = Instant::now(),
            // a later one; what was known may be of the one that is asked for
            (Some(now), _) if !now.is(written) => {}
            (Some(now), _) => self.read_mappings(pid, now),
        }
        self.processes.get(&pid).is_some_and(|p| p.program.is(written))
    }

    fn directory(&self, pid: u32) -> Option<PathBuf> {
        self.proc.as_ref().map(|p| p.join(pid.to_string()))
    }

    fn read_mappings(&mut self, pid: u32, program: Program) {
        let Some(dir) = self.directory(pid) else { return };
        let Ok(mappings) = process::mappings(&dir) else { return };
        // one that is about to end has none any more
        if mappings.is_empty() && self.processes.contains_key(&pid) {
            return;
        }
        // one that became another program meanwhile: these may be either's, and the next look tells
        if Program::of(&dir).is_some_and(|now| now != program) {
            return;
        }
        let mappings = mappings.into_iter().map(|m| (m, None)).collect();
        let now = Instant::now();
        self.know(pid, Process { program, mappings, mapped: now, checked: now });
    }

    fn know(&mut self, pid: u32, process: Process) {
        let before = self.processes.remove(&pid).map_or(0, |p| p.bytes());
        self.mapping_bytes -= before.min(self.mapping_bytes);
        let bytes = process.bytes();
        if self.processes.len() >= MAX_PROCESSES || self.mapping_bytes + bytes > MAX_MAPPING_BYTES {
            self.forget_processes();
        }
        self.mapping_bytes += bytes;
        self.processes.insert(pid, process);
    }

    fn forget_processes(&mut self) {
        self.processes.clear();
        self.mapping_bytes = 0;
    }

    /// False for what is no place that a call returns to: then a function on the way kept something else where the frame
    /// before is looked for, and what is found from there on are no calls either.
    fn user_frame(&mut self, pid: u32, depth: usize, shown: u64, out: &mut String) -> bool {
        let address = called_from(depth, shown);
        let found = |p: &Process| p.mappings.iter().position(|(m, _)| m.start <= address && address < m.end);
        let mut at = self.processes.get(&pid).map(found);
        let old = self.processes.get(&pid).filter(|p| p.mapped.elapsed() > MAPS_AGAIN).map(|p| p.program.clone());
        if let (Some(None), Some(program)) = (at, old) {
            // a library that was loaded since
            if self.directory(pid).as_deref().and_then(Program::of).as_ref() == Some(&program) {
                self.read_mappings(pid, program);
                at = self.processes.get(&pid).map(found);
            }
        }
        let module = at.flatten().and_then(|at| self.module(pid, at));
        let mapping = self.processes.get(&pid).zip(at.flatten()).and_then(|(p, at)| p.mappings.get(at));
        let Some((m, _)) = mapping else {
            unknown(shown, "unknown", out);
            return false;
        };
        let place = |address: u64| module.as_ref()?.place((address - m.start).saturating_add(m.offset));
        // Calls return into a function, never to its first byte: that is a pointer to one. But for what is left behind for
        // handlers of signals to return to.
        match place(shown).filter(|(_, inside)| depth > 0 && *inside == 0) {
            Some((name, _)) if AFTER_SIGNAL.contains(&name) => readable(name, out),
            Some(_) => {
                unknown(shown, &m.label(), out);
                return false;
            }
            None => match place(address) {
                Some((name, _)) => readable(name, out),
                None => unknown(shown, &m.label(), out),
            },
        }
        true
    }

    /// The functions of the file behind a mapping; without any where it cannot be read.
    fn module(&mut self, pid: u32, at: usize) -> Option<Arc<Module>> {
        let (mapping, known) = self.processes.get(&pid)?.mappings.get(at)?;
        if known.is_some() || !mapping.has_file {
            return known.clone();
        }
        let dir = self.directory(pid)?;
        let module = match mapping.is_memory() || self.mounts.is_local(&dir, mapping.device) {
            // one that has gone meanwhile may be seen again in another process
            true => process::open(&dir, mapping).ok().map(|(file, identity)| self.of_file(file, identity))?,
            false => {
                let mapping = mapping.clone();
                self.of_served_file(pid, &dir, &mapping)?
            }
        };
        let slot = self.processes.get_mut(&pid)?.mappings.get_mut(at)?;
        slot.1 = Some(module.clone());
        Some(module)
    }

    fn of_file(&mut self, file: std::fs::File, identity: Identity) -> Arc<Module> {
        if let Some(m) = self.modules.get(&identity) {
            return m.clone();
        }
        let elf = Elf::read(file);
        // the same library in another container is another file, with the same id
        let id = elf.as_ref().ok().and_then(Elf::build_id);
        let known = id.as_ref().and_then(|id| self.by_build_id.get(id)).cloned();
        let module = known.unwrap_or_else(|| Arc::new(elf.and_then(|e| Module::read(&e)).unwrap_or_default()));
        self.keep(id, &module);
        self.modules.insert(identity, module.clone());
        module
    }

    /// One of a file system that may not answer.
    fn of_served_file(&mut self, pid: u32, dir: &Path, mapping: &Mapping) -> Option<Arc<Module>> {
        if let Some(known) = self.served.known(mapping) {
            return Some(known);
        }
        let (id, module) = self.served.read(pid, dir, mapping)?;
        let known = id.as_ref().and_then(|id| self.by_build_id.get(id)).cloned();
        let module = known.unwrap_or_else(|| Arc::new(module));
        self.keep(id, &module);
        self.served.remember(mapping, &module);
        Some(module)
    }

    /// Counts a module, and makes room for it.
    fn keep(&mut self, id: Option<Vec<u8>>, module: &Arc<Module>) {
        if self.module_bytes + module.bytes() > MAX_MODULE_BYTES || self.modules.len() >= MAX_MODULES {
            self.modules.clear();
            self.by_build_id.clear();
            self.forget_processes();
            self.served.forget();
            self.module_bytes = 0;
        }
        if id.is_none_or(|id| self.by_build_id.insert(id, module.clone()).is_none()) {
            self.module_bytes += module.bytes();
        }
    }
}

/// Addresses but the innermost are where a call returns to, which may already be in the next function.
fn called_from(depth: usize, address: u64) -> u64 {
    if depth == 0 { address } else { address.saturating_sub(1) }
}

fn frame_start(depth: usize, out: &mut String) {
    if depth > 0 {
        out.push_str("; ");
    }
    out.push('[');
    out.push_str(&depth.to_string());
    out.push(']');
}

fn unknown(address: u64, what: &str, out: &mut String) {
    let what: String = what.chars().take(MAX_READABLE - 32).collect();
    clean(format_args!("{address:#018x} [{what}]"), out);
}

/// Appends foreign text; what is too long ends early, which is the only way this can fail.
fn clean(text: fmt::Arguments<'_>, out: &mut String) {
    let (Ok(()) | Err(fmt::Error)) = (Clean { out, left: MAX_READABLE }).write_fmt(text);
}

/// Appends a name as people wrote it in their language, or as it is where that cannot be told.
fn readable(name: &[u8], out: &mut String) {
    let text = String::from_utf8_lossy(name);
    let start = out.len();
    // a name whose readable form has no end is shown as far as it came
    if let Ok(rust) = rustc_demangle::try_demangle(&text) {
        clean(format_args!("{rust:#}"), out);
    } else if text.starts_with("_Z")
        && let Ok(cpp) = cpp_demangle::Symbol::new(text.as_bytes())
    {
        let mut written = Clean { out, left: MAX_READABLE };
        let (Ok(()) | Err(fmt::Error)) =
            cpp.structured_demangle(&mut written, &cpp_demangle::DemangleOptions::default());
    }
    if out.len() == start {
        clean(format_args!("{text}"), out);
    }
}

/// Text that cannot be taken for the separator of frames, of bounded length.
struct Clean<'a> {
    out: &'a mut String,
    left: usize,
}

impl fmt::Write for Clean<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for c in s.chars() {
            if self.left == 0 {
                return Err(fmt::Error);
            }
            self.left -= 1;
            self.out.push(match c {
                ';' => ':',
                c if c.is_control() => '?',
                c => c,
            });
        }
        Ok(())
    }
}

/// Reads `bytes` as a program's file, and names addresses in it.
#[cfg(fuzzing)]
pub(crate) fn fuzz_file(file: std::fs::File) {
    let Ok(elf) = Elf::read(file) else { return };
    assert!(elf.build_id().is_none_or(|id| (8..=64).contains(&id.len())));
    let Ok(m) = Module::read(&elf) else { return };
    assert!(m.functions.is_sorted_by_key(|f| f.address));
    for f in m.functions.iter().take(32) {
        if let Some(name) = m.layout.offset_of(f.address).and_then(|offset| m.name(offset)) {
            fuzz_name(name);
        }
    }
}

/// The readable form of any name keeps to its bound and breaks no line.
#[cfg(fuzzing)]
pub(crate) fn fuzz_name(name: &[u8]) {
    let mut out = String::new();
    readable(name, &mut out);
    assert!(out.chars().count() <= MAX_READABLE, "{out}");
    assert!(!out.contains(';') && !out.chars().any(char::is_control), "{out:?}");
}

/// Reads `bytes` as each of the texts of the kernel that symbols are found with.
#[cfg(fuzzing)]
pub(crate) fn fuzz_texts(bytes: &[u8]) {
    std::str::from_utf8(bytes).iter().for_each(|text| mounts::fuzz(text));
    KernelSymbols::fuzz(bytes);
    process::fuzz(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn shown(name: &str) -> String {
        let mut out = String::new();
        readable(name.as_bytes(), &mut out);
        out
    }

    #[test]
    fn names_are_readable() {
        assert_eq!(shown("main"), "main");
        assert_eq!(shown("_ZN3foo3barEi"), "foo::bar(int)");
        assert_eq!(shown("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE"), "core::fmt::Formatter::pad");
        assert_eq!(shown("_RNvC7mycrate4main"), "mycrate::main");
        assert_eq!(shown("_Znonsense"), "_Znonsense");
        assert_eq!(shown("a;b\x1b[2J"), "a:b?[2J");
        assert_eq!(shown(&"x".repeat(5000)).len(), MAX_READABLE);
    }

    #[test]
    fn names_that_grow_without_end_are_cut() {
        // each substitution doubles the text
        let mut name = "_Z1fSt4pairIiiE".to_owned();
        for n in 0..40 {
            name.push_str(&format!("St4pairIS{n}_S{n}_E"));
        }
        assert!(shown(&name).chars().count() <= MAX_READABLE);
    }

    #[test]
    fn own_functions_have_names_and_strange_addresses_none() {
        let mut s = Symbolizer::new(Some("/proc".into()));
        let here = own_functions_have_names_and_strange_addresses_none as *const () as u64;
        let mut out = String::new();
        s.user_stack(std::process::id(), &[here, here + 1, 0x10], None, &mut out);
        let frames: Vec<&str> = out.split("; ").collect();
        assert!(frames[0].starts_with("[0]") && frames[0].contains("own_functions_have_names"), "{out}");
        assert!(frames[1].contains("own_functions_have_names"), "{out}");
        assert_eq!(frames[2], "[2]0x0000000000000010 [unknown]");
    }

    #[test]
    fn what_no_call_returns_to_is_not_named_and_what_follows_neither() {
        let mut s = Symbolizer::new(Some("/proc".into()));
        let own = std::process::id();
        let here = what_no_call_returns_to_is_not_named_and_what_follows_neither as *const () as u64;
        let mut named = |addresses: &[u64]| {
            let mut out = String::new();
            s.user_stack(own, addresses, None, &mut out);
            out.split("; ").map(|f| f.contains("what_no_call_returns_to")).collect::<Vec<_>>()
        };
        assert_eq!(named(&[here, here + 2, here + 2]), [true, true, true]);
        // a pointer to a function, whose first byte a call returns to never
        assert_eq!(named(&[here + 2, here, here + 2]), [true, false, false]);
        // something that is not even code; but what runs is certain, known or not
        assert_eq!(named(&[here, 0x10, here + 2]), [true, false, false]);
        assert_eq!(named(&[0x10, here + 2]), [false, true]);
    }

    #[test]
    fn labels_end_with_their_section() {
        let whole = std::iter::once([0x1000, 0x1000, 0x1000]);
        let place = |address, size, name| Placed { address, size, name };
        let m = Module {
            layout: Layout::from_numbers(whole),
            functions: vec![place(0x1000, 0x17, 0), place(0x1100, 0, 6)],
            names: b"_init\0main\0".to_vec(),
        };
        assert_eq!(m.name(0x1016), Some(&b"_init"[..]));
        assert_eq!(m.name(0x1060), None);
        assert_eq!((m.name(0x1100), m.name(0x1fff)), (Some(&b"main"[..]), Some(&b"main"[..])));
    }

    #[test]
    fn processes_that_are_gone_are_addresses() {
        let mut s = Symbolizer::new(Some("/proc".into()));
        let mut out = String::new();
        // the number of no process: above any limit
        s.user_stack(u32::MAX, &[0x1234], None, &mut out);
        assert_eq!(out, "[0]0x0000000000001234 [unknown]");
        out.clear();
        s.user_stack(std::process::id(), &[0x1234], Some((1, 1)), &mut out);
        assert_eq!(out, "[0]0x0000000000001234 [unknown]");
    }

    #[test]
    fn processes_with_mappings_without_end_do_not_fill_the_memory() {
        let own = Path::new("/proc/self");
        let (program, mapping) = (Program::of(own).unwrap(), process::mappings(own).unwrap().remove(0));
        let long = Mapping { path: "/x".repeat(2000).into(), ..mapping };
        let process = || Process {
            program: program.clone(),
            mappings: vec![(long.clone(), None); 4096],
            mapped: Instant::now(),
            checked: Instant::now(),
        };
        let mut s = Symbolizer::new(Some("/proc".into()));
        for pid in 0..20 {
            s.know(pid, process());
            // the same again takes the place of the one before
            s.know(pid, process());
            assert!(s.processes.contains_key(&pid));
            let bytes = s.processes.values().map(Process::bytes).sum::<usize>();
            assert!(bytes == s.mapping_bytes && bytes <= MAX_MAPPING_BYTES, "{pid}: {bytes}");
        }
        assert!(s.processes.len() > 1);
    }

    #[test]
    fn a_library_that_is_loaded_later_is_seen() {
        let mut s = Symbolizer::new(Some("/proc".into()));
        let own = std::process::id();
        let here = a_library_that_is_loaded_later_is_seen as *const () as u64;
        let mut out = String::new();
        s.user_stack(own, &[0x10], None, &mut out);
        // as if nothing had been loaded when the process was first seen
        s.processes.get_mut(&own).unwrap().mappings.clear();
        std::thread::sleep(TRUSTED + Duration::from_millis(20));
        out.clear();
        s.user_stack(own, &[here], None, &mut out);
        assert!(out.contains("a_library_that_is_loaded_later"), "{out}");
    }

    /// The mappings of a child; none while it still has the memory of this process, up to the middle of its execve.
    fn own_mappings(child: &Path) -> Vec<Mapping> {
        let this = std::env::current_exe().unwrap();
        let all = process::mappings(child).unwrap();
        if all.iter().any(|m| m.path == this) { Vec::new() } else { all }
    }

    #[test]
    fn a_process_that_becomes_another_program_has_the_names_of_that_one() {
        let dir = tempfile::tempdir().unwrap();
        let sleep = dir.path().join("sleep");
        // by another process: what this one has open for writing, children of other tests may have too, and nobody can run it
        assert!(std::process::Command::new("cp").arg("/bin/sleep").arg(&sleep).status().unwrap().success());
        let script = format!("read line; exec {} 600", sleep.display());
        let mut child =
            std::process::Command::new("sh").args(["-c", &script]).stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let until = Instant::now() + Duration::from_secs(60);
        // with its libraries: before they are there, the kernel is still about to make it that program
        let code = |what: &str| loop {
            let maps = own_mappings(&proc);
            let place = |what: &str| maps.iter().find(|m| m.path.to_string_lossy().contains(what)).map(|m| m.start + 1);
            match place(what).zip(place("libc.so")) {
                Some((start, _)) => break start,
                None => assert!(Instant::now() < until, "{what}"),
            }
        };
        let written = |path: &Path| {
            use std::os::unix::fs::MetadataExt;
            std::fs::metadata(path).map(|m| (m.mtime() as u64, m.mtime_nsec() as u32)).unwrap()
        };
        let mut s = Symbolizer::new(Some("/proc".into()));
        let mut named = |address: u64, written: Option<Written>| {
            let mut out = String::new();
            s.user_stack(pid, &[address], written, &mut out);
            out
        };
        let (shell, libc) = (written(Path::new("/bin/sh")), code("libc.so"));
        assert!(!named(libc, Some(shell)).contains("unknown"));
        child.stdin.take().unwrap();
        let own = code(sleep.to_str().unwrap());
        // asked at once: the file tells that it is another
        assert!(!named(own, Some(written(&sleep))).contains("unknown"));
        std::thread::sleep(TRUSTED + Duration::from_millis(20));
        assert!(!named(own, None).contains("unknown"));
        // the program that was there before has no names any more, and not those of its successor
        assert!(named(own, Some(shell)).contains("unknown"));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!named(own, None).contains("unknown"));
    }

    #[test]
    fn mappings_that_were_read_while_the_program_changed_are_not_taken_for_the_first_ones() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let (pid, dir) = (child.id(), PathBuf::from(format!("/proc/{}", child.id())));
        let own = Program::of(Path::new("/proc/self")).unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while !own_mappings(&dir).iter().any(|m| m.label().starts_with("libc.so")) {
            assert!(Instant::now() < until);
        }
        let later = Program::of(&dir).unwrap();
        let mut s = Symbolizer::new(Some("/proc".into()));
        // as if this program had been seen before its mappings were read
        s.read_mappings(pid, own);
        assert!(s.processes.is_empty());
        s.read_mappings(pid, later);
        assert!(s.processes.contains_key(&pid));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn what_was_known_of_a_process_survives_it() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let mut s = Symbolizer::new(Some("/proc".into()));
        // until it has become another program
        let until = Instant::now() + Duration::from_secs(60);
        let code = loop {
            let maps = own_mappings(Path::new(&format!("/proc/{}", child.id())));
            let libc = maps.into_iter().find(|m| m.label().starts_with("libc.so"));
            match libc {
                Some(m) => break m,
                None => assert!(Instant::now() < until),
            }
        };
        let mut before = String::new();
        s.user_stack(child.id(), &[code.start + 1], None, &mut before);
        child.kill().unwrap();
        child.wait().unwrap();
        std::thread::sleep(TRUSTED);
        let mut after = String::new();
        s.user_stack(child.id(), &[code.start + 1], None, &mut after);
        assert_eq!(before, after);
        assert!(!after.contains("unknown"), "{after}");
    }
}

//! Hands aya an object it can take: the image's ELF file with everything settled that aya would refuse or do otherwise.
//!
//! Works on a copy of the file. Parameters are written into the read-only data, CO-RE is resolved and its records are
//! hidden, BTF is completed, programs in sections of unknown names get a name aya knows (they are never loaded), and
//! kernel-supplied variables get a section. What aya would index without looking is checked before (`check`), because a
//! damaged image must be an error here and never a panic there.

use super::{
    btf::{Btf, Kind},
    core_reloc::{self, CoreError, CoreReloc, ext_part, walk_ext},
    elf::Section,
    hook::Hook,
    insn::{self, Insn},
    kernel_form,
    object::Object,
    sys,
};

/// Why an object could not be prepared.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PrepareError {
    #[error("there is no read-only variable {var}")]
    NoVariable { var: String },
    #[error("variable {var} has {wanted} bytes, the value given has {got}")]
    VariableSize { var: String, wanted: usize, got: usize },
    #[error("the host does not know the value of {var} (section .kconfig)")]
    UnknownExtern { var: String },
    #[error(transparent)]
    Core(#[from] CoreError),
    #[error("damaged: {0}")]
    Damaged(&'static str),
    #[error("{symbol} is used and defined nowhere")]
    Undefined { symbol: String },
    #[error("function {function} does not lie inside its section {section}")]
    FunctionRange { function: String, section: String },
    #[error("section {section} has a relocation at byte {offset} that makes no sense there")]
    Relocation { section: String, offset: u64 },
}

/// More functions than any gadget has; bounds how deep aya's linker can recurse.
const MAX_FUNCTIONS: usize = 2048;
/// Bytes of one kernel-supplied variable, and of all of them: the host makes a section of this size.
const MAX_EXTERN: u32 = 8;
const MAX_EXTERNS: u32 = 4096;
const R_BPF_64_64: u32 = 1;
const R_BPF_64_32: u32 = 10;

/// The bytes for `EbpfLoader::load`. `relocs` are those of `core_reloc::relocations`, `targets` what they are resolved
/// against.
pub fn prepare(
    object: &Object,
    params: &[(String, Vec<u8>)],
    relocs: &[CoreReloc],
    targets: &[&Btf],
) -> Result<Vec<u8>, PrepareError> {
    check(object)?;
    let mut image = object.image.clone();
    set_params(object, params, &mut image)?;
    core_reloc::apply(object, relocs, targets, &mut image)?;
    hide_core(object, &mut image)?;
    let mut tables = Tables::read(&image)?;
    let btf = object.sections.iter().position(|s| s.name == ".BTF").ok_or(PrepareError::Damaged("no BTF"))?;
    let completed = kernel_form::completed(object);
    if completed.len() == object.sections[btf].data.len() {
        overwrite(&mut image, object.sections[btf].file_offset, &completed)?;
    } else {
        tables.move_section(&mut image, btf, &completed)?;
    }
    for (i, s) in object.sections.iter().enumerate() {
        if s.executable && s.name != ".text" && !s.data.is_empty() && !known_to_aya(&s.name) {
            // any kind will do: only programs whose hooks this host knows are ever loaded
            tables.rename(i, stand_in(object, i));
        }
    }
    rename_in_btf(object, &mut image)?;
    supply_externs(object, &mut image, &mut tables)?;
    tables.write(&mut image)?;
    Ok(image)
}

fn section<'a>(object: &'a Object, name: &str) -> Option<&'a Section> {
    object.sections.iter().find(|s| s.name == name)
}

fn overwrite(image: &mut [u8], at: usize, bytes: &[u8]) -> Result<(), PrepareError> {
    let place = at.checked_add(bytes.len()).and_then(|end| image.get_mut(at..end));
    place.ok_or(PrepareError::Damaged("a section outside the file"))?.copy_from_slice(bytes);
    Ok(())
}

fn set_params(object: &Object, params: &[(String, Vec<u8>)], image: &mut [u8]) -> Result<(), PrepareError> {
    for (name, bytes) in params {
        let var = object.var(name).ok_or_else(|| PrepareError::NoVariable { var: name.clone() })?;
        if bytes.len() != var.default.len() {
            return Err(PrepareError::VariableSize { var: name.clone(), wanted: var.default.len(), got: bytes.len() });
        }
        overwrite(image, object.sections[var.section_index].file_offset + var.offset, bytes)?;
    }
    Ok(())
}

/// Sets the length of the CO-RE part of `.BTF.ext` to zero: it has been dealt with.
fn hide_core(object: &Object, image: &mut [u8]) -> Result<(), PrepareError> {
    const CORE_LEN: usize = 28;
    let Some(ext) = section(object, ".BTF.ext") else { return Ok(()) };
    let header = ext.data.get(4..8).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes) as usize;
    if header >= CORE_LEN + 4 {
        overwrite(image, ext.file_offset + CORE_LEN, &[0; 4])?;
    }
    Ok(())
}

/// Section names whose programs aya 0.14 parses.
fn known_to_aya(name: &str) -> bool {
    let (kind, rest) = name.split_once('/').unwrap_or((name, ""));
    match kind {
        "kprobe" | "kretprobe" | "uprobe" | "uprobe.s" | "uretprobe" | "uretprobe.s" | "tp_btf" | "tracepoint"
        | "tp" | "socket" | "sk_msg" | "sockops" | "classifier" | "perf_event" | "raw_tp" | "raw_tracepoint"
        | "lsm" | "lsm.s" | "fentry" | "fentry.s" | "fexit" | "fexit.s" | "iter" | "iter.s" => true,
        "cgroup" => matches!(rest, "sendmsg4" | "sendmsg6" | "sock_create" | "sock_release"),
        "sk_skb" => matches!(rest, "stream_parser" | "stream_verdict"),
        _ => false,
    }
}

/// A name for a section that aya does not know: that of the hook's kind where this host knows more than aya.
fn stand_in(object: &Object, index: usize) -> &'static str {
    let hook = object.programs.iter().find(|p| p.section_index == index).map(|p| &p.hook);
    if matches!(hook, Some(Hook::Classifier { .. })) { "classifier" } else { "socket" }
}

/// The name by which `.BTF.ext` means a section that is called `socket` now: without it aya finds nothing said of the
/// functions in it, and the kernel refuses programs that call others. A name in use already is left as it is.
fn rename_in_btf(object: &Object, image: &mut [u8]) -> Result<(), PrepareError> {
    const NEW: &str = "socket";
    let is_socket = |s: &&Section| s.executable && !s.data.is_empty() && s.name.starts_with(NEW);
    let mut sockets = object.sections.iter().filter(is_socket);
    let (Some(one), None) = (sockets.next(), sockets.next()) else { return Ok(()) };
    let Some(btf) = section(object, ".BTF").filter(|_| one.name != NEW && !known_to_aya(&one.name)) else {
        return Ok(());
    };
    let number = |at: usize| btf.data.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    let start = number(4).saturating_add(number(16)) as usize;
    let strings = btf.data.get(start..).unwrap_or_default();
    let name = [&[0], one.name.as_bytes(), &[0]].concat();
    match memchr::memmem::find(strings, &name) {
        Some(at) => overwrite(image, btf.file_offset + start + at + 1 + NEW.len(), &[0]),
        None => Ok(()),
    }
}

/// Everything aya takes for granted about an ELF file and its BTF.
fn check(object: &Object) -> Result<(), PrepareError> {
    let mut functions = 0;
    for s in object.symbols.iter().filter(|s| s.is_function) {
        let Some(section) = s.section else { continue };
        let sec = object.sections.get(section).ok_or(PrepareError::Damaged("a symbol in no section"))?;
        let end = s.value.checked_add(s.size);
        let aligned = s.value.is_multiple_of(8) && s.size.is_multiple_of(8);
        if sec.executable && (end.is_none_or(|e| e > sec.data.len() as u64) || !aligned) {
            return Err(PrepareError::FunctionRange { function: s.name.clone(), section: sec.name.clone() });
        }
        functions += 1;
    }
    if functions > MAX_FUNCTIONS {
        return Err(PrepareError::Damaged("too many functions"));
    }
    // aya goes by the name alone, and would take for code what was not checked as such
    if object.sections.iter().any(|s| s.name.starts_with(".text") && !s.executable && s.size > 0) {
        return Err(PrepareError::Damaged("code that is not marked as such"));
    }
    let (externs, size) = kernel_form::extern_layout(&object.btf, ".kconfig");
    if size > MAX_EXTERNS || externs.iter().any(|(_, _, size)| *size > MAX_EXTERN) {
        return Err(PrepareError::Damaged("kernel-supplied variables larger than any that exist"));
    }
    for (i, s) in object.sections.iter().enumerate().filter(|(_, s)| s.executable) {
        check_relocations(object, i, s)?;
    }
    if !object.btf.names_are_inside() {
        return Err(PrepareError::Damaged("BTF names outside the strings"));
    }
    for which in 0..2 {
        let mut last = ("", 0);
        walk_ext(object, ext_part(&object.btf_ext, which)?, |section, record| {
            let at = record.get(..4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
            // distances between records are computed without looking at their sign
            if section == last.0 && at < last.1 {
                return Err(CoreError::Damaged("function or line info out of order"));
            }
            last = (section, at);
            if record.len() < [8, 16][which] {
                return Err(CoreError::Damaged("function or line info"));
            }
            Ok(())
        })?;
    }
    for t in object.btf.types().filter(|t| t.kind == Kind::DataSec) {
        if object.btf.section_vars(&t).any(|v| object.btf.ty(v.ty).is_none_or(|t| t.kind != Kind::Var)) {
            return Err(PrepareError::Damaged("a data section of what are no variables"));
        }
    }
    Ok(())
}

fn check_relocations(object: &Object, index: usize, s: &Section) -> Result<(), PrepareError> {
    let code = insn::decode(&s.data);
    let functions = object.symbols.iter().filter(|y| y.is_function && y.section == Some(index));
    let functions: Vec<_> = functions.map(|y| y.value..y.value.saturating_add(y.size)).collect();
    for r in &s.relocations {
        let bad = || PrepareError::Relocation { section: s.name.clone(), offset: r.offset };
        let at = usize::try_from(r.offset).ok().filter(|o| o.is_multiple_of(8)).ok_or_else(bad)? / 8;
        let i: Insn = *code.get(at).ok_or_else(bad)?;
        let sym = object.symbols.get(r.symbol as usize).ok_or_else(bad)?;
        let wide = i.is_wide() && at + 1 < code.len() && r.kind == R_BPF_64_64;
        let call = i.code() == insn::CALL && r.kind == R_BPF_64_32;
        // both halves of a wide load must lie in the same function
        let whole = call || functions.iter().all(|f| f.contains(&r.offset) == f.contains(&(r.offset + 8)));
        if !wide && !call || !whole {
            return Err(bad());
        }
        let Some(target) = sym.section else {
            if wide && is_extern(object, &sym.name) {
                continue;
            }
            return Err(PrepareError::Undefined { symbol: sym.name.clone() });
        };
        let target = object.sections.get(target).ok_or_else(bad)?;
        // calls and addresses of functions go to functions, or into a section that holds them
        if target.executable && !(sym.is_function || sym.is_section) || call && !target.executable {
            return Err(bad());
        }
        // what the instruction adds to the symbol must stay inside its section
        let add = if call { (i64::from(i.imm()) + 1) * 8 } else { i64::from(i.imm()) };
        let size = target.size.max(target.data.len() as u64);
        if add < 0 && !sym.is_function || sym.value.checked_add_signed(add).is_none_or(|a| a > size) {
            return Err(bad());
        }
    }
    // a call within the section, whose distance is about to be added one to
    if code.iter().any(|i| i.is_local_call() && i.imm() == i32::MAX) {
        return Err(PrepareError::Relocation { section: s.name.clone(), offset: 0 });
    }
    Ok(())
}

fn is_extern(object: &Object, name: &str) -> bool {
    kernel_form::extern_layout(&object.btf, ".kconfig").0.iter().any(|(n, _, _)| n == name)
}

/// Gives `extern … __kconfig` variables a read-only section with the values this host knows.
fn supply_externs(object: &Object, image: &mut Vec<u8>, tables: &mut Tables) -> Result<(), PrepareError> {
    let (vars, size) = kernel_form::extern_layout(&object.btf, ".kconfig");
    if vars.is_empty() {
        return Ok(());
    }
    let mut data = vec![0u8; size as usize];
    let index = tables.headers.len();
    for (name, offset, size) in vars {
        let version = sys::kernel_version_code();
        let value: u64 = match name.as_str() {
            "LINUX_KERNEL_VERSION" => version.into(),
            "LINUX_HAS_BPF_COOKIE" => u64::from(version >= 0x05_0f_00),
            "LINUX_HAS_SYSCALL_WRAPPER" => 1,
            _ => return Err(PrepareError::UnknownExtern { var: name }),
        };
        let (at, size) = (offset as usize, size as usize);
        if let Some(d) = data.get_mut(at..at + size) {
            d.copy_from_slice(&value.to_le_bytes()[..size]);
        }
        if let Some(symbol) = object.symbols.iter().position(|s| s.is_undefined && s.name == name) {
            tables.define_symbol(image, symbol, index, offset.into(), size as u64)?;
        }
    }
    tables.append_data(image, ".rodata.kconfig", &data);
    Ok(())
}

/// Section headers and their names, to be written anew at the end of the file.
struct Tables {
    headers: Vec<[u8; 64]>,
    names: Vec<u8>,
    names_index: usize,
}

fn get<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], PrepareError> {
    let part = at.checked_add(N).and_then(|end| bytes.get(at..end));
    part.and_then(|b| b.try_into().ok()).ok_or(PrepareError::Damaged("headers outside the file"))
}

impl Tables {
    fn read(image: &[u8]) -> Result<Tables, PrepareError> {
        let at = u64::from_le_bytes(get(image, 0x28)?) as usize;
        let count = u16::from_le_bytes(get(image, 0x3c)?) as usize;
        let names_index = u16::from_le_bytes(get(image, 0x3e)?) as usize;
        let mut headers = Vec::with_capacity(count + 1);
        for i in 0..count {
            let mut header: [u8; 64] = get(image, at.saturating_add(i * 64))?;
            // addresses mean nothing in an object file, and aya subtracts them
            header[0x10..0x18].fill(0);
            headers.push(header);
        }
        let own = headers.get(names_index).ok_or(PrepareError::Damaged("no section names"))?;
        let (offset, size) =
            (u64::from_le_bytes(get(own, 0x18)?) as usize, u64::from_le_bytes(get(own, 0x20)?) as usize);
        let names = offset.checked_add(size).and_then(|end| image.get(offset..end));
        let names = names.ok_or(PrepareError::Damaged("section names outside the file"))?.to_vec();
        Ok(Tables { headers, names, names_index })
    }

    fn add_name(&mut self, name: &str) -> u32 {
        // appended, never changed in place: names share their ends, also with those of symbols
        let at = self.names.len() as u32;
        self.names.extend_from_slice(name.as_bytes());
        self.names.push(0);
        at
    }

    fn rename(&mut self, index: usize, name: &str) {
        let at = self.add_name(name);
        if let Some(h) = self.headers.get_mut(index) {
            h[..4].copy_from_slice(&at.to_le_bytes());
        }
    }

    /// Puts new contents of a section at the end of the file.
    fn move_section(&mut self, image: &mut Vec<u8>, index: usize, data: &[u8]) -> Result<(), PrepareError> {
        image.resize(image.len().next_multiple_of(8), 0);
        let header = self.headers.get_mut(index).ok_or(PrepareError::Damaged("a section without a header"))?;
        header[0x18..0x20].copy_from_slice(&(image.len() as u64).to_le_bytes());
        header[0x20..0x28].copy_from_slice(&(data.len() as u64).to_le_bytes());
        image.extend_from_slice(data);
        Ok(())
    }

    fn append_data(&mut self, image: &mut Vec<u8>, name: &str, data: &[u8]) {
        const SHT_PROGBITS: u32 = 1;
        const SHF_ALLOC: u64 = 2;
        image.resize(image.len().next_multiple_of(8), 0);
        let mut h = [0u8; 64];
        h[..4].copy_from_slice(&self.add_name(name).to_le_bytes());
        h[4..8].copy_from_slice(&SHT_PROGBITS.to_le_bytes());
        h[8..16].copy_from_slice(&SHF_ALLOC.to_le_bytes());
        h[0x18..0x20].copy_from_slice(&(image.len() as u64).to_le_bytes());
        h[0x20..0x28].copy_from_slice(&(data.len() as u64).to_le_bytes());
        h[0x30..0x38].copy_from_slice(&8u64.to_le_bytes());
        image.extend_from_slice(data);
        self.headers.push(h);
    }

    /// Makes an undefined symbol an object at `value` of section `section`.
    fn define_symbol(
        &self,
        image: &mut [u8],
        symbol: usize,
        section: usize,
        value: u64,
        size: u64,
    ) -> Result<(), PrepareError> {
        const SHT_SYMTAB: [u8; 4] = 2u32.to_le_bytes();
        const STB_GLOBAL_OBJECT: u8 = 1 << 4 | 1;
        let table = self.headers.iter().find(|h| h[4..8] == SHT_SYMTAB).ok_or(PrepareError::Damaged("no symbols"))?;
        let at = (u64::from_le_bytes(get(table, 0x18)?) as usize).saturating_add(symbol.saturating_mul(24));
        let index = u16::try_from(section).map_err(|_e| PrepareError::Damaged("too many sections"))?;
        overwrite(image, at + 4, &[STB_GLOBAL_OBJECT, 0])?;
        overwrite(image, at + 6, &index.to_le_bytes())?;
        overwrite(image, at + 8, &value.to_le_bytes())?;
        overwrite(image, at + 16, &size.to_le_bytes())
    }

    fn write(mut self, image: &mut Vec<u8>) -> Result<(), PrepareError> {
        let at = image.len() as u64;
        image.extend_from_slice(&self.names);
        let own = &mut self.headers[self.names_index];
        own[0x18..0x20].copy_from_slice(&at.to_le_bytes());
        own[0x20..0x28].copy_from_slice(&(self.names.len() as u64).to_le_bytes());
        image.resize(image.len().next_multiple_of(8), 0);
        let at = image.len() as u64;
        for h in &self.headers {
            image.extend_from_slice(h);
        }
        let count = u16::try_from(self.headers.len()).map_err(|_e| PrepareError::Damaged("too many sections"))?;
        overwrite(image, 0x28, &at.to_le_bytes())?;
        overwrite(image, 0x3c, &count.to_le_bytes())
    }
}

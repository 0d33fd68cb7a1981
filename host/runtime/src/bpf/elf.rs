//! The ELF file of a BPF object: sections, symbols and relocations, copied out and checked by the `object` crate.

use super::object::ObjectError;
use object::{
    LittleEndian as LE,
    elf::{self, FileHeader64},
    read::elf::{FileHeader as _, SectionHeader as _, Sym as _},
};

/// A section's bytes with its relocations.
#[derive(Clone, Debug, Default)]
pub struct Section {
    pub name: String,
    /// Where the bytes start in the file.
    pub file_offset: usize,
    pub data: Vec<u8>,
    pub size: u64,
    pub executable: bool,
    pub relocations: Vec<Relocation>,
}

#[derive(Clone, Copy, Debug)]
pub struct Relocation {
    pub offset: u64,
    pub symbol: u32,
    pub kind: u32,
}

#[derive(Clone, Debug)]
pub struct Symbol {
    pub name: String,
    /// Index of its section; `None` for undefined and absolute ones.
    pub section: Option<usize>,
    pub value: u64,
    pub size: u64,
    pub is_function: bool,
    pub is_section: bool,
    pub is_local: bool,
    pub is_hidden: bool,
    pub is_undefined: bool,
}

/// Largest section that is taken, so that a header of a few bytes cannot ask for all memory.
const MAX_SECTION: u64 = 64 << 20;

pub(super) fn read(name: &str, bytes: &[u8]) -> Result<(Vec<Section>, Vec<Symbol>), ObjectError> {
    let not_elf = |source| ObjectError::NotElf { object: name.into(), source };
    let damaged = |what| move |source| ObjectError::Elf { object: name.into(), what, source };
    let header = FileHeader64::<LE>::parse(bytes).map_err(not_elf)?;
    let endian = header.endian().map_err(not_elf)?;
    let machine = header.e_machine(endian);
    if machine != elf::EM_BPF {
        return Err(ObjectError::NotBpf { object: name.into(), machine: machine.0 });
    }
    let table = header.sections(endian, bytes).map_err(damaged("section headers"))?;
    let symtab = table.symbols(endian, bytes, elf::SHT_SYMTAB).map_err(damaged("symbol table"))?;
    let mut sections = Vec::new();
    for s in table.iter() {
        let size = s.sh_size(endian);
        let section_name = table.section_name(endian, s).map_err(damaged("section name"))?;
        if size > MAX_SECTION {
            let section = String::from_utf8_lossy(section_name).into_owned();
            return Err(ObjectError::SectionSize { object: name.into(), section, size });
        }
        sections.push(Section {
            name: String::from_utf8_lossy(section_name).into_owned(),
            file_offset: s.sh_offset(endian) as usize,
            data: s.data(endian, bytes).map_err(damaged("section data"))?.to_vec(),
            size,
            executable: s.sh_flags(endian).0 & elf::SHF_EXECINSTR.0 != 0 && s.sh_type(endian) == elf::SHT_PROGBITS,
            relocations: Vec::new(),
        });
    }
    for s in table.iter() {
        let target = s.sh_info(endian) as usize;
        if let Some((rels, _)) = s.rel(endian, bytes).map_err(damaged("relocations"))? {
            let list = rels.iter().map(|r| Relocation {
                offset: r.r_offset.get(endian),
                symbol: r.r_sym(endian),
                kind: r.r_type(endian).0,
            });
            if let Some(t) = sections.get_mut(target) {
                t.relocations.extend(list);
            }
        }
        if let Some((rels, _)) = s.rela(endian, bytes).map_err(damaged("relocations"))? {
            let list = rels.iter().map(|r| Relocation {
                offset: r.r_offset.get(endian),
                symbol: r.r_sym(endian, false),
                kind: r.r_type(endian, false).0,
            });
            if let Some(t) = sections.get_mut(target) {
                t.relocations.extend(list);
            }
        }
    }
    for s in &mut sections {
        s.relocations.sort_by_key(|r| r.offset);
    }
    let mut symbols = Vec::new();
    for s in symtab.iter() {
        let shndx = s.st_shndx(endian);
        let symbol_name = s.name(endian, symtab.strings()).map_err(damaged("symbol name"))?;
        symbols.push(Symbol {
            name: String::from_utf8_lossy(symbol_name).into_owned(),
            section: (shndx != elf::SHN_UNDEF && shndx.0 < elf::SHN_LORESERVE).then_some(usize::from(shndx.0)),
            value: s.st_value(endian),
            size: s.st_size(endian),
            is_function: s.st_type() == elf::STT_FUNC,
            is_section: s.st_type() == elf::STT_SECTION,
            is_local: s.st_bind() == elf::STB_LOCAL,
            is_hidden: matches!(s.st_visibility(), elf::STV_HIDDEN | elf::STV_INTERNAL),
            is_undefined: shndx == elf::SHN_UNDEF,
        });
    }
    Ok((sections, symbols))
}

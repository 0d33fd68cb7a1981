//! An object's BTF in the form the kernel loads: what a static linker would have filled in, filled in.
//!
//! Sizes and offsets of data sections come from the ELF symbols; hidden functions become static, so that the verifier
//! checks them in the context of their callers. The bytes fit where the old ones were, unless types had to be added.

use super::{
    btf::{Btf, Kind},
    object::Object,
};

fn put(bytes: &mut [u8], at: usize, word: u32) {
    if let Some(b) = bytes.get_mut(at..at + 4) {
        b.copy_from_slice(&word.to_le_bytes());
    }
}

/// The `info` word of a type.
fn info(kind: Kind, vlen: u32, kflag: bool) -> u32 {
    u32::from(kflag) << 31 | (kind as u32) << 24 | vlen
}

/// The object's BTF, completed.
pub fn completed(object: &Object) -> Vec<u8> {
    let btf = &object.btf;
    let mut out = btf.bytes().to_vec();
    let mut odd = Vec::new();
    for t in btf.types() {
        let Some(at) = btf.position(t.id) else {
            continue;
        };
        match t.kind {
            Kind::DataSec => complete_section(object, btf, t.id, &mut out),
            Kind::Struct => odd.extend(odd_values(btf, t.id)),
            // extern variables are given a home by the host
            Kind::Var if btf.var_linkage(&t) == 2 => put(&mut out, at + 12, 1),
            Kind::Func if t.vlen != 0 => {
                let name = btf.name(t.name_off);
                let sym = object.symbols.iter().find(|s| s.is_function && s.name == name);
                if t.vlen == 2 || sym.is_some_and(|s| s.is_hidden) {
                    put(&mut out, at + 4, info(Kind::Func, 0, t.kflag));
                }
            }
            _ => {}
        }
    }
    if odd.is_empty() { out } else { with_value_size(btf, out, &odd) }
}

/// Where the member `values` of a map definition stands, and the bit offset of the member before, if it is no array of pointers to maps: program arrays have
/// functions there, which means nothing to a loader but that values have four bytes, and is refused by some.
fn odd_values(btf: &Btf, id: u32) -> Option<(usize, u32)> {
    let (t, at) = (btf.ty(id)?, btf.position(id)?);
    let has = |names: &[&str]| btf.members(&t).any(|m| names.contains(&btf.name(m.name_off)));
    if !has(&["type"]) || !has(&["max_entries", "key", "key_size"]) {
        return None;
    }
    let (i, m) = btf.members(&t).enumerate().find(|(_, m)| btf.name(m.name_off) == "values")?;
    let elem = btf.resolve(m.ty).and_then(|t| btf.array(&t)).and_then(|a| btf.resolve(a.elem));
    let inner = elem.filter(|t| t.kind == Kind::Ptr).and_then(|t| btf.resolve(t.size_or_type));
    // a pointer has a size where the empty array had none: it takes the place of the member before
    let before = i.checked_sub(1).and_then(|i| btf.member(&t, i as u32)).map_or(0, |m| m.bit_offset);
    inner.is_none_or(|t| t.kind != Kind::Struct).then_some((at + 12 + i * 12, before))
}

/// Turns the members at `odd` into `__uint(value_size, 4)`: a pointer to an array of four, which is added.
fn with_value_size(btf: &Btf, mut bytes: Vec<u8>, odd: &[(usize, u32)]) -> Vec<u8> {
    let int = btf.types().find(|t| t.kind == Kind::Int).map_or(0, |t| t.id);
    let array = btf.len();
    let words = [0, info(Kind::Array, 0, false), 0, int, int, 4, 0, info(Kind::Ptr, 0, false), array];
    let word = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    let (header, type_off, type_len) = (word(4), word(8), word(12));
    let (str_off, str_len) = (word(16), word(20));
    let types = (header + type_off) as usize..(header + type_off + type_len) as usize;
    let strings = (header + str_off) as usize..(header + str_off + str_len) as usize;
    let (Some(old_types), Some(old_strings)) = (bytes.get(types.clone()), bytes.get(strings)) else { return bytes };
    let added = words.iter().flat_map(|w| w.to_le_bytes());
    let new_types: Vec<u8> = old_types.iter().copied().chain(added).collect();
    let new_strings: Vec<u8> = old_strings.iter().copied().chain(*b"value_size\0").collect();
    bytes.truncate(header as usize);
    put(&mut bytes, 8, 0);
    put(&mut bytes, 12, new_types.len() as u32);
    put(&mut bytes, 16, new_types.len() as u32);
    put(&mut bytes, 20, new_strings.len() as u32);
    bytes.extend(new_types);
    bytes.extend(new_strings);
    for (at, place) in odd {
        // types may have started elsewhere; they now follow the header
        let at = at - types.start + header as usize;
        put(&mut bytes, at, str_len);
        put(&mut bytes, at + 4, array + 1);
        put(&mut bytes, at + 8, *place);
    }
    bytes
}

/// Where the next variable may start; sizes are an image's word, and may be anything.
fn aligned_end(offset: u32, size: u32) -> u32 {
    offset.saturating_add(size).checked_next_multiple_of(8).unwrap_or(u32::MAX)
}

fn complete_section(object: &Object, btf: &Btf, id: u32, out: &mut [u8]) {
    let (Some(t), Some(at)) = (btf.ty(id), btf.position(id)) else {
        return;
    };
    let name = btf.name(t.name_off);
    let index = object.sections.iter().position(|s| s.name == name);
    let mut end = 0;
    let mut vars: Vec<(u32, u32, u32)> = Vec::new();
    for v in btf.section_vars(&t) {
        let var = btf.type_name(v.ty);
        let size = btf.size_of(v.ty).unwrap_or(v.size);
        let offset = match index {
            Some(_) => {
                object.symbols.iter().find(|s| s.section == index && s.name == var).map_or(v.offset, |s| s.value as u32)
            }
            // a section of externs has no place in the file: lay the variables out one after another
            None => end,
        };
        end = end.max(aligned_end(offset, size));
        vars.push((offset, v.ty, if v.size == 0 { size } else { v.size }));
    }
    vars.sort_unstable();
    for (i, (offset, ty, size)) in vars.into_iter().enumerate() {
        let entry = at + 12 + i * 12;
        put(out, entry, ty);
        put(out, entry + 4, offset);
        put(out, entry + 8, size);
    }
    let size = index.map_or(end, |i| object.sections[i].size as u32);
    put(out, at + 8, size.max(1));
}

/// Offsets of the variables of a section of externs, as `completed` lays them out, and the section's size.
pub fn extern_layout(btf: &Btf, section: &str) -> (Vec<(String, u32, u32)>, u32) {
    let Some(t) = btf.find(section, Kind::DataSec) else {
        return (Vec::new(), 0);
    };
    let mut end = 0u32;
    let mut out = Vec::new();
    for v in btf.section_vars(&t) {
        let size = btf.size_of(v.ty).unwrap_or(v.size);
        out.push((btf.type_name(v.ty).to_owned(), end, size));
        end = aligned_end(end, size);
    }
    (out, end)
}

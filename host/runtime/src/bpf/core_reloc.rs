//! CO-RE: rewrites field offsets, sizes, type ids and enum values in a program's code to what the running kernel has.
//!
//! Works on a copy of the section's bytes; touches nothing else. A relocation that the kernel's types cannot satisfy turns
//! its instruction into a call that the verifier refuses only if it is reached, which is what lets gadgets guard it with
//! `bpf_core_field_exists`. Candidates of the same name must agree, else the relocation is ambiguous and refused.

use super::{
    btf::{Btf, Kind, Type, essential},
    core_patch::patch,
    core_shapes::{compatible_kinds, fields_compatible, types_compatible, types_match},
    object::Object,
};

/// The helper number in poisoned calls, the same as libbpf's, so that logs read alike ("invalid func unknown#195896080").
pub const POISON: i32 = 0x0bad_2310;
const MAX_DEPTH: u32 = 32;
const MAX_ACCESS: usize = 64;

/// Why CO-RE failed for an object.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CoreError {
    #[error("the CO-RE data (.BTF.ext) is damaged: {0}")]
    Damaged(&'static str),
    #[error("relocation {index} in {section} ({what}): {fault}")]
    Relocation { index: usize, section: String, what: String, fault: Fault },
}

/// What is wrong with one relocation.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Fault {
    #[error("of unknown kind")]
    Kind,
    #[error("its access string does not fit its type")]
    Access,
    #[error("its instruction lies outside the section")]
    Range,
    #[error("the instruction is not one that can be relocated")]
    Instruction,
    #[error("the instruction does not hold the value the relocation speaks of")]
    Value,
    #[error("the kernel has several types of this name that differ")]
    Ambiguous,
    #[error("the new value does not fit the instruction")]
    Overflow,
}

/// The thirteen kinds, with the numbers of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelocKind {
    FieldByteOffset,
    FieldByteSize,
    FieldExists,
    FieldSigned,
    FieldLshiftU64,
    FieldRshiftU64,
    TypeIdLocal,
    TypeIdTarget,
    TypeExists,
    TypeSize,
    EnumvalExists,
    EnumvalValue,
    TypeMatches,
}

use RelocKind as K;

impl RelocKind {
    fn from_number(n: u32) -> Option<K> {
        const ALL: [K; 13] = [
            K::FieldByteOffset,
            K::FieldByteSize,
            K::FieldExists,
            K::FieldSigned,
            K::FieldLshiftU64,
            K::FieldRshiftU64,
            K::TypeIdLocal,
            K::TypeIdTarget,
            K::TypeExists,
            K::TypeSize,
            K::EnumvalExists,
            K::EnumvalValue,
            K::TypeMatches,
        ];
        ALL.get(n as usize).copied()
    }

    fn on_type(self) -> bool {
        matches!(self, K::TypeIdLocal | K::TypeIdTarget | K::TypeExists | K::TypeSize | K::TypeMatches)
    }

    fn on_enum(self) -> bool {
        matches!(self, K::EnumvalExists | K::EnumvalValue)
    }

    /// Asks whether something is there: 0 is an answer.
    fn is_question(self) -> bool {
        matches!(self, K::FieldExists | K::TypeExists | K::EnumvalExists | K::TypeMatches)
    }
}

/// One relocation of `.BTF.ext`.
#[derive(Clone, Debug)]
pub struct CoreReloc {
    /// Name of the section it applies to.
    pub section: String,
    /// Byte offset in that section.
    pub offset: u32,
    pub type_id: u32,
    pub access: String,
    pub kind: RelocKind,
}

fn word(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(b.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// Walks one part of `.BTF.ext`: calls `f` with the section's name and each record.
pub(super) fn walk_ext<'a>(
    object: &'a Object,
    part: &'a [u8],
    mut f: impl FnMut(&'a str, &'a [u8]) -> Result<(), CoreError>,
) -> Result<u32, CoreError> {
    if part.is_empty() {
        return Ok(0);
    }
    let short = CoreError::Damaged("cut short");
    let Some(size) = word(part, 0) else {
        return Err(short);
    };
    if size < 8 || !size.is_multiple_of(4) {
        return Err(CoreError::Damaged("record size"));
    }
    let mut at = 4;
    while at < part.len() {
        let (Some(name), Some(count)) = (word(part, at), word(part, at + 4)) else {
            return Err(short);
        };
        at += 8;
        let section = object.btf.name(name);
        if section.is_empty() {
            return Err(CoreError::Damaged("no section"));
        }
        for _ in 0..count {
            let Some(record) = part.get(at..at + size as usize) else {
                return Err(short);
            };
            f(section, record)?;
            at += size as usize;
        }
    }
    Ok(size)
}

/// A part of `.BTF.ext` by its place in the header: 0 function info, 1 line info, 2 CO-RE.
pub(super) fn ext_part(ext: &[u8], which: usize) -> Result<&[u8], CoreError> {
    if ext.is_empty() {
        return Ok(&[]);
    }
    let damaged = CoreError::Damaged("header");
    let Some(header) = word(ext, 4).map(|h| h as usize) else { return Err(damaged) };
    // the first form, without CO-RE, or the present one and whatever may come after it
    if ext[..2] != [0x9f, 0xeb] || header != 24 && header < 32 || header > ext.len() {
        return Err(damaged);
    }
    if which == 2 && header == 24 {
        return Ok(&[]);
    }
    let (Some(off), Some(len)) = (word(ext, 8 + which * 8), word(ext, 12 + which * 8)) else { return Err(damaged) };
    let start = header.checked_add(off as usize);
    start.and_then(|s| ext.get(s..s.checked_add(len as usize)?)).ok_or(damaged)
}

/// All CO-RE relocations of an object.
pub fn relocations(object: &Object) -> Result<Vec<CoreReloc>, CoreError> {
    let mut out = Vec::new();
    let part = ext_part(&object.btf_ext, 2)?;
    walk_ext(object, part, |section, r| {
        let (Some(offset), Some(type_id), Some(access), Some(kind)) = (word(r, 0), word(r, 4), word(r, 8), word(r, 12))
        else {
            return Err(CoreError::Damaged("record size"));
        };
        let kind = RelocKind::from_number(kind).ok_or_else(|| CoreError::Relocation {
            index: out.len(),
            section: section.into(),
            what: object.btf.type_name(type_id).into(),
            fault: Fault::Kind,
        })?;
        out.push(CoreReloc { section: section.into(), offset, type_id, access: object.btf.name(access).into(), kind });
        Ok(())
    })?;
    Ok(out)
}

/// True where the kernel's types are needed: anything but the ids of the object's own types.
pub fn needs_target(relocs: &[CoreReloc]) -> bool {
    relocs.iter().any(|r| r.kind != K::TypeIdLocal)
}

/// Applies `relocs` to the code in `image`, a copy of the object's file. `targets` are searched together; the kernel's
/// types come first.
pub fn apply(object: &Object, relocs: &[CoreReloc], targets: &[&Btf], image: &mut [u8]) -> Result<(), CoreError> {
    for (index, r) in relocs.iter().enumerate() {
        let fail =
            |fault| CoreError::Relocation { index, section: r.section.clone(), what: describe(&object.btf, r), fault };
        let resolved = resolve(&object.btf, r, targets).map_err(fail)?;
        let section = object.sections.iter().find(|s| s.executable && s.name == r.section);
        let code = section.and_then(|s| image.get_mut(s.file_offset..s.file_offset + s.data.len()));
        patch(code.ok_or_else(|| fail(Fault::Range))?, r.offset as usize, &resolved).map_err(fail)?;
    }
    Ok(())
}

fn describe(btf: &Btf, r: &CoreReloc) -> String {
    format!("{:?} of {} at {}", r.kind, btf.type_name(r.type_id), r.access)
}

/// What an instruction is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The value the compiler left there, where it is known.
    pub old: Option<u64>,
    pub new: u64,
    /// Nothing fits: the instruction must not be reached.
    pub poison: bool,
    /// Sizes of the field there and here, for loads and stores.
    pub(super) sizes: Option<(u32, u32)>,
    /// The sizes differ and the load cannot simply be widened.
    pub(super) bad_size: bool,
}

/// One step of an access: into a member, or to an element.
#[derive(Clone, Copy, Debug)]
struct Step {
    type_id: u32,
    index: u32,
    named: bool,
}

/// An access resolved against one BTF.
#[derive(Clone, Debug)]
struct Spec {
    root: u32,
    steps: Vec<Step>,
    /// From the start of the root type.
    bits: u64,
}

/// Resolves one relocation without touching code.
pub fn resolve(local: &Btf, r: &CoreReloc, targets: &[&Btf]) -> Result<Resolved, Fault> {
    if r.kind == K::TypeIdLocal {
        let id = u64::from(r.type_id);
        return Ok(Resolved { old: None, new: id, poison: false, sizes: None, bad_size: false });
    }
    let spec = parse_access(local, r)?;
    let old = value(local, r.kind, Some(&spec))?;
    let root = local.ty(r.type_id).ok_or(Fault::Access)?;
    let name = essential(local.name(root.name_off));
    let mut found: Option<(Resolved, u64)> = None;
    for target in targets {
        for t in target.by_essential_name(name).filter(|t| compatible_kinds(t.kind, root.kind)) {
            let Some(there) = match_spec(local, r.kind, &spec, target, t.id)? else {
                continue;
            };
            let this = calculate(local, &spec, &old, target, &there, r.kind)?;
            match &found {
                None => found = Some((this, there.bits)),
                Some((first, bits)) => {
                    if *bits != there.bits || first.poison != this.poison || first.new != this.new {
                        return Err(Fault::Ambiguous);
                    }
                }
            }
        }
    }
    Ok(match found {
        Some((r, _)) => r,
        None => Resolved {
            old: old.as_ref().and_then(|v| known_old(local, r.kind, &spec, v)),
            new: 0,
            poison: !r.kind.is_question(),
            sizes: None,
            bad_size: false,
        },
    })
}

fn parse_access(btf: &Btf, r: &CoreReloc) -> Result<Spec, Fault> {
    let indices: Vec<u32> = r
        .access
        .split(':')
        .map(|p| p.parse().map_err(|_e: std::num::ParseIntError| Fault::Access))
        .collect::<Result<_, _>>()?;
    if indices.is_empty() || indices.len() > MAX_ACCESS {
        return Err(Fault::Access);
    }
    let mut spec = Spec { root: r.type_id, steps: Vec::new(), bits: 0 };
    if r.kind.on_type() {
        return if indices == [0] { Ok(spec) } else { Err(Fault::Access) };
    }
    let mut t = btf.resolve(r.type_id).ok_or(Fault::Access)?;
    spec.steps.push(Step { type_id: t.id, index: indices[0], named: r.kind.on_enum() });
    if r.kind.on_enum() {
        let fits = t.kind.is_enum() && indices.len() == 1 && indices[0] < t.vlen;
        return if fits { Ok(spec) } else { Err(Fault::Access) };
    }
    spec.bits = scaled(btf, t.id, indices[0])?;
    for &index in &indices[1..] {
        if t.kind.is_composite() {
            let m = btf.member(&t, index).ok_or(Fault::Access)?;
            spec.bits += u64::from(m.bit_offset);
            // anonymous members leave no step: the kernel may nest them otherwise
            if !btf.name(m.name_off).is_empty() {
                spec.steps.push(Step { type_id: t.id, index, named: true });
            }
            t = btf.resolve(m.ty).ok_or(Fault::Access)?;
        } else {
            let a = btf.array(&t).ok_or(Fault::Access)?;
            if index >= a.len && !is_flexible(btf, spec.steps.last(), a.len) {
                return Err(Fault::Access);
            }
            t = btf.resolve(a.elem).ok_or(Fault::Access)?;
            spec.steps.push(Step { type_id: t.id, index, named: false });
            spec.bits += scaled(btf, t.id, index)?;
        }
    }
    Ok(spec)
}

/// An array without length at the end of a struct: any index is in it.
fn is_flexible(btf: &Btf, step: Option<&Step>, len: u32) -> bool {
    let Some(s) = step.filter(|s| s.named && len == 0) else {
        return false;
    };
    btf.ty(s.type_id).is_some_and(|t| s.index + 1 == t.vlen)
}

fn scaled(btf: &Btf, elem: u32, index: u32) -> Result<u64, Fault> {
    if index == 0 {
        return Ok(0);
    }
    let size = btf.size_of(elem).ok_or(Fault::Access)?;
    (u64::from(size) * 8).checked_mul(u64::from(index)).filter(|b| *b < 1 << 40).ok_or(Fault::Access)
}

/// The same access in the target, by names; `None` where the target has no such thing.
fn match_spec(local: &Btf, kind: K, spec: &Spec, target: &Btf, root: u32) -> Result<Option<Spec>, Fault> {
    let mut out = Spec { root, steps: Vec::new(), bits: 0 };
    if kind.on_type() {
        let fits = if kind == K::TypeMatches {
            types_match(local, spec.root, target, root, false, MAX_DEPTH)
        } else {
            types_compatible(local, spec.root, target, root, MAX_DEPTH)
        };
        return Ok(fits.then_some(out));
    }
    if kind.on_enum() {
        let step = spec.steps[0];
        let wanted = local.ty(step.type_id).and_then(|t| local.enumerators(&t).nth(step.index as usize));
        let wanted = essential(local.name(wanted.ok_or(Fault::Access)?.name_off));
        let Some(t) = target.resolve(root).filter(|t| t.kind.is_enum()) else {
            return Ok(None);
        };
        let at = target.enumerators(&t).position(|e| essential(target.name(e.name_off)) == wanted);
        return Ok(at.map(|i| {
            out.steps.push(Step { type_id: t.id, index: i as u32, named: true });
            out
        }));
    }
    let Some(mut t) = target.resolve(root) else {
        return Ok(None);
    };
    for (i, step) in spec.steps.iter().enumerate() {
        if step.named {
            match find_member(local, step, target, &t, &mut out, MAX_DEPTH) {
                Some(next) => t = next,
                None => return Ok(None),
            }
            continue;
        }
        if i > 0 {
            let Some(a) = target.array(&t) else {
                return Ok(None);
            };
            if step.index >= a.len && !is_flexible(target, out.steps.last(), a.len) {
                return Ok(None);
            }
            let Some(elem) = target.resolve(a.elem) else {
                return Ok(None);
            };
            t = elem;
        }
        out.steps.push(Step { type_id: t.id, index: step.index, named: false });
        out.bits += scaled(target, t.id, step.index)?;
    }
    Ok(Some(out))
}

/// Finds a member by name, in anonymous members too; adds the step and gives the member's type.
fn find_member(local: &Btf, step: &Step, target: &Btf, t: &Type, out: &mut Spec, depth: u32) -> Option<Type> {
    let here = local.ty(step.type_id)?;
    let wanted = local.member(&here, step.index)?;
    let name = local.name(wanted.name_off);
    if depth == 0 || !t.kind.is_composite() {
        return None;
    }
    for (i, m) in target.members(t).enumerate() {
        let member_name = target.name(m.name_off);
        if member_name.is_empty() {
            let Some(inner) = target.resolve(m.ty) else {
                continue;
            };
            let (bits, len) = (out.bits, out.steps.len());
            out.bits += u64::from(m.bit_offset);
            if let Some(found) = find_member(local, step, target, &inner, out, depth - 1) {
                return Some(found);
            }
            out.bits = bits;
            out.steps.truncate(len);
        } else if member_name == name {
            if !fields_compatible(local, wanted.ty, target, m.ty, MAX_DEPTH) {
                return None;
            }
            out.bits += u64::from(m.bit_offset);
            out.steps.push(Step { type_id: t.id, index: i as u32, named: true });
            return target.resolve(m.ty);
        }
    }
    None
}

/// A relocation's value in one BTF.
#[derive(Clone, Copy, Debug)]
struct Number {
    number: u64,
    /// Size and type of the field, for byte offsets.
    field: Option<(u32, u32)>,
}

/// Where a bit field's bytes are to be loaded from: offset and width of the smallest aligned word that holds it all.
fn bitfield_word(bits: u64, bit_size: u32, size: u32) -> Result<(u64, u32), Fault> {
    let mut width = u64::from(size).max(1);
    loop {
        let offset = bits / 8 / width * width;
        if bits + u64::from(bit_size) - offset * 8 <= width * 8 {
            return Ok((offset, width as u32));
        }
        if width >= 8 {
            return Err(Fault::Access);
        }
        width *= 2;
    }
}

/// `Ok(None)` where there is nothing to compute (`spec` of a question that failed).
fn value(btf: &Btf, kind: K, spec: Option<&Spec>) -> Result<Option<Number>, Fault> {
    let Some(spec) = spec else { return Ok(None) };
    let number = |n: u64| Ok(Some(Number { number: n, field: None }));
    match kind {
        K::TypeIdLocal | K::TypeIdTarget => return number(spec.root.into()),
        K::TypeExists | K::TypeMatches | K::EnumvalExists | K::FieldExists => return number(1),
        K::TypeSize => return number(btf.size_of(spec.root).ok_or(Fault::Access)?.into()),
        K::EnumvalValue => {
            let s = spec.steps[0];
            let e = btf.ty(s.type_id).and_then(|t| btf.enumerators(&t).nth(s.index as usize));
            return number(e.ok_or(Fault::Access)?.value as u64);
        }
        _ => {}
    }
    let last = spec.steps.last().ok_or(Fault::Access)?;
    let t = btf.ty(last.type_id).ok_or(Fault::Access)?;
    if !last.named {
        // an element of an array, or the root itself
        let size = btf.size_of(t.id).ok_or(Fault::Access)?;
        return match kind {
            K::FieldByteOffset => Ok(Some(Number { number: spec.bits / 8, field: Some((size, t.id)) })),
            K::FieldByteSize => number(size.into()),
            _ => Err(Fault::Access),
        };
    }
    let m = btf.member(&t, last.index).ok_or(Fault::Access)?;
    let mt = btf.resolve(m.ty).ok_or(Fault::Access)?;
    let size = btf.size_of(mt.id).ok_or(Fault::Access)?;
    let bitfield = m.bit_size > 0;
    let bit_size = if bitfield { m.bit_size } else { size.saturating_mul(8) };
    let (offset, width) = if bitfield { bitfield_word(spec.bits, bit_size, size)? } else { (spec.bits / 8, size) };
    match kind {
        K::FieldByteOffset if bitfield => number(offset),
        K::FieldByteOffset => Ok(Some(Number { number: offset, field: Some((size, mt.id)) })),
        K::FieldByteSize => number(width.into()),
        K::FieldSigned => {
            let signed = mt.kind.is_enum() && mt.kflag || btf.int(&mt).is_some_and(|i| i.signed);
            number(signed.into())
        }
        K::FieldLshiftU64 => {
            let end = spec.bits + u64::from(bit_size) - offset * 8;
            number(64u64.checked_sub(end).ok_or(Fault::Access)?)
        }
        K::FieldRshiftU64 => number(64u64.checked_sub(bit_size.into()).ok_or(Fault::Access)?),
        _ => Err(Fault::Kind),
    }
}

fn calculate(
    local: &Btf,
    spec: &Spec,
    old: &Option<Number>,
    target: &Btf,
    there: &Spec,
    kind: K,
) -> Result<Resolved, Fault> {
    let new = value(target, kind, Some(there))?.ok_or(Fault::Access)?;
    let old = old.ok_or(Fault::Access)?;
    let mut out = Resolved {
        old: known_old(local, kind, spec, &old),
        new: new.number,
        poison: false,
        sizes: None,
        bad_size: false,
    };
    if let (Some((a, at)), Some((b, bt))) = (old.field, new.field)
        && a != b
    {
        // a load can be made wider or narrower where that cannot change the value: pointers and unsigned integers
        let (lt, tt) = (local.resolve(at), target.resolve(bt));
        let unsigned = |btf: &Btf, t: Option<Type>| t.and_then(|t| btf.int(&t)).is_some_and(|i| !i.signed);
        let pointers = lt.is_some_and(|t| t.kind == Kind::Ptr) && tt.is_some_and(|t| t.kind == Kind::Ptr);
        out.sizes = Some((a, b));
        out.bad_size = !(pointers || unsigned(local, lt) && unsigned(target, tt));
    }
    Ok(out)
}

/// Bit fields are loaded in ways the compiler chooses, so what it left there is not checked.
fn known_old(btf: &Btf, kind: K, spec: &Spec, old: &Number) -> Option<u64> {
    let bitfield = spec
        .steps
        .last()
        .filter(|s| s.named)
        .is_some_and(|s| btf.ty(s.type_id).and_then(|t| btf.member(&t, s.index)).is_some_and(|m| m.bit_size > 0));
    let shifts = matches!(kind, K::FieldByteOffset | K::FieldByteSize | K::FieldLshiftU64 | K::FieldRshiftU64);
    // and type ids change whenever objects are linked
    (!(bitfield && shifts) && kind != K::TypeIdTarget).then_some(old.number)
}

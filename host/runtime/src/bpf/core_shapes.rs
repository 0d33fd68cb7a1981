//! When two types are alike enough for CO-RE: fields that may be read as each other, types that exist or match.

use super::btf::{Btf, Kind, Type, essential};

pub(super) fn compatible_kinds(a: Kind, b: Kind) -> bool {
    a == b || a.is_enum() && b.is_enum()
}

/// Whether a field of one type may be read as the other: same shape, names of enums alike.
pub(super) fn fields_compatible(local: &Btf, l: u32, target: &Btf, t: u32, depth: u32) -> bool {
    let (Some(l), Some(t)) = (local.resolve(l), target.resolve(t)) else {
        return false;
    };
    if l.kind.is_composite() && t.kind.is_composite() {
        return true;
    }
    if depth == 0 || !compatible_kinds(l.kind, t.kind) {
        return false;
    }
    match l.kind {
        Kind::Ptr | Kind::Float => true,
        Kind::Fwd | Kind::Enum | Kind::Enum64 => {
            let (a, b) = (essential(local.name(l.name_off)), essential(target.name(t.name_off)));
            a.is_empty() || b.is_empty() || a == b
        }
        Kind::Int => plain_int(local, &l) && plain_int(target, &t),
        Kind::Array => match (local.array(&l), target.array(&t)) {
            (Some(a), Some(b)) => fields_compatible(local, a.elem, target, b.elem, depth - 1),
            _ => false,
        },
        _ => false,
    }
}

fn plain_int(btf: &Btf, t: &Type) -> bool {
    btf.int(t).is_some_and(|i| i.bit_offset == 0)
}

/// Whether two types are of the same shape, names and sizes aside (TYPE_EXISTS and the like).
pub(super) fn types_compatible(local: &Btf, l: u32, target: &Btf, t: u32, depth: u32) -> bool {
    let (Some(l), Some(t)) = (local.resolve(l), target.resolve(t)) else {
        return false;
    };
    if depth == 0 || !compatible_kinds(l.kind, t.kind) {
        return false;
    }
    match l.kind {
        Kind::Void | Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64 | Kind::Fwd => true,
        Kind::Int => plain_int(local, &l) && plain_int(target, &t),
        Kind::Ptr => types_compatible(local, l.size_or_type, target, t.size_or_type, depth - 1),
        Kind::Array => match (local.array(&l), target.array(&t)) {
            (Some(a), Some(b)) => types_compatible(local, a.elem, target, b.elem, depth - 1),
            _ => false,
        },
        Kind::FuncProto => {
            l.vlen == t.vlen
                && local
                    .params(&l)
                    .zip(target.params(&t))
                    .all(|(a, b)| types_compatible(local, a, target, b, depth - 1))
                && types_compatible(local, l.size_or_type, target, t.size_or_type, depth - 1)
        }
        _ => false,
    }
}

/// Whether all that the local type declares is in the target, names included (TYPE_MATCHES).
pub(super) fn types_match(local: &Btf, l: u32, target: &Btf, t: u32, behind_ptr: bool, depth: u32) -> bool {
    let (Some(l), Some(t)) = (local.resolve(l), target.resolve(t)) else {
        return false;
    };
    if depth == 0 || essential(local.name(l.name_off)) != essential(target.name(t.name_off)) {
        return false;
    }
    let same = l.kind == t.kind;
    match l.kind {
        Kind::Void => same,
        Kind::Fwd if same => l.kflag == t.kflag,
        // a forward declaration says struct or union by its flag
        Kind::Fwd => behind_ptr && t.kind == if l.kflag { Kind::Union } else { Kind::Struct },
        Kind::Enum | Kind::Enum64 => {
            compatible_kinds(l.kind, t.kind)
                && l.vlen <= t.vlen
                && local.enumerators(&l).all(|a| {
                    let name = essential(local.name(a.name_off));
                    target.enumerators(&t).any(|b| essential(target.name(b.name_off)) == name)
                })
        }
        Kind::Struct | Kind::Union if behind_ptr => same || t.kind == Kind::Fwd && t.kflag == (l.kind == Kind::Union),
        Kind::Struct | Kind::Union => same && members_match(local, &l, target, &t, depth),
        Kind::Int => match (local.int(&l), target.int(&t)) {
            (Some(a), Some(b)) => l.size_or_type == t.size_or_type && a.signed == b.signed,
            _ => false,
        },
        Kind::Ptr => same && types_match(local, l.size_or_type, target, t.size_or_type, true, depth - 1),
        Kind::Array => match (local.array(&l), target.array(&t)) {
            (Some(a), Some(b)) => a.len == b.len && types_match(local, a.elem, target, b.elem, behind_ptr, depth - 1),
            _ => false,
        },
        Kind::FuncProto => {
            same && l.vlen == t.vlen
                && local
                    .params(&l)
                    .zip(target.params(&t))
                    .all(|(a, b)| types_match(local, a, target, b, behind_ptr, depth - 1))
                && types_match(local, l.size_or_type, target, t.size_or_type, behind_ptr, depth - 1)
        }
        _ => false,
    }
}

fn members_match(local: &Btf, l: &Type, target: &Btf, t: &Type, depth: u32) -> bool {
    l.vlen <= t.vlen
        && local.members(l).all(|a| {
            let name = essential(local.name(a.name_off));
            target.members(t).any(|b| {
                essential(target.name(b.name_off)) == name && types_match(local, a.ty, target, b.ty, false, depth - 1)
            })
        })
}

//! Writing what CO-RE resolved into a program's instructions.

use super::{
    core_reloc::{Fault, POISON, Resolved},
    insn::{self, Insn},
};

fn get(code: &[u8], at: usize) -> Option<Insn> {
    Some(Insn(code.get(at..at.checked_add(insn::SIZE)?)?.try_into().ok()?))
}

fn put(code: &mut [u8], at: usize, i: Insn) {
    code[at..at + insn::SIZE].copy_from_slice(&i.0);
}

fn poison(code: &mut [u8], at: usize) {
    put(code, at, Insn::new(insn::CALL, 0, 0, 0, POISON));
}

/// Writes a resolved value into the instruction at byte `at`.
pub(super) fn patch(code: &mut [u8], at: usize, r: &Resolved) -> Result<(), Fault> {
    let mut i = get(code, at).filter(|_| at.is_multiple_of(insn::SIZE)).ok_or(Fault::Range)?;
    let wide = i.is_wide();
    let second = if wide { Some(get(code, at + insn::SIZE).ok_or(Fault::Range)?) } else { None };
    if r.poison {
        poison(code, at);
        if wide {
            poison(code, at + insn::SIZE);
        }
        return Ok(());
    }
    let check = |held: u64, mask: u64| r.old.is_none_or(|o| (o & mask) == (held & mask));
    match i.class() {
        insn::CLASS_ALU | insn::CLASS_ALU64 => {
            if i.code() & 0x08 != 0 {
                return Err(Fault::Instruction);
            }
            if !check(i.imm() as u32 as u64, 0xffff_ffff) {
                return Err(Fault::Value);
            }
            i.set_imm(r.new as u32 as i32);
        }
        insn::CLASS_LDX | insn::CLASS_ST | insn::CLASS_STX => {
            if !check(i.off() as u16 as u64, 0xffff) {
                return Err(Fault::Value);
            }
            if r.bad_size {
                poison(code, at);
                return Ok(());
            }
            let off = i16::try_from(r.new).map_err(|_e| Fault::Overflow)?;
            i.set_off(off);
            if let Some((from, to)) = r.sizes {
                resize(&mut i, from, to)?;
            }
        }
        _ if wide => {
            let mut hi = second.ok_or(Fault::Range)?;
            let held = u64::from(i.imm() as u32) | u64::from(hi.imm() as u32) << 32;
            if i.src() != 0 || i.off() != 0 || hi.code() != 0 {
                return Err(Fault::Instruction);
            }
            if !check(held, u64::MAX) {
                return Err(Fault::Value);
            }
            i.set_imm(r.new as u32 as i32);
            hi.set_imm((r.new >> 32) as u32 as i32);
            put(code, at + insn::SIZE, hi);
        }
        _ => return Err(Fault::Instruction),
    }
    put(code, at, i);
    Ok(())
}

/// Changes the width of a load or store.
fn resize(i: &mut Insn, from: u32, to: u32) -> Result<(), Fault> {
    // the size bits of the opcode: W 0x00, H 0x08, B 0x10, DW 0x18
    const WIDTHS: [(u32, u8); 4] = [(4, 0x00), (2, 0x08), (1, 0x10), (8, 0x18)];
    let held = WIDTHS.iter().find(|(_, bits)| i.code() & 0x18 == *bits).map(|(w, _)| *w);
    if held != Some(from) {
        return Err(Fault::Instruction);
    }
    let bits = WIDTHS.iter().find(|(w, _)| *w == to).map(|(_, b)| *b).ok_or(Fault::Overflow)?;
    i.set_code(i.code() & !0x18 | bits);
    Ok(())
}

//! One BPF instruction as eight bytes, and the few opcodes that relocation and linking touch.

/// Size of an instruction in bytes.
pub const SIZE: usize = 8;
pub const LD_IMM64: u8 = 0x18;
pub const CALL: u8 = 0x85;
pub const CLASS: u8 = 0x07;
pub const CLASS_LDX: u8 = 0x01;
pub const CLASS_ST: u8 = 0x02;
pub const CLASS_STX: u8 = 0x03;
pub const CLASS_ALU: u8 = 0x04;
pub const CLASS_ALU64: u8 = 0x07;
/// `src_reg` of a `LD_IMM64` that holds a map's fd, an address in a map's value, or a function.
pub const PSEUDO_MAP_FD: u8 = 1;
pub const PSEUDO_MAP_VALUE: u8 = 2;
pub const PSEUDO_FUNC: u8 = 4;
/// `src_reg` of a `CALL` to another function of the program.
pub const PSEUDO_CALL: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Insn(pub [u8; SIZE]);

impl Insn {
    pub fn new(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Insn {
        let (o, i) = (off.to_le_bytes(), imm.to_le_bytes());
        Insn([code, dst & 0xf | src << 4, o[0], o[1], i[0], i[1], i[2], i[3]])
    }

    pub fn code(self) -> u8 {
        self.0[0]
    }

    pub fn class(self) -> u8 {
        self.0[0] & CLASS
    }

    pub fn src(self) -> u8 {
        self.0[1] >> 4
    }

    pub fn off(self) -> i16 {
        i16::from_le_bytes([self.0[2], self.0[3]])
    }

    pub fn imm(self) -> i32 {
        i32::from_le_bytes([self.0[4], self.0[5], self.0[6], self.0[7]])
    }

    pub fn set_code(&mut self, code: u8) {
        self.0[0] = code;
    }

    pub fn set_src(&mut self, src: u8) {
        self.0[1] = self.0[1] & 0xf | src << 4;
    }

    pub fn set_off(&mut self, off: i16) {
        self.0[2..4].copy_from_slice(&off.to_le_bytes());
    }

    pub fn set_imm(&mut self, imm: i32) {
        self.0[4..8].copy_from_slice(&imm.to_le_bytes());
    }

    /// The first half of a 16-byte load.
    pub fn is_wide(self) -> bool {
        self.code() == LD_IMM64
    }

    pub fn is_local_call(self) -> bool {
        self.code() == CALL && self.src() == PSEUDO_CALL
    }
}

/// Bytes of a section as instructions; a rest of less than eight bytes is left out.
pub fn decode(bytes: &[u8]) -> Vec<Insn> {
    bytes.as_chunks::<SIZE>().0.iter().map(|c| Insn(*c)).collect()
}

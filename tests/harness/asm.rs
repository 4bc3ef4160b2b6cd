//! An assembler of single instructions on the instruction table. It panics on operands that do not fit.

use frontend::Opcode;
use frontend::encode::{Operands, encode};

pub(crate) const ZERO: u8 = 0;
pub(crate) const RA: u8 = 1;
pub(crate) const T0: u8 = 5;
pub(crate) const T1: u8 = 6;
pub(crate) const A0: u8 = 10;
pub(crate) const A1: u8 = 11;
pub(crate) const A2: u8 = 12;
pub(crate) const A3: u8 = 13;
pub(crate) const A6: u8 = 16;
pub(crate) const A7: u8 = 17;

/// Any instruction.
pub(crate) fn insn(op: Opcode, operands: Operands) -> u32 {
    encode(op, &operands).unwrap_or_else(|| panic!("{} does not take {operands:?}", op.mnemonic()))
}

/// An instruction without operands, or with all of them 0.
pub(crate) fn bare(op: Opcode) -> u32 {
    insn(op, Operands::default())
}

/// `op rd, rs1, imm`; also loads and `jalr`.
pub(crate) fn i(op: Opcode, rd: u8, rs1: u8, imm: i64) -> u32 {
    insn(op, Operands { rd, rs1, imm, ..Operands::default() })
}

/// `op rd, rs1, rs2`
pub(crate) fn r(op: Opcode, rd: u8, rs1: u8, rs2: u8) -> u32 {
    insn(op, Operands { rd, rs1, rs2, ..Operands::default() })
}

/// `op rs2, imm(rs1)`: a store, or a branch
pub(crate) fn s(op: Opcode, rs2: u8, rs1: u8, imm: i64) -> u32 {
    insn(op, Operands { rs1, rs2, imm, ..Operands::default() })
}

/// `csrrw rd, csr, rs1`
pub(crate) fn csrrw(rd: u8, csr: u16, rs1: u8) -> u32 {
    i(Opcode::Csrrw, rd, rs1, csr.into())
}

/// `csrrs rd, csr, rs1`
pub(crate) fn csrrs(rd: u8, csr: u16, rs1: u8) -> u32 {
    i(Opcode::Csrrs, rd, rs1, csr.into())
}

/// `csrrc rd, csr, rs1`
pub(crate) fn csrrc(rd: u8, csr: u16, rs1: u8) -> u32 {
    i(Opcode::Csrrc, rd, rs1, csr.into())
}

/// `csrr rd, csr`
pub(crate) fn csrr(rd: u8, csr: u16) -> u32 {
    csrrs(rd, csr, ZERO)
}

/// `csrw csr, rs1`
pub(crate) fn csrw(csr: u16, rs1: u8) -> u32 {
    csrrw(ZERO, csr, rs1)
}

/// `li rd, imm` of 12 bits
pub(crate) fn li(rd: u8, imm: i64) -> u32 {
    i(Opcode::Addi, rd, ZERO, imm)
}

/// Instructions that put any number into `rd`.
pub(crate) fn li_64(rd: u8, value: i64) -> Vec<u32> {
    let low = value << 52 >> 52;
    if value == low {
        return vec![li(rd, value)];
    }
    let high = value.wrapping_sub(low);
    if i64::from(high as i32) == high {
        // addiw works where the sum is a 32-bit number, as in what compilers emit.
        let add = if i64::from(value as i32) == value { Opcode::Addiw } else { Opcode::Addi };
        return vec![lui(rd, high), i(add, rd, rd, low)];
    }
    let zeros = high.trailing_zeros();
    let mut words = li_64(rd, high >> zeros);
    words.push(i(Opcode::Slli, rd, rd, zeros.into()));
    if low != 0 {
        words.push(i(Opcode::Addi, rd, rd, low));
    }
    words
}

/// `lui rd, imm >> 12`; `imm` is the value the register gets.
pub(crate) fn lui(rd: u8, imm: i64) -> u32 {
    i(Opcode::Lui, rd, ZERO, imm)
}

/// `j offset`
pub(crate) fn j(offset: i64) -> u32 {
    i(Opcode::Jal, ZERO, ZERO, offset)
}

/// `nop`
pub(crate) fn nop() -> u32 {
    li(ZERO, 0)
}

/// Arithmetic on a1, a2 and a3, each step of which depends on the one before: the body of a loop to measure.
pub(crate) fn arithmetic() -> [u32; 7] {
    use Opcode::{Add, Andi, Or, Slli, Srli, Sub, Xor};
    [
        r(Add, A1, A1, A2),
        i(Slli, A3, A1, 7),
        r(Xor, A2, A2, A3),
        i(Srli, A3, A2, 9),
        r(Sub, A1, A1, A3),
        i(Andi, A3, A1, 255),
        r(Or, A2, A2, A3),
    ]
}

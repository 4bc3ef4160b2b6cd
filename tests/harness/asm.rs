//! An assembler of single instructions on the instruction table. It panics on operands that do not fit.

use frontend::Opcode;
use frontend::encode::{Operands, encode};

pub const ZERO: u8 = 0;
pub const RA: u8 = 1;
pub const T0: u8 = 5;
pub const T1: u8 = 6;
pub const A0: u8 = 10;
pub const A1: u8 = 11;
pub const A2: u8 = 12;
pub const A3: u8 = 13;

/// Any instruction.
pub fn insn(op: Opcode, operands: Operands) -> u32 {
    encode(op, &operands).unwrap_or_else(|| panic!("{} does not take {operands:?}", op.mnemonic()))
}

/// An instruction without operands, or with all of them 0.
pub fn bare(op: Opcode) -> u32 {
    insn(op, Operands::default())
}

/// `op rd, rs1, imm`; also loads and `jalr`.
pub fn i(op: Opcode, rd: u8, rs1: u8, imm: i64) -> u32 {
    insn(op, Operands { rd, rs1, imm, ..Operands::default() })
}

/// `op rd, rs1, rs2`
pub fn r(op: Opcode, rd: u8, rs1: u8, rs2: u8) -> u32 {
    insn(op, Operands { rd, rs1, rs2, ..Operands::default() })
}

/// `op rs2, imm(rs1)`: a store, or a branch
pub fn s(op: Opcode, rs2: u8, rs1: u8, imm: i64) -> u32 {
    insn(op, Operands { rs1, rs2, imm, ..Operands::default() })
}

/// `csrrw rd, csr, rs1`
pub fn csrrw(rd: u8, csr: u16, rs1: u8) -> u32 {
    i(Opcode::Csrrw, rd, rs1, csr.into())
}

/// `csrrs rd, csr, rs1`
pub fn csrrs(rd: u8, csr: u16, rs1: u8) -> u32 {
    i(Opcode::Csrrs, rd, rs1, csr.into())
}

/// `csrrc rd, csr, rs1`
pub fn csrrc(rd: u8, csr: u16, rs1: u8) -> u32 {
    i(Opcode::Csrrc, rd, rs1, csr.into())
}

/// `csrr rd, csr`
pub fn csrr(rd: u8, csr: u16) -> u32 {
    csrrs(rd, csr, ZERO)
}

/// `csrw csr, rs1`
pub fn csrw(csr: u16, rs1: u8) -> u32 {
    csrrw(ZERO, csr, rs1)
}

/// `li rd, imm` of 12 bits
pub fn li(rd: u8, imm: i64) -> u32 {
    i(Opcode::Addi, rd, ZERO, imm)
}

/// `lui rd, imm >> 12`; `imm` is the value the register gets.
pub fn lui(rd: u8, imm: i64) -> u32 {
    i(Opcode::Lui, rd, ZERO, imm)
}

/// `j offset`
pub fn j(offset: i64) -> u32 {
    i(Opcode::Jal, ZERO, ZERO, offset)
}

/// `nop`
pub fn nop() -> u32 {
    li(ZERO, 0)
}

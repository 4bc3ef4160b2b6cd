//! From [`Insn`] to text in the style of GNU objdump with `-M no-aliases`.
//!
//! The text is that of the base instruction, with ABI register names; the length tells whether it was
//! compressed.

use std::fmt;

use crate::csr_name;
use crate::insn::Insn;
use crate::operand::{Imm, Operand};

/// ABI names of the integer registers.
pub const GPR_NAMES: [&str; 32] = [
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0", "a1", "a2", "a3", "a4", "a5", "a6",
    "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
];

/// ABI names of the floating-point registers.
pub const FPR_NAMES: [&str; 32] = [
    "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "fs0", "fs1", "fa0", "fa1", "fa2", "fa3", "fa4",
    "fa5", "fa6", "fa7", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8",
    "ft9", "ft10", "ft11",
];

/// Rounding modes by number; no decoded instruction has 5 or 6.
const ROUNDING_MODES: [&str; 8] = ["rne", "rtz", "rdn", "rup", "rmm", "5", "6", "dyn"];

/// The constants of Zfa's `fli`, by number.
const FLI_CONSTANTS: [&str; 32] = [
    "-0x1p+0", "min", "0x1p-16", "0x1p-15", "0x1p-8", "0x1p-7", "0x1p-4", "0x1p-3", "0x1p-2", "0x1.4p-2",
    "0x1.8p-2", "0x1.cp-2", "0x1p-1", "0x1.4p-1", "0x1.8p-1", "0x1.cp-1", "0x1p+0", "0x1.4p+0", "0x1.8p+0",
    "0x1.cp+0", "0x1p+1", "0x1.4p+1", "0x1.8p+1", "0x1p+2", "0x1p+3", "0x1p+4", "0x1p+7", "0x1p+8",
    "0x1p+15", "0x1p+16", "inf", "nan",
];

/// An instruction at an address, to be printed.
#[derive(Clone, Copy, Debug)]
pub struct Disassembly<'a> {
    insn: &'a Insn,
    pc: u64,
}

/// The text of `insn` at address `pc`, which matters to branch targets only.
pub fn disassemble(insn: &Insn, pc: u64) -> Disassembly<'_> {
    Disassembly { insn, pc }
}

/// Index for a table of 32 names; register fields are five bits, but an [`Insn`] made by hand may hold
/// anything.
fn index(number: u8) -> usize {
    number as usize & 31
}

impl fmt::Display for Disassembly<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let insn = self.insn;
        let row = insn.op.row();
        f.write_str(row.mnemonic)?;
        for operand in row.operands {
            match operand {
                Operand::AqRl => f.write_str(["", ".rl", ".aq", ".aqrl"][insn.rm as usize & 3])?,
                Operand::Immediate(Imm::MopR | Imm::MopRr) => write!(f, ".{}", insn.imm)?,
                _ => {}
            }
        }
        let mut separator = ' ';
        for &operand in row.operands {
            if self.is_unwritten(operand) {
                continue;
            }
            write!(f, "{separator}")?;
            separator = ',';
            self.fmt_operand(operand, f)?;
        }
        Ok(())
    }
}

impl Disassembly<'_> {
    /// Whether the operand is part of the mnemonic or left to its default.
    fn is_unwritten(&self, operand: Operand) -> bool {
        match operand {
            Operand::AqRl | Operand::Immediate(Imm::MopR | Imm::MopRr) => true,
            Operand::Rm => self.insn.rm == 7,
            Operand::RmExact => self.insn.rm == 0,
            _ => false,
        }
    }

    fn fmt_operand(&self, operand: Operand, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let &Insn { rd, rs1, rs2, rs3, rm, imm, .. } = self.insn;
        match operand {
            Operand::Rd => f.write_str(GPR_NAMES[index(rd)]),
            Operand::Rs1 => f.write_str(GPR_NAMES[index(rs1)]),
            Operand::Rs2 => f.write_str(GPR_NAMES[index(rs2)]),
            Operand::Fd => f.write_str(FPR_NAMES[index(rd)]),
            Operand::Fs1 => f.write_str(FPR_NAMES[index(rs1)]),
            Operand::Fs2 => f.write_str(FPR_NAMES[index(rs2)]),
            Operand::Fs3 => f.write_str(FPR_NAMES[index(rs3)]),
            Operand::Rm | Operand::RmExact => f.write_str(ROUNDING_MODES[rm as usize & 7]),
            Operand::Address => write!(f, "({})", GPR_NAMES[index(rs1)]),
            Operand::Offset(_) => write!(f, "{imm}({})", GPR_NAMES[index(rs1)]),
            Operand::Target(_) => write!(f, "{:#x}", self.pc.wrapping_add(imm as u64)),
            Operand::Immediate(Imm::Zimm) => write!(f, "{rs1}"),
            Operand::Immediate(Imm::U) => write!(f, "{:#x}", imm >> 12 & 0xf_ffff),
            Operand::Immediate(Imm::Shamt5 | Imm::Shamt6) => write!(f, "{imm:#x}"),
            Operand::Immediate(Imm::Fli) => f.write_str(FLI_CONSTANTS[index(imm as u8)]),
            Operand::Immediate(Imm::Csr) => match csr_name::name(imm as u16) {
                Some(name) => f.write_str(&name),
                None => write!(f, "{imm:#x}"),
            },
            Operand::Immediate(Imm::Fence) => {
                fmt_fence_set(imm >> 4, f)?;
                f.write_str(",")?;
                fmt_fence_set(imm, f)
            }
            Operand::Immediate(_) => write!(f, "{imm}"),
            Operand::AqRl => Ok(()),
        }
    }
}

/// Writes the low four bits of `set` as the letters of `iorw` that are in it.
fn fmt_fence_set(set: i64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if set & 0xf == 0 {
        return f.write_str("0");
    }
    for (bit, letter) in [(8, "i"), (4, "o"), (2, "r"), (1, "w")] {
        if set & bit != 0 {
            f.write_str(letter)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insn::ROWS;
    use crate::{Decoder, Isa};

    /// The address that the golden file's instructions are at.
    const PC: u64 = 0x8000_0000;

    fn text(bits: u32) -> String {
        match Decoder::new(&Isa::ALL).decode(bits) {
            Some(insn) => disassemble(&insn, PC).to_string(),
            None => "illegal".to_string(),
        }
    }

    #[test]
    fn operands_are_written_as_objdump_writes_them() {
        assert_eq!(text(0x0015_0513), "addi a0,a0,1");
        assert_eq!(text(0x0081_3783), "ld a5,8(sp)");
        assert_eq!(text(0x67a2), "ld a5,8(sp)");
        assert_eq!(text(0xfeb5_0ee3), "beq a0,a1,0x7ffffffc");
        assert_eq!(text(0xffff_f517), "auipc a0,0xfffff");
        assert_eq!(text(0x06b6_352f), "amoadd.d.aqrl a0,a1,(a2)");
        assert_eq!(text(0x00c5_9553), "fadd.s fa0,fa1,fa2,rtz");
        assert_eq!(text(0x3a15_9573), "csrrw a0,pmpcfg1,a1");
        assert_eq!(text(0x8330_000f), "fence.tso");
        assert_eq!(text(0x0330_000f), "fence rw,rw");
        assert_eq!(text(0x85d5_c573), "mop.r.5 a0,a1");
        assert_eq!(text(0), "illegal");
    }

    /// `testdata/disasm.txt` holds encodings and their text, checked against objdump. HARTVM_BLESS=1 writes
    /// the text anew, keeping the encodings.
    #[test]
    fn golden_file_agrees() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/disasm.txt");
        let golden = std::fs::read_to_string(path).expect("the golden file is readable");
        let mut ours = String::new();
        let mut seen = std::collections::HashSet::new();
        for line in golden.lines() {
            if line.starts_with('#') || line.is_empty() {
                ours += &format!("{line}\n");
                continue;
            }
            let encoding = line.split_whitespace().next().expect("a line is not empty");
            let bits =
                u32::from_str_radix(encoding, 16).expect("a line starts with an encoding in hexadecimal");
            ours += &format!("{encoding:8}  {}\n", text(bits));
            seen.extend(Decoder::new(&Isa::ALL).decode(bits).map(|insn| insn.op));
        }
        if std::env::var_os("HARTVM_BLESS").is_some_and(|value| value == "1") {
            std::fs::write(path, &ours).expect("the golden file is writable");
        } else {
            for (ours, golden) in ours.lines().zip(golden.lines()) {
                assert_eq!(ours, golden);
            }
        }
        for row in ROWS {
            assert!(seen.contains(&row.op), "the golden file has no {}", row.mnemonic);
        }
    }
}

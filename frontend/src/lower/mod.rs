//! What each instruction means: one row per instruction that emits IR. The compiler refuses a table row without one.

mod atomic;
mod base;
mod bits;
mod float;
mod system;

use crate::builder::Builder;
use crate::insn::{Insn, Opcode};

/// The meaning of one instruction.
type Lower = fn(&mut Builder, &Insn);

/// Rows of one file of instructions.
type Rows = &'static [(Opcode, Lower)];

const FILES: [Rows; 5] = [base::ROWS, bits::ROWS, atomic::ROWS, float::ROWS, system::ROWS];

const LOWER: [Lower; Opcode::COUNT] = {
    fn missing(_: &mut Builder, _: &Insn) {}
    let mut table: [Lower; Opcode::COUNT] = [missing; Opcode::COUNT];
    let mut filled = [false; Opcode::COUNT];
    let mut file = 0;
    while file < FILES.len() {
        let mut row = 0;
        while row < FILES[file].len() {
            let (op, lower) = FILES[file][row];
            assert!(!filled[op as usize], "an instruction has two meanings");
            filled[op as usize] = true;
            table[op as usize] = lower;
            row += 1;
        }
        file += 1;
    }
    let mut op = 0;
    while op < Opcode::COUNT {
        assert!(filled[op], "an instruction of the table has no meaning in lower/");
        op += 1;
    }
    table
};

/// Emits the meaning of `insn`.
pub(crate) fn lower(builder: &mut Builder, insn: &Insn) {
    LOWER[insn.op as usize](builder, insn);
}

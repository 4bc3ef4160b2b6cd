//! Which rows of the instruction tables and which operations of the intermediate representation were executed.

use std::collections::HashMap;
use std::fmt;

use frontend::insn::ROWS;
use frontend::insn_c::{ROWS_C, RowC};
use frontend::ir::{Code, Helper, Op};
use frontend::{Decoder, Isa, Opcode};

/// A row of one of the tables, by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Row {
    Full(usize),
    Compressed(usize),
}

/// Counts of what was executed, also where it ended in a trap.
#[derive(Clone)]
pub struct Coverage {
    isa: Isa,
    insns: HashMap<u32, u64>,
    rows: Vec<u64>,
    rows_c: Vec<u64>,
    ops: Vec<u64>,
    helpers: Vec<u64>,
    illegal: u64,
}

impl Coverage {
    /// Nothing yet, for harts with these extensions.
    pub fn new(isa: Isa) -> Self {
        Self {
            isa,
            insns: HashMap::new(),
            rows: vec![0; ROWS.len()],
            rows_c: vec![0; ROWS_C.len()],
            ops: vec![0; Code::ALL.len()],
            helpers: vec![0; Helper::ALL.len()],
            illegal: 0,
        }
    }

    /// An operation was executed.
    #[inline]
    pub(crate) fn op(&mut self, op: &Op) {
        match op.code {
            Code::Call => self.helpers[op.helper() as usize] += 1,
            code => self.ops[code as usize] += 1,
        }
    }

    /// An instruction was executed.
    pub(crate) fn insn(&mut self, bits: u32) {
        *self.insns.entry(bits).or_default() += 1;
        // Bounded, whatever the guest executes.
        if self.insns.len() > 1 << 16 {
            self.settle();
        }
    }

    /// Turns encodings into rows.
    fn settle(&mut self) {
        let decoder = Decoder::new(&self.isa);
        for (bits, count) in std::mem::take(&mut self.insns) {
            match self.row(&decoder, bits) {
                Some(Row::Full(index)) => self.rows[index] += count,
                Some(Row::Compressed(index)) => self.rows_c[index] += count,
                None => self.illegal += count,
            }
        }
    }

    fn row(&self, decoder: &Decoder, bits: u32) -> Option<Row> {
        let insn = decoder.decode(bits)?;
        if insn.len == 4 {
            return Some(Row::Full(insn.op as usize));
        }
        // As the decoder has it: the finest pattern that matches.
        let matching = ROWS_C
            .iter()
            .enumerate()
            .filter(|(_, row)| self.isa.contains_all(row.needs) && row.pattern.matches(bits));
        let finest = matching.max_by_key(|(_, row)| row.pattern.mask.count_ones());
        finest.map(|(index, _)| Row::Compressed(index))
    }

    /// Adds the counts of another hart.
    pub fn merge(&mut self, mut other: Coverage) {
        self.settle();
        other.settle();
        let add =
            |to: &mut Vec<u64>, from: Vec<u64>| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        add(&mut self.rows, other.rows);
        add(&mut self.rows_c, other.rows_c);
        add(&mut self.ops, other.ops);
        add(&mut self.helpers, other.helpers);
        self.illegal += other.illegal;
    }

    /// How often an instruction was executed in its 32-bit encoding.
    pub fn count(&self, op: Opcode) -> u64 {
        let mut settled = self.clone();
        settled.settle();
        settled.rows[op as usize]
    }
}

/// One list of things that can be executed.
struct Section<'a> {
    title: &'a str,
    /// Names with counts.
    items: Vec<(String, u64)>,
}

impl fmt::Display for Section<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let executed = self.items.iter().filter(|(_, count)| *count > 0).count();
        writeln!(f, "{}: {executed} of {} executed", self.title, self.items.len())?;
        for (name, count) in self.items.iter().filter(|(_, count)| *count > 0) {
            writeln!(f, "{count:>14}  {name}")?;
        }
        if executed < self.items.len() {
            writeln!(f, "never executed:")?;
            let mut line = String::new();
            for (name, _) in self.items.iter().filter(|(_, count)| *count == 0) {
                if line.len() + name.len() > 100 {
                    writeln!(f, " {line}")?;
                    line.clear();
                }
                line = line + " " + name;
            }
            writeln!(f, " {line}")?;
        }
        writeln!(f)
    }
}

/// Tables for people, in the order of the instruction tables and the lists of operations.
impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut settled = self.clone();
        settled.settle();
        let Coverage { rows, rows_c, ops, helpers, illegal, .. } = settled;
        let base = |row: &RowC| format!("{} ({})", row.mnemonic, row.base.mnemonic());
        let full = ROWS.iter().map(|row| row.mnemonic.to_string()).zip(rows).collect();
        let compressed = ROWS_C.iter().map(base).zip(rows_c).collect();
        let ops = Code::ALL.iter().zip(ops);
        // A call is counted by its helper. Where branches meet is in the blocks of translators only, and nothing is done there.
        let ops = ops
            .filter(|(code, _)| !matches!(code, Code::Call | Code::Join))
            .map(|(code, count)| (format!("{code:?}"), count));
        let helpers = Helper::ALL.iter().map(|helper| format!("{helper:?}")).zip(helpers).collect();
        let sections = [
            ("instructions of 32 bits", full),
            ("compressed instructions (and what they stand for)", compressed),
            ("IR operations", ops.collect()),
            ("IR helpers", helpers),
        ];
        for (title, items) in sections {
            Section { title, items }.fmt(f)?;
        }
        writeln!(f, "illegal instructions executed: {illegal}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_counted_in_their_rows() {
        let mut coverage = Coverage::new(Isa::ALL);
        let (addi, c_addi, c_mv) = (0x0015_0513, 0x0505, 0x852e);
        for bits in [addi, addi, c_addi, c_mv, 0] {
            coverage.insn(bits);
        }
        let mut sum = Coverage::new(Isa::ALL);
        sum.merge(coverage.clone());
        sum.merge(coverage);
        assert_eq!((sum.count(Opcode::Addi), sum.count(Opcode::Add)), (4, 0));
        let text = sum.to_string();
        for line in [
            "             4  addi\n",
            "             2  c.addi (addi)\n",
            "illegal instructions executed: 2\n",
        ] {
            assert!(text.contains(line), "no {line} in {text}");
        }
    }

    #[test]
    fn operations_are_counted_and_calls_by_their_helper() {
        let mut coverage = Coverage::new(Isa::ALL);
        coverage.op(&Op::of(Code::Add));
        coverage.op(&Op { c: frontend::ir::Reg(Helper::Ecall as u8), ..Op::of(Code::Call) });
        let text = coverage.to_string();
        assert!(
            text.contains(&format!(
                "IR operations: 1 of {} executed\n             1  Add\n",
                Code::ALL.len() - 2
            )),
            "{text}"
        );
        assert!(text.contains("IR helpers: 1 of ") && text.contains("             1  Ecall\n"), "{text}");
    }
}

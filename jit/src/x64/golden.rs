//! The code that is generated for each operation, as text; see [`crate::codegen::golden`].

use std::collections::{BTreeMap, BTreeSet};

use frontend::Block;
use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, IntelFormatter, OpKind, Register};

use super::regs::BIAS;
use super::{Translator, shared_code};
use crate::codegen::golden::{self, Host, PAGE, Registers, context_name, state_name};

const MARK: u8 = 31;

struct X64 {
    translator: Translator,
    /// Names of places in the shared code.
    names: BTreeMap<u32, String>,
}

impl Host for X64 {
    const NAME: &'static str = "x64";
    const REGISTERS: Registers = Registers {
        pinned: [10, 2, 1],
        memory: [28, 29, 20],
        f_pinned: [10, 11, 12, 13],
        f_memory: [20, 21, 22, 23],
        mark: MARK,
    };

    fn listing(&mut self, block: &Block) -> Vec<String> {
        self.translator.translate(block, PAGE, false);
        listing(&self.translator, &self.names)
    }
}

/// The host code of a block, without what every block begins with.
fn listing(translator: &Translator, names: &BTreeMap<u32, String>) -> Vec<String> {
    let code = translator.code();
    let external: BTreeMap<usize, u32> =
        translator.asm.external.iter().map(|&(field, target)| (field as usize, target)).collect();
    let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
    let mut insns: Vec<(Instruction, Option<u32>)> = Vec::new();
    // Operations that code passes to Rust are behind it.
    let mut end = code.len() as u64;
    while decoder.can_decode() && decoder.ip() < end {
        let at = decoder.position();
        let insn = decoder.decode();
        if insn.code() == iced_x86::Code::Int3 {
            break;
        }
        assert!(!insn.is_invalid(), "not x86 code: {:x?}", &code[at..]);
        let field = at + decoder.get_constant_offsets(&insn).immediate_offset();
        let is_branch = insn.op_count() > 0 && insn.op0_kind() == OpKind::NearBranch64;
        let thunk = external.get(&field).copied().filter(|_| is_branch);
        if insn.is_ip_rel_memory_operand() && insn.ip_rel_memory_address() > insn.ip() {
            end = end.min(insn.ip_rel_memory_address());
        }
        insns.push((insn, thunk));
    }
    // The entry, and the count of instructions.
    let insns = &insns[3..];
    let is_local = |(insn, thunk): &(Instruction, Option<u32>)| {
        thunk.is_none() && insn.op_count() > 0 && insn.op0_kind() == OpKind::NearBranch64
    };
    let targets: BTreeSet<u64> =
        insns.iter().filter(|insn| is_local(insn)).map(|(insn, _)| insn.near_branch_target()).collect();
    let label = |address: u64| targets.iter().position(|&target| target == address).map(|n| format!("L{n}"));
    let mut formatter = IntelFormatter::new();
    let mut lines = Vec::new();
    for pair in insns {
        let (insn, thunk) = pair;
        if let Some(label) = label(insn.ip()) {
            lines.push(format!("{label}:"));
        }
        let mut line = String::new();
        formatter.format(insn, &mut line);
        if let Some(target) = thunk {
            let mnemonic = line.split(' ').next().unwrap_or_default();
            let name = names.get(target).cloned().unwrap_or_else(|| format!("at {target:#x}"));
            line = format!("{mnemonic} <{name}>");
        } else if is_local(pair) {
            let mnemonic = line.split(' ').next().unwrap_or_default();
            let target = label(insn.near_branch_target()).expect("its target has a label");
            let target = if insn.near_branch_target() < insns[0].0.ip() { "body".to_owned() } else { target };
            line = format!("{mnemonic} {target}");
        } else if insn.is_ip_rel_memory_operand() {
            let what = if insn.ip_rel_memory_address() > insn.ip() { "op" } else { "site" };
            line = replace_operand(&line, what);
        } else {
            let displacement = insn.memory_displacement64() as i64;
            if insn.memory_base() == Register::R15 {
                if let Some(name) = state_name(displacement + i64::from(BIAS)) {
                    line = replace_operand(&line, &name);
                }
            } else if insn.memory_base() == Register::R14
                && let Some(name) = context_name(displacement)
            {
                line = line.replace(&format!("+{displacement:X}h"), &format!("+{name}"));
                line = line.replace(&format!("+0{displacement:X}h"), &format!("+{name}"));
            }
        }
        lines.push(if line == format!("mov qword ptr [x{MARK}],1") { "...".to_owned() } else { line });
    }
    lines
}

/// `line` with what is in brackets replaced.
fn replace_operand(line: &str, by: &str) -> String {
    match (line.find('['), line.find(']')) {
        (Some(open), Some(close)) => format!("{}[{by}]{}", &line[..open], &line[close + 1..]),
        _ => line.to_owned(),
    }
}

/// The backend, for tests that list what it makes.
pub(crate) fn host() -> impl Host {
    let (_, thunks) = shared_code();
    let names = thunks.parts().into_iter().collect();
    X64 { translator: Translator::new(thunks), names }
}

#[test]
fn generated_code_is_as_reviewed() {
    golden::check(&mut host());
}

#[test]
fn every_operation_is_in_a_file() {
    golden::check_complete::<X64>();
}

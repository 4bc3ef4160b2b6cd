//! The interpreter under observation: a trace of each instruction, or counts of what was executed.

use std::sync::Arc;

use frontend::ir::Op;
use frontend::operand::Operand;
use frontend::{Block, Decoder, Insn, decode, disasm};
use softmmu::{Mmu, Trap};

use crate::context::Hart;
use crate::inspect::coverage::Coverage;
use crate::inspect::trace::{Category, Place, Trace, Value};

/// Who watches the interpreter.
pub(crate) enum Watch {
    Nobody,
    /// Blocks have one instruction each.
    Exec(Box<ExecTrace>),
    Coverage(Box<Coverage>),
}

impl Watch {
    /// Most instructions in a block.
    pub(super) fn block_limit(&self) -> usize {
        match self {
            Watch::Exec(_) => 1,
            Watch::Nobody | Watch::Coverage(_) => frontend::block::MAX_INSNS,
        }
    }

    /// Runs a block.
    pub(super) fn execute<H: Hart>(&mut self, hart: &mut H, block: &Block) -> Result<(), Trap> {
        match self {
            Watch::Nobody => super::execute(hart, block, |_| {}),
            Watch::Exec(exec) => exec.execute(hart, block),
            Watch::Coverage(coverage) => {
                let pc = hart.state().pc;
                let address = |at: u16| (pc & !0xfff).wrapping_add(u64::from(at));
                // Executing the block can change what its addresses mean.
                let insns: Vec<_> =
                    block.insns.iter().map(|&at| (address(at), bits_at(hart.mmu(), address(at)))).collect();
                let done = super::execute(hart, block, |op: &Op| coverage.op(op));
                let end = if done.is_err() { hart.state().pc } else { u64::MAX };
                let executed = insns.into_iter().filter(|&(address, _)| address <= end);
                executed.filter_map(|(_, bits)| bits).for_each(|bits| coverage.insn(bits));
                done
            }
        }
    }
}

/// The instruction at a virtual address.
fn bits_at(mmu: &mut Mmu, pc: u64) -> Option<u32> {
    let half = |mmu: &mut Mmu, va: u64| {
        let pa = mmu.fetch(va).ok()?.pa;
        mmu.read_code_u16(pa).ok()
    };
    let first = half(mmu, pc)?;
    let second = if decode::length(first) == 4 { half(mmu, pc.wrapping_add(2))? } else { 0 };
    Some(u32::from(first) | u32::from(second) << 16)
}

/// Traces each instruction.
pub(crate) struct ExecTrace {
    pub(crate) trace: Arc<Trace>,
    pub(crate) decoder: Arc<Decoder>,
    pub(crate) hart: usize,
}

impl ExecTrace {
    fn execute<H: Hart>(&mut self, hart: &mut H, block: &Block) -> Result<(), Trap> {
        let state = hart.state();
        let place = Place { hart: self.hart, mode: state.privilege, address: state.pc };
        if !self.trace.wants(&place) {
            return super::execute(hart, block, |_| {});
        }
        let bits = bits_at(hart.mmu(), place.address);
        let done = super::execute(hart, block, |_| {});
        let insn = bits.and_then(|bits| self.decoder.decode(bits));
        let mut fields = vec![("bits", Value::Hex(bits.unwrap_or(0).into()))];
        let trap = done.err().map(|trap| format!("trap {}", trap.cause));
        match (&insn, &trap) {
            (_, Some(trap)) => fields.push(("not done:", Value::Text(trap))),
            (Some(insn), None) => fields.extend(result(insn, hart)),
            (None, None) => {}
        }
        match insn {
            Some(insn) => {
                let text = disasm::disassemble(&insn, place.address);
                self.trace.event(Category::Exec, Some(&place), &text, &fields);
            }
            None => self.trace.event(Category::Exec, Some(&place), &"(illegal)", &fields),
        }
        done
    }
}

/// The register that an instruction has written, and its value.
fn result<H: Hart>(insn: &Insn, hart: &mut H) -> Option<(&'static str, Value<'static>)> {
    let state = hart.state();
    let rd = usize::from(insn.rd);
    insn.op.row().operands.iter().find_map(|operand| match operand {
        Operand::Rd if rd != 0 => Some((disasm::GPR_NAMES[rd], Value::Hex(state.x[rd]))),
        Operand::Fd => Some((disasm::FPR_NAMES[rd], Value::Hex(state.f[rd]))),
        _ => None,
    })
}

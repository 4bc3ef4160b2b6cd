//! Zicsr, Zifencei, the cache-block operations and the privileged instructions.

use super::Rows;
use crate::builder::Builder;
use crate::insn::{Insn, Opcode::*};
use crate::ir::{Code, CsrAccess, Helper, Op, Reg};

/// CSRs whose writes change neither translation, interrupts nor code: fcsr and its parts, the scratch registers, and
/// those that only describe a trap.
fn is_plain(csr: i64) -> bool {
    matches!(csr, 0x001..=0x003 | 0x140..=0x143 | 0x340..=0x343)
}

/// `source` holds the operand, which is zero for sure where the field of `rs1` is: then set and clear only read.
fn csr(b: &mut Builder, access: CsrAccess, source: Reg, i: &Insn) {
    let access = if access != CsrAccess::Write && i.rs1 == 0 { CsrAccess::Read } else { access };
    let plain = access == CsrAccess::Read || is_plain(i.imm);
    let helper = if plain { Helper::CsrPlain } else { Helper::Csr };
    b.call(helper, i.rd, source.0, 0, access as u8, i64::from(i.bits));
}

fn csr_reg(b: &mut Builder, access: CsrAccess, i: &Insn) {
    csr(b, access, Reg(i.rs1), i);
}

fn csr_imm(b: &mut Builder, access: CsrAccess, i: &Insn) {
    b.push(Op { rd: Reg::TEMP, imm: i64::from(i.rs1), ..Op::of(Code::Const) });
    csr(b, access, Reg::TEMP, i);
}

fn call(b: &mut Builder, helper: Helper, i: &Insn) {
    b.call(helper, 0, 0, 0, 0, i64::from(i.bits));
}

fn fence_vma(b: &mut Builder, i: &Insn) {
    let named = u8::from(i.rs1 != 0) | u8::from(i.rs2 != 0) << 1;
    b.call(Helper::SfenceVma, 0, i.rs1, i.rs2, named, i64::from(i.bits));
}

fn cache_block(b: &mut Builder, helper: Helper, inval: bool, i: &Insn) {
    b.call(helper, 0, i.rs1, 0, u8::from(inval), i64::from(i.bits));
}

#[rustfmt::skip]
pub(super) const ROWS: Rows = &[
    (Csrrw,  |b, i| csr_reg(b, CsrAccess::Write, i)),
    (Csrrs,  |b, i| csr_reg(b, CsrAccess::Set, i)),
    (Csrrc,  |b, i| csr_reg(b, CsrAccess::Clear, i)),
    (Csrrwi, |b, i| csr_imm(b, CsrAccess::Write, i)),
    (Csrrsi, |b, i| csr_imm(b, CsrAccess::Set, i)),
    (Csrrci, |b, i| csr_imm(b, CsrAccess::Clear, i)),

    (FenceI, |b, i| call(b, Helper::FenceI, i)),
    (Ecall,  |b, i| call(b, Helper::Ecall, i)),
    (Ebreak, |b, i| call(b, Helper::Ebreak, i)),
    (Mret,   |b, i| call(b, Helper::Mret, i)),
    (Sret,   |b, i| call(b, Helper::Sret, i)),
    (Wfi,    |b, i| call(b, Helper::Wfi, i)),

    (SfenceVma,     fence_vma),
    (SinvalVma,     fence_vma),
    (SfenceWInval,  |b, i| call(b, Helper::SfenceInval, i)),
    (SfenceInvalIr, |b, i| call(b, Helper::SfenceInval, i)),

    (CboZero,  |b, i| cache_block(b, Helper::CboZero, false, i)),
    (CboClean, |b, i| cache_block(b, Helper::CboFlush, false, i)),
    (CboFlush, |b, i| cache_block(b, Helper::CboFlush, false, i)),
    (CboInval, |b, i| cache_block(b, Helper::CboFlush, true, i)),

    // Prefetches are hints: nothing to do for an emulated cache.
    (PrefetchI, |_, _| {}),
    (PrefetchR, |_, _| {}),
    (PrefetchW, |_, _| {}),
];

//! Floating point, by the integer arithmetic of [`crate::softfloat`].

use frontend::ir::{Code, Fmt, IntKind, Op};
use softmmu::{Trap, cause};

use crate::context::{Hart, HartState};
use crate::softfloat::{self as sf, F16, F32, F64, Flags, Format, Rounding};

/// Loads and stores of `f` registers.
pub(super) fn memory<H: Hart>(hart: &mut H, op: &Op) -> Result<(), Trap> {
    let address = hart.state().x[op.a.index()].wrapping_add(op.imm as u64);
    if op.code == Code::FLoad {
        let mmu = hart.mmu();
        let value = match op.fmt() {
            Fmt::H => sf::nan_box::<F16>(u64::from(mmu.load_u16(address)?)),
            Fmt::S => sf::nan_box::<F32>(u64::from(mmu.load_u32(address)?)),
            Fmt::D => mmu.load_u64(address)?,
        };
        hart.state().f[freg(op.rd.0)] = value;
        return Ok(());
    }
    let value = hart.state().f[freg(op.b.0)];
    let mmu = hart.mmu();
    match op.fmt() {
        Fmt::H => mmu.store_u16(address, value as u16),
        Fmt::S => mmu.store_u32(address, value as u32),
        Fmt::D => mmu.store_u64(address, value),
    }
}

/// Everything else.
pub(crate) fn step(state: &mut HartState, op: &Op) -> Result<(), Trap> {
    match op.fmt() {
        Fmt::H => step_in::<F16>(state, op),
        Fmt::S => step_in::<F32>(state, op),
        Fmt::D => step_in::<F64>(state, op),
    }
}

fn freg(number: u8) -> usize {
    usize::from(number & 31)
}

/// The rounding mode of `op`: its own, or `frm` for 7. A reserved `frm` makes the instruction illegal.
fn rounding(state: &HartState, op: &Op) -> Result<Rounding, Trap> {
    let mode = if op.rm() == 7 { state.frm } else { op.rm() };
    Rounding::from_frm(mode).ok_or(Trap { cause: cause::ILLEGAL_INSTRUCTION, tval: op.imm as u64 })
}

fn step_in<F: Format>(state: &mut HartState, op: &Op) -> Result<(), Trap> {
    let flags = &mut Flags::default();
    let a = sf::unbox::<F>(state.f[freg(op.a.0)]);
    let b = sf::unbox::<F>(state.f[freg(op.b.0)]);
    let fused = |state: &HartState, a: u64, negate_c: bool, flags: &mut Flags| {
        let c = sf::unbox::<F>(state.f[freg(op.c.0)]);
        let c = if negate_c { c ^ F::SIGN } else { c };
        Ok::<u64, Trap>(sf::fma::<F>(a, b, c, rounding(state, op)?, flags))
    };
    let minus_a = a ^ F::SIGN;
    let result = match op.code {
        Code::FConst => op.imm as u64,
        Code::FAdd => sf::add::<F>(a, b, rounding(state, op)?, flags),
        Code::FSub => sf::sub::<F>(a, b, rounding(state, op)?, flags),
        Code::FMul => sf::mul::<F>(a, b, rounding(state, op)?, flags),
        Code::FDiv => sf::div::<F>(a, b, rounding(state, op)?, flags),
        Code::FSqrt => sf::sqrt::<F>(a, rounding(state, op)?, flags),
        Code::FMadd => fused(state, a, false, flags)?,
        Code::FMsub => fused(state, a, true, flags)?,
        Code::FNmsub => fused(state, minus_a, false, flags)?,
        Code::FNmadd => fused(state, minus_a, true, flags)?,
        Code::FSgnj => sf::sgnj::<F>(a, b),
        Code::FSgnjn => sf::sgnjn::<F>(a, b),
        Code::FSgnjx => sf::sgnjx::<F>(a, b),
        Code::FMin => sf::min::<F>(a, b, flags),
        Code::FMax => sf::max::<F>(a, b, flags),
        Code::FMinm => sf::minm::<F>(a, b, flags),
        Code::FMaxm => sf::maxm::<F>(a, b, flags),
        Code::FRound => sf::fround::<F>(a, rounding(state, op)?, flags),
        Code::FRoundNx => sf::froundnx::<F>(a, rounding(state, op)?, flags),
        Code::FCvtFmt => {
            let rm = rounding(state, op)?;
            let source = state.f[freg(op.a.0)];
            match Fmt::from_bits(op.c.0) {
                Fmt::H => sf::convert::<F16, F>(sf::unbox::<F16>(source), rm, flags),
                Fmt::S => sf::convert::<F32, F>(sf::unbox::<F32>(source), rm, flags),
                Fmt::D => sf::convert::<F64, F>(source, rm, flags),
            }
        }
        Code::FFromInt => {
            let rm = rounding(state, op)?;
            let value = state.x[op.a.index()];
            match IntKind::from_bits(op.c.0) {
                IntKind::W => sf::from_i32::<F>(value as i32, rm, flags),
                IntKind::Wu => sf::from_u32::<F>(value as u32, rm, flags),
                IntKind::L => sf::from_i64::<F>(value as i64, rm, flags),
                IntKind::Lu => sf::from_u64::<F>(value, rm, flags),
            }
        }
        Code::FFromBits => state.x[op.a.index()],
        _ => {
            state.x[op.rd.index()] = to_x::<F>(state, op, a, b, flags)?;
            state.fflags |= flags.bits();
            return Ok(());
        }
    };
    state.f[freg(op.rd.0)] = sf::nan_box::<F>(result);
    state.fflags |= flags.bits();
    Ok(())
}

/// The operations whose result is an integer register.
fn to_x<F: Format>(state: &HartState, op: &Op, a: u64, b: u64, flags: &mut Flags) -> Result<u64, Trap> {
    Ok(match op.code {
        Code::FEq => u64::from(sf::eq::<F>(a, b, flags)),
        Code::FLt => u64::from(sf::lt::<F>(a, b, flags)),
        Code::FLe => u64::from(sf::le::<F>(a, b, flags)),
        Code::FLtq => u64::from(sf::ltq::<F>(a, b, flags)),
        Code::FLeq => u64::from(sf::leq::<F>(a, b, flags)),
        Code::FClass => sf::class::<F>(a),
        Code::FToInt => {
            let rm = rounding(state, op)?;
            match IntKind::from_bits(op.c.0) {
                IntKind::W => sf::to_i32::<F>(a, rm, flags),
                IntKind::Wu => sf::to_u32::<F>(a, rm, flags),
                IntKind::L => sf::to_i64::<F>(a, rm, flags),
                IntKind::Lu => sf::to_u64::<F>(a, rm, flags),
            }
        }
        Code::FToIntMod => sf::fcvtmod_w_d(a, flags),
        // The bits as they are: no check of the NaN box.
        _ => {
            let bits = state.f[freg(op.a.0)];
            match op.fmt() {
                Fmt::H => bits as i16 as u64,
                Fmt::S => bits as i32 as u64,
                Fmt::D => bits,
            }
        }
    })
}

//! LR/SC, AMO and compare-and-swap.

use frontend::ir::{Amo, AmoOp, Code, Op};
use softmmu::{Reservation, Trap};

use crate::context::Hart;

/// Applies `op` to the old value and the operand, at the width of `$ty`.
macro_rules! amo_value {
    ($op:expr, $ty:ty, $signed:ty, $old:expr, $b:expr) => {{
        let (old, b): ($ty, $ty) = ($old, $b);
        match $op {
            AmoOp::Swap => b,
            AmoOp::Add => old.wrapping_add(b),
            AmoOp::Xor => old ^ b,
            AmoOp::And => old & b,
            AmoOp::Or => old | b,
            AmoOp::Min => (old as $signed).min(b as $signed) as $ty,
            AmoOp::Max => (old as $signed).max(b as $signed) as $ty,
            AmoOp::Minu => old.min(b),
            AmoOp::Maxu => old.max(b),
        }
    }};
}

pub(super) fn step<H: Hart>(hart: &mut H, op: &Op) -> Result<(), Trap> {
    let address = hart.state().x[op.a.index()];
    let b = hart.state().x[op.b.index()];
    let width = Amo(op.c.0).width();
    let result = match op.code {
        Code::Lr => load_reserved(hart, address, width)?,
        Code::Sc => {
            // It is gone also if SC traps.
            let reservation = std::mem::take(&mut hart.state().reservation);
            let stored = match width {
                4 => hart.mmu().store_conditional_u32(address, reservation, b as u32)?,
                _ => hart.mmu().store_conditional_u64(address, reservation, b)?,
            };
            u64::from(!stored)
        }
        Code::Amo => {
            let kind = AmoOp::ALL[usize::from(op.aux) % AmoOp::ALL.len()];
            let mmu = hart.mmu();
            match width {
                1 => mmu.amo_u8(address, |old| amo_value!(kind, u8, i8, old, b as u8))? as i8 as u64,
                2 => mmu.amo_u16(address, |old| amo_value!(kind, u16, i16, old, b as u16))? as i16 as u64,
                4 => mmu.amo_u32(address, |old| amo_value!(kind, u32, i32, old, b as u32))? as i32 as u64,
                _ => mmu.amo_u64(address, |old| amo_value!(kind, u64, i64, old, b))?,
            }
        }
        Code::Cas => {
            let expected = hart.state().x[op.rd.index()];
            let mmu = hart.mmu();
            match width {
                1 => mmu.compare_exchange_u8(address, expected as u8, b as u8)? as i8 as u64,
                2 => mmu.compare_exchange_u16(address, expected as u16, b as u16)? as i16 as u64,
                4 => mmu.compare_exchange_u32(address, expected as u32, b as u32)? as i32 as u64,
                _ => mmu.compare_exchange_u64(address, expected, b)?,
            }
        }
        _ => return cas_pair(hart, op, address),
    };
    hart.state().x[op.rd.index()] = result;
    Ok(())
}

fn load_reserved<H: Hart>(hart: &mut H, address: u64, width: u8) -> Result<u64, Trap> {
    hart.state().reservation = Reservation::default();
    let reservation = match width {
        4 => hart.mmu().load_reserved_u32(address)?,
        _ => hart.mmu().load_reserved_u64(address)?,
    };
    hart.state().reservation = reservation;
    Ok(if width == 4 { reservation.value as i32 as u64 } else { reservation.value })
}

/// The pair at register 0 reads as zero and drops what is written to it (Zacas, `amocas.q`).
fn cas_pair<H: Hart>(hart: &mut H, op: &Op, address: u64) -> Result<(), Trap> {
    let pair = |hart: &mut H, first: usize| {
        if first == 0 {
            return 0;
        }
        let x = &hart.state().x;
        u128::from(x[first]) | u128::from(x[(first + 1) & 63]) << 64
    };
    let expected = pair(hart, op.rd.index());
    let new = pair(hart, op.b.index());
    let old = hart.mmu().compare_exchange_u128(address, expected, new)?;
    let rd = op.rd.index();
    if rd != 0 {
        hart.state().x[rd] = old as u64;
        hart.state().x[(rd + 1) & 63] = (old >> 64) as u64;
    }
    Ok(())
}

//! Where guest registers live on the host.
//!
//! | host | guest or use |
//! |---|---|
//! | rax, rcx, rdx | scratch |
//! | rdi rsi r8 r9 r10 r11 | a0 a1 a2 a3 a4 a5 |
//! | rbx rbp r12 r13 | sp s0 s1 ra |
//! | r14 | the [`softmmu::Context`] in force |
//! | r15 | the [`HartState`], plus [`BIAS`] |
//! | xmm0 to xmm2 | scratch |
//! | xmm3 to xmm15 | fs0, fa0 to fa7, ft0 to ft3, while [`Native::fp_live`](crate::context::Native) is not 0 |
//!
//! The other guest registers are operands in memory. Pinned registers are live in all generated code; they are in the state
//! while Rust code runs.

use std::mem::offset_of;

use frontend::ir::Reg;

use crate::codegen::exchange::Exchange;
use crate::context::HartState;

pub(super) const RAX: u8 = 0;
pub(super) const RCX: u8 = 1;
pub(super) const RDX: u8 = 2;
/// r14
pub(super) const CONTEXT: u8 = 14;
/// r15
pub(super) const STATE: u8 = 15;

/// r15 points this far into the state, so that a displacement of one byte reaches all of x0 to x31.
pub(crate) const BIAS: i32 = 128;

/// Pinned integer registers: guest, host. The first [`VOLATILE_PINS`] are not preserved by calls of the host's ABI.
pub(super) const PINS: [(u8, u8); 10] =
    [(10, 7), (11, 6), (12, 8), (13, 9), (14, 10), (15, 11), (2, 3), (8, 5), (9, 12), (1, 13)];
pub(super) const VOLATILE_PINS: usize = 6;

/// Pinned floating-point registers: guest, host.
pub(super) const F_PINS: [(u8, u8); 13] = [
    (8, 3),
    (10, 4),
    (11, 5),
    (12, 6),
    (13, 7),
    (14, 8),
    (15, 9),
    (16, 10),
    (17, 11),
    (0, 12),
    (1, 13),
    (2, 14),
    (3, 15),
];

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loc {
    /// A host register.
    Reg(u8),
    /// `[r15 + displacement]`
    Slot(i32),
}

const NOT_PINNED: u8 = 0xff;

const fn table<const N: usize, const SIZE: usize>(pins: [(u8, u8); N]) -> [u8; SIZE] {
    let mut hosts = [NOT_PINNED; SIZE];
    let mut n = 0;
    while n < N {
        hosts[pins[n].0 as usize] = pins[n].1;
        n += 1;
    }
    hosts
}

static F_HOST: [u8; 32] = table(F_PINS);

/// Displacement from r15 of a field at `offset` of the state.
pub(super) const fn slot(offset: usize) -> i32 {
    offset as i32 - BIAS
}

/// Slot of an integer register.
pub(super) const fn x_slot(reg: u8) -> i32 {
    slot(offset_of!(HartState, x)) + 8 * reg as i32
}

/// Slot of a floating-point register.
pub(super) const fn f_slot(reg: u8) -> i32 {
    slot(offset_of!(HartState, f)) + 8 * (reg & 31) as i32
}

/// Which integer registers are in host registers.
#[derive(Clone, Copy)]
pub(super) struct Pins([u8; Reg::COUNT]);

impl Pins {
    /// Those that are between blocks: [`PINS`].
    pub(super) const USUAL: Pins = Pins(table(PINS));

    /// Where an integer register is.
    #[inline]
    pub(super) fn loc(&self, reg: Reg) -> Loc {
        match self.pinned(reg) {
            Some(host) => Loc::Reg(host),
            None => Loc::Slot(x_slot(reg.index() as u8)),
        }
    }

    /// The host register of a pinned integer register.
    #[inline]
    pub(super) fn pinned(&self, reg: Reg) -> Option<u8> {
        let host = self.0[reg.index()];
        (host != NOT_PINNED).then_some(host)
    }

    /// Gives the host register of one guest register to another.
    pub(super) fn exchange(&mut self, exchange: Exchange) {
        self.0[usize::from(exchange.out)] = NOT_PINNED;
        self.0[usize::from(exchange.into)] = exchange.host;
    }
}

/// The host register of a pinned floating-point register.
#[inline]
pub(super) fn f_pinned(reg: u8) -> Option<u8> {
    let host = F_HOST[usize::from(reg & 31)];
    (host != NOT_PINNED).then_some(host)
}

/// A field of the state as an operand.
macro_rules! field {
    ($($path:tt)+) => {
        $crate::x64::regs::slot(std::mem::offset_of!($crate::context::HartState, $($path)+))
    };
}
pub(super) use field;

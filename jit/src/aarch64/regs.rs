//! Where guest registers live on the host.
//!
//! | host | guest or use |
//! |---|---|
//! | x0 to x7 | a0 to a7 |
//! | x8 to x13 | t0 to t5 |
//! | x14 to x17 | scratch; x14 and x15 are where a run of accesses keeps its places |
//! | x18 | the executable-code cache of that context; its low 16 bits are scratch |
//! | x19 x20 x21 x22 x23 x29 x30 | sp s0 s1 s2 s3 ra t6 |
//! | x24 | virtual address of the code page |
//! | x25 | instructions retired, less [`Native::limit`]: when it is not negative any more, the poll word is looked at |
//! | x26 x27 | the write table and the read table of the [`softmmu::Context`] in force |
//! | x28 | the [`HartState`]; bits [`FP_LIVE`] and [`FP_DIRTY`] of the address have a use of their own |
//! | v0 to v2 | scratch |
//! | v3 | the upper half of a boxed single |
//! | v4 to v31 | f0 to f27, while bit [`FP_LIVE`] is set |
//!
//! The other guest registers, gp, tp and s4 to s11, are in memory: of all uses of a register in the boot of a Linux guest, theirs
//! are 7 in 100, s4 with one in 100 being the first among them. Pinned registers are live in all generated code; they are in the state while Rust code
//! runs. x30 is what calls of shared code write, so its guest register is put into the state before each of them.
//!
//! The top byte of an address has no meaning for loads and stores (Arm Architecture Reference Manual, Address tagging; Linux
//! promises it in `tagged-pointers.rst`), so what generated code often asks can be in x28. Memory tagging uses the lower half of that byte.

use std::mem::offset_of;

use frontend::ir::Reg;

use crate::codegen::exchange::Exchange;
use crate::context::HartState;
#[cfg(doc)]
use crate::context::Native;

pub(super) const X14: u8 = 14;
pub(super) const X15: u8 = 15;
pub(super) const X16: u8 = 16;
pub(super) const X17: u8 = 17;
pub(super) const EXEC: u8 = 18;
pub(super) const PAGE: u8 = 24;
pub(super) const INSTRET: u8 = 25;
pub(super) const WRITE_TABLE: u8 = 26;
pub(super) const CONTEXT: u8 = 27;
pub(super) const STATE: u8 = 28;
/// Bit of [`STATE`]: the floating-point registers are in host registers, and rounding mode and flags in the host's.
pub(super) const FP_LIVE: u8 = 60;
/// Bit of [`STATE`]: the same, and the state's are behind, and mstatus.FS is Dirty.
pub(super) const FP_DIRTY: u8 = 61;
/// Where calls of shared code leave their return address.
pub(super) const LINK: u8 = 30;
/// Reads as zero.
pub(super) const XZR: u8 = 31;

/// x28 points to the start of the state.
pub(crate) const BIAS: i32 = 0;

/// Pinned integer registers: guest, host. The first [`VOLATILE_PINS`] are not preserved by calls of the host's ABI; the last is in
/// [`LINK`].
pub(super) const PINS: [(u8, u8); 21] = [
    (10, 0),
    (11, 1),
    (12, 2),
    (13, 3),
    (14, 4),
    (15, 5),
    (16, 6),
    (17, 7),
    (5, 8),
    (6, 9),
    (7, 10),
    (28, 11),
    (29, 12),
    (30, 13),
    (2, 19),
    (8, 20),
    (9, 21),
    (18, 22),
    (19, 23),
    (1, 29),
    (31, LINK),
];
pub(super) const VOLATILE_PINS: usize = 14;
/// All but the one in [`LINK`].
pub(super) const KEPT_PINS: usize = PINS.len() - 1;
const _: () = assert!(PINS[KEPT_PINS].1 == LINK);

/// Floating-point registers below this are pinned, by pairs; those above are the last temporaries that compilers take.
pub(super) const F_PINS: u8 = 28;
/// Host register of f0.
const F_FIRST: u8 = 4;

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loc {
    /// A host register.
    Reg(u8),
    /// `[x28 + offset]`
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

/// Displacement from x28 of a field at `offset` of the state.
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

    /// Takes the host register of a guest register that the block does not use.
    pub(super) fn take(&mut self, guest: u8) {
        self.0[usize::from(guest)] = NOT_PINNED;
    }

    /// The guest register in a host register.
    pub(super) fn guest(&self, host: u8) -> Option<u8> {
        self.0.iter().position(|&other| other == host).map(|guest| guest as u8)
    }
}

/// The host register of a pinned floating-point register.
#[inline]
pub(super) fn f_pinned(reg: u8) -> Option<u8> {
    let reg = reg & 31;
    (reg < F_PINS).then_some(reg + F_FIRST)
}

/// A field of the state as an operand.
macro_rules! field {
    ($($path:tt)+) => {
        $crate::aarch64::regs::slot(std::mem::offset_of!($crate::context::HartState, $($path)+))
    };
}
pub(super) use field;

//! What registers lack of their values.
//!
//! An instruction on 32 bits sign-extends its result, a single is boxed. That is put off until somebody looks at the upper half, which
//! often is on a rare way out of the block only, or never. What is put off can be done at any time, and more than once; to a register
//! that holds something else it must not be done.

use frontend::ir::Reg;

/// The pinned registers whose upper half is anything, while it should extend the sign, or box a single.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pending {
    /// A bit for each integer register.
    pub(crate) narrow: u64,
    /// A bit for each floating-point register.
    pub(crate) unboxed: u32,
}

impl Pending {
    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }

    pub(crate) fn is_narrow(self, reg: Reg) -> bool {
        self.narrow >> reg.index() & 1 == 1
    }

    pub(crate) fn set_narrow(&mut self, reg: Reg, is_narrow: bool) {
        self.narrow = self.narrow & !(1 << reg.index()) | u64::from(is_narrow) << reg.index();
    }

    pub(crate) fn is_unboxed(self, reg: Reg) -> bool {
        self.unboxed >> (reg.0 & 31) & 1 == 1
    }

    pub(crate) fn set_unboxed(&mut self, reg: Reg, is_unboxed: bool) {
        self.unboxed = self.unboxed & !(1 << (reg.0 & 31)) | u32::from(is_unboxed) << (reg.0 & 31);
    }

    /// What is pending here and not there.
    pub(crate) fn without(self, other: Pending) -> Pending {
        Pending { narrow: self.narrow & !other.narrow, unboxed: self.unboxed & !other.unboxed }
    }

    /// What is pending in one of both.
    pub(crate) fn or(self, other: Pending) -> Pending {
        Pending { narrow: self.narrow | other.narrow, unboxed: self.unboxed | other.unboxed }
    }

    /// The integer registers.
    pub(crate) fn narrow_registers(self) -> impl Iterator<Item = Reg> {
        (0..Reg::COUNT as u8).map(Reg).filter(move |&reg| self.is_narrow(reg))
    }

    /// The floating-point registers.
    pub(crate) fn unboxed_registers(self) -> impl Iterator<Item = Reg> {
        (0..32).map(Reg).filter(move |&reg| self.is_unboxed(reg))
    }
}

//! The state of a hart that engines and generated code work on.

use frontend::ir::Reg;
use softmmu::{Mmu, Reservation, Trap};

use frontend::ir::Op;

/// mstatus.FS, bits 14 to 13 (Privileged 3.1.6.6).
pub const MSTATUS_FS: u64 = 3 << 13;

/// The registers that every engine keeps in memory between blocks. Offsets of fields are taken from here only.
#[repr(C)]
#[derive(Clone, Debug)]
pub struct HartState {
    /// Integer registers, then the temporaries and the sink of the IR. `x[0]` is 0.
    pub x: [u64; Reg::COUNT],
    /// Floating-point registers, NaN-boxed.
    pub f: [u64; 32],
    /// Virtual address of the next instruction.
    pub pc: u64,
    /// Virtual address of the current code page.
    pub page: u64,
    /// `mstatus` with the bits that hardware keeps; SD is derived when it is read.
    pub mstatus: u64,
    /// Instructions retired since reset, not counting what `minstret` was set to.
    pub instret: u64,
    /// During a helper: instructions of the current block that retired before it, not yet in `instret`.
    pub partial: u64,
    /// What the last LR reserved.
    pub reservation: Reservation,
    /// Accrued exception flags: NV 16, DZ 8, OF 4, UF 2, NX 1.
    pub fflags: u8,
    /// Dynamic rounding mode; 5 to 7 are invalid.
    pub frm: u8,
}

impl Default for HartState {
    fn default() -> Self {
        Self {
            x: [0; Reg::COUNT],
            f: [0; 32],
            pc: 0,
            page: 0,
            mstatus: 0,
            instret: 0,
            partial: 0,
            reservation: Reservation::default(),
            fflags: 0,
            frm: 0,
        }
    }
}

/// What an engine needs of the hart it runs.
pub trait Hart {
    /// The registers.
    fn state(&mut self) -> &mut HartState;
    /// The hart's view of memory.
    fn mmu(&mut self) -> &mut Mmu;
    /// Whether somebody asked the hart to leave the engine.
    fn polled(&self) -> bool;
    /// Carries out the helper of a [`frontend::ir::Code::Call`]. The instruction's address is `state().page + op.at`. A
    /// helper that does not fall through sets `state().pc`.
    ///
    /// # Errors
    /// The trap that the instruction raises; nothing was changed then.
    fn call(&mut self, op: &Op) -> Result<(), Trap>;
}

/// Why an engine returned. `state().pc` is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The poll word was set; nothing is half done.
    Poll,
    /// The instruction at `pc` raised a trap and has not retired.
    Trap(Trap),
}

//! The state of a hart that engines and generated code work on.

use std::sync::atomic::{AtomicU32, Ordering};

use frontend::ir::Reg;
use softmmu::{Mmu, Reservation, Trap};

use frontend::ir::Op;

/// mstatus.FS, bits 14 to 13 (Privileged 3.1.6.6).
pub const MSTATUS_FS: u64 = 3 << 13;

/// The registers that every engine keeps in memory between blocks. Offsets of fields are taken from here only.
#[repr(C)]
#[derive(Clone, Debug)]
pub struct HartState {
    /// Instructions retired since reset, not counting what `minstret` was set to.
    pub instret: u64,
    /// Virtual address of the current code page.
    pub page: u64,
    /// Integer registers, then the temporaries and the sink of the IR. `x[0]` is 0.
    pub x: [u64; Reg::COUNT],
    /// Floating-point registers, NaN-boxed.
    pub f: [u64; 32],
    /// Virtual address of the next instruction.
    pub pc: u64,
    /// `mstatus` with the bits that hardware keeps; SD is derived when it is read.
    pub mstatus: u64,
    /// During a helper: instructions of the current block that retired before it, not yet in `instret`.
    pub partial: u64,
    /// What the last LR reserved.
    pub reservation: Reservation,
    /// Accrued exception flags: NV 16, DZ 8, OF 4, UF 2, NX 1.
    pub fflags: u8,
    /// Dynamic rounding mode; 5 to 7 are invalid.
    pub frm: u8,
    /// What generated code keeps for itself.
    pub native: Native,
}

/// The part of the state that belongs to generated code and the code around it. Addresses are of the host.
#[repr(C)]
#[derive(Clone, Debug, Default)]
pub struct Native {
    /// The [`softmmu::Context`] in force.
    pub(crate) context: u64,
    /// The poll word.
    pub(crate) poll: u64,
    /// The hart, as its callbacks want it.
    pub(crate) hart: u64,
    /// Functions that generated code calls.
    pub(crate) callbacks: Callbacks,
    /// The value of a slow load, or where a slow store has nothing more to store.
    pub(crate) bounce: [u64; 2],
    /// The trap, when generated code was left for one.
    pub(crate) trap_cause: u64,
    pub(crate) trap_tval: u64,
    /// The direct jump that was not linked yet: where its displacement is, and the number of the guest page it is in.
    pub(crate) link_site: u64,
    pub(crate) link_page: u32,
    /// 0: the floating-point registers are in `f`. 1: they are in host registers, as in `f`, and rounding mode and flags in
    /// the host's. 3: the same, but `f` is behind, and mstatus.FS is Dirty.
    pub(crate) fp_live: u8,
    pub(crate) control: u32,
    /// Scratch registers, while the interpreter carries out an operation in the middle of a run.
    pub(crate) spill: [u64; 2],
}

/// See [`Native::callbacks`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Callbacks {
    pub(crate) load: u64,
    pub(crate) store: u64,
    pub(crate) step: u64,
    pub(crate) call: u64,
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
            native: Native::default(),
        }
    }
}

/// What an engine needs of the hart it runs.
pub trait Hart {
    /// The registers.
    fn state(&mut self) -> &mut HartState;
    /// The hart's view of memory.
    fn mmu(&mut self) -> &mut Mmu;
    /// Not 0 when somebody asked the hart to leave the engine. Its address does not change.
    fn poll_word(&self) -> &AtomicU32;
    /// Whether somebody asked the hart to leave the engine.
    #[inline(always)]
    fn polled(&self) -> bool {
        self.poll_word().load(Ordering::Relaxed) != 0
    }
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

//! The state of a hart that engines and generated code work on.

use std::sync::atomic::{AtomicU32, Ordering};

use frontend::ir::Reg;
use softmmu::{Mmu, Privilege, Reservation, Trap};

use crate::inspect::stats::SlowPaths;
use crate::time::TimeBase;

use frontend::ir::Op;

/// Bits of `mstatus` that engines look at (Privileged 3.1.6).
pub mod mstatus {
    /// Interrupts are enabled in S-mode.
    pub const SIE: u64 = 1 << 1;
    /// Whether floating point is on, and whether it was changed.
    pub const FS: u64 = 3 << 13;
    /// FS is Dirty; derived when the register is read.
    pub const SD: u64 = 1 << 63;
    /// What `sstatus` shows: SIE, SPIE, SPP, FS, SUM, MXR, UXL and SD.
    pub const SSTATUS: u64 = SIE | 1 << 5 | 1 << 8 | FS | 1 << 18 | 1 << 19 | 3 << 32 | SD;
}

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
    /// Current privilege mode.
    pub privilege: Privilege,
    /// Some interrupt is pending and enabled in `mie`, whether or not it can be taken now. It may be true when none is.
    pub interrupt_waits: bool,
    /// `cbo.zero` is legal at the current privilege.
    pub zero_allowed: bool,
    /// `time` can be read at the current privilege, from [`Hart::time_base`].
    pub time_open: bool,
    /// `sscratch`
    pub sscratch: u64,
    /// `sepc`
    pub sepc: u64,
    /// `scause`
    pub scause: u64,
    /// `stval`
    pub stval: u64,
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
    /// the host's. 3: the same, but `f` is behind, and mstatus.FS is Dirty. aarch64 has this in a register.
    pub(crate) fp_live: u8,
    pub(crate) control: u32,
    /// 1 + the page offset of the jump at which generated code, or a block, was left for the poll word; 0 if it was elsewhere.
    pub(crate) polled_at: u32,
    /// Counts of the calls of [`Self::callbacks`].
    pub(crate) slow: Box<SlowPaths>,
    /// Scratch registers, while the interpreter carries out an operation in the middle of a run.
    pub(crate) spill: [u64; 2],
    /// Operands that were overwritten before it was known whether their operations underflowed.
    pub(crate) saved: [u64; SAVED],
    /// Instructions of the host that generated code has executed, if they are counted.
    pub(crate) host_insns: u64,
    /// Physical address of a block whose accesses wander from page to page, in which [`softmmu::Near`] entries do not pay.
    pub(crate) wanderer: Option<u64>,
    /// How many instructions have retired when the poll word is looked at next, on aarch64.
    pub(crate) limit: u64,
    /// The [`TimeBase`].
    pub(crate) time: u64,
}

/// See [`Native::saved`].
pub(crate) const SAVED: usize = 8;

/// See [`Native::callbacks`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Callbacks {
    pub(crate) load: u64,
    pub(crate) store: u64,
    pub(crate) step: u64,
    pub(crate) call: u64,
    pub(crate) underflow: u64,
    pub(crate) near: u64,
}

impl HartState {
    /// Address of the jump at which the engine was left last, if it was left because of the poll word at a jump. `pc` is where
    /// that leads, which may be another function. The interpreter gives the start of the jump's block instead.
    pub fn polled_at(&self) -> Option<u64> {
        let at = self.native.polled_at.checked_sub(1)?;
        Some(self.page.wrapping_add(u64::from(at)))
    }
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
            privilege: Privilege::Machine,
            interrupt_waits: false,
            zero_allowed: false,
            time_open: false,
            sscratch: 0,
            sepc: 0,
            scause: 0,
            stval: 0,
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
    /// What tells the time of the hart between two calls; if there is one, its address does not change.
    fn time_base(&self) -> Option<&TimeBase> {
        None
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
    /// There is a breakpoint at `pc`, and the instruction was not executed.
    Break,
}

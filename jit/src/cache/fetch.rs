//! When instructions that were written are what a host fetches.
//!
//! On x86-64 that is so as soon as they are written. On aarch64 (Arm Architecture Reference Manual, B2.2.5 and D7.5.9) they have to
//! be cleaned from the data cache and whatever else was there dropped from the instruction caches, which one core does for all; but
//! each core may have fetched instructions into its pipeline before. It forgets them at a *context synchronization event*: an `isb`,
//! or one that `membarrier` makes on every core that runs a thread of the process. So:
//!
//! 1. A block is written, made fetchable, and all other threads are synchronized, before anything leads to it.
//! 2. What is patched while others run it is a branch or a `nop`; they run either the old or the new instruction.
//! 3. After `fence.i` a hart must not run a killed block. Its killer has patched what led there; generated code and the way into it
//!    execute an `isb`.
//!
//! Data is cleaned by the address that it was written at: data caches behave as if they went by physical addresses. Instruction
//! caches may go by the virtual address, so they are told the one that code runs at. QEMU's system emulation does not do the
//! latter at all (`tests/pages/run`).

#![allow(unsafe_code, reason = "instructions for caches")]

pub(super) use host::{make_fetchable, prepare, synchronize_others};

#[cfg(target_arch = "aarch64")]
mod host {
    use std::arch::asm;
    use std::io;

    use rustix::thread::{MembarrierCommand, membarrier};

    /// Makes [`synchronize_others`] possible.
    pub(in super::super) fn prepare() -> io::Result<()> {
        Ok(membarrier(MembarrierCommand::RegisterPrivateExpeditedSyncCore)?)
    }

    /// Whether it was possible.
    pub(in super::super) fn synchronize_others() -> bool {
        membarrier(MembarrierCommand::PrivateExpeditedSyncCore).is_ok()
    }

    /// Sizes of the lines of data and instruction caches.
    fn line_sizes() -> (usize, usize) {
        let ctr: usize;
        // SAFETY: reads a register that Linux lets user programs read.
        unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack, preserves_flags)) };
        (4 << (ctr >> 16 & 15), 4 << (ctr & 15))
    }

    /// # Safety
    /// `length` bytes are mapped at both addresses, and are the same memory.
    pub(in super::super) unsafe fn make_fetchable(writable: usize, executable: usize, length: usize) {
        let (data, instruction) = line_sizes();
        for line in (writable & !(data - 1)..writable + length).step_by(data) {
            // SAFETY: the caller's; changes no memory.
            unsafe { asm!("dc cvau, {}", in(reg) line, options(nostack, preserves_flags)) };
        }
        // SAFETY: orders the above before what follows, on all cores.
        unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
        for line in (executable & !(instruction - 1)..executable + length).step_by(instruction) {
            // SAFETY: the caller's. By the address that the code runs at, for caches that go by it.
            unsafe { asm!("ic ivau, {}", in(reg) line, options(nostack, preserves_flags)) };
        }
        // SAFETY: completes the above, and drops what this core has fetched.
        unsafe { asm!("dsb ish", "isb", options(nostack, preserves_flags)) };
    }
}

#[cfg(not(target_arch = "aarch64"))]
mod host {
    use std::io;

    pub(in super::super) fn prepare() -> io::Result<()> {
        Ok(())
    }

    pub(in super::super) fn synchronize_others() -> bool {
        true
    }

    /// # Safety
    /// None is needed.
    pub(in super::super) unsafe fn make_fetchable(_: usize, _: usize, _: usize) {}
}

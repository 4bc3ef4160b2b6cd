//! Guest memory and how a hart reaches it.
//!
//! # Life of a memory access
//!
//! A load calls [`Mmu::load_u64`] or one of its sisters. That probes the read table of the current context (`tlb`), one
//! compare that says everything at once: the page is translated, may be read, is RAM or ROM, and the access does not cross
//! its edge. On a hit the value is loaded through a host pointer (`ram`), and that was all. Generated code does the same
//! inline, with the constants of [`Context`] and [`TLB_BITS`].
//!
//! Everything else is the slow path (`slow`), one function for each kind of access. It splits an access that crosses a page
//! edge, and then for each part
//!
//! 1. translates the address: through the second-level TLB (`l2`), which keeps whole superpages and outlives most flushes, or
//!    else by a walk of the page table (`walk`), which sets the A and D bits;
//! 2. asks physical memory protection (`pmp`);
//! 3. enters the page into the context, if any such access to it would be allowed and it is RAM, or ROM to be read;
//! 4. carries out the access: to RAM or ROM, or else to a device through [`PhysBus`].
//!
//! Whatever stands in the way becomes a [`Trap`], and nothing was changed then but A bits.
//!
//! Stores, AMOs and SC go the same way through the write table, where only pages with D=1 and without watched code are. What
//! LR reserves is a [`Reservation`], which the engine keeps and gives to SC. Fetches are translated by
//! [`Mmu::fetch`]; what an engine makes of the code it keeps in the context's executable-code cache, which forgets it when the
//! translation is flushed.
//!
//! # Translated code
//!
//! An engine that keeps host code for guest code must hear when the guest code changes. It watches the bytes it translates
//! ([`GuestMemory::watch_code`]), and its [`CodeWatcher`] is then told of whatever changes them: stores of any hart, updates
//! of page tables, writes of devices and of the host. A page with watched bytes is in no write table, so stores to it take
//! the slow path, and devices tell of their writes by the bitmap of [`Ram`]. `ram/code.rs` says why no change slips through
//! while a watch is being set.
//!
//! # Contexts, address spaces, flushes
//!
//! [`Mmu::set_regime`] tells what decides about translation: privilege, `satp` and some bits of `mstatus`. It picks a context
//! (`contexts`): there is one for each user address space, two for S-mode, one for M-mode, so a trap, a return or a switch of
//! processes swaps a pointer and flushes nothing. Address spaces have numbers (`spaces`); retiring a number flushes all that
//! carries it. `sfence.vma` ([`Mmu::sfence_vma`]) forgets what it names and little else.
//!
//! An [`Mmu`] belongs to one hart and its thread. Harts share [`GuestMemory`], with its map of translated code, and nothing
//! else; a remote fence is a message that the hart's thread answers by calling [`Mmu::sfence_range`].

mod contexts;
mod l2;
mod mmu;
mod near;
mod pmp;
mod ram;
mod sets;
mod slow;
mod spaces;
mod tlb;
mod trap;
pub mod walk;
mod watch;

#[cfg(test)]
mod tests;

pub use mmu::{Fetch, Mmu, MmuConfig, MmuStats, MmuWatcher, Regime, Reservation, Walk};
pub use near::{NEARS, Near};
pub use pmp::Pmp;
pub use ram::{CodeBitmap, CodePage, CodeWatcher, GuestMemory, MemoryError, Ram};
pub use tlb::{Context, EXEC_BITS, EXEC_SLOTS, Entry, ExecEntry, TLB_BITS, TLB_SLOTS};
pub use trap::{Access, AccessFault, Fault, Privilege, Trap, cause};
pub use walk::SatpMode;
pub use watch::{WATCHPOINT, Watchpoint};

/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;

/// Bits of a physical address.
pub const PHYSICAL_BITS: u32 = 56;

/// Bytes of the blocks that `cbo.*` work on.
pub const CACHE_BLOCK: u64 = 64;

/// What answers at physical addresses that are neither RAM nor ROM, and at stores to ROM.
///
/// `width` is 1, 2, 4 or 8, and `pa` a multiple of it. Called from the threads of all harts.
pub trait PhysBus: Send + Sync {
    /// Reads `width` bytes; the value is zero-extended.
    ///
    /// # Errors
    /// When nothing is there that can be read so.
    fn read(&self, pa: u64, width: u8) -> Result<u64, AccessFault>;
    /// Writes the low `width` bytes of `value`; the bits above are zero.
    ///
    /// # Errors
    /// When nothing is there that can be written so.
    fn write(&self, pa: u64, width: u8, value: u64) -> Result<(), AccessFault>;
    /// Reads bytes at any alignment, at most 8, where something answers like memory: most devices do not.
    ///
    /// # Errors
    /// When nothing is there that can be read so.
    fn read_bytes(&self, _pa: u64, _into: &mut [u8]) -> Result<(), AccessFault> {
        Err(AccessFault)
    }
}

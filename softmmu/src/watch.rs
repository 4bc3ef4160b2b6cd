//! Watchpoints of a debugger, by virtual address in any address space.
//!
//! A page with a watchpoint is in no first-level table, so every access to it takes the slow path, where an access that would
//! succeed ends in a [`Trap`] with the cause [`WATCHPOINT`] in its place. What devices and page-table walks access is not
//! watched.

use crate::PAGE_SIZE;
use crate::mmu::Mmu;
use crate::trap::Trap;

/// Cause of the trap of an access that a watchpoint waits for; `tval` is the first watched byte of it. No guest sees it.
pub const WATCHPOINT: u64 = u64::MAX;

/// Bytes whose accesses are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watchpoint {
    /// Virtual address of the first byte.
    pub start: u64,
    /// Virtual address of the last byte; not below `start`.
    pub last: u64,
    /// Loads are noticed.
    pub loads: bool,
    /// Stores are noticed.
    pub stores: bool,
}

/// What an access does; atomic memory operations do both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Does {
    loads: bool,
    stores: bool,
}

impl Does {
    pub(crate) const LOAD: Self = Self { loads: true, stores: false };
    pub(crate) const STORE: Self = Self { loads: false, stores: true };
    pub(crate) const BOTH: Self = Self { loads: true, stores: true };
}

impl Watchpoint {
    fn overlaps(&self, start: u64, last: u64) -> bool {
        self.start <= last && start <= self.last
    }
}

/// The watchpoints of a hart.
#[derive(Default)]
pub(crate) struct Watch {
    points: Vec<Watchpoint>,
    off: bool,
}

impl Watch {
    /// Whether the page of `va` may not be in the first-level tables.
    #[inline]
    pub(crate) fn has_page(&self, va: u64) -> bool {
        let page = va & !(PAGE_SIZE - 1);
        self.points.iter().any(|point| point.overlaps(page, page | (PAGE_SIZE - 1)))
    }

    /// To be called before an access to `size` bytes in one page, which is known to be allowed.
    #[inline]
    pub(crate) fn check(&self, va: u64, size: u64, does: Does) -> Result<(), Trap> {
        if self.points.is_empty() || self.off {
            return Ok(());
        }
        let last = va + (size - 1);
        let hit = |point: &&Watchpoint| {
            point.overlaps(va, last) && (point.loads && does.loads || point.stores && does.stores)
        };
        match self.points.iter().find(hit) {
            Some(point) => Err(Trap { cause: WATCHPOINT, tval: va.max(point.start) }),
            None => Ok(()),
        }
    }
}

impl Mmu {
    /// Replaces the watchpoints.
    pub fn set_watchpoints(&mut self, points: Vec<Watchpoint>) {
        if self.watch.points != points {
            self.watch.points = points;
            self.flush_everything();
        }
    }

    /// Says whether the watchpoints are noticed; returns whether they were.
    pub fn set_watching(&mut self, on: bool) -> bool {
        !std::mem::replace(&mut self.watch.off, !on)
    }
}

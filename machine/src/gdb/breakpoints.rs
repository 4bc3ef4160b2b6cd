//! Breakpoints. Software and hardware breakpoints are the same here: the engines know the addresses, by virtual address in
//! every address space, and the guest's memory stays as it is. So both can be set where nothing is mapped yet.

use gdbstub::target::TargetResult;
use gdbstub::target::ext::breakpoints::{
    Breakpoints, HwBreakpoint, HwBreakpointOps, HwWatchpointOps, SwBreakpoint, SwBreakpointOps,
};

use super::target::Guest;

/// Most breakpoints of each kind, and most watchpoints: a bound on what packets can make of memory.
pub(super) const MOST: usize = 10_000;

impl Breakpoints for Guest {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

// Setting a breakpoint twice, or removing one that is not there, is no error: packets may be repeated.

impl SwBreakpoint for Guest {
    fn add_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        self.points_changed = true;
        Ok(address.is_multiple_of(2) && self.soft_breakpoints.len() < MOST && {
            self.soft_breakpoints.insert(address);
            true
        })
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        self.points_changed |= self.soft_breakpoints.remove(&address);
        Ok(true)
    }
}

impl HwBreakpoint for Guest {
    fn add_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        self.points_changed = true;
        Ok(address.is_multiple_of(2) && self.hard_breakpoints.len() < MOST && {
            self.hard_breakpoints.insert(address);
            true
        })
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        self.points_changed |= self.hard_breakpoints.remove(&address);
        Ok(true)
    }
}

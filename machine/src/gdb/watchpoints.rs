//! Watchpoints for loads, stores and both, by virtual address in every address space; also on device registers. A hart stops
//! before the access, as gdb expects on RISC-V: it steps over the instruction itself, and then looks at the value.

use gdbstub::target::TargetResult;
use gdbstub::target::ext::breakpoints::{HwWatchpoint, WatchKind};
use softmmu::Watchpoint;

use super::breakpoints::MOST;
use super::target::Guest;

fn watchpoint(start: u64, length: u64, kind: WatchKind) -> Option<Watchpoint> {
    Some(Watchpoint {
        start,
        last: start.checked_add(length.checked_sub(1)?)?,
        loads: kind != WatchKind::Write,
        stores: kind != WatchKind::Read,
    })
}

impl HwWatchpoint for Guest {
    fn add_hw_watchpoint(&mut self, address: u64, length: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        let Some(point) = watchpoint(address, length, kind) else { return Ok(false) };
        if !self.watchpoints.contains(&(point, kind)) {
            if self.watchpoints.len() == MOST {
                return Ok(false);
            }
            self.watchpoints.push((point, kind));
            self.points_changed = true;
        }
        Ok(true)
    }

    fn remove_hw_watchpoint(
        &mut self,
        address: u64,
        length: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        let Some(point) = watchpoint(address, length, kind) else { return Ok(false) };
        self.watchpoints.retain(|other| *other != (point, kind));
        self.points_changed = true;
        Ok(true)
    }
}

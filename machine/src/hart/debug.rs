//! A hart in the hands of a debugger, whose orders ([`crate::control`]) it carries out on its own thread, or of a test, which
//! runs it on the test's. General registers and memory are reached through [`jit::Hart`].

use std::ops::Range;

use frontend::csr_name::number as name;
use jit::{Engine, Exit};
use softmmu::walk::Leaf;
use softmmu::{AccessFault, PAGE_SIZE, PhysBus, Privilege, SatpMode, WATCHPOINT};

use super::Hart;
use super::csr::{MISA_F, mstatus};
use crate::control::{Stop, Task};
use crate::system::RunState;

/// What a hart is doing, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Executes instructions.
    Running,
    /// Is in WFI.
    Waiting,
    /// Sleeps in an SBI suspend call.
    Suspended,
    /// Was not started, or has stopped itself by an SBI call.
    Stopped,
}

/// The orders of a debugger.
impl Hart {
    /// Carries out what the debugger wants. `false`: the hart runs now.
    #[cold]
    pub(super) fn attend(&mut self, engine: &mut Engine) -> bool {
        loop {
            match self.system.control.next(self.id) {
                Task::Serve(requests) => requests.into_iter().for_each(|request| request(self, engine)),
                Task::Wait => {
                    self.shared.park(None);
                    return true;
                }
                Task::Step(range) => {
                    self.leave_hold(engine);
                    self.step_in(engine, range);
                    return true;
                }
                Task::Go => {
                    self.leave_hold(engine);
                    return false;
                }
            }
        }
    }

    fn leave_hold(&mut self, engine: &mut Engine) {
        if let Some(points) = self.system.control.changed_points(&mut self.points) {
            engine.set_breakpoints(&points.breakpoints, &mut self.mmu);
            self.mmu.set_watchpoints(points.watchpoints);
        }
        // Time may have been set back, and then the timer thread must be told of the deadline once more.
        self.deadline = u64::MAX;
    }

    /// Executes an instruction, and more while the program counter is in `range`; then reports that, or a breakpoint or
    /// watchpoint on the way. Returns earlier when the hart is kicked, with the order still to be done. Interrupts are not
    /// taken, as a user who steps wants to see the next instruction.
    fn step_in(&mut self, engine: &mut Engine, range: Range<u64>) {
        loop {
            match self.activity() {
                Activity::Stopped => return self.shared.park(None),
                Activity::Suspended => {
                    self.update_timers();
                    match self.wakes() {
                        true => self.wake(),
                        false => return self.sleep(),
                    }
                }
                Activity::Running | Activity::Waiting => {
                    // To go on is a way to carry out WFI at any time.
                    self.waiting = false;
                    match engine.step(self) {
                        Ok(()) => {}
                        Err(trap) if trap.cause == WATCHPOINT => {
                            return self.system.control.stop(self.id, Stop::Watchpoint(trap.tval));
                        }
                        Err(trap) => self.take_exception(trap),
                    }
                }
            }
            let pc = self.state.pc;
            if !range.contains(&pc) {
                return self.system.control.stop(self.id, Stop::Step);
            }
            if engine.has_breakpoint(pc) {
                return self.system.control.stop(self.id, Stop::Breakpoint(pc));
            }
            if jit::Hart::polled(self) {
                // The poll has been seen, so it must be kept for the loop that this returns to.
                return self.shared.kick();
            }
        }
    }

    /// Whether there are floating-point registers.
    pub fn has_float(&self) -> bool {
        self.misa & MISA_F != 0
    }

    /// What the hart is doing.
    pub fn activity(&self) -> Activity {
        match self.system.state_of(self.id) {
            Some(RunState::Stopped) | None => Activity::Stopped,
            Some(RunState::Suspended) => Activity::Suspended,
            Some(_) if self.waiting => Activity::Waiting,
            Some(_) => Activity::Running,
        }
    }

    /// Makes `pc` the next instruction, also for a hart in WFI, which goes on there at once.
    pub fn set_pc(&mut self, pc: u64) {
        self.state.pc = pc & !1;
        if self.resume.is_none() {
            self.waiting = false;
        }
    }

    /// Reads memory as the hart addresses it, whatever the permissions. Returns how many bytes could be read: all before
    /// the first that is not mapped, or not there. Device registers are read as such, which may have effects.
    pub fn read_virtual(&mut self, va: u64, into: &mut [u8]) -> usize {
        let mut done = 0;
        while done < into.len() {
            let at = va.wrapping_add(done as u64);
            let Some(pa) = self.mmu.translate_debug(at) else { break };
            let part = part(at, &mut into[done..]);
            if self.read_physical(pa, part).is_err() {
                break;
            }
            done += part.len();
        }
        done
    }

    /// Writes memory as the hart addresses it, whatever the permissions.
    ///
    /// # Errors
    /// When some of it is not mapped, and then nothing is written; or when a place cannot be written, and then all before its
    /// page is.
    pub fn write_virtual(&mut self, va: u64, from: &[u8]) -> Result<(), AccessFault> {
        // All pages are looked up before the first is written.
        let mut parts = Vec::new();
        let mut rest = from;
        while !rest.is_empty() {
            let at = va.wrapping_add((from.len() - rest.len()) as u64);
            let length = rest.len().min((PAGE_SIZE - at % PAGE_SIZE) as usize);
            let (part, after) = rest.split_at(length);
            parts.push((self.mmu.translate_debug(at).ok_or(AccessFault)?, part));
            rest = after;
        }
        parts.into_iter().try_for_each(|(pa, part)| self.write_physical(pa, part))
    }

    /// Reads physical memory or device registers; a device is accessed once if the length is 1, 2, 4 or 8, else by bytes.
    ///
    /// # Errors
    /// When some of it is not there.
    pub fn read_physical(&mut self, pa: u64, into: &mut [u8]) -> Result<(), AccessFault> {
        if self.system.memory.read(pa, into).is_ok() {
            return Ok(());
        }
        let bus = self.system.devices();
        if let Some(width) = register_width(pa, into.len()) {
            let value = bus.read(pa, width)?;
            into.copy_from_slice(&value.to_le_bytes()[..into.len()]);
            return Ok(());
        }
        for (pa, byte) in (pa..).zip(into) {
            *byte = bus.read(pa, 1)? as u8;
        }
        Ok(())
    }

    /// Writes physical memory or device registers, as [`Self::read_physical`] reads them. Other harts may still execute code
    /// that was written over until their next `fence.i`.
    ///
    /// # Errors
    /// When some of it is not there, or is ROM.
    pub fn write_physical(&mut self, pa: u64, from: &[u8]) -> Result<(), AccessFault> {
        if self.system.memory.write(pa, from).is_ok() {
            return Ok(());
        }
        let bus = self.system.devices();
        if let Some(width) = register_width(pa, from.len()) {
            let mut bytes = [0; 8];
            bytes[..from.len()].copy_from_slice(from);
            return bus.write(pa, width, u64::from_le_bytes(bytes));
        }
        (pa..).zip(from).try_for_each(|(pa, &byte)| bus.write(pa, 1, byte.into()))
    }

    /// The scheme that `satp` selects, and how it translates `va`: `seen` is told the address and the value of every entry.
    pub fn walk(&self, va: u64, seen: impl FnMut(u64, u64)) -> (SatpMode, Option<Leaf>) {
        let mode = SatpMode::from_bits(self.csr.satp >> 60).unwrap_or(SatpMode::Bare);
        (mode, self.mmu.walk_debug(va, seen))
    }

    /// As [`Self::csr`], but floating-point registers can be read also while FS is Off.
    pub fn csr_for_debugger(&mut self, number: u16) -> Option<u64> {
        self.with_fp_on(number, |hart| hart.csr(number))
    }

    /// As [`Self::set_csr`], but floating-point registers can be written also while FS is Off, which it stays.
    pub fn set_csr_for_debugger(&mut self, number: u16, value: u64) -> Option<()> {
        self.with_fp_on(number, |hart| hart.set_csr(number, value))
    }

    fn with_fp_on<T>(&mut self, number: u16, access: impl FnOnce(&mut Self) -> T) -> T {
        if !matches!(number, name::FFLAGS | name::FRM | name::FCSR) {
            return access(self);
        }
        let fs = self.state.mstatus & mstatus::FS;
        if self.has_float() {
            self.state.mstatus |= mstatus::FS;
        }
        let result = access(self);
        self.state.mstatus = self.state.mstatus & !mstatus::FS | fs;
        result
    }
}

/// As much of `bytes`, the first of which is at `va`, as is in one page.
fn part(va: u64, bytes: &mut [u8]) -> &mut [u8] {
    let length = bytes.len().min((PAGE_SIZE - va % PAGE_SIZE) as usize);
    &mut bytes[..length]
}

/// The width of an access to a device that covers exactly these bytes.
fn register_width(pa: u64, length: usize) -> Option<u8> {
    (matches!(length, 1 | 2 | 4 | 8) && pa.is_multiple_of(length as u64)).then_some(length as u8)
}

impl Hart {
    /// Runs until `done` says so, or the machine stops. It is asked whenever the hart has left the engine, and again when
    /// that made it take an interrupt; so after every trap, before the first instruction of the handler.
    pub fn run_until(&mut self, engine: &mut Engine, mut done: impl FnMut(&mut Self) -> bool) {
        self.shared.set_thread(std::thread::current());
        while !self.system.is_stopping() && !done(self) {
            if self.prepare(engine)
                && !done(self)
                && let Exit::Trap(trap) = engine.run(self)
            {
                self.take_exception(trap);
            }
        }
    }

    /// The privilege mode.
    pub fn privilege(&self) -> Privilege {
        self.state.privilege
    }

    /// Changes the privilege mode and nothing else.
    pub fn set_privilege(&mut self, privilege: Privilege) {
        self.state.privilege = privilege;
        self.sync_regime();
        self.interrupts_changed();
    }

    /// The value of a CSR as M-mode reads it; `None` where that would be an illegal instruction.
    pub fn csr(&mut self, number: u16) -> Option<u64> {
        self.as_machine(|hart| hart.csr_read(number))
    }

    /// Writes a CSR as `csrrw` in M-mode does. `None` where that would be an illegal instruction.
    pub fn set_csr(&mut self, number: u16, value: u64) -> Option<()> {
        self.as_machine(|hart| {
            let old = hart.csr_read(number)?;
            if super::csr::is_read_only(number) { None } else { hart.csr_write(number, old, value) }
        })
    }

    fn as_machine<T>(&mut self, access: impl FnOnce(&mut Self) -> T) -> T {
        let privilege = std::mem::replace(&mut self.state.privilege, Privilege::Machine);
        let result = access(self);
        self.state.privilege = privilege;
        self.sync_regime();
        result
    }
}

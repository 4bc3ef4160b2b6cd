//! Entering and leaving traps, and choosing interrupts (Privileged 3.1.6 to 3.1.9, 3.3.2, 4.1.3).

use frontend::ir::Op;
use softmmu::{Privilege, Reservation, Trap, cause};

use super::Hart;
use super::csr::{irq, mstatus};

pub(super) const INTERRUPT: u64 = 1 << 63;

/// Interrupts in the order of their priority within one privilege level (Privileged 3.1.9).
const PRIORITY: [u32; 6] = [11, 3, 7, 9, 1, 5];

impl Hart {
    /// The interrupt to take now, as its number.
    pub(super) fn deliverable(&self) -> Option<u32> {
        let pending = self.pending() & self.csr.mie;
        if pending == 0 {
            return None;
        }
        let status = self.state.mstatus;
        let machine_open = self.state.privilege != Privilege::Machine || status & mstatus::MIE != 0;
        let supervisor_open = match self.state.privilege {
            Privilege::Machine => false,
            Privilege::Supervisor => status & mstatus::SIE != 0,
            Privilege::User => true,
        };
        let machine = if machine_open { pending & !self.csr.mideleg } else { 0 };
        let supervisor = if supervisor_open { pending & self.csr.mideleg } else { 0 };
        let chosen = if machine != 0 { machine } else { supervisor };
        PRIORITY.into_iter().find(|&number| chosen >> number & 1 == 1)
    }

    /// Takes interrupt `number` before the instruction at `pc`.
    pub(super) fn take_interrupt(&mut self, number: u32) {
        let delegated = self.csr.mideleg >> number & 1 == 1;
        self.enter_trap(INTERRUPT | u64::from(number), 0, delegated);
    }

    /// Takes the exception that the instruction at `pc` raised.
    pub(super) fn take_exception(&mut self, trap: Trap) {
        let delegated = self.state.privilege != Privilege::Machine && self.csr.medeleg >> trap.cause & 1 == 1;
        self.enter_trap(trap.cause, trap.tval, delegated);
    }

    fn enter_trap(&mut self, cause: u64, tval: u64, to_supervisor: bool) {
        self.trace_trap(cause, tval, if to_supervisor { Privilege::Supervisor } else { Privilege::Machine });
        let status = &mut self.state.mstatus;
        let from = self.state.privilege as u64;
        let vector = if to_supervisor {
            let sie = *status >> 1 & 1;
            *status &= !(mstatus::SIE | mstatus::SPIE | mstatus::SPP);
            *status |= sie << 5 | (from & 1) << 8;
            self.state.sepc = self.state.pc;
            self.state.scause = cause;
            self.state.stval = tval;
            self.state.privilege = Privilege::Supervisor;
            self.csr.stvec
        } else {
            let mie = *status >> 3 & 1;
            *status &= !(mstatus::MIE | mstatus::MPIE | mstatus::MPP);
            *status |= mie << 7 | from << mstatus::MPP_SHIFT;
            self.csr.mepc = self.state.pc;
            self.csr.mcause = cause;
            self.csr.mtval = tval;
            self.state.privilege = Privilege::Machine;
            self.csr.mtvec
        };
        let vectored = vector & 1 == 1 && cause & INTERRUPT != 0;
        let offset = if vectored { 4 * (cause & !INTERRUPT) } else { 0 };
        self.state.pc = (vector & !3).wrapping_add(offset);
        self.sync_regime();
    }

    /// `mret`
    pub(super) fn return_from_machine(&mut self, op: &Op) -> Result<(), Trap> {
        if self.state.privilege != Privilege::Machine {
            return Err(Trap { cause: cause::ILLEGAL_INSTRUCTION, tval: op.imm as u64 });
        }
        let to = privilege_of(self.state.mstatus >> mstatus::MPP_SHIFT & 3);
        self.trace_return("mret", op.at, to, self.csr.mepc);
        let status = &mut self.state.mstatus;
        let mpie = *status >> 7 & 1;
        *status &= !(mstatus::MIE | mstatus::MPP);
        *status |= mpie << 3 | mstatus::MPIE;
        if to != Privilege::Machine {
            *status &= !mstatus::MPRV;
        }
        self.return_to(to, self.csr.mepc);
        Ok(())
    }

    /// `sret`
    pub(super) fn return_from_supervisor(&mut self, op: &Op) -> Result<(), Trap> {
        let status = self.state.mstatus;
        let closed = match self.state.privilege {
            Privilege::User => true,
            Privilege::Supervisor => status & mstatus::TSR != 0,
            Privilege::Machine => false,
        };
        if closed {
            return Err(Trap { cause: cause::ILLEGAL_INSTRUCTION, tval: op.imm as u64 });
        }
        let to = privilege_of(status >> 8 & 1);
        self.trace_return("sret", op.at, to, self.state.sepc);
        let status = &mut self.state.mstatus;
        let spie = *status >> 5 & 1;
        *status &= !(mstatus::SIE | mstatus::SPP | mstatus::MPRV);
        *status |= spie << 1 | mstatus::SPIE;
        self.return_to(to, self.state.sepc);
        Ok(())
    }

    fn return_to(&mut self, privilege: Privilege, pc: u64) {
        self.state.privilege = privilege;
        self.state.pc = pc;
        // A pending LR is not kept across a return from a trap: another context may run now.
        self.state.reservation = Reservation::default();
        self.sync_regime();
        self.interrupts_changed();
    }

    /// Looks again whether an interrupt can be taken; called when enables, delegation or pending bits changed.
    pub(super) fn interrupts_changed(&mut self) {
        self.note_interrupts();
        if self.deliverable().is_some() {
            self.shared.kick();
        }
    }

    /// Tells generated code whether it may enable interrupts by itself.
    pub(super) fn note_interrupts(&mut self) {
        self.state.interrupt_waits = self.pending() & self.csr.mie != 0;
    }

    /// Whether WFI has something to wake for: pending and enabled, whatever the global enables say.
    pub(super) fn wakes(&mut self) -> bool {
        self.mip() & self.csr.mie & irq::ALL != 0
    }
}

fn privilege_of(bits: u64) -> Privilege {
    match bits {
        0 => Privilege::User,
        1 => Privilege::Supervisor,
        _ => Privilege::Machine,
    }
}

//! The built-in SBI's view of the machine, for the hart that makes a call.

use firmware::sbi::{
    Feature, HardwareCounter, HartSet, HartStatus, MachineIds, Outcome, PerHart, Platform, ResetKind, Resume,
};
use softmmu::{Privilege, Trap};

use super::Hart;
use super::csr::{envcfg, irq};
use super::shared::Message;
use crate::devices::sifive_test::PowerEvent;
use crate::system::{Entry, RunState};

/// Exceptions that the built-in SBI leaves to the supervisor: all but the call it answers itself.
const DELEGATED_EXCEPTIONS: u64 = 0xb1ff;
/// Misaligned fetch stays with a supervisor; misaligned loads and stores never trap but for atomics.
const MISALIGNED: u64 = 1 << 4 | 1 << 6;
/// Exit code when the guest shuts down because it failed.
const FAILURE: u16 = 1;
/// Tries at a remote fence before the host's core is offered to another thread.
const SPINS: u32 = 200;

fn entry_of(hart: u64, resume: Resume) -> Entry {
    Entry { pc: resume.address, privilege: Privilege::Supervisor, a0: hart, a1: resume.opaque }
}

impl Hart {
    /// What firmware would have set up before it starts a supervisor.
    pub(super) fn enter_supervisor_world(&mut self) {
        self.csr.medeleg = DELEGATED_EXCEPTIONS;
        self.csr.mideleg = irq::SUPERVISOR;
        self.csr.mcounteren = u64::from(u32::MAX);
        self.csr.menvcfg = self.envcfg_mask & !envcfg::ADUE | self.reset_menvcfg;
        self.mmu.open_pmp();
    }

    /// Answers the call in `a0` to `a7`; `pc` is already past the `ecall`.
    pub(super) fn sbi_call(&mut self) {
        let registers = std::array::from_fn(|i| self.state.x[10 + i]);
        let outcome = firmware::sbi::ecall(self, registers);
        self.trace_sbi(&registers, &outcome);
        match outcome {
            Outcome::Return { error, value } => {
                self.state.x[10] = error as u64;
                self.state.x[11] = value;
            }
            Outcome::Legacy { a0 } => self.state.x[10] = a0 as u64,
            Outcome::Fault(trap) => {
                self.state.pc = self.state.pc.wrapping_sub(4);
                self.take_exception(trap);
            }
            Outcome::HartStop => self.system.set_state(self.id, RunState::Stopped),
            Outcome::HartSuspend(None) => {
                self.state.x[10] = 0;
                self.state.x[11] = 0;
                self.wait_for_interrupt();
            }
            Outcome::HartSuspend(Some(resume)) | Outcome::SystemSuspend(resume) => {
                self.resume = Some(entry_of(self.id as u64, resume));
                self.system.set_state(self.id, RunState::Suspended);
                self.waiting = true;
            }
            Outcome::Reset { kind: ResetKind::Shutdown, failure } => {
                self.system.power.request(PowerEvent::Off { code: if failure { FAILURE } else { 0 } });
                self.system.set_state(self.id, RunState::Stopped);
            }
            Outcome::Reset { .. } => {
                self.system.power.request(PowerEvent::Reset);
                self.system.set_state(self.id, RunState::Stopped);
            }
        }
    }

    /// Posts `message` to every other hart of `harts`, does it here if this hart is among them, and waits until all have
    /// done it. While waiting this hart answers the others, which may be waiting for it.
    fn remote_fence(&mut self, harts: HartSet, message: Message) {
        let me = self.id as u64;
        let others = || harts.iter().filter(|&hart| hart != me);
        let tickets: Vec<u64> = others().map(|hart| self.system.harts[hart as usize].post(message)).collect();
        if harts.contains(me) {
            self.shared.post(message);
            self.drain_mailbox();
        }
        for (hart, ticket) in others().zip(tickets) {
            let mut spins = 0u32;
            while !self.system.harts[hart as usize].is_done(ticket) && !self.system.is_stopping() {
                self.drain_mailbox();
                spins += 1;
                if spins.is_multiple_of(SPINS) {
                    std::thread::yield_now();
                } else {
                    std::hint::spin_loop();
                }
            }
        }
    }
}

impl Platform for Hart {
    fn hart_id(&self) -> u64 {
        self.id as u64
    }

    fn hart_count(&self) -> u64 {
        self.system.harts.len() as u64
    }

    fn machine_ids(&self) -> MachineIds {
        MachineIds { mvendorid: 0, marchid: super::MARCHID, mimpid: 0 }
    }

    fn per_hart(&mut self) -> &mut PerHart {
        &mut self.sbi
    }

    fn set_timer(&mut self, deadline: u64) {
        // The supervisor has one timer, whichever way it is set: firmware may use the call and the kernel Sstc.
        if self.csr.menvcfg & envcfg::STCE != 0 {
            self.csr.stimecmp = deadline;
        } else {
            self.sbi_timer = deadline;
        }
        self.timers_changed();
    }

    fn send_ipi(&mut self, hart: u64) {
        self.system.harts[hart as usize].set_mip(irq::SSIP, true);
    }

    fn clear_ipi(&mut self) -> bool {
        let pending = self.shared.mip() & irq::SSIP != 0;
        self.shared.set_mip(irq::SSIP, false);
        pending
    }

    fn remote_fence_i(&mut self, harts: HartSet) {
        self.remote_fence(harts, Message::FenceI);
    }

    fn remote_sfence_vma(&mut self, harts: HartSet, start: u64, size: u64, asid: Option<u16>) {
        self.remote_fence(harts, Message::SfenceVma { start, size, asid });
    }

    fn hart_status(&self, hart: u64) -> HartStatus {
        match self.system.state_of(hart as usize) {
            Some(RunState::Running) => HartStatus::Started,
            Some(RunState::Start(_)) => HartStatus::StartPending,
            Some(RunState::Suspended) => HartStatus::Suspended,
            Some(RunState::Stopped) | None => HartStatus::Stopped,
        }
    }

    fn start_hart(&mut self, hart: u64, at: Resume) -> bool {
        self.system.start_hart(hart as usize, entry_of(hart, at))
    }

    fn is_executable(&self, address: u64) -> bool {
        self.system.memory.is_ram(address, 2)
    }

    fn is_ram(&self, address: u64, length: u64) -> bool {
        self.system.memory.is_ram(address, length)
    }

    fn read_memory(&self, address: u64, bytes: &mut [u8]) -> bool {
        self.system.memory.read(address, bytes).is_ok()
    }

    fn write_memory(&mut self, address: u64, bytes: &[u8]) -> bool {
        self.system.memory.write(address, bytes).is_ok()
    }

    fn load_virtual(&mut self, address: u64) -> Result<u64, Trap> {
        // It is the firmware that loads.
        let watching = self.mmu.set_watching(false);
        let value = self.mmu.load_u64(address);
        self.mmu.set_watching(watching);
        value
    }

    fn console_write(&mut self, bytes: &[u8]) -> Option<usize> {
        self.system.console.write(bytes);
        Some(bytes.len())
    }

    fn console_read(&mut self, bytes: &mut [u8]) -> usize {
        self.system.read_console(bytes)
    }

    fn set_counter_running(&mut self, counter: HardwareCounter, running: bool) {
        let bit = 1 << counter as u32;
        let inhibit = self.csr.mcountinhibit;
        self.write_countinhibit(if running { inhibit & !bit } else { inhibit | bit });
    }

    fn write_counter(&mut self, counter: HardwareCounter, value: u64) {
        self.set_counter(counter as u16, value);
    }

    fn feature(&self, feature: Feature) -> Option<u64> {
        match feature {
            Feature::MisalignedExcDeleg => Some(u64::from(self.csr.medeleg & MISALIGNED == MISALIGNED)),
            Feature::PteAdHwUpdating if self.envcfg_mask & envcfg::ADUE != 0 => {
                Some(u64::from(self.csr.menvcfg & envcfg::ADUE != 0))
            }
            _ => None,
        }
    }

    fn set_feature(&mut self, feature: Feature, value: u64) -> bool {
        match feature {
            Feature::MisalignedExcDeleg => {
                self.csr.medeleg = self.csr.medeleg & !MISALIGNED | (MISALIGNED * value);
            }
            Feature::PteAdHwUpdating => {
                self.csr.menvcfg = self.csr.menvcfg & !envcfg::ADUE | (envcfg::ADUE * value);
                self.sync_regime();
            }
            _ => return false,
        }
        true
    }
}

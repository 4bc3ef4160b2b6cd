//! The control and status registers of machine, supervisor and user level (Privileged 1.13, chapters 3, 4 and 12).

use frontend::csr_name::number as name;
use frontend::ir::CsrAccess;
use softmmu::{Privilege, SatpMode, Trap, cause};

use super::Hart;

/// Bits of `mstatus` (Privileged 3.1.6).
pub mod mstatus {
    #![allow(missing_docs, reason = "named as in the specification")]
    pub use jit::context::mstatus::{FS, SD, SIE, SSTATUS};

    pub const MIE: u64 = 1 << 3;
    pub const SPIE: u64 = 1 << 5;
    pub const MPIE: u64 = 1 << 7;
    pub const SPP: u64 = 1 << 8;
    pub const MPP_SHIFT: u32 = 11;
    pub const MPP: u64 = 3 << MPP_SHIFT;
    pub const MPRV: u64 = 1 << 17;
    pub const SUM: u64 = 1 << 18;
    pub const MXR: u64 = 1 << 19;
    pub const TVM: u64 = 1 << 20;
    pub const TW: u64 = 1 << 21;
    pub const TSR: u64 = 1 << 22;
    /// UXL and SXL, fixed at 64 bits.
    pub const XL: u64 = 2 << 32 | 2 << 34;
    pub const WRITABLE: u64 = SIE | MIE | SPIE | MPIE | SPP | MPP | FS | MPRV | SUM | MXR | TVM | TW | TSR;
}

/// Interrupt bits of `mip` and `mie`.
pub mod irq {
    #![allow(missing_docs, reason = "named as in the specification")]
    pub const SSIP: u64 = 1 << 1;
    pub const MSIP: u64 = 1 << 3;
    pub const STIP: u64 = 1 << 5;
    pub const MTIP: u64 = 1 << 7;
    pub const SEIP: u64 = 1 << 9;
    pub const MEIP: u64 = 1 << 11;
    pub const SUPERVISOR: u64 = SSIP | STIP | SEIP;
    pub const ALL: u64 = SUPERVISOR | MSIP | MTIP | MEIP;
}

/// Bits of `menvcfg` and `senvcfg`.
pub mod envcfg {
    #![allow(missing_docs, reason = "named as in the specification")]
    pub const FIOM: u64 = 1;
    pub const CBIE: u64 = 3 << 4;
    pub const CBCFE: u64 = 1 << 6;
    pub const CBZE: u64 = 1 << 7;
    pub const ADUE: u64 = 1 << 61;
    pub const PBMTE: u64 = 1 << 62;
    pub const STCE: u64 = 1 << 63;
}

/// Exceptions that `medeleg` can delegate: all of the base architecture but the call from M-mode.
const MEDELEG: u64 = 0xb3ff;
/// `scounteren` and `mcounteren` implement a bit for every counter.
const COUNTEREN: u64 = 0xffff_ffff;
/// `mcountinhibit` stops `mcycle` and `minstret`; the other counters do not count.
const COUNTINHIBIT: u64 = 0b101;

/// Without F, FS is Off for good, and fcsr is not there (Privileged 3.1.6.6).
pub(super) const MISA_F: u64 = 1 << 5;

const HPMCOUNTER31: u16 = name::HPMCOUNTER3 + 28;
const MHPMCOUNTER31: u16 = name::MHPMCOUNTER3 + 28;
const MHPMEVENT31: u16 = name::MHPMEVENT3 + 28;
const PMPCFG2: u16 = name::PMPCFG0 + 2;
const PMPADDR15: u16 = name::PMPADDR0 + 15;

/// The registers that are neither in [`jit::HartState`] nor derived.
#[derive(Clone, Debug, Default)]
pub struct Csrs {
    pub(super) medeleg: u64,
    pub(super) mideleg: u64,
    pub(super) mie: u64,
    pub(super) mtvec: u64,
    pub(super) mcounteren: u64,
    pub(super) menvcfg: u64,
    pub(super) mscratch: u64,
    pub(super) mepc: u64,
    pub(super) mcause: u64,
    pub(super) mtval: u64,
    pub(super) mcountinhibit: u64,
    /// `mcycle` minus the running cycle count, or the frozen value while inhibited; likewise `minstret`.
    pub(super) mcycle: u64,
    pub(super) minstret: u64,
    /// SEIP and STIP as software wrote them; the wires are in `HartShared`.
    pub(super) mip_software: u64,
    pub(super) stvec: u64,
    pub(super) scounteren: u64,
    pub(super) senvcfg: u64,
    pub(super) satp: u64,
    pub(super) stimecmp: u64,
}

/// Bits 11 to 10 of its number say that a CSR is read-only (Privileged 2.1).
pub(super) fn is_read_only(number: u16) -> bool {
    number >> 10 == 3
}

fn illegal(bits: u64) -> Trap {
    Trap { cause: cause::ILLEGAL_INSTRUCTION, tval: bits }
}

impl Hart {
    /// Carries out a CSR instruction: checks the access, reads the old value, writes the new one.
    pub(super) fn csr_access(&mut self, bits: u64, access: CsrAccess, operand: u64) -> Result<u64, Trap> {
        let number = (bits >> 20) as u16 & 0xfff;
        let write = access != CsrAccess::Read;
        // Privileged 2.1: bits 9 to 8 say the lowest privilege.
        if u64::from(number >> 8 & 3) > self.state.privilege as u64 || write && is_read_only(number) {
            return Err(illegal(bits));
        }
        let old = self.csr_read(number).ok_or(illegal(bits))?;
        let new = match access {
            CsrAccess::Read => return Ok(old),
            CsrAccess::Write => operand,
            // Set and clear work on the software-writable SEIP, not on the wire (Privileged 3.1.9).
            CsrAccess::Set => self.csr_for_update(number, old) | operand,
            CsrAccess::Clear => self.csr_for_update(number, old) & !operand,
        };
        self.csr_write(number, old, new).ok_or(illegal(bits))?;
        Ok(old)
    }

    fn csr_for_update(&self, number: u16, old: u64) -> u64 {
        if number == name::MIP { old & !irq::SEIP | self.csr.mip_software & irq::SEIP } else { old }
    }

    /// The value of a CSR as software at the current privilege sees it; `None` if there is none or it is closed.
    pub(super) fn csr_read(&mut self, number: u16) -> Option<u64> {
        Some(match number {
            name::FFLAGS => self.fp_on()?.fflags.into(),
            name::FRM => self.fp_on()?.frm.into(),
            name::FCSR => {
                let state = self.fp_on()?;
                u64::from(state.fflags) | u64::from(state.frm) << 5
            }
            name::CYCLE..=HPMCOUNTER31 => {
                self.counter_open(number - name::CYCLE)?;
                self.counter(number - name::CYCLE)
            }

            name::SSTATUS => self.mstatus() & mstatus::SSTATUS,
            name::SIE => self.csr.mie & self.csr.mideleg,
            name::STVEC => self.csr.stvec,
            name::SCOUNTEREN => self.csr.scounteren,
            name::SENVCFG => self.csr.senvcfg,
            name::SSCRATCH => self.state.sscratch,
            name::SEPC => self.state.sepc,
            name::SCAUSE => self.state.scause,
            name::STVAL => self.state.stval,
            name::SIP => self.mip() & self.csr.mideleg,
            name::STIMECMP => {
                self.stimecmp_open()?;
                self.csr.stimecmp
            }
            name::SATP => {
                self.satp_open()?;
                self.csr.satp
            }

            name::MVENDORID | name::MIMPID | name::MCONFIGPTR => 0,
            name::MARCHID => super::MARCHID,
            name::MHARTID => self.id as u64,
            name::MSTATUS => self.mstatus(),
            name::MISA => self.misa,
            name::MEDELEG => self.csr.medeleg,
            name::MIDELEG => self.csr.mideleg,
            name::MIE => self.csr.mie,
            name::MTVEC => self.csr.mtvec,
            name::MCOUNTEREN => self.csr.mcounteren,
            name::MENVCFG => self.csr.menvcfg,
            name::MSCRATCH => self.csr.mscratch,
            name::MEPC => self.csr.mepc,
            name::MCAUSE => self.csr.mcause,
            name::MTVAL => self.csr.mtval,
            name::MIP => self.mip(),
            // Two registers hold eight entries each in RV64; the odd numbers do not exist (Privileged 3.7.1).
            name::PMPCFG0 => self.mmu.pmp().cfg(0),
            PMPCFG2 => self.mmu.pmp().cfg(1),
            name::PMPADDR0..=PMPADDR15 => self.mmu.pmp().addr(usize::from(number - name::PMPADDR0)),
            name::MCYCLE => self.counter(0),
            name::MINSTRET => self.counter(2),
            name::MHPMCOUNTER3..=MHPMCOUNTER31 => 0,
            name::MCOUNTINHIBIT => self.csr.mcountinhibit,
            name::MHPMEVENT3..=MHPMEVENT31 => 0,
            // A hart without triggers: only trigger 0 can be selected, and it does not exist (Debug 5.7).
            name::TSELECT | name::TDATA1 | name::TDATA2 | name::TDATA3 => 0,
            name::TINFO => 1,
            _ => return None,
        })
    }

    /// Replaces the value `old` that the same instruction has read.
    pub(super) fn csr_write(&mut self, number: u16, old: u64, value: u64) -> Option<()> {
        let csr = &mut self.csr;
        match number {
            name::FFLAGS => self.fp_write()?.fflags = value as u8 & 0x1f,
            name::FRM => self.fp_write()?.frm = value as u8 & 7,
            name::FCSR => {
                let state = self.fp_write()?;
                state.fflags = value as u8 & 0x1f;
                state.frm = (value >> 5) as u8 & 7;
            }

            name::SSTATUS => {
                let keep = self.state.mstatus & !mstatus::SSTATUS;
                self.write_mstatus(keep | value & mstatus::SSTATUS);
            }
            name::SIE => {
                csr.mie = csr.mie & !csr.mideleg | value & csr.mideleg;
                self.interrupts_changed();
            }
            name::STVEC => csr.stvec = legal_tvec(value),
            name::SCOUNTEREN => {
                csr.scounteren = value & COUNTEREN;
                self.counters_changed();
            }
            name::SENVCFG => {
                csr.senvcfg = legal_envcfg(value, self.envcfg_mask & 0xffff_ffff, csr.senvcfg);
                self.sync_regime();
            }
            name::SSCRATCH => self.state.sscratch = value,
            name::SEPC => self.state.sepc = value & !1,
            name::SCAUSE => self.state.scause = value,
            name::STVAL => self.state.stval = value,
            name::SIP => {
                // Only SSIP is writable through sip, and only if it is delegated (Privileged 4.1.3).
                if csr.mideleg & irq::SSIP != 0 {
                    self.write_ssip(old, value);
                }
                self.interrupts_changed();
            }
            name::STIMECMP => {
                self.stimecmp_open()?;
                self.csr.stimecmp = value;
                self.timers_changed();
            }
            name::SATP => {
                self.satp_open()?;
                self.write_satp(value);
            }

            name::MSTATUS => self.write_mstatus(value),
            name::MEDELEG => csr.medeleg = value & MEDELEG,
            name::MIDELEG => {
                csr.mideleg = value & irq::SUPERVISOR;
                self.interrupts_changed();
            }
            name::MIE => {
                csr.mie = value & irq::ALL;
                self.interrupts_changed();
            }
            name::MTVEC => csr.mtvec = legal_tvec(value),
            name::MCOUNTEREN => {
                csr.mcounteren = value & COUNTEREN;
                self.counters_changed();
            }
            name::MENVCFG => {
                csr.menvcfg = legal_envcfg(value, self.envcfg_mask, csr.menvcfg);
                self.timers_changed();
                self.sync_regime();
            }
            name::MSCRATCH => csr.mscratch = value,
            name::MEPC => csr.mepc = value & !1,
            name::MCAUSE => csr.mcause = value,
            name::MTVAL => csr.mtval = value,
            name::MIP => {
                let sstc = csr.menvcfg & envcfg::STCE != 0;
                let writable = if sstc { irq::SEIP } else { irq::SEIP | irq::STIP };
                csr.mip_software = csr.mip_software & !writable | value & writable;
                self.write_ssip(old, value);
                self.interrupts_changed();
            }
            name::PMPCFG0 => self.mmu.write_pmp_cfg(0, value),
            PMPCFG2 => self.mmu.write_pmp_cfg(1, value),
            name::PMPADDR0..=PMPADDR15 => {
                self.mmu.write_pmp_addr(usize::from(number - name::PMPADDR0), value);
            }
            name::MCYCLE => self.set_counter(0, value),
            name::MINSTRET => self.set_counter(2, value),
            name::MCOUNTINHIBIT => self.write_countinhibit(value & COUNTINHIBIT),
            // Read-only zero, or legal values that cannot change.
            name::MISA | name::MHPMCOUNTER3..=MHPMCOUNTER31 | name::MHPMEVENT3..=MHPMEVENT31 => {}
            name::TSELECT | name::TDATA1 | name::TDATA2 | name::TDATA3 | name::TINFO => {}
            _ => return None,
        }
        Some(())
    }

    /// SSIP can be raised by other harts between the read and the write of an instruction, which must not undo that.
    fn write_ssip(&self, old: u64, new: u64) {
        if (old ^ new) & irq::SSIP != 0 {
            self.shared.set_mip(irq::SSIP, new & irq::SSIP != 0);
        }
    }

    /// Floating-point CSRs exist while FS is not Off.
    fn fp_on(&mut self) -> Option<&mut jit::HartState> {
        (self.state.mstatus & mstatus::FS != 0).then_some(&mut self.state)
    }

    fn fp_write(&mut self) -> Option<&mut jit::HartState> {
        let state = self.fp_on()?;
        state.mstatus |= mstatus::FS;
        Some(state)
    }

    /// Privileged 3.1.11 and 4.1.5: a counter is open to S if `mcounteren` says so, to U if both registers do.
    fn counter_open(&self, index: u16) -> Option<()> {
        let machine = self.csr.mcounteren >> index & 1 == 1;
        let supervisor = self.csr.scounteren >> index & 1 == 1;
        match self.state.privilege {
            Privilege::Machine => true,
            Privilege::Supervisor => machine,
            Privilege::User => machine && supervisor,
        }
        .then_some(())
    }

    /// Who may read which counter has changed.
    pub(super) fn counters_changed(&mut self) {
        let open = self.counter_open(name::TIME - name::CYCLE).is_some();
        self.state.time_open = open && self.system.clock.base().is_some();
    }

    /// Sstc: below M, stimecmp takes menvcfg.STCE and mcounteren.TM.
    fn stimecmp_open(&self) -> Option<()> {
        let open = self.csr.menvcfg & envcfg::STCE != 0 && self.csr.mcounteren & 2 != 0;
        (self.sstc && (self.state.privilege == Privilege::Machine || open)).then_some(())
    }

    fn satp_open(&self) -> Option<()> {
        (self.state.privilege != Privilege::Supervisor || self.state.mstatus & mstatus::TVM == 0)
            .then_some(())
    }

    /// `mstatus` with SD.
    pub(super) fn mstatus(&self) -> u64 {
        let status = self.state.mstatus;
        if status & mstatus::FS == mstatus::FS { status | mstatus::SD } else { status }
    }

    fn write_mstatus(&mut self, value: u64) {
        let old = self.state.mstatus;
        let mut new = old & !mstatus::WRITABLE | value & mstatus::WRITABLE;
        if new & mstatus::MPP == 2 << mstatus::MPP_SHIFT {
            new = new & !mstatus::MPP | old & mstatus::MPP;
        }
        if self.misa & MISA_F == 0 {
            new &= !mstatus::FS;
        }
        self.state.mstatus = new;
        if (old ^ new) & (mstatus::MPP | mstatus::MPRV | mstatus::SUM | mstatus::MXR) != 0 {
            self.sync_regime();
        }
        if !old & new & (mstatus::SIE | mstatus::MIE) != 0 {
            self.interrupts_changed();
        }
    }

    /// A write with an unsupported mode changes nothing (Privileged 4.1.11).
    fn write_satp(&mut self, value: u64) {
        match SatpMode::from_bits(value >> 60) {
            Some(mode) if mode <= self.max_satp_mode => {
                self.csr.satp = value;
                self.sync_regime();
            }
            _ => {}
        }
    }

    /// Interrupts pending now: wires, bits that software wrote, and timers.
    pub(super) fn mip(&mut self) -> u64 {
        self.update_timers();
        self.pending()
    }

    /// As [`Self::mip`], with the timers as they stood at the last look at the clock.
    pub(super) fn pending(&self) -> u64 {
        // With stimecmp in effect STIP is its comparison alone (Sstc, 2.1).
        let sstc = self.csr.menvcfg & envcfg::STCE != 0;
        let software = if sstc { self.csr.mip_software & !irq::STIP } else { self.csr.mip_software };
        self.shared.mip() | software | self.timer_pending
    }

    /// The counter with this index: 0 cycle, 1 time, 2 instret; the others read as zero.
    pub(super) fn counter(&self, index: u16) -> u64 {
        match index {
            0 if self.csr.mcountinhibit & 1 != 0 => self.csr.mcycle,
            0 => self.csr.mcycle.wrapping_add(self.running_cycles()),
            1 => self.system.clock.now(),
            2 if self.csr.mcountinhibit & 4 != 0 => self.csr.minstret,
            2 => self.csr.minstret.wrapping_add(self.running_instret()),
            _ => 0,
        }
    }

    fn running_instret(&self) -> u64 {
        self.state.instret.wrapping_add(self.state.partial)
    }

    /// A nominal clock of one cycle per instruction, as functional simulators have it.
    fn running_cycles(&self) -> u64 {
        self.running_instret()
    }

    pub(super) fn set_counter(&mut self, index: u16, value: u64) {
        let inhibited = self.csr.mcountinhibit >> index & 1 == 1;
        // The write takes the place of the increment that this instruction would make (Privileged 3.1.10).
        let running = self.running_instret().wrapping_add(1);
        let stored = if inhibited { value } else { value.wrapping_sub(running) };
        if index == 0 {
            self.csr.mcycle = stored;
        } else {
            self.csr.minstret = stored;
        }
    }

    pub(super) fn write_countinhibit(&mut self, value: u64) {
        for index in [0, 2] {
            let (old, new) = (self.csr.mcountinhibit >> index & 1, value >> index & 1);
            let running = self.running_instret().wrapping_add(1);
            let counter = if index == 0 { &mut self.csr.mcycle } else { &mut self.csr.minstret };
            match (old, new) {
                (0, 1) => *counter = counter.wrapping_add(running),
                (1, 0) => *counter = counter.wrapping_sub(running),
                _ => {}
            }
        }
        self.csr.mcountinhibit = value;
    }
}

/// Modes 0 (direct) and 1 (vectored); the base is aligned to 4 bytes.
fn legal_tvec(value: u64) -> u64 {
    value & !2
}

/// Keeps the implemented fields; CBIE has no mode 2, a write of which keeps the old one.
fn legal_envcfg(value: u64, mask: u64, old: u64) -> u64 {
    let mut new = value & mask;
    if new & envcfg::CBIE == 2 << 4 {
        new = new & !envcfg::CBIE | old & envcfg::CBIE;
    }
    new
}

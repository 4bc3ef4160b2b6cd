//! The bodies of the IR's helpers: one function for every engine.

use frontend::ir::{CsrAccess, Helper, Op, Reg};
use softmmu::{Privilege, Trap, cause};

use super::Hart;
use super::csr::{envcfg, mstatus};

/// PAUSE hints between two offers of the host's core to other threads, which may hold the lock that the guest spins on.
const PAUSES_PER_YIELD: u32 = 16;

fn illegal(op: &Op) -> Trap {
    Trap { cause: cause::ILLEGAL_INSTRUCTION, tval: op.imm as u64 }
}

impl jit::Hart for Hart {
    #[inline(always)]
    fn state(&mut self) -> &mut jit::HartState {
        &mut self.state
    }

    #[inline(always)]
    fn mmu(&mut self) -> &mut softmmu::Mmu {
        &mut self.mmu
    }

    #[inline(always)]
    fn poll_word(&self) -> &std::sync::atomic::AtomicU32 {
        self.shared.poll_word()
    }

    fn time_base(&self) -> Option<&jit::time::TimeBase> {
        self.system.clock.base()
    }

    fn call(&mut self, op: &Op) -> Result<(), Trap> {
        let a = self.state.x[op.a.index()];
        let b = self.state.x[op.b.index()];
        match op.helper() {
            Helper::Csr | Helper::CsrPlain => {
                let (access, mode) = (CsrAccess::from_bits(op.aux), self.state.privilege);
                let value = self.csr_access(op.imm as u64, access, a)?;
                if self.traces.csr.is_some() {
                    self.trace_csr(op.at, mode, (op.imm >> 20) as u16 & 0xfff, access, value);
                }
                if op.rd != Reg::SINK {
                    self.state.x[op.rd.index()] = value;
                }
            }
            Helper::Ecall => return self.ecall(op),
            Helper::Ebreak => {
                let pc = self.state.page.wrapping_add(u64::from(op.at));
                return Err(Trap { cause: cause::BREAKPOINT, tval: pc });
            }
            Helper::Illegal => return Err(illegal(op)),
            Helper::Mret => self.return_from_machine(op)?,
            Helper::Sret => self.return_from_supervisor(op)?,
            Helper::Wfi => {
                // TW makes WFI below M illegal; in U-mode it is when S-mode exists (Privileged 3.3.3).
                let trapped = self.state.privilege == Privilege::User
                    || self.state.privilege == Privilege::Supervisor && self.state.mstatus & mstatus::TW != 0;
                if trapped {
                    return Err(illegal(op));
                }
                self.wait_for_interrupt();
            }
            // These may complete at once (Zawrs); the reservation is polled by the guest's own loop.
            Helper::WrsNto | Helper::WrsSto | Helper::Pause => self.pause(),
            Helper::SfenceVma => {
                let closed = match self.state.privilege {
                    Privilege::User => true,
                    Privilege::Supervisor => self.state.mstatus & mstatus::TVM != 0,
                    Privilege::Machine => false,
                };
                if closed {
                    return Err(illegal(op));
                }
                let va = (op.aux & 1 != 0).then_some(a);
                let asid = (op.aux & 2 != 0).then_some(b as u16);
                self.mmu.sfence_vma(va, asid);
            }
            Helper::SfenceInval => {
                if self.state.privilege == Privilege::User {
                    return Err(illegal(op));
                }
            }
            Helper::Fence => std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst),
            Helper::FenceI => self.order_code(),
            Helper::CboZero => {
                if !self.envcfg_allows(envcfg::CBZE) {
                    return Err(illegal(op));
                }
                self.mmu.zero_block(a)?;
            }
            Helper::CboFlush => {
                if !self.envcfg_allows(if op.aux == 1 { envcfg::CBIE } else { envcfg::CBCFE }) {
                    return Err(illegal(op));
                }
                self.mmu.check_cache_block(a)?;
            }
        }
        Ok(())
    }
}

impl Hart {
    /// Cache-block instructions are open below M by `menvcfg`, and in U also by `senvcfg` (CMO chapter, 2.5.1).
    pub(super) fn envcfg_allows(&self, field: u64) -> bool {
        let machine = self.csr.menvcfg & field != 0;
        let supervisor = self.csr.senvcfg & field != 0;
        match self.state.privilege {
            Privilege::Machine => true,
            Privilege::Supervisor => machine,
            Privilege::User => machine && supervisor,
        }
    }

    fn ecall(&mut self, op: &Op) -> Result<(), Trap> {
        let cause = match self.state.privilege {
            Privilege::User => cause::ECALL_U,
            Privilege::Supervisor if self.system.has_sbi() => {
                self.state.pc = self.state.page.wrapping_add(u64::from(op.at) + 4);
                self.sbi_call();
                return Ok(());
            }
            Privilege::Supervisor => cause::ECALL_S,
            Privilege::Machine => cause::ECALL_M,
        };
        Err(Trap { cause, tval: 0 })
    }

    fn pause(&mut self) {
        self.pauses = self.pauses.wrapping_add(1);
        if self.pauses.is_multiple_of(PAUSES_PER_YIELD) {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}

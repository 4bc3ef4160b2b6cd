//! A hart: registers, CSRs, memory view, and the thread that runs them.

pub mod csr;
pub mod debug;
mod helpers;
mod sample;
mod sbi;
pub mod shared;
mod traces;
mod trap;

use std::sync::Arc;

use firmware::sbi::PerHart;
use frontend::{Decoder, Extension};
use jit::{Engine, Exit, HartState};
use softmmu::{Mmu, Privilege, Regime, SatpMode};

use crate::control::Stop;
use crate::cpu_model::CpuModel;
use crate::system::{Entry, RunState, System};
use csr::{Csrs, envcfg, irq, mstatus};
use sample::Recorder;
use shared::{HartShared, Message};
use traces::Traces;

/// `marchid`: QEMU's registered number, so that no guest applies a vendor's errata.
const MARCHID: u64 = 0x2a;

/// One hart with everything that only its own thread touches.
pub struct Hart {
    state: HartState,
    mmu: Mmu,
    csr: Csrs,
    id: usize,
    misa: u64,
    max_satp_mode: SatpMode,
    sstc: bool,
    /// Fields of `menvcfg` that the CPU model has.
    envcfg_mask: u64,
    /// `menvcfg` after reset: where only Svadu is there, and not Svade, A and D are updated from the start as on QEMU.
    reset_menvcfg: u64,
    /// MTIP and STIP as of the last look at the clock.
    timer_pending: u64,
    /// Deadline last given to the timer thread, in ticks.
    deadline: u64,
    /// Deadline set through the built-in SBI, in ticks.
    sbi_timer: u64,
    sbi: PerHart,
    /// In WFI.
    waiting: bool,
    /// Where an SBI suspend call that does not return resumes.
    resume: Option<Entry>,
    /// A `fence.i` has to be carried out before the next instruction.
    code_stale: bool,
    pauses: u32,
    /// Which [`crate::control::Points`] the hart has.
    points: u64,
    /// For the profiler.
    recorder: Option<Recorder>,
    traces: Traces,
    shared: Arc<HartShared>,
    system: Arc<System>,
}

impl Hart {
    /// Hart `id` of `system`, as it is after power-on.
    pub fn new(id: usize, model: &CpuModel, system: &Arc<System>) -> Self {
        let mmu = Mmu::new(system.memory.clone(), system.bus(), model.mmu_config());
        let mut hart = Self {
            state: HartState::default(),
            mmu,
            csr: Csrs::default(),
            id,
            misa: model.misa(),
            max_satp_mode: model.max_satp(),
            sstc: model.has_sstc(),
            envcfg_mask: model.envcfg_mask(),
            reset_menvcfg: if model.has(Extension::Svade) { 0 } else { model.envcfg_mask() & envcfg::ADUE },
            timer_pending: 0,
            deadline: u64::MAX,
            sbi_timer: u64::MAX,
            sbi: PerHart::default(),
            waiting: false,
            resume: None,
            code_stale: false,
            pauses: 0,
            points: 0,
            recorder: system.profiler.as_ref().map(Recorder::new),
            traces: Traces::new(&system.inspect),
            shared: Arc::clone(&system.harts[id]),
            system: Arc::clone(system),
        };
        if let Some(watcher) = hart.traces.mmu_watcher(id) {
            hart.mmu.set_watcher(watcher);
        }
        hart.state.mstatus = mstatus::XL;
        hart.csr.menvcfg = hart.reset_menvcfg;
        hart.csr.stimecmp = u64::MAX;
        hart.sync_regime();
        hart
    }

    /// Runs the hart until the machine stops.
    pub fn run(mut self, decoder: Decoder) {
        let mut engine = self.engine(decoder);
        self.shared.set_thread(std::thread::current());
        let system = Arc::clone(&self.system);
        system.control.arrive(self.id);
        while !system.is_stopping() {
            if self.prepare(&mut engine) {
                self.execute(&mut engine);
            }
        }
        system.control.leave(self.id);
        self.sample();
        if let Some(recorder) = self.recorder.take() {
            recorder.finish();
        }
        self.system.add_stats(&engine.stats(&self.state, &self.mmu));
        if let Some(coverage) = engine.into_coverage() {
            self.system.add_coverage(coverage);
        }
    }

    /// An engine of the machine's kind for this hart.
    pub fn engine(&self, decoder: Decoder) -> Engine {
        if let Some(coverage) = self.system.new_coverage() {
            return Engine::covering(decoder, coverage);
        }
        let shared = Arc::clone(&self.shared);
        Engine::new(&self.system.engines, decoder, self.id, Box::new(move || shared.kick()))
    }

    /// Does everything that comes between two runs of the engine, or sleeps. Says whether there is something to execute.
    fn prepare(&mut self, engine: &mut Engine) -> bool {
        self.shared.take_poll();
        self.drain_mailbox();
        self.mmu.notice_hidden_roms();
        if self.code_stale {
            self.code_stale = false;
            engine.fence_i(&mut self.mmu);
        }
        let state = self.system.next_state(self.id);
        match state {
            RunState::Start(entry) => self.start(entry),
            RunState::Running | RunState::Suspended => self.sample(),
            RunState::Stopped => {
                self.shared.take_samples();
            }
        }
        if self.system.control.calls(self.id) && self.attend(engine) {
            return false;
        }
        if state == RunState::Stopped {
            self.shared.park(None);
            return false;
        }
        self.update_timers();
        if self.waiting {
            if !self.wakes() {
                self.sleep();
                return false;
            }
            self.wake();
        }
        if let Some(number) = self.deliverable() {
            self.take_interrupt(number);
        }
        true
    }

    fn execute(&mut self, engine: &mut Engine) {
        loop {
            match engine.run(self) {
                Exit::Poll => return,
                Exit::Trap(trap) if trap.cause == softmmu::WATCHPOINT => {
                    self.system.control.stop(self.id, Stop::Watchpoint(trap.tval));
                    return;
                }
                Exit::Trap(trap) => self.take_exception(trap),
                Exit::Break => {
                    self.system.control.stop(self.id, Stop::Breakpoint(self.state.pc));
                    return;
                }
            }
        }
    }

    /// Sleeps until the hart is kicked or its next timer is due.
    fn sleep(&mut self) {
        let timeout = self.system.clock.until(self.next_deadline());
        self.shared.park(timeout);
    }

    /// Ends WFI, or a suspend call.
    fn wake(&mut self) {
        self.waiting = false;
        if let Some(entry) = self.resume.take() {
            self.system.set_state(self.id, RunState::Running);
            self.start(entry);
        }
    }

    fn start(&mut self, entry: Entry) {
        self.state.privilege = entry.privilege;
        self.state.pc = entry.pc;
        self.state.x[10] = entry.a0;
        self.state.x[11] = entry.a1;
        self.state.mstatus &= !mstatus::SIE;
        self.csr.satp = 0;
        self.waiting = false;
        if self.system.has_sbi() {
            self.enter_supervisor_world();
        }
        self.mmu.sfence_vma(None, None);
        self.code_stale = true;
        self.shared.kick();
        self.sync_regime();
    }

    fn drain_mailbox(&mut self) {
        let (mmu, stale) = (&mut self.mmu, &mut self.code_stale);
        self.shared.drain(|message| match message {
            Message::FenceI => *stale = true,
            Message::SfenceVma { start, size, asid } => mmu.sfence_range(start, size, asid),
        });
        if self.code_stale {
            self.shared.kick();
        }
    }

    /// `fence.i`, also as a request of another hart: before the next instruction.
    pub(crate) fn order_code(&mut self) {
        self.code_stale = true;
        self.shared.kick();
    }

    fn wait_for_interrupt(&mut self) {
        if !self.wakes() {
            self.waiting = true;
            self.shared.kick();
        }
    }

    /// Tells the MMU what decides translation now.
    fn sync_regime(&mut self) {
        self.state.zero_allowed = self.envcfg_allows(envcfg::CBZE);
        self.counters_changed();
        let status = self.state.mstatus;
        let mprv = self.state.privilege == Privilege::Machine && status & mstatus::MPRV != 0;
        let mpp = match status >> mstatus::MPP_SHIFT & 3 {
            0 => Privilege::User,
            1 => Privilege::Supervisor,
            _ => Privilege::Machine,
        };
        self.mmu.set_regime(&Regime {
            satp: self.csr.satp,
            privilege: self.state.privilege,
            mprv_privilege: mprv.then_some(mpp),
            sum: status & mstatus::SUM != 0,
            mxr: status & mstatus::MXR != 0,
            adue: self.csr.menvcfg & envcfg::ADUE != 0,
            pbmte: self.csr.menvcfg & envcfg::PBMTE != 0,
        });
    }

    /// Deadlines of the timers that can still fire, in ticks: MTIP, and STIP by Sstc or the built-in SBI.
    fn timer_deadlines(&self) -> [(u64, u64); 3] {
        let stimecmp = if self.csr.menvcfg & envcfg::STCE != 0 { self.csr.stimecmp } else { u64::MAX };
        [(irq::MTIP, self.system.mtimecmp(self.id)), (irq::STIP, stimecmp), (irq::STIP, self.sbi_timer)]
    }

    /// Looks at the clock: which timer interrupts are pending, and when is the next.
    fn update_timers(&mut self) {
        let now = self.system.clock.now();
        let deadlines = self.timer_deadlines();
        let due = |&&(_, deadline): &&(u64, u64)| deadline <= now;
        self.timer_pending = deadlines.iter().filter(due).fold(0, |bits, &(bit, _)| bits | bit);
        let next = deadlines.iter().map(|&(_, deadline)| deadline).filter(|&deadline| deadline > now).min();
        let next = next.unwrap_or(u64::MAX);
        self.note_interrupts();
        if next != self.deadline {
            self.deadline = next;
            self.system.timers.set(self.id, next);
        }
    }

    fn next_deadline(&self) -> u64 {
        self.deadline
    }

    /// A timer compare register was written: its interrupt may be gone, or due already.
    fn timers_changed(&mut self) {
        self.update_timers();
        self.interrupts_changed();
    }
}

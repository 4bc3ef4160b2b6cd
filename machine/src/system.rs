//! What all harts of a machine share: memory, clock, the state of every hart as others see it, and the power switch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use frontend::Isa;
use jit::inspect::coverage::Coverage;
use jit::inspect::{Inspect, stats::Stats};
use parking_lot::{Condvar, Mutex};
use softmmu::{GuestMemory, PhysBus, Privilege};

use crate::bus::Bus;
use crate::clock::Clock;
use crate::console::Sink;
use crate::control::Control;
use crate::devices::clint::Clint;
use crate::devices::sifive_test::PowerEvent;
use crate::devices::uart16550::Uart16550;
use crate::hart::shared::HartShared;
use crate::profile::Profiler;
use crate::timer::Timers;

/// Where and how a hart starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// First instruction, a physical address.
    pub pc: u64,
    /// Privilege it starts in.
    pub privilege: Privilege,
    /// `a0`
    pub a0: u64,
    /// `a1`
    pub a1: u64,
}

/// State of a hart as the SBI's hart state management names it (SBI chapter 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Executes instructions, or waits in WFI.
    Running,
    /// Asked to start; its thread has not seen it yet.
    Start(Entry),
    /// Does nothing until it is started.
    Stopped,
    /// Sleeps in an SBI suspend call.
    Suspended,
}

/// The switch that ends or restarts the machine.
#[derive(Default)]
pub struct Power {
    requests: Mutex<Requests>,
    changed: Condvar,
}

#[derive(Default)]
struct Requests {
    /// The host's own wish to end the machine, with an exit code. It counts more than the guest's.
    host: Option<u16>,
    guest: Option<PowerEvent>,
}

impl Requests {
    fn take(&mut self) -> Option<PowerEvent> {
        self.host.take().map(|code| PowerEvent::Off { code }).or_else(|| self.guest.take())
    }
}

impl Power {
    /// The guest asks for `event`. Its first request counts.
    pub fn request(&self, event: PowerEvent) {
        self.requests.lock().guest.get_or_insert(event);
        self.changed.notify_all();
    }

    /// The host ends the machine with `code`, whatever the guest has asked for.
    pub fn quit(&self, code: u16) {
        self.requests.lock().host = Some(code);
        self.changed.notify_all();
    }

    /// Waits for a request, and takes it.
    pub fn wait(&self) -> PowerEvent {
        let mut requests = self.requests.lock();
        loop {
            if let Some(event) = requests.take() {
                return event;
            }
            self.changed.wait(&mut requests);
        }
    }

    /// As [`Self::wait`], for `limit` at most.
    pub fn wait_for(&self, limit: std::time::Duration) -> Option<PowerEvent> {
        let mut requests = self.requests.lock();
        let event = requests.take();
        if event.is_none() {
            self.changed.wait_for(&mut requests, limit);
        }
        event.or_else(|| requests.take())
    }

    /// Forgets what the guest has asked for, which it may have done more than once before it was stopped.
    fn reset(&self) {
        self.requests.lock().guest = None;
    }
}

/// Everything that harts share. Lock order: none of the locks here is held while another is taken.
pub struct System {
    /// RAM and ROM.
    pub memory: GuestMemory,
    /// The time base.
    pub clock: Arc<Clock>,
    /// Wakes running harts at their deadlines.
    pub timers: Arc<Timers>,
    /// The harts, as other threads see them.
    pub harts: Vec<Arc<HartShared>>,
    /// The board's power switch.
    pub power: Arc<Power>,
    /// Where the SBI debug console writes.
    pub console: Sink,
    /// How a debugger holds the harts.
    pub control: Control,
    /// What the engines of the harts share.
    pub engines: jit::Shared,
    /// What the harts sample for.
    pub(crate) profiler: Option<Arc<Profiler>>,
    /// What is written down of what happens.
    pub inspect: Inspect,
    /// What was executed by the harts whose threads have ended, if that is counted.
    coverage: Mutex<Option<Coverage>>,
    isa: Isa,
    /// What the engines did of the harts whose threads have ended.
    stats: Mutex<Stats>,
    uart: Arc<Uart16550>,
    pub(crate) bus: Arc<Bus>,
    clint: Arc<Clint>,
    run_states: Vec<Mutex<RunState>>,
    stopping: AtomicBool,
    sbi: bool,
}

/// The parts that [`System::new`] is made of.
pub struct Parts {
    /// RAM and ROM.
    pub memory: GuestMemory,
    /// The devices.
    pub bus: Arc<Bus>,
    /// Timer compare registers.
    pub clint: Arc<Clint>,
    /// The time base.
    pub clock: Arc<Clock>,
    /// Timer thread.
    pub timers: Arc<Timers>,
    /// The harts.
    pub harts: Vec<Arc<HartShared>>,
    /// The power switch.
    pub power: Arc<Power>,
    /// The console.
    pub console: Sink,
    /// The port whose input the SBI debug console reads.
    pub uart: Arc<Uart16550>,
    /// Whether calls from supervisor mode are answered by the built-in SBI.
    pub sbi: bool,
    /// How the harts execute code.
    pub engine: jit::EngineKind,
    /// What is written down of that.
    pub inspect: Inspect,
    /// What the harts sample for.
    pub(crate) profiler: Option<Arc<Profiler>>,
    /// Whether it is counted what the harts execute.
    pub coverage: bool,
    /// The extensions of the harts.
    pub isa: Isa,
}

impl System {
    /// A system of `parts` with every hart stopped.
    ///
    /// # Errors
    /// When the host has no file descriptors left.
    pub fn new(parts: Parts) -> std::io::Result<Self> {
        let Parts { memory, bus, clint, clock, timers, harts, power, console, uart, sbi, engine, .. } = parts;
        let Parts { inspect, profiler, coverage, isa, .. } = parts;
        let engines = jit::Shared::new(engine, &memory, &inspect);
        let run_states = harts.iter().map(|_| Mutex::new(RunState::Stopped)).collect();
        let stopping = AtomicBool::new(false);
        Ok(Self {
            control: Control::new(&harts)?,
            memory,
            clock,
            timers,
            harts,
            power,
            console,
            engines,
            profiler,
            inspect,
            coverage: Mutex::new(coverage.then(|| Coverage::new(isa))),
            isa,
            stats: Mutex::default(),
            uart,
            bus,
            clint,
            run_states,
            stopping,
            sbi,
        })
    }

    /// A hart's thread ends, with these counts.
    pub fn add_stats(&self, stats: &Stats) {
        self.stats.lock().merge(stats);
    }

    /// What the engines did, of all harts whose threads have ended.
    pub fn stats(&self) -> Stats {
        let mut stats = self.stats.lock().clone();
        stats.merge(&self.engines.stats());
        stats
    }

    /// Counts for a hart to begin with, if there are to be any.
    pub fn new_coverage(&self) -> Option<Coverage> {
        self.coverage.lock().is_some().then(|| Coverage::new(self.isa))
    }

    /// A hart's thread ends, with these counts.
    pub fn add_coverage(&self, counts: Coverage) {
        if let Some(sum) = &mut *self.coverage.lock() {
            sum.merge(counts);
        }
    }

    /// What was executed by the harts whose threads have ended, if that is counted.
    pub fn coverage(&self) -> Option<Coverage> {
        self.coverage.lock().clone()
    }

    /// The devices, as the MMU wants them.
    pub fn bus(&self) -> Arc<dyn PhysBus> {
        self.bus.clone()
    }

    /// The devices.
    pub fn devices(&self) -> &Bus {
        &self.bus
    }

    /// Whether the built-in SBI stands in for machine-mode firmware.
    pub fn has_sbi(&self) -> bool {
        self.sbi
    }

    /// Takes console input that no driver of the UART has read; returns how many bytes.
    pub fn read_console(&self, buffer: &mut [u8]) -> usize {
        self.uart.take_received(buffer)
    }

    /// `mtimecmp` of a hart, in ticks.
    pub fn mtimecmp(&self, hart: usize) -> u64 {
        self.clint.mtimecmp(hart)
    }

    /// State of a hart; `None` if there is no such hart.
    pub fn state_of(&self, hart: usize) -> Option<RunState> {
        self.run_states.get(hart).map(|state| *state.lock())
    }

    /// Sets the state of a hart and makes its thread look.
    pub fn set_state(&self, hart: usize, state: RunState) {
        *self.run_states[hart].lock() = state;
        self.harts[hart].kick();
    }

    /// Starts a hart if it is stopped; `false` if it is not.
    pub fn start_hart(&self, hart: usize, entry: Entry) -> bool {
        let mut state = self.run_states[hart].lock();
        if *state != RunState::Stopped {
            return false;
        }
        *state = RunState::Start(entry);
        drop(state);
        self.harts[hart].kick();
        true
    }

    /// What a hart's own thread is to do; a start request turns into running.
    pub fn next_state(&self, hart: usize) -> RunState {
        let mut state = self.run_states[hart].lock();
        let now = *state;
        if let RunState::Start(_) = now {
            *state = RunState::Running;
        }
        now
    }

    /// Makes every hart thread return.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.harts.iter().for_each(|hart| hart.kick());
    }

    /// Whether hart threads are to return.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Back to the state after power-on: devices reset, every hart stopped. Only while no hart thread runs.
    pub fn reset(&self) {
        self.bus.reset();
        self.power.reset();
        self.harts.iter().for_each(|hart| hart.reset());
        self.run_states.iter().for_each(|state| *state.lock() = RunState::Stopped);
        self.stopping.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_first_request_counts_and_a_reset_forgets_the_rest() {
        let power = Power::default();
        power.request(PowerEvent::Reset);
        power.request(PowerEvent::Off { code: 3 });
        assert_eq!(power.wait(), PowerEvent::Reset);
        power.request(PowerEvent::Off { code: 3 });
        power.reset();
        assert_eq!(power.wait_for(std::time::Duration::ZERO), None);
    }

    #[test]
    fn the_host_can_always_end_the_machine() {
        let power = Power::default();
        power.request(PowerEvent::Reset);
        power.quit(143);
        power.reset();
        assert_eq!(power.wait(), PowerEvent::Off { code: 143 });
    }
}

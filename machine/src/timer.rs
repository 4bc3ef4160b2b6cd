//! One thread that interrupts running harts when their next timer is due, and rings alarms for devices.
//!
//! A hart computes its own next deadline (the least of `mtimecmp`, `stimecmp` and the SBI timer) and raises its own
//! timer interrupts when it polls. While it sleeps in WFI it needs nobody. While it runs guest code it must be made to
//! poll: [`Timers::set`] leaves the deadline here, and at that time the thread kicks the hart.
//!
//! Invariant: whenever a deadline is below `planned`, the thread is awake or has been unparked. `set` stores the
//! deadline and then reads `planned`; the thread stores `planned` and then reads the deadlines again before it sleeps
//! (both sequentially consistent, so one of them sees the other).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::hart::shared::HartShared;

/// No deadline.
pub const NEVER: u64 = u64::MAX;

/// The deadlines of all harts and devices, and the thread that watches them. Dropping it ends the thread.
pub struct Timers {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

struct Inner {
    clock: Arc<Clock>,
    harts: Vec<Arc<HartShared>>,
    /// In ticks of the clock, one for each hart; [`NEVER`] once it has been kicked for it.
    deadlines: Box<[AtomicU64]>,
    /// The tick at which the thread will wake by itself at the latest, as far as harts are concerned.
    planned: AtomicU64,
    alarms: Mutex<Vec<Slot>>,
    stop: AtomicBool,
}

struct Slot {
    deadline: Option<Instant>,
    ring: Arc<dyn Fn() + Send + Sync>,
}

/// A device's place in [`Timers`]: one deadline in host time.
#[derive(Clone)]
pub struct Alarm {
    inner: Arc<Inner>,
    thread: Thread,
    index: usize,
}

impl Timers {
    /// Starts the thread, with no deadline for any of `harts`.
    ///
    /// # Errors
    /// When the host cannot start a thread.
    pub fn new(clock: Arc<Clock>, harts: &[Arc<HartShared>]) -> std::io::Result<Self> {
        let inner = Arc::new(Inner {
            clock,
            harts: harts.to_vec(),
            deadlines: harts.iter().map(|_| AtomicU64::new(NEVER)).collect(),
            planned: AtomicU64::new(NEVER),
            alarms: Mutex::new(Vec::new()),
            stop: AtomicBool::new(false),
        });
        let watch = Arc::clone(&inner);
        let thread = std::thread::Builder::new().name("timer".into()).spawn(move || watch.run())?;
        Ok(Self { inner, thread: Some(thread) })
    }

    /// Replaces the deadline of `hart` by `deadline` ticks ([`NEVER`] for none). The hart is kicked once, when the
    /// time comes; it must call this again for its next deadline. Harts that do not exist are ignored.
    #[inline]
    pub fn set(&self, hart: usize, deadline: u64) {
        let Some(slot) = self.inner.deadlines.get(hart) else { return };
        slot.store(deadline, Ordering::SeqCst);
        if deadline < self.inner.planned.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    /// To be called after [`Clock::set`]: deadlines are the same ticks, but come at another time.
    pub fn clock_changed(&self) {
        self.wake();
    }

    /// A new alarm, not set. `ring` runs on the timer thread, holding no lock, and should be short.
    pub fn add_alarm(&self, ring: impl Fn() + Send + Sync + 'static) -> Alarm {
        let mut alarms = self.inner.alarms.lock();
        alarms.push(Slot { deadline: None, ring: Arc::new(ring) });
        let thread = self.thread.as_ref().map_or_else(std::thread::current, |thread| thread.thread().clone());
        Alarm { inner: Arc::clone(&self.inner), thread, index: alarms.len() - 1 }
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        self.inner.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // An alarm's callback may hold the last reference to us; a thread cannot join itself.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Alarm {
    /// Rings once at `deadline`, or never.
    pub fn set(&self, deadline: Option<Instant>) {
        self.inner.alarms.lock()[self.index].deadline = deadline;
        if deadline.is_some() {
            self.thread.unpark();
        }
    }
}

impl Inner {
    fn run(&self) {
        // The kernel may otherwise add 50 microseconds to each sleep, half a tick of HZ=10000 guests.
        #[cfg(target_os = "linux")]
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1_000));
        while !self.stop.load(Ordering::SeqCst) {
            self.kick_expired();
            let alarm = self.ring_expired();
            let earliest = self.earliest();
            self.planned.store(earliest, Ordering::SeqCst);
            if self.earliest() < earliest {
                continue;
            }
            let hart = self.clock.until(earliest);
            match (hart, alarm) {
                (Some(sleep), Some(alarm)) => std::thread::park_timeout(sleep.min(alarm)),
                (Some(sleep), None) | (None, Some(sleep)) => std::thread::park_timeout(sleep),
                (None, None) => std::thread::park(),
            }
        }
    }

    fn earliest(&self) -> u64 {
        self.deadlines.iter().map(|deadline| deadline.load(Ordering::SeqCst)).min().unwrap_or(NEVER)
    }

    fn kick_expired(&self) {
        let now = self.clock.now();
        for (slot, hart) in self.deadlines.iter().zip(&self.harts) {
            let deadline = slot.load(Ordering::SeqCst);
            // A hart that has set another deadline meanwhile keeps it.
            let exchange =
                |slot: &AtomicU64| slot.compare_exchange(deadline, NEVER, Ordering::SeqCst, Ordering::SeqCst);
            if deadline <= now && deadline != NEVER && exchange(slot).is_ok() {
                hart.kick();
            }
        }
    }

    /// Rings what is due; returns how long until the next alarm.
    fn ring_expired(&self) -> Option<Duration> {
        let now = Instant::now();
        let mut due = Vec::new();
        let mut alarms = self.alarms.lock();
        for slot in alarms.iter_mut() {
            if slot.deadline.is_some_and(|deadline| deadline <= now) {
                slot.deadline = None;
                due.push(Arc::clone(&slot.ring));
            }
        }
        drop(alarms);
        due.iter().for_each(|ring| ring());
        let alarms = self.alarms.lock();
        let next = alarms.iter().filter_map(|slot| slot.deadline).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn machine(harts: usize) -> (Arc<Clock>, Vec<Arc<HartShared>>, Timers) {
        let clock = Arc::new(Clock::new());
        let harts: Vec<_> = (0..harts).map(|_| Arc::new(HartShared::new())).collect();
        let timers = Timers::new(Arc::clone(&clock), &harts).unwrap();
        (clock, harts, timers)
    }

    fn kicked(hart: &HartShared) -> bool {
        hart.poll_word().load(Ordering::Relaxed) != 0
    }

    fn wait_for_kick(hart: &HartShared) {
        let start = Instant::now();
        while !kicked(hart) {
            assert!(start.elapsed() < Duration::from_secs(300), "never kicked");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_hart_is_kicked_at_its_deadline_and_not_before() {
        let (clock, harts, timers) = machine(2);
        let deadline = clock.now() + 50_000;
        timers.set(1, deadline);
        wait_for_kick(&harts[1]);
        assert!(clock.now() >= deadline);
        assert!(!kicked(&harts[0]));
    }

    #[test]
    fn an_earlier_deadline_overtakes_a_planned_one() {
        let (clock, harts, timers) = machine(2);
        timers.set(0, clock.now() + 1_000_000_000);
        std::thread::sleep(Duration::from_millis(2));
        timers.set(1, clock.now() + 10_000);
        wait_for_kick(&harts[1]);
        assert!(!kicked(&harts[0]));
    }

    #[test]
    fn a_cancelled_deadline_does_not_kick() {
        loop {
            let (clock, harts, timers) = machine(1);
            let deadline = clock.now() + 1_000_000;
            timers.set(0, deadline);
            timers.set(0, NEVER);
            if clock.now() < deadline {
                std::thread::sleep(Duration::from_millis(130));
                assert!(!kicked(&harts[0]));
                break;
            }
            // It was cancelled too late.
        }
    }

    #[test]
    fn setting_the_clock_brings_a_far_deadline_near() {
        let (clock, harts, timers) = machine(1);
        timers.set(0, 1 << 50);
        clock.set(1 << 50);
        timers.clock_changed();
        wait_for_kick(&harts[0]);
    }

    #[test]
    fn an_alarm_rings_once_at_its_time() {
        let (_clock, _harts, timers) = machine(1);
        let (sender, receiver) = mpsc::channel();
        let alarm = timers.add_alarm(move || sender.send(Instant::now()).unwrap());
        let deadline = Instant::now() + Duration::from_millis(5);
        alarm.set(Some(deadline));
        assert!(receiver.recv_timeout(Duration::from_secs(300)).unwrap() >= deadline);
        assert!(receiver.recv_timeout(Duration::from_millis(20)).is_err());
    }

    #[test]
    fn deadlines_of_harts_that_do_not_exist_are_ignored() {
        let (_clock, harts, timers) = machine(1);
        timers.set(7, 0);
        std::thread::sleep(Duration::from_millis(5));
        assert!(!kicked(&harts[0]));
    }
}

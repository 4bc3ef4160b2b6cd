//! The threads that serve a device's queues.
//!
//! A notification sets the queue's bit in `pending` and unparks the queue's thread; parked, it costs nothing. Most devices
//! have one thread for all queues, some have more. The threads are made when the first queue is taken into use, so a
//! device that no driver touches has none. A chain may be taken *away* from its thread, to be finished by any other.
//!
//! Lock order: the transport's state, then one of `rings` (never two), then the device's own locks, `away` and the
//! interrupt.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle, Thread};

use jit::inspect::trace::Trace;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::queue::{ActiveQueue, Chain, QueueTrace, Ring, Site};
use super::{Interrupt, Ram, VirtioDevice};

/// All queues, as bits.
const ALL: u32 = u32::MAX;

/// Where a worker sleeps whose device has more to wait for than its driver. Without one it is parked.
pub trait Sleeper: Send + Sync {
    /// Sleeps until [`Self::wake`] has been called since the last sleep, or the device has something to do on its own.
    /// Returns the queues to be served for that, a bit each.
    fn sleep(&self) -> u32;

    /// Ends the sleep. Never waits.
    fn wake(&self);
}

/// What the threads of one device share.
pub(super) struct Shared {
    pub(super) memory: Ram,
    pub(super) interrupt: Arc<Interrupt>,
    /// Queues in use, if they are `live` too. Each is locked for as long as its thread may touch guest memory.
    rings: Vec<Mutex<Option<Ring>>>,
    /// Queues in use, as a bit each, so that a notification need not lock.
    live: AtomicU32,
    /// Queues with something to do.
    pending: AtomicU32,
    /// Threads that want a ring; the workers cut their work short for them.
    pub(super) waiting: AtomicU32,
    /// Queues that are being taken out of use: what is away for them is to be dropped.
    gone: AtomicU32,
    /// Chains that are away, for each queue.
    away: Mutex<Vec<u32>>,
    back: Condvar,
    quit: AtomicBool,
    threads: OnceLock<Vec<Thread>>,
    /// Of a device with one thread.
    sleeper: Option<Arc<dyn Sleeper>>,
}

impl Shared {
    fn wake(&self, queues: u32) {
        let queues = self.live.load(Ordering::SeqCst) & queues;
        if queues == 0 {
            return;
        }
        self.pending.fetch_or(queues, Ordering::SeqCst);
        self.wake_threads(queues);
    }

    /// Ends the sleep of the threads that serve `queues`.
    fn wake_threads(&self, queues: u32) {
        if let Some(sleeper) = &self.sleeper {
            sleeper.wake();
        }
        let Some(threads) = self.threads.get() else { return };
        for (number, thread) in threads.iter().enumerate() {
            if queues & served_by(number, threads.len()) != 0 {
                thread.unpark();
            }
        }
    }

    /// Waits for something to do. A wake since the last look at `pending` ends it at once.
    fn sleep(&self) {
        match &self.sleeper {
            Some(sleeper) => {
                let queues = sleeper.sleep() & self.live.load(Ordering::SeqCst);
                self.pending.fetch_or(queues, Ordering::SeqCst);
            }
            None => thread::park(),
        }
    }

    fn is_live(&self, index: usize) -> bool {
        self.live.load(Ordering::SeqCst) >> index & 1 == 1
    }

    /// Takes a ring away from its thread.
    fn take(&self, index: usize) -> MutexGuard<'_, Option<Ring>> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let ring = self.rings[index].lock();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        ring
    }

    /// Takes queues out of use. Nothing touches guest memory for them any more when this returns.
    fn stop(&self, queues: u32) {
        self.gone.fetch_or(queues, Ordering::SeqCst);
        self.live.fetch_and(!queues, Ordering::SeqCst);
        let chosen = (0..self.rings.len()).filter(|index| queues >> index & 1 == 1);
        for index in chosen.clone() {
            *self.take(index) = None;
        }
        let mut away = self.away.lock();
        while chosen.clone().any(|index| away[index] != 0) {
            self.back.wait(&mut away);
        }
        drop(away);
        self.gone.fetch_and(!queues, Ordering::SeqCst);
    }

    /// The device cannot go on: it serves nothing until the driver resets it.
    fn fail(&self) {
        self.live.store(0, Ordering::SeqCst);
        self.interrupt.needs_reset();
    }
}

/// The queues that one of `threads` threads serves.
fn served_by(number: usize, threads: usize) -> u32 {
    (0..u32::BITS as usize)
        .filter(|index| index % threads == number)
        .fold(0, |queues, index| queues | 1 << index)
}

/// A chain that is away from the thread of its queue. Dropped unfinished, it stays with the device until a reset.
pub struct Deferred {
    shared: Arc<Shared>,
    index: usize,
    chain: Chain,
}

impl Deferred {
    pub(super) fn new(shared: Arc<Shared>, index: usize, chain: Chain) -> Self {
        shared.away.lock()[index] += 1;
        Self { shared, index, chain }
    }

    /// The chain.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Returns the chain to the driver, with `written` bytes in its writable part.
    pub fn finish(self, written: u32) {
        let mut ring = self.shared.rings[self.index].lock();
        if let Some(ring) = &mut *ring
            && self.shared.is_live(self.index)
            && ring.finish(&self.shared, &[(self.chain.head(), written)]).is_err()
        {
            self.shared.fail();
        }
    }

    /// The request makes no sense: the device stops.
    pub fn fail(self) {
        self.shared.fail();
    }
}

impl Site for Deferred {
    fn memory(&self) -> &Ram {
        &self.shared.memory
    }

    fn stopping(&self) -> bool {
        self.shared.gone.load(Ordering::Relaxed) >> self.index & 1 == 1
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        self.shared.away.lock()[self.index] -= 1;
        self.shared.back.notify_all();
    }
}

/// A device's way to its own worker and driver, usable from any thread.
#[derive(Clone)]
pub struct Waker {
    shared: Arc<Shared>,
}

impl Waker {
    /// Has queue `index` served: something came from outside for it.
    pub fn wake(&self, index: usize) {
        self.shared.wake(1 << index);
    }

    /// Tells the driver that configuration space has changed.
    pub fn config_changed(&self) {
        self.shared.interrupt.config_changed();
    }
}

/// The queues of one device and the threads that serve them.
pub(super) struct Worker {
    device: Arc<dyn VirtioDevice>,
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    trace: Option<Arc<Trace>>,
}

impl Worker {
    pub(super) fn new(
        device: Arc<dyn VirtioDevice>,
        memory: Ram,
        interrupt: Arc<Interrupt>,
        trace: Option<Arc<Trace>>,
    ) -> Self {
        let queues = device.queue_sizes().len();
        let mut rings = Vec::new();
        rings.resize_with(queues, Mutex::default);
        let shared = Arc::new(Shared {
            memory,
            interrupt,
            rings,
            live: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            gone: AtomicU32::new(0),
            away: Mutex::new(vec![0; queues]),
            back: Condvar::new(),
            quit: AtomicBool::new(false),
            threads: OnceLock::new(),
            sleeper: device.sleeper(),
        });
        device.connect(Waker { shared: Arc::clone(&shared) });
        Self { device, shared, threads: Mutex::default(), trace }
    }

    /// Whether queue `index` is in use.
    pub(super) fn is_live(&self, index: usize) -> bool {
        self.shared.is_live(index)
    }

    /// The driver has something for queue `index`. Never waits.
    pub(super) fn notify(&self, index: usize) {
        self.shared.wake(1 << index);
    }

    /// Takes a queue into use and looks into it at once: the driver need not notify for what is there already.
    pub(super) fn start(&self, index: usize, ring: Ring) {
        if let Err(error) = self.ensure_threads() {
            log::error!("{}: cannot start a thread for its queues: {error}", self.device.name());
            self.shared.fail();
            return;
        }
        let name = || format!("{} queue {index}", self.device.name());
        let trace = self.trace.clone().map(|trace| QueueTrace { trace, name: name() });
        *self.shared.take(index) = Some(ring.traced(trace));
        self.shared.live.fetch_or(1 << index, Ordering::SeqCst);
        self.shared.wake(1 << index);
    }

    /// Takes one queue out of use. The device does not touch it any more when this returns.
    pub(super) fn stop(&self, index: usize) {
        if self.is_live(index) {
            self.shared.stop(1 << index);
        }
    }

    /// Takes all queues out of use and resets the device while nothing is served.
    pub(super) fn reset(&self) {
        self.shared.stop(ALL);
        self.shared.pending.store(0, Ordering::SeqCst);
        self.device.reset();
        self.shared.interrupt.reset();
    }

    /// Breaks the device, as for a malformed chain.
    pub(super) fn fail(&self) {
        self.shared.stop(ALL);
        self.shared.fail();
    }

    fn ensure_threads(&self) -> std::io::Result<()> {
        let mut threads = self.threads.lock();
        if !threads.is_empty() {
            return Ok(());
        }
        let count = self.device.threads();
        let mut started = Vec::with_capacity(count);
        for number in 0..count {
            let (device, shared) = (Arc::clone(&self.device), Arc::clone(&self.shared));
            let builder = thread::Builder::new().name(self.device.name().to_owned());
            match builder.spawn(move || run(&*device, &shared, served_by(number, count))) {
                Ok(thread) => started.push(thread),
                Err(error) => {
                    self.shared.quit.store(true, Ordering::SeqCst);
                    for thread in started {
                        thread.thread().unpark();
                        let _ = thread.join();
                    }
                    self.shared.quit.store(false, Ordering::SeqCst);
                    return Err(error);
                }
            }
        }
        let _ = self.shared.threads.set(started.iter().map(|thread| thread.thread().clone()).collect());
        *threads = started;
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Cuts short what the workers do now; they never get the chance to take it up again.
        self.shared.waiting.fetch_add(1, Ordering::SeqCst);
        self.shared.quit.store(true, Ordering::SeqCst);
        self.shared.wake_threads(ALL);
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
        self.shared.stop(ALL);
    }
}

/// Serves the queues in `mine`.
fn run(device: &dyn VirtioDevice, shared: &Arc<Shared>, mine: u32) {
    let mut complained = false;
    while !shared.quit.load(Ordering::SeqCst) {
        let mut pending = shared.pending.fetch_and(!mine, Ordering::SeqCst) & mine;
        if pending == 0 {
            shared.sleep();
            continue;
        }
        while pending != 0 {
            let index = pending.trailing_zeros() as usize;
            pending &= pending - 1;
            let Some(slot) = shared.rings.get(index) else { continue };
            let mut slot = slot.lock();
            let Some(ring) = &mut *slot else { continue };
            if !shared.is_live(index) {
                continue;
            }
            let mut queue = ActiveQueue::new(ring, index, shared);
            match device.service(index, &mut queue) {
                Ok(()) => {
                    if queue.wants_more() {
                        shared.pending.fetch_or(1 << index, Ordering::SeqCst);
                    }
                }
                Err(error) => {
                    // A guest may do this again and again; the log hears of the first time.
                    let level = if complained { log::Level::Debug } else { log::Level::Warn };
                    log::log!(
                        level,
                        "{}: queue {index}: {error}; the driver must reset the device",
                        device.name()
                    );
                    complained = true;
                    shared.fail();
                }
            }
            if shared.waiting.load(Ordering::SeqCst) != 0 {
                MutexGuard::unlock_fair(slot);
            }
        }
    }
}

//! The thread that serves a device's queues.
//!
//! A notification sets the queue's bit in `pending` and unparks the thread; parked, it costs nothing. The thread is made
//! when the first queue is taken into use, so a device that no driver touches has none.
//!
//! Lock order: the transport's state, then `rings`, then the device's own locks and the interrupt.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle, Thread};

use parking_lot::{Mutex, MutexGuard};

use super::Ram;
use super::queue::{ActiveQueue, Ring};
use super::{Interrupt, VirtioDevice};

/// Where a worker sleeps whose device has more to wait for than its driver. Without one it is parked.
pub trait Sleeper: Send + Sync {
    /// Sleeps until [`Self::wake`] has been called since the last sleep, or the device has something to do on its own.
    /// Returns the queues to be served for that, a bit each.
    fn sleep(&self) -> u32;

    /// Ends the sleep. Never waits.
    fn wake(&self);
}

struct Shared {
    memory: Ram,
    interrupt: Arc<Interrupt>,
    /// Queues in use. Locked for as long as the device may touch guest memory.
    rings: Mutex<Vec<Option<Ring>>>,
    /// The same as a bit each, so that a notification need not lock.
    live: AtomicU32,
    /// Queues with something to do.
    pending: AtomicU32,
    /// Threads that want `rings`; the worker cuts its work short for them.
    waiting: AtomicU32,
    quit: AtomicBool,
    thread: OnceLock<Thread>,
    sleeper: Option<Arc<dyn Sleeper>>,
}

impl Shared {
    fn wake(&self, queues: u32) {
        if self.live.load(Ordering::SeqCst) & queues != 0 {
            self.pending.fetch_or(queues, Ordering::SeqCst);
            self.wake_thread();
        }
    }

    fn wake_thread(&self) {
        if let Some(sleeper) = &self.sleeper {
            sleeper.wake();
        } else if let Some(thread) = self.thread.get() {
            thread.unpark();
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

    /// Takes `rings` away from the worker.
    fn stop(&self) -> MutexGuard<'_, Vec<Option<Ring>>> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let rings = self.rings.lock();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        rings
    }

    /// The device cannot go on: it serves nothing until the driver resets it.
    fn fail(&self, rings: &mut [Option<Ring>]) {
        self.live.store(0, Ordering::SeqCst);
        rings.fill_with(|| None);
        self.interrupt.needs_reset();
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

/// The queues of one device and the thread that serves them.
pub(super) struct Worker {
    device: Arc<dyn VirtioDevice>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    pub(super) fn new(device: Arc<dyn VirtioDevice>, memory: Ram, interrupt: Arc<Interrupt>) -> Self {
        let mut rings = Vec::new();
        rings.resize_with(device.queue_sizes().len(), || None);
        let shared = Arc::new(Shared {
            memory,
            interrupt,
            rings: Mutex::new(rings),
            live: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            quit: AtomicBool::new(false),
            thread: OnceLock::new(),
            sleeper: device.sleeper(),
        });
        device.connect(Waker { shared: Arc::clone(&shared) });
        Self { device, shared, thread: Mutex::new(None) }
    }

    /// Whether queue `index` is in use.
    pub(super) fn is_live(&self, index: usize) -> bool {
        self.shared.live.load(Ordering::SeqCst) >> index & 1 == 1
    }

    /// The driver has something for queue `index`. Never waits.
    pub(super) fn notify(&self, index: usize) {
        self.shared.wake(1 << index);
    }

    /// Takes a queue into use and looks into it at once: the driver need not notify for what is there already.
    pub(super) fn start(&self, index: usize, ring: Ring) {
        let mut rings = self.shared.stop();
        if let Err(error) = self.ensure_thread() {
            log::error!("{}: cannot start a thread for its queues: {error}", self.device.name());
            self.shared.fail(&mut rings);
            return;
        }
        if let Some(slot) = rings.get_mut(index) {
            *slot = Some(ring);
            self.shared.live.fetch_or(1 << index, Ordering::SeqCst);
        }
        drop(rings);
        self.shared.wake(1 << index);
    }

    /// Takes one queue out of use. The device does not touch it any more when this returns.
    pub(super) fn stop(&self, index: usize) {
        if !self.is_live(index) {
            return;
        }
        let mut rings = self.shared.stop();
        self.shared.live.fetch_and(!(1 << index), Ordering::SeqCst);
        rings[index] = None;
    }

    /// Takes all queues out of use and resets the device while nothing is served.
    pub(super) fn reset(&self) {
        let mut rings = self.shared.stop();
        self.shared.live.store(0, Ordering::SeqCst);
        self.shared.pending.store(0, Ordering::SeqCst);
        rings.fill_with(|| None);
        self.device.reset();
        self.shared.interrupt.reset();
    }

    /// Breaks the device, as for a malformed chain.
    pub(super) fn fail(&self) {
        let mut rings = self.shared.stop();
        self.shared.fail(&mut rings);
    }

    fn ensure_thread(&self) -> std::io::Result<()> {
        let mut thread = self.thread.lock();
        if thread.is_none() {
            let (device, shared) = (Arc::clone(&self.device), Arc::clone(&self.shared));
            let builder = thread::Builder::new().name(self.device.name().to_owned());
            let handle = builder.spawn(move || run(&*device, &shared))?;
            let _ = self.shared.thread.set(handle.thread().clone());
            *thread = Some(handle);
        }
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Cuts short what the worker does now; it never gets the chance to take it up again.
        self.shared.waiting.fetch_add(1, Ordering::SeqCst);
        self.shared.quit.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.lock().take() {
            self.shared.wake_thread();
            let _ = thread.join();
        }
    }
}

fn run(device: &dyn VirtioDevice, shared: &Shared) {
    let mut complained = false;
    while !shared.quit.load(Ordering::SeqCst) {
        let mut pending = shared.pending.swap(0, Ordering::SeqCst);
        if pending == 0 {
            shared.sleep();
            continue;
        }
        let mut rings = shared.rings.lock();
        while pending != 0 {
            let index = pending.trailing_zeros() as usize;
            pending &= pending - 1;
            let Some(Some(ring)) = rings.get_mut(index) else { continue };
            let mut queue = ActiveQueue::new(ring, &shared.memory, &shared.interrupt, &shared.waiting);
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
                    shared.fail(&mut rings);
                    break;
                }
            }
        }
        if shared.waiting.load(Ordering::SeqCst) != 0 {
            MutexGuard::unlock_fair(rings);
        }
    }
}

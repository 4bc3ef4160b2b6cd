//! Run control: how a debugger on another thread holds the harts, looks at them and sets them going.
//!
//! Each hart has an order. A hart that is not simply to run has its *attention* flag set, which its thread looks at whenever
//! it was kicked; then it asks [`Control::next`] what to do. Everything that concerns a hart is done on its own thread: the
//! debugger sends closures ([`Control::ask`]), which a held hart carries out.
//!
//! The first hart that stops by itself holds all others. Whatever makes others stop before they see that, they meet again.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use jit::{Breakpoints, Engine};
use parking_lot::{Condvar, Mutex};
use rustix::event::{EventfdFlags, eventfd};
use softmmu::Watchpoint;

use crate::hart::Hart;
use crate::hart::shared::HartShared;
use crate::patience::Patience;

/// How long the debugger waits for a hart. Harts look up within microseconds, unless a device blocks them.
const PATIENCE: Duration = Duration::from_secs(5);

/// Something to be done by a hart's thread.
pub type Request = Box<dyn FnOnce(&mut Hart, &mut Engine) + Send>;

/// What a hart is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Run.
    Go,
    /// Execute nothing.
    Hold,
    /// Execute one instruction, and further ones while the program counter is in the range.
    Step(Range<u64>),
}

/// Why a hart has stopped by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The step was done.
    Step,
    /// It is before an instruction with a breakpoint, at this address.
    Breakpoint(u64),
    /// It is before an instruction that will access this watched address.
    Watchpoint(u64),
}

/// What a hart's thread does next.
pub enum Task {
    /// Carries these out, and asks again.
    Serve(Vec<Request>),
    /// Waits until it is kicked, and asks again.
    Wait,
    /// See [`Order::Step`].
    Step(Range<u64>),
    /// Runs.
    Go,
}

/// Where harts stop.
#[derive(Clone, Debug, Default)]
pub struct Points {
    /// Before these instructions.
    pub breakpoints: Arc<Breakpoints>,
    /// Before these accesses.
    pub watchpoints: Vec<Watchpoint>,
}

struct Slot {
    order: Order,
    /// A thread runs the hart.
    present: bool,
    /// The hart has seen that it is to hold.
    held: bool,
    requests: Vec<Request>,
}

struct Inner {
    slots: Vec<Slot>,
    /// The first hart that has stopped by itself since the harts were set going, and why.
    stop: Option<(usize, Stop)>,
    points: Points,
    /// How often a thread has started to run a hart.
    arrivals: u64,
    /// The machine is off for good, with this exit code.
    exit: Option<u16>,
}

/// The orders of all harts. Its lock is held while nothing else is done.
pub struct Control {
    attention: Box<[AtomicBool]>,
    /// Counts changes of the points.
    generation: AtomicU64,
    inner: Mutex<Inner>,
    held: Condvar,
    /// Readable when there is a stop, or the machine is off.
    event: OwnedFd,
    harts: Vec<Arc<HartShared>>,
}

impl Control {
    /// All harts are to run.
    ///
    /// # Errors
    /// When the host has no file descriptors left.
    pub fn new(harts: &[Arc<HartShared>]) -> std::io::Result<Self> {
        let slot = || Slot { order: Order::Go, present: false, held: false, requests: Vec::new() };
        let inner = Inner {
            slots: harts.iter().map(|_| slot()).collect(),
            stop: None,
            points: Points::default(),
            arrivals: 0,
            exit: None,
        };
        Ok(Self {
            attention: harts.iter().map(|_| AtomicBool::new(false)).collect(),
            generation: AtomicU64::new(0),
            inner: Mutex::new(inner),
            held: Condvar::new(),
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            harts: harts.to_vec(),
        })
    }

    /// Number of harts.
    pub fn harts(&self) -> usize {
        self.harts.len()
    }

    fn alert(&self, hart: usize) {
        self.attention[hart].store(true, Ordering::SeqCst);
        self.harts[hart].kick();
    }

    fn signal(&self) {
        // It can only fail when the counter is full, and then it is readable.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }
}

/// For the threads of harts.
impl Control {
    /// A thread starts to run a hart.
    pub fn arrive(&self, hart: usize) {
        let mut inner = self.inner.lock();
        inner.arrivals += 1;
        let slot = &mut inner.slots[hart];
        (slot.present, slot.held) = (true, false);
        drop(inner);
        self.held.notify_all();
        self.attention[hart].store(true, Ordering::SeqCst);
    }

    /// No thread runs the hart any more.
    pub fn leave(&self, hart: usize) {
        let mut inner = self.inner.lock();
        let slot = &mut inner.slots[hart];
        (slot.present, slot.held) = (false, false);
        slot.requests.clear();
        drop(inner);
        self.held.notify_all();
    }

    /// Whether the hart must ask for its next task.
    #[inline]
    pub fn calls(&self, hart: usize) -> bool {
        self.attention[hart].load(Ordering::SeqCst)
    }

    /// What the hart's thread does next. The hart has not run since it last looked at its mailbox.
    pub fn next(&self, hart: usize) -> Task {
        let mut inner = self.inner.lock();
        let slot = &mut inner.slots[hart];
        if !slot.requests.is_empty() {
            return Task::Serve(std::mem::take(&mut slot.requests));
        }
        match &slot.order {
            Order::Go => {
                self.attention[hart].store(false, Ordering::SeqCst);
                Task::Go
            }
            Order::Step(range) => Task::Step(range.clone()),
            Order::Hold => {
                slot.held = true;
                drop(inner);
                self.held.notify_all();
                Task::Wait
            }
        }
    }

    /// The points, if they are others than those of `generation`, which becomes theirs.
    pub fn changed_points(&self, generation: &mut u64) -> Option<Points> {
        let now = self.generation.load(Ordering::SeqCst);
        if std::mem::replace(generation, now) == now {
            return None;
        }
        Some(self.inner.lock().points.clone())
    }

    /// The hart stops by itself, and all others are to hold.
    pub fn stop(&self, hart: usize, stop: Stop) {
        let mut inner = self.inner.lock();
        inner.stop.get_or_insert((hart, stop));
        inner.slots.iter_mut().for_each(|slot| slot.order = Order::Hold);
        drop(inner);
        (0..self.harts()).for_each(|hart| self.alert(hart));
        self.signal();
    }
}

/// For the debugger.
impl Control {
    /// The harts hold from their first instruction on.
    pub fn hold_at_start(&self) {
        self.inner.lock().slots.iter_mut().for_each(|slot| slot.order = Order::Hold);
        (0..self.harts()).for_each(|hart| self.alert(hart));
    }

    /// Holds all harts, and waits until they do. `false` if some hart does not look up.
    pub fn hold_all(&self) -> bool {
        self.hold_at_start();
        let mut patience = Patience::new(PATIENCE);
        let mut inner = self.inner.lock();
        while inner.slots.iter().any(|slot| slot.present && !slot.held) {
            if !patience.wait(&self.held, &mut inner) {
                return false;
            }
        }
        true
    }

    /// Counts the starts of threads that run harts.
    pub fn arrivals(&self) -> u64 {
        self.inner.lock().arrivals
    }

    /// Waits until every hart has a new thread, since `arrivals` were counted. `false` if that does not happen.
    pub fn wait_for_restart(&self, arrivals: u64) -> bool {
        let mut patience = Patience::new(PATIENCE);
        let mut inner = self.inner.lock();
        while inner.arrivals < arrivals + self.harts() as u64 {
            if inner.exit.is_some() || !patience.wait(&self.held, &mut inner) {
                return false;
            }
        }
        true
    }

    /// Waits until a thread runs every hart and holds, as after a reset.
    pub fn wait_for_all(&self) -> bool {
        let mut patience = Patience::new(PATIENCE);
        let mut inner = self.inner.lock();
        while inner.slots.iter().any(|slot| !slot.held) {
            if !patience.wait(&self.held, &mut inner) {
                return false;
            }
        }
        true
    }

    /// Gives each hart its order. All hold.
    pub fn resume(&self, orders: Vec<Order>) {
        let mut inner = self.inner.lock();
        inner.stop = None;
        for (slot, order) in inner.slots.iter_mut().zip(orders) {
            slot.held &= order == Order::Hold;
            slot.order = order;
        }
        drop(inner);
        (0..self.harts()).for_each(|hart| self.alert(hart));
    }

    /// Replaces the points. All harts hold.
    pub fn set_points(&self, breakpoints: Breakpoints, watchpoints: Vec<Watchpoint>) {
        let mut inner = self.inner.lock();
        let breakpoints = Arc::new(breakpoints.after(&inner.points.breakpoints));
        inner.points = Points { breakpoints, watchpoints };
        drop(inner);
        self.generation.fetch_add(1, Ordering::SeqCst);
        (0..self.harts()).for_each(|hart| self.alert(hart));
    }

    /// Has a hart that holds carry out `act`. `None` if no thread runs it, or it does not look up.
    pub fn ask<R: Send + 'static>(
        &self,
        hart: usize,
        act: impl FnOnce(&mut Hart, &mut Engine) -> R + Send + 'static,
    ) -> Option<R> {
        let (sender, receiver) = mpsc::sync_channel(1);
        {
            let mut inner = self.inner.lock();
            let slot = inner.slots.get_mut(hart).filter(|slot| slot.present)?;
            slot.requests.push(Box::new(move |hart, engine| {
                // Whoever asked may have lost patience.
                let _ = sender.send(act(hart, engine));
            }));
        }
        self.alert(hart);
        Patience::new(PATIENCE).receive(&receiver)
    }

    /// The first stop, if it was not taken yet.
    pub fn take_stop(&self) -> Option<(usize, Stop)> {
        self.inner.lock().stop.take()
    }

    /// What becomes readable at a stop, or when the machine is off.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Makes [`Self::event`] unreadable until something happens.
    pub fn clear_event(&self) {
        let _ = rustix::io::read(&self.event, &mut [0u8; 8]);
    }

    /// The machine is off for good.
    pub fn finish(&self, code: u16) {
        self.inner.lock().exit = Some(code);
        self.held.notify_all();
        self.signal();
    }

    /// The exit code, once the machine is off for good.
    pub fn exit(&self) -> Option<u16> {
        self.inner.lock().exit
    }
}

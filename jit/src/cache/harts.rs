//! The harts that use the cache, and what is asked of each of them before code or memory can change its use.
//!
//! A request has a number. It is answered when every hart has carried it out or is outside its engine, where a hart neither
//! runs generated code nor keeps anything of it; a hart carries out what was asked of it before it enters its engine.
//!
//! The one who asks queues the request and then looks whether a hart is inside; a hart says that it is inside and then looks
//! for requests. Both are sequentially consistent, so one of them sees the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

/// Something that every hart has to do by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Forget that the guest page at this physical address may be stored to without asking.
    DropWrites(u64),
    /// Forget where generated code is.
    ForgetCode,
}

/// A hart as the cache sees it.
pub(crate) struct Participant {
    inside: AtomicBool,
    /// Number of the last request carried out.
    answered: AtomicU64,
    /// Number of the last request queued.
    asked: AtomicU64,
    queue: Mutex<Vec<Request>>,
    /// Makes the hart leave generated code soon.
    kick: Box<dyn Fn() + Send + Sync>,
}

impl Participant {
    pub(crate) fn new(kick: Box<dyn Fn() + Send + Sync>) -> Self {
        Self {
            inside: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            queue: Mutex::new(Vec::new()),
            kick,
        }
    }

    /// The hart enters its engine, or leaves it.
    pub(crate) fn set_inside(&self, inside: bool) {
        self.inside.store(inside, Ordering::SeqCst);
    }

    /// Carries out what was asked.
    #[inline]
    pub(crate) fn answer(&self, act: impl FnMut(Request)) {
        if self.asked.load(Ordering::SeqCst) != self.answered.load(Ordering::Relaxed) {
            self.answer_now(act);
        }
    }

    #[cold]
    fn answer_now(&self, act: impl FnMut(Request)) {
        let (requests, number) = {
            let mut queue = self.queue.lock();
            (std::mem::take(&mut *queue), self.asked.load(Ordering::SeqCst))
        };
        requests.into_iter().for_each(act);
        self.answered.store(number, Ordering::SeqCst);
    }

    fn ask(&self, request: Request, number: u64) {
        {
            let mut queue = self.queue.lock();
            queue.push(request);
            self.asked.store(number, Ordering::SeqCst);
        }
        if self.inside.load(Ordering::SeqCst) {
            (self.kick)();
        }
    }

    fn has_answered(&self, number: u64) -> bool {
        !self.inside.load(Ordering::SeqCst) || self.answered.load(Ordering::SeqCst) >= number
    }
}

/// All harts of a machine.
#[derive(Default)]
pub(crate) struct Harts {
    all: Vec<Arc<Participant>>,
    asked: u64,
}

impl Harts {
    pub(crate) fn join(&mut self, participant: Arc<Participant>) {
        // It keeps nothing of what was asked before.
        participant.asked.store(self.asked, Ordering::SeqCst);
        participant.answered.store(self.asked, Ordering::SeqCst);
        self.all.push(participant);
    }

    pub(crate) fn leave(&mut self, participant: &Arc<Participant>) {
        self.all.retain(|other| !Arc::ptr_eq(other, participant));
    }

    /// Whether there is more than one.
    pub(crate) fn are_several(&self) -> bool {
        self.all.len() > 1
    }

    /// Asks every hart, and returns the request's number.
    pub(crate) fn ask(&mut self, request: Request) -> u64 {
        self.asked += 1;
        for participant in &self.all {
            participant.ask(request, self.asked);
        }
        self.asked
    }

    /// Whether every hart has answered the request with this number.
    pub(crate) fn have_answered(&self, number: u64) -> bool {
        self.all.iter().all(|participant| participant.has_answered(number))
    }
}

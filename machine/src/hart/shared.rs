//! The part of a hart that other threads may touch: pending interrupts, the poll word, the mailbox.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::Thread;

use parking_lot::Mutex;

use crate::irq::IrqSink;

/// A request that one hart posts to another; carried out by the target at its next poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// `fence.i`: forget decoded code.
    FenceI,
    /// `sfence.vma` over `[start, start + size)` of virtual addresses, for one ASID or all.
    SfenceVma {
        /// First virtual address.
        start: u64,
        /// Bytes; `u64::MAX` means everything.
        size: u64,
        /// The address space, or `None` for all.
        asid: Option<u16>,
    },
}

/// What other harts, devices and the timer may touch of a hart. No lock is held while a hart runs.
pub struct HartShared {
    /// Interrupt-pending bits, laid out as `mip` (Privileged 3.1.9). Level inputs; software-writable bits live here too.
    mip: AtomicU64,
    /// Non-zero when the hart must leave the engine at its next poll point.
    poll: AtomicU32,
    parked: AtomicBool,
    thread: Mutex<Option<Thread>>,
    mailbox: Mutex<Vec<Message>>,
    posted: AtomicU64,
    done: AtomicU64,
    /// Samples that the profiler wants.
    samples: AtomicU32,
}

impl Default for HartShared {
    fn default() -> Self {
        Self::new()
    }
}

impl HartShared {
    /// A hart with nothing pending and no thread yet.
    pub fn new() -> Self {
        Self {
            mip: AtomicU64::new(0),
            poll: AtomicU32::new(0),
            parked: AtomicBool::new(false),
            thread: Mutex::new(None),
            mailbox: Mutex::new(Vec::new()),
            posted: AtomicU64::new(0),
            done: AtomicU64::new(0),
            samples: AtomicU32::new(0),
        }
    }

    /// The pending bits.
    pub fn mip(&self) -> u64 {
        self.mip.load(Ordering::SeqCst)
    }

    /// Raises or lowers `bits` of `mip`, waking the hart when one rises.
    pub fn set_mip(&self, bits: u64, level: bool) {
        if level {
            if self.mip.fetch_or(bits, Ordering::SeqCst) & bits != bits {
                self.kick();
            }
        } else {
            self.mip.fetch_and(!bits, Ordering::SeqCst);
        }
    }

    /// Makes the hart look at its interrupts, mailbox and run state soon, also when it sleeps in WFI.
    pub fn kick(&self) {
        self.poll.store(1, Ordering::SeqCst);
        if self.parked.load(Ordering::SeqCst)
            && let Some(thread) = &*self.thread.lock()
        {
            thread.unpark();
        }
    }

    /// Not 0 when the hart should leave the engine.
    #[inline(always)]
    pub fn poll_word(&self) -> &AtomicU32 {
        &self.poll
    }

    /// Clears the poll word; the caller must look at every source of work afterwards.
    pub fn take_poll(&self) {
        self.poll.store(0, Ordering::SeqCst);
    }

    /// Names the thread that runs this hart.
    pub fn set_thread(&self, thread: Thread) {
        *self.thread.lock() = Some(thread);
    }

    /// Sleeps the calling hart thread until a kick or for `timeout`. Spurious returns are possible.
    pub fn park(&self, timeout: Option<std::time::Duration>) {
        self.parked.store(true, Ordering::SeqCst);
        if self.poll.load(Ordering::SeqCst) == 0 {
            match timeout {
                Some(timeout) => std::thread::park_timeout(timeout),
                None => std::thread::park(),
            }
        }
        self.parked.store(false, Ordering::SeqCst);
    }

    /// Posts a message and returns a ticket for [`Self::is_done`]. A sleeping hart is not woken for it: it empties its
    /// mailbox before it runs another instruction.
    pub fn post(&self, message: Message) -> u64 {
        let mut mailbox = self.mailbox.lock();
        mailbox.push(message);
        let ticket = self.posted.fetch_add(1, Ordering::SeqCst) + 1;
        drop(mailbox);
        self.poll.store(1, Ordering::SeqCst);
        ticket
    }

    /// Whether the hart cannot run another instruction without having carried out the message with this ticket.
    pub fn is_done(&self, ticket: u64) -> bool {
        self.parked.load(Ordering::SeqCst) || self.done.load(Ordering::SeqCst) >= ticket
    }

    /// Asks for a sample with this weight, of what the hart does now. A sleeping hart is not woken for it.
    pub fn ask_sample(&self, weight: u32) {
        self.samples.fetch_add(weight, Ordering::Relaxed);
        self.poll.store(1, Ordering::SeqCst);
    }

    /// The weight of the sample that is wanted; 0 if none is.
    pub fn take_samples(&self) -> u32 {
        self.samples.swap(0, Ordering::Relaxed)
    }

    /// Back to the state after power-on. Only while no thread runs the hart.
    pub fn reset(&self) {
        self.mip.store(0, Ordering::SeqCst);
        self.poll.store(0, Ordering::SeqCst);
        self.take_samples();
        self.drain(|_| {});
    }

    /// Carries out every posted message with `act`.
    pub fn drain(&self, mut act: impl FnMut(Message)) {
        let messages = {
            let mut mailbox = self.mailbox.lock();
            std::mem::take(&mut *mailbox)
        };
        let count = messages.len() as u64;
        if count == 0 {
            return;
        }
        messages.into_iter().for_each(&mut act);
        self.done.fetch_add(count, Ordering::SeqCst);
    }
}

/// As an interrupt sink, input `n` is bit `n` of `mip`.
impl IrqSink for HartShared {
    fn set_level(&self, irq: u32, level: bool) {
        self.set_mip(1 << irq, level);
    }
}

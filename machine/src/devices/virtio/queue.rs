//! Split virtqueues (section 2.7) as a device sees them: chains of checked memory segments.
//!
//! The ring indices, event suppression and used ring are virtio-queue's. Descriptor chains are walked here, because a
//! device must know *that* a chain is malformed, not just find it short. Each descriptor is read once; what the guest
//! does to the table afterwards is of no consequence. Guest memory is reached only through vm-memory's bounds checks,
//! and what is written there is marked in its bitmap, so that whoever translated code there hears of it.

#![allow(unsafe_code, reason = "guest memory is lent to disks without its bitmap, see `bare`")]

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use jit::inspect::trace::{Category, Trace, Value};
use softmmu::Ram;
use virtio_bindings::bindings::virtio_ring::{
    VRING_AVAIL_F_NO_INTERRUPT, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
};
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::bitmap::{Bitmap, BitmapSlice};
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions, VolatileSlice};

use super::worker::{Deferred, Shared};

/// Most descriptors in one chain, indirect ones included: the largest queue there can be.
pub const MAX_CHAIN: usize = 1024;

/// Chains served before other queues of the device get their turn.
const BUDGET: u32 = 256;

/// What is wrong with a ring or a chain. Any of them stops the device until it is reset.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum RingError {
    /// Size not a power of two or too great, or an area misaligned or outside RAM.
    #[error("the ring has a bad size ({size}), or an area that is misaligned or outside RAM")]
    Geometry {
        /// What the driver gave as the size.
        size: u32,
    },
    /// More new chains than the ring has places.
    #[error("the available index jumped by more than the queue size")]
    AvailIndex,
    /// A descriptor index at or beyond the end of its table.
    #[error("descriptor index {0} is beyond its table")]
    DescriptorIndex(u16),
    /// A loop, or more descriptors than a chain may have.
    #[error("a descriptor chain loops or is too long")]
    ChainTooLong,
    /// 4 GiB or more in one chain.
    #[error("a descriptor chain covers 4 GiB or more")]
    ChainTooLarge,
    /// A descriptor with no bytes.
    #[error("a descriptor has length zero")]
    ZeroLength,
    /// A buffer or table that is not wholly RAM.
    #[error("a descriptor points outside RAM: {len:#x} bytes at {addr:#x}")]
    OutsideRam {
        /// Where it starts.
        addr: u64,
        /// Its bytes.
        len: u32,
    },
    /// A device-readable buffer after a device-writable one.
    #[error("a readable descriptor follows a writable one")]
    Order,
    /// Nested, chained on, empty or odd-sized.
    #[error("an indirect descriptor table is nested, chained on, or has a bad size")]
    Indirect,
    /// The chain lacks what a request to this device must have.
    #[error("a request lacks {0}")]
    Request(&'static str),
}

/// One buffer of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    addr: u64,
    len: u32,
}

/// A descriptor chain whose segments all lie in RAM. Reused from one request to the next.
#[derive(Debug, Default)]
pub struct Chain {
    head: u16,
    readable: Vec<Segment>,
    writable: Vec<Segment>,
    readable_len: u32,
    writable_len: u32,
    progress: u32,
}

impl Chain {
    /// What names the chain to [`ActiveQueue::push_all`].
    pub fn head(&self) -> u16 {
        self.head
    }

    /// What the device passed to [`ActiveQueue::retry`] for this chain; 0 when it is new.
    pub fn progress(&self) -> u32 {
        self.progress
    }

    /// Bytes the device may read.
    pub fn readable_len(&self) -> u32 {
        self.readable_len
    }

    /// Bytes the device may write.
    pub fn writable_len(&self) -> u32 {
        self.writable_len
    }

    /// Copies device-readable bytes from byte `skip` of the chain on; returns how many there were.
    pub fn read(&self, memory: &Ram, skip: u32, into: &mut [u8]) -> usize {
        let mut done = 0;
        for (addr, len) in parts(&self.readable, skip, into.len()) {
            if memory.read_slice(&mut into[done..done + len], GuestAddress(addr)).is_err() {
                break;
            }
            done += len;
        }
        done
    }

    /// Copies `from` to the device-writable bytes from byte `skip` on; returns how many there was room for.
    pub fn write(&self, memory: &Ram, skip: u32, from: &[u8]) -> usize {
        let mut done = 0;
        for (addr, len) in parts(&self.writable, skip, from.len()) {
            if memory.write_slice(&from[done..done + len], GuestAddress(addr)).is_err() {
                break;
            }
            done += len;
        }
        done
    }

    /// Lends `len` device-readable bytes from byte `skip` on to `act`, without a copy.
    pub fn with_readable<R>(
        &self,
        memory: &Ram,
        skip: u32,
        len: usize,
        act: impl FnOnce(&[VolatileSlice<'_>]) -> R,
    ) -> R {
        let slices = slices(memory, &self.readable, skip, len, Permissions::Read);
        act(&slices.iter().map(bare).collect::<Vec<_>>())
    }

    /// Lends `len` device-writable bytes from byte `skip` on to `act`, which may write all of them.
    pub fn with_writable<R>(
        &self,
        memory: &Ram,
        skip: u32,
        len: usize,
        act: impl FnOnce(&[VolatileSlice<'_>]) -> R,
    ) -> R {
        let slices = slices(memory, &self.writable, skip, len, Permissions::Write);
        let result = act(&slices.iter().map(bare).collect::<Vec<_>>());
        for slice in &slices {
            slice.bitmap().mark_dirty(0, slice.len());
        }
        result
    }
}

/// The pieces of `segments` that hold `len` bytes from byte `skip` on.
fn parts(segments: &[Segment], skip: u32, len: usize) -> impl Iterator<Item = (u64, usize)> {
    let (mut skip, mut left) = (u64::from(skip), len as u64);
    segments.iter().filter_map(move |segment| {
        let len = u64::from(segment.len);
        let start = skip.min(len);
        skip -= start;
        let take = left.min(len - start);
        left -= take;
        (take > 0).then_some((segment.addr + start, take as usize))
    })
}

fn slices<'a>(
    memory: &'a Ram,
    segments: &[Segment],
    skip: u32,
    len: usize,
    access: Permissions,
) -> Vec<VolatileSlice<'a, impl BitmapSlice + use<'a>>> {
    let pieces = parts(segments, skip, len);
    // Every segment was found in RAM when the chain was taken, and RAM never changes: there are no errors to lose.
    pieces
        .filter_map(|(addr, len)| memory.get_slices(GuestAddress(addr), len, access).ok())
        .flatten()
        .flatten()
        .collect()
}

/// The same memory without the bitmap, for those who know only memory. Whoever lets it be written marks the original.
fn bare<'a, B: BitmapSlice>(slice: &VolatileSlice<'a, B>) -> VolatileSlice<'a> {
    // SAFETY: same address, length and lifetime as a slice that vm-memory made; guest RAM is plain memory for as long
    // as the Ram it comes from is borrowed.
    unsafe { VolatileSlice::new(slice.ptr_guard_mut().as_ptr(), slice.len()) }
}

/// Where the driver has put a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueLayout {
    /// Descriptors.
    pub size: u32,
    /// Descriptor table.
    pub desc: u64,
    /// Driver area: the available ring.
    pub driver: u64,
    /// Device area: the used ring.
    pub device: u64,
}

/// A queue in use.
#[derive(Debug)]
pub(super) struct Ring {
    queue: Queue,
    /// Whether the driver has been told to notify; avoids telling it again.
    notify: bool,
    /// How far the device came with the chain it put back.
    progress: u32,
    /// For the chains that pass through the queue.
    trace: Option<QueueTrace>,
}

/// Where the chains that pass through a queue are traced.
pub(super) struct QueueTrace {
    pub(super) trace: Arc<Trace>,
    /// Of device and queue.
    pub(super) name: String,
}

impl QueueTrace {
    #[cold]
    fn event(&self, what: &str, fields: &[(&str, Value<'_>)]) {
        self.trace.event(Category::Virtio, None, &format_args!("{}: {what}", self.name), fields);
    }
}

impl std::fmt::Debug for QueueTrace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Ring {
    /// Has the chains that pass through the queue traced.
    pub(super) fn traced(self, trace: Option<QueueTrace>) -> Self {
        Self { trace, ..self }
    }

    /// Takes a queue into use.
    pub(super) fn new(
        layout: QueueLayout,
        max_size: u16,
        event_idx: bool,
        memory: &Ram,
    ) -> Result<Self, RingError> {
        let bad = RingError::Geometry { size: layout.size };
        let size = u16::try_from(layout.size).map_err(|_| bad)?;
        let mut queue = Queue::new(max_size).map_err(|_| bad)?;
        queue.try_set_size(size).map_err(|_| bad)?;
        queue.try_set_desc_table_address(GuestAddress(layout.desc)).map_err(|_| bad)?;
        queue.try_set_avail_ring_address(GuestAddress(layout.driver)).map_err(|_| bad)?;
        queue.try_set_used_ring_address(GuestAddress(layout.device)).map_err(|_| bad)?;
        // Section 2.7: 16 bytes a descriptor; 2 an available and 8 a used element, with 6 around either.
        let len = usize::from(size);
        let areas = [(layout.desc, 16 * len), (layout.driver, 6 + 2 * len), (layout.device, 6 + 8 * len)];
        for (addr, len) in areas {
            if !memory.check_range(GuestAddress(addr), len, Permissions::ReadWrite) {
                return Err(bad);
            }
        }
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        Ok(Self { queue, notify: true, progress: 0, trace: None })
    }

    /// Takes the next chain's head, or asks the driver to notify when there is none.
    fn next_head(&mut self, memory: &Ram) -> Result<Option<u16>, RingError> {
        // The areas were in RAM when the ring was made, so what fails here is an index.
        let bad = |_| RingError::AvailIndex;
        loop {
            if self.notify {
                self.queue.disable_notification(memory).map_err(bad)?;
                self.notify = false;
            }
            if let Some(chain) = self.queue.iter(memory).map_err(bad)?.next() {
                return Ok(Some(chain.head_index()));
            }
            let more = self.queue.enable_notification(memory).map_err(bad)?;
            self.notify = true;
            if !more {
                return Ok(None);
            }
        }
    }

    /// Reads the chain at `head` into `chain`.
    fn walk(&self, memory: &Ram, head: u16, chain: &mut Chain) -> Result<(), RingError> {
        *chain = Chain {
            head,
            readable: std::mem::take(&mut chain.readable),
            writable: std::mem::take(&mut chain.writable),
            ..Chain::default()
        };
        chain.readable.clear();
        chain.writable.clear();

        let mut table = self.queue.desc_table();
        let mut table_len = self.queue.size();
        let mut indirect = false;
        let mut index = head;
        let mut total = 0_u32;
        // The main table limits a chain to the queue's size, an indirect table to its own.
        let mut left = usize::from(table_len);
        let mut seen = 0;
        loop {
            if index >= table_len {
                return Err(RingError::DescriptorIndex(index));
            }
            if left == 0 || seen == MAX_CHAIN {
                return Err(RingError::ChainTooLong);
            }
            left -= 1;
            let at = table + 16 * u64::from(index);
            let descriptor: Descriptor =
                memory.read_obj(GuestAddress(at)).map_err(|_| RingError::OutsideRam { addr: at, len: 16 })?;
            let (addr, len) = (descriptor.addr().0, descriptor.len());
            let flags = u32::from(descriptor.flags());
            if len == 0 {
                return Err(RingError::ZeroLength);
            }
            if !memory.check_range(GuestAddress(addr), len as usize, Permissions::ReadWrite) {
                return Err(RingError::OutsideRam { addr, len });
            }
            if flags & VRING_DESC_F_INDIRECT != 0 {
                // Section 2.7.5.3: at most one, last in the chain, and never from within another.
                if indirect || flags & VRING_DESC_F_NEXT != 0 || len % 16 != 0 {
                    return Err(RingError::Indirect);
                }
                indirect = true;
                table = addr;
                // A table longer than any chain may be is no error; its end is just never reached.
                table_len = u16::try_from(len / 16).unwrap_or(u16::MAX);
                left = usize::from(table_len);
                index = 0;
                continue;
            }
            seen += 1;
            total = total.checked_add(len).ok_or(RingError::ChainTooLarge)?;
            if flags & VRING_DESC_F_WRITE != 0 {
                chain.writable.push(Segment { addr, len });
                chain.writable_len += len;
            } else if chain.writable.is_empty() {
                chain.readable.push(Segment { addr, len });
                chain.readable_len += len;
            } else {
                return Err(RingError::Order);
            }
            if flags & VRING_DESC_F_NEXT == 0 {
                return Ok(());
            }
            index = descriptor.next();
        }
    }

    /// Returns chains to the driver, each a head and the bytes written to it, with an interrupt if it wants one.
    pub(super) fn finish(&mut self, shared: &Shared, used: &[(u16, u32)]) -> Result<(), RingError> {
        let interrupt = self.push(&shared.memory, used)?;
        if let Some(trace) = &self.trace {
            for &(head, written) in used {
                let fields = [
                    ("head", Value::Number(head.into())),
                    ("written", Value::Number(written.into())),
                    ("interrupt", Value::Text(&interrupt)),
                ];
                trace.event("returned", &fields);
            }
        }
        if interrupt {
            shared.interrupt.used_buffer();
        }
        Ok(())
    }

    /// Puts chains into the used ring, each a head and the bytes written to it, for the driver to see all at once. Returns
    /// whether the driver wants to hear of it.
    fn push(&mut self, memory: &Ram, used: &[(u16, u32)]) -> Result<bool, RingError> {
        let old = self.queue.next_used();
        let (mut new, mask) = (old, self.queue.size() - 1);
        for (head, written) in used {
            // Section 2.7.8: flags and index, then elements of 8 bytes.
            let at = self.queue.used_ring() + 4 + 8 * u64::from(new & mask);
            let element = u64::from(*head) | u64::from(*written) << 32;
            memory
                .write_obj(element.to_le(), GuestAddress(at))
                .map_err(|_| RingError::DescriptorIndex(*head))?;
            new = new.wrapping_add(1);
        }
        self.queue.set_next_used(new);
        memory
            .store(new.to_le(), GuestAddress(self.queue.used_ring() + 2), Ordering::Release)
            .map_err(|_| RingError::AvailIndex)?;
        // The used index must be visible before the driver's wishes are read (sections 2.7.7 and 2.7.10).
        fence(Ordering::SeqCst);
        let event_idx = self.queue.event_idx_enabled();
        let wish = if event_idx { 4 + 2 * u64::from(self.queue.size()) } else { 0 };
        let wish: u16 = memory
            .load(GuestAddress(self.queue.avail_ring() + wish), Ordering::Relaxed)
            .map_err(|_| RingError::AvailIndex)?;
        let wish = u16::from_le(wish);
        Ok(if event_idx {
            new.wrapping_sub(wish).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            u32::from(wish) & VRING_AVAIL_F_NO_INTERRUPT == 0
        })
    }
}

/// Where a request is carried out: on the thread that serves the queue, or away from it.
pub trait Site {
    /// Guest RAM.
    fn memory(&self) -> &Ram;

    /// Somebody waits for the device or its queue: long work should be cut short.
    fn stopping(&self) -> bool;
}

/// A queue while its device serves it.
pub struct ActiveQueue<'a> {
    ring: &'a mut Ring,
    index: usize,
    shared: &'a Arc<Shared>,
    budget: u32,
    again: bool,
}

impl Site for ActiveQueue<'_> {
    fn memory(&self) -> &Ram {
        &self.shared.memory
    }

    fn stopping(&self) -> bool {
        self.shared.waiting.load(Ordering::Relaxed) != 0
    }
}

impl<'a> ActiveQueue<'a> {
    pub(super) fn new(ring: &'a mut Ring, index: usize, shared: &'a Arc<Shared>) -> Self {
        Self { ring, index, shared, budget: BUDGET, again: false }
    }

    /// Guest RAM.
    pub fn memory(&self) -> &'a Ram {
        &self.shared.memory
    }

    /// Takes the next chain. `false`: there is none now, or it is time to return; the queue is served again when there
    /// is more to do.
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, RingError> {
        if self.budget == 0 || self.stopping() {
            self.again = true;
            return Ok(false);
        }
        self.budget -= 1;
        match self.ring.next_head(self.memory())? {
            Some(head) => {
                self.ring.walk(self.memory(), head, chain)?;
                chain.progress = std::mem::take(&mut self.ring.progress);
                if let Some(trace) = &self.ring.trace {
                    let fields = [
                        ("head", Value::Number(head.into())),
                        ("readable", Value::Number(chain.readable_len.into())),
                        ("writable", Value::Number(chain.writable_len.into())),
                    ];
                    trace.event("taken", &fields);
                }
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Returns the chain of the last `pop` to the driver, with `written` bytes in its writable part.
    pub fn push(&mut self, chain: &Chain, written: u32) -> Result<(), RingError> {
        self.push_all(&[(chain.head, written)])
    }

    /// Returns the chains with these heads to the driver, each with the bytes written to it. The driver sees all of them at
    /// once, as parts of one message have to be.
    pub fn push_all(&mut self, used: &[(u16, u32)]) -> Result<(), RingError> {
        self.ring.finish(self.shared, used)
    }

    /// Puts the chain of the last `pop` back for when the device has something for it: it is the next to be popped.
    pub fn unpop(&mut self) {
        if let Some(trace) = &self.ring.trace {
            trace.event("put back", &[]);
        }
        self.ring.queue.go_to_previous_position();
    }

    /// There is more to do than this turn allows: the queue is served again soon.
    pub fn serve_again(&mut self) {
        self.again = true;
    }

    /// As [`Self::unpop`], for work that was cut short by [`Site::stopping`]: the queue is served again soon, and the
    /// chain then knows its `progress`, in units of the device's choice.
    pub fn retry(&mut self, progress: u32) {
        self.unpop();
        self.ring.progress = progress;
        self.again = true;
    }

    /// Takes the chain of the last `pop` away, to be finished by another thread while this one goes on.
    pub fn defer(&mut self, chain: Chain) -> Deferred {
        Deferred::new(Arc::clone(self.shared), self.index, chain)
    }

    /// Whether the queue was left with work to do.
    pub(super) fn wants_more(&self) -> bool {
        self.again
    }
}

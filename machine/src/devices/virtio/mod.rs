//! virtio devices (Virtual I/O Device specification 1.3), in three parts that know little of each other:
//!
//! - the transport, [`mmio::VirtioMmio`]: registers, negotiation, the interrupt wire;
//! - the rings, [`queue`]: descriptor chains taken from guest memory, checked once, never trusted;
//! - the devices, each a [`VirtioDevice`]: [`block`], [`net`], [`rng`], [`console`].
//!
//! Between them run [`worker`] threads, one or more for a device in use. A hart that writes QueueNotify only wakes one. A
//! worker holds a ring while it serves it; whoever resets the device or takes a queue away waits for that lock, and for
//! requests that other threads carry out, so when the register write returns, nothing reaches guest memory any more.
//!
//! A chain that breaks the specification makes the device stop and ask for a reset (DEVICE_NEEDS_RESET); nothing a
//! guest writes makes it touch memory outside RAM, or hold more of the host's memory than a small constant.

pub mod block;
pub mod console;
pub mod mmio;
pub mod net;
pub mod queue;
pub mod rng;
#[cfg(test)]
mod testing;
pub mod worker;

use std::sync::Arc;

use parking_lot::Mutex;

use crate::irq::IrqLine;

pub use mmio::VirtioMmio;
pub use queue::{ActiveQueue, Chain, RingError, Site};
pub use softmmu::Ram;
pub use worker::{Deferred, Sleeper, Waker};

/// What a device does, apart from how the driver reaches it.
///
/// `service` runs on a worker thread of the device, everything else on the hart that touched a register. Not to be added
/// here: anything of one transport, and anything that only one device needs.
pub trait VirtioDevice: Send + Sync {
    /// A short name for logs and threads.
    fn name(&self) -> &'static str;

    /// The device type (section 5).
    fn device_id(&self) -> u32;

    /// The device's own feature bits. Those of rings and transport are added by the transport.
    fn features(&self) -> u64;

    /// The greatest size of each queue: powers of two, at most 1024; at most 32 queues.
    fn queue_sizes(&self) -> &[u16];

    /// Threads that serve the queues, each its own queues; not more than there are queues.
    fn threads(&self) -> usize {
        1
    }

    /// Reads `data.len()` bytes of configuration space from `offset`; what lies beyond its end stays as it is.
    fn read_config(&self, offset: usize, data: &mut [u8]);

    /// Writes configuration space. Most devices have nothing writable there.
    fn write_config(&self, offset: usize, data: &[u8]) {
        let _ = (offset, data);
    }

    /// Hands the device its way to its own worker and driver; called once, before anything else.
    fn connect(&self, waker: Waker) {
        let _ = waker;
    }

    /// Where the device's worker sleeps, if there is more to wait for than the driver; asked once.
    fn sleeper(&self) -> Option<Arc<dyn Sleeper>> {
        None
    }

    /// The driver has settled on `features`, transport bits included.
    fn negotiated(&self, features: u64) {
        let _ = features;
    }

    /// Serves queue `index` until it is empty or [`ActiveQueue::pop`] says to stop. An error breaks the device until
    /// it is reset.
    fn service(&self, index: usize, queue: &mut ActiveQueue<'_>) -> Result<(), RingError>;

    /// Returns to the state after power-on. Its queues are gone and `service` does not run meanwhile.
    fn reset(&self);
}

/// Copies the part of a configuration structure that a read of `data.len()` bytes at `offset` covers.
pub fn read_config_bytes(config: &[u8], offset: usize, data: &mut [u8]) {
    if let Some(rest) = config.get(offset..) {
        let len = rest.len().min(data.len());
        data[..len].copy_from_slice(&rest[..len]);
    }
}

/// InterruptStatus bit: the device has used a buffer.
const USED_BUFFER: u32 = 1;
/// InterruptStatus bit: the configuration or the status has changed.
const CONFIG_CHANGE: u32 = 2;

/// A device's way of getting the driver's attention.
pub(crate) struct Interrupt {
    line: IrqLine,
    state: Mutex<InterruptState>,
}

/// Saved with the transport.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct InterruptState {
    /// InterruptStatus; the wire is high while it is not 0. Both change together under the lock.
    status: u32,
    /// ConfigGeneration.
    generation: u32,
    /// The driver is ready to be told of configuration changes (DRIVER_OK).
    listening: bool,
    /// The device has met an error it cannot continue from (DEVICE_NEEDS_RESET).
    broken: bool,
}

impl Interrupt {
    fn new(line: IrqLine) -> Self {
        Self { line, state: Mutex::default() }
    }

    fn status(&self) -> u32 {
        self.state.lock().status
    }

    fn generation(&self) -> u32 {
        self.state.lock().generation
    }

    fn is_broken(&self) -> bool {
        self.state.lock().broken
    }

    fn raise(&self, state: &mut InterruptState, bits: u32) {
        if state.status == 0 {
            self.line.set(true);
        }
        state.status |= bits;
    }

    /// Buffers have been used.
    fn used_buffer(&self) {
        self.raise(&mut self.state.lock(), USED_BUFFER);
    }

    /// Configuration space reads differently now.
    fn config_changed(&self) {
        let mut state = self.state.lock();
        state.generation = state.generation.wrapping_add(1);
        if state.listening {
            self.raise(&mut state, CONFIG_CHANGE);
        }
    }

    /// The device has stopped until it is reset.
    fn needs_reset(&self) {
        let mut state = self.state.lock();
        state.broken = true;
        if state.listening {
            self.raise(&mut state, CONFIG_CHANGE);
        }
    }

    fn listen(&self) {
        self.state.lock().listening = true;
    }

    fn acknowledge(&self, bits: u32) {
        let mut state = self.state.lock();
        if state.status != 0 && state.status & !bits == 0 {
            self.line.set(false);
        }
        state.status &= !bits;
    }

    /// The configuration generation goes on counting: a reset is no reason to read an old value as new.
    fn reset(&self) {
        let mut state = self.state.lock();
        self.line.set(false);
        *state = InterruptState { generation: state.generation, ..InterruptState::default() };
    }
}

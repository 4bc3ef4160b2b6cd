//! The network device (section 5.1) with one pair of queues, between the guest's driver and a [`UserNet`].
//!
//! Large segments and checksums are left undone in both directions where the driver agrees: what the guest sends ends at this
//! process, and what it receives never was on a wire.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net as abi;

use super::{ActiveQueue, Chain, Ram, RingError, Sleeper, VirtioDevice, Waker, read_config_bytes};
use crate::net::{Mac, Offloads, Poller, Receiver, Unfinished, UserNet};

const DEVICE_ID: u32 = 1;
const QUEUE_SIZES: [u16; 2] = [256, 256];
const RECEIVEQ: usize = 0;
const TRANSMITQ: usize = 1;

/// `virtio_net_hdr` with `num_buffers`, which drivers before virtio 1.0 know only with VIRTIO_NET_F_MRG_RXBUF.
const HEADER: usize = 12;
const LEGACY_HEADER: usize = 10;
/// The largest packet with its Ethernet header.
const MAX_FRAME: usize = 65_535 + 14;

const fn bit(feature: u32) -> u64 {
    1 << feature
}

const FEATURES: u64 = bit(abi::VIRTIO_NET_F_CSUM)
    | bit(abi::VIRTIO_NET_F_GUEST_CSUM)
    | bit(abi::VIRTIO_NET_F_MAC)
    | bit(abi::VIRTIO_NET_F_GUEST_TSO4)
    | bit(abi::VIRTIO_NET_F_GUEST_TSO6)
    | bit(abi::VIRTIO_NET_F_HOST_TSO4)
    | bit(abi::VIRTIO_NET_F_HOST_TSO6)
    | bit(abi::VIRTIO_NET_F_MRG_RXBUF)
    | bit(abi::VIRTIO_NET_F_STATUS);

/// What the driver has agreed to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Agreed(u64);

impl Agreed {
    fn has(self, feature: u32) -> bool {
        self.0 & bit(feature) != 0
    }

    fn header_len(self) -> usize {
        if self.has(VIRTIO_F_VERSION_1) || self.mergeable() { HEADER } else { LEGACY_HEADER }
    }

    /// Whether a frame may take several buffers.
    fn mergeable(self) -> bool {
        self.has(abi::VIRTIO_NET_F_MRG_RXBUF)
    }

    fn offloads(self) -> Offloads {
        // Section 5.1.3.1: segmentation is nothing without the checksum.
        let checksum = self.has(abi::VIRTIO_NET_F_GUEST_CSUM);
        Offloads {
            checksum,
            tso4: checksum && self.has(abi::VIRTIO_NET_F_GUEST_TSO4),
            tso6: checksum && self.has(abi::VIRTIO_NET_F_GUEST_TSO6),
        }
    }
}

struct State {
    network: UserNet,
    agreed: Agreed,
    /// A frame of the guest's, copied once so that it cannot change under our eyes.
    frame: Vec<u8>,
    buffers: Buffers,
}

/// A virtio network device.
pub struct Net {
    mac: Mac,
    poller: Arc<Poller>,
    waker: OnceLock<Waker>,
    /// Locked by the worker while it serves a queue, and by whoever negotiates.
    state: Mutex<State>,
}

impl Net {
    /// A device with address `mac` on `network`.
    pub fn new(mac: Mac, network: UserNet) -> Self {
        let poller = Arc::clone(network.poller());
        let state = Mutex::new(State {
            network,
            agreed: Agreed::default(),
            frame: Vec::new(),
            buffers: Buffers::default(),
        });
        Self { mac, poller, waker: OnceLock::new(), state }
    }
}

/// Buffers of the driver's on their way to hold one frame. Kept from one to the next for their memory.
#[derive(Default)]
struct Buffers {
    chains: Vec<Chain>,
    used: Vec<(u16, u32)>,
}

/// The receive queue as the network sees it.
struct ReceiveQueue<'a, 'b> {
    queue: &'a mut ActiveQueue<'b>,
    agreed: Agreed,
    buffers: &'a mut Buffers,
    error: Option<RingError>,
}

impl ReceiveQueue<'_, '_> {
    /// Takes buffers for `len` bytes; `None` if there are not enough.
    fn take(&mut self, len: usize) -> Result<Option<usize>, RingError> {
        let (mut count, mut room) = (0, 0);
        while room < len {
            if count == self.buffers.chains.len() {
                self.buffers.chains.push(Chain::default());
            }
            if !self.queue.pop(&mut self.buffers.chains[count])? {
                for _ in 0..count {
                    self.queue.unpop();
                }
                return Ok(None);
            }
            let size = self.buffers.chains[count].writable_len() as usize;
            room += size;
            count += 1;
            if size < self.agreed.header_len() || !self.agreed.mergeable() && room < len {
                return Err(RingError::Request("room for a frame"));
            }
        }
        Ok(Some(count))
    }

    fn put(&mut self, frame: &[&[u8]], unfinished: &Unfinished) -> Result<bool, RingError> {
        let header_len = self.agreed.header_len();
        let len = header_len + frame.iter().map(|part| part.len()).sum::<usize>();
        let Some(count) = self.take(len)? else { return Ok(false) };
        let header = header(unfinished, count as u16);
        let mut chains = Writer { memory: self.queue.memory(), chains: &self.buffers.chains[..count], at: 0 };
        self.buffers.used.clear();
        chains.write(&header[..header_len], &mut self.buffers.used);
        frame.iter().for_each(|part| chains.write(part, &mut self.buffers.used));
        let last = chains.chains[0].head();
        self.buffers.used.push((last, chains.at));
        self.queue.push_all(&self.buffers.used)?;
        Ok(true)
    }
}

/// Writes over the edges of chains that have room for all of it.
struct Writer<'a> {
    memory: &'a Ram,
    chains: &'a [Chain],
    /// Bytes written to the first of `chains`.
    at: u32,
}

impl Writer<'_> {
    fn write(&mut self, mut bytes: &[u8], used: &mut Vec<(u16, u32)>) {
        while !bytes.is_empty() {
            let [chain, rest @ ..] = self.chains else { return };
            let done = chain.write(self.memory, self.at, bytes);
            self.at += done as u32;
            bytes = &bytes[done..];
            if !bytes.is_empty() {
                if rest.is_empty() {
                    return;
                }
                used.push((chain.head(), self.at));
                (self.chains, self.at) = (rest, 0);
            }
        }
    }
}

impl Receiver for ReceiveQueue<'_, '_> {
    fn deliver(&mut self, frame: &[&[u8]], unfinished: &Unfinished) -> bool {
        if self.error.is_some() {
            return false;
        }
        self.put(frame, unfinished).unwrap_or_else(|error| {
            self.error = Some(error);
            false
        })
    }
}

/// Section 5.1.6: the header of a frame for the driver.
fn header(unfinished: &Unfinished, buffers: u16) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let mut put = |at: usize, value: u16| header[at..at + 2].copy_from_slice(&value.to_le_bytes());
    put(10, buffers);
    if let Some((start, offset)) = unfinished.checksum {
        put(6, start);
        put(8, offset);
    }
    if let Some(segmentation) = unfinished.segmentation {
        put(2, segmentation.header_len);
        put(4, segmentation.size);
        let kind =
            if segmentation.v6 { abi::VIRTIO_NET_HDR_GSO_TCPV6 } else { abi::VIRTIO_NET_HDR_GSO_TCPV4 };
        header[1] = kind as u8;
    }
    if unfinished.checksum.is_some() {
        header[0] = abi::VIRTIO_NET_HDR_F_NEEDS_CSUM as u8;
    }
    header
}

impl State {
    /// Takes what the guest sends.
    fn transmit(&mut self, queue: &mut ActiveQueue<'_>) -> Result<(), RingError> {
        let header_len = self.agreed.header_len();
        let mut chain = Chain::default();
        let now = Instant::now();
        while queue.pop(&mut chain)? {
            let len = chain.readable_len() as usize;
            let mut header = [0; HEADER];
            if chain.read(queue.memory(), 0, &mut header[..header_len]) < header_len {
                return Err(RingError::Request("the header of a frame"));
            }
            let len = len - header_len;
            // Larger than any frame is no frame.
            if len <= MAX_FRAME {
                self.frame.resize(len, 0);
                let len = chain.read(queue.memory(), header_len as u32, &mut self.frame);
                let finished = u32::from(header[0]) & abi::VIRTIO_NET_HDR_F_NEEDS_CSUM == 0;
                self.network.transmit(&self.frame[..len], finished, now);
            }
            queue.push(&chain, 0)?;
        }
        Ok(())
    }

    /// Gives the guest what there is.
    fn receive(&mut self, queue: &mut ActiveQueue<'_>) -> Result<(), RingError> {
        let mut receiver =
            ReceiveQueue { queue, agreed: self.agreed, buffers: &mut self.buffers, error: None };
        let more = self.network.receive(&mut receiver, Instant::now());
        if let Some(error) = receiver.error {
            return Err(error);
        }
        if more {
            queue.serve_again();
        }
        Ok(())
    }
}

impl Sleeper for Poller {
    fn sleep(&self) -> u32 {
        if Self::sleep(self) { 1 << RECEIVEQ } else { 0 }
    }

    fn wake(&self) {
        Self::wake(self);
    }
}

impl VirtioDevice for Net {
    fn name(&self) -> &'static str {
        "virtio-net"
    }

    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let mut config = [0; 8];
        config[..6].copy_from_slice(&self.mac);
        config[6..].copy_from_slice(&(abi::VIRTIO_NET_S_LINK_UP as u16).to_le_bytes());
        read_config_bytes(&config, offset, data);
    }

    fn connect(&self, waker: Waker) {
        let _ = self.waker.set(waker);
    }

    fn sleeper(&self) -> Option<Arc<dyn Sleeper>> {
        Some(self.poller.clone())
    }

    fn negotiated(&self, features: u64) {
        let mut state = self.state.lock();
        state.agreed = Agreed(features);
        let offloads = state.agreed.offloads();
        state.network.set_offloads(offloads);
    }

    fn service(&self, index: usize, queue: &mut ActiveQueue<'_>) -> Result<(), RingError> {
        let mut state = self.state.lock();
        match index {
            RECEIVEQ => state.receive(queue),
            TRANSMITQ => {
                let result = state.transmit(queue);
                // What was sent has mostly something to be received for it.
                if let Some(waker) = self.waker.get() {
                    waker.wake(RECEIVEQ);
                }
                result
            }
            _ => Ok(()),
        }
    }

    fn reset(&self) {
        let mut state = self.state.lock();
        state.agreed = Agreed::default();
        state.network.reset();
    }
}

#[cfg(test)]
#[path = "net_tests.rs"]
mod tests;

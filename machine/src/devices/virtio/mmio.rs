//! The virtio-mmio transport (section 4.2): registers, negotiation, the interrupt wire. Modern (version 2) and legacy
//! (version 1, section 4.2.4), as QEMU's `virtio-mmio.force-legacy` chooses.
//!
//! Registers are 32 bits wide: other accesses below the configuration space read 0 and write nothing, as in QEMU.
//! Unknown and read-only registers ignore writes; nothing here faults.

use std::sync::Arc;

use devicetree::Node;
use jit::inspect::Inspect;
use jit::inspect::trace::Category;
use parking_lot::Mutex;
use softmmu::AccessFault;
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::queue::{QueueLayout, Ring};
use super::worker::Worker;
use super::{Interrupt, Ram, VirtioDevice};
use crate::bus::{MmioDevice, Placement};
use crate::irq::IrqLine;

/// "virt", little-endian.
const MAGIC: u32 = 0x7472_6976;
/// "QEMU": xv6 looks for it.
const VENDOR: u32 = 0x554d_4551;

/// The register names of section 4.2.2, with those of section 4.2.4 marked.
mod reg {
    pub(super) const MAGIC_VALUE: u64 = 0x00;
    pub(super) const VERSION: u64 = 0x04;
    pub(super) const DEVICE_ID: u64 = 0x08;
    pub(super) const VENDOR_ID: u64 = 0x0c;
    pub(super) const DEVICE_FEATURES: u64 = 0x10;
    pub(super) const DEVICE_FEATURES_SEL: u64 = 0x14;
    pub(super) const DRIVER_FEATURES: u64 = 0x20;
    pub(super) const DRIVER_FEATURES_SEL: u64 = 0x24;
    /// Legacy.
    pub(super) const GUEST_PAGE_SIZE: u64 = 0x28;
    pub(super) const QUEUE_SEL: u64 = 0x30;
    pub(super) const QUEUE_NUM_MAX: u64 = 0x34;
    pub(super) const QUEUE_NUM: u64 = 0x38;
    /// Legacy.
    pub(super) const QUEUE_ALIGN: u64 = 0x3c;
    /// Legacy.
    pub(super) const QUEUE_PFN: u64 = 0x40;
    pub(super) const QUEUE_READY: u64 = 0x44;
    pub(super) const QUEUE_NOTIFY: u64 = 0x50;
    pub(super) const INTERRUPT_STATUS: u64 = 0x60;
    pub(super) const INTERRUPT_ACK: u64 = 0x64;
    pub(super) const STATUS: u64 = 0x70;
    pub(super) const QUEUE_DESC_LOW: u64 = 0x80;
    pub(super) const QUEUE_DESC_HIGH: u64 = 0x84;
    pub(super) const QUEUE_DRIVER_LOW: u64 = 0x90;
    pub(super) const QUEUE_DRIVER_HIGH: u64 = 0x94;
    pub(super) const QUEUE_DEVICE_LOW: u64 = 0xa0;
    pub(super) const QUEUE_DEVICE_HIGH: u64 = 0xa4;
    pub(super) const SHM_LEN_LOW: u64 = 0xb0;
    pub(super) const SHM_BASE_HIGH: u64 = 0xbc;
    pub(super) const CONFIG_GENERATION: u64 = 0xfc;
    pub(super) const CONFIG: u64 = 0x100;
}

const STATUS_DRIVER_OK: u32 = 4;
const STATUS_FEATURES_OK: u32 = 8;
const STATUS_NEEDS_RESET: u32 = 0x40;

/// VIRTIO_F_VERSION_1.
pub(super) const VERSION_1: u64 = 1 << 32;

/// Which register layout a transport has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Version 1, as drivers before virtio 1.0 know it.
    Legacy,
    /// Version 2.
    Modern,
}

/// A queue's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct QueueRegs {
    /// QueueReady; in legacy, QueuePFN is not 0.
    ready: bool,
    layout: QueueLayout,
    /// Legacy: QueueAlign, in bytes.
    align: u32,
    /// Legacy: QueuePFN.
    pfn: u32,
}

/// Everything in the transport that a driver can change, apart from the interrupt.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    status: u32,
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    /// What the driver and the device agreed on.
    features: u64,
    queue_sel: u32,
    /// Legacy: GuestPageSize, in bytes.
    guest_page_size: u32,
    queues: Vec<QueueRegs>,
}

impl State {
    fn new(sizes: &[u16]) -> Self {
        let queue = |size: &u16| QueueRegs {
            ready: false,
            layout: QueueLayout { size: u32::from(*size), ..QueueLayout::default() },
            align: 4096,
            pfn: 0,
        };
        Self {
            status: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            features: 0,
            queue_sel: 0,
            guest_page_size: 4096,
            queues: sizes.iter().map(queue).collect(),
        }
    }

    fn queue(&self) -> Option<&QueueRegs> {
        self.queues.get(self.queue_sel as usize)
    }

    fn queue_mut(&mut self) -> Option<&mut QueueRegs> {
        self.queues.get_mut(self.queue_sel as usize)
    }
}

/// The device behind the registers.
struct Slot {
    device: Arc<dyn VirtioDevice>,
    worker: Worker,
    interrupt: Arc<Interrupt>,
    memory: Ram,
    /// Locked around every register access but QueueNotify and the interrupt registers.
    state: Mutex<State>,
}

/// One virtio-mmio transport, with or without a device in it.
pub struct VirtioMmio {
    version: Version,
    slot: Option<Slot>,
}

impl VirtioMmio {
    /// A transport without a device: DeviceID reads 0, and drivers look elsewhere.
    pub fn empty(version: Version) -> Self {
        Self { version, slot: None }
    }

    /// A transport for `device`, whose DMA goes to `memory` and whose interrupt is `irq`. What it does
    /// is traced if that is wanted.
    pub fn new(
        version: Version,
        device: Arc<dyn VirtioDevice>,
        memory: Ram,
        irq: IrqLine,
        inspect: &Inspect,
    ) -> Self {
        let interrupt = Arc::new(Interrupt::new(irq));
        let worker = Worker::new(
            Arc::clone(&device),
            memory.clone(),
            Arc::clone(&interrupt),
            inspect.trace(&[Category::Virtio]),
        );
        let state = Mutex::new(State::new(device.queue_sizes()));
        Self { version, slot: Some(Slot { device, worker, interrupt, memory, state }) }
    }
}

impl MmioDevice for VirtioMmio {
    fn name(&self) -> &'static str {
        self.slot.as_ref().map_or("virtio-mmio", |slot| slot.device.name())
    }

    fn read(&self, offset: u64, width: u8) -> Result<u64, AccessFault> {
        if offset >= reg::CONFIG {
            return Ok(self.slot.as_ref().map_or(0, |slot| slot.read_config(offset - reg::CONFIG, width)));
        }
        if width != 4 {
            return Ok(0);
        }
        Ok(u64::from(match (offset, &self.slot) {
            (reg::MAGIC_VALUE, _) => MAGIC,
            (reg::VERSION, _) if self.version == Version::Legacy => 1,
            (reg::VERSION, _) => 2,
            (reg::VENDOR_ID, _) => VENDOR,
            (_, None) => 0,
            (_, Some(slot)) => slot.read(self.version, offset),
        }))
    }

    fn write(&self, offset: u64, width: u8, value: u64) -> Result<(), AccessFault> {
        if let Some(slot) = &self.slot {
            if offset >= reg::CONFIG {
                slot.write_config(offset - reg::CONFIG, width, value);
            } else if width == 4 {
                slot.write(self.version, offset, value as u32);
            }
        }
        Ok(())
    }

    fn reset(&self) {
        if let Some(slot) = &self.slot {
            let mut state = slot.state.lock();
            slot.worker.reset();
            *state = State::new(slot.device.queue_sizes());
        }
    }

    fn fdt(&self, place: &Placement, parent: &mut Node) {
        let mut node = Node::new(format!("virtio_mmio@{:x}", place.base));
        if let Some(irq) = place.irq {
            node.set_u32("interrupts", irq);
            node.set_u32("interrupt-parent", place.phandles.plic);
        }
        node.set_reg(&[(place.base, place.size)]);
        node.set_string("compatible", "virtio,mmio");
        parent.add_child(node);
    }
}

impl Slot {
    fn offered(&self, version: Version) -> u64 {
        let rings = 1 << VIRTIO_RING_F_INDIRECT_DESC | 1 << VIRTIO_RING_F_EVENT_IDX;
        let features = self.device.features() | rings;
        match version {
            Version::Legacy => features & u64::from(u32::MAX),
            Version::Modern => features | VERSION_1,
        }
    }

    fn read_config(&self, offset: u64, width: u8) -> u64 {
        // Bytes beyond the device's structure read as ones, as in QEMU.
        let mut data = [0xff; 8];
        let width = usize::from(width).min(8);
        self.device.read_config(offset as usize, &mut data[..width]);
        data[width..].fill(0);
        u64::from_le_bytes(data)
    }

    fn write_config(&self, offset: u64, width: u8, value: u64) {
        let width = usize::from(width).min(8);
        self.device.write_config(offset as usize, &value.to_le_bytes()[..width]);
    }

    fn read(&self, version: Version, offset: u64) -> u32 {
        match offset {
            reg::INTERRUPT_STATUS => return self.interrupt.status(),
            reg::DEVICE_ID => return self.device.device_id(),
            _ => {}
        }
        let state = self.state.lock();
        match (offset, version) {
            (reg::DEVICE_FEATURES, _) => match state.device_features_sel {
                0 => self.offered(version) as u32,
                1 => (self.offered(version) >> 32) as u32,
                _ => 0,
            },
            (reg::QUEUE_NUM_MAX, _) => {
                let sizes = self.device.queue_sizes();
                sizes.get(state.queue_sel as usize).map_or(0, |size| u32::from(*size))
            }
            (reg::QUEUE_PFN, Version::Legacy) => state.queue().map_or(0, |queue| queue.pfn),
            (reg::QUEUE_READY, Version::Modern) => state.queue().map_or(0, |queue| u32::from(queue.ready)),
            (reg::STATUS, Version::Legacy) => state.status,
            (reg::STATUS, Version::Modern) => {
                state.status | if self.interrupt.is_broken() { STATUS_NEEDS_RESET } else { 0 }
            }
            // There is no shared memory region: length and base are -1.
            (reg::SHM_LEN_LOW..=reg::SHM_BASE_HIGH, Version::Modern) => u32::MAX,
            (reg::CONFIG_GENERATION, Version::Modern) => self.interrupt.generation(),
            _ => 0,
        }
    }

    fn write(&self, version: Version, offset: u64, value: u32) {
        match offset {
            reg::QUEUE_NOTIFY => return self.notify(version, value),
            reg::INTERRUPT_ACK => return self.interrupt.acknowledge(value),
            _ => {}
        }
        let mut state = self.state.lock();
        match (offset, version) {
            (reg::DEVICE_FEATURES_SEL, _) => state.device_features_sel = value,
            (reg::DRIVER_FEATURES_SEL, _) => state.driver_features_sel = value,
            (reg::DRIVER_FEATURES, _) => self.write_features(version, &mut state, value),
            (reg::QUEUE_SEL, _) => state.queue_sel = value,
            (reg::STATUS, _) => self.write_status(version, &mut state, value),
            (reg::QUEUE_NUM, _) => {
                if let Some(queue) = state.queue_mut() {
                    queue.layout.size = value;
                }
            }
            (reg::GUEST_PAGE_SIZE, Version::Legacy) => state.guest_page_size = value,
            (reg::QUEUE_ALIGN, Version::Legacy) => {
                if let Some(queue) = state.queue_mut() {
                    queue.align = value;
                }
            }
            (reg::QUEUE_PFN, Version::Legacy) => self.write_pfn(&mut state, value),
            (reg::QUEUE_READY, Version::Modern) => self.write_ready(&mut state, value),
            (reg::QUEUE_DESC_LOW..=reg::QUEUE_DEVICE_HIGH, Version::Modern) => {
                let Some(queue) = state.queue_mut() else { return };
                match offset {
                    reg::QUEUE_DESC_LOW => set_low(&mut queue.layout.desc, value),
                    reg::QUEUE_DESC_HIGH => set_high(&mut queue.layout.desc, value),
                    reg::QUEUE_DRIVER_LOW => set_low(&mut queue.layout.driver, value),
                    reg::QUEUE_DRIVER_HIGH => set_high(&mut queue.layout.driver, value),
                    reg::QUEUE_DEVICE_LOW => set_low(&mut queue.layout.device, value),
                    reg::QUEUE_DEVICE_HIGH => set_high(&mut queue.layout.device, value),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn write_features(&self, version: Version, state: &mut State, value: u32) {
        if version == Version::Legacy {
            if state.driver_features_sel == 0 {
                state.driver_features = u64::from(value);
                self.agree(version, state);
            }
        } else if state.status & STATUS_FEATURES_OK == 0 {
            match state.driver_features_sel {
                0 => set_low(&mut state.driver_features, value),
                1 => set_high(&mut state.driver_features, value),
                _ => {}
            }
        }
    }

    /// Settles the features on what the driver asked for, of what is offered.
    fn agree(&self, version: Version, state: &mut State) {
        state.features = state.driver_features & self.offered(version);
        self.device.negotiated(state.features);
    }

    /// Section 3.1: what each status bit means when the driver sets it.
    fn write_status(&self, version: Version, state: &mut State, value: u32) {
        if value == 0 {
            self.worker.reset();
            // Linux writes GuestPageSize once, before its first reset.
            *state = State {
                device_features_sel: state.device_features_sel,
                driver_features_sel: state.driver_features_sel,
                queue_sel: state.queue_sel,
                guest_page_size: state.guest_page_size,
                ..State::new(self.device.queue_sizes())
            };
            return;
        }
        let mut status = value & 0xff & !STATUS_NEEDS_RESET;
        let rising = status & !state.status;
        if version == Version::Modern {
            if rising & STATUS_FEATURES_OK != 0 {
                if state.driver_features & !self.offered(version) == 0 {
                    self.agree(version, state);
                } else {
                    status &= !STATUS_FEATURES_OK;
                }
            } else if rising & STATUS_DRIVER_OK != 0 && status & STATUS_FEATURES_OK == 0 {
                // A driver that skips the question gets what it may have.
                self.agree(version, state);
            }
        }
        state.status = status;
        if rising & STATUS_DRIVER_OK != 0 {
            self.interrupt.listen();
            for index in 0..state.queues.len() {
                self.start(state, index);
            }
        }
    }

    fn write_ready(&self, state: &mut State, value: u32) {
        let index = state.queue_sel as usize;
        let Some(queue) = state.queue_mut() else { return };
        queue.ready = value & 1 != 0;
        if !queue.ready {
            self.worker.stop(index);
        } else if state.status & STATUS_DRIVER_OK != 0 {
            self.start(state, index);
        }
    }

    /// Section 2.7.2: in legacy, the driver gives the page of the table, and the rings follow from it.
    fn write_pfn(&self, state: &mut State, pfn: u32) {
        let (index, page_size) = (state.queue_sel as usize, u64::from(state.guest_page_size));
        let Some(queue) = state.queue_mut() else { return };
        // Whatever the numbers, the ring is used only if all of it is in RAM.
        let size = u64::from(queue.layout.size);
        let desc = u64::from(pfn) * page_size;
        let driver = desc.wrapping_add(16 * size);
        let driver_end = driver.wrapping_add(6 + 2 * size);
        let device = driver_end.checked_next_multiple_of(u64::from(queue.align.max(1))).unwrap_or(u64::MAX);
        queue.layout = QueueLayout { desc, driver, device, ..queue.layout };
        queue.pfn = pfn;
        queue.ready = pfn != 0;
        self.worker.stop(index);
        if state.status & STATUS_DRIVER_OK != 0 {
            self.start(state, index);
        }
    }

    /// Takes a queue into use that the driver has described.
    fn start(&self, state: &State, index: usize) {
        let queue = &state.queues[index];
        if !queue.ready || self.worker.is_live(index) || self.interrupt.is_broken() {
            return;
        }
        let max_size = self.device.queue_sizes()[index];
        let event_idx = state.features >> VIRTIO_RING_F_EVENT_IDX & 1 == 1;
        match Ring::new(queue.layout, max_size, event_idx, &self.memory) {
            Ok(ring) => self.worker.start(index, ring),
            Err(error) => {
                log::debug!("{}: queue {index}: {error}", self.device.name());
                self.worker.fail();
            }
        }
    }

    fn notify(&self, version: Version, value: u32) {
        let index = value as usize;
        if index >= self.device.queue_sizes().len() {
            return;
        }
        // Drivers before 1.0 may use a queue before they set DRIVER_OK (section 3.1.2).
        if version == Version::Legacy && !self.worker.is_live(index) {
            self.start(&self.state.lock(), index);
        }
        self.worker.notify(index);
    }
}

fn set_low(register: &mut u64, value: u32) {
    *register = *register & !u64::from(u32::MAX) | u64::from(value);
}

fn set_high(register: &mut u64, value: u32) {
    *register = *register & u64::from(u32::MAX) | u64::from(value) << 32;
}

#[cfg(test)]
#[path = "mmio_tests.rs"]
mod tests;

//! A driver for the tests: it builds rings in guest memory by hand and talks to a transport's registers.

#![allow(unsafe_code, reason = "a RAM region inside a larger mapping, to see what happens around it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jit::inspect::Inspect;
use vm_memory::{Bytes, GuestAddress, GuestRegionMmap, MmapRegion, VolatileMemory};

use super::mmio::{Version, VirtioMmio};
use super::{Ram, VirtioDevice};
use crate::bus::MmioDevice;
use crate::irq::{IrqLine, IrqSink};

/// Start and size of guest RAM.
pub(super) const RAM: (u64, usize) = (0x8000_0000, 8 << 20);
/// Where the tests keep request buffers.
pub(super) const DATA: u64 = RAM.0 + 0x10_0000;
/// Descriptors in a queue.
pub(super) const SIZE: u16 = 16;

pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

pub(super) const EVENT_IDX: u64 = 1 << 29;
pub(super) use super::mmio::VERSION_1;

/// The far end of the interrupt wire.
#[derive(Default)]
pub(super) struct Wire(AtomicBool);

impl IrqSink for Wire {
    fn set_level(&self, irq: u32, level: bool) {
        assert_eq!(irq, 8);
        self.0.store(level, Ordering::SeqCst);
    }
}

/// A buffer of a chain: address, length, flags without NEXT.
pub(super) type Buffer = (u64, u32, u16);

pub(super) struct Driver {
    pub(super) mmio: VirtioMmio,
    pub(super) ram: Ram,
    wire: Arc<Wire>,
    legacy: bool,
    avail: [u16; 2],
    used: [u16; 2],
}

impl Driver {
    pub(super) fn new(version: Version, device: Arc<dyn VirtioDevice>) -> Self {
        Self::with_ram(version, device, Ram::from_ranges(&[(GuestAddress(RAM.0), RAM.1)]).unwrap())
    }

    pub(super) fn with_ram(version: Version, device: Arc<dyn VirtioDevice>, ram: Ram) -> Self {
        let wire = Arc::new(Wire::default());
        let irq = IrqLine::new(wire.clone(), 8);
        let mmio = VirtioMmio::new(version, device, ram.clone(), irq, &Inspect::default());
        Self { mmio, ram, wire, legacy: version == Version::Legacy, avail: [0; 2], used: [0; 2] }
    }

    pub(super) fn get(&self, register: u64) -> u32 {
        self.mmio.read(register, 4).unwrap() as u32
    }

    pub(super) fn set(&self, register: u64, value: u32) {
        self.mmio.write(register, 4, u64::from(value)).unwrap();
    }

    pub(super) fn irq(&self) -> bool {
        self.wire.0.load(Ordering::SeqCst)
    }

    /// Everything from reset to DRIVER_OK.
    pub(super) fn init(&mut self, features: u64, queues: u32) {
        self.set(0x70, 0);
        assert_eq!(self.get(0x70), 0);
        self.set(0x70, 3);
        self.set(0x24, 0);
        self.set(0x20, features as u32);
        if self.legacy {
            self.set(0x28, 4096);
        } else {
            self.set(0x24, 1);
            self.set(0x20, (features >> 32) as u32);
            self.set(0x70, 0xb);
            assert_eq!(self.get(0x70), 0xb, "features refused");
        }
        for queue in 0..queues {
            self.setup(queue);
        }
        self.set(0x70, 0xf);
    }

    pub(super) fn desc(queue: u32) -> u64 {
        RAM.0 + 0x1_0000 * u64::from(queue)
    }

    pub(super) fn avail(queue: u32) -> u64 {
        Self::desc(queue) + 16 * u64::from(SIZE)
    }

    pub(super) fn used(queue: u32) -> u64 {
        Self::desc(queue) + 0x1000
    }

    /// Puts an empty queue where the legacy layout has it, and takes it into use.
    pub(super) fn setup(&mut self, queue: u32) {
        self.ram.write_slice(&[0; 0x2000], GuestAddress(Self::desc(queue))).unwrap();
        self.avail[queue as usize] = 0;
        self.used[queue as usize] = 0;
        self.set(0x30, queue);
        assert!(self.get(0x34) >= u32::from(SIZE));
        self.set(0x38, u32::from(SIZE));
        if self.legacy {
            self.set(0x3c, 4096);
            self.set(0x40, (Self::desc(queue) / 4096) as u32);
        } else {
            for (register, address) in
                [(0x80, Self::desc(queue)), (0x90, Self::avail(queue)), (0xa0, Self::used(queue))]
            {
                self.set(register, address as u32);
                self.set(register + 4, (address >> 32) as u32);
            }
            self.set(0x44, 1);
        }
    }

    /// Writes one descriptor of a table.
    pub(super) fn descriptor(&self, table: u64, index: u16, buffer: Buffer, next: u16) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&buffer.0.to_le_bytes());
        bytes[8..12].copy_from_slice(&buffer.1.to_le_bytes());
        bytes[12..14].copy_from_slice(&buffer.2.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.ram.write_slice(&bytes, GuestAddress(table + 16 * u64::from(index))).unwrap();
    }

    /// Writes a chain to a table, from `first` on.
    pub(super) fn chain(&self, table: u64, first: u16, buffers: &[Buffer]) {
        for (index, &(address, len, flags)) in (first..).zip(buffers) {
            let last = usize::from(index - first) + 1 == buffers.len();
            let flags = if last { flags } else { flags | NEXT };
            self.descriptor(table, index, (address, len, flags), index + 1);
        }
    }

    /// Makes the chain at descriptor `head` available, without a notification.
    pub(super) fn offer(&mut self, queue: u32, head: u16) {
        let index = &mut self.avail[queue as usize];
        let place = Self::avail(queue) + 4 + 2 * u64::from(*index % SIZE);
        self.ram.write_obj(head, GuestAddress(place)).unwrap();
        *index = index.wrapping_add(1);
        self.ram.store(*index, GuestAddress(Self::avail(queue) + 2), Ordering::Release).unwrap();
    }

    pub(super) fn notify(&self, queue: u32) {
        self.set(0x50, queue);
    }

    /// Offers a chain from descriptor 0 on and notifies.
    pub(super) fn submit(&mut self, queue: u32, buffers: &[Buffer]) {
        self.chain(Self::desc(queue), 0, buffers);
        self.offer(queue, 0);
        self.notify(queue);
    }

    pub(super) fn used_index(&self, queue: u32) -> u16 {
        self.ram.load(GuestAddress(Self::used(queue) + 2), Ordering::Acquire).unwrap()
    }

    /// Waits for the next used element: head and length.
    pub(super) fn complete(&mut self, queue: u32) -> (u32, u32) {
        let done = self.used[queue as usize];
        wait_for("a used buffer", || self.used_index(queue) != done);
        self.used[queue as usize] = done.wrapping_add(1);
        let at = Self::used(queue) + 4 + 8 * u64::from(done % SIZE);
        (self.ram.read_obj(GuestAddress(at)).unwrap(), self.ram.read_obj(GuestAddress(at + 4)).unwrap())
    }

    /// Fills the descriptor table of a queue, and an indirect table, with plausible and implausible values, whose buffers
    /// mostly begin in the 256 bytes from [`DATA`] on and mostly have flags of `usual`; and makes one to four chains of it
    /// available, or any number. With `first`, that buffer comes before them. Returns the used index that says that all of
    /// them are finished.
    pub(super) fn offer_nonsense(
        &self,
        queue: u32,
        usual: &[u16],
        first: Option<Buffer>,
        random: &mut Random,
    ) -> u16 {
        let table = DATA + 0x800 * (1 + u64::from(queue));
        for (at, count) in [(Self::desc(queue), SIZE), (table, 32)] {
            for index in 0..count {
                let address = match random.below(24) {
                    0 => random.next(),
                    1 => RAM.0 + RAM.1 as u64 - random.below(32),
                    2 => RAM.0 - random.below(32),
                    3 => u64::MAX - random.below(32),
                    4..10 => table,
                    _ => DATA + 16 * random.below(16),
                };
                let len = match random.below(24) {
                    0 => random.next() as u32,
                    1 => random.pick(&[0, 1, u32::MAX, 0x8000_0000, RAM.1 as u32]),
                    _ => random.pick(&[16, 16, 32, 512, 513, 1024, 4096]),
                };
                let flags = match random.below(16) {
                    0 => random.next() as u16,
                    1 => INDIRECT,
                    _ => random.pick(usual),
                };
                let next = if random.below(24) == 0 { random.next() as u16 } else { index + 1 };
                self.descriptor(at, index, (address, len, flags), next);
            }
        }
        let idx =
            if random.below(8) == 0 { (random.next() as u16).max(1) } else { 1 + random.below(4) as u16 };
        for place in 0..SIZE {
            let head = if random.below(8) == 0 { random.next() as u16 } else { random.below(16) as u16 };
            self.ram.write_obj(head, GuestAddress(Self::avail(queue) + 4 + 2 * u64::from(place))).unwrap();
        }
        if let Some(buffer) = first {
            self.descriptor(Self::desc(queue), SIZE - 1, buffer, 0);
            self.ram.write_obj(SIZE - 1, GuestAddress(Self::avail(queue) + 4)).unwrap();
        }
        self.ram.store(idx, GuestAddress(Self::avail(queue) + 2), Ordering::Release).unwrap();
        idx
    }

    pub(super) fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.ram.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    pub(super) fn put(&self, address: u64, bytes: &[u8]) {
        self.ram.write_slice(bytes, GuestAddress(address)).unwrap();
    }
}

/// RAM in the middle of a larger mapping, to see whether what lies around it is touched.
pub(super) struct Guarded {
    ram: Ram,
    /// Behind `ram`, which lies in it, so that it is dropped later.
    outer: MmapRegion,
}

/// Bytes on either side of RAM, and what they are.
const GUARD: usize = 1 << 20;
const UNTOUCHED: u8 = 0xc5;

impl Guarded {
    pub(super) fn new() -> Self {
        let outer = MmapRegion::<()>::new(RAM.1 + 2 * GUARD).unwrap();
        // SAFETY: `outer` is a live mapping of that length, and nobody else uses it yet.
        unsafe { std::ptr::write_bytes(outer.as_ptr(), UNTOUCHED, outer.size()) };
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: the region lies within `outer`, which `self` keeps for as long as a test uses the driver.
        let inner =
            unsafe { MmapRegion::build_raw(outer.as_ptr().wrapping_add(GUARD), RAM.1, prot, flags) }.unwrap();
        let region = GuestRegionMmap::new(inner, GuestAddress(RAM.0)).unwrap();
        Self { ram: Ram::from_regions(vec![region]).unwrap(), outer }
    }

    /// A driver with this RAM, to be dropped before `self`.
    pub(super) fn driver(&self, version: Version, device: Arc<dyn VirtioDevice>) -> Driver {
        Driver::with_ram(version, device, self.ram.clone())
    }

    /// Where a byte beside RAM has changed.
    pub(super) fn touched(&self) -> Option<usize> {
        let mut bytes = vec![0_u8; 2 * GUARD];
        let (before, behind) = bytes.split_at_mut(GUARD);
        for (at, into) in [(0, before), (GUARD + RAM.1, behind)] {
            self.outer.get_slice(at, GUARD).unwrap().copy_to(into);
        }
        bytes.iter().position(|byte| *byte != UNTOUCHED)
    }
}

/// Waits until `done`, which on a busy machine may take a while.
pub(super) fn wait_for(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(300);
    while !done() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

/// A small generator of pseudo-random numbers (xorshift).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

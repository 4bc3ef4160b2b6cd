//! The physical address map of devices: fixed once built, so finding a device takes no lock.

use std::sync::Arc;

use devicetree::Node;
use jit::inspect::Inspect;
use jit::inspect::trace::{Category, Trace, Value};
use softmmu::{AccessFault, PhysBus};

use crate::board::Kind;

/// Phandles of the nodes that device nodes point to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phandles {
    /// `interrupt-controller` of each `cpu` node, by hart.
    pub cpu_intc: Arc<[u32]>,
    /// The `cpu` nodes themselves, by hart; `cpu-map` refers to them.
    pub cpu: Arc<[u32]>,
    /// The PLIC.
    pub plic: u32,
    /// The test finisher, which `/poweroff` and `/reboot` go through.
    pub test: u32,
}

impl Phandles {
    /// Phandles for `harts` harts, numbered in the order in which QEMU hands them out: harts from the last to
    /// the first, then the PLIC, then the test finisher.
    pub fn new(harts: usize) -> Self {
        let first = |hart: usize| u32::try_from((harts - 1 - hart) * 2 + 1).unwrap_or(u32::MAX);
        let after = u32::try_from(harts * 2).unwrap_or(u32::MAX - 2);
        Self {
            cpu: (0..harts).map(first).collect(),
            cpu_intc: (0..harts).map(|hart| first(hart) + 1).collect(),
            plic: after + 1,
            test: after + 2,
        }
    }
}

/// Where a device sits and what its device-tree node refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// What it is; decides where its node stands among its siblings.
    pub kind: Kind,
    /// First physical address.
    pub base: u64,
    /// Bytes of address space that the device tree announces.
    pub size: u64,
    /// Bytes from `base` that answer; an access beyond is a bus error even inside `size`.
    pub window: u64,
    /// Input of the PLIC its wire goes to.
    pub irq: Option<u32>,
    /// What its node may refer to.
    pub phandles: Phandles,
}

/// A chip with memory-mapped registers.
///
/// `read` and `write` are called from any hart thread, with `offset + width <= window`, `offset` a multiple of
/// `width`, and `width` one of 1, 2, 4 and 8. An `Err` becomes an access fault in the guest.
///
/// Not to be added here: anything that only one device needs (hot-plug, DMA, queues, snapshots of host
/// resources). Such devices get it at construction.
pub trait MmioDevice: Send + Sync {
    /// A short name for logs.
    fn name(&self) -> &'static str;
    /// Reads `width` bytes; the value is zero-extended.
    fn read(&self, offset: u64, width: u8) -> Result<u64, AccessFault>;
    /// Writes the low `width` bytes of `value`; the bits above are zero.
    fn write(&self, offset: u64, width: u8, value: u64) -> Result<(), AccessFault>;
    /// Whether reads of single bytes have no side effects, so that a misaligned read can be made of them.
    fn is_like_memory(&self) -> bool {
        false
    }
    /// Returns to the state after power-on.
    fn reset(&self);
    /// Adds the device's node(s) to `parent`, which is `/soc`.
    fn fdt(&self, place: &Placement, parent: &mut Node);
}

/// Two devices claim the same address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("devices {first} and {second} overlap at {address:#x}")]
pub struct Overlap {
    /// Name of the lower device.
    pub first: &'static str,
    /// Name of the device that begins inside it.
    pub second: &'static str,
    /// Where the second begins.
    pub address: u64,
}

struct Entry {
    place: Placement,
    device: Arc<dyn MmioDevice>,
}

/// All memory-mapped devices, sorted by address.
pub struct Bus {
    entries: Box<[Entry]>,
    trace: Option<Arc<Trace>>,
}

impl Bus {
    /// Builds the map. Fails when two devices overlap.
    pub fn new(devices: Vec<(Placement, Arc<dyn MmioDevice>)>) -> Result<Self, Overlap> {
        let mut entries: Vec<Entry> =
            devices.into_iter().map(|(place, device)| Entry { place, device }).collect();
        entries.sort_by_key(|entry| entry.place.base);
        for pair in entries.windows(2) {
            if pair[1].place.base - pair[0].place.base < pair[0].place.size.max(pair[0].place.window) {
                return Err(Overlap {
                    first: pair[0].device.name(),
                    second: pair[1].device.name(),
                    address: pair[1].place.base,
                });
            }
        }
        Ok(Self { entries: entries.into_boxed_slice(), trace: None })
    }

    /// The same, with all accesses in the trace, if that wants them.
    pub fn traced(self, inspect: &Inspect) -> Self {
        Self { trace: inspect.trace(&[Category::Mmio]), ..self }
    }

    #[cold]
    fn trace_access(
        trace: &Trace,
        verb: &str,
        device: &dyn MmioDevice,
        offset: u64,
        width: u8,
        value: Option<u64>,
    ) {
        let mut fields = vec![("offset", Value::Hex(offset)), ("bytes", Value::Number(width.into()))];
        fields.push(match value {
            Some(value) => ("value", Value::Hex(value)),
            None => ("fault", Value::Text(&"access")),
        });
        trace.event(Category::Mmio, None, &format_args!("{verb} {}", device.name()), &fields);
    }

    /// The devices by rising address.
    pub fn devices(&self) -> impl Iterator<Item = (&Placement, &Arc<dyn MmioDevice>)> {
        self.entries.iter().map(|entry| (&entry.place, &entry.device))
    }

    /// Puts every device into its state after power-on. No hart may run meanwhile.
    pub fn reset(&self) {
        for entry in &self.entries {
            entry.device.reset();
        }
    }

    /// The device that answers all of `width` bytes at `pa`, and the offset into it.
    #[inline]
    fn find(&self, pa: u64, width: u8) -> Result<(&dyn MmioDevice, u64), AccessFault> {
        debug_assert!(matches!(width, 1 | 2 | 4 | 8));
        let width = u64::from(width);
        let index = self.entries.partition_point(|entry| entry.place.base <= pa);
        let entry = index.checked_sub(1).map(|index| &self.entries[index]).ok_or(AccessFault)?;
        let offset = pa - entry.place.base;
        // Bases are at least 8-byte aligned, so an aligned offset is an aligned address.
        if !offset.is_multiple_of(width) || offset.saturating_add(width) > entry.place.window {
            return Err(AccessFault);
        }
        Ok((&*entry.device, offset))
    }
}

impl PhysBus for Bus {
    fn read(&self, pa: u64, width: u8) -> Result<u64, AccessFault> {
        let (device, offset) = self.find(pa, width)?;
        let value = device.read(offset, width);
        if let Some(trace) = &self.trace {
            Self::trace_access(trace, "read", device, offset, width, value.ok());
        }
        value
    }

    fn write(&self, pa: u64, width: u8, value: u64) -> Result<(), AccessFault> {
        let (device, offset) = self.find(pa, width)?;
        let done = device.write(offset, width, value);
        if let Some(trace) = &self.trace {
            Self::trace_access(trace, "write", device, offset, width, done.ok().map(|()| value));
        }
        done
    }

    fn read_bytes(&self, pa: u64, into: &mut [u8]) -> Result<(), AccessFault> {
        for (byte, pa) in into.iter_mut().zip(pa..) {
            let (device, offset) = self.find(pa, 1)?;
            if !device.is_like_memory() {
                return Err(AccessFault);
            }
            *byte = device.read(offset, 1)? as u8;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers with the offset, and refuses writes.
    struct Echo;

    impl MmioDevice for Echo {
        fn name(&self) -> &'static str {
            "echo"
        }
        fn read(&self, offset: u64, _width: u8) -> Result<u64, AccessFault> {
            Ok(offset)
        }
        fn write(&self, _offset: u64, _width: u8, _value: u64) -> Result<(), AccessFault> {
            Err(AccessFault)
        }
        fn reset(&self) {}
        fn fdt(&self, _place: &Placement, _parent: &mut Node) {}
    }

    fn at(base: u64, size: u64, window: u64) -> (Placement, Arc<dyn MmioDevice>) {
        let phandles = Phandles::new(1);
        (Placement { kind: Kind::Uart0, base, size, window, irq: None, phandles }, Arc::new(Echo))
    }

    #[test]
    fn an_access_reaches_the_device_that_covers_it() {
        let bus = Bus::new(vec![at(0x2000, 0x100, 0x100), at(0x1000, 0x1000, 0x24)]).unwrap();
        assert_eq!(bus.read(0x1020, 4), Ok(0x20));
        assert_eq!(bus.read(0x2000, 8), Ok(0));
        assert_eq!(bus.read(0x20f8, 8), Ok(0xf8));
    }

    #[test]
    fn unmapped_straddling_and_misaligned_accesses_fault() {
        let bus = Bus::new(vec![at(0x2000, 0x100, 0x100), at(0x1000, 0x1000, 0x24)]).unwrap();
        assert_eq!(bus.read(0xfff, 1), Err(AccessFault));
        assert_eq!(bus.read(0x1020, 8), Err(AccessFault));
        assert_eq!(bus.read(0x1024, 4), Err(AccessFault));
        assert_eq!(bus.read(0x2001, 2), Err(AccessFault));
        assert_eq!(bus.read(0x2100, 1), Err(AccessFault));
        assert_eq!(bus.read(u64::MAX, 1), Err(AccessFault));
        assert_eq!(bus.write(0x2000, 4, 1), Err(AccessFault));
    }

    #[test]
    fn overlapping_devices_are_refused() {
        let error = Bus::new(vec![at(0x1000, 0x1000, 0x24), at(0x1800, 0x100, 8)]).err().unwrap();
        assert_eq!(error, Overlap { first: "echo", second: "echo", address: 0x1800 });
    }

    #[test]
    fn phandles_are_numbered_as_qemu_numbers_them() {
        let phandles = Phandles::new(4);
        assert_eq!(*phandles.cpu, [7, 5, 3, 1]);
        assert_eq!(*phandles.cpu_intc, [8, 6, 4, 2]);
        assert_eq!((phandles.plic, phandles.test), (9, 10));
    }
}

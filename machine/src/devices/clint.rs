//! SiFive's CLINT as QEMU lays it out: a software-interrupt bit and a timer compare register for each hart.
//!
//! ```text
//!   0x0000 + 4*h  msip      bit 0 is mip.MSIP of hart h
//!   0x4000 + 8*h  mtimecmp  mip.MTIP of hart h is mtime >= mtimecmp
//!   0xbff8        mtime     10 MHz
//! ```
//!
//! MTIP is not a wire from here: harts compare by themselves at polls, and are kicked when their `mtimecmp` changes.
//! Registers of harts that do not exist read as 0 and ignore writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use devicetree::Node;
use softmmu::AccessFault;

use crate::bus::{MmioDevice, Placement};
use crate::clock::Clock;
use crate::hart::shared::HartShared;
use crate::timer::Timers;

const MTIMECMP: u64 = 0x4000;
const MTIME: u64 = 0xbff8;

const MIP_MSIP: u64 = 1 << 3;

/// Machine interrupts that the device-tree node refers to, by their number in `mip`.
const IRQ_M_SOFT: u32 = 3;
const IRQ_M_TIMER: u32 = 7;

/// The CLINT. No lock: every register is one atomic.
pub struct Clint {
    clock: Arc<Clock>,
    timers: Arc<Timers>,
    harts: Vec<Arc<HartShared>>,
    /// Ticks; `u64::MAX` after reset, where the specification leaves the value open.
    mtimecmp: Box<[AtomicU64]>,
}

impl Clint {
    /// A CLINT for `harts`, in the order of their ids.
    pub fn new(clock: Arc<Clock>, timers: Arc<Timers>, harts: &[Arc<HartShared>]) -> Self {
        let mtimecmp = harts.iter().map(|_| AtomicU64::new(u64::MAX)).collect();
        Self { clock, timers, harts: harts.to_vec(), mtimecmp }
    }

    /// `mtimecmp` of `hart` in ticks; `u64::MAX` for a hart that does not exist.
    #[inline]
    pub fn mtimecmp(&self, hart: usize) -> u64 {
        self.mtimecmp.get(hart).map_or(u64::MAX, |register| register.load(Ordering::SeqCst))
    }

    /// Sets `mtimecmp` of `hart`, as a 64-bit store to the register does.
    pub fn set_mtimecmp(&self, hart: usize, ticks: u64) {
        if let (Some(register), Some(hart)) = (self.mtimecmp.get(hart), self.harts.get(hart)) {
            register.store(ticks, Ordering::SeqCst);
            hart.kick();
        }
    }

    fn set_mtime(&self, ticks: u64) {
        self.clock.set(ticks);
        self.timers.clock_changed();
        self.harts.iter().for_each(|hart| hart.kick());
    }

    fn read_msip(&self, hart: usize) -> u64 {
        self.harts.get(hart).map_or(0, |hart| u64::from(hart.mip() & MIP_MSIP != 0))
    }
}

fn hart_index(offset: u64, stride: u64) -> usize {
    usize::try_from(offset / stride).unwrap_or(usize::MAX)
}

/// The `width` bytes at `offset` of a 64-bit register.
fn part(register: u64, offset: u64, width: u8) -> u64 {
    match (width, offset & 4) {
        (4, 0) => register & 0xffff_ffff,
        (4, _) => register >> 32,
        _ => register,
    }
}

/// A 64-bit register after a write of `width` bytes at `offset`.
fn merge(register: u64, offset: u64, width: u8, value: u64) -> u64 {
    match (width, offset & 4) {
        (4, 0) => register & !0xffff_ffff | value & 0xffff_ffff,
        (4, _) => register & 0xffff_ffff | value << 32,
        _ => value,
    }
}

impl MmioDevice for Clint {
    fn name(&self) -> &'static str {
        "clint"
    }

    fn read(&self, offset: u64, width: u8) -> Result<u64, AccessFault> {
        match (offset, width) {
            (..MTIMECMP, 4) => Ok(self.read_msip(hart_index(offset, 4))),
            (MTIMECMP..MTIME, 4 | 8) => {
                let hart = hart_index(offset - MTIMECMP, 8);
                let register = self.mtimecmp.get(hart).map_or(0, |register| register.load(Ordering::SeqCst));
                Ok(part(register, offset, width))
            }
            (MTIME.., 4 | 8) => Ok(part(self.clock.now(), offset, width)),
            _ => Err(AccessFault),
        }
    }

    fn write(&self, offset: u64, width: u8, value: u64) -> Result<(), AccessFault> {
        match (offset, width) {
            (..MTIMECMP, 4) => {
                if let Some(hart) = self.harts.get(hart_index(offset, 4)) {
                    hart.set_mip(MIP_MSIP, value & 1 != 0);
                }
            }
            (MTIMECMP..MTIME, 4 | 8) => {
                let hart = hart_index(offset - MTIMECMP, 8);
                self.set_mtimecmp(hart, merge(self.mtimecmp(hart), offset, width, value));
            }
            (MTIME.., 4 | 8) => self.set_mtime(merge(self.clock.now(), offset, width, value)),
            _ => return Err(AccessFault),
        }
        Ok(())
    }

    fn reset(&self) {
        for (register, hart) in self.mtimecmp.iter().zip(&self.harts) {
            register.store(u64::MAX, Ordering::SeqCst);
            hart.set_mip(MIP_MSIP, false);
        }
        self.set_mtime(0);
    }

    fn fdt(&self, place: &Placement, parent: &mut Node) {
        let wires = |&intc: &u32| [intc, IRQ_M_SOFT, intc, IRQ_M_TIMER];
        let wires: Vec<u32> = place.phandles.cpu_intc.iter().flat_map(wires).collect();
        parent
            .child(&format!("clint@{:x}", place.base))
            .set_cells("interrupts-extended", &wires)
            .set_reg(&[(place.base, place.size)])
            .set_strings("compatible", &["sifive,clint0", "riscv,clint0"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clint(harts: usize) -> (Clint, Arc<Clock>, Vec<Arc<HartShared>>) {
        let clock = Arc::new(Clock::new());
        let harts: Vec<_> = (0..harts).map(|_| Arc::new(HartShared::new())).collect();
        let timers = Arc::new(Timers::new(Arc::clone(&clock), &harts).unwrap());
        (Clint::new(Arc::clone(&clock), timers, &harts), clock, harts)
    }

    #[test]
    fn msip_has_one_bit_and_drives_the_hart_of_its_index() {
        let (clint, _, harts) = clint(2);
        clint.write(4, 4, 0xffff_ffff).unwrap();
        assert_eq!((harts[0].mip(), harts[1].mip()), (0, 1 << 3));
        assert_eq!(clint.read(4, 4), Ok(1));
        clint.write(4, 4, 0xffff_fffe).unwrap();
        assert_eq!(harts[1].mip(), 0);
        assert_eq!(clint.read(4, 4), Ok(0));
    }

    #[test]
    fn mtimecmp_takes_whole_and_half_writes_and_kicks() {
        let (clint, _, harts) = clint(2);
        clint.write(0x4008, 8, 0x1111_2222_3333_4444).unwrap();
        assert_eq!(clint.mtimecmp(1), 0x1111_2222_3333_4444);
        assert_ne!(harts[1].poll_word().load(Ordering::Relaxed), 0);
        clint.write(0x4008, 4, 0x5555_6666).unwrap();
        clint.write(0x400c, 4, 0x7777_8888).unwrap();
        assert_eq!(clint.mtimecmp(1), 0x7777_8888_5555_6666);
        assert_eq!(clint.read(0x4008, 4), Ok(0x5555_6666));
        assert_eq!(clint.read(0x400c, 4), Ok(0x7777_8888));
        assert_eq!(clint.read(0x4000, 8), Ok(u64::MAX));
    }

    #[test]
    fn mtime_reads_and_sets_the_clock() {
        let (clint, clock, harts) = clint(1);
        clint.write(0xbff8, 8, 0x5_0000_0000).unwrap();
        assert!((0x5_0000_0000..0x5_1000_0000).contains(&clock.now()));
        assert_ne!(harts[0].poll_word().load(Ordering::Relaxed), 0);
        clint.write(0xbffc, 4, 9).unwrap();
        assert_eq!(clint.read(0xbffc, 4), Ok(9));
        assert_eq!(clint.read(0xbff8, 8).unwrap() >> 32, 9);
    }

    #[test]
    fn registers_of_absent_harts_read_zero_and_ignore_writes() {
        let (clint, _, harts) = clint(1);
        clint.write(0x3ffc, 4, 1).unwrap();
        clint.write(0xbff0, 8, 1).unwrap();
        assert_eq!(clint.read(0x3ffc, 4), Ok(0));
        assert_eq!(clint.read(0xbff0, 8), Ok(0));
        assert_eq!(harts[0].mip(), 0);
    }

    #[test]
    fn other_widths_fault() {
        let (clint, _, _) = clint(1);
        assert_eq!(clint.read(0, 8), Err(AccessFault));
        assert_eq!(clint.read(0, 1), Err(AccessFault));
        assert_eq!(clint.read(0x4000, 2), Err(AccessFault));
        assert_eq!(clint.write(0xbff8, 1, 0), Err(AccessFault));
    }

    #[test]
    fn reset_clears_interrupts_and_restarts_time() {
        let (clint, clock, harts) = clint(1);
        clint.write(0, 4, 1).unwrap();
        clint.write(0x4000, 8, 0).unwrap();
        clint.write(0xbff8, 8, 1 << 60).unwrap();
        clint.reset();
        assert_eq!(harts[0].mip(), 0);
        assert_eq!(clint.mtimecmp(0), u64::MAX);
        assert!(clock.now() < 1 << 30);
    }
}

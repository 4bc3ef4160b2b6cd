//! What lies where in RAM and in which state the harts start. Decisions only: nothing is read or written here.

use std::ops::Range;

use softmmu::Privilege;

use crate::fw_dynamic::FwDynamicInfo;
use crate::{Kind, Loaded, reset_rom};

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;

/// Linux wants to be loaded at a multiple of this, and the gap below it is where firmware lives.
const KERNEL_ALIGN: u64 = 2 * MIB;

/// What runs in M-mode.
#[derive(Clone, Copy, Debug)]
pub enum Firmware<'a> {
    /// The built-in SBI, unless the kernel is an ELF file linked for the start of RAM: that is where M-mode programs are
    /// linked and no supervisor can be, so it starts in M-mode.
    Default,
    /// Nothing: the kernel starts in M-mode.
    None,
    /// A firmware file that has been loaded.
    File(&'a Loaded),
}

/// What there is to boot.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Physical addresses of RAM.
    pub ram: Range<u64>,
    /// What runs in M-mode.
    pub firmware: Firmware<'a>,
    /// The kernel, which has been loaded at [`kernel_address`] or its own address.
    pub kernel: Option<&'a Loaded>,
    /// Physical address of a flash with code, which runs before any kernel.
    pub flash: Option<u64>,
    /// Bytes of the initrd.
    pub initrd_size: Option<u64>,
    /// Bytes of the flattened device tree, or what it will not exceed.
    pub fdt_size: u64,
}

/// The layout and the state of the harts at power-on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootPlan {
    /// Where harts start.
    pub pc: u64,
    /// The privilege mode in which harts start. With Machine, every hart starts there, all its registers as after a reset
    /// (the reset ROM sets the arguments). With Supervisor, the built-in SBI is in charge: hart 0 starts there with a0 = its
    /// hart id and a1 = [`fdt`](Self::fdt), satp = 0 and interrupts off, and the other harts are STOPPED.
    pub privilege: Privilege,
    /// Where the device tree goes.
    pub fdt: u64,
    /// Where the initrd goes.
    pub initrd: Option<Range<u64>>,
    /// The contents of the reset ROM at [`reset_rom::BASE`].
    pub reset_rom: Vec<u8>,
}

impl BootPlan {
    /// Whether the built-in SBI answers calls from S-mode.
    pub fn has_built_in_sbi(&self) -> bool {
        self.privilege == Privilege::Supervisor
    }
}

/// Why there is no way to boot.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BootError {
    /// There is no code to run.
    #[error("nothing to boot: give a kernel with --kernel, a firmware with --firmware, or a flash image")]
    NothingToRun,
    /// An initrd is only of use to a kernel.
    #[error("--initrd needs --kernel: without a kernel nothing would look for it")]
    InitrdWithoutKernel,
    /// RAM is too small.
    #[error(
        "{what} ({size} bytes) does not fit between {:#x} and {:#x} in guest RAM; give the guest more with -m",
        room.start, room.end
    )]
    DoesNotFit {
        /// What does not fit.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// Where it would have to go.
        room: Range<u64>,
    },
}

/// Where a kernel that may lie anywhere is loaded: at the start of RAM if it runs in M-mode, else at the first multiple of
/// 2 MiB behind the firmware, and never in the first 2 MiB.
pub fn kernel_address(ram: &Range<u64>, firmware: Firmware) -> u64 {
    let behind_firmware = match firmware {
        Firmware::None => return ram.start,
        Firmware::Default => ram.start,
        Firmware::File(loaded) => loaded.high,
    };
    let lowest = behind_firmware.max(ram.start.saturating_add(1));
    lowest.checked_next_multiple_of(KERNEL_ALIGN).unwrap_or(lowest)
}

/// Decides how to boot.
///
/// # Errors
/// [`BootError`]: nothing to run, or the device tree or the initrd does not fit.
pub fn plan(request: &Request) -> Result<BootPlan, BootError> {
    let Request { ram, firmware, kernel, flash, .. } = request;
    let payload = flash.or(kernel.map(|kernel| kernel.entry));
    let bare_metal = kernel.is_some_and(|kernel| kernel.kind == Kind::Elf && kernel.low == ram.start);
    let (start, privilege) = match (firmware, payload) {
        (Firmware::File(firmware), _) => (firmware.entry, Privilege::Machine),
        (_, None) => return Err(BootError::NothingToRun),
        (Firmware::Default, Some(entry)) if !bare_metal => (entry, Privilege::Supervisor),
        (_, Some(entry)) => (entry, Privilege::Machine),
    };
    let fdt = fdt_address(request)?;
    let info = FwDynamicInfo { next_address: payload.unwrap_or(0) };
    Ok(BootPlan {
        pc: if privilege == Privilege::Supervisor { start } else { reset_rom::BASE },
        privilege,
        fdt,
        initrd: request.initrd_size.map(|size| initrd_range(request, size, fdt)).transpose()?,
        reset_rom: reset_rom::contents(start, fdt, info),
    })
}

/// The end of what has been loaded.
fn loaded_end(request: &Request) -> u64 {
    let firmware = match request.firmware {
        Firmware::File(loaded) => loaded.high,
        _ => request.ram.start,
    };
    firmware.max(request.kernel.map_or(0, |kernel| kernel.high))
}

/// The device tree lies as high as a multiple of 2 MiB can, out of the way of what kernels do with the memory behind them.
fn fdt_address(request: &Request) -> Result<u64, BootError> {
    let room = loaded_end(request)..request.ram.end;
    let size = request.fdt_size;
    let address = room.end.checked_sub(size).map(|highest| highest / (2 * MIB) * (2 * MIB));
    address.filter(|&address| address >= room.start).ok_or(BootError::DoesNotFit {
        what: "the device tree",
        size,
        room,
    })
}

/// The initrd lies half of RAM, but at most 512 MiB, behind the start of the kernel, so that a kernel that moves or grows
/// does not run into it. If there is no room, it lies directly below the device tree.
fn initrd_range(request: &Request, size: u64, fdt: u64) -> Result<Range<u64>, BootError> {
    let kernel = request.kernel.ok_or(BootError::InitrdWithoutKernel)?;
    let behind_kernel = loaded_end(request).next_multiple_of(PAGE);
    let distance = ((request.ram.end - request.ram.start) / 2).min(512 * MIB);
    let preferred = (kernel.low + distance).next_multiple_of(PAGE).max(behind_kernel);
    let fits = |start: &u64| start.checked_add(size).is_some_and(|end| end <= fdt);
    let highest =
        fdt.checked_sub(size).map(|start| start / PAGE * PAGE).filter(|&start| start >= behind_kernel);
    let start = Some(preferred).filter(fits).or(highest);
    let room = behind_kernel..fdt;
    start.map(|start| start..start + size).ok_or(BootError::DoesNotFit { what: "the initrd", size, room })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAM_START: u64 = 0x8000_0000;

    fn ram(mib: u64) -> Range<u64> {
        RAM_START..RAM_START + mib * MIB
    }

    fn loaded(kind: Kind, low: u64, size: u64) -> Loaded {
        Loaded { kind, entry: low, low, high: low + size, tohost: None }
    }

    fn linux() -> Loaded {
        loaded(Kind::LinuxImage, 0x8020_0000, 32 * MIB)
    }

    fn request<'a>(mib: u64, firmware: Firmware<'a>, kernel: Option<&'a Loaded>) -> Request<'a> {
        Request { ram: ram(mib), firmware, kernel, flash: None, initrd_size: None, fdt_size: 8000 }
    }

    fn fdt(mib: u64) -> u64 {
        plan(&request(mib, Firmware::Default, Some(&linux()))).unwrap().fdt
    }

    fn initrd(mib: u64, size: u64) -> Result<Range<u64>, BootError> {
        let kernel = linux();
        let request = Request { initrd_size: Some(size), ..request(mib, Firmware::Default, Some(&kernel)) };
        plan(&request).map(|plan| plan.initrd.unwrap())
    }

    #[test]
    fn device_tree_lies_where_qemu_puts_it() {
        assert_eq!(fdt(128), 0x87e0_0000);
        assert_eq!(fdt(1024), 0xbfe0_0000);
        assert_eq!(fdt(2048), 0xffe0_0000);
        assert_eq!(fdt(4096), 0x1_7fe0_0000);
    }

    #[test]
    fn kernel_lies_behind_the_firmware() {
        let opensbi = loaded(Kind::Raw, RAM_START, 0x4_2000);
        let large = loaded(Kind::Raw, RAM_START, 2 * MIB + 1);
        assert_eq!(kernel_address(&ram(128), Firmware::File(&opensbi)), 0x8020_0000);
        assert_eq!(kernel_address(&ram(128), Firmware::File(&large)), 0x8040_0000);
        assert_eq!(kernel_address(&ram(128), Firmware::Default), 0x8020_0000);
        assert_eq!(kernel_address(&ram(128), Firmware::None), 0x8000_0000);
    }

    #[test]
    fn initrd_lies_where_qemu_puts_it() {
        assert_eq!(initrd(4096, 40 * MIB).unwrap().start, 0xa020_0000);
        assert_eq!(initrd(128, 10 * MIB).unwrap(), 0x8420_0000..0x84c0_0000);
    }

    #[test]
    fn initrd_moves_down_before_it_would_hit_the_device_tree() {
        let range = initrd(128, 80 * MIB).unwrap();
        assert_eq!(range, 0x87e0_0000 - 80 * MIB..0x87e0_0000);
    }

    #[test]
    fn initrd_never_overlaps_the_kernel() {
        let error = initrd(128, 100 * MIB).unwrap_err();
        let room = 0x8220_0000..0x87e0_0000;
        assert_eq!(error, BootError::DoesNotFit { what: "the initrd", size: 100 * MIB, room });
        let kernel = loaded(Kind::LinuxImage, 0x8020_0000, 100 * MIB);
        let request = Request { initrd_size: Some(MIB), ..request(128, Firmware::Default, Some(&kernel)) };
        assert_eq!(plan(&request).unwrap().initrd.unwrap().start, kernel.high);
    }

    #[test]
    fn built_in_sbi_starts_the_kernel_in_s_mode() {
        let plan = plan(&request(128, Firmware::Default, Some(&linux()))).unwrap();
        assert_eq!((plan.pc, plan.privilege), (0x8020_0000, Privilege::Supervisor));
        assert!(plan.has_built_in_sbi());
    }

    #[test]
    fn firmware_file_is_entered_through_the_reset_rom_and_told_the_kernel() {
        let opensbi = loaded(Kind::Raw, RAM_START, 0x4_2000);
        let plan = plan(&request(128, Firmware::File(&opensbi), Some(&linux()))).unwrap();
        assert_eq!((plan.pc, plan.privilege), (0x1000, Privilege::Machine));
        assert!(!plan.has_built_in_sbi());
        let info = FwDynamicInfo { next_address: 0x8020_0000 };
        assert_eq!(plan.reset_rom, reset_rom::contents(RAM_START, 0x87e0_0000, info));
    }

    #[test]
    fn firmware_alone_has_no_next_stage() {
        let u_boot = loaded(Kind::Elf, RAM_START, MIB);
        let plan = plan(&request(128, Firmware::File(&u_boot), None)).unwrap();
        let info = FwDynamicInfo { next_address: 0 };
        assert_eq!(plan.reset_rom, reset_rom::contents(RAM_START, 0x87e0_0000, info));
    }

    #[test]
    fn elf_linked_for_the_start_of_ram_runs_in_m_mode() {
        let program = loaded(Kind::Elf, RAM_START, 0x3000);
        let plan = plan(&request(128, Firmware::Default, Some(&program))).unwrap();
        assert_eq!((plan.pc, plan.privilege), (0x1000, Privilege::Machine));
        assert_eq!(plan.reset_rom[24..32], RAM_START.to_le_bytes());
    }

    #[test]
    fn without_firmware_any_kernel_runs_in_m_mode() {
        let kernel = loaded(Kind::Raw, RAM_START, 0x3000);
        let plan = plan(&request(128, Firmware::None, Some(&kernel))).unwrap();
        assert_eq!((plan.pc, plan.privilege), (0x1000, Privilege::Machine));
    }

    #[test]
    fn flash_runs_first() {
        let with_flash = |firmware| Request { flash: Some(0x2000_0000), ..request(128, firmware, None) };
        let plan_default = plan(&with_flash(Firmware::Default)).unwrap();
        assert_eq!((plan_default.pc, plan_default.privilege), (0x2000_0000, Privilege::Supervisor));
        let plan_none = plan(&with_flash(Firmware::None)).unwrap();
        assert_eq!((plan_none.pc, plan_none.privilege), (0x1000, Privilege::Machine));
        assert_eq!(plan_none.reset_rom[24..32], 0x2000_0000u64.to_le_bytes());
    }

    #[test]
    fn requests_that_cannot_boot_are_refused() {
        assert_eq!(plan(&request(128, Firmware::Default, None)), Err(BootError::NothingToRun));
        assert_eq!(plan(&request(128, Firmware::None, None)), Err(BootError::NothingToRun));
        let opensbi = loaded(Kind::Raw, RAM_START, 0x4_2000);
        let initrd = Request { initrd_size: Some(1), ..request(128, Firmware::File(&opensbi), None) };
        assert_eq!(plan(&initrd), Err(BootError::InitrdWithoutKernel));
        let small = plan(&request(34, Firmware::Default, Some(&linux())));
        assert!(matches!(small, Err(BootError::DoesNotFit { what: "the device tree", .. })), "{small:?}");
    }
}

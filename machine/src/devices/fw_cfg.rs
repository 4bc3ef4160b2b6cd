//! QEMU's firmware configuration device (`docs/specs/fw_cfg.rst`): items of bytes that firmware selects by a key and
//! reads, through a register or by DMA. UEFI firmware takes the kernel, initrd and command line of `-kernel` from here.
//!
//! Every register is big-endian, but the bytes of an item are read in their order, whatever the width.

use std::collections::BTreeMap;
use std::path::PathBuf;

use devicetree::Node;
use parking_lot::Mutex;
use softmmu::{AccessFault, GuestMemory};

use crate::board::{self, Kind};
use crate::bus::{MmioDevice, Placement};

/// What a kernel is started with, for firmware that asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// The kernel, as an EFI program.
    pub kernel: Vec<u8>,
    /// The initial RAM disk; empty if there is none.
    pub initrd: Vec<u8>,
    /// The kernel's command line.
    pub command_line: String,
}

/// An item that is found by its name. Plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedItem {
    /// Its name, at most [`MAX_NAME`] bytes. Those that begin with `opt/` are the user's.
    pub name: String,
    /// What is in it.
    pub contents: Contents,
}

/// Where the bytes of an item come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// They are this text, without a zero at its end.
    Text(String),
    /// A file has them.
    File(PathBuf),
}

/// Bytes of the longest name.
pub const MAX_NAME: usize = NAME_FIELD - 1;
/// Most items with names: QEMU's boards have room for so many (`x-file-slots`).
pub const MAX_NAMED: usize = 0x20;

/// The field of a name in the directory, which has a zero at its end.
const NAME_FIELD: usize = 56;

/// Registers, by offset.
mod register {
    /// The next bytes of the item; 1 to 8 of them.
    pub(super) const DATA: u64 = 0;
    pub(super) const SELECTOR: u64 = 8;
    /// The high half of the address of a DMA descriptor; all of it, if 64 bits are written.
    pub(super) const DMA: u64 = 16;
    /// The low half, which starts the transfer.
    pub(super) const DMA_LOW: u64 = 20;
}

/// Keys of items.
mod key {
    pub(super) const SIGNATURE: u16 = 0x00;
    /// What interfaces there are.
    pub(super) const ID: u16 = 0x01;
    pub(super) const UUID: u16 = 0x02;
    pub(super) const NO_GRAPHIC: u16 = 0x04;
    pub(super) const CPUS: u16 = 0x05;
    pub(super) const KERNEL_SIZE: u16 = 0x08;
    pub(super) const INITRD_SIZE: u16 = 0x0b;
    pub(super) const BOOT_MENU: u16 = 0x0e;
    pub(super) const KERNEL: u16 = 0x11;
    pub(super) const INITRD: u16 = 0x12;
    pub(super) const COMMAND_LINE_SIZE: u16 = 0x14;
    pub(super) const COMMAND_LINE: u16 = 0x15;
    /// How many named items there are, and which.
    pub(super) const DIRECTORY: u16 = 0x19;
    /// The first of them.
    pub(super) const FIRST_NAMED: u16 = 0x20;
    /// Says that writes are to follow; no item takes any.
    pub(super) const WRITE: u16 = 0x4000;
}

/// Bits of ID: registers, and DMA.
const INTERFACES: u32 = 1 | 2;
/// What the DMA register reads as.
const DMA_SIGNATURE: [u8; 8] = *b"QEMU CFG";

/// Bits of a DMA descriptor's control word. The upper half is the key to select.
mod control {
    pub(super) const ERROR: u32 = 1;
    pub(super) const READ: u32 = 2;
    pub(super) const SKIP: u32 = 4;
    pub(super) const SELECT: u32 = 8;
    pub(super) const WRITE: u32 = 16;
}

/// Bytes in a DMA descriptor: control, length, address.
const DESCRIPTOR: usize = 16;

/// Zeros for what is read beyond the end of an item.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

#[derive(Debug, Default)]
struct State {
    key: u16,
    /// Bytes of the item that have been read.
    at: usize,
    /// What has been written of a descriptor's address.
    dma: u64,
}

/// The device.
pub struct FwCfg {
    memory: GuestMemory,
    items: BTreeMap<u16, Vec<u8>>,
    state: Mutex<State>,
}

impl FwCfg {
    /// The device of a machine with so many harts, which writes into `memory`, with items by their names.
    pub fn new(
        memory: GuestMemory,
        harts: u16,
        payload: Option<Payload>,
        named: BTreeMap<String, Vec<u8>>,
    ) -> Self {
        let mut items = BTreeMap::from([
            (key::SIGNATURE, b"QEMU".to_vec()),
            (key::ID, INTERFACES.to_le_bytes().to_vec()),
            (key::UUID, vec![0; 16]),
            (key::NO_GRAPHIC, 1_u16.to_le_bytes().to_vec()),
            (key::CPUS, harts.to_le_bytes().to_vec()),
            (key::BOOT_MENU, 0_u16.to_le_bytes().to_vec()),
            (key::DIRECTORY, directory(&named)),
        ]);
        items.extend((key::FIRST_NAMED..key::WRITE).zip(named.into_values()));
        if let Some(Payload { kernel, initrd, command_line }) = payload {
            let mut add = |size_key: u16, data_key: u16, bytes: Vec<u8>| {
                // The board reads no file of 4 GiB.
                let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                items.insert(size_key, size.to_le_bytes().to_vec());
                items.insert(data_key, bytes);
            };
            add(key::KERNEL_SIZE, key::KERNEL, kernel);
            if !initrd.is_empty() {
                add(key::INITRD_SIZE, key::INITRD, initrd);
            }
            add(key::COMMAND_LINE_SIZE, key::COMMAND_LINE, [command_line.as_bytes(), b"\0"].concat());
        }
        Self { memory, items, state: Mutex::default() }
    }

    /// What is left of the selected item.
    fn rest(&self, state: &State) -> &[u8] {
        self.items.get(&state.key).and_then(|item| item.get(state.at..)).unwrap_or_default()
    }

    fn select(&self, state: &mut State, key: u16) {
        *state = State { key: key & !key::WRITE, at: 0, ..*state };
    }

    /// Carries out the descriptor at `address`, and says in it how that went.
    fn transfer(&self, state: &mut State, address: u64) {
        let mut descriptor = [0; DESCRIPTOR];
        let control = match self.memory.read(address, &mut descriptor) {
            Ok(()) => {
                let [c0, c1, c2, c3, l0, l1, l2, l3, target @ ..] = descriptor;
                let control = u32::from_be_bytes([c0, c1, c2, c3]);
                let length = u32::from_be_bytes([l0, l1, l2, l3]);
                self.carry_out(state, control, length as usize, u64::from_be_bytes(target))
            }
            Err(AccessFault) => Err(AccessFault),
        };
        let answer = if control.is_ok() { 0 } else { control::ERROR };
        // There is nobody else to tell.
        let _ = self.memory.write(address, &answer.to_be_bytes());
    }

    fn carry_out(
        &self,
        state: &mut State,
        control: u32,
        length: usize,
        target: u64,
    ) -> Result<(), AccessFault> {
        if control & control::SELECT != 0 {
            self.select(state, (control >> 16) as u16);
        }
        let rest = self.rest(state);
        let there = &rest[..length.min(rest.len())];
        if control & control::READ != 0 {
            if length == 0 {
                return Ok(());
            }
            // All of it before any of it.
            if !self.memory.is_ram(target, length as u64) {
                return Err(AccessFault);
            }
            self.memory.write(target, there)?;
            for start in (there.len()..length).step_by(ZEROS.len()) {
                self.memory.write(target + start as u64, &ZEROS[..(length - start).min(ZEROS.len())])?;
            }
        } else if control & control::WRITE != 0 {
            return if length == 0 { Ok(()) } else { Err(AccessFault) };
        } else if control & control::SKIP == 0 {
            return Ok(());
        }
        state.at += there.len();
        Ok(())
    }
}

/// How many items have names, and for each its size, its key and its name, in the order of the names.
fn directory(named: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut bytes = (named.len() as u32).to_be_bytes().to_vec();
    for ((name, contents), key) in named.iter().zip(key::FIRST_NAMED..key::WRITE) {
        bytes.extend((contents.len() as u32).to_be_bytes());
        bytes.extend(key.to_be_bytes());
        bytes.extend([0; 2]);
        let mut field = [0; NAME_FIELD];
        let length = name.len().min(MAX_NAME);
        field[..length].copy_from_slice(&name.as_bytes()[..length]);
        bytes.extend(field);
    }
    bytes
}

/// Adds the device's node to the root, outside `/soc`.
pub(crate) fn fdt_node(root: &mut Node) {
    let region = board::region(Kind::FwCfg);
    root.child(&format!("fw-cfg@{:x}", region.base))
        .set_empty("dma-coherent")
        .set_reg(&[(region.base, region.size)])
        .set_string("compatible", "qemu,fw-cfg-mmio");
}

/// The lowest `width` bytes of a register's value, the other way round.
fn swapped(value: u64, width: u8) -> u64 {
    value.swap_bytes().checked_shr(64 - 8 * u32::from(width)).unwrap_or(0)
}

impl MmioDevice for FwCfg {
    fn name(&self) -> &'static str {
        "fw_cfg"
    }

    fn read(&self, offset: u64, width: u8) -> Result<u64, AccessFault> {
        let mut bytes = [0; 8];
        let into = &mut bytes[..usize::from(width)];
        if (register::DATA..register::SELECTOR).contains(&offset) {
            let mut state = self.state.lock();
            let rest = self.rest(&state);
            let length = into.len().min(rest.len());
            into[..length].copy_from_slice(&rest[..length]);
            state.at += length;
        } else {
            let from = offset.checked_sub(register::DMA).ok_or(AccessFault)? as usize;
            into.copy_from_slice(&DMA_SIGNATURE[from..from + usize::from(width)]);
        }
        Ok(u64::from_le_bytes(bytes))
    }

    fn write(&self, offset: u64, width: u8, value: u64) -> Result<(), AccessFault> {
        let mut state = self.state.lock();
        let value = swapped(value, width);
        match (offset, width) {
            // Once, items could be written here.
            (register::DATA..register::SELECTOR, _) => {}
            (register::SELECTOR, 2) => self.select(&mut state, value as u16),
            (register::DMA, 4) => state.dma = value << 32,
            (register::DMA, 8) => {
                state.dma = 0;
                self.transfer(&mut state, value);
            }
            (register::DMA_LOW, 4) => {
                let address = std::mem::take(&mut state.dma) | value;
                self.transfer(&mut state, address);
            }
            _ => return Err(AccessFault),
        }
        Ok(())
    }

    fn reset(&self) {
        *self.state.lock() = State::default();
    }

    /// Its node is outside `/soc`: `fdt_node`.
    fn fdt(&self, _place: &Placement, _parent: &mut Node) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAM: u64 = board::RAM_BASE;
    const SIZE: u64 = 1 << 20;

    fn device(payload: Option<Payload>) -> (FwCfg, GuestMemory) {
        let memory = GuestMemory::new(RAM, SIZE).unwrap();
        (FwCfg::new(memory.clone(), 3, payload, BTreeMap::new()), memory)
    }

    fn payload() -> Payload {
        Payload { kernel: (0..=255).collect(), initrd: vec![7; 5], command_line: "quiet".into() }
    }

    fn select(device: &FwCfg, key: u16) {
        device.write(register::SELECTOR, 2, key.swap_bytes().into()).unwrap();
    }

    /// So many bytes of an item, through the register.
    fn item(device: &FwCfg, key: u16, length: usize) -> Vec<u8> {
        select(device, key);
        (0..length).map(|_| device.read(register::DATA, 1).unwrap() as u8).collect()
    }

    /// Has a descriptor carried out that is at `at`; returns its control word afterwards.
    fn dma_at(device: &FwCfg, memory: &GuestMemory, at: u64, control: u32, length: u32, target: u64) -> u32 {
        let descriptor = [&control.to_be_bytes()[..], &length.to_be_bytes(), &target.to_be_bytes()].concat();
        memory.write(at, &descriptor).unwrap();
        device.write(register::DMA, 4, (at >> 32).swap_bytes() >> 32).unwrap();
        device.write(register::DMA_LOW, 4, u64::from((at as u32).swap_bytes())).unwrap();
        let mut control = [0; 4];
        memory.read(at, &mut control).unwrap();
        u32::from_be_bytes(control)
    }

    fn dma(device: &FwCfg, memory: &GuestMemory, control: u32, length: u32, target: u64) -> u32 {
        dma_at(device, memory, RAM, control, length, target)
    }

    fn bytes(memory: &GuestMemory, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        memory.read(at, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn items_are_read_byte_by_byte_and_end_in_zeros() {
        let (device, _) = device(Some(payload()));
        assert_eq!(item(&device, key::SIGNATURE, 6), *b"QEMU\0\0");
        assert_eq!(item(&device, key::ID, 4), [3, 0, 0, 0]);
        assert_eq!(item(&device, key::CPUS, 2), [3, 0]);
        assert_eq!(item(&device, key::KERNEL_SIZE, 4), [0, 1, 0, 0]);
        assert_eq!(item(&device, key::INITRD, 6), [7, 7, 7, 7, 7, 0]);
        assert_eq!(item(&device, key::COMMAND_LINE_SIZE, 4), [6, 0, 0, 0]);
        assert_eq!(item(&device, key::COMMAND_LINE, 6), *b"quiet\0");
        assert_eq!(item(&device, 0x33, 2), [0, 0], "there is no such item");
        assert_eq!(item(&device, key::SIGNATURE | 0x8000, 2), [0, 0], "nor one of the architecture");
    }

    #[test]
    fn without_a_kernel_there_is_none() {
        let (device, _) = device(None);
        for key in [key::KERNEL_SIZE, key::KERNEL, key::INITRD_SIZE, key::COMMAND_LINE_SIZE, key::DIRECTORY] {
            assert_eq!(item(&device, key, 4), [0; 4], "{key:#x}");
        }
    }

    /// `struct FWCfgFiles` of the specification; the keys follow the names, as QEMU sorts them.
    #[test]
    fn items_are_found_by_their_names() {
        let longest = "n".repeat(MAX_NAME);
        let named = [(longest.as_str(), &b"x"[..]), ("opt/b", b"two\0bytes"), ("opt/a", b"")];
        let named = named.map(|(name, contents)| (name.to_string(), contents.to_vec()));
        let device = FwCfg::new(GuestMemory::new(RAM, SIZE).unwrap(), 1, None, named.into());
        let entry = |size: u8, key: u8, name: &str| {
            let mut name = name.as_bytes().to_vec();
            name.resize(56, 0);
            [&[0, 0, 0, size, 0, key, 0, 0][..], &name].concat()
        };
        let entries = [entry(1, 0x20, &longest), entry(0, 0x21, "opt/a"), entry(9, 0x22, "opt/b")];
        let directory = [&[0, 0, 0, 3][..], &entries.concat(), &[0]].concat();
        assert_eq!(item(&device, key::DIRECTORY, directory.len()), directory);
        assert_eq!(item(&device, 0x20, 2), *b"x\0");
        assert_eq!(item(&device, 0x21, 1), [0]);
        assert_eq!(item(&device, 0x22, 10), *b"two\0bytes\0");
        assert_eq!(item(&device, 0x23, 1), [0]);
    }

    #[test]
    fn wide_reads_keep_the_order_of_bytes() {
        let (device, _) = device(Some(payload()));
        select(&device, key::KERNEL);
        assert_eq!(device.read(register::DATA, 8), Ok(0x0706_0504_0302_0100));
        assert_eq!(device.read(register::DATA, 4), Ok(0x0b0a_0908));
        assert_eq!(device.read(register::DATA, 2), Ok(0x0d0c));
        select(&device, key::INITRD);
        assert_eq!(device.read(register::DATA, 8), Ok(0x07_0707_0707));
    }

    #[test]
    fn dma_selects_reads_and_skips() {
        let (device, memory) = device(Some(payload()));
        assert_eq!(device.read(register::DMA, 8), Ok(u64::from_le_bytes(*b"QEMU CFG")));
        assert_eq!(device.read(register::DMA_LOW, 4), Ok(u32::from_le_bytes(*b" CFG").into()));
        let select = u32::from(key::KERNEL) << 16 | control::SELECT;
        assert_eq!(dma(&device, &memory, select | control::READ, 4, RAM + 0x100), 0);
        assert_eq!(bytes(&memory, RAM + 0x100, 5), [0, 1, 2, 3, 0]);
        assert_eq!(dma(&device, &memory, control::SKIP, 100, 0), 0);
        assert_eq!(dma(&device, &memory, control::READ, 2, RAM + 0x100), 0);
        assert_eq!(bytes(&memory, RAM + 0x100, 2), [104, 105]);
        // What is beyond the end is zero, however much of it.
        memory.write(RAM + 0x1000, &[0xff; 200_001]).unwrap();
        assert_eq!(dma(&device, &memory, control::READ, 200_000, RAM + 0x1000), 0);
        assert_eq!(bytes(&memory, RAM + 0x1000, 150), (106..=255).collect::<Vec<u8>>());
        assert!(bytes(&memory, RAM + 0x1000 + 150, 200_000 - 150).iter().all(|&byte| byte == 0));
        assert_eq!(bytes(&memory, RAM + 0x1000 + 200_000, 1), [0xff]);
        // 64 bits at once.
        memory.write(RAM, &[(select | control::READ).to_be_bytes(), 1_u32.to_be_bytes()].concat()).unwrap();
        memory.write(RAM + 8, &(RAM + 0x1000).to_be_bytes()).unwrap();
        device.write(register::DMA, 8, RAM.swap_bytes()).unwrap();
        assert_eq!(bytes(&memory, RAM, 4), [0; 4]);
        assert_eq!(bytes(&memory, RAM + 0x1000, 2), [0, 107]);
    }

    #[test]
    fn dma_that_cannot_be_is_an_error_and_changes_nothing() {
        let (device, memory) = device(Some(payload()));
        select(&device, key::KERNEL);
        assert_eq!(dma(&device, &memory, control::WRITE, 4, RAM + 0x100), control::ERROR);
        for (length, target) in [
            (4, 0),
            (2, RAM - 1),
            (2, RAM + SIZE - 1),
            (u32::MAX, RAM + 0x100),
            (1, u64::MAX),
            (9, u64::MAX - 3),
        ] {
            assert_eq!(dma(&device, &memory, control::READ, length, target), control::ERROR, "{target:#x}");
        }
        assert_eq!(bytes(&memory, RAM + 0x100, 4), [0; 4]);
        assert_eq!(bytes(&memory, RAM + SIZE - 1, 1), [0]);
        assert_eq!(dma(&device, &memory, control::READ, 0, 0), 0, "nothing is asked for");
        assert_eq!(dma(&device, &memory, 0, 4, 0), 0);
        assert_eq!(dma(&device, &memory, control::SKIP, u32::MAX, 0), 0);
        assert_eq!(device.read(register::DATA, 1), Ok(0), "all of it was skipped");
        // Descriptors that are nowhere.
        for address in [0, RAM - 8, RAM + SIZE - 8, u64::MAX] {
            device.write(register::DMA, 8, address.swap_bytes()).unwrap();
        }
        assert_eq!(bytes(&memory, RAM + SIZE - 8, 8), [0, 0, 0, 1, 0, 0, 0, 0], "as far as it can be said");
    }

    #[test]
    fn registers_have_their_widths_and_reset_forgets() {
        let (device, _) = device(Some(payload()));
        for (offset, width) in [(8, 1), (8, 4), (8, 8), (10, 2), (12, 4), (16, 2), (20, 2)] {
            assert_eq!(device.write(offset, width, 0), Err(AccessFault), "{offset} {width}");
        }
        for (offset, width) in [(8, 2), (9, 1), (12, 4)] {
            assert_eq!(device.read(offset, width), Err(AccessFault), "{offset} {width}");
        }
        assert_eq!(device.write(register::DATA, 1, 1), Ok(()));
        select(&device, key::KERNEL);
        device.read(register::DATA, 8).unwrap();
        device.reset();
        assert_eq!(device.read(register::DATA, 4), Ok(u32::from_le_bytes(*b"QEMU").into()));
    }

    /// Whatever a guest writes, only its own memory is touched, and the device goes on.
    #[test]
    fn random_accesses_do_no_harm() {
        let (device, memory) = device(Some(payload()));
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..20_000 {
            let descriptor = RAM + random() % (SIZE + 64) - 32;
            let words = [random() as u32 & 0x3f_001f, random() as u32 >> (random() % 32)];
            let target = if random() % 4 == 0 { random() } else { RAM + random() % SIZE };
            let _ = memory.write(descriptor, &[words[0].to_be_bytes(), words[1].to_be_bytes()].concat());
            let _ = memory.write(descriptor.wrapping_add(8), &target.to_be_bytes());
            device.write(register::DMA, 8, descriptor.swap_bytes()).unwrap();
            let width = 1 << (random() % 4);
            let offset = random() % 24 / width * width;
            if random() % 2 == 0 {
                let _ = device.read(offset, width as u8);
            } else {
                let _ = device.write(offset, width as u8, random() >> (64 - 8 * width));
            }
        }
        assert_eq!(item(&device, key::SIGNATURE, 4), *b"QEMU");
    }
}

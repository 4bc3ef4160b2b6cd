//! Parallel NOR flash with Intel's command set, as QEMU has it: each bank is 32 bits wide and made of two 16-bit chips side
//! by side, which get every command twice, in the low and in the high half of a word.
//!
//! | written | reads give from then on |
//! |---|---|
//! | `ff`, `f0` | the array |
//! | `90` | manufacturer and device |
//! | `98` | the query table of the Common Flash Interface |
//! | `70` | the status register; `50` clears it and goes back to the array |
//! | `40` or `10`, then data | status; clears bits of the word |
//! | `e8`, words less one, the words, `d0` | status; clears bits of up to 4096 bytes at once |
//! | `20`, `d0` | status; sets all bits of a sector |
//! | `60`, then `01` or `d0` | status; there are no locks, so both succeed |
//!
//! Every operation is finished when its last write returns. The first bank is write-protected and can be executed from: its
//! contents are a ROM, and only once a guest has written to it do loads come here. The second one is kept in a disk image,
//! where every operation arrives before it is reported as finished; it survives the end of hartvm, however that comes.

use std::sync::Arc;

use devicetree::Node;
use parking_lot::Mutex;
use softmmu::{AccessFault, GuestMemory};
use vm_memory::VolatileSlice;

use crate::board::{self, Kind};
use crate::bus::{MmioDevice, Placement};
use crate::disk::{Disk, SECTOR_SIZE};
use crate::hart::shared::HartShared;

/// Bytes in a bank.
pub const SIZE: u64 = board::region(Kind::Flash).size;

/// Bytes that are erased at once.
const SECTOR: usize = 256 << 10;
/// Bytes across both chips.
const BANK_WIDTH: u32 = 4;
/// Chips side by side.
const CHIPS: u32 = 2;
/// Most bytes in a buffered write.
const BUFFER: usize = 4096;

/// Manufacturer (Intel) and device.
const MANUFACTURER: u16 = 0x89;
const DEVICE: u16 = 0x18;

/// Bits of the status register.
mod status {
    pub(super) const PROTECTED: u8 = 0x02;
    pub(super) const PROGRAM_ERROR: u8 = 0x10;
    pub(super) const ERASE_ERROR: u8 = 0x20;
    pub(super) const READY: u8 = 0x80;
}

/// Commands.
mod command {
    pub(super) const PROGRAM_ALTERNATE: u8 = 0x10;
    pub(super) const ERASE: u8 = 0x20;
    pub(super) const PROGRAM: u8 = 0x40;
    pub(super) const CLEAR_STATUS: u8 = 0x50;
    pub(super) const LOCK: u8 = 0x60;
    pub(super) const READ_STATUS: u8 = 0x70;
    pub(super) const READ_ID: u8 = 0x90;
    pub(super) const QUERY: u8 = 0x98;
    pub(super) const CONFIRM: u8 = 0xd0;
    pub(super) const BUFFERED_PROGRAM: u8 = 0xe8;
    pub(super) const READ_ARRAY: u8 = 0xff;
}

/// The query table of one chip, from its offset 0x10 on (JEDEC JESD68.01, and Intel's extended table at 0x31).
const QUERY_BASE: u64 = 0x10;
#[rustfmt::skip]
const QUERY: [u8; 0x30] = {
    let chip = SIZE / CHIPS as u64;
    let sector = SECTOR as u64 / CHIPS as u64;
    let sectors = chip / sector - 1;
    [
        b'Q', b'R', b'Y',
        0x01, 0x00,                         // Intel's command set,
        0x31, 0x00,                         // whose own table is there;
        0x00, 0x00, 0x00, 0x00,             // no other one
        0x45, 0x55, 0x00, 0x00,             // Vcc from 4.5 V to 5.5 V, no Vpp
        0x07, 0x07, 0x0a, 0x00,             // typical times of a word, a buffer, a sector: powers of 2 in us, us, ms
        0x04, 0x04, 0x04, 0x00,             // at most so many times as long: powers of 2
        chip.trailing_zeros() as u8,        // size: a power of 2
        0x02, 0x00,                         // 8 or 16 bits wide
        (BUFFER as u32 / CHIPS).trailing_zeros() as u8, 0x00,   // the buffer: a power of 2
        0x01,                               // one region of equal sectors:
        sectors as u8, (sectors >> 8) as u8,                    // how many less one,
        (sector >> 8) as u8, (sector >> 16) as u8,              // of how many times 256 bytes
        b'P', b'R', b'I', b'1', b'0',       // 0x31: version 1.0
        0x00, 0x00, 0x00, 0x00,             // no optional commands
        0x00,                               // nothing can be done while an erase is suspended
        0x00, 0x00,                         // no lock status
        0x00, 0x00,                         // no voltages of interest
        0x01,                               // 0x3f: one protection field
    ]
};

/// What is in the cells.
enum Array {
    /// A ROM of guest memory at this address.
    Rom { memory: GuestMemory, base: u64, harts: Vec<Arc<HartShared>> },
    /// Bytes of our own, and where they are kept.
    Stored { bytes: Vec<u8>, disk: Option<Box<dyn Disk>> },
}

/// What reads give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Array,
    Status,
    Id,
    Query,
}

/// What the next write is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Expect {
    Command,
    /// The data of a single program.
    Data,
    /// The confirmation of an erase of the sector with this offset.
    EraseConfirm(usize),
    LockConfirm,
    /// How many words follow, less one.
    Count,
    /// So many more words.
    Words(usize),
    BufferConfirm,
}

struct State {
    array: Array,
    mode: Mode,
    expect: Expect,
    status: u8,
    /// Offsets and bytes of a buffered program that is being entered.
    buffer: Vec<(usize, u32, u8)>,
    /// A host error has been told of.
    reported: bool,
}

/// One bank.
pub struct CfiFlash(Mutex<State>);

/// Why an image cannot be a bank's contents.
#[derive(Debug, thiserror::Error)]
pub enum FlashError {
    /// More than a bank has.
    #[error(
        "the flash image {path:?} has {size} bytes, but a flash bank only {SIZE}; name an image made for QEMU's `virt`"
    )]
    TooLarge {
        /// The image.
        path: std::path::PathBuf,
        /// Its bytes.
        size: u64,
    },
    /// The host cannot read it.
    #[error("cannot read the flash image {path:?}")]
    Read {
        /// The image.
        path: std::path::PathBuf,
        /// What the host said.
        #[source]
        source: std::io::Error,
    },
}

/// The contents of a bank that holds `disk`, named `path`. What the image does not have is erased.
///
/// # Errors
/// When the image is too large, or cannot be read.
pub fn contents(disk: &dyn Disk, path: &std::path::Path) -> Result<Vec<u8>, FlashError> {
    if disk.size() > SIZE {
        return Err(FlashError::TooLarge { path: path.to_owned(), size: disk.size() });
    }
    let size = disk.size() as usize;
    let mut bytes = vec![0; SIZE as usize];
    let mut piece = vec![0; 64 << 10];
    for start in (0..size).step_by(piece.len()) {
        let piece = &mut piece[..(size - start).min(64 << 10)];
        disk.read_at(start as u64, &[VolatileSlice::from(&mut *piece)])
            .map_err(|source| FlashError::Read { path: path.to_owned(), source })?;
        // Zeros are there, and the host has given no memory for them.
        if piece.iter().any(|&byte| byte != 0) {
            bytes[start..start + piece.len()].copy_from_slice(piece);
        }
    }
    bytes[size..].fill(0xff);
    Ok(bytes)
}

impl CfiFlash {
    /// The bank whose contents are the ROM at `base` of `memory`, write-protected.
    pub fn rom(memory: GuestMemory, base: u64, harts: &[Arc<HartShared>]) -> Self {
        Self::new(Array::Rom { memory, base, harts: harts.to_vec() })
    }

    /// A bank with these contents, which are kept in `disk`; without one they are forgotten at the end.
    pub fn stored(bytes: Vec<u8>, disk: Option<Box<dyn Disk>>) -> Self {
        debug_assert_eq!(bytes.len() as u64, SIZE);
        Self::new(Array::Stored { bytes, disk })
    }

    /// A bank that nothing has been written to.
    pub fn blank() -> Self {
        Self::stored(vec![0xff; SIZE as usize], None)
    }

    fn new(array: Array) -> Self {
        Self(Mutex::new(State {
            array,
            mode: Mode::Array,
            expect: Expect::Command,
            status: 0,
            buffer: Vec::new(),
            reported: false,
        }))
    }
}

/// Adds the node of both banks to the root.
pub(crate) fn fdt_banks(root: &mut Node) {
    let region = board::region(Kind::Flash);
    let banks: Vec<_> =
        (0..u64::from(region.count)).map(|n| (region.base + n * region.size, region.size)).collect();
    root.child(&format!("flash@{:x}", region.base))
        .set_u32("bank-width", BANK_WIDTH)
        .set_reg(&banks)
        .set_string("compatible", "cfi-flash");
}

/// A value of one chip, from both.
fn both(value: u16) -> u32 {
    u32::from(value) << 16 | u32::from(value)
}

impl State {
    /// The word at `offset`, a multiple of 4, in any mode but that of the array.
    fn register(&self, offset: u64) -> u32 {
        // Both chips see the number of the word.
        let word = offset / u64::from(BANK_WIDTH);
        both(match self.mode {
            Mode::Array | Mode::Status => self.status.into(),
            Mode::Id => match word & 0xff {
                0 => MANUFACTURER,
                1 => DEVICE,
                _ => 0,
            },
            Mode::Query => {
                let index = word.checked_sub(QUERY_BASE).and_then(|index| usize::try_from(index).ok());
                index.and_then(|index| QUERY.get(index)).copied().unwrap_or(0).into()
            }
        })
    }

    fn read(&self, offset: u64, into: &mut [u8]) {
        match (self.mode, &self.array) {
            (Mode::Array, Array::Rom { memory, base, .. }) => {
                // The ROM is as large as the bank; the bus has checked the offset.
                let _ = memory.read(base + offset, into);
            }
            (Mode::Array, Array::Stored { bytes, .. }) => {
                into.copy_from_slice(&bytes[offset as usize..offset as usize + into.len()]);
            }
            _ => {
                for (byte, offset) in into.iter_mut().zip(offset..) {
                    *byte = (self.register(offset & !3) >> (offset % 4 * 8)) as u8;
                }
            }
        }
    }

    fn write(&mut self, offset: u64, width: u8, value: u64) {
        if let Array::Rom { memory, base, harts } = &self.array {
            memory.hide_rom(*base);
            harts.iter().for_each(|hart| hart.kick());
        }
        let (at, width, value) = (offset as usize, u32::from(width), value as u32);
        let code = value as u8;
        match self.expect.clone() {
            Expect::Command => self.command(code, at),
            Expect::Data => {
                self.expect = Expect::Command;
                let bytes: Vec<_> = value.to_le_bytes().into_iter().take(width as usize).collect();
                self.program(at, &bytes);
            }
            Expect::EraseConfirm(sector) => match code {
                command::CONFIRM => {
                    self.expect = Expect::Command;
                    self.erase(sector);
                }
                _ => self.abandon(code, status::PROGRAM_ERROR | status::ERASE_ERROR),
            },
            // Lock, unlock and lock down.
            Expect::LockConfirm => match code {
                0x01 | command::CONFIRM | 0x2f => self.finish(),
                _ => self.abandon(code, status::PROGRAM_ERROR | status::ERASE_ERROR),
            },
            Expect::Count => {
                // Each chip gets its own count in its half; they are equal.
                let words = (value & 0xffff) as usize + 1;
                if words * BANK_WIDTH as usize > BUFFER {
                    self.abandon(code, status::PROGRAM_ERROR | status::ERASE_ERROR);
                } else {
                    self.expect = Expect::Words(words);
                }
            }
            Expect::Words(left) => {
                self.buffer.push((at, value, width as u8));
                self.expect = if left > 1 { Expect::Words(left - 1) } else { Expect::BufferConfirm };
            }
            Expect::BufferConfirm => match code {
                command::CONFIRM => self.program_buffer(),
                _ => self.abandon(code, status::PROGRAM_ERROR | status::ERASE_ERROR),
            },
        }
    }

    fn command(&mut self, code: u8, at: usize) {
        match code {
            command::PROGRAM | command::PROGRAM_ALTERNATE => self.begin(Expect::Data),
            command::ERASE => self.begin(Expect::EraseConfirm(at / SECTOR * SECTOR)),
            command::LOCK => self.begin(Expect::LockConfirm),
            command::BUFFERED_PROGRAM => {
                self.buffer.clear();
                self.begin(Expect::Count);
            }
            command::READ_STATUS => {
                self.status |= status::READY;
                self.mode = Mode::Status;
            }
            command::READ_ID => self.mode = Mode::Id,
            command::QUERY => self.mode = Mode::Query,
            command::CLEAR_STATUS => {
                self.status = 0;
                self.mode = Mode::Array;
            }
            // 0xf0 is how AMD's chips are told, and drivers try it; what is no command must not hide the array either.
            _ => self.mode = Mode::Array,
        }
    }

    fn begin(&mut self, expect: Expect) {
        self.status |= status::READY;
        self.mode = Mode::Status;
        self.expect = expect;
    }

    fn finish(&mut self) {
        self.status |= status::READY;
        self.expect = Expect::Command;
    }

    /// Ends a command in the middle; a wrong sequence is an error that the status tells of.
    fn abandon(&mut self, code: u8, error: u8) {
        self.finish();
        self.buffer.clear();
        if code == command::READ_ARRAY {
            self.mode = Mode::Array;
        } else {
            self.status |= error;
        }
    }

    /// Programming can clear bits, not set them.
    fn program(&mut self, at: usize, data: &[u8]) {
        self.finish();
        let Array::Stored { bytes, .. } = &mut self.array else {
            self.status |= status::PROGRAM_ERROR | status::PROTECTED;
            return;
        };
        let Some(cells) = bytes.get_mut(at..at + data.len()) else {
            self.status |= status::PROGRAM_ERROR;
            return;
        };
        let old = cells.to_vec();
        cells.iter_mut().zip(data).for_each(|(cell, data)| *cell &= data);
        if !self.keep(at, data.len()) {
            self.restore(at, &old);
            self.status |= status::PROGRAM_ERROR;
        }
    }

    fn program_buffer(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        // A buffer is as large as its place is aligned: all words are in the one where the first is.
        let start = buffer.first().map_or(0, |&(at, ..)| at / BUFFER * BUFFER);
        let end = buffer.iter().map(|&(at, _, width)| at + usize::from(width)).max().unwrap_or(start);
        if buffer.iter().any(|&(at, ..)| at / BUFFER * BUFFER != start) {
            self.abandon(command::CONFIRM, status::PROGRAM_ERROR);
            return;
        }
        let first = buffer.iter().map(|&(at, ..)| at).min().unwrap_or(start);
        let mut data = vec![0xff; end - first];
        for (at, value, width) in buffer {
            let place = &mut data[at - first..at - first + usize::from(width)];
            place.iter_mut().zip(value.to_le_bytes()).for_each(|(cell, byte)| *cell &= byte);
        }
        self.program(first, &data);
    }

    fn erase(&mut self, sector: usize) {
        self.finish();
        let Array::Stored { bytes, .. } = &mut self.array else {
            self.status |= status::ERASE_ERROR | status::PROTECTED;
            return;
        };
        let cells = &mut bytes[sector..sector + SECTOR];
        let old = cells.to_vec();
        cells.fill(0xff);
        if !self.keep(sector, SECTOR) {
            self.restore(sector, &old);
            self.status |= status::ERASE_ERROR;
        }
    }

    fn restore(&mut self, at: usize, old: &[u8]) {
        if let Array::Stored { bytes, .. } = &mut self.array {
            bytes[at..at + old.len()].copy_from_slice(old);
        }
    }

    /// Writes `length` bytes at `at` to the disk, which knows whole sectors. `false` if they cannot be kept.
    fn keep(&mut self, at: usize, length: usize) -> bool {
        let Array::Stored { bytes, disk: Some(disk) } = &mut self.array else { return true };
        let granule = SECTOR_SIZE as usize;
        let (start, end) = (at / granule * granule, (at + length).next_multiple_of(granule));
        if end as u64 > disk.size() || disk.read_only() {
            return false;
        }
        match disk.write_at(start as u64, &[VolatileSlice::from(&mut bytes[start..end])]) {
            Ok(()) => true,
            Err(error) => {
                if !std::mem::replace(&mut self.reported, true) {
                    log::warn!("the host cannot keep the flash's contents, the guest sees an error: {error}");
                }
                false
            }
        }
    }

    fn flush(&self) {
        if let Array::Stored { disk: Some(disk), .. } = &self.array
            && let Err(error) = disk.flush()
        {
            log::warn!("the flash's contents may not survive a crash of the host: {error}");
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.flush();
    }
}

impl MmioDevice for CfiFlash {
    fn name(&self) -> &'static str {
        "cfi_flash"
    }

    fn read(&self, offset: u64, width: u8) -> Result<u64, AccessFault> {
        let mut bytes = [0; 8];
        self.0.lock().read(offset, &mut bytes[..usize::from(width)]);
        Ok(u64::from_le_bytes(bytes))
    }

    fn write(&self, offset: u64, width: u8, value: u64) -> Result<(), AccessFault> {
        let mut state = self.0.lock();
        match width {
            8 => {
                state.write(offset, 4, value & 0xffff_ffff);
                state.write(offset + 4, 4, value >> 32);
            }
            _ => state.write(offset, width, value),
        }
        Ok(())
    }

    fn is_like_memory(&self) -> bool {
        true
    }

    fn reset(&self) {
        let mut state = self.0.lock();
        state.mode = Mode::Array;
        state.expect = Expect::Command;
        state.status = 0;
        state.buffer.clear();
        state.flush();
        if let Array::Rom { memory, base, .. } = &state.array {
            memory.show_rom(*base);
        }
    }

    /// Both banks have one node, outside `/soc`: `fdt_banks`.
    fn fdt(&self, _place: &Placement, _parent: &mut Node) {}
}

#[cfg(test)]
#[path = "cfi_flash_tests.rs"]
mod tests;

//! What a file is, and copying it to guest memory.

use std::ops::Range;
use std::path::Path;

use softmmu::GuestMemory;

use crate::LoadError;
use crate::elf::{Elf, Segment, symbol};
use crate::error::About;
use crate::file::{gunzip, read_file, read_start};

/// What a file turned out to be, after unpacking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An ELF executable.
    Elf,
    /// A Linux kernel `Image`, with or without an EFI stub.
    LinuxImage,
    /// None of the known formats: entered at its first byte.
    Raw,
}

/// Where a file lies in guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// What it was.
    pub kind: Kind,
    /// Physical address of the first instruction.
    pub entry: u64,
    /// The lowest physical address it takes.
    pub low: u64,
    /// The physical address after the last one it takes, counting memory that it clears or uses itself (bss).
    pub high: u64,
    /// Where the symbol `tohost` is, if it is an ELF file that has it: the mailbox of riscv-tests programs.
    pub tohost: Option<u64>,
}

/// Where files can be loaded.
#[derive(Clone, Debug)]
pub struct Room<'a> {
    /// The physical addresses of RAM.
    pub ram: Range<u64>,
    /// What is there already.
    pub occupied: &'a [Occupied],
}

/// Physical addresses that a file must not be loaded to.
#[derive(Clone, Debug)]
pub struct Occupied {
    /// What is there, as it is named in an error message, for example "the firmware".
    pub what: String,
    /// The physical addresses.
    pub range: Range<u64>,
}

/// A kernel or firmware that has been read and can be copied to guest memory, again after each reset.
#[derive(Clone, Debug)]
pub struct Image {
    loaded: Loaded,
    parts: Vec<Part>,
}

/// `size` bytes at a physical address: first `bytes`, then zeros.
#[derive(Clone, Debug)]
struct Part {
    address: u64,
    bytes: Vec<u8>,
    size: u64,
}

/// What a file may have besides what is loaded, such as debug information.
const MAX_UNLOADED: u64 = 2 << 30;

/// The first bytes of a file, by which it is recognized.
const RECOGNIZED: u64 = 64 << 10;

impl Image {
    /// Reads a kernel or firmware file: an ELF file for its own addresses, anything else for physical address `at`; either
    /// may be packed with gzip. Unknown formats are accepted as raw code only if `raw` is set.
    ///
    /// # Errors
    /// [`LoadError`]: the file cannot be read, is something else, is damaged, does not fit or overlaps what is there.
    pub fn read(path: &Path, at: u64, raw: bool, room: &Room) -> Result<Self, LoadError> {
        let mut limit = room.ram.end - room.ram.start;
        // People name whole disks by mistake: that shows before all of it has been read.
        let start = read_start(path, RECOGNIZED)?;
        if !is_packed(&start) && recognize(About(path), &start, raw)? == Kind::Elf {
            limit = limit.saturating_add(MAX_UNLOADED);
        }
        Self::parse(path, read_file(path, limit)?, at, raw, room)
    }

    /// As [`read`](Self::read), from the contents of a file; `path` is for error messages.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(path: &Path, bytes: Vec<u8>, at: u64, raw: bool, room: &Room) -> Result<Self, LoadError> {
        let about = About(path);
        if bytes.is_empty() {
            return Err(LoadError::Empty { file: path.into() });
        }
        let bytes = unpack(about, bytes, room.ram.end - room.ram.start)?;
        let (loaded, parts) = match recognize(about, &bytes, raw)? {
            Kind::Elf => {
                let elf = Elf::parse(about, &bytes, &room.ram, at)?;
                let Range { start, end } = elf.range();
                let tohost = symbol(&bytes, "tohost").map(|address| address.wrapping_add(elf.bias));
                let part =
                    |Segment { address, data, size }| Part { address, bytes: bytes[data].to_vec(), size };
                let parts = elf.segments.into_iter().map(part).collect();
                (Loaded { kind: Kind::Elf, entry: elf.entry, low: start, high: end, tohost }, parts)
            }
            kind => {
                if kind == Kind::LinuxImage {
                    check_sections(about, &bytes)?;
                }
                // `image_size` of the header counts the bss, which the kernel clears itself.
                let in_memory = if kind == Kind::LinuxImage { u64_at(&bytes, IMAGE_SIZE) } else { 0 };
                let size = bytes.len() as u64;
                let high = at.saturating_add(size.max(in_memory));
                (
                    Loaded { kind, entry: at, low: at, high, tohost: None },
                    vec![Part { address: at, bytes, size }],
                )
            }
        };
        check(path, loaded.low..loaded.high, room)?;
        Ok(Self { loaded, parts })
    }

    /// What it is and where it lies.
    pub fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// Copies it to guest memory, which must have the RAM it was read for.
    pub fn store(&self, memory: &GuestMemory) {
        self.parts.iter().for_each(|part| store(memory, part.address, &part.bytes, part.size));
    }
}

/// Copies data such as an initrd to guest memory. `path` is for error messages.
///
/// # Errors
/// [`LoadError::DoesNotFit`] or [`LoadError::Overlap`].
pub fn place(path: &Path, bytes: &[u8], at: u64, memory: &GuestMemory, room: &Room) -> Result<(), LoadError> {
    let size = bytes.len() as u64;
    check(path, at..at.saturating_add(size), room)?;
    store(memory, at, bytes, size);
    Ok(())
}

fn check(path: &Path, taken: Range<u64>, room: &Room) -> Result<(), LoadError> {
    let Room { ram, occupied } = room;
    if taken.start < ram.start || taken.end > ram.end {
        return Err(LoadError::DoesNotFit { file: path.into(), taken, ram: ram.clone() });
    }
    match occupied.iter().find(|other| other.range.start < taken.end && taken.start < other.range.end) {
        Some(Occupied { what, range }) => {
            let (other, other_taken) = (what.clone(), range.clone());
            Err(LoadError::Overlap { file: path.into(), taken, other, other_taken })
        }
        None => Ok(()),
    }
}

/// Writes `data` and then zeros, `size` bytes in all. The range has been checked to be in RAM, which is what `write` could
/// complain about.
fn store(memory: &GuestMemory, address: u64, data: &[u8], size: u64) {
    const CHUNK: u64 = 64 << 10;
    let mut written = memory.write(address, data).is_ok();
    let mut at = address + data.len() as u64;
    let end = address + size;
    let (mut old, zeros) = (vec![0; CHUNK as usize], vec![0; CHUNK as usize]);
    while at < end {
        let length = (end - at).min(CHUNK) as usize;
        // Fresh RAM is zero and takes no host memory until it is written to.
        if memory.read(at, &mut old[..length]).is_err() || old[..length] != zeros[..length] {
            written &= memory.write(at, &zeros[..length]).is_ok();
        }
        at += length as u64;
    }
    debug_assert!(written, "{address:#x} to {end:#x} is not RAM");
}

// Offsets in the header of a Linux Image (Documentation/arch/riscv/boot-image-header.rst).
const IMAGE_SIZE: usize = 0x10;
const IMAGE_MAGIC2: usize = 0x38;
const IMAGE_HEADER: usize = 0x40;

/// Checks that a kernel with an EFI stub has all the contents that its PE header names. Without that header nothing tells
/// how long the file was, since `image_size` counts the bss too.
fn check_sections(about: About, bytes: &[u8]) -> Result<(), LoadError> {
    let truncated = || about.damaged("it ends before its contents do");
    if bytes.len() < IMAGE_HEADER {
        return Err(truncated());
    }
    let pe = u32_at(bytes, 0x3c) as usize;
    if !bytes.starts_with(b"MZ") || pe == 0 {
        return Ok(());
    }
    let header = bytes.get(pe..).filter(|header| header.starts_with(b"PE\0\0")).ok_or_else(truncated)?;
    // COFF header: NumberOfSections at 2, SizeOfOptionalHeader at 16; sections of 40 bytes behind both headers.
    let (count, optional) = (u32_at(header, 6) & 0xffff, u32_at(header, 20) & 0xffff);
    let sections = header.get(24 + optional as usize..).ok_or_else(truncated)?;
    for index in 0..count as usize {
        let section = sections.get(index * 40..index * 40 + 40).ok_or_else(truncated)?;
        // SizeOfRawData and PointerToRawData.
        let end = u64::from(u32_at(section, 16)) + u64::from(u32_at(section, 20));
        if end > bytes.len() as u64 {
            return Err(truncated());
        }
    }
    Ok(())
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    bytes.get(offset..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes.get(offset..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

pub(crate) const GZIP: &[u8] = b"\x1f\x8b";

fn is_zboot(bytes: &[u8]) -> bool {
    // Linux's include/linux/pe.h: "MZ", then "zimg", the payload's offset and size, and at 0x18 the kind of compression.
    bytes.starts_with(b"MZ") && bytes.get(4..8) == Some(b"zimg")
}

/// Whether [`unpack`] has something to do.
fn is_packed(bytes: &[u8]) -> bool {
    bytes.starts_with(GZIP) || is_zboot(bytes)
}

/// Unpacks a gzip file, or an EFI zboot image whose payload is packed with gzip.
fn unpack(about: About, bytes: Vec<u8>, limit: u64) -> Result<Vec<u8>, LoadError> {
    if bytes.starts_with(GZIP) {
        return gunzip(about, &bytes, limit);
    }
    if is_zboot(&bytes) {
        let (offset, size) = (u32_at(&bytes, 8) as usize, u32_at(&bytes, 12) as usize);
        let payload = offset.checked_add(size).and_then(|end| bytes.get(offset..end));
        let payload = payload.ok_or_else(|| about.damaged("its payload lies outside of the file"))?;
        if !payload.starts_with(GZIP) {
            let kind = bytes.get(0x18..0x38).unwrap_or_default();
            let kind = String::from_utf8_lossy(kind.split(|&byte| byte == 0).next().unwrap_or_default());
            let found = format!("an EFI zboot kernel packed with {}", kind.escape_default());
            return Err(
                about.wrong_kind(found, "only gzip can be unpacked: extract its Image, or boot it by EFI")
            );
        }
        return gunzip(about, payload, limit);
    }
    Ok(bytes)
}

const UNPACK_IT: &str = "only gzip is unpacked: unpack it first";
const KERNEL: &str = "a RISC-V kernel or firmware is needed: ELF, Linux Image, or gzip of these";
const DISK: &str = "attach it as a disk, with --disk";

/// Files that people give by mistake: where the bytes are by which they are known, and what they are.
const NOT_CODE: &[(usize, &[u8], &str, &str)] = &[
    (0x38, b"ARM\x64", "a Linux kernel for aarch64", KERNEL),
    (0x202, b"HdrS", "a Linux kernel for x86", KERNEL),
    (0, b"\x28\xb5\x2f\xfd", "packed with zstd", UNPACK_IT),
    (0, b"\xfd7zXZ\0", "packed with xz", UNPACK_IT),
    (0, b"BZh", "packed with bzip2", UNPACK_IT),
    (0, b"\x1f\x8b", "packed with gzip twice", UNPACK_IT),
    (0, b"\x27\x05\x19\x56", "a U-Boot legacy image (uImage)", "extract the kernel from it first"),
    (0, b"\xd0\x0d\xfe\xed", "a device tree blob or FIT image", "extract the kernel from it, or use --dtb"),
    (0, b"QFI\xfb", "a qcow2 disk image", DISK),
    (0x1fe, b"\x55\xaa", "a disk image with a partition table", DISK),
    (0x8001, b"CD001", "a CD image", DISK),
];

fn recognize(about: About, bytes: &[u8], raw: bool) -> Result<Kind, LoadError> {
    let has = |offset: usize, magic: &[u8]| bytes.get(offset..).is_some_and(|bytes| bytes.starts_with(magic));
    if has(0, b"\x7fELF") {
        return Ok(Kind::Elf);
    }
    if has(IMAGE_MAGIC2, b"RSC\x05") {
        return Ok(Kind::LinuxImage);
    }
    if let Some(&(_, _, found, expected)) = NOT_CODE.iter().find(|(offset, magic, ..)| has(*offset, magic)) {
        return Err(about.wrong_kind(found, expected));
    }
    let pe = u32_at(bytes, 0x3c) as usize;
    if has(0, b"MZ") && has(pe, b"PE\0\0") {
        let found = match u32_at(bytes, pe.saturating_add(4)) as u16 {
            0x5064 => "an EFI application, not a kernel with a RISC-V Image header",
            0x8664 => "an EFI program for x86-64",
            0xaa64 => "an EFI program for aarch64",
            _ => "an EFI program for another machine",
        };
        return Err(about.wrong_kind(found, KERNEL));
    }
    if raw { Ok(Kind::Raw) } else { Err(about.wrong_kind("of no known format", KERNEL)) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::elf::tests::{Load, file};

    const RAM: u64 = 0x8000_0000;
    const AT: u64 = 0x8020_0000;

    fn memory() -> GuestMemory {
        GuestMemory::new(RAM, 8 << 20).unwrap()
    }

    fn room(occupied: &[Occupied]) -> Room<'_> {
        Room { ram: RAM..RAM + (8 << 20), occupied }
    }

    fn load_into(memory: &GuestMemory, bytes: &[u8]) -> Result<Loaded, LoadError> {
        let image = Image::parse(Path::new("Image"), bytes.to_vec(), AT, true, &room(&[]))?;
        image.store(memory);
        Ok(image.loaded().clone())
    }

    fn message(bytes: &[u8]) -> String {
        load_into(&memory(), bytes).unwrap_err().to_string()
    }

    fn contents(memory: &GuestMemory, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        memory.read(address, &mut bytes).unwrap();
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn linux_image(image_size: u64) -> Vec<u8> {
        let mut bytes = vec![0x13; 0x400];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x10..0x18].copy_from_slice(&image_size.to_le_bytes());
        bytes[0x38..0x3c].copy_from_slice(b"RSC\x05");
        bytes[0x3c..0x40].fill(0);
        bytes
    }

    /// A kernel with a PE header of one section whose contents end with the file.
    fn efi_image() -> Vec<u8> {
        let mut bytes = linux_image(0x10_0000);
        bytes[0x3c..0x40].copy_from_slice(&0x40_u32.to_le_bytes());
        bytes[0x40..0x44].copy_from_slice(b"PE\0\0");
        bytes[0x46..0x48].copy_from_slice(&1_u16.to_le_bytes());
        bytes[0x54..0x56].copy_from_slice(&0x20_u16.to_le_bytes());
        let section = 0x40 + 24 + 0x20;
        bytes[section + 16..section + 20].copy_from_slice(&0x200_u32.to_le_bytes());
        bytes[section + 20..section + 24].copy_from_slice(&0x200_u32.to_le_bytes());
        bytes
    }

    #[test]
    fn a_truncated_kernel_is_noticed_by_its_pe_header() {
        let image = efi_image();
        assert_eq!(load_into(&memory(), &image).unwrap().kind, Kind::LinuxImage);
        for length in [0x3c, 0x41, 0x50, 0x80, 0x3ff] {
            let result = load_into(&memory(), &image[..length]);
            assert!(matches!(result, Err(LoadError::Damaged { .. })), "{length:#x}: {result:?}");
        }
    }

    fn with(offset: usize, magic: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; offset + magic.len() + 1000];
        bytes[offset..offset + magic.len()].copy_from_slice(magic);
        bytes
    }

    #[test]
    fn linux_image_takes_its_image_size() {
        let memory = memory();
        let loaded = load_into(&memory, &linux_image(0x10_0000)).unwrap();
        let expected =
            Loaded { kind: Kind::LinuxImage, entry: AT, low: AT, high: AT + 0x10_0000, tohost: None };
        assert_eq!(loaded, expected);
        assert_eq!(contents(&memory, AT, 0x400), linux_image(0x10_0000));
        assert_eq!(load_into(&memory, &linux_image(0)).unwrap().high, AT + 0x400);
    }

    #[test]
    fn gzip_and_zboot_are_unpacked() {
        let image = linux_image(0x800);
        let packed = gzip(&image);
        let memory_gzip = memory();
        assert_eq!(load_into(&memory_gzip, &packed).unwrap().kind, Kind::LinuxImage);
        assert_eq!(contents(&memory_gzip, AT, image.len()), image);

        let mut zboot = with(0, b"MZ\0\0zimg");
        zboot[8..12].copy_from_slice(&100u32.to_le_bytes());
        zboot[12..16].copy_from_slice(&(packed.len() as u32).to_le_bytes());
        zboot[0x18..0x1c].copy_from_slice(b"gzip");
        zboot.truncate(100);
        zboot.extend_from_slice(&packed);
        let memory_zboot = memory();
        assert_eq!(load_into(&memory_zboot, &zboot).unwrap().kind, Kind::LinuxImage);
        assert_eq!(contents(&memory_zboot, AT, image.len()), image);

        assert!(message(&zboot[..zboot.len() - 1]).contains("outside of the file"));
        zboot[100] = 0;
        zboot[0x18..0x1c].copy_from_slice(b"zstd");
        assert!(message(&zboot).contains("packed with zstd"), "{}", message(&zboot));
    }

    #[test]
    fn elf_segments_are_copied_and_their_rest_cleared() {
        let memory = memory();
        memory.write(RAM, &[0xff; 0x3000]).unwrap();
        let load = Load { vaddr: RAM, paddr: RAM, data: b"code", memsz: 0x2000 };
        let loaded = load_into(&memory, &file(2, RAM, &[load])).unwrap();
        let expected = Loaded { kind: Kind::Elf, entry: RAM, low: RAM, high: RAM + 0x2000, tohost: None };
        assert_eq!(loaded, expected);
        assert_eq!(contents(&memory, RAM, 4), b"code");
        assert!(contents(&memory, RAM + 4, 0x1ffc).iter().all(|&byte| byte == 0));
        assert_eq!(contents(&memory, RAM + 0x2000, 1), [0xff]);
    }

    #[test]
    fn unknown_bytes_are_raw_code_if_allowed() {
        let memory = memory();
        let code = [0x13; 100];
        assert_eq!(load_into(&memory, &code).unwrap().kind, Kind::Raw);
        assert_eq!(contents(&memory, AT, 100), code);
        let refused = Image::parse(Path::new("x"), code.to_vec(), AT, false, &room(&[])).unwrap_err();
        assert!(refused.to_string().starts_with("`x` is of no known format"), "{refused}");
    }

    #[test]
    fn files_given_by_mistake_are_named() {
        assert!(message(&with(0x38, b"ARM\x64")).contains("aarch64"));
        assert!(message(&with(0x202, b"HdrS")).contains("x86"));
        assert!(message(&with(0, b"\x28\xb5\x2f\xfd")).contains("zstd"));
        assert!(message(&with(0, b"QFI\xfb")).contains("--disk"));
        assert!(message(&gzip(&gzip(b"x"))).contains("twice"));
        let mut pe = with(0x100, b"PE\0\0\x64\x86");
        pe[..2].copy_from_slice(b"MZ");
        pe[0x3c] = 0;
        pe[0x3d] = 1;
        assert!(message(&pe).contains("x86-64"));
        assert!(matches!(load_into(&memory(), &[]), Err(LoadError::Empty { .. })));
    }

    #[test]
    fn what_does_not_fit_says_where_ram_is() {
        assert_eq!(
            message(&linux_image(0x100_0000)),
            "`Image` does not fit into guest RAM: it takes 0x80200000 to 0x81200000, and RAM is 0x80000000 to \
             0x80800000; give the guest more with -m"
        );
        assert!(message(&linux_image(u64::MAX)).contains("does not fit"));
        let low = file(2, 0x1_0000, &[Load { vaddr: 0x1_0000, paddr: 0x1_0000, data: b"code", memsz: 4 }]);
        assert!(message(&low).contains("it has to be linked for addresses in RAM"));
        let bss = file(2, RAM, &[Load { vaddr: RAM, paddr: RAM, data: b"code", memsz: 1 << 40 }]);
        assert!(message(&bss).contains("does not fit"));
        let bomb = gzip(&vec![0; 9 << 20]);
        assert!(matches!(load_into(&memory(), &bomb), Err(LoadError::TooLarge { .. })));
    }

    #[test]
    fn repeated_segments_do_not_multiply() {
        let load = || Load { vaddr: RAM, paddr: RAM, data: &[1; 4096], memsz: 1 << 20 };
        let loads: Vec<Load> = (0..8).map(|_| load()).collect();
        assert!(load_into(&memory(), &file(2, RAM, &loads)).is_ok());
        let loads: Vec<Load> = (0..9).map(|_| load()).collect();
        assert!(matches!(load_into(&memory(), &file(2, RAM, &loads)), Err(LoadError::TooLarge { .. })));
    }

    #[test]
    fn storing_again_restores_what_the_guest_changed() {
        let memory = memory();
        let load = Load { vaddr: RAM, paddr: RAM, data: b"code", memsz: 16 };
        let image = Image::parse(Path::new("Image"), file(2, RAM, &[load]), AT, true, &room(&[])).unwrap();
        for _ in 0..2 {
            image.store(&memory);
            assert_eq!(contents(&memory, RAM, 16), *b"code\0\0\0\0\0\0\0\0\0\0\0\0");
            memory.write(RAM, &[0xff; 16]).unwrap();
        }
    }

    #[test]
    fn overlaps_name_both() {
        let occupied = [Occupied { what: "the firmware".into(), range: RAM..AT + 1 }];
        let error = Image::parse(Path::new("Image"), linux_image(0), AT, true, &room(&occupied)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`Image` takes 0x80200000 to 0x80200400 in guest RAM, which overlaps the firmware at 0x80000000 to 0x80200001"
        );
        let beside = [Occupied { what: "the firmware".into(), range: RAM..AT }];
        assert!(Image::parse(Path::new("Image"), linux_image(0), AT, true, &room(&beside)).is_ok());
    }

    #[test]
    fn data_is_placed_where_it_is_asked() {
        let memory = memory();
        place(Path::new("initrd"), b"data", AT, &memory, &room(&[])).unwrap();
        assert_eq!(contents(&memory, AT, 5), b"data\0");
        let end = RAM + (8 << 20);
        assert!(matches!(
            place(Path::new("initrd"), b"data", end - 3, &memory, &room(&[])),
            Err(LoadError::DoesNotFit { .. })
        ));
        assert!(place(Path::new("initrd"), b"data", end - 4, &memory, &room(&[])).is_ok());
        assert!(matches!(
            place(Path::new("initrd"), b"data", u64::MAX, &memory, &room(&[])),
            Err(LoadError::DoesNotFit { .. })
        ));
    }
}

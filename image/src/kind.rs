//! What a file is, by its contents.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::unpack::{Packing, reader};

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A disk, raw or in a format for disks.
    Disk,
    /// A disk that guests must not write: an ISO 9660 file system, for disks or only for CDs.
    Cd,
    /// A disk that has to be unpacked first.
    Packed(Packing),
    /// A kernel, a firmware or another program; one packed with gzip, too.
    Program,
    /// Nothing that is known.
    Unknown,
}

/// Bytes at the start by which files are known.
const START: usize = 0x1_1000;

/// Where the bytes are by which a kind is known. The first that matches counts.
const MAGIC: &[(usize, &[u8], Kind)] = &[
    (0, b"\x7fELF", Kind::Program),
    // The header of a Linux Image; of one for aarch64, so that it is named as what it is.
    (0x38, b"RSC\x05", Kind::Program),
    (0x38, b"ARM\x64", Kind::Program),
    (0x202, b"HdrS", Kind::Program),
    (0, b"MZ", Kind::Program),
    (0, b"\x27\x05\x19\x56", Kind::Program),
    (0, b"\xd0\x0d\xfe\xed", Kind::Program),
    (0, b"QFI\xfb", Kind::Disk),
    (0, b"KDMV", Kind::Disk),
    (0, b"vhdxfile", Kind::Disk),
    (0, b"BZh", Kind::Disk),
    (0x8001, b"CD001", Kind::Cd),
    (0x200, b"EFI PART", Kind::Disk),
    (0x1000, b"EFI PART", Kind::Disk),
    (0x1fe, b"\x55\xaa", Kind::Disk),
    (0x438, b"\x53\xef", Kind::Disk),
    (0x1_0040, b"_BHRfS_M", Kind::Disk),
    (0, b"XFSB", Kind::Disk),
];

/// Says what the file at `path` is.
///
/// # Errors
/// What the host says about reading it.
pub fn recognize(path: &Path) -> io::Result<Kind> {
    let file = File::open(path)?;
    let mut start = vec![0; START];
    let mut filled = 0;
    while let count @ 1.. = file.read_at(&mut start[filled..], filled as u64)? {
        filled += count;
    }
    start.truncate(filled);
    let Some(packing) = Packing::of(&start) else { return Ok(of(&start)) };
    // Damage shows when it is unpacked.
    let mut inner = Vec::new();
    let _ = reader(packing, start.as_slice())
        .and_then(|reader| reader.take(START as u64).read_to_end(&mut inner));
    Ok(match of(&inner) {
        Kind::Program => Kind::Program,
        _ => Kind::Packed(packing),
    })
}

fn of(start: &[u8]) -> Kind {
    let has = |(offset, magic, _): &&(usize, &[u8], Kind)| {
        start.get(*offset..).is_some_and(|bytes| bytes.starts_with(magic))
    };
    MAGIC.iter().find(has).map_or(Kind::Unknown, |&(_, _, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(offset: usize, magic: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; START + 512];
        bytes[offset..offset + magic.len()].copy_from_slice(magic);
        bytes
    }

    #[test]
    fn contents_tell() {
        assert_eq!(of(&with(0, b"\x7fELF")), Kind::Program);
        assert_eq!(of(&with(0x38, b"RSC\x05")), Kind::Program);
        assert_eq!(of(&with(0x1fe, b"\x55\xaa")), Kind::Disk);
        assert_eq!(of(&with(0x438, b"\x53\xef")), Kind::Disk);
        let mut hybrid = with(0x8001, b"CD001");
        hybrid[0x1fe..0x200].copy_from_slice(b"\x55\xaa");
        assert_eq!(of(&hybrid), Kind::Cd);
        assert_eq!(of(&with(0, b"plain text")), Kind::Unknown);
        assert_eq!(of(b""), Kind::Unknown);
    }

    #[test]
    fn packed_kernels_are_programs_and_packed_disks_are_not() {
        use std::io::Write;
        let gzip = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let path = std::env::temp_dir().join(format!("hartvm-kind-{}", std::process::id()));
        let kind = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            recognize(&path).unwrap()
        };
        assert_eq!(kind(&gzip(&with(0x38, b"RSC\x05"))), Kind::Program);
        assert_eq!(kind(&gzip(&with(0x1fe, b"\x55\xaa"))), Kind::Packed(Packing::Gzip));
        assert_eq!(kind(b"\x1f\x8b damaged"), Kind::Packed(Packing::Gzip));
        assert_eq!(kind(b"\xfd7zXZ\0 damaged"), Kind::Packed(Packing::Xz));
        assert_eq!(kind(b"\x28\xb5\x2f\xfd damaged"), Kind::Packed(Packing::Zstd));
        std::fs::remove_file(&path).unwrap();
    }
}

//! Unpacking a compressed disk image into a sparse file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;

use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// The ways in which images are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// gzip (RFC 1952).
    Gzip,
    /// xz.
    Xz,
    /// Zstandard (RFC 8878).
    Zstd,
}

impl Packing {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }

    /// That of a file which starts with these bytes.
    pub(crate) fn of(start: &[u8]) -> Option<Self> {
        let magic: [(&[u8], Self); 3] =
            [(b"\x1f\x8b", Self::Gzip), (b"\xfd7zXZ\0", Self::Xz), (b"\x28\xb5\x2f\xfd", Self::Zstd)];
        magic.into_iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, packing)| packing)
    }
}

/// Why an image cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The packed data.
    #[error("its {} data cannot be unpacked ({error})", packing.name())]
    Read {
        /// How it is packed.
        packing: Packing,
        /// What is wrong.
        error: io::Error,
    },
    /// It has no bytes, or more than a disk can have.
    #[error("it unpacks to {0}")]
    Size(&'static str),
    /// The host, which cannot take the result.
    #[error("the unpacked image cannot be written ({0})")]
    Write(io::Error),
}

/// Memory that a dictionary or window may take; what the strongest common settings need is an eighth of it.
const MEMORY: u32 = 1 << 30;

/// More bytes than a disk image has.
const MOST: u64 = 64 << 40;

/// What is written or left out at once.
const BLOCK: usize = 64 << 10;

/// Bytes in a sector, which a disk has a whole number of.
const SECTOR: u64 = 512;

/// Unpacks `from` into the empty file `into`, leaving holes for zeros. `progress` is told how many packed bytes were used.
///
/// # Errors
/// [`UnpackError`].
pub fn unpack(
    from: &File,
    packing: Packing,
    into: &File,
    progress: &mut dyn FnMut(u64),
) -> Result<(), UnpackError> {
    let broken = |error| UnpackError::Read { packing, error };
    let counted = Counted { file: from, used: 0, progress };
    let mut reader = reader(packing, BufReader::with_capacity(BLOCK, counted)).map_err(broken)?;
    let mut block = vec![0; BLOCK];
    let mut size = 0;
    loop {
        let mut filled = 0;
        while filled < BLOCK {
            match reader.read(&mut block[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(error)),
            }
        }
        let bytes = &block[..filled];
        if bytes.iter().any(|&byte| byte != 0) {
            into.write_all_at(bytes, size).map_err(UnpackError::Write)?;
        }
        size += filled as u64;
        if size > MOST {
            return Err(UnpackError::Size("more than a disk can hold"));
        }
        if filled < BLOCK {
            break;
        }
    }
    if size == 0 {
        return Err(UnpackError::Size("nothing"));
    }
    into.set_len(size.next_multiple_of(SECTOR)).map_err(UnpackError::Write)
}

struct Counted<'a> {
    file: &'a File,
    used: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl Read for Counted<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(into, self.used)?;
        self.used += count as u64;
        (self.progress)(self.used);
        Ok(count)
    }
}

/// What unpacks `from`.
pub(crate) fn reader<'a>(packing: Packing, from: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match packing {
        Packing::Gzip => Box::new(MultiGzDecoder::new(from)),
        Packing::Xz => Box::new(XzReader::new_mem_limit(from, true, MEMORY >> 10)),
        Packing::Zstd => Box::new(Zstd::new(from)),
    })
}

/// Zstandard frames, one after the other.
struct Zstd<R> {
    from: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(from: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(u64::from(MEMORY));
        Self { from, decoder, in_frame: false }
    }

    /// Starts the next frame; false at the end of the file.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.from.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.from) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    if io::copy(&mut self.from.by_ref().take(length), &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.in_frame {
                self.in_frame = self.next_frame()?;
                if !self.in_frame {
                    return Ok(0);
                }
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let blocks = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.from, blocks).map_err(io::Error::other)?;
            }
            let count = self.decoder.read(into)?;
            if count > 0 || into.is_empty() {
                return Ok(count);
            }
            // The sum is over what was collected, so it is known at the end only.
            if let (Some(given), Some(sum)) =
                (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum())
                && given != sum
            {
                return Err(io::Error::other("its checksum is wrong"));
            }
            self.in_frame = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A disk of an odd size with a hole, and bytes that do not repeat at once.
    fn disk() -> Vec<u8> {
        let mut state = 1_u32;
        let noise = (0..150_000).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 29) as u8
        });
        let mut disk: Vec<u8> = noise.collect();
        disk.extend(vec![0; 1 << 20]);
        disk.extend(b"the end");
        disk
    }

    fn pack(packing: Packing, bytes: &[u8]) -> Vec<u8> {
        match packing {
            Packing::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Packing::Xz => {
                let options = lzma_rust2::XzOptions::with_preset(1);
                let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Packing::Zstd => {
                ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
            }
        }
    }

    const ALL: [Packing; 3] = [Packing::Gzip, Packing::Xz, Packing::Zstd];

    fn files(name: &str) -> [File; 2] {
        ["packed", "unpacked"].map(|which| {
            let path = std::env::temp_dir().join(format!("hartvm-{name}-{which}-{}", std::process::id()));
            let file =
                File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
            std::fs::remove_file(path).unwrap();
            file
        })
    }

    fn unpacked(name: &str, packing: Packing, packed: &[u8]) -> Result<Vec<u8>, UnpackError> {
        let [from, into] = files(name);
        from.write_all_at(packed, 0).unwrap();
        let mut used = 0;
        unpack(&from, packing, &into, &mut |now| used = now)?;
        assert_eq!(used, packed.len() as u64);
        let mut bytes = vec![0; into.metadata().unwrap().len() as usize];
        into.read_exact_at(&mut bytes, 0).unwrap();
        Ok(bytes)
    }

    #[test]
    fn what_was_packed_comes_out_in_whole_sectors() {
        for packing in ALL {
            let (packed, mut disk) = (pack(packing, &disk()), disk());
            assert_eq!(Packing::of(&packed), Some(packing));
            disk.resize(disk.len().next_multiple_of(512), 0);
            assert!(unpacked("whole", packing, &packed).unwrap() == disk, "{packing:?}");
        }
    }

    #[test]
    fn several_members_are_one_disk() {
        for packing in ALL {
            let packed = [pack(packing, &[1; 512]), pack(packing, &[2; 1024])].concat();
            let bytes = unpacked("members", packing, &packed).unwrap();
            assert_eq!((bytes.len(), bytes[511], bytes[512]), (1536, 1, 2), "{packing:?}");
        }
    }

    #[test]
    fn damaged_and_cut_files_are_refused() {
        for packing in ALL {
            let packed = pack(packing, &disk());
            for length in [1, 7, 20, packed.len() / 2, packed.len() - 1] {
                let error = unpacked("cut", packing, &packed[..length]).unwrap_err();
                assert!(error.to_string().contains(packing.name()), "{packing:?} {length}: {error}");
            }
        }
    }

    #[test]
    fn nothing_is_no_disk() {
        for packing in ALL {
            let error = unpacked("nothing", packing, &pack(packing, b"")).unwrap_err();
            assert_eq!(error.to_string(), "it unpacks to nothing", "{packing:?}");
        }
    }

    #[test]
    fn ten_thousand_damaged_files_do_no_harm() {
        let small: Vec<u8> = disk()[..3000].iter().chain(&[0; 3000]).copied().collect();
        for packing in ALL {
            let packed = pack(packing, &small);
            let mut state = 7_u64;
            let mut random = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as usize
            };
            for _ in 0..10_000 {
                let mut damaged = packed.clone();
                for _ in 0..=random() % 3 {
                    let at = random() % damaged.len();
                    damaged[at] = random() as u8;
                }
                let Ok(reader) = reader(packing, damaged.as_slice()) else { continue };
                // Damage may make a small file unpack to much, never to more than is asked for.
                let _ = io::copy(&mut reader.take(1 << 20), &mut io::sink());
            }
        }
    }
}

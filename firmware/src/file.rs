//! Bytes of a file, compressed or not, with bounds.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

use crate::LoadError;
use crate::error::About;
use crate::image::GZIP;

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// [`LoadError::Read`], [`LoadError::NotAFile`], [`LoadError::Empty`] or [`LoadError::TooLarge`].
pub fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, LoadError> {
    if size(path)? > limit {
        return Err(About(path).too_large("has", limit));
    }
    let bytes = read_start(path, limit.saturating_add(1))?;
    match bytes.len() as u64 {
        0 => Err(LoadError::Empty { file: path.into() }),
        length if length > limit => Err(About(path).too_large("has", limit)),
        _ => Ok(bytes),
    }
}

/// As [`read_file`], but of a gzip file what is in it, for firmware that unpacks nothing.
///
/// # Errors
/// As [`read_file`]; [`LoadError::Damaged`].
pub fn read_unpacked(path: &Path, limit: u64) -> Result<Vec<u8>, LoadError> {
    let bytes = read_file(path, limit)?;
    if bytes.starts_with(GZIP) { gunzip(About(path), &bytes, limit) } else { Ok(bytes) }
}

/// Bytes in a regular file.
fn size(path: &Path) -> Result<u64, LoadError> {
    let failed = |source| LoadError::Read { file: path.into(), source };
    // Asked before it is opened, since opening a named pipe would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(LoadError::NotAFile { file: path.into() });
    }
    Ok(metadata.len())
}

/// Reads the first `length` bytes of a regular file, or all of it if it is shorter.
pub(crate) fn read_start(path: &Path, length: u64) -> Result<Vec<u8>, LoadError> {
    size(path)?;
    let mut bytes = Vec::new();
    let mut read = || File::open(path)?.take(length).read_to_end(&mut bytes);
    match read() {
        Ok(_) => Ok(bytes),
        Err(source) => Err(LoadError::Read { file: path.into(), source }),
    }
}

/// Unpacks gzip data that may become at most `limit` bytes. What follows the first member is ignored.
pub(crate) fn gunzip(about: About, packed: &[u8], limit: u64) -> Result<Vec<u8>, LoadError> {
    let mut bytes = Vec::new();
    let mut decoder = GzDecoder::new(packed).take(limit.saturating_add(1));
    decoder
        .read_to_end(&mut bytes)
        .map_err(|error| about.damaged(format!("its gzip data is not valid ({error})")))?;
    match bytes.len() as u64 {
        0 => Err(about.damaged("its gzip data unpacks to nothing")),
        length if length > limit => Err(about.too_large("unpacks to", limit)),
        _ => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn unpack(packed: &[u8], limit: u64) -> Result<Vec<u8>, LoadError> {
        gunzip(About(Path::new("test.gz")), packed, limit)
    }

    #[test]
    fn unpacks_up_to_the_limit() {
        assert_eq!(unpack(&packed(&[7; 1000]), 1000).unwrap(), [7; 1000]);
        assert!(matches!(unpack(&packed(&[7; 1001]), 1000), Err(LoadError::TooLarge { limit: 1000, .. })));
    }

    #[test]
    fn small_file_that_unpacks_to_gigabytes_stops_at_the_limit() {
        let bomb = packed(&vec![0; 64 << 20]);
        assert!(bomb.len() < 1 << 20);
        assert!(matches!(unpack(&bomb, 1 << 20), Err(LoadError::TooLarge { .. })));
    }

    #[test]
    fn cut_or_changed_data_is_damaged() {
        let good = packed(b"some contents that are long enough to cut");
        for length in 2..good.len() {
            assert!(matches!(unpack(&good[..length], 1000), Err(LoadError::Damaged { .. })), "{length}");
        }
        let mut changed = good.clone();
        changed[good.len() - 5] ^= 1;
        assert!(matches!(unpack(&changed, 1000), Err(LoadError::Damaged { .. })));
    }

    #[test]
    fn a_file_is_unpacked_if_it_is_packed() {
        let path = std::env::temp_dir().join(format!("hartvm-packed-test-{}", std::process::id()));
        let mut results = Vec::new();
        for contents in [packed(b"MZ contents"), b"MZ contents".to_vec()] {
            std::fs::write(&path, contents).unwrap();
            results.push(read_unpacked(&path, 1000));
        }
        std::fs::remove_file(&path).unwrap();
        assert!(results.iter().all(|bytes| bytes.as_ref().unwrap() == b"MZ contents"));
    }

    #[test]
    fn missing_file_and_directory_are_named() {
        let missing = read_file(Path::new("/no/such/file"), 10).unwrap_err();
        assert_eq!(missing.to_string(), "cannot read `/no/such/file`");
        let directory = read_file(Path::new("/"), 10).unwrap_err();
        assert_eq!(directory.to_string(), "`/` is not a regular file");
    }

    #[test]
    fn size_of_a_file_is_checked() {
        let path = std::env::temp_dir().join(format!("hartvm-file-test-{}", std::process::id()));
        std::fs::write(&path, [1; 10]).unwrap();
        let (fits, too_large) = (read_file(&path, 10), read_file(&path, 9));
        std::fs::write(&path, []).unwrap();
        let empty = read_file(&path, 10);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(fits.unwrap(), [1; 10]);
        assert!(matches!(too_large, Err(LoadError::TooLarge { limit: 9, .. })));
        assert!(matches!(empty, Err(LoadError::Empty { .. })));
    }
}

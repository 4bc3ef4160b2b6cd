//! What `hartvm image` does to disk images, without a guest.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::chain::{backing_text, create_file, find_backing, find_format, open_image};
use super::qcow2::{self, BackingName, Creation, Qcow2};
use super::raw::{open_file, open_locked};
use super::{Disk, Format, OpenDiskError, SECTOR_SIZE};

pub use super::qcow2::{Compression, Facts, Findings, Snapshot};

/// What an image is.
#[derive(Clone, Debug)]
pub struct Info {
    /// Its format.
    pub format: Format,
    /// Bytes the guest sees.
    pub size: u64,
    /// Bytes of the host's storage that it takes.
    pub allocated: u64,
    /// The backing file, as the image names it, and where that is.
    pub backing: Option<(String, PathBuf)>,
    /// More of a qcow2 image.
    pub qcow2: Option<Facts>,
}

/// Looks at an image, which may be in use meanwhile.
///
/// # Errors
/// When it is no image.
pub fn info(path: &Path, format: Option<Format>) -> Result<Info, OpenDiskError> {
    let (mut file, _) = open_file(path, true)?;
    let io_error = |error| OpenDiskError::Io(path.to_owned(), error);
    let bad = |source| OpenDiskError::Qcow2 { path: path.to_owned(), source };
    let allocated = file.metadata().map_err(io_error)?.blocks() * 512;
    let (format, _) = find_format(path, &file, format)?;
    if format == Format::Raw {
        let size = std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).map_err(io_error)?;
        return Ok(Info { format, size, allocated, backing: None, qcow2: None });
    }
    let facts = qcow2::facts(&file).map_err(bad)?;
    let backing = match qcow2::backing_name(&file).map_err(bad)? {
        // A backing file that cannot be used is still worth telling.
        Some(backing) => {
            let place = find_backing(path, &backing)
                .map_or_else(|_| PathBuf::from(&backing.name), |(place, _)| place);
            Some((backing.name, place))
        }
        None => None,
    };
    Ok(Info { format, size: facts.size, allocated, backing, qcow2: Some(facts) })
}

fn check_size(path: &Path, size: u64) -> Result<(), OpenDiskError> {
    let refuse = |reason| OpenDiskError::Size { path: path.to_owned(), size, reason };
    if size == 0 || !size.is_multiple_of(SECTOR_SIZE) {
        return Err(refuse("want a positive multiple of 512"));
    }
    if size > i64::MAX as u64 {
        return Err(refuse("that is more than a file can have"));
    }
    Ok(())
}

/// Makes a new image of `size` bytes. A qcow2 image may have a backing file, and then takes its size if `size` is none.
///
/// # Errors
/// When there is a file already, or the host refuses.
pub fn create(
    path: &Path,
    format: Format,
    size: Option<u64>,
    backing: Option<(&Path, Option<Format>)>,
) -> Result<u64, OpenDiskError> {
    let failed = |source| OpenDiskError::Create { path: path.to_owned(), source };
    let mut name = None;
    let mut backing_size = None;
    if let Some((backing, format)) = backing {
        // Relative names in an image are relative to the image.
        let place = path.parent().unwrap_or(Path::new("")).join(backing);
        let disk = open_image(&place, true, format)?;
        let (found, _) = find_format(&place, &open_file(&place, true)?.0, format)?;
        backing_size = Some(disk.size());
        let text = backing.to_str().ok_or_else(|| failed(std::io::ErrorKind::InvalidFilename.into()))?;
        name = Some(BackingName { name: backing_text(text), format: Some(found.name().into()) });
    }
    let size = size.or(backing_size).unwrap_or_default();
    check_size(path, size)?;
    match format {
        Format::Qcow2 => create_file(path, &Creation { size, backing: name })?,
        Format::Raw => {
            let file = File::options().write(true).create_new(true).open(path).map_err(failed)?;
            file.set_len(size).map_err(|error| {
                let _ = std::fs::remove_file(path);
                failed(error)
            })?;
        }
    }
    Ok(size)
}

/// Gives an image another size; what is new reads as zero.
///
/// # Errors
/// When the image is in use, or would lose data and `shrink` is off.
pub fn resize(path: &Path, format: Option<Format>, size: u64, shrink: bool) -> Result<u64, OpenDiskError> {
    check_size(path, size)?;
    let bad = |source| OpenDiskError::Qcow2 { path: path.to_owned(), source };
    let refuse = |reason| OpenDiskError::Size { path: path.to_owned(), size, reason };
    let loses = "that is less than it has, and what is beyond would be lost; add --shrink if it may";
    let (file, len) = open_locked(path, false)?;
    let (format, _) = find_format(path, &file, format)?;
    match format {
        Format::Raw => {
            if size < len && !shrink {
                return Err(refuse(loses));
            }
            if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
                return Err(refuse("a block device has the size it has"));
            }
            file.set_len(size).map_err(|error| OpenDiskError::Io(path.to_owned(), error))?;
        }
        Format::Qcow2 => {
            let backing = match qcow2::backing_name(&file).map_err(bad)? {
                Some(backing) => {
                    let (place, format) = find_backing(path, &backing)?;
                    Some(open_image(&place, true, format)?)
                }
                None => None,
            };
            let mut image = Qcow2::open(file, len, false, backing).map_err(bad)?;
            if size < image.size() && !shrink {
                return Err(refuse(loses));
            }
            image.resize(size).map_err(bad)?;
        }
    }
    Ok(size)
}

/// Checks a qcow2 image, and repairs it if asked. Nothing to say of a raw one.
///
/// # Errors
/// When the image is in use, or so damaged that nothing can be said.
pub fn check(path: &Path, repair: bool) -> Result<Option<Findings>, OpenDiskError> {
    let bad = |source| OpenDiskError::Qcow2 { path: path.to_owned(), source };
    let (file, len) = open_locked(path, !repair)?;
    if find_format(path, &file, None)?.0 == Format::Raw {
        return Ok(None);
    }
    let mut image = Qcow2::open_to_check(file, len, repair).map_err(bad)?;
    image.check(repair).map_err(bad).map(Some)
}

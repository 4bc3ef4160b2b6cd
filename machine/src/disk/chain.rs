//! From a file's name to a disk: its format, its backing files, its overlay.
//!
//! A file is what it was said to be, or what its first bytes say. Of a raw image that was not said to be raw, the guest
//! may not change the first bytes into those of another format ([`super::raw`]). A backing file has the format that the
//! image on it names; only if it names none are the first bytes asked, as in QEMU. Only files and block devices of this
//! host can be backing files, opened for reading and locked as such.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::overlay::Overlay;
use super::qcow2::{self, BackingName, Creation, Qcow2};
use super::raw::{Contents, RawFile, open_locked};
use super::{Disk, DiskOptions, Format, OpenDiskError};

/// Longest chain of backing files.
const MAX_DEPTH: usize = 64;

/// Opens a disk: takes the image's lock, finds out its format, and puts an overlay over it if asked.
///
/// # Errors
/// When an image, or one it depends on, is missing, in use, damaged, or of an unknown kind.
pub fn open(options: &DiskOptions) -> Result<Box<dyn Disk>, OpenDiskError> {
    if let Some(overlay) = &options.overlay {
        // Whoever only reads has no use for an empty overlay.
        if !overlay.exists() && !options.read_only {
            create_overlay(overlay, options)?;
        }
        if overlay.exists() {
            return open_overlay(overlay, options);
        }
    }
    let disk = open_image(&options.path, options.read_only || options.snapshot, options.format)?;
    if options.snapshot && !options.read_only {
        return Ok(Box::new(Overlay::new(disk, &options.path)?));
    }
    Ok(disk)
}

/// Opens an image with all it depends on.
pub(super) fn open_image(
    path: &Path,
    read_only: bool,
    format: Option<Format>,
) -> Result<Box<dyn Disk>, OpenDiskError> {
    open_layer(path, read_only, format, &mut Vec::new())
}

/// The format of an open file, and whether that is a guess.
pub(super) fn find_format(
    path: &Path,
    file: &File,
    format: Option<Format>,
) -> Result<(Format, bool), OpenDiskError> {
    let contents = Contents::detect(file).map_err(|error| OpenDiskError::Io(path.to_owned(), error))?;
    match (format, contents) {
        (Some(Format::Raw), _) => Ok((Format::Raw, false)),
        (Some(Format::Qcow2) | None, Contents::Qcow2) => Ok((Format::Qcow2, format.is_none())),
        (Some(Format::Qcow2), _) => Err(OpenDiskError::NotQcow2(path.to_owned())),
        (None, Contents::Raw) => Ok((Format::Raw, true)),
        (None, Contents::Other(what, remedy)) => {
            Err(OpenDiskError::OtherFormat { path: path.to_owned(), what, remedy })
        }
    }
}

/// Opens one image and, through it, its backing file. `above` are the files that depend on it.
fn open_layer(
    path: &Path,
    read_only: bool,
    format: Option<Format>,
    above: &mut Vec<(u64, u64)>,
) -> Result<Box<dyn Disk>, OpenDiskError> {
    let owned = || path.to_owned();
    let identity = identity(path);
    if let Some(identity) = identity {
        if above.contains(&identity) {
            return Err(OpenDiskError::BackingChain { path: owned(), reason: "it is its own backing file" });
        }
        above.push(identity);
    }
    if above.len() > MAX_DEPTH {
        let reason =
            "it has more than 63 backing files behind each other; convert it with `qemu-img convert`";
        return Err(OpenDiskError::BackingChain { path: owned(), reason });
    }
    let (file, len) = open_locked(path, read_only)?;
    let (format, detected) = find_format(path, &file, format)?;
    match format {
        Format::Raw => Ok(Box::new(RawFile::new(path, file, len, read_only, detected)?)),
        Format::Qcow2 => {
            let bad = |source| OpenDiskError::Qcow2 { path: path.to_owned(), source };
            let backing = match qcow2::backing_name(&file).map_err(bad)? {
                None => None,
                Some(backing) => {
                    let (backing_path, format) = find_backing(path, &backing)?;
                    let disk = open_layer(&backing_path, true, format, above).map_err(|source| {
                        OpenDiskError::Backing { path: owned(), source: Box::new(source) }
                    })?;
                    Some(disk)
                }
            };
            Ok(Box::new(Qcow2::open(file, len, read_only, backing).map_err(bad)?))
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// The file that an image at `path` means by the name of its backing file, and its format if that is named.
pub(super) fn find_backing(
    path: &Path,
    backing: &BackingName,
) -> Result<(PathBuf, Option<Format>), OpenDiskError> {
    let refuse = |reason: String| OpenDiskError::BackingKind {
        path: path.to_owned(),
        name: backing.name.clone(),
        reason,
    };
    let format = match backing.format.as_deref() {
        None => None,
        Some(name) => Some(
            Format::named(name)
                .ok_or_else(|| refuse(format!(" of the format `{name}`, and raw and qcow2 are known")))?,
        ),
    };
    let name = match protocol(&backing.name) {
        Some("file") => &backing.name["file:".len()..],
        Some(protocol) => {
            return Err(refuse(format!(", which is not a file but for QEMU's `{protocol}` protocol")));
        }
        None => &backing.name,
    };
    let directory = path.parent().unwrap_or(Path::new(""));
    Ok((directory.join(name), format))
}

/// Makes an empty qcow2 image over the disk that `options` name.
fn create_overlay(overlay: &Path, options: &DiskOptions) -> Result<(), OpenDiskError> {
    let base = open_image(&options.path, true, options.format)?;
    let (file, _) = super::raw::open_file(&options.path, true)?;
    let (format, _) = find_format(&options.path, &file, options.format)?;
    // The whole path: the overlay may be anywhere.
    let full = options.path.canonicalize().map_err(|error| OpenDiskError::Io(options.path.clone(), error))?;
    let name = full.to_str().ok_or_else(|| OpenDiskError::BackingKind {
        path: overlay.to_owned(),
        name: full.display().to_string(),
        reason: ", whose name is not UTF-8".into(),
    })?;
    let backing = BackingName { name: backing_text(name), format: Some(format.name().into()) };
    create_file(overlay, &Creation { size: base.size(), backing: Some(backing) })
}

/// A colon before the first slash makes a name one of QEMU's protocols, such as `nbd` or `json`.
fn protocol(name: &str) -> Option<&str> {
    let (protocol, _) = name.split_once(':')?;
    (!protocol.contains('/')).then_some(protocol)
}

/// A name that QEMU does not take for a protocol.
pub(super) fn backing_text(name: &str) -> String {
    if protocol(name).is_some() { format!("file:{name}") } else { name.to_owned() }
}

/// Makes a qcow2 image where there is no file yet. If that fails, none is left.
pub(super) fn create_file(path: &Path, creation: &Creation) -> Result<(), OpenDiskError> {
    let failed = |source| OpenDiskError::Create { path: path.to_owned(), source };
    let file = File::options().read(true).write(true).create_new(true).open(path).map_err(failed)?;
    qcow2::create(&file, creation).map_err(|source| {
        let _ = std::fs::remove_file(path);
        match source {
            qcow2::Qcow2Error::Io(source) => failed(source),
            source => OpenDiskError::Qcow2 { path: path.to_owned(), source },
        }
    })
}

/// Opens an overlay that must be one over the disk that `options` name.
fn open_overlay(overlay: &Path, options: &DiskOptions) -> Result<Box<dyn Disk>, OpenDiskError> {
    let other = || OpenDiskError::OtherOverlay { overlay: overlay.to_owned(), base: options.path.clone() };
    let (file, _) = super::raw::open_file(overlay, true)?;
    if Contents::detect(&file).map_err(|error| OpenDiskError::Io(overlay.to_owned(), error))?
        != Contents::Qcow2
    {
        return Err(other());
    }
    let bad = |source| OpenDiskError::Qcow2 { path: overlay.to_owned(), source };
    let backing = qcow2::backing_name(&file).map_err(bad)?.ok_or_else(other)?;
    let (base, _) = find_backing(overlay, &backing)?;
    if identity(&base).is_none() || identity(&base) != identity(&options.path) {
        return Err(other());
    }
    drop(file);
    open_image(overlay, options.read_only, Some(Format::Qcow2))
}

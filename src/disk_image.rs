//! `hartvm run IMAGE`: what IMAGE is, and how it is booted.

use std::fs::{DirBuilder, File, Metadata};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use image::{Kind, Packing};
use machine::disk::{self, DiskOptions};
use rustix::fs::{FlockOperation, flock};

use crate::Usage;

/// What IMAGE turned out to be.
pub(crate) enum Image {
    /// A kernel or program, as `--kernel` takes it.
    Program(PathBuf),
    /// The first disk.
    Disk(DiskOptions),
}

/// Memory of a machine that boots a disk: a quarter of the host's, within these bounds.
const MEMORY: std::ops::RangeInclusive<u64> = 1 << 30..=4 << 30;

/// Harts of a machine that boots a disk: as many as the host has cores, up to this.
const MOST_HARTS: u8 = 4;

/// Sizes of memory are multiples of this.
const MEMORY_UNIT: u64 = 2 << 20;

/// Memory for a machine that boots a disk on a host with `host` bytes.
pub(crate) fn memory(host: Option<u64>) -> u64 {
    let quarter = host.map_or(*MEMORY.start(), |host| host / 4 / MEMORY_UNIT * MEMORY_UNIT);
    quarter.clamp(*MEMORY.start(), *MEMORY.end())
}

/// Harts for a machine that boots a disk.
pub(crate) fn harts() -> u8 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u8::try_from(cores).unwrap_or(MOST_HARTS).min(MOST_HARTS)
}

/// Finds out what IMAGE is, and unpacks it if it is a packed disk.
pub(crate) fn open(text: &str) -> Result<Image> {
    let usage = |error: &dyn std::fmt::Display| Usage(format!("IMAGE: {error}"));
    let mut options = DiskOptions::parse(text).map_err(|error| usage(&error))?;
    let path = options.path.clone();
    let shown = path.display();
    let cannot_read = || format!("IMAGE: cannot read `{shown}`");
    // Asked before it is opened, since opening a named pipe would wait for its writer.
    let metadata = std::fs::metadata(&path).with_context(cannot_read)?;
    if !metadata.is_file() && !metadata.file_type().is_block_device() {
        bail!("IMAGE: `{shown}` is not a regular file or block device; name a disk image or a kernel");
    }
    if metadata.is_file() && metadata.len() == 0 {
        bail!("IMAGE: `{shown}` is empty; name a disk image or a kernel");
    }
    if options.format.is_some() {
        return Ok(Image::Disk(options));
    }
    match image::recognize(&path).with_context(cannot_read)? {
        Kind::Program if options != DiskOptions::new(&path) => {
            Err(usage(&format!("`{shown}` is a program, not a disk; leave out what follows the comma"))
                .into())
        }
        Kind::Program => Ok(Image::Program(path)),
        Kind::Disk => Ok(Image::Disk(options)),
        Kind::Cd => {
            options.read_only = true;
            Ok(Image::Disk(options))
        }
        Kind::Packed(packing) => {
            options.path = unpacked(&path, &metadata, packing)?;
            // It may hold a CD.
            options.read_only |= image::recognize(&options.path).with_context(cannot_read)? == Kind::Cd;
            Ok(Image::Disk(options))
        }
        Kind::Unknown => bail!(
            "IMAGE: `{shown}` is of no known kind: neither a disk (raw with a partition table or file system, qcow2, \
             ISO; also in gzip, xz or zstd) nor a kernel (ELF, Linux Image); a raw binary is started with --kernel, and \
             an empty disk is attached with --disk"
        ),
    }
}

/// Prints the menu of a disk.
pub(crate) fn print_menu(options: &DiskOptions) -> Result<()> {
    let shown = options.path.display();
    let disk = disk::open(&DiskOptions { read_only: true, ..options.clone() })?;
    let menu = image::menu(disk::source(disk.into())).with_context(|| format!("cannot boot `{shown}`"))?;
    println!("{menu}\nboot one of them with --boot and its number, title or version; * is the default");
    Ok(())
}

/// How often progress is shown.
const PROGRESS: Duration = Duration::from_millis(200);

/// The unpacked copy of `packed`, which is made at the first run and then stays: guests write to it.
///
/// It lies beside the packed file, or in the user's cache directory if that is not possible. Its name tells which file it
/// was made from, by size and time of the last change; a new download is unpacked anew.
fn unpacked(packed: &Path, metadata: &Metadata, packing: Packing) -> Result<PathBuf> {
    let stamp = fnv(&[
        &metadata.len().to_le_bytes(),
        &metadata.mtime().to_le_bytes(),
        &metadata.mtime_nsec().to_le_bytes(),
    ]);
    let file = packed.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let beside = packed.with_file_name(format!("{file}.{stamp:08x}.raw"));
    let cached = || -> Option<PathBuf> {
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let whole = std::fs::canonicalize(packed).ok()?;
        let place = fnv(&[whole.as_os_str().as_encoded_bytes()]);
        Some(cache.or_else(home)?.join("hartvm").join(format!("{file}.{place:08x}{stamp:08x}.raw")))
    };
    let kept = |path: &Path| {
        say(&format!(
            "`{}` was unpacked to `{}`, which the guest changes; remove it to start afresh",
            packed.display(),
            path.display()
        ));
    };
    if beside.exists() {
        kept(&beside);
        return Ok(beside);
    }
    let mut target = beside;
    let mut part = start(&target);
    if part.is_err()
        && let Some(cached) = cached()
    {
        if cached.exists() {
            kept(&cached);
            return Ok(cached);
        }
        if let Some(directory) = cached.parent() {
            let _ = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        }
        part = start(&cached);
        target = cached;
    }
    let part = part
        .with_context(|| format!("IMAGE: cannot unpack `{}` to `{}`", packed.display(), target.display()))?;
    let Some(file) = part else {
        bail!("IMAGE: `{}` is being unpacked by another hartvm; wait until that is done", packed.display());
    };
    let part = part_of(&target);
    say(&format!("unpacking `{}` to `{}`, once", packed.display(), target.display()));
    let result = unpack(packed, metadata.len(), packing, &file)
        .and_then(|()| Ok(std::fs::rename(&part, &target)?))
        .with_context(|| format!("IMAGE: cannot unpack `{}` to `{}`", packed.display(), target.display()));
    if result.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    result.map(|()| target)
}

/// Where a file is while it is being written.
fn part_of(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// An empty file to unpack into; `None` if another process is doing that. What a killed one has left is used again.
fn start(target: &Path) -> std::io::Result<Option<File>> {
    let file = File::options().write(true).create(true).truncate(false).open(part_of(target))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    file.set_len(0)?;
    Ok(Some(file))
}

fn unpack(packed: &Path, size: u64, packing: Packing, into: &File) -> Result<()> {
    let terminal = std::io::stderr().is_terminal();
    let mut shown = Instant::now();
    let mut progress = |used: u64| {
        if terminal && shown.elapsed() >= PROGRESS {
            shown = Instant::now();
            eprint!("\r{:3} %", used * 100 / size.max(1));
        }
    };
    let result = image::unpack(&File::open(packed)?, packing, into, &mut progress);
    if terminal {
        eprint!("\r     \r");
    }
    Ok(result?)
}

/// Tells the user what is being done. A standard error that is closed is no failure.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "hartvm: {text}");
}

/// Tells files apart (FNV-1a, folded to 32 bits).
fn fnv(parts: &[&[u8]]) -> u32 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let hash = parts.iter().copied().flatten().fold(0xcbf2_9ce4_8422_2325, mix);
    (hash >> 32) as u32 ^ hash as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_follows_the_host_within_bounds() {
        assert_eq!(memory(None), 1 << 30);
        assert_eq!(memory(Some(2 << 30)), 1 << 30);
        assert_eq!(memory(Some((8 << 30) + 12345)), 2 << 30);
        assert_eq!(memory(Some(64 << 30)), 4 << 30);
        assert!((1..=MOST_HARTS).contains(&harts()));
    }
}

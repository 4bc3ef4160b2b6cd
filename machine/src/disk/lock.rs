//! Locks on disk images, in the scheme QEMU uses, so that the two refuse each other's images.
//!
//! Each thing a user of an image does (read, write, resize) is a byte at [`DOES`] + n; each thing it cannot bear others
//! doing is a byte at [`REFUSES`] + n. A user takes *shared* open-file-description locks on its bytes of both kinds,
//! then asks whether anybody else holds a byte that clashes: a `REFUSES` byte for what it does, a `DOES` byte for what
//! it refuses. Both sides lock before they look, so of two that start together at most one goes on.

#![allow(
    unsafe_code,
    reason = "fcntl with a struct flock; no safe wrapper knows open-file-description locks"
)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

const DOES: i64 = 100;
const REFUSES: i64 = 200;

const CONSISTENT_READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// The outcome of [`lock`] when it did not succeed.
#[derive(Debug)]
pub(super) enum LockError {
    /// Another open file description holds a clashing byte.
    Held,
    /// The host could not say.
    Io(io::Error),
}

/// An image file with a lock on it.
#[derive(Debug)]
pub(super) struct LockedFile(File);

impl LockedFile {
    /// Locks `file` for as long as the result lives, as a reader that refuses writers, or as the only writer.
    ///
    /// File systems without such locks let everybody through, with a warning.
    pub(super) fn new(file: File, writer: bool) -> Result<Self, (LockError, File)> {
        match lock(&file, writer) {
            Ok(()) => Ok(Self(file)),
            Err(error) => {
                unlock(&file);
                Err((error, file))
            }
        }
    }
}

impl std::ops::Deref for LockedFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        unlock(&self.0);
    }
}

/// Closing the file would do, if no child process had inherited it a moment ago.
fn unlock(file: &File) {
    for byte in (0..8).flat_map(|n| [DOES + n, REFUSES + n]) {
        let _ = fcntl(file, libc::F_OFD_SETLK, libc::F_UNLCK, byte);
    }
}

fn lock(file: &File, writer: bool) -> Result<(), LockError> {
    let does: &[i64] = if writer { &[CONSISTENT_READ, WRITE] } else { &[CONSISTENT_READ] };
    let refuses = [WRITE, RESIZE];
    let take = does.iter().map(|n| DOES + n).chain(refuses.iter().map(|n| REFUSES + n));
    for byte in take {
        match fcntl(file, libc::F_OFD_SETLK, libc::F_RDLCK, byte) {
            Ok(_) => {}
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EACCES) => return Err(LockError::Held),
                Some(libc::EINVAL | libc::ENOLCK | libc::ENOSYS | libc::EOPNOTSUPP) => {
                    log::warn!("the host cannot lock this disk image ({error}): do not use it twice at once");
                    return Ok(());
                }
                _ => return Err(LockError::Io(error)),
            },
        }
    }
    let clash = does.iter().map(|n| REFUSES + n).chain(refuses.iter().map(|n| DOES + n));
    for byte in clash {
        // An exclusive lock would be stopped by any holder; our own description never stops us.
        let kind = fcntl(file, libc::F_OFD_GETLK, libc::F_WRLCK, byte).map_err(LockError::Io)?;
        if kind != libc::F_UNLCK {
            return Err(LockError::Held);
        }
    }
    Ok(())
}

/// One `fcntl` lock command on one byte; returns the lock kind the kernel left in the structure.
fn fcntl(file: &File, command: i32, kind: i32, byte: i64) -> io::Result<i32> {
    let mut lock = libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open while `file` is borrowed, and `lock` is a whole, writable struct flock.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::from(lock.l_type)) }
}

/// Names the processes that have the same file open, as far as `/proc` shows them to us.
pub(super) fn holders(file: &File) -> String {
    let unknown = || "another process".to_owned();
    let (Ok(own), Ok(processes)) = (file.metadata(), std::fs::read_dir("/proc")) else { return unknown() };
    let mut names = Vec::new();
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(fds) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let opens = fds.flatten().filter_map(|fd| std::fs::metadata(fd.path()).ok());
        let count = opens.filter(|other| other.dev() == own.dev() && other.ino() == own.ino()).count();
        if pid == std::process::id() {
            // Our own descriptor is the one being refused; a second one means the image was given twice.
            if count > 1 {
                names.push("this machine itself (the same image twice)".to_owned());
            }
        } else if count > 0 {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            names.push(format!("{} (process {pid})", name.trim()));
        }
    }
    if names.is_empty() { unknown() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &std::path::Path, writer: bool) -> File {
        File::options().read(true).write(writer).open(path).unwrap()
    }

    #[test]
    fn one_writer_or_many_readers() {
        let path = crate::disk::raw::tests::image("lock", 512);
        let lock = |writer| LockedFile::new(open(&path, writer), writer);
        let held = |writer| matches!(lock(writer), Err((LockError::Held, _)));
        let readers = (lock(false).unwrap(), lock(false).unwrap());
        // Who is refused leaves nothing behind, though a child has the file too.
        let (_, refused) = lock(true).err().unwrap();
        let child = refused.try_clone().unwrap();
        drop((readers, refused));
        assert!(lock(true).is_ok());
        drop(child);

        let writer = lock(true).unwrap();
        assert!(held(false) && held(true));
        assert!(holders(&open(&path, true)).contains("this machine itself"));
        // The lock ends with its owner, though a child has the file too.
        let child = writer.try_clone().unwrap();
        drop(writer);
        assert!(lock(false).is_ok());
        drop(child);
        std::fs::remove_file(path).unwrap();
    }
}

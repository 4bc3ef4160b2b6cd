//! What is known of the guests that run: one small file for each, in the user's runtime directory, which its `hartvm run` keeps
//! locked. A file that nobody has locked was left by one that was killed, and is removed by whoever finds it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use machine::net::{Forward, Protocol};
use rustix::fs::{FlockOperation, flock};
use rustix::process::getuid;

/// A guest's file is small; more than this is none.
const MAX_FILE: u64 = 64 << 10;

/// The directory for the files, as a path only.
fn directory() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(runtime) if Path::new(&runtime).is_absolute() => Path::new(&runtime).join("hartvm"),
        _ => std::env::temp_dir().join(format!("hartvm-{}", getuid().as_raw())),
    }
}

/// Whether nobody else can write there: names in a shared directory can be anybody's.
fn is_ours(directory: &Path) -> bool {
    let metadata = std::fs::symlink_metadata(directory);
    metadata.is_ok_and(|metadata| {
        metadata.is_dir() && metadata.uid() == getuid().as_raw() && metadata.mode() & 0o022 == 0
    })
}

/// This process's guest, for others to find. Dropping it makes it unknown again.
pub(crate) struct Instance {
    path: PathBuf,
    /// Locked.
    _file: File,
}

impl Instance {
    /// Makes the guest known by `name` and by what leads to it. A host that has no place for that is no reason not to run:
    /// then nobody knows.
    ///
    /// # Errors
    /// When another guest has the name.
    pub(crate) fn announce(name: Option<&str>, forwards: &[Forward]) -> Result<Option<Self>> {
        if let Some(name) = name
            && Guest::all().iter().any(|guest| guest.name.as_deref() == Some(name))
        {
            bail!("--name: a guest named {name} runs already; choose another name");
        }
        match Self::write(&directory(), name, forwards) {
            Ok(instance) => Ok(Some(instance)),
            Err(error) => {
                log::debug!("`hartvm ssh` will not find this guest: {error}");
                Ok(None)
            }
        }
    }

    fn write(directory: &Path, name: Option<&str>, forwards: &[Forward]) -> std::io::Result<Self> {
        let mut builder = DirBuilder::new();
        let _ = builder.mode(0o700).create(directory);
        if !is_ours(directory) {
            return Err(std::io::Error::other(format!("{} is not ours alone", directory.display())));
        }
        // It is written and locked under a name that nobody reads. One of that name was left by a process of our number.
        let path = directory.join(std::process::id().to_string());
        let hidden = path.with_extension("new");
        let _ = std::fs::remove_file(&hidden);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&hidden)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let mut text = String::new();
        if let Some(name) = name {
            text += &format!("name {name}\n");
        }
        for forward in forwards {
            text += &format!("forward {} {} {}\n", forward.protocol, forward.host, forward.guest);
        }
        file.write_all(text.as_bytes())?;
        std::fs::rename(&hidden, &path)?;
        Ok(Self { path, _file: file })
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A guest that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guest {
    pub(crate) pid: u32,
    pub(crate) name: Option<String>,
    pub(crate) forwards: Vec<Forward>,
}

impl Guest {
    /// All guests of this user, oldest process number first.
    pub(crate) fn all() -> Vec<Self> {
        Self::all_in(&directory())
    }

    fn all_in(directory: &Path) -> Vec<Self> {
        if !is_ours(directory) {
            return Vec::new();
        }
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let mut guests: Vec<Self> = entries.filter_map(|entry| Self::read(&entry.path())).collect();
        guests.sort_by_key(|guest| guest.pid);
        guests
    }

    fn read(path: &Path) -> Option<Self> {
        let pid = path.file_name()?.to_str()?.parse().ok()?;
        let file = File::open(path).ok()?;
        if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
            let _ = std::fs::remove_file(path);
            return None;
        }
        let mut text = String::new();
        file.take(MAX_FILE).read_to_string(&mut text).ok()?;
        let mut guest = Self { pid, name: None, forwards: Vec::new() };
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["name", name] => guest.name = Some(name.into()),
                ["forward", protocol, host, to] => {
                    let protocol = if protocol == "udp" { Protocol::Udp } else { Protocol::Tcp };
                    let (host, guest_end): (SocketAddr, SocketAddr) = (host.parse().ok()?, to.parse().ok()?);
                    guest.forwards.push(Forward { protocol, host, guest: guest_end });
                }
                _ => {}
            }
        }
        Some(guest)
    }

    /// How to name the guest to a person.
    pub(crate) fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("process {}", self.pid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_known_while_it_runs_and_what_was_left_is_removed() {
        let directory = std::env::temp_dir().join(format!("hartvm-instance-{}", std::process::id()));
        let forwards: Vec<Forward> = vec!["tcp:127.0.0.1:2222-:22".parse().unwrap()];
        let instance = Instance::write(&directory, Some("one"), &forwards).unwrap();
        let guests = Guest::all_in(&directory);
        let want = Guest { pid: std::process::id(), name: Some("one".into()), forwards };
        assert_eq!(guests, [want]);
        drop(instance);
        assert!(Guest::all_in(&directory).is_empty());

        let left = directory.join("4000000");
        std::fs::write(&left, "name two\n").unwrap();
        assert!(Guest::all_in(&directory).is_empty());
        assert!(!left.exists());
        std::fs::remove_dir(&directory).unwrap();
    }
}

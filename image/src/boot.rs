//! Which kernel a disk would boot, without running its boot loader.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use crate::fs::{FsError, Stat};
use crate::loader::{Candidate, Config, MAX_CONFIG, extlinux, grub, systemd_boot};
use crate::source::{Source, Window};
use crate::volumes::{Place, Volumes, printable};

/// The thread in which images are read. If it panics, that is reported like a damaged image.
pub const THREAD: &str = "image";

/// How long reading a disk may take. Structures that lead in circles end long before; this is for the rest.
const TIME: Duration = Duration::from_secs(120);

/// Deep enough for the deepest scripts.
const STACK: usize = 64 << 20;

/// Why there is nothing to boot on a disk.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The host.
    #[error("it cannot be read ({0})")]
    Io(#[from] io::Error),
    /// No configuration of a boot loader, or none that can be used.
    #[error("{problem}; it has {found}{}", listed(problems))]
    Nothing {
        /// In a few words.
        problem: &'static str,
        /// Partitions and file systems.
        found: String,
        /// What there was that could not be used.
        problems: Vec<String>,
    },
    /// The choice names none of the entries.
    #[error("there is no entry `{choice}`; {menu}")]
    NoSuchEntry {
        /// What was asked for.
        choice: String,
        /// What there is.
        menu: Menu,
    },
    /// A file that the chosen entry needs.
    #[error("{file}: {error}")]
    File {
        /// Its path and partition.
        file: String,
        /// What is wrong.
        error: FsError,
    },
    /// It took too long, or a bug of a library showed.
    #[error("its partitions or file systems are damaged so that they cannot be read")]
    Hopeless,
}

fn listed(problems: &[String]) -> String {
    problems.iter().take(10).map(|problem| format!("; {}", printable(problem))).collect()
}

/// What can be booted from a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Menu {
    /// The configuration that was used: its path and partition.
    pub config: String,
    /// In the order of the loader's menu; never empty.
    pub entries: Vec<Entry>,
    /// Index of the one that is booted if nobody chooses.
    pub default: usize,
}

/// One line of the menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its text, after those of the menus that it is in and ` > `.
    pub title: String,
    /// The name by which configurations refer to it.
    pub id: Option<String>,
    /// The kernel's path.
    pub kernel: String,
}

impl Entry {
    /// The kernel's version, if its file's name tells, as in `vmlinuz-6.8.0-60-generic`.
    pub fn version(&self) -> Option<&str> {
        let name = self.kernel.rsplit('/').next()?;
        name.split_once('-')
            .map(|(_, version)| version)
            .filter(|version| version.starts_with(|c: char| c.is_ascii_digit()))
    }
}

impl fmt::Display for Menu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has", self.config)?;
        for (index, Entry { title, kernel, .. }) in self.entries.iter().enumerate() {
            let mark = if index == self.default { '*' } else { ' ' };
            write!(f, "\n {mark}{index:2}  {title}  ({kernel})")?;
        }
        Ok(())
    }
}

impl Menu {
    /// The index of the entry that `choice` names: by number, identifier, title, or a part of title or kernel.
    pub fn select(&self, choice: &str) -> Option<usize> {
        if let Some(index) = choice.parse().ok().filter(|&index| index < self.entries.len()) {
            return Some(index);
        }
        let last = |entry: &Entry| entry.title.rsplit(" > ").next().unwrap_or_default().to_lowercase();
        let wanted = choice.to_lowercase();
        let position = |matches: &dyn Fn(&Entry) -> bool| self.entries.iter().position(matches);
        position(&|entry| entry.id.as_deref() == Some(choice) || entry.title == choice)
            .or_else(|| position(&|entry| entry.title.to_lowercase() == wanted || last(entry) == wanted))
            .or_else(|| position(&|entry| entry.version() == Some(choice)))
            .or_else(|| {
                position(&|entry| {
                    !wanted.is_empty()
                        && (entry.title.to_lowercase().contains(&wanted) || entry.kernel.contains(choice))
                })
            })
    }
}

/// A kernel and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The kernel file, as it is on the disk.
    pub kernel: Vec<u8>,
    /// Its path and partition.
    pub kernel_name: String,
    /// All initial RAM disks, one after the other.
    pub initrd: Option<Vec<u8>>,
    /// Their paths.
    pub initrd_name: String,
    /// A device tree blob, if the configuration names one.
    pub devicetree: Option<Vec<u8>>,
    /// The kernel's command line.
    pub options: String,
    /// The line of the menu.
    pub title: String,
    /// The configuration: its path and partition.
    pub config: String,
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.title, self.kernel_name)?;
        if !self.initrd_name.is_empty() {
            write!(f, ", {}", self.initrd_name)?;
        }
        write!(f, ", by {}", self.config)
    }
}

/// The menu of a disk.
///
/// # Errors
/// [`BootError`], if there is nothing on it that could be booted.
pub fn menu(disk: Arc<dyn Source>) -> Result<Menu, BootError> {
    guarded(move || Ok(find(disk)?.0.menu))
}

/// Reads what `choice`, or the default of the disk's menu, needs. No file may have more than `limit` bytes.
///
/// # Errors
/// [`BootError`], if there is nothing on it that could be booted, or no such entry, or a file is missing.
pub fn load(disk: Arc<dyn Source>, choice: Option<&str>, limit: u64) -> Result<Boot, BootError> {
    let choice = choice.map(str::to_owned);
    guarded(move || {
        let (found, volumes) = find(disk)?;
        let Found { menu, candidates } = found;
        let index = match choice {
            None => menu.default,
            Some(choice) => match menu.select(&choice) {
                Some(index) => index,
                None => return Err(BootError::NoSuchEntry { choice, menu }),
            },
        };
        let Candidate { kernel, initrds, devicetree, options, .. } = &candidates[index];
        let read = |place: &Place| {
            let result = volumes.get(place.volume).read(&place.path, limit);
            result.map_err(|error| BootError::File { file: volumes.name(place), error })
        };
        let mut initrd = Vec::new();
        for place in initrds {
            let bytes = read(place)?;
            if (initrd.len() + bytes.len()) as u64 > limit {
                return Err(BootError::File { file: volumes.name(place), error: FsError::TooLarge(limit) });
            }
            // The kernel looks for the next archive at a multiple of four.
            initrd.resize(initrd.len().next_multiple_of(4), 0);
            initrd.extend_from_slice(&bytes);
        }
        let names: Vec<String> = initrds.iter().map(|place| printable(&place.path)).collect();
        Ok(Boot {
            kernel: read(kernel)?,
            kernel_name: volumes.name(kernel),
            initrd: (!initrd.is_empty()).then_some(initrd),
            initrd_name: names.join(", "),
            devicetree: devicetree.as_ref().map(read).transpose()?,
            options: options.clone(),
            title: menu.entries[index].title.clone(),
            config: menu.config,
        })
    })
}

/// Runs `look` where nothing that a library does with a damaged image can harm.
fn guarded<T: Send + 'static>(
    look: impl FnOnce() -> Result<T, BootError> + Send + 'static,
) -> Result<T, BootError> {
    let (sender, receiver) = channel();
    let run = move || drop(sender.send(look()));
    std::thread::Builder::new().name(THREAD.into()).stack_size(STACK).spawn(run)?;
    match receiver.recv_timeout(TIME) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(BootError::Hopeless),
    }
}

struct Found {
    menu: Menu,
    candidates: Vec<Candidate>,
}

fn find(disk: Arc<dyn Source>) -> Result<(Found, Volumes), BootError> {
    let volumes = Volumes::open(&Window::new(disk))?;
    let mut problems = Vec::new();
    for (loader, place) in configs(&volumes) {
        let config = loader.read(&volumes, &place);
        if let Some(found) = usable(&volumes, &place, config, &mut problems) {
            return Ok((found, volumes));
        }
    }
    let problem = if problems.is_empty() {
        "no configuration of GRUB (grub.cfg), extlinux (extlinux.conf) or systemd-boot (loader/entries) was found"
    } else {
        "its boot loader's configuration names nothing that can be booted"
    };
    Err(BootError::Nothing { problem, found: volumes.describe(), problems })
}

/// Whose configuration it is.
#[derive(Clone, Copy)]
enum Loader {
    Extlinux,
    SystemdBoot,
    Grub,
}

impl Loader {
    fn read(self, volumes: &Volumes, place: &Place) -> Config {
        let volume = volumes.get(place.volume);
        match self {
            Self::Extlinux => {
                let text = volume.read(&place.path, MAX_CONFIG).unwrap_or_default();
                extlinux::read(&String::from_utf8_lossy(&text), place)
            }
            Self::SystemdBoot => systemd_boot::read(volume, place.volume),
            Self::Grub => grub::read(volumes, place),
        }
    }
}

/// The configurations there are, in the order in which firmware would come to them.
fn configs(volumes: &Volumes) -> Vec<(Loader, Place)> {
    let mut configs = Vec::new();
    // Firmware reads FAT only; what it finds there leads to the rest.
    let (efi, others): (Vec<_>, Vec<_>) = volumes.iter().partition(|(_, volume)| volume.kind() == "FAT");
    let add = |configs: &mut Vec<_>, loader, volume: usize, paths: &[String]| {
        let there = paths.iter().filter(|path| volumes.get(volume).has_file(path));
        configs.extend(there.map(|path| (loader, Place { volume, path: path.clone() })));
    };
    let owned = |paths: &[&str]| -> Vec<String> { paths.iter().map(|path| (*path).to_owned()).collect() };
    for (index, _) in volumes.iter() {
        add(&mut configs, Loader::Extlinux, index, &owned(extlinux::PATHS));
    }
    for some in [&efi, &others] {
        // Entries on other file systems are GRUB's, if it is there, which knows their variables.
        let entries = some.iter().filter(|(_, volume)| !volume.list(systemd_boot::ENTRIES).is_empty());
        let entries = entries
            .map(|&(volume, _)| (Loader::SystemdBoot, Place { volume, path: systemd_boot::ENTRIES.into() }));
        let entries: Vec<_> = entries.collect();
        let is_efi = std::ptr::eq(some, &efi);
        if is_efi {
            configs.extend(entries.iter().cloned());
        }
        for &(index, volume) in some {
            if is_efi {
                let names = volume.list(grub::EFI);
                let paths: Vec<_> =
                    names.iter().map(|name| format!("{}/{name}/grub.cfg", grub::EFI)).collect();
                add(&mut configs, Loader::Grub, index, &paths);
            }
            add(&mut configs, Loader::Grub, index, &owned(grub::PATHS));
        }
        if !is_efi {
            configs.extend(entries);
        }
    }
    configs
}

/// The entries of a configuration whose files exist, if there are any.
fn usable(volumes: &Volumes, place: &Place, mut config: Config, problems: &mut Vec<String>) -> Option<Found> {
    let name = volumes.name(place);
    let missing = |candidate: &Candidate| {
        let files = [&candidate.kernel].into_iter().chain(&candidate.initrds).chain(&candidate.devicetree);
        files.into_iter().find_map(|file| {
            let problem = match volumes.get(file.volume).stat(&file.path) {
                Ok(Stat::File(_)) => return None,
                Ok(Stat::Directory) => "it is a directory".to_owned(),
                Err(error) => error.to_string(),
            };
            Some(format!("entry `{}`: {}: {problem}", candidate.titles.join(" > "), volumes.name(file)))
        })
    };
    let mut default = None;
    let (mut candidates, mut entries) = (Vec::new(), Vec::new());
    for (index, candidate) in std::mem::take(&mut config.entries).into_iter().enumerate() {
        if let Some(problem) = missing(&candidate) {
            config.problems.push(problem);
            continue;
        }
        // If the default cannot be booted, the next one is.
        if index >= config.default {
            default.get_or_insert(entries.len());
        }
        entries.push(Entry {
            title: printable(&candidate.titles.join(" > ")),
            id: candidate.id.clone(),
            kernel: printable(&candidate.kernel.path),
        });
        candidates.push(candidate);
    }
    if entries.is_empty() {
        if config.problems.is_empty() {
            config.problems.push("it has no entries".into());
        }
        problems.extend(config.problems.into_iter().map(|problem| format!("{name}: {problem}")));
        return None;
    }
    Some(Found { menu: Menu { config: name, entries, default: default.unwrap_or(0) }, candidates })
}

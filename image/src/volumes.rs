//! The file systems of a disk, by partition.

use std::io;

use crate::fs::{self, FileSystem, FsError, Opened, Stat};
use crate::partition::{self, Scheme};
use crate::source::Window;

/// One partition, or the whole disk, with a file system.
pub(crate) struct Volume {
    /// The kind of table and the partition's number in it; `None` for the whole disk.
    partition: Option<(Scheme, u32)>,
    opened: Opened,
}

impl Volume {
    /// As GRUB names it on the only disk.
    pub(crate) fn grub_name(&self) -> String {
        match self.partition {
            None => "hd0".into(),
            Some((Scheme::Gpt, number)) => format!("hd0,gpt{number}"),
            Some((Scheme::Mbr, number)) => format!("hd0,msdos{number}"),
        }
    }

    /// Where it is, as messages name it.
    pub(crate) fn place(&self) -> String {
        self.partition.map_or("the whole disk".into(), |(_, number)| format!("partition {number}"))
    }

    /// What it is, as messages name it.
    fn describe(&self) -> String {
        let Opened { kind, label, files, .. } = &self.opened;
        let label = if label.is_empty() { String::new() } else { format!(" `{}`", printable(label)) };
        let problem = files.as_ref().err().map_or(String::new(), |error| format!(": {error}"));
        format!("{} is {kind}{label}{problem}", self.place())
    }

    /// The name that users gave it.
    pub(crate) fn label(&self) -> &str {
        &self.opened.label
    }

    /// Its identifier, as GRUB and blkid spell it.
    pub(crate) fn uuid(&self) -> &str {
        &self.opened.uuid
    }

    /// The kind of file system.
    pub(crate) fn kind(&self) -> &'static str {
        self.opened.kind
    }

    fn files(&self) -> Result<&dyn FileSystem, FsError> {
        match &self.opened.files {
            Ok(files) => Ok(files.as_ref()),
            Err(error) => Err(FsError::Unsupported(error.to_string())),
        }
    }

    /// The names in a directory; none if there is no such directory.
    pub(crate) fn list(&self, path: &str) -> Vec<String> {
        self.files().and_then(|files| files.list(path)).unwrap_or_default()
    }

    /// What is at a path.
    pub(crate) fn stat(&self, path: &str) -> Result<Stat, FsError> {
        self.files()?.stat(path)
    }

    /// Whether there is a file at `path`.
    pub(crate) fn has_file(&self, path: &str) -> bool {
        matches!(self.stat(path), Ok(Stat::File(_)))
    }

    /// The contents of a file of at most `limit` bytes.
    pub(crate) fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, FsError> {
        self.files()?.read(path, limit)
    }
}

/// Text of an image as a message may show it: nothing that a terminal acts on, and not too much.
pub(crate) fn printable(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A file of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Index into [`Volumes`].
    pub(crate) volume: usize,
    /// Absolute, with `/` between names.
    pub(crate) path: String,
}

/// The file systems of a disk.
pub(crate) struct Volumes {
    all: Vec<Volume>,
    table: Option<(Scheme, usize)>,
}

impl Volumes {
    /// Looks for all file systems of `disk`.
    pub(crate) fn open(disk: &Window) -> io::Result<Self> {
        let whole = fs::open(disk)?;
        // A CD image for disks has both a file system over all of it and a table; otherwise the table of a disk with a file
        // system is the rest of something older, or the code in its first sector.
        let hybrid = whole.as_ref().is_none_or(|opened| opened.kind == "ISO 9660");
        let table = if hybrid { partition::read(disk)? } else { None };
        let mut all: Vec<Volume> =
            whole.into_iter().map(|opened| Volume { partition: None, opened }).collect();
        let found = table.as_ref().map(|(scheme, partitions)| (*scheme, partitions.len()));
        for (scheme, partition) in
            table.into_iter().flat_map(|(scheme, all)| all.into_iter().map(move |p| (scheme, p)))
        {
            // One that cannot be read is as good as none.
            if let Ok(Some(opened)) = fs::open(&disk.part(partition.start, partition.len)) {
                all.push(Volume { partition: Some((scheme, partition.number)), opened });
            }
        }
        Ok(Self { all, table: found })
    }

    /// All of them, with their index.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Volume)> {
        self.all.iter().enumerate()
    }

    /// The one that GRUB calls `name`; without an argument for the kind of table, too.
    pub(crate) fn by_grub_name(&self, name: &str) -> Option<usize> {
        let plain = |volume: &Volume| volume.partition.map(|(_, number)| format!("hd0,{number}"));
        self.all
            .iter()
            .position(|volume| volume.grub_name() == name || plain(volume).as_deref() == Some(name))
    }

    /// The volume of that index.
    pub(crate) fn get(&self, index: usize) -> &Volume {
        &self.all[index]
    }

    /// What a place is, as messages name it.
    pub(crate) fn name(&self, place: &Place) -> String {
        format!("{} on {}", printable(&place.path), self.get(place.volume).place())
    }

    /// What there is, in a few words.
    pub(crate) fn describe(&self) -> String {
        let table = match self.table {
            None => "no partition table".to_owned(),
            Some((scheme, 1)) => format!("a {} with 1 partition", scheme.name()),
            Some((scheme, count)) => format!("a {} with {count} partitions", scheme.name()),
        };
        let volumes: Vec<String> = self.all.iter().take(12).map(Volume::describe).collect();
        let volumes = if volumes.is_empty() { "no known file system".into() } else { volumes.join(", ") };
        format!("{table}; {volumes}")
    }
}

//! Entries of systemd-boot and whatever else follows the Boot Loader Specification (type #1).

use std::cmp::Ordering;

use super::{Candidate, Config, MAX_CONFIG, MAX_ENTRIES, glob};
use crate::volumes::{Place, Volume};

/// Where the entries are.
pub(crate) const ENTRIES: &str = "/loader/entries";

/// One file in [`ENTRIES`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    /// The file's name without `.conf` and without the counter of attempts.
    id: String,
    title: Option<String>,
    version: String,
    sort_key: String,
    machine_id: String,
    architecture: Option<String>,
    pub(crate) linux: Option<String>,
    pub(crate) initrds: Vec<String>,
    devicetree: Option<String>,
    pub(crate) options: Vec<String>,
}

impl Entry {
    /// Reads the file called `name`.
    pub(crate) fn parse(name: &str, text: &str) -> Self {
        let id = name.strip_suffix(".conf").unwrap_or(name);
        let mut entry = Self { id: id.split('+').next().unwrap_or(id).to_owned(), ..Self::default() };
        // A plus sign also occurs in versions; only a counter, at the end, is cut off.
        if let Some((_, counter)) = id.rsplit_once('+')
            && !counter.chars().all(|c| c.is_ascii_digit() || c == '-')
        {
            entry.id = id.to_owned();
        } else if let Some((rest, _)) = id.rsplit_once('+') {
            entry.id = rest.to_owned();
        }
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let value = value.trim().to_owned();
            match key {
                "title" => entry.title = Some(value),
                "version" => entry.version = value,
                "sort-key" => entry.sort_key = value,
                "machine-id" => entry.machine_id = value,
                "architecture" => entry.architecture = Some(value),
                "linux" => entry.linux = Some(value),
                "initrd" => entry.initrds.push(value),
                "devicetree" => entry.devicetree = Some(value),
                "options" => entry.options.push(value),
                _ => {}
            }
        }
        entry
    }

    /// The line of the menu.
    pub(crate) fn title(&self) -> String {
        match &self.title {
            Some(title) if self.version.is_empty() || title.contains(&self.version) => title.clone(),
            Some(title) => format!("{title} ({})", self.version),
            None => self.id.clone(),
        }
    }

    /// What it starts, if that is a Linux kernel for this machine.
    fn candidate(&self, volume: usize) -> Result<Candidate, String> {
        let place = |path: &str| Place { volume, path: format!("/{}", path.trim_start_matches('/')) };
        if let Some(other) = self.architecture.as_deref().filter(|name| !name.eq_ignore_ascii_case("riscv64"))
        {
            return Err(format!("entry `{}` is for {other}", self.id));
        }
        let linux = self.linux.as_deref().filter(|path| !path.is_empty());
        let linux = linux.ok_or_else(|| format!("entry `{}` names no kernel with `linux`", self.id))?;
        Ok(Candidate {
            titles: vec![self.title()],
            id: Some(self.id.clone()),
            kernel: place(linux),
            initrds: self.initrds.iter().map(|path| place(path)).collect(),
            devicetree: self.devicetree.as_deref().map(place),
            options: self.options.join(" "),
        })
    }
}

/// The entries on `volume`, in the order of the menu.
pub(crate) fn entries(volume: &Volume, directory: &str) -> Vec<Entry> {
    let mut names = volume.list(directory);
    names.retain(|name| name.ends_with(".conf"));
    names.sort();
    names.truncate(MAX_ENTRIES);
    let read = |name: String| {
        let bytes = volume.read(&format!("{directory}/{name}"), MAX_CONFIG).ok()?;
        Some(Entry::parse(&name, &String::from_utf8_lossy(&bytes)))
    };
    let mut entries: Vec<Entry> = names.into_iter().filter_map(read).collect();
    entries.sort_by(order);
    entries
}

/// The specification's order: with a sort key before without, newer versions before older.
fn order(a: &Entry, b: &Entry) -> Ordering {
    let newer = |a: &str, b: &str| version_order(b, a);
    a.sort_key.is_empty().cmp(&b.sort_key.is_empty()).then_with(|| {
        if a.sort_key.is_empty() {
            return newer(&a.id, &b.id);
        }
        let keys = a.sort_key.cmp(&b.sort_key).then_with(|| a.machine_id.cmp(&b.machine_id));
        keys.then_with(|| newer(&a.version, &b.version)).then_with(|| newer(&a.id, &b.id))
    })
}

/// Compares versions: runs of digits as numbers, the rest as text.
fn version_order(a: &str, b: &str) -> Ordering {
    fn parts(text: &str) -> Vec<(bool, &str)> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let digit = first.is_ascii_digit();
            let end = rest.find(|c: char| c.is_ascii_digit() != digit).unwrap_or(rest.len());
            parts.push((digit, &rest[..end]));
            rest = &rest[end..];
        }
        parts
    }
    let (a, b) = (parts(a), parts(b));
    for (a, b) in a.iter().zip(&b) {
        let order = match (a, b) {
            ((true, a), (true, b)) => {
                let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
                a.len().cmp(&b.len()).then_with(|| a.cmp(b))
            }
            ((_, a), (_, b)) => a.cmp(b),
        };
        if order.is_ne() {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

/// The entries on a volume, and which is the default by `loader.conf`.
pub(crate) fn read(volume: &Volume, index: usize) -> Config {
    let settings = volume.read("/loader/loader.conf", MAX_CONFIG).unwrap_or_default();
    config(entries(volume, ENTRIES), &String::from_utf8_lossy(&settings), index)
}

fn config(entries: Vec<Entry>, settings: &str, volume: usize) -> Config {
    let pattern = settings.lines().find_map(|line| line.trim().strip_prefix("default"));
    let pattern = pattern.filter(|rest| rest.starts_with(char::is_whitespace)).map_or("", str::trim);
    let mut config = Config::default();
    let mut default = None;
    for entry in entries {
        match entry.candidate(volume) {
            Ok(candidate) => {
                if glob(pattern, &entry.id) || glob(pattern, &format!("{}.conf", entry.id)) {
                    default.get_or_insert(config.entries.len());
                }
                config.entries.push(candidate);
            }
            Err(problem) => config.problems.push(problem),
        }
    }
    config.default = default.unwrap_or(0);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_and_sorted() {
        let mut entries = vec![
            Entry::parse("old-6.9.conf", "title Old\nlinux /a\nversion 6.9\nsort-key d\n"),
            Entry::parse(
                "z.conf",
                "linux /z\n# comment\noptions a\noptions  b c \ninitrd /i\ninitrd /j\ndevicetree /d\n",
            ),
            Entry::parse(
                "new-6.10+3-1.conf",
                "title New\nlinux new\nversion 6.10\nsort-key d\narchitecture riscv64",
            ),
            Entry::parse("x86.conf", "linux /x\narchitecture x64"),
            Entry::parse("efi.conf", "efi /shell.efi"),
        ];
        entries.sort_by(order);
        let ids: Vec<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
        assert_eq!(ids, ["new-6.10", "old-6.9", "z", "x86", "efi"]);
        let config = config(entries, "timeout 3\ndefault old-*\n", 2);
        assert_eq!(config.default, 1);
        assert_eq!(config.entries[0].titles, ["New (6.10)"]);
        assert_eq!(config.entries[0].kernel, Place { volume: 2, path: "/new".into() });
        assert_eq!(config.entries[2].options, "a b c");
        assert_eq!(config.entries[2].initrds.len(), 2);
        assert_eq!(config.entries[2].devicetree.as_ref().unwrap().path, "/d");
        assert_eq!(config.problems, ["entry `x86` is for x64", "entry `efi` names no kernel with `linux`"]);
    }

    #[test]
    fn only_counters_are_cut_off_names() {
        assert_eq!(Entry::parse("a-6.12+deb13.conf", "").id, "a-6.12+deb13");
        assert_eq!(Entry::parse("a-6.12+deb13+2.conf", "").id, "a-6.12+deb13");
        assert_eq!(Entry::parse("a+3-1.conf", "").id, "a");
    }

    #[test]
    fn versions_count() {
        assert_eq!(version_order("6.9", "6.10"), Ordering::Less);
        assert_eq!(version_order("6.10", "6.10.1"), Ordering::Less);
        assert_eq!(version_order("6.010", "6.10"), Ordering::Equal);
        assert_eq!(version_order("b", "a"), Ordering::Greater);
    }

    #[test]
    fn ten_thousand_mistakes_do_no_harm() {
        let text = "title Linux\nversion 6.10\nlinux /a\ninitrd /b\ninitrd /c\noptions ro quiet\narchitecture riscv64\nsort-key x\n";
        let pieces = [
            "linux",
            "options ",
            "\n",
            "+3-1",
            "+",
            "\0",
            "é",
            "version 99999999999999999999",
            "default *",
            "#",
            "sort-key ",
        ];
        crate::loader::mistakes::ten_thousand(text, &pieces, &mut |text| {
            let name = text.lines().next_back().unwrap_or_default();
            let mut entries =
                vec![Entry::parse(name, text), Entry::parse("b+1.conf", text), Entry::parse("a", "linux /k")];
            entries.sort_by(order);
            let config = config(entries, text, 0);
            assert!(config.default < config.entries.len().max(1));
            assert!(config.entries.iter().all(|entry| entry.kernel.path.starts_with('/')));
        });
    }
}

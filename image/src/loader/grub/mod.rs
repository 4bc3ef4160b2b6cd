//! GRUB's `grub.cfg`: the menu that its script makes, and what each entry would start.
//!
//! The script is run, as GRUB runs it on EFI for RISC-V, up to where it would show the menu; then the block of each entry
//! is run on a copy of that state. Commands that only change the screen do nothing; nothing is ever written, so `save_env`
//! does nothing either.

mod run;
mod syntax;
mod test_command;

use super::{Candidate, Config, MAX_CONFIG};
use crate::fs::{FsError, Stat};
use crate::volumes::{Place, Volumes};

/// Where `grub.cfg` is by GRUB's own rule and by the habits of distributions.
pub(crate) const PATHS: &[&str] =
    &["/boot/grub/grub.cfg", "/grub/grub.cfg", "/boot/grub2/grub.cfg", "/grub2/grub.cfg"];

/// Where each distribution has its own directory on an EFI system partition.
pub(crate) const EFI: &str = "/EFI";

/// What the script sees of the disk.
pub(crate) trait Files {
    /// A file's contents.
    fn read(&self, place: &Place) -> Result<Vec<u8>, FsError>;
    /// What is at a place.
    fn stat(&self, place: &Place) -> Result<Stat, FsError>;
    /// The volume that GRUB calls `name`.
    fn by_name(&self, name: &str) -> Option<usize>;
    /// What GRUB calls a volume.
    fn name(&self, volume: usize) -> String;
    /// The first volume for which `wanted` holds of its label, identifier and index.
    fn search(&self, wanted: &dyn Fn(&str, &str, usize) -> bool) -> Option<usize>;
    /// The label, identifier and kind of a volume.
    fn about(&self, volume: usize) -> (String, String, String);
    /// The entries in `directory` that follow the Boot Loader Specification.
    fn loader_entries(&self, volume: usize, directory: &str) -> Vec<super::systemd_boot::Entry>;
}

impl Files for Volumes {
    fn read(&self, place: &Place) -> Result<Vec<u8>, FsError> {
        self.get(place.volume).read(&place.path, MAX_CONFIG)
    }

    fn stat(&self, place: &Place) -> Result<Stat, FsError> {
        self.get(place.volume).stat(&place.path)
    }

    fn by_name(&self, name: &str) -> Option<usize> {
        self.by_grub_name(name)
    }

    fn name(&self, volume: usize) -> String {
        self.get(volume).grub_name()
    }

    fn search(&self, wanted: &dyn Fn(&str, &str, usize) -> bool) -> Option<usize> {
        self.iter()
            .find(|(index, volume)| wanted(volume.label(), volume.uuid(), *index))
            .map(|(index, _)| index)
    }

    fn about(&self, volume: usize) -> (String, String, String) {
        let volume = self.get(volume);
        (volume.label().into(), volume.uuid().into(), volume.kind().to_lowercase())
    }

    fn loader_entries(&self, volume: usize, directory: &str) -> Vec<super::systemd_boot::Entry> {
        super::systemd_boot::entries(self.get(volume), directory)
    }
}

/// A line of a menu.
#[derive(Debug)]
struct Node {
    title: String,
    id: Option<String>,
    what: What,
}

#[derive(Debug)]
enum What {
    Entry(Candidate),
    Menu(Vec<Node>),
    /// It starts no Linux kernel, and why.
    Nothing(String),
}

/// Runs the configuration at `at`.
pub(crate) fn read(files: &dyn Files, at: &Place) -> Config {
    let (nodes, default, mut problems) = run::menu(files, at);
    let mut config = Config::default();
    let chosen = find(&nodes, &default).or_else(|| nodes.first());
    let mut first = None;
    flatten(&nodes, &[], chosen, &mut first, &mut config);
    config.default = first.unwrap_or(0);
    problems.append(&mut config.problems);
    config.problems = problems;
    config
}

/// The line that `choice` names: by number from 0, identifier or title; lines of submenus after `>`.
fn find<'a>(nodes: &'a [Node], choice: &str) -> Option<&'a Node> {
    // `>>` is a `>` in a title, which nobody writes: the first single one splits.
    let (first, rest) = choice.split_once('>').map_or((choice, None), |(first, rest)| (first, Some(rest)));
    let named = |node: &&Node| node.id.as_deref() == Some(first) || node.title == first;
    let by_number = || nodes.get(first.trim().parse::<usize>().ok()?);
    let node = nodes.iter().find(named).or_else(by_number)?;
    match (&node.what, rest) {
        (What::Menu(nodes), Some(rest)) => find(nodes, rest),
        _ => Some(node),
    }
}

/// Appends what can be started; `first` becomes the index of the first such line in or after `chosen`.
fn flatten(
    nodes: &[Node],
    above: &[&str],
    chosen: Option<&Node>,
    first: &mut Option<usize>,
    config: &mut Config,
) {
    for node in nodes {
        if chosen.is_some_and(|chosen| std::ptr::eq(chosen, node)) {
            *first = Some(config.entries.len());
        }
        let titles = [above, &[&node.title]].concat();
        match &node.what {
            What::Entry(candidate) => {
                let titles = titles.iter().map(|title| (*title).to_owned()).collect();
                config.entries.push(Candidate { titles, id: node.id.clone(), ..candidate.clone() });
            }
            What::Menu(nodes) => flatten(nodes, &titles, chosen, first, config),
            What::Nothing(problem) => config.problems.push(format!("entry `{}` {problem}", node.title)),
        }
    }
}

#[cfg(test)]
mod tests;

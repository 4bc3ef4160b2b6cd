//! `hartvm qemu …`, and hartvm under the name `qemu-system-riscv64`: QEMU's command lines.
//!
//! [`table`] lists the options; each row says what it takes and what it becomes. What they ask for is gathered in a [`Guest`],
//! which in the end is written as the flags of `hartvm run` ([`Guest::flags`]), so that there is one way to a machine.
//! `-translate` prints those instead of running.
//!
//! Nothing is ignored in silence: an option or a value has an effect, or is known to change nothing here, which its row says,
//! or is refused with the nearest thing that works.

mod basics;
mod devices;
mod options;
mod table;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use anyhow::Result;
use clap::Parser;

use crate::cli::{Cli, Command, RunArgs};
use crate::commas::doubled;
use crate::{Usage, run};
use table::{Becomes, Row, TABLE};

/// The name under which hartvm is QEMU.
const NAME: &str = "qemu-system-riscv64";

/// Whether a program started as `argv0` is to take QEMU's command line.
pub(crate) fn is_qemu(argv0: &std::ffi::OsStr) -> bool {
    Path::new(argv0).file_stem().is_some_and(|stem| stem == NAME)
        || Path::new(argv0).file_name().is_some_and(|name| name == NAME)
}

/// Why an argument is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    what: String,
    instead: String,
}

impl Refusal {
    fn new(what: impl Into<String>, instead: impl Into<String>) -> Self {
        Self { what: what.into(), instead: instead.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.instead)
    }
}

impl From<Refusal> for Usage {
    fn from(refusal: Refusal) -> Self {
        Usage(refusal.to_string())
    }
}

/// What the options so far ask for.
#[derive(Debug, Default)]
pub(super) struct Guest {
    /// Flags of `hartvm run` of which the last one counts.
    set: BTreeMap<&'static str, Option<String>>,
    /// Flags that add up, in order.
    added: Vec<(&'static str, String)>,
    /// The disk that is booted for want of anything else.
    image: Option<String>,
    devices: devices::Devices,
    /// Categories of `-d`, and the file of `-D`.
    log: (Vec<&'static str>, Option<String>),
    /// `-S`: wait for a debugger.
    wait: bool,
    /// Print something and do nothing else.
    print: Option<String>,
    translate: bool,
}

impl Guest {
    fn set(&mut self, flag: &'static str, value: impl Into<String>) {
        self.set.insert(flag, Some(value.into()));
    }

    fn switch(&mut self, flag: &'static str) {
        self.set.insert(flag, None);
    }

    /// The arguments of `hartvm run` that say the same.
    fn flags(mut self) -> Result<Vec<String>, Refusal> {
        // What QEMU has if nothing is said.
        self.set.entry("--memory").or_insert_with(|| Some("128M".into()));
        self.set.entry("--cpus").or_insert_with(|| Some("1".into()));
        let (categories, file) = std::mem::take(&mut self.log);
        match (categories.is_empty(), file) {
            (true, Some(_)) => {
                return Err(Refusal::new(
                    "-D names a log file, but nothing is logged",
                    "add -d in_asm or another item",
                ));
            }
            (true, None) => {}
            (false, file) => {
                self.set(
                    "--trace",
                    categories.join(",") + &file.map(|file| format!(":{file}")).unwrap_or_default(),
                );
            }
        }
        if self.wait {
            if !self.set.contains_key("--gdb") {
                return Err(Refusal::new(
                    "-S stops the machine before its first instruction, and there is no monitor to let it go on",
                    "add -s or -gdb tcp::PORT and continue from gdb",
                ));
            }
            self.switch("--gdb-wait");
        }
        if self.set.contains_key("--append") && !self.set.contains_key("--kernel") {
            return Err(Refusal::new("-append is for a kernel", "name one with -kernel"));
        }
        let devices = std::mem::take(&mut self.devices);
        devices.flags(&mut self)?;
        let mut flags = Vec::new();
        // Before the flags, where it cannot be taken for a value.
        if let Some(image) = self.image {
            let like_a_flag = image.starts_with('-');
            flags.push(if like_a_flag { format!("./{image}") } else { image });
        }
        let added = self.added.into_iter().map(|(flag, value)| (flag, Some(value)));
        for (flag, value) in self.set.into_iter().chain(added) {
            match value {
                // So that it is not taken for a flag.
                Some(value) if value.starts_with('-') => flags.push(format!("{flag}={value}")),
                value => {
                    flags.push(flag.to_owned());
                    flags.extend(value);
                }
            }
        }
        Ok(flags)
    }
}

/// Reads a command line of QEMU, without the program's name.
fn parse(arguments: &[OsString]) -> Result<Guest, Refusal> {
    let mut guest = Guest::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let text = utf8(argument)?;
        // An argument that is no option is a disk.
        let Some(name) = text.strip_prefix('-').filter(|name| !name.is_empty()) else {
            devices::drive(&mut guest, &format!("index=0,media=disk,file={}", doubled(text)))?;
            continue;
        };
        let name = name.strip_prefix('-').unwrap_or(name);
        let row = find(name)?;
        let value = match row.takes {
            "" => "",
            takes => match arguments.next() {
                Some(value) => utf8(value)?,
                None => {
                    return Err(Refusal::new(
                        format!("-{name} needs a value"),
                        format!("want -{name} {takes}"),
                    ));
                }
            },
        };
        match row.becomes {
            Becomes::Does(act) => act(&mut guest, value)?,
            Becomes::Nothing => {}
            Becomes::Refused => {
                return Err(Refusal::new(format!("-{name} has no meaning here"), row.about));
            }
        }
    }
    Ok(guest)
}

fn utf8(argument: &OsString) -> Result<&str, Refusal> {
    argument.to_str().ok_or_else(|| {
        Refusal::new(format!("{argument:?} is not UTF-8"), "rename the file, or use `hartvm run`")
    })
}

fn find(name: &str) -> Result<&'static Row, Refusal> {
    if let Some(row) = TABLE.iter().find(|row| row.names.contains(&name)) {
        return Ok(row);
    }
    let names = TABLE.iter().flat_map(|row| row.names);
    let near =
        names.map(|known| (distance(name, known), *known)).min().filter(|(distance, _)| *distance <= 2);
    let instead = match near {
        Some((_, known)) => format!("perhaps -{known}"),
        None => "`hartvm qemu -help` lists what there is".into(),
    };
    Err(Refusal::new(format!("-{name} is no option that is known here"), instead))
}

/// How many letters have to be put in, left out or changed to make one of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The flags of `hartvm run` for a command line, or the text that it asks for.
fn translate(arguments: &[OsString]) -> Result<Result<RunArgs, String>> {
    let guest = parse(arguments).map_err(Usage::from)?;
    if let Some(text) = guest.print {
        return Ok(Err(text));
    }
    let print = guest.translate;
    let flags = guest.flags().map_err(Usage::from)?;
    if print {
        let quoted: Vec<String> = flags.iter().map(|flag| shell(flag)).collect();
        return Ok(Err(format!("hartvm run {}\n", quoted.join(" "))));
    }
    let arguments = ["hartvm", "run"].into_iter().map(String::from).chain(flags);
    match Cli::try_parse_from(arguments).map(|cli| cli.command) {
        Ok(Command::Run(args)) => Ok(Ok(*args)),
        Ok(_) => Err(Usage("only guests can be run".into()).into()),
        Err(error) => {
            // Its first paragraph: the rest is about how to write flags that nobody wrote.
            let text = error.to_string();
            let text = text.split("\n\n").next().unwrap_or_default();
            Err(Usage(text.trim_start_matches("error: ").to_owned()).into())
        }
    }
}

/// A word as a shell reads it back.
fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Runs QEMU's command line, without the program's name.
pub(crate) fn qemu(arguments: &[OsString]) -> Result<u8> {
    if arguments.is_empty() {
        return Err(Usage(
            "there is nothing to boot: name a kernel, firmware or disk, such as\n  \
             hartvm qemu -machine virt -m 2G -nographic -kernel linux -initrd initrd.gz -append console=ttyS0\n\
             `hartvm qemu -help` lists the options"
                .into(),
        )
        .into());
    }
    match translate(arguments)? {
        Ok(args) => run::run(&args),
        Err(text) => {
            print!("{text}");
            Ok(0)
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

//! `--uefi CODE[,vars=FILE][,snapshot]`: which images are in the flash, and where UEFI variables are kept.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use machine::Flash;
use machine::devices::cfi_flash::SIZE;
use machine::disk::{DiskOptions, Format};

use crate::{Usage, commas};

const WANT: &str = "want CODE[,vars=FILE|none][,snapshot], such as --uefi RISCV_VIRT_CODE.fd (a comma in a name is written `,,`)";

/// What the user said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Uefi {
    code: PathBuf,
    vars: Vars,
    /// Forget at the end what was written to the variables.
    snapshot: bool,
}

/// Where UEFI variables are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Vars {
    /// Beside a disk.
    Default,
    /// Nowhere.
    None,
    File(PathBuf),
}

impl Uefi {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = commas::split(text).into_iter();
        let code = parts
            .next()
            .filter(|code| !code.is_empty())
            .ok_or_else(|| format!("no file is named; {WANT}"))?;
        let mut uefi = Self { code: code.into(), vars: Vars::Default, snapshot: false };
        for part in parts {
            match part.split_once('=') {
                Some(("vars", "none")) => uefi.vars = Vars::None,
                Some(("vars", file)) if !file.is_empty() => uefi.vars = Vars::File(file.into()),
                None if part == "snapshot" => uefi.snapshot = true,
                _ => return Err(format!("`{part}` is no option of it; {WANT}")),
            }
        }
        Ok(uefi)
    }

    /// The contents of the flash. Variables that the user gave no file for are kept beside the first of `disks` that the
    /// guest may change, or else not at all; a file that is not there is made, and where they are kept is said in one line
    /// unless `quiet`.
    ///
    /// # Errors
    /// When a file that is needed cannot be read or made.
    pub(crate) fn flash(&self, disks: &[DiskOptions], quiet: bool) -> Result<Flash> {
        check_code(&self.code)?;
        let template = template(&self.code);
        let beside = || {
            let disk = disks.iter().find(|disk| !disk.read_only && !disk.snapshot)?;
            // A block device has no directory of its own for it.
            let regular = disk.path.metadata().is_ok_and(|metadata| metadata.is_file());
            let mut name = disk.path.as_os_str().to_owned();
            name.push(".vars.fd");
            regular.then(|| PathBuf::from(name))
        };
        let file = match &self.vars {
            Vars::Default => beside(),
            Vars::None => None,
            Vars::File(file) => Some(file.clone()),
        };
        let vars = match file {
            Some(file) => {
                let made = !file.exists();
                if made {
                    make(&file, template.as_deref()).with_context(|| {
                        format!("--uefi: cannot make {} for UEFI variables", file.display())
                    })?;
                }
                if !quiet {
                    let made = if made { " (new)" } else { "" };
                    eprintln!("hartvm: UEFI variables are kept in {}{made}", file.display());
                }
                Some(DiskOptions { snapshot: self.snapshot, ..raw(file) })
            }
            None => {
                if !quiet && self.vars != Vars::None {
                    eprintln!(
                        "hartvm: UEFI variables are forgotten at the end; keep them with --uefi CODE,vars=FILE"
                    );
                }
                template.map(|file| DiskOptions { snapshot: true, ..raw(file) })
            }
        };
        Ok(Flash { code: raw(self.code.clone()), vars })
    }
}

fn raw(path: PathBuf) -> DiskOptions {
    DiskOptions { format: Some(Format::Raw), ..DiskOptions::new(path) }
}

/// Says early, and with a remedy, what would come out as a disk's error later.
fn check_code(code: &Path) -> Result<()> {
    const REMEDY: &str = "name EDK2's code for the `virt` board, such as /usr/share/qemu-efi-riscv64/RISCV_VIRT_CODE.fd \
                          of Debian's package qemu-efi-riscv64";
    let metadata =
        code.metadata().with_context(|| format!("--uefi: cannot read {}; {REMEDY}", code.display()))?;
    if metadata.is_file() && (metadata.len() == 0 || metadata.len() > SIZE) {
        return Err(Usage(format!(
            "--uefi: {} has {} bytes, want {SIZE} at most; {REMEDY}",
            code.display(),
            metadata.len()
        ))
        .into());
    }
    Ok(())
}

/// The variable store that a package ships beside the code.
fn template(code: &Path) -> Option<PathBuf> {
    let name = code.file_name()?.to_str()?;
    let vars = [("CODE", "VARS"), ("code", "vars")]
        .into_iter()
        .filter(|(from, _)| name.contains(from))
        .map(|(from, to)| code.with_file_name(name.replace(from, to)));
    vars.into_iter()
        .find(|vars| vars.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() <= SIZE))
}

/// Makes a variable store as large as a bank: a copy of `template`, or blank. It has its name only once it is whole.
fn make(path: &Path, template: Option<&Path>) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let made = fill(&temporary, template).and_then(|()| std::fs::rename(&temporary, path));
    if made.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    made
}

fn fill(path: &Path, template: Option<&Path>) -> std::io::Result<()> {
    let mut file = File::options().write(true).create_new(true).open(path)?;
    match template {
        Some(template) => {
            let mut template = File::open(template)?;
            let mut piece = vec![0; 64 << 10];
            let mut offset = 0;
            loop {
                let length = template.read(&mut piece)?;
                if length == 0 {
                    break;
                }
                // What is only zeros stays a hole.
                if piece[..length].iter().any(|&byte| byte != 0) {
                    file.write_all_at(&piece[..length], offset)?;
                }
                offset += length as u64;
            }
            file.set_len(offset.max(512).next_multiple_of(512))?;
        }
        None => {
            let erased = vec![0xff; 1 << 20];
            for _ in 0..SIZE / erased.len() as u64 {
                file.write_all(&erased)?;
            }
        }
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_variables() {
        let uefi = |code: &str, vars, snapshot| Ok(Uefi { code: code.into(), vars, snapshot });
        assert_eq!(Uefi::parse("a.fd"), uefi("a.fd", Vars::Default, false));
        assert_eq!(Uefi::parse("a,,b.fd,vars=c,,d"), uefi("a,b.fd", Vars::File("c,d".into()), false));
        assert_eq!(Uefi::parse("a,vars=none,snapshot"), uefi("a", Vars::None, true));
        for text in ["", ",vars=a", "a,vars=", "a,b", "a,size=3"] {
            assert!(Uefi::parse(text).is_err_and(|error| error.contains("vars=FILE")), "{text}");
        }
    }

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("hartvm-uefi-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_store_is_made_once_from_the_packages_template() {
        let dir = directory("made");
        let mut bytes = vec![0; 200 << 10];
        bytes[70 << 10] = 7;
        std::fs::write(dir.join("X_CODE.fd"), [1; 512]).unwrap();
        std::fs::write(dir.join("X_VARS.fd"), &bytes).unwrap();
        std::fs::write(dir.join("disk"), [0; 512]).unwrap();
        let uefi = Uefi { code: dir.join("X_CODE.fd"), vars: Vars::Default, snapshot: false };
        let disk = DiskOptions::new(dir.join("disk"));

        let flash = uefi.flash(std::slice::from_ref(&disk), true).unwrap();
        let store = dir.join("disk.vars.fd");
        assert_eq!(flash.vars.unwrap().path, store);
        assert_eq!(std::fs::read(&store).unwrap(), bytes);
        std::fs::write(&store, [9; 512]).unwrap();
        uefi.flash(std::slice::from_ref(&disk), true).unwrap();
        assert_eq!(std::fs::read(&store).unwrap(), [9; 512], "a store that is there is left alone");

        // A disk that forgets has variables that are forgotten.
        let snapshot = DiskOptions { snapshot: true, ..disk };
        let vars = uefi.flash(&[snapshot], true).unwrap().vars.unwrap();
        assert!(vars.snapshot && vars.path == dir.join("X_VARS.fd"));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn without_a_template_the_store_is_erased_flash() {
        let dir = directory("blank");
        std::fs::write(dir.join("firmware"), [1; 512]).unwrap();
        let uefi = Uefi { code: dir.join("firmware"), vars: Vars::File(dir.join("vars")), snapshot: false };
        uefi.flash(&[], true).unwrap();
        let bytes = std::fs::read(dir.join("vars")).unwrap();
        assert!(bytes.len() as u64 == SIZE && bytes.iter().all(|&byte| byte == 0xff));
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 2, "nothing is left over");
        assert_eq!(Uefi { vars: Vars::None, ..uefi }.flash(&[], true).unwrap().vars, None);
        std::fs::remove_dir_all(dir).unwrap();
    }
}

//! `hartvm image`: disk images without a guest.

use std::fmt::Write as _;

use anyhow::Result;
use machine::disk::Format;
use machine::disk::image::{self, Compression, Findings, Info};

use crate::Usage;
use crate::cli::{Change, ImageCommand};

/// Carries out one of the subcommands; returns the exit code.
pub(crate) fn run(command: &ImageCommand) -> Result<u8> {
    match command {
        ImageCommand::Info { file, format } => {
            print!("{}", describe(&image::info(file, format.map(Into::into))?))
        }
        ImageCommand::Create { file, size, format, backing, backing_format } => {
            let format = format.map_or(Format::Qcow2, Into::into);
            if format == Format::Raw && backing.is_some() {
                return Err(Usage(
                    "--backing: only a qcow2 image has a backing file; leave --format out".into(),
                )
                .into());
            }
            if size.is_none() && backing.is_none() {
                return Err(Usage("SIZE: say how large the image is to be, such as 16G".into()).into());
            }
            let backing = backing.as_deref().map(|backing| (backing, backing_format.map(Into::into)));
            let size = image::create(file, format, *size, backing)?;
            println!("{}: {} image of {size} bytes", file.display(), format.name());
        }
        ImageCommand::Resize { file, size, shrink, format } => {
            let format = format.map(Into::into);
            let size = match size {
                Change::To(size) => *size,
                Change::By(more) => {
                    let now = image::info(file, format)?.size;
                    now.checked_add(*more).ok_or_else(|| Usage("SIZE: that is too much".into()))?
                }
            };
            let size = image::resize(file, format, size, *shrink)?;
            println!("{}: {size} bytes", file.display());
        }
        ImageCommand::Check { file, repair } => return Ok(report(image::check(file, *repair)?.as_ref())),
    }
    Ok(0)
}

fn describe(info: &Info) -> String {
    let mut text = format!("format:          {}\n", info.format.name());
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{:<16} {value}", format!("{name}:"));
    };
    line("size", format!("{} bytes ({})", info.size, human(info.size)));
    line("on the host", format!("{} bytes ({})", info.allocated, human(info.allocated)));
    if let Some((name, place)) = &info.backing {
        line("backing file", format!("{name} ({})", place.display()));
    }
    if let Some(facts) = &info.qcow2 {
        line("version", facts.version.to_string());
        line("cluster size", facts.cluster_size.to_string());
        let compression = if facts.compression == Compression::Zstd { "zstd" } else { "zlib" };
        line("compression", compression.to_string());
        line("refcounts", format!("{} bits", facts.refcount_bits));
        if facts.dirty {
            line("state", "not closed properly; repaired when it is written next".into());
        }
        if facts.corrupt {
            line("state", "marked as broken; see `hartvm image check`".into());
        }
        for snapshot in &facts.snapshots {
            line("snapshot", format!("{} {}", snapshot.id, snapshot.name));
        }
    }
    text
}

/// Says what a check has found. 0 if all is well now, else 1.
fn report(findings: Option<&Findings>) -> u8 {
    let Some(findings) = findings else {
        println!("a raw image has nothing that could be wrong");
        return 0;
    };
    for message in &findings.messages {
        println!("{message}");
    }
    println!(
        "{} errors, {} leaked clusters, {} repaired",
        findings.errors, findings.leaks, findings.repaired
    );
    u8::from(!findings.is_clean())
}

/// A size in the largest unit of which there is one.
fn human(bytes: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let power = (bytes.max(1).ilog2() / 10).min(5);
    let value = bytes as f64 / (1_u64 << (10 * power)) as f64;
    if power == 0 { format!("{bytes} bytes") } else { format!("{value:.1} {}", units[power as usize]) }
}

//! Why a file could not be loaded. Each message names the file, what is wrong with it, and what would be right.

use std::ops::Range;
use std::path::{Path, PathBuf};

/// Why a file could not be loaded into guest memory.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be opened or read.
    #[error("cannot read `{}`", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the host says.
        source: std::io::Error,
    },
    /// It is a directory, socket or something else without contents.
    #[error("`{}` is not a regular file", file.display())]
    NotAFile {
        /// The file.
        file: PathBuf,
    },
    /// It has no bytes.
    #[error("`{}` is empty", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
    },
    /// It, or what it unpacks to, is larger than could ever fit.
    #[error("`{}` does not fit into guest RAM: it {what} more than {limit} bytes; give the guest more with -m", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// "has", "unpacks to" and the like.
        what: &'static str,
        /// The limit, in bytes.
        limit: u64,
    },
    /// It is something else than what can be loaded.
    #[error("`{}` is {found}; {expected}", file.display())]
    WrongKind {
        /// The file.
        file: PathBuf,
        /// What it is.
        found: String,
        /// What would be right.
        expected: &'static str,
    },
    /// It is of the right kind, but broken.
    #[error("`{}` is damaged or truncated: {reason}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Its addresses are not in RAM.
    #[error(
        "`{}` does not fit into guest RAM: it takes {:#x} to {:#x}, and RAM is {:#x} to {:#x}; {}",
        file.display(), taken.start, taken.end, ram.start, ram.end, does_not_fit_hint(taken, ram)
    )]
    DoesNotFit {
        /// The file.
        file: PathBuf,
        /// The physical addresses it takes.
        taken: Range<u64>,
        /// The physical addresses of RAM.
        ram: Range<u64>,
    },
    /// Its addresses are those of something else.
    #[error(
        "`{}` takes {:#x} to {:#x} in guest RAM, which overlaps {other} at {:#x} to {:#x}",
        file.display(), taken.start, taken.end, other_taken.start, other_taken.end
    )]
    Overlap {
        /// The file.
        file: PathBuf,
        /// The physical addresses it takes.
        taken: Range<u64>,
        /// What is there already.
        other: String,
        /// The physical addresses of that.
        other_taken: Range<u64>,
    },
}

fn does_not_fit_hint(taken: &Range<u64>, ram: &Range<u64>) -> &'static str {
    if ram.contains(&taken.start) {
        "give the guest more with -m"
    } else {
        "it has to be linked for addresses in RAM"
    }
}

/// Makes errors about one file.
#[derive(Clone, Copy)]
pub(crate) struct About<'a>(pub(crate) &'a Path);

impl About<'_> {
    pub(crate) fn wrong_kind(self, found: impl Into<String>, expected: &'static str) -> LoadError {
        LoadError::WrongKind { file: self.0.into(), found: found.into(), expected }
    }

    pub(crate) fn damaged(self, reason: impl Into<String>) -> LoadError {
        LoadError::Damaged { file: self.0.into(), reason: reason.into() }
    }

    pub(crate) fn too_large(self, what: &'static str, limit: u64) -> LoadError {
        LoadError::TooLarge { file: self.0.into(), what, limit }
    }
}

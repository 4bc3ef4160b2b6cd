//! What a user can see of the engines at work: [`stats`] counts what happened, [`perf`] tells the host's profiler what the
//! generated code is, and [`log`] writes down what is translated and why generated code is left.

pub mod log;
pub mod perf;
pub mod stats;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use log::{Category, Log, LogConfig};
use perf::{Perf, PerfFormat};

/// A file that is asked for cannot be written.
#[derive(Debug)]
pub struct OpenError {
    /// The flag that asks for it.
    pub flag: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: cannot write {}", self.flag, self.path.display())
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// What is written down while a machine runs. Clones share the same files; the default is nothing.
#[derive(Clone, Default)]
pub struct Inspect {
    perf: Option<Arc<Perf>>,
    log: Option<Arc<Log>>,
}

impl Inspect {
    /// Opens the files that are asked for.
    ///
    /// # Errors
    /// The file that cannot be written, and why.
    pub fn open(perf: Option<PerfFormat>, log: Option<&LogConfig>) -> Result<Self, OpenError> {
        let error = |flag| move |(path, source)| OpenError { flag, path, source };
        Ok(Self {
            perf: perf.map(Perf::create).transpose().map_err(error("--perf"))?.map(Arc::new),
            log: log.map(Log::create).transpose().map_err(error("--log"))?.map(Arc::new),
        })
    }

    /// What tells `perf` of code, if it is to be told.
    pub fn perf(&self) -> Option<&Perf> {
        self.perf.as_deref()
    }

    /// The log, if it is to have one of these categories. Whoever may write to it keeps this, so that what is off costs a
    /// test for `None`.
    pub fn log(&self, categories: &[Category]) -> Option<Arc<Log>> {
        self.log.clone().filter(|log| categories.iter().any(|&category| log.has(category)))
    }
}

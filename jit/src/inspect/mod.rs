//! What a user can see of the engines at work: [`stats`] counts what happened, [`perf`] tells the host's profiler what the
//! generated code is, and [`log`] writes down what is translated and why generated code is left.

pub mod log;
pub mod perf;
pub mod stats;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use log::{Category, Log, LogConfig};
use perf::{Perf, PerfFormat};

/// What is written down while a machine runs. Clones share the same files; the default is nothing.
#[derive(Clone, Default)]
pub struct Inspect {
    pub(crate) perf: Option<Arc<Perf>>,
    log: Option<Arc<Log>>,
}

impl Inspect {
    /// Opens the files that are asked for.
    ///
    /// # Errors
    /// The file that cannot be written, and why.
    pub fn open(perf: Option<PerfFormat>, log: Option<&LogConfig>) -> Result<Self, (PathBuf, io::Error)> {
        Ok(Self {
            perf: perf.map(Perf::create).transpose()?.map(Arc::new),
            log: log.map(Log::create).transpose()?.map(Arc::new),
        })
    }

    /// The log, if it is to have one of these categories. Whoever may write to it keeps this, so that what is off costs a
    /// test for `None`.
    pub fn log(&self, categories: &[Category]) -> Option<Arc<Log>> {
        self.log.clone().filter(|log| categories.iter().any(|&category| log.has(category)))
    }
}

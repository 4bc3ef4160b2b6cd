//! What a user can see of the machine at work: [`stats`] counts what the engines did, [`coverage`] what of the instruction set
//! was executed, [`perf`] tells the host's profiler what the generated code is, and [`trace`] writes down what happens, with
//! names of guest code from [`symbols`].

pub mod coverage;
pub mod perf;
pub mod stats;
pub mod symbols;
pub mod trace;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use perf::{Perf, PerfFormat};
use symbols::Symbols;
use trace::{Category, Trace, TraceConfig};

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
    trace: Option<Arc<Trace>>,
    counts_host: bool,
}

impl Inspect {
    /// Opens the files that are asked for. A trace names code by `symbols`.
    ///
    /// # Errors
    /// The file that cannot be written, and why.
    pub fn open(
        perf: Option<PerfFormat>,
        trace: Option<&TraceConfig>,
        symbols: &Arc<Symbols>,
    ) -> Result<Self, OpenError> {
        let error = |flag| move |(path, source)| OpenError { flag, path, source };
        Ok(Self {
            perf: perf.map(Perf::create).transpose().map_err(error("--perf"))?.map(Arc::new),
            trace: trace
                .map(|config| Trace::create(config, symbols))
                .transpose()
                .map_err(error("--trace"))?
                .map(Arc::new),
            counts_host: false,
        })
    }

    /// Has generated code count the instructions of the host that it executes, if `yes`.
    #[must_use]
    pub fn count_host(self, yes: bool) -> Self {
        Self { counts_host: yes, ..self }
    }

    /// Whether it does.
    pub fn counts_host(&self) -> bool {
        self.counts_host
    }

    /// What tells `perf` of code, if it is to be told.
    pub fn perf(&self) -> Option<&Perf> {
        self.perf.as_deref()
    }

    /// The trace, if it is to have one of these categories. Whoever may write to it keeps this, so that what is off costs a
    /// test for `None`.
    pub fn trace(&self, categories: &[Category]) -> Option<Arc<Trace>> {
        self.trace.clone().filter(|trace| categories.iter().any(|&category| trace.has(category)))
    }

    /// The machine goes away: nothing is traced any more.
    pub fn finish(&self) {
        if let Some(trace) = &self.trace {
            trace.finish();
        }
    }
}

//! The guest profiler: where the harts are, asked about a thousand times a second.
//!
//! A thread of its own counts the milliseconds for each hart and sets its poll word; it never waits for a hart,
//! and does not wake one that sleeps. A hart that finds milliseconds counted for it when it polls takes down its call chain
//! (`hart/sample.rs`) with that weight: a hart that slept, with all the time that it slept. So a count is a millisecond of
//! a hart, and a sample costs the hart a poll and a walk along its stack.
//!
//! Generated code polls at jumps only, but says which jump it was. Time is therefore charged to the function whose jump, or
//! return, came next after the millisecond: exact for what runs longer than a few instructions.

mod flame;
mod fold;

pub(crate) use fold::mode_name;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jit::inspect::symbols::Symbols;
use parking_lot::Mutex;
use softmmu::Privilege;

use crate::hart::shared::HartShared;

/// Between two samples; also the unit of their weight.
const TICK: Duration = Duration::from_millis(1);
/// Distinct call chains kept for each hart, some 25 MiB at most. What comes after that is counted by function alone.
const MAX_STACKS: usize = 1 << 15;
/// The same for what is counted after that.
const MAX_LEAVES: usize = 1 << 16;

/// How a profile is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileFormat {
    /// A line for each call chain, its functions separated by semicolons, and its count: what flame graph tools read.
    Folded,
    /// A flame graph for browsers.
    Svg,
}

/// The files that a profile is written to. Plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileConfig {
    files: Vec<(ProfileFormat, PathBuf)>,
}

/// `FILE[,FILE...]`, where the end of each name says the format.
impl FromStr for ProfileConfig {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let file = |name: &str| match Path::new(name).extension().and_then(|end| end.to_str()) {
            Some("folded") => Ok((ProfileFormat::Folded, name.into())),
            Some("svg") => Ok((ProfileFormat::Svg, name.into())),
            _ => Err(format!(
                "`{name}` does not say the format; want a name that ends in .svg (flame graph) or .folded (text)"
            )),
        };
        Ok(Self { files: text.split(',').map(file).collect::<Result<_, _>>()? })
    }
}

/// Where a hart was: its privilege mode, whether it waited in WFI, and addresses from the innermost function outwards. The
/// first address is an instruction, the others are return addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Stack {
    pub(crate) mode: Privilege,
    pub(crate) waits: bool,
    pub(crate) addresses: Box<[u64]>,
}

/// How long harts were where, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    stacks: HashMap<Stack, u64>,
    /// Counts of what there was no room for.
    lost: u64,
}

impl Samples {
    pub(crate) fn add(&mut self, stack: Stack, weight: u64) {
        let limit = MAX_STACKS;
        self.insert(stack, weight, limit);
    }

    fn insert(&mut self, stack: Stack, weight: u64, limit: usize) {
        if let Some(count) = self.stacks.get_mut(&stack) {
            *count += weight;
        } else if self.stacks.len() < limit {
            self.stacks.insert(stack, weight);
        } else if limit < MAX_LEAVES {
            let leaf = stack.addresses.first().map(|address| address & !0xf);
            self.insert(Stack { addresses: leaf.into_iter().collect(), ..stack }, weight, MAX_LEAVES);
        } else {
            self.lost += weight;
        }
    }

    fn merge(&mut self, other: Samples) {
        for (stack, weight) in other.stacks {
            *self.stacks.entry(stack).or_default() += weight;
        }
        self.lost += other.lost;
    }
}

/// What harts sample for, and where it all goes in the end.
pub(crate) struct Profiler {
    pub(crate) symbols: Arc<Symbols>,
    samples: Mutex<Samples>,
    files: Vec<(ProfileFormat, PathBuf, File)>,
}

/// A profile cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("--profile: cannot write {}", path.display())]
pub struct ProfileError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl Profiler {
    /// Makes the files, so that it shows at once if that is impossible.
    pub(crate) fn create(config: &ProfileConfig, symbols: &Arc<Symbols>) -> Result<Self, ProfileError> {
        let open = |(format, path): &(ProfileFormat, PathBuf)| match File::create(path) {
            Ok(file) => Ok((*format, path.clone(), file)),
            Err(source) => Err(ProfileError { path: path.clone(), source }),
        };
        let files = config.files.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { symbols: Arc::clone(symbols), samples: Mutex::default(), files })
    }

    /// A hart's thread ends, with these samples.
    pub(crate) fn add(&self, samples: Samples) {
        self.samples.lock().merge(samples);
    }

    /// Writes the files.
    pub(crate) fn write(&self) -> Result<(), ProfileError> {
        let folded = fold::fold(&self.samples.lock(), &self.symbols);
        for (format, path, file) in &self.files {
            let text = match format {
                ProfileFormat::Folded => fold::text(&folded),
                ProfileFormat::Svg => flame::svg(&folded),
            };
            let mut file = file;
            file.write_all(text.as_bytes()).map_err(|source| ProfileError { path: path.clone(), source })?;
        }
        Ok(())
    }
}

/// The thread that asks for samples, for as long as this exists.
pub(crate) struct Sampler {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    pub(crate) fn start(harts: &[Arc<HartShared>]) -> io::Result<Self> {
        let stop: Arc<AtomicBool> = Arc::default();
        let (stopped, harts) = (Arc::clone(&stop), harts.to_vec());
        let thread = std::thread::Builder::new().name("profiler".into()).spawn(move || {
            let mut last = Instant::now();
            let mut ends = false;
            while !ends {
                std::thread::park_timeout(TICK);
                // What passed before the end is counted, too.
                ends = stopped.load(Ordering::Acquire);
                // The host may be late, and then makes up for it.
                let ticks = last.elapsed().as_millis() as u32;
                if ticks > 0 {
                    last += TICK * ticks;
                    harts.iter().for_each(|hart| hart.ask_sample(ticks));
                }
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic there has printed itself.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_name_says_the_format() {
        let parsed: ProfileConfig = "a.svg,b.c.folded".parse().expect("right");
        let files = [(ProfileFormat::Svg, "a.svg".into()), (ProfileFormat::Folded, "b.c.folded".into())];
        assert_eq!(parsed.files, files);
        for text in ["", "a", "a.svg,", "a.txt", ".svg", "svg"] {
            let error = text.parse::<ProfileConfig>().expect_err("wrong");
            assert!(error.contains(".folded"), "{text}: {error}");
        }
    }

    #[test]
    fn chains_beyond_the_limit_are_counted_by_their_innermost_function_and_then_as_lost() {
        let mut samples = Samples::default();
        let stack = |address: u64| Stack {
            mode: Privilege::User,
            waits: false,
            addresses: [address, 0x1000 + address].into(),
        };
        let many = (MAX_STACKS + MAX_LEAVES) as u64;
        (0..many).for_each(|number| samples.add(stack(number * 0x100), 1));
        samples.add(stack(0), 1);
        assert_eq!(samples.stacks.len(), MAX_LEAVES);
        assert_eq!(samples.stacks[&stack(0)], 2);
        assert_eq!(samples.stacks.values().sum::<u64>() + samples.lost, many + 1);
        assert!(samples.lost > 0);
    }
}

//! `hartvm test`: self-checking programs of the riscv-tests kind, in parallel.
//!
//! A program reports by a store to its symbol `tohost`: 1 is success, any other odd value is failure of test
//! `value >> 1`. The first word of its file name, such as `rv64ui`, names what it tests.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use machine::console::Sink;
use machine::{Config, Coverage, Firmware, GuestMemory, Machine, Running};

use crate::Usage;
use crate::cli::{Engine, TestArgs};

/// RAM of a test machine. The programs use a few MiB; memory is only taken when touched.
const MEMORY: u64 = 256 << 20;
/// How often the monitor looks at `tohost`.
const LOOK: Duration = Duration::from_micros(500);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Pass,
    Fail(u64),
    TimedOut,
    /// The program could not be started.
    Error(String),
}

/// Runs the programs and returns whether all of them passed.
pub(crate) fn test(args: &TestArgs) -> Result<bool> {
    if args.coverage && args.engine != Engine::Interp {
        let error = "--coverage: only the interpreter counts what is executed; leave --engine out";
        return Err(Usage(error.into()).into());
    }
    let programs = find_programs(&args.paths)?;
    let jobs = match args.jobs {
        Some(jobs) => usize::from(jobs),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let next = AtomicUsize::new(0);
    let (send, receive) = mpsc::channel();
    let mut outcomes = vec![Outcome::TimedOut; programs.len()];
    let coverage = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(programs.len()) {
            let (send, next, programs, coverage) = (send.clone(), &next, &programs, &coverage);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(program) = programs.get(index) else { break };
                    let outcome = run_one(program, args, coverage)
                        .unwrap_or_else(|error| Outcome::Error(format!("{error:#}")));
                    if send.send((index, outcome)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        let mut progress = Progress::new(programs.len());
        for (index, outcome) in receive {
            progress.one_done(outcome == Outcome::Pass);
            outcomes[index] = outcome;
        }
        progress.clear();
    });
    let passed = report(&programs, &outcomes);
    if let Some(coverage) = coverage.into_inner().unwrap_or_default() {
        println!("\n{coverage}");
    }
    Ok(passed)
}

/// ELF files named directly, and those found in the directories named.
fn find_programs(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut programs = Vec::new();
    for path in paths {
        let kind = std::fs::metadata(path).map_err(|error| {
            anyhow!("cannot read `{}`: {error}; name a test program or a directory of them", path.display())
        })?;
        if !kind.is_dir() {
            programs.push(path.clone());
            continue;
        }
        let before = programs.len();
        let entries =
            std::fs::read_dir(path).with_context(|| format!("{}: cannot be listed", path.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("{}: cannot be listed", path.display()))?.path();
            if path.is_file() && is_elf(&path) {
                programs.push(path);
            }
        }
        if programs.len() == before {
            bail!("{}: has no ELF file in it; name a directory of test programs", path.display());
        }
        programs[before..].sort();
    }
    Ok(programs)
}

fn is_elf(path: &Path) -> bool {
    use std::io::Read;
    let mut magic = [0; 4];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

/// Runs a program, and adds what it executed to `coverage`, if that is wanted.
fn run_one(program: &Path, args: &TestArgs, coverage: &Mutex<Option<Coverage>>) -> Result<Outcome> {
    if family(program).starts_with("rv32") {
        bail!("is a 32-bit program; hartvm's harts are 64-bit: use the rv64 build of it");
    }
    let bytes = firmware::read_file(program, MEMORY)?;
    if !bytes.starts_with(b"\x7fELF") {
        bail!("is not an ELF file; name a test program as riscv-tests builds them");
    }
    let tohost = firmware::elf::symbol(&bytes, "tohost")
        .context("has no symbol `tohost`, so it cannot report; build it as riscv-tests does")?;
    let config = Config {
        memory: MEMORY,
        cpu: args.cpu.parse()?,
        kernel: Some(program.into()),
        firmware: Firmware::None,
        engine: args.engine.into(),
        coverage: args.coverage,
        ..Config::default()
    };
    let machine = Machine::build(config, Sink::null())?;
    let memory = machine.memory().clone();
    let running = machine.start()?;
    let outcome = watch(&running, &memory, tohost, args.timeout);
    drop(running);
    if let (Some(counts), Ok(mut sum)) = (machine.coverage(), coverage.lock()) {
        match &mut *sum {
            Some(sum) => sum.merge(counts),
            None => *sum = Some(counts),
        }
    }
    outcome
}

/// Waits for what a program says in `tohost`, for `limit` seconds at most.
fn watch(running: &Running<'_>, memory: &GuestMemory, tohost: u64, limit: u64) -> Result<Outcome> {
    let deadline = Instant::now() + Duration::from_secs(limit);
    while Instant::now() < deadline {
        let mut word = [0; 8];
        memory.read(tohost, &mut word).ok().context("`tohost` is not in RAM")?;
        match u64::from_le_bytes(word) {
            0 => {}
            1 => return Ok(Outcome::Pass),
            value if value & 1 == 1 => return Ok(Outcome::Fail(value >> 1)),
            value => bail!(
                "asked the host for service {value:#x}, which only `tohost` = 2*code+1 is understood of"
            ),
        }
        if running.power().wait_for(LOOK).is_some() {
            bail!("ended the machine without a report to `tohost`");
        }
    }
    Ok(Outcome::TimedOut)
}

/// `rv64ui` of `rv64ui-p-add`.
fn family(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    name.split('-').next().unwrap_or_default().to_string()
}

/// Prints failures and the table, and returns whether everything passed.
fn report(programs: &[PathBuf], outcomes: &[Outcome]) -> bool {
    let mut table: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (program, outcome) in programs.iter().zip(outcomes) {
        let row = table.entry(family(program)).or_default();
        let name = program.display();
        match outcome {
            Outcome::Pass => row.0 += 1,
            Outcome::Fail(test) => println!("{name}: FAILED test {test}"),
            Outcome::TimedOut => println!("{name}: TIMED OUT"),
            Outcome::Error(error) => println!("{name}: {error}"),
        }
        row.1 += usize::from(*outcome != Outcome::Pass);
    }
    println!("{:<16}{:>8}{:>8}", "family", "passed", "failed");
    for (family, (passed, failed)) in &table {
        println!("{family:<16}{passed:>8}{failed:>8}");
    }
    let passed: usize = table.values().map(|row| row.0).sum();
    let failed: usize = table.values().map(|row| row.1).sum();
    println!("{passed} passed, {failed} failed");
    failed == 0
}

/// A line on the terminal that says how far the run is.
struct Progress {
    shown: bool,
    total: usize,
    done: usize,
    failed: usize,
}

impl Progress {
    fn new(total: usize) -> Self {
        Self { shown: std::io::stderr().is_terminal(), total, done: 0, failed: 0 }
    }

    fn one_done(&mut self, passed: bool) {
        self.done += 1;
        self.failed += usize::from(!passed);
        if self.shown {
            eprint!("\r{}/{} done, {} failed", self.done, self.total, self.failed);
            let _ = std::io::stderr().flush();
        }
    }

    fn clear(&self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}

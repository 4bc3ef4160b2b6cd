//! What guest code costs, on each engine: the parts one by one, and whole programs. See README.md.

mod program;
mod ratios;

use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput};
use firmware::elf::symbol;
use jit::EngineKind;
use machine::clock::TIMEBASE_FREQUENCY;
use machine::console::Sink;
use machine::{Config, Firmware, GuestMemory, Machine, Running};
use ratios::Ratios;

const ENGINES: [(&str, EngineKind); 2] = [("interp", EngineKind::Interp), ("jit", EngineKind::Jit)];

const NANOSECONDS_PER_TICK: u64 = 1_000_000_000 / TIMEBASE_FREQUENCY;

/// What is measured: a benchmark of `programs/`, under which group, and how many of what is counted there are in a round. 0: the
/// guest says how many instructions it took.
struct Part {
    group: &'static str,
    name: &'static str,
    times: u64,
}

const fn part(group: &'static str, name: &'static str, times: u64) -> Part {
    Part { group, name, times }
}

#[rustfmt::skip]
const PARTS: &[Part] = &[
    // Instructions; the loop adds two to sixteen.
    part("generated code", "alu", 18), part("generated code", "immediate", 18), part("generated code", "bits", 18),
    part("generated code", "multiply", 18), part("generated code", "divide", 18), part("generated code", "load", 18),
    part("generated code", "store", 18), part("generated code", "branch", 26), part("generated code", "float", 18),
    part("generated code", "float-divide", 18), part("generated code", "float-convert", 18),
    part("generated code", "amo", 18), part("generated code", "lr-sc", 18), part("generated code", "csr", 18),
    part("generated code", "fence", 18),
    // Loads.
    part("memory", "tlb-hit", 2048), part("memory", "tlb-miss", 2048), part("memory", "tlb-fill", 64),
    // Calls, of two indirect jumps each; blocks.
    part("control", "jump-hit", 16), part("control", "jump-miss", 16), part("control", "linked-loop", 16),
    // One of them.
    part("system", "mmio-read", 16), part("system", "virtio", 256), part("system", "trap-sret", 16),
    part("system", "context-switch", 32),
    // Instructions.
    part("programs", "sieve", 0), part("programs", "sort", 0), part("programs", "matrix", 0), part("programs", "hash", 0),
    part("programs", "interpreter", 0),
];

/// Pairs whose times are compared: what is slow, what is fast.
const PAIRS: &[(&str, &str)] =
    &[("tlb-miss", "tlb-hit"), ("tlb-fill", "tlb-hit"), ("jump-miss", "jump-hit"), ("trap-sret", "jump-hit")];

/// Offsets in the guest's mailbox (`programs/guest.rs`).
mod mailbox {
    pub(crate) const REQUEST: u64 = 0;
    pub(crate) const COMMAND: u64 = 8;
    pub(crate) const ROUNDS: u64 = 16;
    pub(crate) const BATCHES: u64 = 24;
    pub(crate) const ANSWER: u64 = 32;
    pub(crate) const INSTRUCTIONS: u64 = 40;
    pub(crate) const TIME: u64 = 48;
    pub(crate) const SHORTEST: u64 = 56;
}

/// What a guest says of some batches of rounds.
struct Took {
    instructions: u64,
    all: Duration,
    shortest: Duration,
}

impl Took {
    /// Seconds that one of `count` things took, which are a batch.
    fn each(&self, count: u64) -> f64 {
        self.shortest.as_secs_f64() / count as f64
    }
}

/// A guest that waits for requests in its mailbox.
struct Guest<'a> {
    running: Running<'a>,
    memory: GuestMemory,
    mailbox: u64,
    requests: u64,
    names: Vec<String>,
}

impl<'a> Guest<'a> {
    fn start(machine: &'a Machine, elf: &[u8]) -> Self {
        let find = |name| symbol(elf, name).expect("the guest has this symbol");
        let running = machine.start().expect("the machine starts");
        let memory = machine.memory().clone();
        let mut names = [0; 4096];
        memory.read(find("NAMES"), &mut names).expect("RAM");
        let end = names.iter().position(|&byte| byte == 0).expect("an end");
        let names =
            String::from_utf8(names[..end].to_vec()).expect("text").lines().map(str::to_string).collect();
        Self { running, memory, mailbox: find("MAILBOX"), requests: 0, names }
    }

    fn get(&self, offset: u64) -> u64 {
        let mut bytes = [0; 8];
        self.memory.read(self.mailbox + offset, &mut bytes).expect("RAM");
        u64::from_le_bytes(bytes)
    }

    fn set(&self, offset: u64, value: u64) {
        self.memory.write(self.mailbox + offset, &value.to_le_bytes()).expect("RAM");
    }

    /// Has the guest carry out batches of rounds of a benchmark.
    fn run(&mut self, name: &str, rounds: u64, batches: u64) -> Took {
        const LIMIT: Duration = Duration::from_secs(120);
        let command =
            self.names.iter().position(|known| known == name).expect("the guest has this benchmark");
        self.set(mailbox::COMMAND, command as u64);
        self.set(mailbox::ROUNDS, rounds);
        self.set(mailbox::BATCHES, batches);
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.requests += 1;
        let start = Instant::now();
        self.set(mailbox::REQUEST, self.requests);
        while self.get(mailbox::ANSWER) != self.requests {
            assert!(
                start.elapsed() < LIMIT && self.running.power().wait_for(Duration::ZERO).is_none(),
                "{name}"
            );
            std::thread::sleep(Duration::from_micros(20));
        }
        let ticks = |offset| Duration::from_nanos(self.get(offset) * NANOSECONDS_PER_TICK);
        Took {
            instructions: self.get(mailbox::INSTRUCTIONS),
            all: ticks(mailbox::TIME),
            shortest: ticks(mailbox::SHORTEST),
        }
    }
}

impl Guest<'_> {
    /// As [`Self::run`], after batches that do not count.
    fn take(&mut self, name: &str, rounds: u64, batches: u64) -> Took {
        self.run(name, rounds, WARM_UP);
        self.run(name, rounds, batches)
    }
}

fn machine(kind: EngineKind, elf: &std::path::Path) -> Machine {
    let config = Config {
        memory: 64 << 20,
        cpu: "max".parse().expect("a CPU model"),
        firmware: Firmware::None,
        kernel: Some(elf.into()),
        engine: kind,
        ..Config::default()
    };
    Machine::build(config, Sink::null()).expect("the machine can be built")
}

fn main() {
    let path = program::build();
    let elf = std::fs::read(&path).expect("the guest has just been built");
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .sample_size(30)
        .configure_from_args();
    let mut ratios = Ratios::default();
    let machines = ENGINES.map(|(_, kind)| machine(kind, &path));
    for part in PARTS {
        let mut group = criterion.benchmark_group(format!("{}/{}", part.group, part.name));
        group.sampling_mode(SamplingMode::Flat);
        for ((engine, _), machine) in ENGINES.iter().zip(&machines) {
            let count = match part.times {
                0 => Guest::start(machine, &elf).run(part.name, 1, 1).instructions,
                times => times,
            };
            group.throughput(Throughput::Elements(count));
            // Only what the filter has chosen is run.
            let mut rounds = None;
            group.bench_function(*engine, |bencher| {
                bencher.iter_custom(|iterations| {
                    // How well the host predicts jumps is settled when the code is first run, and may be otherwise the next time.
                    let mut guest = Guest::start(machine, &elf);
                    let rounds = *rounds.get_or_insert_with(|| batch(&mut guest, part.name));
                    let took = guest.take(part.name, rounds, iterations);
                    ratios.note(part.group, part.name, engine, took.each(rounds * count));
                    took.all / rounds as u32
                });
            });
            // Where other load has spoilt most starts, there are more.
            let Some(rounds) = rounds else { continue };
            for _ in 0..MORE_STARTS {
                if ratios.is_settled(part.name, engine) {
                    break;
                }
                let took = Guest::start(machine, &elf).take(part.name, rounds, MORE_BATCHES);
                ratios.note(part.group, part.name, engine, took.each(rounds * count));
            }
        }
        group.finish();
    }
    criterion.final_summary();
    ratios.print(PAIRS);
}

/// Batches that are run before time counts: the first rounds are translated.
const WARM_UP: u64 = 4;

/// More starts than criterion asks for, at most, and the batches of each.
const MORE_STARTS: usize = 100;
const MORE_BATCHES: u64 = 300;

/// How many rounds are a batch: they take long enough for the clock, and are over before the host is likely to do something
/// else in between.
fn batch(guest: &mut Guest<'_>, name: &str) -> u64 {
    const ENOUGH: Duration = Duration::from_micros(50);
    let mut rounds = 1;
    while guest.run(name, rounds, WARM_UP).shortest < ENOUGH {
        rounds *= 2;
    }
    rounds
}

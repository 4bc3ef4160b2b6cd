//! Two engines in lockstep: random guest programs that each run on two harts, one interpreted and one translated, which
//! must agree on every register, every CSR and every byte of memory at each trap and at the end.
//!
//! `HARTVM_LOCKSTEP_SECONDS` says how long to look (20 if unset), and `HARTVM_LOCKSTEP_FROM` from which seed on: always the same
//! one if unset, so that what one machine has found good is not refused by another; long searches start somewhere else. A failure
//! prints the seed of its session, which `HARTVM_LOCKSTEP_SEED` replays, and the program, reduced to what is needed to fail.
#![cfg(any(target_arch = "x86_64", target_arch = "aarch64"))] // Elsewhere there is no backend: every engine is the interpreter.

#[path = "../harness/mod.rs"]
mod harness;

mod arena;
mod assembly;
mod layout;
mod pair;
mod program;
mod random;
mod rewrite;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jit::EngineKind;
use pair::Pair;
use program::Program;
use random::Random;

/// Programs of a session: they run one after the other on the same machines.
const PROGRAMS: u64 = 12;
/// How long a session may take before it is taken to hang.
const PATIENCE: Duration = Duration::from_secs(300);
/// Attempts to make a failing program smaller.
const ATTEMPTS: usize = 3000;

/// A session that hangs cannot say so itself.
#[derive(Default)]
struct Watch {
    seed: AtomicU64,
    sessions: AtomicU64,
    done: AtomicBool,
}

#[test]
fn engines_agree_on_random_programs() {
    if let Ok(seed) = std::env::var("HARTVM_LOCKSTEP_SEED") {
        let seed = seed.parse().expect("HARTVM_LOCKSTEP_SEED is a decimal number");
        return session("replay", seed).unwrap_or_else(|report| panic!("{report}"));
    }
    let seconds = match std::env::var("HARTVM_LOCKSTEP_SECONDS") {
        Ok(seconds) => seconds.parse().expect("HARTVM_LOCKSTEP_SECONDS is a number of seconds"),
        Err(_) => 20,
    };
    let end = Instant::now() + Duration::from_secs(seconds);
    let first: u64 = match std::env::var("HARTVM_LOCKSTEP_FROM") {
        Ok(seed) => seed.parse().expect("HARTVM_LOCKSTEP_FROM is a decimal number"),
        Err(_) => 1,
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let watches: Vec<Watch> = (0..threads).map(|_| Watch::default()).collect();
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (thread, watch) in watches.iter().enumerate() {
            let failed = &failed;
            scope.spawn(move || {
                let name = format!("random{thread}");
                let mut seed = first.wrapping_add(thread as u64 * 1_000_000_007);
                while Instant::now() < end && !failed.load(Ordering::Relaxed) {
                    seed += 1;
                    watch.seed.store(seed, Ordering::Relaxed);
                    if let Err(report) = session(&name, seed) {
                        failed.store(true, Ordering::Relaxed);
                        eprintln!("{report}");
                    }
                    watch.sessions.fetch_add(1, Ordering::Relaxed);
                }
                watch.done.store(true, Ordering::Relaxed);
            });
        }
        supervise(&watches, &failed);
    });
    let sessions: u64 = watches.iter().map(|watch| watch.sessions.load(Ordering::Relaxed)).sum();
    println!("{} programs agree", sessions * PROGRAMS);
    assert!(!failed.load(Ordering::Relaxed), "engines disagree; see above");
}

/// Ends the process if a session hangs: neither the guest nor its thread can be stopped.
fn supervise(watches: &[Watch], failed: &AtomicBool) {
    let mut seen: Vec<(u64, Instant)> = watches.iter().map(|_| (0, Instant::now())).collect();
    while !watches.iter().all(|watch| watch.done.load(Ordering::Relaxed)) {
        std::thread::sleep(Duration::from_millis(50));
        for (watch, (sessions, since)) in watches.iter().zip(&mut seen) {
            let now = watch.sessions.load(Ordering::Relaxed);
            if now != *sessions {
                (*sessions, *since) = (now, Instant::now());
            } else if since.elapsed() > PATIENCE
                && !failed.load(Ordering::Relaxed)
                && !watch.done.load(Ordering::Relaxed)
            {
                eprintln!("HARTVM_LOCKSTEP_SEED={} hangs", watch.seed.load(Ordering::Relaxed));
                std::process::exit(1);
            }
        }
    }
}

/// The engine of a seed's session: one whose blocks are as long as they can be, or one whose blocks depend on what was executed
/// before, which after some programs at the same addresses is anything.
fn engine(seed: u64) -> EngineKind {
    if seed.is_multiple_of(2) { EngineKind::Cramped } else { EngineKind::Jit }
}

/// Runs the programs of a seed on two fresh machines.
fn session(name: &str, seed: u64) -> Result<(), String> {
    let mut random = Random::new(seed);
    let engine = engine(seed);
    let mut pair = Pair::new(name, engine);
    for number in 0..PROGRAMS {
        let program = Program::generate(&mut random);
        if let Err(difference) = pair.run(&program) {
            return Err(format!(
                "HARTVM_LOCKSTEP_SEED={seed}, program {number}: {difference}\n{}",
                reduce(name, engine, program)
            ));
        }
    }
    Ok(())
}

/// The program, with everything taken out that is not needed to make it fail on fresh machines.
fn reduce(name: &str, engine: EngineKind, mut program: Program) -> String {
    let fails = |program: &Program| Pair::new(name, engine).run(program).err();
    let Some(mut difference) = fails(&program) else {
        return format!("by itself it does not fail\n{}", program.listing());
    };
    let mut attempts = 0;
    let mut chunk = program.len().next_power_of_two() / 2;
    while chunk > 0 {
        let mut removed = false;
        for start in (0..program.len()).step_by(chunk) {
            attempts += 1;
            if attempts > ATTEMPTS {
                break;
            }
            let Some(smaller) = program.without(start..start + chunk) else { continue };
            if let Some(now) = fails(&smaller) {
                (program, difference, removed) = (smaller, now, true);
            }
        }
        if !removed || attempts > ATTEMPTS {
            chunk /= 2;
        }
    }
    format!("reduced, it fails so: {difference}\n{}", program.listing())
}

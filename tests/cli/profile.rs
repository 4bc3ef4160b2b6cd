//! The profiler.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use frontend::Opcode;
use frontend::encode::Operands;
use rustix::process::Signal;

use crate::guest::{Program, RA, RAM, S0, S1, SP};
use crate::support::{Dir, Running, bare, refused};

/// A program that prints a dot and then spends its time in functions, for ever, and the addresses of those. `main` calls
/// `work`, which has a stack frame and calls `busy`, where nearly all the time goes; and `straight`, a tenth of `busy`, which
/// has no loop, no frame and no call. Another hart would sleep.
fn program() -> (Vec<u8>, Vec<(&'static str, u64)>) {
    let mut program = Program::new();
    let mut names = vec![("start", RAM)];
    let start = program.branch_forward(Opcode::Beq, 0, 0);

    let busy = program.here();
    names.push(("busy", busy.address()));
    program.li(S1, 2000);
    let top = program.here();
    program.addi(10, 10, 1).addi(S1, S1, -1).branch(Opcode::Bne, S1, 0, top).ret();

    let straight = program.here();
    names.push(("straight", straight.address()));
    for _ in 0..600 {
        program.addi(10, 10, 1);
    }
    program.ret();

    let work = program.here();
    names.push(("work", work.address()));
    program.addi(SP, SP, -16);
    program.insn(Opcode::Sd, Operands { rs1: SP, rs2: RA, imm: 8, ..Operands::default() });
    program.insn(Opcode::Sd, Operands { rs1: SP, rs2: S0, ..Operands::default() });
    program.addi(S0, SP, 16).call(busy);
    program.insn(Opcode::Ld, Operands { rd: RA, rs1: SP, imm: 8, ..Operands::default() });
    program.insn(Opcode::Ld, Operands { rd: S0, rs1: SP, ..Operands::default() });
    program.addi(SP, SP, 16).ret();

    program.land(start);
    names.push(("main", program.here().address()));
    program.li(SP, RAM + 0x10_0000).addi(S0, 0, 0).print(".");
    let top = program.here();
    program.call(work).call(straight).jump(top);
    names.push(("end", program.here().address()));
    (program.binary(), names)
}

/// Runs the program for a while and returns the profile: chains and their counts, which are milliseconds. Not one is lost.
fn profile(dir: &Dir, engine: &str, files: &[PathBuf]) -> BTreeMap<String, u64> {
    let (binary, names) = program();
    let map: String = names.iter().map(|(name, address)| format!("{address:016x} T {name}\n")).collect();
    let (program, map) = (dir.file("program", &binary), dir.file("System.map", map.as_bytes()));
    let folded = dir.path("profile.folded");
    let all: Vec<_> = files.iter().chain([&folded]).map(|file| file.display().to_string()).collect();
    let mut command = bare(&program);
    command.args(["--engine", engine, "--profile", &all.join(","), "--symbols"]).arg(map);
    let running = Running::start(&mut command);
    running.wait_for_output(1);
    // On a busy machine the hart is seldom on a processor, and what it does while it is not is always the same.
    let start = Instant::now();
    running.wait_for_cpu(1.0);
    let lasted = start.elapsed().as_millis();
    running.signal(Signal::TERM);
    let outcome = running.finish();
    assert_eq!((outcome.code(), outcome.stderr.as_str()), (128 + 15, ""));
    let text = std::fs::read_to_string(folded).unwrap();
    let line = |line: &str| {
        let (chain, count) = line.rsplit_once(' ').unwrap();
        (chain.to_string(), count.parse().unwrap())
    };
    let chains: BTreeMap<String, u64> = text.lines().map(line).collect();
    let total: u64 = chains.values().sum();
    assert!(u128::from(total) >= lasted, "{total} of {lasted} ms: {chains:?}");
    chains
}

#[test]
fn the_busy_function_is_on_top_with_its_callers() {
    // When the host stops for a while, all of that is charged to where the hart stood: such a profile is no judge.
    const ATTEMPTS: usize = 10;
    for engine in ["jit", "interp"] {
        let mut wrong = Vec::new();
        while wrong.len() < ATTEMPTS {
            let chains = profile(&Dir::new(), engine, &[]);
            if has_its_time_where_it_is_spent(&chains) {
                break;
            }
            wrong.push(chains);
        }
        assert!(wrong.len() < ATTEMPTS, "{engine}: {wrong:?}");
    }
}

/// Whether a profile of [`program`] shows what the program does.
fn has_its_time_where_it_is_spent(chains: &BTreeMap<String, u64>) -> bool {
    let total: u64 = chains.values().sum();
    let part = |chain: &str| *chains.get(chain).unwrap_or(&0) as f64 / total as f64;
    let (busy, straight) = (part("machine;main;work;busy"), part("machine;main;straight"));
    let most = chains.values().all(|count| *count as f64 <= busy * total as f64);
    // `straight` cannot be left out because there is no jump in it but the return.
    busy > 0.6 && most && (0.01..0.3).contains(&straight)
}

#[test]
fn a_flame_graph_has_the_same_functions() {
    let dir = Dir::new();
    let svg = dir.path("profile.svg");
    let chains = profile(&dir, "jit", std::slice::from_ref(&svg));
    let total: u64 = chains.values().sum();
    let svg = std::fs::read_to_string(svg).unwrap();
    assert!(svg.starts_with("<?xml ") && svg.ends_with("</svg>\n"));
    for text in [
        format!("{total} ms of all harts"),
        format!("<title>all ({total} ms, 100.00%)</title>"),
        "data-name=\"busy\"".into(),
    ] {
        assert!(svg.contains(&text), "no {text} in {svg}");
    }
}

#[test]
fn time_asleep_is_charged_to_what_sleeps() {
    let dir = Dir::new();
    let program = dir.file("program", &crate::guest::sleeper("."));
    let folded = dir.path("profile.folded");
    let mut command = bare(&program);
    let running = Running::start(command.arg("--profile").arg(&folded));
    running.wait_for_output(1);
    // Much longer than it can take to fall asleep.
    std::thread::sleep(Duration::from_secs(4));
    running.signal(Signal::TERM);
    assert_eq!(running.finish().code(), 128 + 15);
    let text = std::fs::read_to_string(folded).unwrap();
    let line = text.lines().find(|line| line.contains("[wfi]")).unwrap_or_else(|| panic!("{text}"));
    let (chain, count) = line.rsplit_once(' ').unwrap();
    assert_eq!(chain, "machine;[0x80000000];[wfi]");
    assert!(count.parse::<u64>().unwrap() > 200, "{text}");
}

#[test]
fn wrong_files_are_refused() {
    let dir = Dir::new();
    let file = |name: &str, bytes: &[u8]| dir.file(name, bytes).display().to_string();
    let program = file("program", &program().0);
    let run = ["run", "--firmware", "none", "--kernel", &program];
    let with = |args: &[&str], code, words: &[&str]| refused(&[&run[..], args].concat(), code, words);
    with(&["--profile", "a.txt"], 2, &["a.txt", ".svg", ".folded"]);
    with(&["--profile", "/nonexistent/a.svg"], 1, &["--profile: cannot write /nonexistent/a.svg"]);
    with(&["--symbols", "map@x"], 2, &["`x`", "0x400000"]);
    with(&["--symbols", "/nonexistent"], 1, &["--symbols: ", "/nonexistent"]);
    for (name, bytes) in [
        ("text", &b"hello world\n"[..]),
        ("zeros", b"0000000000000000 T name\n"),
        ("data", b"0000000000001000 D name\n"),
        ("elf", b"\x7fELF\x02\x01\x01"),
    ] {
        let path = file(name, bytes);
        with(&["--symbols", &path], 1, &["--symbols: ", &path]);
    }
    assert!(!Path::new("a.txt").exists());
}

//! Looking inside: counts, and what `perf` is told.

use std::path::Path;

use frontend::Opcode;
use frontend::encode::Operands;

use crate::guest::{Program, RAM, S0, S1};
use crate::support::{Dir, Outcome, bare, refused, run};

/// Rounds of the loop in [`looper`], and instructions in each.
const ROUNDS: u64 = 100_000;
const ROUND: u64 = 3;

/// Whether this host runs generated code.
pub(crate) const GENERATES: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// Goes round a loop, calls a helper, traps once, and exits.
pub(crate) fn looper() -> Vec<u8> {
    let mut program = Program::new();
    program.li(S0, ROUNDS).li(S1, 0);
    let top = program.here();
    program.addi(S1, S1, 3).addi(S0, S0, -1).branch(Opcode::Bne, S0, 0, top);
    // The handler is what comes next; a0 is not 0 there.
    program.li(10, RAM + 0x1000);
    program.insn(Opcode::Csrrw, Operands { rs1: 10, imm: 0x305, ..Operands::default() });
    program.insn(Opcode::Ecall, Operands::default());
    let mut handler = Program::new();
    handler.exit(7);
    program.data(RAM + 0x1000, &handler.binary());
    program.binary()
}

pub(crate) fn look(dir: &Dir, args: &[&str]) -> Outcome {
    let program = dir.file("program", &looper());
    let outcome = run(bare(&program).args(args));
    assert_eq!(outcome.code(), 7, "{}", outcome.stderr);
    outcome
}

/// The number in the row of a table.
fn row(table: &str, name: &str) -> u64 {
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {table}"));
    let digits: String =
        line.trim_start().chars().take_while(|c| !c.is_whitespace()).filter(|&c| c != ',').collect();
    digits.parse().unwrap_or_else(|_| panic!("{line}"))
}

#[test]
fn stats_tell_who_executed_what() {
    let dir = Dir::new();
    for engine in ["interp", "jit", "eager"] {
        let table = look(&dir, &["--stats", "--engine", engine]).stderr;
        let total = row(&table, "guest instructions retired");
        let parts = (row(&table, "by generated code"), row(&table, "by the interpreter"));
        assert!(total > ROUNDS * ROUND && parts.0 + parts.1 == total, "{table}");
        assert_eq!(table.contains("entries into generated code"), GENERATES && engine != "interp", "{table}");
        if GENERATES && engine != "interp" {
            assert!(parts.0 > ROUNDS * ROUND * 9 / 10, "{table}");
            let exits: u64 = ["dispatch", "link", "trap", "interpret", "stale", "poll"]
                .map(|cause| row(&table, &format!("left: {cause}")))
                .into_iter()
                .sum();
            assert_eq!(exits, row(&table, "entries into generated code"), "{table}");
            assert!(row(&table, "blocks translated") > 0 && row(&table, "bytes of host code") > 0, "{table}");
        }
        if GENERATES && engine == "eager" {
            assert_eq!(row(&table, "Ecall"), 1, "{table}");
        }
        assert_eq!(look(&dir, &["--engine", engine]).stderr, "");
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn loops_that_wander_from_page_to_page_are_found() {
    const PAGE: u64 = 4096;
    let dir = Dir::new();
    for (step, wanders) in [(8, 0), (PAGE, 1)] {
        let mut program = Program::new();
        program.li(S0, 4000).li(S1, RAM + PAGE);
        let top = program.here();
        program.insn(Opcode::Andi, Operands { rd: 11, rs1: S0, imm: 15, ..Operands::default() });
        let shift = i64::from(step.ilog2());
        program.insn(Opcode::Slli, Operands { rd: 11, rs1: 11, imm: shift, ..Operands::default() });
        program.insn(Opcode::Add, Operands { rd: 11, rs1: 11, rs2: S1, ..Operands::default() });
        program.insn(Opcode::Ld, Operands { rd: 11, rs1: 11, ..Operands::default() });
        program.addi(S0, S0, -1).branch(Opcode::Bne, S0, 0, top).exit(7);
        let outcome =
            run(bare(&dir.file("program", &program.binary())).args(["--stats", "--engine", "eager"]));
        assert_eq!(outcome.code(), 7, "{}", outcome.stderr);
        assert_eq!(
            row(&outcome.stderr, "loops that wander from page to page"),
            wanders,
            "{}",
            outcome.stderr
        );
    }
}

#[test]
fn host_instructions_are_counted_when_asked_for() {
    const ROW: &str = "in host instructions";
    let dir = Dir::new();
    for engine in ["interp", "jit"] {
        assert!(!look(&dir, &["--stats", "--engine", engine]).stderr.contains(ROW));
        let table = look(&dir, &["--stats=host", "--engine", engine]).stderr;
        assert_eq!(table.contains(ROW), GENERATES && engine == "jit", "{table}");
        if table.contains(ROW) {
            // A round of the loop is two additions, a branch and, on the host, a count and a poll.
            let (host, guest) = (row(&table, ROW), row(&table, "by generated code"));
            assert!((guest..4 * guest).contains(&host), "{table}");
        }
    }
}

#[test]
fn the_counts_of_all_harts_and_boots_are_summed() {
    let dir = Dir::new();
    let table = look(&dir, &["--stats", "--cpus", "4"]).stderr;
    assert!(row(&table, "guest instructions retired") > ROUNDS * ROUND, "{table}");
}

/// Ends a line of a map file, and starts a name in a jitdump.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const BLOCK: &str = "rv:80000000";

#[test]
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn perf_is_told_the_names_of_blocks() {
    let dir = Dir::new();
    let program = dir.file("program", &looper());
    let running = crate::support::Running::start(bare(&program).args(["--engine", "eager", "--perf", "map"]));
    let map = format!("/tmp/perf-{}.map", running.pid().as_raw_nonzero());
    assert_eq!(running.finish().code(), 7);
    let text = std::fs::read_to_string(&map).unwrap();
    std::fs::remove_file(&map).unwrap();
    assert!(text.lines().any(|line| line.ends_with(&format!(" {BLOCK}"))), "{text}");
    assert!(text.lines().any(|line| line.ends_with(" rv:enter")), "{text}");
    let mut end = 0;
    for line in text.lines() {
        let mut fields = line.split(' ').map(|field| u64::from_str_radix(field, 16));
        let (start, size) = (fields.next().unwrap().unwrap(), fields.next().unwrap().unwrap());
        assert!(start >= end && size > 0, "{line} in {text}");
        end = start + size;
    }
}

#[test]
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn perf_is_given_the_code_of_blocks() {
    let dir = Dir::new();
    let program = dir.file("program", &looper());
    let directory = dir.path("");
    let mut command = bare(&program);
    command.args(["--engine", "eager", "--perf", "jitdump"]).env("JITDUMPDIR", &directory);
    let running = crate::support::Running::start(&mut command);
    let name = format!("jit-{}.dump", running.pid().as_raw_nonzero());
    assert_eq!(running.finish().code(), 7);
    let dump = std::fs::read(Path::new(&directory).join(name)).unwrap();
    let u32_at = |at: usize| u32::from_ne_bytes(dump[at..at + 4].try_into().unwrap());
    assert_eq!((u32_at(0), u32_at(8)), (0x4A69_5444, 40));
    let (mut at, mut names) = (40, Vec::new());
    while at < dump.len() {
        let name = dump[at + 56..].split(|&byte| byte == 0).next().unwrap();
        names.push(String::from_utf8(name.to_vec()).unwrap());
        at += u32_at(at + 4) as usize;
    }
    assert_eq!(at, dump.len());
    assert!(
        names.iter().any(|name| name == BLOCK) && names.iter().any(|name| name == "rv:enter"),
        "{names:?}"
    );
}

#[test]
fn perf_needs_code_and_a_place_for_its_file() {
    let dir = Dir::new();
    let program = dir.file("program", &looper()).display().to_string();
    let arguments = ["run", "--firmware", "none", "--kernel", &program, "--perf"];
    refused(&[&arguments[..], &["map", "--engine", "interp"]].concat(), 2, &["--perf", "--engine jit"]);
    refused(&[&arguments[..], &["gprof"]].concat(), 2, &["map", "jitdump"]);
    let outcome =
        run(bare(Path::new(&program)).args(["--perf", "jitdump"]).env("JITDUMPDIR", "/nonexistent"));
    assert_eq!(outcome.code(), 1);
    assert!(outcome.stderr.contains("--perf: cannot write /nonexistent/jit-"), "{}", outcome.stderr);
}

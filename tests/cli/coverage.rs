//! `hartvm test --coverage`.

use std::path::Path;

use frontend::Opcode;

use crate::guest::{Program, RAM, S0};
use crate::support::{Dir, hartvm, refused, run};

const TOHOST: u64 = RAM + 0x1000;

/// An ELF file with a program at the start of RAM and the symbol `tohost`.
fn elf(code: &[u8]) -> Vec<u8> {
    const HEADER: u64 = 64;
    const SEGMENT: u64 = 56;
    const SECTION: u64 = 64;
    const NAMES: &[u8] = b"\0tohost\0\0";
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let half = |halves: &[u16]| halves.iter().flat_map(|half| half.to_le_bytes()).collect::<Vec<u8>>();
    // The undefined symbol, then `tohost`: name, info and section, value, size.
    let symbols = [words(&[0; 3]), words(&[1 | 1 << 48, TOHOST, 8])].concat();
    let code_at = HEADER + SEGMENT;
    let symbols_at = code_at + code.len() as u64;
    let names_at = symbols_at + symbols.len() as u64;
    let sections_at = names_at + NAMES.len() as u64;
    // Name and type, flags, address, offset, size, link and info, alignment, size of an entry.
    let section = |kind: u64, offset: u64, size: usize, link: u64| {
        words(&[kind << 32, 0, 0, offset, size as u64, link, 1, 24])
    };
    [
        b"\x7fELF\x02\x01\x01".to_vec(),
        vec![0; 9],
        half(&[2, 243]),
        1_u32.to_le_bytes().to_vec(),
        words(&[RAM, HEADER, sections_at]),
        vec![0; 4],
        half(&[HEADER as u16, SEGMENT as u16, 1, SECTION as u16, 3, 0]),
        words(&[1 | 7 << 32, code_at, RAM, RAM, code.len() as u64, code.len() as u64, 8]),
        code.to_vec(),
        symbols.clone(),
        NAMES.to_vec(),
        section(0, 0, 0, 0),
        section(2, symbols_at, symbols.len(), 2),
        section(3, names_at, NAMES.len(), 0),
    ]
    .concat()
}

/// Goes round a loop, and reports success.
fn program() -> Vec<u8> {
    let mut program = Program::new();
    program.addi(S0, 0, 5);
    let top = program.here();
    program.addi(S0, S0, -1).branch(Opcode::Bne, S0, 0, top);
    program.addi(S0, 0, 1).store(Opcode::Sd, S0, TOHOST).halt();
    elf(&program.binary())
}

#[test]
fn what_was_executed_is_counted_and_the_rest_is_listed() {
    let dir = Dir::new();
    let program = dir.file("rv64ui-p-loop", &program());
    let outcome = run(hartvm().args(["test", "--coverage"]).args([&program, &program]));
    let text = String::from_utf8(outcome.stdout).unwrap();
    assert_eq!((outcome.status.code(), outcome.stderr.as_str()), (Some(0), ""), "{text}");
    // Of both runs; `bne` is the only branch.
    for line in ["            10  bne", "            10  Bne", "             2  sd", "             2  Sd"] {
        assert!(text.lines().any(|found| found == line), "no {line} in {text}");
    }
    let (_, never) = text.split_once("never executed:\n").unwrap();
    assert!(never.contains(" beq ") || never.contains(" blt "), "{text}");
    assert!(!never.split("\n\n").next().unwrap().contains(" bne "), "{text}");
    assert!(text.contains("compressed instructions (and what they stand for): 0 of "), "{text}");
}

#[test]
fn without_the_flag_nothing_is_counted_and_engines_that_do_not_count_are_refused() {
    let dir = Dir::new();
    let program = dir.file("rv64ui-p-loop", &program());
    let outcome = run(hartvm().arg("test").arg(&program));
    assert!(!String::from_utf8(outcome.stdout).unwrap().contains("executed"));
    let path = Path::new(&program).display().to_string();
    refused(&["test", "--coverage", "--engine", "jit", &path], 2, &["--coverage", "--engine"]);
}

//! Traces: what is in them by category, what is left out by filters, and the form for viewers.

use std::path::Path;
use std::process::Command;

use frontend::Opcode;
use frontend::encode::Operands;

use crate::guest::{Program, RAM, S0, S1};
use crate::inside::{GENERATES, look, looper};
use crate::support::{Dir, bare, hartvm, refused, run};
use crate::virtio::{disk_writer, write_sector};

/// Runs a command that traces to a file, and returns the file. The exit status has to be `code`.
fn traced(dir: &Dir, command: &mut Command, what: &str, code: i32) -> String {
    let file = dir.path("trace.txt");
    let outcome = run(command.arg("--trace").arg(format!("{what}:{}", file.display())));
    assert_eq!((outcome.code(), outcome.stderr.as_str()), (code, ""));
    std::fs::read_to_string(file).unwrap()
}

/// The lines of a trace without their times.
fn without_times(trace: &str) -> Vec<&str> {
    trace.lines().map(|line| line.split_once("] ").unwrap().1).collect()
}

#[test]
fn blocks_are_shown_in_all_their_forms() {
    let dir = Dir::new();
    let program = dir.file("program", &looper());
    let trace = traced(&dir, bare(&program).args(["--engine", "eager"]), "guest,ir,host", 7);
    for text in [
        "] hart0 M guest 0x80000000: block, pa 0x80000000, instructions ",
        "addi s1,s1,3\n",
        "AddI x9, x9, 0x3\n",
        "bne s0,zero,0x8000",
    ] {
        assert!(trace.contains(text), "no {text} in {trace}");
    }
    assert_eq!(
        trace.contains(" hart0 M host 0x80000000: host code, pa 0x80000000, bytes "),
        GENERATES,
        "{trace}"
    );
    assert_eq!(trace.contains(",3\n") && trace.contains("add "), GENERATES, "{trace}");

    // The interpreter alone has blocks, too.
    let trace = traced(&dir, bare(&program).args(["--engine", "interp"]), "guest", 7);
    assert!(trace.contains("addi s1,s1,3\n") && !trace.contains("AddI"), "{trace}");
}

#[test]
fn traces_go_to_standard_error_and_show_traps_and_exits() {
    let dir = Dir::new();
    let trace = look(&dir, &["--engine", "eager", "--trace", "int,exits"]).stderr;
    assert!(trace.contains("] hart0 M int 0x8000"), "{trace}");
    assert!(trace.contains(": ecall from M, cause 0xb, tval 0x0, to machine\n"), "{trace}");
    assert_eq!(trace.contains(": trap, entered for 0x8000"), GENERATES, "{trace}");
    assert!(!trace.contains("block"), "{trace}");
}

#[test]
fn what_cannot_be_traced_is_refused() {
    let all = "exec, int, mmu, csr, sbi, mmio, virtio, guest, ir, host, cache, exits";
    refused(&["run", "--trace", "guest,op", "--kernel", "x"], 2, &["--trace", "`op`", all]);
    refused(&["run", "--trace", "guest:", "--kernel", "x"], 2, &["--trace", "file name"]);
    refused(&["run", "--trace-filter", "hart=0", "--kernel", "x"], 2, &["--trace"]);
    let filter = ["run", "--kernel", "x", "--trace", "int", "--trace-filter", "mode=x"];
    refused(&filter, 2, &["--trace-filter", "`mode=x`", "hart=N"]);
    let dir = Dir::new();
    let program = dir.file("program", &looper()).display().to_string();
    let arguments = ["run", "--firmware", "none", "--kernel", &program, "--trace", "guest:/nonexistent/log"];
    refused(&arguments, 1, &["--trace: cannot write /nonexistent/log", "No such file"]);
}

#[test]
fn a_trace_that_cannot_be_written_is_reported_once_and_ends() {
    let dir = Dir::new();
    let errors = look(&dir, &["--trace", "all:/dev/full"]).stderr;
    assert_eq!(errors.matches("--trace: cannot write /dev/full").count(), 1, "{errors}");
}

/// A short program with a loop that goes round three times, and its symbols.
fn counter() -> (Vec<u8>, &'static str) {
    let mut program = Program::new();
    program.addi(S0, 0, 3);
    let top = program.here();
    program.addi(S0, S0, -1).branch(Opcode::Bne, S0, 0, top).exit(7);
    (program.binary(), "80000000 T start\n80000004 T loop\n8000000c T end\n")
}

#[test]
fn each_instruction_is_traced_with_its_name_and_result_the_same_on_all_engines() {
    let dir = Dir::new();
    let (program, map) = counter();
    let (program, map) = (dir.file("program", &program), dir.file("System.map", map.as_bytes()));
    let mut traces = Vec::new();
    for engine in ["jit", "interp"] {
        let mut command = bare(&program);
        command
            .args(["--engine", engine, "--trace-filter", "address=0x80000000-0x8000000b", "--symbols"])
            .arg(&map);
        traces.push(traced(&dir, &mut command, "exec", 7));
    }
    let want = [
        "hart0 M exec 0x80000000 <start>: addi s0,zero,3, bits 0x300413, s0 0x3",
        "hart0 M exec 0x80000004 <loop>: addi s0,s0,-1, bits 0xfff40413, s0 0x2",
        "hart0 M exec 0x80000008 <loop+0x4>: bne s0,zero,0x80000004, bits 0xfe041ee3",
        "hart0 M exec 0x80000004 <loop>: addi s0,s0,-1, bits 0xfff40413, s0 0x1",
        "hart0 M exec 0x80000008 <loop+0x4>: bne s0,zero,0x80000004, bits 0xfe041ee3",
        "hart0 M exec 0x80000004 <loop>: addi s0,s0,-1, bits 0xfff40413, s0 0x0",
        "hart0 M exec 0x80000008 <loop+0x4>: bne s0,zero,0x80000004, bits 0xfe041ee3",
    ];
    for trace in traces {
        assert_eq!(without_times(&trace), want);
    }
}

#[test]
fn other_harts_are_left_out_and_go_on_at_full_speed() {
    /// Where hart 0 counts its rounds, and how many hart 1 waits for before it ends the machine.
    const COUNT: u64 = RAM + 0x2000;
    const ENOUGH: u64 = 1_000_000;
    let mut program = Program::new();
    program.insn(Opcode::Csrrs, Operands { rd: S1, imm: 0xf14, ..Operands::default() });
    let second = program.branch_forward(Opcode::Bne, S1, 0);
    let top = program.here();
    program.addi(S0, S0, 1).store(Opcode::Sd, S0, COUNT).jump(top).land(second);
    program.li(S1, ENOUGH);
    let top = program.here();
    program.insn(Opcode::Pause, Operands::default()).load(Opcode::Ld, S0, COUNT);
    program.branch(Opcode::Bltu, S0, S1, top).exit(7);

    let dir = Dir::new();
    let (program, file) = (dir.file("program", &program.binary()), dir.path("trace.txt"));
    let mut command = bare(&program);
    command.args(["--cpus", "2", "--stats", "--trace-filter", "hart=1,mode=m,address=0x80000000-0x80000007"]);
    let outcome = run(command.arg("--trace").arg(format!("exec:{}", file.display())));
    assert_eq!(outcome.code(), 7);
    let trace = std::fs::read_to_string(file).unwrap();
    let want = [
        "hart1 M exec 0x80000000: csrrs s1,mhartid,zero, bits 0xf14024f3, s1 0x1",
        "hart1 M exec 0x80000004: bne s1,zero,0x80000024, bits 0x2049063",
    ];
    assert_eq!(without_times(&trace), want);
    // Only hart 0 has code to run, and only on a host that can generate it.
    let generated =
        outcome.stderr.lines().any(|line| line.contains("by generated code") && !line.contains(" 0.0 %"));
    assert_eq!(generated, GENERATES, "{}", outcome.stderr);
}

/// A program in supervisor mode, under the built-in SBI, which loads it at this address.
const KERNEL: u64 = RAM + 0x20_0000;

/// Calls the SBI, turns paging on with the identical mapping, touches registers and devices, and ends with code 7.
fn kernel() -> Vec<u8> {
    /// Offset of the page table, whose entries map 1 GiB each: valid, all rights, A and D.
    const TABLE: u64 = 0x1000;
    let entry = |number: u64| number << 28 | 0xcf;
    let csr = |op, number: u16, rs1| (op, Operands { rs1, imm: number.into(), ..Operands::default() });
    let mut program = Program::new();
    // a7 and a6: BASE, get_spec_version.
    program.li(17, 0x10).li(16, 0).insn(Opcode::Ecall, Operands::default());
    program.li(S0, (KERNEL + TABLE) >> 12).li(S1, 8);
    program.insn(Opcode::Slli, Operands { rd: S1, rs1: S1, imm: 60, ..Operands::default() });
    program.insn(Opcode::Or, Operands { rd: S0, rs1: S0, rs2: S1, ..Operands::default() });
    for (op, operands) in [csr(Opcode::Csrrw, 0x140, S1), csr(Opcode::Csrrw, 0x180, S0)] {
        program.insn(op, operands);
    }
    program.insn(Opcode::SfenceVma, Operands::default()).exit(7);
    program.data(RAM + TABLE, &entry(0).to_le_bytes()).data(RAM + TABLE + 16, &entry(2).to_le_bytes());
    // The whole page belongs to the table.
    program.data(RAM + TABLE + 0xff8, &[0; 8]).binary()
}

fn run_kernel(program: &Path) -> Command {
    let mut command = hartvm();
    command.args(["run", "--memory", "64M", "--kernel"]).arg(program);
    command
}

#[test]
fn calls_registers_translations_and_devices_are_traced() {
    let dir = Dir::new();
    let program = dir.file("program", &kernel());
    for engine in ["eager", "interp"] {
        let mut command = run_kernel(&program);
        let trace = traced(&dir, command.args(["--engine", engine]), "sbi,csr,mmu,mmio", 7);
        let lines = without_times(&trace);
        let has = |start: &str, end: &str| {
            assert!(
                lines.iter().any(|line| line.starts_with(start) && line.ends_with(end)),
                "{start}…{end}: {trace}"
            );
        };
        has("hart0 S sbi 0x802000", ", error 0, value 0x3000000");
        assert!(trace.contains(": base.get_spec_version, a0 0x"), "{trace}");
        // Generated code usually has no call for this one.
        has("hart0 S csr 0x802000", ": write sscratch, old 0x0, new 0x8000000000000000");
        has("hart0 S csr 0x802000", ": write satp, old 0x0, new 0x8000000000080201");
        has("hart0 S mmu 0x0: fence of all pages", "");
        has("hart0 S mmu 0x802000", ", level 2, pte 0x200000cf");
        has("hart0 S mmu 0x100000: walk for store, pa 0x100000, level 2, pte 0xcf", "");
        has("hart0 mmio: write ", ", offset 0x0, bytes 4, value 0x73333");
    }
}

#[test]
fn traps_of_a_kernel_have_their_time_in_the_form_for_viewers() {
    // In machine mode: a handler that returns behind what trapped, and then an end.
    let mut program = Program::new();
    program.li(S0, RAM + 0x1000);
    program.insn(Opcode::Csrrw, Operands { rs1: S0, imm: 0x305, ..Operands::default() });
    program.insn(Opcode::Ecall, Operands::default()).exit(7);
    let mut handler = Program::new();
    handler.insn(Opcode::Csrrs, Operands { rd: S1, imm: 0x341, ..Operands::default() }).addi(S1, S1, 4);
    handler.insn(Opcode::Csrrw, Operands { rs1: S1, imm: 0x341, ..Operands::default() });
    // MPP = M.
    handler.li(S1, 3 << 11).insn(Opcode::Csrrs, Operands { rs1: S1, imm: 0x300, ..Operands::default() });
    handler.insn(Opcode::Mret, Operands::default());
    program.data(RAM + 0x1000, &handler.binary());

    let dir = Dir::new();
    let program = dir.file("program", &program.binary());
    let file = dir.path("trace.json");
    let outcome = run(bare(&program).arg("--trace").arg(format!("int,csr:{}", file.display())));
    assert_eq!((outcome.code(), outcome.stderr.as_str()), (7, ""));
    let trace = std::fs::read_to_string(file).unwrap();
    assert!(trace.starts_with("[\n{\"name\":\"thread_name\"") && trace.ends_with("}}\n]\n"), "{trace}");
    for text in [
        r#"{"name":"ecall from M","cat":"int","pid":1,"tid":1,"ts":"#,
        r#"{"name":"mret","cat":"int","#,
        r#""to":"machine","pc":"0x800000"#,
        r#""ph":"X","dur":"#,
        r#"{"name":"write mepc","cat":"csr","#,
    ] {
        assert!(trace.contains(text), "no {text} in {trace}");
    }
}

#[test]
fn buffers_are_traced_on_their_way_through_a_queue() {
    let dir = Dir::new();
    let disk = dir.zeros("disk", 4096);
    let mut program = disk_writer();
    write_sector(&mut program);
    let program = dir.file("program", &program.exit(7).binary());
    let trace = traced(&dir, bare(&program).arg("--disk").arg(disk), "virtio", 7);
    let want = [
        "virtio-blk virtio: virtio-blk queue 0: taken, head 0, readable 528, writable 1",
        "virtio-blk virtio: virtio-blk queue 0: returned, head 0, written 1, interrupt true",
    ];
    assert_eq!(without_times(&trace), want);
}

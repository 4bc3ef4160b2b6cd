//! Disk images: bad ones, contended ones, full file systems, and hartvm killed while a guest writes.

use std::path::Path;
use std::time::Duration;

use frontend::Opcode;
use frontend::encode::Operands;
use rustix::process::Signal;

use crate::guest::{Program, S0, S1, S2, greeter, sleeper};
use crate::support::{Dir, Running, bare, in_shell, refused, run};
use crate::virtio::{QUEUE, disk_writer, flush, write_sector};

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn unusable_images_are_refused_with_a_remedy() {
    let dir = Dir::new();
    let kernel = text(&dir.file("kernel", &sleeper("")));
    std::fs::create_dir(dir.path("directory")).unwrap();
    dir.file("empty", b"");
    dir.zeros("odd", 1_000_001);
    dir.file("archive", &[b"\xfd7zXZ\0", &[0; 506][..]].concat());
    dir.file("qcow", &[b"QFI\xfb", &[0; 508][..]].concat());
    for (name, words) in [
        ("missing", &["does not exist", "truncate -s 16G"][..]),
        ("directory", &["a directory", "raw image file"]),
        ("empty", &["is empty", "truncate -s"]),
        ("odd", &["1000001 bytes", "multiple of 512", "truncate -s %512"]),
        ("archive", &["xz -d"]),
        ("qcow", &["qemu-img convert"]),
    ] {
        for options in ["", ",readonly", ",snapshot"] {
            let file = text(&dir.path(name));
            let words: Vec<&str> = words.iter().copied().chain([&file[..]]).collect();
            refused(&["run", "--kernel", &kernel, "--disk", &format!("{file}{options}")], 1, &words);
        }
    }
    refused(&["run", "--kernel", &kernel, "--disk", "/dev/null"], 1, &["/dev/null", "character device"]);
    assert_eq!(std::fs::metadata(dir.path("odd")).unwrap().len(), 1_000_001, "nothing is written");
}

#[test]
fn an_image_has_one_writer_or_many_readers() {
    let dir = Dir::new();
    let kernel = dir.file("kernel", &sleeper("."));
    let image = text(&dir.zeros("image", 1 << 20));
    let start = |options: &str| {
        let running = Running::start(bare(&kernel).arg("--disk").arg(format!("{image}{options}")));
        running.wait_for_output(1);
        running
    };
    let refuse = |options: &str| {
        let disk = format!("{image}{options}");
        let args = ["run", "--kernel", &text(&kernel), "--disk", &disk];
        refused(&args, 1, &[&image, "in use by", "stop"]);
    };

    let writer = start("");
    for options in ["", ",readonly", ",snapshot"] {
        refuse(options);
    }
    // The lock goes with the process, however that ends.
    writer.signal(Signal::KILL);
    drop(writer);

    let (reader, snapshot) = (start(",readonly"), start(",snapshot"));
    refuse("");
    drop((reader, snapshot));
    drop(start(""));

    let twice = ["run", "--kernel", &text(&kernel), "--disk", &image, "--disk", &image];
    refused(&twice, 1, &[&image, "the same image twice"]);
}

/// Stores a constant as the sector of the next request.
fn set_sector(program: &mut Program, sector: u32) {
    program.poke(QUEUE.header() + 8, sector);
}

#[test]
fn a_full_file_system_is_an_error_for_the_guest_only() {
    let dir = Dir::new();
    let image = dir.zeros("image", 1 << 20);
    // One sector where the file may not grow to, then one where it may. The exit code says how both went.
    let mut program = disk_writer();
    program.poke(QUEUE.data(), 0x1234_5678);
    set_sector(&mut program, 1024);
    write_sector(&mut program);
    program.load(Opcode::Lb, S0, QUEUE.result());
    set_sector(&mut program, 1);
    write_sector(&mut program);
    program.load(Opcode::Lb, S1, QUEUE.result());
    program.insn(Opcode::Slli, Operands { rd: S0, rs1: S0, imm: 4, ..Operands::default() });
    program.insn(Opcode::Add, Operands { rd: S0, rs1: S0, rs2: S1, ..Operands::default() });
    program.addi(S0, S0, 0x40).exit_with(S0);
    let program = dir.file("program", &program.binary());

    let mut command = bare(&program);
    command.arg("--disk").arg(&image);
    // A limit on the size of files stands in for a full file system, since it needs no privileges.
    for signal in ["", "trap '' XFSZ; "] {
        let outcome = run(&mut in_shell(&format!("{signal}ulimit -f 64"), &command));
        assert_eq!(outcome.code(), 0x50, "IOERR, then OK: {}", outcome.stderr);
    }
    let bytes = std::fs::read(&image).unwrap();
    assert_eq!(bytes[512..516], 0x1234_5678_u32.to_le_bytes());
    assert!(bytes[1024..].iter().all(|&byte| byte == 0));
    assert_eq!(run(&mut command).code(), 0x40, "with room both are OK");
}

#[test]
fn a_snapshot_leaves_the_image_alone() {
    let dir = Dir::new();
    let image = dir.zeros("image", 1 << 20);
    let mut program = disk_writer();
    program.poke(QUEUE.data(), 0x1234_5678);
    write_sector(&mut program);
    flush(&mut program);
    program.load(Opcode::Lb, S0, QUEUE.result()).addi(S0, S0, 0x40).exit_with(S0);
    let program = dir.file("program", &program.binary());
    for (options, code) in [(",snapshot", 0x40), (",readonly", 0x41)] {
        let outcome = run(bare(&program).arg("--disk").arg(format!("{}{options}", text(&image))));
        assert_eq!(outcome.code(), code, "{options}: {}", outcome.stderr);
        assert!(std::fs::read(&image).unwrap().iter().all(|&byte| byte == 0));
    }
    // A snapshot that has nowhere to go.
    let missing = dir.path("missing");
    let outcome =
        run(bare(&program).env("TMPDIR", &missing).arg("--disk").arg(format!("{},snapshot", text(&image))));
    assert_eq!(outcome.code(), 1);
    assert!(
        outcome.stderr.contains("TMPDIR") && outcome.stderr.contains(&text(&missing)),
        "{}",
        outcome.stderr
    );
}

#[test]
fn kill_minus_nine_loses_nothing_that_was_flushed() {
    const SECTORS: u64 = 1 << 17;
    const RUNS: u64 = 20;
    let dir = Dir::new();
    // Writes and flushes sector after sector, each with its number plus one in it, and prints a dot for each.
    let mut program = disk_writer();
    program.li(S2, 0);
    let top = program.here();
    program.store(Opcode::Sw, S2, QUEUE.header() + 8).addi(S2, S2, 1).store(Opcode::Sw, S2, QUEUE.data());
    write_sector(&mut program);
    flush(&mut program);
    program.print(".").jump(top);
    let program = dir.file("program", &program.binary());

    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut announced_at_all = 0;
    for number in 0..RUNS {
        let image = dir.zeros("image", SECTORS * 512);
        let running = Running::start(bare(&program).arg("--disk").arg(&image));
        running.wait_for_output(1);
        for shift in [13, -7, 17] {
            random ^= if shift > 0 { random << shift } else { random >> -shift };
        }
        std::thread::sleep(Duration::from_micros(random % 40_000));
        running.signal(Signal::KILL);
        let status = running.finish();
        assert_eq!(status.status.code(), None, "killed");
        let announced = status.stdout.len();
        let bytes = std::fs::read(&image).unwrap();
        for sector in 0..announced.min(SECTORS as usize) {
            let written = bytes[sector * 512..][..4].try_into().map(u32::from_le_bytes).unwrap();
            assert_eq!(written, sector as u32 + 1, "run {number}: sector {sector} of {announced} announced");
        }
        announced_at_all += announced;
    }
    assert!(announced_at_all > RUNS as usize, "{announced_at_all} sectors in all");
}

#[test]
fn missing_permissions_are_explained() {
    if rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: root may write everything, so permissions cannot be tested");
        return;
    }
    let dir = Dir::new();
    let kernel = text(&dir.file("kernel", &greeter("", 0)));
    let image = dir.zeros("image", 1 << 20);
    let set = |mode| rustix::fs::chmod(&image, rustix::fs::Mode::from_raw_mode(mode)).unwrap();
    set(0o400);
    refused(&["run", "--kernel", &kernel, "--disk", &text(&image)], 1, &[&text(&image), ",readonly"]);
    set(0o000);
    refused(&["run", "--kernel", &kernel, "--disk", &text(&image)], 1, &[&text(&image), "permission"]);
    refused(&["run", "--kernel", &text(&image)], 1, &["--kernel", &text(&image), "Permission denied"]);
}

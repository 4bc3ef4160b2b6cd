//! Disk images: bad ones, contended ones, full file systems, and hartvm killed while a guest writes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use frontend::Opcode;
use frontend::encode::Operands;
use rustix::process::Signal;

use crate::guest::{Program, S0, S1, S2, greeter, sleeper};
use crate::support::{Dir, Running, bare, hartvm, in_shell, refused, run};
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
        ("missing", &["does not exist", "hartvm image create"][..]),
        ("directory", &["a directory", "an image file"]),
        ("empty", &["is empty", "truncate -s"]),
        ("odd", &["1000001 bytes", "multiple of 512", "truncate -s %512"]),
        ("archive", &["xz -d"]),
        ("qcow", &["version 0", "qemu-img convert"]),
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

/// Makes an empty qcow2 image.
fn qcow2(dir: &Dir, name: &str, size: &str) -> PathBuf {
    let path = dir.path(name);
    let outcome = run(hartvm().args(["image", "create"]).arg(&path).arg(size));
    assert_eq!(outcome.code(), 0, "{}", outcome.stderr);
    path
}

/// What the guest sees of an image that `qemu-img check` (of the package qemu-utils) finds clean.
fn contents(dir: &Dir, image: &Path) -> Vec<u8> {
    let tool = |args: &[&str]| {
        let outcome = run(Command::new("qemu-img").args(args));
        let text = String::from_utf8_lossy(&outcome.stdout);
        assert_eq!(outcome.code(), 0, "qemu-img {args:?}: {text}{}", outcome.stderr);
    };
    let raw = text(&dir.path("contents"));
    if image.extension().is_none_or(|extension| extension != "raw") {
        tool(&["check", "-q", &text(image)]);
    }
    tool(&["convert", "-O", "raw", &text(image), &raw]);
    std::fs::read(raw).unwrap()
}

#[test]
fn a_full_file_system_is_an_error_for_the_guest_only() {
    let dir = Dir::new();
    let raw = dir.zeros("image.raw", 1 << 20);
    let sparse = qcow2(&dir, "image.qcow2", "1M");
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

    // A limit on the size of files stands in for a full file system, since it needs no privileges. The qcow2 image is as
    // long as the second limit, so that neither sector has room there.
    for (image, limit, code) in [(&raw, 64, 0x50), (&sparse, 512, 0x51)] {
        let mut command = bare(&program);
        command.arg("--disk").arg(image);
        for signal in ["", "trap '' XFSZ; "] {
            let outcome = run(&mut in_shell(&format!("{signal}ulimit -f {limit}"), &command));
            assert_eq!(outcome.code(), code, "IOERR, then OK if it fits: {}", outcome.stderr);
            let bytes = contents(&dir, image);
            assert!(bytes[1024..].iter().all(|&byte| byte == 0));
            if image == &raw {
                assert_eq!(bytes[512..516], 0x1234_5678_u32.to_le_bytes());
            }
        }
        assert_eq!(run(&mut command).code(), 0x40, "with room both are OK");
        let bytes = contents(&dir, image);
        assert_eq!(
            bytes[512..516],
            0x1234_5678_u32.to_le_bytes(),
            "kept without a flush, since hartvm ended well"
        );
        assert_eq!(bytes[1024 * 512..][..4], 0x1234_5678_u32.to_le_bytes());
    }
}

/// The guest fills a qcow2 image until there is no room, and goes on.
#[test]
fn a_qcow2_image_survives_a_full_file_system() {
    const WRITES: u64 = 200;
    const MIB: usize = 1 << 20;
    let dir = Dir::new();
    // Writes and flushes a sector in each of 200 clusters, whatever comes of it: 13 MiB and tables into 4 MiB.
    let mut program = disk_writer();
    program.li(S2, 0);
    let top = program.here();
    program.store(Opcode::Sw, S2, QUEUE.header() + 8).addi(S2, S2, 128).store(Opcode::Sw, S2, QUEUE.data());
    write_sector(&mut program);
    program.load(Opcode::Lb, S0, QUEUE.result());
    flush(&mut program);
    program.load(Opcode::Lb, S1, QUEUE.flush_result());
    program.insn(Opcode::Add, Operands { rd: S0, rs1: S0, rs2: S1, ..Operands::default() });
    let failed = program.branch_forward(Opcode::Bne, S0, 0);
    program.print("+");
    let next = program.branch_forward(Opcode::Beq, 0, 0);
    program.land(failed).print("-").land(next);
    program.li(S1, WRITES * 128).branch(Opcode::Bltu, S2, S1, top).exit(42);
    let program = dir.file("program", &program.binary());
    // Over a backing file, whole clusters are written.
    let base = dir.file("base.raw", &vec![7; 13 * MIB]);
    let image = dir.path("image");
    let created = run(hartvm().args(["image", "create", "--backing"]).arg(&base).arg(&image));
    assert_eq!(created.code(), 0, "{}", created.stderr);
    let outcome =
        run(&mut in_shell(&format!("ulimit -f {}", 4 * MIB / 512), bare(&program).arg("--disk").arg(&image)));
    assert_eq!(outcome.code(), 42, "{}", outcome.stderr);
    let good = outcome.stdout.iter().filter(|mark| **mark == b'+').count();
    assert!(good > 20 && outcome.stdout.len() - good > 20, "{good} of {}", outcome.stdout.len());
    let bytes = contents(&dir, &image);
    for (number, mark) in outcome.stdout.iter().enumerate() {
        if *mark == b'+' {
            let written = bytes[number * 65536..][..4].try_into().map(u32::from_le_bytes).unwrap();
            assert_eq!(written, (number as u32 + 1) * 128, "sector {number} was flushed");
        }
    }
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

/// `HARTVM_KILLS` sets how often; the default keeps the test short.
fn kills() -> u64 {
    std::env::var("HARTVM_KILLS").map_or(20, |count| count.parse().expect("HARTVM_KILLS is a number"))
}

#[test]
fn kill_minus_nine_loses_nothing_that_was_flushed() {
    const SECTORS: u64 = 1 << 17;
    let dir = Dir::new();
    // Writes and flushes sector after sector, each with its number plus one in it, and prints a dot for each. The distance
    // of the sectors decides whether a qcow2 image needs a new cluster each time.
    let writer = |distance: i64| {
        let mut program = disk_writer();
        program.li(S2, 0);
        program.li(S1, 0);
        let top = program.here();
        program.store(Opcode::Sw, S1, QUEUE.header() + 8).addi(S2, S2, 1).store(Opcode::Sw, S2, QUEUE.data());
        write_sector(&mut program);
        flush(&mut program);
        program.addi(S1, S1, distance).print(".").jump(top);
        dir.file("program", &program.binary())
    };

    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for (distance, format) in [(1, "raw"), (1, "qcow2"), (128, "qcow2")] {
        let program = writer(distance);
        let mut announced_at_all = 0;
        for number in 0..kills() {
            let _ = std::fs::remove_file(dir.path("image"));
            let image = match format {
                "raw" => dir.zeros("image", SECTORS * 512),
                _ => qcow2(&dir, "image", "64M"),
            };
            let running = Running::start(bare(&program).arg("--disk").arg(&image));
            for shift in [13, -7, 17] {
                random ^= if shift > 0 { random << shift } else { random >> -shift };
            }
            // After so many sectors, however slow the host's disk is, and somewhere in those that follow.
            running.wait_for_output(1 + (random >> 32) as usize % 10);
            std::thread::sleep(Duration::from_micros(random % 40_000));
            running.signal(Signal::KILL);
            let status = running.finish();
            assert_eq!(status.status.code(), None, "killed");
            let announced = status.stdout.len();
            let bytes = if format == "raw" { std::fs::read(&image).unwrap() } else { contents(&dir, &image) };
            for written in 0..announced.min(SECTORS as usize / distance as usize) {
                let at = written * distance as usize * 512;
                let found = bytes[at..][..4].try_into().map(u32::from_le_bytes).unwrap();
                assert_eq!(
                    found,
                    written as u32 + 1,
                    "{format}, run {number}: {written} of {announced} announced"
                );
            }
            announced_at_all += announced;
        }
        assert!(announced_at_all > kills() as usize, "{announced_at_all} sectors in all");
    }
}

#[test]
fn an_overlay_keeps_the_changes() {
    let dir = Dir::new();
    let image = dir.zeros("image", 1 << 20);
    let overlay = text(&dir.path("overlay"));
    let mut program = disk_writer();
    program.poke(QUEUE.data(), 0x1234_5678);
    write_sector(&mut program);
    program.load(Opcode::Lb, S0, QUEUE.result()).addi(S0, S0, 0x40).exit_with(S0);
    let program = dir.file("program", &program.binary());
    let with_option = format!("{},overlay={overlay}", text(&image));
    for args in [&["--disk", &text(&image), "--overlay", &overlay][..], &["--disk", &with_option]] {
        assert_eq!(run(bare(&program).args(args)).code(), 0x40);
        assert_eq!(contents(&dir, Path::new(&overlay))[..4], 0x1234_5678_u32.to_le_bytes());
        assert!(std::fs::read(&image).unwrap().iter().all(|&byte| byte == 0));
    }
    let kernel = text(&program);
    let both = ["run", "--kernel", &kernel, "--disk", &with_option, "--overlay", &overlay];
    refused(&both, 2, &["--overlay", "leave one out"]);
    let readonly = format!("{},readonly", text(&image));
    refused(
        &["run", "--kernel", &kernel, "--disk", &readonly, "--overlay", &overlay],
        2,
        &["exclude each other"],
    );
}

#[test]
fn images_are_made_and_looked_after() {
    let dir = Dir::new();
    let file = |name| text(&dir.path(name));
    let ok = |args: &[&str]| {
        let outcome = run(hartvm().arg("image").args(args));
        assert_eq!(outcome.code(), 0, "{args:?}: {}", outcome.stderr);
        String::from_utf8(outcome.stdout).unwrap()
    };
    ok(&["create", &file("base"), "3G"]);
    ok(&["create", "--backing", "base", &file("top")]);
    ok(&["resize", &file("top"), "+1G"]);
    let info = ok(&["info", &file("top")]);
    for word in ["qcow2", "4294967296", "4.0 GiB", "backing file", "base"] {
        assert!(info.contains(word), "no `{word}` in {info}");
    }
    assert!(ok(&["check", &file("top")]).contains("0 errors, 0 leaked clusters"));
    ok(&["create", "--format", "raw", &file("raw"), "1M"]);
    assert_eq!(std::fs::metadata(dir.path("raw")).unwrap().len(), 1 << 20);
    refused(&["image", "create", &file("raw"), "1M"], 1, &[&file("raw"), "exists"]);
    refused(&["image", "create", &file("new"), "1000"], 2, &["512"]);
    refused(&["image", "create", &file("new")], 2, &["16G"]);
    refused(&["image", "create", "--format", "raw", "--backing", "base", &file("new")], 2, &["--backing"]);
    refused(&["image", "resize", &file("top"), "1G"], 1, &["--shrink"]);
    refused(&["image", "info", &file("missing")], 1, &["does not exist"]);
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

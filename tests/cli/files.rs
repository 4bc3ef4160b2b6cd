//! Bad flags and bad files: each is refused with a clear error, and nothing is written.

use std::path::Path;

use crate::guest::{greeter, sleeper};
use crate::support::{Dir, bare, hartvm, in_shell, refused, run};

#[test]
fn help_is_for_newcomers() {
    for args in [&["--help"][..], &["run", "--help"], &["test", "--help"], &["disasm", "--help"]] {
        let outcome = run(hartvm().args(args));
        let text = String::from_utf8(outcome.stdout).unwrap();
        assert!(outcome.status.success(), "{args:?}");
        assert!(text.contains("Example"), "{args:?}: {text}");
        assert!(text.contains("hartvm "), "{args:?}: {text}");
    }
    let text = String::from_utf8(run(hartvm().args(["run", "--help"])).stdout).unwrap();
    for word in ["Ctrl-A X", "--kernel linux --initrd initrd.gz", "snapshot", "Exit status"] {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
}

#[test]
fn nothing_to_do_is_explained() {
    refused::<&str>(&[], 2, &["run", "disasm", "Examples", "hartvm run --kernel"]);
    refused(&["run"], 2, &["--kernel", "--firmware", "hartvm run --help"]);
    refused(&["run", "--firmware", "none"], 2, &["--kernel"]);
    refused(&["test"], 2, &["FILE|DIR"]);
    refused(&["disasm"], 2, &["FILE"]);
}

#[test]
fn bad_values_of_flags_are_usage_errors() {
    let run = |flag: &str, value: &str, words: &[&str]| {
        let words: Vec<&str> = words.iter().copied().chain([flag]).collect();
        refused(&["run", "--kernel", "/dev/null", flag, value], 2, &words);
    };
    for cpus in ["0", "33", "abc", "-1", "1.5", "99999999999"] {
        run("--cpus", cpus, &["1 to 32"]);
    }
    run("--memory", "1", &["64M or more"]);
    run("--memory", "0", &["64M or more"]);
    run("--memory", "abc", &["512M or 4G"]);
    run("--memory", "-4G", &["512M or 4G"]);
    run("--memory", "99999999999999999999G", &["512M or 4G"]);
    run("--memory", "1000T", &["64T is the most"]);
    run("--memory", "1048577K", &["multiple of 2M"]);
    run("--cpu", "z80", &["`z80`", "rva22s64"]);
    run("--cpu", "max,warp", &["`warp`", "sv39"]);
    run("--engine", "steam", &["interp"]);
    run("--disk", "", &["names no file", "FILE[,readonly]"]);
    run("--disk", "a,fast", &["`fast`", "snapshot"]);
    run("--disk", "a,readonly=maybe", &["`maybe`", "on or off"]);
    run("--bogus", "1", &["--help"]);
    refused(&["run", "--initrd", "x"], 2, &["--kernel"]);
    refused(&["bogus"], 2, &["bogus", "--help"]);
    let disks: Vec<&str> = (0..8).flat_map(|_| ["--disk", "x"]).collect();
    refused(&[&["run", "--kernel", "x"], &disks[..]].concat(), 2, &["--disk", "8 disks", "6 at most"]);
}

/// An ELF header for `machine`, and nothing else.
fn elf(machine: u16) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(64, 0);
    bytes[16] = 2;
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    bytes[20] = 1;
    bytes[52] = 64;
    bytes
}

const EM_X86_64: u16 = 62;
const EM_RISCV: u16 = 243;

/// An ELF executable for RISC-V whose segment and section headers lie behind the end of the file.
fn truncated_elf() -> Vec<u8> {
    let mut bytes = elf(EM_RISCV);
    bytes[32] = 64;
    bytes[40..42].copy_from_slice(&0x4000_u16.to_le_bytes());
    bytes[54] = 56;
    bytes[56] = 2;
    bytes[58] = 64;
    bytes[60] = 5;
    bytes
}

/// The start of a Linux Image with an EFI stub; its PE header is missing.
fn truncated_linux() -> Vec<u8> {
    let mut bytes = vec![0; 100];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x38..0x3c].copy_from_slice(b"RSC\x05");
    bytes[0x3c] = 0x60;
    bytes
}

/// The start of a gzip file.
const TRUNCATED_GZIP: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xed\xc1";

/// Files that no flag can take, with a word of the reason.
fn unusable(dir: &Dir) -> Vec<(String, &'static str)> {
    dir.file("empty", b"");
    std::fs::create_dir_all(dir.path("directory")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    [
        ("missing", "No such file"),
        ("empty", "is empty"),
        ("directory", "not a regular file"),
        ("pipe", "not a regular file"),
    ]
    .map(|(name, reason)| (dir.path(name).display().to_string(), reason))
    .to_vec()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn files_that_cannot_be_read_are_named_with_a_remedy() {
    let dir = Dir::new();
    let kernel = text(&dir.file("kernel", &greeter("", 0)));
    for (file, reason) in unusable(&dir) {
        for (flag, remedy) in [
            ("--kernel", "name a kernel"),
            ("--firmware", "name a firmware"),
            ("--initrd", "name an initial ramdisk"),
            ("--dtb", "--dump-dtb"),
        ] {
            let mut args = vec!["run", flag, &file];
            if flag != "--kernel" {
                args.extend(["--kernel", &kernel]);
            }
            refused(&args, 1, &[flag, &file, reason, remedy]);
        }
        refused(&["disasm", &file], 1, &[&file, reason, "name an ELF file"]);
        if !file.ends_with("directory") {
            let outcome = run(hartvm().args(["test", &file]));
            let said = outcome.stderr.clone() + &String::from_utf8_lossy(&outcome.stdout);
            assert_eq!(outcome.code(), 1);
            assert!(said.contains(&file) && said.contains(reason), "{said}");
        }
    }
    let directory = text(&dir.path("directory"));
    refused(&["test", &directory], 1, &[&directory, "no ELF file"]);
}

#[test]
fn kernels_and_firmware_of_the_wrong_kind_are_refused() {
    let dir = Dir::new();
    let mut disk = vec![0; 4096];
    disk[0x1fe..0x200].copy_from_slice(b"\x55\xaa");
    let cases: [(&str, Vec<u8>, &str); 5] = [
        ("other-machine", elf(EM_X86_64), "64-bit little-endian RISC-V"),
        ("cut-elf", truncated_elf(), "truncated"),
        ("cut-linux", truncated_linux(), "get a whole copy"),
        ("cut-gzip", TRUNCATED_GZIP.to_vec(), "get a whole copy"),
        ("disk", disk, "with --disk"),
    ];
    for (name, contents, word) in cases {
        let file = text(&dir.file(name, &contents));
        refused(&["run", "--kernel", &file], 1, &["--kernel", &file, word]);
        refused(&["run", "--firmware", &file], 1, &["--firmware", &file, word]);
    }
    let huge = dir.zeros("huge", 5 << 30);
    refused(&["run", "--kernel", &text(&huge)], 1, &["--kernel", "huge", "give the guest more with -m"]);
}

#[test]
fn programs_that_cannot_be_disassembled_are_refused() {
    let dir = Dir::new();
    for (name, contents) in [("other", elf(EM_X86_64)), ("cut", truncated_elf()), ("text", b"hello".to_vec())]
    {
        let file = text(&dir.file(name, &contents));
        refused(&["disasm", &file], 1, &[&file, "name an ELF file for 64-bit RISC-V"]);
    }
}

#[test]
fn an_initrd_larger_than_ram_is_refused() {
    let dir = Dir::new();
    let kernel = text(&dir.file("kernel", &sleeper("")));
    for size in [1 << 40, 63 << 20] {
        let initrd = text(&dir.zeros("initrd", size));
        let args = ["run", "--memory", "64M", "--kernel", &kernel, "--initrd", &initrd];
        refused(&args, 1, &["--initrd", &initrd, "give the guest more with -m"]);
    }
}

#[test]
fn a_device_tree_that_is_none_is_refused() {
    let dir = Dir::new();
    let kernel = text(&dir.file("kernel", &sleeper("")));
    let whole = dir.path("whole");
    assert!(run(hartvm().args(["run", "--dump-dtb"]).arg(&whole)).status.success());
    let blob = std::fs::read(&whole).unwrap();
    for (name, contents) in [
        ("cut", &blob[..blob.len() / 2]),
        ("stub", &blob[..20]),
        ("text", b"/dts-v1/;"),
        ("huge", &vec![0; 300 << 10]),
    ] {
        let file = text(&dir.file(name, contents));
        refused(&["run", "--kernel", &kernel, "--dtb", &file], 1, &["--dtb", &file, "--dump-dtb"]);
    }
}

#[test]
fn more_memory_than_the_host_can_serve_is_refused() {
    let dir = Dir::new();
    let program = dir.file("program", &greeter("", 0));
    refused(
        &["run", "--kernel", &text(&program), "--memory", "60T"],
        1,
        &["--memory", "this host", "at most"],
    );
    // Address space for the program, not for the guest.
    let mut command = hartvm();
    command.args(["run", "--memory", "256M", "--kernel"]).arg(&program);
    let outcome = run(&mut in_shell("ulimit -v 200000", &command));
    assert_eq!(outcome.code(), 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("--memory") && outcome.stderr.contains("256 MiB"), "{}", outcome.stderr);
}

#[test]
fn a_refused_run_writes_nothing() {
    let dir = Dir::new();
    let (out, missing) = (text(&dir.path("out.dtb")), text(&dir.path("missing")));
    refused(&["run", "--dump-dtb", &out, "--kernel", &missing], 1, &[&missing]);
    refused(&["run", "--dump-dtb", &out, "--disk", &missing], 1, &[&missing]);
    refused(&["run", "--dump-dtb", &out, "--cpus", "0"], 2, &["--cpus"]);
    assert!(!Path::new(&out).exists());
    assert!(!Path::new(&missing).exists());
    refused(&["run", "--dump-dtb", &text(&dir.path("no/such/file"))], 1, &["--dump-dtb", "no/such/file"]);
}

#[test]
fn device_trees_are_dumped_with_and_without_a_kernel() {
    let dir = Dir::new();
    let program = dir.file("program", &sleeper(""));
    let outcome = run(hartvm().args(["run", "--dump-dts"]));
    assert!(outcome.status.success(), "{}", outcome.stderr);
    assert!(outcome.stdout.starts_with(b"/dts-v1/;"));
    let outcome = run(bare(&program).args(["--dump-dts", "--append", "quiet"]));
    assert!(String::from_utf8(outcome.stdout).unwrap().contains("bootargs = \"quiet\""));
}

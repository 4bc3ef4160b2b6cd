//! Firmware in flash, files loaded besides, and the seed for the first boot.

use frontend::Opcode;

use crate::guest::{Program, S0, greeter};
use crate::support::{Dir, hartvm, refused, run};

/// A whole number of sectors.
fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

#[test]
fn code_in_flash_runs_and_its_variables_stay_where_they_are_said_to_be() {
    let dir = Dir::new();
    let code = dir.file("X_CODE.fd", &padded(greeter("hello\n", 5)));
    dir.file("X_VARS.fd", &[0xff; 1024]);
    let disk = dir.zeros("disk", 4096);
    let outcome = run(hartvm()
        .args(["run", "--firmware", "none", "--memory", "64M", "--uefi"])
        .arg(&code)
        .arg("--disk")
        .arg(&disk));
    assert_eq!((outcome.code(), outcome.stdout.as_slice()), (5, &b"hello\n"[..]), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("disk.vars.fd (new)"), "{}", outcome.stderr);
    assert_eq!(std::fs::read(dir.path("disk.vars.fd")).unwrap(), [0xff; 1024]);
    assert_eq!(std::fs::read(&disk).unwrap(), [0; 4096]);
}

#[test]
fn flash_that_cannot_be_is_refused() {
    let dir = Dir::new();
    let code = dir.file("code", &padded(greeter("", 0))).display().to_string();
    let huge = dir.zeros("huge", 64 << 20).display().to_string();
    let empty = dir.file("empty", b"").display().to_string();
    refused(&["run", "--uefi", ""], 2, &["--uefi", "RISCV_VIRT_CODE.fd"]);
    refused(&["run", "--uefi", &format!("{code},size=1")], 2, &["--uefi", "`size=1`", "vars=FILE"]);
    refused(&["run", "--uefi", &code, "--append", "quiet"], 2, &["--append", "--kernel FILE"]);
    refused(&["run", "--uefi", &code, "--initrd", &code], 2, &["--initrd", "--kernel"]);
    refused(&["run", "--uefi", &code, "--kernel", "/nonexistent/k"], 1, &["--kernel", "/nonexistent/k"]);
    refused(&["run", "--uefi", "/nonexistent/code"], 1, &["--uefi", "/nonexistent/code", "qemu-efi-riscv64"]);
    refused(&["run", "--uefi", &huge], 2, &["--uefi", "huge", "33554432"]);
    refused(&["run", "--uefi", &empty], 2, &["--uefi", "empty"]);
    let bad = format!("{code},vars=/nonexistent/vars");
    refused(&["run", "--uefi", &bad], 1, &["--uefi", "/nonexistent/vars"]);
}

#[test]
fn files_are_loaded_besides() {
    let dir = Dir::new();
    let kernel = dir.file("kernel", &greeter("", 0)).display().to_string();
    let data = dir.file("data", b"data").display().to_string();
    let with = |load: &str| {
        ["run", "--firmware", "none", "--memory", "64M", "--kernel", &kernel, "--load", load]
            .map(String::from)
    };
    assert_eq!(run(hartvm().args(with(&format!("{data},addr=0x82000000,raw")))).code(), 0);
    refused(&with(&data), 1, &["--load", "addr=0x88000000"]);
    refused(&with(&format!("{data},addr=0x80000000")), 1, &["--load", "the kernel"]);
    refused(&with(&format!("{data},addr=0x83e00000,raw")), 1, &["--load", "the device tree"]);
    refused(&with(&format!("{data},addr=0x10")), 1, &["--load", "data"]);
    refused(&with(&format!("{data},at=1")), 2, &["--load", "`at=1`"]);
    refused(&with("/nonexistent,addr=0x82000000"), 1, &["--load", "/nonexistent"]);
}

#[test]
fn items_of_fw_cfg_are_there_by_both_command_lines() {
    const DATA: u64 = 0x1010_0000;
    const SELECTOR: u64 = DATA + 8;
    /// The first item with a name, as the register has it: big-endian.
    const FIRST_NAMED: u16 = 0x20;
    let dir = Dir::new();
    let mut program = Program::new();
    program.li(S0, FIRST_NAMED.swap_bytes().into()).store(Opcode::Sh, S0, SELECTOR);
    program.load(Opcode::Lbu, S0, DATA).exit_with(S0);
    let kernel = dir.file("kernel", &program.binary()).display().to_string();
    let file = dir.file("item", &[43]).display().to_string();
    for (contents, code) in [("string=*", 42), (&format!("file={file}"), 43)] {
        let (ours, qemus) = (format!("opt/a,{contents}"), format!("name=opt/a,{contents}"));
        let run_args =
            ["run", "--firmware", "none", "--memory", "64M", "--kernel", &kernel, "--fw-cfg", &ours];
        let qemu_args = ["qemu", "-bios", "none", "-nographic", "-kernel", &kernel, "-fw_cfg", &qemus];
        for args in [&run_args[..], &qemu_args] {
            let outcome = run(hartvm().args(args));
            assert_eq!(outcome.code(), code, "{args:?}: {}", outcome.stderr);
        }
    }
    let with = |item: &str| ["run", "--kernel", &kernel, "--fw-cfg", item].map(String::from);
    refused(&with("opt/a"), 2, &["--fw-cfg", "NAME,string=TEXT"]);
    refused(&with("opt/a,file=/nonexistent/item"), 1, &["--fw-cfg", "/nonexistent/item"]);
}

#[test]
fn bad_flags_for_the_first_boot_are_usage_errors() {
    let dir = Dir::new();
    let text = dir.file("text", b"hello").display().to_string();
    let with = |flag: &str, value: &str| ["run", "--kernel", "x", flag, value].map(String::from);
    refused(&with("--user", "a b"), 2, &["--user", "alice"]);
    refused(&with("--hostname", "a_b"), 2, &["--hostname", "box"]);
    refused(&with("--password", ""), 2, &["--password", "secret"]);
    refused(&with("--ssh-key", &text), 2, &["--ssh-key", "ssh-keygen"]);
    refused(&with("--ssh-key", "/nonexistent/key"), 1, &["--ssh-key", "/nonexistent/key", "ssh-keygen"]);
    refused(&with("--user-data", "/nonexistent/data"), 1, &["--user-data", "/nonexistent/data"]);
    refused(&with("--slot", "0=0"), 2, &["--slot", "no device `0`"]);
    refused(&with("--serial", "tcp:1"), 2, &["--serial", "file:FILE"]);
    let kernel = dir.file("kernel", &greeter("", 0)).display().to_string();
    refused(&["run", "--kernel", &kernel, "--serial", "file:/nonexistent/x"], 1, &["/nonexistent/x"]);
}

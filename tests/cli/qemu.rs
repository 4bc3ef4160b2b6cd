//! Command lines of QEMU, under its name, too.

use std::process::Command;

use crate::guest::greeter;
use crate::support::{Dir, hartvm, refused, run};

#[test]
fn a_command_line_of_qemus_runs_a_guest() {
    let dir = Dir::new();
    let kernel = dir.file("kernel", &greeter("hello\n", 3));
    let pidfile = dir.path("pid");
    let outcome = run(hartvm()
        .args([
            "qemu",
            "-machine",
            "virt,acpi=off",
            "-bios",
            "none",
            "-m",
            "64M",
            "-nographic",
            "-no-reboot",
            "-name",
            "x",
        ])
        .args(["-accel", "tcg,thread=multi", "-monitor", "none", "-pidfile"])
        .arg(&pidfile)
        .arg("-kernel")
        .arg(&kernel));
    assert_eq!((outcome.code(), outcome.stdout.as_slice()), (3, &b"hello\n"[..]), "{}", outcome.stderr);
    assert!(!pidfile.exists());
}

#[test]
fn under_qemus_name_it_is_qemu() {
    let dir = Dir::new();
    let kernel = dir.file("kernel", &greeter("hello\n", 0));
    let log = dir.path("log");
    let name = dir.path("qemu-system-riscv64");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_hartvm"), &name).unwrap();
    let outcome = run(Command::new(&name)
        .args(["-M", "virt", "-bios", "none", "-m", "64", "-display", "none", "-kernel"])
        .arg(&kernel)
        .arg("-serial")
        .arg(format!("file:{}", log.display())));
    assert_eq!((outcome.code(), outcome.stdout.as_slice()), (0, &b""[..]), "{}", outcome.stderr);
    assert_eq!(std::fs::read(log).unwrap(), b"hello\n");
}

#[test]
fn what_is_not_there_is_refused_with_what_is() {
    for (args, words) in [
        (&["-enable-kvm"][..], &["-enable-kvm", "leave it out"][..]),
        (&["-device", "virtio-gpu-pci"], &["virtio-gpu-pci", "-nographic"]),
        (&["-nograpic"], &["-nographic"]),
        (&["-cpu", "max,v=true"], &["v=on", "-cpu help"]),
        (&["-drive", "if=ide,file=x"], &["if=virtio"]),
        (&["-smp", "64", "-kernel", "x"], &["64", "1 to 32"]),
        (&["-kernel", "/nonexistent/kernel", "-append"], &["-append TEXT"]),
        (&[], &["-kernel", "-help"]),
    ] {
        refused(&[&["qemu"], args].concat(), 2, words);
    }
    refused(&["qemu", "-kernel", "/nonexistent/kernel"], 1, &["/nonexistent/kernel", "No such file"]);
}

#[test]
fn help_lists_options_and_translations_are_printed() {
    let help = String::from_utf8(run(hartvm().args(["qemu", "-help"])).stdout).unwrap();
    for word in ["Example", "-kernel FILE", "-drive", "Refused", "-translate"] {
        assert!(help.contains(word), "no `{word}` in: {help}");
    }
    let args = ["qemu", "-translate", "-M", "virt", "-m", "2G", "-kernel", "a b", "-append", "root=/dev/vda"];
    let outcome = run(hartvm().args(args));
    assert_eq!(
        outcome.stdout,
        b"hartvm run --append root=/dev/vda --cpus 1 --kernel 'a b' --memory 2048M --net none\n"
    );
}

#[test]
fn completions_and_manual_pages_know_the_flags() {
    for shell in ["bash", "zsh", "fish"] {
        let outcome = run(hartvm().args(["completions", shell]));
        let text = String::from_utf8(outcome.stdout).unwrap();
        assert!(text.contains("virtio-console") && text.contains("qemu"), "{shell}: {text}");
    }
    let dir = Dir::new();
    let pages = dir.path("man");
    assert_eq!(run(hartvm().arg("man").arg(&pages)).code(), 0);
    let page = std::fs::read_to_string(pages.join("hartvm-run.1")).unwrap();
    assert!(page.contains(".TH") && page.contains("snapshot") && page.contains("Examples"), "{page}");
    refused(&["completions", "tcsh"], 2, &["bash"]);
    refused(&["man", "/dev/null/x"], 1, &["/dev/null/x"]);
}

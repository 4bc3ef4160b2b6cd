//! Builds the guest program in `programs/`, with nothing but the Rust toolchain.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

const TARGET: &str = "riscv64gc-unknown-none-elf";

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

fn rustc() -> Command {
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// Whether the toolchain has the core library for the guest.
fn has_target() -> bool {
    let output = rustc().args(["--print", "target-libdir", "--target", TARGET]).output();
    output.is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
}

/// Builds the program and returns where it is; ends with a message if that is impossible.
pub(crate) fn build() -> PathBuf {
    let add = || succeeds(Command::new("rustup").args(["target", "add", TARGET]));
    let there = has_target() || add() && has_target();
    if !there {
        eprintln!("the guest program needs Rust's target {TARGET}: run `rustup target add {TARGET}`");
        std::process::exit(1);
    }
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/programs");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-guest.elf");
    let status = rustc()
        .args(["--edition", "2024", "--crate-name", "guest", "--target", TARGET])
        .args(["-C", "opt-level=3", "-C", "panic=abort", "-C", "relocation-model=static"])
        .arg("-C")
        .arg(format!("link-arg=-T{}", sources.join("link.x").display()))
        .arg("-o")
        .arg(&program)
        .arg(sources.join("guest.rs"))
        .status();
    assert!(status.as_ref().is_ok_and(ExitStatus::success), "the guest program does not build: {status:?}");
    program
}

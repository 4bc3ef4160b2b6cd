#!/bin/bash
# Everything that has to hold before a change lands. Installs what it needs; about ten minutes on two cores.
#   ./check.sh          all of it
#   ./check.sh quick    formatting, lints and tests on this host only
set -euo pipefail
cd "$(dirname "$0")"
. tests/setup.sh
quick=${1:-}
target=${CARGO_TARGET_DIR:-target}

need_rust
command -v rustup > /dev/null && rustup component add rustfmt clippy > /dev/null 2>&1 || true

say "formatting"
cargo fmt --all --check

say "lints"
cargo clippy --workspace --all-targets --quiet -- -D warnings
RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --quiet

say "tests on this host"
# Its qemu-img judges the disk images that tests write.
need_packages qemu-utils
cargo build --release --quiet
# The system tests run on translated code here, and once more on the interpreter.
HARTVM_LOCKSTEP_SECONDS=${HARTVM_LOCKSTEP_SECONDS:-60} cargo test --workspace --release --quiet
HARTVM_ENGINE=interp cargo test --release --quiet --test system

[ "$quick" = quick ] && exit

say "tests on aarch64, under qemu-user"
need_packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
command -v rustup > /dev/null || die "need rustup to get the aarch64 standard library: install the package rustup"
rustup target add aarch64-unknown-linux-gnu > /dev/null 2>&1
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER='qemu-aarch64 -L /usr/aarch64-linux-gnu'
cargo build --release --quiet --target aarch64-unknown-linux-gnu
# There is no backend for it: every engine is the interpreter, and what compares engines is left out.
# The tests of the command line run the program itself, which this host cannot start without the emulator.
HARTVM_FP_ROUNDS=20000 cargo test --release --quiet --target aarch64-unknown-linux-gnu \
    --workspace --lib --test vectors --test system --test softfloat_host

say "flame graphs in a browser"
tests/browser/run "$target/release/hartvm"

say "guests"
tests/boot/run "$target/release/hartvm" jit interp

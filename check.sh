#!/bin/bash
# Everything that has to hold before a change lands. Installs what it needs; half an hour on two cores.
#   ./check.sh          all of it
#   ./check.sh quick    formatting, lints and tests on this host only
set -euo pipefail
cd "$(dirname "$0")"
. tests/setup.sh
quick=${1:-}
target=${CARGO_TARGET_DIR:-target}
export CARGO_NET_RETRY=${CARGO_NET_RETRY:-10}

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
need_packages gdb-multiarch
# The system tests run on translated code here, and once more on the interpreter.
HARTVM_LOCKSTEP_SECONDS=${HARTVM_LOCKSTEP_SECONDS:-60} cargo test --workspace --release --quiet
HARTVM_ENGINE=interp cargo test --release --quiet --test system

[ "$quick" = quick ] && exit

# On an aarch64 host all of this is done already.
if [ "$(uname -m)" != aarch64 ]; then
    say "builds for aarch64"
    need_packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    command -v rustup > /dev/null || die "need rustup to get the aarch64 standard libraries: install the package rustup"
    again rustup target add aarch64-unknown-linux-gnu aarch64-unknown-linux-musl > /dev/null 2>&1
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld
    cargo build --release --quiet --target aarch64-unknown-linux-gnu
    cargo build --release --quiet --target aarch64-unknown-linux-musl
    find_qemu_aarch64
    if [ -z "$qemu_aarch64" ]; then
        say "SKIPPED: no qemu-user of QEMU 8.1 or later can be had here, so NO TEST OF THE AARCH64 BACKEND WAS RUN"
    else
        say "tests on aarch64, under $("$qemu_aarch64" --version | head -n 1)"
        emulator="$qemu_aarch64 -L /usr/aarch64-linux-gnu"
        export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$emulator
        aarch64=(--release --quiet --target aarch64-unknown-linux-gnu)
        # The tests of the command line, and one of the network, start a program, which this host cannot without the emulator.
        HARTVM_FP_ROUNDS=20000 HARTVM_LITMUS_ROUNDS=20000 HARTVM_LOCKSTEP_SECONDS=30 cargo test "${aarch64[@]}" \
            --workspace --lib --test vectors --test system --test softfloat_host --test floating_point --test litmus \
            -- --skip a_thousand_forwarded_connections
        # Harts that wait for each other are slow where other tests run beside them.
        HARTVM_LOCKSTEP_SECONDS=30 cargo test "${aarch64[@]}" --test lockstep -- --test-threads 1
        # Without the Large System Extensions, atomic operations are loops.
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$emulator -cpu cortex-a53" HARTVM_LITMUS_ROUNDS=20000 \
            cargo test "${aarch64[@]}" --test litmus --test vectors -- rv64a zacas zabha atomic passing buffering
        # The emulator has the pages of this host; a whole machine has those of its kernel.
        mapfile -t programs < <(cargo test --release --target aarch64-unknown-linux-gnu --test system --test floating_point \
            --no-run 2>&1 | sed -n 's/.*Executable.*(\(.*\))$/\1/p')
        [ "${#programs[@]}" = 2 ] || die "the programs of the tests are not found"
        tests/pages/run "$(realpath "$target")/aarch64-unknown-linux-gnu/tmp" "${programs[@]}"
        printf '#!/bin/sh\nexec %s %s "$@"\n' "$emulator" \
            "$(realpath "$target/aarch64-unknown-linux-gnu/release/hartvm")" > "$target/hartvm-aarch64"
        chmod +x "$target/hartvm-aarch64"
        HARTVM_BOOTS=few tests/boot/run "$target/hartvm-aarch64" jit
    fi
fi

say "flame graphs in a browser"
tests/browser/run "$target/release/hartvm"

say "guests"
tests/boot/run "$target/release/hartvm" jit interp

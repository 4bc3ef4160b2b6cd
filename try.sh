#!/bin/bash
# Builds hartvm, gets an unmodified Debian installer for RISC-V, and boots it on this terminal. Ctrl-A X quits.
# Arguments are passed on to `hartvm run`, for example: ./try.sh --cpus 4 --memory 2G
set -euo pipefail
cd "$(dirname "$0")"
. tests/setup.sh

need_rust
say "building hartvm"
cargo build --release --quiet
need_installer
say "booting Debian's installer; Ctrl-A X quits"
exec "${CARGO_TARGET_DIR:-target}/release/hartvm" run --kernel "$installer/linux" --initrd "$installer/initrd.gz" \
    --append "$installer_options" "$@"

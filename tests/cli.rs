//! The `hartvm` program as an impatient or a malicious user sees it: bad flags and files, misbehaving guests, signals,
//! terminals, full and contended disks. Every test runs the program, with guests that are made here.

#[path = "cli/coverage.rs"]
mod coverage;
#[path = "cli/disk.rs"]
mod disk;
#[path = "harness/disks.rs"]
#[expect(dead_code, reason = "the tests of the crate image use all of it")]
mod disks;
#[path = "cli/files.rs"]
mod files;
#[path = "cli/guest.rs"]
mod guest;
#[path = "cli/hostile.rs"]
mod hostile;
#[path = "cli/image.rs"]
mod image;
#[path = "cli/inside.rs"]
mod inside;
#[path = "cli/net.rs"]
mod net;
#[path = "cli/power.rs"]
mod power;
#[path = "cli/profile.rs"]
mod profile;
#[path = "cli/qemu.rs"]
mod qemu;
#[path = "cli/support.rs"]
mod support;
#[path = "cli/terminal.rs"]
mod terminal;
#[path = "cli/trace.rs"]
mod trace;
#[path = "cli/uefi.rs"]
mod uefi;
#[path = "cli/virtio.rs"]
mod virtio;

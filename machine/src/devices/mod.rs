//! The chips of the board. Each knows its registers and writes its own device-tree node.

pub mod cfi_flash;
pub mod clint;
pub mod fw_cfg;
pub mod plic;
pub mod rtc_goldfish;
pub mod sifive_test;
pub mod uart16550;
pub mod virtio;

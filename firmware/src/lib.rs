//! What runs before the kernel, and how it gets into memory.
//!
//! * [`Image`] reads an ELF, Linux `Image`, gzip or raw file and copies it to guest RAM; [`read_file`] and [`place`] do the same
//!   for data such as an initrd.
//! * [`boot`] decides what lies where and in which state the harts start.
//! * [`reset_rom`] is the code at 0x1000 with which they start, [`fw_dynamic`] what it hands to OpenSBI.
//! * [`symbols`] reads the names of code.
//! * [`sbi`] stands in for the firmware when none is given.

pub mod boot;
pub mod elf;
mod error;
mod file;
pub mod fw_dynamic;
mod image;
pub mod reset_rom;
pub mod sbi;
pub mod symbols;

pub use error::LoadError;
pub use file::{read_file, read_unpacked};
pub use image::{Image, Kind, Loaded, Occupied, Room, place};

//! What is in a disk image: partition tables, file systems, and the configurations of boot loaders.
//!
//! * [`recognize`] says what a file is, by its contents; [`unpack`] unpacks one that is compressed.
//! * [`menu`] and [`load`] find the kernel that a disk would boot, as its boot loader would.
//!
//! Everything is read only, from any [`Source`]. An image may contain anything: what can be read of it, how long, and how much
//! memory that takes are bounded.

#![forbid(unsafe_code)]

mod boot;
mod fs;
mod kind;
mod loader;
mod partition;
mod source;
mod unpack;
mod volumes;

pub use boot::{Boot, BootError, Entry, Menu, THREAD, load, menu};
pub use fs::FsError;
pub use kind::{Kind, recognize};
pub use source::Source;
pub use unpack::{Packing, UnpackError, unpack};

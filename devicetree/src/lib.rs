//! Device trees: built in memory, flattened to a blob (DTB), read back, and printed as source.
//!
//! The format is that of the Devicetree Specification 0.4, chapter 5. A tree is a [`Node`] (the root, whose name is
//! empty); properties and children keep the order in which they were added, because guests do notice it (the order
//! of virtio-mmio nodes decides which disk becomes `vda`).
//!
//! ```
//! let mut root = devicetree::Node::new("");
//! root.set_cells("#address-cells", &[2]).set_cells("#size-cells", &[2]).set_string("compatible", "riscv-virtio");
//! root.child("memory@80000000").set_string("device_type", "memory").set_reg(&[(0x8000_0000, 0x800_0000)]);
//! let blob = devicetree::flatten(&root, 0, &[]).unwrap();
//! assert_eq!(devicetree::parse(&blob).unwrap(), root);
//! ```

mod dts;
mod flatten;
mod node;
mod parse;

pub use dts::to_dts;
pub use flatten::flatten;
pub use node::{Node, Property};
pub use parse::{parse, reservations};

/// Levels of nodes that a tree may have, the root included: what Linux and libfdt accept.
pub const MAX_DEPTH: usize = 64;

/// Why a tree could not be flattened or a blob not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The blob does not start with the magic number 0xd00dfeed.
    #[error("not a device tree blob: it starts with {found:#010x} instead of 0xd00dfeed")]
    BadMagic {
        /// The first four bytes, big-endian.
        found: u32,
    },
    /// The blob is of a version that cannot be read.
    #[error(
        "device tree blob of version {version} (compatible down to {last_compatible}); versions 16 and 17 are known"
    )]
    BadVersion {
        /// The `version` field.
        version: u32,
        /// The `last_comp_version` field.
        last_compatible: u32,
    },
    /// The blob ends before its header says it does, or inside something.
    #[error("device tree blob is truncated: {what} at offset {offset:#x} lies outside of the blob")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Where, in bytes from the start of the blob.
        offset: usize,
    },
    /// The structure block is not a properly nested tree of known tokens.
    #[error("device tree blob is malformed at offset {offset:#x}: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Where, in bytes from the start of the blob.
        offset: usize,
    },
    /// The tree cannot be expressed as a blob.
    #[error("cannot flatten device tree node `{path}`: {reason}")]
    Flatten {
        /// The node, from the root.
        path: String,
        /// What the writer objected to.
        reason: String,
    },
}

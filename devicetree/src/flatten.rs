//! From the tree in memory to a blob.

use vm_fdt::{FdtReserveEntry, FdtWriter};

use crate::{Error, Node};

/// Writes `root` as a version 17 blob. `boot_cpuid` is the hart id of the boot CPU; `reserved` are (address, size) pairs
/// of physical memory for the memory reservation block.
///
/// # Errors
/// [`Error::Flatten`] when a name is not valid or longer than 31 bytes (Devicetree Specification 2.2.1, 2.2.4), two nodes
/// have the same phandle, the tree is deeper than [`MAX_DEPTH`](crate::MAX_DEPTH), or reservations are empty or overlap.
pub fn flatten(root: &Node, boot_cpuid: u32, reserved: &[(u64, u64)]) -> Result<Vec<u8>, Error> {
    let at_root = |error| failed("/", error);
    let reserved: Result<Vec<_>, _> =
        reserved.iter().map(|&(address, size)| FdtReserveEntry::new(address, size)).collect();
    let mut writer = FdtWriter::new_with_mem_reserv(&reserved.map_err(at_root)?).map_err(at_root)?;
    writer.set_boot_cpuid_phys(boot_cpuid);
    write_node(&mut writer, root, "")?;
    writer.finish().map_err(at_root)
}

// The recursion ends because the writer refuses to begin a node that is nested too deeply.
fn write_node(writer: &mut FdtWriter, node: &Node, parent: &str) -> Result<(), Error> {
    let path = if parent == "/" { format!("/{}", node.name) } else { format!("{parent}/{}", node.name) };
    let open = writer.begin_node(&node.name).map_err(|error| failed(&path, error))?;
    for property in &node.properties {
        let written = match (property.name.as_str(), property.as_u32()) {
            // The writer checks that phandles are unique only if it is told that they are phandles.
            ("phandle", Some(phandle)) => writer.property_phandle(phandle),
            (name, _) => writer.property(name, &property.value),
        };
        written.map_err(|error| failed(&format!("{path}:{}", property.name), error))?;
    }
    for child in &node.children {
        write_node(writer, child, &path)?;
    }
    writer.end_node(open).map_err(|error| failed(&path, error))
}

fn failed(path: &str, error: vm_fdt::Error) -> Error {
    Error::Flatten { path: path.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MAX_DEPTH;

    fn nested(levels: usize) -> Node {
        let mut node = Node::new("leaf");
        for _ in 2..levels {
            let mut parent = Node::new("n");
            parent.children.push(node);
            node = parent;
        }
        let mut root = Node::new("");
        root.children.push(node);
        root
    }

    #[test]
    fn header_says_version_17_and_the_boot_hart() {
        let blob = flatten(&Node::new(""), 3, &[]).unwrap();
        let field = |index: usize| u32::from_be_bytes(blob[4 * index..4 * index + 4].try_into().unwrap());
        assert_eq!(field(0), 0xd00d_feed);
        assert_eq!(field(1) as usize, blob.len());
        assert_eq!(field(5), 17);
        assert_eq!(field(6), 16);
        assert_eq!(field(7), 3);
    }

    #[test]
    fn errors_name_the_node() {
        let mut root = Node::new("");
        root.child("soc").child("bad name").set_u32("x", 1);
        let error = flatten(&root, 0, &[]).unwrap_err();
        assert!(matches!(&error, Error::Flatten { path, .. } if path == "/soc/bad name"), "{error}");
    }

    #[test]
    fn two_nodes_with_one_phandle_are_refused() {
        let mut root = Node::new("");
        root.child("a").set_u32("phandle", 1);
        root.child("b").set_u32("phandle", 1);
        let error = flatten(&root, 0, &[]).unwrap_err();
        assert!(matches!(&error, Error::Flatten { path, .. } if path == "/b:phandle"), "{error}");
    }

    #[test]
    fn depth_is_limited() {
        assert!(flatten(&nested(MAX_DEPTH), 0, &[]).is_ok());
        assert!(flatten(&nested(MAX_DEPTH + 1), 0, &[]).is_err());
    }

    #[test]
    fn overlapping_reservations_are_refused() {
        assert!(flatten(&Node::new(""), 0, &[(0x1000, 0x1000), (0x1800, 0x1000)]).is_err());
    }
}

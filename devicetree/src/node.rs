//! The tree in memory.

/// A property: a name and uninterpreted bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// The name, for example `reg`.
    pub name: String,
    /// The value as it is stored in a blob: numbers big-endian, strings NUL-terminated.
    pub value: Vec<u8>,
}

impl Property {
    /// The value as one 32-bit cell.
    pub fn as_u32(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.value.as_slice().try_into().ok()?))
    }

    /// The value as two cells, the high one first.
    pub fn as_u64(&self) -> Option<u64> {
        Some(u64::from_be_bytes(self.value.as_slice().try_into().ok()?))
    }

    /// The value as 32-bit cells, if its length is a multiple of four.
    pub fn as_cells(&self) -> Option<Vec<u32>> {
        let (cells, rest) = self.value.as_chunks::<4>();
        rest.is_empty().then(|| cells.iter().map(|cell| u32::from_be_bytes(*cell)).collect())
    }

    /// The value as one NUL-terminated string.
    pub fn as_str(&self) -> Option<&str> {
        let text = std::str::from_utf8(self.value.strip_suffix(&[0])?).ok()?;
        (!text.contains('\0')).then_some(text)
    }

    /// The value as a list of NUL-terminated strings.
    pub fn as_strings(&self) -> Option<Vec<&str>> {
        let text = std::str::from_utf8(self.value.strip_suffix(&[0])?).ok()?;
        Some(text.split('\0').collect())
    }
}

/// A node with its properties and children, each in the order in which they were added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The name with the unit address, for example `serial@10000000`; empty for the root.
    pub name: String,
    /// The properties, in order.
    pub properties: Vec<Property>,
    /// The child nodes, in order.
    pub children: Vec<Node>,
}

impl Node {
    /// A node without properties and children.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), properties: Vec::new(), children: Vec::new() }
    }

    /// Sets a property to raw bytes. Like all the setters, it replaces the value of a property of the same name in
    /// place, else adds one at the end, and returns the node so that calls can be chained.
    pub fn set_bytes(&mut self, name: &str, value: impl Into<Vec<u8>>) -> &mut Self {
        match self.properties.iter_mut().find(|property| property.name == name) {
            Some(property) => property.value = value.into(),
            None => self.properties.push(Property { name: name.to_owned(), value: value.into() }),
        }
        self
    }

    /// Sets a property that has a meaning by being there, such as `interrupt-controller`.
    pub fn set_empty(&mut self, name: &str) -> &mut Self {
        self.set_bytes(name, [])
    }

    /// Sets a property to one cell.
    pub fn set_u32(&mut self, name: &str, value: u32) -> &mut Self {
        self.set_bytes(name, value.to_be_bytes())
    }

    /// Sets a property to one 64-bit number: two cells, the high one first.
    pub fn set_u64(&mut self, name: &str, value: u64) -> &mut Self {
        self.set_bytes(name, value.to_be_bytes())
    }

    /// Sets a property to a list of cells.
    pub fn set_cells(&mut self, name: &str, cells: &[u32]) -> &mut Self {
        self.set_bytes(name, cells.iter().flat_map(|cell| cell.to_be_bytes()).collect::<Vec<u8>>())
    }

    /// Sets `reg` to (address, size) pairs of two cells each.
    pub fn set_reg(&mut self, ranges: &[(u64, u64)]) -> &mut Self {
        let numbers = ranges.iter().flat_map(|&(address, size)| [address, size]);
        self.set_bytes("reg", numbers.flat_map(u64::to_be_bytes).collect::<Vec<u8>>())
    }

    /// Sets a property to a string. A NUL inside makes it a list of strings.
    pub fn set_string(&mut self, name: &str, text: &str) -> &mut Self {
        self.set_strings(name, &[text])
    }

    /// Sets a property to a list of strings.
    pub fn set_strings(&mut self, name: &str, texts: &[impl AsRef<str>]) -> &mut Self {
        let mut value = Vec::new();
        for text in texts {
            value.extend_from_slice(text.as_ref().as_bytes());
            value.push(0);
        }
        self.set_bytes(name, value)
    }

    /// The property of that name.
    pub fn property(&self, name: &str) -> Option<&Property> {
        self.properties.iter().find(|property| property.name == name)
    }

    /// Removes a property; returns whether it was there.
    pub fn remove_property(&mut self, name: &str) -> bool {
        let before = self.properties.len();
        self.properties.retain(|property| property.name != name);
        self.properties.len() != before
    }

    /// The child of exactly that name, added at the end if there is none.
    pub fn child(&mut self, name: &str) -> &mut Node {
        match self.children.iter().position(|child| child.name == name) {
            Some(index) => &mut self.children[index],
            None => self.add_child(Node::new(name)),
        }
    }

    /// Adds a child at the end, whatever names are there already.
    pub fn add_child(&mut self, child: Node) -> &mut Node {
        self.children.push(child);
        let last = self.children.len() - 1;
        &mut self.children[last]
    }

    /// The node at a path such as `/soc/serial@10000000`, seen from this node; `/` is this node. As in libfdt, a
    /// component without `@` also finds the first child that has this name before its unit address.
    pub fn find(&self, path: &str) -> Option<&Node> {
        components(path).try_fold(self, |node, component| node.children.get(node.position(component)?))
    }

    /// As [`find`](Self::find), to change the node.
    pub fn find_mut(&mut self, path: &str) -> Option<&mut Node> {
        components(path).try_fold(self, |node, component| {
            let index = node.position(component)?;
            node.children.get_mut(index)
        })
    }

    fn position(&self, component: &str) -> Option<usize> {
        let exact = self.children.iter().position(|child| child.name == component);
        exact.or_else(|| {
            let base = |name: &str| name.split_once('@').is_some_and(|(base, _)| base == component);
            self.children.iter().position(|child| base(&child.name))
        })
    }
}

fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|component| !component.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setters_store_big_endian_numbers_and_terminated_strings() {
        let mut node = Node::new("n");
        node.set_u32("a", 1)
            .set_u64("b", 0x1_0000_0002)
            .set_cells("c", &[3, 4])
            .set_reg(&[(0x8000_0000, 0x1_0000_0000)]);
        node.set_string("d", "x").set_strings("e", &["x", "yz"]).set_empty("f").set_bytes("g", [1, 2, 3]);
        let value = |name| node.property(name).unwrap().value.as_slice();
        assert_eq!(value("a"), [0, 0, 0, 1]);
        assert_eq!(value("b"), [0, 0, 0, 1, 0, 0, 0, 2]);
        assert_eq!(value("c"), [0, 0, 0, 3, 0, 0, 0, 4]);
        assert_eq!(value("reg"), [0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(value("d"), b"x\0");
        assert_eq!(value("e"), b"x\0yz\0");
        assert_eq!(value("f"), b"");
        assert_eq!(value("g"), [1, 2, 3]);
    }

    #[test]
    fn setting_again_replaces_in_place() {
        let mut node = Node::new("n");
        node.set_u32("a", 1).set_u32("b", 2).set_u32("a", 3);
        let names: Vec<&str> = node.properties.iter().map(|property| property.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(node.property("a").unwrap().as_u32(), Some(3));
    }

    #[test]
    fn getters_refuse_what_does_not_fit() {
        let property = |value: &[u8]| Property { name: "p".into(), value: value.into() };
        assert_eq!(property(&[0, 0, 0, 5]).as_u32(), Some(5));
        assert_eq!(property(&[0, 0, 5]).as_u32(), None);
        assert_eq!(property(&[0, 0, 0, 1, 0, 0, 0, 0]).as_u64(), Some(0x1_0000_0000));
        assert_eq!(property(&[0, 0, 0, 1, 0]).as_cells(), None);
        assert_eq!(property(&[0, 0, 0, 1, 0, 0, 0, 2]).as_cells(), Some(vec![1, 2]));
        assert_eq!(property(b"abc\0").as_str(), Some("abc"));
        assert_eq!(property(b"abc").as_str(), None);
        assert_eq!(property(b"a\0b\0").as_str(), None);
        assert_eq!(property(b"a\0b\0").as_strings(), Some(vec!["a", "b"]));
        assert_eq!(property(b"\xff\0").as_strings(), None);
        assert_eq!(property(b"").as_strings(), None);
    }

    #[test]
    fn child_finds_or_creates() {
        let mut root = Node::new("");
        root.child("soc").set_u32("x", 1);
        root.child("soc").set_u32("y", 2);
        assert_eq!(root.children.len(), 1);
        assert_eq!(root.children[0].properties.len(), 2);
    }

    #[test]
    fn find_follows_a_path_with_or_without_unit_addresses() {
        let mut root = Node::new("");
        root.child("soc").child("serial@10000000").set_u32("x", 1);
        root.child("soc").child("serial@20000000");
        assert_eq!(root.find("/").unwrap().name, "");
        assert_eq!(root.find("/soc/serial@20000000").unwrap().name, "serial@20000000");
        assert_eq!(root.find("/soc/serial").unwrap().name, "serial@10000000");
        assert!(root.find("/soc/seria").is_none());
        assert!(root.find("/nothing/here").is_none());
        root.find_mut("/soc/serial@10000000").unwrap().remove_property("x");
        assert!(root.find("/soc/serial").unwrap().properties.is_empty());
    }
}

//! The direct jumps that lead to each block, as lists in one slab: there are about as many as blocks, and most lists are short.

/// No node.
const END: u32 = u32::MAX;

/// The jumps that lead to one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct List(u32);

impl Default for List {
    fn default() -> Self {
        List(END)
    }
}

#[derive(Clone, Copy)]
struct Node {
    jump: Jump,
    next: u32,
}

/// A linked direct jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Jump {
    /// Arena offset of its displacement.
    pub(super) field: u32,
    /// The displacement it had before.
    pub(super) unlinked: u32,
}

/// All lists of a cache.
pub(super) struct Links {
    nodes: Vec<Node>,
    /// Nodes that are not used, as a list.
    free: u32,
}

impl Default for Links {
    fn default() -> Self {
        Links { nodes: Vec::new(), free: END }
    }
}

impl Links {
    pub(super) fn push(&mut self, list: &mut List, jump: Jump) {
        let node = Node { jump, next: list.0 };
        list.0 = match self.nodes.get_mut(self.free as usize) {
            Some(place) => {
                let index = std::mem::replace(&mut self.free, place.next);
                *place = node;
                index
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() as u32 - 1
            }
        };
    }

    pub(super) fn iter(&self, list: List) -> impl Iterator<Item = Jump> {
        let mut next = list.0;
        std::iter::from_fn(move || {
            let node = self.nodes.get(next as usize)?;
            next = node.next;
            Some(node.jump)
        })
    }

    /// Empties a list.
    pub(super) fn clear(&mut self, list: &mut List) {
        self.retain(list, |_| false);
    }

    /// Keeps the jumps of a list that `keep` says.
    pub(super) fn retain(&mut self, list: &mut List, keep: impl Fn(Jump) -> bool) {
        let mut kept = List::default();
        let mut next = std::mem::take(list).0;
        while let Some(node) = self.nodes.get_mut(next as usize) {
            let index = next;
            next = node.next;
            let to = if keep(node.jump) { &mut kept.0 } else { &mut self.free };
            node.next = std::mem::replace(to, index);
        }
        *list = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jump(field: u32) -> Jump {
        Jump { field, unlinked: field + 1 }
    }

    #[test]
    fn lists_keep_their_jumps_apart_and_reuse_nodes() {
        let mut links = Links::default();
        let (mut a, mut b) = (List::default(), List::default());
        for field in 0..10 {
            links.push(if field % 2 == 0 { &mut a } else { &mut b }, jump(field));
        }
        links.retain(&mut a, |jump| jump.field > 3);
        let mut fields: Vec<u32> = links.iter(a).map(|jump| jump.field).collect();
        fields.sort_unstable();
        assert_eq!(fields, [4, 6, 8]);
        assert_eq!(links.iter(b).count(), 5);
        links.clear(&mut b);
        assert_eq!(links.iter(b).next(), None);
        for field in 20..27 {
            links.push(&mut b, jump(field));
        }
        assert_eq!(links.nodes.len(), 10);
        assert_eq!(links.iter(a).count() + links.iter(b).count(), 10);
    }
}

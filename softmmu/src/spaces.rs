//! Numbers for address spaces.
//!
//! Caches are tagged with a number of ours, not with the ASID. A number that is not given out again is a flush of everything
//! tagged with it, at no cost; and a guest that reuses an ASID for another page table without an `sfence.vma` gets a new
//! number too. (The specification lets it see stale translations then, but no guest can want them.)

/// Number of an address space, or of the set of all global mappings. 0 is never one.
pub(crate) type SpaceId = u32;

/// Width of a [`SpaceId`].
pub(crate) const SPACE_BITS: u32 = 19;

/// ASIDs that are told apart, by their low bits. One that comes after another in the same place starts afresh.
const SLOTS: usize = 256;

#[derive(Clone, Copy, Default)]
struct Slot {
    satp: u64,
    /// 0 if the slot is empty.
    id: SpaceId,
}

pub(crate) struct Spaces {
    slots: [Slot; SLOTS],
    global: SpaceId,
    next: SpaceId,
}

impl Spaces {
    pub(crate) fn new() -> Self {
        Self { slots: [Slot::default(); SLOTS], global: 1, next: 2 }
    }

    /// The tag of global mappings.
    pub(crate) fn global(&self) -> SpaceId {
        self.global
    }

    /// The number of the address space of a `satp` that is not Bare.
    pub(crate) fn of(&mut self, satp: u64) -> SpaceId {
        let slot = &mut self.slots[asid(satp) % SLOTS];
        if slot.id == 0 || slot.satp != satp {
            *slot = Slot { satp, id: self.next };
            self.next += 1;
        }
        slot.id
    }

    /// The number that an ASID has, if anything can be tagged with it.
    pub(crate) fn find(&self, wanted: u16) -> Option<SpaceId> {
        let slot = self.slots[usize::from(wanted) % SLOTS];
        (slot.id != 0 && asid(slot.satp) == usize::from(wanted)).then_some(slot.id)
    }

    /// Takes the number from an ASID, and returns it.
    pub(crate) fn retire(&mut self, asid: u16) -> Option<SpaceId> {
        let id = self.find(asid)?;
        self.slots[usize::from(asid) % SLOTS].id = 0;
        Some(id)
    }

    /// Takes all numbers, including that of global mappings.
    pub(crate) fn retire_all(&mut self) {
        self.slots = [Slot::default(); SLOTS];
        self.global = self.next;
        self.next += 1;
    }

    /// Whether numbers run out: then all caches must be cleared, and [`Self::new`] take its place.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.next >= (1 << SPACE_BITS) - 4
    }
}

/// `satp.ASID`, 16 bits implemented.
fn asid(satp: u64) -> usize {
    (satp >> 44) as usize & 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_keeps_its_number_until_retired() {
        let mut spaces = Spaces::new();
        let (a, b) = (8 << 60 | 1 << 44 | 0x80000, 8 << 60 | 2 << 44 | 0x80000);
        let first = spaces.of(a);
        assert_ne!(first, spaces.of(b));
        assert_eq!(first, spaces.of(a));
        assert_eq!(spaces.find(1), Some(first));
        assert_eq!(spaces.find(257), None);
        assert_eq!(spaces.retire(1), Some(first));
        assert_eq!(spaces.find(1), None);
        assert_ne!(spaces.of(a), first);
    }

    #[test]
    fn another_page_table_under_the_same_asid_is_another_space() {
        let mut spaces = Spaces::new();
        let first = spaces.of(8 << 60 | 0x80000);
        assert_ne!(spaces.of(8 << 60 | 0x80001), first);
        assert_ne!(spaces.of(9 << 60 | 0x80001), first);
    }
}

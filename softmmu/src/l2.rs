//! The second-level TLB: leaf entries by virtual page and address space, in their own size.
//!
//! It makes refilling a first-level entry cheap, and survives what the first level does not: a switch of address space, a
//! context that was given away, and for superpages every one of their 4 KiB pages. Only leaves with A=1 are here, so an entry
//! answers anything but a first store (D=0) or an access it does not permit; those are walked again.

use crate::spaces::{SPACE_BITS, SpaceId};
use crate::walk::{Leaf, pte};

const WAYS: usize = 4;
const SMALL_SETS: usize = 1024;
const MEGA_SETS: usize = 64;
const HUGE_WAYS: usize = 16;

/// Address spaces are spread over the sets by this many bits of their number, so that processes with the same layout do not
/// fight for the same sets. A flush of one page in all address spaces visits 2^`SPREAD_BITS` sets.
const SPREAD_BITS: u32 = 2;

/// Where the level is kept in a way: among the bits that are reserved, hence 0, in a PTE.
const LEVEL_SHIFT: u32 = 54;

/// Bits of a virtual page number that can differ in canonical addresses of Sv57.
const VPN_BITS: u32 = 45;

/// A leaf, and under which key: virtual page number above, address space below. Zero is an empty way, since no address
/// space has number 0.
#[derive(Clone, Copy, Default)]
struct Way {
    key: u64,
    leaf: u64,
}

impl Way {
    fn level(&self) -> u32 {
        (self.leaf >> LEVEL_SHIFT & 7) as u32
    }

    fn unpack(&self) -> Leaf {
        Leaf { pte: self.leaf & !(7 << LEVEL_SHIFT), level: self.level() }
    }

    /// Whether it maps the page in some address space.
    fn maps(&self, vpn: u64) -> bool {
        self.key != 0 && (self.key >> SPACE_BITS ^ vpn) >> (9 * self.level()) == 0
    }
}

type Set = [Way; WAYS];

pub(crate) struct L2 {
    /// 4 KiB pages, also those of NAPOT ranges.
    small: Box<[Set]>,
    /// 2 MiB pages.
    mega: Box<[Set]>,
    /// 1 GiB and larger.
    huge: [Way; HUGE_WAYS],
    /// Some way of `huge` is taken.
    huge_used: bool,
    victim: usize,
}

impl L2 {
    pub(crate) fn new() -> Self {
        Self {
            small: vec![Set::default(); SMALL_SETS].into(),
            mega: vec![Set::default(); MEGA_SETS].into(),
            huge: [Way::default(); HUGE_WAYS],
            huge_used: false,
            victim: 0,
        }
    }

    /// The leaf that maps `va`, a canonical address, in the address space or for all (`global`).
    pub(crate) fn lookup(&self, va: u64, space: SpaceId, global: SpaceId) -> Option<Leaf> {
        let vpn = vpn(va);
        for space in [space, global] {
            let key = key(vpn, space);
            if let Some(way) = self.small[small_set(vpn, space)].iter().find(|way| way.key == key) {
                return Some(way.unpack());
            }
        }
        for space in [space, global] {
            let key = key(vpn >> 9 << 9, space);
            if let Some(way) = self.mega[mega_set(vpn)].iter().find(|way| way.key == key) {
                return Some(way.unpack());
            }
        }
        if self.huge_used {
            let way = self.huge.iter().find(|way| {
                way.maps(vpn)
                    && [u64::from(space), u64::from(global)].contains(&(way.key & ((1 << SPACE_BITS) - 1)))
            });
            return way.map(Way::unpack);
        }
        None
    }

    /// Enters a leaf, in place of the one with the same key if there is one.
    pub(crate) fn insert(&mut self, va: u64, space: SpaceId, leaf: Leaf) {
        let vpn = vpn(va);
        let base = vpn >> (9 * leaf.level) << (9 * leaf.level);
        let way = Way {
            key: key(base, space),
            leaf: leaf.pte & !(7 << LEVEL_SHIFT) | u64::from(leaf.level) << LEVEL_SHIFT,
        };
        let ways = match leaf.level {
            0 => &mut self.small[small_set(vpn, space)][..],
            1 => &mut self.mega[mega_set(vpn)][..],
            _ => {
                self.huge_used = true;
                &mut self.huge[..]
            }
        };
        let same = |other: &Way| other.key == way.key && other.level() == leaf.level;
        let place =
            ways.iter().position(same).or_else(|| ways.iter().position(|way| way.key == 0)).unwrap_or_else(
                || {
                    self.victim = self.victim.wrapping_add(1);
                    self.victim % ways.len()
                },
            );
        ways[place] = way;
    }

    /// Forgets what maps `va`, in one address space or (`None`) in all and for all.
    pub(crate) fn flush_page(&mut self, va: u64, space: Option<SpaceId>) {
        let vpn = vpn(va);
        let drop = |way: &mut Way| {
            if way.maps(vpn) && space.is_none_or(|space| way.key == key(way.key >> SPACE_BITS, space)) {
                *way = Way::default();
            }
        };
        match space {
            Some(space) => self.small[small_set(vpn, space)].iter_mut().for_each(drop),
            None => {
                (0..1 << SPREAD_BITS).for_each(|s| self.small[small_set(vpn, s)].iter_mut().for_each(drop))
            }
        }
        self.mega[mega_set(vpn)].iter_mut().for_each(drop);
        if self.huge_used {
            self.huge.iter_mut().for_each(drop);
        }
    }

    /// Forgets everything; needed only when numbers of address spaces start over.
    pub(crate) fn clear(&mut self) {
        self.small.fill(Set::default());
        self.mega.fill(Set::default());
        self.huge = [Way::default(); HUGE_WAYS];
        self.huge_used = false;
    }
}

fn vpn(va: u64) -> u64 {
    va >> 12 & ((1 << VPN_BITS) - 1)
}

fn key(vpn: u64, space: SpaceId) -> u64 {
    vpn << SPACE_BITS | u64::from(space)
}

fn small_set(vpn: u64, space: SpaceId) -> usize {
    let spread = (space as usize & ((1 << SPREAD_BITS) - 1)) << (SMALL_SETS.ilog2() - SPREAD_BITS);
    ((vpn ^ vpn >> 10) as usize ^ spread) % SMALL_SETS
}

fn mega_set(vpn: u64) -> usize {
    ((vpn >> 9) ^ (vpn >> 15)) as usize % MEGA_SETS
}

const _: () = assert!(VPN_BITS + SPACE_BITS == 64);
const _: () = assert!(pte::RESERVED & (7 << LEVEL_SHIFT) == 7 << LEVEL_SHIFT);

#[cfg(test)]
mod tests {
    use super::*;

    const GLOBAL: SpaceId = 1;

    fn leaf(ppn: u64, level: u32) -> Leaf {
        Leaf { pte: ppn << pte::PPN_SHIFT | pte::V | pte::R | pte::A, level }
    }

    #[test]
    fn entries_belong_to_their_space() {
        let mut l2 = L2::new();
        l2.insert(0x5000, 2, leaf(7, 0));
        l2.insert(0x6000, GLOBAL, leaf(8, 0));
        assert_eq!(l2.lookup(0x5fff, 2, GLOBAL), Some(leaf(7, 0)));
        assert_eq!(l2.lookup(0x5000, 3, GLOBAL), None);
        assert_eq!(l2.lookup(0x6000, 3, GLOBAL), Some(leaf(8, 0)));
        assert_eq!(l2.lookup(0x6000, 3, 9), None);
    }

    #[test]
    fn large_pages_are_found_and_flushed_by_any_address_in_them() {
        for level in 1..5 {
            let mut l2 = L2::new();
            let size = 0x1000 << (9 * level);
            let va = u64::MAX << 56;
            l2.insert(va + 0x1234, 5, leaf(0, level));
            assert_eq!(l2.lookup(va + size - 1, 5, GLOBAL), Some(leaf(0, level)));
            assert_eq!(l2.lookup(va.wrapping_add(size), 5, GLOBAL), None);
            l2.flush_page(va + size - 0x2000, Some(6));
            assert!(l2.lookup(va, 5, GLOBAL).is_some());
            l2.flush_page(va + size - 0x2000, Some(5));
            assert_eq!(l2.lookup(va, 5, GLOBAL), None);
        }
    }

    #[test]
    fn flushing_a_page_of_all_spaces() {
        let mut l2 = L2::new();
        for space in 1..20 {
            l2.insert(0x7000, space, leaf(u64::from(space), 0));
            l2.insert(0x8000, space, leaf(u64::from(space), 0));
        }
        l2.flush_page(0x7000, None);
        for space in 1..20 {
            assert_eq!(l2.lookup(0x7000, space, space), None);
        }
        assert!(l2.lookup(0x8000, 19, GLOBAL).is_some());
    }

    #[test]
    fn a_leaf_replaces_its_older_self() {
        let mut l2 = L2::new();
        l2.insert(0x7000, 2, leaf(1, 0));
        l2.insert(0x7000, 2, leaf(2, 0));
        l2.flush_page(0x7000, Some(2));
        assert_eq!(l2.lookup(0x7000, 2, GLOBAL), None);
    }
}

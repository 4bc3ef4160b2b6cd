//! Physical memory protection (Privileged 3.7): 16 entries, granularity 4 bytes.

use crate::PAGE_SIZE;
use crate::trap::{Access, Privilege};

/// Entries implemented.
pub(crate) const ENTRIES: usize = 16;

/// Bits of a `pmpXcfg` byte.
mod cfg {
    pub(super) const R: u8 = 1;
    pub(super) const W: u8 = 2;
    pub(super) const X: u8 = 4;
    pub(super) const A: u8 = 3 << 3;
    pub(super) const TOR: u8 = 1 << 3;
    pub(super) const NA4: u8 = 2 << 3;
    pub(super) const NAPOT: u8 = 3 << 3;
    pub(super) const L: u8 = 1 << 7;
}

/// `pmpaddr` holds bits 55..2 of an address.
const ADDRESS_MASK: u64 = (1 << 54) - 1;

/// The PMP registers of a hart.
#[derive(Clone, Debug)]
pub struct Pmp {
    cfg: [u8; ENTRIES],
    addr: [u64; ENTRIES],
    /// The addresses each entry matches, first and one past the last.
    ranges: [(u64, u64); ENTRIES],
    /// Nothing is forbidden: to S and U, and to M.
    open: bool,
    open_to_machine: bool,
}

impl Default for Pmp {
    fn default() -> Self {
        let mut pmp = Self {
            cfg: [0; ENTRIES],
            addr: [0; ENTRIES],
            ranges: [(0, 0); ENTRIES],
            open: false,
            open_to_machine: false,
        };
        pmp.changed();
        pmp
    }
}

impl Pmp {
    /// `pmpcfg0` for 0, `pmpcfg2` for 1; zero for others.
    pub fn cfg(&self, register: usize) -> u64 {
        self.cfg.as_chunks().0.get(register).map_or(0, |&bytes| u64::from_le_bytes(bytes))
    }

    /// `pmpaddr` of an entry; zero for an entry that is not there.
    pub fn addr(&self, entry: usize) -> u64 {
        self.addr.get(entry).copied().unwrap_or(0)
    }

    /// Writes what [`Self::cfg`] reads. Locked entries keep their value; the reserved combination R=0 W=1 becomes no
    /// access at all.
    pub(crate) fn write_cfg(&mut self, register: usize, value: u64) {
        let Some(bytes) = self.cfg.as_chunks_mut::<8>().0.get_mut(register) else { return };
        let new: [u8; 8] = value.to_le_bytes();
        for (old, new) in bytes.iter_mut().zip(new).filter(|(old, _)| **old & cfg::L == 0) {
            *old = new & (cfg::L | cfg::A | cfg::X | cfg::W | cfg::R);
            if *old & (cfg::R | cfg::W) == cfg::W {
                *old &= cfg::L | cfg::A;
            }
        }
        self.changed();
    }

    /// Writes `pmpaddr` of an entry, unless it is locked, by its own L bit or as the base of a locked TOR entry.
    pub(crate) fn write_addr(&mut self, entry: usize, value: u64) {
        let locks = |cfg: u8| cfg & cfg::L != 0;
        let next_is_locked_tor = |next: &u8| locks(*next) && next & cfg::A == cfg::TOR;
        match self.cfg.get(entry) {
            Some(&cfg) if !locks(cfg) && !self.cfg.get(entry + 1).is_some_and(next_is_locked_tor) => {
                self.addr[entry] = value & ADDRESS_MASK;
                self.changed();
            }
            _ => {}
        }
    }

    /// As after power-on, and entry 0 allows everything.
    pub(crate) fn open(&mut self) {
        *self = Self::default();
        self.cfg[0] = cfg::NAPOT | cfg::X | cfg::W | cfg::R;
        self.addr[0] = ADDRESS_MASK;
        self.changed();
    }

    /// Whether an access to the `length` bytes from `pa` on is allowed.
    pub(crate) fn allows(&self, pa: u64, length: u64, access: Access, privilege: Privilege) -> bool {
        if self.is_open(privilege) {
            return true;
        }
        let end = pa.saturating_add(length);
        match self.ranges.iter().position(|&(from, to)| from < end && pa < to) {
            // An entry that matches only some of the bytes fails the access, whatever it allows.
            Some(entry) => {
                let (from, to) = self.ranges[entry];
                from <= pa && end <= to && self.entry_allows(entry, access, privilege)
            }
            None => privilege == Privilege::Machine,
        }
    }

    /// Whether an access anywhere in the page at `pa` has the same answer. Then [`Self::allows`] gives it for any of them.
    pub(crate) fn is_uniform(&self, pa: u64, privilege: Privilege) -> bool {
        let page = pa & !(PAGE_SIZE - 1);
        let end = page + PAGE_SIZE;
        self.is_open(privilege)
            || (self.ranges.iter().find(|&&(from, to)| from < end && page < to))
                .is_none_or(|&(from, to)| from <= page && end <= to)
    }

    fn is_open(&self, privilege: Privilege) -> bool {
        if privilege == Privilege::Machine { self.open_to_machine } else { self.open }
    }

    fn entry_allows(&self, entry: usize, access: Access, privilege: Privilege) -> bool {
        let cfg = self.cfg[entry];
        let needed = match access {
            Access::Load => cfg::R,
            Access::Store => cfg::W,
            Access::Fetch => cfg::X,
        };
        cfg & needed != 0 || (privilege == Privilege::Machine && cfg & cfg::L == 0)
    }

    fn changed(&mut self) {
        for entry in 0..ENTRIES {
            let address = self.addr[entry];
            let below = if entry == 0 { 0 } else { self.addr[entry - 1] };
            self.ranges[entry] = match self.cfg[entry] & cfg::A {
                cfg::TOR if below < address => (below << 2, address << 2),
                cfg::NA4 => (address << 2, (address << 2) + 4),
                // 2^3 bytes for no trailing one, twice that for each.
                cfg::NAPOT => {
                    let size = 8 << address.trailing_ones();
                    let base = (address << 2) & !(size - 1);
                    (base, base + size)
                }
                _ => (0, 0),
            };
        }
        let everything = |&(from, to): &(u64, u64)| from == 0 && to >= 1 << 56;
        let first = self.ranges.iter().position(|&(from, to)| from < to);
        let all = cfg::R | cfg::W | cfg::X;
        self.open =
            first.is_some_and(|entry| everything(&self.ranges[entry]) && self.cfg[entry] & all == all);
        // Even an entry that is not locked fails an access that it matches partly. No access crosses a page edge (they are
        // split before they come here), so that takes a range with an edge inside a page.
        let whole_pages = |&(from, to): &(u64, u64)| (from | to).is_multiple_of(PAGE_SIZE);
        let unlocked = self.cfg.iter().all(|cfg| cfg & cfg::L == 0);
        self.open_to_machine = self.open || (unlocked && self.ranges.iter().all(whole_pages));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Access::{Fetch, Load, Store};
    use Privilege::{Machine, Supervisor, User};

    const TOR: u64 = 1 << 3;
    const NA4: u64 = 2 << 3;
    const NAPOT: u64 = 3 << 3;
    const LOCKED: u64 = 1 << 7;

    /// Entries as (cfg, addr).
    fn pmp(entries: &[(u64, u64)]) -> Pmp {
        let mut pmp = Pmp::default();
        for (entry, &(_, addr)) in entries.iter().enumerate() {
            pmp.write_addr(entry, addr);
        }
        let cfg = entries.iter().rev().fold(0, |word, (cfg, _)| word << 8 | cfg);
        pmp.write_cfg(0, cfg);
        pmp
    }

    #[test]
    fn without_an_entry_only_machine_mode_may() {
        let pmp = pmp(&[]);
        assert!(pmp.allows(0x1000, 8, Store, Machine));
        assert!(!pmp.allows(0x1000, 8, Load, Supervisor));
        assert!(!pmp.allows(0x1000, 8, Fetch, User));
    }

    #[test]
    fn open_allows_everything() {
        let mut pmp = Pmp::default();
        pmp.open();
        assert!(pmp.allows((1 << 56) - 8, 8, Store, User));
        assert!(pmp.is_uniform(0x1000, User));
        assert_eq!(pmp.cfg(0), 0x1f);
        assert_eq!(pmp.addr(0), (1 << 54) - 1);
    }

    #[test]
    fn napot_range_and_rights() {
        // 0x8000_0000, 64 KiB, read and execute.
        let pmp = pmp(&[(NAPOT | 5, 0x8000_0000 >> 2 | 0x1fff)]);
        assert!(pmp.allows(0x8000_0000, 8, Load, Supervisor));
        assert!(pmp.allows(0x8000_fff8, 8, Fetch, Supervisor));
        assert!(!pmp.allows(0x8000_fff8, 8, Store, Supervisor));
        assert!(!pmp.allows(0x8001_0000, 1, Load, Supervisor));
        assert!(!pmp.allows(0x7fff_ffff, 1, Load, Supervisor));
        assert!(pmp.allows(0x8000_0000, 8, Store, Machine));
    }

    #[test]
    fn na4_and_partial_matches() {
        let pmp = pmp(&[(NA4 | 7, 0x1000 >> 2), (NAPOT | 7, (1 << 54) - 1)]);
        assert!(pmp.allows(0x1000, 4, Store, User));
        assert!(!pmp.allows(0x1000, 8, Store, User));
        assert!(!pmp.allows(0xffc, 8, Store, User));
        assert!(!pmp.allows(0xffc, 8, Load, Machine));
        assert!(pmp.allows(0x1004, 8, Store, User));
        assert!(!pmp.is_uniform(0x1ffc, User));
        assert!(pmp.is_uniform(0x2000, User));
    }

    #[test]
    fn the_lowest_entry_decides() {
        let pmp = pmp(&[(TOR, 0x1000 >> 2), (TOR | 1, 0x2000 >> 2), (NAPOT | 7, (1 << 54) - 1)]);
        assert!(!pmp.allows(0xff8, 8, Load, User));
        assert!(pmp.allows(0x1000, 8, Load, User));
        assert!(!pmp.allows(0x1000, 8, Store, User));
        assert!(pmp.allows(0x2000, 8, Store, User));
        assert!(pmp.is_uniform(0x1000, User));
        assert!(pmp.is_uniform(0x0, User));
    }

    #[test]
    fn an_empty_tor_range_matches_nothing() {
        let pmp = pmp(&[(0, 0x2000 >> 2), (TOR, 0x1000 >> 2), (NAPOT | 7, (1 << 54) - 1)]);
        assert!(pmp.allows(0x1800, 8, Load, User));
    }

    #[test]
    fn locked_entries_bind_machine_mode_and_keep_their_value() {
        let mut pmp = pmp(&[(0, 0x1000 >> 2), (LOCKED | TOR | 1, 0x2000 >> 2)]);
        assert!(pmp.allows(0x1000, 8, Load, Machine));
        assert!(!pmp.allows(0x1000, 8, Store, Machine));
        assert!(pmp.allows(0x2000, 8, Store, Machine));
        pmp.write_addr(0, 0);
        pmp.write_addr(1, 0);
        pmp.write_cfg(0, 0x1f);
        assert_eq!((pmp.addr(0), pmp.addr(1)), (0x1000 >> 2, 0x2000 >> 2));
        assert_eq!(pmp.cfg(0), (LOCKED | TOR | 1) << 8 | 0x1f);
    }

    #[test]
    fn illegal_values_become_legal() {
        let mut pmp = Pmp::default();
        pmp.write_cfg(1, 0x62_ff_1e);
        assert_eq!(pmp.cfg(1), 0x00_9f_18);
        assert_eq!(pmp.cfg(2), 0);
        pmp.write_addr(15, u64::MAX);
        pmp.write_addr(16, u64::MAX);
        assert_eq!((pmp.addr(15), pmp.addr(16)), ((1 << 54) - 1, 0));
    }
}

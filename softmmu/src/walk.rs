//! The page table walk: the algorithm of "Virtual Address Translation Process" (Privileged, section 12.3.2 in the 2025
//! edition), with its steps under their numbers, as a pure function of what it reads. No cache is involved here.

use crate::PAGE_SIZE;
use crate::trap::{Access, AccessFault, Fault, Privilege};

/// Address translation schemes, with their encoding in `satp.MODE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SatpMode {
    /// No translation.
    Bare = 0,
    /// 39-bit addresses, 3 levels.
    Sv39 = 8,
    /// 48-bit addresses, 4 levels.
    Sv48 = 9,
    /// 57-bit addresses, 5 levels.
    Sv57 = 10,
}

impl SatpMode {
    /// The scheme that `satp.MODE` encodes; `None` for reserved encodings.
    pub fn from_bits(mode: u64) -> Option<Self> {
        match mode {
            0 => Some(Self::Bare),
            8 => Some(Self::Sv39),
            9 => Some(Self::Sv48),
            10 => Some(Self::Sv57),
            _ => None,
        }
    }

    /// Levels of the page table: LEVELS in the specification, 0 for Bare.
    pub fn levels(self) -> u32 {
        match self {
            Self::Bare => 0,
            Self::Sv39 => 3,
            Self::Sv48 => 4,
            Self::Sv57 => 5,
        }
    }

    /// Whether the bits above the translated ones are copies of the highest of those; otherwise an access faults.
    pub fn is_canonical(self, va: u64) -> bool {
        let unused = 64 - 12 - 9 * self.levels();
        self == Self::Bare || ((va << unused) as i64 >> unused) as u64 == va
    }
}

/// Bits of a page table entry (Privileged 12.4.1).
pub mod pte {
    #![expect(missing_docs, reason = "named as the specification names them")]

    pub const V: u64 = 1;
    pub const R: u64 = 1 << 1;
    pub const W: u64 = 1 << 2;
    pub const X: u64 = 1 << 3;
    pub const U: u64 = 1 << 4;
    pub const G: u64 = 1 << 5;
    pub const A: u64 = 1 << 6;
    pub const D: u64 = 1 << 7;
    /// Lowest bit of PPN, 44 bits wide.
    pub const PPN_SHIFT: u32 = 10;
    pub const PPN: u64 = ((1 << 44) - 1) << PPN_SHIFT;
    /// Bits 60..54.
    pub const RESERVED: u64 = 0x7f << 54;
    /// Svpbmt; 3 is a reserved value.
    pub const PBMT: u64 = 3 << 61;
    /// Svnapot.
    pub const N: u64 = 1 << 63;

    /// The physical address that the PPN field names.
    pub fn address(pte: u64) -> u64 {
        (pte & PPN) >> PPN_SHIFT << 12
    }
}

/// Everything but the address that decides a translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Scheme; not Bare.
    pub mode: SatpMode,
    /// Physical address of the root page table: `satp.PPN` x 4096.
    pub root: u64,
    /// Effective privilege; not Machine.
    pub privilege: Privilege,
    /// `mstatus.SUM`
    pub sum: bool,
    /// `mstatus.MXR`
    pub mxr: bool,
    /// Svadu is in effect: A and D are set here. Otherwise Svade is, and they fault.
    pub svadu: bool,
    /// Svpbmt is in effect.
    pub svpbmt: bool,
    /// Svnapot is implemented.
    pub svnapot: bool,
}

/// The page tables in memory.
pub trait PageTables {
    /// Reads the entry at `pa`. Fails where a PMA or PMP check does.
    fn read(&mut self, pa: u64) -> Result<u64, AccessFault>;
    /// Replaces the entry at `pa` by `new` if it still is `old`, atomically; says whether it did. Fails where a PMA or
    /// PMP check of a store does.
    fn update(&mut self, pa: u64, old: u64, new: u64) -> Result<bool, AccessFault>;
}

/// A leaf entry that allows the access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The entry, with A and D as they are in memory now; G is set also where an entry above had it; in a NAPOT entry the
    /// PPN is that of the page that was asked for.
    pub pte: u64,
    /// 0 for 4 KiB, 1 for 2 MiB, 2 for 1 GiB, …
    pub level: u32,
}

impl Leaf {
    /// Bits of an address that this leaf does not translate.
    pub fn offset_mask(&self) -> u64 {
        (PAGE_SIZE << (9 * self.level)) - 1
    }

    /// Where `va`, which the leaf maps, lies.
    pub fn translate(&self, va: u64) -> u64 {
        pte::address(self.pte) | va & self.offset_mask()
    }
}

impl Rules {
    /// Finds the leaf that maps `va`, and sets its A and D bits as the access needs.
    ///
    /// # Errors
    /// The fault to raise, for the original access type.
    pub fn walk(&self, va: u64, access: Access, tables: &mut impl PageTables) -> Result<Leaf, Fault> {
        if !self.mode.is_canonical(va) {
            return Err(Fault::Page);
        }
        // Step 1. Let a be satp.ppn x PAGESIZE, and let i = LEVELS - 1.
        let mut a = self.root;
        let mut i = self.mode.levels() - 1;
        // G of a non-leaf entry holds for all mappings below it.
        let mut global = 0;
        loop {
            // Step 2. Let pte be the value of the PTE at address a + va.vpn[i] x PTESIZE. A PMA or PMP violation is an
            // access fault of the original access type.
            let place = a + (va >> (12 + 9 * i) & 0x1ff) * 8;
            let pte = tables.read(place).map_err(|AccessFault| Fault::Access)?;
            // Step 3. If pte.v = 0, or if pte.r = 0 and pte.w = 1, or if any bits or encodings that are reserved for
            // future standard use are set within pte: page fault.
            if pte & pte::V == 0 || pte & (pte::R | pte::W) == pte::W || self.has_reserved(pte, i) {
                return Err(Fault::Page);
            }
            // Step 4. If pte.r = 1 or pte.x = 1, go to step 5. Otherwise this PTE is a pointer to the next level. Let
            // i = i - 1. If i < 0: page fault. Otherwise let a = pte.ppn x PAGESIZE and go to step 2.
            if pte & (pte::R | pte::X) == 0 {
                global |= pte & pte::G;
                i = i.checked_sub(1).ok_or(Fault::Page)?;
                a = pte::address(pte);
                continue;
            }
            // Step 5. If i > 0 and pte.ppn[i-1:0] is not 0, this is a misaligned superpage: page fault.
            let mut leaf = Leaf { pte: pte | global, level: i };
            if pte::address(pte) & leaf.offset_mask() != 0 {
                return Err(Fault::Page);
            }
            // Steps 6 and 8: what U, R, W and X allow. Step 7 concerns shadow stacks, which there are none of.
            if !self.permits(pte, access) {
                return Err(Fault::Page);
            }
            // Step 9. If pte.a = 0, or if the original memory access is a store and pte.d = 0:
            let needed = pte::A | if access == Access::Store { pte::D } else { 0 };
            if pte & needed != needed {
                // - If the Svade extension is implemented: page fault.
                if !self.svadu {
                    return Err(Fault::Page);
                }
                // - If a store to the PTE would violate a PMA or PMP check: access fault.
                // - Atomically: compare pte to the PTE in memory. If the values match, set pte.a and, for a store, pte.d.
                //   If the comparison fails, return to step 2.
                if !tables.update(place, pte, pte | needed).map_err(|AccessFault| Fault::Access)? {
                    continue;
                }
                leaf.pte |= needed;
            }
            // Step 10. The translation is successful: superpages take pa.ppn[i-1:0] from va.vpn[i-1:0]. A NAPOT entry
            // (Privileged, chapter "Svnapot") takes the low four bits of ppn[0] from vpn[0].
            if pte & pte::N != 0 {
                let low = 0xf << pte::PPN_SHIFT;
                leaf.pte = leaf.pte & !low | (va >> 12 << pte::PPN_SHIFT) & low;
            }
            return Ok(leaf);
        }
    }

    /// Steps 6 and 8: whether the U, R, W and X bits of a leaf allow an access.
    pub fn permits(&self, pte: u64, access: Access) -> bool {
        let user_page = pte & pte::U != 0;
        let by_mode = match self.privilege {
            Privilege::User => user_page,
            // Supervisor mode never executes from a user page.
            _ => !user_page || (self.sum && access != Access::Fetch),
        };
        by_mode
            && match access {
                Access::Load => pte & pte::R != 0 || (self.mxr && pte & pte::X != 0),
                Access::Store => pte & pte::W != 0,
                Access::Fetch => pte & pte::X != 0,
            }
    }

    /// Step 3: bits and encodings that are reserved, in an entry at level `i`.
    fn has_reserved(&self, pte: u64, i: u32) -> bool {
        if pte & pte::RESERVED != 0 {
            return true;
        }
        if pte & (pte::R | pte::X) == 0 {
            // In a pointer D, A and U are reserved, and so are PBMT and N whether implemented or not.
            return pte & (pte::D | pte::A | pte::U | pte::PBMT | pte::N) != 0;
        }
        let pbmt = pte & pte::PBMT;
        // Only 64 KiB NAPOT ranges are defined: ppn[0] ends in 1000, at level 0.
        let napot = i == 0 && pte >> pte::PPN_SHIFT & 0xf == 0x8;
        pbmt == pte::PBMT || (pbmt != 0 && !self.svpbmt) || (pte & pte::N != 0 && !(self.svnapot && napot))
    }
}

//! Where a debugger stops a hart. Guest memory is not touched for it.
//!
//! Generated code and decoded blocks are known by physical address, breakpoints by virtual address. So a virtual page with a
//! breakpoint is run from a *view* of its physical page of its own (`View::Cut`): its blocks end before every page offset at
//! which some breakpoint is, whatever its page, and no link leads to a block that starts there. Such a block is only found by
//! its program counter, and before that is looked up it is compared with the breakpoints. All other pages, also other
//! mappings of the same physical page, run as if there were none, and generated code is the same.

use std::collections::BTreeSet;

/// Virtual addresses of instructions before which every hart stops.
#[derive(Clone, Debug, Default)]
pub struct Breakpoints {
    addresses: BTreeSet<u64>,
    cuts: Cuts,
}

/// One bit for each page offset at which an instruction can be.
pub(crate) type Cuts = [u64; 32];

/// Which of a physical page's sets of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// For pages without breakpoints.
    Plain,
    /// For pages with breakpoints.
    Cut,
}

impl FromIterator<u64> for Breakpoints {
    fn from_iter<I: IntoIterator<Item = u64>>(addresses: I) -> Self {
        let addresses: BTreeSet<u64> = addresses.into_iter().collect();
        let mut cuts = [0; 32];
        for address in &addresses {
            let (word, bit) = place(*address as u16 & 0xfff);
            cuts[word] |= bit;
        }
        Self { addresses, cuts }
    }
}

/// Cuts without a breakpoint that are kept at most, beside as many as there are breakpoints.
const SPARE_CUTS: u32 = 64;

fn place(offset: u16) -> (usize, u64) {
    let number = usize::from(offset / 2);
    (number / 64, 1 << (number % 64))
}

/// Whether blocks end before page offset `offset`, which is below 4096.
pub(crate) fn is_cut(cuts: &Cuts, offset: u16) -> bool {
    let (word, bit) = place(offset & 0xfff);
    cuts[word] & bit != 0
}

impl Breakpoints {
    /// The same breakpoints, with the cuts of `previous` too, if they are not too many. Debuggers take breakpoints away at each
    /// stop and set them again; so the code for what lies between them stays.
    #[must_use]
    pub fn after(mut self, previous: &Self) -> Self {
        let cuts: Cuts = std::array::from_fn(|word| self.cuts[word] | previous.cuts[word]);
        let count = |cuts: &Cuts| cuts.iter().map(|word| word.count_ones()).sum::<u32>();
        if count(&cuts) <= 2 * count(&self.cuts) + SPARE_CUTS {
            self.cuts = cuts;
        }
        self
    }

    /// Whether a hart stops before the instruction at `pc`.
    #[inline]
    pub fn contains(&self, pc: u64) -> bool {
        !self.addresses.is_empty() && self.addresses.contains(&pc)
    }

    /// The view by which the page of `pc` is run.
    #[inline]
    pub(crate) fn view(&self, pc: u64) -> View {
        let page = pc & !0xfff;
        match !self.addresses.is_empty() && self.addresses.range(page..=page | 0xfff).next().is_some() {
            true => View::Cut,
            false => View::Plain,
        }
    }

    pub(crate) fn cuts(&self) -> &Cuts {
        &self.cuts
    }

    /// Whether blocks of the cut view end before page offset `offset`.
    pub(crate) fn cuts_at(&self, offset: u16) -> bool {
        is_cut(&self.cuts, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_with_breakpoints_are_cut_and_at_every_offset() {
        let points: Breakpoints = [0x1002, 0xffff_ffff_ffff_fffe].into_iter().collect();
        assert!(points.contains(0x1002) && !points.contains(0x2002) && !points.contains(0x1000));
        assert_eq!([0x1000, 0x1ffe].map(|pc| points.view(pc)), [View::Cut; 2]);
        assert_eq!([0xffe, 0x2002].map(|pc| points.view(pc)), [View::Plain; 2]);
        assert_eq!(points.view(0xffff_ffff_ffff_f000), View::Cut);
        assert_eq!([2, 0xffe, 0, 4].map(|offset| points.cuts_at(offset)), [true, true, false, false]);
    }

    #[test]
    fn cuts_outlive_their_breakpoints_while_they_are_few() {
        let some: Breakpoints = (0..64).map(|number| number * 4).collect();
        let none = Breakpoints::default().after(&some);
        assert!(none.cuts_at(0x10) && !none.contains(0x10) && none.view(0x10) == View::Plain);
        let many: Breakpoints = (0..65).map(|number| number * 4).collect();
        assert!(!Breakpoints::default().after(&many).cuts_at(0x10));
    }
}

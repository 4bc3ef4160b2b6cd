//! The page that each of some *places* of generated code accessed last.
//!
//! A place asks its own entry, whose address it knows, before it asks the TLB, where the entry depends on the address: what a chain
//! of pointers waits for then is its loads alone. Entries are filled by generated code, from the TLB. That pays where a place stays
//! in a page for long; where it does not, [`Nears::is_poor`] says so.
//!
//! Invariant: an entry with a span is what the table of its [`Context`](crate::Context) held since something was flushed last that
//! concerns the page; of the read table for places that load, of the write table for those that store.

use std::mem::offset_of;

/// How many entries there are for places that load, and for those that store.
pub const NEARS: usize = 128;

/// What one place accessed last.
#[repr(C, align(32))]
#[derive(Clone, Copy, Debug)]
pub struct Near {
    /// As in an [`Entry`](crate::Entry) of a table.
    pub addend: u64,
    /// As in an [`Entry`](crate::Entry) of a table.
    pub tag: u64,
    /// The place can access its bytes at so many addresses from `tag` on; at none while the entry is empty.
    pub span: u64,
    /// After so many more fills somebody asks [`Mmu::near_is_poor`](crate::Mmu::near_is_poor).
    pub fills: u32,
}

/// Fills between two questions.
const FILLS: u32 = 1 << 10;
/// A fill costs as much as is gained while so many instructions are executed.
const WORTH: u64 = 300;

/// The entries of a context.
#[repr(C)]
pub(crate) struct Nears {
    /// For places that load, and for those that store.
    entries: [[Near; NEARS]; 2],
    /// Some entry may have a span. Whoever fills one says so.
    filled: bool,
    /// What `instret` was at the last question.
    asked: [[u64; NEARS]; 2],
}

impl Nears {
    /// Offset of [`Self::filled`], a byte.
    pub(crate) const FILLED_OFFSET: usize = offset_of!(Nears, filled);

    /// All empty.
    pub(crate) const fn new() -> Self {
        let empty = Near { addend: 0, tag: 0, span: 0, fills: FILLS };
        Self { entries: [[empty; NEARS]; 2], filled: false, asked: [[0; NEARS]; 2] }
    }

    /// Forgets everything: flushes come in series, and entries are filled again soon.
    #[inline]
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.filled) {
            self.entries.as_flattened_mut().iter_mut().for_each(|near| near.span = 0);
        }
    }

    /// Whether an entry was filled more often than pays. To be asked when its `fills` have come to 0; `instret` is how many
    /// instructions the hart has retired.
    pub(crate) fn is_poor(&mut self, stores: bool, index: usize, instret: u64) -> bool {
        let (Some(near), Some(asked)) = (
            self.entries[usize::from(stores)].get_mut(index),
            self.asked[usize::from(stores)].get_mut(index),
        ) else {
            return false;
        };
        near.fills = FILLS;
        instret.wrapping_sub(std::mem::replace(asked, instret)) < u64::from(FILLS) * WORTH
    }
}

const _: () = assert!(size_of::<Near>() == 32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_forgotten_together() {
        let mut nears = Nears::new();
        let spans = |nears: &Nears| nears.entries.as_flattened().iter().map(|near| near.span).sum::<u64>();
        for place in [0, NEARS, 2 * NEARS - 1] {
            nears.entries.as_flattened_mut()[place].span = 1;
        }
        nears.filled = true;
        assert_eq!(spans(&nears), 3);
        nears.clear();
        assert_eq!((spans(&nears), nears.filled), (0, false));
    }

    #[test]
    fn an_entry_is_poor_if_it_was_filled_often_in_few_instructions() {
        let mut nears = Nears::new();
        let few = u64::from(FILLS) * WORTH - 1;
        nears.entries[1][7].fills = 0;
        assert!(nears.is_poor(true, 7, few));
        assert_eq!(nears.entries[1][7].fills, FILLS);
        assert!(nears.is_poor(true, 7, 2 * few));
        assert!(!nears.is_poor(true, 7, 3 * few + 1));
        assert!(!nears.is_poor(true, NEARS, 0));
    }
}

//! What is known of a page of guest memory: where blocks start in it, whether stores to it are noticed, and how often they have
//! killed blocks.

use crate::breakpoints::View;

/// A page whose blocks were killed this many times in a second is restless for the rest of it.
const MANY_KILLS: u32 = 200;

#[derive(Default)]
pub(super) struct Page {
    /// Where blocks start in the page, by view.
    pub(super) starts: [Starts; 2],
    /// Keys of blocks that start in another page and end in this one.
    pub(super) crossing: Vec<u64>,
    /// Counts stores to watched granules.
    pub(super) version: u64,
    pub(super) kills: Kills,
    pub(super) watch: Watch,
}

/// Stores that killed blocks of a page.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kills {
    /// The second of the cache's life in which they are counted.
    second: u32,
    count: u32,
}

impl Kills {
    pub(super) fn add(&mut self, second: u32) {
        if self.second != second {
            *self = Kills { second, count: 0 };
        }
        self.count += 1;
    }

    pub(super) fn are_many(self, second: impl FnOnce() -> u32) -> bool {
        self.count >= MANY_KILLS && self.second == second()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Watch {
    #[default]
    Not,
    /// Watched, but some hart may not have answered the request yet.
    Asked(u64),
    /// Every store is noticed.
    Complete,
}

impl Page {
    pub(super) fn is_empty(&self) -> bool {
        self.starts.iter().all(Starts::is_empty) && self.crossing.is_empty()
    }

    pub(super) fn starts(&self, view: View) -> &Starts {
        &self.starts[view as usize]
    }

    pub(super) fn starts_mut(&mut self, view: View) -> &mut Starts {
        &mut self.starts[view as usize]
    }
}

/// Offsets in a page at which blocks start: quick to say that none does, as for most jumps of new code.
#[derive(Default)]
pub(super) struct Starts(Option<Box<[u64; 32]>>);

impl Starts {
    /// The word and the bit of an offset.
    pub(super) fn place(offset: u16) -> (usize, u64) {
        (usize::from(offset / 128) % 32, 1 << (offset / 2 % 64))
    }

    pub(super) fn contains(&self, offset: u16) -> bool {
        let (word, bit) = Self::place(offset);
        self.0.as_ref().is_some_and(|words| words[word] & bit != 0)
    }

    pub(super) fn insert(&mut self, offset: u16) {
        let (word, bit) = Self::place(offset);
        self.0.get_or_insert_default()[word] |= bit;
    }

    pub(super) fn remove(&mut self, offset: u16) {
        let (word, bit) = Self::place(offset);
        if let Some(words) = &mut self.0 {
            words[word] &= !bit;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|words| **words == [0; 32])
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u16> {
        let words = self.0.as_deref().into_iter().flatten();
        (0..).step_by(128).zip(words).flat_map(|(first, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let offset = first + 2 * rest.trailing_zeros() as u16;
                let is_one = rest != 0;
                rest &= rest.wrapping_sub(1);
                is_one.then_some(offset)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_counted_by_the_second() {
        let mut kills = Kills::default();
        for second in [0, 1, 7] {
            for _ in 0..MANY_KILLS {
                assert!(!kills.are_many(|| second));
                kills.add(second);
            }
            assert!(kills.are_many(|| second));
            assert!(!kills.are_many(|| second + 1));
        }
    }
}

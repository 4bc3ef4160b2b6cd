//! Lists of harts (SBI 3.0, 3.1 "Hart list parameter").

use super::{Platform, SbiError};

/// A set of harts, all of which exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HartSet {
    /// The harts 0 to `count` - 1.
    All {
        /// How many harts there are.
        count: u64,
    },
    /// The harts `base` + i for every bit i of `mask` that is set.
    Mask {
        /// The hart of bit 0.
        base: u64,
        /// Which harts.
        mask: u64,
    },
}

impl HartSet {
    /// The set named by the arguments `hart_mask` and `hart_mask_base`.
    pub(super) fn from_arguments(platform: &dyn Platform, mask: u64, base: u64) -> Result<Self, SbiError> {
        let count = platform.hart_count();
        if base == u64::MAX {
            return Ok(Self::All { count });
        }
        // Bit i is valid if base + i < count; the base has to be valid even if no bit is set.
        let harts = count.checked_sub(base).filter(|&harts| harts > 0).ok_or(SbiError::InvalidParam)?;
        let valid = if harts >= 64 { u64::MAX } else { (1 << harts) - 1 };
        if mask & !valid != 0 {
            return Err(SbiError::InvalidParam);
        }
        Ok(Self::Mask { base, mask })
    }

    /// The hart ids, in ascending order.
    pub fn iter(self) -> impl Iterator<Item = u64> {
        let (base, span) = match self {
            Self::All { count } => (0, count),
            Self::Mask { base, .. } => (base, 64),
        };
        (0..span).filter(move |&bit| self.has_bit(bit)).map(move |bit| base + bit)
    }

    /// Whether the set has this hart.
    pub fn contains(self, hart: u64) -> bool {
        match self {
            Self::All { count } => hart < count,
            Self::Mask { base, .. } => hart >= base && hart - base < 64 && self.has_bit(hart - base),
        }
    }

    fn has_bit(self, bit: u64) -> bool {
        match self {
            Self::All { .. } => true,
            Self::Mask { mask, .. } => mask >> bit & 1 != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::*;

    fn harts(count: u64, mask: u64, base: u64) -> Result<Vec<u64>, SbiError> {
        let fake = Fake { harts: count, ..Fake::default() };
        HartSet::from_arguments(&fake, mask, base).map(|set| set.iter().collect())
    }

    #[test]
    fn base_minus_one_means_all_harts() {
        assert_eq!(harts(3, 0, u64::MAX), Ok(vec![0, 1, 2]));
        assert_eq!(harts(3, u64::MAX, u64::MAX), Ok(vec![0, 1, 2]));
    }

    #[test]
    fn mask_counts_from_the_base() {
        assert_eq!(harts(4, 0b1010, 0), Ok(vec![1, 3]));
        assert_eq!(harts(100, 0b11, 98), Ok(vec![98, 99]));
        assert_eq!(harts(64, u64::MAX, 0).map(|list| list.len()), Ok(64));
        assert_eq!(harts(4, 0, 0), Ok(vec![]));
    }

    #[test]
    fn harts_that_do_not_exist_are_invalid() {
        assert_eq!(harts(4, 0b1_0000, 0), Err(SbiError::InvalidParam));
        assert_eq!(harts(4, 0b11, 3), Err(SbiError::InvalidParam));
        assert_eq!(harts(4, 0, 4), Err(SbiError::InvalidParam));
        assert_eq!(harts(4, 1, u64::MAX - 1), Err(SbiError::InvalidParam));
    }

    #[test]
    fn contains_agrees_with_iter() {
        for set in [HartSet::All { count: 5 }, HartSet::Mask { base: 2, mask: 0b101 }] {
            let listed: Vec<u64> = set.iter().collect();
            let contained: Vec<u64> = (0..100).filter(|&hart| set.contains(hart)).collect();
            assert_eq!(listed, contained);
        }
    }
}

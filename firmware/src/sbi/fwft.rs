//! FWFT, EID 0x46574654 (SBI 3.0, chapter 18).

use super::{Answer, Arguments, Platform, SbiError, success};

/// The firmware features that the specification defines; all are local to a hart. The numbers are their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Feature {
    /// `medeleg` delegates misaligned load and store exceptions: 0 or 1.
    MisalignedExcDeleg = 0,
    /// `menvcfg.LPE`: 0 or 1.
    LandingPad = 1,
    /// `menvcfg.SSE`: 0 or 1.
    ShadowStack = 2,
    /// `menvcfg.DTE`: 0 or 1.
    DoubleTrap = 3,
    /// `menvcfg.ADUE`: 0 or 1.
    PteAdHwUpdating = 4,
    /// `menvcfg.PMM`, as a number of bits: 0, 7 or 16.
    PointerMaskingPmlen = 5,
}

impl Feature {
    fn from_id(id: u32) -> Option<Self> {
        use Feature::*;
        let features =
            [MisalignedExcDeleg, LandingPad, ShadowStack, DoubleTrap, PteAdHwUpdating, PointerMaskingPmlen];
        features.into_iter().find(|&feature| feature as u32 == id)
    }
}

const LOCK: u64 = 1;

pub(super) fn call(platform: &mut dyn Platform, fid: u32, arguments: Arguments) -> Answer {
    let [id, value, flags, ..] = arguments;
    // Reserved and platform-specific ids are denied; a defined one that the hart lacks is not supported.
    let known = |platform: &dyn Platform| {
        let feature = Feature::from_id(id as u32).ok_or(SbiError::Denied)?;
        let value = platform.feature(feature).ok_or(SbiError::NotSupported)?;
        Ok((feature, value))
    };
    match fid as usize {
        sbi_spec::fwft::SET => {
            let (feature, _) = known(platform)?;
            set(platform, feature, value, flags)
        }
        sbi_spec::fwft::GET => {
            let (_, value) = known(platform)?;
            success(value)
        }
        _ => Err(SbiError::NotSupported),
    }
}

fn set(platform: &mut dyn Platform, feature: Feature, value: u64, flags: u64) -> Answer {
    if flags & !LOCK != 0 {
        return Err(SbiError::InvalidParam);
    }
    let bit = 1 << feature as u32;
    if platform.per_hart().locked_features & bit != 0 {
        return Err(SbiError::DeniedLocked);
    }
    // A pointer masking length of at least `value` is asked for, so a longer one may be taken.
    let choices: &[u64] = match (feature, value) {
        (_, 0) => &[0],
        (Feature::PointerMaskingPmlen, 1..=7) => &[7, 16],
        (Feature::PointerMaskingPmlen, 8..=16) => &[16],
        (Feature::PointerMaskingPmlen, _) => &[],
        (_, 1) => &[1],
        _ => &[],
    };
    if !choices.iter().any(|&choice| platform.set_feature(feature, choice)) {
        return Err(SbiError::InvalidParam);
    }
    if flags & LOCK != 0 {
        platform.per_hart().locked_features |= bit;
    }
    success(0)
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;

    const FWFT: u64 = 0x46574654;
    const SET: u64 = 0;
    const GET: u64 = 1;

    #[test]
    fn misaligned_delegation_can_be_set_and_read() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(FWFT, GET, &[0]), (0, 0));
        assert_eq!(fake.call(FWFT, SET, &[0, 1, 0]), (0, 0));
        assert_eq!(fake.call(FWFT, GET, &[0]), (0, 1));
    }

    #[test]
    fn features_the_hart_lacks_are_not_supported() {
        let mut fake = Fake::default();
        for feature in [1, 2, 3] {
            assert_eq!(fake.call(FWFT, SET, &[feature, 1, 0]), (-2, 0));
            assert_eq!(fake.call(FWFT, GET, &[feature]), (-2, 0));
        }
    }

    #[test]
    fn reserved_features_are_denied() {
        let mut fake = Fake::default();
        for feature in [6, 0x3fff_ffff, 0x4000_0000, 0x8000_0000, 0xffff_ffff] {
            assert_eq!(fake.call(FWFT, SET, &[feature, 0, 0]), (-4, 0));
            assert_eq!(fake.call(FWFT, GET, &[feature]), (-4, 0));
        }
    }

    #[test]
    fn bad_values_and_flags_are_invalid_and_change_nothing() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(FWFT, SET, &[4, 2, 0]), (-3, 0));
        assert_eq!(fake.call(FWFT, SET, &[4, 1, 2]), (-3, 0));
        assert_eq!(fake.call(FWFT, SET, &[5, 17, 0]), (-3, 0));
        assert_eq!(fake.call(FWFT, GET, &[4]), (0, 0));
    }

    #[test]
    fn locked_features_stay() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(FWFT, SET, &[4, 1, 1]), (0, 0));
        assert_eq!(fake.call(FWFT, SET, &[4, 0, 0]), (-14, 0));
        assert_eq!(fake.call(FWFT, GET, &[4]), (0, 1));
        assert_eq!(fake.call(FWFT, SET, &[0, 1, 0]), (0, 0), "others are not locked");
    }

    #[test]
    fn pointer_masking_is_rounded_up_to_what_is_possible() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(FWFT, SET, &[5, 3, 0]), (0, 0));
        assert_eq!(fake.call(FWFT, GET, &[5]), (0, 7));
        assert_eq!(fake.call(FWFT, SET, &[5, 8, 0]), (-3, 0), "this hart has PMLEN 0 and 7");
        assert_eq!(fake.call(FWFT, SET, &[5, 0, 0]), (0, 0));
        assert_eq!(fake.call(FWFT, GET, &[5]), (0, 0));
    }
}

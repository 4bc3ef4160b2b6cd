//! BASE, EID 0x10 (SBI 3.0, chapter 4).

use sbi_spec::base::*;

use super::{Answer, Arguments, Platform, SbiError, handler, success};

/// Version 3.0: the major number from bit 24, the minor one below.
const SPEC_VERSION: u64 = 3 << 24;

/// Not in the specification's list of implementations, so that no kernel looks for another one's quirks: "hart".
const IMPL_ID: u64 = 0x6861_7274;
const IMPL_VERSION: u64 = 1;

pub(super) fn call(platform: &mut dyn Platform, fid: u32, arguments: Arguments) -> Answer {
    let ids = platform.machine_ids();
    success(match fid as usize {
        GET_SBI_SPEC_VERSION => SPEC_VERSION,
        GET_SBI_IMPL_ID => IMPL_ID,
        GET_SBI_IMPL_VERSION => IMPL_VERSION,
        PROBE_EXTENSION => u64::from(handler(arguments[0] as u32).is_some()),
        GET_MVENDORID => ids.mvendorid,
        GET_MARCHID => ids.marchid,
        GET_MIMPID => ids.mimpid,
        _ => return Err(SbiError::NotSupported),
    })
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;

    const BASE: u64 = 0x10;

    #[test]
    fn versions_and_ids() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(BASE, 0, &[]), (0, 0x0300_0000));
        assert_eq!(fake.call(BASE, 1, &[]).0, 0);
        assert!(fake.call(BASE, 1, &[]).1 > 11, "ids to 11 belong to others");
        assert_eq!(fake.call(BASE, 4, &[]), (0, 0));
        assert_eq!(fake.call(BASE, 5, &[]), (0, 0x2a));
        assert_eq!(fake.call(BASE, 6, &[]), (0, 0));
    }

    #[test]
    fn probe_finds_what_is_there() {
        let mut fake = Fake::default();
        for eid in [
            0x10, 0x54494D45, 0x735049, 0x52464E43, 0x48534D, 0x53525354, 0x4442434E, 0x504D55, 0x53555350,
            0x46574654,
        ] {
            assert_eq!(fake.call(BASE, 3, &[eid]), (0, 1), "{eid:#x}");
        }
        assert_eq!(fake.call(BASE, 3, &[1]), (0, 1), "legacy console putchar");
    }

    #[test]
    fn probe_of_what_is_not_there_succeeds_with_zero() {
        let mut fake = Fake::default();
        for eid in [0x09, 0x0f, 0x43505043, 0x4E41434C, 0x535441, 0x535345, 0x44425452, 0x4D505859, u64::MAX]
        {
            assert_eq!(fake.call(BASE, 3, &[eid]), (0, 0), "{eid:#x}");
        }
    }
}

//! SRST, EID 0x53525354 (SBI 3.0, chapter 10).

use sbi_spec::srst::*;

use super::{Answer, Arguments, Outcome, Platform, ResetKind, SbiError};

pub(super) fn call(_: &mut dyn Platform, fid: u32, arguments: Arguments) -> Answer {
    if fid as usize != SYSTEM_RESET {
        return Err(SbiError::NotSupported);
    }
    let kind = match arguments[0] as u32 {
        RESET_TYPE_SHUTDOWN => ResetKind::Shutdown,
        RESET_TYPE_COLD_REBOOT => ResetKind::ColdReboot,
        RESET_TYPE_WARM_REBOOT => ResetKind::WarmReboot,
        _ => return Err(SbiError::InvalidParam),
    };
    let failure = match arguments[1] as u32 {
        RESET_REASON_NO_REASON => false,
        RESET_REASON_SYSTEM_FAILURE => true,
        _ => return Err(SbiError::InvalidParam),
    };
    Ok(Outcome::Reset { kind, failure })
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::*;

    const SRST: u64 = 0x53525354;

    #[test]
    fn the_three_types_and_two_reasons() {
        let mut fake = Fake::default();
        let reset = |kind, failure| Outcome::Reset { kind, failure };
        assert_eq!(fake.outcome(SRST, 0, &[0, 0]), reset(ResetKind::Shutdown, false));
        assert_eq!(fake.outcome(SRST, 0, &[1, 0]), reset(ResetKind::ColdReboot, false));
        assert_eq!(fake.outcome(SRST, 0, &[2, 1]), reset(ResetKind::WarmReboot, true));
    }

    #[test]
    fn reserved_types_and_reasons_are_invalid() {
        let mut fake = Fake::default();
        for kind in [3, 0xefff_ffff, 0xf000_0000] {
            assert_eq!(fake.call(SRST, 0, &[kind, 0]), (-3, 0));
        }
        for reason in [2, 0xdfff_ffff, 0xe000_0000, 0xf000_0000] {
            assert_eq!(fake.call(SRST, 0, &[0, reason]), (-3, 0));
        }
    }
}

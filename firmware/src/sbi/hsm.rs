//! HSM, EID 0x48534D (SBI 3.0, chapter 9).

use sbi_spec::hsm::*;

use super::{Answer, Arguments, Outcome, Platform, SbiError, resume_at, success};

pub(super) fn call(platform: &mut dyn Platform, fid: u32, arguments: Arguments) -> Answer {
    let [first, address, opaque, ..] = arguments;
    match fid as usize {
        HART_START => {
            let hart = existing(platform, first)?;
            let at = resume_at(platform, address, opaque)?;
            if !platform.start_hart(hart, at) {
                return Err(SbiError::AlreadyAvailable);
            }
            success(0)
        }
        HART_STOP => Ok(Outcome::HartStop),
        HART_GET_STATUS => {
            let hart = existing(platform, first)?;
            success(platform.hart_status(hart) as u64)
        }
        // The type is 32 bits wide. All types but the two default ones are reserved or platform-specific.
        HART_SUSPEND => match first as u32 {
            suspend_type::RETENTIVE => Ok(Outcome::HartSuspend(None)),
            suspend_type::NON_RETENTIVE => {
                Ok(Outcome::HartSuspend(Some(resume_at(platform, address, opaque)?)))
            }
            _ => Err(SbiError::InvalidParam),
        },
        _ => Err(SbiError::NotSupported),
    }
}

fn existing(platform: &dyn Platform, hart: u64) -> Result<u64, SbiError> {
    if hart < platform.hart_count() { Ok(hart) } else { Err(SbiError::InvalidParam) }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, RAM};
    use super::super::{HartStatus, Resume};
    use super::*;

    const HSM: u64 = 0x48534D;

    #[test]
    fn start_hands_address_and_opaque_to_a_stopped_hart() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(HSM, 0, &[2, RAM + 0x100, 77]), (0, 0));
        assert_eq!(fake.started, [(2, Resume { address: RAM + 0x100, opaque: 77 })]);
        assert_eq!(fake.call(HSM, 2, &[2]), (0, HartStatus::StartPending as u64));
    }

    #[test]
    fn start_errors() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(HSM, 0, &[0, RAM, 0]), (-6, 0), "the calling hart is started");
        assert_eq!(fake.call(HSM, 0, &[4, RAM, 0]), (-3, 0), "no such hart");
        assert_eq!(fake.call(HSM, 0, &[u64::MAX, RAM, 0]), (-3, 0), "no such hart");
        assert_eq!(fake.call(HSM, 0, &[1, 0x1000_0000, 0]), (-5, 0), "not executable");
        assert_eq!(fake.call(HSM, 0, &[1, RAM + 1, 0]), (-5, 0), "odd");
        assert!(fake.started.is_empty());
    }

    #[test]
    fn stop_is_left_to_the_machine() {
        assert_eq!(Fake::default().outcome(HSM, 1, &[]), Outcome::HartStop);
    }

    #[test]
    fn status_of_harts() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(HSM, 2, &[0]), (0, 0));
        assert_eq!(fake.call(HSM, 2, &[1]), (0, 1));
        assert_eq!(fake.call(HSM, 2, &[4]), (-3, 0));
    }

    #[test]
    fn suspend_types() {
        let mut fake = Fake::default();
        assert_eq!(fake.outcome(HSM, 3, &[0, 0, 0]), Outcome::HartSuspend(None));
        let resume = Resume { address: RAM, opaque: 5 };
        assert_eq!(fake.outcome(HSM, 3, &[0x8000_0000, RAM, 5]), Outcome::HartSuspend(Some(resume)));
        assert_eq!(
            fake.outcome(HSM, 3, &[0xffff_ffff_8000_0000, RAM, 5]),
            Outcome::HartSuspend(Some(resume))
        );
        assert_eq!(fake.call(HSM, 3, &[0x8000_0000, 0, 5]), (-5, 0));
        for reserved in [1, 0x0fff_ffff, 0x1000_0000, 0x8000_0001, 0xffff_ffff] {
            assert_eq!(fake.call(HSM, 3, &[reserved, RAM, 0]), (-3, 0), "{reserved:#x}");
        }
    }
}

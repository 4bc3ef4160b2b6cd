//! TIME, EID 0x54494D45 (SBI 3.0, chapter 6).

use super::{Answer, Arguments, FirmwareEvent, Platform, SbiError, success};

pub(super) fn call(platform: &mut dyn Platform, fid: u32, arguments: Arguments) -> Answer {
    match fid as usize {
        sbi_spec::time::SET_TIMER => {
            set_timer(platform, arguments[0]);
            success(0)
        }
        _ => Err(SbiError::NotSupported),
    }
}

pub(super) fn set_timer(platform: &mut dyn Platform, deadline: u64) {
    platform.per_hart().pmu.count(FirmwareEvent::SetTimer);
    platform.set_timer(deadline);
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;

    #[test]
    fn set_timer_passes_the_deadline_on_and_succeeds() {
        let mut fake = Fake::default();
        for deadline in [0, 12345, u64::MAX] {
            assert_eq!(fake.call(0x54494D45, 0, &[deadline]), (0, 0));
            assert_eq!(fake.timer, Some(deadline));
        }
    }
}

//! IPI, EID 0x735049 (SBI 3.0, chapter 7).

use super::{Answer, Arguments, FirmwareEvent, HartSet, Platform, SbiError, success};

pub(super) fn call(platform: &mut dyn Platform, fid: u32, arguments: Arguments) -> Answer {
    match fid as usize {
        sbi_spec::spi::SEND_IPI => {
            let harts = HartSet::from_arguments(platform, arguments[0], arguments[1])?;
            send(platform, harts.iter());
            success(0)
        }
        _ => Err(SbiError::NotSupported),
    }
}

pub(super) fn send(platform: &mut dyn Platform, harts: impl Iterator<Item = u64>) {
    for hart in harts {
        platform.per_hart().pmu.count(FirmwareEvent::IpiSent);
        platform.send_ipi(hart);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;

    const IPI: u64 = 0x735049;

    #[test]
    fn every_hart_of_the_mask_gets_one() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(IPI, 0, &[0b101, 1]), (0, 0));
        assert_eq!(fake.ipis, [1, 3]);
    }

    #[test]
    fn one_invalid_hart_stops_all() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(IPI, 0, &[0b1_0001, 0]), (-3, 0));
        assert!(fake.ipis.is_empty());
    }
}

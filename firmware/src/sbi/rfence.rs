//! RFENCE, EID 0x52464E43 (SBI 3.0, chapter 8).

use sbi_spec::rfnc::*;

use super::{Answer, Arguments, FirmwareEvent, HartSet, Platform, SbiError, success};

pub(super) fn call(platform: &mut dyn Platform, fid: u32, arguments: Arguments) -> Answer {
    let [mask, base, start, size, asid, _] = arguments;
    match fid as usize {
        REMOTE_FENCE_I => {
            let harts = HartSet::from_arguments(platform, mask, base)?;
            fence_i(platform, harts);
        }
        REMOTE_SFENCE_VMA => {
            let harts = HartSet::from_arguments(platform, mask, base)?;
            sfence_vma(platform, harts, start, size, None);
        }
        REMOTE_SFENCE_VMA_ASID => {
            let harts = HartSet::from_arguments(platform, mask, base)?;
            // ASIDs have at most 16 bits (Privileged, `satp`).
            sfence_vma(platform, harts, start, size, Some(asid as u16));
        }
        // The hfence functions belong to the hypervisor extension, which the harts do not have.
        _ => return Err(SbiError::NotSupported),
    }
    success(0)
}

pub(super) fn fence_i(platform: &mut dyn Platform, harts: HartSet) {
    platform.per_hart().pmu.count(FirmwareEvent::FenceISent);
    platform.remote_fence_i(harts);
}

pub(super) fn sfence_vma(
    platform: &mut dyn Platform,
    harts: HartSet,
    start: u64,
    size: u64,
    asid: Option<u16>,
) {
    let event = if asid.is_some() { FirmwareEvent::SfenceVmaAsidSent } else { FirmwareEvent::SfenceVmaSent };
    platform.per_hart().pmu.count(event);
    let everything = (start == 0 && size == 0) || size == u64::MAX || start.checked_add(size).is_none();
    let (start, size) = if everything { (0, u64::MAX) } else { (start, size) };
    platform.remote_sfence_vma(harts, start, size, asid);
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, Fence};
    use super::*;

    const RFENCE: u64 = 0x52464E43;
    const HARTS: HartSet = HartSet::Mask { base: 0, mask: 0b11 };

    #[test]
    fn fence_i_names_the_harts() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(RFENCE, 0, &[0b11, 0]), (0, 0));
        assert_eq!(fake.call(RFENCE, 0, &[0, u64::MAX]), (0, 0));
        assert_eq!(fake.fences, [Fence::I(HARTS), Fence::I(HartSet::All { count: 4 })]);
    }

    #[test]
    fn sfence_vma_passes_the_range_on() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(RFENCE, 1, &[0b11, 0, 0x1000, 0x2000]), (0, 0));
        assert_eq!(fake.call(RFENCE, 2, &[0b11, 0, 0x1000, 0x2000, 7]), (0, 0));
        assert_eq!(
            fake.fences,
            [Fence::Vma(HARTS, 0x1000, 0x2000, None), Fence::Vma(HARTS, 0x1000, 0x2000, Some(7))]
        );
    }

    #[test]
    fn whole_address_space_is_recognized() {
        let mut fake = Fake::default();
        for (start, size) in [(0, 0), (0x1000, u64::MAX), (u64::MAX - 0xfff, 0x2000)] {
            assert_eq!(fake.call(RFENCE, 1, &[0b11, 0, start, size]), (0, 0));
            assert_eq!(fake.fences.pop(), Some(Fence::Vma(HARTS, 0, u64::MAX, None)));
        }
    }

    #[test]
    fn size_zero_elsewhere_is_an_empty_range() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(RFENCE, 1, &[0b11, 0, 0x1000, 0]), (0, 0));
        assert_eq!(fake.fences, [Fence::Vma(HARTS, 0x1000, 0, None)]);
    }

    #[test]
    fn invalid_harts_and_hypervisor_fences_are_refused() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(RFENCE, 1, &[1, 4, 0, 0]), (-3, 0));
        for fid in 3..=6 {
            assert_eq!(fake.call(RFENCE, fid, &[1, 0, 0, 0]), (-2, 0));
        }
        assert!(fake.fences.is_empty());
    }
}

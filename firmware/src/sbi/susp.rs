//! SUSP, EID 0x53555350 (SBI 3.0, chapter 13).

use super::{Answer, Arguments, HartStatus, Outcome, Platform, SbiError, resume_at};

const SUSPEND_TO_RAM: u32 = 0;

pub(super) fn call(platform: &mut dyn Platform, fid: u32, arguments: Arguments) -> Answer {
    if fid as usize != sbi_spec::susp::SUSPEND {
        return Err(SbiError::NotSupported);
    }
    let [kind, address, opaque, ..] = arguments;
    if kind as u32 != SUSPEND_TO_RAM {
        return Err(SbiError::InvalidParam);
    }
    let resume = resume_at(platform, address, opaque)?;
    let calling = platform.hart_id();
    let others_stopped = (0..platform.hart_count())
        .filter(|&hart| hart != calling)
        .all(|hart| platform.hart_status(hart) == HartStatus::Stopped);
    if others_stopped { Ok(Outcome::SystemSuspend(resume)) } else { Err(SbiError::Denied) }
}

#[cfg(test)]
mod tests {
    use super::super::Resume;
    use super::super::fake::{Fake, RAM};
    use super::*;

    const SUSP: u64 = 0x53555350;

    #[test]
    fn suspend_to_ram_resumes_the_caller() {
        let resume = Resume { address: RAM + 2, opaque: 9 };
        assert_eq!(Fake::default().outcome(SUSP, 0, &[0, RAM + 2, 9]), Outcome::SystemSuspend(resume));
    }

    #[test]
    fn errors() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(SUSP, 0, &[1, RAM, 0]), (-3, 0));
        assert_eq!(fake.call(SUSP, 0, &[0x8000_0000, RAM, 0]), (-3, 0));
        assert_eq!(fake.call(SUSP, 0, &[0, 0, 0]), (-5, 0));
        fake.status[2] = HartStatus::Started;
        assert_eq!(fake.call(SUSP, 0, &[0, RAM, 0]), (-4, 0), "another hart is running");
    }
}

//! The legacy calls, EIDs 0x00 to 0x08 (SBI 3.0, chapter 5). They have no function id, return in a0 only, and take a list of
//! harts as the virtual address of a bit vector. U-Boot and EDK2 use the console calls where DBCN is missing.

use super::rfence::{fence_i, sfence_vma};
use super::{Answer, Handler, HartSet, Outcome, Platform, ResetKind, SbiError, ipi, time};

const SET_TIMER: u32 = 0;
const CONSOLE_PUTCHAR: u32 = 1;
const CONSOLE_GETCHAR: u32 = 2;
const CLEAR_IPI: u32 = 3;
const SEND_IPI: u32 = 4;
const REMOTE_FENCE_I: u32 = 5;
const REMOTE_SFENCE_VMA: u32 = 6;
const REMOTE_SFENCE_VMA_ASID: u32 = 7;
const SHUTDOWN: u32 = 8;

pub(super) fn handler(eid: u32) -> Option<Handler> {
    let handler: Handler = match eid {
        SET_TIMER => |platform, _, arguments| {
            time::set_timer(platform, arguments[0]);
            a0(0)
        },
        CONSOLE_PUTCHAR => |platform, _, arguments| match platform.console_write(&[arguments[0] as u8]) {
            Some(_) => a0(0),
            None => a0(SbiError::Failed as i64),
        },
        CONSOLE_GETCHAR => |platform, _, _| {
            let mut byte = [0];
            if platform.console_read(&mut byte) == 1 { a0(i64::from(byte[0])) } else { a0(-1) }
        },
        CLEAR_IPI => |platform, _, _| {
            let was_pending = platform.clear_ipi();
            a0(i64::from(was_pending))
        },
        SEND_IPI => |platform, _, arguments| {
            for_listed(platform, arguments[0], |platform, harts| ipi::send(platform, harts.iter()))
        },
        REMOTE_FENCE_I => |platform, _, arguments| for_listed(platform, arguments[0], fence_i),
        REMOTE_SFENCE_VMA => |platform, _, [list, start, size, ..]| {
            for_listed(platform, list, |platform, harts| sfence_vma(platform, harts, start, size, None))
        },
        REMOTE_SFENCE_VMA_ASID => |platform, _, [list, start, size, asid, ..]| {
            for_listed(platform, list, |platform, harts| {
                sfence_vma(platform, harts, start, size, Some(asid as u16))
            })
        },
        SHUTDOWN => |_, _, _| Ok(Outcome::Reset { kind: ResetKind::Shutdown, failure: false }),
        _ => return None,
    };
    Some(handler)
}

fn a0(value: i64) -> Answer {
    Ok(Outcome::Legacy { a0: value })
}

/// Does something for the harts of a bit vector at a virtual address, 64 harts at a time. A null address means all harts,
/// as in the Berkeley boot loader. Bits of harts that do not exist are ignored.
fn for_listed(
    platform: &mut dyn Platform,
    list: u64,
    mut act: impl FnMut(&mut dyn Platform, HartSet),
) -> Answer {
    let count = platform.hart_count();
    if list == 0 {
        act(platform, HartSet::All { count });
        return a0(0);
    }
    for base in (0..count).step_by(64) {
        let word = match platform.load_virtual(list.wrapping_add(base / 8)) {
            Ok(word) => word,
            Err(trap) => return Ok(Outcome::Fault(trap)),
        };
        let valid = if count - base >= 64 { u64::MAX } else { (1 << (count - base)) - 1 };
        if word & valid != 0 {
            act(platform, HartSet::Mask { base, mask: word & valid });
        }
    }
    a0(0)
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, Fence, RAM};
    use super::*;

    fn legacy(fake: &mut Fake, eid: u32, arguments: &[u64]) -> i64 {
        // The function id is ignored.
        match fake.outcome(u64::from(eid), 99, arguments) {
            Outcome::Legacy { a0 } => a0,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn console() {
        let mut fake = Fake { input: b"k".to_vec(), ..Fake::default() };
        assert_eq!(legacy(&mut fake, CONSOLE_PUTCHAR, &[0x41]), 0);
        assert_eq!(fake.output, b"A");
        assert_eq!(legacy(&mut fake, CONSOLE_GETCHAR, &[]), i64::from(b'k'));
        assert_eq!(legacy(&mut fake, CONSOLE_GETCHAR, &[]), -1);
    }

    #[test]
    fn timer_and_shutdown() {
        let mut fake = Fake::default();
        assert_eq!(legacy(&mut fake, SET_TIMER, &[500]), 0);
        assert_eq!(fake.timer, Some(500));
        let shutdown = Outcome::Reset { kind: ResetKind::Shutdown, failure: false };
        assert_eq!(fake.outcome(8, 0, &[]), shutdown);
    }

    #[test]
    fn clear_ipi_tells_whether_one_was_pending() {
        let mut fake = Fake { ipi_pending: true, ..Fake::default() };
        assert_eq!(legacy(&mut fake, CLEAR_IPI, &[]), 1);
        assert_eq!(legacy(&mut fake, CLEAR_IPI, &[]), 0);
    }

    #[test]
    fn harts_are_listed_in_memory() {
        let mut fake = Fake { harts: 70, ..Fake::default() };
        fake.ram[8..16].copy_from_slice(&0b11u64.to_le_bytes());
        fake.ram[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(legacy(&mut fake, SEND_IPI, &[RAM + 8]), 0);
        assert_eq!(fake.ipis, [0, 1, 64, 65, 66, 67, 68, 69]);
        assert_eq!(legacy(&mut fake, REMOTE_FENCE_I, &[0]), 0);
        assert_eq!(fake.fences, [Fence::I(HartSet::All { count: 70 })]);
    }

    #[test]
    fn fences_carry_range_and_asid() {
        let mut fake = Fake::default();
        fake.ram[0] = 0b10;
        let harts = HartSet::Mask { base: 0, mask: 0b10 };
        assert_eq!(legacy(&mut fake, REMOTE_SFENCE_VMA, &[RAM, 0x1000, 0x1000]), 0);
        assert_eq!(legacy(&mut fake, REMOTE_SFENCE_VMA_ASID, &[RAM, 0x1000, 0x1000, 3]), 0);
        let expected = [Fence::Vma(harts, 0x1000, 0x1000, None), Fence::Vma(harts, 0x1000, 0x1000, Some(3))];
        assert_eq!(fake.fences, expected);
    }

    #[test]
    fn unreadable_list_traps_the_caller() {
        let mut fake = Fake::default();
        let outcome = fake.outcome(u64::from(SEND_IPI), 0, &[0x1000]);
        assert!(matches!(outcome, Outcome::Fault(trap) if trap.tval == 0x1000), "{outcome:?}");
    }
}

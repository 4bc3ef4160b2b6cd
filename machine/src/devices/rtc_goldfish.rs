//! The goldfish real-time clock, as QEMU has it: nanoseconds since 1970 in two halves, and one alarm.
//!
//! ```text
//!   0x00  TIME_LOW         read: low half, and latches the high one; write: sets the low half
//!   0x04  TIME_HIGH        read: the latched half; write: sets the high half
//!   0x08  ALARM_LOW        write: sets the low half and arms the alarm
//!   0x0c  ALARM_HIGH       write: sets the high half
//!   0x10  IRQ_ENABLED      bit 0
//!   0x14  CLEAR_ALARM      write: disarms
//!   0x18  ALARM_STATUS     read: 1 while armed
//!   0x1c  CLEAR_INTERRUPT  write: lowers the wire
//! ```

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use devicetree::Node;
use parking_lot::Mutex;
use softmmu::AccessFault;

use crate::bus::{MmioDevice, Placement};
use crate::irq::IrqLine;
use crate::timer::{Alarm, Timers};

const TIME_LOW: u64 = 0x00;
const TIME_HIGH: u64 = 0x04;
const ALARM_LOW: u64 = 0x08;
const ALARM_HIGH: u64 = 0x0c;
const IRQ_ENABLED: u64 = 0x10;
const CLEAR_ALARM: u64 = 0x14;
const ALARM_STATUS: u64 = 0x18;
const CLEAR_INTERRUPT: u64 = 0x1c;

/// The clock. Lock order: its lock, then the PLIC's or the timers'.
pub struct RtcGoldfish {
    line: IrqLine,
    alarm: Alarm,
    state: Mutex<State>,
}

/// Times in nanoseconds; arithmetic on them wraps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    /// Guest time less host time.
    offset: u64,
    latched_high: u32,
    alarm_next: u64,
    alarm_armed: bool,
    interrupt_pending: bool,
    interrupt_enabled: bool,
}

impl RtcGoldfish {
    /// A clock that shows the host's time and interrupts through `line`.
    pub fn new(line: IrqLine, timers: &Timers) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| {
            let this = Weak::clone(this);
            let alarm = timers.add_alarm(move || {
                if let Some(this) = this.upgrade() {
                    let mut state = this.state.lock();
                    this.follow_alarm(&mut state);
                }
            });
            Self { line, alarm, state: Mutex::new(State::default()) }
        })
    }

    /// Fires an armed alarm whose time has come, or sets the timer for it.
    fn follow_alarm(&self, state: &mut State) {
        if !state.alarm_armed {
            self.alarm.set(None);
            return;
        }
        let left = state.alarm_next.saturating_sub(state.now());
        if left > 0 {
            // The host's clock may be set meanwhile, so far alarms are looked at again now and then.
            let sleep = Duration::from_nanos(left).min(Duration::from_secs(60));
            self.alarm.set(Instant::now().checked_add(sleep));
            return;
        }
        state.alarm_armed = false;
        state.interrupt_pending = true;
        self.drive_line(state);
    }

    fn drive_line(&self, state: &State) {
        self.line.set(state.interrupt_pending && state.interrupt_enabled);
    }
}

impl State {
    fn now(&self) -> u64 {
        host_nanos().wrapping_add(self.offset)
    }

    fn set_now(&mut self, time: u64) {
        self.offset = time.wrapping_sub(host_nanos());
    }
}

/// Nanoseconds since 1970. A host clock before that reads as 0; 64 bits last until 2554.
fn host_nanos() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_secs().wrapping_mul(1_000_000_000).wrapping_add(since.subsec_nanos().into())
}

fn with_low(whole: u64, low: u64) -> u64 {
    whole & !0xffff_ffff | low & 0xffff_ffff
}

fn with_high(whole: u64, high: u64) -> u64 {
    whole & 0xffff_ffff | high << 32
}

impl MmioDevice for RtcGoldfish {
    fn name(&self) -> &'static str {
        "rtc_goldfish"
    }

    fn read(&self, offset: u64, width: u8) -> Result<u64, AccessFault> {
        if width != 4 {
            return Err(AccessFault);
        }
        let mut state = self.state.lock();
        Ok(match offset {
            TIME_LOW => {
                let now = state.now();
                state.latched_high = (now >> 32) as u32;
                now & 0xffff_ffff
            }
            TIME_HIGH => state.latched_high.into(),
            ALARM_LOW => state.alarm_next & 0xffff_ffff,
            ALARM_HIGH => state.alarm_next >> 32,
            IRQ_ENABLED => state.interrupt_enabled.into(),
            ALARM_STATUS => state.alarm_armed.into(),
            _ => 0,
        })
    }

    fn write(&self, offset: u64, width: u8, value: u64) -> Result<(), AccessFault> {
        if width != 4 {
            return Err(AccessFault);
        }
        let mut state = self.state.lock();
        match offset {
            TIME_LOW => {
                let time = with_low(state.now(), value);
                state.set_now(time);
                self.follow_alarm(&mut state);
            }
            TIME_HIGH => {
                let time = with_high(state.now(), value);
                state.set_now(time);
                self.follow_alarm(&mut state);
            }
            ALARM_LOW => {
                state.alarm_next = with_low(state.alarm_next, value);
                state.alarm_armed = true;
                self.follow_alarm(&mut state);
            }
            ALARM_HIGH => state.alarm_next = with_high(state.alarm_next, value),
            IRQ_ENABLED => {
                state.interrupt_enabled = value & 1 != 0;
                self.drive_line(&state);
            }
            CLEAR_ALARM => {
                state.alarm_armed = false;
                self.follow_alarm(&mut state);
            }
            CLEAR_INTERRUPT => {
                state.interrupt_pending = false;
                self.drive_line(&state);
            }
            _ => {}
        }
        Ok(())
    }

    /// The time goes on: a real-time clock has a battery.
    fn reset(&self) {
        let mut state = self.state.lock();
        *state = State { offset: state.offset, ..State::default() };
        self.follow_alarm(&mut state);
        self.drive_line(&state);
    }

    fn fdt(&self, place: &Placement, parent: &mut Node) {
        parent
            .child(&format!("rtc@{:x}", place.base))
            .set_u32("interrupts", place.irq.unwrap_or(0))
            .set_u32("interrupt-parent", place.phandles.plic)
            .set_reg(&[(place.base, place.size)])
            .set_string("compatible", "google,goldfish-rtc");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::clock::Clock;
    use crate::irq::IrqSink;

    #[derive(Default)]
    struct Wire(AtomicBool);

    impl IrqSink for Wire {
        fn set_level(&self, _irq: u32, level: bool) {
            self.0.store(level, Ordering::SeqCst);
        }
    }

    impl Wire {
        fn is_high(&self) -> bool {
            self.0.load(Ordering::SeqCst)
        }
    }

    fn rtc() -> (Arc<RtcGoldfish>, Arc<Wire>, Timers) {
        let wire = Arc::new(Wire::default());
        let timers = Timers::new(Arc::new(Clock::new()), &[]).unwrap();
        (RtcGoldfish::new(IrqLine::new(wire.clone(), 11), &timers), wire, timers)
    }

    fn time(rtc: &RtcGoldfish) -> u64 {
        let low = rtc.read(TIME_LOW, 4).unwrap();
        rtc.read(TIME_HIGH, 4).unwrap() << 32 | low
    }

    fn set_alarm(rtc: &RtcGoldfish, at: u64) {
        rtc.write(ALARM_HIGH, 4, at >> 32).unwrap();
        rtc.write(ALARM_LOW, 4, at & 0xffff_ffff).unwrap();
    }

    fn wait_for(wire: &Wire) {
        let start = Instant::now();
        while !wire.is_high() {
            assert!(start.elapsed() < Duration::from_secs(300), "the alarm did not ring");
            std::thread::yield_now();
        }
    }

    #[test]
    fn time_is_the_hosts() {
        let (rtc, ..) = rtc();
        let before = host_nanos();
        let shown = time(&rtc);
        assert!((before..=host_nanos()).contains(&shown));
    }

    #[test]
    fn time_high_changes_only_when_time_low_is_read() {
        let (rtc, ..) = rtc();
        let high = time(&rtc) >> 32;
        rtc.write(TIME_HIGH, 4, 5).unwrap();
        assert_eq!(rtc.read(TIME_HIGH, 4), Ok(high));
        rtc.read(TIME_LOW, 4).unwrap();
        assert_eq!(rtc.read(TIME_HIGH, 4), Ok(5));
    }

    #[test]
    fn time_can_be_set() {
        let (rtc, ..) = rtc();
        let start = Instant::now();
        rtc.write(TIME_HIGH, 4, 0x1000).unwrap();
        rtc.write(TIME_LOW, 4, 0).unwrap();
        let shown = time(&rtc);
        let latest = (0x1000 << 32) + 5_000_000_000 + start.elapsed().as_nanos() as u64;
        assert!((0x1000 << 32..=latest).contains(&shown), "{shown:#x}");
    }

    #[test]
    fn an_alarm_rings_when_due() {
        let (rtc, wire, _timers) = rtc();
        rtc.write(IRQ_ENABLED, 4, 1).unwrap();
        let at = time(&rtc) + 20_000_000;
        set_alarm(&rtc, at);
        assert_eq!(rtc.read(ALARM_LOW, 4), Ok(at & 0xffff_ffff));
        assert_eq!(rtc.read(ALARM_HIGH, 4), Ok(at >> 32));
        wait_for(&wire);
        assert!(time(&rtc) >= at);
        assert_eq!(rtc.read(ALARM_STATUS, 4), Ok(0));
        rtc.write(CLEAR_INTERRUPT, 4, 1).unwrap();
        assert!(!wire.is_high());
    }

    #[test]
    fn an_alarm_in_the_past_rings_at_once() {
        let (rtc, wire, _timers) = rtc();
        rtc.write(IRQ_ENABLED, 4, 1).unwrap();
        set_alarm(&rtc, 1);
        assert!(wire.is_high());
        assert_eq!(rtc.read(ALARM_STATUS, 4), Ok(0));
    }

    #[test]
    fn a_masked_interrupt_stays_pending() {
        let (rtc, wire, _timers) = rtc();
        set_alarm(&rtc, 1);
        assert!(!wire.is_high());
        rtc.write(IRQ_ENABLED, 4, 1).unwrap();
        assert!(wire.is_high());
    }

    #[test]
    fn a_cleared_alarm_does_not_ring() {
        let (rtc, wire, _timers) = rtc();
        rtc.write(IRQ_ENABLED, 4, 1).unwrap();
        loop {
            let at = time(&rtc) + 100_000_000;
            set_alarm(&rtc, at);
            let running = rtc.read(ALARM_STATUS, 4);
            rtc.write(CLEAR_ALARM, 4, 1).unwrap();
            assert_eq!(rtc.read(ALARM_STATUS, 4), Ok(0));
            if time(&rtc) < at {
                assert_eq!(running, Ok(1));
                break;
            }
            // It was cleared too late.
            rtc.write(CLEAR_INTERRUPT, 4, 1).unwrap();
        }
        std::thread::sleep(Duration::from_millis(130));
        assert!(!wire.is_high());
    }

    #[test]
    fn setting_the_time_past_an_alarm_rings_it() {
        let (rtc, wire, _timers) = rtc();
        rtc.write(IRQ_ENABLED, 4, 1).unwrap();
        set_alarm(&rtc, time(&rtc) + (1 << 40));
        assert!(!wire.is_high());
        rtc.write(TIME_HIGH, 4, (time(&rtc) >> 32) + (1 << 10)).unwrap();
        assert!(wire.is_high());
    }

    #[test]
    fn absent_registers_are_harmless_and_other_widths_fault() {
        let (rtc, ..) = rtc();
        rtc.write(0x20, 4, 1).unwrap();
        assert_eq!(rtc.read(0x20, 4), Ok(0));
        assert_eq!(rtc.read(CLEAR_ALARM, 4), Ok(0));
        assert_eq!(rtc.read(TIME_LOW, 8), Err(AccessFault));
        assert_eq!(rtc.write(TIME_LOW, 1, 0), Err(AccessFault));
    }

    #[test]
    fn reset_keeps_the_time_and_drops_the_alarm() {
        let (rtc, wire, _timers) = rtc();
        rtc.write(TIME_HIGH, 4, 0x1000).unwrap();
        rtc.write(IRQ_ENABLED, 4, 1).unwrap();
        set_alarm(&rtc, 1);
        rtc.reset();
        assert!(!wire.is_high());
        assert_eq!(rtc.read(IRQ_ENABLED, 4), Ok(0));
        assert_eq!(time(&rtc) >> 32, 0x1000);
    }
}

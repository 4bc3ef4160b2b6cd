//! The guest's `time`, by the host's counter: what generated code reads without a call.
//!
//! The counter is one that all cores of the host share and that goes at one rate. Who owns the guest's clock says in a [`TimeBase`]
//! what the time was when the counter had some value, how fast it goes on from there, and how far that holds. Past that, it must be
//! asked. So what is read here follows the host's clock, and nothing goes wrong for long when the counter does, as it may while the
//! host sleeps.

#![allow(unsafe_code, reason = "reads the host's counter")]

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Binary digits of a tick's fraction in [`Line`].
pub const FRACTION_BITS: u32 = 32;

/// How the time goes: as from a value of the host's counter on, for `limit` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The value of the counter.
    pub counter: u64,
    /// The time then, in ticks of 2^-32.
    pub time: u128,
    /// By how much that grows with each count.
    pub rate: u64,
    /// How many counts it holds for; `limit * rate` is less than 2^63.
    pub limit: u64,
}

impl Line {
    /// The time `counts` later, which are not more than the limit.
    pub fn after(&self, counts: u64) -> u128 {
        self.time + u128::from(counts) * u128::from(self.rate)
    }
}

/// A [`Line`] that any thread reads without a lock while one sets it. Generated code reads it in the same order: version, limit,
/// the rest, and the version again.
#[repr(C)]
#[derive(Debug, Default)]
pub struct TimeBase {
    /// Counts how often it was set.
    pub(crate) version: AtomicU64,
    /// 0 while there is no line, and while it is being set.
    pub(crate) limit: AtomicU64,
    pub(crate) counter: AtomicU64,
    /// The time: whole ticks, and the fraction.
    pub(crate) ticks: AtomicU64,
    pub(crate) fraction: AtomicU64,
    pub(crate) rate: AtomicU64,
}

/// For harts whose time cannot be told from a counter.
pub(crate) static NO_TIME: TimeBase = TimeBase::new();

impl TimeBase {
    /// Without a line.
    pub const fn new() -> Self {
        Self {
            version: AtomicU64::new(0),
            limit: AtomicU64::new(0),
            counter: AtomicU64::new(0),
            ticks: AtomicU64::new(0),
            fraction: AtomicU64::new(0),
            rate: AtomicU64::new(0),
        }
    }

    /// The time in ticks at a value of the counter, if a line holds there.
    #[inline]
    pub fn at(&self, counter: u64) -> Option<u64> {
        let version = self.version.load(SeqCst);
        let limit = self.limit.load(SeqCst);
        let counts = counter.wrapping_sub(self.counter.load(SeqCst));
        let (rate, fraction) = (self.rate.load(SeqCst), self.fraction.load(SeqCst));
        let ticks = self.ticks.load(SeqCst);
        if counts >= limit || self.version.load(SeqCst) != version {
            return None;
        }
        Some(ticks.wrapping_add(counts.wrapping_mul(rate).wrapping_add(fraction) >> FRACTION_BITS))
    }

    /// Replaces the line, or takes it away. One thread does that at a time.
    ///
    /// Who reads a part of the new line sees the new version afterwards. Who saw that one before, saw the limit that is 0, or the
    /// new one, which is set last.
    pub fn set(&self, line: Option<&Line>) {
        self.limit.store(0, SeqCst);
        self.version.fetch_add(1, SeqCst);
        let Some(line) = line else { return };
        self.counter.store(line.counter, SeqCst);
        self.ticks.store((line.time >> FRACTION_BITS) as u64, SeqCst);
        self.fraction.store(line.time as u64 & ((1 << FRACTION_BITS) - 1), SeqCst);
        self.rate.store(line.rate, SeqCst);
        self.limit.store(line.limit, SeqCst);
    }
}

/// The host's counter, not read before what precedes it. `None` if there is none that can be relied on.
#[inline]
pub fn counter() -> Option<u64> {
    if is_reliable() { Some(read()) } else { None }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn read() -> u64 {
    use std::arch::x86_64::{_mm_lfence, _rdtsc};
    // SAFETY: all hosts have SSE2. The time-stamp counter is open to users where the kernel's own clocks read it, as `is_reliable`
    // asks for.
    unsafe {
        _mm_lfence();
        _rdtsc()
    }
}

/// Whether the host's counter can be relied on. The time-stamp counter goes at one rate in all states of the processor (CPUID
/// 8000_0007, EDX bit 8), and Linux has not found it to differ from core to core, for then it uses another clock.
#[cfg(target_arch = "x86_64")]
#[inline]
pub fn is_reliable() -> bool {
    use std::arch::x86_64::__cpuid;
    use std::sync::LazyLock;
    const POWER: u32 = 0x8000_0007;
    static RELIABLE: LazyLock<bool> = LazyLock::new(|| {
        let is_invariant = __cpuid(0x8000_0000).eax >= POWER && __cpuid(POWER).edx >> 8 & 1 == 1;
        let source =
            std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
        is_invariant && source.is_ok_and(|source| source.trim() == "tsc")
    });
    *RELIABLE
}

#[cfg(target_arch = "aarch64")]
#[inline]
fn read() -> u64 {
    let count;
    // SAFETY: Linux opens the virtual counter to users.
    unsafe { std::arch::asm!("isb", "mrs {}, cntvct_el0", out(reg) count, options(nostack)) };
    count
}

/// Whether the host's counter can be relied on. That of the generic timer (Arm ARM, D12) is made for this.
#[cfg(target_arch = "aarch64")]
pub fn is_reliable() -> bool {
    true
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn read() -> u64 {
    0
}

/// Whether the host's counter can be relied on: it has none that is read here.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub fn is_reliable() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Line = Line { counter: 1000, time: 7 << FRACTION_BITS | 1 << 31, rate: 1 << 30, limit: 100 };

    #[test]
    fn a_line_holds_from_its_counter_to_its_limit() {
        let base = TimeBase::new();
        assert_eq!(base.at(1000), None);
        base.set(Some(&LINE));
        for (counter, time) in [(999, None), (1000, Some(7)), (1001, Some(7)), (1002, Some(8)), (1100, None)]
        {
            assert_eq!(base.at(counter), time, "{counter}");
        }
        assert_eq!(base.at(1099).map(u128::from), Some(LINE.after(99) >> FRACTION_BITS));
        base.set(None);
        assert_eq!(base.at(1000), None);
    }

    #[test]
    fn no_reader_sees_parts_of_two_lines() {
        let base = TimeBase::new();
        let lines =
            [LINE, Line { counter: 5_000_000, time: 9000 << FRACTION_BITS, rate: 1 << 32, limit: 50 }];
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut seen = [0_u32; 2];
                while seen.iter().any(|&times| times < 100) {
                    for (line, times) in lines.iter().zip(&mut seen) {
                        if let Some(time) = base.at(line.counter + 10) {
                            assert_eq!(u128::from(time), line.after(10) >> FRACTION_BITS);
                            *times += 1;
                        }
                    }
                }
            });
            while !reader.is_finished() {
                lines.iter().for_each(|line| base.set(Some(line)));
            }
        });
    }

    #[test]
    fn the_counter_goes_forwards() {
        if let Some(before) = counter() {
            std::thread::sleep(std::time::Duration::from_millis(1));
            assert!(counter().is_some_and(|after| after > before));
        }
    }
}

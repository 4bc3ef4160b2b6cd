//! Guest time: `mtime`, the `time` CSR and SBI's timer all read this one counter.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Ticks of `mtime` per second; the device tree's `timebase-frequency`.
pub const TIMEBASE_FREQUENCY: u64 = 10_000_000;

const NANOS_PER_TICK: u64 = 1_000_000_000 / TIMEBASE_FREQUENCY;

/// A 64-bit counter of [`TIMEBASE_FREQUENCY`] on the host's monotonic clock. Reads take no lock.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    /// Added to the ticks since `start`, wrapping, so that the guest can set the time.
    offset: AtomicU64,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock that reads 0 now.
    pub fn new() -> Self {
        Self { start: Instant::now(), offset: AtomicU64::new(0) }
    }

    /// The time in ticks.
    #[inline]
    pub fn now(&self) -> u64 {
        self.host_ticks().wrapping_add(self.offset.load(Ordering::SeqCst))
    }

    /// Makes [`now`](Self::now) count on from `ticks`. Whoever sleeps until a deadline must look again.
    pub fn set(&self, ticks: u64) {
        self.offset.store(ticks.wrapping_sub(self.host_ticks()), Ordering::SeqCst);
    }

    /// How long until the time is `deadline`: zero if it has passed, `None` if it is too far away to sleep for
    /// (5 000 years or more). At the end of the returned time `now() >= deadline` holds, unless the time was set.
    pub fn until(&self, deadline: u64) -> Option<Duration> {
        const FOREVER: u64 = TIMEBASE_FREQUENCY * 86_400 * 366 * 5_000;
        match deadline.saturating_sub(self.now()) {
            0 => Some(Duration::ZERO),
            FOREVER.. => None,
            ticks => Some(Duration::new(
                ticks / TIMEBASE_FREQUENCY,
                u32::try_from(ticks % TIMEBASE_FREQUENCY * NANOS_PER_TICK).unwrap_or(0),
            )),
        }
    }

    fn host_ticks(&self) -> u64 {
        let elapsed = self.start.elapsed();
        elapsed.as_secs() * TIMEBASE_FREQUENCY + u64::from(elapsed.subsec_nanos()) / NANOS_PER_TICK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(time: Duration) -> u64 {
        time.as_nanos() as u64 / NANOS_PER_TICK
    }

    #[test]
    fn a_new_clock_starts_near_zero_and_advances_with_the_host() {
        let start = Instant::now();
        let clock = Clock::new();
        let before = clock.now();
        assert!(before <= ticks(start.elapsed()), "{before}");
        std::thread::sleep(Duration::from_millis(5));
        let passed = clock.now() - before;
        assert!((50_000..=ticks(start.elapsed())).contains(&passed), "{passed}");
    }

    #[test]
    fn time_can_be_set_forwards_and_backwards() {
        let clock = Clock::new();
        for time in [1 << 60, 7] {
            let start = Instant::now();
            clock.set(time);
            let shown = clock.now();
            assert!((time..=time + ticks(start.elapsed()) + 1).contains(&shown), "{shown}");
        }
    }

    #[test]
    fn until_a_deadline_is_in_host_time() {
        let clock = Clock::new();
        assert_eq!(clock.until(0), Some(Duration::ZERO));
        assert_eq!(clock.until(u64::MAX), None);
        let start = Instant::now();
        let second = clock.until(clock.now() + TIMEBASE_FREQUENCY).unwrap();
        assert!(second <= Duration::from_secs(1), "{second:?}");
        let passed = start.elapsed() + Duration::from_nanos(NANOS_PER_TICK);
        assert!(second + passed >= Duration::from_secs(1), "{second:?}");
    }

    #[test]
    fn a_deadline_has_passed_after_sleeping_until_it() {
        let clock = Clock::new();
        let deadline = clock.now() + 12_345;
        std::thread::sleep(clock.until(deadline).unwrap());
        assert!(clock.now() >= deadline);
    }
}

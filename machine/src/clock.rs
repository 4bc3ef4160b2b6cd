//! Guest time: `mtime`, the `time` CSR and SBI's timer all read this one counter.
//!
//! It is the host's monotonic clock. That takes long to read, so where the host has a counter that can be relied on, the time between
//! two looks at the clock is told by the counter, also by generated code: see [`jit::time`]. The time never goes backwards for that:
//! a new line starts where the last one ended, if the host's clock has not come that far.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jit::time::{self, FRACTION_BITS, Line, TimeBase};
use parking_lot::Mutex;

/// Ticks of `mtime` per second; the device tree's `timebase-frequency`.
pub const TIMEBASE_FREQUENCY: u64 = 10_000_000;

const NANOS_PER_TICK: u64 = 1_000_000_000 / TIMEBASE_FREQUENCY;

/// How long a line holds.
const LINE: Duration = Duration::from_secs(1);
/// For how long the counter's first rate is measured.
const FIRST: Duration = Duration::from_millis(20);
/// A rate that differs from the last by more than one part in this is not believed at once: the host may have slept meanwhile.
const RATE_STEP: u64 = 100;

/// The bits of a time in ticks of 2^-32.
const TIME_MASK: u128 = (1 << (64 + FRACTION_BITS)) - 1;

/// A 64-bit counter of [`TIMEBASE_FREQUENCY`] on the host's monotonic clock. Reads take no lock.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    /// Added to the ticks since `start`, wrapping, so that the guest can set the time.
    offset: AtomicU64,
    base: TimeBase,
    counting: Mutex<Counting>,
}

/// What is known of the host's counter.
#[derive(Debug, Default)]
struct Counting {
    /// The counter and the time since the start, when they were last compared.
    compared: Option<(u64, Duration)>,
    /// In ticks of 2^-32 for each count.
    rate: Option<u64>,
    /// The same as it was measured last, whether or not that was believed.
    measured: u64,
    line: Option<Line>,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock that reads 0 now.
    pub fn new() -> Self {
        let clock = Self {
            start: Instant::now(),
            offset: AtomicU64::new(0),
            base: TimeBase::new(),
            counting: Mutex::default(),
        };
        clock.counting.lock().compared = clock.compare();
        clock
    }

    /// The time in ticks.
    #[inline]
    pub fn now(&self) -> u64 {
        match time::counter() {
            None => self.host_ticks().wrapping_add(self.offset.load(Ordering::SeqCst)),
            Some(counter) => self.base.at(counter).unwrap_or_else(|| self.look()),
        }
    }

    /// What tells the time between two looks at the host's clock; `None` if the host has no counter for that.
    pub fn base(&self) -> Option<&TimeBase> {
        time::is_reliable().then_some(&self.base)
    }

    /// Makes [`now`](Self::now) count on from `ticks`. Whoever sleeps until a deadline must look again.
    pub fn set(&self, ticks: u64) {
        let mut counting = self.counting.lock();
        self.offset.store(ticks.wrapping_sub(self.host_ticks()), Ordering::SeqCst);
        counting.line = None;
        self.base.set(None);
    }

    /// How long until the time is `deadline`: zero if it has passed, `None` if it is too far away to sleep for
    /// (5 000 years or more). At the end of the returned time `now() >= deadline` holds, unless the time was set, or the host's
    /// counter was slower than its clock; so look again.
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
        ticks(self.start.elapsed())
    }

    /// The host's counter and the time since the start, read as close to each other as can be had.
    fn compare(&self) -> Option<(u64, Duration)> {
        let once = || {
            let before = time::counter()?;
            let elapsed = self.start.elapsed();
            let width = time::counter()?.wrapping_sub(before);
            Some((width, before.wrapping_add(width / 2), elapsed))
        };
        let (_, counter, elapsed) = (0..4).filter_map(|_| once()).min_by_key(|&(width, ..)| width)?;
        Some((counter, elapsed))
    }

    /// Looks at the host's clock, and says how the time goes on by the counter.
    #[cold]
    fn look(&self) -> u64 {
        let mut counting = self.counting.lock();
        let offset = self.offset.load(Ordering::SeqCst);
        let Some((counter, elapsed)) = self.compare() else { return self.host_ticks().wrapping_add(offset) };
        if let Some(time) = self.base.at(counter) {
            // Another thread was faster.
            return time;
        }
        let line = counting.next(counter, elapsed, offset);
        self.base.set(line.as_ref());
        match line {
            Some(line) => (line.time >> FRACTION_BITS) as u64,
            None => ticks(elapsed).wrapping_add(offset),
        }
    }
}

impl Counting {
    /// How the time goes on from a value of the counter, at a time since the start; `None` as long as the counter's rate is not known.
    fn next(&mut self, counter: u64, elapsed: Duration, offset: u64) -> Option<Line> {
        self.measure(counter, elapsed);
        let rate = self.rate?;
        let time = (fine_ticks(elapsed) + (u128::from(offset) << FRACTION_BITS)) & TIME_MASK;
        let limit = (fine_ticks(LINE) / u128::from(rate)) as u64;
        // No more than this has been read of the last line.
        let read = self.line.map_or(time, |line| line.after(line.limit) & TIME_MASK);
        let ahead = match read.wrapping_sub(time) & TIME_MASK {
            ahead if ahead <= TIME_MASK / 2 => ahead,
            _ => 0,
        };
        // The host's clock catches up by the end of the line, or as soon as it can at half the rate.
        let slower = (ahead / u128::from(limit.max(1))).min(u128::from(rate / 2)) as u64;
        let line = Line { counter, time: (time + ahead) & TIME_MASK, rate: rate - slower, limit };
        self.line = Some(line);
        self.line
    }

    fn measure(&mut self, counter: u64, elapsed: Duration) {
        let Some((last_counter, last)) = self.compared else {
            self.compared = Some((counter, elapsed));
            return;
        };
        let (counts, time) = (counter.wrapping_sub(last_counter), elapsed.saturating_sub(last));
        if time < if self.rate.is_none() { FIRST } else { LINE / 2 } {
            return;
        }
        self.compared = Some((counter, elapsed));
        let measured = u64::try_from(fine_ticks(time) / u128::from(counts.max(1))).unwrap_or(0);
        let is_near = |rate: u64| measured.abs_diff(rate) <= rate / RATE_STEP;
        if measured != 0 && (self.rate.is_none_or(is_near) || is_near(self.measured)) {
            self.rate = Some(measured);
        }
        self.measured = measured;
    }
}

fn ticks(time: Duration) -> u64 {
    time.as_secs() * TIMEBASE_FREQUENCY + u64::from(time.subsec_nanos()) / NANOS_PER_TICK
}

/// In ticks of 2^-32.
fn fine_ticks(time: Duration) -> u128 {
    (time.as_nanos() << FRACTION_BITS) / u128::from(NANOS_PER_TICK)
}

#[cfg(test)]
mod tests {
    use super::*;

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

    const SECOND: u64 = 2_600_000_000;

    /// The line that follows, at a value of the counter and a time of the host in nanoseconds.
    fn next(counting: &mut Counting, counter: u64, nanos: u64) -> Option<Line> {
        counting.next(counter, Duration::from_nanos(nanos), 0)
    }

    fn whole(time: u128) -> u64 {
        (time >> FRACTION_BITS) as u64
    }

    #[test]
    fn the_counter_is_measured_before_it_tells_the_time() {
        let mut counting = Counting::default();
        assert_eq!(next(&mut counting, 1000, 0), None);
        assert_eq!(next(&mut counting, 1000 + SECOND / 100, 10_000_000), None);
        let line = next(&mut counting, 1000 + SECOND / 50, 20_000_000).unwrap();
        assert_eq!(whole(line.time), 200_000);
        assert!(whole(line.after(SECOND / 2)).abs_diff(5_200_000) <= 1);
        assert!(line.limit.abs_diff(SECOND) < SECOND / 1000 && line.limit.checked_mul(line.rate).is_some());
    }

    fn measured() -> Counting {
        let mut counting = Counting::default();
        next(&mut counting, 0, 0);
        next(&mut counting, SECOND, 1_000_000_000).unwrap();
        counting
    }

    #[test]
    fn a_line_starts_where_the_last_ended_until_the_host_has_caught_up() {
        let mut counting = measured();
        let first = counting.line.unwrap();
        // The host's clock is slower than it was.
        let second = next(&mut counting, 2 * SECOND, 1_999_900_000).unwrap();
        assert_eq!(second.time, first.after(first.limit));
        assert!(second.rate < first.rate && second.rate > first.rate - first.rate / 1000);
        let third = next(&mut counting, 3 * SECOND, 3_000_000_000).unwrap();
        assert!(third.time >= second.after(second.limit));
        assert!(whole(third.time).abs_diff(30_000_000) < 10);
    }

    #[test]
    fn a_host_that_was_asleep_is_followed() {
        // The counter has started anew, has stood still, or has run on.
        for counter in [5, SECOND + 1, 100 * SECOND] {
            let mut counting = measured();
            let rate = counting.rate;
            let line = next(&mut counting, counter, 7_000_000_000).unwrap();
            assert_eq!((line.counter, whole(line.time)), (counter, 70_000_000));
            assert_eq!(counting.rate, rate);
        }
        // A rate that stays is believed.
        let mut counting = measured();
        for second in 2..5 {
            next(&mut counting, SECOND + (second - 1) * SECOND / 2, second * 1_000_000_000);
        }
        assert!(counting.rate.unwrap().abs_diff(2 * measured().rate.unwrap()) < 4);
    }

    #[test]
    fn the_time_wraps() {
        let mut counting = measured();
        counting.line = None;
        let offset = 0_u64.wrapping_sub(15_000_000);
        let before = counting.next(SECOND, Duration::from_secs(1), offset).unwrap();
        assert_eq!(whole(before.time), 0_u64.wrapping_sub(5_000_000));
        let after = counting.next(2 * SECOND, Duration::from_secs(2), offset).unwrap();
        assert!(whole(after.time).abs_diff(5_000_000) < 10);
        assert!(after.rate.abs_diff(before.rate) < 10);
    }

    #[test]
    fn time_goes_forwards_on_all_threads() {
        let clock = Clock::new();
        let last = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while clock.start.elapsed() < 3 * FIRST {
                        let seen = last.load(Ordering::SeqCst);
                        let now = clock.now();
                        // Counters of two cores may differ by the time that a value takes from one to the other.
                        assert!(now + 1 >= seen, "{now} after {seen}");
                        last.fetch_max(now, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(clock.base().is_some(), time::counter().is_some());
        assert!(clock.now().abs_diff(clock.host_ticks()) < TIMEBASE_FREQUENCY / 100);
    }
}

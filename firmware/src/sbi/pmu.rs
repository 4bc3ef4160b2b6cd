//! PMU, EID 0x504D55 (SBI 3.0, chapter 11).
//!
//! Counters are numbered as OpenSBI numbers them: 0 is `cycle`, 2 is `instret`, 1 (which would be `time`) does not exist,
//! and from 3 on come the firmware counters. `cycle` and `instret` run freely until the supervisor takes them for an event.

use sbi_spec::pmu::*;

use super::{Answer, Arguments, Platform, SbiError, shared_memory, success};

/// How many counters there are, the missing one included.
pub const COUNTERS: usize = FIRST_FIRMWARE + 16;

const FIRST_FIRMWARE: usize = 3;

/// A hardware counter; the numbers are those of its logical counter and of its bit in `mcountinhibit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HardwareCounter {
    /// `mcycle`.
    Cycle = 0,
    /// `minstret`.
    Instret = 2,
}

/// A firmware event that is counted; the numbers are the event codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirmwareEvent {
    /// The timer was set.
    SetTimer = firmware_event::SET_TIMER as isize,
    /// An IPI was sent to a hart.
    IpiSent = firmware_event::IPI_SENT as isize,
    /// A remote `fence.i` was asked for.
    FenceISent = firmware_event::FENCE_I_SENT as isize,
    /// A remote `sfence.vma` for all ASIDs was asked for.
    SfenceVmaSent = firmware_event::SFENCE_VMA_SENT as isize,
    /// A remote `sfence.vma` for one ASID was asked for.
    SfenceVmaAsidSent = firmware_event::SFENCE_VMA_ASID_SENT as isize,
}

/// The events, as `event_idx` values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Hardware(HardwareCounter),
    Firmware(FirmwareEvent),
}

impl Event {
    /// Decodes `event_idx`: the type in bits 19:16, the code below. `None` for events that nothing here counts.
    fn from_index(index: u64) -> Option<Self> {
        use FirmwareEvent::*;
        let code = (index & 0xffff) as usize;
        match (index >> 16) as usize {
            event_type::HARDWARE_GENERAL => match code {
                hardware_event::CPU_CYCLES => Some(Self::Hardware(HardwareCounter::Cycle)),
                hardware_event::INSTRUCTIONS => Some(Self::Hardware(HardwareCounter::Instret)),
                _ => None,
            },
            event_type::FIRMWARE => [SetTimer, IpiSent, FenceISent, SfenceVmaSent, SfenceVmaAsidSent]
                .into_iter()
                .find(|&event| event as usize == code)
                .map(Self::Firmware),
            _ => None,
        }
    }

    fn fits(self, counter: usize) -> bool {
        match self {
            Self::Hardware(hardware) => counter == hardware as usize,
            Self::Firmware(_) => (FIRST_FIRMWARE..COUNTERS).contains(&counter),
        }
    }
}

/// The counters of one hart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pmu {
    counters: [Counter; COUNTERS],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counter {
    event: Option<Event>,
    started: bool,
    /// The value, if it is a firmware counter.
    value: u64,
}

impl Pmu {
    /// Counts a firmware event on every counter that is started for it.
    pub fn count(&mut self, event: FirmwareEvent) {
        for counter in &mut self.counters[FIRST_FIRMWARE..] {
            if counter.started && counter.event == Some(Event::Firmware(event)) {
                counter.value = counter.value.wrapping_add(1);
            }
        }
    }
}

pub(super) fn call(platform: &mut dyn Platform, fid: u32, arguments: Arguments) -> Answer {
    let [first, mask, flags, fourth, ..] = arguments;
    match fid as usize {
        NUM_COUNTERS => success(COUNTERS as u64),
        COUNTER_GET_INFO => success(counter_info(first).ok_or(SbiError::InvalidParam)?),
        COUNTER_CONFIG_MATCHING => config_matching(platform, counter_set(first, mask)?, flags, fourth),
        COUNTER_START => start(platform, counter_set(first, mask)?, flags, fourth),
        COUNTER_STOP => stop(platform, counter_set(first, mask)?, flags),
        COUNTER_FW_READ => success(firmware_counter(platform, first)?.value),
        // The upper half of a 64-bit register's worth of counter is zero.
        COUNTER_FW_READ_HI => firmware_counter(platform, first).and(success(0)),
        EVENT_GET_INFO => event_info(platform, first, mask, flags, fourth),
        // SNAPSHOT_SET_SHMEM is optional.
        _ => Err(SbiError::NotSupported),
    }
}

/// `counter_info`: the CSR in bits 11:0, its width less one in bits 17:12, and in bit 63 whether it is a firmware counter.
fn counter_info(counter: u64) -> Option<u64> {
    const WIDTH_64: u64 = 63 << 12;
    match usize::try_from(counter).ok()? {
        0 => Some(0xc00 | WIDTH_64),
        2 => Some(0xc02 | WIDTH_64),
        FIRST_FIRMWARE..COUNTERS => Some(1 << 63),
        _ => None,
    }
}

fn hardware(counter: usize) -> Option<HardwareCounter> {
    match counter {
        0 => Some(HardwareCounter::Cycle),
        2 => Some(HardwareCounter::Instret),
        _ => None,
    }
}

/// The set of logical counters that `counter_idx_base` and `counter_idx_mask` name. The missing counter 1 may be in it,
/// since kernels ask for all counters up to the highest; it is never found or started.
fn counter_set(base: u64, mask: u64) -> Result<impl Iterator<Item = usize> + Clone, SbiError> {
    let highest = u64::from(63 - mask.max(1).leading_zeros());
    let in_range = base.checked_add(highest).is_some_and(|counter| counter < COUNTERS as u64);
    if mask == 0 || !in_range {
        return Err(SbiError::InvalidParam);
    }
    Ok((0..64).filter(move |bit| mask >> bit & 1 != 0).map(move |bit| base as usize + bit))
}

fn config_matching(
    platform: &mut dyn Platform,
    set: impl Iterator<Item = usize>,
    flags: u64,
    event: u64,
) -> Answer {
    const SKIP_MATCH: u64 = 1 << 0;
    const CLEAR_VALUE: u64 = 1 << 1;
    const AUTO_START: u64 = 1 << 2;
    const FILTER_HINTS: u64 = 0b1_1111 << 3;
    if flags & !(SKIP_MATCH | CLEAR_VALUE | AUTO_START | FILTER_HINTS) != 0 {
        return Err(SbiError::InvalidParam);
    }
    let event = Event::from_index(event).ok_or(SbiError::NotSupported)?;
    let counters = &platform.per_hart().pmu.counters;
    let mut set = set;
    // With SKIP_MATCH the caller knows the counter: it is the first of the set, even if it is in use.
    let chosen = if flags & SKIP_MATCH != 0 {
        set.next().filter(|&counter| event.fits(counter))
    } else {
        set.find(|&counter| event.fits(counter) && counters[counter].event.is_none())
    };
    let chosen = chosen.ok_or(SbiError::NotSupported)?;
    platform.per_hart().pmu.counters[chosen].event = Some(event);
    if flags & CLEAR_VALUE != 0 {
        write(platform, chosen, 0);
    }
    set_running(platform, chosen, flags & AUTO_START != 0);
    success(chosen as u64)
}

fn start(
    platform: &mut dyn Platform,
    set: impl Iterator<Item = usize> + Clone,
    flags: u64,
    value: u64,
) -> Answer {
    const SET_INIT_VALUE: u64 = 1 << 0;
    const INIT_SNAPSHOT: u64 = 1 << 1;
    let configured = |platform: &mut dyn Platform, counter: usize| {
        platform.per_hart().pmu.counters[counter].event.is_some()
    };
    if flags & !(SET_INIT_VALUE | INIT_SNAPSHOT) != 0
        || !set.clone().all(|counter| configured(platform, counter))
    {
        return Err(SbiError::InvalidParam);
    }
    if flags & INIT_SNAPSHOT != 0 {
        return Err(SbiError::NoShmem);
    }
    let mut answer = success(0);
    for counter in set {
        if platform.per_hart().pmu.counters[counter].started {
            answer = Err(SbiError::AlreadyStarted);
            continue;
        }
        if flags & SET_INIT_VALUE != 0 {
            write(platform, counter, value);
        }
        set_running(platform, counter, true);
    }
    answer
}

fn stop(platform: &mut dyn Platform, set: impl Iterator<Item = usize>, flags: u64) -> Answer {
    const RESET: u64 = 1 << 0;
    const TAKE_SNAPSHOT: u64 = 1 << 1;
    if flags & !(RESET | TAKE_SNAPSHOT) != 0 {
        return Err(SbiError::InvalidParam);
    }
    if flags & TAKE_SNAPSHOT != 0 {
        return Err(SbiError::NoShmem);
    }
    let mut answer = success(0);
    for counter in set {
        // A counter without an event counts as stopped, though `cycle` and `instret` may run freely: Linux stops everything
        // at boot, and programs that read those CSRs should not see them freeze.
        if platform.per_hart().pmu.counters[counter].started {
            set_running(platform, counter, false);
        } else {
            answer = Err(SbiError::AlreadyStopped);
        }
        if flags & RESET != 0 {
            platform.per_hart().pmu.counters[counter].event = None;
        }
    }
    answer
}

fn set_running(platform: &mut dyn Platform, counter: usize, running: bool) {
    platform.per_hart().pmu.counters[counter].started = running;
    if let Some(hardware) = hardware(counter) {
        platform.set_counter_running(hardware, running);
    }
}

fn write(platform: &mut dyn Platform, counter: usize, value: u64) {
    match hardware(counter) {
        Some(hardware) => platform.write_counter(hardware, value),
        None => platform.per_hart().pmu.counters[counter].value = value,
    }
}

fn firmware_counter(platform: &mut dyn Platform, counter: u64) -> Result<Counter, SbiError> {
    let counters = &platform.per_hart().pmu.counters;
    let index = usize::try_from(counter).ok().filter(|&index| index >= FIRST_FIRMWARE);
    let counter = index.and_then(|index| counters.get(index)).filter(|counter| counter.event.is_some());
    counter.copied().ok_or(SbiError::InvalidParam)
}

/// Fills in the `output` word of each 16-byte entry: `event_idx`, `output`, `event_data` (64 bits).
fn event_info(platform: &mut dyn Platform, low: u64, high: u64, entries: u64, flags: u64) -> Answer {
    if flags != 0 || !low.is_multiple_of(16) {
        return Err(SbiError::InvalidParam);
    }
    let length = entries.checked_mul(16).ok_or(SbiError::InvalidAddress)?;
    let address = shared_memory(platform, low, high, length).ok_or(SbiError::InvalidAddress)?;
    for entry in 0..entries {
        let mut index = [0; 4];
        if !platform.read_memory(address + 16 * entry, &mut index) {
            return Err(SbiError::InvalidAddress);
        }
        let index = u32::from_le_bytes(index);
        if index >> 20 != 0 {
            return Err(SbiError::InvalidParam);
        }
        let supported = u32::from(Event::from_index(u64::from(index)).is_some());
        if !platform.write_memory(address + 16 * entry + 4, &supported.to_le_bytes()) {
            return Err(SbiError::InvalidAddress);
        }
    }
    success(0)
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, RAM};
    use super::*;

    const PMU: u64 = 0x504D55;
    const TIME: u64 = 0x54494D45;
    const CYCLES: u64 = 0x00001;
    const INSTRUCTIONS: u64 = 0x00002;
    const FW_SET_TIMER: u64 = 0xf0005;
    const ALL: u64 = (1 << COUNTERS) - 1;
    const AUTO_START: u64 = 1 << 2;

    #[test]
    fn counters_describe_themselves() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(PMU, 0, &[]), (0, 19));
        assert_eq!(fake.call(PMU, 1, &[0]), (0, 63 << 12 | 0xc00));
        assert_eq!(fake.call(PMU, 1, &[1]), (-3, 0), "time is not a counter");
        assert_eq!(fake.call(PMU, 1, &[2]), (0, 63 << 12 | 0xc02));
        assert_eq!(fake.call(PMU, 1, &[3]), (0, 1 << 63));
        assert_eq!(fake.call(PMU, 1, &[18]), (0, 1 << 63));
        assert_eq!(fake.call(PMU, 1, &[19]), (-3, 0));
    }

    #[test]
    fn hardware_events_find_their_counters() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(PMU, 2, &[0, ALL, 0, CYCLES, 0]), (0, 0));
        assert_eq!(fake.call(PMU, 2, &[0, ALL, 0, INSTRUCTIONS, 0]), (0, 2));
        assert_eq!(fake.call(PMU, 2, &[0, ALL, 0, CYCLES, 0]), (-2, 0), "taken");
        assert_eq!(fake.call(PMU, 2, &[0, ALL, 0, 0x00003, 0]), (-2, 0), "cache references");
        assert_eq!(fake.call(PMU, 2, &[0, ALL, 0, 0x20000, 0]), (-2, 0), "raw");
        assert_eq!(fake.call(PMU, 2, &[0, ALL << 1, 0, INSTRUCTIONS, 0]), (-3, 0), "no counter 19");
        assert_eq!(fake.call(PMU, 2, &[0, 0, 0, INSTRUCTIONS, 0]), (-3, 0), "empty set");
        assert_eq!(fake.call(PMU, 2, &[0, 1, 1 << 8, CYCLES, 0]), (-3, 0), "reserved flag");
    }

    #[test]
    fn configuring_stops_and_clears_and_starting_sets_the_value() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(PMU, 2, &[0, ALL, 1 << 1, CYCLES, 0]), (0, 0));
        assert_eq!(fake.counters, [(Some(0), Some(false)), (None, None)]);
        assert_eq!(fake.call(PMU, 3, &[0, 1, 1, 500]), (0, 0));
        assert_eq!(fake.counters[0], (Some(500), Some(true)));
        assert_eq!(fake.call(PMU, 3, &[0, 1, 1, 600]), (-7, 0));
        assert_eq!(fake.counters[0], (Some(500), Some(true)));
        assert_eq!(fake.call(PMU, 4, &[0, 1, 0]), (0, 0));
        assert_eq!(fake.counters[0], (Some(500), Some(false)));
        assert_eq!(fake.call(PMU, 4, &[0, 1, 0]), (-8, 0));
    }

    #[test]
    fn reset_frees_the_counter() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(PMU, 2, &[0, ALL, AUTO_START, CYCLES, 0]), (0, 0));
        assert_eq!(fake.call(PMU, 4, &[0, 1, 1]), (0, 0));
        assert_eq!(fake.call(PMU, 3, &[0, 1, 0, 0]), (-3, 0), "no event any more");
        assert_eq!(fake.call(PMU, 2, &[0, ALL, 0, CYCLES, 0]), (0, 0));
    }

    #[test]
    fn stopping_everything_at_boot_leaves_free_running_counters_alone() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(PMU, 4, &[0, ALL, 1]), (-8, 0));
        assert_eq!(fake.counters, [(None, None), (None, None)]);
    }

    #[test]
    fn firmware_events_are_counted_while_started() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(PMU, 5, &[3]), (-3, 0), "not configured");
        assert_eq!(fake.call(PMU, 2, &[0, ALL, 0, FW_SET_TIMER, 0]), (0, 3));
        fake.call(TIME, 0, &[1]);
        assert_eq!(fake.call(PMU, 5, &[3]), (0, 0), "not started");
        assert_eq!(fake.call(PMU, 3, &[3, 1, 1, 40]), (0, 0));
        fake.call(TIME, 0, &[2]);
        fake.call(TIME, 0, &[3]);
        assert_eq!(fake.call(PMU, 5, &[3]), (0, 42));
        assert_eq!(fake.call(PMU, 6, &[3]), (0, 0));
        assert_eq!(fake.call(PMU, 4, &[3, 1, 0]), (0, 0));
        fake.call(TIME, 0, &[4]);
        assert_eq!(fake.call(PMU, 5, &[3]), (0, 42));
        assert_eq!(fake.call(PMU, 5, &[0]), (-3, 0), "a hardware counter");
    }

    #[test]
    fn two_counters_may_count_one_firmware_event() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(PMU, 2, &[0, ALL, AUTO_START, FW_SET_TIMER, 0]), (0, 3));
        assert_eq!(fake.call(PMU, 2, &[0, ALL, AUTO_START, FW_SET_TIMER, 0]), (0, 4));
        fake.call(TIME, 0, &[1]);
        assert_eq!(fake.call(PMU, 5, &[4]), (0, 1));
    }

    #[test]
    fn skip_match_takes_the_first_counter_of_the_set() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(PMU, 2, &[5, 0b11, 1, FW_SET_TIMER, 0]), (0, 5));
        assert_eq!(fake.call(PMU, 2, &[5, 1, 1, 0xf0006, 0]), (0, 5), "already in use");
        assert_eq!(fake.call(PMU, 2, &[0, 1, 1, FW_SET_TIMER, 0]), (-2, 0), "a hardware counter");
    }

    #[test]
    fn snapshots_are_not_there() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(PMU, 7, &[RAM, 0, 0]), (-2, 0));
        assert_eq!(fake.call(PMU, 2, &[0, ALL, 0, CYCLES, 0]), (0, 0));
        assert_eq!(fake.call(PMU, 3, &[0, 1, 2, 0]), (-9, 0));
        assert_eq!(fake.call(PMU, 4, &[0, 1, 2]), (-9, 0));
    }

    #[test]
    fn event_info_marks_what_is_counted() {
        let mut fake = Fake::default();
        for (entry, event) in [CYCLES, 0x00003, FW_SET_TIMER].into_iter().enumerate() {
            fake.ram[16 * entry..16 * entry + 4].copy_from_slice(&(event as u32).to_le_bytes());
            fake.ram[16 * entry + 4] = 0xff;
        }
        assert_eq!(fake.call(PMU, 8, &[RAM, 0, 3, 0]), (0, 0));
        assert_eq!([fake.ram[4], fake.ram[20], fake.ram[36]], [1, 0, 1]);
        assert_eq!(fake.call(PMU, 8, &[RAM + 8, 0, 1, 0]), (-3, 0), "not aligned");
        assert_eq!(fake.call(PMU, 8, &[RAM, 0, 1, 1]), (-3, 0), "flags");
        assert_eq!(fake.call(PMU, 8, &[0, 0, 1, 0]), (-5, 0), "not RAM");
        assert_eq!(fake.call(PMU, 8, &[RAM, 0, u64::MAX, 0]), (-5, 0), "too many");
    }
}

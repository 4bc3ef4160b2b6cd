//! Compare-and-swap of 16 bytes, for `amocas.q`.

use super::HostRef;

impl HostRef<'_, u128> {
    /// Stores `new` if the place holds `expected`, and returns what it held; sequentially consistent. `None` where it is
    /// not aligned.
    ///
    /// On hosts without such an instruction it is atomic against itself only.
    pub(crate) fn compare_exchange(self, expected: u128, new: u128) -> Option<u128> {
        if !self.address().is_multiple_of(16) {
            return None;
        }
        // SAFETY: 16 bytes of guest memory (`HostRef::new`), aligned as was just checked.
        Some(u128::from_le(unsafe { swap(self.pointer, expected.to_le(), new.to_le()) }))
    }
}

/// # Safety
/// `place` is 16 bytes of guest memory, aligned.
#[cfg(target_arch = "x86_64")]
unsafe fn swap(place: *mut u128, expected: u128, new: u128) -> u128 {
    if !std::arch::is_x86_feature_detected!("cmpxchg16b") {
        // SAFETY: the caller's.
        return unsafe { locked::swap(place, expected, new) };
    }
    let (mut low, mut high) = (expected as u64, (expected >> 64) as u64);
    // The compiler keeps rbx to itself, so it is exchanged in and out. (The intrinsic for this instruction becomes a call of
    // a library function where it is inlined without optimisation.)
    // SAFETY: the host has the instruction, and the place is the caller's.
    unsafe {
        std::arch::asm!(
            "xchg rsi, rbx",
            "lock cmpxchg16b [rdi]",
            "mov rbx, rsi",
            in("rdi") place,
            inout("rsi") new as u64 => _,
            in("rcx") (new >> 64) as u64,
            inout("rax") low,
            inout("rdx") high,
            options(nostack),
        );
    }
    u128::from(low) | u128::from(high) << 64
}

/// # Safety
/// `place` is 16 bytes of guest memory, aligned.
#[cfg(target_arch = "aarch64")]
unsafe fn swap(place: *mut u128, expected: u128, new: u128) -> u128 {
    let (old_low, old_high): (u64, u64);
    // The pair that was loaded is only known to be a single-copy atomic read once a store-exclusive succeeded, so a
    // failed comparison stores back what was there.
    // SAFETY: exclusive accesses of 16 aligned bytes, which are the caller's; flags and scratch are declared.
    unsafe {
        std::arch::asm!(
            "2: ldaxp {old_low}, {old_high}, [{place}]",
            "cmp {old_low}, {expected_low}",
            "ccmp {old_high}, {expected_high}, #0, eq",
            "csel {low}, {new_low}, {old_low}, eq",
            "csel {high}, {new_high}, {old_high}, eq",
            "stlxp {failed:w}, {low}, {high}, [{place}]",
            "cbnz {failed:w}, 2b",
            place = in(reg) place,
            expected_low = in(reg) expected as u64,
            expected_high = in(reg) (expected >> 64) as u64,
            new_low = in(reg) new as u64,
            new_high = in(reg) (new >> 64) as u64,
            old_low = out(reg) old_low,
            old_high = out(reg) old_high,
            low = out(reg) _,
            high = out(reg) _,
            failed = out(reg) _,
            options(nostack),
        );
    }
    // Release of the store alone would let a later load pass it.
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    u128::from(old_low) | u128::from(old_high) << 64
}

/// # Safety
/// `place` is 16 bytes of guest memory, aligned.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn swap(place: *mut u128, expected: u128, new: u128) -> u128 {
    // SAFETY: the caller's.
    unsafe { locked::swap(place, expected, new) }
}

#[cfg(not(target_arch = "aarch64"))]
mod locked {
    use std::sync::{Mutex, PoisonError};

    static LOCK: Mutex<()> = Mutex::new(());

    /// # Safety
    /// `place` is 16 bytes of guest memory, aligned.
    pub(super) unsafe fn swap(place: *mut u128, expected: u128, new: u128) -> u128 {
        let _guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the caller's; volatile, because others may access the bytes.
        let old = unsafe { place.read_volatile() };
        if old == expected {
            // SAFETY: as above.
            unsafe { place.write_volatile(new) };
        }
        old
    }
}

#[cfg(test)]
mod tests {
    use crate::GuestMemory;

    const BASE: u64 = 0x8000_0000;
    const OLD: u128 = 0x1111_2222_3333_4444_5555_6666_7777_8888;

    #[test]
    fn swaps_only_what_is_expected() {
        let memory = GuestMemory::new(BASE, 4096).unwrap();
        memory.write(BASE + 16, &OLD.to_le_bytes()).unwrap();
        let place = memory.writable::<u128>(BASE + 16).unwrap();
        assert_eq!(place.compare_exchange(OLD ^ 1, 5), Some(OLD));
        assert_eq!(place.compare_exchange(OLD ^ 1 << 64, 5), Some(OLD));
        assert_eq!(place.compare_exchange(OLD, 5), Some(OLD));
        assert_eq!(place.compare_exchange(OLD, 6), Some(5));
        assert!(memory.writable::<u128>(BASE + 8).unwrap().compare_exchange(0, 0).is_none());
    }

    #[test]
    #[cfg(not(target_arch = "aarch64"))]
    fn the_locked_variant_does_the_same() {
        let memory = GuestMemory::new(BASE, 4096).unwrap();
        let place = memory.writable::<u128>(BASE).unwrap();
        // SAFETY: 16 aligned bytes of guest memory.
        let swap = |expected, new| unsafe { super::locked::swap(place.pointer, expected, new) };
        assert_eq!(swap(1, 2), 0);
        assert_eq!(swap(0, OLD), 0);
        assert_eq!(swap(OLD, 3), OLD);
        assert_eq!(swap(0, 0), 3);
    }
}

//! The integers that guest memory is accessed as.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// `u8`, `u16`, `u32` or `u64`. Values are in the host's byte order, what an `Atomic` holds is little-endian.
pub(crate) trait Word: Copy + PartialEq + Send + Sync + 'static {
    type Atomic: 'static;
    /// Bytes.
    const SIZE: u64;
    fn from_u64(value: u64) -> Self;
    fn to_u64(self) -> u64;
    fn from_le(stored: Self) -> Self;
    fn to_le(self) -> Self;
    fn load_relaxed(place: &Self::Atomic) -> Self;
    fn store_relaxed(place: &Self::Atomic, value: Self);
    fn load_ordered(place: &Self::Atomic) -> Self;
    /// Sequentially consistent, as an AMO with `aq` and `rl`; returns the value before.
    fn update(place: &Self::Atomic, f: impl FnMut(Self) -> Self) -> Self;
    /// Sequentially consistent; returns the value before.
    fn compare_exchange(place: &Self::Atomic, expected: Self, new: Self) -> Self;
    /// # Safety
    /// As for the `from_ptr` of the atomic type.
    unsafe fn atomic_at<'a>(pointer: *mut Self) -> &'a Self::Atomic;
}

macro_rules! word {
    ($($integer:ident $atomic:ident),*) => {$(
        impl Word for $integer {
            type Atomic = $atomic;
            const SIZE: u64 = size_of::<$integer>() as u64;

            #[inline]
            fn from_u64(value: u64) -> Self {
                value as $integer
            }
            #[inline]
            fn to_u64(self) -> u64 {
                self as u64
            }
            #[inline]
            fn from_le(stored: Self) -> Self {
                $integer::from_le(stored)
            }
            #[inline]
            fn to_le(self) -> Self {
                $integer::to_le(self)
            }
            #[inline]
            fn load_relaxed(place: &$atomic) -> Self {
                Self::from_le(place.load(Ordering::Relaxed))
            }
            #[inline]
            fn store_relaxed(place: &$atomic, value: Self) {
                place.store(value.to_le(), Ordering::Relaxed);
            }
            #[inline]
            fn load_ordered(place: &$atomic) -> Self {
                Self::from_le(place.load(Ordering::SeqCst))
            }
            #[inline]
            fn update(place: &$atomic, mut f: impl FnMut(Self) -> Self) -> Self {
                let mut old = place.load(Ordering::Relaxed);
                loop {
                    let new = f(Self::from_le(old)).to_le();
                    match place.compare_exchange_weak(old, new, Ordering::SeqCst, Ordering::Relaxed) {
                        Ok(_) => return Self::from_le(old),
                        Err(now) => old = now,
                    }
                }
            }
            #[inline]
            fn compare_exchange(place: &$atomic, expected: Self, new: Self) -> Self {
                match place.compare_exchange(expected.to_le(), new.to_le(), Ordering::SeqCst, Ordering::SeqCst) {
                    Ok(old) | Err(old) => Self::from_le(old),
                }
            }
            #[inline]
            unsafe fn atomic_at<'a>(pointer: *mut Self) -> &'a $atomic {
                // SAFETY: the caller's.
                unsafe { $atomic::from_ptr(pointer) }
            }
        }
    )*};
}

word!(u8 AtomicU8, u16 AtomicU16, u32 AtomicU32, u64 AtomicU64);

//! Random numbers that repeat.

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Less than `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 32) as usize % limit
    }

    /// At least `low`, at most `high`.
    pub(crate) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as usize) as i64
    }

    /// True in `percent` of 100 cases.
    pub(crate) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A number as programs have them: small, at an edge, or anything.
    pub(crate) fn number(&mut self) -> u64 {
        let bits = self.next();
        match self.below(8) {
            0 => self.below(64) as u64,
            1 => (self.below(64) as u64).wrapping_neg(),
            2 => 1 << self.below(64),
            3 => (1_u64 << self.below(64)).wrapping_sub(1),
            4 => i64::from(bits as i32) as u64,
            5 => bits >> self.below(64),
            _ => bits,
        }
    }

    /// A floating-point register: special values, small integers, boxed and badly boxed.
    pub(crate) fn float(&mut self) -> u64 {
        const D: [u64; 10] = [
            0,
            1 << 63,
            1,
            0x000f_ffff_ffff_ffff,
            0x7ff0_0000_0000_0000,
            0xfff0_0000_0000_0000,
            0x7ff8_0000_0000_0000,
            0x7ff0_0000_0000_0001,
            0x7fef_ffff_ffff_ffff,
            0x3ff0_0000_0000_0000,
        ];
        const S: [u32; 10] = [
            0,
            1 << 31,
            1,
            0x007f_ffff,
            0x7f80_0000,
            0xff80_0000,
            0x7fc0_0000,
            0x7f80_0001,
            0x7f7f_ffff,
            0x3f80_0000,
        ];
        match self.below(8) {
            0 => self.pick(&D),
            1 => 0xffff_ffff_0000_0000 | u64::from(self.pick(&S)),
            2 => (self.between(-100, 100) as f64).to_bits(),
            3 => 0xffff_ffff_0000_0000 | u64::from((self.between(-100, 100) as f32 / 4.0).to_bits()),
            4 => 0xffff_ffff_ffff_0000 | self.next() >> 48,
            5 => 0xffff_ffff_0000_0000 | self.next() >> 32,
            6 => (self.next() & 0x800f_ffff_ffff_ffff) | (self.between(900, 1150) as u64) << 52,
            _ => self.next(),
        }
    }
}

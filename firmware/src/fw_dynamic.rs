//! `struct fw_dynamic_info`: what a previous boot stage tells OpenSBI's fw_dynamic, by its address in a2
//! (OpenSBI, docs/firmware/fw_dynamic.md).

/// Where the firmware goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FwDynamicInfo {
    /// Physical address of the next stage, or 0 if there is none.
    pub next_address: u64,
}

impl FwDynamicInfo {
    /// Bytes that the structure takes.
    pub const SIZE: usize = 48;

    /// "OSBI".
    const MAGIC: u64 = 0x4942_534f;
    const VERSION: u64 = 2;
    const NEXT_MODE_S: u64 = 1;
    const NO_OPTIONS: u64 = 0;
    const BOOT_HART: u64 = 0;

    /// The structure as it lies in memory: six little-endian words.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let words = [
            Self::MAGIC,
            Self::VERSION,
            self.next_address,
            Self::NEXT_MODE_S,
            Self::NO_OPTIONS,
            Self::BOOT_HART,
        ];
        let mut bytes = [0; Self::SIZE];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_in_the_order_of_the_structure() {
        let bytes = FwDynamicInfo { next_address: 0x8020_0000 }.to_bytes();
        let words: Vec<u64> = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        assert_eq!(words, [0x4942_534f, 2, 0x8020_0000, 1, 0, 0]);
        assert_eq!(bytes[..4], *b"OSBI");
    }
}

//! The ROM at 0x1000 in which every hart starts, instruction for instruction as QEMU's: it loads a0 = hart id, a1 = device
//! tree, a2 = [`FwDynamicInfo`] and jumps to the firmware.

use crate::fw_dynamic::FwDynamicInfo;

/// Physical address of the ROM and of the first instruction after a reset.
pub const BASE: u64 = 0x1000;

const CODE: [u32; 6] = [
    0x0000_0297, // auipc t0, 0
    0x0282_8613, // addi  a2, t0, 40      fw_dynamic_info
    0xf140_2573, // csrr  a0, mhartid
    0x0202_b583, // ld    a1, 32(t0)      device tree
    0x0182_b283, // ld    t0, 24(t0)      start address
    0x0002_8067, // jr    t0
];

/// The contents of the ROM from [`BASE`] on: the code, `start` (where the harts go in M-mode), `fdt` (the device tree's
/// physical address) and `info`.
pub fn contents(start: u64, fdt: u64, info: FwDynamicInfo) -> Vec<u8> {
    let mut bytes: Vec<u8> = CODE.iter().flat_map(|instruction| instruction.to_le_bytes()).collect();
    bytes.extend_from_slice(&start.to_le_bytes());
    bytes.extend_from_slice(&fdt.to_le_bytes());
    bytes.extend_from_slice(&info.to_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_lies_where_the_code_looks_for_it() {
        let info = FwDynamicInfo { next_address: 0x8020_0000 };
        let bytes = contents(0x8000_0000, 0x87e0_0000, info);
        assert_eq!(bytes[24..32], 0x8000_0000u64.to_le_bytes());
        assert_eq!(bytes[32..40], 0x87e0_0000u64.to_le_bytes());
        assert_eq!(bytes[40..88], info.to_bytes());
        assert_eq!(bytes.len(), 88);
    }

    // The immediates of the I-type instructions are the offsets that the test above checks.
    #[test]
    fn immediates_are_the_offsets_of_the_data() {
        assert_eq!(CODE.map(|instruction| instruction >> 20), [0, 40, 0xf14, 32, 24, 0]);
    }
}

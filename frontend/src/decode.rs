//! From bits to [`Insn`].
//!
//! A [`Decoder`] holds the rows of both tables that its [`Isa`] enables, sorted into buckets so that a word
//! is compared with very few. 32-bit rows go by major opcode and funct3; where that leaves many (OP-FP, AMO),
//! also by bits 31:25. 16-bit rows go by quadrant and bits 15:10. Within a bucket the more specific patterns
//! come first, so that a refinement wins over what it refines.

use crate::insn::{Insn, Opcode, Pattern, ROWS};
use crate::insn_c::{ImmC, ROWS_C, RegSource, Reserved, RowC};
use crate::isa::Isa;
use crate::operand::{Imm, Operand};

/// Length in bytes of the instruction that starts with `first_halfword`: 2 or 4. The longer encodings that
/// the specification reserves count as 4, and decode as illegal.
#[inline]
pub const fn length(first_halfword: u16) -> u8 {
    if first_halfword & 0b11 == 0b11 { 4 } else { 2 }
}

/// How the `rm` field of [`Insn`] is filled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Modifier {
    None,
    Rounding,
    AqRl,
}

/// A row of the instruction table, boiled down to what decoding needs.
#[derive(Clone, Copy)]
struct Entry {
    pattern: Pattern,
    /// Mask of the register fields that the format has, in place.
    registers: u32,
    op: Opcode,
    imm: Imm,
    modifier: Modifier,
}

/// A row of the compressed table, likewise.
#[derive(Clone, Copy)]
struct EntryC {
    pattern: Pattern,
    op: Opcode,
    rd: RegSource,
    rs1: RegSource,
    rs2: RegSource,
    imm: ImmC,
    reserved: Reserved,
}

/// The entries of one bucket: a range of a table.
#[derive(Clone, Copy)]
struct Bucket {
    start: u16,
    end: u16,
}

/// Where the buckets of one opcode and funct3 are.
#[derive(Clone, Copy)]
struct Group {
    first: u16,
    /// 0x7f if bits 31:25 choose among 128 buckets, 0 if there is one.
    select: u8,
}

/// Groups with more rows than this are split by bits 31:25.
const SPLIT_ABOVE: usize = 4;

/// Decodes instructions for one set of extensions.
pub struct Decoder {
    groups: [Group; 256],
    buckets: Vec<Bucket>,
    entries: Vec<Entry>,
    buckets_c: [Bucket; 256],
    entries_c: Vec<EntryC>,
}

impl Decoder {
    /// A decoder for a hart with the extensions of `isa`.
    pub fn new(isa: &Isa) -> Decoder {
        let mut decoder = Decoder {
            groups: [Group { first: 0, select: 0 }; 256],
            buckets: Vec::new(),
            entries: Vec::new(),
            buckets_c: [Bucket { start: 0, end: 0 }; 256],
            entries_c: Vec::new(),
        };

        let mut rows: Vec<Entry> =
            ROWS.iter().filter(|row| isa.contains_all(row.needs)).map(|row| Entry::new(row.op)).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.pattern.mask.count_ones()));
        for key in 0..256 {
            let group = Pattern { mask: 0x0000_707f, value: Decoder::key_bits(key) };
            let members: Vec<Entry> =
                rows.iter().filter(|row| row.pattern.overlaps(group)).copied().collect();
            let split = members.len() > SPLIT_ABOVE;
            decoder.groups[key as usize] =
                Group { first: decoder.buckets.len() as u16, select: if split { 0x7f } else { 0 } };
            for funct7 in 0..if split { 128 } else { 1 } {
                let mask = if split { 0xfe00_0000 } else { 0 };
                let bucket = Pattern { mask, value: funct7 << 25 };
                let start = decoder.entries.len() as u16;
                decoder.entries.extend(members.iter().filter(|row| row.pattern.overlaps(bucket)));
                decoder.buckets.push(Bucket { start, end: decoder.entries.len() as u16 });
            }
        }

        let mut rows: Vec<EntryC> =
            ROWS_C.iter().filter(|row| isa.contains_all(row.needs)).map(EntryC::new).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.pattern.mask.count_ones()));
        for key in 0..256 {
            let bucket = Pattern { mask: 0xfc03, value: (key & 0xfc) << 8 | key & 3 };
            let start = decoder.entries_c.len() as u16;
            decoder.entries_c.extend(rows.iter().filter(|row| row.pattern.overlaps(bucket)));
            decoder.buckets_c[key as usize] = Bucket { start, end: decoder.entries_c.len() as u16 };
        }
        decoder
    }

    /// Decodes the instruction in `bits`, of which a 16-bit one uses the low half only. `None` means illegal:
    /// unknown, reserved, or of an extension that is off.
    #[inline]
    pub fn decode(&self, bits: u32) -> Option<Insn> {
        if bits & 0b11 == 0b11 { self.decode_32(bits) } else { self.decode_16(bits & 0xffff) }
    }

    fn decode_32(&self, bits: u32) -> Option<Insn> {
        let group = self.groups[Decoder::key(bits)];
        let bucket = self.buckets[group.first as usize + ((bits >> 25) as usize & group.select as usize)];
        let entries = &self.entries[bucket.start as usize..bucket.end as usize];
        entries.iter().find(|entry| entry.pattern.matches(bits))?.expand(bits)
    }

    fn decode_16(&self, bits: u32) -> Option<Insn> {
        let bucket = self.buckets_c[(bits >> 8 & 0xfc | bits & 3) as usize];
        let entries = &self.entries_c[bucket.start as usize..bucket.end as usize];
        entries.iter().find(|entry| entry.pattern.matches(bits))?.expand(bits)
    }

    /// Bits 6:2 and 14:12 of an encoding as an index.
    #[inline(always)]
    fn key(bits: u32) -> usize {
        (bits >> 2 & 0x1f | bits >> 7 & 0xe0) as usize
    }

    /// The encoding that has only the bits of `key`, and ones in 1:0.
    fn key_bits(key: u32) -> u32 {
        (key & 0x1f) << 2 | (key & 0xe0) << 7 | 0b11
    }
}

impl Entry {
    fn new(op: Opcode) -> Entry {
        let row = op.row();
        let mut entry =
            Entry { pattern: row.pattern, registers: 0, op, imm: Imm::None, modifier: Modifier::None };
        for &operand in row.operands {
            match operand {
                Operand::Rm | Operand::RmExact => entry.modifier = Modifier::Rounding,
                Operand::AqRl => entry.modifier = Modifier::AqRl,
                _ => {
                    let imm = operand.imm();
                    let of_imm = imm.map_or(0, |imm| imm.layout().field());
                    entry.registers |= operand.field() & !of_imm;
                    entry.imm = imm.unwrap_or(entry.imm);
                }
            }
        }
        entry
    }

    #[inline(always)]
    fn expand(&self, bits: u32) -> Option<Insn> {
        let rm = match self.modifier {
            Modifier::None => 0,
            Modifier::AqRl => bits >> 25 & 0b11,
            Modifier::Rounding => {
                let rm = bits >> 12 & 0b111;
                // Unprivileged ISA, "Floating-Point Control and Status Register": 5 and 6 are reserved.
                if rm == 5 || rm == 6 {
                    return None;
                }
                rm
            }
        };
        let registers = bits & self.registers;
        Some(Insn {
            op: self.op,
            rd: (registers >> 7 & 0x1f) as u8,
            rs1: (registers >> 15 & 0x1f) as u8,
            rs2: (registers >> 20 & 0x1f) as u8,
            rs3: (registers >> 27) as u8,
            rm: rm as u8,
            len: 4,
            imm: self.imm.gather(bits),
            bits,
        })
    }
}

impl EntryC {
    fn new(row: &RowC) -> EntryC {
        let &RowC { pattern, base: op, rd, rs1, rs2, imm, reserved, .. } = row;
        EntryC { pattern, op, rd, rs1, rs2, imm, reserved }
    }

    #[inline(always)]
    fn expand(&self, bits: u32) -> Option<Insn> {
        let imm = self.imm.gather(bits);
        if self.reserved.applies(imm, bits) {
            return None;
        }
        Some(Insn {
            op: self.op,
            rd: self.rd.number(bits),
            rs1: self.rs1.number(bits),
            rs2: self.rs2.number(bits),
            rs3: 0,
            rm: 0,
            len: 2,
            imm,
            bits,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Extension;
    use crate::insn::Row;

    fn op(isa: &Isa, bits: u32) -> Option<Opcode> {
        Decoder::new(isa).decode(bits).map(|insn| insn.op)
    }

    #[test]
    fn length_is_in_the_low_two_bits() {
        assert_eq!(length(0x0001), 2);
        assert_eq!(length(0x0002), 2);
        assert_eq!(length(0x0003), 4);
        assert_eq!(length(0xffff), 4);
    }

    #[test]
    fn defined_illegal_words_are_illegal() {
        assert_eq!(op(&Isa::ALL, 0), None);
        assert_eq!(op(&Isa::ALL, 0xffff_0000), None);
        assert_eq!(op(&Isa::ALL, 0xffff_ffff), None);
    }

    #[test]
    fn fields_outside_the_format_are_zero() {
        let insn = Decoder::new(&Isa::ALL).decode(0xfe1f_f06f).expect("jal is legal");
        let expected = Insn {
            op: Opcode::Jal,
            rd: 0,
            rs1: 0,
            rs2: 0,
            rs3: 0,
            rm: 0,
            len: 4,
            imm: -32,
            bits: 0xfe1f_f06f,
        };
        assert_eq!(insn, expected);
    }

    #[test]
    fn a_row_needs_all_its_extensions() {
        let fcvt_d_h = 0x4225_8553;
        assert_eq!(op(&Isa::RV64GC.with(Extension::Zfhmin), fcvt_d_h), Some(Opcode::FcvtDH));
        assert_eq!(op(&Isa::RV64GC, fcvt_d_h), None);
        assert_eq!(op(&Isa::RV64GC.with(Extension::Zfhmin).without(Extension::D), fcvt_d_h), None);
        let c_mul = 0x9d4d;
        assert_eq!(op(&Isa::RV64GC.with(Extension::Zcb), c_mul), Some(Opcode::Mul));
        assert_eq!(op(&Isa::RV64I.with(Extension::Zcb), c_mul), None);
        let c_fld = 0x2188;
        assert_eq!(op(&Isa::RV64GC, c_fld), Some(Opcode::Fld));
        assert_eq!(op(&Isa::RV64GC.without(Extension::D), c_fld), None);
    }

    #[test]
    fn a_refinement_that_is_off_leaves_the_word_to_the_coarser_row() {
        let (pause, prefetch_r, c_mop_5) = (0x0100_000f, 0x0215_6013, 0x6281);
        assert_eq!(op(&Isa::ALL, pause), Some(Opcode::Pause));
        assert_eq!(op(&Isa::RV64I, pause), Some(Opcode::Fence));
        assert_eq!(op(&Isa::ALL, prefetch_r), Some(Opcode::PrefetchR));
        assert_eq!(op(&Isa::RV64I, prefetch_r), Some(Opcode::Ori));
        assert_eq!(op(&Isa::ALL, c_mop_5), Some(Opcode::Addi));
        assert_eq!(op(&Isa::RV64GC, c_mop_5), None);
    }

    #[test]
    fn reserved_fields_of_fences_are_ignored() {
        assert_eq!(op(&Isa::RV64GC, 0x4ff5_050f), Some(Opcode::Fence));
        assert_eq!(op(&Isa::RV64GC, 0xffff_9f8f), Some(Opcode::FenceI));
    }

    #[test]
    fn reserved_rounding_modes_are_illegal() {
        let fadd_s = |rm: u32| op(&Isa::RV64GC, 0x00c5_8553 | rm << 12);
        assert_eq!([0, 1, 2, 3, 4, 7].map(fadd_s), [Some(Opcode::FaddS); 6]);
        assert_eq!([5, 6].map(fadd_s), [None; 2]);
    }

    #[test]
    fn reserved_compressed_encodings_are_illegal() {
        let c_addi4spn_0 = 0x0004;
        let c_addiw_x0 = 0x2005;
        let c_lui_0 = 0x6501;
        let c_addi16sp_0 = 0x6101;
        let c_lwsp_x0 = 0x4012;
        let c_ldsp_x0 = 0x6012;
        let c_jr_x0 = 0x8002;
        for bits in [c_addi4spn_0, c_addiw_x0, c_lui_0, c_addi16sp_0, c_lwsp_x0, c_ldsp_x0, c_jr_x0] {
            assert_eq!(op(&Isa::ALL, bits), None, "{bits:#06x}");
        }
    }

    #[test]
    fn compressed_hints_are_harmless() {
        let decoder = Decoder::new(&Isa::ALL);
        let c_li_x0 = 0x4085 & !0x0f80;
        let c_slli_x0 = 0x0006;
        let c_mv_x0 = 0x802a;
        for bits in [c_li_x0, c_slli_x0, c_mv_x0] {
            assert_eq!(decoder.decode(bits).map(|insn| insn.rd), Some(0), "{bits:#06x}");
        }
    }

    #[test]
    fn buckets_find_what_a_search_of_the_whole_table_finds() {
        let decoder = Decoder::new(&Isa::ALL);
        let finest = |bits: u32| {
            ROWS.iter()
                .filter(|row| row.pattern.matches(bits))
                .max_by_key(|row| row.pattern.mask.count_ones())
        };
        let mut bits = 0x1234_5677_u32;
        for _ in 0..200_000 {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // The low bits of such a sequence are poor, and the opcode sits there.
            let word = bits.rotate_left(16) | 3;
            let reserved = matches!(word >> 12 & 7, 5 | 6);
            let rounds = |row: &Row| row.operands.iter().any(|o| matches!(o, Operand::Rm | Operand::RmExact));
            let expected = finest(word).filter(|row| !(reserved && rounds(row)));
            assert_eq!(decoder.decode(word).map(|insn| insn.op), expected.map(|row| row.op), "{word:#010x}");
        }
    }
}

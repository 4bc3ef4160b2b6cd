//! Which instructions a block consists of.

use crate::builder::{Builder, End};
use crate::decode::{Decoder, length};
use crate::insn::Opcode;
use crate::ir::Op;

/// Operations that start at one page offset, lead forward only until the block is left, and never leave the page.
///
/// A branch inside the block leads to an instruction of the block if its target is one, and else out of the block.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// Page offset of the first instruction.
    pub start: u16,
    /// Page offset just past the last instruction; above 4096 only for one instruction across the page edge.
    pub end: u16,
    /// The operations; the last one is a branch, a jump, or a helper that does not return.
    pub ops: Vec<Op>,
    /// Page offset of every instruction, ascending.
    pub insns: Vec<u16>,
}

/// Most instructions in a block.
pub const MAX_INSNS: usize = 256;
/// Most branches and jumps that a block goes on after.
pub const MAX_BRANCHES: usize = 12;
/// Most bytes that a block leaves out between two instructions.
const MAX_GAP: i64 = 512;

/// What is known of the code at a place where a block could go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It has not been executed.
    Never,
    /// It has been executed, and a block there is yet to be made.
    Executed,
    /// There is a block already.
    Cut,
}

/// How far blocks go.
pub trait Extent {
    /// Whether the block has to end before a later instruction at a page offset.
    fn stops(&self, _at: u16) -> bool {
        false
    }

    /// What is known of the code at a page offset, which is behind a branch or where it leads.
    fn seen(&self, _at: u16) -> Seen {
        Seen::Never
    }

    /// Whether the code from page offset `from` on leads back to the start of the block, `start`.
    fn loops(&self, _start: u16, _from: u16) -> bool {
        false
    }
}

/// Blocks end at their first branch.
pub struct Basic;

impl Extent for Basic {}

impl Block {
    /// Cuts the block that starts at page offset `start`, of `limit` instructions at most, and ends at its first branch. `fetch`
    /// reads the halfword at a page offset; it is asked for offset 4096 only to complete an instruction at offset 4094, which then
    /// is a block of its own.
    ///
    /// # Errors
    /// What `fetch` gives for the first instruction. A later instruction that cannot be fetched ends the block before it.
    pub fn cut<E>(
        decoder: &Decoder,
        start: u16,
        limit: usize,
        fetch: impl FnMut(u16) -> Result<u16, E>,
    ) -> Result<Block, E> {
        let mut block = Block::default();
        block.recut(decoder, start, limit, &Basic, fetch)?;
        Ok(block)
    }

    /// As [`Self::cut`], in the buffers of a block that is not needed any more, and as far as `extent` says. What is in them
    /// after an error means nothing.
    ///
    /// # Errors
    /// As for [`Self::cut`].
    pub fn recut<E>(
        &mut self,
        decoder: &Decoder,
        start: u16,
        limit: usize,
        extent: &impl Extent,
        mut fetch: impl FnMut(u16) -> Result<u16, E>,
    ) -> Result<(), E> {
        let mut builder = Builder::new(std::mem::take(&mut self.ops));
        let insns = &mut self.insns;
        insns.clear();
        let (mut at, mut end, mut branches) = (start, start, 0);
        while at < 4096 && insns.len() < limit {
            if at != start && extent.stops(at) {
                break;
            }
            let crosses = at == 4094;
            let first = match fetch(at) {
                Ok(half) => half,
                Err(error) if insns.is_empty() => return Err(error),
                Err(_) => break,
            };
            let len = length(first);
            if crosses && len == 4 && !insns.is_empty() {
                break;
            }
            let mut bits = u32::from(first);
            if len == 4 {
                match fetch(at + 2) {
                    Ok(half) => bits |= u32::from(half) << 16,
                    Err(error) if insns.is_empty() => return Err(error),
                    Err(_) => break,
                }
            }
            insns.push(at);
            // Not a copy of the instruction, which would have to wait for its fields.
            let links = match &decoder.decode(bits) {
                Some(insn) => {
                    builder.insn(at, insn);
                    insn.rd != 0
                }
                None => {
                    builder.illegal(at, bits);
                    false
                }
            };
            let from = at;
            at += u16::from(len);
            end = at;
            if builder.end() == End::No {
                continue;
            }
            if branches == MAX_BRANCHES {
                break;
            }
            branches += 1;
            let is_worth = |at: u16| match extent.seen(at) {
                Seen::Never => false,
                Seen::Executed => true,
                Seen::Cut => extent.loops(start, at),
            };
            // A block that goes on where a branch leads back would be entered there soon.
            let ahead = |target: i64| {
                let is_near = target > from.into() && target <= i64::from(from) + MAX_GAP && target < 4096;
                is_near.then_some(target as u16).filter(|&target| is_worth(target))
            };
            match builder.end() {
                // Behind a loop of its own the block would hardly come.
                End::Branch(target)
                    if !(i64::from(start)..=i64::from(from)).contains(&target)
                        && at < 4096
                        && is_worth(at) =>
                {
                    builder.go_on();
                }
                End::Jump(_) | End::Indirect if builder.leads_to(at) && is_worth(at) => builder.go_on(),
                End::Branch(target) | End::Jump(target) if !links => match ahead(target) {
                    Some(target) => {
                        builder.follow();
                        at = target;
                    }
                    None => break,
                },
                _ => break,
            }
        }
        (self.start, self.end, self.ops) = (start, end, builder.finish(at));
        Ok(())
    }

    /// How many instructions come before the one at page offset `at`.
    pub fn insns_before(&self, at: u16) -> u64 {
        self.insns.partition_point(|&insn| insn < at) as u64
    }
}

/// Whether a direct jump or branch among the `limit` instructions from page offset `at` on leads to `start`; `half` reads the
/// halfword at a page offset.
pub fn leads_back(
    decoder: &Decoder,
    start: u16,
    mut at: u16,
    limit: usize,
    half: impl Fn(u16) -> Option<u16>,
) -> bool {
    use Opcode::{Beq, Bge, Bgeu, Blt, Bltu, Bne, Jal};
    for _ in 0..limit {
        if at >= 4094 {
            return false;
        }
        let Some(low) = half(at) else { return false };
        let len = length(low);
        let high = if len == 4 { half(at + 2).unwrap_or(0) } else { 0 };
        let may_jump = match len {
            4 => matches!(low & 0x7f, 0x63 | 0x6f),
            _ => low & 3 == 1 && low >> 13 >= 5,
        };
        if may_jump
            && let Some(insn) = decoder.decode(u32::from(high) << 16 | u32::from(low))
            && matches!(insn.op, Beq | Bne | Blt | Bge | Bltu | Bgeu | Jal)
            && i64::from(at) + insn.imm == i64::from(start)
        {
            return true;
        }
        at += u16::from(len);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::encode::{Operands, encode};
    use crate::ir::Code;

    const START: u16 = 0x100;

    /// What has been executed or cut at each instruction; the code leads back as it does.
    struct Known<'a>(&'a [Seen], &'a [u32]);

    impl Extent for Known<'_> {
        fn seen(&self, at: u16) -> Seen {
            let index = usize::from(at - START) / 4;
            self.0.get(index).copied().unwrap_or(Seen::Executed)
        }

        fn loops(&self, start: u16, from: u16) -> bool {
            leads_back(&Decoder::new(&Isa::ALL), start, from, MAX_INSNS, |at| half(self.1, at))
        }
    }

    fn half(words: &[u32], at: u16) -> Option<u16> {
        let word = words.get(usize::from(at - START) / 4)?;
        Some((word >> (8 * (at & 2))) as u16)
    }

    fn cut(words: &[u32], seen: &[Seen]) -> Block {
        let mut block = Block::default();
        let fetch = |at| half(words, at).ok_or(());
        block.recut(&Decoder::new(&Isa::ALL), START, MAX_INSNS, &Known(seen, words), fetch).expect("a block");
        block
    }

    fn codes(block: &Block) -> Vec<Code> {
        block.ops.iter().map(|op| op.code).collect()
    }

    /// The instructions of a block, by their number.
    fn insns(block: &Block) -> Vec<u16> {
        block.insns.iter().map(|at| (at - START) / 4).collect()
    }

    fn insn(op: Opcode, rd: u8, rs1: u8, imm: i64) -> u32 {
        encode(op, &Operands { rd, rs1, imm, rm: 7, ..Operands::default() }).expect("an instruction")
    }

    fn step() -> u32 {
        insn(Opcode::Addi, 10, 10, 1)
    }

    /// To the instruction `by` further on.
    fn branch(by: i64) -> u32 {
        insn(Opcode::Beq, 0, 11, 4 * by)
    }

    fn jump(by: i64) -> u32 {
        insn(Opcode::Jal, 0, 0, 4 * by)
    }

    fn ret() -> u32 {
        insn(Opcode::Jalr, 0, 1, 0)
    }

    #[test]
    fn a_block_goes_on_behind_a_branch_and_joins_what_it_skips() {
        let block = cut(&[branch(2), step(), step(), ret()], &[]);
        assert_eq!(codes(&block), [Code::Beq, Code::AddI, Code::Join, Code::AddI, Code::JumpReg]);
        assert_eq!((insns(&block), block.end), (vec![0, 1, 2, 3], START + 16));
        assert_eq!((block.ops[0].imm, block.ops[2].at), (i64::from(START) + 8, START + 8));
    }

    #[test]
    fn what_was_never_executed_is_left_out() {
        let words = [branch(3), step(), step(), step(), ret()];
        let block = cut(&words, &[Seen::Executed, Seen::Never]);
        assert_eq!(codes(&block), [Code::Bne, Code::AddI, Code::JumpReg]);
        assert_eq!((insns(&block), block.ops[0].imm), (vec![0, 3, 4], i64::from(START) + 4));
        let block = cut(&words, &[Seen::Executed, Seen::Never, Seen::Never, Seen::Never]);
        assert_eq!((codes(&block), block.end), (vec![Code::Beq], START + 4));
        // Code that is there already is worth repeating in a loop only.
        let block = cut(&words, &[Seen::Cut; 5]);
        assert_eq!(codes(&block), [Code::Beq]);
        let block = cut(&[branch(2), step(), branch(-2)], &[Seen::Cut; 3]);
        assert_eq!(codes(&block), [Code::Beq, Code::AddI, Code::Join, Code::Beq]);
    }

    #[test]
    fn both_sides_of_a_branch_meet_again() {
        let block = cut(&[branch(3), step(), jump(2), step(), ret()], &[]);
        let want = [Code::Beq, Code::AddI, Code::Jump, Code::Join, Code::AddI, Code::Join, Code::JumpReg];
        assert_eq!(codes(&block), want);
        let block = cut(&[branch(2), ret(), step(), jump(2), step(), ret()], &[]);
        assert_eq!(codes(&block), [Code::Beq, Code::JumpReg, Code::Join, Code::AddI, Code::JumpReg]);
        assert_eq!(insns(&block), [0, 1, 2, 3, 5]);
    }

    #[test]
    fn a_jump_back_a_call_and_a_far_branch_end_a_block() {
        for end in [branch(-1), jump(-1), insn(Opcode::Jal, 1, 0, 8), insn(Opcode::Ecall, 0, 0, 0)] {
            assert_eq!(insns(&cut(&[step(), end, step(), step()], &[])), [0, 1]);
        }
        let mut far = vec![branch(200)];
        far.resize(202, step());
        let never = [Seen::Executed, Seen::Never];
        assert_eq!(insns(&cut(&far, &never)), [0]);
    }

    #[test]
    fn a_block_goes_on_behind_a_branch_to_before_it() {
        let block = cut(&[step(), branch(-2), step(), ret()], &[]);
        assert_eq!(codes(&block), [Code::AddI, Code::Beq, Code::AddI, Code::JumpReg]);
        let block = cut(&[step(), branch(-2), step(), branch(-3)], &[Seen::Cut; 4]);
        assert_eq!(insns(&block), [0, 1, 2, 3]);
        // Not if it is a loop in the block.
        let block = cut(&[step(), step(), branch(-1), step(), ret()], &[]);
        assert_eq!(insns(&block), [0, 1, 2]);
    }

    #[test]
    fn a_block_that_goes_on_to_nothing_ends_with_its_branch() {
        for (words, seen) in [(vec![branch(2)], Seen::Executed), (vec![branch(2), step()], Seen::Never)] {
            let block = cut(&words, &[Seen::Executed, seen]);
            assert_eq!((codes(&block), block.ops[0].imm), (vec![Code::Beq], i64::from(START) + 8));
            assert_eq!(block.end, START + 4);
        }
        let block = cut(&[step(), jump(2), step()], &[]);
        assert_eq!((codes(&block), block.end), (vec![Code::AddI, Code::Jump], START + 8));
        assert_eq!(block.ops[1].imm, i64::from(START) + 12);
    }

    #[test]
    fn branches_are_bounded() {
        let block = cut(&[branch(2); 200], &[]);
        assert_eq!(block.insns.len(), MAX_BRANCHES + 1);
        let block = cut(&[step(); MAX_INSNS + 1], &[]);
        assert_eq!(block.insns.len(), MAX_INSNS);
    }

    #[test]
    fn what_is_known_on_one_side_is_not_known_where_both_meet() {
        let lui = insn(Opcode::Lui, 10, 0, 0x1000);
        let block = cut(&[lui, branch(2), lui, step(), ret()], &[]);
        let want = [Code::Const, Code::Beq, Code::Const, Code::Join, Code::AddI, Code::JumpReg];
        assert_eq!(codes(&block), want);
        let block = cut(&[lui, branch(3), step(), step(), ret()], &[]);
        assert_eq!(codes(&block)[2..4], [Code::Const, Code::Const], "the sum of constants");

        let add = insn(Opcode::FaddS, 1, 1, 0);
        let count =
            |words: &[u32]| codes(&cut(words, &[])).iter().filter(|&&code| code == Code::FpOn).count();
        assert_eq!(count(&[add, branch(2), add, add, ret()]), 1);
        assert_eq!(count(&[branch(2), add, add, ret()]), 2);
        assert_eq!(count(&[add, branch(3), add, jump(2), add, add, ret()]), 1);
    }
}

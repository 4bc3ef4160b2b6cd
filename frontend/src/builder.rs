//! Collects the operations of one block. The rules of `x0` and of constants known inside the block live here only.

use crate::decode::Decoder;
use crate::insn::Insn;
use crate::ir::{Code, Follow, Helper, Op, Reg};

/// What is known of a register's value at some point of a block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    No,
    Const(i64),
    /// Offset from the virtual address of the code page.
    PcRel(i64),
}

/// Builds the operations of one block.
pub struct Builder {
    ops: Vec<Op>,
    known: [Known; 32],
    insn_at: u16,
    insn_len: u8,
    ended: bool,
    fp: FpState,
}

/// How far this block has established that floating point is on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum FpState {
    Unknown,
    On,
    Dirty,
}

impl Builder {
    /// An empty block, whose operations will be in the buffer `ops`.
    fn new(mut ops: Vec<Op>) -> Self {
        ops.clear();
        Self { ops, known: [Known::No; 32], insn_at: 0, insn_len: 0, ended: false, fp: FpState::Unknown }
    }

    /// Whether the last instruction ended the block.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Lowers one instruction at page offset `at`.
    pub fn insn(&mut self, at: u16, insn: &Insn) {
        self.insn_at = at;
        self.insn_len = insn.len;
        crate::lower::lower(self, insn);
    }

    /// An instruction that does not decode, of `len` bytes.
    pub fn illegal(&mut self, at: u16, bits: u32) {
        self.insn_at = at;
        self.call(Helper::Illegal, 0, 0, 0, 0, i64::from(bits));
    }

    /// Appends an operation as it stands, as part of the instruction being lowered.
    #[inline(always)]
    pub fn push(&mut self, op: Op) {
        self.ops.push(Op { at: self.insn_at, ..op });
    }

    /// Where results for register `rd` of an instruction go. Forgets what was known of it.
    pub fn dest(&mut self, rd: u8) -> Reg {
        self.known[usize::from(rd & 31)] = Known::No;
        if rd == 0 { Reg::SINK } else { Reg(rd) }
    }

    /// `rd = imm`
    pub fn constant(&mut self, rd: u8, imm: i64) {
        if rd != 0 {
            self.push(Op { rd: Reg(rd), imm, ..Op::of(Code::Const) });
            self.known[usize::from(rd)] = Known::Const(imm);
        }
    }

    /// `rd = address of the code page + offset`
    pub fn pc_rel(&mut self, rd: u8, offset: i64) {
        if rd != 0 {
            self.push(Op { rd: Reg(rd), imm: offset, ..Op::of(Code::PcRel) });
            self.known[usize::from(rd)] = Known::PcRel(offset);
        }
    }

    /// Page offset of the instruction being lowered.
    pub fn at(&self) -> i64 {
        i64::from(self.insn_at)
    }

    /// Page offset of the instruction after it.
    pub fn next(&self) -> i64 {
        i64::from(self.insn_at) + i64::from(self.insn_len)
    }

    /// `rd = f(a)`, without effect besides.
    pub fn rr(&mut self, code: Code, rd: u8, a: u8) {
        if rd != 0 {
            let rd = self.dest(rd);
            self.push(Op { rd, a: Reg(a), ..Op::of(code) });
        }
    }

    /// `rd = f(a, b)`, without effect besides.
    pub fn rrr(&mut self, code: Code, i: &Insn) {
        match (code, i.rs1, i.rs2) {
            (Code::Add | Code::Or | Code::Xor, 0, other) | (Code::Add | Code::Or | Code::Xor, other, 0) => {
                self.mov(i.rd, other);
            }
            _ if i.rd == 0 => {}
            _ => {
                let rd = self.dest(i.rd);
                self.push(Op { rd, a: Reg(i.rs1), b: Reg(i.rs2), ..Op::of(code) });
            }
        }
    }

    fn mov(&mut self, rd: u8, a: u8) {
        if a == 0 {
            self.constant(rd, 0);
        } else if rd != a {
            self.rr(Code::Mov, rd, a);
        }
    }

    /// `rd = f(a, imm)`, without effect besides.
    pub fn rri(&mut self, code: Code, i: &Insn) {
        if i.rd == 0 {
            return;
        }
        let known = if i.rs1 == 0 { Known::Const(0) } else { self.known[usize::from(i.rs1)] };
        match (code, known) {
            (Code::AddI, Known::Const(value)) => self.constant(i.rd, value.wrapping_add(i.imm)),
            (Code::AddI, Known::PcRel(offset)) => self.pc_rel(i.rd, offset.wrapping_add(i.imm)),
            (Code::AddI, Known::No) if i.imm == 0 => self.mov(i.rd, i.rs1),
            (Code::AddIW, Known::Const(value)) => {
                self.constant(i.rd, i64::from(value.wrapping_add(i.imm) as i32));
            }
            (Code::SllI, Known::Const(value)) => self.constant(i.rd, value << (i.imm & 63)),
            _ => {
                let rd = self.dest(i.rd);
                self.push(Op { rd, a: Reg(i.rs1), imm: i.imm, ..Op::of(code) });
            }
        }
    }

    /// `rd = memory[rs1 + imm]`
    pub fn load(&mut self, code: Code, i: &Insn) {
        let rd = self.dest(i.rd);
        self.push(Op { rd, a: Reg(i.rs1), imm: i.imm, ..Op::of(code) });
    }

    /// `memory[rs1 + imm] = rs2`
    pub fn store(&mut self, code: Code, i: &Insn) {
        self.push(Op { a: Reg(i.rs1), b: Reg(i.rs2), imm: i.imm, ..Op::of(code) });
    }

    /// Conditional branch.
    pub fn branch(&mut self, code: Code, i: &Insn) {
        let target = self.at() + i.imm;
        self.push(Op { a: Reg(i.rs1), b: Reg(i.rs2), aux: i.len, imm: target, ..Op::of(code) });
        self.ended = true;
    }

    /// Unconditional jump to a page offset, which may lie outside the page.
    pub fn jump(&mut self, target: i64) {
        self.push(Op { imm: target, ..Op::of(Code::Jump) });
        self.ended = true;
    }

    /// `jalr`; a target known inside the block (`auipc` + `jalr`) becomes a direct jump.
    pub fn jump_reg(&mut self, i: &Insn) {
        let next = self.next();
        if let Known::PcRel(offset) = self.known[usize::from(i.rs1)] {
            // The page base is a multiple of 4096, so clearing bit 0 of the offset clears that of the address.
            let target = offset.wrapping_add(i.imm) & !1;
            self.pc_rel(i.rd, next);
            self.jump(target);
        } else {
            let rd = self.dest(i.rd);
            self.push(Op { rd, a: Reg(i.rs1), aux: i.len, imm: i.imm, ..Op::of(Code::JumpReg) });
            self.ended = true;
        }
    }

    /// Ends the block by going on at the next instruction.
    pub fn fall_through(&mut self, next: i64) {
        if !self.ended {
            self.jump(next);
        }
    }

    /// Calls a helper with register fields as given (`rd` 0 means no result).
    pub fn call(&mut self, helper: Helper, rd: u8, a: u8, b: u8, aux: u8, imm: i64) {
        let rd = self.dest(rd);
        self.push(Op { rd, a: Reg(a), b: Reg(b), c: Reg(helper as u8), aux, imm, ..Op::of(Code::Call) });
        // Generated code gives the floating-point registers back for the call.
        self.fp = FpState::Unknown;
        match helper.follow() {
            Follow::Next => {}
            Follow::Resync => {
                let next = self.next();
                self.jump(next);
            }
            Follow::Never => self.ended = true,
        }
    }

    /// Floating point must be on here; `dirty` if the instruction changes `f` registers or flags.
    pub fn fp_on(&mut self, i: &Insn, dirty: bool) {
        let want = if dirty { FpState::Dirty } else { FpState::On };
        if self.fp < want {
            self.fp = want;
            let bits = i64::from(i.bits);
            self.push(Op { aux: u8::from(dirty), imm: bits, ..Op::of(Code::FpOn) });
        }
    }
}

/// A basic block: operations that start at one page offset and never leave the page.
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
pub const MAX_INSNS: usize = 64;

impl Block {
    /// Cuts the block that starts at page offset `start`, of `limit` instructions at most. `fetch` reads the halfword at a page offset; it is asked for
    /// offset 4096 only to complete an instruction at offset 4094, which then is a block of its own.
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
        block.recut(decoder, start, limit, |_| false, fetch)?;
        Ok(block)
    }

    /// As [`Self::cut`], in the buffers of a block that is not needed any more. The block also ends before every later
    /// instruction at whose page offset `stop` says so. What is in them after an error means nothing.
    ///
    /// # Errors
    /// As for [`Self::cut`].
    pub fn recut<E>(
        &mut self,
        decoder: &Decoder,
        start: u16,
        limit: usize,
        stop: impl Fn(u16) -> bool,
        mut fetch: impl FnMut(u16) -> Result<u16, E>,
    ) -> Result<(), E> {
        let mut builder = Builder::new(std::mem::take(&mut self.ops));
        let insns = &mut self.insns;
        insns.clear();
        let mut at = start;
        while !builder.ended() && at < 4096 && insns.len() < limit {
            if at != start && stop(at) {
                break;
            }
            let crosses = at == 4094;
            let first = match fetch(at) {
                Ok(half) => half,
                Err(error) if insns.is_empty() => return Err(error),
                Err(_) => break,
            };
            let len = crate::decode::length(first);
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
            match &decoder.decode(bits) {
                Some(insn) => builder.insn(at, insn),
                None => builder.illegal(at, bits),
            }
            at += u16::from(len);
        }
        builder.fall_through(i64::from(at));
        (self.start, self.end, self.ops) = (start, at, builder.ops);
        Ok(())
    }

    /// How many instructions come before the one at page offset `at`.
    pub fn insns_before(&self, at: u16) -> u64 {
        self.insns.partition_point(|&insn| insn < at) as u64
    }
}

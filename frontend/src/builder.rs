//! Collects the operations of one block. The rules of `x0`, of constants known inside the block, and of what is known where
//! branches inside it meet live here only; [`crate::block`] decides which instructions are in it.

use crate::insn::Insn;
use crate::ir::{Code, Follow, Helper, Op, Reg, Shape};

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
    end: End,
    fp: FpState,
    /// Branches inside the block that lead further on, and what was established at each.
    ahead: Vec<(i64, FpState)>,
}

/// Whether and how the last instruction ended the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It did not.
    No,
    /// By a conditional branch to a page offset.
    Branch(i64),
    /// By a jump to a page offset.
    Jump(i64),
    /// By an indirect jump.
    Indirect,
    /// By something after which the engine has to look around.
    Call,
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
    pub(crate) fn new(mut ops: Vec<Op>) -> Self {
        ops.clear();
        Self {
            ops,
            known: [Known::No; 32],
            insn_at: 0,
            insn_len: 0,
            end: End::No,
            fp: FpState::Unknown,
            ahead: Vec::new(),
        }
    }

    /// Whether and how the last instruction ended the block.
    pub(crate) fn end(&self) -> End {
        self.end
    }

    /// Whether a branch inside the block leads to the page offset `at`, which is further on.
    pub(crate) fn leads_to(&self, at: u16) -> bool {
        self.ahead.iter().any(|&(target, _)| target == i64::from(at))
    }

    /// The block goes on at the next instruction all the same.
    pub(crate) fn go_on(&mut self) {
        if let End::Branch(target) | End::Jump(target) = self.end {
            self.ahead.push((target, self.fp));
        }
        if !matches!(self.end, End::Branch(_)) {
            // Nothing comes from here.
            self.fp = FpState::Dirty;
        }
        self.end = End::No;
    }

    /// The block goes on where its last branch or jump leads.
    pub(crate) fn follow(&mut self) {
        if let (End::Branch(_), next) = (self.end, self.next()) {
            if let Some(branch) = self.ops.last_mut() {
                (branch.code, branch.imm) = (branch.code.inverse(), next);
            }
        } else {
            self.ops.pop();
        }
        self.end = End::No;
    }

    /// Lowers one instruction at page offset `at`.
    pub(crate) fn insn(&mut self, at: u16, insn: &Insn) {
        self.begin(at, insn.len);
        crate::lower::lower(self, insn);
    }

    fn begin(&mut self, at: u16, len: u8) {
        (self.insn_at, self.insn_len) = (at, len);
        let mut met = false;
        for &(target, fp) in &self.ahead {
            if target == i64::from(at) {
                self.fp = self.fp.min(fp);
                met = true;
            }
        }
        if met {
            self.known = [Known::No; 32];
            self.push(Op::of(Code::Join));
        }
    }

    /// An instruction that does not decode.
    pub(crate) fn illegal(&mut self, at: u16, bits: u32) {
        self.begin(at, 0);
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
        self.end = End::Branch(target);
    }

    /// Unconditional jump to a page offset, which may lie outside the page.
    pub fn jump(&mut self, target: i64) {
        self.push(Op { imm: target, ..Op::of(Code::Jump) });
        self.end = End::Jump(target);
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
            self.end = End::Indirect;
        }
    }

    /// The operations of the block, which ends before the instruction at page offset `next` unless it has ended.
    pub(crate) fn finish(mut self, next: u16) -> Vec<Op> {
        let (at, next) = (self.insn_at, i64::from(next));
        match self.ops.last_mut().filter(|op| op.at == at) {
            _ if self.end != End::No => {}
            // It went on after that, but nothing has come.
            Some(op) if op.code.shape() == Shape::Branch => {
                if next != i64::from(at) + i64::from(op.aux) {
                    (op.code, op.imm) = (op.code.inverse(), next);
                }
            }
            Some(op) if matches!(op.code.shape(), Shape::Jump | Shape::JumpReg) => {}
            _ => self.jump(next),
        }
        self.ops
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
                self.end = End::Call;
            }
            Follow::Never => self.end = End::Call,
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

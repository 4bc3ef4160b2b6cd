//! The interpreter: runs the IR of cached blocks. First engine, and the judge of the others.

mod alu;
mod atomic;
mod blocks;
mod float;
mod watch;

use std::sync::Arc;

use frontend::ir::{Code, Op};
use frontend::{Block, Decoder};
use softmmu::{Mmu, Trap, cause};

use crate::breakpoints::Breakpoints;
use crate::context::{Exit, Hart, mstatus};
use crate::inspect::coverage::Coverage;
use crate::inspect::trace::Trace;
use alu::*;
use blocks::Blocks;
pub(crate) use float::step as float;
pub(crate) use watch::{ExecTrace, Watch};

/// Most blocks kept; past that the cache starts afresh.
const MAX_BLOCKS: usize = 1 << 16;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const COLD_BLOCKS: usize = 1 << 11;

/// One hart's interpreter: its decoder and its cache of decoded blocks.
pub struct Interp {
    blocks: Blocks,
    watch: Watch,
}

impl Interp {
    /// An interpreter for the instructions that `decoder` knows.
    pub fn new(decoder: impl Into<Arc<Decoder>>) -> Self {
        Self::with_trace(decoder, Watch::Nobody, None)
    }

    /// The same, but somebody may watch, and the blocks that it decodes for this hart may be traced.
    pub(crate) fn with_trace(
        decoder: impl Into<Arc<Decoder>>,
        watch: Watch,
        trace: Option<(Arc<Trace>, usize)>,
    ) -> Self {
        Self { blocks: Blocks::new(decoder.into(), MAX_BLOCKS, watch.block_limit(), trace), watch }
    }

    /// An interpreter for what another engine leaves to it, which keeps few blocks.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    pub(crate) fn for_cold_blocks(decoder: Arc<Decoder>, watch: Watch) -> Self {
        Self { blocks: Blocks::new(decoder, COLD_BLOCKS, watch.block_limit(), None), watch }
    }

    /// Whether it has to execute everything itself.
    pub(crate) fn is_watched(&self) -> bool {
        !matches!(self.watch, Watch::Nobody)
    }

    /// The counts of what was executed, if it was watched for that.
    pub(crate) fn into_coverage(self) -> Option<Coverage> {
        match self.watch {
            Watch::Coverage(coverage) => Some(*coverage),
            Watch::Nobody | Watch::Exec(_) => None,
        }
    }

    /// Orders instruction fetches after all earlier stores that this hart can see (`fence.i`).
    pub fn fence_i(&mut self, mmu: &mut Mmu) {
        mmu.exec_clear_all();
    }

    /// Runs `hart` until it is polled or an instruction traps.
    pub fn run<H: Hart>(&mut self, hart: &mut H) -> Exit {
        if self.is_watched() {
            while !hart.polled() {
                if let Err(trap) = self.run_block(hart) {
                    return Exit::Trap(trap);
                }
            }
            return Exit::Poll;
        }
        let mut polled_at = 0;
        loop {
            if hart.polled() {
                hart.state().native.polled_at = polled_at;
                return Exit::Poll;
            }
            let pc = hart.state().pc;
            let block = match hart.mmu().exec_lookup(pc) {
                Some(index) => self.blocks.get(index),
                None if self.blocks.breakpoints.contains(pc) => return Exit::Break,
                None => match self.blocks.find(hart.mmu(), pc, true) {
                    Ok(block) => block,
                    Err(trap) => return Exit::Trap(trap),
                },
            };
            polled_at = u32::from(block.start) + 1;
            if let Err(trap) = execute(hart, block, |_| {}) {
                return Exit::Trap(trap);
            }
        }
    }

    /// Replaces the breakpoints. The executable-code cache must have been emptied.
    pub(crate) fn set_breakpoints(&mut self, points: &Arc<Breakpoints>) {
        self.blocks.set_breakpoints(points);
    }

    pub(crate) fn breakpoints(&self) -> &Breakpoints {
        &self.blocks.breakpoints
    }

    /// Executes one instruction, whatever breakpoint is there.
    pub(crate) fn step<H: Hart>(&mut self, hart: &mut H) -> Result<(), Trap> {
        let pc = hart.state().pc;
        let block = self.blocks.cut_single(hart.mmu(), pc)?;
        execute(hart, &block, |_| {})
    }

    /// Runs one block, without the executable-code cache.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    pub(crate) fn run_block<H: Hart>(&mut self, hart: &mut H) -> Result<(), Trap> {
        let pc = hart.state().pc;
        let block = self.blocks.find(hart.mmu(), pc, false)?;
        self.watch.execute(hart, block)
    }
}

/// Executes a block; `note` hears of each operation before it is carried out.
#[inline(always)]
fn execute<H: Hart>(hart: &mut H, block: &Block, mut note: impl FnMut(&Op)) -> Result<(), Trap> {
    let state = hart.state();
    state.page = state.pc & !0xfff;
    for op in &block.ops {
        note(op);
        let done = if op.code == Code::Call {
            hart.state().partial = block.insns_before(op.at);
            let done = hart.call(op);
            hart.state().partial = 0;
            done
        } else {
            step(hart, op)
        };
        if let Err(trap) = done {
            let state = hart.state();
            state.pc = state.page.wrapping_add(u64::from(op.at));
            state.instret = state.instret.wrapping_add(block.insns_before(op.at));
            return Err(trap);
        }
    }
    let state = hart.state();
    state.instret = state.instret.wrapping_add(block.insns.len() as u64);
    Ok(())
}

/// Carries out one operation, which is no call of a helper. The last operation of a block sets `pc`.
#[inline(always)]
pub(crate) fn step<H: Hart>(hart: &mut H, op: &Op) -> Result<(), Trap> {
    macro_rules! x {
        ($reg:ident) => {
            hart.state().x[op.$reg.index()]
        };
    }
    macro_rules! rrr {
        ($f:expr) => {{
            let value = $f(x!(a), x!(b));
            x!(rd) = value;
        }};
    }
    macro_rules! rri {
        ($f:expr) => {{
            let value = $f(x!(a), op.imm as u64);
            x!(rd) = value;
        }};
    }
    macro_rules! rr {
        ($f:expr) => {{
            let value = $f(x!(a));
            x!(rd) = value;
        }};
    }
    macro_rules! load {
        ($load:ident as $ty:ty) => {{
            let address = x!(a).wrapping_add(op.imm as u64);
            let value = hart.mmu().$load(address)?;
            x!(rd) = value as $ty as i64 as u64;
        }};
    }
    macro_rules! store {
        ($store:ident as $ty:ty) => {{
            let address = x!(a).wrapping_add(op.imm as u64);
            let value = x!(b) as $ty;
            hart.mmu().$store(address, value)?;
        }};
    }
    macro_rules! branch {
        ($f:expr) => {{
            let taken: bool = $f(x!(a), x!(b));
            let next = i64::from(op.at) + i64::from(op.aux);
            let state = hart.state();
            state.pc = state.page.wrapping_add(if taken { op.imm } else { next } as u64);
        }};
    }

    match op.code {
        Code::Const => x!(rd) = op.imm as u64,
        Code::PcRel => x!(rd) = hart.state().page.wrapping_add(op.imm as u64),
        Code::Mov => rr!(|a| a),

        Code::Add => rrr!(u64::wrapping_add),
        Code::Sub => rrr!(u64::wrapping_sub),
        Code::And => rrr!(|a, b| a & b),
        Code::Or => rrr!(|a, b| a | b),
        Code::Xor => rrr!(|a, b| a ^ b),
        Code::Andn => rrr!(|a: u64, b: u64| a & !b),
        Code::Orn => rrr!(|a: u64, b: u64| a | !b),
        Code::Xnor => rrr!(|a: u64, b: u64| !(a ^ b)),
        Code::Sll => rrr!(sll),
        Code::Srl => rrr!(srl),
        Code::Sra => rrr!(sra),
        Code::Slt => rrr!(slt),
        Code::Sltu => rrr!(sltu),
        Code::AddW => rrr!(addw),
        Code::SubW => rrr!(subw),
        Code::SllW => rrr!(sllw),
        Code::SrlW => rrr!(srlw),
        Code::SraW => rrr!(sraw),
        Code::Mul => rrr!(u64::wrapping_mul),
        Code::Mulh => rrr!(mulh),
        Code::Mulhsu => rrr!(mulhsu),
        Code::Mulhu => rrr!(mulhu),
        Code::Div => rrr!(div),
        Code::Divu => rrr!(divu),
        Code::Rem => rrr!(rem),
        Code::Remu => rrr!(remu),
        Code::MulW => rrr!(mulw),
        Code::DivW => rrr!(divw),
        Code::DivuW => rrr!(divuw),
        Code::RemW => rrr!(remw),
        Code::RemuW => rrr!(remuw),
        Code::Sh1add => rrr!(|a: u64, b| (a << 1).wrapping_add(b)),
        Code::Sh2add => rrr!(|a: u64, b| (a << 2).wrapping_add(b)),
        Code::Sh3add => rrr!(|a: u64, b| (a << 3).wrapping_add(b)),
        Code::AddUw => rrr!(|a: u64, b| zext_w(a).wrapping_add(b)),
        Code::Sh1addUw => rrr!(|a: u64, b| (zext_w(a) << 1).wrapping_add(b)),
        Code::Sh2addUw => rrr!(|a: u64, b| (zext_w(a) << 2).wrapping_add(b)),
        Code::Sh3addUw => rrr!(|a: u64, b| (zext_w(a) << 3).wrapping_add(b)),
        Code::Max => rrr!(|a, b| (a as i64).max(b as i64) as u64),
        Code::Maxu => rrr!(|a: u64, b| a.max(b)),
        Code::Min => rrr!(|a, b| (a as i64).min(b as i64) as u64),
        Code::Minu => rrr!(|a: u64, b| a.min(b)),
        Code::Rol => rrr!(|a: u64, b| a.rotate_left(b as u32 & 63)),
        Code::Ror => rrr!(ror),
        Code::RolW => rrr!(|a, b| sext_w((a as u32).rotate_left(b as u32 & 31))),
        Code::RorW => rrr!(rorw),
        Code::Bclr => rrr!(bclr),
        Code::Bext => rrr!(bext),
        Code::Binv => rrr!(binv),
        Code::Bset => rrr!(bset),
        Code::Clmul => rrr!(|a, b| clmul(a, b) as u64),
        Code::Clmulh => rrr!(|a, b| (clmul(a, b) >> 64) as u64),
        Code::Clmulr => rrr!(|a, b| (clmul(a, b) >> 63) as u64),
        Code::CzeroEqz => rrr!(|a, b| if b == 0 { 0 } else { a }),
        Code::CzeroNez => rrr!(|a, b| if b != 0 { 0 } else { a }),

        Code::AddI => rri!(u64::wrapping_add),
        Code::AndI => rri!(|a, b| a & b),
        Code::OrI => rri!(|a, b| a | b),
        Code::XorI => rri!(|a, b| a ^ b),
        Code::SllI => rri!(sll),
        Code::SrlI => rri!(srl),
        Code::SraI => rri!(sra),
        Code::SltI => rri!(slt),
        Code::SltuI => rri!(sltu),
        Code::AddIW => rri!(addw),
        Code::SllIW => rri!(sllw),
        Code::SrlIW => rri!(srlw),
        Code::SraIW => rri!(sraw),
        Code::SllIUw => rri!(|a, b| sll(zext_w(a), b)),
        Code::RorI => rri!(ror),
        Code::RorIW => rri!(rorw),
        Code::BclrI => rri!(bclr),
        Code::BextI => rri!(bext),
        Code::BinvI => rri!(binv),
        Code::BsetI => rri!(bset),

        Code::Clz => rr!(|a: u64| u64::from(a.leading_zeros())),
        Code::Ctz => rr!(|a: u64| u64::from(a.trailing_zeros())),
        Code::Cpop => rr!(|a: u64| u64::from(a.count_ones())),
        Code::ClzW => rr!(|a: u64| u64::from((a as u32).leading_zeros())),
        Code::CtzW => rr!(|a: u64| u64::from((a as u32).trailing_zeros())),
        Code::CpopW => rr!(|a: u64| u64::from((a as u32).count_ones())),
        Code::SextB => rr!(|a: u64| a as i8 as u64),
        Code::SextH => rr!(|a: u64| a as i16 as u64),
        Code::ZextH => rr!(|a: u64| u64::from(a as u16)),
        Code::OrcB => rr!(orc_b),
        Code::Rev8 => rr!(u64::swap_bytes),

        Code::Lb => load!(load_u8 as i8),
        Code::Lbu => load!(load_u8 as u8),
        Code::Lh => load!(load_u16 as i16),
        Code::Lhu => load!(load_u16 as u16),
        Code::Lw => load!(load_u32 as i32),
        Code::Lwu => load!(load_u32 as u32),
        Code::Ld => load!(load_u64 as u64),
        Code::Sb => store!(store_u8 as u8),
        Code::Sh => store!(store_u16 as u16),
        Code::Sw => store!(store_u32 as u32),
        Code::Sd => store!(store_u64 as u64),

        Code::Lr | Code::Sc | Code::Amo | Code::Cas | Code::CasPair => atomic::step(hart, op)?,

        Code::FpOn => {
            let state = hart.state();
            if state.mstatus & mstatus::FS == 0 {
                return Err(Trap { cause: cause::ILLEGAL_INSTRUCTION, tval: op.imm as u64 });
            }
            if op.aux == 1 {
                state.mstatus |= mstatus::FS;
            }
        }
        Code::FLoad | Code::FStore => float::memory(hart, op)?,
        Code::FConst
        | Code::FAdd
        | Code::FSub
        | Code::FMul
        | Code::FDiv
        | Code::FSqrt
        | Code::FMadd
        | Code::FMsub
        | Code::FNmsub
        | Code::FNmadd
        | Code::FSgnj
        | Code::FSgnjn
        | Code::FSgnjx
        | Code::FMin
        | Code::FMax
        | Code::FMinm
        | Code::FMaxm
        | Code::FRound
        | Code::FRoundNx
        | Code::FCvtFmt
        | Code::FEq
        | Code::FLt
        | Code::FLe
        | Code::FLtq
        | Code::FLeq
        | Code::FClass
        | Code::FToInt
        | Code::FToIntMod
        | Code::FToBits
        | Code::FFromInt
        | Code::FFromBits => float::step(hart.state(), op)?,

        Code::Beq => branch!(|a, b| a == b),
        Code::Bne => branch!(|a, b| a != b),
        Code::Blt => branch!(|a, b| (a as i64) < b as i64),
        Code::Bge => branch!(|a, b| a as i64 >= b as i64),
        Code::Bltu => branch!(|a: u64, b: u64| a < b),
        Code::Bgeu => branch!(|a: u64, b: u64| a >= b),
        Code::Jump => {
            let state = hart.state();
            state.pc = state.page.wrapping_add(op.imm as u64);
        }
        Code::JumpReg => {
            let target = x!(a).wrapping_add(op.imm as u64) & !1;
            let state = hart.state();
            state.x[op.rd.index()] = state.page.wrapping_add(u64::from(op.at) + u64::from(op.aux));
            state.pc = target;
        }
        Code::Call | Code::Join => {}
    }
    Ok(())
}

//! The intermediate representation: a flat list of operations on guest registers.
//!
//! An operation is about as large as a RISC-V instruction, so most instructions become exactly one. The list of
//! operations below is the only one: the interpreter, both JIT backends, the printer and the random-IR tests are
//! checked against it by the compiler. Rare or stateful work is the operation [`Code::Call`] of a [`Helper`].
//!
//! Registers: `x0` to `x31` are guest registers; `x0` reads as zero and no operation writes it (such results go to
//! [`Reg::SINK`]). The temporaries live inside one block only.

use std::fmt;

/// How an operation uses its fields. The printer, the random-IR generator and register allocation go by this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `rd = imm`
    Ri,
    /// `rd = f(a)`
    Rr,
    /// `rd = f(a, b)`
    Rrr,
    /// `rd = f(a, imm)`
    Rri,
    /// `rd = memory[a + imm]`
    Load,
    /// `memory[a + imm] = b`
    Store,
    /// `rd = old memory[a]`, atomically updated with `b`; `aux` = [`AmoOp`], `c` = [`Amo`] bits
    Amo,
    /// `fd = imm` (the raw register value)
    Fi,
    /// `fd = memory[a + imm]`, `aux` = format
    FLoad,
    /// `memory[a + imm] = fb`, `aux` = format
    FStore,
    /// `fd = f(fa)`, `aux` = format and rounding mode, `imm` = instruction bits
    Fr,
    /// `fd = f(fa, fb)`
    Frr,
    /// `fd = f(fa, fb, fc)`
    Frrr,
    /// `rd = f(fa)`
    FtoX,
    /// `rd = f(fa, fb)`
    FcmpX,
    /// `fd = f(a)`
    XtoF,
    /// `if f(a, b) goto imm`, else to the next operation; if it is the block's last, to the next instruction, which is `aux` bytes on
    Branch,
    /// `goto imm`
    Jump,
    /// `goto (a + imm) & !1; rd = address of the next instruction`, which is `aux` bytes on
    JumpReg,
    /// nothing: branches of the block to its instruction lead here
    Join,
    /// a call of helper `c`
    Call,
}

/// Calls the macro `$m` with one row per operation: name, shape, definition.
///
/// In the definitions `a`, `b` and `rd` are 64-bit register values, `imm` the sign-extended immediate, `.w` the low 32
/// bits, `sext` sign extension to 64 bits. Names and exact results are those of the RISC-V instruction of that name.
#[macro_export]
macro_rules! for_each_op {
    ($m:ident) => {
        $m! {
            Const    Ri    "rd = imm",
            PcRel    Ri    "rd = virtual address of the code page + imm",
            Mov      Rr    "rd = a",

            Add      Rrr   "rd = a + b",
            Sub      Rrr   "rd = a - b",
            And      Rrr   "rd = a & b",
            Or       Rrr   "rd = a | b",
            Xor      Rrr   "rd = a ^ b",
            Andn     Rrr   "rd = a & !b",
            Orn      Rrr   "rd = a | !b",
            Xnor     Rrr   "rd = !(a ^ b)",
            Sll      Rrr   "rd = a << b[5:0]",
            Srl      Rrr   "rd = a >> b[5:0], logical",
            Sra      Rrr   "rd = a >> b[5:0], arithmetic",
            Slt      Rrr   "rd = a < b, signed",
            Sltu     Rrr   "rd = a < b, unsigned",
            AddW     Rrr   "rd = sext((a + b).w)",
            SubW     Rrr   "rd = sext((a - b).w)",
            SllW     Rrr   "rd = sext(a.w << b[4:0])",
            SrlW     Rrr   "rd = sext(a.w >> b[4:0], logical)",
            SraW     Rrr   "rd = sext(a.w >> b[4:0], arithmetic)",
            Mul      Rrr   "rd = low 64 bits of a * b",
            Mulh     Rrr   "rd = high 64 bits of a * b, both signed",
            Mulhsu   Rrr   "rd = high 64 bits of a * b, a signed, b unsigned",
            Mulhu    Rrr   "rd = high 64 bits of a * b, both unsigned",
            Div      Rrr   "rd = a / b, signed, to zero; b = 0 gives -1; overflow gives a",
            Divu     Rrr   "rd = a / b, unsigned; b = 0 gives all ones",
            Rem      Rrr   "rd = a mod b, sign of a; b = 0 gives a; overflow gives 0",
            Remu     Rrr   "rd = a mod b, unsigned; b = 0 gives a",
            MulW     Rrr   "rd = sext((a * b).w)",
            DivW     Rrr   "rd = sext(Div of a.w, b.w)",
            DivuW    Rrr   "rd = sext(Divu of a.w, b.w)",
            RemW     Rrr   "rd = sext(Rem of a.w, b.w)",
            RemuW    Rrr   "rd = sext(Remu of a.w, b.w)",
            Sh1add   Rrr   "rd = (a << 1) + b",
            Sh2add   Rrr   "rd = (a << 2) + b",
            Sh3add   Rrr   "rd = (a << 3) + b",
            AddUw    Rrr   "rd = zext(a.w) + b",
            Sh1addUw Rrr   "rd = (zext(a.w) << 1) + b",
            Sh2addUw Rrr   "rd = (zext(a.w) << 2) + b",
            Sh3addUw Rrr   "rd = (zext(a.w) << 3) + b",
            Max      Rrr   "rd = larger of a and b, signed",
            Maxu     Rrr   "rd = larger of a and b, unsigned",
            Min      Rrr   "rd = smaller of a and b, signed",
            Minu     Rrr   "rd = smaller of a and b, unsigned",
            Rol      Rrr   "rd = a rotated left by b[5:0]",
            Ror      Rrr   "rd = a rotated right by b[5:0]",
            RolW     Rrr   "rd = sext(a.w rotated left by b[4:0])",
            RorW     Rrr   "rd = sext(a.w rotated right by b[4:0])",
            Bclr     Rrr   "rd = a with bit b[5:0] cleared",
            Bext     Rrr   "rd = bit b[5:0] of a",
            Binv     Rrr   "rd = a with bit b[5:0] inverted",
            Bset     Rrr   "rd = a with bit b[5:0] set",
            Clmul    Rrr   "rd = low 64 bits of the carry-less product",
            Clmulh   Rrr   "rd = high 64 bits of the carry-less product",
            Clmulr   Rrr   "rd = bits 126 to 63 of the carry-less product",
            CzeroEqz Rrr   "rd = b == 0 ? 0 : a",
            CzeroNez Rrr   "rd = b != 0 ? 0 : a",

            AddI     Rri   "rd = a + imm",
            AndI     Rri   "rd = a & imm",
            OrI      Rri   "rd = a | imm",
            XorI     Rri   "rd = a ^ imm",
            SllI     Rri   "rd = a << imm",
            SrlI     Rri   "rd = a >> imm, logical",
            SraI     Rri   "rd = a >> imm, arithmetic",
            SltI     Rri   "rd = a < imm, signed",
            SltuI    Rri   "rd = a < imm, unsigned",
            AddIW    Rri   "rd = sext((a + imm).w)",
            SllIW    Rri   "rd = sext(a.w << imm)",
            SrlIW    Rri   "rd = sext(a.w >> imm, logical)",
            SraIW    Rri   "rd = sext(a.w >> imm, arithmetic)",
            SllIUw   Rri   "rd = zext(a.w) << imm",
            RorI     Rri   "rd = a rotated right by imm",
            RorIW    Rri   "rd = sext(a.w rotated right by imm)",
            BclrI    Rri   "rd = a with bit imm cleared",
            BextI    Rri   "rd = bit imm of a",
            BinvI    Rri   "rd = a with bit imm inverted",
            BsetI    Rri   "rd = a with bit imm set",

            Clz      Rr    "rd = leading zeros of a",
            Ctz      Rr    "rd = trailing zeros of a",
            Cpop     Rr    "rd = ones in a",
            ClzW     Rr    "rd = leading zeros of a.w, of 32",
            CtzW     Rr    "rd = trailing zeros of a.w, 32 if none is set",
            CpopW    Rr    "rd = ones in a.w",
            SextB    Rr    "rd = sext(a[7:0])",
            SextH    Rr    "rd = sext(a[15:0])",
            ZextH    Rr    "rd = a[15:0]",
            OrcB     Rr    "rd = each byte of a, all ones where not zero",
            Rev8     Rr    "rd = bytes of a reversed",

            Lb       Load  "rd = sext(byte)",
            Lbu      Load  "rd = byte",
            Lh       Load  "rd = sext(halfword)",
            Lhu      Load  "rd = halfword",
            Lw       Load  "rd = sext(word)",
            Lwu      Load  "rd = word",
            Ld       Load  "rd = doubleword",
            Sb       Store "byte = b",
            Sh       Store "halfword = b",
            Sw       Store "word = b",
            Sd       Store "doubleword = b",

            Lr       Amo   "rd = memory[a], and reserve it",
            Sc       Amo   "if reserved: memory[a] = b, rd = 0; else rd = 1",
            Amo      Amo   "rd = memory[a]; memory[a] = op(rd, b)",
            Cas      Amo   "if memory[a] == rd then memory[a] = b; rd = old memory[a]",
            CasPair  Amo   "Cas on the 128 bits of rd+1:rd and b+1:b; register 0 as a pair is zero",

            FpOn     Call  "illegal instruction imm if mstatus.FS is Off; if aux is 1, FS becomes Dirty",
            FConst   Fi    "fd = imm",
            FLoad    FLoad "fd = boxed memory[a + imm]",
            FStore   FStore "memory[a + imm] = low bits of fb",
            FAdd     Frr   "fd = fa + fb",
            FSub     Frr   "fd = fa - fb",
            FMul     Frr   "fd = fa * fb",
            FDiv     Frr   "fd = fa / fb",
            FSqrt    Fr    "fd = square root of fa",
            FMadd    Frrr  "fd = fa * fb + fc, rounded once",
            FMsub    Frrr  "fd = fa * fb - fc, rounded once",
            FNmsub   Frrr  "fd = -(fa * fb) + fc, rounded once",
            FNmadd   Frrr  "fd = -(fa * fb) - fc, rounded once",
            FSgnj    Frr   "fd = fa with the sign of fb",
            FSgnjn   Frr   "fd = fa with the opposite sign of fb",
            FSgnjx   Frr   "fd = fa with the signs of fa and fb xored",
            FMin     Frr   "fd = minimumNumber(fa, fb)",
            FMax     Frr   "fd = maximumNumber(fa, fb)",
            FMinm    Frr   "fd = minimum(fa, fb)",
            FMaxm    Frr   "fd = maximum(fa, fb)",
            FRound   Fr    "fd = fa rounded to an integer, without NX",
            FRoundNx Fr    "fd = fa rounded to an integer, with NX",
            FCvtFmt  Fr    "fd = fa converted from format c",
            FEq      FcmpX "rd = fa == fb, quiet",
            FLt      FcmpX "rd = fa < fb, signalling",
            FLe      FcmpX "rd = fa <= fb, signalling",
            FLtq     FcmpX "rd = fa < fb, quiet",
            FLeq     FcmpX "rd = fa <= fb, quiet",
            FClass   FtoX  "rd = class mask of fa",
            FToInt   FtoX  "rd = fa as integer of kind c, saturated",
            FToIntMod FtoX "rd = sext(low 32 bits of fa truncated): fcvtmod.w.d",
            FToBits  FtoX  "rd = sext(low bits of fa)",
            FFromInt XtoF  "fd = integer of kind c in a",
            FFromBits XtoF "fd = boxed low bits of a",

            Beq      Branch "a == b",
            Bne      Branch "a != b",
            Blt      Branch "a < b, signed",
            Bge      Branch "a >= b, signed",
            Bltu     Branch "a < b, unsigned",
            Bgeu     Branch "a >= b, unsigned",
            Jump     Jump   "continue at the code page + imm",
            JumpReg  JumpReg "continue at (a + imm) & !1; rd = link",
            Join     Join   "branches inside the block to this instruction lead here",
            Call     Call   "run helper c",
        }
    };
}

macro_rules! define_code {
    ($($name:ident $shape:ident $doc:literal,)*) => {
        /// The operation. Each is defined exactly by its line in [`for_each_op!`](crate::for_each_op).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Code {
            $(#[doc = concat!("`", $doc, "`")] $name,)*
        }

        impl Code {
            /// Every operation, in the order of the list.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// How the fields are used.
            #[inline]
            pub const fn shape(self) -> Shape {
                const SHAPES: &[Shape] = &[$(Shape::$shape,)*];
                SHAPES[self as usize]
            }
        }
    };
}
for_each_op!(define_code);

impl Code {
    /// Of a branch, the branch that is taken where it is not; of anything else, itself.
    pub const fn inverse(self) -> Code {
        match self {
            Code::Beq => Code::Bne,
            Code::Bne => Code::Beq,
            Code::Blt => Code::Bge,
            Code::Bge => Code::Blt,
            Code::Bltu => Code::Bgeu,
            Code::Bgeu => Code::Bltu,
            other => other,
        }
    }
}

/// Calls the macro `$m` with one row per helper: name, what follows, definition.
///
/// `Next`: the block goes on. `Resync`: the helper may change translation, interrupts or code, so the block ends and the
/// engine goes through its dispatcher at the next instruction. `Never`: control does not reach the next instruction.
#[macro_export]
macro_rules! for_each_helper {
    ($m:ident) => {
        $m! {
            Csr           Resync "rd = CSR[imm >> 20] of instruction bits imm, updated with a; aux = CsrAccess",
            CsrPlain      Next   "as Csr, where the access changes neither translation, interrupts nor code",
            Ecall         Never  "environment call",
            Ebreak        Never  "breakpoint",
            Illegal       Never  "illegal instruction; imm = bits",
            Mret          Never  "return from machine mode",
            Sret          Never  "return from supervisor mode",
            Wfi           Resync "wait for interrupt",
            WrsNto        Resync "wait on reservation set",
            WrsSto        Resync "wait on reservation set, short",
            SfenceVma     Resync "order and flush translations of address a (aux bit 0) and ASID b (aux bit 1)",
            SfenceInval   Next   "sfence.w.inval, sfence.inval.ir",
            Fence         Next   "memory fence; imm = fm, pred, succ",
            FenceI        Resync "order instruction fetches after stores",
            Pause         Next   "spin-loop hint",
            CboZero       Next   "zero the cache block of a",
            CboFlush      Next   "cbo.clean and cbo.flush of a; aux bit 0 is set for inval",
        }
    };
}

/// What follows a helper in its block; see [`for_each_helper!`](crate::for_each_helper).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// The block goes on.
    Next,
    /// The block ends; the next instruction goes through the dispatcher.
    Resync,
    /// Control never reaches the next instruction.
    Never,
}

macro_rules! define_helper {
    ($($name:ident $follow:ident $doc:literal,)*) => {
        /// Work that engines do by calling the machine.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Helper {
            $(#[doc = concat!("`", $doc, "`")] $name,)*
        }

        impl Helper {
            /// Every helper, in the order of the list; an operation's `c` field indexes it.
            pub const ALL: &'static [Helper] = &[$(Helper::$name,)*];

            /// What follows in the block.
            pub const fn follow(self) -> Follow {
                match self {
                    $(Helper::$name => Follow::$follow,)*
                }
            }
        }
    };
}
for_each_helper!(define_helper);

/// A register of the IR's integer file (for floating-point fields: 0 to 31 are `f0` to `f31`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Reg(pub u8);

impl Reg {
    /// Registers in the integer file: 32 guest registers, temporaries, the sink.
    pub const COUNT: usize = 64;
    /// The zero register; holds 0 and is never written.
    pub const ZERO: Reg = Reg(0);
    /// First temporary; there are [`Self::TEMPS`] of them.
    pub const TEMP: Reg = Reg(32);
    /// Number of temporaries.
    pub const TEMPS: u8 = 8;
    /// Takes results that nobody reads.
    pub const SINK: Reg = Reg(63);

    /// Index into a register file of [`Self::COUNT`] entries; never out of range.
    #[inline(always)]
    pub const fn index(self) -> usize {
        (self.0 & 63) as usize
    }
}

/// Floating-point format, encoded as the `fmt` field of the instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fmt {
    /// binary32
    S = 0,
    /// binary64
    D = 1,
    /// binary16
    H = 2,
}

impl Fmt {
    /// Bytes in memory.
    pub const fn bytes(self) -> u64 {
        match self {
            Fmt::H => 2,
            Fmt::S => 4,
            Fmt::D => 8,
        }
    }

    /// From the low two bits of a field; 3 (quad) does not occur and reads as D.
    pub const fn from_bits(bits: u8) -> Fmt {
        match bits & 3 {
            0 => Fmt::S,
            2 => Fmt::H,
            _ => Fmt::D,
        }
    }
}

/// Integer operand of a conversion, encoded as the `rs2` field of `fcvt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum IntKind {
    /// signed 32 bits
    W = 0,
    /// unsigned 32 bits
    Wu = 1,
    /// signed 64 bits
    L = 2,
    /// unsigned 64 bits
    Lu = 3,
}

impl IntKind {
    /// From the low two bits of a field.
    pub const fn from_bits(bits: u8) -> IntKind {
        match bits & 3 {
            0 => IntKind::W,
            1 => IntKind::Wu,
            2 => IntKind::L,
            _ => IntKind::Lu,
        }
    }
}

/// The `aux` field of floating-point operations: format in bits 4 to 3, rounding mode (7 = dynamic) in bits 2 to 0.
pub const fn fp_aux(fmt: Fmt, rm: u8) -> u8 {
    (fmt as u8) << 3 | rm & 7
}

/// What a read-modify-write does with the old value and `b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "named as the instructions")]
pub enum AmoOp {
    Swap,
    Add,
    Xor,
    And,
    Or,
    Min,
    Max,
    Minu,
    Maxu,
}

impl AmoOp {
    /// Every operation, in the order of their numbers.
    pub const ALL: [AmoOp; 9] = [
        AmoOp::Swap,
        AmoOp::Add,
        AmoOp::Xor,
        AmoOp::And,
        AmoOp::Or,
        AmoOp::Min,
        AmoOp::Max,
        AmoOp::Minu,
        AmoOp::Maxu,
    ];
}

/// The `c` field of atomic operations: log2 of the width in bits 2 to 0, `rl` bit 3, `aq` bit 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amo(pub u8);

impl Amo {
    /// Packs the field; `aqrl` has `aq` in bit 1 and `rl` in bit 0.
    pub const fn new(log2_width: u8, aqrl: u8) -> Self {
        Amo(log2_width | (aqrl & 3) << 3)
    }

    /// Bytes: 1, 2, 4, 8 or 16.
    pub const fn width(self) -> u8 {
        1 << (self.0 & 7)
    }
}

/// How a CSR instruction accesses its register (`aux` of [`Helper::Csr`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CsrAccess {
    /// Write `a`, and read unless `rd` is the sink.
    Write = 0,
    /// Set the bits of `a`.
    Set = 1,
    /// Clear the bits of `a`.
    Clear = 2,
    /// Read only: `csrrs`/`csrrc` with `x0` or a zero immediate.
    Read = 3,
}

impl CsrAccess {
    /// From the low two bits of a field.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => CsrAccess::Write,
            1 => CsrAccess::Set,
            2 => CsrAccess::Clear,
            _ => CsrAccess::Read,
        }
    }
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Op {
    /// What to do.
    pub code: Code,
    /// Destination.
    pub rd: Reg,
    /// First source.
    pub a: Reg,
    /// Second source.
    pub b: Reg,
    /// Third source, or a small field that the shape names.
    pub c: Reg,
    /// A small field that the shape names.
    pub aux: u8,
    /// Offset in the code page of the instruction this came from.
    pub at: u16,
    /// Immediate, page-relative target, or instruction bits.
    pub imm: i64,
}

impl Op {
    /// An operation with no operands and no result yet.
    pub const fn of(code: Code) -> Self {
        Self { code, rd: Reg::SINK, a: Reg::ZERO, b: Reg::ZERO, c: Reg::ZERO, aux: 0, at: 0, imm: 0 }
    }

    /// The helper of a [`Code::Call`].
    pub fn helper(&self) -> Helper {
        Helper::ALL[usize::from(self.c.0) % Helper::ALL.len()]
    }

    /// Format of a floating-point operation.
    pub const fn fmt(&self) -> Fmt {
        Fmt::from_bits(self.aux >> 3)
    }

    /// Rounding-mode field of a floating-point operation; 7 means `frm`.
    pub const fn rm(&self) -> u8 {
        self.aux & 7
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Op { code, rd, a, b, c, aux, imm, .. } = *self;
        match code.shape() {
            Shape::Ri => write!(f, "{code:?} {rd}, {imm:#x}"),
            Shape::Rr => write!(f, "{code:?} {rd}, {a}"),
            Shape::Rrr => write!(f, "{code:?} {rd}, {a}, {b}"),
            Shape::Rri => write!(f, "{code:?} {rd}, {a}, {imm:#x}"),
            Shape::Load => write!(f, "{code:?} {rd}, [{a} + {imm:#x}]"),
            Shape::Store => write!(f, "{code:?} [{a} + {imm:#x}], {b}"),
            Shape::Amo => {
                write!(f, "{code:?}.{} {rd}, [{a}], {b} (op {aux}, order {})", Amo(c.0).width(), c.0 >> 3)
            }
            Shape::Fi => write!(f, "{code:?} f{}, {imm:#x}", rd.0),
            Shape::FLoad => write!(f, "{code:?}.{:?} f{}, [{a} + {imm:#x}]", self.fmt(), rd.0),
            Shape::FStore => write!(f, "{code:?}.{:?} [{a} + {imm:#x}], f{}", self.fmt(), b.0),
            Shape::Fr => write!(f, "{code:?}.{:?} f{}, f{}, rm {}", self.fmt(), rd.0, a.0, self.rm()),
            Shape::Frr => {
                write!(f, "{code:?}.{:?} f{}, f{}, f{}, rm {}", self.fmt(), rd.0, a.0, b.0, self.rm())
            }
            Shape::Frrr => write!(
                f,
                "{code:?}.{:?} f{}, f{}, f{}, f{}, rm {}",
                self.fmt(),
                rd.0,
                a.0,
                b.0,
                c.0,
                self.rm()
            ),
            Shape::FtoX => {
                write!(f, "{code:?}.{:?} {rd}, f{}, kind {}, rm {}", self.fmt(), a.0, c.0, self.rm())
            }
            Shape::FcmpX => write!(f, "{code:?}.{:?} {rd}, f{}, f{}", self.fmt(), a.0, b.0),
            Shape::XtoF => {
                write!(f, "{code:?}.{:?} f{}, {a}, kind {}, rm {}", self.fmt(), rd.0, c.0, self.rm())
            }
            Shape::Branch => write!(f, "{code:?} {a}, {b}, page{imm:+#x}"),
            Shape::Jump => write!(f, "{code:?} page{imm:+#x}"),
            Shape::JumpReg => write!(f, "{code:?} {rd}, {a} + {imm:#x}"),
            Shape::Join => write!(f, "{code:?}"),
            Shape::Call => write!(f, "Call {:?} {rd}, {a}, {b}, {imm:#x} ({aux})", self.helper()),
        }
    }
}

impl fmt::Display for Reg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..32 => write!(f, "x{}", self.0),
            63 => f.write_str("_"),
            n => write!(f, "t{}", n - Reg::TEMP.0),
        }
    }
}

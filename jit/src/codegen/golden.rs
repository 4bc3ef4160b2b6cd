//! The code that is generated for each operation, as text in the `golden/` of each backend, so that a review shows what a change does
//! to it.
//!
//! `HARTVM_BLESS=1 cargo test -p jit golden` writes the files anew.

use std::collections::HashSet;
use std::fmt::Write;
use std::mem::offset_of;
use std::path::PathBuf;

use frontend::Block;
use frontend::ir::{Amo, AmoOp, Code, CsrAccess, Fmt, Helper, IntKind, Op, Reg, Shape, fp_aux};
use softmmu::{Context, Entry, ExecEntry, NEARS, Near};

use crate::context::HartState;

/// Where the instruction of a case is in its page, and the number of that page.
const AT: u16 = 0x100;
pub(crate) const PAGE: u32 = 0x80;
/// Longest line with an operation and its code.
const WIDTH: usize = 100;

/// Guest registers that live in host registers, and some that do not.
pub(crate) struct Registers {
    pub(crate) pinned: [u8; 3],
    pub(crate) memory: [u8; 3],
    pub(crate) f_pinned: [u8; 4],
    pub(crate) f_memory: [u8; 4],
    /// Ends each block, so that it can be seen where the cold code begins. No case writes this register.
    pub(crate) mark: u8,
}

/// A backend whose code is listed.
pub(crate) trait Host {
    /// The folder in `jit/src`.
    const NAME: &'static str;
    /// Registers for the cases.
    const REGISTERS: Registers;
    /// The lines of the code for a block: without what every block begins with, and with `...` for what ends it here.
    fn listing(&mut self, block: &Block) -> Vec<String>;
}

/// A file of `golden/`, and the blocks in it.
struct Topic {
    name: &'static str,
    blocks: Vec<Vec<Op>>,
}

fn op(code: Code, rd: u8, a: u8, b: u8) -> Op {
    let rd = if rd == 0 { Reg::SINK } else { Reg(rd) };
    Op { rd, a: Reg(a), b: Reg(b), at: AT, ..Op::of(code) }
}

fn of_shapes(shapes: &[Shape]) -> impl Iterator<Item = Code> {
    Code::ALL.iter().copied().filter(|code| shapes.contains(&code.shape()))
}

fn registers(cases: &Registers) -> Vec<Vec<Op>> {
    let [p, q, r] = cases.pinned;
    let [m, n, o] = cases.memory;
    let mut blocks = Vec::new();
    for code in of_shapes(&[Shape::Rrr]) {
        let name = format!("{code:?}");
        let is_long = name.starts_with("Div") || name.starts_with("Rem");
        let places = [(p, q, r), (m, n, o), (p, p, q), (p, q, p), (m, m, p)];
        for &(rd, a, b) in &places[..if is_long { 2 } else { places.len() }] {
            blocks.push(op(code, rd, a, b));
        }
    }
    // Which operand is x0 makes a difference for few.
    for code in [Code::Add, Code::Sub, Code::AddW, Code::Slt, Code::Sltu, Code::Div, Code::Mul, Code::AddUw] {
        blocks.extend([op(code, p, 0, q), op(code, p, q, 0)]);
    }
    let mut blocks: Vec<Vec<Op>> = blocks.into_iter().map(|op| vec![op]).collect();
    // Two results of the same operands.
    for [first, second] in [[Code::Div, Code::Rem], [Code::RemuW, Code::DivuW], [Code::Mulhu, Code::Mul]] {
        blocks.push(vec![op(first, p, q, r), op(second, m, q, r)]);
    }
    // A sum and its carry, a difference and its borrow.
    for (rd, carry) in [(p, m), (m, p), (q, p), (p, p)] {
        blocks.push(vec![op(Code::Add, rd, q, r), op(Code::Sltu, carry, rd, r)]);
        blocks.push(vec![op(Code::Sub, rd, r, q), op(Code::Sltu, carry, r, rd)]);
    }
    blocks
}

fn immediates(cases: &Registers) -> Vec<Vec<Op>> {
    let [p, q, _] = cases.pinned;
    let [m, n, _] = cases.memory;
    let mut blocks = Vec::new();
    for code in of_shapes(&[Shape::Ri]) {
        for imm in [0, 5, -1, 1 << 31, 1 << 40] {
            for rd in [p, m] {
                blocks.push(Op { imm, ..op(code, rd, 0, 0) });
            }
        }
    }
    for code in of_shapes(&[Shape::Rr]) {
        blocks.extend([op(code, p, q, 0), op(code, p, p, 0), op(code, m, n, 0)]);
    }
    for code in of_shapes(&[Shape::Rri]) {
        let imm: i64 = match code {
            Code::AddI | Code::AndI | Code::OrI | Code::XorI | Code::SltI | Code::SltuI | Code::AddIW => -129,
            _ => 17,
        };
        for (rd, a) in [(p, q), (p, p), (m, n), (m, m)] {
            blocks.push(Op { imm, ..op(code, rd, a, 0) });
        }
    }
    for (code, imm) in [
        (Code::AddI, 1),
        (Code::AndI, 255),
        (Code::AndI, 1),
        (Code::SltuI, 1),
        (Code::SllI, 1),
        (Code::BextI, 40),
        (Code::BsetI, 40),
        (Code::SllIUw, 0),
    ] {
        blocks.push(Op { imm, ..op(code, p, q, 0) });
    }
    blocks.into_iter().map(|op| vec![op]).collect()
}

fn memory(cases: &Registers) -> Vec<Vec<Op>> {
    let [p, q, r] = cases.pinned;
    let [m, n, _] = cases.memory;
    let mut blocks = Vec::new();
    for code in of_shapes(&[Shape::Load]) {
        blocks
            .extend([vec![Op { imm: 8, ..op(code, p, q, 0) }], vec![Op { imm: -2048, ..op(code, m, n, 0) }]]);
    }
    for code in of_shapes(&[Shape::Store]) {
        blocks.push(vec![Op { imm: 8, ..op(code, 0, q, p) }]);
        if matches!(code, Code::Sb | Code::Sd) {
            blocks.extend([vec![Op { imm: -2048, ..op(code, 0, n, m) }], vec![op(code, 0, p, 0)]]);
        }
    }
    let load = |rd, base, imm| Op { imm, ..op(Code::Ld, rd, base, 0) };
    let store = |base, value, imm| Op { imm, ..op(Code::Sd, 0, base, value) };
    blocks.push(vec![load(0, p, 0)]);
    blocks.push(vec![load(p, p, 0)]);
    // Runs: one base, two bases, an operation in between, and a base that changes.
    blocks.push(vec![store(q, r, 8), store(q, p, 0), load(m, q, 16)]);
    blocks.push(vec![load(m, p, 0), store(q, m, 8), load(n, p, 8), store(q, n, 0)]);
    blocks.push(vec![load(m, p, 0), op(Code::Add, n, m, r), store(p, n, 8)]);
    blocks.push(vec![load(p, p, 0), load(m, p, 8), load(n, p, 16)]);
    blocks.push(vec![load(p, n, 0), load(q, n, 8)]);
    // A pointer that moves, and accesses next to each other that are not one after the other.
    let add = |reg, imm| Op { imm, ..op(Code::AddI, reg, reg, 0) };
    blocks.push(vec![load(q, p, 0), add(p, 8), store(p, q, -8), load(r, p, 0)]);
    blocks.push(vec![load(q, p, 0), load(r, p, 8), add(p, 16), store(q, r, 0), add(q, 8)]);
    blocks.push(vec![load(q, p, 24), op(Code::Xor, m, r, r), load(r, p, 16), load(m, p, 8)]);
    blocks.push(vec![store(p, q, 8), load(m, r, 8), store(p, r, 16), store(p, 0, 24)]);
    let word = |code, rd, base, value, imm| Op { imm, ..op(code, rd, base, value) };
    blocks.push(vec![
        word(Code::Lw, q, p, 0, 4),
        word(Code::Lw, r, p, 0, 0),
        word(Code::Sw, 0, p, q, 12),
        word(Code::Sw, 0, p, r, 8),
    ]);
    // A loop.
    let back = Op { imm: AT.into(), ..op(Code::Bne, 0, q, 0) };
    blocks.push(vec![load(q, p, 0), store(m, q, 8), load(p, p, 8), back]);
    for block in &mut blocks {
        for (step, op) in block.iter_mut().enumerate() {
            op.at = AT + 4 * step as u16;
        }
    }
    blocks
}

fn atomic(cases: &Registers) -> Vec<Vec<Op>> {
    let [p, q, r] = cases.pinned;
    let [m, n, o] = cases.memory;
    let mut blocks = Vec::new();
    let with = |code, log2, aux, (rd, a, b)| Op { c: Reg(Amo::new(log2, 0).0), aux, ..op(code, rd, a, b) };
    for (number, kind) in AmoOp::ALL.into_iter().enumerate() {
        let number = number as u8;
        blocks.push(with(Code::Amo, 3, number, (p, q, r)));
        if matches!(kind, AmoOp::Swap | AmoOp::And | AmoOp::Min) {
            blocks.extend([0, 1, 2].map(|log2| with(Code::Amo, log2, number, (p, q, r))));
            blocks.push(with(Code::Amo, 3, number, (m, n, o)));
            blocks.push(with(Code::Amo, 2, number, (0, q, r)));
        }
    }
    for log2 in 0..4 {
        blocks.push(with(Code::Cas, log2, 0, (p, q, r)));
    }
    blocks.push(with(Code::Cas, 3, 0, (m, n, o)));
    blocks.push(with(Code::CasPair, 4, 0, (12, q, 14)));
    for log2 in [2, 3] {
        blocks.push(with(Code::Lr, log2, 0, (p, q, 0)));
        blocks.push(with(Code::Lr, log2, 0, (m, n, 0)));
        blocks.push(with(Code::Sc, log2, 0, (p, q, r)));
        blocks.push(with(Code::Sc, log2, 0, (m, n, o)));
    }
    blocks.into_iter().map(|op| vec![op]).collect()
}

fn float(cases: &Registers) -> Vec<Vec<Op>> {
    let mut blocks = Vec::new();
    let float = |code: Code, fmt: Fmt, rm: u8, [d, a, b, c]: [u8; 4]| Op {
        rd: Reg(d),
        a: Reg(a),
        b: Reg(b),
        c: Reg(c),
        aux: fp_aux(fmt, rm),
        at: AT,
        ..Op::of(code)
    };
    // Floating-point registers that live in host registers, others, and integer registers of both kinds.
    let (pinned, others) = (cases.f_pinned, cases.f_memory);
    blocks.push(Op { aux: 0, ..op(Code::FpOn, 0, 0, 0) });
    blocks.push(Op { aux: 1, ..op(Code::FpOn, 0, 0, 0) });
    blocks.push(Op { imm: 0x3ff0_0000_0000_0000, ..op(Code::FConst, cases.f_pinned[0], 0, 0) });
    blocks.push(Op { imm: -1, ..op(Code::FConst, cases.f_memory[0], 0, 0) });
    for code in Code::ALL.iter().copied() {
        let shape = code.shape();
        let kinds: &[IntKind] = match code {
            Code::FToInt | Code::FFromInt => &[IntKind::W, IntKind::Wu, IntKind::L, IntKind::Lu],
            Code::FCvtFmt => &[IntKind::W, IntKind::Wu, IntKind::L],
            _ => &[IntKind::W],
        };
        let is_float = matches!(
            shape,
            Shape::FLoad
                | Shape::FStore
                | Shape::Fr
                | Shape::Frr
                | Shape::Frrr
                | Shape::FtoX
                | Shape::FcmpX
                | Shape::XtoF
        );
        if !is_float {
            continue;
        }
        for fmt in [Fmt::S, Fmt::D, Fmt::H] {
            for &kind in kinds {
                // Half precision is not worth seeing more than once.
                if fmt == Fmt::H && (shape == Shape::Frr || shape == Shape::Frrr) && code != Code::FAdd {
                    continue;
                }
                if code == Code::FCvtFmt && kind as u8 == fmt as u8
                    || code == Code::FToIntMod && fmt != Fmt::D
                {
                    continue;
                }
                let mut registers = pinned;
                if shape != Shape::Frrr {
                    registers[3] = kind as u8;
                }
                blocks.push(float(code, fmt, 7, registers));
            }
        }
        let mut registers = others;
        registers[3] = if shape == Shape::Frrr { others[3] } else { 0 };
        let rm = if code == Code::FToIntMod { 1 } else { 7 };
        blocks.push(float(code, Fmt::D, rm, registers));
        if matches!(code, Code::FAdd | Code::FToInt | Code::FRound | Code::FCvtFmt) {
            for rm in [0, 1] {
                registers[3] = 0;
                blocks.push(float(code, Fmt::D, rm, registers));
            }
        }
    }
    // A host that looks for underflow does it once for several operations, and keeps what they have overwritten.
    let [p, q, r, s] = pinned;
    let [m, ..] = others;
    let double = |code, registers| float(code, Fmt::D, 7, registers);
    let load = Op { imm: 8, ..double(Code::FLoad, [p, cases.pinned[0], 0, 0]) };
    let groups = [
        vec![
            double(Code::FMul, [p, q, r, 0]),
            double(Code::FAdd, [s, p, q, 0]),
            double(Code::FMul, [r, p, s, 0]),
        ],
        vec![double(Code::FMadd, [m, q, r, m]), double(Code::FDiv, [p, m, q, 0])],
        vec![double(Code::FMul, [q, p, r, 0]), load, double(Code::FMul, [s, p, q, 0])],
        vec![double(Code::FMul, [q, p, r, 0]), float(Code::FAdd, Fmt::D, 0, [s, q, q, 0])],
    ];
    let mut blocks: Vec<_> = blocks.into_iter().map(|op| vec![op]).collect();
    blocks.extend(groups);
    for block in &mut blocks {
        for (step, op) in block.iter_mut().enumerate() {
            op.at = AT + 4 * step as u16;
        }
    }
    blocks
}

fn control(cases: &Registers) -> Vec<Vec<Op>> {
    let [p, q, _] = cases.pinned;
    let [m, n, _] = cases.memory;
    let mut blocks = Vec::new();
    let at = i64::from(AT);
    for code in of_shapes(&[Shape::Branch]) {
        blocks.push(Op { aux: 4, imm: at + 0x40, ..op(code, 0, p, q) });
    }
    for (a, b, imm) in
        [(m, n, at + 0x40), (p, 0, at + 0x40), (0, m, at - 0x40), (p, q, at), (p, q, 0x1010), (p, q, -0x10)]
    {
        blocks.push(Op { aux: 4, imm, ..op(Code::Bne, 0, a, b) });
    }
    for imm in [at + 0x40, at - 0x40, at, 0x1010, -0x10] {
        blocks.push(Op { imm, ..op(Code::Jump, 0, 0, 0) });
    }
    for (rd, a, imm) in [(0, 1, 0), (1, p, -4), (m, n, 0), (p, p, 0), (5, 5, 2047)] {
        blocks.push(Op { aux: 4, imm, ..op(Code::JumpReg, rd, a, 0) });
    }
    for (number, _) in Helper::ALL.iter().enumerate() {
        blocks.push(Op { c: Reg(number as u8), imm: 0x1234, ..op(Code::Call, p, q, m) });
    }
    // Accesses to CSRs that are no helpers, as instruction bits: fflags, frm, sepc for those of the supervisor, and time.
    for (number, access, rd) in [
        (1, CsrAccess::Read, p),
        (1, CsrAccess::Write, p),
        (1, CsrAccess::Write, Reg::SINK.0),
        (2, CsrAccess::Read, m),
        (2, CsrAccess::Write, p),
        (0x141, CsrAccess::Write, p),
        (0xc01, CsrAccess::Read, p),
        (0xc01, CsrAccess::Read, m),
    ] {
        let call = op(Code::Call, rd, q, 0);
        blocks.push(Op { c: Reg(Helper::CsrPlain as u8), aux: access as u8, imm: number << 20, ..call });
    }
    let mut blocks: Vec<_> = blocks.into_iter().map(|op| vec![op]).collect();
    // Branches and jumps in the middle of a block, which lead to another of its instructions, or out.
    let on = |op: Op, insns: u16| Op { at: AT + 4 * insns, ..op };
    let branch = |target| Op { aux: 4, imm: target, ..op(Code::Bltu, 0, p, m) };
    let step = Op { imm: 1, ..op(Code::AddI, p, p, 0) };
    let join = op(Code::Join, 0, 0, 0);
    blocks.push(vec![branch(at + 4), on(join, 1), on(step, 1)]);
    blocks.push(vec![branch(at + 8), on(step, 1), on(join, 2), on(step, 2)]);
    blocks.push(vec![branch(at + 0x40), on(step, 1), on(step, 2)]);
    blocks.push(vec![branch(0x1010), on(step, 1)]);
    let ways = [
        Op { imm: at + 12, ..op(Code::Jump, 0, 0, 0) },
        Op { imm: at + 0x40, ..op(Code::Jump, 0, 0, 0) },
        Op { aux: 4, ..op(Code::JumpReg, 0, 1, 0) },
    ];
    for way in ways {
        let mut block = vec![branch(at + 8), on(way, 1), on(join, 2), on(step, 2)];
        block.extend((way.imm == at + 12).then(|| on(join, 3)));
        block.push(on(step, 3));
        blocks.push(block);
    }
    blocks
}

fn topics(cases: &Registers) -> [Topic; 6] {
    [
        Topic { name: "registers", blocks: registers(cases) },
        Topic { name: "immediates", blocks: immediates(cases) },
        Topic { name: "memory", blocks: memory(cases) },
        Topic { name: "atomic", blocks: atomic(cases) },
        Topic { name: "float", blocks: float(cases) },
        Topic { name: "control", blocks: control(cases) },
    ]
}

/// What is at an offset in the state.
pub(crate) fn state_name(offset: i64) -> Option<String> {
    let at = usize::try_from(offset).ok()?;
    let (x, f) = (offset_of!(HartState, x), offset_of!(HartState, f));
    if (x..x + 8 * 32).contains(&at) {
        return Some(format!("x{}", (at - x) / 8));
    }
    if (f..f + 8 * 32).contains(&at) {
        return Some(format!("f{}", (at - f) / 8));
    }
    macro_rules! names {
        ($($($field:ident).+),*) => {
            [$((offset_of!(HartState, $($field).+), stringify!($($field).+))),*]
        };
    }
    let names = names![
        instret,
        page,
        pc,
        mstatus,
        partial,
        reservation,
        fflags,
        frm,
        native.context,
        native.poll,
        native.limit,
        native.time,
        time_open,
        native.hart,
        native.bounce,
        native.trap_cause,
        native.trap_tval,
        native.link_site,
        native.link_page,
        native.fp_live,
        native.spill,
        native.saved,
        native.host_insns,
        native.control
    ];
    names.into_iter().find(|&(offset, _)| offset == at).map(|(_, name)| name.replace(' ', ""))
}

/// What is at an offset in the context.
pub(crate) fn context_name(offset: i64) -> Option<&'static str> {
    let (tag, addend) = (offset_of!(Entry, tag), offset_of!(Entry, addend));
    let payload = offset_of!(ExecEntry, payload);
    let names = [
        (Context::READ_OFFSET + tag, "read"),
        (Context::READ_OFFSET + addend, "read.addend"),
        (Context::WRITE_OFFSET + tag, "write"),
        (Context::WRITE_OFFSET + addend, "write.addend"),
        (Context::EXEC_OFFSET, "exec"),
        (Context::EXEC_OFFSET + payload, "exec.payload"),
    ];
    let near = [
        (offset_of!(Near, addend), ["near.read.addend", "near.write.addend"]),
        (offset_of!(Near, tag), ["near.read", "near.write"]),
        (offset_of!(Near, span), ["near.read.span", "near.write.span"]),
    ];
    let tables = [Context::NEAR_OFFSET, Context::NEAR_OFFSET + NEARS * size_of::<Near>()];
    let near = near.into_iter().flat_map(|(field, names)| {
        tables.into_iter().zip(names).map(move |(table, name)| (table + field, name))
    });
    names.into_iter().chain(near).find(|&(place, _)| place as i64 == offset).map(|(_, name)| name)
}

fn title(op: &Op) -> String {
    match op.code {
        Code::FpOn => format!("FpOn {}", op.aux),
        _ => op.to_string(),
    }
}

/// A case and its code.
pub(crate) struct Listing {
    pub(crate) topic: &'static str,
    pub(crate) ops: Vec<Op>,
    pub(crate) lines: Vec<String>,
}

/// Where the block goes on behind the operations of a case.
const GOES_ON: &str = "...";

impl Listing {
    fn new<H: Host>(host: &mut H, topic: &'static str, ops: &[Op]) -> Self {
        let mut insns: Vec<u16> = ops.iter().map(|op| op.at).collect();
        insns.dedup();
        let end = insns[insns.len() - 1] + 4;
        let mark = Op { imm: 1, ..op(Code::Const, H::REGISTERS.mark, 0, 0) };
        let all: Vec<Op> = ops.iter().copied().chain([mark]).collect();
        let lines = host.listing(&Block { start: AT, end, ops: all, insns });
        Self { topic, ops: ops.to_vec(), lines }
    }

    /// The lines that are not cold.
    pub(crate) fn usual(&self) -> &[String] {
        let end = self.lines.iter().position(|line| line == GOES_ON).unwrap_or(self.lines.len());
        &self.lines[..end]
    }
}

/// The code of every case.
pub(crate) fn listings<H: Host>(host: &mut H) -> Vec<Listing> {
    let mut listings = Vec::new();
    for Topic { name, blocks } in topics(&H::REGISTERS) {
        listings.extend(blocks.iter().map(|ops| Listing::new(host, name, ops)));
    }
    listings
}

fn text<H: Host>(host: &mut H, topic: &Topic) -> String {
    let mut text = String::new();
    let mut seen = HashSet::new();
    for ops in &topic.blocks {
        let title: Vec<String> = ops.iter().map(title).collect();
        if !seen.insert(title.clone()) {
            continue;
        }
        let mut listing = Listing::new(host, topic.name, ops).lines;
        if listing.last().is_some_and(|line| line == GOES_ON) {
            listing.pop();
        }
        let (title, code) = (title.join(" / "), listing.join("; "));
        let is_long = title.len() + code.len() > WIDTH || listing.iter().any(|line| line.ends_with(':'));
        if is_long {
            let indented = |line: &String| {
                let depth = if line.ends_with(':') { 2 } else { 4 };
                format!("{:depth$}{line}\n", "")
            };
            let lines: String = listing.iter().map(indented).collect();
            let _ = write!(text, "{title}\n{lines}");
        } else {
            let _ = writeln!(text, "{title:<24} {code}");
        }
    }
    text
}

fn path<H: Host>(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src").join(H::NAME).join("golden");
    folder.join(format!("{name}.txt"))
}

/// Compares the code of a backend with its files, or writes them.
pub(crate) fn check<H: Host>(host: &mut H) {
    for topic in topics(&H::REGISTERS) {
        check_file::<H>(topic.name, &text(host, &topic));
    }
}

/// The same for the atomic operations of a host that lacks instructions for them.
pub(crate) fn check_atomic<H: Host>(host: &mut H, file: &str) {
    let topic = Topic { name: "atomic", blocks: atomic(&H::REGISTERS) };
    check_file::<H>(file, &text(host, &topic));
}

fn check_file<H: Host>(file: &str, now: &str) {
    let path = path::<H>(file);
    if std::env::var_os("HARTVM_BLESS").is_some() {
        return std::fs::write(&path, now).expect("the source directory can be written");
    }
    let reviewed =
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let difference = (1..).zip(reviewed.lines().zip(now.lines())).find(|(_, (old, new))| old != new);
    if let Some((line, (old, new))) = difference {
        panic!("{}:{line}: `{old}` is `{new}` now; HARTVM_BLESS=1 accepts it for review", path.display());
    }
    assert_eq!(reviewed.len(), now.len(), "{}: HARTVM_BLESS=1 accepts it for review", path.display());
}

/// Checks that the files of a backend show every operation and every helper.
pub(crate) fn check_complete<H: Host>() {
    let topics = topics(&H::REGISTERS);
    let ops = || topics.iter().flat_map(|topic| topic.blocks.iter().flatten());
    let codes: HashSet<Code> = ops().map(|op| op.code).collect();
    let missing: Vec<_> = Code::ALL.iter().filter(|code| !codes.contains(code)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let helpers: HashSet<Helper> = ops().filter(|op| op.code == Code::Call).map(Op::helper).collect();
    assert_eq!(helpers.len(), Helper::ALL.len());
}

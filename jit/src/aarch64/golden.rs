//! The code that is generated for each operation, as text; see [`crate::codegen::golden`].

use std::collections::{BTreeMap, BTreeSet};

use frontend::encode::{Operands, encode};
use frontend::ir::{Code, Fmt, Op, Reg, fp_aux};
use frontend::isa::Isa;
use frontend::{Block, Decoder, Opcode};

use super::listing::decode;
use super::{Features, Translator, shared_code};
use crate::codegen::golden::{self, Host, PAGE, Registers, state_name};

/// Bytes that every block begins with: the entry, and the count of instructions.
const BEGIN: usize = 12;
/// The file with atomic operations as loops of exclusive accesses.
pub(crate) const EXCLUSIVE: &str = "exclusive";
/// What ends a block here.
const MARK: [&str; 2] = ["mov x16, #0x1", "str x16, [state.x27]"];

struct Aarch64 {
    translator: Translator,
    /// Names of places in the shared code.
    names: BTreeMap<u32, String>,
}

impl Host for Aarch64 {
    const NAME: &'static str = "aarch64";
    const REGISTERS: Registers = Registers {
        pinned: [10, 2, 31],
        memory: [22, 23, 24],
        f_pinned: [10, 11, 12, 13],
        f_memory: [28, 29, 30, 31],
        mark: 27,
    };

    fn listing(&mut self, block: &Block) -> Vec<String> {
        self.translator.translate(block, PAGE, false);
        listing(&self.translator, &self.names)
    }
}

fn listing(translator: &Translator, names: &BTreeMap<u32, String>) -> Vec<String> {
    let code = &translator.code()[..translator.instructions()];
    let external: BTreeMap<usize, u32> =
        translator.asm.external.iter().map(|&(at, target)| (at as usize, target)).collect();
    let insns: Vec<(usize, String, Option<i64>)> = code
        .chunks_exact(4)
        .enumerate()
        .skip(BEGIN / 4)
        .map(|(index, word)| {
            let (text, displacement) = decode([word[0], word[1], word[2], word[3]]);
            (4 * index, text, displacement.map(|displacement| 4 * index as i64 + displacement))
        })
        .collect();
    let is_inside = |target: i64| (BEGIN as i64..code.len() as i64).contains(&target);
    let targets: BTreeSet<i64> = insns
        .iter()
        .filter(|(at, text, _)| !external.contains_key(at) && !text.starts_with("adr "))
        .filter_map(|&(_, _, target)| target.filter(|&target| is_inside(target)))
        .collect();
    let label = |address: i64| targets.iter().position(|&target| target == address).map(|n| format!("L{n}"));
    let mut lines = Vec::new();
    for (at, text, target) in insns {
        if let Some(label) = label(at as i64) {
            lines.push(format!("{label}:"));
        }
        let operands = text.find('$').map_or(text.as_str(), |at| &text[..at]);
        let line = match (external.get(&at), target) {
            (Some(target), _) => {
                let name = names.get(target).cloned().unwrap_or_else(|| format!("at {target:#x}"));
                format!("{operands}<{name}>")
            }
            (None, Some(target)) if text.starts_with("adr ") => {
                format!("{operands}{}", if is_inside(target) { "site" } else { "op" })
            }
            (None, Some(target)) => {
                format!("{operands}{}", label(target).unwrap_or_else(|| "body".to_owned()))
            }
            (None, None) => name_field(&text),
        };
        lines.push(line);
        if lines.ends_with(&MARK.map(str::to_owned)) {
            lines.truncate(lines.len() - MARK.len());
            lines.push("...".to_owned());
        }
    }
    lines
}

/// `line` with the offset of a field in the state replaced by its name.
fn name_field(line: &str) -> String {
    let Some((before, rest)) = line.split_once("[x28, #0x") else { return line.to_owned() };
    let Some((offset, after)) = rest.split_once(']') else { return line.to_owned() };
    let name = i64::from_str_radix(offset, 16).ok().and_then(state_name);
    name.map_or_else(|| line.to_owned(), |name| format!("{before}[state.{name}]{after}"))
}

/// The backend for a host with all [`Features`], for tests that list what it makes.
pub(crate) fn host() -> impl Host {
    host_with(Features { lse: true, pmull: true })
}

fn host_with(features: Features) -> Aarch64 {
    let (_, thunks) = shared_code();
    let names = thunks.parts().into_iter().collect();
    Aarch64 { translator: Translator::with_features(thunks, features), names }
}

#[test]
fn generated_code_is_as_reviewed() {
    golden::check(&mut host());
    golden::check_atomic(&mut host_with(Features { lse: false, pmull: false }), EXCLUSIVE);
}

#[test]
fn every_operation_is_in_a_file() {
    golden::check_complete::<Aarch64>();
}

/// Host instructions for each guest instruction of a loop, once it is in its loop.
fn density(body: &[(Opcode, [u8; 4], i64)]) -> f64 {
    const START: u16 = 0x100;
    let insn = |&(opcode, [rd, rs1, rs2, rs3], imm): &(Opcode, [u8; 4], i64)| {
        encode(opcode, &Operands { rd, rs1, rs2, rs3, rm: 7, imm }).expect("an instruction")
    };
    let count = [10, 10, 0, 0];
    let back = -4 * (body.len() as i64 + 1);
    let end = [(Opcode::Addi, count, -1), (Opcode::Bne, [0, 10, 0, 0], back)];
    let words: Vec<u32> = body.iter().chain(&end).map(insn).collect();
    let block = Block::cut(&Decoder::new(&Isa::ALL), START, words.len(), |at| {
        let word = words.get(usize::from(at - START) / 4).ok_or(())?;
        Ok::<u16, ()>((word >> (8 * (at & 2))) as u16)
    });
    let block = block.expect("code");
    let (_, thunks) = shared_code();
    let mut translator = Translator::new(thunks);
    translator.translate(&block, PAGE, false);
    // Without the entry, what comes before the loop, and the jump behind it.
    let round = translator.usual() - translator.asm.offset_of(translator.body) as usize - 4;
    // It is what is counted at the body, by what `movz x16` loads.
    translator.count_host();
    translator.translate(&block, PAGE, false);
    let body = translator.asm.offset_of(translator.body) as usize;
    let movz: [u8; 4] = translator.code()[body..][..4].try_into().expect("four bytes");
    assert_eq!(u32::from_le_bytes(movz), 0xd280_0010 | (round as u32 / 4) << 5);
    round as f64 / 4.0 / words.len() as f64
}

#[test]
fn a_block_that_is_too_long_for_short_branches_has_others() {
    let (_, thunks) = shared_code();
    let mut translator = Translator::new(thunks);
    let double = |code| Op { aux: fp_aux(Fmt::D, 7), rd: Reg(1), a: Reg(2), b: Reg(3), ..Op::of(code) };
    let mut words = |count: usize| {
        let on = Op { aux: 1, ..Op::of(Code::FpOn) };
        let ops = [on].into_iter().chain(vec![double(Code::FMul); count]).collect();
        translator.translate(&Block { start: 0, end: 4, ops, insns: vec![0] }, PAGE, false);
        let code = &translator.code()[..translator.instructions()];
        let words = code.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        let tests = words.clone().filter(|word| word & 0x7e00_0000 == 0x3600_0000).count();
        let products = words.filter(|word| word & 0xffe0_fc00 == 0x1e60_0800).count();
        (tests, products)
    };
    // One test for what FpOn asks, and one for underflow.
    assert_eq!(words(100), (2, 100));
    assert_eq!(words(20_000), (0, 20_000));
}

/// The code of these operations, which end in a jump to elsewhere, without what is cold.
fn usual(ops: &[Op]) -> Vec<String> {
    let jump = Op { imm: 0x800, ..Op::of(Code::Jump) };
    let numbered = ops.iter().chain([&jump]).zip((0x100..).step_by(4));
    let ops: Vec<Op> = numbered.map(|(op, at)| Op { at, ..*op }).collect();
    let insns: Vec<u16> = ops.iter().map(|op| op.at).collect();
    let end = insns[insns.len() - 1] + 4;
    let lines = host().listing(&Block { start: 0x100, end, ops, insns });
    let jump = lines.iter().position(|line| line.starts_with("b L")).expect("the jump");
    lines[..jump].iter().filter(|line| !line.ends_with(':')).cloned().collect()
}

#[test]
fn what_is_put_off_is_done_when_somebody_looks() {
    let op = |code, rd, a, b| Op { rd: Reg(rd), a: Reg(a), b: Reg(b), ..Op::of(code) };
    let sum = op(Code::AddW, 10, 11, 12);
    let [add, extend] = ["add w0, w1, w2", "sxtw x0, w0"];
    let usual = |ops: &[Op]| usual(ops).join("; ");
    let single = |code, rd, a, b| Op { aux: fp_aux(Fmt::S, 7), ..op(code, rd, a, b) };
    assert_eq!(usual(&[sum]), format!("{add}; {extend}"), "a way out");
    assert_eq!(usual(&[sum, op(Code::And, 13, 14, 10)]), format!("{add}; {extend}; and x3, x4, x0"));
    assert_eq!(usual(&[sum, op(Code::Add, 13, 14, 10)]), format!("{add}; add x3, x4, w0, sxtw; {extend}"));
    assert_eq!(
        usual(&[sum, op(Code::Sh2add, 13, 10, 14)]),
        format!("{add}; add x3, x4, w0, sxtw #2; {extend}")
    );
    assert_eq!(
        usual(&[sum, op(Code::Slt, 13, 14, 10)]),
        format!("{add}; cmp x4, w0, sxtw; cset x3, lt; {extend}")
    );
    assert_eq!(usual(&[sum, op(Code::MulW, 10, 10, 10)]), format!("{add}; mul w0, w0, w0; {extend}"));
    assert!(!usual(&[sum, op(Code::Sw, 0, 13, 10), op(Code::Const, 10, 0, 0)]).contains("sxtw"));
    assert!(usual(&[sum, op(Code::Sd, 0, 13, 10), op(Code::Const, 10, 0, 0)]).contains(extend));
    let [first, second] = [single(Code::FFromBits, 1, 11, 0), single(Code::FFromBits, 2, 12, 0)];
    let product = single(Code::FMul, 3, 1, 2);
    let product = usual(&[first, second, product]);
    let boxes = product.find("orr v").expect("boxes");
    assert!(product.find("fmul s7, s5, s6").expect("a product") < boxes, "{product}");
    let double = Op { aux: fp_aux(Fmt::D, 7), ..op(Code::FAdd, 3, 1, 1) };
    assert_eq!(usual(&[first, double]), "fmov s5, w1; orr v5.8b, v5.8b, v3.8b; fadd d7, d5, d5");
}

#[test]
fn loops_have_few_instructions() {
    use Opcode::{Add, Addi, Andi, FaddD, FmaddD, FmulD, FsubD, Ld, Lw, Or, Sd, Slli, Srli, Sub, Sw, Xor};
    let integer = density(&[
        (Add, [11, 11, 12, 0], 0),
        (Slli, [13, 11, 0, 0], 7),
        (Xor, [12, 12, 13, 0], 0),
        (Srli, [13, 12, 0, 0], 9),
        (Sub, [11, 11, 13, 0], 0),
        (Andi, [13, 11, 0, 0], 255),
        (Or, [12, 12, 13, 0], 0),
    ]);
    assert!(integer <= 1.4, "{integer}");
    let memory = density(&[
        (Addi, [5, 5, 0, 0], 64),
        (Slli, [13, 5, 0, 0], 49),
        (Srli, [13, 13, 0, 0], 49),
        (Add, [13, 13, 6, 0], 0),
        (Ld, [11, 13, 0, 0], 0),
        (Lw, [12, 13, 0, 0], 8),
        (Add, [11, 11, 12, 0], 0),
        (Sd, [0, 13, 11, 0], 16),
        (Sw, [0, 13, 12, 0], 24),
    ]);
    assert!(memory <= 2.0, "{memory}");
    let floating_point = density(&[
        (FmulD, [4, 1, 3, 0], 0),
        (FaddD, [5, 4, 2, 0], 0),
        (FmaddD, [6, 5, 3, 2], 0),
        (FsubD, [7, 6, 4, 0], 0),
        (FmulD, [1, 7, 3, 0], 0),
        (FaddD, [1, 1, 2, 0], 0),
    ]);
    assert!(floating_point <= 2.0, "{floating_point}");
}

//! The code that is generated for each operation, as text; see [`crate::codegen::golden`].

use std::collections::{BTreeMap, BTreeSet};

use frontend::Block;

use super::listing::decode;
use super::{Features, Translator, shared_code};
use crate::codegen::golden::{self, Host, PAGE, Registers, state_name};

/// Bytes that every block begins with: the entry, and the count of instructions.
const BEGIN: usize = 12;
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
        self.translator.translate(block, PAGE);
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
    let (_, thunks) = shared_code();
    let names = thunks.parts().into_iter().collect();
    Aarch64 { translator: Translator::with_features(thunks, Features { lse: true, pmull: true }), names }
}

#[test]
fn generated_code_is_as_reviewed() {
    golden::check(&mut host());
}

#[test]
fn every_operation_is_in_a_file() {
    golden::check_complete::<Aarch64>();
}

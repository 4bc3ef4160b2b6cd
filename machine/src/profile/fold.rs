//! From addresses to names: equal call chains become one.

use std::collections::BTreeMap;
use std::fmt::Write;

use jit::inspect::symbols::Symbols;
use softmmu::Privilege;

use super::{Samples, Stack};

/// What waits in WFI, as the innermost of its functions.
const WAITS: &str = "[wfi]";

/// Names from the outermost, the privilege mode, to the innermost function, with a count.
pub(super) type Folded = BTreeMap<Vec<String>, u64>;

pub(crate) fn mode_name(mode: Privilege) -> &'static str {
    match mode {
        Privilege::User => "user",
        Privilege::Supervisor => "supervisor",
        Privilege::Machine => "machine",
    }
}

/// Names the functions of all samples.
pub(super) fn fold(samples: &Samples, symbols: &Symbols) -> Folded {
    let mut folded = Folded::new();
    for (stack, weight) in &samples.stacks {
        *folded.entry(names(stack, symbols)).or_default() += weight;
    }
    if samples.lost > 0 {
        folded.insert(vec!["[lost]".into()], samples.lost);
    }
    folded
}

fn names(stack: &Stack, symbols: &Symbols) -> Vec<String> {
    let mut names = vec![mode_name(stack.mode).to_string()];
    for (depth, &address) in stack.addresses.iter().enumerate().rev() {
        // A call can be the last instruction of its function.
        let inside = if depth == 0 { address } else { address.wrapping_sub(1) };
        names.push(match symbols.find(inside) {
            Some((name, _)) => clean(name),
            None => format!("[{:#x}]", inside & !0xfff),
        });
    }
    if stack.waits {
        names.push(WAITS.into());
    }
    names
}

/// What separates names and lines does not occur in them.
fn clean(name: &str) -> String {
    name.chars().map(|c| if c == ';' || c.is_whitespace() || c.is_control() { '_' } else { c }).collect()
}

/// A line for each call chain.
pub(super) fn text(folded: &Folded) -> String {
    let mut text = String::new();
    for (names, count) in folded {
        let _ = writeln!(text, "{} {count}", names.join(";"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use jit::inspect::symbols::Symbol;

    #[test]
    fn chains_of_equal_names_become_one_line() {
        let mut symbols = Symbols::default();
        let symbol = |address, name: &str| Symbol { address, size: 16, name: name.into() };
        symbols.add(vec![symbol(0x1000, "ma in;"), symbol(0x1010, "leaf")], None);
        let stack = |addresses: &[u64], waits| Stack {
            mode: Privilege::Supervisor,
            waits,
            addresses: addresses.into(),
        };
        let mut samples = Samples::default();
        samples.add(stack(&[0x1010, 0x1004], false), 2);
        // The return address is just past `ma in;`.
        samples.add(stack(&[0x1018, 0x1010], false), 3);
        samples.add(stack(&[0x2468], true), 1);
        let want = "supervisor;[0x2000];[wfi] 1\nsupervisor;ma_in_;leaf 5\n";
        assert_eq!(text(&fold(&samples, &symbols)), want);
    }
}

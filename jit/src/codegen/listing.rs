//! Generated code for people: names of the shared code, and lines of a disassembly.

use std::fmt::Write;

use super::Thunks;

/// Most bytes of an instruction that are shown in one line.
const COLUMNS: usize = 11;

/// The shared code's parts, by arena offset: start, end, name.
pub(crate) fn symbols(thunks: &Thunks) -> Vec<(u32, u32, String)> {
    let mut starts = thunks.parts();
    starts.push((0, "tables".to_owned()));
    starts.sort();
    let ends: Vec<u32> = starts.iter().skip(1).map(|&(start, _)| start).chain([thunks.end]).collect();
    let named = starts.into_iter().zip(ends).map(|((start, name), end)| (start, end, name));
    named.filter(|(start, end, _)| start < end).collect()
}

/// Where a block's code runs: its host address, and that of offset 0 of the arena.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) address: u64,
    pub(crate) arena: u64,
}

impl Place {
    /// Adds the name of the shared code at host address `target` to a line.
    pub(crate) fn name_target(self, text: &mut String, thunks: &Thunks, target: u64) {
        let target = target.wrapping_sub(self.arena);
        if let Some((_, name)) = thunks.parts().iter().find(|&&(start, _)| u64::from(start) == target) {
            let _ = write!(text, "  ; {name}");
        }
    }

    /// Writes what is behind the first `instructions` bytes of a block.
    pub(crate) fn data(self, out: &mut String, code: &[u8], instructions: usize) {
        for (index, bytes) in code[instructions..].chunks(8).enumerate() {
            line(out, self.address + (instructions + index * 8) as u64, bytes, "(data)");
        }
    }
}

/// Writes one line: an address, bytes, what they are.
pub(crate) fn line(out: &mut String, address: u64, bytes: &[u8], text: &str) {
    let hex: String = bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let _ = writeln!(out, "  {address:12x}:  {hex:width$}  {text}", width = 2 * COLUMNS);
}

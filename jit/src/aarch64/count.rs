//! Counts the host instructions that generated code executes, where somebody asked for that.
//!
//! A *stretch* is code that is executed from its start to its end: a block up to its conditional branch, and what comes after the
//! branch on either side. It begins with an addition of the number of its instructions, which is filled in at its end. Not counted
//! are these additions, shared code, and the ways around what usually happens; those are counted as if it had happened.

use dynasm::dynasm;

use super::Translator;
use super::asm::change;
use super::regs::{X17, field};

/// A stretch that has begun.
#[derive(Clone, Copy)]
pub(super) struct Stretch {
    /// Where its first instruction is, just behind the addition.
    start: u32,
    /// Instructions that are not in it but are executed with it.
    more: u32,
}

/// What comes before the body of a block is executed after a look into the executable-code cache only.
const ENTRY: u32 = super::BODY / 4;

impl Translator {
    /// From now on host instructions are counted.
    pub(crate) fn count_host(&mut self) {
        self.counts = true;
    }

    /// Begins a stretch. Clobbers x16 and x17.
    pub(super) fn begin_stretch(&mut self) {
        if self.counts {
            debug_assert!(self.stretch.is_none());
            dynasm!(self.asm ; .arch aarch64 ; movz x16, 0);
            self.asm.ldr(X17, field!(native.host_insns));
            dynasm!(self.asm ; .arch aarch64 ; add x17, x17, x16);
            self.asm.str(X17, field!(native.host_insns));
            self.stretch = Some(Stretch { start: self.asm.here(), more: 0 });
        }
    }

    /// Ends the stretch, if one has begun.
    pub(super) fn end_stretch(&mut self) {
        if let Some(Stretch { start, more }) = self.stretch.take() {
            let count = (self.asm.here() - start) / 4 + more;
            // The operand of `movz`.
            change(&mut self.asm.bytes, start - 16, |word| word | (count & 0xffff) << 5);
        }
    }

    /// The stretch ends in a look into the executable-code cache.
    pub(super) fn stretch_looks_up(&mut self) {
        if let Some(stretch) = &mut self.stretch {
            stretch.more += ENTRY;
        }
    }
}

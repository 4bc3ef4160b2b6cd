//! Counts the host instructions that generated code executes, where somebody asked for that.
//!
//! A *stretch* is code that is executed from its start to its end: a block up to its conditional branch, and what comes after the
//! branch on either side. It begins with an addition of the number of its instructions, which is filled in at its end. Not counted
//! are these additions, shared code, and the ways around what usually happens; those are counted as if it had happened.

use dynasm::dynasm;
use dynasmrt::DynasmApi;

use super::Translator;
use super::listing::instructions;
use super::regs::field;

/// A stretch that has begun.
#[derive(Clone, Copy)]
pub(super) struct Stretch {
    /// Where its first instruction is, just behind the addition.
    start: u32,
    /// Instructions that are not in it but are executed with it.
    more: u32,
}

/// What comes before the body of a block, which is executed after a look into the executable-code cache only, is two instructions.
const ENTRY: u32 = 2;

impl Translator {
    /// From now on host instructions are counted.
    pub(crate) fn count_host(&mut self) {
        self.counts = true;
    }

    /// Begins a stretch. Clobbers the flags.
    pub(super) fn begin_stretch(&mut self) {
        if self.counts {
            debug_assert!(self.stretch.is_none());
            let nothing_yet = 0_i32;
            dynasm!(self.asm ; .arch x64 ; add QWORD [r15 + field!(native.host_insns)], DWORD nothing_yet);
            self.stretch = Some(Stretch { start: self.asm.here(), more: 0 });
        }
    }

    /// Ends the stretch, if one has begun.
    pub(super) fn end_stretch(&mut self) {
        if let Some(Stretch { start, more }) = self.stretch.take() {
            let count = instructions(&self.asm.bytes[start as usize..]) + more;
            // The immediate is what ends the addition.
            self.asm.bytes[start as usize - 4..][..4].copy_from_slice(&count.to_le_bytes());
        }
    }

    /// The stretch ends in a look into the executable-code cache.
    pub(super) fn stretch_looks_up(&mut self) {
        if let Some(stretch) = &mut self.stretch {
            stretch.more += ENTRY;
        }
    }
}

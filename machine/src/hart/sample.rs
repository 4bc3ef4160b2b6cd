//! Where a hart is, for the profiler: its program counter and call chain by frame pointers.

use std::sync::{Arc, LazyLock};

use frontend::Opcode;
use frontend::insn::Pattern;
use frontend::insn_c::ROWS_C;
use softmmu::{GuestMemory, Mmu, PAGE_SIZE};

use super::Hart;
use crate::profile::{Profiler, Samples, Stack};

/// Registers of the calling convention: return address, stack frame.
const RA: usize = 1;
const FP: usize = 8;

/// Longest call chain that is followed.
const MAX_FRAMES: usize = 96;
/// The kernel's stacks, and so most frames, are smaller. Beyond it a frame pointer is taken for something else.
const MAX_FRAME: u64 = 1 << 20;

static COMPRESSED_CALL: LazyLock<Pattern> = LazyLock::new(|| {
    let row = ROWS_C.iter().find(|row| row.mnemonic == "c.jalr");
    row.expect("the table has all compressed instructions").pattern
});

/// A hart's samples.
pub(super) struct Recorder {
    profiler: Arc<Profiler>,
    samples: Samples,
}

impl Recorder {
    pub(super) fn new(profiler: &Arc<Profiler>) -> Self {
        Self { profiler: Arc::clone(profiler), samples: Samples::default() }
    }

    /// The hart's thread ends.
    pub(super) fn finish(self) {
        self.profiler.add(self.samples);
    }
}

impl Hart {
    /// Takes down where the hart is, if it was asked to.
    pub(super) fn sample(&mut self) {
        let Some(recorder) = &mut self.recorder else { return };
        let weight = self.shared.take_samples();
        if weight == 0 {
            return;
        }
        let symbols = &recorder.profiler.symbols;
        symbols.note_trap_vector(self.csr.stvec);
        let pc = if self.waiting { self.state.pc } else { self.state.polled_at().unwrap_or(self.state.pc) };
        let (ra, fp) = (self.state.x[RA], self.state.x[FP]);
        let same_function = |a, b| symbols.same_function(a, b);
        let addresses =
            Memory::new(&self.mmu, &self.system.memory).call_chain(pc, ra, fp, same_function).into();
        let stack = Stack { mode: self.state.privilege, waits: self.waiting, addresses };
        recorder.samples.add(stack, weight.into());
    }
}

/// Memory as the hart translates it, without a trace in it.
struct Memory<'a> {
    mmu: &'a Mmu,
    /// RAM and ROM; devices would notice that they are read.
    memory: &'a GuestMemory,
    /// Pages that were translated last: virtual, physical.
    pages: [(u64, u64); 4],
    next: usize,
}

impl<'a> Memory<'a> {
    fn new(mmu: &'a Mmu, memory: &'a GuestMemory) -> Self {
        Self { mmu, memory, pages: [(u64::MAX, 0); 4], next: 0 }
    }

    fn translate(&mut self, va: u64) -> Option<u64> {
        let page = va & !(PAGE_SIZE - 1);
        if let Some(&(_, pa)) = self.pages.iter().find(|&&(known, _)| known == page) {
            return Some(pa | va & (PAGE_SIZE - 1));
        }
        let pa = self.mmu.translate_debug(page)?;
        self.pages[self.next % self.pages.len()] = (page, pa);
        self.next += 1;
        Some(pa | va & (PAGE_SIZE - 1))
    }

    /// A doubleword at a multiple of 8.
    fn word(&mut self, va: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        let pa = self.translate(va)?;
        self.memory.read(pa, &mut bytes).ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    fn half(&mut self, va: u64) -> Option<u16> {
        let mut bytes = [0; 2];
        let pa = self.translate(va)?;
        self.memory.read(pa, &mut bytes).ok()?;
        Some(u16::from_le_bytes(bytes))
    }

    /// Whether an address is behind a call: that tells return addresses from other numbers.
    fn follows_call(&mut self, address: u64) -> bool {
        if address & 1 != 0 {
            return false;
        }
        let Some(low) = self.half(address.wrapping_sub(2)) else { return false };
        if COMPRESSED_CALL.matches(low.into()) {
            return true;
        }
        let Some(first) = self.half(address.wrapping_sub(4)) else { return false };
        let word = u32::from(first) | u32::from(low) << 16;
        let links = word >> 7 & 31 == RA as u32;
        links && [Opcode::Jal, Opcode::Jalr].iter().any(|op| op.row().pattern.matches(word))
    }

    /// The function at `pc`, and the return addresses that lead out of it. A frame has the return address at fp - 8 and the
    /// caller's frame pointer at fp - 16 (psABI, "Frame Pointer Convention").
    fn call_chain(
        &mut self,
        pc: u64,
        ra: u64,
        mut fp: u64,
        same_function: impl Fn(u64, u64) -> bool,
    ) -> Vec<u64> {
        let mut chain = vec![pc];
        // Before a function has called another one, and after it has taken down its frame, only ra knows its caller; in
        // between ra is in the function itself.
        if self.follows_call(ra) && !same_function(pc, ra.wrapping_sub(1)) {
            chain.push(ra);
        }
        while chain.len() < MAX_FRAMES && fp & 7 == 0 && fp >= 16 {
            let (Some(next), Some(mut caller)) = (self.word(fp - 16), self.word(fp - 8)) else { break };
            let mut next = next;
            if chain.len() <= 2 && !self.follows_call(caller) && is_above(caller, fp) {
                // A function that calls nothing has saved the frame pointer only, where others have the return address.
                (next, caller) = (caller, ra);
            }
            if !self.follows_call(caller) {
                break;
            }
            if !(chain.len() == 2 && chain[1] == caller) {
                chain.push(caller);
            }
            // On the way from the kernel's stack to the program's, addresses fall.
            let leaves_kernel = (fp as i64) < 0 && (next as i64) > 0;
            if !is_above(next, fp) && !leaves_kernel {
                break;
            }
            fp = next;
        }
        chain
    }
}

fn is_above(fp: u64, of: u64) -> bool {
    fp & 7 == 0 && fp > of && fp - of <= MAX_FRAME
}

//! What the backends share: how generated code talks to the engine, and what is found out about a block before a host's
//! instructions are chosen.
//!
//! [`combine`] puts operations together, [`demand`] says which results are read as 32 bits only or not at all, [`runs`] which
//! accesses share a probe of the TLB, [`exchange`] which guest registers a loop wants in host registers, [`float`] what
//! floating-point operations a backend carries out itself, [`boxes`] what it asks about registers that are read as singles,
//! [`underflow`] where it looks for underflow, [`pending`] what of results it puts off,
//! [`kept`] which accesses of a loop keep their page in registers.

#[cfg_attr(not(target_arch = "aarch64"), allow(dead_code, reason = "x86-64 asks for each register"))]
pub(crate) mod boxes;
pub(crate) mod combine;
pub(crate) mod demand;
pub(crate) mod exchange;
pub(crate) mod float;
#[cfg(test)]
pub(crate) mod golden;
#[cfg_attr(not(target_arch = "aarch64"), allow(dead_code, reason = "x86-64 has too few registers"))]
pub(crate) mod kept;
pub(crate) mod listing;
#[cfg(test)]
mod parity;
#[cfg_attr(not(target_arch = "aarch64"), allow(dead_code, reason = "x86-64 completes every result"))]
pub(crate) mod pending;
pub(crate) mod runs;
#[cfg_attr(not(target_arch = "aarch64"), allow(dead_code, reason = "x86-64 detects tininess as RISC-V does"))]
pub(crate) mod underflow;

use frontend::Block;
use frontend::ir::Op;

/// The operations of a block in `buffer`, ready to be translated: fewer, and marked with what [`demand`] has found out.
/// A host whose operations have three operands gains if what is done `in_place` goes into what reads it.
pub(crate) fn prepare(mut buffer: Vec<Op>, block: &Block, in_place: bool) -> Vec<Op> {
    buffer.clear();
    buffer.extend_from_slice(&block.ops);
    combine::combine(&mut buffer, in_place);
    demand::mark(&mut buffer);
    buffer
}

/// A direct jump that can be linked to another block of the same page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    /// Offset in the code of what is patched.
    pub(crate) field: u32,
    /// Page offset of the instruction it leads to.
    pub(crate) target: u16,
}

/// Why generated code was left, as `enter` returns it.
pub(crate) mod exit {
    /// `pc` is the next instruction; nothing else is known of it.
    pub(crate) const DISPATCH: u64 = 0;
    /// As [`DISPATCH`], and the direct jump at `link_site` leads there.
    pub(crate) const LINK: u64 = 1;
    /// The instruction at `pc` raised the trap in `trap_cause` and `trap_tval`.
    pub(crate) const TRAP: u64 = 2;
    /// Generated code cannot do the instruction at `pc`.
    pub(crate) const INTERPRET: u64 = 3;
    /// The block at `pc` was killed; the executable-code cache may still know it.
    pub(crate) const STALE: u64 = 4;
}

/// What the functions behind [`crate::context::Callbacks`] return, apart from the addresses of memory accesses.
pub(crate) mod status {
    /// Go on.
    pub(crate) const DONE: u64 = 0;
    /// Go on by way of the dispatcher.
    pub(crate) const LEAVE: u64 = 1;
    /// A trap.
    pub(crate) const TRAP: u64 = 2;
}

/// Where a jump leads, and how many instructions of the block, all of which have been counted, are not executed for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To an instruction of the block.
    Inside {
        target: u16,
        skipped: u32,
    },
    Out {
        skipped: u32,
    },
}

/// The sites of a block. A *site* says where in its block something can go wrong: bits 15 to 0 are the instruction's offset in its
/// page, the bits above how many instructions of the block have not retired before it, which is what the block has counted too
/// many.
#[derive(Default)]
pub(crate) struct Sites {
    /// Page offsets of the block's instructions.
    insns: Vec<u16>,
}

/// The places in a block that its branches lead to, which are labels of the host's code.
pub(crate) struct Joins<L>(Vec<(u16, L)>);

impl<L: Copy> Joins<L> {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The label for the instruction at page offset `at`, which `make` makes.
    pub(crate) fn label(&mut self, at: u16, make: impl FnOnce() -> L) -> L {
        if let Some(&(_, label)) = self.0.iter().find(|&&(known, _)| known == at) {
            return label;
        }
        let label = make();
        self.0.push((at, label));
        label
    }
}

impl Sites {
    pub(crate) fn set(&mut self, insns: &[u16]) {
        self.insns.clear();
        self.insns.extend_from_slice(insns);
    }

    /// The site of the instruction at page offset `at`.
    pub(crate) fn site(&self, at: u16) -> u32 {
        u32::from(at) | self.not_retired(at) << 16
    }

    /// Where a jump at page offset `at` to `target` leads.
    pub(crate) fn way(&self, at: u16, target: i64) -> Way {
        let left = self.not_retired(at).saturating_sub(1);
        match u16::try_from(target) {
            Ok(target) if target > at && self.insns.binary_search(&target).is_ok() => {
                Way::Inside { target, skipped: left - self.not_retired(target) }
            }
            _ => Way::Out { skipped: left },
        }
    }

    /// Whether the instruction at page offset `at` is the last.
    pub(crate) fn is_last(&self, at: u16) -> bool {
        self.insns.last() == Some(&at)
    }

    /// How many instructions of the block have not retired before the one at page offset `at`.
    pub(crate) fn not_retired(&self, at: u16) -> u32 {
        (self.insns.len() - self.insns.partition_point(|&insn| insn < at)) as u32
    }
}

/// An operation as generated code passes it to Rust: the layout of [`Op`], which is `repr(C)`.
pub(crate) fn op_bytes(op: &Op) -> [u8; size_of::<Op>()] {
    let Op { code, rd, a, b, c, aux, at, imm } = *op;
    let [at0, at1] = at.to_ne_bytes();
    let mut bytes = [code as u8, rd.0, a.0, b.0, c.0, aux, at0, at1, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes[8..].copy_from_slice(&imm.to_ne_bytes());
    bytes
}

/// Where the shared code is: offsets in the arena. Each backend's `entry` says what is in which register, and [`Sites`] what a site is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Thunks {
    /// `extern "C" fn(code, state + BIAS, pc) -> exit`
    pub(crate) enter: u32,
    /// Leaves for a page offset.
    pub(crate) exit_at: u32,
    /// Leaves for an address, by the jump that is to be noted in `polled_at`.
    pub(crate) exit_polled: u32,
    /// Leaves for an address.
    pub(crate) exit_to: u32,
    /// Leaves; `pc` is set.
    pub(crate) exit: u32,
    /// Leaves for a page offset, by a direct jump that is not linked yet.
    pub(crate) exit_link: u32,
    /// Where a killed block's entry jumps.
    pub(crate) dead: u32,
    /// Finds the host address for an access of 1, 2, 4 or 8 bytes at a site. By the time it returns, an access that has no address
    /// was done, and the result is a substitute.
    pub(crate) load: [u32; 4],
    /// The same for a store of a value, which is kept.
    pub(crate) store: [u32; 4],
    /// Puts the page of an access into the entry of its place ([`softmmu::Near`]), if the TLB knows it; for loads and for stores, of
    /// each class of accesses. Returns with NZ if it does not.
    pub(crate) near: [[u32; 3]; 2],
    /// Has the interpreter carry out the operation at an address; takes a site.
    pub(crate) step: u32,
    /// Calls the helper of the operation at an address; takes a site. Returns with NZ when the dispatcher must be next.
    pub(crate) call: u32,
    /// Makes the floating-point registers live, to be read (0) or written too (1); takes a site and an instruction.
    pub(crate) fp_on: [u32; 2],
    /// Has the operations at an address, so many of them, carried out again if the host says that one of them underflowed; none on a
    /// host that detects tininess as RISC-V does.
    pub(crate) underflow: u32,
    /// Looks at the poll word; none on a host that does that in place.
    pub(crate) poll: u32,
    /// Leaves to the interpreter; takes a site.
    pub(crate) interpret: u32,
    /// Bytes of it all.
    pub(crate) end: u32,
}

impl Thunks {
    /// What the shared code consists of, by name and in no order.
    pub(crate) fn parts(&self) -> Vec<(u32, String)> {
        let names = ["enter", "exit_at", "exit_to", "exit", "exit_link", "dead", "interpret", "step", "call"];
        let Thunks { enter, exit_at, exit_to, exit, exit_link, dead, interpret, step, call, .. } = *self;
        let places = [enter, exit_at, exit_to, exit, exit_link, dead, interpret, step, call];
        let mut parts: Vec<(u32, String)> =
            places.into_iter().zip(names).map(|(place, name)| (place, name.to_owned())).collect();
        parts.push((self.exit_polled, "exit_polled".to_owned()));
        if self.poll != 0 {
            parts.push((self.poll, "poll".to_owned()));
        }
        if self.underflow != 0 {
            parts.push((self.underflow, "underflow".to_owned()));
        }
        parts.extend([(self.fp_on[0], "fp_on".to_owned()), (self.fp_on[1], "fp_dirty".to_owned())]);
        for (&near, what) in self.near.iter().zip(["load", "store"]) {
            let named =
                near.into_iter().enumerate().map(|(class, place)| (place, format!("near_{what}{class}")));
            parts.extend(named.filter(|&(place, _)| place != 0));
        }
        for (log2, (&load, &store)) in self.load.iter().zip(&self.store).enumerate() {
            parts.push((load, format!("load{}", 8 << log2)));
            parts.push((store, format!("store{}", 8 << log2)));
        }
        parts
    }
}

//! The platform-level interrupt controller (RISC-V PLIC 1.0.0), with the sizes and choices of QEMU's `virt`: 96
//! sources, 7 priorities, and two contexts for each hart: 2h drives MEIP, 2h+1 drives SEIP.
//!
//! ```text
//!   0x00_0000 + 4*s             priority of source s
//!   0x00_1000 + 4*w             pending bits of sources 32w..32w+31, read-only
//!   0x00_2000 + 0x80*c + 4*w    enable bits of context c
//!   0x20_0000 + 0x1000*c        threshold of context c
//!   0x20_0004 + 0x1000*c        read: claim, write: complete
//! ```
//!
//! A source is level-triggered. Its gateway forwards one request (pending) when the line is high; the request stays
//! even if the line falls, until it is claimed. From claim to complete nothing more is forwarded, and a line that is
//! still high at complete is forwarded again.
//!
//! Where the specification allows a choice or QEMU differs from it, this is QEMU: a claim returns only sources above
//! the context's threshold, and a completion is accepted from any context, enabled or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use devicetree::Node;
use parking_lot::Mutex;
use softmmu::AccessFault;

use crate::bus::{MmioDevice, Placement};
use crate::hart::shared::HartShared;
use crate::irq::IrqSink;

/// Sources, number 0 (which does not exist) included.
pub const SOURCES: usize = 96;

const WORDS: usize = SOURCES / 32;
const MAX_PRIORITY: u8 = 7;

const PRIORITY: u64 = 0;
const PRIORITY_END: u64 = PRIORITY + 4 * SOURCES as u64;
const PENDING: u64 = 0x1000;
const PENDING_END: u64 = PENDING + 4 * WORDS as u64;
const ENABLE: u64 = 0x2000;
const ENABLE_STRIDE: u64 = 0x80;
const CONTEXT: u64 = 0x20_0000;
const CONTEXT_STRIDE: u64 = 0x1000;
const THRESHOLD: u64 = 0;
const CLAIM: u64 = 4;

const MIP_SEIP: u64 = 1 << 9;
const MIP_MEIP: u64 = 1 << 11;

/// External interrupts that the device-tree node refers to, by their number in `mip`.
const IRQ_S_EXT: u32 = 9;
const IRQ_M_EXT: u32 = 11;

/// The PLIC. Its input `n` as an [`IrqSink`] is source `n`.
///
/// The lock is held while harts' `mip` bits are changed, so that they change in the order of the decisions; no
/// lock taken there is ever held while a device is called.
pub struct Plic {
    harts: Vec<Arc<HartShared>>,
    /// Levels of the input lines. Outside of the lock, so that a falling line, or a line that is driven to the level
    /// it has, costs one atomic. `State::complete` and `raise` both look at it under the lock.
    lines: [AtomicU32; WORDS],
    state: Mutex<State>,
}

struct State {
    priority: [u8; SOURCES],
    pending: [u32; WORDS],
    /// Between claim and complete.
    in_service: [u32; WORDS],
    contexts: Vec<Context>,
}

#[derive(Clone, Copy, Default)]
struct Context {
    enable: [u32; WORDS],
    threshold: u8,
    /// What the hart's `mip` bit was set to last.
    output: bool,
}

impl Plic {
    /// A PLIC for `harts`, in the order of their ids.
    pub fn new(harts: &[Arc<HartShared>]) -> Self {
        Self {
            harts: harts.to_vec(),
            lines: Default::default(),
            state: Mutex::new(State::new(2 * harts.len())),
        }
    }

    /// Recomputes the output of context `index`.
    fn update(&self, state: &mut State, index: usize) {
        let output = state.best(index).is_some();
        if output != state.contexts[index].output {
            state.contexts[index].output = output;
            let bit = if index.is_multiple_of(2) { MIP_MEIP } else { MIP_SEIP };
            self.harts[index / 2].set_mip(bit, output);
        }
    }

    /// Recomputes the outputs of the contexts in which `source` is enabled.
    fn update_source(&self, state: &mut State, source: usize) {
        for index in 0..state.contexts.len() {
            if test(&state.contexts[index].enable, source) {
                self.update(state, index);
            }
        }
    }

    /// The gateway of `source` saw a high line.
    fn raise(&self, state: &mut State, source: usize) {
        if !test(&state.in_service, source) && !test(&state.pending, source) {
            assign(&mut state.pending, source, true);
            self.update_source(state, source);
        }
    }

    fn claim(&self, state: &mut State, index: usize) -> usize {
        let Some(source) = state.best(index) else { return 0 };
        assign(&mut state.pending, source, false);
        assign(&mut state.in_service, source, true);
        self.update_source(state, source);
        source
    }

    fn complete(&self, state: &mut State, source: usize) {
        if source == 0 || source >= SOURCES || !test(&state.in_service, source) {
            return;
        }
        assign(&mut state.in_service, source, false);
        if self.lines[source / 32].load(Ordering::SeqCst) & bit(source) != 0 {
            self.raise(state, source);
        }
    }
}

impl State {
    fn new(contexts: usize) -> Self {
        Self {
            priority: [0; SOURCES],
            pending: [0; WORDS],
            in_service: [0; WORDS],
            contexts: vec![Context::default(); contexts],
        }
    }

    /// The source that context `index` would claim: pending, enabled, above the threshold, of the highest priority,
    /// and of those the lowest number.
    fn best(&self, index: usize) -> Option<usize> {
        let context = &self.contexts[index];
        let mut best = None;
        let mut above = context.threshold;
        for word in 0..WORDS {
            let mut candidates = self.pending[word] & context.enable[word];
            while candidates != 0 {
                let source = word * 32 + candidates.trailing_zeros() as usize;
                candidates &= candidates - 1;
                if self.priority[source] > above {
                    above = self.priority[source];
                    best = Some(source);
                }
            }
        }
        best
    }
}

fn bit(source: usize) -> u32 {
    1 << (source % 32)
}

fn test(words: &[u32; WORDS], source: usize) -> bool {
    words[source / 32] & bit(source) != 0
}

fn assign(words: &mut [u32; WORDS], source: usize, value: bool) {
    if value {
        words[source / 32] |= bit(source);
    } else {
        words[source / 32] &= !bit(source);
    }
}

/// A register, by what its offset selects. `None` is reserved: reads 0, ignores writes.
enum Register {
    Priority(usize),
    Pending(usize),
    Enable { context: usize, word: usize },
    Threshold(usize),
    Claim(usize),
}

impl Register {
    fn at(offset: u64, contexts: usize) -> Option<Self> {
        let index = |offset: u64, stride: u64| usize::try_from(offset / stride).unwrap_or(usize::MAX);
        let register = match offset {
            PRIORITY..PRIORITY_END => Self::Priority(index(offset - PRIORITY, 4)),
            PENDING..PENDING_END => Self::Pending(index(offset - PENDING, 4)),
            ENABLE..CONTEXT => Self::Enable {
                context: index(offset - ENABLE, ENABLE_STRIDE),
                word: index((offset - ENABLE) % ENABLE_STRIDE, 4),
            },
            CONTEXT.. => {
                let context = index(offset - CONTEXT, CONTEXT_STRIDE);
                match (offset - CONTEXT) % CONTEXT_STRIDE {
                    THRESHOLD => Self::Threshold(context),
                    CLAIM => Self::Claim(context),
                    _ => return None,
                }
            }
            _ => return None,
        };
        let exists = match register {
            Self::Enable { context, word } => context < contexts && word < WORDS,
            Self::Threshold(context) | Self::Claim(context) => context < contexts,
            Self::Priority(_) | Self::Pending(_) => true,
        };
        exists.then_some(register)
    }
}

impl IrqSink for Plic {
    fn set_level(&self, irq: u32, level: bool) {
        let source = irq as usize;
        if source == 0 || source >= SOURCES {
            return;
        }
        let line = &self.lines[source / 32];
        if !level {
            line.fetch_and(!bit(source), Ordering::SeqCst);
        } else if line.fetch_or(bit(source), Ordering::SeqCst) & bit(source) == 0 {
            // If a completion slips in before the lock is taken, it sees the line and raises; doing it twice is the
            // same as doing it once.
            self.raise(&mut self.state.lock(), source);
        }
    }
}

impl MmioDevice for Plic {
    fn name(&self) -> &'static str {
        "plic"
    }

    fn read(&self, offset: u64, width: u8) -> Result<u64, AccessFault> {
        if width != 4 {
            return Err(AccessFault);
        }
        let mut state = self.state.lock();
        Ok(match Register::at(offset, state.contexts.len()) {
            Some(Register::Priority(source)) => u64::from(state.priority[source]),
            Some(Register::Pending(word)) => u64::from(state.pending[word]),
            Some(Register::Enable { context, word }) => u64::from(state.contexts[context].enable[word]),
            Some(Register::Threshold(context)) => u64::from(state.contexts[context].threshold),
            Some(Register::Claim(context)) => self.claim(&mut state, context) as u64,
            None => 0,
        })
    }

    fn write(&self, offset: u64, width: u8, value: u64) -> Result<(), AccessFault> {
        if width != 4 {
            return Err(AccessFault);
        }
        let value = (value & 0xffff_ffff) as u32;
        // Priorities and thresholds have three bits (WARL).
        let priority = (value & u32::from(MAX_PRIORITY)) as u8;
        let mut state = self.state.lock();
        match Register::at(offset, state.contexts.len()) {
            Some(Register::Priority(0) | Register::Pending(_)) | None => {}
            Some(Register::Priority(source)) => {
                state.priority[source] = priority;
                self.update_source(&mut state, source);
            }
            Some(Register::Enable { context, word }) => {
                // Source 0 does not exist.
                state.contexts[context].enable[word] = if word == 0 { value & !1 } else { value };
                self.update(&mut state, context);
            }
            Some(Register::Threshold(context)) => {
                state.contexts[context].threshold = priority;
                self.update(&mut state, context);
            }
            Some(Register::Claim(_)) => self.complete(&mut state, value as usize),
        }
        Ok(())
    }

    fn reset(&self) {
        let mut state = self.state.lock();
        let outputs: Vec<bool> = state.contexts.iter().map(|context| context.output).collect();
        *state = State::new(outputs.len());
        for (index, output) in outputs.into_iter().enumerate() {
            // `update` lowers what is still up.
            state.contexts[index].output = output;
            self.update(&mut state, index);
        }
        for source in 1..SOURCES {
            if self.lines[source / 32].load(Ordering::SeqCst) & bit(source) != 0 {
                self.raise(&mut state, source);
            }
        }
    }

    fn fdt(&self, place: &Placement, parent: &mut Node) {
        let wires = |&intc: &u32| [intc, IRQ_M_EXT, intc, IRQ_S_EXT];
        let wires: Vec<u32> = place.phandles.cpu_intc.iter().flat_map(wires).collect();
        parent
            .child(&format!("interrupt-controller@{:x}", place.base))
            .set_u32("phandle", place.phandles.plic)
            .set_u32("riscv,ndev", SOURCES as u32 - 1)
            .set_reg(&[(place.base, place.size)])
            .set_cells("interrupts-extended", &wires)
            .set_empty("interrupt-controller")
            .set_strings("compatible", &["sifive,plic-1.0.0", "riscv,plic0"])
            .set_u32("#address-cells", 0)
            .set_u32("#interrupt-cells", 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEIP: u64 = 1 << 9;
    const MEIP: u64 = 1 << 11;

    fn plic(harts: usize) -> (Plic, Vec<Arc<HartShared>>) {
        let harts: Vec<_> = (0..harts).map(|_| Arc::new(HartShared::new())).collect();
        (Plic::new(&harts), harts)
    }

    fn priority(plic: &Plic, source: u64, value: u64) {
        plic.write(4 * source, 4, value).unwrap();
    }

    fn enable(plic: &Plic, context: u64, sources: &[u64]) {
        for word in 0..3 {
            let mask = sources.iter().filter(|&source| source / 32 == word).fold(0, |m, s| m | 1 << (s % 32));
            plic.write(0x2000 + 0x80 * context + 4 * word, 4, mask).unwrap();
        }
    }

    fn claim(plic: &Plic, context: u64) -> u64 {
        plic.read(0x20_0004 + 0x1000 * context, 4).unwrap()
    }

    fn complete(plic: &Plic, context: u64, source: u64) {
        plic.write(0x20_0004 + 0x1000 * context, 4, source).unwrap();
    }

    #[test]
    fn an_enabled_source_reaches_its_context_only() {
        let (plic, harts) = plic(2);
        priority(&plic, 10, 1);
        enable(&plic, 3, &[10]);
        plic.set_level(10, true);
        assert_eq!((harts[0].mip(), harts[1].mip()), (0, SEIP));
        assert_eq!(plic.read(0x1000, 4), Ok(1 << 10));
    }

    #[test]
    fn context_numbers_are_machine_then_supervisor() {
        let (plic, harts) = plic(2);
        priority(&plic, 95, 1);
        enable(&plic, 2, &[95]);
        plic.set_level(95, true);
        assert_eq!((harts[0].mip(), harts[1].mip()), (0, MEIP));
        assert_eq!(plic.read(0x1008, 4), Ok(1 << 31));
        assert_eq!(claim(&plic, 2), 95);
    }

    #[test]
    fn a_claim_clears_pending_and_the_wire_until_complete() {
        let (plic, harts) = plic(1);
        priority(&plic, 10, 1);
        enable(&plic, 1, &[10]);
        plic.set_level(10, true);
        assert_eq!(claim(&plic, 1), 10);
        assert_eq!(plic.read(0x1000, 4), Ok(0));
        assert_eq!(harts[0].mip(), 0);
        assert_eq!(claim(&plic, 1), 0);
        complete(&plic, 1, 10);
        assert_eq!(harts[0].mip(), SEIP, "the line is still high");
    }

    #[test]
    fn a_line_that_fell_before_complete_is_not_raised_again() {
        let (plic, harts) = plic(1);
        priority(&plic, 10, 1);
        enable(&plic, 1, &[10]);
        plic.set_level(10, true);
        assert_eq!(claim(&plic, 1), 10);
        plic.set_level(10, false);
        complete(&plic, 1, 10);
        assert_eq!(harts[0].mip(), 0);
        plic.set_level(10, true);
        assert_eq!(harts[0].mip(), SEIP);
    }

    #[test]
    fn a_request_survives_its_line_falling_before_the_claim() {
        let (plic, _) = plic(1);
        priority(&plic, 10, 1);
        enable(&plic, 1, &[10]);
        plic.set_level(10, true);
        plic.set_level(10, false);
        assert_eq!(claim(&plic, 1), 10);
        complete(&plic, 1, 10);
        assert_eq!(claim(&plic, 1), 0);
    }

    #[test]
    fn the_highest_priority_wins_and_then_the_lowest_number() {
        let (plic, _) = plic(1);
        priority(&plic, 3, 2);
        priority(&plic, 40, 5);
        priority(&plic, 70, 5);
        enable(&plic, 1, &[3, 40, 70]);
        plic.set_level(3, true);
        plic.set_level(70, true);
        plic.set_level(40, true);
        assert_eq!(claim(&plic, 1), 40);
        assert_eq!(claim(&plic, 1), 70);
        assert_eq!(claim(&plic, 1), 3);
        assert_eq!(claim(&plic, 1), 0);
    }

    #[test]
    fn the_threshold_masks_priorities_up_to_it() {
        let (plic, harts) = plic(1);
        priority(&plic, 10, 3);
        enable(&plic, 1, &[10]);
        plic.write(0x20_1000, 4, 3).unwrap();
        plic.set_level(10, true);
        assert_eq!(harts[0].mip(), 0);
        assert_eq!(claim(&plic, 1), 0);
        plic.write(0x20_1000, 4, 2).unwrap();
        assert_eq!(harts[0].mip(), SEIP);
        plic.write(0x20_1000, 4, 7).unwrap();
        assert_eq!(harts[0].mip(), 0);
    }

    #[test]
    fn priority_zero_never_interrupts() {
        let (plic, harts) = plic(1);
        enable(&plic, 1, &[10]);
        plic.set_level(10, true);
        assert_eq!(harts[0].mip(), 0);
        priority(&plic, 10, 1);
        assert_eq!(harts[0].mip(), SEIP);
    }

    #[test]
    fn a_claim_in_one_context_lowers_the_others() {
        let (plic, harts) = plic(2);
        priority(&plic, 10, 1);
        enable(&plic, 1, &[10]);
        enable(&plic, 3, &[10]);
        plic.set_level(10, true);
        assert_eq!((harts[0].mip(), harts[1].mip()), (SEIP, SEIP));
        assert_eq!(claim(&plic, 3), 10);
        assert_eq!((harts[0].mip(), harts[1].mip()), (0, 0));
    }

    #[test]
    fn registers_keep_the_bits_that_exist() {
        let (plic, _) = plic(1);
        plic.write(4, 4, 0xffff_ffff).unwrap();
        plic.write(0, 4, 7).unwrap();
        plic.write(0x2080, 4, 0xffff_ffff).unwrap();
        plic.write(0x208c, 4, 0xffff_ffff).unwrap();
        plic.write(0x20_1000, 4, 0xff).unwrap();
        plic.write(0x1000, 4, 0xffff_ffff).unwrap();
        assert_eq!(plic.read(4, 4), Ok(7));
        assert_eq!(plic.read(0, 4), Ok(0));
        assert_eq!(plic.read(0x2080, 4), Ok(0xffff_fffe));
        assert_eq!(plic.read(0x208c, 4), Ok(0));
        assert_eq!(plic.read(0x20_1000, 4), Ok(7));
        assert_eq!(plic.read(0x1000, 4), Ok(0));
    }

    #[test]
    fn absent_registers_and_sources_are_harmless() {
        let (plic, harts) = plic(1);
        plic.set_level(0, true);
        plic.set_level(96, true);
        plic.set_level(u32::MAX, true);
        plic.write(0x20_2000, 4, 1).unwrap();
        complete(&plic, 1, 0);
        complete(&plic, 1, 0xffff_ffff);
        complete(&plic, 1, 10);
        assert_eq!(plic.read(0x5f_fffc, 4), Ok(0));
        assert_eq!(plic.read(0x180, 4), Ok(0));
        assert_eq!(plic.read(0, 8), Err(AccessFault));
        assert_eq!(plic.write(0, 1, 0), Err(AccessFault));
        assert_eq!(harts[0].mip(), 0);
    }

    #[test]
    fn reset_lowers_the_wires_and_keeps_high_lines() {
        let (plic, harts) = plic(1);
        priority(&plic, 10, 1);
        enable(&plic, 1, &[10]);
        plic.set_level(10, true);
        plic.reset();
        assert_eq!(harts[0].mip(), 0);
        assert_eq!(plic.read(0x1000, 4), Ok(1 << 10));
        assert_eq!(plic.read(4 * 10, 4), Ok(0));
    }

    #[test]
    fn concurrent_pulses_are_neither_lost_nor_stuck() {
        let (plic, harts) = plic(1);
        priority(&plic, 10, 1);
        enable(&plic, 1, &[10]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..10_000).for_each(|_| {
                    plic.set_level(10, true);
                    plic.set_level(10, false);
                })
            });
            for _ in 0..10_000 {
                if claim(&plic, 1) == 10 {
                    complete(&plic, 1, 10);
                }
            }
        });
        while claim(&plic, 1) == 10 {
            complete(&plic, 1, 10);
        }
        assert_eq!(harts[0].mip(), 0);
        plic.set_level(10, true);
        assert_eq!(harts[0].mip(), SEIP);
    }
}

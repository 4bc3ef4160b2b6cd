//! The engine that runs generated code, and interprets what is not worth translating or cannot be.

#![allow(unsafe_code, reason = "enters generated code, which calls back with the pointers it was given")]

use std::cell::Cell;
use std::sync::Arc;

use frontend::block::{Extent, MAX_INSNS, Seen, leads_back};
use frontend::ir::{Code, Op};
use frontend::{Block, Decoder};
use softmmu::{Mmu, Trap};

use crate::backend::{self, Translator};
use crate::breakpoints::{Breakpoints, View};
use crate::cache::{CodeCache, Participant, Request, Span, key};
use crate::codegen::{self, exit, listing, status};
use crate::context::{Callbacks, Exit, Hart, HartState};
use crate::inspect::stats::{EXITS, EngineStats};
use crate::inspect::trace::{Category, Place, Trace, Value};
use crate::interp::{self, Interp, Watch};
use crate::time::NO_TIME;

/// log2 of the entries of [`Native::known`].
const KNOWN_BITS: u32 = 14;
/// How often a block is interpreted before it is translated, unless everything is at once.
const COLD_RUNS: u8 = 2;
/// The same in a page whose blocks are killed all the time. That takes about as long as to translate one.
const RESTLESS_RUNS: u8 = 24;
/// log2 of the counters for that, which blocks share by their address.
const HEAT_BITS: u32 = 12;

/// One hart's engine. The code itself is shared.
pub struct Native {
    cache: Arc<CodeCache>,
    participant: Arc<Participant>,
    interp: Interp,
    /// Physical addresses of blocks, and the host addresses of their code: what the cache would answer, without its lock. A new
    /// address space runs code that another has run before. As with the executable-code cache, the code may have been killed.
    known: Box<[(u64, u64)]>,
    decoder: Arc<Decoder>,
    translator: Translator,
    /// The block that was cut last, and the page offsets and values of the halfwords it was decoded from.
    block: Block,
    halves: Vec<(u16, u16)>,
    /// How often a block is interpreted before it is translated.
    cold_runs: u8,
    heat: Box<[u8]>,
    breakpoints: Arc<Breakpoints>,
    stats: EngineStats,
    /// Number of the hart.
    hart: usize,
    /// For what is translated.
    block_trace: Option<Arc<Trace>>,
    exit_trace: Option<Arc<Trace>>,
}

/// No block starts there.
const NOTHING_KNOWN: (u64, u64) = (u64::MAX, 0);

/// Index in [`EXITS`] of the cause that generated code itself reports as [`exit::DISPATCH`].
const EXIT_POLL: usize = EXITS.len() - 1;
const _: () = assert!(exit::STALE as usize + 1 == EXIT_POLL);

impl Native {
    /// An engine of hart `hart` for the instructions that `decoder` knows. If the interpreter is watched, it executes all of
    /// them. `kick` makes the hart poll soon; any thread calls it.
    pub(crate) fn new(
        cache: &Arc<CodeCache>,
        decoder: Arc<Decoder>,
        hart: usize,
        eager: bool,
        watch: Watch,
        kick: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        let participant = Arc::new(Participant::new(kick));
        cache.join(Arc::clone(&participant));
        let mut translator = Translator::new(cache.thunks);
        if cache.inspect.trace(&[Category::Csr]).is_some() {
            translator.call_for_csrs();
        }
        if cache.inspect.counts_host() {
            translator.count_host();
        }
        Self {
            cache: Arc::clone(cache),
            participant,
            interp: Interp::for_cold_blocks(Arc::clone(&decoder), watch),
            known: vec![NOTHING_KNOWN; 1 << KNOWN_BITS].into(),
            decoder,
            translator,
            block: Block::default(),
            halves: Vec::new(),
            cold_runs: if eager { 0 } else { COLD_RUNS },
            heat: vec![0; 1 << HEAT_BITS].into(),
            breakpoints: Arc::default(),
            stats: EngineStats::default(),
            hart,
            block_trace: cache.inspect.trace(&[Category::Guest, Category::Ir, Category::Host]),
            exit_trace: cache.inspect.trace(&[Category::Exits]),
        }
    }

    /// Replaces the breakpoints. The executable-code cache must have been emptied.
    pub(crate) fn set_breakpoints(&mut self, points: &Arc<Breakpoints>) {
        self.breakpoints = Arc::clone(points);
        self.interp.set_breakpoints(points);
        self.cache.set_cuts(points.cuts());
    }

    pub(crate) fn breakpoints(&self) -> &Breakpoints {
        &self.breakpoints
    }

    /// Executes one instruction, whatever breakpoint is there.
    pub(crate) fn step<H: Hart>(&mut self, hart: &mut H) -> Result<(), Trap> {
        self.participant.set_inside(true);
        self.answer(hart);
        let done = self.interp.step(hart);
        self.participant.set_inside(false);
        done
    }

    /// Does what the code cache has asked of this hart; says whether code was to be forgotten.
    fn answer<H: Hart>(&mut self, hart: &mut H) -> bool {
        let mut forgotten = false;
        self.participant.answer(|request| match request {
            Request::DropWrites(page) => hart.mmu().drop_writes(page),
            Request::ForgetCode => {
                hart.mmu().exec_clear_all();
                self.known.fill(NOTHING_KNOWN);
                forgotten = true;
            }
        });
        forgotten
    }

    /// Counts so far.
    pub fn stats(&self) -> EngineStats {
        self.stats
    }

    /// Runs `hart` until it is polled or an instruction traps.
    pub fn run<H: Hart>(&mut self, hart: &mut H) -> Exit {
        self.participant.set_inside(true);
        let exit = self.run_inside(hart);
        self.participant.set_inside(false);
        exit
    }

    fn run_inside<H: Hart>(&mut self, hart: &mut H) -> Exit {
        let poll = std::ptr::from_ref(hart.poll_word()) as u64;
        let this = std::ptr::from_mut(hart).expose_provenance() as u64;
        let time = std::ptr::from_ref(hart.time_base().unwrap_or(&NO_TIME)) as u64;
        let native = &mut hart.state().native;
        (native.poll, native.hart, native.callbacks) = (poll, this, callbacks::<H>());
        native.time = time;
        native.polled_at = 0;
        let mut link = None;
        let mut look_up = true;
        loop {
            if self.answer(hart) {
                // The jump may be in what is forgotten.
                link = None;
            }
            if hart.polled() {
                return Exit::Poll;
            }
            if self.interp.is_watched() {
                match self.interpret(hart) {
                    Ok(()) => continue,
                    Err(trap) => return Exit::Trap(trap),
                }
            }
            let pc = hart.state().pc;
            let known = if look_up { hart.mmu().exec_lookup(pc) } else { None };
            let code = match known {
                Some(code) => code,
                None if self.breakpoints.contains(pc) => return Exit::Break,
                None => match self.find(hart.mmu(), pc, link.take(), std::mem::replace(&mut look_up, true)) {
                    Err(trap) => return Exit::Trap(trap),
                    Ok(Some(code)) => code,
                    Ok(None) => match self.interpret(hart) {
                        Ok(()) => continue,
                        Err(trap) => return Exit::Trap(trap),
                    },
                },
            };
            self.stats.entries += 1;
            let exit = self.enter(hart, code, pc);
            self.count_exit(hart, exit, pc);
            if let Some(pa) = hart.state().native.wanderer.take() {
                self.cache.note_wanderer(pa);
            }
            match exit {
                exit::LINK => {
                    let native = &hart.state().native;
                    link = Some((native.link_site, native.link_page));
                    look_up = false;
                }
                exit::TRAP => {
                    let native = &hart.state().native;
                    return Exit::Trap(Trap { cause: native.trap_cause, tval: native.trap_tval });
                }
                exit::INTERPRET => {
                    if let Err(trap) = self.interpret(hart) {
                        return Exit::Trap(trap);
                    }
                }
                exit::STALE => look_up = false,
                _ => {}
            }
        }
    }

    /// Runs one block in the interpreter.
    fn interpret<H: Hart>(&mut self, hart: &mut H) -> Result<(), Trap> {
        let before = hart.state().instret;
        let done = self.interp.run_block(hart);
        self.stats.interpreted_blocks += 1;
        self.stats.interpreted_insns += hart.state().instret.wrapping_sub(before);
        done
    }

    /// Generated code, which was entered for `pc`, has been left.
    fn count_exit<H: Hart>(&mut self, hart: &mut H, exit: u64, pc: u64) {
        let cause = if exit == exit::DISPATCH && hart.polled() { EXIT_POLL } else { exit as usize };
        self.stats.exits[cause] += 1;
        if let Some(trace) = &self.exit_trace {
            let state = hart.state();
            let place = Place { hart: self.hart, mode: state.privilege, address: state.pc };
            trace.event(Category::Exits, Some(&place), &EXITS[cause].0, &[("entered for", Value::Code(pc))]);
        }
    }

    /// Runs generated code from a block's entry on.
    fn enter<H: Hart>(&mut self, hart: &mut H, code: u64, pc: u64) -> u64 {
        let context = std::ptr::from_ref(hart.mmu().context()) as u64;
        let state = hart.state();
        state.native.context = context;
        let state = std::ptr::from_mut(state) as u64;
        let enter = self.cache.arena.address(self.cache.thunks.enter);
        // SAFETY: `code` is the entry of a block in the arena: it came from `CodeCache::find` or `publish` just now, or from
        // the executable-code cache, which forgets it before its region is reused. Generated code touches the state, the
        // tables of the context, and guest memory through them; all of it belongs to `hart`, which nobody else uses while
        // `enter` has it, except through the callbacks.
        unsafe {
            let enter: extern "C" fn(u64, u64, u64) -> u64 =
                std::mem::transmute(std::ptr::with_exposed_provenance::<()>(enter as usize));
            enter(code, state.wrapping_add(backend::BIAS as u64), pc)
        }
    }

    /// Host address of the code for `pc`, which the executable-code cache does not know; `None` if the block is to be interpreted.
    /// `link` is a direct jump to `pc`, if it is in the same page: where its displacement is, and the number of its page.
    /// What this hart knows may be wrong unless `trust`.
    #[cold]
    fn find(
        &mut self,
        mmu: &mut Mmu,
        pc: u64,
        link: Option<(u64, u32)>,
        trust: bool,
    ) -> Result<Option<u64>, Trap> {
        let fetch = mmu.fetch(pc)?;
        if !fetch.whole_page {
            return Ok(None);
        }
        let view = self.breakpoints.view(pc);
        if view == View::Cut && self.breakpoints.cuts_at((pc & 0xfff) as u16) {
            // In another mapping of the page there may be a breakpoint here, which no link may jump over.
            return Ok(None);
        }
        let key = key(fetch.pa, view);
        let slot = known_slot(key);
        if let (known, entry) = self.known[slot]
            && known == key
            && trust
        {
            mmu.exec_insert(pc, &fetch, entry);
            return Ok(Some(entry));
        }
        let second = if crosses(mmu, fetch.pa) { Some(mmu.fetch(pc.wrapping_add(2))?) } else { None };
        if second.is_some_and(|second| !second.whole_page) {
            return Ok(None);
        }
        let code = [
            Span { pa: fetch.pa, length: if second.is_some() { 2 } else { 0 } },
            second.map_or_else(Span::default, |second| Span { pa: second.pa, length: 2 }),
        ];
        let site = link.filter(|&(_, page)| key >> 12 == u64::from(page)).map(|(site, _)| site);
        let found = self.cache.find(code, view, site).or_else(|| self.translate(mmu, pc, code, view, site));
        let Some(entry) = found else { return Ok(None) };
        match second {
            Some(second) => mmu.exec_insert_crossing(pc, &fetch, &second, entry),
            None => {
                self.known[slot] = (key, entry);
                mmu.exec_insert(pc, &fetch, entry);
            }
        }
        Ok(Some(entry))
    }

    /// Translates the block at `pc`, which starts at `code`, if it has been here often enough, and links the jump at `site` to it.
    fn translate(
        &mut self,
        mmu: &Mmu,
        pc: u64,
        mut code: [Span; 2],
        view: View,
        site: Option<u64>,
    ) -> Option<u64> {
        let pa = code[0].pa;
        let heat = &mut self.heat[heat_slot(pa)];
        if *heat < self.cold_runs || *heat < RESTLESS_RUNS && self.cache.is_restless(pa) {
            *heat += 1;
            return None;
        }
        let first = mmu.code_page(pa)?;
        let second = if code[1].length == 0 { None } else { Some(mmu.code_page(code[1].pa)?) };
        let half = |at: u16| match at {
            0..4096 => Some(first.half(at)),
            _ => Some(second?.half(0)),
        };
        let limit = if second.is_some() { 1 } else { MAX_INSNS };
        self.cut(pa, limit, view, half)?;
        let block = &self.block;
        if code[1].length == 0 {
            code[0].length = length(block);
        }
        let ticket = self.cache.begin(code, view)?;
        // What was read before stores were noticed may have been overwritten unnoticed.
        if !self.halves.iter().all(|&(at, then)| half(at) == Some(then)) {
            return None;
        }
        self.heat[heat_slot(pa)] = 0;
        self.translator.translate(block, (key(pa, view) >> 12) as u32, ticket.wanders);
        let size = self.translator.code().len();
        let usual = self.translator.usual();
        let translator = &mut self.translator;
        let mut placed = false;
        let entry = self.cache.publish(ticket, block.insns.len(), usual, size, site, |offset| {
            placed = true;
            translator.place(offset)
        });
        if placed && let (Some(trace), Some(entry)) = (&self.block_trace, entry) {
            let place = Place { hart: self.hart, mode: mmu.privilege(), address: pc };
            self.trace_block(trace, &place, pa, entry, half);
        }
        entry
    }

    /// Traces a block at `pa` that was just translated to the code at a host address; `half` reads by offset in its page.
    #[cold]
    fn trace_block(
        &self,
        trace: &Trace,
        place: &Place,
        pa: u64,
        entry: u64,
        half: impl Fn(u16) -> Option<u16>,
    ) {
        trace.block(&self.decoder, &self.block, place, pa, half);
        if trace.has(Category::Host) {
            let bytes = self.translator.code();
            let mut text = String::new();
            let (arena, thunks) = (self.cache.arena.address(0), &self.cache.thunks);
            let host = listing::Place { address: entry, arena };
            backend::disassemble(&mut text, bytes, self.translator.instructions(), host, thunks);
            let fields = [("pa", Value::Hex(pa)), ("bytes", Value::Number(bytes.len() as u64))];
            trace.listing(Category::Host, Some(place), &"host code", &fields, &text);
        }
    }

    /// Decodes the block at `pa`, of `limit` instructions at most, into `block`, and keeps its halfwords in `halves`; `half` reads by
    /// page offset.
    fn cut(&mut self, pa: u64, limit: usize, view: View, half: impl Fn(u16) -> Option<u16>) -> Option<()> {
        let halves = &mut self.halves;
        halves.clear();
        let reach = Reach {
            points: if view == View::Cut { Some(&*self.breakpoints) } else { None },
            is_eager: self.cold_runs == 0,
            heat: &self.heat,
            known: &self.known,
            page: pa & !0xfff,
            view,
            decoder: &self.decoder,
            half: &half,
            loops: Cell::new(None),
        };
        let done = self.block.recut(&self.decoder, (pa & 0xfff) as u16, limit, &reach, |at| {
            let half = half(at).ok_or(())?;
            halves.push((at, half));
            Ok::<u16, ()>(half)
        });
        done.ok()?;
        // An instruction whose second half could not be read is not in the block.
        halves.retain(|&(at, _)| at < self.block.end);
        Some(())
    }
}

/// How far the blocks go that are translated: along what was executed while it was cold. What is translated already is not repeated,
/// unless that makes the block a loop.
struct Reach<'a, F> {
    points: Option<&'a Breakpoints>,
    is_eager: bool,
    heat: &'a [u8],
    known: &'a [(u64, u64)],
    /// Physical address of the page.
    page: u64,
    view: View,
    decoder: &'a Decoder,
    half: &'a F,
    /// Whether the code leads back to the start of the block, once that was asked.
    loops: Cell<Option<bool>>,
}

impl<F: Fn(u16) -> Option<u16>> Extent for Reach<'_, F> {
    fn stops(&self, at: u16) -> bool {
        self.points.is_some_and(|points| points.cuts_at(at))
    }

    fn seen(&self, at: u16) -> Seen {
        let pa = self.page + u64::from(at);
        if self.is_eager || self.heat[heat_slot(pa)] > 0 {
            return Seen::Executed;
        }
        let key = key(pa, self.view);
        if self.known[known_slot(key)].0 == key { Seen::Cut } else { Seen::Never }
    }

    fn loops(&self, start: u16, from: u16) -> bool {
        if let Some(loops) = self.loops.get() {
            return loops;
        }
        let loops = leads_back(self.decoder, start, from, MAX_INSNS, self.half);
        self.loops.set(Some(loops));
        loops
    }
}

/// Bytes of a block's code.
fn length(block: &Block) -> u64 {
    u64::from(block.end - block.start)
}

/// Whether the instruction at `pa` goes on in the next page.
fn crosses(mmu: &Mmu, pa: u64) -> bool {
    pa & 0xfff == 0xffe && mmu.read_code_u16(pa).is_ok_and(|first| frontend::decode::length(first) == 4)
}

/// Index in [`Native::heat`].
fn heat_slot(pa: u64) -> usize {
    spread(pa) & ((1 << HEAT_BITS) - 1)
}

/// Index in [`Native::known`].
fn known_slot(key: u64) -> usize {
    spread(key) & ((1 << KNOWN_BITS) - 1)
}

/// A physical address of code as an index of a table.
fn spread(pa: u64) -> usize {
    (pa >> 1 ^ pa >> 13) as usize
}

impl Drop for Native {
    fn drop(&mut self) {
        self.cache.leave(&self.participant);
    }
}

fn callbacks<H: Hart>() -> Callbacks {
    Callbacks {
        load: load::<H> as *const () as u64,
        store: store::<H> as *const () as u64,
        step: step::<H> as *const () as u64,
        call: call::<H> as *const () as u64,
        underflow: underflow::<H> as *const () as u64,
        near: near::<H> as *const () as u64,
    }
}

fn note(state: &mut HartState, trap: Trap) {
    (state.native.trap_cause, state.native.trap_tval) = (trap.cause, trap.tval);
}

/// A load that the TLB does not answer. Returns the host address of the value, or 0 for a trap.
///
/// # Safety
/// `hart` is the hart that was given to [`Native::enter`], on the same thread, and nothing else refers to it now.
unsafe extern "C" fn load<H: Hart>(hart: *mut H, va: u64, size: u64) -> u64 {
    // SAFETY: the caller's.
    let hart = unsafe { &mut *hart };
    hart.state().native.slow.loads += 1;
    let mmu = hart.mmu();
    let value = match size {
        1 => mmu.load_u8(va).map(u64::from),
        2 => mmu.load_u16(va).map(u64::from),
        4 => mmu.load_u32(va).map(u64::from),
        _ => mmu.load_u64(va),
    };
    let state = hart.state();
    match value {
        Ok(value) => {
            state.native.bounce[0] = value;
            std::ptr::from_ref(&state.native.bounce[0]) as u64
        }
        Err(trap) => {
            note(state, trap);
            0
        }
    }
}

/// A store that the TLB does not answer. Returns the host address of a place that may be stored to, or 0 for a trap.
///
/// # Safety
/// As for [`load`].
unsafe extern "C" fn store<H: Hart>(hart: *mut H, va: u64, value: u64, size: u64) -> u64 {
    // SAFETY: the caller's.
    let hart = unsafe { &mut *hart };
    hart.state().native.slow.stores += 1;
    let mmu = hart.mmu();
    let stored = match size {
        1 => mmu.store_u8(va, value as u8),
        2 => mmu.store_u16(va, value as u16),
        4 => mmu.store_u32(va, value as u32),
        _ => mmu.store_u64(va, value),
    };
    let state = hart.state();
    match stored {
        Ok(()) => std::ptr::from_mut(&mut state.native.bounce[1]) as u64,
        Err(trap) => {
            note(state, trap);
            0
        }
    }
}

/// Carries out an operation that generated code leaves to the interpreter.
///
/// # Safety
/// As for [`load`]; `op` is in the code that runs.
unsafe extern "C" fn step<H: Hart>(hart: *mut H, op: *const Op) -> u64 {
    // SAFETY: the caller's. An `Op` in generated code was written by `Translator` from one.
    let (hart, op) = unsafe { (&mut *hart, &*op) };
    debug_assert_ne!(op.code, Code::Call);
    hart.state().native.slow.steps[op.code as usize] += 1;
    match interp::step(hart, op) {
        Ok(()) => status::DONE,
        Err(trap) => {
            note(hart.state(), trap);
            status::TRAP
        }
    }
}

/// Calls a helper.
///
/// # Safety
/// As for [`step`].
unsafe extern "C" fn call<H: Hart>(hart: *mut H, op: *const Op) -> u64 {
    // SAFETY: as in `step`.
    let (hart, op) = unsafe { (&mut *hart, &*op) };
    hart.state().native.slow.calls[op.helper() as usize] += 1;
    let before = hart.mmu().code_epoch();
    let done = hart.call(op);
    let context = std::ptr::from_ref(hart.mmu().context()) as u64;
    hart.state().native.context = context;
    match done {
        Ok(()) if hart.polled() || hart.mmu().code_epoch() != before => status::LEAVE,
        Ok(()) => status::DONE,
        Err(trap) => {
            note(hart.state(), trap);
            status::TRAP
        }
    }
}

/// Operations have been carried out by a host that says that one of them underflowed: raises the flag if RISC-V says so, too.
///
/// # Safety
/// As for [`load`]; there are `count` operations at `ops`, in the code that runs.
unsafe extern "C" fn underflow<H: Hart>(hart: *mut H, ops: *const Op, count: u64) {
    // SAFETY: as in `step`.
    let (hart, ops) = unsafe { (&mut *hart, std::slice::from_raw_parts(ops, count as usize)) };
    let state = hart.state();
    state.native.slow.underflows += 1;
    codegen::underflow::raise(state, ops);
}

/// The entry of a place in the block at page offset `start` has been filled often.
///
/// # Safety
/// As for [`load`].
unsafe extern "C" fn near<H: Hart>(hart: *mut H, index: u64, start: u64, stores: u64) {
    // SAFETY: the caller's.
    let hart = unsafe { &mut *hart };
    let state = hart.state();
    let (instret, pc) = (state.instret, state.page.wrapping_add(start));
    if hart.mmu().near_is_poor(stores != 0, index as usize, instret)
        && let Ok(fetch) = hart.mmu().fetch(pc)
    {
        hart.state().native.wanderer = Some(fetch.pa);
    }
}

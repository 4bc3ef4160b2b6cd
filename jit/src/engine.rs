//! Which engine a hart has.

use std::sync::Arc;

use frontend::Decoder;
use softmmu::{GuestMemory, Mmu, Trap};

use crate::breakpoints::Breakpoints;
use crate::context::{Exit, Hart, HartState};
use crate::inspect::Inspect;
use crate::inspect::coverage::Coverage;
use crate::inspect::stats::{EngineStats, Stats};
use crate::inspect::trace::{Category, Trace};
use crate::interp::{ExecTrace, Interp, Watch};

/// How guest code is executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineKind {
    /// Translates blocks to code of the host. On a host without a backend, the same as [`Self::Interp`].
    #[default]
    Jit,
    /// The same, but translates before the first execution, so that everything that can be translated is.
    Eager,
    /// As [`Self::Eager`], in an arena so small that old code is retired all the time.
    Cramped,
    /// Executes decoded blocks one operation at a time.
    Interp,
}

/// What the engines of a machine share. Clones share the same.
#[derive(Clone)]
pub struct Shared {
    /// For the blocks of interpreters that work alone.
    block_trace: Option<Arc<Trace>>,
    /// For each instruction.
    exec_trace: Option<Arc<Trace>>,
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    cache: Option<Arc<crate::cache::CodeCache>>,
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    eager: bool,
}

impl Shared {
    /// For engines of one kind, which run code in `memory`.
    pub fn new(kind: EngineKind, memory: &GuestMemory, inspect: &Inspect) -> Self {
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let (_, _) = (kind, memory);
        Self {
            block_trace: inspect.trace(&[Category::Guest, Category::Ir]),
            exec_trace: inspect.trace(&[Category::Exec]),
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            cache: match kind {
                EngineKind::Interp => None,
                EngineKind::Jit | EngineKind::Eager | EngineKind::Cramped => {
                    crate::cache::CodeCache::new(memory, inspect, kind == EngineKind::Cramped)
                }
            },
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            eager: kind != EngineKind::Jit,
        }
    }

    /// What happened to the code that the engines share; the rest of the counts are 0.
    pub fn stats(&self) -> Stats {
        Stats {
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            cache: self.cache.as_ref().map(|cache| cache.stats()),
            ..Stats::default()
        }
    }
}

/// The engine of one hart.
pub enum Engine {
    /// See [`EngineKind::Interp`].
    Interp(Box<Interp>),
    /// See [`EngineKind::Jit`].
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    Native(Box<crate::native::Native>),
}

impl Engine {
    /// An engine of hart `hart` for the instructions that `decoder` knows. `kick` makes the hart poll soon; any thread may call
    /// it.
    pub fn new(shared: &Shared, decoder: Decoder, hart: usize, kick: Box<dyn Fn() + Send + Sync>) -> Self {
        let decoder = Arc::new(decoder);
        let watch = match shared.exec_trace.clone().filter(|trace| trace.has_hart(hart)) {
            Some(trace) => Watch::Exec(Box::new(ExecTrace { trace, decoder: Arc::clone(&decoder), hart })),
            None => Watch::Nobody,
        };
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        if let Some(cache) = &shared.cache {
            let native = crate::native::Native::new(cache, decoder, hart, shared.eager, watch, kick);
            return Engine::Native(Box::new(native));
        }
        drop(kick);
        let block_trace = shared.block_trace.clone().map(|trace| (trace, hart));
        Engine::Interp(Box::new(Interp::with_trace(decoder, watch, block_trace)))
    }

    /// An interpreter that counts what it executes.
    pub fn covering(decoder: Decoder, coverage: Coverage) -> Self {
        Engine::Interp(Box::new(Interp::with_trace(decoder, Watch::Coverage(Box::new(coverage)), None)))
    }

    /// What was executed, if the engine has counted it.
    pub fn into_coverage(self) -> Option<Coverage> {
        match self {
            Engine::Interp(interp) => interp.into_coverage(),
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Engine::Native(_) => None,
        }
    }

    /// Runs `hart` until it is polled or an instruction traps.
    pub fn run<H: Hart>(&mut self, hart: &mut H) -> Exit {
        match self {
            Engine::Interp(interp) => interp.run(hart),
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Engine::Native(native) => native.run(hart),
        }
    }

    /// Executes one instruction, whatever breakpoint is there.
    ///
    /// # Errors
    /// The trap that it raises; it has not retired then.
    pub fn step<H: Hart>(&mut self, hart: &mut H) -> Result<(), Trap> {
        match self {
            Engine::Interp(interp) => interp.step(hart),
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Engine::Native(native) => native.step(hart),
        }
    }

    /// Replaces the breakpoints. The engines of all harts must be given the same, before any of them runs.
    pub fn set_breakpoints(&mut self, points: &Arc<Breakpoints>, mmu: &mut Mmu) {
        mmu.exec_clear_all();
        match self {
            Engine::Interp(interp) => interp.set_breakpoints(points),
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Engine::Native(native) => native.set_breakpoints(points),
        }
    }

    /// Whether there is a breakpoint at `pc`.
    pub fn has_breakpoint(&self, pc: u64) -> bool {
        match self {
            Engine::Interp(interp) => interp.breakpoints().contains(pc),
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Engine::Native(native) => native.breakpoints().contains(pc),
        }
    }

    /// Orders instruction fetches after all earlier stores that this hart can see (`fence.i`).
    pub fn fence_i(&mut self, mmu: &mut Mmu) {
        match self {
            Engine::Interp(interp) => interp.fence_i(mmu),
            // Stores kill what was translated, and what was only decoded is compared each time.
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Engine::Native(_) => {}
        }
    }

    /// What happened since the hart, whose state and MMU these are, was made; without what the engines share.
    pub fn stats(&self, state: &HartState, mmu: &Mmu) -> Stats {
        let engine = match self {
            Engine::Interp(_) => EngineStats { interpreted_insns: state.instret, ..EngineStats::default() },
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Engine::Native(native) => native.stats(),
        };
        let native = &state.native;
        let (slow, host_insns) = ((*native.slow).clone(), native.host_insns);
        Stats { insns: state.instret, host_insns, engine, slow, mmu: *mmu.stats(), cache: None }
    }
}

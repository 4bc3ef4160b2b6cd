//! Which engine a hart has.

use std::sync::Arc;

use frontend::Decoder;
use softmmu::{GuestMemory, Mmu, Trap};

use crate::breakpoints::Breakpoints;
use crate::context::{Exit, Hart, HartState};
use crate::inspect::Inspect;
use crate::inspect::log::{Category, Log};
use crate::inspect::stats::{EngineStats, Stats};
use crate::interp::Interp;

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
    log: Option<Arc<Log>>,
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
            log: inspect.log(&[Category::Guest, Category::Ir]),
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
    /// An engine for the instructions that `decoder` knows. `kick` makes the hart poll soon; any thread may call it.
    pub fn new(shared: &Shared, decoder: Decoder, kick: Box<dyn Fn() + Send + Sync>) -> Self {
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        if let Some(cache) = &shared.cache {
            return Engine::Native(Box::new(crate::native::Native::new(
                cache,
                Arc::new(decoder),
                shared.eager,
                kick,
            )));
        }
        drop(kick);
        Engine::Interp(Box::new(Interp::with_log(decoder, shared.log.clone())))
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
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Engine::Native(native) => native.fence_i(),
        }
    }

    /// What happened since the hart, whose state and MMU these are, was made; without what the engines share.
    pub fn stats(&self, state: &HartState, mmu: &Mmu) -> Stats {
        let engine = match self {
            Engine::Interp(_) => EngineStats { interpreted_insns: state.instret, ..EngineStats::default() },
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Engine::Native(native) => native.stats(),
        };
        let slow = (*state.native.slow).clone();
        Stats { insns: state.instret, engine, slow, mmu: *mmu.stats(), cache: None }
    }
}

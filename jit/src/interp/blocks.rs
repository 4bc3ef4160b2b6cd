//! The interpreter's cache of decoded blocks, by physical address.
//!
//! A block is compared with memory when it is found, so what has not changed is not decoded again. Until `fence.i` the architecture
//! lets a hart fetch old code, but a kernel executes it once for a page of a file, on the harts that the page's process runs on then.
//! The caches of hardware have forgotten what was in the page's frame before, so the others must not remember it here either.

use std::sync::Arc;

use frontend::block::Extent;
use frontend::{Block, Decoder};
use softmmu::{Mmu, Trap, cause};

use crate::address_map::AddressMap;
use crate::breakpoints::{Breakpoints, View};
use crate::inspect::trace::{Place, Trace};

struct Cached {
    block: Block,
    /// The halfwords it was decoded from.
    code: Box<[u16]>,
}

pub(super) struct Blocks {
    decoder: Arc<Decoder>,
    /// Most blocks kept.
    limit: usize,
    /// Most instructions in a block.
    block_limit: usize,
    cached: Vec<Cached>,
    by_address: AddressMap<u32>,
    /// A block that must not be found again: it depends on two pages, or on permissions finer than a page.
    single: Option<Block>,
    pub(super) breakpoints: Arc<Breakpoints>,
    /// Where decoded blocks are traced, and for which hart.
    trace: Option<(Arc<Trace>, usize)>,
}

/// Added to the physical address of a block of [`View::Cut`].
const CUT: u64 = 1;

impl Blocks {
    pub(super) fn new(
        decoder: Arc<Decoder>,
        limit: usize,
        block_limit: usize,
        trace: Option<(Arc<Trace>, usize)>,
    ) -> Self {
        Self {
            decoder,
            limit,
            block_limit,
            cached: Vec::new(),
            by_address: AddressMap::default(),
            single: None,
            breakpoints: Arc::default(),
            trace,
        }
    }

    /// The block with the index that [`Self::find`] left in the MMU's executable-code cache.
    #[inline]
    pub(super) fn get(&self, index: u64) -> &Block {
        &self.cached[index as usize].block
    }

    pub(super) fn set_breakpoints(&mut self, points: &Arc<Breakpoints>) {
        if points.cuts() != self.breakpoints.cuts() {
            self.by_address.retain(|key, _| key & CUT == 0);
        }
        self.breakpoints = Arc::clone(points);
    }

    /// The block at virtual address `pc`, decoded now if need be. Leaves its index in the MMU's executable-code cache if `enter`.
    #[cold]
    pub(super) fn find(&mut self, mmu: &mut Mmu, pc: u64, enter: bool) -> Result<&Block, Trap> {
        let fetch = mmu.fetch(pc)?;
        if !fetch.whole_page || pc & 0xfff == 0xffe {
            let block = self.cut_single(mmu, pc)?;
            return Ok(self.single.insert(block));
        }
        let (points, key) = match self.breakpoints.view(pc) {
            View::Plain => (None, fetch.pa),
            View::Cut => (Some(&*self.breakpoints), fetch.pa | CUT),
        };
        let index = match self.by_address.get(&key) {
            Some(&index) => {
                let cached = &mut self.cached[index as usize];
                if !same_code(mmu, fetch.pa, &cached.code) {
                    *cached = decode(&self.decoder, mmu, pc, fetch.pa, self.block_limit, points)?;
                }
                index
            }
            None => {
                let cached = decode(&self.decoder, mmu, pc, fetch.pa, self.block_limit, points)?;
                if let Some((trace, hart)) = &self.trace {
                    let start = cached.block.start;
                    let read = |at: u16| cached.code.get(usize::from(at - start) / 2).copied();
                    let place = Place { hart: *hart, mode: mmu.privilege(), address: pc };
                    trace.block(&self.decoder, &cached.block, &place, fetch.pa, read);
                }
                if self.cached.len() == self.limit {
                    self.cached.clear();
                    self.by_address.clear();
                    if enter {
                        mmu.exec_clear_all();
                    }
                }
                let index = self.cached.len() as u32;
                self.cached.push(cached);
                self.by_address.insert(key, index);
                index
            }
        };
        if enter {
            mmu.exec_insert(pc, &fetch, u64::from(index));
        }
        Ok(&self.cached[index as usize].block)
    }

    /// One instruction, each half of it translated and checked by itself.
    pub(super) fn cut_single(&self, mmu: &mut Mmu, pc: u64) -> Result<Block, Trap> {
        let page = pc & !0xfff;
        Block::cut(&self.decoder, (pc & 0xfff) as u16, 1, |at| {
            let address = page.wrapping_add(u64::from(at));
            let fetch = mmu.fetch(address)?;
            read(mmu, fetch.pa, address)
        })
    }
}

fn read(mmu: &Mmu, pa: u64, va: u64) -> Result<u16, Trap> {
    mmu.read_code_u16(pa).map_err(|_| Trap { cause: cause::INSTRUCTION_ACCESS_FAULT, tval: va })
}

/// Blocks end at their first branch, as they do for whoever executes them one by one, and before breakpoints.
struct UpTo<'a>(Option<&'a Breakpoints>);

impl Extent for UpTo<'_> {
    fn stops(&self, at: u16) -> bool {
        self.0.is_some_and(|points| points.cuts_at(at))
    }
}

fn decode(
    decoder: &Decoder,
    mmu: &Mmu,
    pc: u64,
    pa: u64,
    limit: usize,
    points: Option<&Breakpoints>,
) -> Result<Cached, Trap> {
    let once = || {
        let mut code = Vec::with_capacity(32);
        let start = (pc & 0xfff) as u16;
        let page_pa = pa & !0xfff;
        let mut block = Block::default();
        block.recut(decoder, start, limit, &UpTo(points), |at| {
            let half = read(mmu, page_pa + u64::from(at), (pc & !0xfff).wrapping_add(u64::from(at)))?;
            code.push(half);
            Ok::<u16, Trap>(half)
        })?;
        // The cut may have looked at a first half that did not make it into the block.
        code.truncate(usize::from((block.end - block.start) / 2));
        Ok(Cached { block, code: code.into() })
    };
    let cached = once()?;
    // Between the halves of an instruction another hart may have stored the whole of another.
    if same_code(mmu, pa, &cached.code) { Ok(cached) } else { once() }
}

fn same_code(mmu: &Mmu, pa: u64, code: &[u16]) -> bool {
    (pa..).step_by(2).zip(code).all(|(pa, half)| mmu.read_code_u16(pa).is_ok_and(|now| now == *half))
}

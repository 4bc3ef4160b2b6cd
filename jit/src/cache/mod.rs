//! The cache of generated code that the harts of a machine share: which blocks there are, by physical address, how they are
//! linked, when they are killed, and when their memory is used again.
//!
//! # Life of a block
//!
//! A hart that wants to translate asks [`CodeCache::begin`] for the page. The granules of the block's bytes are *watched*
//! ([`softmmu::GuestMemory::watch_code`]) and the bytes read again, so that a store from then on is noticed; a page that harts
//! may still store to unnoticed is not translated before all have answered [`Request::DropWrites`]. The code is assembled
//! without a lock, and published by [`CodeCache::publish`], unless the page was written meanwhile.
//!
//! A store to watched granules kills the blocks that overlap it: links to them are taken back, and their entry is diverted to
//! the dispatcher, for jump caches that still know it. The code itself stays until its region is reused.
//!
//! # Regions
//!
//! The arena is a ring of regions. When the first code is put into one, the next, which holds the oldest code, is retired: its
//! blocks are killed and every hart is asked to forget where code is. It is used again only when all have answered. Nobody
//! waits for that; until then blocks are interpreted.

mod arena;
mod harts;
mod links;

use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use softmmu::{CodeWatcher, GuestMemory, PAGE_SIZE};

pub(crate) use arena::Arena;
pub(crate) use harts::{Participant, Request};

use crate::address_map::AddressMap;
use crate::backend;
use crate::codegen::{Link, Thunks, listing};
use crate::inspect::Inspect;
use crate::inspect::stats::CacheStats;
use crate::inspect::trace::{Category, Trace, Value};
use harts::Harts;
use links::{Jump, Links, List};

/// Bytes of the arena.
const ARENA_SIZE: usize = 32 << 20;
/// The same for tests of the engines, which is small so that they see regions retired.
const SMALL_ARENA_SIZE: usize = 2 << 20;
const REGIONS: u32 = 16;

/// Bytes of the arena that the host is asked for at a time; a divisor of every region's size, and a multiple of every host's page.
const POPULATE: u32 = 64 << 10;

/// A page whose blocks were killed this many times in a second is interpreted for the rest of it.
const MAX_KILLS: u32 = 200;

/// Most physical address of a page that can be translated; links name pages by 32 bits.
const MAX_ADDRESS: u64 = 1 << 44;

/// Generated code for the blocks of a machine, shared by its harts.
pub(crate) struct CodeCache {
    pub(crate) arena: Arena,
    pub(crate) thunks: Thunks,
    pub(crate) inspect: Inspect,
    /// For [`Category::Cache`].
    trace: Option<Arc<Trace>>,
    memory: GuestMemory,
    made: Instant,
    inner: Mutex<Inner>,
}

type Pages = AddressMap<Page>;

struct Inner {
    blocks: AddressMap<Block>,
    /// Where blocks that cross a page edge go on.
    second_pages: AddressMap<u64>,
    links: Links,
    pages: Pages,
    harts: Harts,
    /// Where the next code goes, and the end of its region.
    cursor: u32,
    region_end: u32,
    /// The host has been asked for the memory before this in the region.
    populated: u32,
    /// The region after the cursor's, and the request by which it is retired.
    retiring: Range<u32>,
    retired: u64,
    stats: CacheStats,
}

struct Block {
    /// Arena offset of the entry.
    entry: u32,
    /// Bytes of the guest's code in the block's page.
    length: u16,
    /// The code is one instruction that goes on in the page that [`Inner::second_pages`] says.
    crosses: bool,
    /// Direct jumps that lead here.
    incoming: List,
}

/// Bytes in one page of guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) pa: u64,
    pub(crate) length: u64,
}

impl Span {
    fn page(self) -> u64 {
        self.pa & !(PAGE_SIZE - 1)
    }

    fn overlaps(self, other: Span) -> bool {
        self.pa < other.pa + other.length && other.pa < self.pa + self.length
    }
}

#[derive(Default)]
struct Page {
    /// Offsets of the blocks that start in the page.
    blocks: Vec<u16>,
    /// Blocks that start in another page and end in this one.
    crossing: Vec<u64>,
    /// Counts stores to watched granules.
    version: u64,
    kills: Kills,
    watch: Watch,
}

/// Stores that killed blocks of a page.
#[derive(Clone, Copy, Debug, Default)]
struct Kills {
    /// The second of the cache's life in which they are counted.
    second: u32,
    count: u32,
}

impl Kills {
    fn add(&mut self, second: u32) {
        if self.second != second {
            *self = Kills { second, count: 0 };
        }
        self.count += 1;
    }

    fn are_too_many(self, second: impl FnOnce() -> u32) -> bool {
        self.count >= MAX_KILLS && self.second == second()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Watch {
    #[default]
    Not,
    /// Watched, but some hart may not have answered the request yet.
    Asked(u64),
    /// Every store is noticed.
    Complete,
}

/// Leave to translate a block, until somebody stores to its pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    code: [Span; 2],
    versions: [u64; 2],
}

impl Page {
    fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.crossing.is_empty()
    }
}

impl Inner {
    /// Where the guest code of the block at `pa` is.
    fn code(&self, pa: u64, block: &Block) -> [Span; 2] {
        let first = Span { pa, length: u64::from(block.length) };
        let second = match self.second_pages.get(&pa) {
            Some(&pa) if block.crosses => Span { pa, length: 2 },
            _ => Span::default(),
        };
        [first, second]
    }
}

impl CodeCache {
    /// An empty cache for code in `memory`, in a small arena for tests. `None` if the host cannot run generated code.
    pub(crate) fn new(memory: &GuestMemory, inspect: &Inspect, small: bool) -> Option<Arc<Self>> {
        if !backend::is_supported() {
            return None;
        }
        let size = if small { SMALL_ARENA_SIZE } else { ARENA_SIZE };
        let arena = Arena::new(size)
            .inspect_err(|error| log::warn!("no memory for generated code, guests are interpreted: {error}"))
            .ok()?;
        let (code, thunks) = backend::shared_code();
        arena.write(0, &code);
        if let Some(perf) = inspect.perf() {
            for (start, end, name) in listing::symbols(&thunks) {
                perf.code(
                    arena.address(start),
                    &code[start as usize..end as usize],
                    format_args!("rv:{name}"),
                );
            }
        }
        let inner = Inner {
            blocks: AddressMap::default(),
            second_pages: AddressMap::default(),
            links: Links::default(),
            pages: AddressMap::default(),
            harts: Harts::default(),
            cursor: first_place(&thunks),
            region_end: size as u32 / REGIONS,
            populated: 0,
            retiring: 0..0,
            retired: 0,
            stats: CacheStats { arena_size: arena.size() as u64, ..CacheStats::default() },
        };
        let (inspect, trace) = (inspect.clone(), inspect.trace(&[Category::Cache]));
        let cache = Arc::new(Self {
            arena,
            thunks,
            inspect,
            trace,
            memory: memory.clone(),
            made: Instant::now(),
            inner: Mutex::new(inner),
        });
        memory.set_code_watcher(Arc::new(Watcher(Arc::downgrade(&cache))));
        Some(cache)
    }

    /// Counts so far.
    pub(crate) fn stats(&self) -> CacheStats {
        self.inner.lock().stats
    }

    pub(crate) fn join(&self, participant: Arc<Participant>) {
        self.inner.lock().harts.join(participant);
    }

    pub(crate) fn leave(&self, participant: &Arc<Participant>) {
        self.inner.lock().harts.leave(participant);
    }

    /// Host address of the code for the block with the guest code `code`, as far as its first byte and its second page say. The
    /// direct jump whose displacement is at `site` is linked to it.
    pub(crate) fn find(&self, code: [Span; 2], site: Option<u64>) -> Option<u64> {
        let inner = &mut *self.inner.lock();
        let block = inner.blocks.get(&code[0].pa)?;
        if inner.code(code[0].pa, block)[1] != code[1] {
            return None;
        }
        let address = self.arena.address(block.entry);
        self.link(inner, site, code[0].pa);
        Some(address)
    }

    /// Asks to translate the block with the guest code `code`. Its bytes are watched from now on if that is granted; they must
    /// be read after that.
    pub(crate) fn begin(&self, code: [Span; 2]) -> Option<Ticket> {
        let mut inner = self.inner.lock();
        let first = self.watch(&mut inner, code[0])?;
        let second = if code[1].length == 0 { 0 } else { self.watch(&mut inner, code[1])? };
        Some(Ticket { code, versions: [first, second] })
    }

    /// Watches a part of a page; its version, if every store to it is noticed now.
    fn watch(&self, inner: &mut Inner, code: Span) -> Option<u64> {
        let page_pa = code.page();
        if page_pa >= MAX_ADDRESS || !self.memory.is_ram(page_pa, PAGE_SIZE) {
            return None;
        }
        let Inner { pages, harts, .. } = inner;
        let page = pages.entry(page_pa).or_default();
        if page.kills.are_too_many(|| self.second()) {
            return None;
        }
        let written = self.memory.watch_code(code.pa, code.length);
        if page.watch == Watch::Not {
            page.watch =
                if written { Watch::Asked(harts.ask(Request::DropWrites(page_pa))) } else { Watch::Complete };
        }
        if let Watch::Asked(number) = page.watch
            && harts.have_answered(number)
        {
            self.memory.writes_dropped(page_pa);
            page.watch = Watch::Complete;
        }
        (page.watch == Watch::Complete).then_some(page.version)
    }

    /// Publishes a block of `size` bytes: `place` is given the code's offset in the arena and returns the code. Gives the code's
    /// host address, or nothing if a page was written since the ticket was given, or there is no memory now. The direct jump
    /// whose displacement is at `site` is linked to the block.
    pub(crate) fn publish<'a>(
        &self,
        ticket: Ticket,
        insns: usize,
        size: usize,
        site: Option<u64>,
        place: impl FnOnce(u32) -> (&'a [u8], &'a [Link]),
    ) -> Option<u64> {
        let mut inner = self.inner.lock();
        let pa = ticket.code[0].pa;
        if let Some(block) = inner.blocks.get(&pa) {
            if inner.code(pa, block) == ticket.code {
                // Another hart was faster.
                let address = self.arena.address(block.entry);
                self.link(&mut inner, site, pa);
                return Some(address);
            }
            // The same first half of an instruction, but another page follows it now.
            self.remove(&mut inner, pa);
        }
        let entry = self.allocate(&mut inner, size as u32)?;
        // Both can take the last other block from a page, which ends the watch; so the versions are compared after them.
        for (code, version) in ticket.code.into_iter().zip(ticket.versions) {
            if code.length != 0 && inner.pages.get(&code.page())?.version != version {
                return None;
            }
        }
        let (code, links) = place(entry);
        self.arena.write(entry, code);
        if let Some(perf) = self.inspect.perf() {
            perf.code(self.arena.address(entry), code, format_args!("rv:{pa:x}"));
        }
        let [first, second] = ticket.code;
        let crosses = second.length != 0;
        let block = Block { entry, length: first.length as u16, crosses, incoming: List::default() };
        inner.blocks.insert(pa, block);
        inner.pages.entry(first.page()).or_default().blocks.push((pa & (PAGE_SIZE - 1)) as u16);
        if crosses {
            inner.second_pages.insert(pa, second.pa);
            inner.pages.entry(second.page()).or_default().crossing.push(pa);
        }
        inner.stats.blocks += 1;
        inner.stats.insns += insns as u64;
        inner.stats.bytes += size as u64;
        inner.stats.arena_used = inner.stats.arena_used.max(u64::from(entry) + size as u64);
        for link in links {
            self.link_in(&mut inner, entry + link.field, (pa & !(PAGE_SIZE - 1)) + u64::from(link.target));
        }
        self.link(&mut inner, site, pa);
        Some(self.arena.address(entry))
    }

    /// Links the direct jump whose displacement is at the host address `site` to the block at `pa`.
    fn link(&self, inner: &mut Inner, site: Option<u64>, pa: u64) {
        // A hart that has not answered yet may come from a region whose links have been forgotten already.
        let field =
            site.and_then(|site| self.arena.offset(site)).filter(|field| !inner.retiring.contains(field));
        if let Some(field) = field {
            self.link_in(inner, field, pa);
        }
    }

    fn link_in(&self, inner: &mut Inner, field: u32, pa: u64) {
        let Inner { blocks, links, .. } = inner;
        let Some(block) = blocks.get_mut(&pa) else { return };
        let displacement = (block.entry + backend::BODY).wrapping_sub(field + 4);
        // A block in two pages is entered only where both have been looked up.
        if block.crosses || self.arena.displacement(field) == displacement {
            return;
        }
        let old = self.arena.patch(field, displacement);
        links.push(&mut block.incoming, Jump { field, unlinked: old });
        inner.stats.links += 1;
    }

    /// Takes a block back: nothing leads to it any more but a diverted entry.
    fn remove(&self, inner: &mut Inner, pa: u64) {
        let Some(mut block) = inner.blocks.remove(&pa) else { return };
        let code = inner.code(pa, &block);
        for jump in inner.links.iter(block.incoming) {
            self.arena.patch(jump.field, jump.unlinked);
        }
        inner.links.clear(&mut block.incoming);
        inner.second_pages.remove(&pa);
        self.arena.divert(block.entry, self.thunks.dead);
        for part in code.into_iter().filter(|part| part.length != 0) {
            let Some(page) = inner.pages.get_mut(&part.page()) else { continue };
            page.blocks.retain(|&offset| part.page() + u64::from(offset) != pa);
            page.crossing.retain(|&other| other != pa);
            if page.is_empty() && page.watch == Watch::Complete {
                self.memory.unwatch_code(part.page());
                page.version += 1;
                page.watch = Watch::Not;
            }
        }
    }

    /// Finds room for `size` bytes of code.
    fn allocate(&self, inner: &mut Inner, size: u32) -> Option<u32> {
        let size = size.next_multiple_of(16);
        let region_size = self.arena.size() as u32 / REGIONS;
        if size > region_size / 2 {
            return None;
        }
        if inner.cursor + size > inner.region_end {
            if !inner.harts.have_answered(inner.retired) {
                return None;
            }
            let after = |end: u32| if end as usize == self.arena.size() { 0 } else { end };
            let next = after(inner.region_end);
            inner.cursor = if next == 0 { first_place(&self.thunks) } else { next };
            inner.region_end = next + region_size;
            inner.populated = next;
            let after = after(inner.region_end);
            self.retire(inner, after..after + region_size);
            self.arena.release_writable();
        }
        let entry = inner.cursor;
        inner.cursor += size;
        if inner.cursor > inner.populated {
            let end = inner.cursor.next_multiple_of(POPULATE);
            self.arena.populate(inner.populated..end);
            inner.populated = end;
        }
        Some(entry)
    }

    /// Kills all blocks in a part of the arena.
    fn retire(&self, inner: &mut Inner, region: Range<u32>) {
        inner.retiring = region.clone();
        let Inner { blocks, links, .. } = &mut *inner;
        let mut old = Vec::new();
        for (&pa, block) in blocks.iter_mut() {
            links.retain(&mut block.incoming, |jump| !region.contains(&jump.field));
            if region.contains(&block.entry) {
                old.push(pa);
            }
        }
        for &pa in &old {
            self.remove(inner, pa);
        }
        let Inner { harts, stats, .. } = inner;
        if !old.is_empty() {
            inner.retired = harts.ask(Request::ForgetCode);
            stats.retired += 1;
            if let Some(trace) = &self.trace {
                let fields = [
                    ("offset in the arena", Value::Hex(region.start.into())),
                    ("blocks", Value::Number(old.len() as u64)),
                ];
                trace.event(Category::Cache, None, &"region retired", &fields);
            }
        }
    }
}

/// Where the first block of the arena goes: behind the shared code.
fn first_place(thunks: &Thunks) -> u32 {
    thunks.end.next_multiple_of(16)
}

/// What the memory knows of the cache, which itself refers to the memory.
struct Watcher(Weak<CodeCache>);

impl CodeWatcher for Watcher {
    fn code_written(&self, pa: u64, length: u64) {
        if let Some(cache) = self.0.upgrade() {
            cache.code_written(pa, length);
        }
    }
}

impl CodeCache {
    /// Which second of the cache's life it is.
    fn second(&self) -> u32 {
        self.made.elapsed().as_secs() as u32
    }

    /// Kills the blocks of `[pa, pa + length)`, in one page.
    fn code_written(&self, pa: u64, length: u64) {
        let written = Span { pa, length };
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let Some(page) = inner.pages.get_mut(&written.page()) else { return };
        page.version += 1;
        let empty = page.is_empty();
        let offsets = page.blocks.iter().map(|&offset| written.page() + u64::from(offset));
        let starts: Vec<u64> = offsets.chain(page.crossing.iter().copied()).collect();
        let hit = |start: &u64| {
            let block = inner.blocks.get(start);
            block.is_some_and(|block| inner.code(*start, block).iter().any(|&part| part.overlaps(written)))
        };
        let killed: Vec<u64> = starts.into_iter().filter(hit).collect();
        if let Some(page) = inner.pages.get_mut(&written.page()) {
            if !killed.is_empty() {
                page.kills.add(self.second());
            }
            if empty && page.watch == Watch::Complete {
                self.memory.unwatch_code(written.page());
                page.watch = Watch::Not;
            }
        }
        for start in killed {
            inner.stats.killed += 1;
            if let Some(trace) = &self.trace {
                let fields =
                    [("pa", Value::Hex(start)), ("store", Value::Hex(pa)), ("bytes", Value::Number(length))];
                trace.event(Category::Cache, None, &"block killed", &fields);
            }
            self.remove(inner, start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAM: u64 = 0x8000_0000;
    /// An instruction across the edge of the first page.
    const START: u64 = RAM + 0xffe;

    fn cache() -> (GuestMemory, Arc<CodeCache>) {
        let memory = GuestMemory::new(RAM, 1 << 20).unwrap();
        let cache = CodeCache::new(&memory, &Inspect::default(), true).expect("this host has a backend");
        (memory, cache)
    }

    /// The instruction with its second half in the given page.
    fn across(page: u64) -> [Span; 2] {
        [Span { pa: START, length: 2 }, Span { pa: RAM + page * PAGE_SIZE, length: 2 }]
    }

    fn publish(cache: &CodeCache, code: [Span; 2]) -> Option<u64> {
        // The first instruction of an entry has at least five bytes.
        const NOPS: [u8; 16] = [0x90; 16];
        cache.publish(cache.begin(code)?, 1, NOPS.len(), None, |_| (&NOPS, &[]))
    }

    #[test]
    fn kills_are_counted_by_the_second() {
        let mut kills = Kills::default();
        for second in [0, 1, 7] {
            for _ in 0..MAX_KILLS {
                assert!(!kills.are_too_many(|| second));
                kills.add(second);
            }
            assert!(kills.are_too_many(|| second));
            assert!(!kills.are_too_many(|| second + 1));
        }
    }

    #[test]
    fn a_store_to_either_page_kills_a_block_across_them() {
        for written in [START, RAM + PAGE_SIZE] {
            let (memory, cache) = cache();
            assert_eq!(publish(&cache, across(1)), cache.find(across(1), None));
            assert!(cache.find(across(1), None).is_some());
            memory.write(written, &[0xff]).unwrap();
            assert_eq!(cache.find(across(1), None), None, "{written:#x}");
        }
    }

    #[test]
    fn a_block_whose_second_page_is_another_now_is_watched_too() {
        let (memory, cache) = cache();
        publish(&cache, across(1)).unwrap();
        assert_eq!(cache.find(across(2), None), None);
        // The first attempt may find that the old block's end has ended the watch of the first page.
        let entry = publish(&cache, across(2)).or_else(|| publish(&cache, across(2)));
        assert!(entry.is_some() && cache.find(across(2), None) == entry);
        assert_eq!(cache.find(across(1), None), None);
        memory.write(START, &[0xff]).unwrap();
        assert_eq!(cache.find(across(2), None), None);
    }
}

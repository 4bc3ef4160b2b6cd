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
mod fetch;
mod harts;
mod links;
mod pages;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use softmmu::{CodeWatcher, GuestMemory, PAGE_SIZE};

pub(crate) use arena::Arena;
pub(crate) use harts::{Participant, Request};

use crate::address_map::AddressMap;
use crate::backend;
use crate::breakpoints::{Cuts, View, is_cut};
use crate::codegen::{Link, Thunks, listing};
use crate::inspect::Inspect;
use crate::inspect::stats::CacheStats;
use crate::inspect::trace::{Category, Trace, Value};
use harts::Harts;
use links::{Jump, Links, List};
use pages::{Page, Watch};

/// Bytes of the arena.
const ARENA_SIZE: usize = 28 << 20;
/// The same for tests of the engines, which is small so that they see regions retired.
const SMALL_ARENA_SIZE: usize = 2 << 20;
const REGIONS: u32 = 16;

/// Bytes of the arena that the host is asked for at a time; a divisor of every region's size, and a multiple of every host's page.
const POPULATE: u32 = 128 << 10;
/// Bytes of code after which the writable mapping is released.
const RELEASE: u32 = 4 * POPULATE;

/// Most physical address of a page that can be translated; links name pages and views by 32 bits.
const MAX_ADDRESS: u64 = CUT;

/// Most of [`Inner::wanderers`]; they are found again.
const MAX_WANDERERS: usize = 1 << 12;

/// In a block's key: the block is of [`View::Cut`].
const CUT: u64 = 1 << 43;

/// How a block is known: the physical address of its first instruction, and the view.
pub(crate) fn key(pa: u64, view: View) -> u64 {
    match view {
        View::Plain => pa,
        View::Cut => pa | CUT,
    }
}

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
    /// By key.
    blocks: AddressMap<Block>,
    /// Before which page offsets blocks of [`View::Cut`] end.
    cuts: Cuts,
    /// By key: where blocks that cross a page edge go on.
    second_pages: AddressMap<u64>,
    /// Physical addresses of blocks whose accesses wander from page to page.
    wanderers: AddressMap<()>,
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

    /// In its page.
    fn offset(self) -> u16 {
        (self.pa & (PAGE_SIZE - 1)) as u16
    }

    fn overlaps(self, other: Span) -> bool {
        self.pa < other.pa + other.length && other.pa < self.pa + self.length
    }
}

/// Leave to translate a block, until somebody stores to its pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    code: [Span; 2],
    view: View,
    versions: [u64; 2],
    /// Its accesses wander from page to page.
    pub(crate) wanders: bool,
}

impl Inner {
    /// Where the guest code of the block with this key is.
    fn code(&self, key: u64, block: &Block) -> [Span; 2] {
        let first = Span { pa: key & !CUT, length: u64::from(block.length) };
        let second = match self.second_pages.get(&key) {
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
            cuts: [0; 32],
            second_pages: AddressMap::default(),
            wanderers: AddressMap::default(),
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
    pub(crate) fn find(&self, code: [Span; 2], view: View, site: Option<u64>) -> Option<u64> {
        let inner = &mut *self.inner.lock();
        let page = inner.pages.get(&code[0].page())?;
        if !page.starts(view).contains(code[0].offset()) {
            return None;
        }
        let key = key(code[0].pa, view);
        let block = inner.blocks.get(&key)?;
        if inner.code(key, block)[1] != code[1] {
            return None;
        }
        let address = self.arena.address(block.entry);
        self.link_site(inner, site, key);
        Some(address)
    }

    /// Asks to translate the block with the guest code `code`. Its bytes are watched from now on if that is granted; they must
    /// be read after that.
    pub(crate) fn begin(&self, code: [Span; 2], view: View) -> Option<Ticket> {
        let mut inner = self.inner.lock();
        let first = self.watch(&mut inner, code[0])?;
        let second = if code[1].length == 0 { 0 } else { self.watch(&mut inner, code[1])? };
        let wanders = inner.wanderers.contains_key(&code[0].pa);
        Some(Ticket { code, view, versions: [first, second], wanders })
    }

    /// The accesses of the block at a physical address wander from page to page: it has to be translated again.
    pub(crate) fn note_wanderer(&self, pa: u64) {
        let inner = &mut *self.inner.lock();
        if inner.wanderers.contains_key(&pa) {
            // Another hart has said so, or this one of the old code.
            return;
        }
        if inner.wanderers.len() >= MAX_WANDERERS {
            inner.wanderers.clear();
        }
        inner.wanderers.insert(pa, ());
        inner.stats.wanderers += 1;
        for view in [View::Plain, View::Cut] {
            self.remove(inner, key(pa, view));
        }
    }

    /// Whether stores have killed so many blocks of the page at `pa` that others may be killed soon, too.
    pub(crate) fn is_restless(&self, pa: u64) -> bool {
        let inner = self.inner.lock();
        let page = inner.pages.get(&(pa & !(PAGE_SIZE - 1)));
        page.is_some_and(|page| page.kills.are_many(|| self.second()))
    }

    /// Watches a part of a page; its version, if every store to it is noticed now.
    fn watch(&self, inner: &mut Inner, code: Span) -> Option<u64> {
        let page_pa = code.page();
        let rom = self.memory.is_rom(page_pa, PAGE_SIZE);
        if page_pa >= MAX_ADDRESS || !rom && !self.memory.is_ram(page_pa, PAGE_SIZE) {
            return None;
        }
        let Inner { pages, harts, .. } = inner;
        let page = pages.entry(page_pa).or_default();
        if rom {
            // There are no stores to it.
            return Some(page.version);
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

    /// Publishes a block of `size` bytes, `usual` of which are run usually: `place` is given the code's offset in the arena and returns the code. Gives the code's
    /// host address, or nothing if a page was written since the ticket was given, or there is no memory now. The direct jump
    /// whose displacement is at `site` is linked to the block.
    pub(crate) fn publish<'a>(
        &self,
        ticket: Ticket,
        insns: usize,
        usual: usize,
        size: usize,
        site: Option<u64>,
        place: impl FnOnce(u32) -> (&'a [u8], &'a [Link]),
    ) -> Option<u64> {
        let inner = &mut *self.inner.lock();
        let [first, second] = ticket.code;
        let key = key(first.pa, ticket.view);
        if inner.pages.get(&first.page())?.starts(ticket.view).contains(first.offset())
            && let Some(block) = inner.blocks.get(&key)
        {
            if inner.code(key, block) == ticket.code {
                // Another hart was faster.
                let address = self.arena.address(block.entry);
                self.link_site(inner, site, key);
                return Some(address);
            }
            // The same first half of an instruction, but another page follows it now.
            self.remove(inner, key);
        }
        let entry = self.allocate(inner, size as u32)?;
        // Both can take the last other block from a page, which ends the watch; so the versions are compared after them.
        let crosses = second.length != 0;
        if crosses && inner.pages.get(&second.page())?.version != ticket.versions[1] {
            return None;
        }
        let field = self.field(inner, site);
        let page = inner.pages.get_mut(&first.page())?;
        if page.version != ticket.versions[0] {
            return None;
        }
        let (code, links) = place(entry);
        self.arena.write(entry, code);
        if inner.harts.are_several() && !self.arena.synchronize_others() {
            return None;
        }
        if let Some(perf) = self.inspect.perf() {
            perf.code(self.arena.address(entry), code, format_args!("rv:{:x}", first.pa));
        }
        inner.stats.blocks += 1;
        inner.stats.insns += insns as u64;
        inner.stats.bytes += size as u64;
        inner.stats.usual_bytes += usual as u64;
        inner.stats.arena_used = inner.stats.arena_used.max(u64::from(entry) + size as u64);
        let mut block = Block { entry, length: first.length as u16, crosses, incoming: List::default() };
        let starts = page.starts_mut(ticket.view);
        for link in links.iter().filter(|link| starts.contains(link.target)) {
            let target = (key & !(PAGE_SIZE - 1)) + u64::from(link.target);
            if let Some(target) = inner.blocks.get_mut(&target) {
                self.link(&mut inner.links, &mut inner.stats, entry + link.field, target);
            }
        }
        if let Some(field) = field {
            self.link(&mut inner.links, &mut inner.stats, field, &mut block);
        }
        starts.insert(first.offset());
        inner.blocks.insert(key, block);
        if crosses {
            inner.second_pages.insert(key, second.pa);
            inner.pages.entry(second.page()).or_default().crossing.push(key);
        }
        Some(self.arena.address(entry))
    }

    /// Where in the arena the direct jump is whose displacement is at the host address `site`, if it can be linked.
    fn field(&self, inner: &Inner, site: Option<u64>) -> Option<u32> {
        // A hart that has not answered yet may come from a region whose links have been forgotten already.
        self.arena.offset(site?).filter(|field| !inner.retiring.contains(field))
    }

    /// Links the direct jump whose displacement is at the host address `site` to the block with this key.
    fn link_site(&self, inner: &mut Inner, site: Option<u64>, key: u64) {
        if let Some(field) = self.field(inner, site)
            && let Some(block) = inner.blocks.get_mut(&key)
        {
            self.link(&mut inner.links, &mut inner.stats, field, block);
        }
    }

    /// Links the direct jump whose displacement is at `field` to a block.
    fn link(&self, links: &mut Links, stats: &mut CacheStats, field: u32, block: &mut Block) {
        let word = backend::link_word(field, block.entry);
        // A block in two pages is entered only where both have been looked up.
        if block.crosses || self.arena.word(field) == word {
            return;
        }
        let old = self.arena.patch(field, word);
        links.push(&mut block.incoming, Jump { field, unlinked: old });
        stats.links += 1;
    }

    /// Sets before which page offsets blocks of [`View::Cut`] end. No hart is in its engine, and none enters it with other
    /// cuts than these.
    pub(crate) fn set_cuts(&self, cuts: &Cuts) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let old = std::mem::replace(&mut inner.cuts, *cuts);
        let added: Cuts = std::array::from_fn(|word| cuts[word] & !old[word]);
        if added == [0; 32] {
            return;
        }
        // Blocks that end at a cut which is gone are shorter than they need be, and right.
        let overlaps = |(key, block): (&u64, &Block)| {
            let start = (key & (PAGE_SIZE - 1)) as u16;
            let offsets = start..(start + block.length).min(PAGE_SIZE as u16);
            (key & CUT != 0 && offsets.step_by(2).any(|offset| is_cut(&added, offset))).then_some(*key)
        };
        let killed: Vec<u64> = inner.blocks.iter().filter_map(overlaps).collect();
        for key in killed {
            self.remove(inner, key);
        }
    }

    /// Takes a block back: nothing leads to it any more but a diverted entry.
    fn remove(&self, inner: &mut Inner, key: u64) {
        let Some(mut block) = inner.blocks.remove(&key) else { return };
        let code = inner.code(key, &block);
        let view = if key & CUT == 0 { View::Plain } else { View::Cut };
        for jump in inner.links.iter(block.incoming) {
            self.arena.patch(jump.field, jump.unlinked);
        }
        inner.links.clear(&mut block.incoming);
        inner.second_pages.remove(&key);
        backend::divert(&self.arena, block.entry, self.thunks.dead);
        for part in code.into_iter().filter(|part| part.length != 0) {
            let Some(page) = inner.pages.get_mut(&part.page()) else { continue };
            if part.pa == key & !CUT {
                page.starts_mut(view).remove(part.offset());
            }
            page.crossing.retain(|&other| other != key);
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
            if inner.populated / RELEASE != end / RELEASE {
                // Links have been patched all over it since.
                self.arena.release_writable();
            }
            self.arena.populate(inner.populated..end);
            inner.populated = end;
        }
        Some(entry)
    }

    /// Kills all blocks in a part of the arena, if there has ever been code.
    fn retire(&self, inner: &mut Inner, region: Range<u32>) {
        inner.retiring = region.clone();
        if inner.stats.arena_used <= u64::from(region.start) {
            return;
        }
        let Inner { blocks, links, .. } = &mut *inner;
        let mut old = Vec::new();
        for (&key, block) in blocks.iter_mut() {
            links.retain(&mut block.incoming, |jump| !region.contains(&jump.field));
            if region.contains(&block.entry) {
                old.push(key);
            }
        }
        for &key in &old {
            self.remove(inner, key);
        }
        let Inner { harts, stats, .. } = inner;
        // Also when stores have killed all of it: harts may know the entries still, or be in the code.
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
        let starts = [View::Plain, View::Cut].into_iter().flat_map(|view| {
            page.starts(view).iter().map(move |offset| key(written.page() + u64::from(offset), view))
        });
        let starts: Vec<u64> = starts.chain(page.crossing.iter().copied()).collect();
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
            inner.wanderers.remove(&(start & !CUT));
            if let Some(trace) = &self.trace {
                let fields = [
                    ("pa", Value::Hex(start & !CUT)),
                    ("store", Value::Hex(pa)),
                    ("bytes", Value::Number(length)),
                ];
                trace.event(Category::Cache, None, &"block killed", &fields);
            }
            self.remove(inner, start);
        }
    }
}

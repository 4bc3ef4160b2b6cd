//! The contexts of a hart, and which one is current.
//!
//! What an access may do depends on privilege, `satp`, SUM, MXR and MPRV. Every combination that guests go back and forth
//! between has a [`Context`] of its own, so that a change of privilege or address space is an exchange of two pointers:
//!
//! - machine mode, and S and U without translation, have one each;
//! - S-mode has one for SUM=0 and one for SUM=1. What a kernel uses is mapped globally, so they serve all address spaces:
//!   the rest is dropped when the address space changes;
//! - U-mode has one for each address space, and so have the rare cases (MXR=1, MPRV=1). They share a pool; the one not used
//!   for longest is given away.
//!
//! Flushes of contexts that are not current are often put off until they are.

use crate::ram::{GuestMemory, HostPage};
use crate::spaces::SpaceId;
use crate::tlb::Context;

/// Which context is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selector {
    /// M-mode.
    Machine,
    /// S- or U-mode with `satp.MODE` = Bare.
    Bare,
    /// S-mode, MXR=0.
    Supervisor { sum: bool },
    /// All others, by what distinguishes them within an address space.
    Keyed(u8),
}

const MACHINE: usize = 0;
const BARE: usize = 1;
const SUPERVISOR: usize = 2;
const POOL: usize = 4;
const COUNT: usize = POOL + 12;

/// Flushes put off.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Pending {
    Nothing,
    Exec,
    All,
}

#[derive(Clone, Copy)]
struct Meta {
    pending: Pending,
    /// Address space of the entries that are not global.
    space: SpaceId,
    /// Key in the pool.
    key: Option<u8>,
    /// When it was last selected.
    used: u64,
}

/// Contexts move between these fields and are never freed, so that [`crate::Mmu::context`] stays where it is.
pub(crate) struct Contexts {
    current: Box<Context>,
    active: usize,
    /// The others, each made when it is first needed.
    parked: [Option<Box<Context>>; COUNT],
    meta: [Meta; COUNT],
    now: u64,
    memory: GuestMemory,
}

impl Contexts {
    /// With the context of machine mode current.
    pub(crate) fn new(memory: GuestMemory) -> Self {
        Self {
            current: Context::new(memory.clone()),
            active: MACHINE,
            parked: [const { None }; COUNT],
            meta: [Meta { pending: Pending::Nothing, space: 0, key: None, used: 0 }; COUNT],
            now: 0,
            memory,
        }
    }

    #[inline]
    pub(crate) fn current(&self) -> &Context {
        &self.current
    }

    #[inline]
    pub(crate) fn current_mut(&mut self) -> &mut Context {
        &mut self.current
    }

    /// Makes a context current, with all flushes carried out. `space` is the present address space.
    #[inline]
    pub(crate) fn select(&mut self, selector: Selector, space: SpaceId) {
        let index = match selector {
            Selector::Machine => MACHINE,
            Selector::Bare => BARE,
            Selector::Supervisor { sum } => SUPERVISOR + usize::from(sum),
            Selector::Keyed(key) => self.pooled(key, space),
        };
        if index != self.active {
            let memory = &self.memory;
            let next = self.parked[index].take().unwrap_or_else(|| Context::new(memory.clone()));
            self.parked[self.active] = Some(std::mem::replace(&mut self.current, next));
            self.active = index;
        }
        let meta = &mut self.meta[index];
        match std::mem::replace(&mut meta.pending, Pending::Nothing) {
            Pending::Nothing => {}
            Pending::Exec => self.current.clear_exec(),
            Pending::All => self.current.clear(),
        }
        if index >= SUPERVISOR && meta.space != space {
            meta.space = space;
            self.current.clear_local();
        }
    }

    /// The pool's context for a key in an address space.
    fn pooled(&mut self, key: u8, space: SpaceId) -> usize {
        self.now += 1;
        let pool = &mut self.meta[POOL..];
        let wanted = |meta: &Meta| meta.space == space && meta.key == Some(key);
        let place = pool.iter().position(wanted).unwrap_or_else(|| {
            let age = |(_, meta): &(usize, &Meta)| if meta.key.is_none() { 0 } else { meta.used };
            let oldest = pool.iter().enumerate().min_by_key(age).map_or(0, |(place, _)| place);
            pool[oldest] = Meta { pending: Pending::All, space, key: Some(key), used: 0 };
            oldest
        });
        pool[place].used = self.now;
        POOL + place
    }

    fn each(&mut self) -> impl Iterator<Item = (usize, &mut Meta, &mut Context)> {
        let (active, current) = (self.active, &mut self.current);
        let parked = self
            .parked
            .iter_mut()
            .enumerate()
            .filter_map(|(index, context)| Some((index, &mut **context.as_mut()?)));
        let mut meta = self.meta.each_mut().map(Some);
        let all = parked.chain([(active, &mut **current)]);
        all.filter_map(move |(index, context)| Some((index, meta[index].take()?, context)))
    }

    /// Forgets a page, in one address space or (`None`) in all.
    pub(crate) fn flush_page(&mut self, va: u64, space: Option<SpaceId>) {
        for (index, meta, context) in self.each() {
            let concerned = index >= SUPERVISOR && space.is_none_or(|space| space == meta.space);
            if concerned && meta.pending < Pending::All {
                context.flush_page(va);
            }
        }
    }

    /// Takes a page of memory out of all write tables.
    pub(crate) fn drop_writes(&mut self, page: HostPage) {
        for (_, meta, context) in self.each() {
            if meta.pending < Pending::All {
                context.drop_writes(page);
            }
        }
    }

    /// Frees the contexts of an address space whose number is retired. Those of S-mode notice by themselves.
    pub(crate) fn free_space(&mut self, space: SpaceId) {
        for meta in self.meta[POOL..].iter_mut().filter(|meta| meta.space == space) {
            meta.key = None;
        }
    }

    /// Forgets all translations by page tables. To be followed by [`Self::select`].
    pub(crate) fn flush_translated(&mut self) {
        for meta in &mut self.meta[SUPERVISOR..] {
            *meta = Meta { pending: Pending::All, space: 0, key: None, used: 0 };
        }
    }

    /// Forgets everything. To be followed by [`Self::select`].
    pub(crate) fn flush_all(&mut self) {
        self.flush_translated();
        self.meta[MACHINE].pending = Pending::All;
        self.meta[BARE].pending = Pending::All;
    }

    /// Forgets all executable entries.
    pub(crate) fn clear_exec(&mut self) {
        for meta in &mut self.meta {
            meta.pending = meta.pending.max(Pending::Exec);
        }
        self.current.clear_exec();
        let meta = &mut self.meta[self.active];
        if meta.pending == Pending::Exec {
            meta.pending = Pending::Nothing;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tlb::Reach;

    const BASE: u64 = 0x8000_0000;
    const USER: Selector = Selector::Keyed(0);
    const S0: Selector = Selector::Supervisor { sum: false };
    const S1: Selector = Selector::Supervisor { sum: true };

    fn contexts() -> Contexts {
        Contexts::new(GuestMemory::new(BASE, 1 << 20).unwrap())
    }

    impl Contexts {
        fn fill(&mut self, selector: Selector, space: SpaceId, va: u64, global: bool) {
            self.select(selector, space);
            self.current.fill(va, BASE, true, Reach { level: 0, global });
        }

        fn has(&mut self, selector: Selector, space: SpaceId, va: u64) -> bool {
            self.select(selector, space);
            self.current.readable::<u8>(va).is_some()
        }
    }

    #[test]
    fn user_contexts_stay_with_their_space() {
        let mut contexts = contexts();
        contexts.fill(USER, 2, 0x5000, false);
        assert!(!contexts.has(USER, 3, 0x5000));
        assert!(!contexts.has(Selector::Keyed(1), 2, 0x5000));
        assert!(contexts.has(USER, 2, 0x5000));
    }

    #[test]
    fn the_least_recently_used_is_given_away() {
        let mut contexts = contexts();
        for space in 2..15 {
            contexts.fill(USER, space, 0x5000, false);
            assert!(contexts.has(USER, 2, 0x5000));
        }
        assert!(!contexts.has(USER, 3, 0x5000));
        assert!(contexts.has(USER, 14, 0x5000));
    }

    #[test]
    fn supervisor_contexts_keep_only_what_is_global() {
        let mut contexts = contexts();
        contexts.fill(S0, 2, 0x5000, false);
        contexts.fill(S0, 2, 0x6000, true);
        assert!(!contexts.has(S1, 2, 0x5000));
        assert!(contexts.has(S0, 2, 0x5000));
        assert!(contexts.has(S0, 3, 0x6000));
        assert!(!contexts.has(S0, 2, 0x5000));
    }

    #[test]
    fn flushes_reach_what_they_name() {
        let mut contexts = contexts();
        let fill = |contexts: &mut Contexts| {
            contexts.fill(USER, 2, 0x5000, false);
            contexts.fill(USER, 3, 0x5000, false);
            contexts.fill(S1, 3, 0x5000, false);
            contexts.fill(Selector::Machine, 0, 0x5000, true);
        };
        fill(&mut contexts);
        contexts.flush_page(0x5000, Some(2));
        assert!(!contexts.has(USER, 2, 0x5000));
        assert!(contexts.has(USER, 3, 0x5000) && contexts.has(S1, 3, 0x5000));
        fill(&mut contexts);
        contexts.flush_page(0x5000, None);
        assert!(
            !contexts.has(USER, 2, 0x5000) && !contexts.has(USER, 3, 0x5000) && !contexts.has(S1, 3, 0x5000)
        );
        fill(&mut contexts);
        contexts.free_space(3);
        assert!(contexts.has(USER, 2, 0x5000));
        assert!(!contexts.has(USER, 3, 0x5000) && !contexts.has(S1, 4, 0x5000));
        fill(&mut contexts);
        contexts.flush_translated();
        assert!(
            !contexts.has(USER, 2, 0x5000) && !contexts.has(USER, 3, 0x5000) && !contexts.has(S1, 3, 0x5000)
        );
        assert!(contexts.has(Selector::Machine, 0, 0x5000));
        contexts.flush_all();
        assert!(!contexts.has(Selector::Machine, 0, 0x5000));
    }

    #[test]
    fn code_is_forgotten_everywhere() {
        let mut contexts = contexts();
        for space in 2..4 {
            contexts.select(USER, space);
            contexts.current.insert_exec(0x5000, 1, Reach { level: 0, global: false });
            contexts.current.fill(0x6000, BASE, false, Reach { level: 0, global: false });
        }
        contexts.clear_exec();
        assert_eq!(contexts.current.exec(0x5000), None);
        contexts.select(USER, 2);
        assert_eq!(contexts.current.exec(0x5000), None);
        assert!(contexts.current.readable::<u8>(0x6000).is_some());
    }
}

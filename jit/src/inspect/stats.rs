//! Counts of what the engines did. They are kept by Rust code only, off the fast paths: generated code counts nothing but
//! the instructions that it retires, and those of the host only when asked to.

use std::fmt;

use frontend::ir::{Code, Helper};
use softmmu::MmuStats;

/// Why generated code was left: a name and what it means, in the order of [`EngineStats::exits`].
pub const EXITS: [(&str, &str); 6] = [
    ("dispatch", "for a jump whose target is looked up"),
    ("link", "for a direct jump that is not linked yet"),
    ("trap", "for an exception"),
    ("interpret", "for an instruction it cannot do"),
    ("stale", "for a block that was killed"),
    ("poll", "because another thread or a device asked"),
];

/// What one hart's engine did in its dispatcher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Guest instructions that the interpreter retired.
    pub interpreted_insns: u64,
    /// Blocks that the interpreter ran. Only where there is generated code too.
    pub interpreted_blocks: u64,
    /// Times generated code was entered.
    pub entries: u64,
    /// Times generated code was left, by cause; see [`EXITS`].
    pub exits: [u64; EXITS.len()],
}

/// How often one hart's generated code called Rust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowPaths {
    /// Loads that the TLB did not answer.
    pub loads: u64,
    /// Stores that the TLB did not answer.
    pub stores: u64,
    /// Looks at operations that may have underflowed, on hosts that cannot tell.
    pub underflows: u64,
    /// Operations that the interpreter carried out, by [`Code`].
    pub steps: [u64; Code::ALL.len()],
    /// Calls of helpers, by [`Helper`].
    pub calls: [u64; Helper::ALL.len()],
}

impl Default for SlowPaths {
    fn default() -> Self {
        Self {
            loads: 0,
            stores: 0,
            underflows: 0,
            steps: [0; Code::ALL.len()],
            calls: [0; Helper::ALL.len()],
        }
    }
}

/// What happened in the cache of generated code since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Blocks translated.
    pub blocks: u64,
    /// Guest instructions translated.
    pub insns: u64,
    /// Bytes of generated code.
    pub bytes: u64,
    /// Those of them that are run usually: not the rare cases, and not data.
    pub usual_bytes: u64,
    /// Blocks killed by stores.
    pub killed: u64,
    /// Loops found to wander from page to page, and translated again.
    pub wanderers: u64,
    /// Regions of the arena retired.
    pub retired: u64,
    /// Direct jumps linked.
    pub links: u64,
    /// Bytes of the arena that were ever used.
    pub arena_used: u64,
    /// Bytes of the arena.
    pub arena_size: u64,
}

/// What the engines did, of one hart or of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Guest instructions retired, whoever executed them.
    pub insns: u64,
    /// Instructions of the host that generated code executed for them; 0 if they were not counted, see
    /// [`Inspect::count_host`](super::Inspect::count_host).
    pub host_insns: u64,
    /// What the dispatchers did.
    pub engine: EngineStats,
    /// How often generated code called Rust.
    pub slow: SlowPaths,
    /// The TLBs.
    pub mmu: MmuStats,
    /// The cache that the harts share; `None` without generated code.
    pub cache: Option<CacheStats>,
}

fn add(to: &mut [u64], from: &[u64]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}

impl Stats {
    /// Adds the counts of another hart of the same machine. The cache is the harts' common one: its counts are not added.
    pub fn merge(&mut self, other: &Stats) {
        let Stats { insns, host_insns, engine, slow, mmu, cache } = other;
        self.insns += insns;
        self.host_insns += host_insns;
        self.engine.interpreted_insns += engine.interpreted_insns;
        self.engine.interpreted_blocks += engine.interpreted_blocks;
        self.engine.entries += engine.entries;
        add(&mut self.engine.exits, &engine.exits);
        self.slow.loads += slow.loads;
        self.slow.stores += slow.stores;
        self.slow.underflows += slow.underflows;
        add(&mut self.slow.steps, &slow.steps);
        add(&mut self.slow.calls, &slow.calls);
        let MmuStats { fills, l2_hits, walks, flushes, page_flushes } = mmu;
        self.mmu.fills += fills;
        self.mmu.l2_hits += l2_hits;
        self.mmu.walks += walks;
        self.mmu.flushes += flushes;
        self.mmu.page_flushes += page_flushes;
        self.cache = self.cache.or(*cache);
    }

    /// Guest instructions that generated code retired.
    pub fn generated_insns(&self) -> u64 {
        self.insns - self.engine.interpreted_insns.min(self.insns)
    }
}

/// Column at which numbers end, and at which remarks start after them.
const NUMBERS: usize = 46;

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes rows of a table.
struct Table<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Table<'_, '_> {
    fn row(&mut self, depth: usize, name: &str, number: u64) -> fmt::Result {
        self.remarked(depth, name, number, "")
    }

    fn remarked(&mut self, depth: usize, name: &str, number: u64, remark: &str) -> fmt::Result {
        let indent = depth * 2;
        let width = NUMBERS - indent - name.len().min(NUMBERS - indent);
        let line = format!("{:indent$}{name}{:>width$}  {remark}", "", grouped(number));
        writeln!(self.0, "{}", line.trim_end())
    }

    /// A row that says what part it is of the one above it.
    fn part(&mut self, name: &str, number: u64, of: u64) -> fmt::Result {
        let percent = format!("{:5.1} %", 100.0 * number as f64 / of.max(1) as f64);
        self.remarked(1, name, number, &percent)
    }

    /// Rows for those of `counts` that are not 0, the largest first, under their sum.
    fn split(&mut self, name: &str, counts: &[u64], label: impl Fn(usize) -> String) -> fmt::Result {
        self.row(0, name, counts.iter().sum())?;
        let mut rows: Vec<_> = counts.iter().copied().enumerate().filter(|&(_, count)| count != 0).collect();
        rows.sort_by_key(|&(index, count)| (std::cmp::Reverse(count), index));
        rows.into_iter().try_for_each(|(index, count)| self.row(1, &label(index), count))
    }
}

/// A table for people.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats { insns, host_insns, engine, slow, mmu, cache } = self;
        let mut table = Table(f);
        table.row(0, "guest instructions retired", *insns)?;
        table.part("by generated code", self.generated_insns(), *insns)?;
        if *host_insns != 0 {
            let each = *host_insns as f64 / self.generated_insns().max(1) as f64;
            let remark = format!("{each:5.2} for each guest instruction");
            table.remarked(2, "in host instructions", *host_insns, &remark)?;
        }
        table.part("by the interpreter", engine.interpreted_insns, *insns)?;
        if let Some(cache) = cache {
            table.row(0, "blocks interpreted", engine.interpreted_blocks)?;
            table.row(0, "blocks translated", cache.blocks)?;
            table.row(1, "guest instructions", cache.insns)?;
            for (name, bytes) in
                [("bytes of host code", cache.bytes), ("that are run usually", cache.usual_bytes)]
            {
                let each = bytes as f64 / cache.insns.max(1) as f64;
                table.remarked(1, name, bytes, &format!("{each:5.1} for each guest instruction"))?;
            }
            let percent = 100.0 * cache.arena_used as f64 / cache.arena_size.max(1) as f64;
            let remark = format!("{percent:5.1} % of {} MiB", cache.arena_size >> 20);
            table.remarked(1, "bytes of the arena used", cache.arena_used, &remark)?;
            table.row(1, "regions retired", cache.retired)?;
            table.row(1, "blocks killed by stores", cache.killed)?;
            table.row(1, "loops that wander from page to page", cache.wanderers)?;
            table.row(1, "direct jumps linked", cache.links)?;
            let each = self.generated_insns() as f64 / engine.entries.max(1) as f64;
            let remark = format!("{each:5.1} guest instructions each");
            table.remarked(0, "entries into generated code", engine.entries, &remark)?;
            for ((name, meaning), count) in EXITS.into_iter().zip(engine.exits) {
                table.remarked(1, &format!("left: {name}"), count, meaning)?;
            }
            table.row(0, "slow loads", slow.loads)?;
            table.row(0, "slow stores", slow.stores)?;
            table.row(0, "floating point that may have underflowed", slow.underflows)?;
            table
                .split("steps by the interpreter", &slow.steps, |index| format!("{:?}", Code::ALL[index]))?;
            table.split("helper calls", &slow.calls, |index| format!("{:?}", Helper::ALL[index]))?;
        }
        table.row(0, "TLB fills", mmu.fills)?;
        table.row(1, "second-level hits", mmu.l2_hits)?;
        table.row(1, "page-table walks", mmu.walks)?;
        table.row(0, "TLB flushes of address spaces", mmu.flushes)?;
        table.row(0, "TLB flushes of pages", mmu.page_flushes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Stats {
        let mut stats = Stats { insns: 1_234_567, ..Stats::default() };
        stats.engine.interpreted_insns = 234_567;
        stats.slow.steps[Code::Cas as usize] = 3;
        stats.slow.steps[Code::Amo as usize] = 5;
        stats.mmu.walks = 7;
        stats
    }

    #[test]
    fn counts_of_harts_add_up_and_the_cache_is_counted_once() {
        let mut sum = Stats::default();
        let cache = Some(CacheStats { blocks: 9, ..CacheStats::default() });
        sum.merge(&Stats { cache, ..sample() });
        sum.merge(&Stats { cache, ..sample() });
        assert_eq!((sum.insns, sum.generated_insns()), (2_469_134, 2_000_000));
        assert_eq!((sum.slow.steps[Code::Amo as usize], sum.mmu.walks), (10, 14));
        assert_eq!(sum.cache, cache);
    }

    #[test]
    fn the_table_is_aligned_and_names_what_is_not_zero() {
        let text = Stats { cache: Some(CacheStats::default()), ..sample() }.to_string();
        assert!(text.starts_with("guest instructions retired"), "{text}");
        let end_of_number = |line: &str| {
            let start = line.trim_start().find(|c: char| c.is_ascii_digit()).expect("a number");
            let start = start + line.len() - line.trim_start().len();
            start + line[start..].find(' ').unwrap_or(line.len() - start)
        };
        assert!(text.lines().all(|line| end_of_number(line) == NUMBERS), "{text}");
        let amo = text.find("  Amo ").expect("a step");
        assert!(amo < text.find("  Cas ").expect("a step"), "{text}");
        assert!(!text.contains("  Beq "), "{text}");
        assert!(text.contains("1,234,567"), "{text}");
    }

    #[test]
    fn numbers_have_their_thousands_apart() {
        let texts = [0, 12, 123, 1234, 123_456, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "12", "123", "1,234", "123,456", "1,234,567"]);
    }
}

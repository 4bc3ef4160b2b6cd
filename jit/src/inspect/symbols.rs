//! Names of guest code, from the files that the user names.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that the last symbol of a file has if it does not say.
const LAST: u64 = 4096;

/// Where Linux's exceptions go: its address in `stvec` tells where the kernel has been loaded.
const TRAP_ENTRY: &str = "handle_exception";

/// A named range of code, at the addresses of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// First byte.
    pub address: u64,
    /// Bytes; 0 if it goes on to the next symbol.
    pub size: u64,
    /// Its name. An empty name only ends the symbol before it.
    pub name: String,
}

struct Named {
    start: u64,
    end: u64,
    name: String,
}

/// The symbols of one file.
struct Module {
    /// Rising, and not empty.
    symbols: Vec<Named>,
    /// What is added to the addresses of the file.
    offset: AtomicU64,
    /// The address in the file of [`TRAP_ENTRY`], where the offset is to be found out.
    trap_entry: Option<u64>,
}

/// The names of guest code. Where files overlap, the one that was added first counts.
#[derive(Default)]
pub struct Symbols {
    modules: Vec<Module>,
    /// The last `stvec`.
    trap_vector: AtomicU64,
}

impl Symbols {
    /// Adds the symbols of a file, which is loaded `offset` bytes above the addresses in it. Without an offset these are 0, or
    /// what [`Self::note_trap_vector`] finds out for a Linux kernel.
    pub fn add(&mut self, mut symbols: Vec<Symbol>, offset: Option<u64>) {
        // Of several with one address the first stays: with a size, and with the plainest name.
        symbols.sort_by(|a, b| {
            let key = |s: &Symbol| (s.address, s.name.is_empty(), s.size == 0, s.name.starts_with('_'));
            key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
        });
        symbols.dedup_by_key(|symbol| symbol.address);
        let ends: Vec<u64> = symbols.iter().skip(1).map(|next| next.address).collect();
        let symbols: Vec<Named> = symbols
            .into_iter()
            .enumerate()
            .filter(|(_, symbol)| !symbol.name.is_empty())
            .map(|(index, Symbol { address: start, size, name })| {
                let next = ends.get(index).copied();
                let end = match size {
                    0 => next.unwrap_or(start.saturating_add(LAST)),
                    _ => start.saturating_add(size),
                };
                Named { start, end, name }
            })
            .collect();
        let trap_entry = match offset {
            Some(_) => None,
            None => symbols.iter().find(|symbol| symbol.name == TRAP_ENTRY).map(|symbol| symbol.start),
        };
        self.modules.push(Module { symbols, offset: offset.unwrap_or(0).into(), trap_entry });
    }

    /// A hart has this `stvec`: Linux's shows where the kernel is.
    pub fn note_trap_vector(&self, stvec: u64) {
        if self.trap_vector.load(Ordering::Relaxed) == stvec {
            return;
        }
        self.trap_vector.store(stvec, Ordering::Relaxed);
        for module in &self.modules {
            let Some(trap_entry) = module.trap_entry else { continue };
            let offset = (stvec & !3).wrapping_sub(trap_entry);
            // A kernel is moved by pages, and its own vector is in the upper half; others come before and between.
            if offset & 0xfff == 0 && (stvec as i64) < 0 {
                module.offset.store(offset, Ordering::Relaxed);
            }
        }
    }

    /// The name of the code at a virtual address, and how far into it that is.
    pub fn find(&self, address: u64) -> Option<(&str, u64)> {
        self.modules.iter().find_map(|module| {
            let address = address.wrapping_sub(module.offset.load(Ordering::Relaxed));
            let after = module.symbols.partition_point(|symbol| symbol.start <= address);
            let symbol = &module.symbols[after.checked_sub(1)?];
            (address < symbol.end).then(|| (symbol.name.as_str(), address - symbol.start))
        })
    }

    /// Whether two addresses are in the same function; where nothing is known of either, in the same page.
    pub fn same_function(&self, a: u64, b: u64) -> bool {
        let start = |address: u64| self.find(address).map(|(_, offset)| address - offset);
        match (start(a), start(b)) {
            (None, None) => a >> 12 == b >> 12,
            (a, b) => a == b,
        }
    }

    /// An address with its name, if it has one.
    pub fn show(&self, address: u64) -> impl fmt::Display {
        struct Shown<'a>(u64, Option<(&'a str, u64)>);
        impl fmt::Display for Shown<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Shown(address, name) = self;
                match name {
                    Some((name, 0)) => write!(f, "{address:#x} <{name}>"),
                    Some((name, offset)) => write!(f, "{address:#x} <{name}+{offset:#x}>"),
                    None => write!(f, "{address:#x}"),
                }
            }
        }
        Shown(address, self.find(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(address: u64, size: u64, name: &str) -> Symbol {
        Symbol { address, size, name: name.into() }
    }

    #[test]
    fn a_symbol_ends_where_it_says_or_at_the_next() {
        let mut symbols = Symbols::default();
        let all = [symbol(0x30, 0, ""), symbol(0x10, 0x8, "one"), symbol(0x20, 0, "two")];
        symbols.add(all.to_vec(), Some(0));
        let find = |address| symbols.find(address);
        assert_eq!([0xf, 0x18, 0x30].map(find), [None; 3]);
        assert_eq!([0x17, 0x2f].map(find), [Some(("one", 7)), Some(("two", 15))]);
        assert_eq!(symbols.show(0x10).to_string(), "0x10 <one>");
        assert_eq!(symbols.show(0x21).to_string(), "0x21 <two+0x1>");
        assert_eq!(symbols.show(0x31).to_string(), "0x31");
    }

    #[test]
    fn of_names_for_one_address_the_sized_and_plain_one_is_kept() {
        let mut symbols = Symbols::default();
        symbols.add(vec![symbol(0, 0, "label"), symbol(0, 4, "__alias"), symbol(0, 4, "name")], None);
        assert_eq!(symbols.find(0), Some(("name", 0)));
    }

    #[test]
    fn an_offset_moves_a_file() {
        let mut symbols = Symbols::default();
        symbols.add(vec![symbol(0x10, 4, "moved")], Some(0x1000));
        symbols.add(vec![symbol(0x10, 4, "not")], None);
        assert_eq!((symbols.find(0x1010), symbols.find(0x10)), (Some(("moved", 0)), Some(("not", 0))));
    }

    #[test]
    fn the_trap_vector_shows_where_a_kernel_is() {
        let mut symbols = Symbols::default();
        let (base, entry) = (0xffff_ffff_8000_0000, 0xffff_ffff_8000_1234);
        symbols.add(vec![symbol(base, 4, "_start"), symbol(entry, 4, TRAP_ENTRY)], None);
        assert_eq!(symbols.find(base), Some(("_start", 0)));
        symbols.note_trap_vector(0x8020_0234);
        symbols.note_trap_vector(entry + 0x20_0008);
        assert_eq!(symbols.find(base), Some(("_start", 0)));
        symbols.note_trap_vector(entry + 0x20_0000);
        assert_eq!(symbols.find(base + 0x20_0000), Some(("_start", 0)));
        assert_eq!(symbols.find(base), None);
    }

    #[test]
    fn addresses_are_of_one_function_by_name_or_else_by_page() {
        let mut symbols = Symbols::default();
        symbols.add(vec![symbol(0x10, 4, "a"), symbol(0x14, 4, "b")], None);
        assert!(symbols.same_function(0x10, 0x13) && !symbols.same_function(0x13, 0x14));
        assert!(symbols.same_function(0x20, 0xfff) && !symbols.same_function(0xfff, 0x1000));
        assert!(!symbols.same_function(0x10, 0x18));
    }
}

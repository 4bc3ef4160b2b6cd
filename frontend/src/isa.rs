//! Which extensions a hart has.
//!
//! An [`Isa`] is what a CPU model chooses. The decoder leaves out every row whose extensions are not all in
//! it, and the device tree lists the names.

/// Makes [`Extension`] from rows of variant, name and meaning.
macro_rules! extensions {
    ($($variant:ident $name:literal $doc:literal;)*) => {
        /// A standard extension, of those that change what a hart of ours does or promises.
        ///
        /// The order is the one in which ISA strings and device trees list them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Extension { $(#[doc = $doc] $variant),* }

        impl Extension {
            /// Every extension, in order.
            pub const ALL: &[Extension] = &[$(Extension::$variant),*];

            /// The name in lower case, as in the device tree's `riscv,isa-extensions`.
            pub const fn name(self) -> &'static str {
                match self { $(Extension::$variant => $name),* }
            }
        }
    };
}

#[rustfmt::skip]
extensions! {
    I           "i"             "The base integer instructions.";
    M           "m"             "Multiplication and division.";
    A           "a"             "Atomics: Zaamo and Zalrsc.";
    F           "f"             "Single-precision floating point.";
    D           "d"             "Double-precision floating point.";
    C           "c"             "Compressed instructions: Zca, and Zcd where there is D.";
    B           "b"             "Bit manipulation: Zba, Zbb and Zbs.";
    Zic64b      "zic64b"        "Cache blocks are 64 bytes, naturally aligned.";
    Zicbom      "zicbom"        "Cache-block management.";
    Zicbop      "zicbop"        "Cache-block prefetches.";
    Zicboz      "zicboz"        "Cache-block zero.";
    Ziccamoa    "ziccamoa"      "Main memory supports all atomics of A.";
    Ziccif      "ziccif"        "Main memory supports atomic instruction fetch.";
    Zicclsm     "zicclsm"       "Main memory supports misaligned loads and stores.";
    Ziccrse     "ziccrse"       "Main memory guarantees eventual success of LR/SC loops.";
    Zicond      "zicond"        "Integer conditional operations.";
    Zicntr      "zicntr"        "The counters cycle, time and instret.";
    Zicsr       "zicsr"         "CSR access.";
    Zifencei    "zifencei"      "Instruction-fetch fence.";
    Zihintntl   "zihintntl"     "Non-temporal locality hints (all are encodings of `add` to x0).";
    Zihintpause "zihintpause"   "The pause hint.";
    Zihpm       "zihpm"         "The counters hpmcounter3 to hpmcounter31.";
    Zimop       "zimop"         "May-be-operations.";
    Zmmul       "zmmul"         "Multiplication without division.";
    Za64rs      "za64rs"        "Reservation sets are at most 64 bytes.";
    Zaamo       "zaamo"         "Atomic memory operations.";
    Zabha       "zabha"         "Byte and halfword atomic memory operations.";
    Zacas       "zacas"         "Atomic compare-and-swap.";
    Zalrsc      "zalrsc"        "Load-reserved and store-conditional.";
    Zawrs       "zawrs"         "Wait on reservation set.";
    Zfa         "zfa"           "Additional floating-point instructions.";
    Zfh         "zfh"           "Half-precision floating point.";
    Zfhmin      "zfhmin"        "Half-precision loads, stores, moves and conversions.";
    Zca         "zca"           "Compressed instructions other than floating-point loads and stores.";
    Zcb         "zcb"           "More compressed instructions.";
    Zcd         "zcd"           "Compressed double-precision loads and stores.";
    Zcmop       "zcmop"         "Compressed may-be-operations.";
    Zba         "zba"           "Address generation.";
    Zbb         "zbb"           "Basic bit manipulation.";
    Zbc         "zbc"           "Carry-less multiplication.";
    Zbs         "zbs"           "Single-bit instructions.";
    Ssccptr     "ssccptr"       "Main memory supports page-table reads.";
    Sscofpmf    "sscofpmf"      "Counter overflow and mode-based filtering.";
    Sscounterenw "sscounterenw" "scounteren is writable for every counter there is.";
    Sstc        "sstc"          "Supervisor timer compare.";
    Sstvala     "sstvala"       "stval is written with the faulting address or instruction.";
    Sstvecd     "sstvecd"       "stvec supports Direct mode and any four-byte-aligned base.";
    Ssu64xl     "ssu64xl"       "sstatus.UXL can be 64.";
    Svade       "svade"         "A page fault where A or D would need setting.";
    Svadu       "svadu"         "Hardware updates of the A and D bits.";
    Svinval     "svinval"       "Fine-grained address-translation cache invalidation.";
    Svnapot     "svnapot"       "NAPOT translation contiguity.";
    Svpbmt      "svpbmt"        "Page-based memory types.";
    Svvptc      "svvptc"        "A page made valid is seen without a fence, in bounded time.";
}

use Extension::*;

/// `(premises, conclusion)`: a hart with all the premises has the conclusion too.
#[rustfmt::skip]
const IMPLIED: &[(&[Extension], Extension)] = &[
    (&[M], Zmmul),
    (&[A], Zaamo), (&[A], Zalrsc),
    (&[F], Zicsr), (&[D], F),
    (&[C], Zca), (&[C, D], Zcd), (&[Zcd], Zca), (&[Zcd], D), (&[Zcb], Zca), (&[Zcmop], Zca),
    (&[B], Zba), (&[B], Zbb), (&[B], Zbs),
    (&[Zicntr], Zicsr), (&[Zihpm], Zicsr),
    (&[Zabha], Zaamo), (&[Zacas], Zaamo), (&[Zawrs], Zalrsc),
    (&[Zfa], F), (&[Zfhmin], F), (&[Zfh], Zfhmin),
];

/// A set of extensions, always closed under what the specifications say one implies.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Isa(u128);

const _: () = assert!(Extension::ALL.len() <= u128::BITS as usize);

impl Isa {
    /// RV64I with nothing added.
    pub const RV64I: Isa = Isa::EMPTY.with(I);

    /// RV64GC: the base that Linux distributions started from.
    pub const RV64GC: Isa =
        Isa::RV64I.with(M).with(A).with(F).with(D).with(C).with(Zicsr).with(Zifencei).with(Zicntr);

    /// Every extension, for tests and for looking at code of unknown origin.
    pub const ALL: Isa = Isa::of(Extension::ALL);

    const EMPTY: Isa = Isa(0);

    const fn bit(extension: Extension) -> u128 {
        1 << extension as u8
    }

    /// The set of exactly these extensions and what they imply.
    pub const fn of(extensions: &[Extension]) -> Isa {
        Isa::exactly(extensions).closed()
    }

    /// The set of these extensions alone, as a row of an instruction table names what it needs.
    pub(crate) const fn exactly(extensions: &[Extension]) -> Isa {
        let mut set = Isa::EMPTY;
        let mut i = 0;
        while i < extensions.len() {
            set.0 |= Isa::bit(extensions[i]);
            i += 1;
        }
        set
    }

    /// Whether `extension` is in the set.
    pub const fn contains(self, extension: Extension) -> bool {
        self.0 & Isa::bit(extension) != 0
    }

    /// Whether everything in `needed` is in this set.
    pub const fn contains_all(self, needed: Isa) -> bool {
        self.0 & needed.0 == needed.0
    }

    /// This set with `extension` and what follows from it.
    pub const fn with(self, extension: Extension) -> Isa {
        Isa(self.0 | Isa::bit(extension)).closed()
    }

    /// This set without `extension` and without those that cannot be had without it (no D without F).
    pub const fn without(self, extension: Extension) -> Isa {
        let mut gone = Isa::exactly(&[extension]);
        loop {
            let before = gone.0;
            let mut i = 0;
            while i < IMPLIED.len() {
                let (premises, conclusion) = IMPLIED[i];
                if premises.len() == 1 && gone.contains(conclusion) {
                    gone.0 |= Isa::bit(premises[0]);
                }
                i += 1;
            }
            if gone.0 == before {
                return Isa(self.0 & !gone.0);
            }
        }
    }

    /// The extensions in the set, in the order of the device tree.
    pub fn iter(self) -> impl Iterator<Item = Extension> {
        Extension::ALL.iter().copied().filter(move |&e| self.contains(e))
    }

    const fn closed(mut self) -> Isa {
        loop {
            let before = self.0;
            let mut i = 0;
            while i < IMPLIED.len() {
                let (premises, conclusion) = IMPLIED[i];
                if self.contains_all(Isa::exactly(premises)) {
                    self.0 |= Isa::bit(conclusion);
                }
                i += 1;
            }
            if self.0 == before {
                return self;
            }
        }
    }
}

impl std::fmt::Debug for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_variants_in_lower_case() {
        for &e in Extension::ALL {
            assert_eq!(e.name(), format!("{e:?}").to_lowercase());
        }
    }

    #[test]
    fn adding_brings_what_is_implied() {
        let isa = Isa::RV64I.with(Zfh);
        assert!(isa.contains(Zfhmin) && isa.contains(F) && isa.contains(Zicsr));
        assert!(!isa.contains(D));
    }

    #[test]
    fn zcd_needs_both_c_and_d() {
        assert!(!Isa::RV64I.with(C).contains(Zcd));
        assert!(!Isa::RV64I.with(Zca).with(D).contains(Zcd));
        assert!(Isa::RV64I.with(D).with(C).contains(Zcd));
    }

    #[test]
    fn removing_takes_along_what_depends() {
        let isa = Isa::ALL.without(F);
        assert!(!isa.contains(D) && !isa.contains(Zfh) && !isa.contains(Zcd) && !isa.contains(Zfa));
        assert!(isa.contains(C) && isa.contains(M));
        assert!(!Isa::ALL.without(Zaamo).contains(Zabha));
    }

    #[test]
    fn iteration_is_in_device_tree_order() {
        let names: Vec<_> = Isa::RV64GC.iter().map(Extension::name).collect();
        let expected = "i m a f d c zicntr zicsr zifencei zmmul zaamo zalrsc zca zcd";
        assert_eq!(names.join(" "), expected);
    }
}

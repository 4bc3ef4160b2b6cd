//! What a user asks to be traced.

use std::path::PathBuf;
use std::str::FromStr;

use softmmu::Privilege;

use super::Place;

macro_rules! categories {
    ($($name:ident $text:literal $about:literal,)*) => {
        /// What can be traced.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Category {
            $(#[doc = $about] $name,)*
        }

        impl Category {
            /// Every category with its name and what it traces.
            pub const ALL: &'static [(Category, &'static str, &'static str)] =
                &[$((Category::$name, $text, $about),)*];
        }
    };
}
categories! {
    Exec   "exec"   "each instruction that is executed, and what it writes to registers (the interpreter runs the harts then)",
    Int    "int"    "each exception and interrupt that a hart takes, and each return from them",
    Mmu    "mmu"    "walks of page tables with what they find, and fences",
    Csr    "csr"    "each access to a CSR, with its old and new value",
    Sbi    "sbi"    "each call of the built-in SBI, and its answer",
    Mmio   "mmio"   "each access to a register of a device",
    Virtio "virtio" "buffers that drivers give to virtio devices, and get back",
    Guest  "guest"  "the guest instructions of each block that is translated, or decoded for the interpreter alone",
    Ir     "ir"     "its operations in the intermediate representation",
    Host   "host"   "its host code",
    Cache  "cache"  "blocks that stores kill, and regions of the code cache that are retired",
    Exits  "exits"  "each time that generated code is left, and why",
}

impl Category {
    pub(super) fn bit(self) -> u16 {
        1 << self as u16
    }

    pub(super) fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// All names, for messages.
    fn names() -> String {
        Self::ALL.iter().map(|&(_, name, _)| name).collect::<Vec<_>>().join(", ")
    }
}

/// Which events are traced, of those that harts cause. Plain data; the default is all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// None for all.
    harts: Vec<usize>,
    modes: Vec<Privilege>,
    /// First and last.
    addresses: Vec<(u64, u64)>,
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `hart=N`, `mode=u|s|m` and `address=FIRST-LAST`, separated by commas. Of one kind any may apply, of each kind one has to.
impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut filter = Self::default();
        for term in text.split(',') {
            let wrong = || {
                format!(
                    "`{term}` is no filter; want hart=N, mode=u, mode=s, mode=m, or address=0xFIRST-0xLAST"
                )
            };
            let (key, value) = term.split_once('=').ok_or_else(wrong)?;
            match key {
                "hart" => filter.harts.push(value.parse().map_err(|_| wrong())?),
                "mode" => filter.modes.push(match value {
                    "u" => Privilege::User,
                    "s" => Privilege::Supervisor,
                    "m" => Privilege::Machine,
                    _ => return Err(wrong()),
                }),
                "address" => {
                    let range = value.split_once('-').and_then(|(a, b)| Some((number(a)?, number(b)?)));
                    filter.addresses.push(range.filter(|(first, last)| first <= last).ok_or_else(wrong)?);
                }
                _ => return Err(wrong()),
            }
        }
        Ok(filter)
    }
}

impl Filter {
    pub(super) fn has_hart(&self, hart: usize) -> bool {
        self.harts.is_empty() || self.harts.contains(&hart)
    }

    pub(super) fn lets_through(&self, place: &Place) -> bool {
        let Place { hart, mode, address } = *place;
        let within = |&(first, last): &(u64, u64)| (first..=last).contains(&address);
        self.has_hart(hart)
            && (self.modes.is_empty() || self.modes.contains(&mode))
            && (self.addresses.is_empty() || self.addresses.iter().any(within))
    }
}

/// What is traced, and where to. Plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceConfig {
    pub(super) categories: u16,
    /// `None` for standard error.
    pub(super) file: Option<PathBuf>,
    pub(super) filter: Filter,
}

impl TraceConfig {
    /// The same, of what the filter lets through only.
    pub fn with_filter(self, filter: Filter) -> Self {
        Self { filter, ..self }
    }
}

/// `CATEGORY[,CATEGORY...][:FILE]`; `all` stands for every category.
impl FromStr for TraceConfig {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (list, file) = match text.split_once(':') {
            Some((_, "")) => return Err("there is no file name after the colon".into()),
            Some((list, file)) => (list, Some(file.into())),
            None => (text, None),
        };
        let mut categories = 0;
        for name in list.split(',') {
            categories |= match Category::ALL.iter().find(|&&(_, known, _)| known == name) {
                Some(&(category, ..)) => category.bit(),
                None if name == "all" => u16::MAX,
                None => {
                    return Err(format!(
                        "there is no category `{name}`; want some of {}, or all",
                        Category::names()
                    ));
                }
            };
        }
        Ok(Self { categories, file, filter: Filter::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(categories: u16, file: Option<&str>) -> TraceConfig {
        TraceConfig { categories, file: file.map(Into::into), filter: Filter::default() }
    }

    #[test]
    fn categories_and_a_file_are_parsed() {
        let parsed = "guest,int:a:b".parse();
        assert_eq!(parsed, Ok(config(Category::Guest.bit() | Category::Int.bit(), Some("a:b"))));
        assert_eq!("ir".parse(), Ok(config(Category::Ir.bit(), None)));
        assert_eq!("all".parse(), Ok(config(u16::MAX, None)));
    }

    #[test]
    fn what_is_wrong_is_named_with_the_remedy() {
        for text in ["", "guest,", "op", "guest, ir", "Guest:file"] {
            let error = text.parse::<TraceConfig>().expect_err("wrong");
            assert!(error.contains("guest, ir, host"), "{text}: {error}");
        }
        assert!("guest:".parse::<TraceConfig>().is_err());
        for text in ["", "hart", "hart=x", "mode=h", "address=5", "address=9-8", "pc=1-2", "hart=1,"] {
            let error = text.parse::<Filter>().expect_err("wrong");
            assert!(error.contains("mode=u"), "{text}: {error}");
        }
    }

    #[test]
    fn a_filter_lets_through_what_meets_one_term_of_each_kind() {
        let filter: Filter = "hart=0,hart=2,mode=s,address=0x10-0x1f,address=64-65".parse().expect("right");
        let passes = |hart, mode, address| filter.lets_through(&Place { hart, mode, address });
        assert!(passes(0, Privilege::Supervisor, 0x10) && passes(2, Privilege::Supervisor, 65));
        assert!(!passes(1, Privilege::Supervisor, 0x10));
        assert!(!passes(0, Privilege::User, 0x10));
        assert!(!passes(0, Privilege::Supervisor, 0x20));
        assert!(Filter::default().lets_through(&Place { hart: 9, mode: Privilege::User, address: 0 }));
    }
}

//! A log of what the engines do, by categories that the user chooses.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::str::FromStr;

use frontend::{Block, Decoder, decode, disasm};
use parking_lot::Mutex;

macro_rules! categories {
    ($($name:ident $text:literal $about:literal,)*) => {
        /// What can be logged.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Category {
            $(#[doc = $about] $name,)*
        }

        impl Category {
            /// Every category with its name and what it logs.
            pub const ALL: &'static [(Category, &'static str, &'static str)] =
                &[$((Category::$name, $text, $about),)*];
        }
    };
}
categories! {
    Guest  "guest"  "the guest instructions of each block that is translated, or decoded for the interpreter alone",
    Ir     "ir"     "its operations in the intermediate representation",
    Host   "host"   "its host code",
    Cache  "cache"  "blocks that stores kill, and regions of the code cache that are retired",
    Exits  "exits"  "each time that generated code is left, and why",
    Traps  "traps"  "each exception and interrupt that a hart takes",
}

impl Category {
    fn bit(self) -> u8 {
        1 << self as u8
    }

    /// All names, for messages.
    fn names() -> String {
        Self::ALL.iter().map(|&(_, name, _)| name).collect::<Vec<_>>().join(", ")
    }
}

/// What is logged, and where to. Plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    categories: u8,
    /// `None` for standard error.
    file: Option<PathBuf>,
}

/// `CATEGORY[,CATEGORY...][:FILE]`; `all` stands for every category.
impl FromStr for LogConfig {
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
                None if name == "all" => u8::MAX,
                None => {
                    return Err(format!(
                        "there is no category `{name}`; want some of {}, or all",
                        Category::names()
                    ));
                }
            };
        }
        Ok(Self { categories, file })
    }
}

/// The log. Threads may write at the same time; what one writes at once stays together.
pub struct Log {
    categories: u8,
    name: String,
    /// A terminal that is in raw mode does not return the carriage at the end of a line.
    raw: bool,
    /// `None` after an error.
    out: Mutex<Option<Box<dyn Write + Send>>>,
}

impl Log {
    pub(crate) fn create(config: &LogConfig) -> Result<Self, (PathBuf, io::Error)> {
        let (out, name): (Box<dyn Write + Send>, _) = match &config.file {
            Some(path) => {
                let file = File::create(path).map_err(|error| (path.clone(), error))?;
                (Box::new(file), path.display().to_string())
            }
            None => (Box::new(io::stderr()), "standard error".into()),
        };
        let raw = config.file.is_none() && io::stderr().is_terminal();
        Ok(Self { categories: config.categories, name, raw, out: Mutex::new(Some(out)) })
    }

    /// Whether a category is logged.
    pub fn has(&self, category: Category) -> bool {
        self.categories & category.bit() != 0
    }

    /// Writes one line or several, the first after the name of the thread, which is the hart's. They reach the host at once:
    /// the last ones before a crash are the most wanted. The first error is reported, and ends the log.
    pub fn write(&self, text: impl fmt::Display) {
        let thread = std::thread::current();
        let mut text = format!("{}: {text}", thread.name().unwrap_or("-"));
        if !text.ends_with('\n') {
            text.push('\n');
        }
        if self.raw {
            text = text.replace('\n', "\r\n");
        }
        let mut out = self.out.lock();
        if let Some(open) = &mut *out
            && let Err(error) = open.write_all(text.as_bytes())
        {
            *out = None;
            log::error!("--log: cannot write {}: {error}; it ends here", self.name);
        }
    }

    /// Logs a block at these addresses, as far as the categories want: its instructions, which `read` gives by page offset,
    /// and its operations.
    pub(crate) fn block(
        &self,
        decoder: &Decoder,
        block: &Block,
        (va, pa): (u64, u64),
        read: impl Fn(u16) -> Option<u16>,
    ) {
        let (guest, ir) = (self.has(Category::Guest), self.has(Category::Ir));
        if guest || ir {
            self.write(Listing { decoder, block, va, pa, read, guest, ir });
        }
    }
}

struct Listing<'a, R> {
    decoder: &'a Decoder,
    block: &'a Block,
    va: u64,
    pa: u64,
    read: R,
    guest: bool,
    ir: bool,
}

impl<R: Fn(u16) -> Option<u16>> fmt::Display for Listing<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { block, va, pa, .. } = self;
        let (insns, bytes) = (block.insns.len(), block.end - block.start);
        writeln!(f, "block pa {pa:#x} va {va:#x}, {insns} instructions in {bytes} bytes")?;
        let mut ops = &block.ops[..];
        for (index, &at) in block.insns.iter().enumerate() {
            if self.guest {
                self.insn(at, f)?;
            }
            let next = block.insns.get(index + 1).copied().unwrap_or(u16::MAX);
            let mine = ops.partition_point(|op| op.at < next);
            if self.ir {
                let indent = if self.guest { 28 } else { 4 };
                for op in &ops[..mine] {
                    writeln!(f, "{:indent$}{:03x}: {op}", "", op.at)?;
                }
            }
            ops = &ops[mine..];
        }
        Ok(())
    }
}

impl<R: Fn(u16) -> Option<u16>> Listing<'_, R> {
    fn insn(&self, at: u16, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let va = (self.va & !0xfff).wrapping_add(u64::from(at));
        let Some(first) = (self.read)(at) else { return writeln!(f, "  {va:16x}:  (cannot be read)") };
        let (bits, width) = match (decode::length(first), (self.read)(at + 2)) {
            (4, Some(second)) => (u32::from(first) | u32::from(second) << 16, 8),
            _ => (u32::from(first), 4),
        };
        write!(f, "  {va:16x}:  {bits:0width$x}{:pad$}  ", "", pad = 8 - width)?;
        match self.decoder.decode(bits) {
            Some(insn) => writeln!(f, "{}", disasm::disassemble(&insn, va)),
            None => writeln!(f, "(illegal)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use frontend::Isa;

    #[test]
    fn categories_and_a_file_are_parsed() {
        let parsed: LogConfig = "guest,traps:a:b".parse().expect("right");
        assert_eq!(parsed.categories, Category::Guest.bit() | Category::Traps.bit());
        assert_eq!(parsed.file, Some("a:b".into()));
        assert_eq!("ir".parse(), Ok(LogConfig { categories: Category::Ir.bit(), file: None }));
        assert_eq!("all".parse(), Ok(LogConfig { categories: u8::MAX, file: None }));
    }

    #[test]
    fn what_is_wrong_is_named_with_the_remedy() {
        for text in ["", "guest,", "op", "guest, ir", "Guest:file"] {
            let error = text.parse::<LogConfig>().expect_err("wrong");
            assert!(error.contains("guest, ir, host"), "{text}: {error}");
        }
        assert!("guest:".parse::<LogConfig>().is_err());
    }

    #[test]
    fn a_listing_has_instructions_and_their_operations() {
        let code: Vec<u16> =
            [0x0015_0513_u32, 0x0000_0073].iter().flat_map(|w| [*w as u16, (w >> 16) as u16]).collect();
        let decoder = Decoder::new(&Isa::ALL);
        let read = |at: u16| code.get(usize::from(at - 0x100) / 2).copied();
        let block = Block::cut(&decoder, 0x100, 64, |at| read(at).ok_or(())).expect("a block");
        let listing = Listing {
            decoder: &decoder,
            block: &block,
            va: 0x4100,
            pa: 0x8000_0100,
            read,
            guest: true,
            ir: true,
        };
        assert_eq!(
            listing.to_string(),
            "block pa 0x80000100 va 0x4100, 2 instructions in 8 bytes\n\
             \u{20}             4100:  00150513  addi a0,a0,1\n\
             \u{20}                           100: AddI x10, x10, 0x1\n\
             \u{20}             4104:  00000073  ecall\n\
             \u{20}                           104: Call Ecall _, x0, x0, 0x73 (0)\n"
        );
    }
}

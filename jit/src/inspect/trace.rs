//! A trace of what engines, harts and devices do, by categories that the user chooses.
//!
//! Whoever has something to tell keeps an `Arc` of the [`Trace`] if one of its categories is wanted, so that what is off costs
//! a test for `None`, and none in generated code: where generated code would have to tell, other code is generated
//! (`csr`: calls of the helper) or none at all (`exec`: the interpreter runs the harts).

mod options;

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use frontend::{Block, Decoder, decode, disasm};
use parking_lot::Mutex;
use softmmu::Privilege;

use super::symbols::Symbols;
pub use options::{Category, Filter, TraceConfig};

/// Where on a hart something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the hart.
    pub hart: usize,
    /// Its privilege mode, before the event.
    pub mode: Privilege,
    /// Virtual address: of the instruction, or of [`Category::Mmu`] what is translated.
    pub address: u64,
}

/// A detail of an event.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// Shown in hexadecimal.
    Hex(u64),
    /// Shown in decimal.
    Number(u64),
    /// An address of guest code, shown with its name.
    Code(u64),
    /// A text without line ends.
    Text(&'a dyn fmt::Display),
}

/// The trace. Threads may write at the same time; what one writes at once stays together.
pub struct Trace {
    categories: u16,
    filter: Filter,
    symbols: Arc<Symbols>,
    start: Instant,
    json: bool,
    name: String,
    /// A terminal that is in raw mode does not return the carriage at the end of a line.
    raw: bool,
    output: Mutex<Output>,
}

struct Output {
    /// `None` after an error, or when the trace has ended.
    out: Option<Box<dyn Write + Send>>,
    /// For trace viewers: the numbers of the threads that have been named.
    threads: HashMap<String, usize>,
    /// For trace viewers: what each hart is handling, with the time that it began.
    open: HashMap<usize, Vec<(Duration, String)>>,
}

/// Traps in traps that a viewer is told of. A guest may take more without ever returning.
const MAX_OPEN: usize = 64;

impl Trace {
    pub(crate) fn create(config: &TraceConfig, symbols: &Arc<Symbols>) -> Result<Self, (PathBuf, io::Error)> {
        let (out, name): (Box<dyn Write + Send>, _) = match &config.file {
            Some(path) => {
                let file = File::create(path).map_err(|error| (path.clone(), error))?;
                (Box::new(file), path.display().to_string())
            }
            None => (Box::new(io::stderr()), "standard error".into()),
        };
        let json = config.file.as_ref().and_then(|path| path.extension()).is_some_and(|end| end == "json");
        let output = Output { out: Some(out), threads: HashMap::new(), open: HashMap::new() };
        Ok(Self {
            categories: config.categories,
            filter: config.filter.clone(),
            symbols: Arc::clone(symbols),
            start: Instant::now(),
            json,
            name,
            raw: config.file.is_none() && io::stderr().is_terminal(),
            output: Mutex::new(output),
        })
    }

    /// Whether a category is traced.
    pub fn has(&self, category: Category) -> bool {
        self.categories & category.bit() != 0
    }

    /// Whether anything that a hart does is traced.
    pub(crate) fn has_hart(&self, hart: usize) -> bool {
        self.filter.has_hart(hart)
    }

    /// Whether what happens at a place is traced.
    pub(crate) fn wants(&self, place: &Place) -> bool {
        self.filter.lets_through(place)
    }

    /// A hart has this `stvec`; see [`Symbols::note_trap_vector`].
    pub fn note_trap_vector(&self, stvec: u64) {
        self.symbols.note_trap_vector(stvec);
    }

    /// Traces an event of a category that the trace has. One without a place passes every filter.
    pub fn event(
        &self,
        category: Category,
        place: Option<&Place>,
        name: &dyn fmt::Display,
        fields: &[(&str, Value<'_>)],
    ) {
        self.listing(category, place, name, fields, "");
    }

    /// The same, with lines of text.
    pub(crate) fn listing(
        &self,
        category: Category,
        place: Option<&Place>,
        name: &dyn fmt::Display,
        fields: &[(&str, Value<'_>)],
        lines: &str,
    ) {
        if place.is_some_and(|place| !self.wants(place)) {
            return;
        }
        let event = Event { category, place, name: name.to_string(), fields, lines };
        let mut output = self.output.lock();
        self.write(&mut output, &event, None);
    }

    /// A hart takes a trap.
    pub fn trap(&self, place: &Place, name: &str, fields: &[(&str, Value<'_>)]) {
        self.event(Category::Int, Some(place), &name, fields);
        if self.json {
            let mut output = self.output.lock();
            let open = output.open.entry(place.hart).or_default();
            if open.len() == MAX_OPEN {
                open.remove(0);
            }
            open.push((self.start.elapsed(), name.into()));
        }
    }

    /// A hart returns from a trap.
    pub fn trap_return(&self, place: &Place, name: &str, fields: &[(&str, Value<'_>)]) {
        self.event(Category::Int, Some(place), &name, fields);
        if self.json {
            let mut output = self.output.lock();
            let last = output.open.get_mut(&place.hart).and_then(Vec::pop);
            if let Some((began, name)) = last
                && self.wants(place)
            {
                let event =
                    Event { category: Category::Int, place: Some(place), name, fields: &[], lines: "" };
                self.write(&mut output, &event, Some(began));
            }
        }
    }

    /// Writes an event; for viewers, one that lasted since `began` after the start. It reaches the host at once: the last ones
    /// before a crash are the most wanted. The first error is reported, and ends the trace.
    fn write(&self, output: &mut Output, event: &Event<'_>, began: Option<Duration>) {
        let thread = std::thread::current();
        let thread = match event.place {
            Some(place) => format!("hart{}", place.hart),
            None => thread.name().unwrap_or("-").to_string(),
        };
        let now = self.start.elapsed();
        let text = match self.json {
            true => self.json(output, event, &thread, began.unwrap_or(now), began.map(|began| now - began)),
            false => self.text(event, &thread, now),
        };
        if let Some(open) = &mut output.out
            && let Err(error) = open.write_all(text.as_bytes())
        {
            output.out = None;
            log::error!("--trace: cannot write {}: {error}; it ends here", self.name);
        }
    }

    fn text(&self, event: &Event<'_>, thread: &str, now: Duration) -> String {
        let mut text = format!("[{:12.6}] {thread} ", now.as_secs_f64());
        if let Some(place) = event.place {
            let _ = write!(text, "{} ", letter(place.mode));
        }
        text += event.category.name();
        if let Some(place) = event.place {
            let _ = write!(text, " {}", self.symbols.show(place.address));
        }
        let _ = write!(text, ": {}", event.name);
        for (key, value) in event.fields {
            let _ = write!(text, ", {key} {}", self.show(value));
        }
        text.push('\n');
        text += event.lines;
        if self.raw { text.replace('\n', "\r\n") } else { text }
    }

    /// An event in the trace-event format that Perfetto and Chrome read: an array of objects, times in microseconds.
    fn json(
        &self,
        output: &mut Output,
        event: &Event<'_>,
        thread: &str,
        began: Duration,
        lasted: Option<Duration>,
    ) -> String {
        let mut text = String::new();
        let count = output.threads.len();
        let tid = *output.threads.entry(thread.to_string()).or_insert(count + 1);
        if tid == count + 1 {
            let name = Json(thread);
            let start = if count == 0 { "[\n" } else { ",\n" };
            let _ = write!(
                text,
                r#"{start}{{"name":"thread_name","ph":"M","pid":1,"tid":{tid},"args":{{"name":"{name}"}}}}"#
            );
        }
        let micros = |time: Duration| time.as_nanos() as f64 / 1000.0;
        let _ = write!(
            text,
            r#",{newline}{{"name":"{}","cat":"{}","pid":1,"tid":{tid},"ts":{:.3},"#,
            Json(&event.name),
            event.category.name(),
            micros(began),
            newline = '\n',
        );
        let _ = match lasted {
            Some(time) => write!(text, r#""ph":"X","dur":{:.3},"args":{{"#, micros(time)),
            None => write!(text, r#""ph":"i","s":"t","args":{{"#),
        };
        let mut separator = "";
        let mut detail = |key: &str, value: &dyn fmt::Display| {
            let _ = write!(text, r#"{separator}"{key}":"{}""#, Json(value));
            separator = ",";
        };
        if let Some(place) = event.place {
            detail("mode", &letter(place.mode));
            detail("address", &self.symbols.show(place.address));
        }
        for (key, value) in event.fields {
            detail(key, &self.show(value));
        }
        if !event.lines.is_empty() {
            detail("text", &event.lines);
        }
        text += "}}";
        text
    }

    fn show(&self, value: &Value<'_>) -> String {
        match *value {
            Value::Hex(number) => format!("{number:#x}"),
            Value::Number(number) => number.to_string(),
            Value::Code(address) => self.symbols.show(address).to_string(),
            Value::Text(text) => text.to_string(),
        }
    }

    /// Ends the trace. Nothing is traced any more.
    pub fn finish(&self) {
        let mut output = self.output.lock();
        let end = if output.threads.is_empty() { "[]\n" } else { "\n]\n" };
        if let Some(mut out) = output.out.take()
            && self.json
            && let Err(error) = out.write_all(end.as_bytes())
        {
            log::error!("--trace: cannot write {}: {error}", self.name);
        }
    }

    /// Traces a block, whose start is at a place and a physical address, as far as the categories want: its instructions, which
    /// `read` gives by page offset, and its operations.
    pub(crate) fn block(
        &self,
        decoder: &Decoder,
        block: &Block,
        place: &Place,
        pa: u64,
        read: impl Fn(u16) -> Option<u16>,
    ) {
        let (guest, ir) = (self.has(Category::Guest), self.has(Category::Ir));
        if guest || ir {
            let lines = Listing { decoder, block, va: place.address, read, guest, ir }.to_string();
            let (insns, bytes) = (block.insns.len() as u64, u64::from(block.end - block.start));
            let fields = [
                ("pa", Value::Hex(pa)),
                ("instructions", Value::Number(insns)),
                ("bytes", Value::Number(bytes)),
            ];
            let category = if guest { Category::Guest } else { Category::Ir };
            self.listing(category, Some(place), &"block", &fields, &lines);
        }
    }
}

struct Event<'a> {
    category: Category,
    place: Option<&'a Place>,
    name: String,
    fields: &'a [(&'a str, Value<'a>)],
    /// With a line end each.
    lines: &'a str,
}

/// As assemblers and manuals abbreviate them.
fn letter(mode: Privilege) -> &'static str {
    match mode {
        Privilege::User => "U",
        Privilege::Supervisor => "S",
        Privilege::Machine => "M",
    }
}

/// Text inside of a string of JSON.
struct Json<T>(T);

impl<T: fmt::Display> fmt::Display for Json<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.to_string().chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                c if u32::from(c) < 0x20 => write!(f, "\\u{:04x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

struct Listing<'a, R> {
    decoder: &'a Decoder,
    block: &'a Block,
    va: u64,
    read: R,
    guest: bool,
    ir: bool,
}

impl<R: Fn(u16) -> Option<u16>> fmt::Display for Listing<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { block, .. } = self;
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
    use crate::inspect::symbols::Symbol;
    use frontend::Isa;

    /// What a trace to a file of this kind contains after `act`.
    fn written(kind: &str, filter: &str, act: impl FnOnce(&Trace)) -> String {
        let name = format!("hartvm-trace-{}-{:?}.{kind}", std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(name);
        let mut symbols = Symbols::default();
        symbols.add(vec![Symbol { address: 0x1000, size: 16, name: "main".into() }], None);
        let mut config: TraceConfig = format!("all:{}", path.display()).parse().expect("a file name");
        if !filter.is_empty() {
            config.filter = filter.parse().expect("a filter");
        }
        let trace = Trace::create(&config, &Arc::new(symbols)).expect("a file");
        act(&trace);
        trace.finish();
        let text = std::fs::read_to_string(&path).expect("the file");
        std::fs::remove_file(&path).expect("the file is there");
        text
    }

    fn place(address: u64) -> Place {
        Place { hart: 3, mode: Privilege::Supervisor, address }
    }

    #[test]
    fn text_has_a_line_for_each_event() {
        let text = written("txt", "address=0x1000-0x1fff", |trace| {
            let fields = [("tval", Value::Hex(16)), ("to", Value::Code(0x1004)), ("n", Value::Number(7))];
            trace.trap(&place(0x1008), "page fault", &fields);
            trace.event(Category::Csr, Some(&place(0x2000)), &"left out", &[]);
        });
        let (time, line) = text.split_once("] ").expect("a time");
        assert!(time.starts_with("[    0.0") || time.starts_with("[     0.0"), "{text}");
        let want = "hart3 S int 0x1008 <main+0x8>: page fault, tval 0x10, to 0x1004 <main+0x4>, n 7\n";
        assert_eq!(line, want);
    }

    #[test]
    fn viewers_get_an_array_of_events_and_how_long_traps_took() {
        assert_eq!(written("json", "", |_| {}), "[]\n");
        let text = written("json", "", |trace| {
            trace.trap(&place(0x1000), "a \"trap\"", &[("tval", Value::Hex(16))]);
            trace.trap_return(&place(0x1004), "sret", &[]);
            trace.listing(Category::Guest, None, &"block", &[], "one\n\ttwo\n");
        });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], *lines.last().expect("a line")), ("[", "]"));
        let starts = [
            r#"{"name":"thread_name","ph":"M","pid":1,"tid":1,"args":{"name":"hart3"}},"#,
            r#"{"name":"a \"trap\"","cat":"int","pid":1,"tid":1,"ts":"#,
            r#"{"name":"sret","cat":"int","pid":1,"tid":1,"ts":"#,
            r#"{"name":"a \"trap\"","cat":"int","pid":1,"tid":1,"ts":"#,
            r#"{"name":"thread_name","ph":"M","pid":1,"tid":2,"#,
            r#"{"name":"block","cat":"guest","pid":1,"tid":2,"ts":"#,
        ];
        assert_eq!(lines.len(), starts.len() + 2, "{text}");
        for (line, start) in lines[1..].iter().zip(starts) {
            assert!(line.starts_with(start), "{line} is not {start}");
        }
        let instant = r#""ph":"i","s":"t","args":{"mode":"S","address":"0x1000 <main>","tval":"0x10"}},"#;
        assert!(lines[2].ends_with(instant), "{text}");
        assert!(lines[4].contains(r#""ph":"X","dur":"#), "{text}");
        assert!(lines[6].ends_with(r#""args":{"text":"one\n\u0009two\n"}}"#), "{text}");
    }

    #[test]
    fn a_listing_has_instructions_and_their_operations() {
        let code: Vec<u16> =
            [0x0015_0513_u32, 0x0000_0073].iter().flat_map(|w| [*w as u16, (w >> 16) as u16]).collect();
        let decoder = Decoder::new(&Isa::ALL);
        let read = |at: u16| code.get(usize::from(at - 0x100) / 2).copied();
        let block = Block::cut(&decoder, 0x100, 64, |at| read(at).ok_or(())).expect("a block");
        let listing = Listing { decoder: &decoder, block: &block, va: 0x4100, read, guest: true, ir: true };
        assert_eq!(
            listing.to_string(),
            "              4100:  00150513  addi a0,a0,1\n\
             \u{20}                           100: AddI x10, x10, 0x1\n\
             \u{20}             4104:  00000073  ecall\n\
             \u{20}                           104: Call Ecall _, x0, x0, 0x73 (0)\n"
        );
    }
}

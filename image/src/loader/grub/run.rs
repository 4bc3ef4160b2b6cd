//! Runs scripts, within bounds on steps, depth and memory.

mod commands;

use std::collections::HashMap;
use std::rc::Rc;

use super::syntax::{Block, Command, Piece, Word, parse};
use super::{Candidate, Files, Node, What};
use crate::loader::MAX_ENTRIES;
use crate::volumes::{Place, printable};

/// Commands that one disk's scripts may run.
const MAX_STEPS: u64 = 200_000;
/// Bytes that all arguments and variables together may come to, counting each time they are made or copied.
const MAX_BYTES: u64 = 64 << 20;
/// Calls of functions, included files, menus and blocks within each other.
const MAX_DEPTH: u32 = 100;
/// Problems that are remembered.
const MAX_PROBLEMS: usize = 20;

/// Variables that GRUB 2.x sets on EFI for RISC-V before the script starts.
const PREDEFINED: &[(&str, &str)] = &[
    ("grub_cpu", "riscv64"),
    ("grub_platform", "efi"),
    ("lang", "en"),
    ("feature_chainloader_bpb", "y"),
    ("feature_ntldr", "y"),
    ("feature_platform_search_hint", "y"),
    ("feature_default_font_path", "y"),
    ("feature_all_video_module", "y"),
    ("feature_menuentry_id", "y"),
    ("feature_menuentry_options", "y"),
    ("feature_200_final", "y"),
    ("feature_nativedisk_cmd", "y"),
    ("feature_timeout_style", "y"),
];

/// Why a block was left early.
enum Stop {
    /// `return`, `exit` or `boot`: the function, file or entry is over.
    Return(bool),
    /// `break` or `continue` and how many loops it is for.
    Loop { again: bool, levels: u32 },
    /// A bound was reached.
    Bound(&'static str),
}

/// Whether a command succeeded.
type Done = Result<bool, Stop>;

/// What a block that ended by itself, or by `return`, came to.
fn end_of(result: Done) -> Done {
    match result {
        Err(Stop::Return(status)) => Ok(status),
        Err(Stop::Loop { .. }) => Ok(true),
        result => result,
    }
}

/// What `linux` and its companions have named.
#[derive(Clone, Default)]
struct Loaded {
    kernel: Option<(Place, String)>,
    initrds: Vec<Place>,
    devicetree: Option<Place>,
    /// Another way to go on: `chainloader` and the like.
    other: Option<String>,
}

/// A line of the menu whose block has not been run.
struct Line {
    title: String,
    id: Option<String>,
    what: Pending,
}

enum Pending {
    Block { body: Block, arguments: Vec<String>, submenu: bool },
    Ready(Candidate),
}

/// What a script can change, apart from the bounds.
#[derive(Clone, Default)]
struct State {
    variables: HashMap<String, String>,
    functions: HashMap<String, Block>,
    arguments: Vec<String>,
    status: bool,
    loaded: Loaded,
}

struct Grub<'a> {
    files: &'a dyn Files,
    state: State,
    lines: Vec<Line>,
    lines_left: usize,
    steps: u64,
    bytes: u64,
    depth: u32,
    problems: Vec<String>,
}

/// The menu of the script at `at`, what its variable `default` says, and what went wrong.
pub(super) fn menu(files: &dyn Files, at: &Place) -> (Vec<Node>, String, Vec<String>) {
    let mut grub = Grub {
        files,
        state: State { status: true, ..State::default() },
        lines: Vec::new(),
        lines_left: MAX_ENTRIES,
        steps: MAX_STEPS,
        bytes: MAX_BYTES,
        depth: 0,
        problems: Vec::new(),
    };
    let root = files.name(at.volume);
    let directory = at.path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let start = [("root", root.clone()), ("prefix", format!("({root}){directory}"))];
    let predefined = PREDEFINED.iter().map(|&(name, value)| (name, value.to_owned()));
    grub.state.variables.extend(predefined.chain(start).map(|(name, value)| (name.to_owned(), value)));
    let mut nodes = Vec::new();
    let result = end_of(grub.configfile(at)).and_then(|_| grub.nodes(&mut nodes));
    if let Err(Stop::Bound(bound)) = result {
        grub.problem(format!("it was not run to its end: {bound}"));
    }
    let default = grub.state.variables.get("default").filter(|value| !value.is_empty());
    (nodes, default.map_or("0".into(), Clone::clone), grub.problems)
}

impl Grub<'_> {
    fn problem(&mut self, text: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(text);
        }
    }

    fn step(&mut self) -> Result<(), Stop> {
        self.steps = self.steps.checked_sub(1).ok_or(Stop::Bound("it takes too many steps"))?;
        Ok(())
    }

    fn pay(&mut self, bytes: usize) -> Result<(), Stop> {
        self.bytes = self.bytes.checked_sub(bytes as u64).ok_or(Stop::Bound("it takes too much memory"))?;
        Ok(())
    }

    fn enter<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T, Stop>) -> Result<T, Stop> {
        if self.depth == MAX_DEPTH {
            return Err(Stop::Bound("it is nested too deeply"));
        }
        self.depth += 1;
        let result = run(self);
        self.depth -= 1;
        result
    }

    /// Runs the blocks of the lines gathered so far, each on a copy of the state.
    fn nodes(&mut self, nodes: &mut Vec<Node>) -> Result<(), Stop> {
        let lines = std::mem::take(&mut self.lines);
        if lines.is_empty()
            && let Some((kernel, _)) = &self.state.loaded.kernel
        {
            // A script without a menu that loads a kernel by itself.
            let title = kernel.path.clone();
            nodes.push(Node { title, id: None, what: self.outcome() });
            return Ok(());
        }
        for Line { title, id, what } in lines {
            let what = match what {
                Pending::Ready(candidate) => What::Entry(candidate),
                Pending::Block { body, arguments, submenu } => {
                    let size: usize =
                        self.state.variables.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
                    self.pay(size)?;
                    let mut state = self.state.clone();
                    state.variables.insert("chosen".into(), id.as_ref().unwrap_or(&title).clone());
                    (state.arguments, state.loaded) = (arguments, Loaded::default());
                    let saved = std::mem::replace(&mut self.state, state);
                    let mut below = Vec::new();
                    // An entry may lead to a menu as well, with `configfile`.
                    let result = self.enter(|grub| {
                        end_of(grub.block(&body))?;
                        let menu = submenu || !grub.lines.is_empty();
                        if menu { grub.nodes(&mut below).map(|()| true) } else { Ok(false) }
                    });
                    self.lines.clear();
                    let what = if matches!(result, Ok(false)) { self.outcome() } else { What::Menu(below) };
                    self.state = saved;
                    result?;
                    what
                }
            };
            nodes.push(Node { title, id, what });
        }
        Ok(())
    }

    /// What the commands so far would start.
    fn outcome(&self) -> What {
        let Loaded { kernel, initrds, devicetree, other } = self.state.loaded.clone();
        match (kernel, other) {
            (Some((kernel, options)), _) => {
                What::Entry(Candidate { titles: Vec::new(), id: None, kernel, initrds, devicetree, options })
            }
            (None, Some(other)) => What::Nothing(format!("starts something else with `{other}`")),
            (None, None) => What::Nothing("starts no kernel with `linux`".into()),
        }
    }

    fn block(&mut self, block: &Block) -> Done {
        self.enter(|grub| {
            for command in block.iter() {
                grub.state.status = grub.command(command)?;
            }
            Ok(grub.state.status)
        })
    }

    fn command(&mut self, command: &Command) -> Done {
        self.step()?;
        match command {
            Command::Simple(words) => {
                let arguments = self.expand(words)?;
                let mut words = arguments.iter().map(String::as_str);
                match words.next() {
                    Some(name) => self.simple(name, &arguments[1..]),
                    None => Ok(true),
                }
            }
            Command::Not(command) => Ok(!self.command(command)?),
            Command::Then { first, and, second } => {
                let status = self.command(first)?;
                if status == *and { self.command(second) } else { Ok(status) }
            }
            Command::If { branches, otherwise } => {
                for (condition, body) in branches {
                    if self.block(condition)? {
                        return self.body(body);
                    }
                }
                self.body(otherwise)
            }
            Command::While { condition, body, until } => {
                while self.block(condition)? != *until {
                    self.step()?;
                    if !self.round(body)? {
                        break;
                    }
                }
                Ok(true)
            }
            Command::For { name, words, body } => {
                for value in self.expand(words)? {
                    self.step()?;
                    self.set(name, value)?;
                    if !self.round(body)? {
                        break;
                    }
                }
                Ok(true)
            }
            Command::Function { name, body } => {
                self.pay(name.len() + 64)?;
                self.state.functions.insert(name.clone(), Rc::clone(body));
                Ok(true)
            }
            Command::Menu { words, body, submenu } => {
                let arguments = self.expand(words)?;
                self.line(arguments, body, *submenu)
            }
        }
    }

    /// A block that leaves the status alone if it is empty.
    fn body(&mut self, body: &Block) -> Done {
        if body.is_empty() { Ok(true) } else { self.block(body) }
    }

    /// One round of a loop; whether there is a next one.
    fn round(&mut self, body: &Block) -> Done {
        match self.block(body) {
            Err(Stop::Loop { again, levels: 0 | 1 }) => Ok(again),
            Err(Stop::Loop { again, levels }) => Err(Stop::Loop { again, levels: levels - 1 }),
            result => result.map(|_| true),
        }
    }

    fn expand(&mut self, words: &[Word]) -> Result<Vec<String>, Stop> {
        let mut arguments = Vec::new();
        for word in words {
            let mut argument: Option<String> = None;
            for piece in &word.pieces {
                match piece {
                    Piece::Text(text) => {
                        self.pay(text.len() + 16)?;
                        argument.get_or_insert_default().push_str(text);
                    }
                    Piece::Variable { name, quoted } => {
                        let value = self.value(name);
                        self.pay(value.len() + 16)?;
                        if *quoted {
                            argument.get_or_insert_default().push_str(&value);
                            continue;
                        }
                        for c in value.chars() {
                            if c.is_whitespace() {
                                arguments.extend(argument.take());
                            } else {
                                argument.get_or_insert_default().push(c);
                            }
                        }
                    }
                }
            }
            arguments.extend(argument);
        }
        Ok(arguments)
    }

    fn value(&self, name: &str) -> String {
        let State { variables, arguments, status, .. } = &self.state;
        match name {
            "?" => u8::from(!status).to_string(),
            "#" => arguments.len().to_string(),
            "@" | "*" => arguments.join(" "),
            "0" => String::new(),
            _ => match name.parse::<usize>() {
                Ok(number) => arguments.get(number.wrapping_sub(1)).cloned().unwrap_or_default(),
                Err(_) => variables.get(name).cloned().unwrap_or_default(),
            },
        }
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), Stop> {
        self.pay(name.len() + value.len() + 64)?;
        self.state.variables.insert(name.to_owned(), value);
        Ok(())
    }

    /// `menuentry` and `submenu`.
    fn line(&mut self, arguments: Vec<String>, body: &Block, submenu: bool) -> Done {
        let (mut id, mut plain) = (None, Vec::new());
        let mut rest = arguments.into_iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "--id" => id = rest.next(),
                "--class" | "--users" | "--hotkey" => drop(rest.next()),
                "--unrestricted" => {}
                _ => match argument.split_once('=') {
                    Some(("--id", value)) => id = Some(value.to_owned()),
                    Some(("--class" | "--users" | "--hotkey", _)) => {}
                    _ => plain.push(argument),
                },
            }
        }
        let Some(title) = plain.first().map(|title| printable(title)) else { return Ok(false) };
        let what = Pending::Block { body: Rc::clone(body), arguments: plain, submenu };
        self.add(Line { title, id, what })
    }

    fn add(&mut self, line: Line) -> Done {
        self.lines_left = self.lines_left.checked_sub(1).ok_or(Stop::Bound("its menu is too long"))?;
        self.lines.push(line);
        Ok(true)
    }
}

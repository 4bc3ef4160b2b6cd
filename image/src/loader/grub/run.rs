//! Runs scripts, within bounds on steps, depth and memory.

use std::collections::HashMap;
use std::rc::Rc;

use super::syntax::{Block, Command, Piece, Word, parse};
use super::{Candidate, Files, Node, What, test_command};
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

/// Commands that succeed and change nothing that matters here.
const NO_EFFECT: &[&str] = &[
    "background_color",
    "background_image",
    "cat",
    "clear",
    "echo",
    "export",
    "gfxmode",
    "hiddenentry",
    "insmod",
    "load_video",
    "loadfont",
    "ls",
    "play",
    "rmmod",
    "save_env",
    "sleep",
    "terminal_input",
    "terminal_output",
    "terminfo",
    "true",
    ":",
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

    /// A command that is no part of the language, or an assignment, or a function's name.
    fn simple(&mut self, name: &str, arguments: &[String]) -> Done {
        let first = arguments.first().map(String::as_str);
        if let Some(body) = self.state.functions.get(name).cloned() {
            let saved = std::mem::replace(&mut self.state.arguments, arguments.to_vec());
            let result = end_of(self.block(&body));
            self.state.arguments = saved;
            return result;
        }
        if let Some((variable, value)) = name.split_once('=')
            && !variable.is_empty()
            && variable.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        {
            self.set(variable, value.to_owned())?;
            return Ok(true);
        }
        if NO_EFFECT.contains(&name) {
            return Ok(true);
        }
        match name {
            "set" => {
                for (name, value) in arguments.iter().filter_map(|argument| argument.split_once('=')) {
                    self.set(name, value.to_owned())?;
                }
                Ok(true)
            }
            "unset" => {
                arguments.iter().for_each(|name| drop(self.state.variables.remove(name)));
                Ok(true)
            }
            "[" | "test" => {
                let arguments =
                    if name == "[" { arguments.strip_suffix(&["]".to_owned()]) } else { Some(arguments) };
                let stat = |path: &str| self.place(path).and_then(|place| self.files.stat(&place).ok());
                Ok(arguments.is_some_and(|arguments| test_command::holds(arguments, &stat)))
            }
            "search" | "search.fs_uuid" | "search.fs_label" | "search.file" | "search.fs_file" => {
                self.search(name, arguments)
            }
            "probe" => self.probe(arguments),
            "load_env" => self.load_env(arguments),
            "source" | "." => match first.and_then(|path| self.place(path)) {
                Some(place) => self.source(&place),
                None => Ok(false),
            },
            "configfile" => match first.and_then(|path| self.place(path)) {
                Some(place) => self.configfile(&place),
                None => Ok(false),
            },
            "normal" => {
                let default = format!("{}/grub.cfg", self.value("prefix"));
                match self.place(first.unwrap_or(&default)) {
                    Some(place) => self.configfile(&place),
                    None => Ok(false),
                }
            }
            "eval" => {
                let text = arguments.join(" ");
                self.text(&text, "eval")
            }
            "linux" | "linuxefi" | "linux16" | "initrd" | "initrdefi" | "initrd16" | "devicetree" | "fdt" => {
                self.load(name, arguments)
            }
            "chainloader" | "multiboot" | "multiboot2" | "fwsetup" | "reboot" | "halt" | "xen_hypervisor" => {
                // Scripts ask so whether there is a setup program.
                if first == Some("--is-supported") {
                    return Ok(false);
                }
                self.state.loaded.other = Some(name.to_owned());
                Ok(true)
            }
            "blscfg" => self.loader_entries(first),
            "setparams" => {
                self.state.arguments = arguments.to_vec();
                Ok(true)
            }
            "shift" => {
                let count = first.and_then(|count| count.parse().ok()).unwrap_or(1);
                let enough = count <= self.state.arguments.len();
                if enough {
                    self.state.arguments.drain(..count);
                }
                Ok(enough)
            }
            "return" => Err(Stop::Return(first.is_none_or(|code| code == "0"))),
            "exit" | "boot" | "normal_exit" => Err(Stop::Return(true)),
            "break" | "continue" => {
                let levels = first.and_then(|count| count.parse().ok()).unwrap_or(1);
                Err(Stop::Loop { again: name == "continue", levels })
            }
            // Scripts ask for many things only to see whether they are there.
            _ => Ok(false),
        }
    }

    /// The place that a path names: after `(device)`, or on the volume that `root` names.
    fn place(&self, path: &str) -> Option<Place> {
        let (device, path) = match path.strip_prefix('(') {
            Some(rest) => rest.split_once(')').map(|(device, path)| (device.to_owned(), path))?,
            None => (self.value("root"), path),
        };
        // The device may be in parentheses in the variable, too.
        let device = device.trim_start_matches('(').trim_end_matches(')');
        let path = format!("/{}", path.trim_start_matches('/'));
        Some(Place { volume: self.files.by_name(device)?, path })
    }

    /// `search`: the first volume with an identifier, label or file becomes the value of a variable.
    fn search(&mut self, command: &str, arguments: &[String]) -> Done {
        let (mut by, mut variable, mut plain) = (command.strip_prefix("search."), None, Vec::new());
        let mut rest = arguments.iter().map(String::as_str);
        while let Some(argument) = rest.next() {
            match argument {
                "--fs-uuid" | "-u" => by = Some("fs_uuid"),
                "--label" | "-l" => by = Some("fs_label"),
                "--file" | "-f" => by = Some("file"),
                "--set" | "-s" => variable = Some("root"),
                _ => match argument.strip_prefix("--") {
                    Some(option) if option.starts_with("set=") => variable = option.strip_prefix("set="),
                    // A hint is an optimisation.
                    Some(option) if option.starts_with("hint") && !option.contains('=') => drop(rest.next()),
                    Some(_) => {}
                    None => plain.push(argument),
                },
            }
        }
        // `search.fs_uuid VALUE NAME`
        if command != "search" {
            variable = plain.get(1).copied();
        }
        let wanted = plain.first().copied();
        let Some(wanted) = wanted else { return Ok(false) };
        let found = match by {
            Some("fs_uuid") => {
                self.files.search(&|_, uuid, _| !uuid.is_empty() && uuid.eq_ignore_ascii_case(wanted))
            }
            Some("fs_label") => self.files.search(&|label, _, _| label == wanted),
            _ => {
                let path = format!("/{}", wanted.trim_start_matches('/'));
                let here = |volume| self.files.stat(&Place { volume, path: path.clone() }).is_ok();
                self.files.search(&|_, _, volume| here(volume))
            }
        };
        let Some(found) = found else {
            self.problem(format!("`search` found no volume for `{wanted}`"));
            return Ok(false);
        };
        if let Some(variable) = variable {
            self.set(variable, self.files.name(found))?;
        }
        Ok(true)
    }

    /// `probe --set=NAME --fs-uuid DEVICE`.
    fn probe(&mut self, arguments: &[String]) -> Done {
        let (mut variable, mut what, mut device) = (None, None, None);
        let mut rest = arguments.iter().map(String::as_str);
        while let Some(argument) = rest.next() {
            match argument {
                "--set" | "-s" => variable = rest.next(),
                "--fs-uuid" | "-u" | "--label" | "-l" | "--fs" | "-f" => what = Some(argument),
                _ => match argument.strip_prefix("--set=") {
                    Some(name) => variable = Some(name),
                    None => device = Some(argument),
                },
            }
        }
        let volume = device.and_then(|device| self.files.by_name(device.trim_matches(['(', ')'])));
        let (Some(variable), Some(volume)) = (variable, volume) else { return Ok(false) };
        let (label, uuid, kind) = self.files.about(volume);
        let value = match what {
            Some("--fs-uuid" | "-u") => uuid,
            Some("--label" | "-l") => label,
            Some("--fs" | "-f") => kind,
            _ => return Ok(false),
        };
        self.set(variable, value)?;
        Ok(true)
    }

    /// `load_env [--file FILE] [NAME…]`: variables from a file that `grub-editenv` made.
    fn load_env(&mut self, arguments: &[String]) -> Done {
        let (mut file, mut names) = (None, Vec::new());
        let mut rest = arguments.iter().map(String::as_str);
        while let Some(argument) = rest.next() {
            match argument {
                "--file" | "-f" => file = rest.next(),
                "--skip-sig" | "-s" => {}
                _ => match argument.strip_prefix("--file=") {
                    Some(name) => file = Some(name),
                    None => names.push(argument),
                },
            }
        }
        let default = format!("{}/grubenv", self.value("prefix"));
        let Some(place) = self.place(file.unwrap_or(&default)) else { return Ok(false) };
        let Ok(bytes) = self.files.read(&place) else { return Ok(false) };
        let text = String::from_utf8_lossy(&bytes);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            self.step()?;
            if let Some((name, value)) = line.split_once('=')
                && (names.is_empty() || names.contains(&name))
            {
                self.set(name, value.replace("\\\\", "\\"))?;
            }
        }
        Ok(true)
    }

    fn source(&mut self, place: &Place) -> Done {
        let Ok(bytes) = self.files.read(place) else { return Ok(false) };
        self.pay(bytes.len())?;
        self.text(&String::from_utf8_lossy(&bytes), &place.path)
    }

    fn text(&mut self, text: &str, name: &str) -> Done {
        match parse(text) {
            Ok(block) => end_of(self.block(&block)),
            Err(error) => {
                self.problem(format!("{name}: {error}"));
                Ok(false)
            }
        }
    }

    /// `configfile`: the menu of another file replaces this one.
    fn configfile(&mut self, place: &Place) -> Done {
        self.lines.clear();
        let directory = place.path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let device = self.files.name(place.volume);
        self.set("config_directory", format!("({device}){directory}"))?;
        self.set("config_file", format!("({device}){}", place.path))?;
        let done = self.source(place)?;
        // What comes after it in the first file is for the case that the second has no menu.
        if done && !self.lines.is_empty() { Err(Stop::Return(true)) } else { Ok(done) }
    }

    /// `linux FILE OPTION…`, `initrd FILE…`, `devicetree FILE`.
    fn load(&mut self, command: &str, arguments: &[String]) -> Done {
        let mut places = Vec::new();
        // What is not the kernel's own argument is one of GRUB's, such as `--nounzip`.
        let mut rest = arguments.iter().skip_while(|argument| argument.starts_with("--"));
        let count = if command.starts_with("initrd") { usize::MAX } else { 1 };
        for path in rest.by_ref().take(count) {
            match self.place(path) {
                Some(place) => places.push(place),
                None => {
                    self.problem(format!("`{command} {path}`: there is no such device"));
                    return Ok(false);
                }
            }
        }
        let loaded = &mut self.state.loaded;
        match command {
            "linux" | "linuxefi" | "linux16" => {
                let Some(place) = places.pop() else { return Ok(false) };
                let options: Vec<&str> = rest.map(String::as_str).collect();
                *loaded = Loaded { kernel: Some((place, options.join(" "))), ..Loaded::default() };
            }
            "devicetree" | "fdt" => loaded.devicetree = places.pop(),
            _ => loaded.initrds = places,
        }
        Ok(true)
    }

    /// `blscfg`: the entries of the Boot Loader Specification, as Fedora uses them.
    fn loader_entries(&mut self, directory: Option<&str>) -> Done {
        let candidates = directory.map(str::to_owned).into_iter();
        let candidates = candidates.chain(["/loader/entries".into(), "/boot/loader/entries".into()]);
        for directory in candidates.filter_map(|directory| self.place(&directory)).collect::<Vec<_>>() {
            let entries = self.files.loader_entries(directory.volume, &directory.path);
            // Paths count from the root of the file system, or from `/boot` in it.
            for entry in &entries {
                let Some(kernel) = entry.linux.as_deref().and_then(|path| self.place(path)) else { continue };
                let initrds = entry.initrds.iter().flat_map(|line| line.split_whitespace());
                let initrds: Vec<&str> = initrds.filter(|path| !path.starts_with('$')).collect();
                // Variables may stand in the options.
                let options = self.substitute(&entry.options.join(" "))?;
                let initrds = initrds.into_iter().filter_map(|path| self.place(path)).collect();
                let candidate =
                    Candidate { titles: Vec::new(), id: None, kernel, initrds, devicetree: None, options };
                let title = printable(&entry.title());
                self.add(Line { title, id: None, what: Pending::Ready(candidate) })?;
            }
            if !entries.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn substitute(&mut self, options: &str) -> Result<String, Stop> {
        let mut words = Vec::new();
        for word in options.split_whitespace() {
            self.step()?;
            match word.strip_prefix('$') {
                Some(name) => {
                    let value = self.value(name.trim_matches(['{', '}']));
                    self.pay(value.len())?;
                    words.push(value);
                }
                None => words.push(word.to_owned()),
            }
        }
        Ok(words.join(" "))
    }
}

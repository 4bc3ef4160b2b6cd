//! The commands of a script that are no part of its language.

use super::super::{Candidate, test_command};
use super::{Done, Grub, Line, Loaded, Pending, Stop, end_of, parse};
use crate::volumes::{Place, printable};

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

impl Grub<'_> {
    /// A command that is no part of the language, or an assignment, or a function's name.
    pub(super) fn simple(&mut self, name: &str, arguments: &[String]) -> Done {
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
    pub(super) fn configfile(&mut self, place: &Place) -> Done {
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

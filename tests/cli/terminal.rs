//! The console on a terminal: raw while a guest runs, and as it was before after every way out.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use crate::guest::{Program, RESET, echo, greeter, sleeper};
use crate::support::{Dir, LIMIT, bare, hartvm, wait};

/// A terminal with `hartvm` on it.
struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
    line: OwnedFd,
    before: String,
}

impl Terminal {
    fn start(command: &mut Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let line = rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let before = format!("{:?}", tcgetattr(&line).unwrap());
        let end = || line.try_clone().unwrap();
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let keyboard = File::from(master);
        let (mut from, screen) = (keyboard.try_clone().unwrap(), Arc::<Mutex<Vec<u8>>>::default());
        let into = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                into.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Self { child, keyboard, screen, line, before }
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    fn wait_for(&self, text: &str) {
        let start = Instant::now();
        while !self.screen().contains(text) {
            assert!(start.elapsed() < LIMIT, "no {text:?} in {:?}", self.screen());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn type_keys(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    fn settings(&self) -> String {
        format!("{:?}", tcgetattr(&self.line).unwrap())
    }

    fn assert_raw(&self) {
        let modes = tcgetattr(&self.line).unwrap().local_modes;
        assert!(!modes.intersects(LocalModes::ICANON | LocalModes::ISIG | LocalModes::ECHO), "{modes:?}");
    }

    /// Waits for the end; the settings have to be those from before. Returns the exit status.
    fn finish(mut self) -> i32 {
        let status = wait(&mut self.child);
        assert_eq!(self.settings(), self.before, "{}", self.screen());
        assert!(!self.screen().contains("panicked"), "{}", self.screen());
        status.code().unwrap_or_else(|| panic!("{status}"))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn keys_go_to_the_guest_but_for_the_escapes() {
    let dir = Dir::new();
    let program = dir.file("program", &echo());
    let mut terminal = Terminal::start(&mut bare(&program));
    terminal.wait_for(">");
    terminal.assert_raw();
    // Ctrl-C, Ctrl-Z, Ctrl-\ and Ctrl-S are the guest's; so are Ctrl-A twice (once) and a sequence that means nothing.
    terminal.type_keys(b"\x03\x1a\x1c\x13!\x01\x01.\x01z");
    terminal.wait_for(">\x03\x1a\x1c\x13!\x01.\x01z");
    terminal.type_keys(b"\x01h");
    terminal.wait_for("Ctrl-A X  quit hartvm\r\n");
    terminal.type_keys(b"\x01x");
    assert_eq!(terminal.finish(), 0);
}

#[test]
fn the_quit_key_works_on_a_guest_that_takes_no_input() {
    let dir = Dir::new();
    let program = dir.file("program", &sleeper("deaf"));
    let mut terminal = Terminal::start(&mut bare(&program));
    terminal.wait_for("deaf");
    for _ in 0..20 {
        terminal.type_keys(b"is anybody there?\r");
    }
    terminal.type_keys(b"\x01");
    terminal.type_keys(b"X");
    assert_eq!(terminal.finish(), 0);
}

#[test]
fn the_quit_key_works_on_a_guest_that_resets_for_ever() {
    let dir = Dir::new();
    let program = dir.file("program", &Program::new().print("boot ").finish(RESET).halt().binary());
    let mut terminal = Terminal::start(&mut bare(&program));
    terminal.wait_for("boot boot ");
    terminal.assert_raw();
    terminal.type_keys(b"\x01x");
    assert_eq!(terminal.finish(), 0);
}

#[test]
fn the_terminal_is_restored_when_the_guest_ends() {
    let dir = Dir::new();
    let program = dir.file("program", &greeter("bye", 3));
    let terminal = Terminal::start(&mut bare(&program));
    let screen = Arc::clone(&terminal.screen);
    assert_eq!(terminal.finish(), 3);
    let start = Instant::now();
    while !screen.lock().unwrap().ends_with(b"bye") {
        assert!(start.elapsed() < LIMIT);
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_terminal_is_restored_after_signals() {
    let dir = Dir::new();
    let program = dir.file("program", &sleeper("ready"));
    for (signal, number) in [(Signal::TERM, 15), (Signal::INT, 2), (Signal::HUP, 1)] {
        let terminal = Terminal::start(&mut bare(&program));
        terminal.wait_for("ready");
        terminal.assert_raw();
        kill_process(Pid::from_child(&terminal.child), signal).unwrap();
        assert_eq!(terminal.finish(), 128 + number);
    }
}

#[test]
fn errors_leave_the_terminal_alone() {
    let dir = Dir::new();
    let (program, missing) = (dir.file("program", &sleeper("")), dir.path("missing"));
    let end = |command: &mut Command| Terminal::start(command).finish();
    assert_eq!(end(bare(&program).args(["--cpus", "0"])), 2);
    assert_eq!(end(&mut bare(&missing)), 1);
    assert_eq!(end(&mut bare(&dir.file("empty", b""))), 1);
    assert_eq!(end(bare(&program).arg("--disk").arg(&missing)), 1);
    assert_eq!(end(hartvm().args(["run", "--dump-dts"])), 0);
}

#[test]
fn the_terminal_is_restored_when_a_restart_fails() {
    let dir = Dir::new();
    // Waits for a key, so that the file can vanish, then resets.
    let mut waiter = Program::new();
    waiter.print("ready").read_byte(8).finish(RESET).halt();
    let program = dir.file("program", &waiter.binary());
    let mut terminal = Terminal::start(&mut bare(&program));
    terminal.wait_for("ready");
    std::fs::remove_file(&program).unwrap();
    terminal.type_keys(b"k");
    let screen = Arc::clone(&terminal.screen);
    assert_eq!(terminal.finish(), 1);
    let start = Instant::now();
    while !String::from_utf8_lossy(&screen.lock().unwrap()).contains("--kernel: cannot read") {
        assert!(start.elapsed() < LIMIT);
        std::thread::sleep(Duration::from_millis(1));
    }
}

//! Starts guests for a debugger to attach to, and runs gdb on them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::guests::{Program, VARIABLE};
use crate::remote::Remote;
use crate::support::{Dir, LIMIT, Outcome, Running, hartvm};

pub(crate) const ENGINES: [&str; 2] = ["jit", "interp"];

/// A guest that a debugger can attach to.
pub(crate) struct Guest {
    running: Running,
    dir: Dir,
}

impl Guest {
    /// Runs `program` with more arguments for `hartvm run`.
    pub(crate) fn start(program: &Program, engine: &str, args: &[&str]) -> Self {
        let dir = Dir::new();
        let file = dir.file("program", &program.elf());
        let mut command = hartvm();
        command.args(["run", "--firmware", "none", "--memory", "64M", "--engine", engine, "--kernel"]);
        command.arg(file).arg("--gdb").arg(dir.path("socket")).args(args);
        Self::open(command, dir)
    }

    /// The same as QEMU's user would say it, which executes nothing before a debugger says so.
    pub(crate) fn as_in_qemu(program: &Program) -> Self {
        let dir = Dir::new();
        let file = dir.file("program", &program.elf());
        let mut command = hartvm();
        command.args(["qemu", "-M", "virt", "-bios", "none", "-nographic", "-S", "-kernel"]).arg(file);
        command.args(["-gdb", &format!("unix:{},server=on,wait=off", dir.path("socket").display())]);
        Self::open(command, dir)
    }

    fn open(mut command: Command, dir: Dir) -> Self {
        let guest = Self { running: Running::start(&mut command), dir };
        let start = Instant::now();
        while !guest.running.stderr().contains("gdb can attach") {
            assert!(start.elapsed() < LIMIT, "hartvm does not open its socket: {}", guest.running.stderr());
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        guest
    }

    /// The same, which executes nothing before a debugger says so.
    pub(crate) fn waiting(program: &Program, engine: &str, args: &[&str]) -> Self {
        Self::start(program, engine, &[args, &["--gdb-wait"]].concat())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path("socket")
    }

    /// Starts gdb with a script, which begins when it has attached.
    pub(crate) fn start_gdb(&self, script: &str) -> Gdb {
        // gdb's own patience is two seconds, which a busy machine may try.
        let prelude = "set pagination off\nset confirm off\nset height 0\nset width 0\nset style enabled off\n\
                       set remotetimeout 300\n";
        let attach = format!("target remote {}\n", self.socket().display());
        let script = self.dir.file("script", [prelude, &attach, script].concat().as_bytes());
        Gdb::start(&script, &self.dir.path("program"))
    }

    /// Waits until hart 0 of a [`spinner`](crate::guests::spinner) counts and the others are in WFI, where they stay.
    pub(crate) fn wait_until_it_spins(&self, harts: usize) {
        let start = Instant::now();
        loop {
            let mut remote = Remote::attach(self);
            let asleep = (1..harts).all(|hart| remote.is_in_wfi(hart));
            let spins = remote.u64(VARIABLE) > 0;
            assert_eq!(remote.ask("D;1"), "OK");
            if asleep && spins {
                return;
            }
            assert!(start.elapsed() < LIMIT, "the guest does not come to its loops");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Runs a script to its end; what gdb printed.
    pub(crate) fn gdb(&self, script: &str) -> String {
        self.start_gdb(script).finish()
    }

    /// What the guest has printed so far.
    pub(crate) fn output(&self) -> Vec<u8> {
        self.running.stdout()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        self.running.signal(signal);
    }

    /// Waits for the guest to end by itself.
    pub(crate) fn finish(self) -> Outcome {
        self.running.finish()
    }
}

/// The command `continue`, which says when the guest goes on.
pub(crate) const CONTINUE: &str = "set debug remote 1\ncontinue\nset debug remote 0\n";

/// A gdb that runs.
pub(crate) struct Gdb {
    child: Child,
    output: PathBuf,
}

impl Gdb {
    fn start(script: &Path, program: &Path) -> Self {
        let output = script.with_extension("out");
        let file = std::fs::File::create(&output).unwrap();
        let mut command = Command::new("gdb-multiarch");
        command.args(["-q", "-nx", "-batch", "-x"]).arg(script).arg(program);
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("gdb-multiarch cannot be started ({error}); install the Debian package gdb-multiarch")
        });
        Self { child, output }
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// What gdb has printed so far.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.output).unwrap()).into_owned()
    }

    /// Waits until gdb has printed `text`.
    pub(crate) fn wait_for(&mut self, text: &str) {
        let start = Instant::now();
        while !self.output().contains(text) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && start.elapsed() < LIMIT, "no `{text}`: {}", self.output());
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    /// Waits until gdb has had the guest go on, in a script with [`CONTINUE`].
    pub(crate) fn wait_for_continue(&mut self) {
        self.wait_for("Sending packet: $vCont;c");
    }

    /// Waits for the end, and returns what gdb has printed.
    pub(crate) fn finish(mut self) -> String {
        let start = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < 2 * LIMIT, "gdb does not end: {}", self.output());
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        self.output()
    }
}

impl Drop for Gdb {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Checks that `parts` are in `output`, one after the other.
#[track_caller]
pub(crate) fn in_order(output: &str, parts: &[&str]) {
    let mut rest = output;
    for part in parts {
        let Some(place) = rest.find(part) else {
            panic!("no `{part}` in what is left:\n{rest}\nof\n{output}")
        };
        rest = &rest[place + part.len()..];
    }
}

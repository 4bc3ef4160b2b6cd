//! Running the program under test.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Far longer than anything here takes, on a busy machine too.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);

/// A directory of one test, removed at its end.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("hartvm-cli-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes a file.
    pub(crate) fn file(&self, name: &str, contents: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, contents).unwrap();
        path
    }

    /// Makes a file of zeros.
    pub(crate) fn zeros(&self, name: &str, size: u64) -> PathBuf {
        let path = self.path(name);
        std::fs::File::create(&path).unwrap().set_len(size).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The program under test.
pub(crate) fn hartvm() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hartvm"));
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// `hartvm run` with a program that runs in machine mode.
pub(crate) fn bare(program: &Path) -> Command {
    let mut command = hartvm();
    command.args(["run", "--firmware", "none", "--memory", "64M", "--kernel"]).arg(program);
    command
}

/// As `command`, but run by a shell after the shell command `first`.
pub(crate) fn in_shell(first: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{first}; exec \"$0\" \"$@\"")).stdin(Stdio::null());
    shell.arg(command.get_program()).args(command.get_args());
    shell
}

/// What a finished run left.
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Outcome {
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("{}: {}", self.status, self.stderr))
    }
}

/// A run that goes on, with its output gathered.
pub(crate) struct Running {
    child: Child,
    stdout: Arc<Mutex<Vec<u8>>>,
    gatherers: Vec<std::thread::JoinHandle<()>>,
    stderr: Arc<Mutex<Vec<u8>>>,
}

fn gather(mut from: impl Read + Send + 'static, into: &Arc<Mutex<Vec<u8>>>) -> std::thread::JoinHandle<()> {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            into.lock().unwrap().extend_from_slice(&buffer[..count]);
        }
    })
}

impl Running {
    /// Starts a command whose output is gathered.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let gatherers = vec![
            gather(child.stdout.take().unwrap(), &stdout),
            gather(child.stderr.take().unwrap(), &stderr),
        ];
        Self { child, stdout, gatherers, stderr }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub(crate) fn stdin(&mut self) -> std::process::ChildStdin {
        self.child.stdin.take().unwrap()
    }

    /// The output so far.
    pub(crate) fn stdout(&self) -> Vec<u8> {
        self.stdout.lock().unwrap().clone()
    }

    /// The errors so far.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap()).into_owned()
    }

    /// Waits until the output has `count` bytes.
    pub(crate) fn wait_for_output(&self, count: usize) {
        let start = Instant::now();
        while self.stdout.lock().unwrap().len() < count {
            assert!(start.elapsed() < LIMIT, "no output: {}", self.stderr());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until the process has used so many more seconds of processor time.
    pub(crate) fn wait_for_cpu(&self, seconds: f64) {
        let (start, before) = (Instant::now(), cpu_seconds(self.pid()));
        while cpu_seconds(self.pid()) < before + seconds {
            assert!(start.elapsed() < LIMIT, "it does not compute: {}", self.stderr());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for the end.
    pub(crate) fn finish(mut self) -> Outcome {
        let status = wait(&mut self.child);
        for gatherer in self.gatherers.drain(..) {
            gatherer.join().unwrap();
        }
        let stderr = self.stderr();
        assert!(!stderr.contains("panicked"), "{stderr}");
        Outcome { status, stdout: self.stdout(), stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for the end of a process, and kills it after [`LIMIT`].
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > LIMIT {
            let _ = child.kill();
            panic!("hartvm did not end");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Outcome {
    Running::start(command).finish()
}

/// Runs `hartvm` with arguments that it has to refuse, and checks how: exit status, no output, and an error that has
/// all of `words` in it.
pub(crate) fn refused<S: AsRef<OsStr>>(args: &[S], code: i32, words: &[&str]) {
    let outcome = run(hartvm().args(args));
    let shown: Vec<_> = args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect();
    let stderr = &outcome.stderr;
    assert_eq!(outcome.code(), code, "{shown:?}: {stderr}");
    assert_eq!(outcome.stdout, b"", "{shown:?}");
    for word in words {
        assert!(stderr.contains(word), "{shown:?}: no `{word}` in: {stderr}");
    }
}

/// Seconds of processor time that a process has used.
pub(crate) fn cpu_seconds(pid: Pid) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // utime and stime (proc(5)), in the hundredths of a second that Linux reports on every architecture.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// Host memory in use by a process, in KiB.
pub(crate) fn resident_kib(pid: Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

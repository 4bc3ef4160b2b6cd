//! `hartvm run`: a guest with its console on this terminal.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use machine::console::{Input, Sink};
use machine::gdb::Server;
use machine::system::Power;
use machine::{Machine, Stats};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};

use crate::cli::RunArgs;
use crate::config::config;
use crate::disk_image::say;
use crate::instance::Instance;
use crate::terminal::{Key, Keys, RawTerminal, restore};

/// How long the last output may take to reach a slow terminal.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

const HELP: &str = "\r\n\
    Ctrl-A X  quit hartvm\r\n\
    Ctrl-A T  send input to the other console\r\n\
    Ctrl-A A  send Ctrl-A to the guest\r\n\
    Ctrl-A H  this list\r\n\
    Ctrl-C goes to the guest\r\n";

/// Runs the guest and returns its exit code.
pub(crate) fn run(args: &RunArgs) -> Result<u8> {
    if let Some(path) = &args.seed.dump_seed {
        return args.seed.dump(path).map(|()| 0);
    }
    let Some(config) = config(args)? else { return Ok(0) };
    let dump_only = args.dump_dtb.is_some() || args.dump_dts;
    let sink = if dump_only {
        Sink::null()
    } else {
        Sink::new(std::io::stdout()).context("cannot start the console")?
    };
    let machine = Machine::build(config, sink.clone()).map_err(|error| match error {
        machine::Error::Memory(_) => anyhow::Error::new(error).context("--memory"),
        machine::Error::Net(_) => anyhow::Error::new(error).context("--net"),
        _ => error.into(),
    })?;
    if dump_only {
        return dump(args, &machine).map(|()| 0);
    }
    if let (Some(image), Some(chosen)) = (args.image.as_ref().or(args.disk.first()), machine.chosen()) {
        say(&format!("{image}: {chosen}"));
    }

    let _pidfile = args.pidfile.as_deref().map(PidFile::new).transpose()?;
    restore_on_panic();
    // A disk image that hits the limit on file sizes is an I/O error for the guest, not the end of it.
    signal_hook::flag::register(SIGXFSZ, Arc::default()).context("cannot handle signals")?;
    quit_on_signals(machine.power())?;
    raise_file_limit();
    let instance = Instance::announce(args.name.as_deref(), machine.forwards())?;
    let gdb = start_gdb(args, &machine)?;
    let raw = RawTerminal::enter();
    let input = feed_input(&machine, raw.is_some())?;
    let start = Instant::now();
    let result = machine.run(!args.no_reboot);
    let elapsed = start.elapsed();
    drop(instance);
    if let Some(gdb) = gdb {
        gdb.finish(*result.as_ref().unwrap_or(&1));
    }
    let profile = machine.write_profile();
    drop(input);
    sink.close(LAST_OUTPUT);
    drop(raw);
    if args.stats.is_some() {
        print_stats(&machine.stats(), elapsed);
    }
    // An exit status has eight bits; a failure must not turn into success by being cut.
    let code = result?;
    profile?;
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// A file with the process's number, which goes when the guest ends.
struct PidFile<'a>(&'a Path);

impl<'a> PidFile<'a> {
    fn new(path: &'a Path) -> Result<Self> {
        std::fs::write(path, format!("{}\n", std::process::id()))
            .with_context(|| format!("--pidfile: cannot write {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for PidFile<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0);
    }
}

/// Lets gdb attach, if it is to, and says where.
fn start_gdb(args: &RunArgs, machine: &Machine) -> Result<Option<Server>> {
    let Some(address) = &args.gdb else { return Ok(None) };
    let server = Server::start(machine, address, args.gdb_wait).context("--gdb")?;
    let waits = if args.gdb_wait { ", and the guest waits for it" } else { "" };
    let _ = writeln!(std::io::stderr(), "gdb can attach: target remote {}{waits}", server.address());
    Ok(Some(server))
}

/// Prints what the engines did. A standard error that is closed is no failure of the guest.
fn print_stats(stats: &Stats, elapsed: Duration) {
    let seconds = elapsed.as_secs_f64();
    let rate = stats.insns as f64 / seconds.max(1e-9) / 1e6;
    let text = format!("\n{seconds:.3} s, {rate:.1} million guest instructions/s\n{stats}");
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn dump(args: &RunArgs, machine: &Machine) -> Result<()> {
    if let Some(path) = &args.dump_dtb {
        std::fs::write(path, machine.device_tree_blob())
            .with_context(|| format!("--dump-dtb: cannot write {}", path.display()))?;
    }
    if args.dump_dts {
        let mut out = std::io::stdout().lock();
        out.write_all(devicetree::to_dts(machine.device_tree()).as_bytes())
            .context("cannot print the device tree")?;
    }
    Ok(())
}

/// Feeds standard input to the guest, minus the Ctrl-A keys where a person types them.
fn feed_input(machine: &Machine, interactive: bool) -> Result<Arc<Input>> {
    let power = Arc::clone(machine.power());
    let switch: Arc<std::sync::OnceLock<std::sync::Weak<Input>>> = Arc::default();
    let mut keys = Keys::default();
    let other = Arc::clone(&switch);
    let act = move |key| match key {
        Key::Quit => power.quit(0),
        Key::Help => {
            let _ = std::io::stderr().write_all(HELP.as_bytes());
        }
        Key::SwitchConsole => {
            if let Some(input) = other.get().and_then(std::sync::Weak::upgrade) {
                input.set_focus(input.focus() + 1);
            }
        }
    };
    let filter: machine::console::Filter = if interactive {
        Box::new(move |bytes| keys.filter(bytes, &act))
    } else {
        Box::new(|bytes| bytes.to_vec())
    };
    let input = Input::new(std::io::stdin(), filter, machine.receivers(), machine.room());
    let input = Arc::new(input.context("cannot read the console's input")?);
    let _ = switch.set(Arc::downgrade(&input));
    Ok(input)
}

/// Each connection of the guest's is an open file here, and the limit that programs start with suits those that use select(2).
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where the host refuses, the guest has fewer connections.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// A panic is a bug, and its message should be readable.
fn restore_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restore();
        print(info);
        // What reads a disk reports its end by itself.
        if std::thread::current().name() == Some(image::THREAD) {
            return;
        }
        // A machine with a hart missing would hang.
        std::process::exit(101);
    }));
}

/// Turns the machine off when hartvm is asked to end; a second request ends it at once.
fn quit_on_signals(power: &Arc<Power>) -> Result<()> {
    let power = Arc::clone(power);
    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])
        .context("cannot handle signals")?;
    let watch = move || {
        for (count, signal) in signals.forever().enumerate() {
            let code = 128 + signal as u16;
            if count > 0 {
                restore();
                std::process::exit(i32::from(code));
            }
            power.quit(code);
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(watch).context("cannot start a thread")?;
    Ok(())
}

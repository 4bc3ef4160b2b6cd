//! `hartvm run`: a guest with its console on this terminal.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use machine::console::{Input, Sink};
use machine::cpu_model::CpuModel;
use machine::disk::DiskOptions;
use machine::gdb::Server;
use machine::net::NetOptions;
use machine::system::Power;
use machine::{BootDisk, Config, Firmware, Machine, Stats, board};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};

use crate::cli::{Engine, RunArgs};
use crate::disk_image::{self, Image, say};
use crate::instance::Instance;
use crate::terminal::{Key, Keys, RawTerminal, restore};
use crate::uefi::Uefi;
use crate::{Usage, place};

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
    if let (Some(image), Some(chosen)) = (&args.image, machine.chosen()) {
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
    if args.stats {
        print_stats(&machine.stats(), elapsed);
    }
    // An exit status has eight bits; a failure must not turn into success by being cut.
    let code = result?;
    profile?;
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// The machine that the flags describe; `None` if they only asked for a list, which has been printed.
fn config(args: &RunArgs) -> Result<Option<Config>> {
    if args.cpu == "help" {
        println!("models:   {}", CpuModel::names().collect::<Vec<_>>().join(" "));
        println!("features: {}", CpuModel::features().collect::<Vec<_>>().join(" "));
        return Ok(None);
    }
    let usage = |flag: &str, error: &dyn std::fmt::Display| Usage(format!("{flag}: {error}"));
    let disks = args.disk.iter().map(|text| DiskOptions::parse(text)).collect::<Result<Vec<_>, _>>();
    let mut disks = disks.map_err(|error| usage("--disk", &error))?;
    let firmware = match args.firmware.as_str() {
        "sbi" => Firmware::Sbi,
        "none" => Firmware::None,
        file => Firmware::File(file.into()),
    };
    let dump_only = args.dump_dtb.is_some() || args.dump_dts;
    let mut kernel = args.kernel.clone();
    let mut boot_disk = None;
    match args.image.as_deref().map(disk_image::open).transpose()? {
        None => {}
        Some(Image::Program(path)) => {
            if let Some(kernel) = &kernel {
                let error = format!(
                    "`{}` is a kernel or program, and --kernel names `{}`",
                    path.display(),
                    kernel.display()
                );
                return Err(usage("IMAGE", &format!("{error}; want one of them")).into());
            }
            if args.boot.is_some() {
                let error = format!("`{}` is a program; only a disk has a boot menu", path.display());
                return Err(usage("--boot", &error).into());
            }
            kernel = Some(path);
        }
        Some(Image::Disk(disk)) => {
            if args.boot.as_deref() == Some("menu") {
                disk_image::print_menu(&disk)?;
                return Ok(None);
            }
            if kernel.is_none() && args.uefi.is_none() && firmware == Firmware::Sbi {
                boot_disk = Some(BootDisk { entry: args.boot.clone() });
            } else if args.boot.is_some() {
                let error = "the firmware chooses what it boots; leave out --firmware, --uefi and --kernel, or --boot";
                return Err(usage("--boot", &error).into());
            }
            disks.insert(0, disk);
        }
    }
    if let Some(overlay) = &args.overlay {
        let Some(first) = disks.first_mut() else {
            return Err(usage("--overlay", &"there is no disk; name an image, or one with --disk").into());
        };
        if first.overlay.replace(overlay.clone()).is_some() {
            return Err(usage("--overlay", &"the first disk has an overlay already; leave one out").into());
        }
        first.check().map_err(|error| usage("--overlay", &error))?;
    }
    let nothing = kernel.is_none() && boot_disk.is_none();
    if nothing && args.uefi.is_none() && !matches!(firmware, Firmware::File(_)) && !dump_only {
        return Err(Usage(
            "there is nothing to boot: name a disk image, a kernel with --kernel, or a firmware with --firmware or --uefi, such as\n  \
             hartvm run disk.raw\n  \
             hartvm run --kernel linux --initrd initrd.gz --append console=ttyS0\n\
             `hartvm run --help` has more examples"
                .into(),
        )
        .into());
    }
    let mut net: NetOptions = args.net.parse().map_err(|error| usage("--net", &error))?;
    if let NetOptions::User(options) = &mut net
        && dump_only
    {
        // Ports are for guests that run.
        options.forwards.clear();
    }
    let seed = args.seed.volume()?;
    if args.initrd.is_some() && nothing {
        let error = "without a kernel nothing would look for it; want --kernel or a disk that has one";
        return Err(usage("--initrd", &error).into());
    }
    let of_disk = disks.len() > args.disk.len();
    let memory =
        args.memory.unwrap_or_else(|| if of_disk { disk_image::memory(host_memory()) } else { MEMORY });
    let harts = args.cpus.unwrap_or_else(|| if of_disk { disk_image::harts() } else { 1 });
    // One slot is the random number generator's.
    let others = [args.virtio_console, net != NetOptions::None, seed.is_some()];
    let slots = board::VIRTIO_SLOTS as usize - 1 - others.into_iter().filter(|&other| other).count();
    if disks.len() > slots {
        let error = format!("{} disks are too many: want {slots} at most", disks.len());
        return Err(usage("--disk", &error).into());
    }
    if args.perf.is_some() && args.engine == Engine::Interp {
        let error = "the interpreter makes no code that perf could name; want --engine jit";
        return Err(usage("--perf", &error).into());
    }
    if !dump_only {
        check_host_memory(memory)?;
    }
    let mut disk_slots =
        place::slots(&args.disk_slot, args.disk.len()).map_err(|error| usage("--disk-slot", &error))?;
    if disks.len() > args.disk.len() {
        // The slots are those of --disk.
        disk_slots.insert(0, None);
    }
    let loads = args.load.iter().map(|text| place::load(text)).collect::<Result<_, _>>();
    let flash = match &args.uefi {
        Some(text) => {
            let uefi = Uefi::parse(text).map_err(|error| usage("--uefi", &error))?;
            Some(uefi.flash(&disks, dump_only)?)
        }
        None => None,
    };
    Ok(Some(Config {
        memory,
        harts: usize::from(harts),
        cpu: args.cpu.parse().map_err(|error| usage("--cpu", &error))?,
        firmware,
        kernel,
        initrd: args.initrd.clone(),
        append: args.append.clone(),
        dtb: args.dtb.clone(),
        flash,
        disks,
        net,
        disk_slots,
        loads: loads.map_err(|error| usage("--load", &error))?,
        serial: place::serial(&args.serial).map_err(|error| usage("--serial", &error))?,
        seed,
        boot_disk,
        virtio_console: args.virtio_console,
        virtio_legacy: args.virtio_legacy,
        engine: args.engine.into(),
        perf: args.perf.filter(|_| !dump_only).map(Into::into),
        trace: args
            .trace
            .clone()
            .filter(|_| !dump_only)
            .map(|trace| trace.with_filter(args.trace_filter.clone().unwrap_or_default())),
        symbols: args.symbols.clone(),
        profile: args.profile.clone().filter(|_| !dump_only),
        coverage: false,
    }))
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

/// A kernel touches about this part of its memory just to manage it: 64 bytes for each 4 KiB.
const BOOKKEEPING: u64 = 64;

/// Bytes of memory where nothing else is asked for.
const MEMORY: u64 = 1 << 30;

/// A size that the host's kernel tells, in bytes; `None` on a host that does not.
fn host_size(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let size =
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.split_whitespace().next());
    size?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Bytes of the host's memory.
fn host_memory() -> Option<u64> {
    host_size("MemTotal")
}

/// Refuses guest memory that the host could map but whose mere management it could not hold: the guest would be killed while
/// it boots. Memory that is only promised is fine; it is taken from the host when it is touched.
fn check_host_memory(wanted: u64) -> Result<()> {
    // A host that does not say what it has is taken to have enough.
    let Some(memory) = host_memory() else { return Ok(()) };
    let has = memory.saturating_add(host_size("SwapTotal").unwrap_or(0)) >> 20;
    let (wanted, most) = (wanted >> 20, has.saturating_mul(BOOKKEEPING));
    if wanted > most {
        bail!(
            "--memory: {wanted}M is more than this host can serve, which has {has}M of memory and swap; want {most}M at most"
        );
    }
    Ok(())
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

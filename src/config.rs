//! From the flags of `hartvm run` to a [`Config`].

use std::path::PathBuf;

use anyhow::{Result, bail};
use machine::cpu_model::CpuModel;
use machine::disk::DiskOptions;
use machine::net::NetOptions;
use machine::{BootDisk, Config, Firmware, board};

use crate::cli::{Engine, RunArgs, Stats};
use crate::disk_image::{self, Image};
use crate::uefi::Uefi;
use crate::{Usage, place};

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

fn usage(flag: &str, error: &dyn std::fmt::Display) -> Usage {
    Usage(format!("{flag}: {error}"))
}

/// What runs on the machine, and its disks.
struct Boots {
    firmware: Firmware,
    kernel: Option<PathBuf>,
    boot_disk: Option<BootDisk>,
    /// IMAGE, if it is a disk, before those of `--disk`.
    disks: Vec<DiskOptions>,
    /// There is such an IMAGE.
    of_disk: bool,
}

/// What the flags say of that; `None` if they only asked for a list, which has been printed.
fn boots(args: &RunArgs, dump_only: bool) -> Result<Option<Boots>> {
    let disks = args.disk.iter().map(|text| DiskOptions::parse(text)).collect::<Result<Vec<_>, _>>();
    let mut disks = disks.map_err(|error| usage("--disk", &error))?;
    let firmware = match args.firmware.as_str() {
        "sbi" => Firmware::Sbi,
        "none" => Firmware::None,
        file => Firmware::File(file.into()),
    };
    let mut kernel = args.kernel.clone();
    let mut boot_disk = None;
    let brings_nothing = kernel.is_none() && args.uefi.is_none() && firmware == Firmware::Sbi;
    match args.image.as_deref().map(disk_image::open).transpose()? {
        None if brings_nothing && !dump_only => {
            boot_disk = disks.first().map(|_| BootDisk { entry: None });
        }
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
            if brings_nothing {
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
    if args.initrd.is_some() && nothing {
        let error = "without a kernel nothing would look for it; want --kernel or a disk that has one";
        return Err(usage("--initrd", &error).into());
    }
    if args.uefi.is_some() && kernel.is_none() && !args.append.is_empty() {
        let error =
            "the firmware hands it to the kernel of --kernel, and there is none; want --kernel FILE too";
        return Err(usage("--append", &error).into());
    }
    let of_disk = disks.len() > args.disk.len();
    Ok(Some(Boots { firmware, kernel, boot_disk, disks, of_disk }))
}

/// The machine that the flags describe; `None` if they only asked for a list, which has been printed.
pub(crate) fn config(args: &RunArgs) -> Result<Option<Config>> {
    if args.cpu == "help" {
        println!("models:   {}", CpuModel::names().collect::<Vec<_>>().join(" "));
        println!("features: {}", CpuModel::features().collect::<Vec<_>>().join(" "));
        return Ok(None);
    }
    let dump_only = args.dump_dtb.is_some() || args.dump_dts;
    let Some(Boots { firmware, kernel, boot_disk, disks, of_disk }) = boots(args, dump_only)? else {
        return Ok(None);
    };
    let mut net: NetOptions = args.net.parse().map_err(|error| usage("--net", &error))?;
    if let NetOptions::User(options) = &mut net
        && dump_only
    {
        // Ports are for guests that run.
        options.forwards.clear();
    }
    let seed = args.seed.volume()?;
    let boots_disk = of_disk || boot_disk.is_some();
    let memory =
        args.memory.unwrap_or_else(|| if boots_disk { disk_image::memory(host_memory()) } else { MEMORY });
    let harts = args.cpus.unwrap_or_else(|| if boots_disk { disk_image::harts() } else { 1 });
    // One slot is the random number generator's.
    let others = [args.virtio_console, net != NetOptions::None, seed.is_some()];
    let room = board::VIRTIO_SLOTS as usize - 1 - others.into_iter().filter(|&other| other).count();
    if disks.len() > room {
        let error = format!("{} disks are too many: want {room} at most", disks.len());
        return Err(usage("--disk", &error).into());
    }
    if args.perf.is_some() && args.engine == Engine::Interp {
        let error = "the interpreter makes no code that perf could name; want --engine jit";
        return Err(usage("--perf", &error).into());
    }
    if !dump_only {
        check_host_memory(memory)?;
    }
    let present = place::Present {
        image: of_disk,
        disks: args.disk.len(),
        net: net != NetOptions::None,
        console: args.virtio_console,
    };
    let slots = place::slots(&args.slot, present).map_err(|error| usage("--slot", &error))?;
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
        slots,
        loads: loads.map_err(|error| usage("--load", &error))?,
        fw_cfg: place::named_items(&args.fw_cfg).map_err(|error| usage("--fw-cfg", &error))?,
        serial: place::serial(&args.serial).map_err(|error| usage("--serial", &error))?,
        seed,
        boot_disk,
        virtio_console: args.virtio_console,
        virtio_legacy: args.virtio_legacy,
        engine: args.engine.into(),
        perf: args.perf.filter(|_| !dump_only).map(Into::into),
        count_host_insns: args.stats == Some(Stats::Host),
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

//! What is in memory at power-on, and in which state each hart starts. The decisions are those of [`firmware::boot`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use devicetree::{Node, Property};
use firmware::boot::{BootPlan, Request};
use firmware::{Image, LoadError, Loaded, Occupied, Room};
use parking_lot::Mutex;
use softmmu::{GuestMemory, Privilege};

use crate::board::{self, Kind};
use crate::devices::fw_cfg::{Contents, NamedItem, Payload};
use crate::disk::{self, Disk};
use crate::system::Entry;
use crate::{Config, Firmware, Load};

/// More than the device tree of the largest machine takes.
const DEVICE_TREE_LIMIT: u64 = 256 << 10;

/// Why a machine has nothing to boot, or not like this.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A file.
    #[error("{flag}: {}{}", with_cause(error), remedy(flag, error))]
    File {
        /// The flag that named it.
        flag: &'static str,
        /// What is wrong with it.
        error: LoadError,
    },
    /// The initrd, which is larger than what is left of RAM.
    #[error("--initrd: `{0}`: {1}")]
    Initrd(String, firmware::boot::BootError),
    /// What is on the disk that was to be booted.
    #[error("cannot boot `{}`: {error}; {}", path.display(), instead(error))]
    Disk {
        /// The disk.
        path: PathBuf,
        /// Why it cannot be booted.
        error: image::BootError,
    },
    /// The device tree that a disk's boot loader would have used.
    #[error("cannot boot `{}`: its device tree is not usable ({error}); {INSTEAD}", path.display())]
    DiskDeviceTree {
        /// The disk.
        path: PathBuf,
        /// What is wrong with the tree.
        error: devicetree::Error,
    },
    /// The layout.
    #[error(transparent)]
    Plan(#[from] firmware::boot::BootError),
    /// The machine's own tree.
    #[error(transparent)]
    DeviceTree(#[from] devicetree::Error),
    /// A file of `--load` that does not say where it belongs.
    #[error("--load: `{0}` is no ELF file; say where it goes, such as --load {0},addr=0x88000000")]
    NoAddress(String),
    /// The file of `--dtb`.
    #[error("--dtb: `{0}` is not a usable device tree blob: {1}; make one with dtc or with --dump-dtb")]
    Blob(String, String),
}

/// What boots a disk that hartvm cannot boot by itself.
const INSTEAD: &str = "name a kernel with --kernel, or a firmware that boots the disk with --firmware";

fn instead(error: &image::BootError) -> &'static str {
    match error {
        image::BootError::NoSuchEntry { .. } => "choose one with --boot, by its number, title or version",
        _ => INSTEAD,
    }
}

const KERNEL: &str = "--kernel";
const FIRMWARE: &str = "--firmware";
const INITRD: &str = "--initrd";
const DTB: &str = "--dtb";
const LOAD: &str = "--load";
const FW_CFG: &str = "--fw-cfg";
/// What has been found on a disk; no flag, but what messages say in place of one.
const ON_DISK: &str = "IMAGE";

fn about(flag: &'static str) -> impl Fn(LoadError) -> BootError {
    move |error| BootError::File { flag, error }
}

/// The error and what the host said, in one line.
fn with_cause(error: &LoadError) -> String {
    match error {
        LoadError::Read { source, .. } => format!("{error}: {source}"),
        _ => error.to_string(),
    }
}

/// What would be right, where the error does not say it.
fn remedy(flag: &str, error: &LoadError) -> String {
    let want = match flag {
        KERNEL => "name a kernel or program: ELF, Linux Image, a raw binary, or gzip of these",
        FIRMWARE => "name a firmware such as OpenSBI's fw_dynamic.bin, or use `sbi` (built in) or `none`",
        INITRD => "name an initial ramdisk that goes with the kernel",
        LOAD => "name a file that is to be in the guest's memory",
        FW_CFG => "name a file that the guest is to find",
        ON_DISK => "choose another entry with --boot, or name a kernel with --kernel",
        _ => "name a device tree blob, as dtc or --dump-dtb make it",
    };
    match error {
        LoadError::Read { .. } | LoadError::NotAFile { .. } | LoadError::Empty { .. } => format!("; {want}"),
        LoadError::Damaged { .. } | LoadError::WrongKind { .. } if flag == ON_DISK => format!("; {want}"),
        LoadError::Damaged { .. } => "; get a whole copy of it".into(),
        LoadError::Overlap { .. } => "; link it for other addresses, or leave one of the two out".into(),
        LoadError::TooLarge { .. } | LoadError::WrongKind { .. } | LoadError::DoesNotFit { .. } => {
            String::new()
        }
    }
}

/// The images of a machine and where they go.
pub(crate) struct Boot {
    firmware: Firmware,
    files: Files,
    /// Whether there is anything to run. A machine without can only be looked at.
    bootable: bool,
    loaded: Mutex<Images>,
    device_tree: Mutex<Vec<u8>>,
    /// Whether guest memory holds the images as they were loaded, with no guest having run since.
    pristine: AtomicBool,
}

/// What is loaded again at each reset.
struct Files {
    kernel: Option<PathBuf>,
    initrd: Option<PathBuf>,
    dtb: Option<PathBuf>,
    loads: Vec<Load>,
    /// Where the flash with code is, if there is one. The code asks for kernel, initrd and command line ([`payload`]).
    flash: Option<u64>,
    append: String,
    disk: Option<FromDisk>,
}

/// A disk whose boot loader's configuration names the kernel.
struct FromDisk {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    choice: Option<String>,
}

/// What has been loaded.
struct Images {
    plan: BootPlan,
    /// The kernel's command line.
    bootargs: String,
    /// A device tree that came with the kernel.
    devicetree: Option<Node>,
    /// What was chosen on a disk.
    chosen: Option<String>,
}

impl Boot {
    /// Loads firmware, kernel and initrd into `memory` and decides on the rest. The first of `disks` is the one to boot, if
    /// the configuration says so.
    ///
    /// # Errors
    /// When a file cannot be used, or they do not fit together. That there is nothing to boot is no error yet.
    pub(crate) fn load(
        config: &Config,
        memory: &GuestMemory,
        disks: &[Arc<dyn Disk>],
    ) -> Result<Self, BootError> {
        let disk = config.boot_disk.as_ref().zip(disks.first()).zip(config.disks.first());
        let in_memory = config.flash.is_none();
        let files = Files {
            kernel: config.kernel.clone().filter(|_| in_memory),
            initrd: config.initrd.clone().filter(|_| in_memory),
            dtb: config.dtb.clone(),
            loads: config.loads.clone(),
            flash: config.flash.as_ref().map(|_| board::region(Kind::Flash).base),
            append: if in_memory { config.append.clone() } else { String::new() },
            disk: disk.map(|((boot, disk), options)| FromDisk {
                path: options.path.clone(),
                disk: Arc::clone(disk),
                choice: boot.entry.clone(),
            }),
        };
        let (loaded, pristine) = (load(&config.firmware, &files, memory)?, AtomicBool::new(true));
        let firmware = config.firmware.clone();
        let bootable = files.kernel.is_some()
            || files.disk.is_some()
            || files.flash.is_some()
            || matches!(firmware, Firmware::File(_));
        Ok(Self {
            firmware,
            files,
            bootable,
            loaded: Mutex::new(loaded),
            device_tree: Mutex::default(),
            pristine,
        })
    }

    /// Contents of the reset ROM.
    pub(crate) fn reset_rom(&self) -> Vec<u8> {
        self.loaded.lock().plan.reset_rom.clone()
    }

    /// Physical addresses of the initrd's first byte and of the byte after its last.
    pub(crate) fn initrd(&self) -> Option<(u64, u64)> {
        self.loaded.lock().plan.initrd.as_ref().map(|range| (range.start, range.end))
    }

    /// The kernel's command line.
    pub(crate) fn bootargs(&self) -> String {
        self.loaded.lock().bootargs.clone()
    }

    /// What was chosen on a disk, in one line.
    pub(crate) fn chosen(&self) -> Option<String> {
        self.loaded.lock().chosen.clone()
    }

    /// Whether the built-in SBI answers the supervisor.
    pub(crate) fn has_sbi(&self) -> bool {
        self.loaded.lock().plan.has_built_in_sbi()
    }

    /// Takes the machine's own tree, unless the user gave one, or the kernel came with one.
    ///
    /// # Errors
    /// When the tree cannot be flattened, or the user's file is not one.
    pub(crate) fn set_device_tree(&self, tree: &Node) -> Result<(), BootError> {
        let loaded = self.loaded.lock();
        *self.device_tree.lock() = match (&self.files.dtb, &loaded.devicetree) {
            (Some(path), _) => {
                let bad = |what: String| BootError::Blob(path.display().to_string(), what);
                let blob = firmware::read_file(path, DEVICE_TREE_LIMIT).map_err(|error| match error {
                    LoadError::TooLarge { limit, .. } => bad(format!("it has more than {limit} bytes")),
                    error => about(DTB)(error),
                })?;
                devicetree::parse(&blob).map_err(|error| bad(error.to_string()))?;
                blob
            }
            (None, Some(own)) => devicetree::flatten(&completed(own, tree), 0, &[])?,
            (None, None) => devicetree::flatten(tree, 0, &[])?,
        };
        Ok(())
    }

    /// The tree as the guest gets it.
    pub(crate) fn device_tree_blob(&self) -> Vec<u8> {
        self.device_tree.lock().clone()
    }

    /// Makes memory what it is at power-on, except for the device tree: loads the files again if a guest has run.
    ///
    /// # Errors
    /// When there is nothing to boot, or a file has changed so that it cannot be loaded any more.
    pub(crate) fn write_images(&self, memory: &GuestMemory) -> Result<(), BootError> {
        if !self.bootable {
            return Err(firmware::boot::BootError::NothingToRun.into());
        }
        if !self.pristine.swap(false, Ordering::SeqCst) {
            *self.loaded.lock() = load(&self.firmware, &self.files, memory)?;
        }
        Ok(())
    }

    /// Places the device tree in memory.
    ///
    /// # Errors
    /// When it does not fit there.
    pub(crate) fn write_device_tree(&self, memory: &GuestMemory) -> Result<(), BootError> {
        let source = self.files.dtb.as_deref().unwrap_or(Path::new("the device tree"));
        let room = Room { ram: memory.ram(), occupied: &[] };
        let fdt = self.loaded.lock().plan.fdt;
        firmware::place(source, &self.device_tree.lock(), fdt, memory, &room).map_err(about(DTB))
    }

    /// The harts that start by themselves, and how.
    pub(crate) fn entries(&self, harts: usize) -> impl Iterator<Item = (usize, Entry)> + use<> {
        let plan = &self.loaded.lock().plan;
        let supervisor = plan.privilege == Privilege::Supervisor;
        let (a1, count) = if supervisor { (plan.fdt, 1) } else { (0, harts) };
        let (pc, privilege) = (plan.pc, plan.privilege);
        (0..count).map(move |id| (id, Entry { pc, privilege, a0: id as u64, a1 }))
    }
}

/// What code in flash is handed, if there is such and a kernel is named.
///
/// # Errors
/// When a file cannot be read, or is larger than memory.
pub(crate) fn payload(config: &Config) -> Result<Option<Payload>, BootError> {
    let Some(kernel) = config.kernel.as_ref().filter(|_| config.flash.is_some()) else { return Ok(None) };
    let initrd = config.initrd.as_ref().map(|path| firmware::read_file(path, config.memory));
    Ok(Some(Payload {
        kernel: firmware::read_unpacked(kernel, config.memory).map_err(about(KERNEL))?,
        initrd: initrd.transpose().map_err(about(INITRD))?.unwrap_or_default(),
        command_line: config.append.clone(),
    }))
}

/// The items of fw_cfg that have names.
///
/// # Errors
/// When a file cannot be read, or is larger than memory.
pub(crate) fn named_items(config: &Config) -> Result<BTreeMap<String, Vec<u8>>, BootError> {
    let read = |NamedItem { name, contents }: &NamedItem| {
        let bytes = match contents {
            Contents::Text(text) => text.clone().into_bytes(),
            Contents::File(path) => match firmware::read_file(path, config.memory) {
                Err(LoadError::Empty { .. }) => Vec::new(),
                read => read.map_err(about(FW_CFG))?,
            },
        };
        Ok((name.clone(), bytes))
    };
    config.fw_cfg.iter().map(read).collect()
}

/// Puts a file into memory; returns where.
fn load_file(load: &Load, memory: &GuestMemory, room: &Room) -> Result<Range<u64>, BootError> {
    let Load { path, address, raw } = load;
    if let (true, Some(address)) = (raw, address) {
        let bytes = firmware::read_file(path, room.ram.end - room.ram.start).map_err(about(LOAD))?;
        firmware::place(path, &bytes, *address, memory, room).map_err(about(LOAD))?;
        return Ok(*address..*address + bytes.len() as u64);
    }
    // Without an address nothing but what says where it belongs is accepted.
    let image = match (Image::read(path, address.unwrap_or(room.ram.start), address.is_some(), room), address)
    {
        (Ok(image), None) if image.loaded().kind != firmware::Kind::Elf => {
            return Err(BootError::NoAddress(path.display().to_string()));
        }
        (Err(LoadError::WrongKind { .. }), None) => {
            return Err(BootError::NoAddress(path.display().to_string()));
        }
        (image, _) => image.map_err(about(LOAD))?,
    };
    image.store(memory);
    Ok(image.loaded().low..image.loaded().high)
}

/// A device tree that came with a kernel, with what a boot loader fills in: memory, and what the kernel is told.
fn completed(own: &Node, machine: &Node) -> Node {
    let mut tree = own.clone();
    tree.children.retain(|node| node.name != "memory" && !node.name.starts_with("memory@"));
    let memory = machine.children.iter().filter(|node| node.name.starts_with("memory@"));
    tree.children.extend(memory.cloned());
    if let Some(chosen) = machine.find("/chosen") {
        for Property { name, value } in &chosen.properties {
            tree.child("chosen").set_bytes(name, value.clone());
        }
    }
    tree
}

/// Loads everything and plans the layout; doing it again gives the same result for the same files. The files are not kept,
/// since guest memory holds them.
fn load(firmware: &Firmware, files: &Files, memory: &GuestMemory) -> Result<Images, BootError> {
    let size = memory.ram().end - memory.ram().start;
    let mut found = match &files.disk {
        Some(FromDisk { path, disk, choice }) => {
            let boot = image::load(disk::source(Arc::clone(disk)), choice.as_deref(), size);
            Some(boot.map_err(|error| BootError::Disk { path: path.clone(), error })?)
        }
        None => None,
    };
    let mut occupied = Vec::new();
    let mut copy = |flag, what: &str, read: &mut dyn FnMut(&Room) -> Result<Image, LoadError>| {
        let image = read(&Room { ram: memory.ram(), occupied: &occupied }).map_err(about(flag))?;
        image.store(memory);
        let loaded = image.loaded().clone();
        occupied.push(Occupied { what: what.into(), range: loaded.low..loaded.high });
        Ok::<Loaded, BootError>(loaded)
    };
    let firmware_file = match firmware {
        Firmware::File(path) => Some(copy(FIRMWARE, "the firmware", &mut |room| {
            Image::read(path, memory.ram().start, true, room)
        })?),
        Firmware::Sbi | Firmware::None => None,
    };
    let below = match (firmware, &firmware_file) {
        (_, Some(loaded)) => firmware::boot::Firmware::File(loaded),
        (Firmware::None, None) => firmware::boot::Firmware::None,
        _ => firmware::boot::Firmware::Default,
    };
    let address = firmware::boot::kernel_address(&memory.ram(), below);
    let kernel = match (&files.kernel, &mut found) {
        (Some(path), _) => {
            Some(copy(KERNEL, "the kernel", &mut |room| Image::read(path, address, true, room))?)
        }
        (None, Some(boot)) => {
            let (name, mut bytes) = (boot.kernel_name.clone(), std::mem::take(&mut boot.kernel));
            let mut parse = |room: &Room| {
                Image::parse(Path::new(&name), std::mem::take(&mut bytes), address, false, room)
            };
            Some(copy(ON_DISK, "the kernel", &mut parse)?)
        }
        (None, None) => None,
    };
    let initrd = match (&files.initrd, &mut found) {
        (Some(path), _) => Some((path.clone(), firmware::read_file(path, size).map_err(about(INITRD))?)),
        (None, Some(boot)) => boot.initrd.take().map(|bytes| (PathBuf::from(&boot.initrd_name), bytes)),
        (None, None) => None,
    };
    let plan = firmware::boot::plan(&Request {
        ram: memory.ram(),
        firmware: below,
        kernel: kernel.as_ref(),
        // Where a machine without code would start does not matter: it never does.
        flash: files.flash.or((kernel.is_none() && firmware_file.is_none()).then_some(memory.ram().start)),
        initrd_size: initrd.as_ref().map(|(_, bytes)| bytes.len() as u64),
        fdt_size: DEVICE_TREE_LIMIT,
    })
    .map_err(|error| match (&initrd, error) {
        (Some((path, _)), error @ firmware::boot::BootError::DoesNotFit { what: "the initrd", .. }) => {
            BootError::Initrd(path.display().to_string(), error)
        }
        (_, error) => error.into(),
    })?;
    if let (Some((path, bytes)), Some(range)) = (initrd, &plan.initrd) {
        let room = Room { ram: memory.ram(), occupied: &occupied };
        firmware::place(&path, &bytes, range.start, memory, &room).map_err(about(INITRD))?;
    }
    let mut taken = |what: &str, range| occupied.push(Occupied { what: what.into(), range });
    taken("the device tree", plan.fdt..plan.fdt + DEVICE_TREE_LIMIT);
    if let Some(range) = plan.initrd.clone() {
        taken("the initrd", range);
    }
    for load in &files.loads {
        let range = load_file(load, memory, &Room { ram: memory.ram(), occupied: &occupied })?;
        occupied.push(Occupied { what: load.path.display().to_string(), range });
    }
    let options = found.as_ref().map_or("", |boot| boot.options.as_str());
    let bootargs =
        [options, &files.append].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ");
    let devicetree = match (&files.disk, found.as_mut().and_then(|boot| boot.devicetree.take())) {
        (Some(FromDisk { path, .. }), Some(blob)) => Some(
            devicetree::parse(&blob)
                .map_err(|error| BootError::DiskDeviceTree { path: path.clone(), error })?,
        ),
        _ => None,
    };
    Ok(Images { plan, bootargs, devicetree, chosen: found.map(|boot| boot.to_string()) })
}

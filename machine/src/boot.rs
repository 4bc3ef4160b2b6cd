//! What is in memory at power-on, and in which state each hart starts. The decisions are those of [`firmware::boot`].

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use devicetree::Node;
use firmware::boot::{BootPlan, Request};
use firmware::{Image, LoadError, Loaded, Occupied, Room};
use softmmu::{GuestMemory, Privilege};

use crate::board::{self, Kind};
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

const KERNEL: &str = "--kernel";
const FIRMWARE: &str = "--firmware";
const INITRD: &str = "--initrd";
const DTB: &str = "--dtb";
const LOAD: &str = "--load";

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
        _ => "name a device tree blob, as dtc or --dump-dtb make it",
    };
    match error {
        LoadError::Read { .. } | LoadError::NotAFile { .. } | LoadError::Empty { .. } => format!("; {want}"),
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
    config: Files,
    plan: BootPlan,
    /// Whether there is anything to run. A machine without can only be looked at.
    bootable: bool,
    device_tree: Vec<u8>,
    /// Whether guest memory holds the images as they were loaded, with no guest having run since.
    pristine: AtomicBool,
}

/// The files that are loaded again at each reset.
struct Files {
    kernel: Option<std::path::PathBuf>,
    initrd: Option<std::path::PathBuf>,
    dtb: Option<std::path::PathBuf>,
    loads: Vec<Load>,
    /// Where the flash with code is, if there is one.
    flash: Option<u64>,
}

impl Boot {
    /// Loads firmware, kernel and initrd into `memory` and decides on the rest.
    ///
    /// # Errors
    /// When a file cannot be used, or they do not fit together. That there is nothing to boot is no error yet.
    pub(crate) fn load(config: &Config, memory: &GuestMemory) -> Result<Self, BootError> {
        let files = Files {
            kernel: config.kernel.clone(),
            initrd: config.initrd.clone(),
            dtb: config.dtb.clone(),
            loads: config.loads.clone(),
            flash: config.flash.as_ref().map(|_| board::region(Kind::Flash).base),
        };
        let (plan, pristine) = (load(&config.firmware, &files, memory)?, AtomicBool::new(true));
        let firmware = config.firmware.clone();
        let bootable =
            files.kernel.is_some() || files.flash.is_some() || matches!(firmware, Firmware::File(_));
        Ok(Self { firmware, config: files, plan, bootable, device_tree: Vec::new(), pristine })
    }

    /// Contents of the reset ROM.
    pub(crate) fn reset_rom(&self) -> &[u8] {
        &self.plan.reset_rom
    }

    /// Physical addresses of the initrd's first byte and of the byte after its last.
    pub(crate) fn initrd(&self) -> Option<(u64, u64)> {
        self.plan.initrd.as_ref().map(|range| (range.start, range.end))
    }

    /// Whether the built-in SBI answers the supervisor.
    pub(crate) fn has_sbi(&self) -> bool {
        self.plan.has_built_in_sbi()
    }

    /// Takes the machine's own tree, unless the user gave one.
    ///
    /// # Errors
    /// When the tree cannot be flattened, or the user's file is not one.
    pub(crate) fn set_device_tree(&mut self, tree: &Node) -> Result<(), BootError> {
        self.device_tree = match &self.config.dtb {
            Some(path) => {
                let bad = |what: String| BootError::Blob(path.display().to_string(), what);
                let blob = firmware::read_file(path, DEVICE_TREE_LIMIT).map_err(|error| match error {
                    LoadError::TooLarge { limit, .. } => bad(format!("it has more than {limit} bytes")),
                    error => about(DTB)(error),
                })?;
                devicetree::parse(&blob).map_err(|error| bad(error.to_string()))?;
                blob
            }
            None => devicetree::flatten(tree, 0, &[])?,
        };
        Ok(())
    }

    /// The tree as the guest gets it.
    pub(crate) fn device_tree_blob(&self) -> &[u8] {
        &self.device_tree
    }

    /// Makes memory what it is at power-on: loads the files again if a guest has run.
    ///
    /// # Errors
    /// When there is nothing to boot, or a file has changed so that it cannot be loaded any more.
    pub(crate) fn write_images(&self, memory: &GuestMemory) -> Result<(), BootError> {
        if !self.bootable {
            return Err(firmware::boot::BootError::NothingToRun.into());
        }
        if !self.pristine.swap(false, Ordering::SeqCst) {
            load(&self.firmware, &self.config, memory)?;
        }
        let source = self.config.dtb.as_deref().unwrap_or(Path::new("the device tree"));
        let room = Room { ram: memory.ram(), occupied: &[] };
        firmware::place(source, &self.device_tree, self.plan.fdt, memory, &room).map_err(about(DTB))
    }

    /// The harts that start by themselves, and how.
    pub(crate) fn entries(&self, harts: usize) -> impl Iterator<Item = (usize, Entry)> {
        let supervisor = self.plan.privilege == Privilege::Supervisor;
        let (a1, count) = if supervisor { (self.plan.fdt, 1) } else { (0, harts) };
        let (pc, privilege) = (self.plan.pc, self.plan.privilege);
        (0..count).map(move |id| (id, Entry { pc, privilege, a0: id as u64, a1 }))
    }
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

/// Loads everything and plans the layout; doing it again gives the same result for the same files. The files are not kept,
/// since guest memory holds them.
fn load(firmware: &Firmware, files: &Files, memory: &GuestMemory) -> Result<BootPlan, BootError> {
    let mut occupied = Vec::new();
    let mut copy = |flag, what: &str, path: &Path, at| {
        let room = Room { ram: memory.ram(), occupied: &occupied };
        let image = Image::read(path, at, true, &room).map_err(about(flag))?;
        image.store(memory);
        let loaded = image.loaded().clone();
        occupied.push(Occupied { what: what.into(), range: loaded.low..loaded.high });
        Ok::<Loaded, BootError>(loaded)
    };
    let firmware_file = match firmware {
        Firmware::File(path) => Some(copy(FIRMWARE, "the firmware", path, memory.ram().start)?),
        Firmware::Sbi | Firmware::None => None,
    };
    let below = match (firmware, &firmware_file) {
        (_, Some(loaded)) => firmware::boot::Firmware::File(loaded),
        (Firmware::None, None) => firmware::boot::Firmware::None,
        _ => firmware::boot::Firmware::Default,
    };
    let kernel = match &files.kernel {
        Some(path) => {
            let address = firmware::boot::kernel_address(&memory.ram(), below);
            Some(copy(KERNEL, "the kernel", path, address)?)
        }
        None => None,
    };
    let initrd = match &files.initrd {
        Some(path) => {
            let size = memory.ram().end - memory.ram().start;
            Some((path, firmware::read_file(path, size).map_err(about(INITRD))?))
        }
        None => None,
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
        firmware::place(path, &bytes, range.start, memory, &room).map_err(about(INITRD))?;
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
    Ok(plan)
}

//! A whole machine: harts, the board's devices, and what runs first on it.
//!
//! [`Machine::build`] reads top to bottom as what exists at power-on. [`board`] is the memory map, [`devices`] are the
//! chips on it, [`hart`] is what executes instructions, [`system`] is what all of them share.

pub mod board;
mod boot;
pub mod bus;
pub mod clock;
pub mod console;
pub mod control;
pub mod cpu_model;
pub mod devices;
pub mod disk;
pub mod fdt;
pub mod gdb;
pub mod hart;
pub mod irq;
pub mod net;
mod patience;
pub mod profile;
pub mod system;
pub mod timer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use devicetree::Node;
use frontend::Decoder;
pub use jit::EngineKind;
use jit::inspect::Inspect;
pub use jit::inspect::coverage::Coverage;
pub use jit::inspect::perf::PerfFormat;
pub use jit::inspect::stats::Stats;
use jit::inspect::symbols::{Symbol, Symbols};
pub use jit::inspect::trace::{Category, Filter, TraceConfig};
pub use softmmu::GuestMemory;

use board::{Kind, place};
use boot::Boot;
use bus::{Bus, MmioDevice, Phandles, Placement};
use clock::Clock;
use console::{Receiver, Room, Sink};
use cpu_model::CpuModel;
use devices::cfi_flash::{self, CfiFlash};
use devices::clint::Clint;
use devices::fw_cfg::{FwCfg, NamedItem};
use devices::plic::Plic;
use devices::rtc_goldfish::RtcGoldfish;
use devices::sifive_test::{PowerEvent, SifiveTest};
use devices::uart16550::Uart16550;
use devices::virtio::block::Block;
use devices::virtio::console::Console;
use devices::virtio::mmio::{Version, VirtioMmio};
use devices::virtio::net::Net;
use devices::virtio::rng::Rng;
use disk::{Disk, DiskOptions};
use hart::Hart;
use hart::shared::HartShared;
use irq::IrqLine;
use net::{Forward, NetOptions, UserNet};
use profile::{ProfileConfig, ProfileError, Profiler, Sampler};
use system::{Parts, Power, RunState, System};
use timer::Timers;

/// Harts that one machine can have; distribution kernels and U-Boot stop at the same number.
pub const MAX_HARTS: usize = 32;

/// Characters of the virtio console when there is no terminal to ask.
const CONSOLE_SIZE: (u16, u16) = (80, 24);

/// What runs in machine mode before the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Firmware {
    /// The built-in SBI: the kernel starts in supervisor mode.
    #[default]
    Sbi,
    /// Nothing: the kernel starts in machine mode.
    None,
    /// This file, at the start of RAM.
    File(PathBuf),
}

/// What is in the two banks of flash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flash {
    /// The code that runs first, or next after a firmware file; write-protected.
    pub code: DiskOptions,
    /// What the code remembers; without an image the bank is blank and forgets.
    pub vars: Option<DiskOptions>,
}

/// Where the serial port goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Serial {
    /// To the console of the machine.
    #[default]
    Console,
    /// Nowhere.
    None,
    /// To this file, which is emptied first. Nothing can be typed then.
    File(PathBuf),
}

/// A file in memory besides what is booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// The file.
    pub path: PathBuf,
    /// Physical address. An ELF file goes where it is linked.
    pub address: Option<u64>,
    /// An ELF file goes to the address as it is, too.
    pub raw: bool,
}

/// The virtio-mmio slots of devices that have to be in certain ones. The others take the highest that are free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// Of the disks, in their order; those beyond its end have none.
    pub disks: Vec<Option<u32>>,
    /// Of the network device.
    pub net: Option<u32>,
    /// Of the entropy device.
    pub rng: Option<u32>,
    /// Of the virtio console.
    pub console: Option<u32>,
}

/// What to boot from a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootDisk {
    /// The entry of the boot loader's menu, by number, title or version; its default if there is none.
    pub entry: Option<String>,
}

/// Everything that decides what a machine is. Plain data.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes of RAM.
    pub memory: u64,
    /// Number of harts, 1 to [`MAX_HARTS`].
    pub harts: usize,
    /// What each hart can do.
    pub cpu: CpuModel,
    /// What runs first.
    pub firmware: Firmware,
    /// What runs after it. Code in flash is handed it by fw_cfg, with the initial RAM disk and the command line.
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Kernel command line.
    pub append: String,
    /// Device tree blob in place of the machine's own.
    pub dtb: Option<PathBuf>,
    /// Contents of the flash; without them there is none.
    pub flash: Option<Flash>,
    /// Disks; the first becomes `vda`.
    pub disks: Vec<DiskOptions>,
    /// What the guest is connected to.
    pub net: NetOptions,
    /// Where virtio devices have to be.
    pub slots: Slots,
    /// Files in memory besides what is booted.
    pub loads: Vec<Load>,
    /// Items of fw_cfg with names. Of several with the same name the last one counts.
    pub fw_cfg: Vec<NamedItem>,
    /// Where the serial port goes, and the SBI's debug console with it.
    pub serial: Serial,
    /// A volume that is one more disk, behind the others and read-only.
    pub seed: Option<Vec<u8>>,
    /// Take kernel, initrd, command line and device tree from the first disk, as its boot loader would.
    pub boot_disk: Option<BootDisk>,
    /// Whether there is a virtio console besides the UART.
    pub virtio_console: bool,
    /// Whether virtio devices have the legacy register interface.
    pub virtio_legacy: bool,
    /// How the harts execute code.
    pub engine: EngineKind,
    /// How the host's profiler is told what generated code is.
    pub perf: Option<PerfFormat>,
    /// Generated code counts the instructions of the host that it executes, which makes it slower.
    pub count_host_insns: bool,
    /// What is traced.
    pub trace: Option<TraceConfig>,
    /// Files with the names of guest code, each with what is added to its addresses, if that is known.
    pub symbols: Vec<(PathBuf, Option<u64>)>,
    /// Where a profile is written to.
    pub profile: Option<ProfileConfig>,
    /// Whether it is counted what is executed. All harts are interpreted then.
    pub coverage: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            memory: 1 << 30,
            harts: 1,
            cpu: CpuModel::default(),
            firmware: Firmware::default(),
            kernel: None,
            initrd: None,
            append: String::new(),
            dtb: None,
            flash: None,
            disks: Vec::new(),
            net: NetOptions::None,
            slots: Slots::default(),
            loads: Vec::new(),
            fw_cfg: Vec::new(),
            serial: Serial::default(),
            seed: None,
            boot_disk: None,
            virtio_console: false,
            virtio_legacy: false,
            engine: EngineKind::default(),
            perf: None,
            count_host_insns: false,
            trace: None,
            symbols: Vec::new(),
            profile: None,
            coverage: false,
        }
    }
}

/// What went wrong on the host's side.
fn host(what: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::Host(what, error)
}

/// The device tree of a machine with the devices of `bus`, which boots `boot`.
fn describe(config: &Config, boot: &Boot, bus: &Bus, phandles: &Phandles) -> Result<Node, Error> {
    let bootargs = boot.bootargs();
    let config = fdt::Config {
        harts: config.harts,
        cpu: &config.cpu,
        memory: config.memory,
        bootargs: (!bootargs.is_empty()).then_some(bootargs.as_str()),
        initrd: boot.initrd(),
        rng_seed: fdt::host_rng_seed().map_err(host("give random numbers"))?,
    };
    Ok(fdt::build(&config, bus, phandles))
}

/// Why a machine cannot be built or started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// RAM.
    #[error(transparent)]
    Memory(#[from] softmmu::MemoryError),
    /// A disk.
    #[error(transparent)]
    Disk(#[from] disk::OpenDiskError),
    /// The network.
    #[error(transparent)]
    Net(#[from] net::NetError),
    /// The file for the serial port.
    #[error("the serial port cannot go to {0:?}; name a file that can be written")]
    Serial(PathBuf, #[source] std::io::Error),
    /// Contents of the flash.
    #[error(transparent)]
    Flash(#[from] cfi_flash::FlashError),
    /// Kernel, firmware, initrd or device tree.
    #[error(transparent)]
    Boot(#[from] boot::BootError),
    /// Too few or too many harts.
    #[error("{0} harts are not possible; want 1 to {MAX_HARTS}")]
    Harts(usize),
    /// More devices than slots.
    #[error("{0} virtio devices are too many: the board has {slots} slots", slots = board::VIRTIO_SLOTS)]
    Slots(usize),
    /// The host has no threads or no random numbers left.
    #[error("the host could not {0}")]
    Host(&'static str, #[source] std::io::Error),
    /// A file to look into the machine with.
    #[error(transparent)]
    Inspect(#[from] jit::inspect::OpenError),
    /// A file with symbols.
    #[error("--symbols")]
    Symbols(#[source] firmware::LoadError),
    /// The profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The memory map contradicts itself.
    #[error(transparent)]
    Map(#[from] bus::Overlap),
}

/// A machine that has been put together but runs nothing yet.
pub struct Machine {
    config: Config,
    system: Arc<System>,
    tree: Node,
    boot: Boot,
    uart: Arc<Uart16550>,
    console: Option<Arc<Console>>,
    forwards: Vec<Forward>,
    room: Room,
    /// It has been turned on before.
    used: AtomicBool,
}

impl Machine {
    /// Builds the machine. Its consoles print to `sink`.
    ///
    /// # Errors
    /// When the configuration asks for what is not there or not possible.
    pub fn build(config: Config, sink: Sink) -> Result<Self, Error> {
        if !(1..=MAX_HARTS).contains(&config.harts) {
            return Err(Error::Harts(config.harts));
        }

        let symbols = Arc::new(read_symbols(&config.symbols)?);
        let profiler = match &config.profile {
            Some(profile) => Some(Arc::new(Profiler::create(profile, &symbols)?)),
            None => None,
        };
        let inspect =
            Inspect::open(config.perf, config.trace.as_ref(), &symbols)?.count_host(config.count_host_insns);

        // Memory, and what is loaded into it.
        let mut memory = GuestMemory::new(board::RAM_BASE, config.memory)?;
        let disks = config.disks.iter().map(|options| Ok(disk::open(options)?.into()));
        let disks: Vec<Arc<dyn Disk>> = disks.collect::<Result<_, Error>>()?;
        let boot = Boot::load(&config, &memory, &disks)?;
        memory.add_rom(board::RESET_ROM_BASE, &boot.reset_rom())?;
        let flash_base = board::region(Kind::Flash).base;
        if let Some(Flash { code, .. }) = &config.flash {
            let code = DiskOptions { read_only: true, ..code.clone() };
            memory.add_rom(flash_base, &cfi_flash::contents(&*disk::open(&code)?, &code.path)?)?;
        }

        // Time and interrupts.
        let harts: Vec<Arc<HartShared>> = (0..config.harts).map(|_| Arc::default()).collect();
        let clock = Arc::new(Clock::new());
        let timers =
            Arc::new(Timers::new(Arc::clone(&clock), &harts).map_err(host("start the timer thread"))?);
        let clint = Arc::new(Clint::new(Arc::clone(&clock), Arc::clone(&timers), &harts));
        let plic = Arc::new(Plic::new(&harts));
        let phandles = Phandles::new(config.harts);
        let mut devices = Board { plic: Arc::clone(&plic), phandles: phandles.clone(), devices: Vec::new() };
        devices.add(Kind::Clint, 0, |_| clint.clone());
        devices.add(Kind::Plic, 0, |_| plic);

        // Chips.
        let console_sink = sink;
        let sink = match &config.serial {
            Serial::Console => console_sink.clone(),
            Serial::None => Sink::null(),
            Serial::File(path) => {
                let open = std::fs::File::create(path).and_then(Sink::new);
                open.map_err(|error| Error::Serial(path.clone(), error))?
            }
        };
        let room = Room::default();
        let power = Arc::new(Power::default());
        let uart =
            devices.add(Kind::Uart0, 0, |line| Arc::new(Uart16550::new(line, sink.clone(), room.clone())));
        devices.add(Kind::Rtc, 0, |line| RtcGoldfish::new(line, &timers));
        let switch = Arc::clone(&power);
        devices.add(Kind::Test, 0, |_| Arc::new(SifiveTest::new(move |event| switch.request(event))));

        let (ram, payload, named) = (memory.clone(), boot::payload(&config)?, boot::named_items(&config)?);
        devices.add(Kind::FwCfg, 0, |_| Arc::new(FwCfg::new(ram, config.harts as u16, payload, named)));

        if let Some(Flash { vars, .. }) = &config.flash {
            let (ram, harts) = (memory.clone(), &harts);
            devices.add(Kind::Flash, 0, |_| Arc::new(CfiFlash::rom(ram, flash_base, harts)));
            let bank = match vars {
                Some(options) => {
                    let disk = disk::open(options)?;
                    CfiFlash::stored(cfi_flash::contents(&*disk, &options.path)?, Some(disk))
                }
                None => CfiFlash::blank(),
            };
            devices.add(Kind::Flash, 1, |_| Arc::new(bank));
        }

        // virtio: the n-th device takes the n-th slot from the top, and is found n-th.
        let version = if config.virtio_legacy { Version::Legacy } else { Version::Modern };
        let mut console = None;
        let mut virtio: Vec<(Option<u32>, Arc<dyn devices::virtio::VirtioDevice>)> = Vec::new();
        for (index, (disk, options)) in disks.into_iter().zip(&config.disks).enumerate() {
            let serial = options.serial.clone().unwrap_or_else(|| format!("hartvm-disk{index}"));
            let slot = config.slots.disks.get(index).copied().flatten();
            virtio.push((slot, Arc::new(Block::new(Box::new(disk), &serial, options.discard, config.harts))));
        }
        if let Some(seed) = &config.seed {
            let disk = Box::new(disk::Memory::new(seed.clone()));
            virtio.push((None, Arc::new(Block::new(disk, "hartvm-seed", false, 1))));
        }
        virtio.push((config.slots.rng, Arc::new(Rng::new().map_err(host("give random numbers"))?)));
        if config.virtio_console {
            let (cols, rows) = CONSOLE_SIZE;
            let device = Arc::new(Console::new(console_sink, room.clone(), cols, rows));
            console = Some(Arc::clone(&device));
            virtio.push((config.slots.console, device));
        }
        let mut forwards = Vec::new();
        if let NetOptions::User(options) = &config.net {
            let network = UserNet::new(options)?;
            forwards = network.forwards();
            virtio.push((config.slots.net, Arc::new(Net::new(options.mac, network))));
        }
        if virtio.len() > board::VIRTIO_SLOTS as usize {
            return Err(Error::Slots(virtio.len()));
        }
        // Those that have to be in a certain slot first.
        let mut slots: [Option<Arc<dyn devices::virtio::VirtioDevice>>; board::VIRTIO_SLOTS as usize] =
            Default::default();
        let mut others = Vec::new();
        for (wanted, device) in virtio {
            match wanted.and_then(|slot| slots.get_mut(slot as usize)) {
                Some(slot @ None) => *slot = Some(device),
                _ => others.push(device),
            }
        }
        let free = slots.iter_mut().rev().filter(|slot| slot.is_none());
        free.zip(others).for_each(|(slot, device)| *slot = Some(device));
        for slot in (0..board::VIRTIO_SLOTS).rev() {
            let ram = memory.vm().clone();
            devices.add(Kind::Virtio, slot, |line| {
                Arc::new(match slots[slot as usize].take() {
                    Some(device) => VirtioMmio::new(version, device, ram, line, &inspect),
                    None => VirtioMmio::empty(version),
                })
            });
        }

        // The bus, and the tree that describes it.
        let bus = Arc::new(Bus::new(devices.devices)?.traced(&inspect));
        let tree = describe(&config, &boot, &bus, &phandles)?;
        boot.set_device_tree(&tree)?;

        let sbi = boot.has_sbi();
        let parts = Parts {
            memory,
            bus,
            clint,
            clock,
            timers,
            harts,
            power,
            console: sink,
            uart: uart.clone(),
            sbi,
            engine: config.engine,
            inspect,
            profiler,
            coverage: config.coverage,
            isa: config.cpu.isa(),
        };
        let system = Arc::new(System::new(parts).map_err(host("give a file descriptor"))?);
        Ok(Self { config, system, tree, boot, uart, console, forwards, room, used: AtomicBool::new(false) })
    }

    /// The device tree that describes the machine.
    pub fn device_tree(&self) -> &Node {
        &self.tree
    }

    /// The device tree as the guest gets it.
    pub fn device_tree_blob(&self) -> Vec<u8> {
        self.boot.device_tree_blob()
    }

    /// What was chosen on the disk to boot, in one line.
    pub fn chosen(&self) -> Option<String> {
        self.boot.chosen()
    }

    /// RAM and ROM.
    pub fn memory(&self) -> &GuestMemory {
        &self.system.memory
    }

    /// The power switch, also for the host's side.
    pub fn power(&self) -> &Arc<Power> {
        &self.system.power
    }

    /// What takes console input: the UART, then the virtio console if there is one. All of them notify [`Self::room`].
    pub fn receivers(&self) -> Vec<Arc<dyn Receiver>> {
        let mut receivers: Vec<Arc<dyn Receiver>> = Vec::new();
        if self.config.serial == Serial::Console {
            receivers.push(self.uart.clone());
        }
        receivers.extend(self.console.iter().map(|console| console.clone() as Arc<dyn Receiver>));
        receivers
    }

    /// Ports of the host that lead into the guest, where they are open.
    pub fn forwards(&self) -> &[Forward] {
        &self.forwards
    }

    /// Says when a console can take input again.
    pub fn room(&self) -> Room {
        self.room.clone()
    }

    /// Hart `id` as after power-on, in M-mode at address 0, for a debugger or a test that runs it with
    /// [`Hart::run_until`]; `None` if there is none. Not while the machine is on.
    pub fn hart(&self, id: usize) -> Option<Hart> {
        self.system.state_of(id)?;
        self.system.set_state(id, RunState::Running);
        Some(Hart::new(id, &self.config.cpu, &self.system))
    }

    /// What other threads and devices touch of hart `id`; `None` if there is none.
    pub fn hart_shared(&self, id: usize) -> Option<&Arc<HartShared>> {
        self.system.harts.get(id)
    }

    /// What the engines did, of all harts whose threads have ended.
    pub fn stats(&self) -> Stats {
        self.system.stats()
    }

    /// What was executed, of all harts whose threads have ended, if [`Config::coverage`] asks for it.
    pub fn coverage(&self) -> Option<Coverage> {
        self.system.coverage()
    }

    /// Writes the profile, if there is to be one, of all harts whose threads have ended.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write_profile(&self) -> Result<(), ProfileError> {
        self.system.profiler.as_ref().map_or(Ok(()), |profiler| profiler.write())
    }

    /// Turns the machine on. It runs until the result is dropped or told to stop.
    ///
    /// # Errors
    /// When the images do not fit, or the host has no threads left.
    pub fn start(&self) -> Result<Running<'_>, Error> {
        // Consoles may have taken input before the machine is turned on for the first time; a reset would lose it.
        let again = self.used.swap(true, Ordering::SeqCst);
        if again {
            self.system.reset();
        }
        self.boot.write_images(&self.system.memory)?;
        if again {
            // A disk may hold another kernel now, and entropy must be fresh.
            let phandles = Phandles::new(self.config.harts);
            let tree = describe(&self.config, &self.boot, &self.system.bus, &phandles)?;
            self.boot.set_device_tree(&tree)?;
        }
        self.boot.write_device_tree(&self.system.memory)?;
        // Before the threads are there, so that a debugger never sees a hart that is yet to be started.
        for (id, entry) in self.boot.entries(self.config.harts) {
            self.system.start_hart(id, entry);
        }
        let sampler = self.system.profiler.as_ref().map(|_| Sampler::start(&self.system.harts));
        let sampler =
            sampler.transpose().map_err(|error| Error::Host("start the profiler's thread", error))?;
        let mut running = Running { machine: self, threads: Vec::new(), sampler };
        for id in 0..self.config.harts {
            let hart = Hart::new(id, &self.config.cpu, &self.system);
            let decoder = Decoder::new(&self.config.cpu.isa());
            let thread =
                std::thread::Builder::new().name(format!("hart{id}")).spawn(move || hart.run(decoder));
            running.threads.push(thread.map_err(|error| Error::Host("start a thread for a hart", error))?);
        }
        Ok(running)
    }

    /// A file has all of the serial port's output then; the machine's console belongs to somebody else.
    fn ended(&self, code: u16) -> u16 {
        if let Serial::File(_) = self.config.serial {
            self.system.console.close(console::PATIENCE);
        }
        code
    }

    /// Runs the machine, through resets if `reboot`, and returns the exit code that the guest chose.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn run(&self, reboot: bool) -> Result<u16, Error> {
        loop {
            let running = self.start()?;
            let event = self.system.power.wait();
            drop(running);
            match event {
                PowerEvent::Off { code } => return Ok(self.ended(code)),
                PowerEvent::Reset if reboot => {}
                PowerEvent::Reset => return Ok(self.ended(0)),
            }
        }
    }
}

fn read_symbols(files: &[(PathBuf, Option<u64>)]) -> Result<Symbols, Error> {
    let mut symbols = Symbols::default();
    for (path, offset) in files {
        let read = firmware::symbols::read_symbols(path).map_err(Error::Symbols)?;
        let read = read.into_iter().map(|firmware::symbols::Symbol { address, size, name }| Symbol {
            address,
            size,
            name,
        });
        symbols.add(read.collect(), *offset);
    }
    Ok(symbols)
}

impl Drop for Machine {
    fn drop(&mut self) {
        // What the threads of devices have begun is traced to its end.
        self.system.bus.reset();
        self.system.inspect.finish();
    }
}

/// A machine whose harts run. Dropping it stops them.
pub struct Running<'a> {
    machine: &'a Machine,
    threads: Vec<JoinHandle<()>>,
    sampler: Option<Sampler>,
}

impl Running<'_> {
    /// The power switch.
    pub fn power(&self) -> &Power {
        &self.machine.system.power
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // First, for harts take down what it has counted when they stop.
        self.sampler = None;
        self.machine.system.stop();
        for thread in self.threads.drain(..) {
            // A panic on a hart's thread has printed itself; there is nothing to add.
            let _ = thread.join();
        }
    }
}

/// Collects devices with their places.
struct Board {
    plic: Arc<Plic>,
    phandles: Phandles,
    devices: Vec<(Placement, Arc<dyn MmioDevice>)>,
}

impl Board {
    /// Puts the device that `make` builds, given its interrupt wire, at the `index`-th place of its kind.
    fn add<D: MmioDevice + 'static>(
        &mut self,
        kind: Kind,
        index: u32,
        make: impl FnOnce(IrqLine) -> Arc<D>,
    ) -> Arc<D> {
        let place = place(kind, index, &self.phandles);
        // Source 0 of a PLIC does not exist, so a wire to it does nothing.
        let device = make(IrqLine::new(self.plic.clone(), place.irq.unwrap_or(0)));
        self.devices.push((place, device.clone()));
        device
    }
}

//! The command line: flags, their defaults and their help. Nothing is done here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const ABOUT: &str = "\
A full-system RISC-V emulator: boots unmodified Linux distributions for RISC-V on this machine.";

const EXAMPLES: &str = "\
Examples:
  A distribution's disk on this terminal (Ctrl-A X quits):
    hartvm run ubuntu-24.04-preinstalled-server-riscv64.img.xz

  Debian's installer:
    hartvm run --kernel linux --initrd initrd.gz --append console=ttyS0

  A distribution's disk through OpenSBI, U-Boot and GRUB, on four harts, changes thrown away:
    hartvm run --firmware fw_dynamic.bin --kernel u-boot.bin --disk disk.raw,snapshot --cpus 4 --memory 4G

  A bare-metal program in machine mode:
    hartvm run --firmware none --kernel program.elf

  The instruction tests of a directory, in parallel:
    hartvm test isa/

  A command line of QEMU's:
    hartvm qemu -M virt -m 2G -nographic -kernel u-boot.bin -drive file=disk.raw,format=raw,if=virtio

  What the first instructions of a program are:
    hartvm disasm program.elf";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "hartvm", version, about = ABOUT, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Boot a guest with its console on this terminal
    #[command(after_help = KEYS)]
    Run(Box<RunArgs>),
    /// Open a shell in a running guest that has a forwarded port 22, with the host's ssh program
    #[command(after_help = SSH_EXAMPLES)]
    Ssh(SshArgs),
    /// Run self-checking programs that report through `tohost`, and print a table
    #[command(after_help = "Example:\n  hartvm test --timeout 20 rv64ui-p-add rv64ud/")]
    Test(TestArgs),
    /// Take the command line of QEMU's qemu-system-riscv64 (also under that name)
    #[command(disable_help_flag = true, after_help = QEMU)]
    Qemu {
        /// QEMU's options; `-help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Print the instructions of an ELF file's executable sections
    #[command(after_help = "Example:\n  hartvm disasm program.elf | less")]
    Disasm(DisasmArgs),
    /// Print completions of this command line for a shell
    #[command(
        after_help = "Example:\n  hartvm completions bash > ~/.local/share/bash-completion/completions/hartvm"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages
    #[command(after_help = "Example:\n  hartvm man ~/.local/share/man/man1    # then: man hartvm-run")]
    Man {
        /// Where to; it is made if it is not there
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Make, look at, check and resize disk images
    #[command(subcommand, after_help = IMAGE_EXAMPLES)]
    Image(ImageCommand),
}

const IMAGE_EXAMPLES: &str = "\
Examples:
  hartvm image create disk.qcow2 16G
  hartvm image create --backing debian.qcow2 mine.qcow2
  hartvm image resize disk.qcow2 +5G
  hartvm image check --repair disk.qcow2";

/// The subcommands of `hartvm image`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Say what an image is; it may be in use
    #[command(after_help = "Example:\n  hartvm image info disk.qcow2")]
    Info {
        /// The image
        file: PathBuf,
        /// Its format, if its first bytes are not to be asked
        #[arg(long, value_enum)]
        format: Option<ImageFormat>,
    },
    /// Make a new, empty image
    #[command(after_help = "Examples:\n  hartvm image create disk.qcow2 16G\n  \
        hartvm image create --backing debian.raw --backing-format raw mine.qcow2")]
    Create {
        /// The file to make
        file: PathBuf,
        /// Bytes that the guest sees, with K, M, G, T or P; that of the backing file by default
        #[arg(value_parser = disk_size)]
        size: Option<u64>,
        /// Its format; qcow2 takes only as much of the host as is written
        #[arg(long, value_enum)]
        format: Option<ImageFormat>,
        /// What is not written yet is read from this image, which must not change any more. A relative name is relative to
        /// the new image
        #[arg(long, value_name = "FILE")]
        backing: Option<PathBuf>,
        /// The backing file's format, if its first bytes are not to be asked
        #[arg(long, value_enum, requires = "backing")]
        backing_format: Option<ImageFormat>,
    },
    /// Change the size that the guest sees; its partitions stay as they are
    #[command(after_help = "Examples:\n  hartvm image resize disk.qcow2 +5G\n  \
        hartvm image resize --shrink disk.raw 8G")]
    Resize {
        /// The image
        file: PathBuf,
        /// The new size, with K, M, G, T or P; after a `+`, how much more
        #[arg(value_name = "[+]SIZE", value_parser = size_change)]
        size: Change,
        /// Cut off what is beyond the new size
        #[arg(long)]
        shrink: bool,
        /// Its format, if its first bytes are not to be asked
        #[arg(long, value_enum)]
        format: Option<ImageFormat>,
    },
    /// Find damage and leaks in a qcow2 image; exit status 1 if there is any
    #[command(after_help = "Example:\n  hartvm image check --repair disk.qcow2")]
    Check {
        /// The image
        file: PathBuf,
        /// Repair what can be repaired
        #[arg(long)]
        repair: bool,
    },
}

/// The formats of disk images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImageFormat {
    /// The sectors as they are
    Raw,
    /// QEMU's format
    Qcow2,
}

impl From<ImageFormat> for machine::disk::Format {
    fn from(format: ImageFormat) -> Self {
        match format {
            ImageFormat::Raw => Self::Raw,
            ImageFormat::Qcow2 => Self::Qcow2,
        }
    }
}

/// Another size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// This many bytes.
    To(u64),
    /// This many bytes more.
    By(u64),
}

const SSH_EXAMPLES: &str = "\
Examples:
  hartvm run --kernel vmlinux --disk disk.raw --net user,hostfwd=tcp:127.0.0.1:2222-:22 --name build
  hartvm ssh --login root
  hartvm ssh build -- uname -a
  hartvm ssh 2222 --identity key

Host keys are not checked: the connection does not leave this machine.";

const QEMU: &str = "\
Example:
  hartvm qemu -machine virt -smp 4 -m 2G -nographic -kernel u-boot.bin -drive file=disk.raw,format=raw,if=virtio
  hartvm qemu -translate -M virt -kernel linux      # which `hartvm run` is that?";

const KEYS: &str = "\
Keys on the console:
  Ctrl-A X    quit hartvm          Ctrl-A H    show this list
  Ctrl-A A    send Ctrl-A          Ctrl-A T    type to the other console (--virtio-console)
  Ctrl-C      goes to the guest

Exit status:
  0 or what the guest chose (test finisher); 1 if hartvm failed; 2 for a wrong command line;
  128 + n after signal n

Examples:
  hartvm run disk.raw
  hartvm run disk.raw,snapshot --memory 2G --append systemd.unit=rescue.target
  hartvm run disk.raw --boot menu
  hartvm run disk.raw --boot 6.12.48+deb13-riscv64
  hartvm run debian-riscv64-netinst.iso --disk target.raw
  hartvm run --kernel linux --initrd initrd.gz --append 'console=ttyS0 DEBIAN_FRONTEND=text'
  hartvm run --kernel vmlinux --disk disk.raw --append 'root=/dev/vda1 console=ttyS0' --cpus 4
  hartvm run --firmware fw_dynamic.bin --kernel u-boot.bin --disk disk.raw,snapshot
  hartvm run --firmware fw_dynamic.bin --kernel u-boot.bin --disk debian.qcow2 --overlay mine.qcow2
  hartvm run --kernel vmlinux --disk disk.raw --net user,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=udp::5353-:53
  hartvm run --uefi RISCV_VIRT_CODE.fd --disk cloud.img --user alice --ssh-key ~/.ssh/id_ed25519.pub --hostname box
  hartvm run --uefi RISCV_VIRT_CODE.fd --disk disk.raw --memory 2G
  hartvm run --uefi RISCV_VIRT_CODE.fd --kernel linux --initrd initrd.gz --append console=ttyS0
  hartvm run --kernel linux --cpu max,sv39 --memory 512M --dump-dts
  hartvm run --kernel kernel.elf --firmware none --disk fs.img --slot 0=0 --slot net=1
  hartvm run --kernel linux --load overlay.bin,addr=0x88000000 --serial file:log.txt --pidfile hartvm.pid
  hartvm run --kernel vmlinux --gdb 1234 --gdb-wait     (gdb-multiarch vmlinux -ex 'target remote :1234')
  hartvm run --firmware none --kernel program.elf --stats --trace guest,host,int:trace.txt
  hartvm run --kernel linux --trace int,sbi:trace.json --trace-filter mode=s --symbols System.map
  hartvm run --kernel linux --initrd initrd.gz --profile guest.svg --symbols System.map --symbols init
  perf record -k mono hartvm run --kernel linux --perf map";

/// Flags of `hartvm run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// What to boot: a disk image (raw, qcow2 or ISO; raw also in gzip, xz or zstd, which is unpacked once, beside it), or a
    /// program as for --kernel. The kernel on a disk is found by the configuration of its GRUB, extlinux or systemd-boot
    #[arg(value_name = "IMAGE[,readonly][,snapshot]")]
    pub(crate) image: Option<String>,

    /// Which entry of the disk's boot menu to boot, by number, title or version; `menu` lists them
    #[arg(long, value_name = "menu|NAME", requires = "image", conflicts_with = "kernel")]
    pub(crate) boot: Option<String>,

    /// Kernel or program to start: ELF, Linux Image (also with EFI stub), a raw binary, or gzip of these
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,

    /// Initial ramdisk for the kernel, in place of the disk's own
    #[arg(long, value_name = "FILE")]
    pub(crate) initrd: Option<PathBuf>,

    /// Kernel command line; for a kernel from a disk, what follows the disk's own
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub(crate) append: String,

    /// Machine-mode firmware: `sbi` (built in), `none` (the kernel starts in machine mode), or a file such as OpenSBI
    #[arg(long, value_name = "sbi|none|FILE", default_value = "sbi")]
    pub(crate) firmware: String,

    /// Start UEFI firmware (EDK2) from flash: its code and, if wanted, the file where it keeps its variables. By default
    /// that is DISK.vars.fd beside the first disk that the guest may change. A file that is not there is made, from the
    /// store that ships beside CODE; with `snapshot` it is not changed. With --firmware FILE, that runs first. A --kernel, which
    /// must be an EFI program as distributions' kernels are, is started by the firmware, with --initrd and --append
    #[arg(long, value_name = "CODE[,vars=FILE|none][,snapshot]")]
    pub(crate) uefi: Option<String>,

    /// Device tree blob to use instead of the machine's own
    #[arg(long, value_name = "FILE")]
    pub(crate) dtb: Option<PathBuf>,

    /// Guest memory, 64M or more (suffixes K, M, G, T; a plain number is in MiB) [default: 1G; where a disk is booted a quarter
    /// of the host's, 1G to 4G]
    #[arg(long, short = 'm', value_name = "SIZE", value_parser = memory_size, allow_hyphen_values = true)]
    pub(crate) memory: Option<u64>,

    /// Number of harts, 1 to 32 [default: 1; where a disk is booted one for each core of the host, up to 4]
    #[arg(long, short = 'c', value_name = "N", value_parser = number_of_harts, allow_hyphen_values = true)]
    pub(crate) cpus: Option<u8>,

    /// CPU model with optional features, e.g. `rva22s64` or `max,sv39,svadu=off`; `help` lists them
    #[arg(long, value_name = "MODEL", default_value = "rv64")]
    pub(crate) cpu: String,

    /// Attach a disk image, raw or qcow2, or a block device (may be repeated; the first becomes /dev/vda, and is booted if
    /// nothing else is named that could be):
    /// - readonly: refuse the guest's writes
    /// - snapshot: take them but forget them at exit, and leave FILE as it is
    /// - overlay=NEW: keep them in the qcow2 image NEW, which is made if need be, and leave FILE as it is
    /// - format=raw|qcow2: what FILE is, rather than what it looks like
    /// - serial=TEXT: the serial number, up to 20 bytes
    /// - discard=unmap|ignore: whether the guest may give storage back (unmap)
    #[arg(long, value_name = "FILE[,OPTION...]", verbatim_doc_comment)]
    pub(crate) disk: Vec<String>,

    /// Keep all changes to the first disk in the qcow2 image FILE, which is made if it does not exist
    #[arg(long, value_name = "FILE")]
    pub(crate) overlay: Option<PathBuf>,

    /// Connect the guest to a network: `user` needs no rights on the host (DHCP, name server, TCP, UDP and ping to
    /// wherever the host can reach; 10.0.2.2 is the host's loopback), `none` is none. `hostfwd` lets a port of the host lead
    /// into the guest, any number of times; `restrict` lets only forwards through
    #[arg(
        long,
        value_name = "user[,hostfwd=tcp|udp:[ADDR]:PORT-[GUESTADDR]:PORT]...[,restrict=on][,ipv6=off][,mac=XX:XX:XX:XX:XX:XX]|none",
        default_value = "user"
    )]
    pub(crate) net: String,

    /// Name of this guest, by which `hartvm ssh` finds it
    #[arg(long, value_name = "NAME", value_parser = guest_name)]
    pub(crate) name: Option<String>,

    /// Add a virtio console (hvc0) that shares this terminal; Ctrl-A T switches input between it and the UART
    #[arg(long)]
    pub(crate) virtio_console: bool,

    /// Present the virtio devices with the legacy (version 1) interface
    #[arg(long)]
    pub(crate) virtio_legacy: bool,

    /// How guest code is executed
    #[arg(long, value_enum, default_value_t = Engine::Jit)]
    pub(crate) engine: Engine,

    /// Let gdb attach at a TCP port or a unix socket; port 0 is any that is free. `target remote :PORT` in gdb-multiarch
    #[arg(long, value_name = "[ADDR:]PORT|PATH", help_heading = INSIDE)]
    pub(crate) gdb: Option<machine::gdb::Address>,

    /// Execute nothing before gdb has attached and says so
    #[arg(long, requires = "gdb", help_heading = INSIDE)]
    pub(crate) gdb_wait: bool,

    /// Print at the end what the engine did: instructions, translations, slow paths, TLB misses. --stats=host also counts the host's
    /// instructions in generated code, which makes that slower
    #[arg(
        long,
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "engine",
        value_name = "WHAT",
        hide_possible_values = true,
        help_heading = INSIDE
    )]
    pub(crate) stats: Option<Stats>,

    /// Tell Linux's profiler `perf` what the generated code is
    #[arg(long, value_enum, value_name = "FORMAT", help_heading = INSIDE)]
    pub(crate) perf: Option<Perf>,

    #[arg(long, value_name = "CATEGORY[,...][:FILE]", help = trace_help(), help_heading = INSIDE)]
    pub(crate) trace: Option<machine::TraceConfig>,

    /// Trace only what harts do that meet one term of each kind, such as hart=0,mode=s,address=0x80200000-0x802fffff; the
    /// address is the instruction's, of mmu the one that is translated. cache, mmio and virtio are not filtered
    #[arg(long, value_name = "hart=N,mode=u|s|m,address=FIRST-LAST", requires = "trace", help_heading = INSIDE)]
    pub(crate) trace_filter: Option<machine::Filter>,

    /// Write a profile of the guest at the end: about 1000 times a second where each hart is, with its call chain by frame
    /// pointers. FILE.svg is a flame graph for browsers (click to zoom, search), FILE.folded a text for other tools
    #[arg(long, value_name = "FILE.svg|FILE.folded[,...]", help_heading = INSIDE)]
    pub(crate) profile: Option<machine::profile::ProfileConfig>,

    /// Name guest code by FILE in profiles and traces: an ELF file, a System.map, or a copy of the guest's /proc/kallsyms.
    /// OFFSET is added to its addresses; where a Linux kernel is loaded is found out without it (may be repeated)
    #[arg(long, value_name = "FILE[@OFFSET]", value_parser = symbols_file, help_heading = INSIDE)]
    pub(crate) symbols: Vec<(PathBuf, Option<u64>)>,

    /// Put a file into memory besides what is booted: ELF where it is linked, anything else at ADDRESS; with `raw` ELF too
    /// is put there as it is (may be repeated)
    #[arg(long, value_name = "FILE[,addr=ADDRESS][,raw]")]
    pub(crate) load: Vec<String>,

    /// Give firmware and the guest an item of fw_cfg by NAME: TEXT, or what is in FILE. Names that begin with opt/ are free for
    /// users; Linux shows them below /sys/firmware/qemu_fw_cfg/by_name (may be repeated)
    #[arg(long, value_name = "NAME,string=TEXT|file=FILE")]
    pub(crate) fw_cfg: Vec<String>,

    /// Put a virtio device at virtio-mmio slot SLOT (0 to 7) instead of the highest that is free: the N-th of --disk (from
    /// 0), the disk IMAGE, or one of the others (may be repeated)
    #[arg(long, value_name = "N|image|net|rng|console=SLOT")]
    pub(crate) slot: Vec<String>,

    /// Where the serial port goes
    #[arg(long, value_name = "stdio|none|file:FILE", default_value = "stdio")]
    pub(crate) serial: String,

    /// Write the number of hartvm's process to FILE while the guest runs
    #[arg(long, value_name = "FILE")]
    pub(crate) pidfile: Option<PathBuf>,

    /// Exit instead of rebooting when the guest asks for a reset
    #[arg(long)]
    pub(crate) no_reboot: bool,

    /// Write the machine's device tree blob to FILE and exit
    #[arg(long, value_name = "FILE")]
    pub(crate) dump_dtb: Option<PathBuf>,

    /// Print the machine's device tree as source text and exit
    #[arg(long)]
    pub(crate) dump_dts: bool,

    // Last, since its heading would go on.
    #[command(flatten)]
    pub(crate) seed: crate::seed::SeedArgs,
}

const INSIDE: &str = "Looking inside";

/// What `--stats` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stats {
    /// What the engine did.
    Engine,
    /// That, and the instructions of the host.
    Host,
}

fn trace_help() -> String {
    let mut help = "Trace to standard error, or to FILE; a FILE.json is for trace viewers such as Perfetto. `all` is all of"
        .to_string();
    for (_, name, about) in machine::Category::ALL {
        help += &format!("\n- {name}: {about}");
    }
    help
}

/// The ways to tell `perf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Perf {
    /// Names in /tmp/perf-PID.map, for `perf report`
    Map,
    /// Code too, in jit-PID.dump in $JITDUMPDIR or here, for `perf record -k mono` and `perf inject --jit`
    Jitdump,
}

impl From<Perf> for machine::PerfFormat {
    fn from(perf: Perf) -> Self {
        match perf {
            Perf::Map => Self::Map,
            Perf::Jitdump => Self::Jitdump,
        }
    }
}

/// The engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// Translate blocks to code of this host (x86-64-v3 or aarch64; elsewhere the same as `interp`)
    Jit,
    /// As `jit`, but translate each block before its first execution instead of its third (for tests)
    Eager,
    /// Execute decoded blocks one operation at a time; works on every host
    Interp,
}

impl From<Engine> for machine::EngineKind {
    fn from(engine: Engine) -> Self {
        match engine {
            Engine::Jit => Self::Jit,
            Engine::Eager => Self::Eager,
            Engine::Interp => Self::Interp,
        }
    }
}

/// Flags of `hartvm ssh`.
#[derive(Debug, Args)]
pub(crate) struct SshArgs {
    /// Name of the guest (`hartvm run --name`), or the port of the host that leads to its port 22; can be left out if only one
    /// guest runs
    #[arg(value_name = "NAME|PORT")]
    pub(crate) guest: Option<String>,

    /// User to log in as; ssh's own default otherwise
    #[arg(long, short = 'l', value_name = "USER")]
    pub(crate) login: Option<String>,

    /// Private key to log in with
    #[arg(long, short = 'i', value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,

    /// Command to run instead of a shell
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<std::ffi::OsString>,
}

/// Flags of `hartvm test`.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Test programs (ELF), or directories of them
    #[arg(required = true, value_name = "FILE|DIR")]
    pub(crate) paths: Vec<PathBuf>,

    /// Seconds that one program may run
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,

    /// Programs at the same time; the host's cores by default
    #[arg(long, short = 'j', value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) jobs: Option<u16>,

    /// Print which rows of the instruction tables and which operations of the intermediate representation were executed, how
    /// often, and which never. The interpreter counts them: the other engines execute the same operations
    #[arg(long)]
    pub(crate) coverage: bool,

    /// CPU model the programs run on
    #[arg(long, value_name = "MODEL", default_value = "max")]
    pub(crate) cpu: String,

    /// How guest code is executed
    #[arg(long, value_enum, default_value_t = Engine::Jit, default_value_if("coverage", "true", "interp"))]
    pub(crate) engine: Engine,
}

/// Flags of `hartvm disasm`.
#[derive(Debug, Args)]
pub(crate) struct DisasmArgs {
    /// ELF file for 64-bit RISC-V
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// Parses a guest's name.
fn guest_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !text.is_empty() && text.len() <= 64 && text.chars().all(plain) && text.parse::<u64>().is_err() {
        return Ok(text.into());
    }
    Err("want at most 64 letters, digits, `.`, `_` and `-`, and not only digits".into())
}

/// Parses a number of harts.
fn number_of_harts(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(harts) if (1..=machine::MAX_HARTS).contains(&usize::from(harts)) => Ok(harts),
        _ => Err(format!("want a number from 1 to {}", machine::MAX_HARTS)),
    }
}

/// Parses the size of a disk into bytes.
fn disk_size(text: &str) -> Result<u64, String> {
    const WANT: &str = "want a number of bytes, or one with K, M, G, T or P, such as 16G";
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    // A sign is no digit, though numbers may have one elsewhere.
    let number: u64 = digits.parse().ok().filter(|_| !digits.starts_with('+')).ok_or(WANT)?;
    let unit = text[digits.len()..].to_ascii_uppercase();
    let powers = ["", "K", "M", "G", "T", "P"];
    let power = powers
        .iter()
        .position(|power| unit == *power || unit == format!("{power}B") || unit == format!("{power}IB"));
    let bytes = power.and_then(|power| number.checked_mul(1 << (10 * power))).ok_or(WANT)?;
    if bytes == 0 || bytes % 512 != 0 {
        return Err(format!("{text} is not a positive multiple of 512 bytes, such as 16G"));
    }
    Ok(bytes)
}

/// Parses a new size of a disk.
fn size_change(text: &str) -> Result<Change, String> {
    match text.strip_prefix('+') {
        Some(more) => disk_size(more).map(Change::By),
        None => disk_size(text).map(Change::To),
    }
}

/// Parses a file of symbols and the offset at which it is loaded.
fn symbols_file(text: &str) -> Result<(PathBuf, Option<u64>), String> {
    let Some((file, offset)) = text.rsplit_once('@') else { return Ok((text.into(), None)) };
    let number = match offset.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => offset.parse(),
    };
    match number {
        Ok(number) if !file.is_empty() => Ok((file.into(), Some(number))),
        _ => Err(format!("`{offset}` is no offset; want a number such as 0x400000 behind the @")),
    }
}

/// Parses a memory size into bytes.
fn memory_size(text: &str) -> Result<u64, String> {
    const WANT: &str = "want a number with K, M, G or T, such as 512M or 4G";
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| WANT.to_string())?;
    let shift = match text[digits.len()..].to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        "K" => 10,
        "" | "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(WANT.into()),
    };
    let bytes = number.checked_mul(1 << shift).ok_or(WANT)?;
    if bytes < 64 << 20 {
        return Err(format!("{text} is too little: the machine needs 64M or more, such as 1G"));
    }
    if bytes > 1 << 46 {
        return Err(format!("{text} is more than a guest can address here; 64T is the most"));
    }
    if bytes % (2 << 20) != 0 {
        return Err(format!("{text} is not a multiple of 2M; round it up"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn names_of_guests_are_not_ports() {
        assert_eq!(guest_name("build-2.x"), Ok("build-2.x".into()));
        for text in ["", "22", "a b", "../x", &"x".repeat(65)] {
            assert!(guest_name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_of_harts_are_bounded() {
        assert_eq!((number_of_harts("1"), number_of_harts("32")), (Ok(1), Ok(32)));
        for text in ["0", "33", "256", "-1", "abc", "", "1.5"] {
            assert!(number_of_harts(text).is_err(), "{text}");
        }
    }

    #[test]
    fn files_of_symbols_take_an_offset() {
        assert_eq!(symbols_file("a"), Ok(("a".into(), None)));
        assert_eq!(symbols_file("a@b@0x10"), Ok(("a@b".into(), Some(16))));
        assert_eq!(symbols_file("a@16"), Ok(("a".into(), Some(16))));
        for text in ["a@", "a@b", "@5", "a@-1", "a@0x10000000000000000"] {
            assert!(symbols_file(text).is_err(), "{text}");
        }
    }

    #[test]
    fn memory_sizes_take_suffixes_and_default_to_mebibytes() {
        assert_eq!(memory_size("64M"), Ok(64 << 20));
        assert_eq!(memory_size("2048"), Ok(2 << 30));
        assert_eq!(memory_size("4g"), Ok(4 << 30));
        assert_eq!(memory_size("4GiB"), Ok(4 << 30));
    }

    #[test]
    fn disk_sizes_are_in_bytes() {
        assert_eq!(
            (disk_size("512"), disk_size("16G"), disk_size("1.5G").is_err()),
            (Ok(512), Ok(16 << 30), true)
        );
        assert_eq!((disk_size("2TiB"), disk_size("1kb")), (Ok(2 << 40), Ok(1024)));
        assert_eq!(
            (size_change("+5G"), size_change("5G")),
            (Ok(Change::By(5 << 30)), Ok(Change::To(5 << 30)))
        );
        for text in ["", "0", "G", "100", "-1G", "5X", "99999999999P", "++1G"] {
            assert!(size_change(text).is_err(), "{text}");
        }
    }

    #[test]
    fn senseless_memory_sizes_are_refused() {
        for text in ["", "1", "x", "4X", "-1G", "99999999999G", "65M1", "63M", "65T", "129K", "67109K"] {
            assert!(memory_size(text).is_err(), "{text}");
        }
    }
}

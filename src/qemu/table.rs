//! The options of QEMU: one row for each, with what it takes and what it becomes here.

use super::{Guest, Refusal, basics, devices};

/// What becomes of an option.
#[derive(Clone, Copy)]
pub(super) enum Becomes {
    /// It is carried out, or refused for its value.
    Does(fn(&mut Guest, &str) -> Result<(), Refusal>),
    /// It is accepted: what it asks for is so already, or cannot be seen by anybody here.
    Nothing,
    /// It asks for something that is not here.
    Refused,
}

/// One option.
pub(super) struct Row {
    /// Its names, without the dash.
    pub(super) names: &'static [&'static str],
    /// Its value; empty if it has none.
    pub(super) takes: &'static str,
    pub(super) becomes: Becomes,
    /// What it does; why it changes nothing; or what to use instead.
    pub(super) about: &'static str,
}

const fn row(
    names: &'static [&'static str],
    takes: &'static str,
    becomes: Becomes,
    about: &'static str,
) -> Row {
    Row { names, takes, becomes, about }
}

use Becomes::{Does, Nothing, Refused};

#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    // What there is to say about the program.
    row(&["h", "help"],         "", Does(basics::help), "print this list"),
    row(&["version"],           "", Does(basics::version), "print the version"),
    row(&["translate"],         "", Does(|guest, _| { guest.translate = true; Ok(()) }), "print the `hartvm run` that the other options stand for, and do not run it"),

    // The machine.
    row(&["machine", "M"],      "virt[,OPTION=VALUE…]", Does(basics::machine), "the board; `help` lists boards"),
    row(&["cpu"],               "MODEL[,FEATURE=on|off…]", Does(basics::cpu), "model and features of the harts; `help` lists them"),
    row(&["smp"],               "[cpus=]N[,sockets=…,cores=…,threads=…]", Does(basics::smp), "how many harts"),
    row(&["m"],                 "[size=]SIZE", Does(basics::memory), "guest memory, in MiB or with a suffix (128M if not given)"),
    row(&["accel"],             "tcg[,…]", Does(basics::accel), "guest code is always translated"),
    row(&["rtc"],               "base=utc[,clock=host]", Does(basics::rtc), "the clock shows the host's time in UTC"),
    row(&["global"],            "DRIVER.PROPERTY=VALUE", Does(basics::global), "virtio-mmio.force-legacy=on|off"),
    row(&["object"],            "rng-random|memory-backend-ram|iothread,…", Does(devices::object), "back ends that other options name"),
    row(&["numa"],              "…", Refused, "leave it out: memory has one node"),
    row(&["uuid"],              "UUID", Refused, "leave it out: the board has nowhere to say it"),
    row(&["smbios"],            "…", Refused, "leave it out: there are no SMBIOS tables; the guest reads its device tree"),
    row(&["acpitable"],         "…", Refused, "leave it out: there is no ACPI; the guest reads its device tree"),
    row(&["fw_cfg"],            "[name=]NAME,string=TEXT|file=FILE", Does(devices::fw_cfg), "an item that firmware and guest find by its name"),

    // What is booted.
    row(&["bios"],              "FILE|none|default", Does(basics::bios), "machine-mode firmware; the built-in SBI stands in for OpenSBI"),
    row(&["kernel"],            "FILE", Does(|guest, value| { guest.set("--kernel", value); Ok(()) }), "kernel, boot loader or program"),
    row(&["initrd"],            "FILE", Does(|guest, value| { guest.set("--initrd", value); Ok(()) }), "initial ramdisk"),
    row(&["append"],            "TEXT", Does(|guest, value| { guest.set("--append", value); Ok(()) }), "kernel command line"),
    row(&["dtb"],               "FILE", Does(|guest, value| { guest.set("--dtb", value); Ok(()) }), "device tree blob instead of the machine's own"),
    row(&["pflash"],            "FILE", Does(devices::pflash), "as -drive if=pflash,file=FILE"),
    row(&["boot"],              "…", Nothing, "the board's firmware does not ask for it, on QEMU either"),
    row(&["shim"],              "FILE", Refused, "leave it out: kernels are not started through a shim"),

    // Disks.
    row(&["drive"],             "file=FILE[,if=virtio|none|pflash][,format=…][,id=…]…", Does(devices::drive), "a disk, or flash; the first disk is booted if nothing else is there to boot"),
    row(&["blockdev"],          "driver=…,node-name=…,…", Does(devices::blockdev), "a disk image for -device or -machine pflash0="),
    row(&["hda"],               "FILE", Does(|guest, value| devices::plain_drive(guest, value, "index=0")), "the first disk"),
    row(&["hdb"],               "FILE", Does(|guest, value| devices::plain_drive(guest, value, "index=1")), "the second disk"),
    row(&["cdrom"],             "FILE", Does(|guest, value| devices::plain_drive(guest, value, "media=cdrom")), "a disk that cannot be written"),
    row(&["snapshot"],          "", Does(|guest, _| { guest.devices.snapshot = true; Ok(()) }), "forget at the end what the guest writes to any disk"),
    row(&["sd", "mtdblock"],    "FILE", Refused, "use -drive if=virtio,file=FILE"),
    row(&["virtfs", "fsdev"],   "…", Refused, "leave it out: folders cannot be shared yet; copy files over the network or on a disk image"),

    // Devices.
    row(&["device"],            "virtio-{blk,net,rng,serial}-{device,pci}|virtconsole|loader,…", Does(devices::device), "a device; `help` lists them"),
    row(&["netdev"],            "user,id=…[,hostfwd=…]…", Does(devices::netdev), "the host's end of a network device"),
    row(&["nic"],               "user[,hostfwd=…]…|none", Does(devices::nic), "a network device and the host's end of it"),
    row(&["net"],               "nic|user[,hostfwd=…]…|none", Does(devices::net), "the same in the old way"),
    row(&["chardev"],           "stdio|null|file,id=…[,path=…]", Does(devices::chardev), "the host's end of a console"),
    row(&["serial"],            "[mon:]stdio|file:FILE|none|null|chardev:ID", Does(devices::serial), "where the serial port goes"),
    row(&["parallel"],          "none|null", Does(|_, value| basics::only("-parallel", value, &["none", "null"], "leave it out: the board has no parallel port")), "the board has none"),
    row(&["usb", "usbdevice"],  "", Refused, "leave it out: there is no USB"),
    row(&["audio", "audiodev"], "…", Refused, "leave it out: there is no sound"),
    row(&["watchdog"],          "…", Refused, "leave it out: there is no watchdog"),
    row(&["tpmdev"],            "…", Refused, "leave it out: there is no TPM"),

    // Terminals.
    row(&["nographic"],         "", Nothing, "the console is on the terminal always"),
    row(&["display"],           "none", Does(|_, value| basics::only("-display", value, &["none"], "use -nographic: there are no graphics")), "there are no graphics"),
    row(&["vga"],               "none", Does(|_, value| basics::only("-vga", value, &["none"], "use -nographic: there are no graphics")), "there are no graphics"),
    row(&["vnc", "spice", "k"], "…", Refused, "use -nographic: there are no graphics"),
    row(&["full-screen", "sdl", "gtk", "curses"], "", Refused, "use -nographic: there are no graphics"),
    row(&["monitor", "qmp", "qmp-pretty", "mon"], "none|null", Does(|_, value| basics::only("-monitor", value, &["none", "null"], "use -monitor none: there is no monitor; Ctrl-A H lists the console's keys")), "there is no monitor"),

    // Running.
    row(&["no-reboot"],         "", Does(|guest, _| { guest.switch("--no-reboot"); Ok(()) }), "exit when the guest reboots"),
    row(&["action"],            "reboot=shutdown,…", Does(basics::action), "what to do at a reboot"),
    row(&["no-shutdown"],       "", Refused, "leave it out: there is no monitor that could go on with a machine that is off"),
    row(&["pidfile"],           "FILE", Does(|guest, value| { guest.set("--pidfile", value); Ok(()) }), "write the process's number to FILE"),
    row(&["name"],              "[guest=]NAME", Does(basics::name), "the name by which `hartvm ssh` finds the guest"),
    row(&["daemonize"],         "", Refused, "use `nohup … &`, with -serial file:FILE"),
    row(&["nodefaults", "no-user-config", "nodefconfig"], "", Nothing, "there are no default devices but those of the board, and no configuration file"),
    row(&["L"],                 "DIR", Nothing, "no file is looked for in a data directory"),
    row(&["msg", "overcommit"], "…", Nothing, "of no effect on the guest"),
    row(&["mem-prealloc"],      "", Refused, "leave it out: memory is taken from the host when the guest touches it"),
    row(&["mem-path"],          "FILE", Refused, "leave it out: guest memory is in no file"),
    row(&["readconfig", "writeconfig"], "FILE", Refused, "write the options on the command line"),
    row(&["enable-kvm"],        "", Refused, "leave it out: this host cannot execute RISC-V, which is translated"),
    row(&["incoming", "loadvm"], "…", Refused, "leave it out: machines cannot be saved"),
    row(&["sandbox", "runas", "run-with", "chroot", "user"], "…", Refused, "leave it out; start hartvm with the rights it should have"),

    // Looking inside.
    row(&["s"],                 "", Does(|guest, _| { guest.set("--gdb", basics::GDB_PORT); Ok(()) }), "as -gdb tcp::1234"),
    row(&["gdb"],               "tcp:[ADDR]:PORT|unix:PATH", Does(basics::gdb), "let gdb attach there"),
    row(&["S"],                 "", Does(|guest, _| { guest.wait = true; Ok(()) }), "stop before the first instruction, until gdb continues"),
    row(&["d"],                 "in_asm,op,out_asm,int,exec,mmu", Does(basics::log), "what is logged; `help` lists the items"),
    row(&["D"],                 "FILE", Does(|guest, value| { guest.log.1 = Some(value.into()); Ok(()) }), "where that goes"),
    row(&["perfmap"],           "", Does(|guest, _| { guest.set("--perf", "map"); Ok(()) }), "tell Linux's perf the names of generated code"),
    row(&["jitdump"],           "", Does(|guest, _| { guest.set("--perf", "jitdump"); Ok(()) }), "tell Linux's perf all of generated code"),
    row(&["trace", "plugin", "icount", "one-insn-per-tb", "dfilter"], "…", Refused, "use --trace, --trace-filter or --stats of `hartvm run`"),
    row(&["semihosting"],       "", Refused, "leave it out: there is no semihosting; a program ends the machine through the test finisher at 0x100000"),
    row(&["semihosting-config"], "…", Refused, "leave it out: there is no semihosting; a program ends the machine through the test finisher at 0x100000"),
    row(&["seed"],              "N", Refused, "leave it out: random numbers are the host's"),
];

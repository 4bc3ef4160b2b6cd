//! Options about the machine as a whole.

use std::fmt::Write;

use machine::cpu_model::CpuModel;

use super::options::{List, number, size};
use super::table::{Becomes, TABLE};
use super::{Guest, Refusal, devices};

type Done = Result<(), Refusal>;

/// Where `-s` listens.
pub(super) const GDB_PORT: &str = "1234";

/// Takes a value that asks for nothing.
pub(super) fn only(option: &str, value: &str, accepted: &[&str], instead: &str) -> Done {
    if accepted.contains(&value) {
        Ok(())
    } else {
        Err(Refusal::new(format!("{option} {value} is not possible here"), instead))
    }
}

pub(super) fn help(guest: &mut Guest, _: &str) -> Done {
    let mut text = String::from(
        "hartvm takes the command lines of qemu-system-riscv64. An option becomes what hartvm has for it, or is refused.\n\n\
         Example:\n  hartvm qemu -machine virt -smp 4 -m 2G -nographic -kernel u-boot.bin -drive file=disk.raw,format=raw,if=virtio\n",
    );
    for (heading, wanted) in
        [("Options:", 0), ("Accepted, though they change nothing here:", 1), ("Refused:", 2)]
    {
        let _ = writeln!(text, "\n{heading}");
        for row in TABLE {
            let is = match row.becomes {
                Becomes::Does(_) => 0,
                Becomes::Nothing => 1,
                Becomes::Refused => 2,
            };
            if is == wanted {
                let names: Vec<_> = row.names.iter().map(|name| format!("-{name}")).collect();
                let _ = writeln!(text, "  {} {}\n        {}", names.join(", "), row.takes, row.about);
            }
        }
    }
    guest.print = Some(text);
    Ok(())
}

pub(super) fn version(guest: &mut Guest, _: &str) -> Done {
    guest.print = Some(format!("hartvm {}, in place of QEMU emulator\n", env!("CARGO_PKG_VERSION")));
    Ok(())
}

pub(super) fn machine(guest: &mut Guest, value: &str) -> Done {
    if matches!(value, "help" | "?") {
        guest.print =
            Some("Supported machines are:\nvirt                 RISC-V VirtIO board (default)\n".into());
        return Ok(());
    }
    let mut list = List::parse("-machine", value, Some("type"));
    if let Some(name) = list.take("type")
        && name != "virt"
    {
        return Err(Refusal::new(format!("-machine {name}: there is no such board here"), "want virt"));
    }
    for (key, flag) in [
        ("kernel", "--kernel"),
        ("initrd", "--initrd"),
        ("append", "--append"),
        ("dtb", "--dtb"),
        ("dumpdtb", "--dump-dtb"),
    ] {
        if let Some(value) = list.take(key) {
            guest.set(flag, value);
        }
    }
    if let Some(firmware) = list.take("firmware") {
        bios(guest, &firmware)?;
    }
    if let Some(name) = list.take("accel") {
        accel(guest, &name)?;
    }
    for (unit, key) in ["pflash0", "pflash1"].into_iter().enumerate() {
        if let Some(id) = list.take(key) {
            guest.devices.pflash[unit] = Some(devices::Image::Named(id));
        }
    }
    list.expect("acpi", &["off", "auto"], "acpi=off: guests get a device tree")?;
    list.expect("aia", &["none"], "aia=none: interrupts go through the PLIC")?;
    list.expect("aia-guests", &["0"], "0 of them")?;
    list.expect("aclint", &["off"], "aclint=off: the board has a CLINT")?;
    list.expect("iommu-sys", &["off"], "iommu-sys=off")?;
    list.expect("usb", &["off"], "usb=off")?;
    // Their effects are those of other options, or on the host alone.
    list.skip(&["memory-backend", "graphics", "dump-guest-core", "mem-merge"]);
    list.finish(
        "aclint, acpi, aia, aia-guests, accel, dumpdtb, iommu-sys, memory-backend, pflash0, pflash1 and usb",
    )
}

pub(super) fn cpu(guest: &mut Guest, value: &str) -> Done {
    if matches!(value, "help" | "?") {
        let mut text = String::from("Available CPUs:\n");
        CpuModel::names().for_each(|name| text += &format!("  {name}\n"));
        text += "Features that can be switched on and off:\n ";
        CpuModel::features().for_each(|name| text += &format!(" {}", name.to_lowercase()));
        guest.print = Some(text + "\n");
        return Ok(());
    }
    let mut list = List::parse("-cpu", value, Some("model"));
    let model = list.take("model").unwrap_or_default();
    let mut text = model.clone();
    for (key, given) in list.rest() {
        let name = key.to_lowercase();
        let on = match given.as_deref() {
            None | Some("on" | "true" | "yes") => true,
            Some("off" | "false" | "no") => false,
            Some(value) => {
                let value = value.to_owned();
                return Err(Refusal::new(
                    format!("-cpu {key}={value} is not possible here"),
                    "leave it out: features are switched on or off, and there is no vector unit whose size could be set",
                ));
            }
        };
        let known = CpuModel::features().any(|feature| feature.eq_ignore_ascii_case(&name));
        match (known, on) {
            (true, _) => text += &format!(",{name}={}", if on { "on" } else { "off" }),
            // Every hart has these.
            (false, true) if ["mmu", "pmp", "u", "s"].contains(&name.as_str()) => {}
            (false, true) => {
                return Err(Refusal::new(
                    format!("-cpu {key}=on: harts do not have it"),
                    "leave it out; `-cpu help` lists what they have",
                ));
            }
            // It is off.
            (false, false) if !["mmu", "pmp", "u", "s"].contains(&name.as_str()) => {}
            (false, false) => {
                return Err(Refusal::new(format!("-cpu {key}=off: no hart is without it"), "leave it out"));
            }
        }
    }
    let checked: Result<CpuModel, _> = text.parse();
    checked.map_err(|error| Refusal::new(format!("-cpu {value}"), error.to_string()))?;
    guest.set("--cpu", text);
    Ok(())
}

pub(super) fn smp(guest: &mut Guest, value: &str) -> Done {
    let mut list = List::parse("-smp", value, Some("cpus"));
    let mut numbers = |key: &str| -> Result<Option<u64>, Refusal> {
        let Some(text) = list.take(key) else { return Ok(None) };
        let wanted = number(&text).filter(|&number| number > 0);
        wanted.map(Some).ok_or_else(|| list.bad(key, &text, "a number from 1 on"))
    };
    let (cpus, most) = (numbers("cpus")?, numbers("maxcpus")?);
    let mut product = 1_u64;
    let mut shaped = false;
    for key in ["drawers", "books", "sockets", "dies", "clusters", "modules", "cores", "threads"] {
        if let Some(count) = numbers(key)? {
            product = product.saturating_mul(count);
            shaped = true;
        }
    }
    list.finish("cpus, maxcpus, sockets, cores and threads")?;
    let cpus = cpus.or(shaped.then_some(product)).or(most).unwrap_or(1);
    if most.is_some_and(|most| most != cpus) {
        return Err(Refusal::new(
            format!("-smp {value}: harts cannot be added later"),
            "want maxcpus equal to cpus",
        ));
    }
    guest.set("--cpus", cpus.to_string());
    Ok(())
}

pub(super) fn memory(guest: &mut Guest, value: &str) -> Done {
    let mut list = List::parse("-m", value, Some("size"));
    let text = list.take("size").unwrap_or_default();
    let bytes = size(&text, 1 << 20)
        .filter(|bytes| bytes % (1 << 10) == 0)
        .ok_or_else(|| list.bad("size", &text, "a size such as 2048 (MiB) or 4G"))?;
    if let Some(most) = list.take("maxmem")
        && size(&most, 1 << 20) != Some(bytes)
    {
        return Err(list.bad("maxmem", &most, "the same as size: memory cannot be added later"));
    }
    list.skip(&["slots"]);
    list.finish("size")?;
    let text = if bytes % (1 << 20) == 0 { format!("{}M", bytes >> 20) } else { format!("{}K", bytes >> 10) };
    guest.set("--memory", text);
    Ok(())
}

pub(super) fn accel(_: &mut Guest, value: &str) -> Done {
    if matches!(value, "help" | "?") {
        return Err(Refusal::new("-accel: there is tcg", "leave it out: guest code is always translated"));
    }
    // QEMU tries one after the other.
    if !value.split(':').any(|name| name.split(',').next() == Some("tcg")) {
        return Err(Refusal::new(
            format!("-accel {value} is not possible here"),
            "want tcg, or leave it out: RISC-V code is translated for this host",
        ));
    }
    let mut list = List::parse("-accel", value, Some("accel"));
    list.skip(&["accel", "thread", "tb-size"]);
    list.expect("one-insn-per-tb", &["off"], "off")?;
    list.expect("split-wx", &["on", "off"], "on or off")?;
    list.finish("thread, tb-size, which change nothing: every hart has a thread")
}

pub(super) fn rtc(_: &mut Guest, value: &str) -> Done {
    let mut list = List::parse("-rtc", value, None);
    list.expect("base", &["utc"], "base=utc: the clock shows the host's time")?;
    list.expect("clock", &["host", "rt"], "clock=host")?;
    list.expect("driftfix", &["none"], "driftfix=none")?;
    list.finish("base=utc and clock=host")
}

pub(super) fn global(guest: &mut Guest, value: &str) -> Done {
    let mut list = List::parse("-global", value, None);
    if let Some(legacy) = list.switch("virtio-mmio.force-legacy")? {
        guest.devices.force_legacy = Some(legacy);
    }
    // The long form.
    let long = ["driver", "property", "value"].map(|key| list.take(key));
    match long.each_ref().map(Option::as_deref) {
        [None, None, None] => {}
        [Some("virtio-mmio"), Some("force-legacy"), Some(value)] => {
            return global(guest, &format!("virtio-mmio.force-legacy={value}"));
        }
        _ => {
            return Err(Refusal::new(
                format!("-global {value} is not possible here"),
                "want virtio-mmio.force-legacy=on|off",
            ));
        }
    }
    list.finish("virtio-mmio.force-legacy=on|off")
}

pub(super) fn bios(guest: &mut Guest, value: &str) -> Done {
    // QEMU's own copy of OpenSBI, by its name in QEMU's data directory.
    let bundled = value.starts_with("opensbi-riscv64-") && !std::path::Path::new(value).exists();
    match value {
        "none" => guest.set("--firmware", "none"),
        "default" => guest.set("--firmware", "sbi"),
        _ if bundled => guest.set("--firmware", "sbi"),
        // A file of that name is not one of the words.
        "sbi" => guest.set("--firmware", "./sbi"),
        file => guest.set("--firmware", file),
    }
    Ok(())
}

pub(super) fn action(guest: &mut Guest, value: &str) -> Done {
    let mut list = List::parse("-action", value, None);
    match list.take("reboot").as_deref() {
        Some("shutdown") => guest.switch("--no-reboot"),
        Some("reset") => {
            guest.set.remove("--no-reboot");
        }
        Some(other) => return Err(list.bad("reboot", other, "reboot=reset or reboot=shutdown")),
        None => {}
    }
    list.expect("shutdown", &["poweroff"], "shutdown=poweroff")?;
    list.expect("panic", &["shutdown", "none"], "panic=none: guests reboot or turn off as they like")?;
    list.finish("reboot=reset|shutdown")
}

pub(super) fn gdb(guest: &mut Guest, value: &str) -> Done {
    let mut list = List::parse("-gdb", value, Some("where"));
    let place = list.take("where").unwrap_or_default();
    list.skip(&["server", "wait", "nowait", "nodelay"]);
    list.finish("tcp:[ADDR]:PORT or unix:PATH")?;
    let tcp = place.strip_prefix("tcp:").and_then(|rest| rest.rsplit_once(':'));
    let place = match (tcp, place.strip_prefix("unix:")) {
        (Some(("", port)), _) => port.to_owned(),
        (Some((address, port)), _) => format!("{address}:{port}"),
        // A path is known by its slash.
        (None, Some(path)) if path.contains('/') => path.to_owned(),
        (None, Some(path)) if !path.is_empty() => format!("./{path}"),
        _ => {
            return Err(Refusal::new(
                format!("-gdb {value} is not possible here"),
                "want tcp:[ADDR]:PORT or unix:PATH, such as -gdb tcp::1234",
            ));
        }
    };
    guest.set("--gdb", place);
    Ok(())
}

/// Items of QEMU's log and the categories of our trace.
const LOGS: [(&str, &str); 7] = [
    ("in_asm", "guest"),
    ("op", "ir"),
    ("op_opt", "ir"),
    ("out_asm", "host"),
    ("int", "int"),
    ("exec", "exec"),
    ("mmu", "mmu"),
];

pub(super) fn log(guest: &mut Guest, value: &str) -> Done {
    let items = || LOGS.map(|(item, _)| item).join(", ");
    if matches!(value, "help" | "?") {
        let mut text = String::from("Log items, and what they are for --trace of `hartvm run`:\n");
        LOGS.iter().for_each(|(item, category)| text += &format!("{item:<12} {category}\n"));
        guest.print = Some(text);
        return Ok(());
    }
    for item in value.split(',') {
        match LOGS.iter().find(|(known, _)| *known == item) {
            Some((_, category)) if guest.log.0.contains(category) => {}
            Some((_, category)) => guest.log.0.push(category),
            None => {
                return Err(Refusal::new(
                    format!("-d {item}: there is no such log here"),
                    format!("want some of {}", items()),
                ));
            }
        }
    }
    Ok(())
}

/// The name of a guest, of which QEMU lets anything be part.
pub(super) fn name(guest: &mut Guest, value: &str) -> Done {
    let mut list = List::parse("-name", value, Some("guest"));
    list.skip(&["process", "debug-threads"]);
    if let Some(name) = list.take("guest") {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
        let name: String = name.chars().map(plain).take(64).collect();
        // Not a process's number, nor nothing.
        let name =
            if name.is_empty() || name.parse::<u64>().is_ok() { format!("guest-{name}") } else { name };
        guest.set("--name", name.chars().take(64).collect::<String>());
    }
    list.finish("guest")
}

//! Options about devices: they name each other by `id`, so what they become shows only once all are known.

mod consoles;
mod drives;
mod networks;

use std::collections::BTreeMap;

use machine::net::NetOptions;

pub(super) use consoles::{chardev, serial};
pub(super) use drives::{blockdev, drive, pflash, plain_drive};
pub(super) use networks::{net, netdev, nic};

use super::options::{List, number, size};
use super::{Guest, Refusal};
use crate::commas::doubled;

type Done = Result<(), Refusal>;

/// Everything said about devices so far.
#[derive(Debug, Default)]
pub(super) struct Devices {
    /// `-snapshot`.
    pub(super) snapshot: bool,
    /// `-global virtio-mmio.force-legacy`.
    pub(super) force_legacy: Option<bool>,
    /// What is in the two banks of flash.
    pub(super) pflash: [Option<Image>; 2],
    /// Drives that have their device with them (`if=virtio`), with `index` if given.
    drives: Vec<(Option<u64>, Image)>,
    /// Images that devices name.
    images: BTreeMap<String, Image>,
    /// Disk devices, by the image they name, with their slot if given.
    disks: Vec<(String, Option<u64>)>,
    /// `bootindex` of each of them.
    boot_order: Vec<u64>,
    /// A device of the kind that has a legacy interface on QEMU, unless told otherwise.
    mmio: bool,
    netdevs: BTreeMap<String, String>,
    /// Network devices, by the netdev they name, with their slot if given.
    nics: Vec<(String, Option<u64>)>,
    /// Network devices with what they are connected to.
    networks: Vec<String>,
    chardevs: BTreeMap<String, Chardev>,
    serial: Option<Chardev>,
    /// Virtio consoles, by the chardev they name.
    consoles: Vec<String>,
    rng: bool,
    /// The slot of what virtio consoles are plugged into, if given.
    serial_slot: Option<u64>,
    memory_backends: Vec<Option<u64>>,
}

/// A disk image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Image {
    /// By the `id` or `node-name` of another option.
    Named(String),
    /// A file.
    File(File),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct File {
    path: String,
    format: Option<String>,
    read_only: bool,
    snapshot: bool,
    serial: Option<String>,
    /// The guest may not give storage back.
    keep: bool,
}

/// The host's end of a console.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Chardev {
    Stdio,
    Null,
    File(String),
}

/// The kinds of device, with what else they are called.
const LIST: &str = "\
virtio-blk-device, virtio-blk-pci       drive=ID                a disk
virtio-net-device, virtio-net-pci       netdev=ID               a network device
virtio-rng-device, virtio-rng-pci                               random numbers (always there)
virtio-serial-device, virtio-serial-pci                         what a virtconsole is plugged into
virtconsole                             chardev=ID              a virtio console
loader                                  file=FILE,addr=ADDRESS  a file in memory
Devices on PCI stand at virtio-mmio slots: the board has no PCI. bus=virtio-mmio-bus.N says which slot a device has.
";

/// Properties of devices that are about PCI, which is not there, or about speed.
const DEVICE_KEYS: &[&str] = &[
    "id",
    "addr",
    "disable-legacy",
    "disable-modern",
    "romfile",
    "rombar",
    "multifunction",
    "vectors",
    "num-queues",
    "queue-size",
    "queues",
    "mq",
    "event_idx",
    "indirect_desc",
    "packed",
    "iothread",
    "write-cache",
    "rx_queue_size",
    "tx_queue_size",
    "max-bytes",
    "period",
    "max_ports",
    "any_layout",
    "ats",
];

pub(super) fn device(guest: &mut Guest, value: &str) -> Done {
    if matches!(value, "help" | "?") {
        guest.print = Some(LIST.into());
        return Ok(());
    }
    let mut list = List::parse("-device", value, Some("driver"));
    let driver = list.take("driver").unwrap_or_default();
    if value.split(',').any(|part| part == "help") {
        guest.print = Some(LIST.into());
        return Ok(());
    }
    let parts = driver.trim_end_matches("-non-transitional").trim_end_matches("-transitional");
    let (kind, transport) = match parts.rsplit_once('-') {
        Some((kind, transport @ ("device" | "pci"))) if kind.starts_with("virtio-") => (kind, transport),
        // A virtio device without its transport is the PCI one.
        None if driver.starts_with("virtio-") => (parts, "pci"),
        _ if ["virtio-blk", "virtio-net", "virtio-rng", "virtio-serial"].contains(&parts) => (parts, "pci"),
        _ => (parts, ""),
    };
    let devices = &mut guest.devices;
    let mut slot = None;
    if let Some(bus) = list.take("bus") {
        let place = bus.strip_prefix("virtio-mmio-bus.").and_then(number);
        match (transport, place) {
            ("device", Some(place)) if place < u64::from(machine::board::VIRTIO_SLOTS) => slot = Some(place),
            ("device", Some(_)) => return Err(list.bad("bus", &bus, "virtio-mmio-bus.0 to .7")),
            ("pci", None) if bus.starts_with("pcie.") || bus.starts_with("pci.") => {}
            _ if kind == "virtconsole" => {}
            _ => return Err(list.bad("bus", &bus, "no bus, or virtio-mmio-bus.N for a virtio-…-device")),
        }
    }
    let known = match kind {
        "virtio-blk" => {
            let Some(drive) = list.take("drive") else {
                return Err(Refusal::new(
                    format!("-device {driver} without a drive"),
                    "want drive=ID, and -drive if=none,id=ID,file=FILE",
                ));
            };
            if let Some(serial) = list.take("serial") {
                match devices.images.get_mut(&drive) {
                    Some(Image::File(file)) => file.serial = Some(serial),
                    _ => return Err(no_drive(&drive)),
                }
            }
            if let Some(text) = list.take("bootindex") {
                let index = number(&text).ok_or_else(|| list.bad("bootindex", &text, "a number"))?;
                devices.boot_order.push(index);
            }
            devices.disks.push((drive, slot));
            "drive, serial, bootindex and bus"
        }
        "virtio-net" => {
            let Some(netdev) = list.take("netdev") else {
                return Err(Refusal::new(
                    format!("-device {driver} without a netdev"),
                    "want netdev=ID, and -netdev user,id=ID",
                ));
            };
            if let Some(address) = list.take("mac") {
                let network = devices.netdevs.get_mut(&netdev);
                network.ok_or_else(|| no_netdev(&netdev))?.push_str(&format!(",mac={address}"));
            }
            list.skip(&[
                "bootindex",
                "guest_csum",
                "csum",
                "gso",
                "host_tso4",
                "host_tso6",
                "guest_tso4",
                "guest_tso6",
                "mrg_rxbuf",
            ]);
            devices.nics.push((netdev, slot));
            "netdev, mac and bus"
        }
        "virtio-rng" => {
            if std::mem::replace(&mut devices.rng, true) {
                return Err(Refusal::new(
                    format!("-device {driver}: the machine has one already"),
                    "leave the second one out",
                ));
            }
            list.skip(&["rng"]);
            if let Some(slot) = slot {
                guest.added.push(("--slot", format!("rng={slot}")));
            }
            "rng and bus"
        }
        "virtio-serial" => {
            devices.serial_slot = slot.or(devices.serial_slot);
            "id and bus"
        }
        "virtconsole" => {
            list.skip(&["name", "nr"]);
            let chardev = list.take("chardev");
            devices.consoles.push(chardev.unwrap_or_default());
            "chardev, name and nr"
        }
        "loader" => return loader(guest, list),
        _ => return Err(no_device(&driver)),
    };
    devices.mmio |= transport == "device";
    list.skip(DEVICE_KEYS);
    list.finish(known)
}

/// Devices that people ask for, by how their names begin, and what to do without them.
const OTHERS: &[(&[&str], &str)] = &[
    (
        &["virtio-scsi", "scsi-", "nvme", "ahci", "ide-", "sd-card", "usb-storage"],
        "use -device virtio-blk-pci,drive=ID for disks",
    ),
    (&["e1000", "rtl8139", "igb", "vmxnet"], "use -device virtio-net-pci,netdev=ID"),
    (&["virtio-9p", "vhost-user-fs", "virtio-fs"], "leave it out: folders cannot be shared yet"),
    (
        &[
            "virtio-gpu",
            "virtio-vga",
            "VGA",
            "bochs",
            "ramfb",
            "virtio-keyboard",
            "virtio-mouse",
            "virtio-tablet",
            "qemu-xhci",
            "usb-",
            "nec-usb",
        ],
        "leave it out, and use -nographic: there are no graphics",
    ),
    (
        &[
            "virtio-balloon",
            "virtio-vsock",
            "vhost-vsock",
            "virtio-mem",
            "virtio-iommu",
            "riscv-iommu",
            "virtserialport",
            "pcie-root-port",
            "pci-bridge",
            "guest-loader",
            "intel-hda",
            "tpm-",
        ],
        "leave it out",
    ),
];

fn no_device(driver: &str) -> Refusal {
    let instead = OTHERS.iter().find(|(names, _)| names.iter().any(|name| driver.starts_with(name)));
    Refusal::new(
        format!("-device {driver}: there is no such device here"),
        instead.map_or("`-device help` lists what there is", |(_, instead)| instead),
    )
}

fn no_drive(id: &str) -> Refusal {
    Refusal::new(format!("there is no drive {id}"), format!("give -drive if=none,id={id},file=FILE"))
}

fn no_netdev(id: &str) -> Refusal {
    Refusal::new(
        format!("netdev {id} is not there"),
        format!("give -netdev user,id={id} before the device that names it"),
    )
}

/// The generic loader: a file at an address, or where the file itself says.
fn loader(guest: &mut Guest, mut list: List) -> Done {
    let Some(file) = list.take("file") else {
        return Err(Refusal::new(
            "-device loader without a file",
            "want file=FILE,addr=ADDRESS: values are put into a file",
        ));
    };
    let address = match list.take("addr") {
        Some(text) => {
            Some(number(&text).ok_or_else(|| list.bad("addr", &text, "an address such as 0x84000000"))?)
        }
        None => None,
    };
    let raw = list.switch("force-raw")?.unwrap_or(false);
    if raw && address.is_none() {
        return Err(Refusal::new("-device loader,force-raw=on without addr", "say where with addr=ADDRESS"));
    }
    list.skip(&["id"]);
    if let Some(text) = list.take("cpu-num") {
        return Err(list.bad("cpu-num", &text, "no hart: they start at -bios or -kernel"));
    }
    list.finish("file, addr and force-raw")?;
    let mut value = doubled(&file);
    if let Some(address) = address {
        value += &format!(",addr={address:#x}");
    }
    if raw {
        value += ",raw";
    }
    guest.added.push(("--load", value));
    Ok(())
}

/// An item of fw_cfg.
pub(super) fn fw_cfg(guest: &mut Guest, value: &str) -> Done {
    let mut list = List::parse("-fw_cfg", value, Some("name"));
    if let Some(id) = list.take("gen_id") {
        return Err(list.bad("gen_id", &id, "string=TEXT or file=FILE: there is no object that makes items"));
    }
    let name = list.take("name").filter(|name| !name.is_empty());
    let name =
        name.ok_or_else(|| Refusal::new("-fw_cfg without a name", "want name=opt/NAME,string=TEXT"))?;
    let mut taken = |key| list.take(key).filter(|value| !value.is_empty()).map(|value| (key, value));
    let contents = match (taken("string"), taken("file")) {
        (Some(contents), None) | (None, Some(contents)) => contents,
        _ => {
            return Err(Refusal::new(
                format!("-fw_cfg name={name} with anything but one value"),
                "want either string=TEXT or file=FILE",
            ));
        }
    };
    list.finish("name, and string or file")?;
    guest.added.push(("--fw-cfg", format!("{},{}={}", doubled(&name), contents.0, doubled(&contents.1))));
    Ok(())
}

pub(super) fn object(guest: &mut Guest, value: &str) -> Done {
    let mut list = List::parse("-object", value, Some("type"));
    let kind = list.take("type").unwrap_or_default();
    list.skip(&["id"]);
    match kind.as_str() {
        "rng-random" => list.expect("filename", &["/dev/urandom", "/dev/random"], "filename=/dev/urandom")?,
        "rng-builtin" | "iothread" => list.skip(&["poll-max-ns"]),
        "memory-backend-ram" => {
            let bytes = match list.take("size") {
                Some(text) => {
                    Some(size(&text, 1).ok_or_else(|| list.bad("size", &text, "a size such as 2G"))?)
                }
                None => None,
            };
            list.skip(&["share", "prealloc", "merge", "dump"]);
            guest.devices.memory_backends.push(bytes);
        }
        _ => {
            return Err(Refusal::new(
                format!("-object {kind} is not possible here"),
                "want rng-random, rng-builtin, memory-backend-ram or iothread",
            ));
        }
    }
    list.finish("id, filename of a rng-random, and size of a memory-backend-ram")
}

impl Devices {
    /// Adds the flags that devices become, now that all of them are known.
    pub(super) fn flags(mut self, guest: &mut Guest) -> Done {
        self.memory(guest)?;
        self.disks(guest)?;
        self.flash(guest)?;
        self.network(guest)?;
        self.consoles(guest)
    }

    fn memory(&self, guest: &Guest) -> Done {
        let memory = guest.set.get("--memory").cloned().flatten().and_then(|text| size(&text, 1 << 20));
        match self.memory_backends.iter().flatten().find(|bytes| Some(**bytes) != memory) {
            Some(bytes) => Err(Refusal::new(
                format!("-object memory-backend-ram has {bytes} bytes, which is not what -m says"),
                "make both the same",
            )),
            None => Ok(()),
        }
    }

    fn file(&self, image: &Image) -> Result<File, Refusal> {
        match image {
            Image::File(file) => Ok(File { snapshot: file.snapshot || self.snapshot, ..file.clone() }),
            Image::Named(id) => match self.images.get(id) {
                Some(Image::File(file)) => {
                    Ok(File { snapshot: file.snapshot || self.snapshot, ..file.clone() })
                }
                _ => Err(no_drive(id)),
            },
        }
    }

    /// Disks in the order in which QEMU has them: first what `-device` names, then `if=virtio`.
    fn disks(&mut self, guest: &mut Guest) -> Done {
        if !self.boot_order.is_sorted() {
            return Err(Refusal::new(
                "bootindex asks for another order than that of the disks",
                "give the disks in that order",
            ));
        }
        self.drives.sort_by_key(|(index, _)| index.unwrap_or(u64::MAX));
        // On QEMU nothing would happen then; here the disk is booted.
        let firmware = guest.set.get("--firmware").is_some_and(|value| value.as_deref() != Some("sbi"));
        let nothing_else = !firmware && !guest.set.contains_key("--kernel") && self.pflash[0].is_none();
        let named = self.disks.iter().map(|(id, slot)| (Image::Named(id.clone()), *slot));
        let plain = self.drives.iter().map(|(_, image)| (image.clone(), None));
        for (number, (image, slot)) in named.chain(plain).enumerate() {
            let File { path, format, read_only, snapshot, serial, keep } = self.file(&image)?;
            let mut value = doubled(&path);
            if read_only {
                value += ",readonly";
            }
            if snapshot {
                value += ",snapshot";
            }
            if let Some(format) = format {
                value += &format!(",format={format}");
            }
            if let Some(serial) = serial {
                value += &format!(",serial={}", doubled(&serial));
            }
            if keep {
                value += ",discard=ignore";
            }
            if number == 0 && nothing_else {
                guest.image = Some(value);
                if let Some(slot) = slot {
                    guest.added.push(("--slot", format!("image={slot}")));
                }
                continue;
            }
            guest.added.push(("--disk", value));
            if let Some(slot) = slot {
                // Those of --disk are counted.
                guest.added.push(("--slot", format!("{}={slot}", number - usize::from(nothing_else))));
            }
        }
        // On QEMU these have the old interface unless it is told otherwise, and old guests want that.
        if self.force_legacy.unwrap_or(self.mmio) {
            guest.switch("--virtio-legacy");
        }
        Ok(())
    }

    fn flash(&self, guest: &mut Guest) -> Done {
        let [code, vars] = &self.pflash;
        let Some(code) = code else {
            return match vars {
                Some(_) => Err(Refusal::new(
                    "there is flash for variables (unit 1) but none with code",
                    "add -drive if=pflash,unit=0,file=FILE",
                )),
                None => Ok(()),
            };
        };
        let bare = guest.set.get("--firmware").is_some_and(|value| value.as_deref() == Some("none"));
        if bare && guest.set.contains_key("--kernel") {
            return Err(Refusal::new(
                "-bios none has code in flash run in machine mode, with the kernel in memory, which is not possible here",
                "leave out -bios, so that the firmware in flash starts the kernel, or -kernel",
            ));
        }
        let code = self.file(code)?;
        let mut value = doubled(&code.path);
        match vars {
            Some(vars) => {
                let vars = self.file(vars)?;
                if vars.read_only && !vars.snapshot {
                    return Err(Refusal::new(
                        "the flash for variables (unit 1) is to be read-only",
                        "add snapshot=on: what is written is forgotten then",
                    ));
                }
                value += &format!(",vars={}", doubled(&vars.path));
                if vars.snapshot {
                    value += ",snapshot";
                }
            }
            None => value += ",vars=none",
        }
        guest.set("--uefi", value);
        Ok(())
    }

    fn network(&mut self, guest: &mut Guest) -> Done {
        for (id, slot) in std::mem::take(&mut self.nics) {
            let network = self.netdevs.get(&id).ok_or_else(|| no_netdev(&id))?;
            self.networks.push(network.clone());
            if let Some(slot) = slot {
                guest.added.push(("--slot", format!("net={slot}")));
            }
        }
        match self.networks.as_slice() {
            [] => guest.set("--net", "none"),
            [network] => guest.set("--net", network.clone()),
            _ => return Err(Refusal::new("there are several network devices", "leave all but one out")),
        }
        Ok(())
    }

    fn consoles(self, guest: &mut Guest) -> Done {
        match self.serial {
            None | Some(Chardev::Stdio) => {}
            Some(Chardev::Null) => guest.set("--serial", "none"),
            Some(Chardev::File(path)) => guest.set("--serial", format!("file:{path}")),
        }
        match self.consoles.as_slice() {
            [] => Ok(()),
            [id] => match self.chardevs.get(id) {
                Some(Chardev::Stdio) => {
                    guest.switch("--virtio-console");
                    if let Some(slot) = self.serial_slot {
                        guest.added.push(("--slot", format!("console={slot}")));
                    }
                    Ok(())
                }
                Some(_) => Err(Refusal::new(
                    "-device virtconsole goes to the terminal only",
                    "want -chardev stdio for it",
                )),
                None => Err(Refusal::new(
                    format!("-device virtconsole: there is no chardev {id:?}"),
                    "want chardev=ID, and -chardev stdio,id=ID",
                )),
            },
            _ => Err(Refusal::new("there are several virtio consoles", "leave all but one out")),
        }
    }
}

//! Disk images: `-drive`, `-blockdev`, `-pflash` and their like.

use super::*;

/// Keys of disks whose values are about speed or errors of the host, and the values that are no other than what is done here.
const DISK_KEYS: &[(&str, &[&str], &str)] = &[
    (
        "cache",
        &["none", "writeback", "writethrough", "directsync", "unsafe"],
        "none, writeback, writethrough, directsync or unsafe",
    ),
    ("cache.direct", &["on", "off"], "on or off"),
    ("cache.no-flush", &["on", "off"], "on or off"),
    ("aio", &["threads", "native", "io_uring"], "threads, native or io_uring"),
    ("detect-zeroes", &["off", "on", "unmap"], "off"),
    ("werror", &["report", "enospc"], "werror=report: the guest sees errors"),
    ("rerror", &["report"], "rerror=report: the guest sees errors"),
    ("copy-on-read", &["off"], "off"),
    ("locking", &["on", "auto"], "auto: images are always locked"),
    ("file.locking", &["on", "auto"], "auto: images are always locked"),
    ("auto-read-only", &["off"], "auto-read-only=off"),
];

/// Takes what `DISK_KEYS` has.
fn skip_disk_keys(list: &mut List) -> Done {
    DISK_KEYS.iter().try_for_each(|(key, values, instead)| list.expect(key, values, instead))
}

/// Whether discards of the guest are to be without effect.
fn keep(list: &mut List) -> Result<bool, Refusal> {
    match list.take("discard").as_deref() {
        None | Some("unmap" | "on") => Ok(false),
        Some("ignore" | "off") => Ok(true),
        Some(other) => Err(list.bad("discard", other, "discard=unmap or discard=ignore")),
    }
}

fn format_of(list: &List, format: Option<String>) -> Result<Option<String>, Refusal> {
    match format.as_deref() {
        None | Some("raw" | "qcow2") => Ok(format),
        Some(other) => Err(list.bad(
            "format",
            other,
            "format=raw or format=qcow2; `qemu-img convert` makes one of another",
        )),
    }
}

pub(in super::super) fn drive(guest: &mut Guest, value: &str) -> Done {
    let mut list = List::parse("-drive", value, Some("file"));
    let devices = &mut guest.devices;
    let id = list.take("id");
    let interface = list.take("if");
    let index = match list.take("index") {
        Some(text) => Some(number(&text).ok_or_else(|| list.bad("index", &text, "a number"))?),
        None => None,
    };
    let unit = list.take("unit");
    list.expect("bus", &["0"], "bus=0")?;
    let media = list.take("media");
    let read_only = [list.switch("readonly")?, list.switch("read-only")?].into_iter().flatten().last();
    let snapshot = list.switch("snapshot")?.unwrap_or(false);
    // A path may name a protocol; files are the only one.
    let path = [list.take("file.filename"), list.take("file")].into_iter().flatten().next();
    let path = path.map(|path| path.strip_prefix("file:").map(str::to_owned).unwrap_or(path));
    list.expect("file.driver", &["file", "host_device"], "a file")?;
    let given = list.take("format");
    let driver = list.take("driver");
    let format = format_of(&list, given.or(driver))?;
    skip_disk_keys(&mut list)?;
    let keep = keep(&mut list)?;
    let serial = list.take("serial");
    list.finish("file, if, format, id, index, unit, media, readonly, snapshot, cache, aio, discard, werror and rerror")?;
    let cdrom = match media.as_deref() {
        None | Some("disk") => false,
        Some("cdrom") => true,
        Some(other) => {
            return Err(Refusal::new(
                format!("-drive media={other} is not possible here"),
                "want disk or cdrom",
            ));
        }
    };
    let Some(path) = path else {
        return Err(Refusal::new("-drive without a file", "want -drive file=FILE,format=raw,if=virtio"));
    };
    if let Some((protocol, _)) = path.split_once("://") {
        return Err(Refusal::new(
            format!("-drive file={path}: {protocol} is not possible here"),
            "download the image and name the file",
        ));
    }
    let read_only = read_only.unwrap_or(cdrom);
    let image = Image::File(File { path, format, read_only, snapshot, serial, keep });
    let named = id.is_some();
    if let Some(id) = id
        && devices.images.insert(id.clone(), image.clone()).is_some()
    {
        return Err(Refusal::new(format!("-drive id={id} is there twice"), "give each drive its own id"));
    }
    match interface.as_deref() {
        None | Some("virtio") => devices.drives.push((index, image)),
        Some("none") if named => {}
        Some("none") => {
            return Err(Refusal::new(
                "-drive if=none without an id",
                "name it with id=ID, and -device virtio-blk-device,drive=ID",
            ));
        }
        Some("pflash") => {
            let unit = match (unit.as_deref(), index) {
                (Some("0"), _) | (None, Some(0)) => 0,
                (Some("1"), _) | (None, Some(1)) => 1,
                (None, None) => usize::from(devices.pflash[0].is_some()),
                _ => {
                    return Err(Refusal::new(
                        "-drive if=pflash has no such unit",
                        "want unit=0 (code) or unit=1 (variables)",
                    ));
                }
            };
            devices.pflash[unit] = Some(image);
        }
        Some(other) => {
            return Err(Refusal::new(format!("-drive if={other} is not possible here"), "use if=virtio"));
        }
    }
    Ok(())
}

pub(in super::super) fn plain_drive(guest: &mut Guest, file: &str, options: &str) -> Done {
    drive(guest, &format!("{options},file={}", doubled(file)))
}

pub(in super::super) fn pflash(guest: &mut Guest, file: &str) -> Done {
    drive(guest, &format!("if=pflash,format=raw,file={}", doubled(file)))
}

pub(in super::super) fn blockdev(guest: &mut Guest, value: &str) -> Done {
    if value.trim_start().starts_with('{') {
        return Err(Refusal::new(
            "-blockdev in JSON is not possible here",
            "want -blockdev driver=raw,node-name=ID,file.filename=FILE",
        ));
    }
    let mut list = List::parse("-blockdev", value, None);
    let Some(name) = list.take("node-name") else {
        return Err(Refusal::new(
            "-blockdev without a node-name",
            "want -blockdev driver=raw,node-name=ID,file.filename=FILE",
        ));
    };
    let driver = list.take("driver").unwrap_or_default();
    let read_only = list.switch("read-only")?.unwrap_or(false);
    list.expect("file.driver", &["file", "host_device"], "a file")?;
    let path = [list.take("filename"), list.take("file.filename")].into_iter().flatten().next();
    let below = list.take("file");
    let keep = keep(&mut list)?;
    skip_disk_keys(&mut list)?;
    list.finish("driver, node-name, filename, file and read-only")?;
    let known = &guest.devices.images;
    let image = match (driver.as_str(), path, below) {
        ("file" | "host_device" | "raw" | "qcow2", Some(path), None) => {
            let format = (driver == "raw" || driver == "qcow2").then_some(driver);
            File { path, format, read_only, keep, ..File::default() }
        }
        ("raw" | "qcow2", None, Some(below)) => match known.get(&below) {
            Some(Image::File(file)) => {
                File { format: Some(driver), read_only: read_only || file.read_only, ..file.clone() }
            }
            _ => {
                return Err(Refusal::new(
                    format!("-blockdev file={below}: there is no such node"),
                    "give its -blockdev first",
                ));
            }
        },
        _ => {
            return Err(Refusal::new(
                format!("-blockdev driver={driver} is not possible here"),
                "want driver=file, raw or qcow2 with a file",
            ));
        }
    };
    guest.devices.images.insert(name, Image::File(image));
    Ok(())
}

//! `--load`, `--disk-slot` and `--serial`: where files, disks and the serial port are put.

use machine::{Load, Serial};

use crate::commas;

/// Reads `FILE[,addr=ADDRESS][,raw]`.
pub(crate) fn load(text: &str) -> Result<Load, String> {
    const WANT: &str = "want FILE[,addr=ADDRESS][,raw], such as --load data.bin,addr=0x88000000";
    let mut parts = commas::split(text).into_iter();
    let path =
        parts.next().filter(|path| !path.is_empty()).ok_or_else(|| format!("no file is named; {WANT}"))?;
    let mut load = Load { path: path.into(), address: None, raw: false };
    for part in parts {
        match part.split_once('=') {
            Some(("addr", address)) => {
                let number = match address.strip_prefix("0x") {
                    Some(digits) => u64::from_str_radix(digits, 16),
                    None => address.parse(),
                };
                load.address = Some(number.map_err(|_| format!("`{address}` is no address; {WANT}"))?);
            }
            None if part == "raw" => load.raw = true,
            _ => return Err(format!("`{part}` is no option of it; {WANT}")),
        }
    }
    if load.raw && load.address.is_none() {
        return Err(format!("raw without an address; {WANT}"));
    }
    Ok(load)
}

/// Reads `N=SLOT` for one of `disks` disks; gives each its slot, if it has one.
pub(crate) fn slots(texts: &[String], disks: usize) -> Result<Vec<Option<u32>>, String> {
    let mut slots = vec![None; disks];
    for text in texts {
        let numbers =
            text.split_once('=').and_then(|(disk, slot)| Some((disk.parse().ok()?, slot.parse().ok()?)));
        let (disk, slot): (usize, u32) =
            numbers.ok_or_else(|| format!("`{text}` is not N=SLOT, such as --disk-slot 0=0"))?;
        if slot >= machine::board::VIRTIO_SLOTS {
            return Err(format!("there is no slot {slot}; want 0 to {}", machine::board::VIRTIO_SLOTS - 1));
        }
        if slots.contains(&Some(slot)) {
            return Err(format!("slot {slot} is given away twice; want another one"));
        }
        match slots.get_mut(disk) {
            Some(place) => *place = Some(slot),
            None => {
                return Err(format!(
                    "there is no disk {disk}; want one of the {disks} of --disk, counted from 0"
                ));
            }
        }
    }
    Ok(slots)
}

/// Reads `stdio`, `none` or `file:FILE`.
pub(crate) fn serial(text: &str) -> Result<Serial, String> {
    match (text, text.strip_prefix("file:")) {
        ("stdio", _) => Ok(Serial::Console),
        ("none", _) => Ok(Serial::None),
        (_, Some(path)) if !path.is_empty() => Ok(Serial::File(path.into())),
        _ => Err(format!("`{text}` is no place for it; want stdio, none or file:FILE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads() {
        let loaded = |path: &str, address, raw| Ok(Load { path: path.into(), address, raw });
        assert_eq!(load("a.elf"), loaded("a.elf", None, false));
        assert_eq!(load("a,,b,addr=0x10,raw"), loaded("a,b", Some(16), true));
        assert_eq!(load("a,addr=16"), loaded("a", Some(16), false));
        for text in ["", ",raw", "a,raw", "a,addr=x", "a,addr=", "a,size=1"] {
            assert!(load(text).is_err_and(|error| error.contains("FILE[,addr=ADDRESS]")), "{text}");
        }
    }

    #[test]
    fn disks_have_slots() {
        let slots = |texts: &[&str]| slots(&texts.iter().map(ToString::to_string).collect::<Vec<_>>(), 2);
        assert_eq!(slots(&["1=0"]), Ok(vec![None, Some(0)]));
        assert_eq!(slots(&[]), Ok(vec![None, None]));
        for texts in [&["2=0"][..], &["0=8"], &["0=1", "1=1"], &["0"], &["x=1"], &["0=-1"]] {
            assert!(
                slots(texts).is_err_and(|error| error.contains("want") || error.contains("N=SLOT")),
                "{texts:?}"
            );
        }
    }

    #[test]
    fn serial_ports() {
        assert_eq!(serial("file:a:b"), Ok(Serial::File("a:b".into())));
        assert_eq!((serial("stdio"), serial("none")), (Ok(Serial::Console), Ok(Serial::None)));
        assert!(serial("file:").is_err() && serial("tcp:1").is_err());
    }
}

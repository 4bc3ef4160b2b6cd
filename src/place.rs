//! `--load`, `--fw-cfg`, `--slot` and `--serial`: where files, items, devices and the serial port are put.

use machine::board::VIRTIO_SLOTS;
use machine::devices::fw_cfg::{Contents, MAX_NAME, MAX_NAMED, NamedItem};
use machine::{Load, Serial, Slots};

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

/// Reads `NAME,string=TEXT|file=FILE`, any number of them.
pub(crate) fn named_items(texts: &[String]) -> Result<Vec<NamedItem>, String> {
    let mut items: Vec<NamedItem> = Vec::new();
    for text in texts {
        let item = named_item(text)?;
        if items.iter().any(|other| other.name == item.name) {
            return Err(format!("there are two items `{}`; leave one out", item.name));
        }
        items.push(item);
    }
    if items.len() > MAX_NAMED {
        return Err(format!("{} items are too many; want {MAX_NAMED} at most", items.len()));
    }
    Ok(items)
}

fn named_item(text: &str) -> Result<NamedItem, String> {
    const WANT: &str =
        "want NAME,string=TEXT or NAME,file=FILE, such as --fw-cfg opt/com.example/key,string=value";
    let parts = commas::split(text);
    let [name, contents] = &parts[..] else {
        return Err(format!("`{text}` is not a name and what it stands for; {WANT}"));
    };
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(format!("a name of {} bytes is not possible, but 1 to {MAX_NAME}; {WANT}", name.len()));
    }
    let contents = match contents.split_once('=') {
        Some(("string", text)) if !text.is_empty() => Contents::Text(text.into()),
        Some(("file", file)) if !file.is_empty() => Contents::File(file.into()),
        _ => return Err(format!("`{contents}` is nothing that could be in it; {WANT}")),
    };
    Ok(NamedItem { name: name.clone(), contents })
}

/// What devices there are that can have a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Present {
    /// A disk before those of `--disk`.
    pub(crate) image: bool,
    /// Disks of `--disk`.
    pub(crate) disks: usize,
    pub(crate) net: bool,
    pub(crate) console: bool,
}

/// Reads `N|image|net|rng|console=SLOT`, any number of them.
pub(crate) fn slots(texts: &[String], present: Present) -> Result<Slots, String> {
    let first = usize::from(present.image);
    let mut slots = Slots { disks: vec![None; first + present.disks], ..Slots::default() };
    let mut taken = Vec::new();
    for text in texts {
        let parts = text.split_once('=').and_then(|(device, slot)| Some((device, slot.parse().ok()?)));
        let (device, slot): (&str, u32) = parts
            .ok_or_else(|| format!("`{text}` is not DEVICE=SLOT, such as --slot 0=0 or --slot net=3"))?;
        if slot >= VIRTIO_SLOTS {
            return Err(format!("there is no slot {slot}; want 0 to {}", VIRTIO_SLOTS - 1));
        }
        if taken.contains(&slot) {
            return Err(format!("slot {slot} is given away twice; want another one"));
        }
        taken.push(slot);
        let place = match device {
            "image" => present.image.then_some(0).and_then(|index| slots.disks.get_mut(index)),
            "net" => present.net.then_some(&mut slots.net),
            "rng" => Some(&mut slots.rng),
            "console" => present.console.then_some(&mut slots.console),
            number => {
                let index = number.parse::<usize>().ok().and_then(|index| index.checked_add(first));
                index.and_then(|index| slots.disks.get_mut(index))
            }
        };
        match place {
            Some(place @ None) => *place = Some(slot),
            Some(Some(_)) => return Err(format!("`{device}` has two slots; leave one out")),
            None => {
                return Err(format!(
                    "there is no device `{device}`; want `image` for the disk IMAGE, one of the {} of --disk counted from 0, \
                     net, rng, or console with --virtio-console",
                    present.disks
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
    fn items_have_names() {
        let given = |texts: &[&str]| named_items(&texts.iter().map(ToString::to_string).collect::<Vec<_>>());
        let item = |name: &str, contents| NamedItem { name: name.into(), contents };
        assert_eq!(
            given(&["opt/a,string=b,,c=d", "opt/b,file=x"]),
            Ok(vec![
                item("opt/a", Contents::Text("b,c=d".into())),
                item("opt/b", Contents::File("x".into()))
            ])
        );
        let long = "n".repeat(MAX_NAME + 1);
        for text in ["", "a", ",string=b", "a,string=", "a,file=", "a,b", "a,size=1", "a,string=b,file=c"] {
            assert!(given(&[text]).is_err_and(|error| error.contains("NAME,string=TEXT")), "{text}");
        }
        assert!(given(&[&format!("{long},string=b")]).is_err_and(|error| error.contains("1 to 55")));
        assert!(given(&["a,string=b", "a,file=c"]).is_err_and(|error| error.contains("two items `a`")));
        let many: Vec<String> = (0..=MAX_NAMED).map(|number| format!("{number},string=x")).collect();
        assert!(named_items(&many).is_err_and(|error| error.contains("32 at most")));
    }

    #[test]
    fn devices_have_slots() {
        let given = |texts: &[&str], present| {
            slots(&texts.iter().map(ToString::to_string).collect::<Vec<_>>(), present)
        };
        let all = Present { image: true, disks: 2, net: true, console: true };
        let few = Present { image: false, disks: 2, net: false, console: false };
        let disks = |disks: &[Option<u32>]| Slots { disks: disks.to_vec(), ..Slots::default() };
        assert_eq!(given(&["1=0"], few), Ok(disks(&[None, Some(0)])));
        assert_eq!(given(&[], few), Ok(disks(&[None, None])));
        assert_eq!(
            given(&["image=7", "0=3", "net=1", "rng=2", "console=0"], all),
            Ok(Slots { net: Some(1), rng: Some(2), console: Some(0), ..disks(&[Some(7), Some(3), None]) })
        );
        for texts in [
            &["2=0"][..],
            &["0=8"],
            &["0=1", "1=1"],
            &["0"],
            &["x=1"],
            &["0=-1"],
            &["0=1", "0=2"],
            &["net=1"],
            &["image=1"],
            &["console=1"],
        ] {
            let error = given(texts, few).unwrap_err();
            assert!(["want", "--slot", "leave one out"].iter().any(|text| error.contains(text)), "{error}");
        }
    }

    #[test]
    fn serial_ports() {
        assert_eq!(serial("file:a:b"), Ok(Serial::File("a:b".into())));
        assert_eq!((serial("stdio"), serial("none")), (Ok(Serial::Console), Ok(Serial::None)));
        assert!(serial("file:").is_err() && serial("tcp:1").is_err());
    }
}

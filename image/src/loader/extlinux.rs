//! `extlinux.conf`, as U-Boot's standard boot and u-boot-menu have it (U-Boot's doc/README.pxe).

use super::{Candidate, Config, MAX_ENTRIES};
use crate::volumes::Place;

/// Where U-Boot looks for it.
pub(crate) const PATHS: &[&str] = &["/extlinux/extlinux.conf", "/boot/extlinux/extlinux.conf"];

#[derive(Default)]
struct Label {
    name: String,
    title: Option<String>,
    kernel: Option<String>,
    initrd: Option<String>,
    devicetree: Option<String>,
    append: String,
}

/// Reads the configuration at `at`. Paths that do not start with `/` count from its directory.
pub(crate) fn read(text: &str, at: &Place) -> Config {
    let mut labels: Vec<Label> = Vec::new();
    let mut default = None;
    for line in text.lines() {
        let line = line.trim();
        let (keyword, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let (mut keyword, mut rest) = (keyword.to_ascii_lowercase(), rest.trim());
        if keyword == "menu" {
            let (second, text) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            keyword = format!("menu {}", second.to_ascii_lowercase());
            rest = text.trim();
        }
        let value = || Some(rest.to_owned());
        if keyword == "label" {
            if labels.len() == MAX_ENTRIES {
                break;
            }
            labels.push(Label { name: rest.to_owned(), ..Label::default() });
        }
        match (keyword.as_str(), labels.last_mut()) {
            ("default", _) => default = value(),
            ("menu default", Some(label)) => default = Some(label.name.clone()),
            ("menu label", Some(label)) => label.title = Some(rest.replace('^', "")),
            ("kernel" | "linux", Some(label)) => label.kernel = value(),
            ("initrd", Some(label)) => label.initrd = value(),
            ("fdt" | "devicetree", Some(label)) => label.devicetree = value(),
            ("append", Some(label)) => label.append = rest.to_owned(),
            _ => {}
        }
    }
    let directory = at.path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let place = |path: &str| {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("{directory}/{path}") };
        Place { volume: at.volume, path }
    };
    let mut config = Config::default();
    let mut chosen = None;
    for label in labels {
        let Some(kernel) = label.kernel.filter(|kernel| !kernel.is_empty()) else {
            config.problems.push(format!("label `{}` names no kernel", label.name));
            continue;
        };
        if default.as_deref() == Some(label.name.as_str()) {
            chosen.get_or_insert(config.entries.len());
        }
        // Syslinux takes the initrd from the command line, too.
        let inline = label.append.split_whitespace().find_map(|word| word.strip_prefix("initrd="));
        let initrds = label.initrd.as_deref().or(inline).unwrap_or_default();
        config.entries.push(Candidate {
            titles: vec![label.title.unwrap_or_else(|| label.name.clone())],
            id: Some(label.name),
            kernel: place(&kernel),
            initrds: initrds.split(',').filter(|path| !path.is_empty()).map(place).collect(),
            devicetree: label.devicetree.filter(|path| !path.is_empty()).map(|path| place(&path)),
            options: label.append,
        });
    }
    config.default = chosen.unwrap_or(0);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "\
## /boot/extlinux/extlinux.conf
default l1
menu title U-Boot menu
prompt 0
timeout 50

label l0
\tmenu label Debian GNU/Linux 13 (trixie) 6.12.48+deb13-riscv64
\tlinux /boot/vmlinux-6.12.48+deb13-riscv64
\tinitrd /boot/initrd.img-6.12.48+deb13-riscv64
\tfdtdir /usr/lib/linux-image-6.12.48+deb13-riscv64/
\tappend root=/dev/vda1 ro quiet

LABEL l1
\tMENU LABEL ^Older
\tKERNEL ../vmlinux-old
\tFDT /boot/board.dtb
\tAPPEND ro initrd=/a,b
label l2
\tlocalboot 1
";

    #[test]
    fn labels_become_entries() {
        let at = Place { volume: 3, path: "/boot/extlinux/extlinux.conf".into() };
        let config = read(DEBIAN, &at);
        let place = |path: &str| Place { volume: 3, path: path.into() };
        assert_eq!(config.entries.len(), 2);
        assert_eq!(config.default, 1);
        assert_eq!(config.problems, ["label `l2` names no kernel"]);
        let first = &config.entries[0];
        assert_eq!(first.titles, ["Debian GNU/Linux 13 (trixie) 6.12.48+deb13-riscv64"]);
        assert_eq!(first.id.as_deref(), Some("l0"));
        assert_eq!(first.kernel, place("/boot/vmlinux-6.12.48+deb13-riscv64"));
        assert_eq!(first.initrds, [place("/boot/initrd.img-6.12.48+deb13-riscv64")]);
        assert_eq!((first.options.as_str(), &first.devicetree), ("root=/dev/vda1 ro quiet", &None));
        let second = &config.entries[1];
        assert_eq!(second.titles, ["Older"]);
        assert_eq!(second.kernel, place("/boot/extlinux/../vmlinux-old"));
        assert_eq!(second.initrds, [place("/a"), place("/boot/extlinux/b")]);
        assert_eq!(second.devicetree, Some(place("/boot/board.dtb")));
    }

    #[test]
    fn ten_thousand_mistakes_do_no_harm() {
        let at = Place { volume: 0, path: "/extlinux/extlinux.conf".into() };
        let pieces = [
            "label ",
            "menu ",
            "menu default\n",
            "default ",
            "\0",
            "initrd=,,",
            "../",
            "é",
            "append\n",
            "fdt\n",
        ];
        crate::loader::mistakes::ten_thousand(DEBIAN, &pieces, &mut |text| {
            let config = read(text, &at);
            assert!(config.default < config.entries.len().max(1));
            assert!(config.entries.iter().all(|entry| entry.kernel.path.starts_with('/')));
        });
    }
}

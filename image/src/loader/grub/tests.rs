//! Configurations as distributions generate them, on volumes that are made of strings.

use std::collections::HashMap;

use super::*;

/// Volumes `hd0,gpt1` and `hd0,gpt15`, as on Ubuntu's disks.
#[derive(Default)]
struct Disk(HashMap<(usize, String), String>);

const ROOT: usize = 0;
const ESP: usize = 1;
const ROOT_UUID: &str = "0b1c3fae-0000-4c5e-9d3c-aaaaaaaaaaaa";

impl Disk {
    fn with(mut self, volume: usize, path: &str, text: &str) -> Self {
        self.0.insert((volume, path.into()), text.into());
        self
    }
}

impl Files for Disk {
    fn read(&self, place: &Place) -> Result<Vec<u8>, FsError> {
        let text = self.0.get(&(place.volume, place.path.clone()));
        text.map(|text| text.clone().into_bytes()).ok_or(FsError::NotFound)
    }

    fn stat(&self, place: &Place) -> Result<Stat, FsError> {
        self.read(place).map(|bytes| Stat::File(bytes.len() as u64))
    }

    fn by_name(&self, name: &str) -> Option<usize> {
        ["hd0,gpt1", "hd0,gpt15"].iter().position(|other| *other == name)
    }

    fn name(&self, volume: usize) -> String {
        ["hd0,gpt1", "hd0,gpt15"][volume].into()
    }

    fn search(&self, wanted: &dyn Fn(&str, &str, usize) -> bool) -> Option<usize> {
        [ROOT, ESP].into_iter().find(|&volume| {
            let (label, uuid, _) = self.about(volume);
            wanted(&label, &uuid, volume)
        })
    }

    fn about(&self, volume: usize) -> (String, String, String) {
        let volumes = [("cloudimg-rootfs", ROOT_UUID, "ext4"), ("UEFI", "1234-ABCD", "fat")];
        let (label, uuid, kind) = volumes[volume];
        (label.into(), uuid.into(), kind.into())
    }

    fn loader_entries(&self, volume: usize, directory: &str) -> Vec<super::super::systemd_boot::Entry> {
        let mut files: Vec<_> =
            self.0.iter().filter(|((on, path), _)| *on == volume && path.starts_with(directory)).collect();
        files.sort();
        let name = |path: &str| path.rsplit('/').next().unwrap().to_owned();
        files
            .iter()
            .map(|((_, path), text)| super::super::systemd_boot::Entry::parse(&name(path), text))
            .collect()
    }
}

fn config(volume: usize, text: &str) -> Config {
    let path = "/boot/grub/grub.cfg";
    read(&Disk::default().with(volume, path, text), &Place { volume, path: path.into() })
}

/// The only entry of a script, as path and options.
fn only(text: &str) -> (String, String) {
    let config = config(ROOT, text);
    assert_eq!(config.entries.len(), 1, "{config:?}");
    (config.entries[0].kernel.path.clone(), config.entries[0].options.clone())
}

/// The structure of what grub-mkconfig writes on Ubuntu.
const UBUNTU: &str = r#"
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="${saved_entry}"
fi
if [ x"${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi
export menuentry_id_option
function recordfail {
  set recordfail=1
  if [ -n "${have_grubenv}" ]; then if [ -z "${boot_once}" ]; then save_env recordfail; fi; fi
}
function load_video {
  if [ x$feature_all_video_module = xy ]; then
    insmod all_video
  else
    insmod efi_gop
  fi
}
function gfxmode {
	set gfxpayload="${1}"
	if [ "${1}" = "keep" ]; then
		set vt_handoff=vt.handoff=7
	else
		set vt_handoff=
	fi
}
if [ "${recordfail}" != 1 ]; then
  if [ -e ${prefix}/gfxblacklist.txt ]; then
    if [ ${grub_platform} != pc ]; then
      set linux_gfx_mode=keep
    elif hwmatch ${prefix}/gfxblacklist.txt 3; then
      if [ ${match} = 0 ]; then set linux_gfx_mode=keep; else set linux_gfx_mode=text; fi
    else
      set linux_gfx_mode=text
    fi
  else
    set linux_gfx_mode=keep
  fi
else
  set linux_gfx_mode=text
fi
export linux_gfx_mode
menuentry 'Ubuntu' --class ubuntu --class gnu-linux $menuentry_id_option 'gnulinux-simple-%U' {
	recordfail
	load_video
	gfxmode $linux_gfx_mode
	insmod gzio
	if [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
	insmod part_gpt
	if [ x$feature_platform_search_hint = xy ]; then
	  search --no-floppy --fs-uuid --set=root --hint-ieee1275='ieee1275//disk@0,gpt1' --hint-efi=hd0,gpt1 %U
	else
	  search --no-floppy --fs-uuid --set=root %U
	fi
	linux	/boot/vmlinuz-6.8.0-60-generic root=UUID=%U ro  quiet splash $vt_handoff
	initrd	/boot/initrd.img-6.8.0-60-generic
}
submenu 'Advanced options for Ubuntu' $menuentry_id_option 'gnulinux-advanced-%U' {
	menuentry 'Ubuntu, with Linux 6.8.0-60-generic' --class ubuntu $menuentry_id_option 'gnulinux-6.8.0-60-generic-advanced-%U' {
		gfxmode $linux_gfx_mode
		linux	/boot/vmlinuz-6.8.0-60-generic root=UUID=%U ro  quiet splash $vt_handoff
		initrd	/boot/initrd.img-6.8.0-60-generic
	}
	menuentry 'Ubuntu, with Linux 6.8.0-31-generic' --class ubuntu $menuentry_id_option 'gnulinux-6.8.0-31-generic-advanced-%U' {
		linux	/boot/vmlinuz-6.8.0-31-generic root=UUID=%U ro
		initrd	/boot/initrd.img-6.8.0-31-generic /boot/extra.img
		devicetree /boot/dtb-6.8.0-31-generic
	}
}
if [ "$grub_platform" = "efi" ]; then
	fwsetup --is-supported
	if [ "$?" = 0 ]; then
		menuentry 'UEFI Firmware Settings' $menuentry_id_option 'uefi-firmware' { fwsetup }
	fi
fi
if [ -f  ${config_directory}/custom.cfg ]; then
  source ${config_directory}/custom.cfg
elif [ -z "${config_directory}" -a -f  $prefix/custom.cfg ]; then
  source $prefix/custom.cfg
fi
"#;

const ESP_CFG: &str =
    "search.fs_uuid %U root \nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n";

fn ubuntu(grubenv: &str) -> Config {
    let disk = Disk::default()
        .with(ESP, "/EFI/ubuntu/grub.cfg", &ESP_CFG.replace("%U", ROOT_UUID))
        .with(ROOT, "/boot/grub/grub.cfg", &UBUNTU.replace("%U", ROOT_UUID))
        .with(ROOT, "/boot/grub/grubenv", &format!("# GRUB Environment Block\n{grubenv}\n#######"))
        .with(ROOT, "/boot/grub/custom.cfg", "menuentry mine { linux (hd0,gpt15)/mine; }");
    read(&disk, &Place { volume: ESP, path: "/EFI/ubuntu/grub.cfg".into() })
}

#[test]
fn the_small_file_of_the_esp_leads_to_the_menu() {
    let config = ubuntu("");
    assert_eq!(config.problems, Vec::<String>::new());
    assert_eq!(config.entries.len(), 4);
    assert_eq!(config.default, 0);
    let place = |path: &str| Place { volume: ROOT, path: path.into() };
    let first = &config.entries[0];
    assert_eq!(first.titles, ["Ubuntu"]);
    assert_eq!(first.kernel, place("/boot/vmlinuz-6.8.0-60-generic"));
    assert_eq!(first.initrds, [place("/boot/initrd.img-6.8.0-60-generic")]);
    assert_eq!(first.options, format!("root=UUID={ROOT_UUID} ro quiet splash vt.handoff=7"));
    let third = &config.entries[2];
    assert_eq!(third.titles, ["Advanced options for Ubuntu", "Ubuntu, with Linux 6.8.0-31-generic"]);
    assert_eq!(third.initrds, [place("/boot/initrd.img-6.8.0-31-generic"), place("/boot/extra.img")]);
    assert_eq!(third.devicetree, Some(place("/boot/dtb-6.8.0-31-generic")));
    assert_eq!(config.entries[3].kernel, Place { volume: ESP, path: "/mine".into() });
}

#[test]
fn the_environment_chooses() {
    let default = |grubenv: &str| ubuntu(grubenv).default;
    assert_eq!(default("saved_entry=1"), 1, "the first of the submenu");
    assert_eq!(default("saved_entry=1>1"), 2);
    assert_eq!(default("saved_entry=mine"), 3);
    let old = format!("gnulinux-advanced-{ROOT_UUID}>gnulinux-6.8.0-31-generic-advanced-{ROOT_UUID}");
    assert_eq!(default(&format!("saved_entry={old}")), 2);
    assert_eq!(default(&format!("saved_entry=0\nnext_entry={old}")), 2);
    assert_eq!(default("saved_entry=gone"), 0);
}

#[test]
fn identifiers_are_those_of_the_lines() {
    let config = ubuntu("");
    assert_eq!(config.entries[0].id, Some(format!("gnulinux-simple-{ROOT_UUID}")));
}

#[test]
fn variables_and_conditions_are_those_of_grub() {
    assert_eq!(
        only("set a=\"b  c\"\nmenuentry x { linux /k $a \"$a\" '$a' x$none $none; }").1,
        "b c b  c $a x"
    );
    assert_eq!(only("function f { k=/k-$1; }\nf 7 8\nmenuentry x { linux $k $#; }").0, "/k-7");
    assert_eq!(
        only("for i in 1 2 3; do if [ $i = 2 ]; then break; fi; k=/$i; done; menuentry x { linux $k; }").0,
        "/1"
    );
    assert_eq!(only("i=a; while [ $i != aaa ]; do i=${i}a; done; menuentry x { linux /$i; }").0, "/aaa");
    assert_eq!(
        only("if false || ! true; then k=/a; elif true && [ a ]; then k=/b; fi; menuentry x { linux $k }").0,
        "/b"
    );
    assert_eq!(only("menuentry title second { linux /$2 }").0, "/second");
    assert_eq!(only("eval 'menuentry x { linux /e }'").0, "/e");
    assert_eq!(only("function f { k=/a; return; k=/b; }; f; menuentry x { linux $k }").0, "/a");
    assert_eq!(only("linux /direct a=b\ninitrd /i\nboot"), ("/direct".into(), "a=b".into()));
    assert_eq!(only("probe --set=u --fs-uuid $root; menuentry x { linux /k $u }").1, ROOT_UUID);
    assert_eq!(only("search --label UEFI; menuentry x { linux /k $root }").1, "hd0,gpt1", "it only looks");
    assert_eq!(only("search --set --label UEFI; menuentry x { linux /k $root }").1, "hd0,gpt15");
    assert_eq!(
        only("search -f /boot/grub/grub.cfg --set=a --hint x; menuentry x { linux /k $a }").1,
        "hd0,gpt1"
    );
}

#[test]
fn entries_that_start_no_kernel_are_problems() {
    let config = config(
        ROOT,
        "menuentry a { chainloader /x }\nmenuentry b { true }\nmenuentry c { linux /k }\nset default=1",
    );
    assert_eq!(
        config.problems,
        ["entry `a` starts something else with `chainloader`", "entry `b` starts no kernel with `linux`"]
    );
    assert_eq!((config.entries.len(), config.default), (1, 0));
}

#[test]
fn an_entry_may_lead_to_another_menu() {
    let disk = Disk::default()
        .with(ROOT, "/boot/grub/grub.cfg", "menuentry more { configfile (hd0,gpt15)/grub.cfg }")
        .with(ESP, "/grub.cfg", "menuentry inner { linux ($root)/k }");
    let config = read(&disk, &Place { volume: ROOT, path: "/boot/grub/grub.cfg".into() });
    assert_eq!(config.entries[0].titles, ["more", "inner"]);
}

#[test]
fn loader_entries_are_those_of_fedora() {
    let entry = "title Fedora\nversion 6.17\nlinux /vmlinuz-6.17\ninitrd /initramfs-6.17.img $tuned_initrd\noptions root=/dev/vda3 $kernelopts\n";
    let disk = Disk::default()
        .with(ROOT, "/grub2/grub.cfg", "set kernelopts='ro quiet'\ninsmod blscfg\nblscfg\n")
        .with(ROOT, "/loader/entries/a.conf", entry);
    let config = read(&disk, &Place { volume: ROOT, path: "/grub2/grub.cfg".into() });
    assert_eq!(config.entries[0].titles, ["Fedora (6.17)"]);
    assert_eq!(config.entries[0].options, "root=/dev/vda3 ro quiet");
    assert_eq!(config.entries[0].initrds.len(), 1);
}

#[test]
fn scripts_that_do_not_end_are_ended() {
    let problem = |text: &str| config(ROOT, text).problems.join(" ");
    assert!(problem("while true; do true; done").contains("too many steps"));
    assert!(problem("function f { f; }; f").contains("nested too deeply"));
    assert!(problem("function f { f; f; }; f").contains("nested too deeply"));
    assert!(problem("a=xx; while true; do a=$a$a; done").contains("too much memory"));
    assert!(problem("while true; do menuentry x { linux /k; }; done").contains("too long"));
    assert!(problem("source /boot/grub/grub.cfg").contains("nested too deeply"));
    assert!(problem("configfile /boot/grub/grub.cfg").contains("nested too deeply"));
    assert!(problem("menuentry x { configfile /boot/grub/grub.cfg; }").contains("nested too deeply"));
    assert!(problem("a='eval $a'; eval $a").contains("nested too deeply"));
    assert!(problem("if true; then").contains("line 1: `fi` is missing"));
}

#[test]
fn ten_thousand_mistakes_do_no_harm() {
    let pieces = [
        "{",
        "}",
        "'",
        "\"",
        "$",
        "${",
        "\\",
        "\n",
        ";",
        "&&",
        "||",
        "if ",
        "fi ",
        "then ",
        "else ",
        "while true; do ",
        "done ",
        "for i in $@ ; do ",
        "function f { ",
        "menuentry x { ",
        "submenu y { ",
        "eval ",
        "configfile $prefix/grub.cfg\n",
        "source $prefix/grub.cfg\n",
        "linux /k\n",
        "set a=$a$a$a ",
        "shift 9 ",
        "break 9 ",
        "return ",
        "[ ",
        " ]",
        "! ",
        "( ",
        "search --set ",
        "é",
        "\0",
        "load_env\n",
        "blscfg\n",
        "default=0>0>0 ",
    ];
    let at = Place { volume: ROOT, path: "/boot/grub/grub.cfg".into() };
    let mut entries = 0;
    super::super::mistakes::ten_thousand(UBUNTU, &pieces, &mut |text| {
        let disk = Disk::default().with(ROOT, "/boot/grub/grub.cfg", text).with(
            ROOT,
            "/boot/grub/grubenv",
            "saved_entry=1>0\n",
        );
        let config = read(&disk, &at);
        assert!(config.default < config.entries.len().max(1));
        assert!(config.problems.len() < 2000);
        entries += config.entries.len();
    });
    assert!(entries > 1000, "{entries}: most variants are hardly wrong");
}

//! Whole disks through the public interface: what would be booted from them, and that damaged ones do no harm.

#[path = "../../tests/harness/disks.rs"]
mod disks;

use std::io;
use std::sync::Arc;

use disks::{EXT4_UUID, Fat, ISO_UUID, ext4, fat, gpt, iso9660};
use image::{BootError, Source, load, menu};

const LIMIT: u64 = 64 << 20;

fn kernel() -> Vec<u8> {
    (0..5000_u32).map(|index| (index * 7) as u8).collect()
}

/// A root file system as Ubuntu has it.
fn root() -> Vec<u8> {
    let kernel = kernel();
    let config = "\
        if [ -s $prefix/grubenv ]; then load_env; fi\nset default=\"${saved_entry}\"\n\
        menuentry 'New' --id new {\n search --no-floppy --label --set=root cloudimg-rootfs\n\
        linux /boot/vmlinuz root=LABEL=cloudimg-rootfs ro\n initrd /boot/initrd.img-6.8 /boot/more\n}\n\
        submenu Advanced {\nmenuentry 'Old' --id old {\n linux /boot/vmlinuz-6.5 ro single\n}\n\
        menuentry 'Gone' {\n linux /boot/vmlinuz-6.1\n}\n}\n";
    ext4(&[
        ("/boot/grub/grub.cfg", config.as_bytes()),
        ("/boot/grub/grubenv", b"# GRUB Environment Block\nsaved_entry=new\n####"),
        ("/boot/vmlinuz", b"-> vmlinuz-6.8"),
        ("/boot/vmlinuz-6.8", &kernel),
        ("/boot/vmlinuz-6.5", b"old"),
        ("/boot/initrd.img-6.8", b"initrd"),
        ("/boot/more", b"more"),
        ("/boot/board.dtb", b"tree"),
    ])
}

/// A disk as Ubuntu has it: the small configuration on the EFI system partition leads to the root.
fn ubuntu() -> Vec<u8> {
    let config = format!(
        "search.fs_uuid {EXT4_UUID} root\nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n"
    );
    let esp =
        fat(&[("/EFI/ubuntu/grub.cfg", config.as_bytes()), ("/EFI/BOOT/BOOTRISCV64.EFI", b"MZ")], Fat::Fat12);
    gpt(&[(15, &esp), (1, &root())])
}

/// A disk as Ubuntu's cloud images have it since 24.04: `/boot` is partition 13, and paths of its configuration begin there.
fn ubuntu_with_boot_partition() -> Vec<u8> {
    const UUID: &str = "10101010-1010-1010-1010-101010101010";
    let config = format!(
        "if [ -s $prefix/grubenv ]; then load_env; fi\nset default=0\nmenuentry 'Ubuntu' --id simple {{\n\
         search --no-floppy --fs-uuid --set=root --hint-efi=hd0,gpt13 {UUID}\n\
         linux /vmlinuz-6.8.0-60-generic root=LABEL=cloudimg-rootfs ro efi=debug earlycon=sbi\n\
         initrd /initrd.img-6.8.0-60-generic\n}}\n"
    );
    let mut boot = ext4(&[
        ("/grub/grub.cfg", config.as_bytes()),
        ("/vmlinuz", b"-> vmlinuz-6.8.0-60-generic"),
        ("/vmlinuz-6.8.0-60-generic", &kernel()),
        ("/initrd.img-6.8.0-60-generic", b"initrd"),
    ]);
    // Identifier and label of its superblock.
    boot[1024 + 0x68..][..16].fill(0x10);
    boot[1024 + 0x78..][..16].copy_from_slice(b"BOOT\0\0\0\0\0\0\0\0\0\0\0\0");
    // The root has an empty directory where it is mounted.
    let root = ext4(&[("/boot/empty", b""), ("/etc/fstab", b"LABEL=BOOT /boot ext4 defaults 0 2\n")]);
    let esp = format!("search.fs_uuid {UUID} root\nset prefix=($root)'/grub'\nconfigfile $prefix/grub.cfg\n");
    let esp = fat(&[("/EFI/ubuntu/grub.cfg", esp.as_bytes())], Fat::Fat12);
    gpt(&[(13, &boot), (15, &esp), (1, &root)])
}

fn systemd_boot(width: Fat) -> Vec<u8> {
    let entry = "title Linux\nversion 6.10\nlinux /vmlinuz-6.10\ninitrd /initrd\noptions ro\noptions quiet\ndevicetree /board.dtb\n";
    let files: [(&str, &[u8]); 5] = [
        ("/loader/entries/linux-6.10.conf", entry.as_bytes()),
        ("/loader/loader.conf", b"default linux-*\n"),
        ("/vmlinuz-6.10", &kernel()),
        ("/initrd", b"initrd"),
        ("/board.dtb", b"tree"),
    ];
    gpt(&[(1, &fat(&files, width))])
}

fn extlinux() -> Vec<u8> {
    let config =
        b"default l1\nlabel l0\nlinux /vmlinux\nlabel l1\nlinux /vmlinux\ninitrd /initrd\nappend ro\n";
    ext4(&[("/extlinux/extlinux.conf", config), ("/vmlinux", &kernel()), ("/initrd", b"initrd")])
}

fn installer() -> Vec<u8> {
    let config = "if loadfont $prefix/font.pf2 ; then\n set gfxmode=auto\nfi\nmenuentry --hotkey=i 'Install' {\n\
        set background_color=black\n linux /install.riscv64/vmlinuz --- quiet\n initrd /install.riscv64/initrd.gz\n}\n";
    iso9660(&[
        ("/boot/grub/grub.cfg", config.as_bytes()),
        ("/install.riscv64/vmlinuz", &kernel()),
        ("/install.riscv64/initrd.gz", b"initrd"),
        ("/README.html", b"text"),
    ])
}

fn boot(disk: Vec<u8>, choice: Option<&str>) -> image::Boot {
    load(Arc::new(disk), choice, LIMIT).unwrap()
}

#[test]
fn ubuntu_boots_what_its_grub_would() {
    let boot = boot(ubuntu(), None);
    assert_eq!(boot.kernel, kernel());
    assert_eq!(boot.initrd.unwrap(), b"initrd\0\0more");
    assert_eq!(boot.options, "root=LABEL=cloudimg-rootfs ro");
    assert_eq!(boot.title, "New");
    let summary = load(Arc::new(ubuntu()), None, LIMIT).unwrap().to_string();
    assert_eq!(
        summary,
        "`New`: /boot/vmlinuz on partition 1, /boot/initrd.img-6.8, /boot/more, by /EFI/ubuntu/grub.cfg on partition 15"
    );
}

#[test]
fn a_boot_partition_of_its_own_is_found() {
    let boot = boot(ubuntu_with_boot_partition(), None);
    assert_eq!((boot.kernel.as_slice(), boot.initrd.as_deref()), (&kernel()[..], Some(&b"initrd"[..])));
    assert_eq!(boot.options, "root=LABEL=cloudimg-rootfs ro efi=debug earlycon=sbi");
    assert_eq!(boot.kernel_name, "/vmlinuz-6.8.0-60-generic on partition 13");
    assert_eq!(boot.config, "/EFI/ubuntu/grub.cfg on partition 15");
}

#[test]
fn entries_are_chosen_by_number_name_and_version() {
    let menu = menu(Arc::new(ubuntu())).unwrap();
    let titles: Vec<&str> = menu.entries.iter().map(|entry| entry.title.as_str()).collect();
    assert_eq!(titles, ["New", "Advanced > Old"], "an entry without kernel is left out");
    for choice in ["1", "old", "Old", "Advanced > Old", "6.5", "vmlinuz-6.5"] {
        assert_eq!(menu.select(choice), Some(1), "{choice}");
    }
    for choice in ["2", "-1", "", "Gone", "6.1"] {
        assert_eq!(menu.select(choice), None, "{choice}");
    }
    assert_eq!(boot(ubuntu(), Some("old")).options, "ro single");
    let error = load(Arc::new(ubuntu()), Some("6.1"), LIMIT).unwrap_err().to_string();
    assert!(error.contains("no entry `6.1`") && error.contains("* 0  New  (/boot/vmlinuz)"), "{error}");
}

#[test]
fn loader_entries_are_read_from_every_fat() {
    for width in [Fat::Fat12, Fat::Fat16, Fat::Fat32] {
        let boot = boot(systemd_boot(width), None);
        assert_eq!((boot.kernel, boot.options.as_str()), (kernel(), "ro quiet"), "{width:?}");
        assert_eq!(boot.devicetree.as_deref(), Some(&b"tree"[..]));
        assert_eq!(boot.title, "Linux (6.10)");
    }
}

#[test]
fn a_file_system_without_partitions_boots() {
    let boot = boot(extlinux(), None);
    assert_eq!((boot.kernel, boot.initrd.unwrap()), (kernel(), b"initrd".to_vec()));
    assert_eq!(boot.config, "/extlinux/extlinux.conf on the whole disk");
}

#[test]
fn an_installer_disc_boots_with_and_without_partitions() {
    let plain = boot(installer(), None);
    assert_eq!((plain.kernel, plain.options.as_str()), (kernel(), "--- quiet"));
    // Hybrid: the same with an EFI system partition in a table before the file system's own start.
    let config =
        format!("search.fs_uuid {ISO_UUID} root\nset prefix=($root)/boot/grub\nsource $prefix/grub.cfg\n");
    let esp = fat(&[("/EFI/debian/grub.cfg", config.as_bytes())], Fat::Fat12);
    let table = gpt(&[(2, &esp)]);
    let mut disc = installer();
    let at = disc.len();
    disc.extend_from_slice(&table);
    // An MBR that names the partition where it now is.
    let start = (at / 512 + 64) as u32;
    disc[0x1fe..0x200].copy_from_slice(b"\x55\xaa");
    disc[0x1c2] = 0xef;
    disc[0x1c6..0x1ca].copy_from_slice(&start.to_le_bytes());
    disc[0x1ca..0x1ce].copy_from_slice(&(esp.len() as u32 / 512).to_le_bytes());
    let hybrid = boot(disc, None);
    assert_eq!((hybrid.kernel, hybrid.options.as_str()), (kernel(), "--- quiet"));
    assert_eq!(hybrid.config, "/EFI/debian/grub.cfg on partition 1");
}

#[test]
fn what_is_missing_is_said() {
    let error = |disk: Vec<u8>| load(Arc::new(disk), None, LIMIT).unwrap_err().to_string();
    let text = error(gpt(&[(1, &ext4(&[("/a", b"")])), (2, &fat(&[("/b", b"b")], Fat::Fat12))]));
    for part in [
        "grub.cfg",
        "extlinux.conf",
        "loader/entries",
        "GPT with 2 partitions",
        "partition 1 is ext4 `cloudimg-rootfs`",
        "partition 2 is FAT `UEFI`",
    ] {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
    let text = error(vec![0; 1 << 20]);
    assert!(text.contains("no partition table; no known file system"), "{text}");
    let text = error(ext4(&[("/extlinux/extlinux.conf", b"label a\nlinux /gone\n")]));
    assert!(text.contains("entry `a`: /gone on the whole disk: there is no such file"), "{text}");
    let mut btrfs = vec![0; 1 << 20];
    btrfs[0x1_0040..0x1_0048].copy_from_slice(b"_BHRfS_M");
    let text = error(gpt(&[(1, &btrfs)]));
    assert!(text.contains("partition 1 is btrfs: the file system cannot be read (only ext4"), "{text}");
    let result = load(Arc::new(extlinux()), None, 4000);
    assert!(
        matches!(&result, Err(BootError::File { file, .. }) if file.starts_with("/vmlinux on")),
        "{result:?}"
    );
}

/// A disk with some bytes changed.
struct Damaged {
    disk: Arc<Vec<u8>>,
    changes: Vec<(u64, Vec<u8>)>,
}

impl Source for Damaged {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, into)?;
        for (at, bytes) in &self.changes {
            for (at, byte) in (*at..).zip(bytes) {
                if let Some(place) =
                    at.checked_sub(offset).and_then(|index| into.get_mut(usize::try_from(index).ok()?))
                {
                    *place = *byte;
                }
            }
        }
        Ok(())
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    /// A number as bugs like it.
    fn bytes(&mut self) -> Vec<u8> {
        let value = match self.below(6) {
            0 => 0_u64,
            1 => u64::MAX,
            2 => 1 << self.below(64),
            3 => (1 << self.below(64)) - 1,
            _ => self.below(256) as u64,
        };
        value.to_le_bytes()[..1 << self.below(4)].to_vec()
    }
}

/// Ten thousand variants of a disk, changed in bytes that are not zero, which is where structures are.
fn damage(disk: Vec<u8>, seed: u64, skip: std::ops::Range<usize>) {
    let places: Vec<usize> = (0..disk.len()).filter(|&at| disk[at] != 0 && !skip.contains(&at)).collect();
    let disk = Arc::new(disk);
    let mut random = Random(seed);
    let mut bootable = 0;
    for round in 0..10_000 {
        let changes = (0..=random.below(4)).map(|_| {
            let near = places[random.below(places.len())].saturating_sub(random.below(4));
            (near as u64, random.bytes())
        });
        let damaged = Damaged { disk: Arc::clone(&disk), changes: changes.collect() };
        match load(Arc::new(damaged), None, LIMIT) {
            Ok(boot) => {
                assert!(boot.kernel.len() as u64 <= LIMIT);
                bootable += 1;
            }
            Err(BootError::Hopeless) => panic!("round {round}: a panic or an endless loop"),
            Err(error) => assert!(error.to_string().len() < 1 << 20),
        }
    }
    assert!(peak_mib() < 512, "{} MiB were in use at once", peak_mib());
    assert!(
        (100..10_000).contains(&bootable),
        "{bootable} variants still boot: the damage is too great or too small"
    );
}

/// The most memory that this process has had, with all tests that run in it.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() >> 10
}

/// Where in a disk made with [`kernel`] that is, which is not worth damaging.
fn kernel_in(disk: &[u8]) -> std::ops::Range<usize> {
    let at = disk.windows(64).position(|window| window == &kernel()[..64]).unwrap();
    at..at + kernel().len()
}

#[test]
fn damaged_disks_with_gpt_fat_ext4_and_grub_do_no_harm() {
    let disk = ubuntu();
    let skip = kernel_in(&disk);
    damage(disk, 1, skip);
}

#[test]
fn damaged_ext4_does_no_harm() {
    let disk = extlinux();
    let skip = kernel_in(&disk);
    damage(disk, 2, skip);
}

#[test]
fn damaged_fat_does_no_harm() {
    let disk = systemd_boot(Fat::Fat12);
    let skip = kernel_in(&disk);
    damage(disk, 3, skip);
}

#[test]
fn damaged_iso9660_does_no_harm() {
    let disk = installer();
    let skip = kernel_in(&disk);
    damage(disk, 4, skip);
}

//! `hartvm run IMAGE`: programs, disks that boot by their loader's configuration, packed disks, and what is none of these.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::process::Signal;

use crate::disks::{Fat, ext4, fat, gpt, iso9660};
use crate::guest::{PASS, Program, RAM, RESET, greeter, sleeper};
use crate::support::{Dir, Running, hartvm, refused, run};
use crate::virtio::{QUEUE, disk_writer, flush, write_sector};

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A program as an ELF file that is linked for the start of RAM, where it runs in machine mode.
fn elf(program: &[u8]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(120, 0);
    let size = program.len() as u64;
    let numbers: [(usize, u64, usize); 14] = [
        (16, 2, 2),
        (18, 243, 2),
        (20, 1, 4),
        (24, RAM, 8),
        (32, 64, 8),
        (52, 64, 2),
        (54, 56, 2),
        (56, 1, 2),
        (64, 1, 4),
        (68, 7, 4),
        (72, 120, 8),
        (88, RAM, 8),
        (96, size, 8),
        (104, size, 8),
    ];
    for (at, number, length) in numbers {
        file[at..at + length].copy_from_slice(&number.to_le_bytes()[..length]);
    }
    file[80..88].copy_from_slice(&RAM.to_le_bytes());
    file.extend_from_slice(program);
    file
}

/// A program as a Linux Image, which runs in supervisor mode over the built-in SBI.
fn linux(program: &[u8]) -> Vec<u8> {
    // A jump over the header.
    let mut file = 0x0400_006f_u32.to_le_bytes().to_vec();
    file.resize(64, 0);
    file[0x38..0x3c].copy_from_slice(b"RSC\x05");
    file.extend_from_slice(program);
    file
}

/// A disk with two entries in GRUB's menu.
fn disk() -> Vec<u8> {
    let config = "set default=0\n\
        menuentry 'First' --id one {\n linux /boot/vmlinuz-1.0 root=LABEL=cloudimg-rootfs ro\n initrd /boot/initrd\n}\n\
        submenu 'More' {\nmenuentry 'Second' --id two {\n linux /boot/vmlinuz-2.0 single\n}\n}\n";
    let root = ext4(&[
        ("/boot/grub/grub.cfg", config.as_bytes()),
        ("/boot/vmlinuz-1.0", &linux(&greeter("one", 11))),
        ("/boot/vmlinuz-2.0", &linux(&greeter("two", 22))),
        ("/boot/initrd", &[7; 5000]),
    ]);
    gpt(&[(1, &root), (15, &fat(&[("/EFI/BOOT/BOOTRISCV64.EFI", b"MZ")], Fat::Fat12))])
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_disk_boots_by_itself_and_says_what() {
    let dir = Dir::new();
    let image = dir.file("disk.raw", &disk());
    let outcome = run(hartvm().arg("run").arg(&image));
    assert_eq!((outcome.code(), &outcome.stdout[..]), (11, &b"one"[..]), "{}", outcome.stderr);
    let path = text(&image);
    assert_eq!(
        outcome.stderr,
        format!(
            "hartvm: {path}: `First`: /boot/vmlinuz-1.0 on partition 1, /boot/initrd, by /boot/grub/grub.cfg on partition 1\n"
        )
    );
    assert!(std::fs::read(&image).unwrap() == disk(), "nothing was written");
}

#[test]
fn entries_are_listed_and_chosen() {
    let dir = Dir::new();
    let image = text(&dir.file("disk.raw", &disk()));
    let outcome = run(hartvm().args(["run", &image, "--boot", "menu"]));
    assert_eq!(outcome.code(), 0, "{}", outcome.stderr);
    let menu = String::from_utf8(outcome.stdout).unwrap();
    for line in [" * 0  First  (/boot/vmlinuz-1.0)", "   1  More > Second  (/boot/vmlinuz-2.0)"] {
        assert!(menu.lines().any(|other| other == line), "no `{line}` in: {menu}");
    }
    for choice in ["1", "two", "second", "2.0"] {
        assert_eq!(run(hartvm().args(["run", &image, "--boot", choice])).code(), 22, "{choice}");
    }
    let attached = run(hartvm().args(["run", "--disk", &image]));
    assert_eq!(attached.code(), 11, "{}", attached.stderr);
    assert!(attached.stderr.contains("First"), "{}", attached.stderr);
    refused(&["run", &image, "--boot", "3.0"], 1, &["`3.0`", "--boot", "More > Second", &image]);
    refused(&["run", "--boot", "1"], 2, &["IMAGE"]);
    refused(&["run", &image, "--boot", "1", "--kernel", "x"], 2, &["--boot", "--kernel"]);
    refused(&["run", &image, "--boot", "1", "--firmware", "x"], 2, &["--boot", "--firmware"]);
}

#[test]
fn flags_win_over_the_disk() {
    let dir = Dir::new();
    let image = text(&dir.file("disk.raw", &disk()));
    let tree = |more: &[&str]| {
        let outcome = run(hartvm().args([&["run", &image, "--dump-dts"], more].concat()));
        assert_eq!(outcome.code(), 0, "{}", outcome.stderr);
        String::from_utf8(outcome.stdout).unwrap()
    };
    let plain = tree(&[]);
    assert!(plain.contains("bootargs = \"root=LABEL=cloudimg-rootfs ro\""), "{plain}");
    assert!(plain.contains("linux,initrd-start"), "{plain}");
    let harts = |tree: &str| tree.matches("device_type = \"cpu\"").count();
    let host = std::thread::available_parallelism().unwrap().get();
    assert_eq!(harts(&plain), host.min(4), "a disk is for a distribution");
    let more = tree(&["--append", "quiet", "--cpus", "3", "--memory", "64M"]);
    assert!(more.contains("bootargs = \"root=LABEL=cloudimg-rootfs ro quiet\""), "{more}");
    assert_eq!(harts(&more), 3, "{more}");
    assert!(more.contains("0x00 0x4000000") || more.contains("0x0 0x4000000"), "{more}");
    // Another kernel: the disk is only attached.
    let kernel = text(&dir.file("kernel", &linux(&greeter("mine", 33))));
    let outcome = run(hartvm().args(["run", &image, "--kernel", &kernel]));
    assert_eq!((outcome.code(), &outcome.stdout[..]), (33, &b"mine"[..]), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("First"), "{}", outcome.stderr);
    let firmware = text(&dir.file("firmware", &elf(&greeter("mine", 33))));
    let outcome = run(hartvm().args(["run", &image, "--firmware", &firmware]));
    assert_eq!(outcome.code(), 33, "{}", outcome.stderr);
}

#[test]
fn a_program_runs_as_with_kernel() {
    let dir = Dir::new();
    let program = text(&dir.file("program", &elf(&greeter("elf", 5))));
    let outcome = run(hartvm().args(["run", &program]));
    assert_eq!((outcome.code(), &outcome.stdout[..]), (5, &b"elf"[..]), "{}", outcome.stderr);
    let kernel = text(&dir.file("Image", &linux(&greeter("image", 6))));
    assert_eq!(run(hartvm().args(["run", &kernel])).code(), 6);
    let packed = text(&dir.file("Image.gz", &gzip(&linux(&greeter("packed", 7)))));
    assert_eq!(run(hartvm().args(["run", &packed])).code(), 7);
    refused(&["run", &program, "--kernel", &kernel], 2, &[&program, "--kernel", &kernel]);
    refused(&["run", &program, "--boot", "1"], 2, &["--boot", &program, "only a disk"]);
    refused(&["run", &format!("{program},snapshot")], 2, &[&program, "not a disk"]);
}

#[test]
fn what_cannot_be_booted_is_explained() {
    let dir = Dir::new();
    let refuse = |name: &str, contents: &[u8], words: &[&str]| {
        let path = text(&dir.file(name, contents));
        let words: Vec<&str> = words.iter().copied().chain([&path[..]]).collect();
        refused(&["run", &path], 1, &words);
    };
    refuse("empty", b"", &["is empty"]);
    refuse("text", b"plain text", &["of no known kind", "--kernel", "--disk"]);
    refuse("damaged.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xed", &["gzip", "cannot be unpacked"]);
    let no_config = gpt(&[(1, &ext4(&[("/etc/hostname", b"x")]))]);
    let words =
        ["grub.cfg", "extlinux.conf", "loader/entries", "partition 1 is ext4", "--kernel", "--firmware"];
    refuse("data", &no_config, &words);
    let no_kernel = ext4(&[("/extlinux/extlinux.conf", b"label a\nlinux /gone\n")]);
    refuse("gone", &no_kernel, &["/gone", "no such file"]);
    let not_riscv = ext4(&[
        ("/extlinux/extlinux.conf", b"label a\nlinux /k\n"),
        ("/k", &[&[0; 0x38][..], b"ARM\x64", &[0; 100]].concat()),
    ]);
    let path = text(&dir.file("arm", &not_riscv));
    refused(&["run", &path], 1, &["/k on the whole disk", "aarch64", "--boot"]);
    refused(&["run", "/nonexistent/image"], 1, &["/nonexistent/image", "No such file"]);
    refused(&["run", "/dev/null"], 1, &["/dev/null", "not a regular file"]);
    refused(&["run", &text(&dir.path(""))], 1, &["not a regular file"]);
    refused(&["run", "x,fast"], 2, &["`fast`", "snapshot"]);
}

/// The unpacked copies in a directory.
fn copies(dir: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| text(path).ends_with(".raw")).collect()
}

#[test]
fn a_packed_disk_is_unpacked_once_beside_itself() {
    let dir = Dir::new();
    let packed = dir.file("disk.img.gz", &gzip(&disk()));
    let before = std::fs::read(&packed).unwrap();
    let outcome = run(hartvm().arg("run").arg(&packed));
    assert_eq!(outcome.code(), 11, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("unpacking"), "{}", outcome.stderr);
    let [copy] = &copies(&dir.path(""))[..] else { panic!("one copy") };
    assert!(std::fs::read(copy).unwrap() == disk());
    assert!(std::fs::read(&packed).unwrap() == before);
    // The guest's changes stay: the copy is used again as it is.
    let mut changed = disk();
    let at = changed.windows(5).position(|window| window == b"First").unwrap();
    changed[at..at + 5].copy_from_slice(b"Later");
    std::fs::write(copy, &changed).unwrap();
    let outcome = run(hartvm().arg("run").arg(&packed));
    assert_eq!(outcome.code(), 11, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("`Later`") && outcome.stderr.contains("remove it"), "{}", outcome.stderr);
    // A new download is unpacked anew, over what a run that was killed left.
    std::fs::write(&packed, gzip(&[&disk()[..], &[0; 4096]].concat())).unwrap();
    let outcome = run(hartvm().arg("run").arg(&packed));
    assert!(outcome.stderr.contains("`First`"), "{}", outcome.stderr);
    assert_eq!(copies(&dir.path("")).len(), 2);
    assert!(
        std::fs::read_dir(dir.path(""))
            .unwrap()
            .all(|entry| !text(&entry.unwrap().path()).ends_with(".part"))
    );
}

#[test]
fn what_a_killed_run_left_is_no_disk() {
    let dir = Dir::new();
    let packed = dir.file("disk.img.gz", &gzip(&disk()));
    assert_eq!(run(hartvm().arg("run").arg(&packed)).code(), 11);
    let [copy] = &copies(&dir.path(""))[..] else { panic!("one copy") };
    let mut part = copy.clone().into_os_string();
    part.push(".part");
    std::fs::remove_file(copy).unwrap();
    std::fs::write(&part, vec![0xff; 3 << 20]).unwrap();
    assert_eq!(run(hartvm().arg("run").arg(&packed)).code(), 11);
    assert!(std::fs::read(copy).unwrap() == disk());
    assert!(!Path::new(&part).exists());
}

#[test]
fn a_packed_disk_in_a_place_that_takes_no_files_is_unpacked_into_the_cache() {
    let dir = Dir::new();
    let packed = dir.file("disk.img.gz", &gzip(&disk()));
    let file = std::fs::File::open(&packed).unwrap();
    // Nobody can make files in this directory.
    let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&file));
    for word in ["unpacking", "was unpacked"] {
        let outcome = run(hartvm().env("XDG_CACHE_HOME", dir.path("cache")).arg("run").arg(&path));
        assert_eq!(outcome.code(), 11, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(word), "{}", outcome.stderr);
        assert_eq!(copies(&dir.path("cache/hartvm")).len(), 1);
    }
}

#[test]
fn a_full_file_system_leaves_no_half_copy() {
    let dir = Dir::new();
    let packed = dir.file("disk.img.gz", &gzip(&disk()));
    let command = {
        let mut command = hartvm();
        command.env("HOME", "/nonexistent").arg("run").arg(&packed);
        command
    };
    // A limit on the size of files stands in for a full file system.
    let outcome = run(&mut crate::support::in_shell("trap '' XFSZ; ulimit -f 16", &command));
    assert_eq!(outcome.code(), 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("cannot be written"), "{}", outcome.stderr);
    assert_eq!(std::fs::read_dir(dir.path("")).unwrap().count(), 1, "only the packed file is there");
}

#[test]
fn a_disc_is_read_only() {
    let dir = Dir::new();
    let config = "menuentry 'Install' { linux /vmlinuz --- quiet; }";
    let kernel = linux(&sleeper("disc"));
    let disc =
        dir.file("d.iso", &iso9660(&[("/boot/grub/grub.cfg", config.as_bytes()), ("/vmlinuz", &kernel)]));
    // Two readers at once are possible, two writers are not.
    let runs = [(); 2].map(|()| Running::start(hartvm().arg("run").arg(&disc)));
    for running in runs {
        running.wait_for_output(4);
        assert_eq!(running.stdout(), b"disc");
        running.signal(Signal::TERM);
        assert_eq!(running.finish().code(), 128 + 15);
    }
}

#[test]
fn a_reset_boots_what_the_disk_says_then() {
    let dir = Dir::new();
    // The first kernel makes the configuration name the second one.
    let mut first = b"label new\nlinux /second\n".to_vec();
    first.resize(512, b'\n');
    let mut program = disk_writer();
    program.print("first ");
    program.data(QUEUE.data(), &first);
    let config = |name: &str| {
        let mut text = format!("label old\nlinux /{name}\n").into_bytes();
        text.resize(512, b'\n');
        text
    };
    let make = |program: &Program| {
        let mut second = Program::new();
        second.print("second").finish(PASS).halt();
        fat(
            &[
                ("/extlinux/extlinux.conf", &config("first")),
                ("/first", &elf(&program.binary())),
                ("/second", &elf(&second.binary())),
            ],
            Fat::Fat12,
        )
    };
    let sector = make(&program).windows(512).position(|window| window == config("first")).unwrap() / 512;
    program.poke(QUEUE.header() + 8, sector as u32);
    write_sector(&mut program);
    flush(&mut program);
    program.finish(RESET).halt();
    let image = dir.file("disk", &make(&program));
    for options in [",snapshot", ""] {
        let mut command = hartvm();
        command.arg("run").arg(format!("{}{options}", text(&image))).args(["--cpus", "1"]);
        let outcome = run(&mut command);
        assert_eq!(outcome.code(), 0, "{}", outcome.stderr);
        assert_eq!(String::from_utf8_lossy(&outcome.stdout), "first second");
    }
}

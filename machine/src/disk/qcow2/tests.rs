//! Images are made and judged by `qemu-img` and `qemu-io` (Debian's qemu-utils), so that two programs must agree.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use vm_memory::VolatileSlice;

use crate::disk::image::{self, Findings};
use crate::disk::tests::whole;
use crate::disk::{Disk, DiskOptions, Format, OpenDiskError, open};

/// A directory of one test, removed at its end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("hartvm-qcow2-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a command in `dir` that must succeed.
fn tool(dir: &Dir, command: &str) -> String {
    let output = Command::new("sh").arg("-c").arg(command).current_dir(&dir.0).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success(),
        "{command} (needs the package qemu-utils): {}{stdout}{stderr}",
        output.status
    );
    stdout
}

/// Both programs find the image clean.
fn assert_clean(dir: &Dir, name: &str) {
    tool(dir, &format!("qemu-img check -q {name}"));
    assert_eq!(image::check(&dir.path(name), false).unwrap(), Some(Findings::default()), "{name}");
}

fn disk(path: &Path) -> Box<dyn Disk> {
    open(&DiskOptions::new(path)).unwrap()
}

fn read(disk: &dyn Disk, offset: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; len];
    disk.read_at(offset as u64, &[VolatileSlice::from(&mut bytes[..])]).unwrap();
    bytes
}

fn write(disk: &dyn Disk, offset: usize, bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    // In two slices, as a guest might.
    let third = bytes.len() / 3;
    let (a, b) = bytes.split_at_mut(third);
    disk.write_at(offset as u64, &[VolatileSlice::from(a), VolatileSlice::from(b)]).unwrap();
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }
}

/// Does a few hundred random things to an image and to a copy of its contents in memory, which must stay the same, also
/// when it is closed and opened again, and when `qemu-img` reads it.
fn exercise(dir: &Dir, name: &str, seed: u64) {
    let path = dir.path(name);
    tool(dir, &format!("qemu-img convert -O raw {name} model.raw"));
    let mut model = std::fs::read(dir.path("model.raw")).unwrap();
    let size = model.len();
    let mut random = Random(seed);
    let mut image = disk(&path);
    assert_eq!(image.size(), size as u64, "{name}");
    for round in 0..600_u32 {
        let start = random.below(size / 512) * 512;
        let most = (size - start) / 512;
        let len = match random.below(8) {
            0 => 1 + random.below(most.min(2048)),
            _ => 1 + random.below(most.min(160)),
        } * 512;
        match random.below(16) {
            0..6 => {
                let bytes: Vec<u8> = (0..len).map(|n| (n / 512) as u8 ^ round as u8 ^ 0xa5).collect();
                write(&*image, start, &bytes);
                model[start..start + len].copy_from_slice(&bytes);
            }
            6 | 7 => {
                image.write_zeroes(start as u64, len as u64, random.below(2) == 0).unwrap();
                model[start..start + len].fill(0);
            }
            8 => {
                // What a discarded range reads as is unspecified, but stays.
                image.discard(start as u64, len as u64).unwrap();
                model[start..start + len].copy_from_slice(&read(&*image, start, len));
            }
            9 => image.flush().unwrap(),
            10 if round % 4 == 0 => {
                drop(image);
                assert_clean(dir, name);
                image = disk(&path);
            }
            _ => {
                let bytes = read(&*image, start, len);
                assert!(bytes == model[start..start + len], "{name} round {round}: {start:#x}+{len:#x}");
            }
        }
    }
    assert!(read(&*image, 0, size) == model, "{name}");
    drop(image);
    assert_clean(dir, name);
    tool(dir, &format!("qemu-img convert -O raw {name} after.raw"));
    assert!(std::fs::read(dir.path("after.raw")).unwrap() == model, "{name}: qemu-img reads something else");
}

const PATTERNS: &str =
    "-c 'write -P 1 0 200k' -c 'write -P 2 1M 64k' -c 'write -P 3 3000k 513k' -c 'write -z 512k 128k'";

#[test]
fn images_of_every_shape_behave_like_disks() {
    for (number, options) in [
        "",
        "cluster_size=512,compat=0.10",
        "cluster_size=4k,refcount_bits=1",
        "cluster_size=64k,refcount_bits=64,lazy_refcounts=on",
        "cluster_size=2M,refcount_bits=8",
        "preallocation=metadata",
    ]
    .into_iter()
    .enumerate()
    {
        let dir = Dir::new();
        let options = if options.is_empty() { String::new() } else { format!("-o {options}") };
        tool(&dir, &format!("qemu-img create -q -f qcow2 {options} a 5000k && qemu-io {PATTERNS} a"));
        exercise(&dir, "a", 0x1234_5678 + number as u64);
    }
}

#[test]
fn compressed_clusters_are_read_and_overwritten() {
    for (number, options) in
        ["compression_type=zlib", "compression_type=zstd", "cluster_size=4k", "cluster_size=2M"]
            .into_iter()
            .enumerate()
    {
        let dir = Dir::new();
        tool(&dir, &format!("qemu-img create -q -f raw raw 5000k && qemu-io -f raw {PATTERNS} raw"));
        tool(&dir, "seq 1 400000 | dd of=raw bs=1k seek=2000 conv=notrunc status=none");
        tool(&dir, &format!("qemu-img convert -c -f raw -O qcow2 -o {options} raw a"));
        let mut expected = std::fs::read(dir.path("raw")).unwrap();
        expected.resize(expected.len().next_multiple_of(512), 0);
        assert!(read(&*disk(&dir.path("a")), 0, expected.len()) == expected, "{options}");
        exercise(&dir, "a", 0x9e37_79b9 + number as u64);
    }
}

#[test]
fn backing_chains_are_read_and_left_alone() {
    for base in ["raw", "qcow2"] {
        let dir = Dir::new();
        tool(
            &dir,
            &format!("qemu-img create -q -f {base} base 3M && qemu-io -f {base} -c 'write -P 9 1M 1M' base"),
        );
        tool(
            &dir,
            &format!("qemu-img create -q -f qcow2 -b base -F {base} middle 4M && qemu-io {PATTERNS} middle"),
        );
        tool(&dir, "mkdir d && qemu-img create -q -f qcow2 -b ../middle -F qcow2 d/top 5M");
        let before = (std::fs::read(dir.path("base")).unwrap(), std::fs::read(dir.path("middle")).unwrap());
        exercise(&dir, "d/top", 0xbeef);
        assert!(
            before == (std::fs::read(dir.path("base")).unwrap(), std::fs::read(dir.path("middle")).unwrap())
        );
        // Version 2 has no zero clusters.
        tool(&dir, "qemu-img create -q -f qcow2 -o compat=0.10 -b middle -F qcow2 old 5M");
        exercise(&dir, "old", 0xcafe);
    }
}

#[test]
fn internal_snapshots_stay_as_they_are() {
    let dir = Dir::new();
    tool(
        &dir,
        &format!("qemu-img create -q -f qcow2 a 4M && qemu-io {PATTERNS} a && qemu-img snapshot -c one a"),
    );
    tool(&dir, "qemu-io -c 'write -P 7 100k 300k' a && qemu-img snapshot -c two a");
    let snapshot = |name| {
        tool(&dir, &format!("qemu-img convert -l {name} -O raw a {name}.raw"));
        std::fs::read(dir.path(&format!("{name}.raw"))).unwrap()
    };
    let before = (snapshot("one"), snapshot("two"));
    exercise(&dir, "a", 0x5eed);
    assert!(before == (snapshot("one"), snapshot("two")));
    let facts = image::info(&dir.path("a"), None).unwrap().qcow2.unwrap();
    assert_eq!(facts.snapshots.iter().map(|one| &one.name[..]).collect::<Vec<_>>(), ["one", "two"]);
    tool(&dir, "qemu-img snapshot -a one a && qemu-img snapshot -d two a");
    assert_clean(&dir, "a");
    assert!(read(&*disk(&dir.path("a")), 0, 4 << 20) == before.0);
}

/// Whatever the file is at any moment is a clean image that has everything flushed before: what kill -9 leaves, and, as
/// long as the host keeps the order of writes around a sync, what a power failure leaves.
#[test]
fn the_file_is_a_clean_image_at_every_moment() {
    let dir = Dir::new();
    let path = dir.path("a");
    image::create(&path, Format::Qcow2, Some(64 << 20), None).unwrap();
    let image = disk(&path);
    let mut random = Random(77);
    for round in 1..200_u8 {
        let at = random.below(1 << 14) * 4096;
        write(&*image, at, &[round; 4096]);
        if round % 3 == 0 {
            image.flush().unwrap();
        }
        if round % 8 == 0 {
            image.discard((random.below(900) << 16) as u64, 5 << 16).unwrap();
        }
        if round % 20 == 0 {
            std::fs::copy(&path, dir.path("copy")).unwrap();
            assert_clean(&dir, "copy");
        }
        if round % 30 == 0 {
            write(&*image, at, &[round; 4096]);
            image.flush().unwrap();
            std::fs::copy(&path, dir.path("copy")).unwrap();
            assert_eq!(read(&*disk(&dir.path("copy")), at, 4096), [round; 4096]);
        }
    }
}

#[test]
fn many_threads_share_an_image() {
    let dir = Dir::new();
    let path = dir.path("a");
    image::create(&path, Format::Qcow2, Some(64 << 20), None).unwrap();
    let image = disk(&path);
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let image = &*image;
            scope.spawn(move || {
                let mut random = Random(1 + thread as u64);
                let mut model = vec![0_u8; 16 << 20];
                for round in 0..400 {
                    // Each has every fourth page, so clusters are shared and pages are not.
                    let page = random.below(4096);
                    let at = (page * 4 + thread) * 4096;
                    match random.below(8) {
                        0 => image.flush().unwrap(),
                        1..4 => {
                            let mut bytes = [round as u8; 4096];
                            image.write_at(at as u64, &[VolatileSlice::from(&mut bytes[..])]).unwrap();
                            model[page * 4096..][..4096].fill(round as u8);
                        }
                        4 => {
                            image.write_zeroes(at as u64, 4096, true).unwrap();
                            model[page * 4096..][..4096].fill(0);
                        }
                        _ => assert!(read(image, at, 4096) == model[page * 4096..][..4096]),
                    }
                }
            });
        }
    });
    drop(image);
    assert_clean(&dir, "a");
}

#[test]
fn a_crashed_lazy_image_is_repaired() {
    let dir = Dir::new();
    tool(&dir, "qemu-img create -q -f qcow2 -o lazy_refcounts=on a 4M");
    // `abort` is how qemu-io crashes.
    let script = "ulimit -c 0; qemu-io -c 'write -P 5 1M 1M' -c flush -c abort a > /dev/null 2>&1; true";
    tool(&dir, script);
    assert!(image::info(&dir.path("a"), None).unwrap().qcow2.unwrap().dirty);
    let found = image::check(&dir.path("a"), false).unwrap().unwrap();
    assert!(found.errors > 0, "{found:?}");
    assert_eq!(
        read(
            &*open(&DiskOptions { read_only: true, ..DiskOptions::new(dir.path("a")) }).unwrap(),
            1 << 20,
            512
        ),
        [5; 512]
    );
    std::fs::copy(dir.path("a"), dir.path("b")).unwrap();
    assert!(image::check(&dir.path("b"), true).unwrap().unwrap().is_clean());
    assert_clean(&dir, "b");
    exercise(&dir, "a", 0x1a2);
    assert!(!image::info(&dir.path("a"), None).unwrap().qcow2.unwrap().dirty);
}

#[test]
fn leaks_and_wrong_refcounts_are_repaired() {
    let dir = Dir::new();
    tool(&dir, &format!("qemu-img create -q -f qcow2 a 4M && qemu-io {PATTERNS} a"));
    let mut bytes = std::fs::read(dir.path("a")).unwrap();
    let reftable = u64::from_be_bytes(bytes[48..56].try_into().unwrap()) as usize;
    let block = u64::from_be_bytes(bytes[reftable..][..8].try_into().unwrap()) as usize;
    // A leak far behind, and a data cluster that seems free.
    bytes[block + 2 * 200..][..2].copy_from_slice(&[0, 1]);
    bytes[block + 2 * 6..][..2].copy_from_slice(&[0, 0]);
    bytes.resize(201 << 16, 0);
    std::fs::write(dir.path("a"), bytes).unwrap();
    let found = image::check(&dir.path("a"), false).unwrap().unwrap();
    assert_eq!((found.errors, found.leaks, found.repaired, found.is_clean()), (1, 1, 0, false), "{found:?}");
    let found = image::check(&dir.path("a"), true).unwrap().unwrap();
    assert_eq!((found.errors, found.leaks, found.repaired, found.is_clean()), (1, 1, 2, true), "{found:?}");
    assert_clean(&dir, "a");
    exercise(&dir, "a", 3);
}

#[test]
fn sizes_change() {
    let dir = Dir::new();
    tool(&dir, "qemu-img create -q -f raw base 8M && qemu-io -f raw -c 'write -P 9 0 8M' base");
    tool(&dir, "qemu-img create -q -f qcow2 -b base -F raw a 3000k");
    let path = dir.path("a");
    write(&*disk(&path), 2 << 20, &[4; 4096]);
    assert!(image::resize(&path, None, 2 << 20, false).unwrap_err().to_string().contains("--shrink"));
    for (size, shrink) in [(6 << 20, false), (600 << 20, false), (1_000_448, true), (700 << 20, false)] {
        image::resize(&path, None, size, shrink).unwrap();
        assert_clean(&dir, "a");
        let image = disk(&path);
        assert_eq!(image.size(), size);
        // What is new is zero, though the backing file has something there.
        if size > 6 << 20 {
            assert_eq!(read(&*image, 4 << 20, 65536), [0; 65536]);
        }
    }
    let image = disk(&path);
    assert_eq!(read(&*image, 1_000_448 - 512, 1024), [[9; 512], [0; 512]].concat());
    drop(image);
    image::create(&dir.path("raw"), Format::Raw, Some(1 << 20), None).unwrap();
    image::resize(&dir.path("raw"), None, 2 << 20, false).unwrap();
    assert_eq!(std::fs::metadata(dir.path("raw")).unwrap().len(), 2 << 20);
    assert!(image::resize(&dir.path("raw"), None, 1000, false).unwrap_err().to_string().contains("512"));
}

#[test]
fn created_images_are_what_qemu_expects() {
    let dir = Dir::new();
    image::create(&dir.path("a"), Format::Qcow2, Some(40 << 40), None).unwrap();
    assert_clean(&dir, "a");
    assert!(tool(&dir, "qemu-img info a").contains("40 TiB"));
    assert!(image::create(&dir.path("a"), Format::Qcow2, Some(1 << 20), None).is_err(), "never over a file");
    let error = image::create(&dir.path("b"), Format::Qcow2, Some(1 << 60), None).unwrap_err();
    assert!(whole(&error).contains("more than"), "{error}");
    assert!(!dir.path("b").exists());

    tool(&dir, "qemu-img create -q -f raw 'file:x:y' 1M");
    image::create(&dir.path("c"), Format::Qcow2, None, Some((Path::new("x:y"), None))).unwrap();
    assert_clean(&dir, "c");
    assert!(tool(&dir, "qemu-img info c").contains("1 MiB"));
    exercise(&dir, "c", 8);
}

#[test]
fn overlays_are_made_once_and_used_again() {
    let dir = Dir::new();
    tool(&dir, "qemu-img create -q -f raw base 1M && qemu-io -f raw -c 'write -P 9 0 1M' base");
    let before = std::fs::read(dir.path("base")).unwrap();
    let options = DiskOptions { overlay: Some(dir.path("over")), ..DiskOptions::new(dir.path("base")) };
    let reader = DiskOptions { read_only: true, ..options.clone() };
    assert_eq!(read(&*open(&reader).unwrap(), 0, 512), [9; 512]);
    assert!(!dir.path("over").exists(), "a reader makes no overlay");
    let first = open(&options).unwrap();
    write(&*first, 4096, &[1; 512]);
    assert!(open(&options).is_err(), "one writer");
    drop(first);
    assert_eq!(read(&*open(&options).unwrap(), 4096 - 512, 1024), [[9; 512], [1; 512]].concat());
    assert_clean(&dir, "over");
    assert!(std::fs::read(dir.path("base")).unwrap() == before);
    tool(&dir, "qemu-img create -q -f raw other 1M");
    for (base, overlay) in [("other", "over"), ("base", "other")] {
        let options = DiskOptions { overlay: Some(dir.path(overlay)), ..DiskOptions::new(dir.path(base)) };
        let error = open(&options).err().unwrap();
        assert!(matches!(error, OpenDiskError::OtherOverlay { .. }), "{error}");
    }
    // A snapshot over it changes nothing either.
    let over = std::fs::read(dir.path("over")).unwrap();
    let snapshot = open(&DiskOptions { snapshot: true, ..DiskOptions::new(dir.path("over")) }).unwrap();
    write(&*snapshot, 0, &[3; 1024]);
    assert_eq!(read(&*snapshot, 512, 1024), [[3; 512], [9; 512]].concat());
    drop(snapshot);
    assert!(std::fs::read(dir.path("over")).unwrap() == over);
}

#[test]
fn what_is_not_supported_is_refused_with_the_reason() {
    let dir = Dir::new();
    tool(&dir, "qemu-img create -q -f raw base 1M");
    tool(&dir, "qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=128k subclusters 1M");
    tool(&dir, "qemu-img create -q -f qcow2 -o data_file=base external 1M");
    let luks = "--object secret,id=s,data=x -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    // On a busy machine it may fail to measure how long it takes to make a key.
    let create = format!("qemu-img create -q -f qcow2 {luks} luks 1M");
    tool(&dir, &format!("for n in $(seq 100); do {create} && exit; done; exit 1"));
    tool(
        &dir,
        "qemu-img create -q -f qcow2 -b base -F raw loop 1M && qemu-img rebase -u -b loop -F qcow2 loop",
    );
    tool(&dir, "qemu-img create -q -f qcow2 -u -b nbd://host/x -F raw remote 1M");
    tool(&dir, "qemu-img create -q -f qcow2 -u -b 'json:{}' -F raw json 1M");
    tool(&dir, "qemu-img create -q -f qcow2 -u -b /dev/zero -F raw device 1M");
    tool(&dir, "qemu-img create -q -f qcow2 -u -b nothing -F raw orphan 1M");
    tool(&dir, "qemu-img create -q -f qcow2 -u -b base -F vmdk strange 1M");
    tool(&dir, "qemu-img create -q -f qcow2 -u -b base -F qcow2 lie 1M");
    tool(
        &dir,
        "cp base chain0; for n in $(seq 1 70); do f=qcow2; [ $n -gt 1 ] || f=raw; qemu-img create -q -f qcow2 -u -b chain$((n-1)) -F $f chain$n 1M; done",
    );
    for (name, words) in [
        ("subclusters", &["extended_l2", "qemu-img convert"][..]),
        ("external", &["external data file"]),
        ("luks", &["encrypted (LUKS)"]),
        ("loop", &["its own backing file"]),
        ("remote", &["`nbd` protocol", "qemu-img convert"]),
        ("json", &["`json` protocol"]),
        ("device", &["backing file", "character device"]),
        ("orphan", &["backing file", "nothing", "does not exist"]),
        ("strange", &["`vmdk`"]),
        ("lie", &["no qcow2 image"]),
        ("chain70", &["63 backing files"]),
    ] {
        for read_only in [false, true] {
            let options = DiskOptions { read_only, ..DiskOptions::new(dir.path(name)) };
            let error = whole(&open(&options).err().unwrap());
            for word in words {
                assert!(error.contains(word), "{name}: no `{word}` in: {error}");
            }
        }
    }
    assert!(open(&DiskOptions::new(dir.path("chain60"))).is_ok());
    let raw = DiskOptions { format: Some(Format::Raw), ..DiskOptions::new(dir.path("luks")) };
    assert!(open(&raw).is_ok(), "format=raw takes anything");
    let error = open(&DiskOptions { format: Some(Format::Qcow2), ..DiskOptions::new(dir.path("base")) })
        .err()
        .unwrap();
    assert!(error.to_string().contains("no qcow2 image"));
}

#[test]
fn locks_are_shared_with_qemu() {
    let dir = Dir::new();
    tool(&dir, "qemu-img create -q -f qcow2 base 1M && qemu-img create -q -f qcow2 -b base -F qcow2 top 1M");
    let image = disk(&dir.path("top"));
    tool(&dir, "! qemu-io -c 'write 0 1k' top 2> error && grep -q lock error");
    tool(&dir, "! qemu-io -c 'write 0 1k' base 2> error && grep -q lock error");
    tool(&dir, "! qemu-img check -q top 2> error && grep -q lock error");
    tool(&dir, "qemu-io -r -c 'read 0 1k' base");
    drop(image);
    tool(&dir, "qemu-io -c 'write 0 1k' top && qemu-io -c 'write 0 1k' base");
}

/// Which cluster of the file an operation meets.
fn tables(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let at = |offset: usize| u64::from_be_bytes(bytes[offset..offset + 8].try_into().unwrap()) as usize;
    let (l1, reftable) = (at(40), at(48));
    let (l2, block) = (at(l1) & 0x00ff_ffff_ffff_fe00, at(reftable));
    vec![
        0..128,
        0..128,
        l1..l1 + 16,
        reftable..reftable + 16,
        l2..l2 + 64,
        block..block + 64,
        at(64)..at(64) + 80,
    ]
}

/// Ten thousand damaged images: each is refused, or used without a crash, without a byte outside of the file's own
/// clusters or the disk's size, and without more memory than the limits allow.
#[test]
fn damaged_images_do_no_damage() {
    const ROUNDS: usize = 10_000;
    const SIZE: u64 = 8 << 20;
    let dir = Dir::new();
    tool(
        &dir,
        &format!("qemu-img create -q -f qcow2 -o cluster_size=4k plain {SIZE} && qemu-io {PATTERNS} plain"),
    );
    tool(&dir, "qemu-img snapshot -c one plain && qemu-io -c 'write -P 8 64k 64k' plain");
    tool(
        &dir,
        "qemu-img convert -c -O qcow2 -o cluster_size=4k plain packed && qemu-img snapshot -c one packed",
    );
    tool(
        &dir,
        "qemu-img convert -c -O qcow2 -o cluster_size=4k,compression_type=zstd plain zstd && qemu-img snapshot -c one zstd",
    );
    let images = ["plain", "packed", "zstd"].map(|name| std::fs::read(dir.path(name)).unwrap());
    let counts = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4_u64)
            .map(|thread| {
                let (images, path) = (&images, dir.path(&format!("damaged{thread}")));
                scope.spawn(move || damage(images, &path, SIZE, ROUNDS / 4, thread))
            })
            .collect();
        let counts = threads.into_iter().map(|thread| thread.join().unwrap());
        counts.fold([0; 3], |sum, counts| std::array::from_fn(|n| sum[n] + counts[n]))
    });
    let [opened, refused, failed] = counts;
    assert!(opened > ROUNDS / 10 && refused > ROUNDS / 10 && failed > 100, "{counts:?}");
}

/// Damages images and uses them, again and again. Returns how many were opened, how many refused, and how many operations
/// failed.
fn damage(images: &[Vec<u8>], path: &Path, size: u64, rounds: usize, seed: u64) -> [usize; 3] {
    let mut random = Random(0x0dd_ba11 + seed);
    let (mut opened, mut refused, mut failed) = (0, 0, 0);
    for round in 0..rounds {
        let mut bytes = images[random.below(images.len())].clone();
        let spots = tables(&bytes);
        for _ in 0..1 + random.below(4) {
            let spot = spots[random.below(spots.len())].clone();
            let at = (spot.start + random.below(spot.len())).min(bytes.len() - 1);
            match random.below(6) {
                0 => bytes[at] = random.below(256) as u8,
                1 => bytes[at] ^= 1 << random.below(8),
                2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
                3 => {
                    // A whole entry, of small and of great values.
                    let value = (random.below(1 << 20) as u64) << random.below(45);
                    let at = (at & !7).min(bytes.len() - 8);
                    bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
                }
                4 => {
                    // An offset that exists, for something else.
                    let at = (at & !7).min(bytes.len() - 8);
                    let value =
                        (random.below(40) as u64) << 12 | if random.below(2) == 0 { 1 << 63 } else { 0 };
                    bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
                }
                _ => bytes.truncate(1 + random.below(bytes.len())),
            }
            if bytes.len() < 128 {
                break;
            }
        }
        std::fs::write(path, &bytes).unwrap();
        let read_only = random.below(3) == 0;
        // A name of a backing file that comes out of the damage must not be followed to where tests have no business.
        match open(&DiskOptions { read_only, ..DiskOptions::new(path) }) {
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().is_empty());
            }
            Ok(disk) => {
                opened += 1;
                let mut buffer = vec![0; 128 << 10];
                for _ in 0..8 {
                    let len = (512 << random.below(9)).min(disk.size() as usize);
                    let offset = match random.below(2) {
                        0 => random.below((disk.size() - len as u64) as usize + 1) as u64 & !511,
                        _ => random.below(size as usize) as u64 & !511,
                    };
                    let slices = [VolatileSlice::from(&mut buffer[..len])];
                    let result = match random.below(8) {
                        0..3 => disk.read_at(offset, &slices),
                        3 => disk.try_read_at(offset, &slices).map(|_| ()),
                        4 | 5 => disk.write_at(offset, &slices),
                        6 => disk.write_zeroes(offset, len as u64, random.below(2) == 0),
                        _ => disk.discard(offset, len as u64).and_then(|()| disk.flush()),
                    };
                    failed += usize::from(result.is_err());
                }
            }
        }
        let _ = image::info(path, None);
        let _ = image::check(path, round % 2 == 0);
        let len = std::fs::metadata(path).unwrap().len();
        assert!(len < bytes.len() as u64 + (8 << 20), "round {round}: the file has grown to {len} bytes");
    }
    [opened, refused, failed]
}

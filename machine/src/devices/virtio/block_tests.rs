use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vm_memory::VolatileSlice;

use super::*;
use crate::bus::MmioDevice;
use crate::devices::virtio::mmio::Version;
use crate::devices::virtio::testing::*;

const SECTORS: usize = 512;

/// A disk in memory, which counts flushes and fails on demand.
struct MemDisk {
    bytes: Mutex<Vec<u8>>,
    read_only: bool,
    flushes: AtomicU32,
    discarded: Mutex<Vec<(u64, u64)>>,
    /// The host error that writes meet, or 0.
    errno: AtomicU32,
    /// Reads of this sector have to wait until it is another.
    slow: AtomicU32,
    /// Reads that wait.
    waiting: AtomicU32,
}

/// No sector.
const NONE: u32 = u32::MAX;

impl MemDisk {
    fn new(read_only: bool) -> Arc<Self> {
        let bytes = (0..SECTORS * 512).map(|n| (n / 512) as u8).collect();
        Arc::new(Self {
            bytes: Mutex::new(bytes),
            read_only,
            flushes: AtomicU32::new(0),
            discarded: Mutex::default(),
            errno: AtomicU32::new(0),
            slow: AtomicU32::new(NONE),
            waiting: AtomicU32::new(0),
        })
    }

    fn fails(&self) -> io::Result<()> {
        match self.errno.load(Ordering::SeqCst) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno as i32)),
        }
    }

    fn range(&self, offset: u64, len: u64) -> std::ops::Range<usize> {
        assert!(offset.checked_add(len).is_some_and(|end| end <= SECTORS as u64 * 512), "beyond the disk");
        offset as usize..(offset + len) as usize
    }
}

impl Disk for Arc<MemDisk> {
    fn size(&self) -> u64 {
        SECTORS as u64 * 512
    }
    fn read_only(&self) -> bool {
        self.read_only
    }
    fn read_at(&self, offset: u64, into: &[VolatileSlice<'_>]) -> io::Result<()> {
        let mut offset = offset;
        self.waiting.fetch_add(1, Ordering::SeqCst);
        while u64::from(self.slow.load(Ordering::SeqCst)) * 512 == offset {
            std::thread::yield_now();
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        for slice in into {
            slice.copy_from(&self.bytes.lock()[self.range(offset, slice.len() as u64)]);
            offset += slice.len() as u64;
        }
        Ok(())
    }
    fn try_read_at(&self, offset: u64, into: &[VolatileSlice<'_>]) -> io::Result<bool> {
        if u64::from(self.slow.load(Ordering::SeqCst)) * 512 == offset {
            return Ok(false);
        }
        self.read_at(offset, into).map(|()| true)
    }
    fn write_at(&self, offset: u64, from: &[VolatileSlice<'_>]) -> io::Result<()> {
        assert!(!self.read_only);
        self.fails()?;
        let mut offset = offset;
        for slice in from {
            slice.copy_to(&mut self.bytes.lock()[self.range(offset, slice.len() as u64)]);
            offset += slice.len() as u64;
        }
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        self.fails()
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.range(offset, len);
        self.discarded.lock().push((offset, len));
        Ok(())
    }
    fn write_zeroes(&self, offset: u64, len: u64, _unmap: bool) -> io::Result<()> {
        self.bytes.lock()[self.range(offset, len)].fill(0);
        Ok(())
    }
}

const STATUS: u64 = DATA + 0x8_0000;
const BUFFER: u64 = DATA + 0x1000;
const FLUSH: u64 = 1 << 9;
const CONFIG_WCE: u64 = 1 << 11;
const ALL: u64 = VERSION_1 | EVENT_IDX | FLUSH | CONFIG_WCE;

fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    header
}

fn start(version: Version, features: u64, read_only: bool) -> (Driver, Arc<MemDisk>) {
    let disk = MemDisk::new(read_only);
    let mut driver = Driver::new(version, Arc::new(Block::new(Box::new(disk.clone()), "SERIAL-1", true, 1)));
    driver.init(features, 1);
    (driver, disk)
}

/// Sends a request with these buffers between header and status; returns the status.
fn request(driver: &mut Driver, kind: u32, sector: u64, buffers: &[Buffer]) -> u8 {
    driver.put(DATA, &header(kind, sector));
    driver.put(STATUS, &[0xee]);
    let mut chain = vec![(DATA, 16, 0)];
    chain.extend_from_slice(buffers);
    chain.push((STATUS, 1, WRITE));
    driver.submit(0, &chain);
    driver.complete(0);
    driver.bytes(STATUS, 1)[0]
}

fn range(sector: u64, count: u32, flags: u32) -> [u8; 16] {
    let mut range = [0; 16];
    range[..8].copy_from_slice(&sector.to_le_bytes());
    range[8..12].copy_from_slice(&count.to_le_bytes());
    range[12..].copy_from_slice(&flags.to_le_bytes());
    range
}

#[test]
fn configuration_space_describes_the_disk() {
    let (driver, _) = start(Version::Modern, ALL, false);
    assert_eq!(driver.get(8), 2);
    assert_eq!(driver.mmio.read(0x100, 8), Ok(SECTORS as u64));
    assert_eq!((driver.get(0x10c), driver.get(0x114)), (254, 512));
    assert_eq!(driver.mmio.read(0x120, 1), Ok(1));
    assert_eq!(driver.mmio.read(0x122, 2), Ok(1));
    assert_eq!((driver.get(0x124), driver.get(0x128), driver.get(0x130)), (0x3f_ffff, 64, 0x3f_ffff));
    driver.set(0x14, 0);
    assert_eq!(driver.get(0x10), 1 << 2 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11 | 3 << 13 | 3 << 28);
    let (driver, _) = start(Version::Modern, ALL, true);
    assert_eq!(driver.get(0x10), 1 << 2 | 1 << 5 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11 | 3 << 28);
}

#[test]
fn sectors_go_both_ways() {
    for (version, features) in
        [(Version::Legacy, 0), (Version::Legacy, EVENT_IDX | FLUSH), (Version::Modern, ALL)]
    {
        let (mut driver, disk) = start(version, features, false);
        let data: Vec<u8> = (0..1536).map(|n| n as u8 ^ 0x5a).collect();
        driver.put(BUFFER, &data);
        let scattered = [(BUFFER, 700, 0), (BUFFER + 700, 836, 0)];
        assert_eq!(request(&mut driver, 1, 9, &scattered), 0);
        assert!(disk.bytes.lock()[9 * 512..12 * 512] == data);
        assert_eq!(disk.bytes.lock()[12 * 512], 12);
        let into = [(BUFFER + 0x1000, 1, WRITE), (BUFFER + 0x1001, 1535, WRITE)];
        assert_eq!(request(&mut driver, 0, 9, &into), 0);
        assert!(driver.bytes(BUFFER + 0x1000, 1536) == data);
    }
}

#[test]
fn framing_carries_no_meaning() {
    let (mut driver, _) = start(Version::Modern, ALL, false);
    driver.put(DATA, &header(0, 3));
    // Header in two, data and status in one.
    driver.submit(0, &[(DATA, 5, 0), (DATA + 5, 11, 0), (BUFFER, 513, WRITE)]);
    assert_eq!(driver.complete(0), (0, 513));
    let bytes = driver.bytes(BUFFER, 513);
    assert!(bytes[..512].iter().all(|byte| *byte == 3) && bytes[512] == 0);
}

#[test]
fn indirect_tables_alone_and_at_the_end_of_a_chain() {
    let (mut driver, _) = start(Version::Modern, ALL, false);
    let table = DATA + 0x100;
    driver.put(DATA, &header(0, 7));
    driver.chain(table, 0, &[(DATA, 16, 0), (BUFFER, 512, WRITE), (STATUS, 1, WRITE)]);
    driver.submit(0, &[(table, 48, INDIRECT)]);
    assert_eq!(driver.complete(0), (0, 513));
    assert_eq!(driver.bytes(BUFFER, 512), [7; 512]);
    driver.put(DATA, &header(0, 8));
    driver.chain(table, 0, &[(BUFFER, 512, WRITE), (STATUS, 1, WRITE)]);
    driver.submit(0, &[(DATA, 16, 0), (table, 32, INDIRECT)]);
    assert_eq!(driver.complete(0), (0, 513));
    assert_eq!(driver.bytes(BUFFER, 512), [8; 512]);
}

#[test]
fn many_requests_wrap_the_ring() {
    let (mut driver, _) = start(Version::Modern, ALL, false);
    for round in 0..70_000_u64 {
        let sector = round % SECTORS as u64;
        driver.put(DATA, &header(0, sector));
        driver.submit(0, &[(DATA, 16, 0), (BUFFER, 512, WRITE), (STATUS, 1, WRITE)]);
        assert_eq!(driver.complete(0).1, 513);
        assert_eq!(driver.bytes(BUFFER, 1), [sector as u8]);
    }
}

#[test]
fn requests_beyond_the_disk_or_of_odd_size_fail() {
    let (mut driver, disk) = start(Version::Modern, ALL, false);
    let before = disk.bytes.lock().clone();
    let end = SECTORS as u64;
    for kind in [0, 1] {
        let flags = if kind == 0 { WRITE } else { 0 };
        for (sector, len) in [(end, 512), (end - 1, 1024), (u64::MAX, 512), (u64::MAX / 512, 512), (0, 100)] {
            assert_eq!(
                request(&mut driver, kind, sector, &[(BUFFER, len, flags)]),
                1,
                "{kind} {sector} {len}"
            );
        }
        assert_eq!(request(&mut driver, kind, end, &[]), 0, "nothing to do");
    }
    assert!(*disk.bytes.lock() == before);
    assert_eq!(request(&mut driver, 0, end - 1, &[(BUFFER, 512, WRITE)]), 0);
}

#[test]
fn unknown_requests_are_unsupported() {
    let (mut driver, _) = start(Version::Modern, ALL, false);
    for kind in [2, 3, 5, 10, 14, 15, 99, u32::MAX] {
        assert_eq!(request(&mut driver, kind, 0, &[(BUFFER, 512, WRITE)]), 2, "{kind}");
    }
}

#[test]
fn the_serial_number() {
    let (mut driver, _) = start(Version::Modern, ALL, false);
    driver.put(BUFFER, &[0xff; 32]);
    assert_eq!(request(&mut driver, 8, 0, &[(BUFFER, 20, WRITE)]), 0);
    assert_eq!(driver.bytes(BUFFER, 21), *b"SERIAL-1\0\0\0\0\0\0\0\0\0\0\0\0\xff");
    driver.put(BUFFER, &[0xff; 32]);
    assert_eq!(request(&mut driver, 8, 0, &[(BUFFER, 4, WRITE)]), 0);
    assert_eq!(driver.bytes(BUFFER, 5), *b"SERI\xff");
}

#[test]
fn the_write_cache_is_the_drivers_choice() {
    let flushes = |features: u64, prepare: &dyn Fn(&Driver)| {
        let (mut driver, disk) = start(Version::Modern, features, false);
        prepare(&driver);
        assert_eq!(request(&mut driver, 1, 0, &[(BUFFER, 512, 0)]), 0);
        let after_write = disk.flushes.load(Ordering::SeqCst);
        assert_eq!(request(&mut driver, 4, 0, &[]), 0);
        (after_write, disk.flushes.load(Ordering::SeqCst))
    };
    assert_eq!(flushes(ALL, &|_| {}), (0, 1));
    assert_eq!(flushes(VERSION_1 | FLUSH, &|_| {}), (0, 1));
    assert_eq!(flushes(VERSION_1, &|_| {}), (1, 2), "a driver that cannot flush gets no cache");
    let off = |driver: &Driver| {
        driver.mmio.write(0x120, 1, 0).unwrap();
        assert_eq!(driver.mmio.read(0x120, 1), Ok(0));
    };
    assert_eq!(flushes(ALL, &off), (1, 2));
}

#[test]
fn discard_and_write_zeroes() {
    let (mut driver, disk) = start(Version::Modern, ALL | 3 << 13, false);
    let mut send = |kind, ranges: &[[u8; 16]]| {
        driver.put(BUFFER, &ranges.concat());
        let buffers: &[Buffer] = &[(BUFFER, 16 * ranges.len() as u32, 0)];
        request(&mut driver, kind, 0, if ranges.is_empty() { &[] } else { buffers })
    };
    assert_eq!(send(11, &[range(8, 8, 0), range(100, 1, 0)]), 0);
    assert_eq!(*disk.discarded.lock(), [(4096, 4096), (51200, 512)]);
    assert_eq!(send(13, &[range(2, 1, 0), range(4, 1, 1)]), 0);
    let starts = |sector: usize| disk.bytes.lock()[sector * 512];
    assert_eq!((starts(1), starts(2), starts(3), starts(4), starts(5)), (1, 0, 3, 0, 5));

    assert_eq!(send(11, &[range(0, 1, 1)]), 2, "a discard has no flags");
    assert_eq!(send(13, &[range(0, 1, 2)]), 2, "an unknown flag");
    assert_eq!(send(13, &[range(SECTORS as u64, 1, 0)]), 1);
    assert_eq!(send(13, &[range(u64::MAX, 2, 0)]), 1);
    assert_eq!(send(11, &[range(0, u32::MAX, 0)]), 1);
    assert_eq!(send(11, &[]), 1);
    assert_eq!(send(11, &[range(0, 1, 0); 65]), 1);
    assert_eq!(starts(1), 1);

    let (mut driver, _) = start(Version::Modern, ALL, true);
    driver.put(BUFFER, &range(0, 1, 0));
    assert_eq!(request(&mut driver, 11, 0, &[(BUFFER, 16, 0)]), 1);
    assert_eq!(request(&mut driver, 13, 0, &[(BUFFER, 16, 0)]), 1);
    assert_eq!(request(&mut driver, 1, 0, &[(BUFFER, 512, 0)]), 1);
    assert_eq!(request(&mut driver, 0, 0, &[(BUFFER, 512, WRITE)]), 0);
}

#[test]
fn a_full_host_is_an_io_error_and_passes() {
    let (mut driver, disk) = start(Version::Modern, ALL, false);
    disk.errno.store(libc::ENOSPC as u32, Ordering::SeqCst);
    for _ in 0..3 {
        assert_eq!(request(&mut driver, 1, 0, &[(BUFFER, 512, 0)]), 1);
    }
    assert_eq!(request(&mut driver, 4, 0, &[]), 1);
    assert_eq!(request(&mut driver, 0, 5, &[(BUFFER, 512, WRITE)]), 0);
    disk.errno.store(0, Ordering::SeqCst);
    assert_eq!(request(&mut driver, 1, 0, &[(BUFFER, 512, 0)]), 0);
}

#[test]
fn requests_without_header_or_status_break_the_device() {
    for buffers in [&[(DATA, 15, 0), (STATUS, 1, WRITE)][..], &[(DATA, 16, 0)], &[(STATUS, 1, WRITE)]] {
        let (mut driver, _) = start(Version::Modern, ALL, false);
        driver.submit(0, buffers);
        wait_for("NEEDS_RESET", || driver.get(0x70) & 0x40 != 0);
        driver.init(ALL, 1);
        assert_eq!(request(&mut driver, 0, 5, &[(BUFFER, 512, WRITE)]), 0);
    }
}

/// A request that waits for the host holds nobody up but a reset, which waits for it.
#[test]
fn a_slow_request_is_overtaken_and_waited_for() {
    let (mut driver, disk) = start(Version::Modern, ALL, false);
    disk.slow.store(5, Ordering::SeqCst);
    driver.put(DATA, &header(0, 5));
    driver.put(DATA + 0x20, &header(0, 6));
    driver.chain(Driver::desc(0), 0, &[(DATA, 16, 0), (BUFFER, 512, WRITE), (STATUS, 1, WRITE)]);
    driver.chain(
        Driver::desc(0),
        3,
        &[(DATA + 0x20, 16, 0), (BUFFER + 512, 512, WRITE), (STATUS + 1, 1, WRITE)],
    );
    driver.offer(0, 0);
    driver.offer(0, 3);
    driver.notify(0);
    assert_eq!(driver.complete(0), (3, 513), "the second is first");
    disk.slow.store(NONE, Ordering::SeqCst);
    assert_eq!(driver.complete(0), (0, 513));
    assert_eq!(driver.bytes(BUFFER, 1024), [[5; 512], [6; 512]].concat());

    disk.slow.store(5, Ordering::SeqCst);
    driver.offer(0, 0);
    driver.notify(0);
    wait_for("the read", || disk.waiting.load(Ordering::SeqCst) == 1);
    std::thread::scope(|scope| {
        let reset = scope.spawn(|| driver.set(0x70, 0));
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!reset.is_finished(), "the disk still writes to guest memory");
        disk.slow.store(NONE, Ordering::SeqCst);
    });
    assert_eq!(disk.waiting.load(Ordering::SeqCst), 0);
    driver.init(ALL, 1);
    assert_eq!(request(&mut driver, 0, 7, &[(BUFFER, 512, WRITE)]), 0);
}

#[test]
fn every_queue_serves() {
    const MQ: u64 = 1 << 12;
    let disk = MemDisk::new(false);
    let device = Block::new(Box::new(disk.clone()), "", true, 2);
    let mut driver = Driver::new(Version::Modern, Arc::new(device));
    driver.set(0x14, 0);
    assert_eq!(u64::from(driver.get(0x10)) & MQ, MQ);
    assert_eq!(driver.mmio.read(0x122, 2), Ok(2));
    driver.init(ALL | MQ, 2);
    for round in 0..200_u64 {
        for queue in 0..2_u64 {
            let at = DATA + 0x2000 * queue;
            driver.put(at, &header(0, round + queue));
            driver.submit(queue as u32, &[(at, 16, 0), (at + 0x1000, 512, WRITE), (at + 0x20, 1, WRITE)]);
        }
        for queue in 0..2_u64 {
            assert_eq!(driver.complete(queue as u32), (0, 513));
            assert_eq!(driver.bytes(DATA + 0x2000 * queue + 0x1000, 1), [(round + queue) as u8]);
        }
    }
}

#[test]
fn a_real_file_end_to_end() {
    use crate::disk::{DiskOptions, open};
    let path = std::env::temp_dir().join(format!("hartvm-block-{}", std::process::id()));
    std::fs::write(&path, vec![0; 64 * 512]).unwrap();
    let device = Block::new(open(&DiskOptions::new(&path)).unwrap(), "", true, 1);
    let mut driver = Driver::new(Version::Modern, Arc::new(device));
    driver.init(ALL, 1);
    driver.put(BUFFER, &[0x77; 1024]);
    assert_eq!(request(&mut driver, 1, 62, &[(BUFFER, 512, 0), (BUFFER + 512, 512, 0)]), 0);
    assert_eq!(request(&mut driver, 4, 0, &[]), 0);
    let bytes = std::fs::read(&path).unwrap();
    assert!(
        bytes.len() == 64 * 512
            && bytes[62 * 512..].iter().all(|byte| *byte == 0x77)
            && bytes[62 * 512 - 1] == 0
    );
    // The image shrinks behind our back.
    std::fs::File::options().write(true).open(&path).unwrap().set_len(512).unwrap();
    assert_eq!(request(&mut driver, 0, 40, &[(BUFFER, 512, WRITE)]), 1);
    assert_eq!(request(&mut driver, 0, 0, &[(BUFFER, 512, WRITE)]), 0);
    std::fs::remove_file(path).unwrap();
}

/// Ten thousand rings of nonsense: the device must survive each, and touch neither what lies around RAM nor more of
/// the disk than exists (the mock disk checks).
#[test]
fn nonsense_in_the_rings_stays_in_ram() {
    let guarded = Guarded::new();
    let disk = MemDisk::new(false);
    let mut driver =
        guarded.driver(Version::Modern, Arc::new(Block::new(Box::new(disk.clone()), "fuzz", true, 1)));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut completed, mut broken) = (0, 0);
    for _ in 0..10_000 {
        driver.init(ALL & !(random.next() & EVENT_IDX), 1);
        for sector in 0..16_u64 {
            let kind = random.pick(&[0, 0, 1, 1, 4, 8, 11, 13, 77]);
            driver.put(DATA + 16 * sector, &header(kind, random.below(600)));
        }
        let idx = driver.offer_nonsense(
            0,
            &[NEXT, NEXT, NEXT | WRITE, NEXT | WRITE, WRITE, WRITE, WRITE],
            None,
            &mut random,
        );
        driver.notify(0);
        let finished = || driver.used_index(0) == idx || driver.get(0x70) & 0x40 != 0;
        wait_for("an end to the nonsense", finished);
        if driver.get(0x70) & 0x40 == 0 { completed += 1 } else { broken += 1 }
    }
    assert!(completed > 100 && broken > 100, "{completed} completed, {broken} broke");
    assert_eq!(guarded.touched(), None, "a byte beside RAM has changed");
    driver.init(ALL, 1);
    disk.bytes.lock()[512..1024].fill(0xab);
    assert_eq!(request(&mut driver, 0, 1, &[(BUFFER, 512, WRITE)]), 0);
    assert_eq!(driver.bytes(BUFFER, 512), [0xab; 512]);
}

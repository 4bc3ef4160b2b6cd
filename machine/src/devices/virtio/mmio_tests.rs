use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::board::Kind;
use crate::bus::Phandles;
use crate::devices::virtio::testing::*;
use crate::devices::virtio::{ActiveQueue, Chain, RingError, Site, Waker};

/// Copies readable bytes to writable ones, and keeps what it is told.
#[derive(Default)]
struct Echo {
    features: Mutex<u64>,
    waker: Mutex<Option<Waker>>,
    resets: AtomicU32,
}

impl VirtioDevice for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }
    fn device_id(&self) -> u32 {
        42
    }
    fn features(&self) -> u64 {
        1 << 5 | 1 << 40
    }
    fn queue_sizes(&self) -> &[u16] {
        &[256, 64]
    }
    fn read_config(&self, offset: usize, data: &mut [u8]) {
        crate::devices::virtio::read_config_bytes(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], offset, data);
    }
    fn connect(&self, waker: Waker) {
        *self.waker.lock() = Some(waker);
    }
    fn negotiated(&self, features: u64) {
        *self.features.lock() = features;
    }
    fn service(&self, index: usize, queue: &mut ActiveQueue<'_>) -> Result<(), RingError> {
        let mut chain = Chain::default();
        while queue.pop(&mut chain)? {
            if index == 1 {
                // The slow queue: scribbles for as long as it is let.
                while !queue.stopping() {
                    chain.write(queue.memory(), 0, &[0x55; 64]);
                }
                chain.write(queue.memory(), 0, &[0x66; 64]);
                queue.retry(0);
                continue;
            }
            let mut bytes = [0; 64];
            let len = chain.read(queue.memory(), 0, &mut bytes);
            let written = chain.write(queue.memory(), 0, &bytes[..len]);
            queue.push(&chain, written as u32)?;
        }
        Ok(())
    }
    fn reset(&self) {
        self.resets.fetch_add(1, Ordering::SeqCst);
    }
}

fn echo(version: Version) -> (Driver, Arc<Echo>) {
    let device = Arc::new(Echo::default());
    (Driver::new(version, device.clone()), device)
}

fn round_trip(driver: &mut Driver) {
    driver.put(DATA, b"ping");
    driver.submit(0, &[(DATA, 4, 0), (DATA + 0x1000, 64, WRITE)]);
    assert_eq!(driver.complete(0), (0, 4));
    assert_eq!(driver.bytes(DATA + 0x1000, 4), b"ping");
}

#[test]
fn an_empty_slot_says_who_it_is_and_nothing_else() {
    for (version, number) in [(Version::Legacy, 1), (Version::Modern, 2)] {
        let slot = VirtioMmio::empty(version);
        let read = |offset| slot.read(offset, 4).unwrap();
        assert_eq!((read(0), read(4), read(8), read(12)), (0x7472_6976, number, 0, 0x554d_4551));
        assert_eq!((read(0x34), read(0x70), slot.read(0x100, 8).unwrap()), (0, 0, 0));
        slot.write(0x70, 4, 0xf).unwrap();
        slot.reset();
    }
}

#[test]
fn registers_answer_to_words_and_the_configuration_to_any_width() {
    let (driver, _) = echo(Version::Modern);
    assert_eq!((driver.get(0), driver.get(4), driver.get(8)), (0x7472_6976, 2, 42));
    assert_eq!(
        (driver.mmio.read(0, 1), driver.mmio.read(0, 2), driver.mmio.read(0, 8)),
        (Ok(0), Ok(0), Ok(0))
    );
    driver.mmio.write(0x30, 1, 1).unwrap();
    assert_eq!(driver.get(0x34), 256, "a byte write selects no queue");
    driver.set(0x30, 1);
    assert_eq!(driver.get(0x34), 64);
    driver.set(0x30, 2);
    assert_eq!(driver.get(0x34), 0);
    assert_eq!(driver.mmio.read(0x100, 1), Ok(1));
    assert_eq!(driver.mmio.read(0x102, 2), Ok(0x0403));
    assert_eq!(driver.mmio.read(0x104, 4), Ok(0x0807_0605));
    assert_eq!(driver.mmio.read(0x100, 8), Ok(0x0807_0605_0403_0201));
    assert_eq!(driver.mmio.read(0x108, 4), Ok(0xffff_0a09));
    assert_eq!(driver.mmio.read(0x1f8, 8), Ok(u64::MAX));
    assert_eq!((driver.get(0xb0), driver.get(0xb8), driver.get(0xbc)), (u32::MAX, u32::MAX, u32::MAX));
}

#[test]
fn modern_negotiation() {
    let (driver, device) = echo(Version::Modern);
    let offered = |sel| {
        driver.set(0x14, sel);
        driver.get(0x10)
    };
    assert_eq!((offered(0), offered(1), offered(2)), (1 << 5 | 3 << 28, 1 << 8 | 1, 0));
    driver.set(0x70, 3);
    driver.set(0x20, 1 << 6);
    driver.set(0x70, 0xb);
    assert_eq!(driver.get(0x70), 3, "a feature that was not offered");
    driver.set(0x20, 1 << 5);
    driver.set(0x24, 1);
    driver.set(0x20, 1);
    driver.set(0x70, 0xb);
    assert_eq!(driver.get(0x70), 0xb);
    assert_eq!(*device.features.lock(), 1 << 32 | 1 << 5);
    driver.set(0x20, 0x100);
    driver.set(0x70, 0xf);
    assert_eq!(*device.features.lock(), 1 << 32 | 1 << 5, "settled");
    driver.set(0x70, 0);
    assert_eq!((driver.get(0x70), device.resets.load(Ordering::SeqCst)), (0, 1));
}

#[test]
fn modern_drivers_may_leave_version_1_out() {
    // xv6 never looks at the upper half.
    let (mut driver, device) = echo(Version::Modern);
    driver.init(1 << 5, 1);
    assert_eq!(*device.features.lock(), 1 << 5);
    round_trip(&mut driver);
}

#[test]
fn a_request_raises_the_wire_until_it_is_acknowledged() {
    for version in [Version::Legacy, Version::Modern] {
        for event_idx in [0, EVENT_IDX] {
            let (mut driver, _) = echo(version);
            driver.init(event_idx, 1);
            for round in 0..40 {
                // Event index: tell me of the next one.
                let event = Driver::avail(0) + 4 + 2 * u64::from(SIZE);
                driver.ram.write_obj(round as u16, GuestAddress(event)).unwrap();
                assert!(!driver.irq());
                round_trip(&mut driver);
                wait_for("the interrupt", || driver.irq());
                assert_eq!(driver.get(0x60), 1);
                driver.set(0x64, 2);
                assert!(driver.irq());
                driver.set(0x64, 1);
                assert_eq!((driver.irq(), driver.get(0x60)), (false, 0));
            }
        }
    }
}

#[test]
fn drivers_can_ask_not_to_be_interrupted() {
    let (mut driver, _) = echo(Version::Modern);
    driver.init(VERSION_1, 1);
    driver.ram.write_obj(1_u16, GuestAddress(Driver::avail(0))).unwrap();
    round_trip(&mut driver);
    driver.set(0x70, 0);
    assert!(!driver.irq());

    driver.init(VERSION_1 | EVENT_IDX, 1);
    let event = Driver::avail(0) + 4 + 2 * u64::from(SIZE);
    driver.ram.write_obj(2_u16, GuestAddress(event)).unwrap();
    round_trip(&mut driver);
    round_trip(&mut driver);
    std::thread::sleep(Duration::from_millis(5));
    assert!(!driver.irq(), "the third is the one asked for");
    round_trip(&mut driver);
    wait_for("the interrupt", || driver.irq());
}

#[test]
fn event_index_asks_for_a_notification_only_when_idle() {
    let (mut driver, _) = echo(Version::Modern);
    driver.init(VERSION_1 | EVENT_IDX, 1);
    round_trip(&mut driver);
    let avail_event = Driver::used(0) + 4 + 8 * u64::from(SIZE);
    wait_for("the event index", || driver.ram.read_obj::<u16>(GuestAddress(avail_event)).unwrap() == 1);
}

#[test]
fn legacy_registers_and_layout() {
    let (mut driver, device) = echo(Version::Legacy);
    assert_eq!(driver.get(4), 1);
    driver.set(0x14, 1);
    assert_eq!(driver.get(0x10), 0, "32 features");
    driver.init(1 << 5 | 1 << 7, 1);
    assert_eq!(*device.features.lock(), 1 << 5, "what was not offered is dropped");
    assert_eq!(driver.get(0x40), 0x8_0000);
    assert_eq!((driver.get(0x44), driver.get(0xfc)), (0, 0), "modern registers are not there");
    round_trip(&mut driver);
    driver.set(0x40, 0);
    assert_eq!(driver.get(0x40), 0);
    driver.notify(0);
}

#[test]
fn the_page_size_survives_a_legacy_reset() {
    let (mut driver, _) = echo(Version::Legacy);
    driver.set(0x28, 8192);
    driver.set(0x70, 0);
    driver.set(0x70, 7);
    driver.ram.write_slice(&[0; 0x2000], GuestAddress(Driver::desc(0))).unwrap();
    driver.set(0x38, u32::from(SIZE));
    driver.set(0x40, 0x4_0000);
    round_trip(&mut driver);
}

#[test]
fn queues_may_come_before_or_after_driver_ok() {
    let (mut driver, _) = echo(Version::Modern);
    driver.init(VERSION_1, 0);
    driver.setup(0);
    round_trip(&mut driver);

    let (mut driver, _) = echo(Version::Legacy);
    driver.set(0x28, 4096);
    driver.setup(0);
    round_trip(&mut driver);
    assert_eq!(driver.get(0x70), 0, "before any status was written");
}

#[test]
fn a_queue_taken_away_is_not_served() {
    let (mut driver, _) = echo(Version::Modern);
    driver.init(VERSION_1, 1);
    round_trip(&mut driver);
    driver.set(0x44, 0);
    assert_eq!(driver.get(0x44), 0);
    driver.submit(0, &[(DATA, 4, 0), (DATA + 0x1000, 64, WRITE)]);
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(driver.used_index(0), 1);
    driver.setup(0);
    round_trip(&mut driver);
}

#[test]
fn notifications_of_nothing_are_ignored() {
    let (mut driver, _) = echo(Version::Modern);
    for queue in [0, 1, 2, 31, 32, 64, u32::MAX] {
        driver.notify(queue);
    }
    driver.init(VERSION_1, 1);
    driver.notify(1);
    driver.notify(u32::MAX);
    round_trip(&mut driver);
}

#[test]
fn malformed_chains_break_the_device_until_it_is_reset() {
    let table = DATA + 0x8000;
    let wild: [(&str, &[Buffer]); 9] = [
        ("outside RAM", &[(0x1000, 64, 0)]),
        ("across the end of RAM", &[(RAM.0 + RAM.1 as u64 - 8, 16, WRITE)]),
        ("wrapping", &[(u64::MAX - 3, 16, WRITE)]),
        ("4 GiB", &[(DATA, u32::MAX, 0)]),
        ("zero length", &[(DATA, 0, 0)]),
        ("readable after writable", &[(DATA, 4, WRITE), (DATA, 4, 0)]),
        ("nested tables", &[(table, 32, INDIRECT)]),
        ("an odd table", &[(table + 0x100, 17, INDIRECT)]),
        ("a table outside RAM", &[(0x20_0000, 32, INDIRECT)]),
    ];
    let (mut driver, device) = echo(Version::Modern);
    for (what, buffers) in wild {
        driver.init(VERSION_1, 1);
        driver.descriptor(table, 0, (table, 16, INDIRECT), 0);
        driver.submit(0, buffers);
        wait_for(what, || driver.get(0x70) == 0x4f);
        assert_eq!((driver.get(0x60), driver.irq()), (2, true), "{what}");
        driver.notify(0);
        assert_eq!(driver.used_index(0), 0, "{what}");
        driver.set(0x70, 0);
        assert_eq!((driver.get(0x60), driver.irq(), driver.get(0x70)), (0, false, 0), "{what}");
        driver.init(VERSION_1, 1);
        round_trip(&mut driver);
    }
    assert!(device.resets.load(Ordering::SeqCst) > 17);
}

#[test]
fn loops_bad_indices_and_bad_rings_break_the_device() {
    let (mut driver, _) = echo(Version::Modern);
    let broken = |driver: &Driver, what: &str| wait_for(what, || driver.get(0x70) & 0x40 != 0);

    driver.init(VERSION_1, 1);
    driver.descriptor(Driver::desc(0), 0, (DATA, 4, NEXT), 1);
    driver.descriptor(Driver::desc(0), 1, (DATA, 4, NEXT), 0);
    driver.offer(0, 0);
    driver.notify(0);
    broken(&driver, "a loop");

    driver.init(VERSION_1, 1);
    driver.descriptor(Driver::desc(0), 0, (DATA, 4, NEXT), SIZE);
    driver.offer(0, 0);
    driver.notify(0);
    broken(&driver, "a next index");

    driver.init(VERSION_1, 1);
    driver.offer(0, SIZE);
    driver.notify(0);
    broken(&driver, "a head index");

    driver.init(VERSION_1, 1);
    driver.ram.write_obj(SIZE + 1, GuestAddress(Driver::avail(0) + 2)).unwrap();
    driver.notify(0);
    broken(&driver, "a jump of the available index");

    let ring = |size, desc: u64, driver_area: u64| {
        let mut driver = echo(Version::Modern).0;
        driver.init(VERSION_1, 0);
        driver.set(0x38, size);
        for (register, address) in [(0x80, desc), (0x90, driver_area), (0xa0, Driver::used(0))] {
            driver.set(register, address as u32);
            driver.set(register + 4, (address >> 32) as u32);
        }
        driver.set(0x44, 1);
        driver.get(0x70)
    };
    let (desc, avail) = (Driver::desc(0), Driver::avail(0));
    assert_eq!(ring(16, desc, avail), 0xf);
    for size in [0, 3, 512, 0x1_0010, u32::MAX] {
        assert_eq!(ring(size, desc, avail), 0x4f, "size {size}");
    }
    assert_eq!(ring(16, desc + 8, avail), 0x4f, "misaligned");
    assert_eq!(ring(16, desc, 0x1000), 0x4f, "outside RAM");
    assert_eq!(ring(16, 0_u64.wrapping_sub(16), avail), 0x4f, "at the end of the world");
}

#[test]
fn nothing_reaches_memory_after_a_reset() {
    let (mut driver, _) = echo(Version::Modern);
    for round in 0..20 {
        driver.init(VERSION_1, 2);
        driver.put(DATA, &[0; 64]);
        driver.submit(1, &[(DATA, 64, WRITE)]);
        wait_for("the scribbler", || driver.bytes(DATA, 1)[0] != 0);
        round_trip_beside(&mut driver);
        match round % 3 {
            0 => driver.set(0x70, 0),
            1 => driver.mmio.reset(),
            _ => {
                driver.set(0x30, 1);
                driver.set(0x44, 0);
            }
        }
        driver.put(DATA, &[0x11; 64]);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(driver.bytes(DATA, 64), [0x11; 64]);
    }
}

/// A queue can be started while another one is busy, and the busy one goes on afterwards.
fn round_trip_beside(driver: &mut Driver) {
    driver.set(0x30, 0);
    driver.set(0x44, 0);
    driver.set(0x44, 1);
    driver.put(DATA, &[0; 64]);
    wait_for("the scribbler to go on", || driver.bytes(DATA, 1)[0] != 0);
}

#[test]
fn configuration_changes_interrupt_drivers_that_are_ready() {
    let (mut driver, device) = echo(Version::Modern);
    let change = || device.waker.lock().as_ref().unwrap().config_changed();
    let before = driver.get(0xfc);
    change();
    assert_ne!(driver.get(0xfc), before);
    assert!(!driver.irq(), "nobody listens yet");
    driver.init(VERSION_1, 1);
    change();
    assert_eq!((driver.irq(), driver.get(0x60)), (true, 2));
    driver.set(0x64, 2);
    assert!(!driver.irq());
}

#[test]
fn the_node_is_qemus() {
    let mut soc = Node::new("soc");
    let place = Placement {
        kind: Kind::Virtio,
        base: 0x1000_8000,
        size: 0x1000,
        window: 0x200,
        irq: Some(8),
        phandles: Phandles::new(1),
    };
    VirtioMmio::empty(Version::Modern).fdt(&place, &mut soc);
    let node = &soc.children[0];
    assert_eq!(node.name, "virtio_mmio@10008000");
    let names: Vec<_> = node.properties.iter().map(|property| property.name.as_str()).collect();
    assert_eq!(names, ["interrupts", "interrupt-parent", "reg", "compatible"]);
    assert_eq!(node.property("interrupts").unwrap().as_u32(), Some(8));
    assert_eq!(node.property("interrupt-parent").unwrap().as_u32(), Some(3));
    assert_eq!(node.property("reg").unwrap().as_cells(), Some(vec![0, 0x1000_8000, 0, 0x1000]));
    assert_eq!(node.property("compatible").unwrap().as_str(), Some("virtio,mmio"));
}

use super::*;
use crate::devices::virtio::mmio::Version;
use crate::devices::virtio::testing::*;
use crate::net::UserOptions;

const OUR_MAC: Mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
/// Where the tests keep what they send.
const SENT: u64 = DATA + 0x8_0000;

fn start(version: Version, features: u64) -> Driver {
    let network = UserNet::new(&UserOptions::default()).unwrap();
    let mut driver = Driver::new(version, Arc::new(Net::new(OUR_MAC, network)));
    driver.init(features, 2);
    driver
}

/// Asks the network who has 10.0.2.2.
fn arp() -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &OUR_MAC, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    frame.extend_from_slice(&[&OUR_MAC[..], &[10, 0, 2, 15], &[0; 6], &[10, 0, 2, 2]].concat());
    frame
}

/// Sends a frame behind a header of `header` bytes, in two pieces.
fn send(driver: &mut Driver, header: usize, frame: &[u8]) {
    driver.put(SENT, &[&vec![0; header][..], frame].concat());
    let len = (header + frame.len()) as u32;
    driver.submit(1, &[(SENT, 7, 0), (SENT + 7, len - 7, 0)]);
    assert_eq!(driver.complete(1), (0, 0));
}

const ARP_REPLY: usize = 42;
const MRG_RXBUF: u64 = 1 << 15;
const GUEST_CSUM: u64 = 1 << 1;
const GUEST_TSO4: u64 = 1 << 7;

#[test]
fn a_frame_is_answered_in_one_buffer() {
    for (version, features, header) in [
        (Version::Modern, VERSION_1 | EVENT_IDX, HEADER),
        (Version::Legacy, 0, LEGACY_HEADER),
        (Version::Legacy, MRG_RXBUF, HEADER),
    ] {
        let mut driver = start(version, features);
        driver.submit(0, &[(DATA, 4, WRITE), (DATA + 4, 2000, WRITE)]);
        send(&mut driver, header, &arp());
        assert_eq!(driver.complete(0), (0, (header + ARP_REPLY) as u32));
        let got = driver.bytes(DATA, header + ARP_REPLY);
        assert_eq!(got[..10], [0; 10]);
        if header == HEADER {
            assert_eq!(got[10..12], [1, 0], "one buffer");
        }
        assert_eq!((&got[header..header + 6], &got[header + 12..header + 14]), (&OUR_MAC[..], &[8, 6][..]));
        wait_for("the interrupt", || driver.irq());
    }
}

#[test]
fn a_frame_waits_for_a_buffer() {
    let mut driver = start(Version::Modern, VERSION_1);
    send(&mut driver, HEADER, &arp());
    std::thread::sleep(std::time::Duration::from_millis(2));
    assert_eq!(driver.used_index(0), 0);
    driver.submit(0, &[(DATA, 2000, WRITE)]);
    assert_eq!(driver.complete(0), (0, (HEADER + ARP_REPLY) as u32));
}

#[test]
fn a_frame_may_take_several_buffers_which_appear_at_once() {
    let mut driver = start(Version::Modern, VERSION_1 | MRG_RXBUF);
    // Two are not enough: nothing happens until the third is there.
    let size = 20;
    for index in 0..2 {
        let at = DATA + 0x100 * u64::from(index);
        driver.descriptor(Driver::desc(0), index, (at, size, WRITE), 0);
        driver.offer(0, index);
    }
    driver.notify(0);
    send(&mut driver, HEADER, &arp());
    std::thread::sleep(std::time::Duration::from_millis(2));
    assert_eq!(driver.used_index(0), 0);
    driver.descriptor(Driver::desc(0), 2, (DATA + 0x200, size, WRITE), 0);
    driver.offer(0, 2);
    driver.notify(0);
    wait_for("a used buffer", || driver.used_index(0) != 0);
    assert_eq!(driver.used_index(0), 3, "a part of a frame was shown");
    let lens: Vec<(u32, u32)> = (0..3).map(|_| driver.complete(0)).collect();
    let rest = (HEADER + ARP_REPLY) as u32 - 2 * size;
    assert_eq!(lens, [(0, size), (1, size), (2, rest)]);
    let parts: Vec<u8> = (0..3_u32)
        .flat_map(|index| driver.bytes(DATA + 0x100 * u64::from(index), lens[index as usize].1 as usize))
        .collect();
    assert_eq!(parts[10..12], [3, 0], "three buffers");
    assert_eq!(parts[HEADER + 20..HEADER + 22], [0, 2], "not the answer");
}

#[test]
fn configuration_and_features_are_as_the_specification_numbers_them() {
    let driver = start(Version::Modern, VERSION_1);
    assert_eq!((driver.get(8), driver.get(0x100)), (1, 0x1200_5452));
    // Status is up, and nothing stands behind it.
    assert_eq!(driver.get(0x104), 0x0001_5634);
    driver.set(0x14, 0);
    let features = u64::from(driver.get(0x10));
    for feature in [0, 1, 5, 7, 8, 11, 12, 15, 16] {
        assert_eq!(features >> feature & 1, 1, "{feature}");
    }
    assert_eq!(features & (1 << 2 | 1 << 17 | 1 << 22), 0, "what there is not was offered");
    assert_eq!(Agreed(GUEST_TSO4).offloads(), Offloads::default(), "segments without checksums");
    let both = Offloads { checksum: true, tso4: true, tso6: false };
    assert_eq!(Agreed(GUEST_CSUM | GUEST_TSO4).offloads(), both);
}

#[test]
fn a_large_segment_says_what_is_left_to_do() {
    use crate::net::Segmentation;
    let segmentation = Segmentation { v6: false, size: 1460, header_len: 54 };
    let unfinished = Unfinished { checksum: Some((34, 16)), segmentation: Some(segmentation) };
    assert_eq!(header(&unfinished, 2), [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 2, 0]);
    assert_eq!(header(&Unfinished::default(), 1), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
}

#[test]
fn frames_that_are_none_break_the_device_or_are_dropped() {
    // No room for a header, in either direction.
    let mut driver = start(Version::Modern, VERSION_1);
    driver.put(SENT, &[0; 64]);
    driver.submit(1, &[(SENT, 11, 0)]);
    wait_for("NEEDS_RESET", || driver.get(0x70) & 0x40 != 0);

    let mut driver = start(Version::Modern, VERSION_1 | MRG_RXBUF);
    driver.submit(0, &[(DATA, 11, WRITE)]);
    send(&mut driver, HEADER, &arp());
    wait_for("NEEDS_RESET", || driver.get(0x70) & 0x40 != 0);

    // Empty, too short or too large frames are nobody's.
    let mut driver = start(Version::Modern, VERSION_1);
    driver.submit(0, &[(DATA, 2000, WRITE)]);
    for len in [0, 1, 13, 14, MAX_FRAME + 1, 1 << 19] {
        driver.put(SENT, &vec![0xff; HEADER + len]);
        driver.submit(1, &[(SENT, (HEADER + len) as u32, 0)]);
        driver.complete(1);
    }
    assert_eq!((driver.used_index(0), driver.get(0x70) & 0x40), (0, 0));
    send(&mut driver, HEADER, &arp());
    assert_eq!(driver.complete(0).1, (HEADER + ARP_REPLY) as u32);
}

#[test]
fn a_device_that_is_reset_in_the_middle_works_again() {
    let mut driver = start(Version::Modern, VERSION_1 | EVENT_IDX | MRG_RXBUF);
    for round in 0..50 {
        send(&mut driver, HEADER, &arp());
        if round % 2 == 0 {
            driver.submit(0, &[(DATA, 2000, WRITE)]);
        }
        driver.init(VERSION_1 | EVENT_IDX | MRG_RXBUF, 2);
    }
    driver.submit(0, &[(DATA, 2000, WRITE)]);
    send(&mut driver, HEADER, &arp());
    assert_eq!(driver.complete(0).1, (HEADER + ARP_REPLY) as u32);
}

/// Ten thousand pairs of rings of nonsense: the device survives each, and touches nothing but RAM. In every fourth pair a
/// frame that is answered and a buffer for the answer come first.
#[test]
fn nonsense_in_the_rings_stays_in_ram() {
    const FEATURES: u64 = VERSION_1 | EVENT_IDX | MRG_RXBUF | GUEST_CSUM | GUEST_TSO4;
    let guarded = Guarded::new();
    // What nonsense asks for must not leave the machine.
    let network = UserNet::new(&UserOptions { restrict: true, ..UserOptions::default() }).unwrap();
    let mut driver = guarded.driver(Version::Modern, Arc::new(Net::new(OUR_MAC, network)));
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let (mut sent, mut broken, mut answered) = (0, 0, 0);
    for round in 0..10_000 {
        driver.init(FEATURES & !(random.next() & (EVENT_IDX | MRG_RXBUF)), 2);
        for at in (0..4096).step_by(64) {
            let mut header = [0; HEADER];
            if random.below(2) == 0 {
                header.iter_mut().for_each(|byte| *byte = random.pick(&[0, 0, 1, 2, 3, 4, 0x80, 0xff]));
            }
            driver.put(DATA + at, &[&header[..], &arp()].concat());
        }
        let sensible = round % 4 == 0;
        driver.put(SENT, &[&[0; HEADER][..], &arp()].concat());
        let room = sensible.then_some((SENT + 0x1000, 2000, WRITE));
        driver.offer_nonsense(0, &[WRITE, WRITE, NEXT | WRITE], room, &mut random);
        let question = sensible.then_some((SENT, (HEADER + ARP_REPLY) as u32, 0));
        let idx = driver.offer_nonsense(1, &[0, 0, NEXT], question, &mut random);
        driver.notify(0);
        driver.notify(1);
        let is_broken = || driver.get(0x70) & 0x40 != 0;
        wait_for("an end to the nonsense", || driver.used_index(1) == idx || is_broken());
        if sensible {
            wait_for("an answer", || driver.used_index(0) != 0 || is_broken());
        }
        if is_broken() {
            broken += 1
        } else {
            sent += 1
        }
        answered += usize::from(driver.used_index(0) != 0);
    }
    assert!(sent > 100 && broken > 100 && answered > 100, "{sent} sent, {broken} broke, {answered} answered");
    assert_eq!(guarded.touched(), None, "a byte beside RAM has changed");
    driver.init(VERSION_1, 2);
    driver.submit(0, &[(DATA, 2000, WRITE)]);
    send(&mut driver, HEADER, &arp());
    assert_eq!(driver.complete(0).1, (HEADER + ARP_REPLY) as u32);
}

//! Requests to a virtio device: the random number generator, which has little to do itself (virtio 1.3, 5.4). A queue full of them
//! for each notification, so that little of the time is the host's, which has to find a core for the device's thread.

use core::mem::offset_of;
use core::ptr::{read_volatile, write_volatile};
use core::sync::atomic::{Ordering, fence};

/// The transport of the first device.
const DEVICE: u64 = 0x1000_8000;
/// Requests for a notification (`PARTS` in `../machine.rs`).
const SIZE: usize = 256;
/// Pauses between two looks at the used ring, which the device writes meanwhile.
const PAUSES: usize = 64;
/// All that a driver says (virtio 1.3, 2.1).
const RUNNING: u64 = 15;

const STATUS: u64 = 0x70;
const DRIVER_FEATURES: u64 = 0x20;
const DRIVER_FEATURES_SEL: u64 = 0x24;
const QUEUE_SEL: u64 = 0x30;
const QUEUE_NUM: u64 = 0x38;
const QUEUE_READY: u64 = 0x44;
const QUEUE_NOTIFY: u64 = 0x50;
const INTERRUPT_ACK: u64 = 0x64;
const QUEUE_DESC: u64 = 0x80;
const QUEUE_DRIVER: u64 = 0x90;
const QUEUE_DEVICE: u64 = 0xa0;

/// Device-writable.
const WRITE: u16 = 2;

#[repr(C)]
struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

#[repr(C, align(16))]
struct Queue {
    descriptors: [Descriptor; SIZE],
    available: [u16; 3 + SIZE],
    pad: u16,
    used_flags: u16,
    used_index: u16,
    used: [[u32; 2]; SIZE],
    used_event: u16,
    buffers: [u64; SIZE],
}

static mut QUEUE: Queue = Queue {
    descriptors: [const { Descriptor { address: 0, length: 0, flags: 0, next: 0 } }; SIZE],
    available: [0; 3 + SIZE],
    pad: 0,
    used_flags: 0,
    used_index: 0,
    used: [[0; 2]; SIZE],
    used_event: 0,
    buffers: [0; SIZE],
};

fn write(register: u64, value: u64) {
    // SAFETY: a register of the device.
    unsafe { write_volatile((DEVICE + register) as *mut u32, value as u32) };
}

fn write_address(register: u64, value: u64) {
    write(register, value);
    write(register + 4, value >> 32);
}

fn read_status() -> u64 {
    // SAFETY: a register of the device.
    unsafe { read_volatile((DEVICE + STATUS) as *const u32) }.into()
}

/// Sets the queue up: each descriptor is a request for eight bytes, and each is in its place of the available ring.
fn start() {
    let queue = &raw mut QUEUE;
    write(STATUS, 0);
    while read_status() != 0 {}
    for number in 0..SIZE {
        // SAFETY: the queue belongs to this function until the device has been started.
        unsafe {
            let address = &raw const QUEUE.buffers[number] as u64;
            (*queue).descriptors[number] = Descriptor { address, length: 8, flags: WRITE, next: 0 };
            (*queue).available[2 + number] = number as u16;
        }
    }
    // ACKNOWLEDGE and DRIVER; VERSION_1; FEATURES_OK.
    write(STATUS, 3);
    write(DRIVER_FEATURES_SEL, 1);
    write(DRIVER_FEATURES, 1);
    write(DRIVER_FEATURES_SEL, 0);
    write(DRIVER_FEATURES, 0);
    write(STATUS, 11);
    write(QUEUE_SEL, 0);
    write(QUEUE_NUM, SIZE as u64);
    write_address(QUEUE_DESC, queue as u64 + offset_of!(Queue, descriptors) as u64);
    write_address(QUEUE_DRIVER, queue as u64 + offset_of!(Queue, available) as u64);
    write_address(QUEUE_DEVICE, queue as u64 + offset_of!(Queue, used_flags) as u64);
    write(QUEUE_READY, 1);
    write(STATUS, RUNNING);
}

/// Offers all descriptors at once, and waits until the device has used them all, once a round.
pub fn requests(rounds: u64) {
    if read_status() != RUNNING {
        start();
    }
    let queue = &raw mut QUEUE;
    for _ in 0..rounds {
        // SAFETY: the device writes the used ring, and reads the others when it is notified.
        unsafe {
            let index = (*queue).available[1].wrapping_add(SIZE as u16);
            fence(Ordering::SeqCst);
            write_volatile(&raw mut (*queue).available[1], index);
            fence(Ordering::SeqCst);
            write(QUEUE_NOTIFY, 0);
            while read_volatile(&raw const (*queue).used_index) != index {
                (0..PAUSES).for_each(|_| core::hint::spin_loop());
            }
            fence(Ordering::SeqCst);
        }
        write(INTERRUPT_ACK, 3);
    }
}

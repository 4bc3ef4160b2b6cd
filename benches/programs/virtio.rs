//! Round trips to a virtio device: the random number generator, which has little to do itself (virtio 1.3, 5.4).

use core::mem::offset_of;
use core::ptr::{read_volatile, write_volatile};
use core::sync::atomic::{Ordering, fence};

/// The transport of the first device.
const DEVICE: u64 = 0x1000_8000;
const SIZE: usize = 8;

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
    pad: [u16; 5],
    used_flags: u16,
    used_index: u16,
    used: [[u32; 2]; SIZE],
    used_event: u16,
    buffer: u64,
}

static mut QUEUE: Queue = Queue {
    descriptors: [const { Descriptor { address: 0, length: 0, flags: 0, next: 0 } }; SIZE],
    available: [0; 3 + SIZE],
    pad: [0; 5],
    used_flags: 0,
    used_index: 0,
    used: [[0; 2]; SIZE],
    used_event: 0,
    buffer: 0,
};

fn write(register: u64, value: u64) {
    // SAFETY: a register of the device.
    unsafe { write_volatile((DEVICE + register) as *mut u32, value as u32) };
}

fn write_address(register: u64, value: u64) {
    write(register, value);
    write(register + 4, value >> 32);
}

/// Sets the queue up, and then asks for eight random bytes and waits for them, once a round.
pub fn round_trip(rounds: u64) {
    let queue = &raw mut QUEUE;
    write(STATUS, 0);
    // SAFETY: reads a register; the queue belongs to this function until the device has been started.
    unsafe {
        while read_volatile((DEVICE + STATUS) as *const u32) != 0 {}
        (*queue).available = [0; 3 + SIZE];
        (*queue).used_index = 0;
        (*queue).descriptors[0] =
            Descriptor { address: &raw const QUEUE.buffer as u64, length: 8, flags: WRITE, next: 0 };
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
    write(STATUS, 15);
    let mut index = 0_u16;
    for _ in 0..rounds {
        // SAFETY: the device writes the used ring, and reads the others when it is notified.
        unsafe {
            let available = &raw mut (*queue).available;
            write_volatile(&raw mut (*available)[2 + usize::from(index) % SIZE], 0);
            fence(Ordering::SeqCst);
            index = index.wrapping_add(1);
            write_volatile(&raw mut (*available)[1], index);
            fence(Ordering::SeqCst);
            write(QUEUE_NOTIFY, 0);
            while read_volatile(&raw const (*queue).used_index) != index {
                core::hint::spin_loop();
            }
            fence(Ordering::SeqCst);
        }
        write(INTERRUPT_ACK, 3);
    }
    write(STATUS, 0);
}

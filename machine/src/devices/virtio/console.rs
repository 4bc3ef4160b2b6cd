//! The console device (section 5.3) with a single port: bytes in, bytes out, and a window size.

use std::collections::VecDeque;
use std::sync::OnceLock;

use parking_lot::Mutex;

use super::{ActiveQueue, Chain, RingError, Site, VirtioDevice, Waker, read_config_bytes};
use crate::console::{Receiver, Room, Sink};

const DEVICE_ID: u32 = 3;
const QUEUE_SIZES: [u16; 2] = [256, 256];
const RECEIVEQ: usize = 0;
const TRANSMITQ: usize = 1;

/// VIRTIO_CONSOLE_F_SIZE
const F_SIZE: u64 = 1 << 0;
/// VIRTIO_CONSOLE_F_EMERG_WRITE
const F_EMERG_WRITE: u64 = 1 << 2;
/// Where `emerg_wr` stands in configuration space.
const EMERG_WR: usize = 8;

/// Bytes typed that the driver has not taken yet.
const INPUT_ROOM: usize = 4096;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    cols: u16,
    rows: u16,
    features: u64,
    input: VecDeque<u8>,
}

/// A virtio console whose output goes to a [`Sink`] and whose input comes through [`Receiver`].
pub struct Console {
    output: Sink,
    room: Room,
    state: Mutex<State>,
    waker: OnceLock<Waker>,
}

impl Console {
    /// A console of `cols` by `rows` characters. `room` is notified when input can be taken again.
    pub fn new(output: Sink, room: Room, cols: u16, rows: u16) -> Self {
        let state = Mutex::new(State { cols, rows, ..State::default() });
        Self { output, room, state, waker: OnceLock::new() }
    }

    /// The host's window has changed its size.
    pub fn resize(&self, cols: u16, rows: u16) {
        let told = {
            let mut state = self.state.lock();
            if (state.cols, state.rows) == (cols, rows) {
                return;
            }
            (state.cols, state.rows) = (cols, rows);
            state.features & F_SIZE != 0
        };
        if told && let Some(waker) = self.waker.get() {
            waker.config_changed();
        }
    }

    /// Moves typed bytes into the driver's buffers.
    fn fill(&self, queue: &mut ActiveQueue<'_>) -> Result<(), RingError> {
        let mut chain = Chain::default();
        while !self.state.lock().input.is_empty() && queue.pop(&mut chain)? {
            if chain.writable_len() == 0 {
                return Err(RingError::Request("room for input"));
            }
            let mut state = self.state.lock();
            let len = state.input.len().min(chain.writable_len() as usize);
            let bytes: Vec<u8> = state.input.drain(..len).collect();
            drop(state);
            let done = chain.write(queue.memory(), 0, &bytes);
            queue.push(&chain, done as u32)?;
            self.room.notify();
        }
        Ok(())
    }

    /// Puts out what the driver sent.
    fn drain(&self, queue: &mut ActiveQueue<'_>) -> Result<(), RingError> {
        let mut chain = Chain::default();
        let mut bytes = [0; 4096];
        while queue.pop(&mut chain)? {
            let mut sent = chain.progress();
            while sent < chain.readable_len() {
                if queue.stopping() {
                    queue.retry(sent);
                    return Ok(());
                }
                let len = chain.read(queue.memory(), sent, &mut bytes);
                if len == 0 {
                    break;
                }
                self.output.write(&bytes[..len]);
                sent += len as u32;
            }
            queue.push(&chain, 0)?;
        }
        Ok(())
    }
}

impl VirtioDevice for Console {
    fn name(&self) -> &'static str {
        "virtio-console"
    }

    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        F_SIZE | F_EMERG_WRITE
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let mut config = [0; 12];
        let state = self.state.lock();
        config[0..2].copy_from_slice(&state.cols.to_le_bytes());
        config[2..4].copy_from_slice(&state.rows.to_le_bytes());
        config[4..8].copy_from_slice(&1_u32.to_le_bytes());
        read_config_bytes(&config, offset, data);
    }

    fn write_config(&self, offset: usize, data: &[u8]) {
        if offset == EMERG_WR
            && let Some(byte) = data.first()
        {
            self.output.write(&[*byte]);
        }
    }

    fn connect(&self, waker: Waker) {
        let _ = self.waker.set(waker);
    }

    fn negotiated(&self, features: u64) {
        self.state.lock().features = features;
    }

    fn service(&self, index: usize, queue: &mut ActiveQueue<'_>) -> Result<(), RingError> {
        match index {
            RECEIVEQ => self.fill(queue),
            TRANSMITQ => self.drain(queue),
            _ => Ok(()),
        }
    }

    /// What was typed and not read is lost with the driver it was typed to; the window keeps its size.
    fn reset(&self) {
        let mut state = self.state.lock();
        *state = State { cols: state.cols, rows: state.rows, ..State::default() };
        drop(state);
        self.room.notify();
    }
}

impl Receiver for Console {
    fn receive(&self, bytes: &[u8]) -> usize {
        let len = {
            let mut state = self.state.lock();
            let len = bytes.len().min(INPUT_ROOM - state.input.len());
            state.input.extend(&bytes[..len]);
            len
        };
        if len > 0
            && let Some(waker) = self.waker.get()
        {
            waker.wake(RECEIVEQ);
        }
        len
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::bus::MmioDevice;
    use crate::devices::virtio::mmio::Version;
    use crate::devices::virtio::testing::*;

    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn console(features: u64) -> (Driver, Arc<Console>, Sink, Screen) {
        let screen = Screen::default();
        let sink = Sink::new(screen.clone()).unwrap();
        let device = Arc::new(Console::new(sink.clone(), Room::default(), 80, 25));
        let mut driver = Driver::new(Version::Modern, device.clone());
        driver.init(VERSION_1 | features, 2);
        (driver, device, sink, screen)
    }

    fn shown(sink: &Sink, screen: &Screen) -> String {
        assert!(sink.flush(Duration::from_secs(300)));
        String::from_utf8(screen.0.lock().clone()).unwrap()
    }

    #[test]
    fn what_the_driver_sends_appears() {
        let (mut driver, _, sink, screen) = console(0);
        driver.put(DATA, b"hello, world");
        driver.submit(1, &[(DATA, 7, 0), (DATA + 7, 5, 0)]);
        assert_eq!(driver.complete(1), (0, 0));
        assert_eq!(shown(&sink, &screen), "hello, world");
        let long = "0123456789".repeat(2000);
        driver.put(DATA, long.as_bytes());
        driver.submit(1, &[(DATA, 20_000, 0)]);
        driver.complete(1);
        assert_eq!(shown(&sink, &screen), format!("hello, world{long}"));
    }

    #[test]
    fn what_is_typed_waits_for_a_buffer_and_fills_it() {
        let (mut driver, device, ..) = console(0);
        assert_eq!(device.receive(b"early"), 5);
        driver.submit(0, &[(DATA, 3, WRITE)]);
        assert_eq!(driver.complete(0), (0, 3));
        assert_eq!(driver.bytes(DATA, 3), b"ear");
        driver.submit(0, &[(DATA, 64, WRITE)]);
        assert_eq!(driver.complete(0), (0, 2));
        driver.submit(0, &[(DATA, 64, WRITE)]);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(driver.used_index(0), 2, "an empty buffer waits");
        assert_eq!(device.receive(b"later"), 5);
        assert_eq!(driver.complete(0), (0, 5));
        assert_eq!(driver.bytes(DATA, 5), b"later");
        wait_for("the interrupt", || driver.irq());
    }

    #[test]
    fn input_is_bounded_and_gone_after_a_reset() {
        let (mut driver, device, ..) = console(0);
        assert_eq!(device.receive(&[b'x'; 10_000]), INPUT_ROOM);
        assert_eq!(device.receive(b"y"), 0);
        driver.init(VERSION_1, 2);
        assert_eq!(device.receive(b"z"), 1);
        driver.submit(0, &[(DATA, 64, WRITE)]);
        assert_eq!(driver.complete(0), (0, 1));
        assert_eq!(driver.bytes(DATA, 1), b"z");
    }

    #[test]
    fn the_window_size_changes_with_an_interrupt() {
        let (driver, device, ..) = console(F_SIZE);
        assert_eq!((driver.get(8), driver.get(0x100), driver.get(0x104)), (3, 25 << 16 | 80, 1));
        device.resize(80, 25);
        assert!(!driver.irq(), "nothing changed");
        device.resize(132, 50);
        assert_eq!((driver.irq(), driver.get(0x60), driver.get(0x100)), (true, 2, 50 << 16 | 132));
        let (driver, device, ..) = console(0);
        device.resize(132, 50);
        assert!(!driver.irq(), "the driver did not ask");
    }

    #[test]
    fn emergency_writes_need_no_queue() {
        let (driver, _, sink, screen) = console(F_EMERG_WRITE);
        driver.mmio.reset();
        for byte in *b"oops" {
            driver.set(0x108, u32::from(byte));
        }
        assert_eq!(shown(&sink, &screen), "oops");
    }
}

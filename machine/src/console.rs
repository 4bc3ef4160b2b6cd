//! The character backend of the UART, SBI's debug console and virtio-console.
//!
//! Output: devices put bytes into a [`Sink`], a bounded buffer that a thread writes to the host. A guest that
//! prints faster than the host takes waits for room, as on a real line; but a host that takes nothing for
//! [`PATIENCE`] loses output rather than stop the guest, until it takes bytes again. A host end that is closed
//! swallows everything.
//!
//! Input: a thread reads the host end and passes it through a filter (escape keys); a second one hands the result to
//! the device in focus. What the device has no room for waits here, up to `BACKLOG` bytes, and beyond that in the
//! host's own buffers back to whoever types or pastes: nothing is lost, and the escape keys work though the guest
//! hangs.
//!
//! Lock order: a device's lock is never held while [`Sink::write`] is called, and [`Receiver::receive`] is called
//! with no lock held.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::patience::Patience;

/// How long a guest waits for a host end that takes no output before output is dropped.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of output that wait for the host.
const CAPACITY: usize = 64 << 10;

/// Bytes of input that wait for the device; more than a person types or pastes at a guest that hangs.
const BACKLOG: usize = 1 << 20;

/// Pause between two writes to the host, so that a guest that prints byte by byte causes few of them.
const GATHER: Duration = Duration::from_millis(1);

/// Where devices put their output. Cheap to clone.
#[derive(Clone)]
pub struct Sink {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Bytes came, or the writer shall end.
    filled: Condvar,
    /// Bytes went to the host, or the host end is closed.
    drained: Condvar,
}

#[derive(Default)]
struct Queue {
    bytes: VecDeque<u8>,
    /// Bytes that the writer has taken but the host has not.
    in_flight: usize,
    /// The writer sleeps on `filled`.
    writer_idle: bool,
    /// The host has not made room for [`PATIENCE`]: drop what does not fit at once.
    stalled: bool,
    /// Nothing will be written any more.
    closed: bool,
    dropped: u64,
}

impl Sink {
    /// A sink that a new thread drains to `writer`. The thread ends after [`close`](Self::close), or when the
    /// writer fails (a closed pipe): then output is discarded.
    ///
    /// # Errors
    /// When the host cannot start a thread.
    pub fn new(writer: impl Write + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::default()),
            filled: Condvar::new(),
            drained: Condvar::new(),
        });
        let drain = Arc::clone(&shared);
        std::thread::Builder::new().name("console-out".into()).spawn(move || drain.drain(writer))?;
        Ok(Self { shared })
    }

    /// A sink that discards everything.
    pub fn null() -> Self {
        let queue = Mutex::new(Queue { closed: true, ..Queue::default() });
        Self { shared: Arc::new(Shared { queue, filled: Condvar::new(), drained: Condvar::new() }) }
    }

    /// Takes all of `bytes`, waiting for room at most [`PATIENCE`] after the last sign of life of the host end.
    pub fn write(&self, bytes: &[u8]) {
        let mut rest = bytes;
        let mut patience = Patience::new(PATIENCE);
        let mut queue = self.shared.queue.lock();
        while !rest.is_empty() && !queue.closed {
            let room = CAPACITY.saturating_sub(queue.bytes.len()).min(rest.len());
            if room > 0 {
                queue.bytes.extend(&rest[..room]);
                rest = &rest[room..];
                patience = Patience::new(PATIENCE);
                if std::mem::take(&mut queue.writer_idle) {
                    self.shared.filled.notify_one();
                }
            } else if queue.stalled {
                break;
            } else if !patience.wait(&self.shared.drained, &mut queue) {
                queue.stalled = true;
            }
        }
        if !queue.closed {
            queue.dropped += rest.len() as u64;
        }
    }

    /// Waits until the host has taken everything; `false` if that did not happen within `limit`.
    pub fn flush(&self, limit: Duration) -> bool {
        let mut patience = Patience::new(limit);
        let mut queue = self.shared.queue.lock();
        while !queue.closed && (!queue.bytes.is_empty() || queue.in_flight > 0) {
            if !patience.wait(&self.shared.drained, &mut queue) {
                return false;
            }
        }
        true
    }

    /// As [`flush`](Self::flush), then ends the writer thread. Later output is discarded.
    pub fn close(&self, limit: Duration) -> bool {
        let flushed = self.flush(limit);
        self.shared.queue.lock().closed = true;
        self.shared.filled.notify_all();
        self.shared.drained.notify_all();
        flushed
    }

    /// Bytes lost so far because the host end did not take them.
    pub fn dropped(&self) -> u64 {
        self.shared.queue.lock().dropped
    }
}

impl Shared {
    fn drain(&self, mut writer: impl Write) {
        let mut chunk = Vec::new();
        loop {
            let mut queue = self.queue.lock();
            while queue.bytes.is_empty() && !queue.closed {
                queue.writer_idle = true;
                self.filled.wait(&mut queue);
            }
            if queue.closed {
                return;
            }
            queue.writer_idle = false;
            chunk.clear();
            chunk.extend(queue.bytes.drain(..));
            queue.in_flight = chunk.len();
            queue.stalled = false;
            drop(queue);
            self.drained.notify_all();
            let written = self.write_all(&mut writer, &chunk);
            let mut queue = self.queue.lock();
            queue.in_flight = 0;
            if let Err(error) = written {
                log::debug!("console output is closed: {error}");
                queue.closed = true;
                queue.bytes.clear();
            }
            let closed = queue.closed;
            drop(queue);
            self.drained.notify_all();
            if closed {
                return;
            }
            std::thread::sleep(GATHER);
        }
    }

    fn write_all(&self, writer: &mut impl Write, mut rest: &[u8]) -> std::io::Result<()> {
        while !rest.is_empty() {
            match writer.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The host end was made non-blocking by somebody who shares it.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.queue.lock().closed {
                        return Err(error);
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(error),
            }
        }
        writer.flush()
    }
}

/// A device that takes console input.
pub trait Receiver: Send + Sync {
    /// Takes the first bytes of `bytes`; returns how many. A receiver that takes fewer than all must call
    /// [`Room::notify`] once it can take more.
    fn receive(&self, bytes: &[u8]) -> usize;
}

/// Tells an [`Input`] that a device has room again. Cheap to clone; given to the device when it is made.
#[derive(Clone, Default)]
pub struct Room {
    inner: Arc<(Mutex<bool>, Condvar)>,
}

impl Room {
    /// There may be room now. May be called with the device's lock held.
    pub fn notify(&self) {
        *self.inner.0.lock() = true;
        self.inner.1.notify_all();
    }

    /// Waits for [`notify`](Self::notify), or for `limit`.
    fn wait(&self, limit: Duration) {
        let mut notified = self.inner.0.lock();
        if !*notified {
            self.inner.1.wait_for(&mut notified, limit);
        }
        *notified = false;
    }
}

/// Sees input before the guest does: gets what was typed, returns what the guest shall get.
pub type Filter = Box<dyn FnMut(&[u8]) -> Vec<u8> + Send>;

/// The threads that feed input to devices, and which device has the focus. Dropping it stops the feeding; the
/// thread that reads ends when its `read` returns next.
pub struct Input {
    shared: Arc<InputShared>,
    room: Room,
}

struct InputShared {
    receivers: Vec<Arc<dyn Receiver>>,
    focus: AtomicUsize,
    stop: AtomicBool,
    /// What has been read and no device has taken.
    waiting: Mutex<VecDeque<u8>>,
    /// `waiting` has got longer or shorter, or `stop` is set.
    changed: Condvar,
}

impl Input {
    /// Starts to read `reader` (until its end or an error) and to feed the first of `receivers`, all of which
    /// notify `room`.
    ///
    /// # Errors
    /// When the host cannot start a thread.
    pub fn new(
        reader: impl Read + Send + 'static,
        filter: Filter,
        receivers: Vec<Arc<dyn Receiver>>,
        room: Room,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(InputShared {
            receivers,
            focus: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            waiting: Mutex::default(),
            changed: Condvar::new(),
        });
        let input = Self { shared: Arc::clone(&shared), room: room.clone() };
        let feed = Arc::clone(&shared);
        std::thread::Builder::new().name("console-feed".into()).spawn(move || feed.feed(&room))?;
        std::thread::Builder::new().name("console-in".into()).spawn(move || shared.read(reader, filter))?;
        Ok(input)
    }

    /// Gives input to receiver number `index` from now on (modulo their number), also what waits already.
    pub fn set_focus(&self, index: usize) {
        self.shared.focus.store(index % self.shared.receivers.len().max(1), Ordering::SeqCst);
        self.room.notify();
    }

    /// The number of the receiver that gets input.
    pub fn focus(&self) -> usize {
        self.shared.focus.load(Ordering::SeqCst)
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        let waiting = self.shared.waiting.lock();
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(waiting);
        self.shared.changed.notify_all();
        self.room.notify();
    }
}

impl InputShared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn read(&self, mut reader: impl Read, mut filter: Filter) {
        let mut buffer = [0; 4096];
        while !self.stopped() {
            match reader.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    let bytes = filter(&buffer[..count]);
                    let mut waiting = self.waiting.lock();
                    waiting.extend(bytes);
                    self.changed.notify_all();
                    while waiting.len() >= BACKLOG && !self.stopped() {
                        self.changed.wait(&mut waiting);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error) => {
                    log::debug!("console input ended: {error}");
                    return;
                }
            }
        }
    }

    fn feed(&self, room: &Room) {
        let mut chunk = Vec::new();
        while !self.stopped() {
            let mut waiting = self.waiting.lock();
            while waiting.is_empty() && !self.stopped() {
                self.changed.wait(&mut waiting);
            }
            let count = waiting.len().min(4096);
            chunk.clear();
            chunk.extend(waiting.drain(..count));
            drop(waiting);
            self.changed.notify_all();
            self.deliver(&chunk, room);
        }
    }

    fn deliver(&self, mut rest: &[u8], room: &Room) {
        while !rest.is_empty() && !self.stopped() {
            let Some(receiver) = self.receivers.get(self.focus.load(Ordering::SeqCst)) else { return };
            let count = receiver.receive(rest).min(rest.len());
            rest = &rest[count..];
            if count == 0 {
                room.wait(Duration::from_secs(1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    /// Keeps what was written, and takes nothing while `blocked` is locked.
    #[derive(Clone, Default)]
    struct Host {
        taken: Arc<Mutex<Vec<u8>>>,
        blocked: Arc<Mutex<()>>,
    }

    impl Write for Host {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _open = self.blocked.lock();
            self.taken.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _bytes: &[u8]) -> std::io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    const LIMIT: Duration = Duration::from_secs(300);

    #[test]
    fn output_arrives_in_order() {
        let host = Host::default();
        let sink = Sink::new(host.clone()).unwrap();
        sink.write(b"hello ");
        sink.write(b"world");
        assert!(sink.flush(LIMIT));
        assert_eq!(*host.taken.lock(), b"hello world");
    }

    #[test]
    fn a_slow_host_loses_nothing() {
        loop {
            let host = Host::default();
            let sink = Sink::new(host.clone()).unwrap();
            let start = Instant::now();
            let blocked = host.blocked.lock();
            let writer = sink.clone();
            let thread = std::thread::spawn(move || writer.write(&vec![7; 3 * CAPACITY]));
            std::thread::sleep(Duration::from_millis(50));
            drop(blocked);
            thread.join().unwrap();
            let lasted = start.elapsed();
            assert!(sink.flush(LIMIT));
            // On a busy machine the host may have been slower than was meant.
            if lasted < PATIENCE {
                assert_eq!(host.taken.lock().len(), 3 * CAPACITY);
                assert_eq!(sink.dropped(), 0);
                break;
            }
        }
    }

    #[test]
    fn a_stuck_host_delays_the_guest_once_and_recovers() {
        let host = Host::default();
        let sink = Sink::new(host.clone()).unwrap();
        let blocked = host.blocked.lock();
        sink.write(&vec![1; 3 * CAPACITY]);
        assert!(sink.dropped() >= CAPACITY as u64);
        // Whoever waited again would wait as long each time; what else delays this thread does not.
        let shortest = (0..5).map(|_| {
            let start = Instant::now();
            sink.write(b"lost");
            start.elapsed()
        });
        assert!(shortest.min() < Some(PATIENCE / 2));
        assert!(!sink.flush(Duration::from_millis(20)));
        drop(blocked);
        assert!(sink.flush(LIMIT));
        sink.write(b"again");
        assert!(sink.flush(LIMIT));
        assert!(host.taken.lock().ends_with(b"again"));
    }

    #[test]
    fn a_closed_host_swallows_output() {
        let sink = Sink::new(Broken).unwrap();
        sink.write(b"x");
        assert!(sink.flush(LIMIT));
        sink.write(&vec![0; 10 * CAPACITY]);
        assert!(sink.close(LIMIT));
        assert_eq!(sink.dropped(), 0);
    }

    #[test]
    fn output_after_close_is_discarded() {
        let host = Host::default();
        let sink = Sink::new(host.clone()).unwrap();
        sink.write(b"kept");
        assert!(sink.close(LIMIT));
        sink.write(b"lost");
        assert_eq!(*host.taken.lock(), b"kept");
    }

    /// Takes `room` bytes, then none until more room is made.
    struct Device {
        room: Mutex<usize>,
        got: Mutex<Vec<u8>>,
        calls: Mutex<mpsc::Sender<()>>,
    }

    impl Device {
        fn new(room: usize) -> (Arc<Self>, mpsc::Receiver<()>) {
            let (sender, receiver) = mpsc::channel();
            let device =
                Self { room: Mutex::new(room), got: Mutex::new(Vec::new()), calls: Mutex::new(sender) };
            (Arc::new(device), receiver)
        }
    }

    impl Receiver for Device {
        fn receive(&self, bytes: &[u8]) -> usize {
            let mut room = self.room.lock();
            let count = bytes.len().min(*room);
            *room -= count;
            self.got.lock().extend_from_slice(&bytes[..count]);
            let _ = self.calls.lock().send(());
            count
        }
    }

    fn plain() -> Filter {
        Box::new(<[u8]>::to_vec)
    }

    #[test]
    fn pasted_text_waits_for_room() {
        let (device, calls) = Device::new(3);
        let room = Room::default();
        let receivers: Vec<Arc<dyn Receiver>> = vec![device.clone()];
        let _input = Input::new(&b"abcdef"[..], plain(), receivers, room.clone()).unwrap();
        calls.recv_timeout(LIMIT).unwrap();
        calls.recv_timeout(LIMIT).unwrap();
        assert_eq!(*device.got.lock(), b"abc");
        *device.room.lock() = 100;
        room.notify();
        // It may have been called once more before there was room.
        while device.got.lock().len() < 6 {
            calls.recv_timeout(LIMIT).unwrap();
        }
        assert_eq!(*device.got.lock(), b"abcdef");
    }

    #[test]
    fn the_filter_sees_keys_though_the_device_takes_nothing() {
        struct Typist(mpsc::Receiver<&'static [u8]>);
        impl Read for Typist {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                let Ok(bytes) = self.0.recv() else { return Ok(0) };
                buffer[..bytes.len()].copy_from_slice(bytes);
                Ok(bytes.len())
            }
        }
        let (device, _calls) = Device::new(0);
        let (typed, typist) = mpsc::channel();
        let (key, keys) = mpsc::channel();
        let filter: Filter = Box::new(move |bytes| {
            if bytes == b"\x01x" {
                key.send(()).unwrap();
            }
            bytes.to_vec()
        });
        let receivers: Vec<Arc<dyn Receiver>> = vec![device];
        let _input = Input::new(Typist(typist), filter, receivers, Room::default()).unwrap();
        for keys in [&b"hello? "[..], b"anybody there?", b"\x01x"] {
            typed.send(keys).unwrap();
        }
        keys.recv_timeout(LIMIT).unwrap();
    }

    #[test]
    fn the_filter_decides_what_the_guest_gets() {
        let (device, calls) = Device::new(100);
        let filter: Filter = Box::new(|bytes| bytes.iter().copied().filter(|&byte| byte != 1).collect());
        let receivers: Vec<Arc<dyn Receiver>> = vec![device.clone()];
        let _input = Input::new(&b"a\x01b"[..], filter, receivers, Room::default()).unwrap();
        calls.recv_timeout(LIMIT).unwrap();
        assert_eq!(*device.got.lock(), b"ab");
    }

    #[test]
    fn focus_moves_waiting_input_to_another_device() {
        let (first, first_calls) = Device::new(0);
        let (second, second_calls) = Device::new(100);
        let receivers: Vec<Arc<dyn Receiver>> = vec![first.clone(), second.clone()];
        let input = Input::new(&b"x"[..], plain(), receivers, Room::default()).unwrap();
        first_calls.recv_timeout(LIMIT).unwrap();
        input.set_focus(1);
        second_calls.recv_timeout(LIMIT).unwrap();
        assert_eq!(*second.got.lock(), b"x");
        assert!(first.got.lock().is_empty());
    }
}

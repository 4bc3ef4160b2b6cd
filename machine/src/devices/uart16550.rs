//! The 16550A serial port: registers one byte apart, 16-byte receive FIFO, level-triggered interrupt.
//!
//! [`Chip`] is the chip as its data sheet has it, plain data; [`Uart16550`] wires it to the console and the PLIC.
//! The line has no speed: a byte written is sent at once, and the character timeout (data in the FIFO below the
//! trigger level) strikes at once, so a guest never waits for input that is here.

mod chip;

use devicetree::Node;
use parking_lot::Mutex;
use softmmu::AccessFault;

use crate::bus::{MmioDevice, Placement};
use crate::console::{Receiver, Room, Sink};
use crate::irq::IrqLine;

pub use chip::Chip;

/// What the device tree says the baud rate generator runs at, in Hz.
const CLOCK_FREQUENCY: u32 = 3_686_400;

/// The port on the board.
///
/// Lock order: the port's lock, then the PLIC's (the wire changes in the order of the state) and the console's
/// `Room`. Output is handed to the sink with no lock held, since it may wait there.
pub struct Uart16550 {
    port: Mutex<Port>,
    line: IrqLine,
    sink: Sink,
    room: Room,
}

struct Port {
    chip: Chip,
    /// What the wire was driven to last.
    level: bool,
    /// Input waits for room.
    starved: bool,
}

impl Uart16550 {
    /// A port that interrupts through `line`, prints to `sink`, and notifies `room` when it can take input again.
    pub fn new(line: IrqLine, sink: Sink, room: Room) -> Self {
        let port = Port { chip: Chip::new(), level: false, starved: false };
        Self { port: Mutex::new(port), line, sink, room }
    }

    /// Takes what has been received and not read, as a firmware that polls the port does for SBI's
    /// `console_read`. Returns how many bytes of `buffer` were filled.
    pub fn take_received(&self, buffer: &mut [u8]) -> usize {
        self.with(|chip| {
            let count = buffer.len().min(chip.received.len());
            for (place, byte) in buffer.iter_mut().zip(chip.received.drain(..count)) {
                *place = byte;
            }
            count
        })
    }

    /// Runs `act`, then lets the wire and the waiting input follow.
    fn with<R>(&self, act: impl FnOnce(&mut Chip) -> R) -> R {
        let mut port = self.port.lock();
        let result = act(&mut port.chip);
        let level = port.chip.interrupt();
        if level != port.level {
            port.level = level;
            self.line.set(level);
        }
        // Only an empty FIFO is worth waking the input thread for: it will be filled whole.
        if port.starved && port.chip.received.is_empty() && !port.chip.is_looped_back() {
            port.starved = false;
            self.room.notify();
        }
        result
    }
}

impl Receiver for Uart16550 {
    fn receive(&self, bytes: &[u8]) -> usize {
        let mut port = self.port.lock();
        let count = port.chip.receive(bytes);
        port.starved = count < bytes.len();
        let level = port.chip.interrupt();
        if level != port.level {
            port.level = level;
            self.line.set(level);
        }
        count
    }
}

/// Register of an offset below 8.
fn register(offset: u64) -> u8 {
    (offset & 7) as u8
}

impl MmioDevice for Uart16550 {
    fn name(&self) -> &'static str {
        "uart16550"
    }

    /// Any width reads the one register at `offset`, without touching its neighbours.
    fn read(&self, offset: u64, _width: u8) -> Result<u64, AccessFault> {
        Ok(self.with(|chip| chip.read(register(offset))).into())
    }

    /// Any width writes the one register at `offset`, with the low byte of `value`.
    fn write(&self, offset: u64, _width: u8, value: u64) -> Result<(), AccessFault> {
        if let Some(byte) = self.with(|chip| chip.write(register(offset), (value & 0xff) as u8)) {
            self.sink.write(&[byte]);
        }
        Ok(())
    }

    fn reset(&self) {
        self.with(|chip| *chip = Chip::new());
    }

    fn fdt(&self, place: &Placement, parent: &mut Node) {
        parent
            .child(&format!("serial@{:x}", place.base))
            .set_u32("interrupts", place.irq.unwrap_or(0))
            .set_u32("interrupt-parent", place.phandles.plic)
            .set_u32("clock-frequency", CLOCK_FREQUENCY)
            .set_reg(&[(place.base, place.size)])
            .set_string("compatible", "ns16550a");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::chip::*;
    use super::*;
    use crate::irq::IrqSink;

    #[derive(Default)]
    struct Wire(AtomicBool);

    impl IrqSink for Wire {
        fn set_level(&self, irq: u32, level: bool) {
            assert_eq!(irq, 10);
            self.0.store(level, Ordering::SeqCst);
        }
    }

    impl Wire {
        fn is_high(&self) -> bool {
            self.0.load(Ordering::SeqCst)
        }
    }

    fn uart() -> (Uart16550, Arc<Wire>) {
        let wire = Arc::new(Wire::default());
        (Uart16550::new(IrqLine::new(wire.clone(), 10), Sink::null(), Room::default()), wire)
    }

    fn get(uart: &Uart16550, register: u8) -> u8 {
        u8::try_from(uart.read(register.into(), 1).unwrap()).unwrap()
    }

    fn put(uart: &Uart16550, register: u8, value: u8) {
        uart.write(register.into(), 1, value.into()).unwrap();
    }

    #[test]
    fn registers_after_reset() {
        let (uart, wire) = uart();
        let registers: Vec<u8> = (0..8).map(|register| get(&uart, register)).collect();
        assert_eq!(registers, [0, 0, 0x01, 0, 0x08, 0x60, 0xb0, 0]);
        assert!(!wire.is_high());
    }

    #[test]
    fn dlab_gives_the_divisor_instead_of_data_and_ier() {
        let (uart, _) = uart();
        put(&uart, LCR, 0x83);
        assert_eq!((get(&uart, 0), get(&uart, 1)), (12, 0));
        put(&uart, 0, 2);
        put(&uart, 1, 1);
        assert_eq!((get(&uart, 0), get(&uart, 1)), (2, 1));
        put(&uart, LCR, 0x03);
        assert_eq!((get(&uart, 0), get(&uart, 1)), (0, 0));
    }

    #[test]
    fn written_bytes_go_to_the_sink() {
        #[derive(Clone, Default)]
        struct Host(Arc<Mutex<Vec<u8>>>);
        impl Write for Host {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let host = Host::default();
        let sink = Sink::new(host.clone()).unwrap();
        let line = IrqLine::new(Arc::new(Wire::default()), 10);
        let uart = Uart16550::new(line, sink.clone(), Room::default());
        put(&uart, 0, b'h');
        uart.write(0, 4, 0x1234_5600 | u64::from(b'i')).unwrap();
        assert!(sink.flush(Duration::from_secs(300)));
        assert_eq!(*host.0.lock(), b"hi");
    }

    #[test]
    fn received_data_interrupts_at_and_below_the_trigger_level() {
        let (uart, wire) = uart();
        put(&uart, IER_DLM, IER_RECEIVED);
        put(&uart, IIR_FCR, 0x41);
        assert_eq!(uart.receive(b"abcd"), 4);
        assert!(wire.is_high());
        assert_eq!(get(&uart, IIR_FCR), 0xc4);
        assert_eq!(get(&uart, RBR_THR_DLL), b'a');
        assert_eq!(get(&uart, IIR_FCR), 0xcc, "three are below the level of four: timeout");
        assert_eq!(get(&uart, LSR), 0x61);
        assert_eq!([0; 3].map(|_| get(&uart, RBR_THR_DLL)), *b"bcd");
        assert_eq!(get(&uart, IIR_FCR), 0xc1);
        assert_eq!(get(&uart, LSR), 0x60);
        assert!(!wire.is_high());
    }

    #[test]
    fn the_receive_fifo_holds_sixteen_and_one_without_fifos() {
        let (uart, _) = uart();
        assert_eq!(uart.receive(b"ab"), 1);
        put(&uart, IIR_FCR, 0x01);
        assert_eq!(get(&uart, LSR) & LSR_DATA_READY, 0, "switching modes empties the FIFO");
        assert_eq!(uart.receive(&[0; 20]), 16);
        assert_eq!(uart.receive(&[0; 20]), 0);
        put(&uart, IIR_FCR, 0x03);
        assert_eq!(get(&uart, LSR) & LSR_DATA_READY, 0);
    }

    #[test]
    fn thre_interrupt_is_raised_by_enabling_and_by_sending_and_cleared_by_iir() {
        let (uart, wire) = uart();
        put(&uart, IER_DLM, IER_THRE);
        assert!(wire.is_high());
        assert_eq!(get(&uart, IIR_FCR), 0x02);
        assert!(!wire.is_high());
        assert_eq!(get(&uart, IIR_FCR), 0x01);
        put(&uart, RBR_THR_DLL, b'x');
        assert!(wire.is_high());
        assert_eq!(get(&uart, IIR_FCR), 0x02);
        put(&uart, IER_DLM, IER_THRE);
        assert!(!wire.is_high(), "it was enabled already");
        put(&uart, IER_DLM, 0);
        put(&uart, IER_DLM, IER_THRE);
        assert_eq!(get(&uart, IIR_FCR), 0x02);
    }

    #[test]
    fn iir_reports_receive_before_thre_and_does_not_clear_it() {
        let (uart, wire) = uart();
        put(&uart, IER_DLM, IER_RECEIVED | IER_THRE);
        uart.receive(b"a");
        assert_eq!(get(&uart, IIR_FCR), 0x04);
        get(&uart, RBR_THR_DLL);
        assert_eq!(get(&uart, IIR_FCR), 0x02);
        assert!(!wire.is_high());
    }

    #[test]
    fn loopback_returns_data_and_modem_lines() {
        let (uart, _) = uart();
        put(&uart, IIR_FCR, 0x01);
        put(&uart, MCR, MCR_LOOP | MCR_OUT2 | MCR_RTS);
        assert_eq!(get(&uart, MSR) & 0xf0, 0x90, "what Linux's autoconfiguration expects");
        put(&uart, RBR_THR_DLL, b'l');
        assert_eq!(get(&uart, LSR), 0x61);
        assert_eq!(get(&uart, RBR_THR_DLL), b'l');
        assert_eq!(uart.receive(b"outside"), 0);
        put(&uart, MCR, 0);
        assert_eq!(get(&uart, MSR), 0xb2, "DSR rose");
        assert_eq!(get(&uart, MSR), 0xb0);
    }

    #[test]
    fn overrun_in_a_fifo_keeps_the_old_bytes_and_interrupts() {
        let (uart, wire) = uart();
        put(&uart, IIR_FCR, 0x01);
        put(&uart, MCR, MCR_LOOP);
        (0..17).for_each(|byte| put(&uart, RBR_THR_DLL, byte));
        put(&uart, IER_DLM, IER_LINE_STATUS);
        assert!(wire.is_high());
        assert_eq!(get(&uart, IIR_FCR), 0xc6);
        assert_eq!(get(&uart, LSR), 0x63);
        assert!(!wire.is_high());
        assert_eq!(get(&uart, LSR), 0x61);
        assert_eq!([0; 16].map(|_| get(&uart, RBR_THR_DLL))[15], 15);
    }

    #[test]
    fn overrun_without_fifo_keeps_the_new_byte() {
        let (uart, _) = uart();
        put(&uart, MCR, MCR_LOOP);
        put(&uart, RBR_THR_DLL, 1);
        put(&uart, RBR_THR_DLL, 2);
        assert_eq!(get(&uart, LSR), 0x63);
        assert_eq!(get(&uart, RBR_THR_DLL), 2);
    }

    #[test]
    fn modem_status_changes_interrupt_when_enabled() {
        let (uart, wire) = uart();
        put(&uart, IER_DLM, IER_MODEM_STATUS);
        put(&uart, MCR, MCR_LOOP);
        assert!(wire.is_high());
        assert_eq!(get(&uart, IIR_FCR), 0x00);
        assert_eq!(get(&uart, MSR), 0x0b);
        assert!(!wire.is_high());
        put(&uart, MCR, MCR_LOOP | MCR_OUT1);
        assert_eq!(get(&uart, MSR), 0x40);
        put(&uart, MCR, MCR_LOOP);
        assert_eq!(get(&uart, MSR), 0x04, "the end of a ring");
    }

    /// The steps by which Linux's 8250 driver tells a 16550A from its relatives.
    #[test]
    fn autodetection_finds_a_16550a() {
        let (uart, _) = uart();
        put(&uart, IER_DLM, 0xff);
        assert_eq!(get(&uart, IER_DLM), 0x0f, "no XScale");
        put(&uart, IER_DLM, 0);
        put(&uart, SCR, 0xa5);
        assert_eq!(get(&uart, SCR), 0xa5, "no 8250");
        put(&uart, IIR_FCR, 0x01);
        assert_eq!(get(&uart, IIR_FCR) >> 6, 3, "working FIFOs");
        put(&uart, LCR, 0x80);
        assert_ne!(get(&uart, 2), 0, "no EFR, so no 16650");
        put(&uart, LCR, 0xbf);
        assert_ne!(get(&uart, 2), 0, "no EFR, so no 16850");
        put(&uart, LCR, 0);
        put(&uart, IIR_FCR, 0x21);
        assert_eq!(get(&uart, IIR_FCR) >> 5, 6, "no 64-byte FIFO");
        put(&uart, LCR, 0x80);
        put(&uart, IIR_FCR, 0x21);
        assert_eq!(get(&uart, IIR_FCR) >> 5, 6, "no 16750");
    }

    #[test]
    fn waiting_input_is_called_for_when_the_fifo_is_empty() {
        let (uart, _) = uart();
        let uart = Arc::new(uart);
        put(&uart, IIR_FCR, 0x01);
        assert_eq!(uart.receive(&[1; 40]), 16);
        assert!(uart.port.lock().starved);
        assert_eq!(uart.take_received(&mut [0; 4]), 4);
        assert!(uart.port.lock().starved);
        assert_eq!(uart.take_received(&mut [0; 40]), 12);
        assert!(!uart.port.lock().starved);
    }

    #[test]
    fn pasted_text_passes_through_a_polled_port_whole() {
        let room = Room::default();
        let line = IrqLine::new(Arc::new(Wire::default()), 10);
        let uart = Arc::new(Uart16550::new(line, Sink::null(), room.clone()));
        put(&uart, IIR_FCR, 0x01);
        let text: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        let reader = std::io::Cursor::new(text.clone());
        let filter: crate::console::Filter = Box::new(<[u8]>::to_vec);
        let _input = crate::console::Input::new(reader, filter, vec![uart.clone()], room).unwrap();
        let mut got = Vec::new();
        let start = std::time::Instant::now();
        while got.len() < text.len() && start.elapsed() < Duration::from_secs(300) {
            if get(&uart, LSR) & LSR_DATA_READY != 0 {
                got.push(get(&uart, RBR_THR_DLL));
            } else {
                // More comes from another thread.
                std::thread::yield_now();
            }
        }
        assert_eq!(got, text);
    }

    #[test]
    fn reset_lowers_the_wire() {
        let (uart, wire) = uart();
        put(&uart, IER_DLM, IER_THRE);
        assert!(wire.is_high());
        uart.reset();
        assert!(!wire.is_high());
    }
}

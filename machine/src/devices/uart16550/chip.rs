//! The chip by itself: registers and what they do, as plain data.

use std::collections::VecDeque;

pub(super) const FIFO_SIZE: usize = 16;

/// Receiver buffer (read), transmitter holding (write); DLL with DLAB.
pub(super) const RBR_THR_DLL: u8 = 0;
/// Interrupt enable; DLM with DLAB.
pub(super) const IER_DLM: u8 = 1;
/// Interrupt identification (read), FIFO control (write).
pub(super) const IIR_FCR: u8 = 2;
pub(super) const LCR: u8 = 3;
pub(super) const MCR: u8 = 4;
pub(super) const LSR: u8 = 5;
pub(super) const MSR: u8 = 6;
pub(super) const SCR: u8 = 7;

pub(super) const IER_RECEIVED: u8 = 1 << 0;
pub(super) const IER_THRE: u8 = 1 << 1;
pub(super) const IER_LINE_STATUS: u8 = 1 << 2;
pub(super) const IER_MODEM_STATUS: u8 = 1 << 3;
pub(super) const IER_ALL: u8 = 0x0f;

pub(super) const IIR_NONE: u8 = 0x01;
pub(super) const IIR_LINE_STATUS: u8 = 0x06;
pub(super) const IIR_RECEIVED: u8 = 0x04;
pub(super) const IIR_TIMEOUT: u8 = 0x0c;
pub(super) const IIR_THRE: u8 = 0x02;
pub(super) const IIR_MODEM_STATUS: u8 = 0x00;
pub(super) const IIR_FIFOS_ENABLED: u8 = 0xc0;

pub(super) const FCR_ENABLE: u8 = 1 << 0;
pub(super) const FCR_RESET_RECEIVER: u8 = 1 << 1;
pub(super) const FCR_RESET_TRANSMITTER: u8 = 1 << 2;
pub(super) const FCR_KEPT: u8 = 0xc9;

pub(super) const LCR_DLAB: u8 = 1 << 7;

pub(super) const MCR_DTR: u8 = 1 << 0;
pub(super) const MCR_RTS: u8 = 1 << 1;
pub(super) const MCR_OUT1: u8 = 1 << 2;
pub(super) const MCR_OUT2: u8 = 1 << 3;
pub(super) const MCR_LOOP: u8 = 1 << 4;
pub(super) const MCR_ALL: u8 = 0x1f;

pub(super) const LSR_DATA_READY: u8 = 1 << 0;
pub(super) const LSR_OVERRUN: u8 = 1 << 1;
pub(super) const LSR_THRE: u8 = 1 << 5;
pub(super) const LSR_TEMT: u8 = 1 << 6;
/// Overrun, parity, framing and break: what raises the line status interrupt.
pub(super) const LSR_ERRORS: u8 = 0x1e;

pub(super) const MSR_DELTA_CTS: u8 = 1 << 0;
pub(super) const MSR_DELTA_DSR: u8 = 1 << 1;
pub(super) const MSR_TRAILING_RI: u8 = 1 << 2;
pub(super) const MSR_DELTA_DCD: u8 = 1 << 3;
pub(super) const MSR_DELTAS: u8 = 0x0f;
pub(super) const MSR_CTS: u8 = 1 << 4;
pub(super) const MSR_DSR: u8 = 1 << 5;
pub(super) const MSR_RI: u8 = 1 << 6;
pub(super) const MSR_DCD: u8 = 1 << 7;

/// What the far end drives: it is always there and ready.
pub(super) const MSR_CONNECTED: u8 = MSR_DCD | MSR_DSR | MSR_CTS;

/// Divisor after reset: 9600 baud from a 1.8432 MHz clock, as QEMU's.
pub(super) const DIVISOR_AFTER_RESET: u16 = 12;

/// The chip's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chip {
    pub(super) received: VecDeque<u8>,
    /// What `RBR` reads once nothing is left.
    last_received: u8,
    ier: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    /// The error bits only; the rest of LSR follows from the state.
    line_errors: u8,
    msr: u8,
    scr: u8,
    divisor: u16,
    /// The transmitter has become empty and no read of IIR has reported it.
    thre_pending: bool,
}

impl Default for Chip {
    fn default() -> Self {
        Self::new()
    }
}

impl Chip {
    /// The chip after reset.
    pub fn new() -> Self {
        Self {
            received: VecDeque::with_capacity(FIFO_SIZE),
            last_received: 0,
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: MCR_OUT2,
            line_errors: 0,
            msr: MSR_CONNECTED,
            scr: 0,
            divisor: DIVISOR_AFTER_RESET,
            thre_pending: false,
        }
    }

    /// Reads register `register` (0 to 7), with its side effects.
    pub fn read(&mut self, register: u8) -> u8 {
        let [dll, dlm] = self.divisor.to_le_bytes();
        match register {
            RBR_THR_DLL if self.dlab() => dll,
            IER_DLM if self.dlab() => dlm,
            RBR_THR_DLL => {
                self.last_received = self.received.pop_front().unwrap_or(self.last_received);
                self.last_received
            }
            IER_DLM => self.ier,
            IIR_FCR => {
                let cause = self.cause();
                // Reading IIR answers a THRE interrupt, if that is what it reports.
                if cause == IIR_THRE {
                    self.thre_pending = false;
                }
                let fifos = if self.fifos_enabled() { IIR_FIFOS_ENABLED } else { 0 };
                cause | fifos
            }
            LCR => self.lcr,
            MCR => self.mcr,
            LSR => {
                let ready = if self.received.is_empty() { 0 } else { LSR_DATA_READY };
                ready | LSR_THRE | LSR_TEMT | std::mem::take(&mut self.line_errors)
            }
            MSR => {
                let status = self.msr;
                self.msr &= !MSR_DELTAS;
                status
            }
            SCR => self.scr,
            _ => 0,
        }
    }

    /// Writes register `register` (0 to 7). Returns the byte that goes out on the line, if any.
    pub fn write(&mut self, register: u8, value: u8) -> Option<u8> {
        let [dll, dlm] = self.divisor.to_le_bytes();
        match register {
            RBR_THR_DLL if self.dlab() => self.divisor = u16::from_le_bytes([value, dlm]),
            IER_DLM if self.dlab() => self.divisor = u16::from_le_bytes([dll, value]),
            RBR_THR_DLL => {
                self.thre_pending = true;
                if !self.is_looped_back() {
                    return Some(value);
                }
                self.loop_back(value);
            }
            IER_DLM => {
                // Enabling the THRE interrupt while the transmitter is empty raises it, even when IIR has reported it.
                if (value ^ self.ier) & IER_THRE != 0 {
                    self.thre_pending = value & IER_THRE != 0;
                }
                self.ier = value & IER_ALL;
            }
            IIR_FCR => self.write_fcr(value),
            LCR => self.lcr = value,
            MCR => {
                self.mcr = value & MCR_ALL;
                self.set_modem_lines();
            }
            SCR => self.scr = value,
            _ => {}
        }
        None
    }

    /// The level of the interrupt output.
    pub fn interrupt(&self) -> bool {
        self.cause() != IIR_NONE
    }

    /// Takes bytes from the line while there is room; returns how many. None while in loopback mode, when the line
    /// is cut off.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        if self.is_looped_back() {
            return 0;
        }
        let count = bytes.len().min(self.capacity().saturating_sub(self.received.len()));
        self.received.extend(&bytes[..count]);
        count
    }

    /// Whether the line is cut off and the transmitter feeds the receiver.
    pub fn is_looped_back(&self) -> bool {
        self.mcr & MCR_LOOP != 0
    }

    fn dlab(&self) -> bool {
        self.lcr & LCR_DLAB != 0
    }

    fn fifos_enabled(&self) -> bool {
        self.fcr & FCR_ENABLE != 0
    }

    fn capacity(&self) -> usize {
        if self.fifos_enabled() { FIFO_SIZE } else { 1 }
    }

    fn trigger_level(&self) -> usize {
        match (self.fifos_enabled(), self.fcr >> 6) {
            (false, _) | (_, 0) => 1,
            (_, 1) => 4,
            (_, 2) => 8,
            _ => 14,
        }
    }

    /// The cause of the highest priority among those enabled and pending, as the low four bits of IIR.
    fn cause(&self) -> u8 {
        if self.ier & IER_LINE_STATUS != 0 && self.line_errors & LSR_ERRORS != 0 {
            IIR_LINE_STATUS
        } else if self.ier & IER_RECEIVED != 0 && self.received.len() >= self.trigger_level() {
            IIR_RECEIVED
        } else if self.ier & IER_RECEIVED != 0 && !self.received.is_empty() {
            IIR_TIMEOUT
        } else if self.ier & IER_THRE != 0 && self.thre_pending {
            IIR_THRE
        } else if self.ier & IER_MODEM_STATUS != 0 && self.msr & MSR_DELTAS != 0 {
            IIR_MODEM_STATUS
        } else {
            IIR_NONE
        }
    }

    fn write_fcr(&mut self, value: u8) {
        // Switching FIFO mode empties both.
        let switched = (value ^ self.fcr) & FCR_ENABLE != 0;
        if switched || value & FCR_RESET_RECEIVER != 0 {
            self.received.clear();
        }
        if switched || value & FCR_RESET_TRANSMITTER != 0 {
            self.thre_pending = true;
        }
        // Without the enable bit the other bits are not programmed.
        self.fcr = if value & FCR_ENABLE != 0 { value & FCR_KEPT } else { 0 };
    }

    /// A byte sent in loopback mode arrives here. With no room, a FIFO keeps its content and loses the byte; a
    /// single buffer is overwritten.
    fn loop_back(&mut self, value: u8) {
        if self.received.len() < self.capacity() {
            self.received.push_back(value);
            return;
        }
        self.line_errors |= LSR_OVERRUN;
        if !self.fifos_enabled() {
            self.received.clear();
            self.received.push_back(value);
        }
    }

    /// Modem status follows the far end, or in loopback mode the four outputs of MCR; changes are remembered.
    fn set_modem_lines(&mut self) {
        let lines = if !self.is_looped_back() {
            MSR_CONNECTED
        } else {
            [(MCR_RTS, MSR_CTS), (MCR_DTR, MSR_DSR), (MCR_OUT1, MSR_RI), (MCR_OUT2, MSR_DCD)]
                .into_iter()
                .filter(|&(output, _)| self.mcr & output != 0)
                .fold(0, |lines, (_, input)| lines | input)
        };
        let changed = lines ^ self.msr;
        let mut deltas = self.msr & MSR_DELTAS;
        for (line, delta) in [(MSR_CTS, MSR_DELTA_CTS), (MSR_DSR, MSR_DELTA_DSR), (MSR_DCD, MSR_DELTA_DCD)] {
            if changed & line != 0 {
                deltas |= delta;
            }
        }
        // The ring indicator counts when it ends.
        if changed & !lines & MSR_RI != 0 {
            deltas |= MSR_TRAILING_RI;
        }
        self.msr = lines | deltas;
    }
}

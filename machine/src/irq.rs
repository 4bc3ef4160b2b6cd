//! Interrupt wires. A device holds one [`IrqLine`] and never sees the controller behind it.

use std::sync::Arc;

/// The far end of a wire: an interrupt controller, or a hart's `mip`.
pub trait IrqSink: Send + Sync {
    /// Drives input `irq` of the sink to `level`. Level-triggered: repeating a level changes nothing.
    fn set_level(&self, irq: u32, level: bool);
}

/// A level-triggered interrupt wire from one device to one input of a sink.
#[derive(Clone)]
pub struct IrqLine {
    sink: Arc<dyn IrqSink>,
    irq: u32,
}

impl IrqLine {
    /// A wire to input `irq` of `sink`.
    pub fn new(sink: Arc<dyn IrqSink>, irq: u32) -> Self {
        Self { sink, irq }
    }

    /// Drives the wire.
    pub fn set(&self, level: bool) {
        self.sink.set_level(self.irq, level);
    }
}

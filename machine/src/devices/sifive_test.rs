//! SiFive's test finisher: one register through which a guest ends the machine.

use devicetree::Node;
use softmmu::AccessFault;

use crate::bus::{MmioDevice, Placement};

/// The low 16 bits of a write to offset 0; the next 16 are the code of `FAIL` and `PASS`.
const FAIL: u16 = 0x3333;
const PASS: u16 = 0x5555;
const RESET: u16 = 0x7777;

/// The guest has asked for the machine to end or start again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerEvent {
    /// Turn off; a guest that says nothing about its success gives 0.
    Off {
        /// The exit code that the guest chose.
        code: u16,
    },
    /// Start again from the reset vector.
    Reset,
}

/// The finisher. It keeps no state: what a write means happens outside, in the callback.
pub struct SifiveTest {
    report: Box<dyn Fn(PowerEvent) + Send + Sync>,
}

impl SifiveTest {
    /// A finisher that calls `report`, on the thread of the hart that wrote.
    pub fn new(report: impl Fn(PowerEvent) + Send + Sync + 'static) -> Self {
        Self { report: Box::new(report) }
    }
}

impl MmioDevice for SifiveTest {
    fn name(&self) -> &'static str {
        "sifive_test"
    }

    fn read(&self, _offset: u64, width: u8) -> Result<u64, AccessFault> {
        if matches!(width, 2 | 4) { Ok(0) } else { Err(AccessFault) }
    }

    fn write(&self, offset: u64, width: u8, value: u64) -> Result<(), AccessFault> {
        if !matches!(width, 2 | 4) {
            return Err(AccessFault);
        }
        let status = (value & 0xffff) as u16;
        let code = (value >> 16 & 0xffff) as u16;
        match (offset, status) {
            (0, PASS) => (self.report)(PowerEvent::Off { code }),
            // A failure without a code must not look like success.
            (0, FAIL) => (self.report)(PowerEvent::Off { code: code.max(1) }),
            (0, RESET) => (self.report)(PowerEvent::Reset),
            _ => log::debug!("sifive_test: write of {value:#x} to offset {offset:#x} means nothing"),
        }
        Ok(())
    }

    fn reset(&self) {}

    fn fdt(&self, place: &Placement, parent: &mut Node) {
        parent
            .child(&format!("test@{:x}", place.base))
            .set_u32("phandle", place.phandles.test)
            .set_reg(&[(place.base, place.size)])
            .set_strings("compatible", &["sifive,test1", "sifive,test0", "syscon"]);
    }
}

/// Adds the nodes `/poweroff` and `/reboot`, which write the finisher's register through the syscon phandle `regmap`.
pub(crate) fn fdt_syscon(root: &mut Node, regmap: u32) {
    for (name, value, compatible) in
        [("poweroff", PASS, "syscon-poweroff"), ("reboot", RESET, "syscon-reboot")]
    {
        root.child(name)
            .set_u32("value", value.into())
            .set_u32("offset", 0)
            .set_u32("regmap", regmap)
            .set_string("compatible", compatible);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn finisher() -> (SifiveTest, mpsc::Receiver<PowerEvent>) {
        let (sender, receiver) = mpsc::channel();
        (SifiveTest::new(move |event| sender.send(event).unwrap()), receiver)
    }

    #[test]
    fn pass_turns_off_with_zero() {
        let (test, events) = finisher();
        test.write(0, 4, 0x5555).unwrap();
        assert_eq!(events.try_recv(), Ok(PowerEvent::Off { code: 0 }));
    }

    #[test]
    fn fail_turns_off_with_its_code() {
        let (test, events) = finisher();
        test.write(0, 4, 42 << 16 | 0x3333).unwrap();
        assert_eq!(events.try_recv(), Ok(PowerEvent::Off { code: 42 }));
        test.write(0, 2, 0x3333).unwrap();
        assert_eq!(events.try_recv(), Ok(PowerEvent::Off { code: 1 }));
    }

    #[test]
    fn reset_is_reported_also_for_a_16_bit_write() {
        let (test, events) = finisher();
        test.write(0, 2, 0x7777).unwrap();
        assert_eq!(events.try_recv(), Ok(PowerEvent::Reset));
    }

    #[test]
    fn everything_else_is_ignored_or_faults() {
        let (test, events) = finisher();
        test.write(0, 4, 0x1234).unwrap();
        test.write(4, 4, 0x5555).unwrap();
        assert_eq!(test.write(0, 1, 0x55), Err(AccessFault));
        assert_eq!(test.write(0, 8, 0x5555), Err(AccessFault));
        assert_eq!(test.read(0, 4), Ok(0));
        assert_eq!(test.read(0, 1), Err(AccessFault));
        assert!(events.try_recv().is_err());
    }
}

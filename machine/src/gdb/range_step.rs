//! Range stepping: a source line is stepped by the hart itself, without an exchange of packets for each instruction.

use std::convert::Infallible;

use gdbstub::common::Tid;
use gdbstub::target::ext::base::multithread::MultiThreadRangeStepping;

use super::target::Guest;
use crate::control::Order;

impl MultiThreadRangeStepping for Guest {
    fn set_resume_action_range_step(&mut self, tid: Tid, start: u64, end: u64) -> Result<(), Infallible> {
        self.order(tid, Order::Step(start..end));
        Ok(())
    }
}

//! Continuing and single steps. A step is one instruction of one hart; traps and returns from them are followed.

use std::convert::Infallible;

use gdbstub::common::{Signal, Tid};
use gdbstub::target::ext::base::multithread::{
    MultiThreadRangeSteppingOps, MultiThreadResume, MultiThreadSchedulerLockingOps, MultiThreadSingleStep,
    MultiThreadSingleStepOps,
};

use super::target::{Guest, hart_of};
use crate::control::Order;

impl Guest {
    /// A hart that does not exist has no order.
    pub(super) fn order(&mut self, tid: Tid, order: Order) {
        if let Some(place) = self.orders.get_mut(hart_of(tid)) {
            // The first action for a thread is its own, as the protocol says of `vCont`.
            place.get_or_insert(order);
        }
    }
}

impl MultiThreadResume for Guest {
    fn resume(&mut self) -> Result<(), Infallible> {
        self.go();
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), Infallible> {
        self.orders.fill(None);
        self.locked = false;
        Ok(())
    }

    /// There are no signals; gdb passes on the one that it made of Ctrl-C.
    fn set_resume_action_continue(&mut self, tid: Tid, _: Option<Signal>) -> Result<(), Infallible> {
        self.order(tid, Order::Go);
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_range_step(&mut self) -> Option<MultiThreadRangeSteppingOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for Guest {
    fn set_resume_action_step(&mut self, tid: Tid, _: Option<Signal>) -> Result<(), Infallible> {
        self.order(tid, Order::Step(0..0));
        Ok(())
    }
}

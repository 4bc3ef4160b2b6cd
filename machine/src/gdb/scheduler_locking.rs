//! Scheduler locking: only the harts that gdb names run.

use std::convert::Infallible;

use gdbstub::target::ext::base::multithread::MultiThreadSchedulerLocking;

use super::target::Guest;

impl MultiThreadSchedulerLocking for Guest {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Infallible> {
        self.locked = true;
        Ok(())
    }
}

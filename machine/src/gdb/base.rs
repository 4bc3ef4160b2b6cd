//! The base protocol: registers in bulk, memory, and the list of threads.

use std::convert::Infallible;

use gdbstub::common::Tid;
use gdbstub::target::ext::base::multithread::{MultiThreadBase, MultiThreadResumeOps};
use gdbstub::target::ext::base::single_register_access::SingleRegisterAccessOps;
use gdbstub::target::ext::thread_extra_info::ThreadExtraInfoOps;
use gdbstub::target::{TargetError, TargetResult};

use super::registers::{self, General};
use super::target::{Guest, hart_of, tid_of};

impl MultiThreadBase for Guest {
    fn read_registers(&mut self, general: &mut General, tid: Tid) -> TargetResult<(), Self> {
        *general = self.ask(hart_of(tid), |hart, _| registers::read_general(hart))?;
        Ok(())
    }

    fn write_registers(&mut self, general: &General, tid: Tid) -> TargetResult<(), Self> {
        let general = general.clone();
        self.ask(hart_of(tid), move |hart, _| registers::write_general(hart, &general))
    }

    fn support_single_register_access(&mut self) -> Option<SingleRegisterAccessOps<'_, Tid, Self>> {
        Some(self)
    }

    fn read_addrs(&mut self, address: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        let mut bytes = vec![0; data.len()];
        let bytes = self.ask(hart_of(tid), move |hart, _| {
            let count = hart.read_virtual(address, &mut bytes);
            bytes.truncate(count);
            bytes
        })?;
        if bytes.is_empty() && !data.is_empty() {
            return Err(TargetError::NonFatal);
        }
        data[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn write_addrs(&mut self, address: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        let bytes = data.to_vec();
        self.memory_written = true;
        let written = self.ask(hart_of(tid), move |hart, _| hart.write_virtual(address, &bytes))?;
        written.map_err(|softmmu::AccessFault| TargetError::NonFatal)
    }

    fn list_active_threads(&mut self, is_active: &mut dyn FnMut(Tid)) -> Result<(), Infallible> {
        (0..self.control().harts()).map(tid_of).for_each(is_active);
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

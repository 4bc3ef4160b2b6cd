//! What `info threads` shows of a hart: its mode, and what it is doing.

use std::convert::Infallible;

use gdbstub::common::Tid;
use gdbstub::target::ext::thread_extra_info::ThreadExtraInfo;
use softmmu::Privilege;

use super::registers::excerpt;
use super::target::{Guest, hart_of};
use crate::hart::Hart;
use crate::hart::debug::Activity;

/// Such as `hart 0, S-mode, in WFI`.
pub(super) fn describe(id: usize, hart: &Hart) -> String {
    let mode = match hart.privilege() {
        Privilege::User => 'U',
        Privilege::Supervisor => 'S',
        Privilege::Machine => 'M',
    };
    match hart.activity() {
        Activity::Running => format!("hart {id}, {mode}-mode"),
        Activity::Waiting => format!("hart {id}, {mode}-mode, in WFI"),
        Activity::Suspended => format!("hart {id}, {mode}-mode, suspended"),
        Activity::Stopped => format!("hart {id}, not started"),
    }
}

impl ThreadExtraInfo for Guest {
    fn thread_extra_info(&self, tid: Tid, buf: &mut [u8]) -> Result<usize, Infallible> {
        let id = hart_of(tid);
        let text = self.control().ask(id, move |hart, _| describe(id, hart)).unwrap_or_default();
        Ok(excerpt(&text, 0, text.len(), buf))
    }
}

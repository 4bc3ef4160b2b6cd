//! The guest as gdbstub sees it: what is supported, and what the extensions share.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::sync::Arc;

use gdbstub::common::{Signal, Tid};
use gdbstub::stub::MultiThreadStopReason;
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::breakpoints::{BreakpointsOps, WatchKind};
use gdbstub::target::ext::memory_map::MemoryMapOps;
use gdbstub::target::ext::monitor_cmd::MonitorCmdOps;
use gdbstub::target::ext::target_description_xml_override::TargetDescriptionXmlOverrideOps;
use gdbstub::target::{Target, TargetError, TargetResult};
use jit::Engine;
use softmmu::Watchpoint;

use super::registers::Rv64;
use crate::control::{Control, Order, Stop};
use crate::hart::Hart;
use crate::hart::debug::Activity;
use crate::system::System;

/// Why the guest has stopped.
pub(super) type Reason = MultiThreadStopReason<u64>;

/// The thread that a hart is.
pub(super) fn tid_of(hart: usize) -> Tid {
    NonZeroUsize::MIN.saturating_add(hart)
}

/// The hart that a thread is. Of no thread it can be that there is no such hart.
pub(super) fn hart_of(tid: Tid) -> usize {
    tid.get() - 1
}

/// The guest in the hands of one debugger.
pub(crate) struct Guest {
    pub(super) system: Arc<System>,
    pub(super) description: String,
    /// What gdb calls software breakpoints. No instruction is replaced for them either.
    pub(super) soft_breakpoints: BTreeSet<u64>,
    pub(super) hard_breakpoints: BTreeSet<u64>,
    pub(super) watchpoints: Vec<(Watchpoint, WatchKind)>,
    /// The breakpoints or watchpoints are others than those that the harts have.
    pub(super) points_changed: bool,
    /// Memory was written, so what harts keep of code may be old.
    pub(super) memory_written: bool,
    /// What each hart will do at the next resumption; `None` is what harts do that gdb has not mentioned.
    pub(super) orders: Vec<Option<Order>>,
    /// Harts that gdb has not mentioned hold.
    pub(super) locked: bool,
    /// The hart that monitor commands are about.
    pub(super) selected: usize,
    /// Guest time while all harts hold.
    frozen: Option<u64>,
}

impl Guest {
    pub(super) fn new(system: Arc<System>, description: String) -> Self {
        let harts = system.control.harts();
        Self {
            system,
            description,
            soft_breakpoints: BTreeSet::new(),
            hard_breakpoints: BTreeSet::new(),
            watchpoints: Vec::new(),
            points_changed: false,
            memory_written: false,
            orders: vec![None; harts],
            locked: false,
            selected: 0,
            frozen: None,
        }
    }

    pub(super) fn control(&self) -> &Control {
        &self.system.control
    }

    /// Has a hart's thread do something.
    pub(super) fn ask<R: Send + 'static>(
        &self,
        hart: usize,
        act: impl FnOnce(&mut Hart, &mut Engine) -> R + Send + 'static,
    ) -> TargetResult<R, Self> {
        self.control().ask(hart, act).ok_or(TargetError::NonFatal)
    }

    /// Holds all harts, and stops time.
    pub(super) fn hold(&mut self) {
        if !self.control().hold_all() {
            log::warn!("gdb: a hart does not stop");
        }
        self.settle();
    }

    /// Holds all harts of a machine that is just being turned on.
    pub(super) fn hold_new(&mut self) -> bool {
        self.control().hold_at_start();
        let all = self.control().wait_for_all();
        self.settle();
        all
    }

    fn settle(&mut self) {
        let now = self.system.clock.now();
        self.frozen.get_or_insert(now);
    }

    /// Holds all harts after some have stopped, and says why the first has.
    pub(super) fn stopped(&mut self) -> Option<Reason> {
        let (hart, stop) = self.control().take_stop()?;
        self.hold();
        self.selected = hart;
        let tid = tid_of(hart);
        Some(match stop {
            Stop::Step => Reason::SignalWithThread { tid, signal: Signal::SIGTRAP },
            Stop::Breakpoint(pc) if self.hard_breakpoints.contains(&pc) => Reason::HwBreak(tid),
            Stop::Breakpoint(_) => Reason::SwBreak(tid),
            Stop::Watchpoint(addr) => {
                let here = |(point, _): &&(Watchpoint, WatchKind)| (point.start..=point.last).contains(&addr);
                let kind = self.watchpoints.iter().find(here).map_or(WatchKind::ReadWrite, |(_, kind)| *kind);
                Reason::Watch { tid, kind, addr }
            }
        })
    }

    /// Ctrl-C.
    pub(super) fn interrupt(&mut self) -> Reason {
        if let Some(reason) = self.stopped() {
            return reason;
        }
        self.hold();
        // Users look for what is executed, and rarely for a hart that sleeps.
        let activity = |hart| self.ask(hart, |hart, _| hart.activity()).unwrap_or(Activity::Stopped);
        let rank = |&hart: &usize| match activity(hart) {
            Activity::Running => 0,
            Activity::Waiting => 1,
            Activity::Suspended | Activity::Stopped => 2,
        };
        let (selected, harts) = (self.selected, self.control().harts());
        let hart = std::iter::once(selected).chain(0..harts).min_by_key(rank).unwrap_or(selected);
        self.selected = hart;
        Reason::SignalWithThread { tid: tid_of(hart), signal: Signal::SIGINT }
    }

    /// Sets the harts going as ordered.
    pub(super) fn go(&mut self) {
        if std::mem::take(&mut self.memory_written) {
            (0..self.control().harts()).for_each(|hart| drop(self.ask(hart, |hart, _| hart.order_code())));
        }
        if std::mem::take(&mut self.points_changed) {
            let addresses = self.soft_breakpoints.iter().chain(&self.hard_breakpoints).copied();
            let watchpoints = self.watchpoints.iter().map(|(point, _)| *point).collect();
            self.control().set_points(addresses.collect(), watchpoints);
        }
        if let Some(time) = self.frozen.take() {
            self.system.clock.set(time);
            self.system.timers.clock_changed();
        }
        let default = if self.locked { Order::Hold } else { Order::Go };
        let orders = self.orders.iter().map(|order| order.clone().unwrap_or(default.clone())).collect();
        self.control().resume(orders);
    }

    /// The debugger is gone: the guest goes on as if it had never been there.
    pub(super) fn release(mut self) {
        self.hold();
        self.points_changed = true;
        self.soft_breakpoints.clear();
        self.hard_breakpoints.clear();
        self.watchpoints.clear();
        self.orders.fill(None);
        self.locked = false;
        self.go();
    }
}

impl Target for Guest {
    type Arch = Rv64;
    type Error = Infallible;

    fn base_ops(&mut self) -> BaseOps<'_, Rv64, Infallible> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }

    fn support_memory_map(&mut self) -> Option<MemoryMapOps<'_, Self>> {
        Some(self)
    }

    fn support_target_description_xml_override(
        &mut self,
    ) -> Option<TargetDescriptionXmlOverrideOps<'_, Self>> {
        Some(self)
    }

    fn use_fork_stop_reason(&self) -> bool {
        false
    }

    fn use_vfork_stop_reason(&self) -> bool {
        false
    }

    fn use_vforkdone_stop_reason(&self) -> bool {
        false
    }
}

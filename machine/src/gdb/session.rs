//! One debugger, from attaching to its end.
//!
//! gdbstub's state machine is fed whole packets. When it gives up on one, which ends it, the packet is answered with an error
//! and a new state machine is told what the old one had been told of the session.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use gdbstub::conn::Connection;
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{DisconnectReason, GdbStub, GdbStubError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::packets::{self, Cutter, Item};
use super::stream::{Listener, Stream};
use super::target::{Guest, Reason, hart_of};

type Machine = GdbStubStateMachine<'static, Guest, Output>;

/// Answers are gathered here until a packet has been dealt with.
#[derive(Clone, Default)]
struct Output(Rc<RefCell<Vec<u8>>>);

impl Connection for Output {
    type Error = Infallible;

    fn write(&mut self, byte: u8) -> Result<(), Infallible> {
        self.0.borrow_mut().push(byte);
        Ok(())
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// How a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The debugger has detached, or is gone.
    Detached,
    /// The debugger wants the machine to end.
    Killed,
    /// The machine is off.
    Off,
}

/// What the state machine has been told that holds for the rest of the session.
#[derive(Default)]
struct Told {
    features: Option<Vec<u8>>,
    no_acknowledgements: bool,
    /// `Hg` and `Hc`.
    threads: [Option<Vec<u8>>; 2],
}

pub(super) struct Session<'a> {
    stream: Stream,
    listener: &'a Listener,
    output: Output,
    guest: Guest,
    machine: Option<Machine>,
    told: Told,
    cutter: Cutter,
    /// The last answer, for a debugger that got it garbled.
    last: Vec<u8>,
    /// Until when another debugger waits for this one to go.
    knocked: Option<Instant>,
}

/// How long that is: a debugger that was killed may take a moment to vanish.
const COURTESY: Duration = Duration::from_secs(1);

impl<'a> Session<'a> {
    pub(super) fn new(stream: Stream, listener: &'a Listener, guest: Guest) -> Self {
        let mut session = Self {
            stream,
            listener,
            output: Output::default(),
            guest,
            machine: None,
            told: Told::default(),
            cutter: Cutter::default(),
            last: Vec::new(),
            knocked: None,
        };
        session.restart();
        session
    }

    /// Serves the debugger to the end. The guest goes on afterwards, unless it is to end.
    pub(super) fn run(mut self) -> End {
        let end = self.serve();
        if end != End::Off {
            self.guest.release();
        }
        end
    }

    fn serve(&mut self) -> End {
        if !self.guest.hold_new() {
            log::warn!("gdb: some hart did not stop when the debugger attached");
        }
        loop {
            let Ok([readable, event, knocked]) = self.wait() else { return End::Detached };
            if event {
                self.guest.control().clear_event();
                if let Some(end) = self.something_happened() {
                    return end;
                }
            }
            if readable {
                let mut buffer = [0; 4096];
                match self.stream.read(&mut buffer) {
                    Ok(count @ 1..) => {
                        for &byte in &buffer[..count] {
                            if let Some(item) = self.cutter.push(byte)
                                && let Some(end) = self.take(item)
                            {
                                return end;
                            }
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Ok(0) | Err(_) => return End::Detached,
                }
            }
            // One debugger at a time; the second shall not wait for ever.
            match self.knocked {
                None if knocked => self.knocked = Some(Instant::now() + COURTESY),
                Some(limit) if Instant::now() >= limit => {
                    drop(self.listener.accept());
                    log::warn!("gdb: a second debugger was turned away; there is one already");
                    self.knocked = None;
                }
                _ => {}
            }
        }
    }

    /// Waits until the debugger has sent something, something happened in the machine, or another debugger is there.
    fn wait(&self) -> io::Result<[bool; 3]> {
        let mut fds = [
            PollFd::from_borrowed_fd(self.stream.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.guest.control().event(), PollFlags::IN),
            PollFd::new(self.listener, PollFlags::IN),
        ];
        // Who has knocked is known to be there.
        let (count, timeout) = match self.knocked {
            None => (fds.len(), None),
            Some(limit) => (fds.len() - 1, Some(limit.saturating_duration_since(Instant::now()))),
        };
        let timeout = timeout
            .map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        match poll(&mut fds[..count], timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(std::array::from_fn(|index| !fds[index].revents().is_empty()))
    }

    /// A hart has stopped, or the machine is off.
    fn something_happened(&mut self) -> Option<End> {
        let running = matches!(self.machine, Some(GdbStubStateMachine::Running(_)));
        if let Some(code) = self.guest.control().exit() {
            if running {
                self.report(Reason::Exited(u8::try_from(code).unwrap_or(u8::MAX)));
            }
            return Some(End::Off);
        }
        if running && let Some(reason) = self.guest.stopped() {
            return self.report(reason);
        }
        None
    }

    /// Tells the debugger, which waits for it, why the guest has stopped.
    fn report(&mut self, reason: Reason) -> Option<End> {
        if let Reason::SignalWithThread { tid, .. }
        | Reason::SwBreak(tid)
        | Reason::HwBreak(tid)
        | Reason::Watch { tid, .. } = reason
        {
            // gdb and gdbstub both go on with this thread.
            self.told.threads = [Some(packets::frame(format!("Hgp1.{tid:x}").as_bytes())), None];
        }
        let machine = match self.machine.take() {
            Some(GdbStubStateMachine::Running(running)) => running.report_stop(&mut self.guest, reason),
            other => {
                self.machine = other;
                return None;
            }
        };
        match machine {
            Ok(machine) => self.machine = Some(machine),
            Err(error) => self.fail(&error),
        }
        self.send()
    }

    fn take(&mut self, item: Item) -> Option<End> {
        match item {
            Item::Interrupt => self.interrupt(),
            Item::Again => {
                let last = std::mem::take(&mut self.last);
                self.output.0.borrow_mut().extend(last);
                self.send()
            }
            Item::Garbled => {
                if !self.told.no_acknowledgements {
                    self.output.0.borrow_mut().push(b'-');
                    return self.send_all();
                }
                None
            }
            Item::Packet(packet) => self.packet(&packet),
        }
    }

    /// Ctrl-C. While the guest does not run it comes too late, and the debugger knows already.
    fn interrupt(&mut self) -> Option<End> {
        if !matches!(self.machine, Some(GdbStubStateMachine::Running(_))) {
            return None;
        }
        let reason = self.guest.interrupt();
        self.report(reason)
    }

    fn packet(&mut self, packet: &[u8]) -> Option<End> {
        let body = packets::body(packet);
        let ends = body == b"k" || body.starts_with(b"vKill") || body.starts_with(b"D");
        if matches!(self.machine, Some(GdbStubStateMachine::Running(_))) && !ends {
            // The debugger may only interrupt. It gets its answer when the guest stops.
            if !self.told.no_acknowledgements {
                self.output.0.borrow_mut().push(b'+');
            }
            return self.send_all();
        }
        if packets::is_sound(body) {
            match self.feed(packet) {
                Ok(()) => {
                    if body.starts_with(b"vKill") {
                        // gdbstub has `k` in mind, which has no answer.
                        self.output.0.borrow_mut().extend(packets::frame(b"OK"));
                    }
                    self.remember(packet, body);
                }
                Err(error) => self.fail(&error),
            }
        } else {
            self.refuse();
        }
        if let Some(end) = self.send() {
            return Some(end);
        }
        match &self.machine {
            Some(GdbStubStateMachine::Disconnected(machine)) => Some(match machine.get_reason() {
                DisconnectReason::Kill => End::Killed,
                _ => End::Detached,
            }),
            _ => None,
        }
    }

    fn feed(&mut self, packet: &[u8]) -> Result<(), GdbStubError<Infallible, Infallible>> {
        for &byte in packet {
            self.machine = match self.machine.take() {
                Some(GdbStubStateMachine::Idle(idle)) => Some(idle.incoming_data(&mut self.guest, byte)?),
                Some(GdbStubStateMachine::Running(running)) => {
                    Some(running.incoming_data(&mut self.guest, byte)?)
                }
                other => other,
            };
        }
        Ok(())
    }

    /// Notes what a new state machine would have to be told, and which hart the debugger looks at.
    fn remember(&mut self, packet: &[u8], body: &[u8]) {
        match body {
            b"QStartNoAckMode" => self.told.no_acknowledgements = true,
            [b'q', b'S', b'u', ..] => self.told.features = Some(packet.to_vec()),
            [b'H', kind @ (b'g' | b'c'), thread @ ..] => {
                self.told.threads[usize::from(*kind == b'c')] = Some(packet.to_vec());
                let thread = thread.rsplit(|&byte| byte == b'.').next().unwrap_or_default();
                let number =
                    std::str::from_utf8(thread).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
                if *kind == b'g'
                    && let Some(tid) = number.and_then(std::num::NonZeroUsize::new)
                    && hart_of(tid) < self.guest.control().harts()
                {
                    self.guest.selected = hart_of(tid);
                }
            }
            _ => {}
        }
    }

    /// gdbstub has given up on a packet.
    fn fail(&mut self, error: &GdbStubError<Infallible, Infallible>) {
        log::debug!("gdb: {error}");
        self.restart();
        self.refuse();
    }

    /// Makes a new state machine that knows what the last one was told.
    fn restart(&mut self) {
        let output = self.output.clone();
        let stub = GdbStub::builder(output).packet_buffer_size(packets::MOST_BYTES).build();
        // Neither can fail: there is a buffer, and software breakpoints are supported.
        self.machine = stub.ok().and_then(|stub| stub.run_state_machine(&mut self.guest).ok());
        let told = std::mem::take(&mut self.told);
        let acknowledgements = told.no_acknowledgements.then(|| packets::frame(b"QStartNoAckMode"));
        let threads = told.threads.iter().flatten();
        for packet in told.features.iter().chain(&acknowledgements).chain(threads) {
            // They have been taken once.
            let _ = self.feed(packet);
        }
        self.told = told;
        self.output.0.borrow_mut().clear();
    }

    /// Answers a packet with an error.
    fn refuse(&mut self) {
        /// EINVAL
        const ERROR: &[u8] = b"E16";
        let mut output = self.output.0.borrow_mut();
        output.clear();
        if !self.told.no_acknowledgements {
            output.push(b'+');
        }
        output.extend(packets::frame(ERROR));
    }

    /// Sends the answer, and keeps it.
    fn send(&mut self) -> Option<End> {
        self.last = self.output.0.borrow().clone();
        self.send_all()
    }

    fn send_all(&mut self) -> Option<End> {
        let bytes = std::mem::take(&mut *self.output.0.borrow_mut());
        self.stream.write_all(&bytes).is_err().then_some(End::Detached)
    }
}

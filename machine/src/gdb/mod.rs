//! The gdb stub: a debugger attaches to a running guest and holds, inspects and steers its harts.
//!
//! `Server` waits for debuggers, one at a time, on a thread of its own; `session` speaks with one, on packets that `packets`
//! has checked; `target` says what is supported, and each protocol extension has its file. Harts are threads, and do all that
//! concerns them by themselves, at the request of [`crate::control`]. While no breakpoint or watchpoint is set, harts run as
//! without a debugger.

mod base;
mod breakpoints;
mod memory_map;
mod monitor;
mod packets;
mod range_step;
mod registers;
mod resume;
mod scheduler_locking;
mod session;
mod stream;
mod target;
mod threads;
mod watchpoints;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

pub use stream::{Address, ParseAddressError};

use crate::Machine;
use crate::hart::Hart;
use crate::system::System;
use session::{End, Session};
use stream::Listener;
use target::Guest;

/// How long the end of the machine may wait for the debugger to be told of it.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why nothing can attach.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port or socket cannot be opened.
    #[error("cannot wait for gdb at {0}")]
    Listen(Address, #[source] io::Error),
    /// The host has no threads left.
    #[error("cannot start a thread for gdb")]
    Thread(#[source] io::Error),
}

/// Waits for debuggers of a machine. Dropping it ends that.
pub struct Server {
    system: Arc<System>,
    thread: Option<JoinHandle<()>>,
    address: Address,
}

impl Server {
    /// Opens `address` for debuggers of `machine`, which must not be on yet. With `wait`, no hart executes anything before a
    /// debugger lets it.
    ///
    /// # Errors
    /// When the host does not give the address or a thread.
    pub fn start(machine: &Machine, address: &Address, wait: bool) -> Result<Self, Error> {
        let listener = Listener::bind(address).map_err(|error| Error::Listen(address.clone(), error))?;
        let address = listener.address().unwrap_or_else(|_| address.clone());
        let system = Arc::clone(&machine.system);
        // All harts are alike.
        let description = registers::description(&mut Hart::new(0, &machine.config.cpu, &system));
        if wait {
            system.control.hold_at_start();
        }
        let of_thread = Arc::clone(&system);
        let serve = move || serve(&of_thread, &listener, &description);
        let thread = std::thread::Builder::new().name("gdb".into()).spawn(serve).map_err(Error::Thread)?;
        Ok(Self { system, thread: Some(thread), address })
    }

    /// Where it waits, with the port that was chosen.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The machine is off for good: tells an attached debugger so, with the exit code.
    pub fn finish(mut self, code: u16) {
        self.end(code);
    }

    fn end(&mut self, code: u16) {
        let Some(thread) = self.thread.take() else { return };
        self.system.control.finish(code);
        // Counted, since while the host stands still it does not run either.
        let mut left = FAREWELL.as_millis();
        while !thread.is_finished() && left > 0 {
            std::thread::sleep(Duration::from_millis(1));
            left -= 1;
        }
        if thread.is_finished() {
            // A panic has printed itself.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end(0);
    }
}

fn serve(system: &Arc<System>, listener: &Listener, description: &str) {
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(system.control.event(), PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return log::error!("gdb: cannot wait for debuggers: {error}"),
        }
        let stopped = !fds[1].revents().is_empty();
        if system.control.exit().is_some() {
            return;
        }
        if stopped {
            // Of the time before the last debugger went.
            system.control.clear_event();
        }
        let Some(stream) = listener.accept() else { continue };
        let guest = Guest::new(Arc::clone(system), description.to_string());
        match Session::new(stream, listener, guest).run() {
            End::Detached => {}
            End::Killed => system.power.quit(0),
            End::Off => return,
        }
    }
}

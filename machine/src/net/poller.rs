//! Where the network's thread sleeps: until a socket of the host has something, a timer is due, or the guest has sent.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io;

/// What a socket belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Token {
    Wake,
    Tcp(u64),
    Udp(u64),
    Ping(u64),
    TcpForward(u64),
    UdpForward(u64),
}

impl Token {
    const SHIFT: u32 = 56;

    fn encode(self) -> u64 {
        let (kind, id) = match self {
            Self::Wake => (0, 0),
            Self::Tcp(id) => (1, id),
            Self::Udp(id) => (2, id),
            Self::Ping(id) => (3, id),
            Self::TcpForward(id) => (4, id),
            Self::UdpForward(id) => (5, id),
        };
        kind << Self::SHIFT | id
    }

    fn decode(data: u64) -> Self {
        let id = data & ((1 << Self::SHIFT) - 1);
        match data >> Self::SHIFT {
            1 => Self::Tcp(id),
            2 => Self::Udp(id),
            3 => Self::Ping(id),
            4 => Self::TcpForward(id),
            5 => Self::UdpForward(id),
            _ => Self::Wake,
        }
    }
}

const AWAKE: u8 = 0;
const SLEEPING: u8 = 1;
/// [`Poller::wake`] has been called since the last sleep.
const WOKEN: u8 = 2;

/// Events taken from the host in one call.
const BATCH: usize = 256;

/// The thread's bed. Shared with whoever wakes it.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    wake: OwnedFd,
    state: AtomicU8,
    /// Edges that nobody has looked at yet; a socket has one entry at most.
    events: Mutex<HashMap<Token, EventFlags>>,
    /// When to wake up by itself; used up by the sleep that it ends.
    deadline: Mutex<Option<Instant>>,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, EventData::new_u64(Token::Wake.encode()), EventFlags::IN)?;
        Ok(Self {
            epoll,
            wake,
            state: AtomicU8::new(AWAKE),
            events: Mutex::default(),
            deadline: Mutex::default(),
        })
    }

    /// Watches a socket, edge-triggered, until it is closed.
    pub(super) fn add(&self, socket: impl AsFd, token: Token) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, socket, EventData::new_u64(token.encode()), flags)
    }

    pub(super) fn set_deadline(&self, deadline: Option<Instant>) {
        *self.deadline.lock() = deadline;
    }

    /// What has happened to which sockets since the last call.
    pub(super) fn take_events(&self) -> HashMap<Token, EventFlags> {
        self.collect(Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        std::mem::take(&mut *self.events.lock())
    }

    /// Ends the current sleep, or else the next one before it begins. Never waits.
    pub fn wake(&self) {
        if self.state.swap(WOKEN, Ordering::SeqCst) == SLEEPING {
            let _ = io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }

    /// Sleeps until there is something to do; returns whether it came from the host or the clock.
    pub fn sleep(&self) -> bool {
        let deadline = self.deadline.lock().take();
        let now = Instant::now();
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(now));
        let may_sleep =
            self.state.compare_exchange(AWAKE, SLEEPING, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        let timeout = if may_sleep { timeout } else { Some(std::time::Duration::ZERO) };
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        self.collect(timeout.as_ref());
        self.state.store(AWAKE, Ordering::SeqCst);
        if let Some(deadline) = deadline {
            if deadline <= Instant::now() {
                return true;
            }
            self.deadline.lock().get_or_insert(deadline);
        }
        !self.events.lock().is_empty()
    }

    fn collect(&self, timeout: Option<&Timespec>) {
        let mut list = Vec::with_capacity(BATCH);
        // An interrupted sleep is a short sleep.
        if epoll::wait(&self.epoll, spare_capacity(&mut list), timeout).is_err() || list.is_empty() {
            return;
        }
        let mut events = self.events.lock();
        for epoll::Event { data, flags } in list {
            match Token::decode(data.u64()) {
                Token::Wake => {
                    let _ = io::read(&self.wake, &mut [0; 8]);
                }
                token => *events.entry(token).or_insert(EventFlags::empty()) |= flags,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_wake_before_the_sleep_ends_it() {
        let poller = Poller::new().unwrap();
        poller.wake();
        assert!(!poller.sleep());
    }

    #[test]
    fn a_wake_from_another_thread_ends_a_sleep() {
        let poller = Arc::new(Poller::new().unwrap());
        let other = Arc::clone(&poller);
        let sleeper = std::thread::spawn(move || other.sleep());
        while poller.state.load(Ordering::SeqCst) != SLEEPING {
            std::thread::yield_now();
        }
        poller.wake();
        assert!(!sleeper.join().unwrap());
    }

    #[test]
    fn a_deadline_ends_one_sleep_and_is_used_up() {
        let poller = Poller::new().unwrap();
        poller.set_deadline(Some(Instant::now() + Duration::from_millis(1)));
        assert!(poller.sleep());
        assert!(poller.deadline.lock().is_none());
    }

    #[test]
    fn tokens_survive_encoding() {
        for token in
            [Token::Tcp(1), Token::Udp(2), Token::Ping(3), Token::TcpForward(4), Token::UdpForward(5)]
        {
            assert_eq!(Token::decode(token.encode()), token);
        }
    }
}

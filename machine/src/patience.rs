//! How long to wait for others on this host.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, MutexGuard};

/// A limit is waited for in so many parts.
const PARTS: u32 = 20;

/// A limited time to wait. It passes in parts: when the host stands still, or lets nobody here run, that costs one of them
/// and not all, for those who are waited for could do nothing either.
pub(crate) struct Patience {
    left: Duration,
    part: Duration,
}

impl Patience {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { left: limit, part: limit / PARTS }
    }

    /// Waits for a part of the time that is left with `wait`; `None` if there is none left.
    fn spend<R>(&mut self, wait: impl FnOnce(Duration) -> R) -> Option<R> {
        let part = self.part.min(self.left);
        if part.is_zero() {
            return None;
        }
        let start = Instant::now();
        let result = wait(part);
        self.left -= start.elapsed().min(part);
        Some(result)
    }

    /// Waits until `condvar` is notified, or for a while; `false` if there is no time left for that.
    pub(crate) fn wait<T>(&mut self, condvar: &Condvar, guard: &mut MutexGuard<'_, T>) -> bool {
        self.spend(|part| condvar.wait_for(guard, part)).is_some()
    }

    /// Waits for what is sent; `None` if the time passes or nobody can send any more.
    pub(crate) fn receive<T>(&mut self, receiver: &Receiver<T>) -> Option<T> {
        loop {
            match self.spend(|part| receiver.recv_timeout(part))? {
                Ok(value) => return Some(value),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use parking_lot::Mutex;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(20);

    #[test]
    fn it_ends_and_not_before_its_time() {
        let (mutex, condvar) = (Mutex::new(()), Condvar::new());
        let (start, mut patience) = (Instant::now(), Patience::new(LIMIT));
        let mut guard = mutex.lock();
        while patience.wait(&condvar, &mut guard) {}
        assert!(start.elapsed() >= LIMIT);
        let (sender, receiver) = mpsc::channel::<()>();
        let start = Instant::now();
        assert_eq!(Patience::new(LIMIT).receive(&receiver), None);
        assert!(start.elapsed() >= LIMIT);
        drop(sender);
        assert_eq!(Patience::new(Duration::MAX).receive(&receiver), None, "nobody can send");
    }

    #[test]
    fn a_host_that_stands_still_costs_a_part() {
        let mut patience = Patience::new(LIMIT);
        for _ in 0..PARTS {
            // However late this thread is.
            assert!(patience.spend(|_| std::thread::sleep(LIMIT)).is_some());
        }
        assert!(patience.spend(|_| ()).is_none());
    }
}

//! The threads that wait for the host, so that the queues need not.
//!
//! A thread is made when there is work and none is idle, up to a number that keeps a fast device of the host busy; idle
//! ones stay.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};

use super::{Core, Outcome};
use crate::devices::virtio::Deferred;

/// Requests that wait for the host at the same time.
const MAX_THREADS: usize = 16;

struct Jobs {
    list: VecDeque<Deferred>,
    idle: usize,
    closed: bool,
}

struct Shared {
    core: Arc<Core>,
    jobs: Mutex<Jobs>,
    more: Condvar,
}

/// The threads of one disk.
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Pool {
    pub(super) fn new(core: Arc<Core>) -> Self {
        let jobs = Mutex::new(Jobs { list: VecDeque::new(), idle: 0, closed: false });
        Self { shared: Arc::new(Shared { core, jobs, more: Condvar::new() }), threads: Mutex::default() }
    }

    /// Whether there is a thread, or could be one.
    pub(super) fn is_ready(&self) -> bool {
        !self.threads.lock().is_empty() || self.add_thread()
    }

    /// Has a request carried out, if [`Self::is_ready`].
    pub(super) fn add(&self, job: Deferred) {
        let mut jobs = self.shared.jobs.lock();
        jobs.list.push_back(job);
        let enough = jobs.idle >= jobs.list.len();
        drop(jobs);
        if !enough {
            self.add_thread();
        }
        self.shared.more.notify_one();
    }

    fn add_thread(&self) -> bool {
        let mut threads = self.threads.lock();
        if threads.len() == MAX_THREADS {
            return false;
        }
        let shared = Arc::clone(&self.shared);
        match thread::Builder::new().name("virtio-blk-io".into()).spawn(move || shared.work()) {
            Ok(thread) => threads.push(thread),
            Err(_) => return false,
        }
        true
    }
}

impl Shared {
    fn work(&self) {
        let mut jobs = self.jobs.lock();
        while !jobs.closed {
            let Some(job) = jobs.list.pop_front() else {
                jobs.idle += 1;
                self.more.wait(&mut jobs);
                jobs.idle -= 1;
                continue;
            };
            drop(jobs);
            match self.core.request(job.chain(), &job, true) {
                Ok(Outcome::Done) => {
                    let written = job.chain().writable_len();
                    job.finish(written);
                }
                // Nobody wants it any more.
                Ok(Outcome::Stopped(_) | Outcome::Waits) => {}
                Err(_) => job.fail(),
            }
            jobs = self.jobs.lock();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.jobs.lock().closed = true;
        self.shared.more.notify_all();
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
    }
}

//! Threads: the only user of rayon.
//!
//! A [`Team`] is a pool that lives for one call. A process-wide pool would be dead in the child of a `fork`, and
//! starting two threads costs some 50 microseconds. One thread means none: the work runs on the caller. A team that is
//! gone has left no thread behind: rayon only tells its threads to end, we wait until they have, so that whoever
//! forks after a call forks a process of one thread.
//!
//! Work is a list of parts and one state per worker (deltas, counts, scratch memory), merged by the caller. Which
//! worker gets which part is left to chance, so states must be merged by operations without order: integer sums,
//! minima, unions. That is the rule that makes results the same for any number of threads.

use crate::error::{Error, Result};
use rayon::prelude::*;
use std::sync::Mutex;
use std::thread::JoinHandle;

/// More threads than anyone has; beyond it, a mistake.
pub const MOST_THREADS: usize = 1024;

/// The threads of one call.
pub struct Team {
    pool: Option<rayon::ThreadPool>,
    threads: Vec<JoinHandle<()>>,
    n_threads: usize,
}

/// One state per thread of a team.
pub struct Workers<S>(Vec<Mutex<S>>);

impl Team {
    /// A team of `n_threads`.
    ///
    /// # Errors
    /// None, too many, or more than the operating system starts.
    pub fn new(n_threads: usize) -> Result<Self> {
        Self::of_at_most(n_threads, n_threads)
    }

    /// A team of `n_threads`, or of as many as there is work for, `most`, and at least one. What may be asked for doesn't
    /// depend on how much there is to do.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of_at_most(n_threads: usize, most: usize) -> Result<Self> {
        if !(1..=MOST_THREADS).contains(&n_threads) {
            let (found, most) = (n_threads as i128, MOST_THREADS as i128);
            return Err(Error::Range { argument: "n_threads", found, least: 1, most });
        }
        let n_threads = n_threads.min(most.max(1));
        let mut team = Self { pool: None, threads: Vec::new(), n_threads };
        if n_threads > 1 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).spawn_handler(|worker| {
                let named = std::thread::Builder::new().name(format!("lossift-{}", worker.index()));
                team.threads.push(named.spawn(|| worker.run())?);
                Ok(())
            });
            let pool =
                pool.build().map_err(|error| Error::Threads { n_threads, reason: error.to_string() })?;
            team.pool = Some(pool);
        }
        Ok(team)
    }

    /// How many threads work.
    #[must_use]
    pub fn n_threads(&self) -> usize {
        self.n_threads
    }

    /// One state for each thread.
    pub fn workers<S>(&self, make: impl Fn() -> S) -> Workers<S> {
        Workers((0..self.n_threads).map(|_| Mutex::new(make())).collect())
    }

    /// Does every part once, each with the state of the worker that takes it; returns when all are done.
    ///
    /// # Panics
    /// When `work` panics.
    pub fn each<S: Send, P: Send>(
        &self,
        workers: &mut Workers<S>,
        parts: Vec<P>,
        work: impl Fn(&mut S, P) + Sync,
    ) {
        let Some(pool) = &self.pool else {
            let state = workers.0[0].get_mut().expect("a panic would have ended the call");
            for part in parts {
                work(state, part);
            }
            return;
        };
        let workers = &workers.0;
        pool.install(|| {
            parts.into_par_iter().with_max_len(1).for_each(|part| {
                let index = rayon::current_thread_index().expect("inside the pool");
                // Never contended: only this thread takes this lock, and `work` doesn't call back into the pool.
                work(&mut workers[index].lock().expect("a panic would have ended the call"), part);
            });
        });
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        drop(self.pool.take());
        for thread in self.threads.drain(..) {
            // What a worker's panic was about, the caller knows already.
            let _ = thread.join();
        }
    }
}

impl<S> Workers<S> {
    /// The states, to be read and reset between two rounds.
    ///
    /// # Panics
    /// When a worker panicked.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut S> {
        self.0.iter_mut().map(|state| state.get_mut().expect("a panic would have ended the call"))
    }

    /// The states, for good.
    ///
    /// # Panics
    /// When a worker panicked.
    pub fn into_states(self) -> impl Iterator<Item = S> {
        self.0.into_iter().map(|state| state.into_inner().expect("a panic would have ended the call"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_done_once_for_any_number_of_threads() {
        for n_threads in [1, 2, 3, 7] {
            let team = Team::new(n_threads).unwrap();
            let mut workers = team.workers(|| 0_u64);
            let mut squares = vec![0_u64; 1000];
            let parts: Vec<(usize, &mut u64)> = squares.iter_mut().enumerate().collect();
            team.each(&mut workers, parts, |sum, (i, square)| {
                *square += (i * i) as u64;
                *sum += i as u64;
            });
            assert_eq!(workers.iter_mut().map(|sum| *sum).sum::<u64>(), 499_500);
            assert!(squares.iter().enumerate().all(|(i, &square)| square == (i * i) as u64));
        }
    }

    #[test]
    fn a_panic_on_a_worker_reaches_the_caller_and_the_process_goes_on() {
        for n_threads in [1, 3] {
            let team = Team::new(n_threads).unwrap();
            let call = || {
                let parts: Vec<usize> = (0..100).collect();
                team.each(&mut team.workers(|| ()), parts, |(), part| assert!(part != 57, "part {part}"));
            };
            let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).unwrap_err();
            assert_eq!(panic.downcast_ref::<String>().unwrap(), "part 57");
            let mut workers = team.workers(|| 0);
            team.each(&mut workers, vec![1, 2, 3], |sum, part| *sum += part);
            assert_eq!(workers.into_states().sum::<i32>(), 6);
        }
    }

    #[test]
    fn no_threads_is_an_error() {
        for n_threads in [0, MOST_THREADS + 1] {
            assert!(matches!(Team::new(n_threads), Err(Error::Range { argument: "n_threads", .. })));
            assert!(matches!(
                Team::of_at_most(n_threads, 3),
                Err(Error::Range { argument: "n_threads", .. })
            ));
        }
    }
}

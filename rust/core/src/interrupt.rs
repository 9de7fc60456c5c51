//! The caller's wish to stop, and the news it gets meanwhile.
//!
//! Long work is cut into batches of some tens of milliseconds. Between two of them the calling thread, and no
//! other, tells its [`Watch`] how far it is; the answer says whether to go on. So Ctrl-C works within a second,
//! and the callback may take the interpreter lock without ever meeting a worker.

use crate::error::{Error, Result};
use std::ops::ControlFlow;

/// Called between batches with (what is being done, units done, units in all).
pub type Report<'a> = &'a mut dyn FnMut(&'static str, u64, u64) -> ControlFlow<()>;

/// Tells the caller how far we are and stops when it says so.
pub struct Watch<'a> {
    report: Report<'a>,
    what: &'static str,
    done: u64,
    total: u64,
}

impl<'a> Watch<'a> {
    /// A watch that reports to the given function.
    pub fn new(report: Report<'a>) -> Self {
        Self { report, what: "", done: 0, total: 0 }
    }

    /// Begins another piece of work, of `total` units.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when the caller wants to stop.
    pub fn begin(&mut self, what: &'static str, total: usize) -> Result<()> {
        (self.what, self.done, self.total) = (what, 0, total as u64);
        self.advance(0)
    }

    /// Reports `units` more as done.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when the caller wants to stop.
    pub fn advance(&mut self, units: usize) -> Result<()> {
        self.done += units as u64;
        match (self.report)(self.what, self.done.min(self.total), self.total) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Interrupted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_and_stops() {
        let mut seen = Vec::new();
        let mut report = |what, done, total| {
            seen.push((what, done, total));
            if done < 5 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let mut watch = Watch::new(&mut report);
        watch.begin("counting", 10).unwrap();
        watch.advance(4).unwrap();
        assert_eq!(watch.advance(4), Err(Error::Interrupted));
        assert_eq!(seen, [("counting", 0, 10), ("counting", 4, 10), ("counting", 8, 10)]);
    }
}

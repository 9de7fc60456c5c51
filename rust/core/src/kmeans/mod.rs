//! K-means whose result doesn't depend on the machine.
//!
//! [`fit`] checks the parameters and tells the story: choose the rows to fit on, find their centre and extent, seed
//! ([`seeding`]), iterate ([`lloyd`], whose sums are the integers of [`sums`] and whose scores are
//! all calculated, or only those that [`bounds`] on sorted [`cells`] can't rule out; or [`minibatch`]), assign every row,
//! number the clusters. [`diagnose()`] compares numbers of clusters. All passes over the data are made by [`sweep`].

pub mod bounds;
mod cell;
pub mod cells;
pub mod diagnose;
pub mod fit;
pub mod lloyd;
mod margin;
pub mod minibatch;
mod promise;
pub mod seeding;
pub mod sums;
pub mod sweep;
mod total;

#[cfg(test)]
mod tests;

pub use diagnose::{Diagnoses, Diagnosis, Question, diagnose};
pub use fit::{Clustering, Fit, Init, Parameters, cluster};
pub use lloyd::{Pruning, Record, Step, Stop};

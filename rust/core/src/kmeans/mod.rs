//! K-means whose result doesn't depend on the machine.
//!
//! [`fit`] checks the parameters and tells the story: survey the values, choose the rows to fit on, seed
//! ([`seeding`]), iterate ([`lloyd`], whose sums are the integers of [`sums`] and whose distances are
//! all calculated, or only those that [`bounds`] on sorted [`cells`] can't rule out), assign every row, number the
//! clusters. All passes over the data are made by [`sweep`].

pub mod bounds;
pub mod cells;
pub mod fit;
pub mod lloyd;
pub mod seeding;
pub mod sums;
pub mod sweep;

#[cfg(test)]
mod tests;

pub use fit::{Clustering, Parameters, cluster};
pub use lloyd::{Pruning, Record, Step, Stop};

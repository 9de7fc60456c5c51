//! Clustering, quotas and draws over columns of per-example losses. Knows no Python, opens no file, prints nothing.
//!
//! # The journey
//!
//! 1. [`columns`]: N examples' losses under T states arrive as borrowed slices (T columns, or one row-major
//!    block), together with which examples are valid ([`reasons`] finds out). Nothing is copied.
//! 2. [`shape`]: sixteen examples at a time are loaded into a *tile*, `[state][lane]`, and turned into what is to
//!    be compared: the raw losses, or relative to the first, z-scored, or differenced.
//! 3. [`kernels`]: a tile meets the centroids; every lane learns its nearest one. Lanes are examples, so each
//!    instruction set runs the same fused multiply-adds in the same order and finds the same bits.
//! 4. [`kmeans`]: seeding on a sample, Lloyd's iterations with integer sums, numbering by content.
//! 5. [`cells`]: clusters and strata together make the cells that share a budget.
//! 6. [`quota`]: the budget and the cells' sizes become one quota per cell, smallest first.
//! 7. [`draw`]: each cell gives up its quota of examples, by smallest keyed hash or by score.
//!
//! What comes out is a pure function of ids, losses and parameters: the number of threads, the instruction set
//! and the order of the rows leave no trace in it. [`ids`] stand for the examples wherever chance decides.
//!
//! Three modules own what could break that promise, and nobody else touches it: [`rng`] owns chance,
//! [`parallel`] owns threads, [`interrupt`] owns the caller's wish to stop.

#![deny(unsafe_code)]

pub mod cells;
pub mod columns;
pub mod draw;
pub mod element;
pub mod error;
pub mod fences;
pub mod ids;
pub mod interrupt;
#[allow(unsafe_code, reason = "vector instructions; every other module is safe code")]
pub mod kernels;
pub mod kmeans;
#[cfg_attr(target_os = "linux", allow(unsafe_code, reason = "one hint to the operating system"))]
pub mod pages;
pub mod parallel;
pub mod quota;
pub mod reasons;
pub mod rng;
pub mod shape;
pub mod smallest;
pub mod tile;

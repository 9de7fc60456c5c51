//! Reasons: one byte per example that says why it is invalid, 0 where it is valid. What the other bytes mean is the
//! caller's business. The first reason found is the one that stays.
//!
//! Reasons are merged and found where they lie: each pass reads its columns once, all columns of a stretch of rows
//! and then the next stretch, and makes nothing but the bytes. Cost: reading. Losses are nearly always finite, so
//! they are looked at a block at a time, and one by one only in a block where something is wrong.

use crate::columns::{Columns, LANES};
use crate::error::{Error, Result};
use crate::interrupt::Watch;
use crate::parallel::Team;

/// Rows that a worker takes at a time.
const PART_ROWS: usize = if cfg!(test) { 128 } else { 1 << 16 };
/// Values between two looks at the watch: 64 MB of float32, which take some milliseconds from memory, and some
/// tenths of a second from a slow disk.
const BATCH_VALUES: usize = if cfg!(test) { 512 } else { 1 << 24 };
/// Values that are looked at together.
const BLOCK_VALUES: usize = if cfg!(test) { 16 } else { 1024 };

/// What is wrong with an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// One of its losses is not finite, in float32.
    NonFinite,
    /// Its first loss is not positive, or another one over it is not finite, in float32.
    Unscalable,
}

impl Rule {
    /// The rule of that name.
    ///
    /// # Errors
    /// A name that is none: the message lists them.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "non-finite" => Ok(Self::NonFinite),
            "unscalable" => Ok(Self::Unscalable),
            _ => {
                let allowed = "non-finite, unscalable".to_owned();
                Err(Error::Name { argument: "rule", found: name.to_owned(), allowed })
            }
        }
    }

    /// Whether a trajectory is wrong.
    fn is_broken(self, mut losses: impl Iterator<Item = f32>) -> bool {
        match self {
            Self::NonFinite => losses.any(|x| !x.is_finite()),
            Self::Unscalable => losses.next().is_none_or(|first| {
                first <= 0.0 || !first.is_finite() || losses.any(|x| !(x / first).is_finite())
            }),
        }
    }
}

/// Takes over the reasons of others (N each) where `why` (N) has none.
///
/// # Errors
/// Unequal lengths, an interrupt.
pub fn merge(why: &mut [u8], others: &[&[u8]], n_threads: usize, watch: &mut Watch) -> Result<()> {
    check_lengths(others.iter().map(|other| other.len()), "others", why.len())?;
    sweep(
        why,
        others.len(),
        n_threads,
        watch,
        || (),
        |(), first, why| {
            for other in others {
                for (why, &other) in why.iter_mut().zip(&other[first..]) {
                    *why = if *why == 0 { other } else { *why };
                }
            }
        },
    )
}

/// Writes `reason` into `why` (N) where it has none and the losses of `states` (numbers of the columns' states) break the
/// rule, whether an example is marked valid or not.
///
/// # Errors
/// Unequal lengths, a state that there isn't, an interrupt.
pub fn mark(
    why: &mut [u8],
    (columns, states): (&Columns, &[usize]),
    (rule, reason): (Rule, u8),
    n_threads: usize,
    watch: &mut Watch,
) -> Result<()> {
    check_lengths(std::iter::once(columns.n_examples()), "columns", why.len())?;
    let n_states = columns.n_states();
    if let Some(index) = states.iter().position(|state| *state >= n_states) {
        let (found, most) = (states[index] as i128, n_states as i128 - 1);
        return Err(Error::Element { argument: "states", index, found, least: 0, most });
    }
    let as_they_are = vec![0.0; n_states];
    let block_rows = (BLOCK_VALUES / n_states).next_multiple_of(LANES);
    sweep(why, n_states, n_threads, watch, Vec::new, |tiles, mut first, why| {
        for why in why.chunks_mut(block_rows) {
            tiles.resize(why.len().div_ceil(LANES) * n_states * LANES, 0.0);
            columns.load_range(first..first + why.len(), &as_they_are, tiles);
            first += why.len();
            for (why, tile) in why.chunks_mut(LANES).zip(tiles.chunks_exact(n_states * LANES)) {
                if rule == Rule::NonFinite && all_finite(tile) {
                    continue;
                }
                for (lane, why) in why.iter_mut().enumerate().filter(|(_, why)| **why == 0) {
                    if rule.is_broken(states.iter().map(|state| tile[state * LANES + lane])) {
                        *why = reason;
                    }
                }
            }
        }
    })
}

/// How often each of the 256 reasons stands in `why`.
///
/// # Errors
/// An interrupt.
pub fn count(why: &[u8], n_threads: usize, watch: &mut Watch) -> Result<[i64; 256]> {
    let team = team(why.len(), n_threads)?;
    let mut workers = team.workers(|| [0; 256]);
    watch.begin("counting", why.len())?;
    for batch in why.chunks(BATCH_VALUES) {
        team.each(&mut workers, batch.chunks(PART_ROWS).collect(), |counts, why: &[u8]| {
            for block in why.chunks(64) {
                if block.iter().fold(0, |all, reason| all | reason) == 0 {
                    counts[0] += block.len() as i64;
                } else {
                    for &reason in block {
                        counts[reason as usize] += 1;
                    }
                }
            }
        });
        watch.advance(batch.len())?;
    }
    let mut counts = [0; 256];
    workers.iter_mut().for_each(|part| counts.iter_mut().zip(part).for_each(|(sum, n)| *sum += *n));
    Ok(counts)
}

fn check_lengths(found: impl Iterator<Item = usize>, argument: &'static str, expected: usize) -> Result<()> {
    let mut wrong = found.filter(|&found| found != expected);
    wrong.next().map_or(Ok(()), |found| Err(Error::Length { argument, found, expected, of: "why" }))
}

fn team(n: usize, n_threads: usize) -> Result<Team> {
    Team::of_at_most(n_threads, n.div_ceil(PART_ROWS))
}

/// Shows `why` to `visit` in parts, each with its worker's memory and the number of its first row, on all threads.
fn sweep<S: Send>(
    why: &mut [u8],
    n_columns: usize,
    n_threads: usize,
    watch: &mut Watch,
    make: impl Fn() -> S,
    visit: impl Fn(&mut S, usize, &mut [u8]) + Sync,
) -> Result<()> {
    let team = team(why.len(), n_threads)?;
    let mut workers = team.workers(make);
    let batch_rows = (BATCH_VALUES / n_columns.max(1)).max(PART_ROWS);
    watch.begin("checking", why.len())?;
    let mut first = 0;
    for why in why.chunks_mut(batch_rows) {
        let n_rows = why.len();
        let parts: Vec<(usize, &mut [u8])> = why
            .chunks_mut(PART_ROWS)
            .enumerate()
            .map(|(part, why)| (first + part * PART_ROWS, why))
            .collect();
        team.each(&mut workers, parts, |memory, (first, why)| visit(memory, first, why));
        watch.advance(n_rows)?;
        first += n_rows;
    }
    Ok(())
}

/// Written without an early exit, so that it is done with vectors.
fn all_finite(losses: &[f32]) -> bool {
    losses.iter().fold(true, |all, x| all & x.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::Layout;
    use proptest::prelude::*;
    use std::ops::ControlFlow;

    fn go_on<T>(work: impl FnOnce(&mut Watch) -> T) -> T {
        work(&mut Watch::new(&mut |_, _, _| ControlFlow::Continue(())))
    }

    fn losses() -> impl Strategy<Value = f64> {
        let odd = vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, 0.0, -0.0, -1.0, 1e-44, 3e38];
        prop_oneof![9 => 0.1..9.0, 1 => prop::sample::select(odd)]
    }

    /// The obvious way: one example after the other, straight from the definition.
    fn naive(why: &[u8], rows: &[Vec<f64>], states: &[usize], rule: Rule, reason: u8) -> Vec<u8> {
        let broken = |row: &[f64]| {
            let losses: Vec<f32> = states.iter().map(|&state| row[state] as f32).collect();
            match rule {
                Rule::NonFinite => losses.iter().any(|x| x.is_nan() || x.is_infinite()),
                Rule::Unscalable => losses.iter().any(|x| !(x / losses[0]).is_finite()) || losses[0] <= 0.0,
            }
        };
        why.iter().zip(rows).map(|(&why, row)| if why == 0 && broken(row) { reason } else { why }).collect()
    }

    proptest! {
        #[test]
        fn marks_what_breaks_the_rule(
            rows in prop::collection::vec((prop::collection::vec(losses(), 5), 0_u8..4), 0..800),
            states in prop_oneof![Just(vec![0, 1, 2, 3, 4]), prop::collection::vec(0_usize..5, 1..4)],
            scale: bool, n_threads in 1_usize..4,
        ) {
            let before: Vec<u8> = rows.iter().map(|row| row.1 / 3 * 9).collect();
            let rows: Vec<Vec<f64>> = rows.into_iter().map(|row| row.0).collect();
            let rule = if scale { Rule::Unscalable } else { Rule::NonFinite };
            let expected = naive(&before, &rows, &states, rule, 4);
            let flat64: Vec<f64> = rows.concat();
            let flat32: Vec<f32> = flat64.iter().map(|&x| x as f32).collect();
            let columns64: Vec<Vec<f64>> = (0..5).map(|s| rows.iter().map(|row| row[s]).collect()).collect();
            let columns32: Vec<Vec<f32>> = columns64.iter().map(|c| c.iter().map(|&x| x as f32).collect()).collect();
            let marked = |work: &dyn Fn(&mut [u8], &mut Watch) -> Result<()>| {
                let mut why = before.clone();
                go_on(|watch| work(&mut why, watch)).unwrap();
                why
            };
            let how = (rule, 4);
            let of = Columns::all_valid::<f32>;
            let by_columns32 = of(Layout::Columns(columns32.iter().map(Vec::as_slice).collect())).unwrap();
            let by_rows32 = of(Layout::Rows { values: &flat32, n_states: 5 }).unwrap();
            let of = Columns::all_valid::<f64>;
            let by_columns64 = of(Layout::Columns(columns64.iter().map(Vec::as_slice).collect())).unwrap();
            let by_rows64 = of(Layout::Rows { values: &flat64, n_states: 5 }).unwrap();
            prop_assert_eq!(marked(&|why, watch| mark(why, (&by_columns32, &states), how, n_threads, watch)), expected.clone());
            prop_assert_eq!(marked(&|why, watch| mark(why, (&by_columns64, &states), how, n_threads, watch)), expected.clone());
            prop_assert_eq!(marked(&|why, watch| mark(why, (&by_rows32, &states), how, n_threads, watch)), expected.clone());
            prop_assert_eq!(marked(&|why, watch| mark(why, (&by_rows64, &states), how, n_threads, watch)), expected);
        }

        #[test]
        fn the_first_reason_stays(rows in prop::collection::vec(prop::array::uniform3(0_u8..3), 0..2000), n_threads in 1_usize..4) {
            let column = |i: usize| rows.iter().map(|row| row[i]).collect::<Vec<u8>>();
            let (mut why, others) = (column(0), [column(1), column(2)]);
            go_on(|watch| merge(&mut why, &[&others[0], &others[1]], n_threads, watch)).unwrap();
            let first = |row: &[u8; 3]| row.iter().copied().find(|reason| *reason > 0).unwrap_or(0);
            prop_assert_eq!(&why, &rows.iter().map(first).collect::<Vec<u8>>());
            let counts = go_on(|watch| count(&why, n_threads, watch)).unwrap();
            for reason in 0..=255 {
                prop_assert_eq!(counts[reason as usize], why.iter().map(|&why| i64::from(why == reason)).sum::<i64>());
            }
        }
    }

    #[test]
    fn refusals() {
        let column = [1.0_f32; 4];
        let columns = |n: usize| Columns::all_valid(Layout::Columns(vec![&column[..n]; 2])).unwrap();
        let rows = Columns::all_valid(Layout::Rows { values: &column[..], n_states: 2 }).unwrap();
        let how = (Rule::NonFinite, 4);
        let found = go_on(|watch| {
            [
                mark(&mut [0; 4], (&columns(3), &[0]), how, 1, watch),
                mark(&mut [0; 4], (&rows, &[0]), how, 1, watch),
                mark(&mut [0; 4], (&columns(4), &[0, 2]), how, 1, watch),
                mark(&mut [0; 2], (&rows, &[2]), how, 1, watch),
                merge(&mut [0; 4], &[&[0; 4], &[0; 3]], 1, watch),
                mark(&mut [0; 4], (&columns(4), &[0]), how, 0, watch),
                Rule::from_name("odd").map(|_| ()),
            ]
        });
        let messages = [
            "columns: found 3 elements, need 4, as many as why",
            "columns: found 2 elements, need 4, as many as why",
            "states: found 2 at index 1, allowed are 0 to 1",
            "states: found 2 at index 0, allowed are 0 to 1",
            "others: found 3 elements, need 4, as many as why",
            "n_threads: found 0, allowed are 1 to 1024",
            "rule: found \"odd\", allowed are non-finite, unscalable",
        ];
        assert_eq!(found.map(|found| found.unwrap_err().to_string()), messages);
    }

    #[test]
    fn interrupts() {
        let (mut why, column) = (vec![0; 10_000], vec![f32::NAN; 10_000]);
        let layout = Columns::all_valid(Layout::Columns(vec![&column[..]])).unwrap();
        let mut left = 3;
        let mut report = |_, _, _| {
            left -= 1;
            if left < 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let mut watch = Watch::new(&mut report);
        let stopped = mark(&mut why, (&layout, &[0]), (Rule::NonFinite, 4), 2, &mut watch);
        assert_eq!(stopped, Err(Error::Interrupted));
        assert!(why.starts_with(&[4; 1000]) && why.ends_with(&[0; 1000]));
    }
}

//! Draws against a slow, obvious twin.

use super::*;
use crate::cells::Numbers;
use proptest::prelude::*;
use std::ops::ControlFlow;

fn drawn(draw: Draw, n_threads: usize) -> Result<Vec<i64>> {
    draw.rows(n_threads, &mut Watch::new(&mut |_, _, _| ControlFlow::Continue(())))
}

/// The obvious way: sort every cell, take its first.
fn naive(draw: Draw) -> Vec<i64> {
    let keys = Keys::new(draw.seed, if draw.scores.is_some() { TIE } else { DRAW });
    let mut rows = Vec::new();
    for (cell, &quota) in draw.quotas.iter().enumerate() {
        let mut members: Vec<usize> =
            (0..draw.ids.len()).filter(|&row| draw.cells.cell(row) == cell as i32).collect();
        members.sort_by(|&a, &b| {
            let by_score =
                draw.scores.map_or(std::cmp::Ordering::Equal, |s| s[b].partial_cmp(&s[a]).unwrap());
            by_score.then(keys.key(draw.ids.get(a)).cmp(&keys.key(draw.ids.get(b))))
        });
        rows.extend(members[..quota as usize].iter().map(|&row| row as i64));
    }
    rows.sort_unstable();
    rows
}

/// Examples in cells of several sizes: what a draw borrows from.
#[derive(Debug, Clone)]
struct Pool {
    clusters: Vec<i32>,
    strata: Vec<i32>,
    excluded: Vec<u8>,
    scores: Vec<f64>,
    ids: Vec<u64>,
    quotas: Vec<i64>,
    sizes: Vec<i64>,
}

impl Pool {
    fn draw(&self, parts: u8, seed: u64) -> Draw<'_> {
        Draw {
            cells: Cells {
                clusters: Some(Numbers { of: &self.clusters, n: 4 }),
                strata: (parts & 1 > 0).then_some(Numbers { of: &self.strata, n: 2 }),
                excluded: (parts & 2 > 0).then_some(&self.excluded[..]),
            },
            quotas: &self.quotas,
            sizes: (parts & 4 > 0).then_some(&self.sizes),
            ids: if parts & 8 > 0 { Ids::Given(&self.ids) } else { Ids::RowNumbers(self.ids.len()) },
            scores: (parts & 16 > 0).then_some(&self.scores[..]),
            seed,
        }
    }

    /// Sets the quotas to shares of the cells' sizes.
    fn share(&mut self, parts: u8, shares: &[f64; 8]) {
        let n_threads = 1;
        let draw = self.draw(parts, 0);
        let team = draw.cells.team(n_threads).unwrap();
        let mut go_on = |_, _, _| ControlFlow::Continue(());
        self.sizes = draw.cells.sizes(&team, &mut Watch::new(&mut go_on)).unwrap();
        let quotas = self.sizes.iter().zip(shares).map(|(&n, share)| (n as f64 * share) as i64);
        self.quotas = quotas.collect();
    }

    fn reversed(&self) -> Self {
        fn back<T: Copy>(values: &[T]) -> Vec<T> {
            values.iter().rev().copied().collect()
        }
        Self {
            clusters: back(&self.clusters),
            strata: back(&self.strata),
            excluded: back(&self.excluded),
            scores: back(&self.scores),
            ids: back(&self.ids),
            ..self.clone()
        }
    }
}

fn pools(n: usize) -> impl Strategy<Value = Pool> {
    let scores = vec![0.0, -0.0, 1.0, -1.0, 2.5, f64::INFINITY, f64::NEG_INFINITY, 5e-324, -5e-324];
    let scores = prop_oneof![prop::sample::select(scores), -1.0..1.0];
    // Cluster 3 is rare.
    let clusters = prop_oneof![20 => -1_i32..3, 1 => 3..4];
    prop::collection::vec((clusters, -1_i32..2, 0_u8..5, scores), 0..n).prop_map(|examples| Pool {
        clusters: examples.iter().map(|example| example.0).collect(),
        strata: examples.iter().map(|example| example.1).collect(),
        excluded: examples.iter().map(|example| u8::from(example.2 == 0)).collect(),
        scores: examples.iter().map(|example| example.3).collect(),
        ids: (0..examples.len() as u64).map(|row| row * row + 3).collect(),
        quotas: Vec::new(),
        sizes: Vec::new(),
    })
}

fn shares() -> impl Strategy<Value = [f64; 8]> {
    prop::array::uniform8(prop_oneof![Just(0.0), Just(1.0), 0.0..1.0])
}

proptest! {
    #[test]
    fn equals_sorting_every_cell(
        mut pool in pools(3000), shares in shares(), parts in 0_u8..32, seed: u64,
    ) {
        pool.share(parts, &shares);
        let rows = drawn(pool.draw(parts, seed), 1).unwrap();
        prop_assert_eq!(&rows, &naive(pool.draw(parts, seed)));
        prop_assert!(rows.is_sorted());
        for n_threads in [2, 3, 8] {
            prop_assert_eq!(&drawn(pool.draw(parts, seed), n_threads).unwrap(), &rows);
        }
        // The draw of less lies inside the draw of more.
        let mut less = pool.clone();
        less.quotas.iter_mut().for_each(|quota| *quota /= 2);
        let inside = drawn(less.draw(parts, seed), 2).unwrap();
        prop_assert!(inside.iter().all(|row| rows.binary_search(row).is_ok()));
        // The ids drawn don't depend on the order of rows.
        let back = pool.reversed();
        let mut back = drawn(back.draw(parts | 8, seed), 2).unwrap();
        back.reverse();
        let back: Vec<i64> = back.iter().map(|row| pool.ids.len() as i64 - 1 - row).collect();
        prop_assert_eq!(back, drawn(pool.draw(parts | 8, seed), 2).unwrap());
    }

    #[test]
    fn wrong_sizes_change_nothing(
        mut pool in pools(800), shares in shares(), parts in 0_u8..32, wrong in prop::array::uniform8(0_i64..900),
    ) {
        pool.share(parts, &shares);
        let rows = naive(pool.draw(parts, 5));
        // Quotas are checked against them, so they are at least these.
        pool.sizes.iter_mut().zip(wrong).zip(&pool.quotas).for_each(|((size, wrong), quota)| *size = wrong.max(*quota));
        prop_assert_eq!(drawn(pool.draw(parts | 4, 5), 3).unwrap(), rows);
    }

    #[test]
    fn of_equal_ids_the_smaller_row_goes_first(
        mut pool in pools(300), shares in shares(), parts in 0_u8..32, n_ids in 1_u64..40, right: bool,
    ) {
        pool.share(parts, &shares);
        pool.ids.iter_mut().for_each(|id| *id %= n_ids);
        if !right {
            pool.sizes.clone_from(&pool.quotas);
        }
        let rows = naive(pool.draw(parts | 8, 5));
        prop_assert_eq!(drawn(pool.draw(parts | 8, 5), 2).unwrap(), rows);
    }
}

#[test]
fn unlucky_ids_are_drawn_right() {
    // The first cell has the smallest keys of all, the second the largest: no fence stands where it should.
    let keys = Keys::new(0, DRAW);
    let mut ids: Vec<u64> = (0..4000).collect();
    ids.sort_unstable_by_key(|id| keys.key(*id));
    let clusters: Vec<i32> = (0..4000).map(|row| i32::from(row >= 2000)).collect();
    let cells = Cells::of_clusters(&clusters, 2);
    let draw =
        Draw { cells, quotas: &[1000, 1000], sizes: None, ids: Ids::Given(&ids), scores: None, seed: 0 };
    let expected: Vec<i64> = (0..1000).chain(2000..3000).collect();
    assert_eq!(drawn(draw, 2).unwrap(), expected);
    // Nor does it for sizes that promise more than there is.
    let message = drawn(Draw { quotas: &[2001, 0], sizes: Some(&[5000, 0]), ..draw }, 2).unwrap_err();
    assert_eq!(message.to_string(), "quotas: found 2001 for cell 0, which has 2000 examples");
}

#[test]
fn interrupts() {
    let clusters = vec![0; 10_000];
    let cells = Cells::of_clusters(&clusters, 1);
    let ids = Ids::RowNumbers(10_000);
    let draw = Draw { cells, quotas: &[5000], sizes: None, ids, scores: None, seed: 0 };
    let mut looks = 0;
    draw.rows(
        2,
        &mut Watch::new(&mut |_, _, _| {
            looks += 1;
            ControlFlow::Continue(())
        }),
    )
    .unwrap();
    assert!(looks > 30, "{looks}");
    for stop in 0..looks {
        let mut left = stop;
        let mut report = |_, _, _| {
            left -= 1;
            if left < 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        assert_eq!(draw.rows(2, &mut Watch::new(&mut report)), Err(Error::Interrupted));
    }
}

#[test]
fn refusals() {
    let draw = Draw {
        cells: Cells::of_clusters(&[0, -1, 1, 0], 2),
        quotas: &[1, 1],
        sizes: None,
        ids: Ids::Given(&[1, 2, 3, 4]),
        scores: None,
        seed: 0,
    };
    let nan = [0.0, f64::NAN, f64::NAN, 0.0];
    let bad = Draw { cells: Cells::of_clusters(&[0, 2, 0, 0], 2), ..draw };
    for (draw, message) in [
        (Draw { ids: Ids::Given(&[1]), ..draw }, "ids: found 1 elements, need 4, as many as cells"),
        (Draw { scores: Some(&[1.0]), ..draw }, "scores: found 1 elements, need 4, as many as ids"),
        (Draw { quotas: &[1], ..draw }, "quotas: found 1 elements, need 2, as many as cells"),
        (Draw { sizes: Some(&[1]), ..draw }, "sizes: found 1 elements, need 2, as many as cells"),
        (bad, "clusters: found 2 at index 1, allowed are -1 to 1"),
        (Draw { sizes: Some(&[3, 2]), ..bad }, "clusters: found 2 at index 1, allowed are -1 to 1"),
        (Draw { quotas: &[3, 1], ..draw }, "quotas: found 3 for cell 0, which has 2 examples"),
        (Draw { quotas: &[1, -1], ..draw }, "quotas: found -1 at index 1, allowed are 0 to 1"),
        (
            Draw { scores: Some(&nan), ..draw },
            "scores: found NaN in row 2, which is in cell 1; only rows outside all cells may be NaN",
        ),
    ] {
        assert_eq!(drawn(draw, 1).unwrap_err().to_string(), message);
    }
}

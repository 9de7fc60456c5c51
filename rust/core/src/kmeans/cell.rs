//! One cell of sorted rows: which of its tiles may change, and their assignment. The bounds are derived in
//! [`bounds`](super::bounds), whose "bound for a tile" this file carries out.

use super::cells::Size;
use super::margin::{slack, smallest, tiny};
use super::sums::{Grid, Sums};
use crate::columns::LANES;
use crate::kernels::{Centroids, Found, Kernel, Sixteen, Ways};
use std::cmp::Ordering;

/// Cells of a stack: the lanes of a tile, whose "rows" are the cells' means.
pub(super) const CELLS: usize = LANES;

/// The assignment of the cells by which steps have begun to shrink: the first moves are no measure of those to come.
pub(super) const SETTLED: u32 = 2;
/// Rows are sorted by their leads when steps have begun to shrink, and when so many assignments later more than a quarter
/// of the tiles may change.
pub(super) const ORDER_AGAIN: u32 = 12;

/// What is known of one cell.
pub(super) struct Cell {
    pub(super) size: Size,
    /// `[dim]`: m.
    pub(super) mean: Vec<f32>,
    /// The candidates that all tiles were calculated with, ascending.
    pub(super) covered: Vec<Candidate>,
    /// Per tile: its lead, less the error of measuring, and when it was calculated.
    pub(super) leads: Vec<(f32, u32)>,
    /// When its rows were sorted by their leads.
    pub(super) ordered: u32,
}

#[derive(Clone, Copy)]
pub(super) struct Candidate {
    pub(super) number: u32,
    /// s(m, c) at the last assignment.
    pub(super) score: f32,
    /// Whether it may have been nearest to some row then, or before, since the whole cell was calculated.
    pub(super) best: bool,
}

/// What the kernel finds for the tiles of a cell.
#[derive(Default)]
pub(super) struct Results {
    /// `[tile][lane]`.
    pub(super) numbers: Vec<Sixteen>,
    pub(super) scores: Vec<Sixteen>,
    pub(super) seconds: Vec<Sixteen>,
    /// `[candidate][lane]`.
    pub(super) room: Vec<Sixteen>,
    pub(super) gaps: Vec<Sixteen>,
}

/// What sorting a cell's rows takes.
#[derive(Default)]
pub(super) struct Order {
    /// Old places, in the new order.
    pub(super) places: Vec<u16>,
    pub(super) values: Vec<f32>,
    pub(super) numbers: Vec<u32>,
    pub(super) leads: Vec<f32>,
}

/// A cell's part of the sorted rows.
pub(super) struct Rows<'r> {
    pub(super) tiles: &'r mut [f32],
    pub(super) numbers: &'r mut [u32],
    pub(super) labels: &'r mut [i32],
}

/// Where a cell is in its stack, and how large.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) at: usize,
    pub(super) radius: f32,
    pub(super) norm: f32,
}

/// The place of a number in a list that has it.
pub(super) fn place_of(list: &[u32], number: u32) -> usize {
    list.binary_search(&number).expect("it is on the list")
}

/// What all workers look at.
#[derive(Clone, Copy)]
pub(super) struct Now<'n> {
    pub(super) centroids: &'n Centroids,
    /// |c|, rounded up.
    pub(super) norms: &'n [f32],
    pub(super) paths: &'n [f64],
    /// By age: how the centroids have gone since so many assignments ago.
    pub(super) ways: &'n [Ways],
    pub(super) reaches: &'n [f32],
    pub(super) strides: &'n [f64],
    pub(super) time: u32,
    pub(super) grid: Grid,
    pub(super) kernel: Kernel,
}

/// A worker's part of the result, and its memory.
pub(super) struct Scratch {
    pub(super) change: Sums,
    pub(super) moved: usize,
    pub(super) n_evaluated: u64,
    /// `[centroid][cell]`: s(m, c), and squared distances between centroids.
    pub(super) scores: Vec<Sixteen>,
    pub(super) apart: Vec<Sixteen>,
    /// `[cell]`: candidates, ascending; and those that may become some soon.
    pub(super) lists: Vec<Vec<u32>>,
    pub(super) wide_lists: Vec<Vec<u32>>,
    pub(super) candidates: Centroids,
    pub(super) found: Results,
    pub(super) order: Order,
    /// Per time: how much leads that were measured then have decayed, where that has been asked.
    pub(super) decays: Vec<Option<f32>>,
    /// The clusters that rows joined, in no order.
    pub(super) joined: Vec<u32>,
    /// `[tile]`: whether it may change.
    pub(super) changing: Vec<bool>,
}

impl Scratch {
    pub(super) fn new(centroids: &Centroids) -> Self {
        let n = centroids.n_centroids();
        Self {
            change: Sums::new(n, centroids.n_dims()),
            moved: 0,
            n_evaluated: 0,
            scores: vec![[0.0; CELLS]; n],
            apart: Vec::new(),
            lists: vec![Vec::new(); CELLS],
            wide_lists: vec![Vec::new(); CELLS],
            candidates: centroids.none_of(),
            found: Results::default(),
            order: Order::default(),
            decays: Vec::new(),
            joined: Vec::new(),
            changing: Vec::new(),
        }
    }
}

impl Cell {
    pub(super) fn new(size: Size, mean: &[f32]) -> Self {
        let leads = vec![(f32::NEG_INFINITY, 0); size.n_tiles];
        Self { size, mean: mean.to_vec(), covered: Vec::new(), leads, ordered: 0 }
    }

    /// What two scores of covered candidates may be wrong by, now and at any time before: twice that.
    pub(super) fn error(&self, place: Place, now: Now) -> f64 {
        let magnitude = |k: usize| {
            // On its way the centroid may have been that much farther out.
            let reach = f64::from(now.norms[k]) + now.paths[k];
            reach * (reach + f64::from(place.norm))
        };
        let most =
            self.covered.iter().map(|candidate| magnitude(candidate.number as usize)).fold(0.0, f64::max);
        2.0 * f64::from(slack(now.centroids.n_dims())) * most + tiny(now.centroids.n_dims())
    }

    /// How many tiles may change (`changing` says which), if all candidates of the list are covered.
    pub(super) fn changing(
        &mut self,
        list: &[u32],
        place: Place,
        now: Now,
        scratch: &mut Scratch,
    ) -> Option<usize> {
        let Scratch { scores, decays, changing, .. } = scratch;
        for candidate in &mut self.covered {
            candidate.score = scores[candidate.number as usize][place.at];
        }
        let mut covered = self.covered.iter();
        if !list.iter().all(|number| covered.any(|candidate| candidate.number == *number)) {
            return None;
        }
        let error = self.error(place, now);
        let ball = (&self.mean[..], place.radius * (1.0 + slack(self.mean.len())));
        let bests = || self.covered.iter().filter(|candidate| candidate.best).map(|best| best.number);
        decays.clear();
        decays.resize(now.ways.len(), None);
        changing.clear();
        changing.extend(self.leads.iter().map(|&(lead, time)| {
            // A row between two centroids: nothing needs to be known about these.
            if lead <= 0.0 {
                return true;
            }
            let age = (now.time - time) as usize;
            let Some(decay) = decays.get_mut(age) else { return true };
            let decay = *decay.get_or_insert_with(|| {
                let mut most = f32::NEG_INFINITY;
                for b in bests() {
                    most = most.max(now.kernel.decay(&now.ways[age], ball, b, list));
                }
                ((f64::from(most) + error) as f32).next_up()
            });
            // NaN may change.
            lead.partial_cmp(&decay) != Some(Ordering::Greater)
        }));
        Some(changing.iter().filter(|changing| **changing).count())
    }

    /// Labels the rows of the tiles that may change.
    pub(super) fn assign_some(&mut self, rows: &mut Rows, place: Place, now: Now, scratch: &mut Scratch) {
        let size = now.centroids.n_dims() * LANES;
        let error = self.error(place, now);
        let numbers: Vec<u32> = self.covered.iter().map(|candidate| candidate.number).collect();
        scratch.candidates.gather(now.centroids, &numbers);
        let mut to = 0;
        while let Some(from) = scratch.changing[to..].iter().position(|changing| *changing) {
            let from = to + from;
            let run = scratch.changing[from..].iter().position(|changing| !changing);
            to = run.map_or(self.leads.len(), |n| from + n);
            let Results { numbers, scores, seconds, .. } = &mut scratch.found;
            for values in [&mut *numbers, scores, seconds] {
                values.resize(to - from, [0.0; LANES]);
            }
            let tiles = &rows.tiles[from * size..to * size];
            now.kernel.nearest_two(tiles, &scratch.candidates, &mut Found { numbers, scores, seconds });
            let n_rows = self.size.n_rows.min(to * LANES) - from * LANES;
            scratch.n_evaluated += (self.covered.len() * n_rows) as u64;
            for (lead, found) in self.leads[from..to].iter_mut().zip(scores.iter().zip(seconds.iter())) {
                *lead = (measured(found, error), now.time);
            }
            let labels = &mut rows.labels[from * LANES..to * LANES];
            relabel((tiles, labels), n_rows, now, scratch);
            // What was nearest to the other rows is marked already.
            for number in &scratch.joined {
                let place = self.covered.binary_search_by_key(number, |candidate| candidate.number);
                self.covered[place.expect("what is found is on the list")].best = true;
            }
        }
    }

    /// Labels all rows, and measures the candidates' gaps and the tiles' leads.
    pub(super) fn assign_all(
        &mut self,
        rows: &mut Rows,
        list: &[u32],
        place: Place,
        now: Now,
        scratch: &mut Scratch,
    ) {
        scratch.candidates.gather(now.centroids, list);
        scratch.n_evaluated += (list.len() * self.size.n_rows) as u64;
        let Results { numbers, scores, seconds, room, gaps } = &mut scratch.found;
        for values in [&mut *numbers, scores, seconds] {
            values.resize(self.size.n_tiles, [0.0; LANES]);
        }
        gaps.resize(list.len(), [0.0; LANES]);
        now.kernel.nearest_and_gaps(
            rows.tiles,
            &scratch.candidates,
            &mut Found { numbers, scores, seconds },
            (room, gaps),
        );
        self.covered.clear();
        self.covered.extend(list.iter().map(|&number| Candidate {
            number,
            score: scratch.scores[number as usize][place.at],
            best: false,
        }));
        relabel((rows.tiles, rows.labels), self.size.n_rows, now, scratch);
        let again = self.ordered == 0 || now.time >= self.ordered + ORDER_AGAIN;
        if now.time >= SETTLED && again && list.len() > 1 && self.size.n_tiles > 1 {
            order(rows, self.size.n_rows, scratch);
            self.ordered = now.time;
        }
        let error = self.error(place, now);
        let Results { scores, seconds, .. } = &scratch.found;
        for (lead, found) in self.leads.iter_mut().zip(scores.iter().zip(seconds)) {
            *lead = (measured(found, error), now.time);
        }
    }
}

/// A tile's lead, less the error of measuring: the least difference of (smallest, second smallest) scores.
fn measured((scores, seconds): (&Sixteen, &Sixteen), error: f64) -> f32 {
    let lead = smallest(&std::array::from_fn(|lane| seconds[lane] - scores[lane]));
    ((f64::from(lead) - error) as f32).next_down()
}

/// Gives the rows of some tiles the labels that were found.
fn relabel((tiles, labels): (&[f32], &mut [i32]), n_rows: usize, now: Now, scratch: &mut Scratch) {
    scratch.joined.clear();
    let size = now.centroids.n_dims() * LANES;
    for (i, (labels, numbers)) in
        labels.as_chunks_mut::<LANES>().0.iter_mut().zip(&scratch.found.numbers).enumerate()
    {
        let nearest = numbers.map(|number| number as i32);
        // Without a branch, and without a call to compare memory.
        if labels.iter().zip(&nearest).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0 {
            continue;
        }
        // Spare lanes are labelled like the row that they repeat, but don't count.
        for lane in (0..LANES).take(n_rows - i * LANES).filter(|&lane| labels[lane] != nearest[lane]) {
            let trajectory = tiles[i * size + lane..][..size - lane].iter().step_by(LANES).copied();
            scratch.change.relabel(now.grid, trajectory, labels[lane] as usize, nearest[lane] as usize);
            scratch.moved += 1;
            let number = nearest[lane] as u32;
            if scratch.joined.last() != Some(&number) {
                scratch.joined.push(number);
            }
        }
        *labels = nearest;
    }
}

/// Sorts a cell's rows by their leads, the smallest first, roughly: by counting, eight steps to an octave. What was found
/// for the rows follows them, but for the numbers, which are their labels by now.
fn order(rows: &mut Rows, n_rows: usize, scratch: &mut Scratch) {
    let Results { scores, seconds, .. } = &mut scratch.found;
    let Order { places, values, numbers, leads } = &mut scratch.order;
    leads.clear();
    leads
        .extend(seconds.as_flattened().iter().zip(scores.as_flattened()).map(|(second, best)| second - best));
    // Leads are not negative: their bits are in the order of their values. The largest one sets the top octave.
    let bits = |lead: &f32| (lead.to_bits() >> 20) as usize;
    let top = leads[..n_rows].iter().map(bits).max().unwrap_or(0);
    let step = |lead: &f32| 255 - (top - bits(lead)).min(255);
    let mut next = [0_u16; 256];
    leads[..n_rows].iter().for_each(|lead| next[step(lead)] += 1);
    let mut before = 0;
    for next in &mut next {
        before += std::mem::replace(next, before);
    }
    places.resize(leads.len(), 0);
    for (place, lead) in leads[..n_rows].iter().enumerate() {
        let next = &mut next[step(lead)];
        places[*next as usize] = place as u16;
        *next += 1;
    }
    // Spare lanes repeat the last row.
    let last = places[n_rows - 1];
    places[n_rows..].fill(last);

    let size = rows.tiles.len() / (leads.len() / LANES);
    values.clear();
    values.extend_from_slice(rows.tiles);
    for (tile, places) in rows.tiles.chunks_exact_mut(size).zip(places.as_chunks::<LANES>().0) {
        let from = places.map(|place| place as usize / LANES * size + place as usize % LANES);
        for (dim, lanes) in tile.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            *lanes = from.map(|from| values[from + dim * LANES]);
        }
    }
    let old = |place: &u16| *place as usize;
    numbers.clear();
    numbers.extend_from_slice(rows.numbers);
    rows.numbers.iter_mut().zip(&*places).take(n_rows).for_each(|(row, place)| *row = numbers[old(place)]);
    numbers.clear();
    numbers.extend(rows.labels.iter().map(|&label| label as u32));
    rows.labels.iter_mut().zip(&*places).for_each(|(label, place)| *label = numbers[old(place)] as i32);
    // Only their differences are asked for from here on.
    let both = scores.as_flattened_mut().iter_mut().zip(seconds.as_flattened_mut()).zip(&*places);
    for ((score, second), place) in both {
        (*score, *second) = (0.0, leads[old(place)]);
    }
}

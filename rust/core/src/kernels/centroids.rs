//! Centroids as the kernels read them.

/// More centroids than this can't be numbered exactly in a float32 lane.
pub const MOST_CENTROIDS: usize = 1 << 24;

/// Centroids, side by side in groups: `[group][1 + dim][C]`, half the squared norms first, then the coordinates. C is
/// the backend's; a kernel broadcasts C neighbours one after the other and never looks beyond the last centroid.
#[derive(Debug, Clone, PartialEq)]
pub struct Centroids {
    groups: Vec<f32>,
    /// The number of each centroid, as lanes hold it.
    numbers: Vec<f32>,
    /// `[centroid][dim]`.
    coordinates: Vec<f32>,
    /// Half of each squared norm.
    halves: Vec<f32>,
    n_dims: usize,
    together: usize,
}

/// Half the squared norm: added up in float64 in the order of the dimensions, rounded once.
#[must_use]
pub fn half_square(centroid: &[f32]) -> f32 {
    (centroid.iter().map(|&c| f64::from(c) * f64::from(c)).sum::<f64>() * 0.5) as f32
}

impl Centroids {
    /// Packs `n_dims` coordinates per centroid, one centroid after the other, in groups of `together`.
    ///
    /// # Panics
    /// When the coordinates are not whole centroids, or too many.
    pub(super) fn pack(coordinates: &[f32], n_dims: usize, together: usize) -> Self {
        assert!(n_dims > 0 && coordinates.len().is_multiple_of(n_dims));
        let n_centroids = coordinates.len() / n_dims;
        assert!(n_centroids <= MOST_CENTROIDS);
        let mut packed = Self {
            groups: Vec::new(),
            numbers: Vec::new(),
            coordinates: coordinates.to_vec(),
            halves: coordinates.chunks_exact(n_dims).map(half_square).collect(),
            n_dims,
            together,
        };
        packed.fill(coordinates, None, (0..n_centroids).map(|k| k as u32));
        packed
    }

    /// Becomes the centroids of these numbers out of `all`, in this order; they keep their numbers.
    ///
    /// # Panics
    /// A number beyond the centroids, or centroids packed for another backend.
    pub fn gather(&mut self, all: &Self, numbers: &[u32]) {
        assert_eq!((self.n_dims, self.together), (all.n_dims, all.together));
        self.coordinates.clear();
        self.halves.clear();
        self.fill(&all.coordinates, Some(&all.halves), numbers.iter().copied());
    }

    /// None of them; see [`gather`](Self::gather).
    #[must_use]
    pub fn none_of(&self) -> Self {
        Self {
            groups: Vec::new(),
            numbers: Vec::new(),
            coordinates: Vec::new(),
            halves: Vec::new(),
            n_dims: self.n_dims,
            together: self.together,
        }
    }

    /// Lays out the groups.
    fn fill(
        &mut self,
        coordinates: &[f32],
        halves: Option<&[f32]>,
        numbers: impl ExactSizeIterator<Item = u32>,
    ) {
        let (n_dims, together) = (self.n_dims, self.together);
        let size = (1 + n_dims) * together;
        // What an earlier, longer list left in the last group is never looked at.
        self.groups.resize(numbers.len().div_ceil(together) * size, 0.0);
        self.numbers.clear();
        for (i, number) in numbers.enumerate() {
            self.numbers.push(number as f32);
            let half = halves.unwrap_or(&self.halves)[number as usize];
            let centroid = &coordinates[number as usize * n_dims..][..n_dims];
            let group = &mut self.groups[i / together * size..][..size];
            for (room, &value) in
                group[i % together..].iter_mut().step_by(together).zip(std::iter::once(&half).chain(centroid))
            {
                *room = value;
            }
        }
    }

    /// How many centroids there are.
    #[must_use]
    pub fn n_centroids(&self) -> usize {
        self.numbers.len()
    }

    /// Coordinates per centroid.
    #[must_use]
    pub fn n_dims(&self) -> usize {
        self.n_dims
    }

    /// `[centroid][dim]`; nothing for gathered ones.
    #[must_use]
    pub fn coordinates(&self) -> &[f32] {
        &self.coordinates
    }

    /// Half of each squared norm; nothing for gathered ones.
    #[must_use]
    pub fn halves(&self) -> &[f32] {
        &self.halves
    }

    /// `[group][1 + dim][C]`.
    pub(super) fn groups(&self) -> &[f32] {
        &self.groups
    }

    /// The number of each centroid.
    pub(super) fn numbers(&self) -> &[f32] {
        &self.numbers
    }
}

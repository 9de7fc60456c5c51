//! Margins: what the roundings of [`bounds`](super::bounds) may add up to, and numbers rounded to the safe side.

use crate::columns::LANES;
use crate::kernels::Sixteen;

/// What a sum may be wrong by, as a share of its terms' magnitudes.
pub(super) fn slack(n_dims: usize) -> f32 {
    (2 * n_dims + 40) as f32 * (f32::EPSILON / 2.0)
}

/// What underflows may cost in all.
pub(super) fn tiny(n_dims: usize) -> f64 {
    libm::ldexp((n_dims + 16) as f64, -120)
}

/// A radius that holds points with these squared distances (as a kernel calculates them) from its centre.
#[must_use]
pub fn radius(distances: &[Sixteen], n_dims: usize) -> f32 {
    let far = f64::from(largest(distances)) * (1.0 + f64::from(slack(n_dims))) + tiny(n_dims);
    (far.sqrt() as f32).next_up()
}

/// The norm, rounded up.
pub(super) fn norm(point: impl Iterator<Item = f32>) -> f64 {
    point.map(|x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt() * (1.0 + 1e-12)
}

/// The smallest of the lanes.
pub(super) fn smallest(lanes: &Sixteen) -> f32 {
    lanes.iter().fold(f32::INFINITY, |least, &x| if x < least { x } else { least })
}

/// The largest of non-negative numbers: their bits, even as signed numbers, are in their order.
pub(super) fn largest(numbers: &[Sixteen]) -> f32 {
    let bits = numbers.iter().fold([0; LANES], |most: [i32; LANES], numbers| {
        std::array::from_fn(|lane| most[lane].max(numbers[lane].to_bits() as i32))
    });
    f32::from_bits(bits.into_iter().fold(0, i32::max) as u32)
}

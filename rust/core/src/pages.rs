//! Large memory in large pages.
//!
//! A copy of the data is touched once, page by page, and every first touch of a 4 KB page costs as much as copying it does
//! (0.25 to 1 microsecond). Where the operating system offers pages of 2 MB on request, they are asked for; anywhere else
//! this is an ordinary vector. Measured on Zen 5 for a sorted copy of 1M x 16: sorting took 130 ms without, see the notes.

/// A vector of `n` zeros.
#[must_use]
pub fn zeros(n: usize) -> Vec<f32> {
    let mut values = vec![0.0; n];
    advise(&mut values);
    values
}

/// Asks for large pages underneath these values, which have not been touched yet.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "a hint to the operating system about memory that we own")]
fn advise(values: &mut [f32]) {
    const PAGE: usize = 4096;
    let start = (values.as_ptr() as usize).next_multiple_of(PAGE);
    let end = values.as_ptr_range().end as usize / PAGE * PAGE;
    if end > start {
        // SAFETY: the range lies inside memory that we own exclusively, and the hint changes nothing about its content.
        // An error (an old kernel, say) means that there will be small pages.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn advise(_values: &mut [f32]) {}

#[cfg(test)]
mod tests {
    #[test]
    fn zeros_are_zeros() {
        for n in [0, 1, 1000, 3 << 20] {
            let values = super::zeros(n);
            assert_eq!((values.len(), values.iter().filter(|x| **x != 0.0).count()), (n, 0));
        }
    }
}

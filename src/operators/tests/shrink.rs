//! Failing cases made small: greedy removal, in a fixed order, of whatever is not needed to fail.

/// A case that can be made smaller.
pub trait Shrink: Clone {
    /// Smaller cases, boldest first. Each is valid, and strictly smaller than this one.
    fn smaller(&self) -> Vec<Self>;
}

/// The smallest case found that still `fails`, after at most `runs` tries.
pub fn shrink<C: Shrink>(case: C, runs: usize, mut fails: impl FnMut(&C) -> bool) -> C {
    let mut case = case;
    let mut left = runs;
    'smaller: loop {
        for candidate in case.smaller() {
            if left == 0 {
                return case;
            }
            left -= 1;
            if fails(&candidate) {
                case = candidate;
                continue 'smaller;
            }
        }
        return case;
    }
}

/// `items` without a run of them: first without all, then halves, then quarters, … then single ones.
pub fn without_runs<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    let mut all = Vec::new();
    let mut length = items.len();
    while length > 0 {
        for start in (0..items.len()).step_by(length) {
            let end = (start + length).min(items.len());
            all.push([&items[..start], &items[end..]].concat());
        }
        length /= 2;
    }
    all
}

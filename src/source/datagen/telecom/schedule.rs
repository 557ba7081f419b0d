//! When things happen on the virtual clock: instants in ascending order, following the hours of a day and the days of a
//! week, in constant memory.

use chrono::{DateTime, Datelike};
use rand::Rng;

use super::quota::apportion;

/// Traffic per hour of the day: quiet at night, a peak in the evening.
const HOURS: [u64; 24] = [2, 1, 1, 1, 1, 2, 3, 5, 6, 6, 6, 6, 7, 6, 6, 6, 7, 8, 9, 9, 8, 6, 4, 4];

/// Exactly `n` instants (seconds since 1970-01-01 UTC), ascending.
#[derive(Debug, Clone)]
pub struct Schedule {
    start: i64,
    /// Seconds per cell.
    width: u64,
    /// Instants per cell.
    cells: Vec<u64>,
    cell: usize,
    done_in_cell: u64,
}

impl Schedule {
    /// `n` instants over `days` days from `start`: by the hour as [`HOURS`], Saturdays × 0.9, Sundays × 0.8.
    pub fn daily(n: u64, start: i64, days: u32) -> Self {
        let weights: Vec<u64> = (0..i64::from(days) * 24)
            .map(|hour| {
                let at = DateTime::from_timestamp(start + hour * 3600, 0).unwrap_or_default();
                let day = match at.weekday() {
                    chrono::Weekday::Sat => 9,
                    chrono::Weekday::Sun => 8,
                    _ => 10,
                };
                HOURS[(at.timestamp().rem_euclid(86_400) / 3600) as usize] * day
            })
            .collect();
        Schedule { start, width: 3600, cells: apportion(n, &weights), cell: 0, done_in_cell: 0 }
    }

    /// `n` instants spread evenly over `days` days from `start`.
    pub fn even(n: u64, start: i64, days: u32) -> Self {
        Schedule { start, width: u64::from(days) * 86_400, cells: vec![n], cell: 0, done_in_cell: 0 }
    }

    /// The next instant: somewhere in the next of the equal parts that the cell's instants divide it into.
    pub fn next(&mut self, rng: &mut impl Rng) -> Option<i64> {
        while self.done_in_cell == *self.cells.get(self.cell)? {
            self.cell += 1;
            self.done_in_cell = 0;
        }
        let part = self.width * 1_000_000 / self.cells[self.cell].max(1);
        let micros = part * self.done_in_cell + rng.random_range(0..part.max(1));
        self.done_in_cell += 1;
        Some(self.start + (self.cell as u64 * self.width + micros / 1_000_000) as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn instants_ascend_fill_their_hours_and_stay_inside() {
        let (start, mut rng) = (1_767_571_200, ChaCha8Rng::seed_from_u64(1));
        let mut schedule = Schedule::daily(8040, start, 7);
        let mut all = Vec::new();
        while let Some(second) = schedule.next(&mut rng) {
            all.push(second);
        }
        assert_eq!(all.len(), 8040);
        assert!(all.is_sorted());
        assert!(all.iter().all(|s| (start..start + 7 * 86_400).contains(s)));
        let in_hour = |day: i64, hour: i64| {
            let from = start + day * 86_400 + hour * 3600;
            all.iter().filter(|s| (from..from + 3600).contains(s)).count()
        };
        // The weights of a week add up to 8040, so each is met exactly.
        assert_eq!((in_hour(0, 18), in_hour(5, 18), in_hour(6, 18), in_hour(0, 3)), (90, 81, 72, 10));
    }

    #[test]
    fn an_even_schedule_has_one_instant_in_each_part() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut schedule = Schedule::even(10, 0, 10);
        for day in 0..10 {
            let second = schedule.next(&mut rng).unwrap();
            assert!((day * 86_400..(day + 1) * 86_400).contains(&second));
        }
        assert_eq!(schedule.next(&mut rng), None);
    }
}

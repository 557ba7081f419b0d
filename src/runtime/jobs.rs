//! Runs of models that are made at times, not kept up to date: `table` and `snapshot`.
//!
//! A run happens inside an epoch, so it reads one consistent cut, its commit is exactly once, what reads it follows in the same epoch, and no
//! two runs of one model can overlap. Each run is for a *planned instant*; the last one that was committed stands in the table's own
//! log (`smelt/run/<table>`), so a restart neither repeats nor skips one.

use std::time::Duration;

use crate::project::{Schedule, When};

/// When the runs of one model are due.
#[derive(Debug, Default)]
pub(super) struct Job {
    pub schedule: Option<Schedule>,
    /// Planned instant of the last committed run, µs.
    pub last: Option<i64>,
    /// Its SQL is not the one whose rows the table holds.
    pub edited: bool,
    /// It has run, or tried to, since this process began.
    started: bool,
    /// It had never run when this process began.
    pub new: bool,
    failure: Option<Failure>,
    /// The run that is being computed.
    pub trying: Option<i64>,
    /// The run that is due, and waits for the hooks before it, or for one that does.
    pub held: Option<i64>,
    /// The next run of an incremental model makes the whole table; until that is committed.
    pub full: bool,
}

/// A run that failed.
#[derive(Debug, Clone, Copy)]
struct Failure {
    planned: i64,
    count: u32,
    /// µs; `None`: not again before the next planned instant.
    retry_at: Option<i64>,
}

impl Job {
    pub fn new(schedule: Option<Schedule>, last: Option<i64>, edited: bool) -> Self {
        Job { schedule, last, edited, new: last.is_none(), ..Job::default() }
    }

    /// Goes on from what another pipeline of this process knew.
    pub fn resume(&mut self, earlier: &Job) {
        self.started = earlier.started;
        self.failure = earlier.failure;
        self.new = earlier.new;
    }

    /// The planned instant of the run that is due at `now` (µs). `changed`: something it reads has changed in this epoch.
    pub fn due(&self, now: i64, changed: bool) -> Option<i64> {
        let timed = self.schedule.as_ref().filter(|s| s.when != When::Continuous);
        if let Some(failure) = self.failure {
            let newer = timed.and_then(|schedule| schedule.due(failure.planned, now));
            return match (newer, failure.retry_at) {
                (Some(planned), _) => Some(planned),
                (None, Some(at)) => (at <= now).then_some(failure.planned),
                // Given up: other rows may do better.
                (None, None) => (changed && timed.is_none()).then_some(now),
            };
        }
        match (timed, self.last) {
            (Some(schedule), Some(last)) if !self.edited => schedule.due(last, now),
            // Never run: at start, and again while its input was empty.
            (_, None) => (!self.started || changed).then_some(now),
            (None, Some(_)) if self.schedule.is_some() => (changed || !self.started || self.edited).then_some(now),
            (_, Some(_)) => (!self.started || self.edited).then_some(now),
        }
    }

    /// It has not been tried since this process began.
    pub fn is_untried(&self) -> bool {
        !self.started
    }

    /// A run for `planned` is in its epoch. One that found nothing at all is not counted: it waits for rows.
    pub fn done(&mut self, planned: i64, found_rows: bool) {
        self.started = true;
        self.failure = None;
        if found_rows || self.last.is_some() {
            self.last = Some(planned);
            self.edited = false;
        }
    }

    /// A run for `planned` failed at `now`; returns the pause before it is tried again, if it is.
    pub fn failed(&mut self, planned: i64, now: i64) -> Option<Duration> {
        self.started = true;
        let count = match self.failure {
            Some(failure) if failure.planned == planned => failure.count + 1,
            _ => 1,
        };
        let pause = match &self.schedule {
            Some(schedule) => schedule.retry_after(count),
            None => None,
        };
        let retry_at = pause.map(|p| now + i64::try_from(p.as_micros()).unwrap_or(i64::MAX / 2));
        self.failure = Some(Failure { planned, count, retry_at });
        pause
    }
}

/// Which runs a command makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Runs {
    /// Tables, and snapshots that were never taken: `smelt run`.
    #[default]
    Tables,
    /// Everything, once, at the end of the input: `smelt build`, `smelt snapshot`. `planned` (µs) is the instant it is for; now if not said.
    All { planned: Option<i64> },
    /// By their schedules: `smelt up`.
    Scheduled,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000;

    fn every(minutes: u64, retries: u32) -> Option<Schedule> {
        let when = When::Every(Duration::from_secs(60 * minutes));
        Some(Schedule { when, retries, retry_delay: Duration::from_secs(60) })
    }

    #[test]
    fn the_first_run_waits_for_rows_and_later_ones_for_their_time() {
        let mut job = Job::new(every(5, 0), None, false);
        assert_eq!(job.due(MINUTE, false), Some(MINUTE));
        job.done(MINUTE, false);
        assert_eq!(job.due(2 * MINUTE, false), None, "nothing was there and nothing has come");
        assert_eq!(job.due(3 * MINUTE, true), Some(3 * MINUTE));
        job.done(3 * MINUTE, true);
        assert_eq!(job.due(4 * MINUTE, true), None);
        assert_eq!(job.due(5 * MINUTE, false), Some(5 * MINUTE));
        job.done(5 * MINUTE, true);
        assert_eq!(job.due(5 * MINUTE + 1, true), None);
        assert_eq!(job.due(23 * MINUTE, false), Some(20 * MINUTE), "three were missed, one is caught up");
    }

    #[test]
    fn a_failed_run_is_tried_again_for_the_same_instant_until_the_next_one() {
        let mut job = Job::new(every(5, 2), Some(0), false);
        assert_eq!(job.due(5 * MINUTE, false), Some(5 * MINUTE));
        assert_eq!(job.failed(5 * MINUTE, 5 * MINUTE), Some(Duration::from_secs(60)));
        assert_eq!(job.due(5 * MINUTE + 1, false), None);
        assert_eq!(job.due(6 * MINUTE, false), Some(5 * MINUTE));
        assert_eq!(job.failed(5 * MINUTE, 6 * MINUTE), Some(Duration::from_secs(120)));
        assert_eq!(job.due(7 * MINUTE, false), None);
        assert_eq!(job.due(8 * MINUTE, false), Some(5 * MINUTE));
        assert_eq!(job.failed(5 * MINUTE, 8 * MINUTE), None, "no third retry");
        assert_eq!(job.due(9 * MINUTE, false), None);
        assert_eq!(job.due(10 * MINUTE, false), Some(10 * MINUTE));
        job.done(10 * MINUTE, true);
        assert_eq!(job.due(11 * MINUTE, false), None);
    }

    #[test]
    fn without_a_schedule_it_runs_at_start_and_when_edited() {
        let mut job = Job::new(None, Some(3), false);
        assert_eq!(job.due(9, false), Some(9));
        job.done(9, true);
        assert_eq!(job.due(10, true), None);
        let mut job = Job::new(every(5, 0), Some(5 * MINUTE), true);
        assert_eq!(job.due(6 * MINUTE, false), Some(6 * MINUTE), "its SQL changed");
        job.done(6 * MINUTE, true);
        assert_eq!(job.due(7 * MINUTE, false), None);
    }

    #[test]
    fn continuous_follows_every_change() {
        let schedule = Schedule { when: When::Continuous, retries: 1, retry_delay: Duration::from_secs(60) };
        let mut job = Job::new(Some(schedule), Some(1), false);
        assert_eq!(job.due(5, false), Some(5), "what it missed while nobody ran");
        job.done(5, true);
        assert_eq!(job.due(6, false), None);
        assert_eq!(job.due(7, true), Some(7));
        job.failed(7, 7);
        assert_eq!(job.due(8, true), None);
        assert_eq!(job.due(7 + MINUTE, false), Some(7));
        assert_eq!(job.failed(7, 7 + MINUTE), None);
        assert_eq!(job.due(8 + 2 * MINUTE, false), None);
        assert_eq!(job.due(8 + 2 * MINUTE, true), Some(8 + 2 * MINUTE), "other rows may do better");
    }
}

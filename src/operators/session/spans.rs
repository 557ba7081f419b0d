//! The rows of all keys in the order of time, and the sessions they make.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::{Bound, RangeInclusive};

use crate::error::{Error, Result};
use crate::plan::incremental::Length;
use crate::state::{StateReader, StateWriter};

/// Where a row stands: key, time (µs), and its id.
pub type Place = (u32, i64, u32);

/// A session by key and start.
type At = (u32, i64);

/// What is known of a session beside its key and start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// The time of its last row, µs.
    pub last: i64,
    /// One of its last rows: the one that says when it ends.
    pub bearer: u32,
}

/// A session that rows are being added to.
struct Open {
    start: i64,
    session: Session,
    end: i64,
    /// Where the session behind it begins.
    next: Option<i64>,
}

/// Sessions that an epoch takes and makes. One that is taken and made again as it was is neither.
#[derive(Debug, Default)]
pub struct Touched {
    taken: BTreeMap<At, Session>,
    made: BTreeMap<At, Session>,
}

impl Touched {
    /// The session, no more there, that `time` was in.
    pub fn before(&self, key: u32, time: i64) -> Option<(i64, Session)> {
        containing(&self.taken, key, time)
    }

    /// Sessions that were and sessions that are, where they have times in common: key, the former and the latter, each with its start.
    pub fn overlaps(&self) -> impl Iterator<Item = (u32, (i64, Session), (i64, Session))> {
        self.taken.iter().flat_map(move |((key, start), old)| {
            let first = containing(&self.made, *key, *start).map_or(*start, |(start, _)| start);
            let made = self.made.range((*key, first)..=(*key, old.last));
            made.map(move |((_, now), new)| (*key, (*start, *old), (*now, *new)))
        })
    }
}

fn containing(sessions: &BTreeMap<At, Session>, key: u32, time: i64) -> Option<(i64, Session)> {
    let (at, session) = sessions.range((key, i64::MIN)..=(key, time)).next_back()?;
    (time <= session.last).then_some((at.1, *session))
}

/// Bytes that an entry of a tree takes beside what it holds, about.
const ENTRY: usize = 8;

pub struct Spans {
    gap: Length,
    order: BTreeSet<Place>,
    sessions: BTreeMap<At, Session>,
    /// Where sessions close: time of the last row, key, start.
    closing: Option<BTreeSet<(i64, u32, i64)>>,
}

impl Spans {
    /// No rows. With `closes` they can be closed.
    pub fn new(gap: Length, closes: bool) -> Self {
        let closing = closes.then(BTreeSet::new);
        Spans { gap, order: BTreeSet::new(), sessions: BTreeMap::new(), closing }
    }

    /// The instant from which on a row belongs to another session, if `time` is the last of one.
    pub fn end(&self, time: i64) -> Result<i64> {
        let end = self.gap.after(time);
        end.ok_or_else(|| Error::user("out-of-range", "Function 'session': an instant is out of range"))
    }

    /// Rows of one key that were not there, in the order of time.
    pub fn insert(&mut self, key: u32, rows: impl Iterator<Item = (i64, u32)>, touched: &mut Touched) -> Result<()> {
        // The session that rows are added to. It is put back when they have passed it.
        let mut open: Option<Open> = None;
        for (time, id) in rows {
            self.order.insert((key, time, id));
            let own = Session { last: time, bearer: id };
            let own_end = self.end(time)?;
            let mut session = match open.take() {
                Some(session) if time < session.end => session,
                passed => {
                    if let Some(passed) = passed {
                        self.put(key, passed.start, passed.session, touched);
                    }
                    let before = self.sessions.range((key, i64::MIN)..=(key, time)).next_back();
                    let before = before.map(|((_, start), session)| (*start, *session));
                    if before.is_some_and(|(_, session)| time <= session.last) {
                        continue;
                    }
                    let next = self.next(key, time);
                    match before {
                        Some((start, session)) if time < self.end(session.last)? => {
                            self.take(key, start, touched);
                            Open { start, session, end: own_end, next }
                        }
                        _ => Open { start: time, session: own, end: own_end, next },
                    }
                }
            };
            if time > session.session.last {
                (session.session, session.end) = (own, own_end);
            }
            while let Some(next) = session.next.filter(|next| *next < session.end)
                && let Some(joined) = self.take(key, next, touched)
            {
                session.session = joined;
                session.end = self.end(joined.last)?;
                session.next = self.next(key, next);
            }
            open = Some(session);
        }
        if let Some(Open { start, session, .. }) = open {
            self.put(key, start, session, touched);
        }
        Ok(())
    }

    /// Where the first session behind `time` begins.
    fn next(&self, key: u32, time: i64) -> Option<i64> {
        let behind = (Bound::Excluded((key, time)), Bound::Included((key, i64::MAX)));
        self.sessions.range(behind).next().map(|((_, start), _)| *start)
    }

    /// A row that was there.
    pub fn remove(&mut self, (key, time, id): Place, touched: &mut Touched) -> Result<()> {
        let lost = || Error::diverged("session: a row is retracted that is not there");
        if !self.order.remove(&(key, time, id)) {
            return Err(lost());
        }
        let (start, session) = self.at(key, time).ok_or_else(lost)?;
        if let Some((.., other)) = self.order.range((key, time, 0)..=(key, time, u32::MAX)).next().copied() {
            if session.bearer == id {
                self.take(key, start, touched);
                self.put(key, start, Session { bearer: other, ..session }, touched);
            }
            return Ok(());
        }
        let before = self.order.range((key, start, 0)..(key, time, 0)).next_back().copied();
        let behind = self.order.range((key, time, u32::MAX)..=(key, session.last, u32::MAX)).next().copied();
        if let (Some((_, before, _)), Some((_, behind, _))) = (before, behind)
            && behind < self.end(before)?
        {
            return Ok(());
        }
        self.take(key, start, touched);
        if let Some((_, last, bearer)) = before {
            self.put(key, start, Session { last, bearer }, touched);
        }
        if let Some((_, start, _)) = behind {
            self.put(key, start, session, touched);
        }
        Ok(())
    }

    /// Takes the sessions out that end until `clock`; their rows.
    pub fn close(&mut self, clock: i64, touched: &mut Touched) -> Result<Vec<Place>> {
        let mut gone = Vec::new();
        while let Some((last, key, start)) = self.closing.as_ref().and_then(BTreeSet::first).copied() {
            if self.end(last)? > clock {
                break;
            }
            self.take(key, start, touched);
            let first = gone.len();
            gone.extend(self.order.range((key, start, 0)..=(key, last, u32::MAX)).copied());
            gone[first..].iter().for_each(|place| {
                self.order.remove(place);
            });
        }
        Ok(gone)
    }

    /// The rows of sessions that have not ended at `clock`, in order.
    pub fn open(&self, clock: i64) -> Result<Vec<Place>> {
        let mut open = Vec::new();
        for ((key, start), session) in &self.sessions {
            if self.end(session.last)? > clock {
                open.extend(self.order.range((*key, *start, 0)..=(*key, session.last, u32::MAX)));
            }
        }
        Ok(open)
    }

    /// Keeps these rows alone, whole sessions: keys and rows by the ids they had and have now.
    pub fn keep(&mut self, keys: &HashMap<u32, u32>, rows: &HashMap<u32, u32>) {
        let place = |(key, time, id): Place| Some((*keys.get(&key)?, time, *rows.get(&id)?));
        self.order = std::mem::take(&mut self.order).into_iter().filter_map(place).collect();
        let kept = |((key, start), session): (At, Session)| {
            let session = Session { bearer: *rows.get(&session.bearer)?, ..session };
            Some(((*keys.get(&key)?, start), session))
        };
        self.sessions = std::mem::take(&mut self.sessions).into_iter().filter_map(kept).collect();
    }

    /// Start and last time of each session of a key.
    pub fn of(&self, key: u32) -> impl Iterator<Item = (i64, i64)> + '_ {
        let sessions = self.sessions.range((key, i64::MIN)..=(key, i64::MAX));
        sessions.map(|((_, start), session)| (*start, session.last))
    }

    /// Start and last time of each session, with its key.
    pub fn all(&self) -> impl Iterator<Item = (u32, (i64, i64))> + '_ {
        self.sessions.iter().map(|((key, start), session)| (*key, (*start, session.last)))
    }

    fn take(&mut self, key: u32, start: i64, touched: &mut Touched) -> Option<Session> {
        let session = self.sessions.remove(&(key, start))?;
        if let Some(closing) = &mut self.closing {
            closing.remove(&(session.last, key, start));
        }
        if touched.made.remove(&(key, start)).is_none() {
            touched.taken.insert((key, start), session);
        }
        Some(session)
    }

    fn put(&mut self, key: u32, start: i64, session: Session, touched: &mut Touched) {
        self.sessions.insert((key, start), session);
        if let Some(closing) = &mut self.closing {
            closing.insert((session.last, key, start));
        }
        if touched.taken.get(&(key, start)) == Some(&session) {
            touched.taken.remove(&(key, start));
        } else {
            touched.made.insert((key, start), session);
        }
    }

    /// The session that `time` is in, and its start.
    pub fn at(&self, key: u32, time: i64) -> Option<(i64, Session)> {
        containing(&self.sessions, key, time)
    }

    /// The rows of these times.
    pub fn rows(&self, key: u32, times: RangeInclusive<i64>) -> impl Iterator<Item = u32> + '_ {
        self.order.range((key, *times.start(), 0)..=(key, *times.end(), u32::MAX)).map(|(.., id)| *id)
    }

    /// Whether the key has rows.
    pub fn has(&self, key: u32) -> bool {
        self.sessions.range((key, i64::MIN)..=(key, i64::MAX)).next().is_some()
    }

    /// When the first session closes, µs; None where none does.
    pub fn next_end(&self) -> Result<Option<i64>> {
        self.closing.as_ref().and_then(BTreeSet::first).map(|(last, ..)| self.end(*last)).transpose()
    }

    /// When the last one does.
    pub fn last_end(&self) -> Result<Option<i64>> {
        self.closing.as_ref().and_then(BTreeSet::last).map(|(last, ..)| self.end(*last)).transpose()
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Writes rows and sessions.
    pub fn save(&self, out: &mut StateWriter) {
        out.words("session.keys", self.order.iter().map(|(key, ..)| *key));
        out.words("session.times", self.order.iter().map(|(_, time, _)| *time));
        out.words("session.rows", self.order.iter().map(|(.., id)| *id));
        out.words("session.of", self.sessions.keys().map(|(key, _)| *key));
        out.words("session.starts", self.sessions.keys().map(|(_, start)| *start));
        out.words("session.lasts", self.sessions.values().map(|session| session.last));
        // Which row it is was given out.
        out.words("session.bearers", self.sessions.values().map(|session| session.bearer));
    }

    /// Becomes what [`Spans::save`] wrote.
    pub fn restore(&mut self, from: &mut StateReader) -> Result<()> {
        let keys = from.words::<u32>("session.keys")?;
        let times = from.exactly::<i64>("session.times", keys.len())?;
        let ids = from.exactly::<u32>("session.rows", keys.len())?;
        self.order = keys.into_iter().zip(times).zip(ids).map(|((key, time), id)| (key, time, id)).collect();
        let of = from.words::<u32>("session.of")?;
        let starts = from.exactly::<i64>("session.starts", of.len())?;
        let lasts = from.exactly::<i64>("session.lasts", of.len())?;
        let bearers = from.exactly::<u32>("session.bearers", of.len())?;
        let sessions = lasts.into_iter().zip(bearers).map(|(last, bearer)| Session { last, bearer });
        self.sessions = of.into_iter().zip(starts).zip(sessions).collect();
        if let Some(closing) = &mut self.closing {
            *closing = self.sessions.iter().map(|((key, start), session)| (session.last, *key, *start)).collect();
        }
        Ok(())
    }

    /// Bytes on the heap, about.
    pub fn heap_size(&self) -> usize {
        let of_session = size_of::<(At, Session)>() + ENTRY;
        let closing = self.closing.as_ref().map_or(0, BTreeSet::len) * (size_of::<(i64, u32, i64)>() + ENTRY);
        self.order.len() * (size_of::<Place>() + ENTRY) + self.sessions.len() * of_session + closing
    }
}

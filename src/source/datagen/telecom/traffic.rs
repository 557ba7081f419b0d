//! The stream of records: both topics, merged on the virtual clock.
//!
//! Each topic has one stream of valid events (the base) and, drawn from random streams of their own, what is mixed into it:
//! repeated records, malformed ones, impossible dates. So the base is the same bytes whatever is mixed in, and silver
//! equals it exactly. Every random choice comes from a ChaCha stream named by seed, topic and purpose; nothing depends on
//! the clock of the machine or on who asks how fast. Memory is constant: repeats wait at most five virtual minutes.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::event::{Content, Event, Malformed, Party, Topic, spell};
use super::manifest::{Manifest, Recorder};
use super::names::{BODIES, CALL_STATUSES, DEVICES, SMS_STATUSES, UNKNOWN_DEVICE};
use super::options::Options;
use super::population::Population;
use super::quota::{Urn, apportion};
use super::schedule::Schedule;
use crate::error::Result;

/// Partitions per topic.
pub const PARTITIONS: i32 = 3;

/// Calls and messages, in percent of the events.
const MIX: [u64; 2] = [65, 35];

/// A repeated record follows its original by at most this, seconds.
const LATEST_REPEAT: i64 = 300;

/// One record, ready to be sent or written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratedRecord {
    pub topic: &'static str,
    /// 0, 1 or 2: from the key, so that a phone's records stay in order.
    pub partition: i32,
    /// The sender's number as the record spells it.
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    /// The broker timestamp: µs since 1970-01-01 UTC on the virtual clock. Ascends.
    pub timestamp_micros: i64,
    /// The slice it belongs to, from 1.
    pub slice: u32,
    pub kind: RecordKind,
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordKind {
    Base,
    Duplicate,
    Malformed(Malformed),
    ImpossibleDate,
}

/// The telecom traffic: an iterator over its records that keeps count of what it makes.
#[derive(Debug)]
pub struct Telecom {
    options: Options,
    population: Population,
    streams: [TopicStream; 2],
    recorder: Recorder,
}

impl Telecom {
    /// The traffic that `options` describe.
    pub fn new(options: Options) -> Result<Self> {
        options.check()?;
        let population = Population::new(&options);
        let streams = Topic::ALL.map(|topic| TopicStream::new(topic, &options));
        let recorder = Recorder::new(&options, &population);
        Ok(Telecom { options, population, streams, recorder })
    }

    /// The options it was made with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The users, sites and devices the traffic refers to.
    pub fn population(&self) -> &Population {
        &self.population
    }

    /// What was made so far, and what every table must hold once all of it has arrived. It counts all slices, also
    /// those that [`Options::slice`] leaves out, once the iterator has ended.
    pub fn manifest(&self) -> Manifest {
        self.recorder.manifest(&self.options, &self.population)
    }

    fn next_record(&mut self) -> Option<GeneratedRecord> {
        let [calls, messages] = &self.streams;
        let next = match (calls.peek(), messages.peek()) {
            (None, None) => return None,
            (Some(call), Some(message)) if message < call => 1,
            (None, Some(_)) => 1,
            _ => 0,
        };
        self.streams[next].next(&self.options, &self.population, &mut self.recorder)
    }
}

impl Iterator for Telecom {
    type Item = GeneratedRecord;

    fn next(&mut self) -> Option<GeneratedRecord> {
        loop {
            let record = self.next_record()?;
            if self.options.slice.is_none_or(|wanted| wanted == record.slice) {
                return Some(record);
            }
        }
    }
}

/// What is special about a base event. At most one thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Plain,
    SpelledSender,
    SpelledReceiver,
    UnknownPhone,
    UnknownSite,
    UnknownDevice,
}

impl Mark {
    const ALL: [Mark; 6] = [
        Mark::Plain,
        Mark::SpelledSender,
        Mark::SpelledReceiver,
        Mark::UnknownPhone,
        Mark::UnknownSite,
        Mark::UnknownDevice,
    ];
}

/// A repeated record that waits for its time.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Repeat {
    at: i64,
    n: u64,
    partition: i32,
    key: Vec<u8>,
    value: Vec<u8>,
    /// Digest of its row in silver: the staging table holds it twice.
    row: u64,
}

/// A schedule with its random stream and the next instant taken out.
#[derive(Debug)]
struct Clock {
    schedule: Schedule,
    rng: ChaCha8Rng,
    next: Option<i64>,
    /// Instants taken.
    taken: u64,
}

impl Clock {
    fn new(mut schedule: Schedule, mut rng: ChaCha8Rng) -> Self {
        let next = schedule.next(&mut rng);
        Clock { schedule, rng, next, taken: 0 }
    }

    /// The instant that `next` shows and its number, and moves on.
    fn take(&mut self) -> Option<(i64, u64)> {
        let taken = (self.next?, self.taken);
        self.next = self.schedule.next(&mut self.rng);
        self.taken += 1;
        Some(taken)
    }
}

/// One topic's records in order of time.
#[derive(Debug)]
struct TopicStream {
    topic: Topic,
    sid_shift: u64,
    base_count: u64,
    base: Clock,
    base_rng: ChaCha8Rng,
    marks: Urn,
    statuses: Urn,
    call_types: Urn,
    /// Kind 0: to one of the contacts.
    receivers: Urn,
    /// Kind 0: the sender is at home.
    places: Urn,
    spelled: u64,
    strangers: u64,
    malformed: Clock,
    malformed_rng: ChaCha8Rng,
    impossible: Clock,
    impossible_rng: ChaCha8Rng,
    /// Kind 1: this plain record is sent twice.
    repeats: Urn,
    repeat_rng: ChaCha8Rng,
    waiting: BinaryHeap<Reverse<Repeat>>,
}

/// The sources a topic's next record can come from, in the order in which they go at the same instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Base,
    Malformed,
    Impossible,
    Repeat,
}

impl TopicStream {
    fn new(topic: Topic, options: &Options) -> Self {
        let which = topic as usize;
        let share = |share: f64| apportion(options.quota(share), &MIX)[which];
        let rng = |purpose: u64| {
            let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
            // Stream 0 makes the population.
            rng.set_stream(1 + which as u64 * 16 + purpose);
            rng
        };
        let base_count = apportion(options.events, &MIX)[which];
        let spelled = apportion(share(options.spellings), &[1, 1]);
        let mut marks = vec![
            0,
            spelled[0],
            spelled[1],
            share(options.unknown_phones),
            share(options.unknown_sites),
            share(options.unknown_devices),
        ];
        // Rounding may overfill a tiny run by a few.
        let mut room = base_count;
        for mark in marks.iter_mut() {
            *mark = (*mark).min(room);
            room -= *mark;
        }
        marks[0] = room;
        let repeated = share(options.duplicates).min(marks[0]);
        let statuses = match topic {
            Topic::Calls => Urn::of_shares(base_count, &CALL_STATUSES.map(|s| s.1)),
            Topic::Messages => Urn::of_shares(base_count, &SMS_STATUSES.map(|s| s.1)),
        };
        let even = |n: u64| Schedule::even(n, options.start, options.days);
        TopicStream {
            topic,
            sid_shift: rng(0).random_range(0..SIDS),
            base_count,
            base: Clock::new(Schedule::daily(base_count, options.start, options.days), rng(1)),
            base_rng: rng(2),
            repeats: Urn::new(vec![marks[0] - repeated, repeated]),
            marks: Urn::new(marks),
            statuses,
            call_types: Urn::of_shares(base_count, &[95, 5]),
            receivers: Urn::of_shares(base_count, &[80, 20]),
            places: Urn::of_shares(base_count, &[75, 25]),
            spelled: 0,
            strangers: 0,
            malformed: Clock::new(even(share(options.malformed)), rng(3)),
            malformed_rng: rng(4),
            impossible: Clock::new(even(share(options.impossible_dates)), rng(5)),
            impossible_rng: rng(6),
            repeat_rng: rng(7),
            waiting: BinaryHeap::new(),
        }
    }

    /// When and where its next record comes from.
    fn peek(&self) -> Option<(i64, Origin)> {
        [
            (self.base.next, Origin::Base),
            (self.malformed.next, Origin::Malformed),
            (self.impossible.next, Origin::Impossible),
            (self.waiting.peek().map(|Reverse(repeat)| repeat.at), Origin::Repeat),
        ]
        .into_iter()
        .filter_map(|(at, origin)| Some((at?, origin)))
        .min()
    }

    fn next(&mut self, options: &Options, population: &Population, recorder: &mut Recorder) -> Option<GeneratedRecord> {
        let record = match self.peek()?.1 {
            Origin::Base => self.next_base(options, population, recorder)?,
            Origin::Malformed => self.next_malformed(population, recorder)?,
            Origin::Impossible => self.next_impossible(population, recorder)?,
            Origin::Repeat => self.next_repeat(recorder)?,
        };
        recorder.sent(self.topic, &record);
        Some(GeneratedRecord { slice: options.slice_of(record.timestamp_micros / 1_000_000), ..record })
    }

    fn next_base(
        &mut self,
        options: &Options,
        population: &Population,
        recorder: &mut Recorder,
    ) -> Option<GeneratedRecord> {
        let (instant, n) = self.base.take()?;
        let mark = Mark::ALL[self.marks.draw(&mut self.base_rng)];
        let shape = Shape {
            status: self.statuses.draw(&mut self.base_rng),
            call_type: self.call_types.draw(&mut self.base_rng),
            to_contact: self.receivers.draw(&mut self.base_rng) == 0,
            at_home: self.places.draw(&mut self.base_rng) == 0,
        };
        let sid = self.sid(n);
        let mut event = compose(self.topic, sid, instant, shape, population, &mut self.base_rng);
        match mark {
            Mark::Plain => {}
            Mark::SpelledSender | Mark::SpelledReceiver => {
                let party = if mark == Mark::SpelledSender { &mut event.from } else { &mut event.to };
                party.number = Cow::Owned(spell(&party.number, self.spelled));
                self.spelled += 1;
            }
            Mark::UnknownPhone => {
                // Numbers of calls and messages interleave, so that no stranger appears in both.
                let stranger = self.strangers * 2 + self.topic as u64;
                self.strangers += 1;
                let number = population.stranger(stranger);
                event.from.e164 = Cow::Owned(format!("+2{number}"));
                event.from.number = Cow::Owned(number);
                event.from.user = None;
                event.from.customer_id = 1001 + population.users.len() as u64 + stranger;
            }
            Mark::UnknownSite => {
                event.from.cell_site = Cow::Owned(format!("CELL{:05}", 90_000 + n % 10_000));
                event.from.site = None;
            }
            Mark::UnknownDevice => {
                event.from.imei = Cow::Owned(format!("{UNKNOWN_DEVICE}{}", &event.from.imei[8..]));
                event.from.device = None;
            }
        }
        let row = recorder.base(self.topic, &event, population);
        let record = self.record(instant, &event.from.number, event.json().into_bytes(), RecordKind::Base);
        if mark == Mark::Plain && self.repeats.draw(&mut self.repeat_rng) == 1 {
            let at = instant + self.repeat_rng.random_range(1..=LATEST_REPEAT);
            self.waiting.push(Reverse(Repeat {
                at: at.min(options.end() - 1),
                n,
                partition: record.partition,
                key: record.key.clone(),
                value: record.value.clone(),
                row,
            }));
        }
        Some(record)
    }

    fn next_malformed(&mut self, population: &Population, recorder: &mut Recorder) -> Option<GeneratedRecord> {
        let (instant, n) = self.malformed.take()?;
        let sid = self.sid(self.base_count + 2 * n);
        let event = compose(self.topic, sid, instant, Shape::USUAL, population, &mut self.malformed_rng);
        let kind = Malformed::ALL[(n % Malformed::ALL.len() as u64) as usize];
        let value = kind.spoil(&event, &mut self.malformed_rng);
        recorder.quarantined(self.topic, "parse_ok", &value);
        Some(self.record(instant, &event.from.number, value, RecordKind::Malformed(kind)))
    }

    fn next_impossible(&mut self, population: &Population, recorder: &mut Recorder) -> Option<GeneratedRecord> {
        let (instant, n) = self.impossible.take()?;
        let sid = self.sid(self.base_count + 2 * n + 1);
        let event = compose(self.topic, sid, instant, Shape::USUAL, population, &mut self.impossible_rng);
        let value = event.json_impossible(n).into_bytes();
        recorder.quarantined(self.topic, "event_time_present", &value);
        Some(self.record(instant, &event.from.number, value, RecordKind::ImpossibleDate))
    }

    fn next_repeat(&mut self, recorder: &mut Recorder) -> Option<GeneratedRecord> {
        let Reverse(repeat) = self.waiting.pop()?;
        recorder.repeated(self.topic, repeat.row);
        Some(GeneratedRecord {
            topic: self.topic.name(),
            partition: repeat.partition,
            key: repeat.key,
            value: repeat.value,
            timestamp_micros: repeat.at * 1_000_000,
            slice: 0,
            kind: RecordKind::Duplicate,
        })
    }

    fn record(&self, instant: i64, number: &str, value: Vec<u8>, kind: RecordKind) -> GeneratedRecord {
        let key = number.as_bytes().to_vec();
        let partition = (xxhash_rust::xxh3::xxh3_64(&key) % PARTITIONS as u64) as i32;
        GeneratedRecord {
            topic: self.topic.name(),
            partition,
            key,
            value,
            timestamp_micros: instant * 1_000_000,
            slice: 0,
            kind,
        }
    }

    /// The `n`-th id: an affine walk through all of them (the step is coprime to their number), so no two are equal.
    fn sid(&self, n: u64) -> String {
        let prefix = match self.topic {
            Topic::Calls => "CA",
            Topic::Messages => "SM",
        };
        let number = (u128::from(n) * u128::from(SID_STEP) + u128::from(self.sid_shift)) % u128::from(SIDS);
        format!("{prefix}{}", 100_000_000 + number)
    }
}

/// Ids run from 100,000,000 to 1,000,000,000.
const SIDS: u64 = 900_000_001;
const SID_STEP: u64 = 556_230_589;

/// What the urns decided about an event.
#[derive(Debug, Clone, Copy)]
struct Shape {
    status: usize,
    call_type: usize,
    to_contact: bool,
    at_home: bool,
}

impl Shape {
    /// For records that are never counted as events.
    const USUAL: Shape = Shape { status: 0, call_type: 0, to_contact: true, at_home: true };
}

/// An event between two known users.
fn compose<'a>(
    topic: Topic,
    sid: String,
    instant: i64,
    shape: Shape,
    population: &'a Population,
    rng: &mut ChaCha8Rng,
) -> Event<'a> {
    let sender = population.draw_active(rng);
    let receiver = match population.users[sender].contacts.as_slice() {
        contacts if shape.to_contact => contacts[rng.random_range(0..contacts.len())] as usize,
        _ => loop {
            let other = population.draw_active(rng);
            if other != sender {
                break other;
            }
        },
    };
    let from = party(population, sender, shape.at_home, rng);
    let to = party(population, receiver, true, rng);
    let (status, cents, content) = match topic {
        Topic::Calls => {
            let status = CALL_STATUSES[shape.status].0;
            let connected = matches!(status, "ringing" | "in-progress" | "completed");
            let seconds = if connected { duration(rng) } else { 0 };
            // 0.16 EGP a minute, to the nearest hundredth.
            let cents = (u64::from(seconds) * 16 + 30) / 60;
            (status, cents, Content::Call { seconds, call_type: ["Local", "International"][shape.call_type] })
        }
        Topic::Messages => {
            let status = SMS_STATUSES[shape.status].0;
            let cents = if matches!(status, "sent" | "delivered") { rng.random_range(50..=500) } else { 0 };
            let user = &population.users[sender];
            let body = BODIES[rng.random_range(0..BODIES.len())];
            let content = Content::Message {
                body,
                registration_text: &user.registration_text,
                registration_date: &user.registration_date,
            };
            (status, cents, content)
        }
    };
    Event { sid, instant, from, to, status, cents, content }
}

fn party<'a>(population: &'a Population, user: usize, at_home: bool, rng: &mut ChaCha8Rng) -> Party<'a> {
    let known = &population.users[user];
    let site = if at_home { known.home } else { rng.random_range(0..population.sites.len()) };
    Party {
        number: Cow::Borrowed(&known.phone),
        e164: Cow::Borrowed(&known.e164),
        user: Some(user),
        cell_site: Cow::Borrowed(&population.sites[site].cell_id),
        site: Some(site),
        imei: Cow::Borrowed(&known.imei),
        device: DEVICES.iter().position(|(code, ..)| known.imei.starts_with(code)),
        customer_id: known.customer_id,
        plan_type: known.plan_type,
    }
}

/// Seconds of a call: log-normal around three minutes, from one minute to one hour. The normal variate is a sum of twelve
/// uniform ones: whole-number arithmetic up to the last step, so that all platforms agree.
fn duration(rng: &mut ChaCha8Rng) -> u32 {
    let sum: u64 = (0..12).map(|_| u64::from(rng.random_range(0..1_000_000u32))).sum();
    let normal = (sum as f64 - 6_000_000.0) / 1_000_000.0;
    (180.0 * (0.85 * normal).exp()).round().clamp(60.0, 3600.0) as u32
}

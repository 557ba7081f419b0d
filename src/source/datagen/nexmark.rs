//! Nexmark's event stream, as Arrow batches: persons, auctions and bids of an online auction house.
//!
//! The schema, the proportions (1 person : 3 auctions : 46 bids in every 50 events) and the skew are those of the Nexmark generator of Apache
//! Beam and Flink: half of the bids go to the newest hot auction, three quarters of the bids come from a hot bidder and three quarters
//! of the auctions from a hot seller, channels are one of four names in nine of ten cases. Event n is a function of the seed and n alone, so any range can be made
//! again, in any order, and a range is the same however it is cut.

use arrow::array::{ArrayRef, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;

/// Events of each kind in [`EPOCH`] successive ones, in this order.
const PERSONS: u64 = 1;
const AUCTIONS: u64 = 3;
const EPOCH: u64 = 50;

/// Ids start here, so that none is mistaken for a count.
const FIRST_ID: i64 = 1000;
const FIRST_CATEGORY: i64 = 10;
const CATEGORIES: i64 = 5;

/// 2015-07-15 00:00:00 UTC, µs.
const START: i64 = 1_436_918_400_000_000;

/// Hot things are the newest multiple of this.
const HOT: i64 = 100;
/// How many of the newest persons and auctions are active.
const ACTIVE_PERSONS: i64 = 1000;
const IN_FLIGHT_AUCTIONS: i64 = 100;

const FIRST_NAMES: [&str; 11] =
    ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
const CITIES: [(&str, &str); 10] = [
    ("Phoenix", "AZ"),
    ("Los Angeles", "CA"),
    ("San Francisco", "CA"),
    ("Boise", "ID"),
    ("Portland", "OR"),
    ("Bend", "OR"),
    ("Redmond", "WA"),
    ("Seattle", "WA"),
    ("Kent", "WA"),
    ("Cheyenne", "WY"),
];
const CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];

/// What the stream is made by.
#[derive(Debug, Clone, Copy)]
pub struct Nexmark {
    pub seed: u64,
    /// Events in a second of event time. Flink's default is 10,000,000 (so that ten million events are one second); windows of ten seconds
    /// need fewer to show more than one result.
    pub rate: u64,
}

/// Which of the three streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Person,
    Auction,
    Bid,
}

impl Stream {
    pub const ALL: [Stream; 3] = [Stream::Person, Stream::Auction, Stream::Bid];

    pub fn name(self) -> &'static str {
        match self {
            Stream::Person => "person",
            Stream::Auction => "auction",
            Stream::Bid => "bid",
        }
    }

    /// (column, SQL type) in order.
    pub fn columns(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Stream::Person => &[
                ("id", "BIGINT"),
                ("name", "STRING"),
                ("email_address", "STRING"),
                ("credit_card", "STRING"),
                ("city", "STRING"),
                ("state", "STRING"),
                ("date_time", "TIMESTAMP"),
                ("extra", "STRING"),
            ],
            Stream::Auction => &[
                ("id", "BIGINT"),
                ("item_name", "STRING"),
                ("description", "STRING"),
                ("initial_bid", "BIGINT"),
                ("reserve", "BIGINT"),
                ("date_time", "TIMESTAMP"),
                ("expires", "TIMESTAMP"),
                ("seller", "BIGINT"),
                ("category", "BIGINT"),
                ("extra", "STRING"),
            ],
            Stream::Bid => &[
                ("auction", "BIGINT"),
                ("bidder", "BIGINT"),
                ("price", "BIGINT"),
                ("channel", "STRING"),
                ("url", "STRING"),
                ("date_time", "TIMESTAMP"),
                ("extra", "STRING"),
            ],
        }
    }

    /// The columns in stored types.
    pub fn schema(self) -> SchemaRef {
        let field = |(name, sql): &(&str, &str)| {
            let data_type = match *sql {
                "BIGINT" => DataType::Int64,
                "TIMESTAMP" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
                _ => DataType::Utf8,
            };
            Field::new(*name, data_type, true)
        };
        Arc::new(Schema::new(self.columns().iter().map(field).collect::<Vec<_>>()))
    }

    /// How many of the first `events` events are of this stream.
    pub fn count(self, events: u64) -> u64 {
        let (whole, rest) = (events / EPOCH, events % EPOCH);
        match self {
            Stream::Person => whole * PERSONS + rest.min(PERSONS),
            Stream::Auction => whole * AUCTIONS + rest.saturating_sub(PERSONS).min(AUCTIONS),
            Stream::Bid => whole * (EPOCH - PERSONS - AUCTIONS) + rest.saturating_sub(PERSONS + AUCTIONS),
        }
    }

    /// Which stream event `n` belongs to.
    fn of(n: u64) -> Stream {
        match n % EPOCH {
            0 => Stream::Person,
            1..=3 => Stream::Auction,
            _ => Stream::Bid,
        }
    }
}

/// The newest id of a kind after event `n`, counted from 0.
fn last_person(n: u64) -> i64 {
    (n / EPOCH * PERSONS) as i64
}

/// The same of auctions; −1 before the first.
fn last_auction(n: u64) -> i64 {
    (n / EPOCH * AUCTIONS + (n % EPOCH).min(AUCTIONS)) as i64 - 1
}

/// A price: the logarithm is uniform, from 100 to 100,000,000.
fn price(rng: &mut ChaCha8Rng) -> i64 {
    (10f64.powf(rng.random::<f64>() * 6.0) * 100.0).round() as i64
}

fn text(rng: &mut ChaCha8Rng, longest: usize, out: &mut String) {
    let length = rng.random_range(3..=longest.max(3));
    for _ in 0..length {
        out.push(if rng.random_ratio(1, 13) { ' ' } else { char::from(b'a' + rng.random_range(0..26u8)) });
    }
}

impl Nexmark {
    pub fn new(seed: u64) -> Self {
        Nexmark { seed, rate: 10_000 }
    }

    /// The rows of `stream` among events `events`.
    pub fn batch(&self, stream: Stream, events: Range<u64>) -> Result<RecordBatch> {
        let numbers = events.filter(|n| Stream::of(*n) == stream);
        let columns = match stream {
            Stream::Person => self.persons(numbers),
            Stream::Auction => self.auctions(numbers),
            Stream::Bid => self.bids(numbers),
        };
        Ok(RecordBatch::try_new(stream.schema(), columns)?)
    }

    /// µs since 1970 of event `n`.
    fn time(&self, n: u64) -> i64 {
        START + (n as i128 * 1_000_000 / i128::from(self.rate.max(1))) as i64
    }

    /// The dice of one event.
    fn rng(&self, n: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(n);
        rng
    }

    /// One of the active persons, some not yet there.
    fn person(n: u64, rng: &mut ChaCha8Rng) -> i64 {
        let last = last_person(n);
        let active = (last + 1).min(ACTIVE_PERSONS);
        last + 1 - active + rng.random_range(0..active)
    }

    fn persons(&self, numbers: impl Iterator<Item = u64>) -> Vec<ArrayRef> {
        let (mut id, mut time) = (Int64Builder::new(), times());
        let mut texts: [StringBuilder; 6] = Default::default();
        for n in numbers {
            let rng = &mut self.rng(n);
            let (first, last) = (
                FIRST_NAMES[rng.random_range(0..FIRST_NAMES.len())],
                LAST_NAMES[rng.random_range(0..LAST_NAMES.len())],
            );
            let (city, state) = CITIES[rng.random_range(0..CITIES.len())];
            let (mut mail, mut extra) = (String::new(), String::new());
            text(rng, 7, &mut mail);
            mail.push('@');
            text(rng, 5, &mut mail);
            mail.push_str(".com");
            let card: Vec<String> = (0..4).map(|_| format!("{:04}", rng.random_range(0..10_000))).collect();
            text(rng, 100, &mut extra);
            id.append_value(FIRST_ID + last_person(n));
            time.append_value(self.time(n));
            let values = [&format!("{first} {last}"), &mail.replace(' ', "_"), &card.join(" "), city, state, &extra];
            texts.iter_mut().zip(values).for_each(|(column, value)| column.append_value(value));
        }
        let [name, mail, card, city, state, extra] = texts.map(finish);
        vec![Arc::new(id.finish()), name, mail, card, city, state, Arc::new(time.finish()), extra]
    }

    fn auctions(&self, numbers: impl Iterator<Item = u64>) -> Vec<ArrayRef> {
        let mut numeric: [Int64Builder; 5] = Default::default();
        let mut texts: [StringBuilder; 3] = Default::default();
        let (mut time, mut expires) = (times(), times());
        for n in numbers {
            let rng = &mut self.rng(n);
            let (mut item, mut description, mut extra) = (String::new(), String::new(), String::new());
            text(rng, 20, &mut item);
            text(rng, 100, &mut description);
            text(rng, 100, &mut extra);
            let initial = price(rng);
            let hot = rng.random_ratio(3, 4);
            let seller = if hot { last_person(n) / HOT * HOT } else { Self::person(n, rng) };
            let category = FIRST_CATEGORY + rng.random_range(0..CATEGORIES);
            // As long as it takes until so many auctions more have been opened, about.
            let horizon = self.time(n + IN_FLIGHT_AUCTIONS as u64 * EPOCH / AUCTIONS) - self.time(n);
            let length = 1 + rng.random_range(0..(horizon * 2).max(1));
            time.append_value(self.time(n));
            expires.append_value(self.time(n) + length);
            let numbers = [FIRST_ID + last_auction(n), initial, initial + price(rng), FIRST_ID + seller, category];
            numeric.iter_mut().zip(numbers).for_each(|(column, value)| column.append_value(value));
            texts.iter_mut().zip([&item, &description, &extra]).for_each(|(column, value)| column.append_value(value));
        }
        let [id, initial, reserve, seller, category] = numeric.map(|mut n| Arc::new(n.finish()) as ArrayRef);
        let [item, description, extra] = texts.map(finish);
        let (time, expires) = (Arc::new(time.finish()), Arc::new(expires.finish()));
        vec![id, item, description, initial, reserve, time, expires, seller, category, extra]
    }

    fn bids(&self, numbers: impl Iterator<Item = u64>) -> Vec<ArrayRef> {
        let mut numeric: [Int64Builder; 3] = Default::default();
        let mut texts: [StringBuilder; 3] = Default::default();
        let mut time = times();
        let mut url = String::new();
        let mut extra = String::new();
        for n in numbers {
            let rng = &mut self.rng(n);
            let last = last_auction(n);
            let hot = rng.random_ratio(1, 2);
            let auction = if hot {
                last / HOT * HOT
            } else {
                let first = (last - IN_FLIGHT_AUCTIONS).max(0);
                rng.random_range(first..=last)
            };
            let hot = rng.random_ratio(3, 4);
            let bidder = if hot { (last_person(n) / HOT * HOT + 1).min(last_person(n)) } else { Self::person(n, rng) };
            url.clear();
            url.push_str("https://www.nexmark.com/");
            for _ in 0..3 {
                for _ in 0..rng.random_range(3..6) {
                    url.push(char::from(b'a' + rng.random_range(0..26u8)));
                }
                url.push('/');
            }
            url.push_str("item.htm?query=1");
            let channel = if rng.random_ratio(9, 10) {
                CHANNELS[rng.random_range(0..CHANNELS.len())].to_string()
            } else {
                let channel = rng.random_range(0..10_000u32);
                // Infallible: it is a String.
                let _ = write!(url, "&channel_id={}", channel.reverse_bits());
                format!("channel-{channel}")
            };
            extra.clear();
            text(rng, 100, &mut extra);
            let numbers = [FIRST_ID + auction, FIRST_ID + bidder, price(rng)];
            numeric.iter_mut().zip(numbers).for_each(|(column, value)| column.append_value(value));
            texts.iter_mut().zip([&channel, &url, &extra]).for_each(|(column, value)| column.append_value(value));
            time.append_value(self.time(n));
        }
        let [auction, bidder, price] = numeric.map(|mut n| Arc::new(n.finish()) as ArrayRef);
        let [channel, url, extra] = texts.map(finish);
        vec![auction, bidder, price, channel, url, Arc::new(time.finish()), extra]
    }
}

fn times() -> TimestampMicrosecondBuilder {
    TimestampMicrosecondBuilder::new().with_timezone("UTC")
}

fn finish(mut texts: StringBuilder) -> ArrayRef {
    Arc::new(texts.finish())
}

/// The side input of query 13: a value for each key below 10,000.
pub fn side_input() -> Result<RecordBatch> {
    let schema = Schema::new(vec![Field::new("key", DataType::Int64, true), Field::new("value", DataType::Utf8, true)]);
    let keys = arrow::array::Int64Array::from_iter_values(0..10_000);
    let values = arrow::array::StringArray::from_iter_values((0..10_000).map(|key| format!("{key}")));
    Ok(RecordBatch::try_new(Arc::new(schema), vec![Arc::new(keys), Arc::new(values)])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;

    #[test]
    fn a_stream_is_the_same_however_it_is_cut() {
        let nexmark = Nexmark::new(7);
        for stream in Stream::ALL {
            let whole = nexmark.batch(stream, 0..1_000).unwrap();
            let parts: Vec<_> = [0..333, 333..700, 700..1_000].map(|r| nexmark.batch(stream, r).unwrap()).into();
            assert_eq!(arrow::compute::concat_batches(&stream.schema(), &parts).unwrap(), whole);
            let expected = match stream {
                Stream::Person => 20,
                Stream::Auction => 60,
                Stream::Bid => 920,
            };
            assert_eq!(whole.num_rows(), expected);
            for (events, rows) in [(333, &parts[0])].into_iter().chain([(1_000, &whole)]) {
                assert_eq!(stream.count(events), rows.num_rows() as u64);
            }
            assert_ne!(Nexmark::new(8).batch(stream, 0..1_000).unwrap(), whole);
        }
    }

    #[test]
    fn bids_name_auctions_and_persons_that_are_there() {
        let nexmark = Nexmark::new(1);
        let ids = |stream: Stream| {
            let batch = nexmark.batch(stream, 0..20_000).unwrap();
            batch.column(0).as_primitive::<Int64Type>().values().to_vec()
        };
        let (persons, auctions) = (ids(Stream::Person), ids(Stream::Auction));
        assert_eq!(persons, (1000..1400).collect::<Vec<i64>>());
        assert_eq!(auctions, (1000..2200).collect::<Vec<i64>>());
        let bids = nexmark.batch(Stream::Bid, 0..20_000).unwrap();
        let column = |i: usize| bids.column(i).as_primitive::<Int64Type>().values();
        assert!(column(0).iter().all(|auction| auctions.contains(auction)));
        assert!(column(1).iter().all(|bidder| persons.contains(bidder)));
        // Half of the bids go to the hot auction of their time, a multiple of a hundred.
        let hot = column(0).iter().filter(|a| (**a - FIRST_ID) % HOT == 0).count() as f64 / bids.num_rows() as f64;
        assert!((0.48..0.54).contains(&hot), "{hot}");
    }
}

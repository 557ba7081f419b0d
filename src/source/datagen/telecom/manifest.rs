//! The generator's own record: what it made, and what every table must hold once all of it has arrived. Counted while
//! generating and never by SQL, so that a test compares two independent computations.

use chrono::{DateTime, Datelike};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

use super::digest::{TableDigest, md5_hex};
use super::event::{Content, Event, Malformed, Topic, decimal, timestamp_text};
use super::expected;
use super::options::Options;
use super::population::Population;
use super::traffic::{GeneratedRecord, PARTITIONS, RecordKind};

/// What the generator made. Written beside the files as `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub options: Options,
    /// By topic name.
    pub topics: BTreeMap<String, TopicManifest>,
    /// By table name: what each must hold once everything has arrived.
    pub tables: BTreeMap<String, TableManifest>,
    /// Events whose sender's phone, cell site and device are in no reference data.
    pub unknown: UnknownManifest,
    /// Distinct dates of events, ascending.
    pub event_dates: Vec<String>,
    /// Totals of each user of the reference data as sender, also of those without events.
    pub users: Vec<UserTotals>,
    /// The same per day, only where there is an event; by user as in `users`, then by date.
    pub user_daily: Vec<UserDayTotals>,
}

/// Counts of one topic.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TopicManifest {
    pub records: u64,
    pub base: u64,
    pub duplicates: u64,
    pub malformed: u64,
    pub malformed_kinds: BTreeMap<String, u64>,
    pub impossible_dates: u64,
    /// Records per partition.
    pub partitions: Vec<u64>,
    /// Sums over base events: seconds of calls, and amounts as decimal text.
    pub seconds: u64,
    pub amount: String,
}

/// Rows of one table, and their checksum.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TableManifest {
    pub rows: u64,
    /// The columns that the checksum covers, in its order.
    pub columns: Vec<String>,
    /// Sum over the rows of the first 60 bits of md5(row text), decimal; see [`TableDigest`].
    pub checksum: String,
    /// The same where the table is read from files, when that differs: files have no keys and timestamps, and an empty value
    /// is written `""`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from_files: Option<Checksum>,
}

/// A checksum over some columns.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Checksum {
    pub columns: Vec<String>,
    pub checksum: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownManifest {
    pub sender_id: u64,
    pub sender_site_id: u64,
    pub sender_device_id: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserTotals {
    pub user_id: String,
    /// E.164.
    pub phone_number: String,
    pub calls: u64,
    pub messages: u64,
    pub seconds: u64,
    pub amount: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserDayTotals {
    pub user_id: String,
    pub event_date: String,
    pub calls: u64,
    pub messages: u64,
    pub seconds: u64,
    pub amount: String,
}

impl TableManifest {
    pub(super) fn new(columns: &[&str], digest: TableDigest) -> Self {
        let columns = columns.iter().map(ToString::to_string).collect();
        TableManifest { rows: digest.rows, columns, checksum: digest.sum.to_string(), from_files: None }
    }

    fn with_files(mut self, columns: &[&str], digest: TableDigest) -> Self {
        let columns = columns.iter().map(ToString::to_string).collect();
        self.from_files = Some(Checksum { columns, checksum: digest.sum.to_string() });
        self
    }
}

/// What a user did on a day, or altogether.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub calls: u64,
    pub messages: u64,
    pub seconds: u64,
    pub cents: u64,
}

impl Totals {
    fn add(&mut self, other: &Totals) {
        self.calls += other.calls;
        self.messages += other.messages;
        self.seconds += other.seconds;
        self.cents += other.cents;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls + self.messages == 0
    }
}

/// Counts while the traffic is made.
#[derive(Debug)]
pub(super) struct Recorder {
    topics: [TopicCounts; 2],
    facts: TableDigest,
    unknown: UnknownManifest,
    /// Days since 1970-01-01.
    dates: BTreeSet<i32>,
    first_day: i32,
    days: usize,
    /// By user, then by day from `first_day`.
    user_days: Vec<Totals>,
}

#[derive(Debug, Default)]
struct TopicCounts {
    manifest: TopicManifest,
    malformed_kinds: [u64; 6],
    cents: u64,
    bronze: TableDigest,
    bronze_files: TableDigest,
    staged: TableDigest,
    silver: TableDigest,
    quarantine: TableDigest,
    quarantine_files: TableDigest,
}

/// What a file holds where the value is empty: a blank line would be no record.
pub const EMPTY_IN_FILES: &str = "\"\"";

const BRONZE: [&str; 5] = ["key", "timestamp", "topic", "partition", "raw_data"];
const QUARANTINE: [&str; 3] = ["entity", "reason", "raw_data"];

const CALLS: [&str; 20] = [
    "event_type",
    "sid",
    "event_timestamp",
    "sender_number",
    "sender_e164",
    "sender_imei",
    "sender_plan_type",
    "sender_cell_site",
    "sender_customer_id",
    "receiver_number",
    "receiver_e164",
    "receiver_imei",
    "receiver_plan_type",
    "receiver_cell_site",
    "receiver_customer_id",
    "call_duration_seconds",
    "call_type",
    "status",
    "amount",
    "currency",
];

const MESSAGES: [&str; 20] = {
    let mut columns = CALLS;
    columns[15] = "body";
    columns[16] = "registration_date";
    columns
};

const FACTS: [&str; 19] = [
    "event_id",
    "event_type",
    "event_timestamp",
    "sender_id",
    "receiver_id",
    "sender_site_id",
    "receiver_site_id",
    "sender_device_id",
    "receiver_device_id",
    "date_key",
    "time_key",
    "plan_sender",
    "receiver_plan",
    "call_duration_seconds",
    "call_type",
    "status",
    "currency",
    "reg_date",
    "amount",
];

impl Recorder {
    pub(super) fn new(options: &Options, population: &Population) -> Self {
        // A run that starts in the middle of a day touches one more.
        let days = options.days as usize + 1;
        Recorder {
            topics: Default::default(),
            facts: TableDigest::default(),
            unknown: UnknownManifest::default(),
            dates: BTreeSet::new(),
            first_day: day_of(options.start),
            days,
            user_days: vec![Totals::default(); population.users.len() * days],
        }
    }

    /// Any record, as it leaves.
    pub(super) fn sent(&mut self, topic: Topic, record: &GeneratedRecord) {
        let counts = &mut self.topics[topic as usize];
        let manifest = &mut counts.manifest;
        manifest.records += 1;
        manifest.partitions.resize(PARTITIONS as usize, 0);
        manifest.partitions[record.partition as usize] += 1;
        match record.kind {
            RecordKind::Base => manifest.base += 1,
            RecordKind::Duplicate => manifest.duplicates += 1,
            RecordKind::ImpossibleDate => manifest.impossible_dates += 1,
            RecordKind::Malformed(kind) => {
                manifest.malformed += 1;
                counts.malformed_kinds[kind as usize] += 1;
            }
        }
        let raw_data = std::str::from_utf8(&record.value).unwrap_or("");
        let key = std::str::from_utf8(&record.key).unwrap_or("");
        counts.bronze.add_columns(&[
            key,
            &timestamp_text(record.timestamp_micros / 1_000_000),
            record.topic,
            &record.partition.to_string(),
            raw_data,
        ]);
        counts.bronze_files.add_columns(&[in_files(&record.value, raw_data)]);
    }

    /// A record that silver never sees.
    pub(super) fn quarantined(&mut self, topic: Topic, reason: &str, value: &[u8]) {
        let counts = &mut self.topics[topic as usize];
        let raw_data = std::str::from_utf8(value).unwrap_or("");
        counts.quarantine.add_columns(&[topic.entity(), reason, raw_data]);
        counts.quarantine_files.add_columns(&[topic.entity(), reason, in_files(value, raw_data)]);
    }

    /// A record that staging sees again.
    pub(super) fn repeated(&mut self, topic: Topic, row: u64) {
        let staged = &mut self.topics[topic as usize].staged;
        staged.rows += 1;
        staged.sum += u128::from(row);
    }

    /// A base event. Returns the digest of its row.
    pub(super) fn base(&mut self, topic: Topic, event: &Event<'_>, population: &Population) -> u64 {
        let counts = &mut self.topics[topic as usize];
        let (from, to) = (&event.from, &event.to);
        let timestamp = timestamp_text(event.instant);
        let amount = decimal(event.cents);
        let customers = [from.customer_id.to_string(), to.customer_id.to_string()];
        let (event_type, seconds, special) = match &event.content {
            Content::Call { seconds, call_type } => ("call", *seconds, [seconds.to_string(), call_type.to_string()]),
            Content::Message { body, registration_date, .. } => {
                ("sms", 0, [body.to_string(), registration_date.to_string()])
            }
        };
        let row_before = counts.silver.sum;
        counts.silver.add_columns(&[
            event_type,
            &event.sid,
            &timestamp,
            &from.number,
            &from.e164,
            &from.imei,
            from.plan_type,
            &from.cell_site,
            &customers[0],
            &to.number,
            &to.e164,
            &to.imei,
            to.plan_type,
            &to.cell_site,
            &customers[1],
            &special[0],
            &special[1],
            event.status,
            &amount,
            "EGP",
        ]);
        let row = (counts.silver.sum - row_before) as u64;
        counts.staged.rows += 1;
        counts.staged.sum += u128::from(row);
        counts.manifest.seconds += u64::from(seconds);
        counts.cents += event.cents;

        let user = |index: Option<usize>| index.map_or("", |i| population.users[i].user_id.as_str());
        let site = |index: Option<usize>| index.map_or("", |i| population.sites[i].site_id.as_str());
        let device = |index: Option<usize>| index.map_or("", |i| population.tac_ids[i].as_str());
        let day = day_of(event.instant);
        let (call_seconds, call_type, reg_date) = match topic {
            Topic::Calls => (special[0].as_str(), special[1].as_str(), ""),
            Topic::Messages => ("", "", special[1].as_str()),
        };
        self.facts.add_columns(&[
            &md5_hex(format!("{event_type}{}", event.sid).as_bytes()),
            event_type,
            &timestamp,
            user(from.user),
            user(to.user),
            site(from.site),
            site(to.site),
            device(from.device),
            device(to.device),
            &date_key(day).to_string(),
            &(event.instant.rem_euclid(86_400) / 3600 * 100 + event.instant.rem_euclid(3600) / 60).to_string(),
            from.plan_type,
            to.plan_type,
            call_seconds,
            call_type,
            event.status,
            "EGP",
            reg_date,
            &amount,
        ]);
        self.unknown.sender_id += u64::from(from.user.is_none());
        self.unknown.sender_site_id += u64::from(from.site.is_none());
        self.unknown.sender_device_id += u64::from(from.device.is_none());
        self.dates.insert(day);
        if let Some(user) = from.user {
            let totals = &mut self.user_days[user * self.days + (day - self.first_day) as usize];
            totals.add(&Totals {
                calls: u64::from(topic == Topic::Calls),
                messages: u64::from(topic == Topic::Messages),
                seconds: u64::from(seconds),
                cents: event.cents,
            });
        }
        row
    }

    pub(super) fn manifest(&self, options: &Options, population: &Population) -> Manifest {
        let mut tables = expected::reference_tables(population);
        let mut topics = BTreeMap::new();
        let (mut quarantine, mut quarantine_files) = (TableDigest::default(), TableDigest::default());
        for topic in Topic::ALL {
            let counts = &self.topics[topic as usize];
            let mut manifest = counts.manifest.clone();
            manifest.amount = decimal(counts.cents);
            manifest.malformed_kinds = Malformed::ALL
                .into_iter()
                .map(|kind| (kind.name().to_string(), counts.malformed_kinds[kind as usize]))
                .collect();
            topics.insert(topic.name().to_string(), manifest);

            let columns = if topic == Topic::Calls { &CALLS } else { &MESSAGES };
            let entity = topic.entity();
            let bronze = TableManifest::new(&BRONZE, counts.bronze).with_files(&["raw_data"], counts.bronze_files);
            tables.insert(format!("bronze_{entity}"), bronze);
            tables.insert(format!("stg_{entity}"), TableManifest::new(columns, counts.staged));
            tables.insert(format!("silver_{entity}"), TableManifest::new(columns, counts.silver));
            quarantine.rows += counts.quarantine.rows;
            quarantine.sum += counts.quarantine.sum;
            quarantine_files.sum += counts.quarantine_files.sum;
        }
        let quarantine = TableManifest::new(&QUARANTINE, quarantine).with_files(&QUARANTINE, quarantine_files);
        tables.insert("silver_quarantine".into(), quarantine);
        tables.insert("fact_events".into(), TableManifest::new(&FACTS, self.facts));
        tables.insert("dim_date".into(), expected::dim_date(&self.dates));
        tables.insert("dim_time".into(), expected::dim_time());

        let mut users = Vec::with_capacity(population.users.len());
        let mut user_daily = Vec::new();
        for (user, by_day) in population.users.iter().zip(self.user_days.chunks(self.days)) {
            let mut all = Totals::default();
            for (day, totals) in by_day.iter().enumerate().filter(|(_, totals)| !totals.is_empty()) {
                all.add(totals);
                user_daily.push(UserDayTotals {
                    user_id: user.user_id.clone(),
                    event_date: date_text(self.first_day + day as i32),
                    calls: totals.calls,
                    messages: totals.messages,
                    seconds: totals.seconds,
                    amount: decimal(totals.cents),
                });
            }
            users.push(UserTotals {
                user_id: user.user_id.clone(),
                phone_number: user.e164.clone(),
                calls: all.calls,
                messages: all.messages,
                seconds: all.seconds,
                amount: decimal(all.cents),
            });
        }
        tables.insert("gold_user_daily".into(), expected::user_daily(&user_daily));
        tables.insert("gold_user_360".into(), expected::user_360(population, &users));
        Manifest {
            options: options.clone(),
            topics,
            tables,
            unknown: self.unknown.clone(),
            event_dates: self.dates.iter().map(|day| date_text(*day)).collect(),
            users,
            user_daily,
        }
    }
}

fn in_files<'a>(value: &[u8], raw_data: &'a str) -> &'a str {
    if value.is_empty() { EMPTY_IN_FILES } else { raw_data }
}

/// Days since 1970-01-01.
fn day_of(second: i64) -> i32 {
    second.div_euclid(86_400) as i32
}

/// The date that is `day` days after 1970-01-01.
pub(super) fn date_of(day: i32) -> chrono::NaiveDate {
    DateTime::from_timestamp(i64::from(day) * 86_400, 0).unwrap_or_default().date_naive()
}

/// `2026-01-07`.
pub(super) fn date_text(day: i32) -> String {
    date_of(day).format("%Y-%m-%d").to_string()
}

/// 20260107.
pub(super) fn date_key(day: i32) -> i32 {
    let date = date_of(day);
    date.year() * 10_000 + date.month() as i32 * 100 + date.day() as i32
}

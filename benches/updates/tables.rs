//! Tables whose rows are functions of their id, so that any of them can be taken back.

use arrow::array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use smelt::types::SignedBatch;
use std::ops::Range;
use std::sync::Arc;

use super::Failure;

/// Events of one user.
const PER_USER: u64 = 10;

#[derive(Clone, Copy)]
pub enum Table {
    Facts,
    Users,
    Cells,
    Devices,
    /// Amounts by user: one of seven.
    Ledger(&'static str),
}

pub const LEDGERS: [&str; 7] = ["calls", "messages", "sessions", "payments", "refunds", "visits", "tickets"];

impl Table {
    pub const ALL: [Table; 4] = [Table::Facts, Table::Users, Table::Cells, Table::Devices];

    pub fn name(self) -> &'static str {
        match self {
            Table::Facts => "facts",
            Table::Users => "users",
            Table::Cells => "cells",
            Table::Devices => "devices",
            Table::Ledger(name) => name,
        }
    }

    pub fn named(name: &str) -> Option<Table> {
        let ledgers = LEDGERS.iter().map(|name| Table::Ledger(name));
        Table::ALL.into_iter().chain(ledgers).find(|table| table.name() == name)
    }

    /// Names and SQL types.
    pub fn columns(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Table::Facts => &[
                ("event_id", "BIGINT"),
                ("phone", "STRING"),
                ("cell_id", "BIGINT"),
                ("device_id", "BIGINT"),
                ("ts", "TIMESTAMP"),
                ("amount", "DECIMAL(12,2)"),
                ("status", "STRING"),
            ],
            Table::Users => &[("user_id", "BIGINT"), ("phone", "STRING"), ("city", "STRING")],
            Table::Cells => &[("cell_id", "BIGINT"), ("region", "STRING")],
            Table::Devices => &[("device_id", "BIGINT"), ("maker", "STRING")],
            Table::Ledger(_) => &[("entry_id", "BIGINT"), ("user_id", "BIGINT"), ("amount", "DECIMAL(12,2)")],
        }
    }

    /// Whether it stays as it is.
    pub fn is_dimension(self) -> bool {
        !matches!(self, Table::Facts | Table::Ledger(_))
    }

    /// How many rows it has beside `rows` events, of `facts` tables together.
    pub fn size(self, rows: u64, facts: u64) -> u64 {
        match self {
            Table::Facts | Table::Ledger(_) => rows / facts,
            Table::Users => rows / PER_USER,
            Table::Cells | Table::Devices => 1_000,
        }
    }

    /// Rows 0 up to `size`.
    pub fn base(self, size: u64) -> Result<Vec<SignedBatch>, Failure> {
        self.part(size, 0..size)
    }

    /// Some of these rows.
    pub fn part(self, size: u64, rows: Range<u64>) -> Result<Vec<SignedBatch>, Failure> {
        let batch = |from: u64| {
            let ids: Vec<(u64, u64)> = (from..rows.end.min(from + 65_536)).map(|id| (id, 0)).collect();
            Ok(SignedBatch::inserts(self.rows(&ids, size)?))
        };
        rows.clone().step_by(65_536).map(batch).collect()
    }

    /// Change `number` of `changes`: two fifths of its signed rows are new, a fifth goes, a fifth takes the place of another. No row is changed twice.
    pub fn change(self, size: u64, signed: u64, number: u64, changes: u64) -> Result<Vec<SignedBatch>, Failure> {
        let part = signed / 5;
        let stride = size / (changes * part * 2).max(1);
        if stride == 0 {
            return Err(format!("{size} rows of {} are not enough for {changes} changes", self.name()).into());
        }
        let old: Vec<(u64, u64)> = (0..part * 2).map(|i| ((number * part * 2 + i) * stride, 0)).collect();
        let mut new: Vec<(u64, u64)> = (0..part * 2).map(|i| (size + number * part * 2 + i, 0)).collect();
        new.extend(old.iter().step_by(2).map(|(id, _)| (*id, 1)));
        Ok(vec![SignedBatch::retracts(self.rows(&old, size)?), SignedBatch::inserts(self.rows(&new, size)?)])
    }

    /// Rows by id and version, of a table that began with `size` of them.
    fn rows(self, ids: &[(u64, u64)], size: u64) -> Result<RecordBatch, Failure> {
        // Each ledger is one of seven tables of events.
        let events = if matches!(self, Table::Ledger(_)) { size * LEDGERS.len() as u64 } else { size };
        let users = (events / PER_USER).max(1);
        let integers = |of: &dyn Fn(u64) -> u64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(ids.iter().map(|(id, _)| of(*id) as i64)))
        };
        let texts = |of: &dyn Fn(u64) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(ids.iter().map(|(id, _)| of(*id))))
        };
        let amounts = || -> Result<ArrayRef, Failure> {
            let amount = |(id, version): &(u64, u64)| (mixed(*id) % 100_000 + version) as i128;
            let amounts = Decimal128Array::from_iter_values(ids.iter().map(amount));
            Ok(Arc::new(amounts.with_precision_and_scale(12, 2)?))
        };
        let columns: Vec<(&str, ArrayRef)> = match self {
            Table::Facts => {
                let times = ids.iter().map(|(id, _)| 1_700_000_000_000_000 + (mixed(*id) % 86_400_000_000) as i64);
                let times = TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC");
                vec![
                    ("event_id", integers(&|id| id)),
                    ("phone", texts(&|id| phone(mixed(id) % users))),
                    ("cell_id", integers(&|id| mixed(id) % 1_000)),
                    ("device_id", integers(&|id| mixed(id + 7) % 1_000)),
                    ("ts", Arc::new(times)),
                    ("amount", amounts()?),
                    ("status", texts(&|id| ["ok", "dropped", "busy"][(id % 3) as usize].to_string())),
                ]
            }
            Table::Users => vec![
                ("user_id", integers(&|id| id)),
                ("phone", texts(&phone)),
                ("city", texts(&|id| format!("city {}", id % 500))),
            ],
            Table::Cells => {
                vec![("cell_id", integers(&|id| id)), ("region", texts(&|id| format!("region {}", id % 20)))]
            }
            Table::Devices => {
                vec![("device_id", integers(&|id| id)), ("maker", texts(&|id| format!("maker {}", id % 50)))]
            }
            Table::Ledger(_) => vec![
                ("entry_id", integers(&|id| id)),
                ("user_id", integers(&|id| mixed(id) % users)),
                ("amount", amounts()?),
            ],
        };
        Ok(RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))?)
    }
}

fn phone(user: u64) -> String {
    format!("+4917{:09}", user)
}

/// A permutation without order (splitmix64).
fn mixed(id: u64) -> u64 {
    let mut z = id.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

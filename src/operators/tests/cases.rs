//! Cases of the engine's oracle: a query, and the changes of every epoch.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

use super::changes::{Change, Rows, change, make_valid, ordered_change, smaller};
use super::queries::Generator;
use super::shrink::{Shrink, without_runs};
use super::tables::TABLES;

/// µs.
const HOUR: i64 = 3_600_000_000;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Case {
    pub seed: u64,
    pub sql: String,
    /// Tables whose rows only come, and which the plan knows as such.
    pub append_only: Vec<String>,
    pub epochs: Vec<Epoch>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Epoch {
    pub changes: Vec<Change>,
    /// A new circuit takes over after it.
    pub restart: bool,
    /// A circuit with the stored state takes over after it.
    #[serde(default)]
    pub saved: bool,
    /// Where the clock stands in it, µs.
    #[serde(default)]
    pub clock: i64,
}

impl Case {
    /// A query whose rows come and go with the clock, which moves now and then.
    pub fn over_time(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x0071_3e00);
        let sql = Generator::new(&mut rng).timed().sql;
        let mut case = Self::of(seed, sql, &mut rng);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut clock = 1_700_000_000_000_000 - 2 * HOUR;
        for epoch in &mut case.epochs {
            clock += match rng.random_range(0..10) {
                0..3 => 0,
                3 => rng.random_range(0..30) * 24 * HOUR,
                4 => rng.random_range(0..HOUR),
                _ => rng.random_range(0..5) * HOUR,
            };
            epoch.clock = clock;
        }
        case
    }

    /// A query that reads something it names in several places.
    pub fn shared(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x5a7e_0000);
        let depth = rng.random_range(0..2);
        let sql = Generator::new(&mut rng).shared(depth).sql;
        Self::of(seed, sql, &mut rng)
    }

    /// A query over sessions.
    pub fn sessions(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x5e55_1000);
        let sql = Generator::new(&mut rng).sessions().sql;
        Self::of(seed, sql, &mut rng)
    }

    /// A query of window functions that go on from checkpoints.
    pub fn running(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x0a11_0000);
        let sql = Generator::new(&mut rng).running().sql;
        Self::of(seed, sql, &mut rng)
    }

    /// A chain of joins.
    pub fn chain(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xc4a1_0000);
        let sql = Generator::new(&mut rng).chain().sql;
        Self::of(seed, sql, &mut rng)
    }

    /// Subqueries over lists.
    pub fn over_lists(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x1157_0000);
        let sql = Generator::new(&mut rng).over_lists().sql;
        Self::of(seed, sql, &mut rng)
    }

    /// Correlated subqueries.
    pub fn correlated(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xc022);
        let sql = Generator::new(&mut rng).correlated().0.sql;
        Self::of(seed, sql, &mut rng)
    }

    pub fn random(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let depth = rng.random_range(0..3);
        let sql = Generator::new(&mut rng).query(depth).sql;
        Case::of(seed, sql, &mut rng)
    }

    /// The query `sql` under random changes of the tables it names.
    pub fn of(seed: u64, sql: String, rng: &mut ChaCha8Rng) -> Self {
        // Of its own, so that the seed means what it always meant.
        let mut chosen = ChaCha8Rng::seed_from_u64(seed ^ 0x0a99_e4d0);
        let grows = chosen.random_bool(0.3);
        let append_only: Vec<&str> =
            TABLES.iter().map(|t| t.name).filter(|_| grows && chosen.random_bool(0.7)).collect();
        Self::where_some_grow(seed, sql, append_only, rng)
    }

    /// A random query over tables of which none ever loses a row.
    pub fn growing(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x960e_0001);
        let depth = rng.random_range(0..2);
        let sql = Generator::new(&mut rng).query(depth).sql;
        Self::where_some_grow(seed, sql, TABLES.iter().map(|t| t.name).collect(), &mut rng)
    }

    fn where_some_grow(seed: u64, sql: String, append_only: Vec<&str>, rng: &mut ChaCha8Rng) -> Self {
        let mut rows: BTreeMap<&str, Rows> = BTreeMap::new();
        let mut epochs = Vec::new();
        for _ in 0..rng.random_range(20..24) {
            let mut epoch = Epoch { restart: rng.random_bool(0.15), ..Epoch::default() };
            // Of its own, so that the seed means what it always meant.
            epoch.saved = ChaCha8Rng::seed_from_u64(seed ^ (epochs.len() as u64 + 1) << 32).random_bool(0.4);
            for table in TABLES.iter().filter(|t| sql.contains(&format!("\"src\".\"{}\"", t.name))) {
                let rows = rows.entry(table.name).or_default();
                let new = match append_only.contains(&table.name) {
                    true => ordered_change(table, rows.clone(), true, rng),
                    false => change(table, rows.clone(), rng),
                };
                new.iter().for_each(|c| rows.apply(&c.row, c.weight));
                epoch.changes.extend(new);
            }
            epochs.push(epoch);
        }
        Case { seed, sql, append_only: append_only.into_iter().map(String::from).collect(), epochs }
    }

    /// As [`fmt::Display`] writes it.
    pub fn parse(script: &str) -> Self {
        let mut lines = script.lines();
        let (seed, sql, append_only) = serde_json::from_str(lines.next().unwrap()).unwrap();
        let mut epochs: Vec<Epoch> = Vec::new();
        for line in lines {
            match line.strip_prefix("epoch") {
                Some(rest) => epochs.push(Epoch {
                    restart: rest.contains("restart"),
                    saved: rest.contains("saved"),
                    clock: rest.split_once("clock ").map_or(0, |(_, c)| c.split(',').next().unwrap().parse().unwrap()),
                    ..Epoch::default()
                }),
                None => epochs.last_mut().unwrap().changes.push(serde_json::from_str(line).unwrap()),
            }
        }
        Case { seed, sql, append_only, epochs }
    }

    fn with_epochs(&self, epochs: Vec<Epoch>) -> Self {
        let mut case = Case { epochs, ..self.clone() };
        make_valid(case.epochs.iter_mut().map(|e| &mut e.changes));
        case
    }
}

impl Shrink for Case {
    fn smaller(&self) -> Vec<Self> {
        let mut all: Vec<Case> = without_runs(&self.epochs).into_iter().map(|e| self.with_epochs(e)).collect();
        for (i, epoch) in self.epochs.iter().enumerate() {
            let with = |epoch: Epoch| {
                let mut epochs = self.epochs.clone();
                epochs[i] = epoch;
                self.with_epochs(epochs)
            };
            if epoch.restart {
                all.push(with(Epoch { restart: false, ..epoch.clone() }));
            }
            if epoch.saved {
                all.push(with(Epoch { saved: false, ..epoch.clone() }));
            }
            all.extend(smaller(&epoch.changes).into_iter().map(|changes| with(Epoch { changes, ..epoch.clone() })));
        }
        all
    }
}

/// A script: seed, SQL and the append-only tables, then every epoch with its rows.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = |line: serde_json::Result<String>| line.map_err(|_| fmt::Error);
        writeln!(f, "{}", json(serde_json::to_string(&(self.seed, &self.sql, &self.append_only)))?)?;
        for epoch in &self.epochs {
            let (saved, restart) =
                (if epoch.saved { ", saved" } else { "" }, if epoch.restart { ", restart" } else { "" });
            let clock = if epoch.clock == 0 { String::new() } else { format!(", clock {}", epoch.clock) };
            writeln!(f, "epoch{saved}{restart}{clock}")?;
            for change in &epoch.changes {
                writeln!(f, "{}", json(serde_json::to_string(change))?)?;
            }
        }
        Ok(())
    }
}

//! Scenarios: a random project, and what happens to it. Pure data, so that a failing one can be made smaller and written down.

use crate::env::Fault;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

use super::files::Feed;
use crate::operators::tests::changes::{Change, Rows, make_valid, ordered_change, smaller, table};
use crate::operators::tests::queries::{Column, Generator, Readable};
use crate::operators::tests::shrink::{Shrink, without_runs};
use crate::operators::tests::tables::{Kind, TABLES, Value, row};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Scenario {
    pub seed: u64,
    /// Table `a` has a primary key.
    pub keyed: bool,
    /// For all models.
    pub deletion_vectors: Option<bool>,
    /// State is stored, and the history it needs kept for so many seconds.
    #[serde(default)]
    pub states: Option<u64>,
    /// The bronze tables with a time have a watermark, so many minutes behind.
    #[serde(default)]
    pub watermark: Option<u64>,
    /// Tables that another program has changed are repaired.
    #[serde(default)]
    pub repair: bool,
    #[serde(skip)]
    pub rounds: Vec<Round>,
}

/// From one start of the pipeline to its end.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Round {
    /// Models that are new or say something else from this round on.
    pub models: Vec<Written>,
    /// What happens to the lake before the start.
    pub upkeep: Vec<Upkeep>,
    /// Crash point at which this round ends, if it gets there.
    pub crash: Option<String>,
    /// State is stored after so many of this round's epochs; a driver does so at its end.
    #[serde(default)]
    pub keep: Option<usize>,
    /// Another program changes the table of this model while the driver runs, after so many epochs.
    #[serde(skip)]
    pub foreign: Option<(String, usize)>,
    /// What happens to stored state before the start.
    #[serde(default)]
    pub damage: Option<Damage>,
    /// Nobody waits for its end: models that must be computed anew are so beside their tables.
    #[serde(default)]
    pub live: bool,
    /// Run by the driver as one `smelt run` over all its epochs' files, with this many files per epoch.
    pub driver: Option<usize>,
    /// What becomes of the next puts of log entries; with a driver only.
    #[serde(skip)]
    pub faults: Vec<Fault>,
    #[serde(skip)]
    pub epochs: Vec<Vec<Change>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Upkeep {
    Optimize,
    /// Nothing is kept that the present does not need.
    Vacuum,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Damage {
    /// A bit of every object; so many of its bits come before it.
    Flip(u64),
    /// So many of its bytes are left.
    Cut(u64),
    /// All of it is gone.
    Delete,
    /// What was stored before the last round is there again.
    Older,
}

/// A model above the bronze ones.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Written {
    pub name: String,
    pub sql: String,
    pub kind: ModelKind,
    /// Predicate; whether violating rows are quarantined, or dropped.
    pub expectation: Option<(String, bool)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModelKind {
    View,
    /// A streaming table that joins events to dimensions as they are.
    Enriched,
    /// A streaming table that keeps the first event of each key; the key is its first column.
    First,
}

/// How table `name` is fed.
pub fn feed(name: &str, keyed: bool) -> Feed {
    match name {
        "c" | "e" => Feed::Appended,
        "a" if keyed => Feed::Keyed,
        _ => Feed::Signed,
    }
}

const CRASHES: [&str; 12] = [
    "after-upload",
    "after-upload:3",
    "after-uploads",
    "after-uploads:2",
    "before-log-put:4",
    "before-log-put:11",
    "after-log-put:7",
    "after-log-put:13",
    "after-log-put:16",
    "before-epochs-row:2",
    "before-state-put:2",
    "after-state-put",
];

struct Author<'a> {
    rng: &'a mut ChaCha8Rng,
    /// What models can read, bronze tables first.
    readable: Vec<Readable>,
    views: Vec<(Written, Vec<Column>)>,
}

impl Author<'_> {
    fn view(&mut self, name: &str, fact: usize) -> Written {
        let mut readable = self.readable.clone();
        readable.swap(0, fact);
        let depth = self.rng.random_range(0..2);
        let mut generator = Generator::over(readable, self.rng);
        let query = generator.query(depth);
        let expectation = generator.rng.random_bool(0.3).then(|| {
            let predicate = generator.predicate(&query.columns);
            (predicate, generator.rng.random_bool(0.6))
        });
        let written = Written { name: name.into(), sql: query.sql, kind: ModelKind::View, expectation };
        self.add(written.clone(), query.columns);
        written
    }

    /// A view over sources themselves; a keyed changelog is none that a view can read.
    fn over_sources(&mut self, name: &str, keyed: bool) -> Written {
        let sources = Readable::tables().into_iter().zip(&TABLES).filter(|(_, t)| feed(t.name, keyed) != Feed::Keyed);
        let mut readable: Vec<Readable> =
            sources.map(|(readable, t)| Readable::new("raw", t.name, readable.columns)).collect();
        // Sometimes beside a table.
        readable.extend(self.readable.choose(self.rng).cloned());
        let at = self.rng.random_range(0..readable.len());
        readable.swap(0, at);
        let depth = self.rng.random_range(0..2);
        let query = Generator::over(readable, self.rng).query(depth);
        let expectation = self.rng.random_bool(0.3).then(|| {
            let predicate = Generator::over(vec![], self.rng).predicate(&query.columns);
            (predicate, self.rng.random_bool(0.6))
        });
        let written = Written { name: name.into(), sql: query.sql, kind: ModelKind::View, expectation };
        self.add(written.clone(), query.columns);
        written
    }

    fn add(&mut self, written: Written, columns: Vec<Column>) {
        self.readable.push(Readable::new("m", &written.name, columns.clone()));
        self.views.push((written, columns));
    }

    fn enriched(&mut self) -> Written {
        let kind = |rng: &mut ChaCha8Rng| if rng.random_bool(0.6) { "left join" } else { "join" };
        let (first, second) = (kind(self.rng), kind(self.rng));
        let filter = ["", " where e.id > 2", " where e.s is not null"][self.rng.random_range(0..3)];
        let sql = format!(
            "select e.id, e.s, e.f, e.st, a.an, c.cv, c.m from stream \"src\".\"e\" as e \
             {first} \"src\".\"a\" as a on e.k1 = a.k1 {second} \"src\".\"c\" as c on e.s = c.s and c.cv > 1{filter}"
        );
        let columns = [
            ("id", Kind::Int),
            ("s", Kind::Text),
            ("f", Kind::Float),
            ("st", Kind::Struct),
            ("an", Kind::Text),
            ("cv", Kind::Int),
            ("m", Kind::Map),
        ];
        self.stream("enriched", sql, ModelKind::Enriched, &columns)
    }

    fn first(&mut self) -> Written {
        let order = ["id", "ts desc, id", "f desc nulls last", "k1 nulls first, ts"][self.rng.random_range(0..4)];
        let filter = ["", " where e.id > 1"][self.rng.random_range(0..2)];
        let sql = format!(
            "select s, id, k1, ts from (select e.*, row_number() over (partition by e.s order by {order}) as n \
             from stream \"src\".\"e\" as e{filter}) as x where n = 1"
        );
        let columns = [("s", Kind::Text), ("id", Kind::Int), ("k1", Kind::Int), ("ts", Kind::Time)];
        self.stream("first", sql, ModelKind::First, &columns)
    }

    fn stream(&mut self, name: &str, sql: String, kind: ModelKind, columns: &[(&str, Kind)]) -> Written {
        let written = Written { name: name.into(), sql, kind, expectation: None };
        self.add(written.clone(), columns.iter().map(|(n, k)| (n.to_string(), *k)).collect());
        written
    }

    /// Another query for a view. What others read keeps its columns.
    fn edit(&mut self) -> Option<Written> {
        let views: Vec<usize> = (0..self.views.len()).filter(|i| self.views[*i].0.kind == ModelKind::View).collect();
        let at = *views.choose(self.rng)?;
        let (old, columns) = self.views[at].clone();
        let read = self.views.iter().any(|(v, _)| v.sql.contains(&format!("\"m\".\"{}\"", old.name)));
        let list = columns.iter().map(|c| c.0.as_str()).collect::<Vec<_>>().join(", ");
        // Dead letters of a source that it does not read any more would stay.
        let over_sources = old.sql.contains("\"raw\".");
        let sql = if !read && !over_sources && self.rng.random_bool(0.6) {
            let readable = self.readable.iter().filter(|r| r.name != format!("\"m\".\"{}\"", old.name)).cloned();
            // Only what stands before it: the graph stays one.
            let readable = readable.take(TABLES.len() + at).collect();
            let query = Generator::over(readable, self.rng).query(1);
            self.views[at].1.clone_from(&query.columns);
            let name = format!("\"m\".\"{}\"", old.name);
            let readable = self.readable.iter_mut().find(|r| r.name == name);
            readable.into_iter().for_each(|r| r.columns.clone_from(&query.columns));
            query.sql
        } else {
            match self.rng.random_range(0..3) {
                0 => format!("select distinct {list} from ({}) as z", old.sql),
                1 => format!("select {list} from ({0}) as z union all select {list} from ({0}) as y", old.sql),
                _ => {
                    let predicate = Generator::over(vec![], self.rng).predicate(&columns);
                    format!("select {list} from ({}) as z where {predicate}", old.sql)
                }
            }
        };
        // Its expectation may name columns that are gone.
        let expectation =
            old.expectation.filter(|_| self.views[at].1.iter().map(|c| &c.0).eq(columns.iter().map(|c| &c.0)));
        let new = Written { sql, expectation, ..old };
        self.views[at].0 = new.clone();
        Some(new)
    }
}

/// Rows of the sources while a scenario is made up.
struct Sources {
    keyed: bool,
    rows: BTreeMap<&'static str, Rows>,
}

impl Sources {
    fn epoch(&mut self, rng: &mut ChaCha8Rng) -> Vec<Change> {
        let mut epoch = Vec::new();
        for table in &TABLES {
            let feed = feed(table.name, self.keyed);
            let mut changes = match feed {
                Feed::Keyed => upserts(rng),
                _ => {
                    let rows = self.rows.entry(table.name).or_default();
                    let changes = ordered_change(table, rows.clone(), feed == Feed::Appended, rng);
                    changes.iter().for_each(|c| rows.apply(&c.row, c.weight));
                    changes
                }
            };
            if rng.random_bool(0.05) {
                let bad = Change { table: table.name.into(), weight: 0, cut: false, row: vec![] };
                changes.insert(rng.random_range(0..=changes.len()), bad);
            }
            epoch.extend(changes);
        }
        epoch
    }
}

/// Upserts and deletes of table `a` by its first column.
fn upserts(rng: &mut ChaCha8Rng) -> Vec<Change> {
    (0..rng.random_range(0..8))
        .map(|_| {
            let mut row = row(table("a"), rng);
            row[0] = Value::Int(rng.random_range(0..8));
            let weight = if rng.random_bool(0.3) { -1 } else { 1 };
            Change { table: "a".into(), weight, cut: rng.random_bool(0.2), row }
        })
        .collect()
}

impl Scenario {
    pub fn random(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let deletion_vectors = [None, Some(true), Some(false)][rng.random_range(0..3)];
        let mut scenario = Scenario { seed, keyed: rng.random(), deletion_vectors, ..Scenario::default() };
        let always_one = rng.random_bool(0.3);
        let mut sources = Sources { keyed: scenario.keyed, rows: BTreeMap::new() };
        let mut author = Author { rng: &mut rng, readable: Readable::tables(), views: vec![] };
        let mut models = vec![];
        if author.rng.random_bool(0.4) {
            models.push(author.enriched());
        }
        if author.rng.random_bool(0.4) {
            models.push(author.first());
        }
        let streams = !author.views.is_empty();
        models.push(author.view("v1", 0));
        // The newest model, or the fact table: a view over a view.
        let above = author.readable.len() - 1;
        models.push(author.view("v2", above));
        // Views over sources, which the others do not know.
        let mut of_sources = ChaCha8Rng::seed_from_u64(seed ^ 1 << 48);
        let mut aside = Author { rng: &mut of_sources, readable: Readable::tables(), views: vec![] };
        models.push(aside.over_sources("s1", scenario.keyed));
        if aside.rng.random_bool(0.3) {
            models.push(aside.view("s2", TABLES.len()));
        }
        let count = author.rng.random_range(2..6);
        for number in 0..count {
            let mut round = Round { models: std::mem::take(&mut models), ..Round::default() };
            if number > 0 {
                Self::disturb(&mut round, &mut author, number, streams);
                if aside.rng.random_bool(0.3) {
                    round.models.extend(aside.edit());
                }
            }
            let epochs = if always_one { 1 } else { author.rng.random_range(0..4) };
            round.epochs = (0..epochs).map(|_| sources.epoch(author.rng)).collect();
            // A crash leaves a cut to recover from: the round after it has none.
            let crashed = scenario.rounds.last().is_some_and(|r: &Round| r.crash.is_some());
            scenario.states = match seed % 5 {
                0 => None,
                1 => Some(0),
                _ => Some(1 << 30),
            };
            let mut of_state = ChaCha8Rng::seed_from_u64(seed ^ (number as u64 + 1) << 32);
            round.keep = of_state.random_bool(0.7).then(|| of_state.random_range(0..4));
            round.live = ChaCha8Rng::seed_from_u64(seed ^ (number as u64 + 1) << 40).random_bool(0.4);
            if of_state.random_bool(0.25) {
                let at = of_state.random_range(0..1 << 20);
                round.damage =
                    Some([Damage::Flip(at), Damage::Cut(at), Damage::Delete, Damage::Older][at as usize % 4]);
            }
            if round.driver.is_none() && !crashed && number + 1 < count && author.rng.random_bool(0.4) {
                round.crash = CRASHES.choose(author.rng).map(|c| c.to_string());
            }
            scenario.rounds.push(round);
        }
        scenario
    }

    /// A random scenario with views over time buckets, which forget those behind the watermarks of the bronze tables.
    pub fn of_buckets(seed: u64) -> Self {
        let mut scenario = Self::random(seed);
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x00f0_63e7);
        scenario.watermark = Some(rng.random_range(0..300));
        let view = |i: usize| Written {
            name: format!("b{i}"),
            sql: Generator::over(Readable::tables(), &mut rng).bucketed().sql,
            kind: ModelKind::View,
            expectation: None,
        };
        let views: Vec<Written> = (0..3).map(view).collect();
        scenario.rounds[0].models.extend(views);
        scenario
    }

    /// These queries over the bronze tables as views of one project: loaded in two epochs, then through a start with stored state, a crash, a start
    /// after it, and one that has only the lake.
    pub fn of_queries(seed: u64, queries: &[String]) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let deletion_vectors = [None, Some(false)][rng.random_range(0..2)];
        let mut scenario = Scenario { seed, deletion_vectors, states: Some(1 << 30), ..Scenario::default() };
        let mut sources = Sources { keyed: false, rows: BTreeMap::new() };
        let view = |(i, sql): (usize, &String)| Written {
            name: format!("v{i}"),
            sql: sql.clone(),
            kind: ModelKind::View,
            expectation: None,
        };
        let mut models: Vec<Written> = queries.iter().enumerate().map(view).collect();
        for number in 0..4 {
            let mut round = Round { models: std::mem::take(&mut models), ..Round::default() };
            round.keep = (number != 2).then_some(1);
            round.crash = (number == 1).then(|| CRASHES.choose(&mut rng).map(|c| c.to_string())).flatten();
            round.damage = (number == 3).then_some(Damage::Delete);
            if number == 3 {
                round.upkeep = vec![Upkeep::Optimize, Upkeep::Vacuum];
            }
            round.epochs = (0..[2, 1, 1, 1][number]).map(|_| sources.epoch(&mut rng)).collect();
            scenario.rounds.push(round);
        }
        scenario
    }

    fn disturb(round: &mut Round, author: &mut Author, number: usize, streams: bool) {
        if author.rng.random_bool(0.3) {
            round.upkeep.push(Upkeep::Optimize);
        }
        if author.rng.random_bool(0.6) {
            round.upkeep.push(Upkeep::Vacuum);
        }
        if author.rng.random_bool(0.25) {
            round.models.extend(author.edit());
        }
        if author.rng.random_bool(0.2) {
            let fact = author.rng.random_range(0..author.readable.len());
            round.models.push(author.view(&format!("v{}", number + 2), fact));
        }
        if author.rng.random_bool(0.25) {
            // Which epoch's dimensions an event meets must be known.
            round.driver = Some(if streams { 1_000_000 } else { author.rng.random_range(1..4) });
        }
    }

    /// As [`fmt::Display`] writes it.
    pub fn parse(script: &str) -> Self {
        let mut lines = script.lines();
        let mut scenario: Scenario = serde_json::from_str(lines.next().unwrap()).unwrap();
        for line in lines {
            if let Some(round) = line.strip_prefix("round ") {
                scenario.rounds.push(serde_json::from_str(round).unwrap());
            } else if line == "epoch" {
                scenario.rounds.last_mut().unwrap().epochs.push(vec![]);
            } else {
                let epochs = &mut scenario.rounds.last_mut().unwrap().epochs;
                epochs.last_mut().unwrap().push(serde_json::from_str(line).unwrap());
            }
        }
        scenario
    }

    fn valid(mut self) -> Self {
        let keyed = self.keyed;
        // No row goes before it has come, within an epoch neither: each change is an instant of its own.
        let mut instants: Vec<(usize, usize, Vec<Change>)> = Vec::new();
        for (r, round) in self.rounds.iter_mut().enumerate() {
            for (e, epoch) in round.epochs.iter_mut().enumerate() {
                instants.extend(epoch.drain(..).map(|change| (r, e, vec![change])));
            }
        }
        let signed = |change: &Change| feed(&change.table, keyed) == Feed::Signed;
        make_valid(instants.iter_mut().filter(|(_, _, c)| signed(&c[0])).map(|(_, _, c)| c));
        for (r, e, changes) in instants {
            self.rounds[r].epochs[e].extend(changes);
        }
        for at in 1..self.rounds.len() {
            if self.rounds[at - 1].crash.is_some() {
                self.rounds[at].crash = None;
            }
        }
        self
    }

    /// Without the rounds that `keep` denies; their models move to the next one.
    fn keeping(&self, keep: &[usize]) -> Self {
        let mut rounds: Vec<Round> = Vec::new();
        let mut models: Vec<Written> = Vec::new();
        for (i, round) in self.rounds.iter().enumerate() {
            let newer = |old: &Written| !round.models.iter().any(|m| m.name == old.name);
            models.retain(newer);
            models.extend(round.models.iter().cloned());
            if keep.contains(&i) {
                rounds.push(Round { models: std::mem::take(&mut models), ..round.clone() });
            }
        }
        Scenario { rounds, ..self.clone() }.valid()
    }

    /// Without model `name`, if nothing reads it.
    fn without_model(&self, name: &str) -> Option<Self> {
        let read = format!("\"m\".\"{name}\"");
        let all = || self.rounds.iter().flat_map(|r| &r.models);
        if all().any(|m| m.sql.contains(&read)) {
            return None;
        }
        let mut scenario = self.clone();
        scenario.rounds.iter_mut().for_each(|r| r.models.retain(|m| m.name != name));
        Some(scenario)
    }

    fn with_round(&self, at: usize, change: impl FnOnce(&mut Round)) -> Self {
        let mut scenario = self.clone();
        change(&mut scenario.rounds[at]);
        scenario.valid()
    }
}

impl Shrink for Scenario {
    fn smaller(&self) -> Vec<Self> {
        let indices: Vec<usize> = (0..self.rounds.len()).collect();
        let mut all: Vec<Self> = without_runs(&indices).iter().map(|keep| self.keeping(keep)).collect();
        let names: std::collections::BTreeSet<&str> =
            self.rounds.iter().flat_map(|r| &r.models).map(|m| m.name.as_str()).collect();
        all.extend(names.into_iter().filter_map(|name| self.without_model(name)));
        for (at, round) in self.rounds.iter().enumerate() {
            if round.crash.is_some() {
                all.push(self.with_round(at, |r| r.crash = None));
            }
            if round.live {
                all.push(self.with_round(at, |r| r.live = false));
            }
            if round.keep.is_some() {
                all.push(self.with_round(at, |r| r.keep = None));
            }
            if round.damage.is_some() {
                all.push(self.with_round(at, |r| r.damage = None));
            }
            if round.driver.is_some() {
                all.push(self.with_round(at, |r| r.driver = None));
            }
            if round.models.iter().any(|m| m.expectation.is_some()) {
                all.push(self.with_round(at, |r| r.models.iter_mut().for_each(|m| m.expectation = None)));
            }
            for upkeep in without_runs(&round.upkeep) {
                all.push(self.with_round(at, |r| r.upkeep = upkeep));
            }
            for epochs in without_runs(&round.epochs) {
                all.push(self.with_round(at, |r| r.epochs = epochs));
            }
        }
        for (at, round) in self.rounds.iter().enumerate() {
            for (e, epoch) in round.epochs.iter().enumerate() {
                all.extend(smaller(epoch).into_iter().map(|c| self.with_round(at, |r| r.epochs[e] = c)));
            }
        }
        all
    }
}

/// A script: the project, then every round with its epochs' rows.
impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = |line: serde_json::Result<String>| line.map_err(|_| fmt::Error);
        writeln!(f, "{}", json(serde_json::to_string(self))?)?;
        for round in &self.rounds {
            writeln!(f, "round {}", json(serde_json::to_string(round))?)?;
            for epoch in &round.epochs {
                writeln!(f, "epoch")?;
                for change in epoch {
                    writeln!(f, "{}", json(serde_json::to_string(change))?)?;
                }
            }
        }
        Ok(())
    }
}

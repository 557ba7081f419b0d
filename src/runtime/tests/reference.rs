//! What the tables must hold: the same models once more, computed by stock DataFusion from what their inputs hold.

use arrow::array::RecordBatch;
use datafusion::catalog::{MemTable, TableProvider};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::files::Feed;
use super::scenario::{ModelKind, Written, feed};
use crate::error::Result;
use crate::operators::tests::changes::{Change, Rows, table};
use crate::operators::tests::contents::{Contents, Multiset, stock};
use crate::operators::tests::tables::{Row, batch};
use crate::plan::stored::to_stored;
use crate::plan::{Compilation, CompiledModel, Planner, Relation};

/// Rows by relation: a model's name, or a source table's behind `raw.`.
pub type Held = HashMap<String, Vec<RecordBatch>>;

/// What the sources have said so far.
#[derive(Debug, Clone, Default)]
pub struct Said {
    keyed: bool,
    rows: BTreeMap<String, Rows>,
    by_key: BTreeMap<String, Row>,
    /// Records that cannot be read, by table.
    pub bad: BTreeMap<String, usize>,
}

impl Said {
    pub fn new(keyed: bool) -> Self {
        Said { keyed, ..Said::default() }
    }

    pub fn hear(&mut self, changes: &[Change]) {
        for change in changes {
            match (feed(&change.table, self.keyed), change.weight) {
                (_, 0) => *self.bad.entry(change.table.clone()).or_default() += 1,
                (Feed::Keyed, 1..) => {
                    self.by_key.insert(format!("{:?}", change.row[0]), change.row.clone());
                }
                (Feed::Keyed, _) => {
                    self.by_key.remove(&format!("{:?}", change.row[0]));
                }
                (_, weight) => self.rows.entry(change.table.clone()).or_default().apply(&change.row, weight),
            }
        }
    }

    /// Rows of `name` in the schema of `input`.
    fn batch(&self, name: &str, schema: &arrow::datatypes::SchemaRef) -> RecordBatch {
        let none = Rows::default();
        let rows = match feed(name, self.keyed) {
            Feed::Keyed => self.by_key.values().collect(),
            _ => self.rows.get(name).unwrap_or(&none).all(),
        };
        batch(table(name), schema, &rows)
    }
}

/// A model's rows by stock DataFusion, from `held` and what the sources said; None where stock cannot.
async fn compute(planner: &Planner, model: &CompiledModel, held: &Held, said: &Said) -> Option<Vec<RecordBatch>> {
    let provider = |input: &crate::plan::Input| -> Arc<dyn TableProvider> {
        let rows = match &input.relation {
            Relation::Source(_, name) => vec![said.batch(name, &input.schema)],
            Relation::Model(name) => {
                let rows = held.get(name).map_or(&[][..], Vec::as_slice);
                rows.iter().map(|b| to_stored(b, &input.schema).unwrap()).collect()
            }
            other => panic!("{other}"),
        };
        Arc::new(MemTable::try_new(Arc::clone(&input.schema), vec![rows]).unwrap())
    };
    let providers: Vec<_> = model.inputs.iter().map(provider).collect();
    stock(planner, model, &providers, 0).await
}

/// The project without expectations; views are filtered by them in SQL.
pub struct Reference {
    planner: Planner,
    compilation: Compilation,
    /// Models above bronze, as the scenario has them now.
    written: BTreeMap<String, Written>,
}

/// Name of the model with the rows that `name`'s expectation takes out.
pub fn rejected(name: &str) -> String {
    format!("{name}__rejected")
}

/// The SQL of a view with its expectation applied, and of the rows it takes out.
pub fn filtered(written: &Written) -> (String, Option<String>) {
    match &written.expectation {
        None => (written.sql.clone(), None),
        Some((predicate, _)) => (
            format!("select * from ({}) as q where {predicate}", written.sql),
            Some(format!("select * from ({}) as q where not coalesce({predicate}, false)", written.sql)),
        ),
    }
}

impl Reference {
    pub fn new(planner: Planner, compilation: Compilation, written: BTreeMap<String, Written>) -> Self {
        Reference { planner, compilation, written }
    }

    fn model(&self, name: &str) -> &CompiledModel {
        self.compilation.models.iter().find(|m| m.model.name == name).unwrap()
    }

    pub fn contents(&self, name: &str) -> Contents {
        Contents::new(&self.model(name).schema)
    }

    pub fn kind(&self, name: &str) -> Option<ModelKind> {
        self.written.get(name).map(|w| w.kind)
    }

    /// Compares bronze tables with what the sources said, and views with their inputs. Streaming tables remember: see
    /// [`Memory`].
    pub async fn check(
        &self,
        held: &Held,
        rejects: &BTreeMap<String, u64>,
        said: Option<&Said>,
        waiting: &BTreeSet<String>,
    ) -> Result<(), String> {
        let nothing = Said::default();
        for model in &self.compilation.models {
            let name = model.model.name.as_str();
            if waiting.contains(name.strip_suffix("__rejected").unwrap_or(name)) {
                continue;
            }
            let reads_source = model.inputs.iter().any(|input| matches!(input.relation, Relation::Source(..)));
            if (reads_source && said.is_none()) || self.kind(name).is_some_and(|k| k != ModelKind::View) {
                continue;
            }
            let Some(rows) = compute(&self.planner, model, held, said.unwrap_or(&nothing)).await else { continue };
            if let Some(view) = name.strip_suffix("__rejected") {
                let expected: usize = rows.iter().map(RecordBatch::num_rows).sum();
                let found = rejects.get(view).copied();
                if found.is_some_and(|found| found != expected as u64) {
                    return Err(format!("{found:?} rows of {view} are in quarantine, not {expected}"));
                }
                continue;
            }
            let contents = Contents::new(&model.schema);
            let (got, expected) = (contents.of(&held[name]), contents.of(&rows));
            if got != expected {
                return Err(format!("{name}: {}", contents.difference(&got, &expected)));
            }
        }
        let Some(said) = said else { return Ok(()) };
        for model in self.compilation.models.iter().filter(|m| !m.model.name.ends_with("__rejected")) {
            let sources: BTreeSet<&str> = model
                .inputs
                .iter()
                .filter_map(|input| match &input.relation {
                    Relation::Source(_, name) => Some(name.as_str()),
                    _ => None,
                })
                .collect();
            let expected: usize = sources.iter().filter_map(|source| said.bad.get(*source)).sum();
            let name = &model.model.name;
            let found = rejects.get(&format!("{name} dead")).copied().unwrap_or(0);
            if found != expected as u64 {
                return Err(format!("{found} dead letters of {name}, not {expected}"));
            }
        }
        Ok(())
    }

    /// What a streaming table makes of `events`, against dimensions as `held` has them.
    async fn streamed(&self, name: &str, events: &[Change], held: &Held) -> Vec<RecordBatch> {
        let mut said = Said::default();
        said.hear(events);
        let mut held = held.clone();
        held.insert("e".into(), vec![said.batch("e", &self.model("e").schema)]);
        compute(&self.planner, self.model(name), &held, &said).await.unwrap()
    }

    /// All streaming tables of the scenario.
    pub fn streams(&self) -> Vec<String> {
        let streams = self.written.values().filter(|w| w.kind != ModelKind::View);
        streams.map(|w| w.name.clone()).collect()
    }
}

/// What a streaming table must hold: each event once, against the dimensions of its epoch; or the first event of each key.
#[derive(Default)]
pub struct Memory {
    rows: Multiset,
    keys: Multiset,
}

impl Memory {
    /// The rows after `events`, which met the dimensions in `held`.
    async fn after(&self, reference: &Reference, name: &str, events: &[Change], held: &Held) -> Memory {
        let contents = reference.contents(name);
        let model = reference.model(name);
        let key = Contents::new(&Arc::new(model.schema.project(&[0]).unwrap()));
        let mut next = Memory { rows: self.rows.clone(), keys: self.keys.clone() };
        for batch in reference.streamed(name, events, held).await {
            for i in 0..batch.num_rows() {
                let row = batch.slice(i, 1);
                let keys = key.of(&[row.project(&[0]).unwrap()]);
                let seen = keys.keys().all(|k| self.keys.contains_key(k));
                if reference.kind(name) == Some(ModelKind::First) && seen {
                    continue;
                }
                next.keys.extend(keys);
                contents.of(&[row]).into_iter().for_each(|(row, n)| *next.rows.entry(row).or_default() += n);
            }
        }
        next
    }

    /// Compares what the table holds with what it must after `events`, which met one of `dimensions`.
    pub async fn check(
        &mut self,
        reference: &Reference,
        name: &str,
        events: &[Change],
        dimensions: &[&Held],
        held: &Held,
    ) -> Result<(), String> {
        let contents = reference.contents(name);
        let got = contents.of(&held[name]);
        let mut difference = String::new();
        for dimensions in dimensions {
            let next = self.after(reference, name, events, dimensions).await;
            if next.rows == got {
                *self = next;
                return Ok(());
            }
            difference = contents.difference(&got, &next.rows);
        }
        Err(format!("{name}: {difference}"))
    }
}

//! The events as Arrow batches and as files, and the queries as compiled models over them.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use smelt::env::Env;
use smelt::plan::{CompiledModel, Relation};
use smelt::project::LoadOptions;
use smelt::source::datagen::nexmark::{Nexmark, Stream, side_input};
use smelt::types::{Catalog, SignedBatch};
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use super::files::Files;
use super::{Failure, Format};

/// Events of one batch; epochs are slices of them.
const BLOCK: u64 = 1_000_000;

pub struct Input {
    events: u64,
    /// By stream: the rows of each block.
    streams: Vec<(Stream, Vec<RecordBatch>)>,
    side: RecordBatch,
    /// The same rows, in other formats.
    files: Vec<Files>,
}

/// What a model is given in one epoch: batches by input.
pub type Epoch = Vec<Vec<SignedBatch>>;

/// No table but the project's own.
struct NoTables;

impl Catalog for NoTables {
    fn table_schema(&self, _: &str, _: &str) -> Option<SchemaRef> {
        None
    }
}

/// (name, SQL) of every query: `-- q1: what it is` begins each.
pub fn queries(text: &str) -> Vec<(String, String)> {
    let mut queries: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("-- q") {
            queries.push((format!("q{}", heading.split(':').next().unwrap_or_default()), String::new()));
        } else if let Some((_, sql)) = queries.last_mut() {
            sql.push_str(line);
            sql.push('\n');
        }
    }
    queries
}

/// The queries as views of a project over append-only files.
pub fn compile(queries: &[(String, String)]) -> Result<Vec<(String, Arc<CompiledModel>)>, Failure> {
    let dir = tempfile::tempdir()?;
    let mut sources =
        "version: 2\nsources:\n  - name: src\n    config: {connector: files, format: json}\n    tables:\n".to_string();
    let side: &[(&str, &str)] = &[("key", "BIGINT"), ("value", "STRING")];
    let tables = Stream::ALL.iter().map(|s| (s.name(), s.columns())).chain([("side_input", side)]);
    for (name, columns) in tables {
        let _ =
            writeln!(sources, "      - name: {name}\n        config: {{path: \"{name}/*.json\"}}\n        columns:");
        for (column, data_type) in columns {
            let _ = writeln!(sources, "          - {{name: {column}, data_type: {data_type}}}");
        }
    }
    let write = |path: &str, text: &str| -> Result<(), Failure> {
        let path = dir.path().join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        Ok(std::fs::write(path, text)?)
    };
    write("smelt.yml", "name: nexmark\ntarget: dev\ntargets:\n  dev: {lake: ./lake}\n")?;
    write("models/sources.yml", &sources)?;
    for (name, sql) in queries {
        let mut sql = sql.clone();
        for table in ["person", "auction", "bid", "side_input"] {
            sql = sql.replace(&format!("src.{table}"), &format!("{{{{ source('src', '{table}') }}}}"));
        }
        write(&format!("queries/{name}.sql"), &sql)?;
    }
    let first = |errors: Vec<smelt::error::Error>| -> Failure {
        errors.into_iter().next().map_or_else(|| "no error".into(), |e| format!("{e:?}").into())
    };
    let options = LoadOptions { dir: dir.path().to_path_buf(), ..LoadOptions::default() };
    let project = smelt::project::load(&options, &Env::real()).map_err(first)?;
    let compilation = smelt::plan::compile(&project, &NoTables, &smelt::plan::stopped()).map_err(first)?;
    queries
        .iter()
        .map(|(name, _)| {
            let model = compilation.models.iter().find(|m| m.model.name == *name).ok_or("a query is lost")?;
            Ok((name.clone(), Arc::clone(model)))
        })
        .collect()
}

impl Input {
    pub fn generate(seed: u64, events: u64, formats: &[Format]) -> Result<Self, Failure> {
        let nexmark = Nexmark::new(seed);
        let starts = (0..events).step_by(BLOCK as usize);
        let blocks = |stream: Stream| {
            starts
                .clone()
                .map(|start| nexmark.batch(stream, start..(start + BLOCK).min(events)))
                .collect::<Result<_, _>>()
        };
        let streams: Vec<(Stream, Vec<RecordBatch>)> =
            Stream::ALL.iter().map(|s| Ok((*s, blocks(*s)?))).collect::<Result<_, Failure>>()?;
        let mut files = Vec::new();
        for format in formats.iter().filter(|format| **format != Format::Arrow) {
            let written = Files::new(*format)?;
            for (stream, blocks) in &streams {
                blocks.iter().enumerate().try_for_each(|(block, rows)| written.write(*stream, block, rows))?;
            }
            files.push(written);
        }
        Ok(Input { events, streams, side: side_input()?, files })
    }

    /// How many times [`Input::epochs`] has to be asked.
    pub fn blocks(&self) -> usize {
        self.events.div_ceil(BLOCK) as usize
    }

    /// The stream that an input of a model is; None for the side input.
    fn stream(&self, relation: &Relation) -> Option<&(Stream, Vec<RecordBatch>)> {
        let Relation::Source(_, name) = relation else { return None };
        self.streams.iter().find(|(stream, _)| stream.name() == name)
    }

    /// The tables of a batch execution, in as many partitions as there are cores.
    pub fn providers(&self, model: &CompiledModel, cores: usize) -> Result<Vec<Arc<dyn TableProvider>>, Failure> {
        let mut providers: Vec<Arc<dyn TableProvider>> = Vec::new();
        for input in &model.inputs {
            let mut partitions = vec![Vec::new(); cores.max(1)];
            let blocks = self.stream(&input.relation).map_or(std::slice::from_ref(&self.side), |(_, blocks)| blocks);
            // In batches of the usual size.
            let slices = blocks.iter().flat_map(|block| {
                let starts = (0..block.num_rows()).step_by(8192);
                starts.map(|start| block.slice(start, 8192.min(block.num_rows() - start)))
            });
            slices.enumerate().for_each(|(i, slice)| partitions[i % cores.max(1)].push(slice));
            providers.push(Arc::new(MemTable::try_new(Arc::clone(&input.schema), partitions)?));
        }
        Ok(providers)
    }

    /// The inputs of a model in those epochs of `epoch` events that are in `block`, which ends the last of them. The side input comes with the very first.
    pub fn epochs(
        &self,
        model: &CompiledModel,
        format: Format,
        epoch: u64,
        block: usize,
    ) -> Result<Vec<Epoch>, Failure> {
        let start = block as u64 * BLOCK;
        let end = (start + BLOCK).min(self.events);
        let starts = (start..end).step_by(epoch.clamp(1, BLOCK) as usize);
        let mut epochs: Vec<Epoch> = starts.clone().map(|_| Vec::with_capacity(model.inputs.len())).collect();
        for input in &model.inputs {
            let Some((stream, blocks)) = self.stream(&input.relation) else {
                let side = |number: usize| (number == 0 && block == 0).then(|| SignedBatch::inserts(self.side.clone()));
                epochs.iter_mut().enumerate().for_each(|(i, inputs)| inputs.push(side(i).into_iter().collect()));
                continue;
            };
            let at = |n: u64| (stream.count(n.min(end)) - stream.count(start)) as usize;
            let parts: Vec<Range<usize>> = starts.clone().map(|from| at(from)..at(from + epoch)).collect();
            let rows: Vec<RecordBatch> = match self.files.iter().find(|files| files.format == format) {
                Some(files) => files.read(*stream, block, &parts)?,
                None => {
                    let rows = blocks.get(block).ok_or("a block is missing")?;
                    parts.iter().map(|part| rows.slice(part.start, part.len())).collect()
                }
            };
            for (inputs, rows) in epochs.iter_mut().zip(rows) {
                inputs.push(vec![SignedBatch::inserts(rows)]);
            }
        }
        Ok(epochs)
    }
}

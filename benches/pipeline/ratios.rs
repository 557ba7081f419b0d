//! Whether the pipeline has become slower: what a record costs in it, beside what the same record costs in libraries.
//!
//! CPU times say little without the machine they were measured on. Their ratio to the same run's reference says more: arrow-json reads the
//! records of `call_event` and parquet-rs writes the rows, on one thread. `ratios.json` holds those of the last time somebody looked.

use arrow::datatypes::{Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::{Map, Value};
use smelt::source::datagen::telecom::{Options as Traffic, Telecom, Topic};
use smelt::types::parse_sql_type;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::Failure;
use super::project::Sample;

/// Records of the reference.
const RECORDS: u64 = 60_000;
const ROUNDS: usize = 5;
const BATCH: usize = 8192;
/// What is a regression, and no longer the noise of a machine.
const TOLERATED: f64 = 1.3;

/// What was measured, by name.
#[derive(Default)]
pub struct Ratios {
    measured: Map<String, Value>,
}

impl Ratios {
    /// `cost` is `name`'s, in units of `reference`.
    pub fn note(&mut self, name: &str, cost: f64, reference: f64) {
        self.measured.insert(name.to_string(), Value::from((cost / reference * 1000.0).round() / 1000.0));
    }

    /// Prints the ratios beside the stored ones; an error where one has grown beyond what is tolerated. `save` stores them.
    pub fn compare(self, save: bool) -> Result<(), Failure> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/pipeline/ratios.json");
        if save {
            std::fs::write(&path, format!("{:#}\n", Value::Object(self.measured)))?;
            println!("stored in {}", path.display());
            return Ok(());
        }
        let stored: Map<String, Value> = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
        let mut slower = Vec::new();
        println!("\nin units of the reference          now   stored");
        for (name, now) in &self.measured {
            let (now, then) = (now.as_f64().unwrap_or(f64::NAN), stored.get(name).and_then(Value::as_f64));
            match then {
                None => println!("  {name:<28} {now:>7.3}      new"),
                Some(then) => {
                    println!("  {name:<28} {now:>7.3}  {then:>7.3}  {:+.0} %", (now / then - 1.0) * 100.0);
                    if now > then * TOLERATED {
                        slower.push(name.as_str());
                    }
                }
            }
        }
        if slower.is_empty() {
            return Ok(());
        }
        Err(format!("slower than before by more than {:.0} %: {}", (TOLERATED - 1.0) * 100.0, slower.join(", ")).into())
    }
}

/// Seconds a record takes in arrow-json and parquet-rs, on one thread: the quickest of some rounds.
pub fn reference(sample: &Sample) -> Result<f64, Failure> {
    let schema = schema(sample)?;
    let telecom = Telecom::new(Traffic { events: RECORDS, malformed: 0.0, ..Traffic::default() })?;
    let calls = telecom.filter(|record| record.topic == Topic::ALL[0].name());
    let records: Vec<Vec<u8>> = calls.map(|record| record.value).collect();
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        black_box(written(&records, &schema)?);
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(best / records.len() as f64)
}

fn written(records: &[Vec<u8>], schema: &SchemaRef) -> Result<Vec<u8>, Failure> {
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties))?;
    let mut decoder = arrow::json::ReaderBuilder::new(Arc::clone(schema)).with_batch_size(BATCH).build_decoder()?;
    for records in records.chunks(BATCH) {
        for record in records {
            decoder.decode(record)?;
        }
        if let Some(batch) = decoder.flush()? {
            writer.write(&batch)?;
        }
    }
    Ok(writer.into_inner()?)
}

/// The columns of `call_event`.
fn schema(sample: &Sample) -> Result<SchemaRef, Failure> {
    let (project, _) = sample.compile(&smelt::env::Env::real(), "none")?;
    let table =
        project.sources.iter().find(|s| s.name == Topic::ALL[0].name()).ok_or("the sample has lost a source")?;
    let fields = table.columns.iter().map(|column| -> Result<Field, Failure> {
        let written = column.data_type.as_deref().ok_or("a source's column has a type")?;
        Ok(Field::new(&column.name, parse_sql_type(written)?, true))
    });
    Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>, _>>()?)))
}

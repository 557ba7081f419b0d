//! What the changes of a model cost as commits of its table, against the files they touch.

use smelt::env::Env;
use smelt::lake::{CommitRequest, Lake, LakeOptions, Table, TableSpec};
use smelt::plan::CompiledModel;
use smelt::plan::stored::to_stored;
use smelt::types::SignedBatch;
use std::time::Instant;

use super::Failure;

/// A model's table in a lake of its own.
pub struct Committed {
    dir: tempfile::TempDir,
    name: String,
    table: Table,
    runtime: tokio::runtime::Runtime,
    /// ms, and files touched, by commit.
    times: Vec<(f64, usize)>,
}

impl Committed {
    /// The table with the rows of the fill. What was given out becomes rows as they are stored.
    pub fn new(name: &str, model: &CompiledModel, rows: &[SignedBatch]) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let dir = tempfile::tempdir()?;
        let lake = Lake::open(&Env::real(), &dir.path().display().to_string(), LakeOptions::default())?;
        let spec = TableSpec::new(std::sync::Arc::clone(&model.schema), true);
        let table = runtime.block_on(lake.create_table("gold", name, spec))?;
        let mut committed = Committed { dir, name: name.to_string(), table, runtime, times: Vec::new() };
        for part in rows {
            committed.stage(model, std::slice::from_ref(part))?;
        }
        committed.commit()?;
        Ok(committed)
    }

    fn stage(&mut self, model: &CompiledModel, rows: &[SignedBatch]) -> Result<(), Failure> {
        let stored = rows.iter().map(|b| Ok(b.with_rows(to_stored(&b.rows, &model.schema)?)));
        let stored = stored.collect::<Result<Vec<SignedBatch>, Failure>>()?;
        self.runtime.block_on(self.table.stage(&stored))?;
        Ok(())
    }

    fn commit(&mut self) -> Result<i64, Failure> {
        Ok(self.runtime.block_on(async {
            self.table.prepare().await?;
            self.table.commit(CommitRequest::default()).await
        })?)
    }

    /// One commit.
    pub fn change(&mut self, model: &CompiledModel, rows: &[SignedBatch]) -> Result<(), Failure> {
        let started = Instant::now();
        self.stage(model, rows)?;
        let version = self.commit()?;
        let milliseconds = started.elapsed().as_secs_f64() * 1e3;
        let entry = self.dir.path().join(format!("gold/{}/_delta_log/{version:020}.json", self.name));
        let entry = std::fs::read_to_string(entry)?;
        let touched = entry.lines().filter(|line| line.starts_with("{\"add\"")).count();
        self.times.push((milliseconds, touched));
        Ok(())
    }

    /// The first change finds out where all rows are.
    pub fn report(&self) {
        let Some(((first, _), rest)) = self.times.split_first() else { return };
        let mut rest = rest.to_vec();
        rest.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (median, touched) = rest.get(rest.len() / 2).copied().unwrap_or_default();
        println!(
            "    commits: {median:.1} ms (median), {touched} files written or marked, of {}; the first {first:.0} ms",
            self.table.committed_snapshot().file_count()
        );
    }
}

//! Where sources start: at the lowest position of their readers, on the cluster and topic the positions belong to.

use std::sync::Arc;

use super::feed::Feed;
use super::pipeline::{IDENTITY, Pipeline, Upstream, cell_name};
use super::positions::{INSTANCE, source_app, source_positions};
use super::replay::known_files;
use super::stages::Course;
use crate::error::{Error, Result};
use crate::lake::Lake;
use crate::project::{Connector, SourceTable, Start};
use crate::source::OpenContext;
use crate::types::{Ledger, PollLimit, Positions};

/// Rows a feed hands over at once: some ten megabytes, so that what waits for an epoch is bounded finely.
const POLL_ROWS: usize = 16_384;

impl Pipeline {
    /// Opens the sources that models at work read, at the lowest position of their readers, and starts their feeds.
    /// Returns what the sources warn of.
    pub(super) async fn start_sources(&mut self, bounded: bool, course: &mut Course<'_>) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        let limit = PollLimit {
            max_rows: self.project.target.epoch_max_rows.min(POLL_ROWS),
            max_files: self.project.target.epoch_max_files,
            wait: self.project.target.commit_interval.min(std::time::Duration::from_millis(200)),
        };
        for index in 0..self.sources.len() {
            let name = self.sources[index].name.clone();
            let readers: Vec<usize> = (0..self.nodes.len())
                .filter(|n| self.nodes[*n].runs() && self.nodes[*n].upstreams.contains(&Upstream::Source(index)))
                .collect();
            if readers.is_empty() {
                continue;
            }
            let context = |error: Error| error.context(format!("source {name}"));
            let reset: Vec<usize> = readers.iter().copied().filter(|r| self.is_reset(*r, &name)).collect();
            self.reset_positions(&reset, &name)?;
            self.settle_starts(index, &readers).await.map_err(context)?;
            let mut source = self.open_source(index).await.map_err(context)?;
            let from = self.lowest_positions(&readers, &name)?;
            source.open(&from, bounded).await.map_err(context)?;
            self.check_identity(&readers, &name, &source.identity())?;
            warnings.extend(source.warning().map(|text| format!("warning: source {name}: {text}")));
            let until = match (source.ends(), course.is_divided() && bounded) {
                (Some(ends), true) => Some(course.ends.entry(name).or_insert(ends).clone()),
                _ => None,
            };
            self.sources[index].feed = Some(Feed::start(source, limit, until));
            self.sources[index].taken = from;
        }
        Ok(warnings)
    }

    pub(super) async fn open_source(&self, index: usize) -> Result<Box<dyn crate::types::Source>> {
        self.open_with(index, ledger(&self.lake, &self.sources[index].table))
    }

    /// The same, to read again what is known: the source writes nothing, so it may be read beside its feed.
    pub(super) fn open_again(&self, index: usize) -> Result<Box<dyn crate::types::Source>> {
        self.open_with(index, known_files(&self.lake, &self.sources[index].table))
    }

    fn open_with(&self, index: usize, ledger: Option<Arc<dyn Ledger>>) -> Result<Box<dyn crate::types::Source>> {
        let table = &self.sources[index].table;
        let context = OpenContext {
            env: self.env.clone(),
            ledger,
            project: self.project.name.clone(),
            target: self.project.target.name.clone(),
        };
        crate::source::open(table, &context)
    }

    /// A reader without any position starts where the source says. Where that is not "at the beginning", it is settled and
    /// committed before the first read, so that a restart starts at the same place.
    async fn settle_starts(&mut self, index: usize, readers: &[usize]) -> Result<()> {
        let Connector::Kafka(kafka) = &self.sources[index].table.connector else { return Ok(()) };
        let reset = readers.iter().any(|r| self.is_reset(*r, &self.sources[index].name));
        if kafka.start == Start::Earliest && !reset {
            return Ok(());
        }
        let name = self.sources[index].name.clone();
        let fresh: Vec<usize> =
            readers.iter().copied().filter(|r| self.positions_of(*r, &name).is_ok_and(|p| p.is_empty())).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let mut source = self.open_source(index).await?;
        let starts = source.open(&Default::default(), true).await?;
        for reader in fresh {
            for (_, cell) in self.nodes[reader].cells() {
                let table = cell_name(cell)?;
                for (partition, next) in &starts {
                    cell.pending.insert(source_app(&table, &name, partition), *next);
                }
                let txns = vec![(INSTANCE.to_string(), self.instance)];
                cell.must_commit = true;
                cell.commit(txns, serde_json::Map::new(), self.env.now_micros()).await?;
                cell.settle();
            }
        }
        Ok(())
    }

    /// Whether `--reset-source` is still to be done for it.
    fn is_reset(&self, reader: usize, source: &str) -> bool {
        let is_begun = self.options.begun.contains(self.nodes[reader].name());
        !is_begun && self.options.reset_sources.iter().any(|s| s == source)
    }

    fn reset_positions(&mut self, readers: &[usize], source: &str) -> Result<()> {
        for reader in readers {
            for (_, cell) in self.nodes[*reader].cells() {
                let prefix = format!("smelt/{}/{source}/", cell_name(cell)?);
                cell.consumed.retain(|app, _| !app.starts_with(&prefix));
            }
        }
        Ok(())
    }

    fn positions_of(&self, reader: usize, source: &str) -> Result<Positions> {
        match &self.nodes[reader].main {
            Some(cell) => Ok(source_positions(&cell.consumed, &cell_name(cell)?, source)),
            None => Ok(Positions::new()),
        }
    }

    /// The lowest position of all readers, per partition that all of them have one for.
    fn lowest_positions(&self, readers: &[usize], source: &str) -> Result<Positions> {
        let mut lowest: Option<Positions> = None;
        for reader in readers {
            let positions = self.positions_of(*reader, source)?;
            lowest = Some(match lowest {
                None => positions,
                Some(mut lowest) => {
                    lowest.retain(|partition, next| match positions.get(partition) {
                        Some(other) => {
                            *next = (*next).min(*other);
                            true
                        }
                        None => false,
                    });
                    lowest
                }
            });
        }
        Ok(lowest.unwrap_or_default())
    }

    /// A cluster or topic that is not the one the positions belong to is an error: its offsets mean something else.
    fn check_identity(&mut self, readers: &[usize], source: &str, identity: &[(String, String)]) -> Result<()> {
        for reader in readers {
            let reset = self.is_reset(*reader, source);
            let Some(cell) = &mut self.nodes[*reader].main else { continue };
            for (key, value) in identity {
                let property = format!("{IDENTITY}{source}.{key}");
                let known = cell.table()?.properties().get(&property).cloned();
                match known {
                    Some(known) if known == *value => {}
                    Some(known) if !reset => {
                        return Err(Error::user(
                            "source-recreated",
                            format!(
                                "source {source}: {key} is {value}, but the positions in the lake belong to {known}: the topic or cluster was made anew"
                            ),
                        )
                        .with_hint(format!(
                            "to read the new one from its configured start and keep the rows already in the lake: --reset-source {source}"
                        )));
                    }
                    _ => {
                        cell.properties.insert(property, value.clone());
                    }
                }
            }
        }
        Ok(())
    }
}

/// Where the numbers of a source's files stand, if it has any.
pub(super) fn ledger(lake: &Lake, table: &SourceTable) -> Option<Arc<dyn Ledger>> {
    match &table.connector {
        Connector::Files(_) => Some(lake.ledger("_smelt", &format!("files__{}__{}", table.source, table.name))),
        _ => None,
    }
}

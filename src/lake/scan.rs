//! A snapshot as a DataFusion table: DataFusion's own Parquet source over the snapshot's files, with deletion vectors as
//! row selections, so that projection, row-group pruning and parallelism are stock.
//!
//! Pruning is right because our files carry no Parquet bounds for floats (they would leave NaN out).

use arrow::datatypes::{FieldRef, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{DataFusionError, Result, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetRowSelection;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use object_store::ObjectMeta;
use std::sync::Arc;

use super::partition;
use super::reader;
use super::snapshot::{SnapshotFile, TableSnapshot};

#[derive(Debug)]
pub(super) struct Provider {
    snapshot: Arc<TableSnapshot>,
}

impl Provider {
    pub(super) fn new(snapshot: Arc<TableSnapshot>) -> Self {
        Provider { snapshot }
    }

    /// Files of about equal bytes for each of `partitions` readers.
    fn groups(&self, files: Vec<PartitionedFile>, partitions: usize) -> Vec<FileGroup> {
        let count = partitions.clamp(1, files.len().max(1));
        let mut groups: Vec<(u64, Vec<PartitionedFile>)> = vec![(0, Vec::new()); count];
        for file in files {
            if let Some(least) = groups.iter_mut().min_by_key(|g| g.0) {
                least.0 += file.object_meta.size;
                least.1.push(file);
            }
        }
        groups.into_iter().map(|(_, files)| FileGroup::new(files)).collect()
    }

    async fn file(&self, file: &SnapshotFile, partition_fields: &[FieldRef]) -> Result<PartitionedFile> {
        let external = |e: crate::error::Error| DataFusionError::External(Box::new(e));
        let mut part = PartitionedFile::new_from_meta(ObjectMeta {
            location: file.file.location.clone(),
            last_modified: chrono::DateTime::from_timestamp_millis(file.file.modified).unwrap_or_default(),
            size: file.file.size,
            e_tag: None,
            version: None,
        });
        part.partition_values = partition_fields
            .iter()
            .map(|f| partition::scalar(&file.file.partition_values, f.name(), f.data_type()))
            .collect::<crate::error::Result<_>>()
            .map_err(external)?;
        if let Some(deleted) = file.deleted.rows(&self.snapshot.layout.store).await.map_err(external)?
            && !deleted.is_empty()
        {
            part = part.with_extension(ParquetRowSelection::new(reader::all_but(&deleted, file.file.rows)));
        }
        Ok(part)
    }
}

#[async_trait]
impl TableProvider for Provider {
    fn schema(&self) -> SchemaRef {
        self.snapshot.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// `Inexact`: the source prunes row groups, a filter above it decides.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let layout = &self.snapshot.layout;
        // The session may never have seen this lake.
        state.runtime_env().register_object_store(self.snapshot.url.as_ref(), Arc::clone(&layout.store.store));

        let file_schema = partition::file_schema(&layout.schema, &layout.partition_columns);
        let partition_fields = layout
            .partition_columns
            .iter()
            .map(|name| Ok(Arc::clone(&layout.schema.fields()[layout.schema.index_of(name)?])))
            .collect::<Result<Vec<FieldRef>>>()?;
        let table_schema =
            TableSchema::builder(file_schema).with_table_partition_cols(partition_fields.clone()).build();
        // The scan's own order is: columns of files, then partition columns.
        let wanted: Vec<usize> = match projection {
            Some(columns) => columns.clone(),
            None => (0..layout.schema.fields().len()).collect(),
        };
        let indices = wanted
            .iter()
            .map(|i| Ok(table_schema.table_schema().index_of(layout.schema.field(*i).name())?))
            .collect::<Result<Vec<usize>>>()?;

        let mut files = Vec::with_capacity(self.snapshot.files.len());
        for file in &self.snapshot.files {
            files.push(self.file(file, &partition_fields).await?);
        }
        let mut statistics = Statistics::new_unknown(table_schema.table_schema());
        statistics.num_rows = Precision::Exact(self.snapshot.row_count() as usize);
        let groups = self.groups(files, state.config().target_partitions());
        let source = ParquetSource::new(table_schema)
            .with_table_parquet_options(state.table_options().parquet.clone())
            // One extra fetch per file otherwise: footers of our files are small.
            .with_metadata_size_hint(64 * 1024);
        let config = FileScanConfigBuilder::new(self.snapshot.url.clone(), Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_limit(limit)
            .with_projection_indices(Some(indices))?
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

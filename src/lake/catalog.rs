//! A lake: the tables under one root, `<lake>/<schema>/<name>`, and smelt's own under `_smelt`.

use arrow::datatypes::SchemaRef;
use datafusion::execution::object_store::ObjectStoreUrl;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::sync::Semaphore;

use super::actions::{Commit, Format, Line, Metadata, Txn};
use super::docs::TableDocs;
use super::options::LakeOptions;
use super::partition;
use super::state::State;
use super::store::{Created, TableStore};
use super::table::{INSTANCE, Table};
use super::{commit, log, protocol, schema};
use crate::env::Env;
use crate::error::{Error, Result};

/// Directory of smelt's own tables and files.
pub const OWN: &str = "_smelt";

/// Handle to a lake; cheap to clone.
#[derive(Clone)]
pub struct Lake(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub env: Env,
    pub options: Arc<LakeOptions>,
    pub url: String,
    pub store: Arc<dyn ObjectStore>,
    pub root: Path,
    /// How DataFusion names the store: one name per lake, so that lakes never see each other's files.
    pub store_url: ObjectStoreUrl,
    /// The number this process has claimed; 0 while it has none.
    pub instance: AtomicI64,
    /// One compaction at a time: each has a file of the size that files should have in memory.
    pub compactions: Arc<Semaphore>,
}

/// What a new table is.
#[derive(Debug, Clone)]
pub struct TableSpec {
    pub schema: SchemaRef,
    pub partition_by: Vec<String>,
    pub properties: BTreeMap<String, String>,
    /// Whether retractions become deletion vectors.
    pub deletion_vectors: bool,
    /// What it says about itself.
    pub docs: TableDocs,
}

impl TableSpec {
    /// An unpartitioned table.
    pub fn new(schema: SchemaRef, deletion_vectors: bool) -> Self {
        TableSpec {
            schema,
            partition_by: Vec::new(),
            properties: BTreeMap::new(),
            deletion_vectors,
            docs: TableDocs::default(),
        }
    }
}

impl std::fmt::Debug for Lake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lake({})", self.0.url)
    }
}

impl Lake {
    /// The lake at `url`: an object-store URL or an absolute path. Reads and creates nothing.
    pub fn open(env: &Env, url: &str, options: LakeOptions) -> Result<Lake> {
        let (store, root) = env.object_store_with(url, options.fsync)?;
        let hash = xxhash_rust::xxh3::xxh3_128(format!("{url} {store}").as_bytes());
        let store_url = ObjectStoreUrl::parse(format!("smelt-lake://lake-{hash:032x}"))?;
        Ok(Lake(Arc::new(Inner {
            env: env.clone(),
            options: Arc::new(options),
            url: url.to_string(),
            store,
            root,
            store_url,
            instance: AtomicI64::new(0),
            compactions: Arc::new(Semaphore::new(1)),
        })))
    }

    /// As given to [`Lake::open`].
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// Where the table is, as other programs are told: `<url>/<schema>/<name>`.
    pub fn table_url(&self, schema: &str, name: &str) -> String {
        format!("{}/{schema}/{name}", self.0.url.trim_end_matches('/'))
    }

    /// How it is written.
    pub fn options(&self) -> &LakeOptions {
        &self.0.options
    }

    /// The number this process has claimed.
    pub fn instance(&self) -> Option<i64> {
        Some(self.0.instance.load(Ordering::Relaxed)).filter(|n| *n > 0)
    }

    pub(super) fn store_at(&self, relative: &str) -> Result<TableStore> {
        let lake = TableStore { store: Arc::clone(&self.0.store), root: self.0.root.clone() };
        Ok(TableStore { root: lake.path(relative)?, ..lake })
    }

    pub(super) fn table_of(&self, path: &str, name: String, state: State) -> Result<Table> {
        Table::new(
            self.0.env.clone(),
            Arc::clone(&self.0.options),
            name,
            self.store_at(path)?,
            self.0.store_url.clone(),
            state,
            Arc::clone(&self.0.compactions),
        )
    }

    /// A small object below the lake's own folder, written over.
    pub async fn put_own(&self, name: &str, content: Vec<u8>) -> Result<()> {
        self.store_at(OWN)?.put(name, content).await
    }

    /// What [`Lake::put_own`] wrote.
    pub async fn get_own(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.store_at(OWN)?.try_get(name).await?.map(Vec::from))
    }

    /// The table at its newest version, if there is one. Lists and reads its log.
    pub async fn table(&self, schema: &str, name: &str) -> Result<Option<Table>> {
        let (path, title) = names(schema, name);
        let found = log::load(&self.store_at(&path)?, &title).await?;
        found.map(|state| self.table_of(&path, title, state)).transpose()
    }

    /// Creates a table as version 0. Fails when there is one.
    pub async fn create_table(&self, schema: &str, name: &str, spec: TableSpec) -> Result<Table> {
        let env = &self.0.env;
        let (path, title) = names(schema, name);
        let mut configuration = spec.properties;
        configuration.extend(self.0.options.retention_properties().map(|(key, value)| (key.to_string(), value)));
        if spec.deletion_vectors {
            configuration.insert(protocol::ENABLE_VECTORS.to_string(), "true".to_string());
        }
        let mut metadata = Metadata {
            id: env.new_uuid().to_string(),
            name: Some(name.to_string()),
            description: None,
            format: Format { provider: "parquet".to_string(), options: BTreeMap::new() },
            schema_string: schema::to_delta(&spec.schema).map_err(|e| e.context(format!("creating `{title}`")))?,
            partition_columns: spec.partition_by,
            configuration,
            created_time: Some(env.now_millis()),
        };
        spec.docs.apply(&mut metadata);
        let columns = schema::from_delta(&metadata.schema_string)?;
        for column in &metadata.partition_columns {
            let field = columns.field_with_name(column).map_err(|_| {
                let names = columns.fields().iter().map(|f| f.name().as_str());
                let error = Error::user("bad-partition", format!("`{title}` has no column `{column}` to partition by"));
                match crate::error::did_you_mean(column, names) {
                    Some(near) => error.with_hint(format!("did you mean `{near}`?")),
                    None => error,
                }
            })?;
            partition::check_type(column, field.data_type())?;
        }
        let ntz = columns.fields().iter().any(|f| schema::has_timestamp_ntz(f.data_type()));
        let protocol = protocol::of_new_table(spec.deletion_vectors, ntz);
        let payload = env.new_uuid().to_string();
        let info = commit::commit_info(env.now_millis(), "CREATE TABLE", &payload, Default::default(), true);
        let mut lines = vec![info, Line::from(protocol.clone()), Line::from(metadata.clone())];
        let mut state = State::new(0, protocol, metadata)?;
        if let Some(number) = self.instance() {
            let txn = Txn { app_id: INSTANCE.to_string(), version: number, last_updated: Some(env.now_millis()) };
            state.set_txn(&txn);
            lines.push(Line::from(txn));
        }
        env.crash_point("table-created-before-log")?;
        let store = self.store_at(&path)?;
        let bytes: bytes::Bytes = Commit(lines).to_bytes()?.into();
        self.create_entry(&store, &title, &payload, bytes).await?;
        self.table_of(&path, title, state)
    }

    async fn create_entry(&self, store: &TableStore, title: &str, payload: &str, bytes: bytes::Bytes) -> Result<()> {
        let entry = TableStore::log_path(0);
        let mut attempt = 0;
        loop {
            let cause = match store.create(&entry, bytes.clone()).await? {
                Created::Yes => return Ok(()),
                Created::Exists => None,
                Created::Unknown(e) => Some(e),
            };
            match store.try_get(&entry).await {
                Ok(Some(found)) if Commit::parse(&found, &entry)?.payload() == Some(payload) => return Ok(()),
                Ok(Some(_)) => {
                    return Err(Error::environment("table-exists", format!("the table `{title}` exists already")));
                }
                _ => {}
            }
            if attempt == self.0.options.put_retries {
                let cause = cause.unwrap_or_else(|| Error::environment("object-store", "version 0 cannot be read"));
                return Err(cause.context(format!("creating `{title}`")));
            }
            attempt += 1;
            tokio::time::sleep(std::time::Duration::from_millis(20 << attempt)).await;
        }
    }

    /// `(schema, name)` of every table, smelt's own left out.
    pub async fn tables(&self) -> Result<Vec<(String, String)>> {
        let mut found = Vec::new();
        for schema in self.directories(&self.0.root).await? {
            for name in self.directories(&self.store_at(&schema)?.root).await? {
                let log = self.store_at(&format!("{schema}/{name}/_delta_log"))?;
                let listed = log.store.list_with_delimiter(Some(&log.root)).await?;
                if listed.objects.iter().any(|o| o.location.filename().is_some_and(|n| log::parse_name(n).is_some())) {
                    found.push((schema.clone(), name));
                }
            }
        }
        Ok(found)
    }

    async fn directories(&self, path: &Path) -> Result<Vec<String>> {
        let listed = match self.0.store.list_with_delimiter(Some(path)).await {
            Ok(listed) => listed,
            Err(object_store::Error::NotFound { .. }) => return Ok(Vec::new()),
            Err(e) => return Err(e.into()),
        };
        let names = listed.common_prefixes.iter().filter_map(|p| p.filename().map(str::to_string));
        Ok(names.filter(|n| !n.starts_with(['_', '.'])).collect())
    }

    /// Deletes a table with everything in it. Log first: what is left after a crash is no table any more.
    pub async fn drop_table(&self, schema: &str, name: &str) -> Result<()> {
        let (path, _) = names(schema, name);
        let store = self.store_at(&path)?;
        let (log, data): (Vec<_>, Vec<_>) = store
            .list("", None)
            .await?
            .into_iter()
            .map(|o| o.location)
            .partition(|p| p.parts().any(|part| part.as_ref() == "_delta_log"));
        store.delete(log).await?;
        store.delete(data).await
    }

    /// Files and bytes of a table: data of all versions, and its log.
    pub async fn table_size(&self, schema: &str, name: &str) -> Result<(u64, u64)> {
        let (path, _) = names(schema, name);
        let objects = self.store_at(&path)?.list("", None).await?;
        Ok((objects.len() as u64, objects.iter().map(|o| o.size).sum()))
    }

    /// How many files [`Lake::remove_leftovers`] would remove.
    pub async fn leftovers(&self) -> Result<u64> {
        let lake = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || lake.env.leftovers(&lake.url))
            .await
            .map_err(|e| Error::internal(format!("counting leftovers: {e}")))?
    }

    /// Removes what processes that died left half-written in the lake; returns how many files. Listings do not show them.
    pub async fn remove_leftovers(&self) -> Result<u64> {
        let lake = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || lake.env.remove_leftovers(&lake.url))
            .await
            .map_err(|e| Error::internal(format!("removing leftovers: {e}")))?
    }

    /// Whether anything can be written: puts and deletes one small object.
    pub async fn check_writable(&self) -> Result<()> {
        let probe = self.store_at(OWN)?;
        let name = format!("probe-{}", self.0.env.new_uuid());
        let path = probe.path(&name)?;
        let outcome = async {
            probe.put(&name, b"smelt".to_vec()).await?;
            Ok::<_, Error>(probe.store.delete(&path).await?)
        };
        outcome.await.map_err(|e: Error| {
            Error::environment("unwritable-lake", format!("the lake {} cannot be written: {}", self.0.url, e.message()))
                .with_hint("check permissions, free space and the target's `lake:` setting")
        })
    }
}

fn names(schema: &str, name: &str) -> (String, String) {
    (format!("{schema}/{name}"), format!("{schema}.{name}"))
}

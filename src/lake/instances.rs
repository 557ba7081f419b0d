//! Which smelt owns the lake: every start takes the next number, by create-if-absent, and writes it into every commit.

use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;

use super::catalog::{Lake, OWN};
use super::store::{Created, TableStore};
use crate::error::{Error, Result};

/// The smelt that took a number. The higher number owns the lake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceInfo {
    pub number: i64,
    pub host: String,
    pub pid: u32,
    /// Start of that process in clock ticks since boot, to tell it from a later one with the same pid; 0: unknown.
    #[serde(default)]
    pub process_start: u64,
    /// µs since 1970.
    pub started: i64,
    /// Tells our own claim from another's when a put was not confirmed.
    claim: String,
}

fn path(number: i64) -> String {
    format!("{number:010}.json")
}

impl Lake {
    fn instances(&self) -> Result<TableStore> {
        self.store_at(&format!("{OWN}/instances"))
    }

    async fn newest_number(&self) -> Result<Option<i64>> {
        let listed = self.instances()?.list("", None).await?;
        Ok(listed.iter().filter_map(|o| o.location.filename()?.strip_suffix(".json")?.parse().ok()).max())
    }

    /// Takes the next number; from now on this process's tables carry it.
    pub async fn claim_instance(&self, host: &str, pid: u32, process_start: u64) -> Result<InstanceInfo> {
        let store = self.instances()?;
        let mut number = self.newest_number().await?.unwrap_or(0) + 1;
        let claim = self.0.env.new_uuid().to_string();
        let mut attempts = 0;
        loop {
            let started = self.0.env.now_micros();
            let info =
                InstanceInfo { number, host: host.to_string(), pid, process_start, started, claim: claim.clone() };
            let bytes = serde_json::to_vec(&info).map_err(|e| Error::internal(e.to_string()))?;
            let created = store.create(&path(number), bytes.into()).await?;
            let unknown = match created {
                Created::Yes => {
                    self.0.instance.store(number, Ordering::Relaxed);
                    return Ok(info);
                }
                Created::Exists => None,
                Created::Unknown(e) => Some(e),
            };
            match (self.read_instance(number).await, unknown) {
                (Ok(Some(found)), _) if found.claim == claim => {
                    self.0.instance.store(number, Ordering::Relaxed);
                    return Ok(info);
                }
                (Ok(Some(_)), _) => number += 1,
                (_, Some(e)) | (Err(e), None) if attempts >= self.0.options.put_retries => return Err(e),
                _ => {
                    attempts += 1;
                    tokio::time::sleep(std::time::Duration::from_millis(20 << attempts)).await;
                }
            }
        }
    }

    async fn read_instance(&self, number: i64) -> Result<Option<InstanceInfo>> {
        let Some(bytes) = self.instances()?.try_get(&path(number)).await? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| Error::environment("bad-instance", format!("instance {number} of the lake: {e}")).permanent())
    }

    /// The smelt that started last.
    pub async fn newest_instance(&self) -> Result<Option<InstanceInfo>> {
        match self.newest_number().await? {
            Some(number) => self.read_instance(number).await,
            None => Ok(None),
        }
    }
}

//! What one smelt asks of another that runs on the same lake: to try its stopped models again.
//!
//! A request is an object in the lake, so it needs no port and no signal; a running `up` looks for it while a model is
//! stopped. It answers by opening the pipeline from the lake, which is how a model is retried anyway.

use super::instance;
use super::pipeline::lake_options;
use crate::env::Env;
use crate::error::Result;
use crate::lake::Lake;
use crate::project::Project;

/// Name of the request below the lake's own folder.
const RETRY: &str = "requests/retry";

/// Asks the smelt of this host that is writing to the lake to try its stopped models again; returns its process id. None: no
/// such process lives.
pub async fn ask_to_retry(env: &Env, project: &Project) -> Result<Option<u32>> {
    let lake = Lake::open(env, &project.target.lake, lake_options(project))?;
    let Some(newest) = lake.newest_instance().await? else { return Ok(None) };
    if !instance::lives_here(env, &newest) {
        return Ok(None);
    }
    lake.put_own(RETRY, env.new_uuid().to_string().into_bytes()).await?;
    Ok(Some(newest.pid))
}

/// Requests that arrive from now on.
pub struct RetryRequests {
    lake: Lake,
    seen: Option<Vec<u8>>,
}

impl RetryRequests {
    pub async fn open(env: &Env, project: &Project) -> Result<Self> {
        let lake = Lake::open(env, &project.target.lake, lake_options(project))?;
        let seen = lake.get_own(RETRY).await?;
        Ok(RetryRequests { lake, seen })
    }

    /// Whether another one has arrived.
    pub async fn arrived(&mut self) -> Result<bool> {
        let found = self.lake.get_own(RETRY).await?;
        let new = found.is_some() && found != self.seen;
        self.seen = found;
        Ok(new)
    }
}

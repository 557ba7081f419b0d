//! An in-memory store that counts requests and fails as told: by a seeded plan, or by a script of single faults.
//!
//! The dangerous faults are those of real object stores: a put that is applied although its caller sees an error, and one
//! that lands only later. Both are here, so that the commit protocol is tested against them.

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;
use std::time::Duration;

/// What goes wrong in a [`FaultyStore`], and how often. The default is: nothing.
#[derive(Debug, Clone, Default)]
pub struct FaultPlan {
    /// Seed of the choices below.
    pub seed: u64,
    /// Share of requests (0 to 1) that fail without any effect.
    pub error_rate: f64,
    /// Share of puts that are applied, yet the caller sees an error.
    pub timeout_rate: f64,
    /// Share of puts whose caller sees an error and that are applied `late_after` requests later.
    pub late_rate: f64,
    /// See `late_rate`; 0 means with the next request.
    pub late_after: u64,
    /// Once this many bytes were put, every put fails: a full disk.
    pub capacity: Option<u64>,
    /// Every request takes this long.
    pub delay: Option<Duration>,
}

/// One scripted fault, for the next put whose path contains a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Fails without effect.
    Error,
    /// Is applied, and the caller sees an error.
    Timeout,
    /// The caller sees an error; it is applied this many requests later.
    Late(u64),
}

/// Requests a store has served, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestCounts {
    pub puts: u64,
    pub gets: u64,
    pub lists: u64,
    pub deletes: u64,
}

/// An in-memory store that counts requests and fails as told. Clones share everything.
#[derive(Debug, Clone)]
pub struct FaultyStore {
    inner: Arc<InMemory>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    plan: FaultPlan,
    rng: ChaCha8Rng,
    counts: RequestCounts,
    stored: u64,
    script: Vec<(String, Fault)>,
    late: Vec<(u64, Path, PutPayload, PutOptions)>,
}

fn fault(what: &str, location: &Path) -> object_store::Error {
    object_store::Error::Generic { store: "FaultyStore", source: format!("simulated {what}: {location}").into() }
}

impl FaultyStore {
    /// An empty store that fails by `plan`.
    pub fn new(plan: FaultPlan) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(plan.seed);
        let state =
            State { plan, rng, counts: RequestCounts::default(), stored: 0, script: Vec::new(), late: Vec::new() };
        FaultyStore { inner: Arc::new(InMemory::new()), state: Arc::new(Mutex::new(state)) }
    }

    /// From now on fails by `plan`.
    pub fn set_plan(&self, plan: FaultPlan) {
        let mut state = self.state.lock();
        state.rng = ChaCha8Rng::seed_from_u64(plan.seed);
        state.plan = plan;
    }

    /// The next put whose path contains `part` has `fault`; several calls queue up.
    pub fn fail_next_put(&self, part: &str, fault: Fault) {
        self.state.lock().script.push((part.to_string(), fault));
    }

    /// Requests so far.
    pub fn counts(&self) -> RequestCounts {
        self.state.lock().counts
    }

    /// Counts from zero again.
    pub fn reset_counts(&self) {
        self.state.lock().counts = RequestCounts::default();
    }

    /// Applies every put that was to land late.
    pub async fn land_late(&self) {
        let due = std::mem::take(&mut self.state.lock().late);
        for (_, location, payload, options) in due {
            // A create-if-absent that lost meanwhile fails, as it would on a real store.
            let _ = self.inner.put_opts(&location, payload, options).await;
        }
    }

    /// Before every request: wait, land what is due, perhaps fail.
    async fn enter(&self, location: &Path, count: impl FnOnce(&mut RequestCounts)) -> Result<()> {
        let (delay, due, fails) = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            count(&mut state.counts);
            let mut due = Vec::new();
            state.late.retain_mut(|entry| {
                if entry.0 == 0 {
                    due.push((entry.1.clone(), entry.2.clone(), entry.3.clone()));
                    return false;
                }
                entry.0 -= 1;
                true
            });
            let fails = state.plan.error_rate > 0.0 && state.rng.random::<f64>() < state.plan.error_rate;
            (state.plan.delay, due, fails)
        };
        for (location, payload, options) in due {
            let _ = self.inner.put_opts(&location, payload, options).await;
        }
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        if fails { Err(fault("error", location)) } else { Ok(()) }
    }

    fn put_fault(&self, location: &Path, bytes: u64) -> Result<Option<Fault>> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.plan.capacity.is_some_and(|capacity| state.stored + bytes > capacity) {
            return Err(fault("disk full (No space left on device)", location));
        }
        if let Some(i) = state.script.iter().position(|(part, _)| location.as_ref().contains(part.as_str())) {
            return Ok(Some(state.script.remove(i).1));
        }
        if state.plan.timeout_rate > 0.0 && state.rng.random::<f64>() < state.plan.timeout_rate {
            return Ok(Some(Fault::Timeout));
        }
        if state.plan.late_rate > 0.0 && state.rng.random::<f64>() < state.plan.late_rate {
            return Ok(Some(Fault::Late(state.plan.late_after)));
        }
        Ok(None)
    }
}

impl std::fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FaultyStore")
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.enter(location, |c| c.puts += 1).await?;
        let bytes = payload.content_length() as u64;
        match self.put_fault(location, bytes)? {
            Some(Fault::Error) => Err(fault("error", location)),
            Some(Fault::Late(after)) => {
                self.state.lock().late.push((after, location.clone(), payload, options));
                Err(fault("time-out", location))
            }
            timeout => {
                let done = self.inner.put_opts(location, payload, options).await?;
                self.state.lock().stored += bytes;
                if timeout.is_some() { Err(fault("time-out", location)) } else { Ok(done) }
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.enter(location, |c| c.puts += 1).await?;
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.enter(location, |c| c.gets += 1).await?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let counted = locations
            .then(move |location| {
                let this = this.clone();
                async move {
                    let location = location?;
                    this.enter(&location, |c| c.deletes += 1).await?;
                    Ok(location)
                }
            })
            .boxed();
        self.inner.delete_stream(counted)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.state.lock().counts.lists += 1;
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.enter(prefix.unwrap_or(&Path::default()), |c| c.lists += 1).await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.enter(to, |c| c.puts += 1).await?;
        self.inner.copy_opts(from, to, options).await
    }
}

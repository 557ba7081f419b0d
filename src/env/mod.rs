//! The only door to the outside that a test must be able to close: clock, randomness, ids, environment variables, object
//! stores, and the points at which a crash is simulated.
//!
//! Everything below takes an [`Env`] and asks it; `clippy.toml` bans the ambient calls elsewhere. [`Env::real`] is the
//! process's own; [`Env::simulated`] is deterministic from its seed.

mod crash;
mod store;
mod vars;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

pub use crash::CRASH_ENV;
pub use store::{DurableStore, Fault, FaultPlan, FaultyStore, RequestCounts};

use crate::error::{Error, Result};

/// Handle to the outside; cheap to clone.
#[derive(Clone)]
pub struct Env(Arc<Inner>);

struct Inner {
    clock: Clock,
    rng: Mutex<ChaCha8Rng>,
    vars: vars::Vars,
    crash: crash::CrashPoints,
    stores: store::Stores,
}

enum Clock {
    System,
    /// µs since the epoch; moves only when told to.
    Manual(Mutex<i64>),
}

impl Env {
    /// The process's clock, entropy, environment variables and file system.
    #[allow(clippy::disallowed_methods)]
    pub fn real() -> Self {
        let seed = Uuid::new_v4().as_u128();
        let mut key = [0u8; 32];
        key[..16].copy_from_slice(&seed.to_le_bytes());
        key[16..].copy_from_slice(&Uuid::new_v4().as_u128().to_le_bytes());
        let vars: BTreeMap<String, String> =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
        let crash = crash::CrashPoints::from_vars(&vars, true);
        Env(Arc::new(Inner {
            clock: Clock::System,
            rng: Mutex::new(ChaCha8Rng::from_seed(key)),
            vars: vars::Vars::new(vars),
            crash,
            stores: store::Stores::real(),
        }))
    }

    /// Deterministic: a clock that stands at `now_micros` until [`Env::advance`], ids and randomness from `seed`, the given
    /// variables only, `memory://` URLs served by `store`. A crash point that is armed (variable `SMELT_CRASH_AT`)
    /// returns an error instead of ending the process.
    pub fn simulated(seed: u64, now_micros: i64, vars: BTreeMap<String, String>, store: FaultyStore) -> Self {
        let crash = crash::CrashPoints::from_vars(&vars, false);
        Env(Arc::new(Inner {
            clock: Clock::Manual(Mutex::new(now_micros)),
            rng: Mutex::new(ChaCha8Rng::seed_from_u64(seed)),
            vars: vars::Vars::new(vars),
            crash,
            stores: store::Stores::simulated(store),
        }))
    }

    /// µs since 1970-01-01 UTC.
    #[allow(clippy::disallowed_methods)]
    pub fn now_micros(&self) -> i64 {
        match &self.0.clock {
            Clock::System => Utc::now().timestamp_micros(),
            Clock::Manual(now) => *now.lock(),
        }
    }

    /// ms since 1970-01-01 UTC, as Delta logs want it.
    pub fn now_millis(&self) -> i64 {
        self.now_micros() / 1000
    }

    /// Now, as a date and time.
    pub fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.now_micros()).unwrap_or_default()
    }

    /// Moves a simulated clock forward; a real one moves by itself.
    pub fn advance(&self, micros: i64) {
        if let Clock::Manual(now) = &self.0.clock {
            *now.lock() += micros;
        }
    }

    /// A fresh random (version 4) UUID.
    pub fn new_uuid(&self) -> Uuid {
        let mut bytes = [0u8; 16];
        self.0.rng.lock().fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// A random number.
    pub fn random_u64(&self) -> u64 {
        self.0.rng.lock().next_u64()
    }

    /// An environment variable. The value of a secret one is remembered for [`Env::redact`].
    pub fn var(&self, name: &str) -> Option<String> {
        self.0.vars.get(name)
    }

    /// Remembers a value derived from a secret, so that it never reaches a log or artifact either.
    pub fn remember_secret(&self, value: &str) {
        self.0.vars.remember_secret(value);
    }

    /// `text` with every secret value replaced by `****`. Everything printed or logged passes through here.
    pub fn redact(&self, text: &str) -> String {
        self.0.vars.redact(text)
    }

    /// A named place where tests end the process (real) or fail (simulated): `SMELT_CRASH_AT=name` the first time,
    /// `name:3` the third time it is reached.
    pub fn crash_point(&self, name: &str) -> Result<()> {
        self.0.crash.reach(name)
    }

    /// The object store that serves `url` (a URL, or a local path made absolute by the caller) and the path in it.
    pub fn object_store(&self, url: &str) -> Result<(Arc<dyn object_store::ObjectStore>, object_store::path::Path)> {
        self.0.stores.open(url, true, &self.0.vars)
    }

    /// The same; without `fsync` local puts are atomic but not durable.
    pub fn object_store_with(
        &self,
        url: &str,
        fsync: bool,
    ) -> Result<(Arc<dyn object_store::ObjectStore>, object_store::path::Path)> {
        self.0.stores.open(url, fsync, &self.0.vars)
    }

    /// How many files [`Env::remove_leftovers`] would remove. Blocking.
    pub fn leftovers(&self, url: &str) -> Result<u64> {
        let found = self.0.stores.leftovers(url, self.now_micros());
        found.map_err(|e| Error::environment("leftovers", format!("{url}: {e}")))
    }

    /// Removes what dead processes left half-written below `url`, a local lake; returns how many files. Blocking.
    pub fn remove_leftovers(&self, url: &str) -> Result<u64> {
        let removed = self.0.stores.remove_leftovers(url, self.now_micros());
        removed.map_err(|e| Error::environment("leftovers", format!("{url}: {e}")))
    }
}

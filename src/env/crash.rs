//! Crash points: named instants of the commit protocol at which tests kill the process.

use parking_lot::Mutex;
use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// `SMELT_CRASH_AT=after-uploads` or `after-log-put:2` (the second time it is reached).
pub const CRASH_ENV: &str = "SMELT_CRASH_AT";

pub(super) struct CrashPoints {
    armed: Option<Mutex<(String, u64)>>,
    abort: bool,
}

impl CrashPoints {
    pub(super) fn from_vars(vars: &BTreeMap<String, String>, abort: bool) -> Self {
        let armed = vars.get(CRASH_ENV).filter(|v| !v.is_empty()).map(|value| {
            let (name, nth) = match value.rsplit_once(':') {
                Some((name, nth)) => (name.to_string(), nth.parse().unwrap_or(1)),
                None => (value.clone(), 1),
            };
            Mutex::new((name, nth))
        });
        CrashPoints { armed, abort }
    }

    pub(super) fn reach(&self, name: &str) -> Result<()> {
        let Some(armed) = &self.armed else { return Ok(()) };
        let mut armed = armed.lock();
        if armed.0 != name || armed.1 == 0 {
            return Ok(());
        }
        armed.1 -= 1;
        if armed.1 > 0 {
            return Ok(());
        }
        if self.abort {
            // No unwinding, no destructors, no flush: as close to SIGKILL as a process does to itself.
            std::process::abort();
        }
        Err(Error::internal(format!("simulated crash at {name}")))
    }
}

//! Who may write: the newest instance only.
//!
//! Each start takes the next number in `_smelt/instances/` by create-if-absent. A process of this host that holds the
//! newest number and still lives keeps it, unless the user says `--take-over`; otherwise the older instance is stopped by
//! fencing at its next put (its commit loses against one that carries a higher number).

use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::{InstanceInfo, Lake};

/// Takes the next instance number.
pub(super) async fn claim(env: &Env, lake: &Lake, take_over: bool) -> Result<InstanceInfo> {
    if let Some(newest) = lake.newest_instance().await?
        && lives_here(env, &newest)
        && !take_over
    {
        return Err(Error::new(
            ErrorKind::User,
            "already-running",
            format!(
                "another smelt (process {} on {}, instance {}, started {}) is writing to this lake",
                newest.pid,
                newest.host,
                newest.number,
                chrono::DateTime::from_timestamp_micros(newest.started)
                    .unwrap_or_default()
                    .format("%Y-%m-%d %H:%M:%S UTC")
            ),
        )
        .with_hint("stop it first, or pass --take-over: the other one then stops at its next commit"));
    }
    lake.claim_instance(&host_name(env), std::process::id(), process_start(std::process::id()).unwrap_or(0)).await
}

/// Whether the process that took the number lives on this host, and is another than this one.
pub(super) fn lives_here(env: &Env, instance: &InstanceInfo) -> bool {
    instance.host == host_name(env)
        && instance.pid != std::process::id()
        && process_lives(instance.pid, instance.process_start)
}

fn host_name(env: &Env) -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|name| name.trim().to_string())
        .filter(|name| !name.is_empty())
        .or_else(|| env.var("HOSTNAME"))
        .unwrap_or_else(|| "localhost".to_string())
}

/// A pid is reused sooner or later; its start time tells whether it is still the same process.
fn process_lives(pid: u32, started: u64) -> bool {
    match process_start(pid) {
        Some(now) => started == 0 || now == started,
        None => false,
    }
}

/// Start time of a process in clock ticks since boot (field 22 of /proc/PID/stat); None when it does not live.
fn process_start(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold spaces and parentheses: fields count from the last one.
    let rest = stat.rsplit_once(')')?.1;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    if state == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_a_reused_pid_does_not_count() {
        let pid = std::process::id();
        let start = process_start(pid).unwrap();
        assert!(process_lives(pid, start));
        assert!(!process_lives(pid, start + 1));
        assert!(!process_lives(u32::MAX, 0));
    }
}

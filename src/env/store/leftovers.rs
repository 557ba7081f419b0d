//! Temporary files of durable puts (`NAME#PIDNNNNNN`) whose process died before it could remove them.
//!
//! A process may have died on this host, or live on another one that shares the folder: a file goes only if no process here
//! has its number and it is older than any put takes.

use std::io::{ErrorKind, Result};
use std::path::Path;

/// A put that is under way for so long has failed.
const OLDEST_PUT_MICROS: i64 = 3_600_000_000;

/// Digits of the counter that stands after the process id.
const COUNTER: usize = 6;

/// Removes them below `folder`; returns how many.
pub(super) fn remove(folder: &Path, now_micros: i64) -> Result<u64> {
    each(folder, now_micros, &|path| match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    })
}

/// How many there are below `folder`.
pub(super) fn count(folder: &Path, now_micros: i64) -> Result<u64> {
    each(folder, now_micros, &|_| Ok(true))
}

/// Gives them to `take`; returns how many it took.
fn each(folder: &Path, now_micros: i64, take: &dyn Fn(&Path) -> Result<bool>) -> Result<u64> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(e),
    };
    let mut taken = 0;
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            taken += each(&entry.path(), now_micros, take)?;
        } else if kind.is_file() && is_leftover(&entry, now_micros) {
            taken += u64::from(take(&entry.path())?);
        }
    }
    Ok(taken)
}

fn is_leftover(entry: &std::fs::DirEntry, now_micros: i64) -> bool {
    let name = entry.file_name();
    let Some(process) = name.to_str().and_then(process_of) else { return false };
    let written = entry.metadata().ok().and_then(|m| m.modified().ok());
    let written = written.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    let old = written.is_some_and(|at| now_micros - at.as_micros() as i64 > OLDEST_PUT_MICROS);
    old && !Path::new("/proc").join(process).exists()
}

/// The process id in the name of a temporary file.
fn process_of(name: &str) -> Option<&str> {
    let (_, digits) = name.rsplit_once('#')?;
    let numeric = digits.len() > COUNTER && digits.bytes().all(|b| b.is_ascii_digit());
    numeric.then(|| &digits[..digits.len() - COUNTER])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn only_old_files_of_dead_processes_go() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("gold/t/_delta_log");
        std::fs::create_dir_all(&log).unwrap();
        let (dead, alive) = (u32::MAX, std::process::id());
        let write = |name: String, at: u64| {
            let file = std::fs::File::create(log.join(name)).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(at)).unwrap();
        };
        write(format!("0.json#{dead}000001"), 1_000);
        write(format!("1.json#{dead}000002"), 9_000);
        write(format!("2.json#{alive}000001"), 1_000);
        write("3.json".to_string(), 1_000);
        write("part#7".to_string(), 1_000);
        assert_eq!(count(folder.path(), 10_000 * 1_000_000).unwrap(), 1);
        assert_eq!(remove(folder.path(), 10_000 * 1_000_000).unwrap(), 1);
        assert_eq!(count(folder.path(), 10_000 * 1_000_000).unwrap(), 0);
        assert!(!log.join(format!("0.json#{dead}000001")).exists());
        assert_eq!(std::fs::read_dir(&log).unwrap().count(), 4);
        assert_eq!(remove(&folder.path().join("nothing"), 0).unwrap(), 0);
    }
}

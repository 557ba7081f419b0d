//! Artifacts of earlier runs, as files.

use serde_json::Value as Json;
use std::path::Path;

use crate::error::{Error, Result};

/// The artifact `name` in folder `dir`; None when there is none.
pub fn artifact(dir: &Path, name: &str) -> Result<Option<Json>> {
    let path = dir.join(name);
    let content = match std::fs::read(&path) {
        Ok(content) => content,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => {
            return Err(
                Error::environment("unreadable-file", format!("cannot read {}: {e}", path.display())).permanent()
            );
        }
    };
    match serde_json::from_slice(&content) {
        Ok(json @ Json::Object(_)) => Ok(Some(json)),
        Ok(_) => Err(Error::user("bad-artifact", format!("{} is no artifact: no mapping", path.display()))),
        Err(e) => Err(Error::user("bad-artifact", format!("{} is no artifact: {e}", path.display()))),
    }
}

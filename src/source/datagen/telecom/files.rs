//! The traffic as files: `TOPIC/slice-0001-partition-0.ndjson` with one value per line, the reference data beside them, and
//! `manifest.json`. A reader that takes files in name order sees the slices in order.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::event::Topic;
use super::manifest::{EMPTY_IN_FILES, Manifest};
use super::options::Options;
use super::reference;
use super::traffic::{GeneratedRecord, Telecom};
use crate::error::{Error, Result};

/// Writes the traffic under `dir`, which is made when missing, and returns what it must add up to. Files of a former run
/// with the same names are replaced; every file appears whole, by a rename. Reference data and manifest are written whatever the
/// slice.
pub fn to_dir(options: Options, dir: &Path) -> Result<Manifest> {
    let mut telecom = Telecom::new(options)?;
    write_reference(&telecom, dir)?;
    for topic in Topic::ALL {
        make_dir(&dir.join(topic.name()))?;
    }
    let mut open: BTreeMap<(&'static str, i32), SliceFile> = BTreeMap::new();
    let mut slice = 0;
    for record in &mut telecom {
        if record.slice != slice {
            for (_, file) in std::mem::take(&mut open) {
                file.finish()?;
            }
            slice = record.slice;
        }
        match open.entry((record.topic, record.partition)) {
            std::collections::btree_map::Entry::Occupied(file) => file.into_mut().write(&record)?,
            std::collections::btree_map::Entry::Vacant(none) => {
                none.insert(SliceFile::create(dir, &record)?).write(&record)?;
            }
        }
    }
    for (_, file) in open {
        file.finish()?;
    }
    let manifest = telecom.manifest();
    let text = serde_json::to_string_pretty(&manifest).map_err(|e| Error::internal(e.to_string()))?;
    write_whole(&dir.join("manifest.json"), text.as_bytes())?;
    Ok(manifest)
}

/// Writes only the reference data under `dir`: what goes beside events that are sent to Kafka.
pub fn write_reference(telecom: &Telecom, dir: &Path) -> Result<()> {
    for file in reference::files(telecom.population()) {
        let folder = dir.join(file.entity);
        make_dir(&folder)?;
        write_whole(&folder.join(&file.name), file.content.as_bytes())?;
    }
    Ok(())
}

/// One topic, partition and slice while it is written under a name that readers ignore.
struct SliceFile {
    out: BufWriter<File>,
    tmp: PathBuf,
    path: PathBuf,
}

impl SliceFile {
    fn create(dir: &Path, record: &GeneratedRecord) -> Result<Self> {
        let name = format!("slice-{:04}-partition-{}.ndjson", record.slice, record.partition);
        let path = dir.join(record.topic).join(name);
        let tmp = path.with_extension("ndjson.tmp");
        let out = BufWriter::with_capacity(1 << 18, File::create(&tmp).map_err(|e| at(&tmp, e))?);
        Ok(SliceFile { out, tmp, path })
    }

    fn write(&mut self, record: &GeneratedRecord) -> Result<()> {
        let value = if record.value.is_empty() { EMPTY_IN_FILES.as_bytes() } else { &record.value };
        self.out.write_all(value).and_then(|()| self.out.write_all(b"\n")).map_err(|e| at(&self.tmp, e))
    }

    fn finish(mut self) -> Result<()> {
        self.out.flush().map_err(|e| at(&self.tmp, e))?;
        fs::rename(&self.tmp, &self.path).map_err(|e| at(&self.path, e))
    }
}

fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    let mut tmp = path.as_os_str().to_owned();
    tmp.push(".tmp");
    let tmp = PathBuf::from(tmp);
    fs::write(&tmp, content).map_err(|e| at(&tmp, e))?;
    fs::rename(&tmp, path).map_err(|e| at(path, e))
}

fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|e| at(path, e))
}

fn at(path: &Path, e: std::io::Error) -> Error {
    Error::environment("io", format!("{}: {e}", path.display()))
}

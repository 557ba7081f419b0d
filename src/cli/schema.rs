//! `smelt schema`: what may stand in YAML files, as JSON Schema. The files in `schemas/` are the source; a test in
//! `project::tests::schemas` holds them to the keys that the loader knows.

use super::args::SchemaKind;
use super::{Exit, print};
use crate::error::{Error, Result};

const PROJECT: &str = include_str!("../../schemas/project.json");
const PROPERTIES: &str = include_str!("../../schemas/properties.json");

pub(super) fn print(kind: SchemaKind) -> Result<Exit, Vec<Error>> {
    let text = match kind {
        SchemaKind::Project => PROJECT,
        SchemaKind::Properties => PROPERTIES,
    };
    print::line(text.trim_end());
    Ok(Exit::Success)
}

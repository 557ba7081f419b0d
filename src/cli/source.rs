//! `smelt source infer`: from samples to the YAML that reads them.

use clap::{Args, ValueEnum};

use super::session::Session;
use super::{Exit, print};
use crate::error::{Error, did_you_mean};
use crate::project::Format;
use crate::source::infer::{Request, infer as infer_source};

/// Options of `source infer`.
#[derive(Debug, Args)]
pub(super) struct Infer {
    /// kafka://HOST:PORT/TOPIC, a path or glob relative to the project, or an object-store URL (s3://bucket/calls/*.json)
    pub location: String,
    /// Kafka connection of the target to read with, and to name in the entry: then kafka:///TOPIC is enough
    #[arg(long, value_name = "NAME")]
    pub connection: Option<String>,
    /// Records to look at
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub records: usize,
    /// Name in the entry: TABLE or SOURCE.TABLE [default: after the topic or file]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// What a record is [default: found out]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<SampleFormat>,
}

/// Formats that can be inferred from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum SampleFormat {
    Json,
    Csv,
    Parquet,
    DebeziumJson,
}

pub(super) async fn infer(session: &Session, options: &Infer) -> Result<Exit, Vec<Error>> {
    let connection = match &options.connection {
        None => None,
        Some(name) => {
            let project = session.load()?;
            let connections = &project.target.connections;
            match connections.get(name) {
                Some(found) if found.kind == "kafka" => Some((name.clone(), found.properties.clone())),
                Some(found) => {
                    let message = format!("connection `{name}` has type `{}`, not `kafka`", found.kind);
                    return Err(vec![Error::user("unknown-connection", message)]);
                }
                None => {
                    let error = Error::user(
                        "unknown-connection",
                        format!("no connection `{name}` in target `{}`", project.target.name),
                    );
                    let names: Vec<&str> = connections.keys().map(String::as_str).collect();
                    return Err(vec![match did_you_mean(name, names.iter().copied()) {
                        Some(near) => error.with_hint(format!("did you mean `{near}`?")),
                        None if names.is_empty() => error.with_hint("the target has no connections"),
                        None => error.with_hint(format!("connections: {}", names.join(", "))),
                    }]);
                }
            }
        }
    };
    let request = Request {
        location: options.location.clone(),
        records: options.records,
        name: options.name.clone(),
        format: options.format.map(|format| match format {
            SampleFormat::Json => Format::Json,
            SampleFormat::Csv => Format::Csv,
            SampleFormat::Parquet => Format::Parquet,
            SampleFormat::DebeziumJson => Format::DebeziumJson,
        }),
        connection,
        dir: session.dir.clone(),
    };
    let text = infer_source(&request, &session.env).await.map_err(|e| vec![e])?;
    print::line(session.env.redact(&text).trim_end());
    Ok(Exit::Success)
}

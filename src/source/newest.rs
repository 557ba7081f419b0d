//! When a source last got something, without reading it: for `smelt source freshness`.

use std::sync::Arc;

use super::OpenContext;
use super::{files, kafka};
use crate::error::Result;
use crate::project::{Connector, SourceTable};

/// The instant (µs) of the newest thing the source has: a Kafka record's timestamp, a file's time of change. Generated rows are always new.
/// `None`: it has nothing, or is a table.
pub async fn newest(table: &Arc<SourceTable>, context: &OpenContext) -> Result<Option<i64>> {
    match &table.connector {
        Connector::Kafka(config) => {
            let topics = crate::kafka::newest_records(kafka::consumer_config(table, config, context)).await?;
            Ok(topics.into_values().flatten().max().map(|millis| millis.saturating_mul(1000)))
        }
        Connector::Files(config) => files::newest(table, config, &context.env).await,
        Connector::Datagen { .. } => Ok(Some(context.env.now_micros())),
        Connector::Delta { .. } => Ok(None),
    }
}

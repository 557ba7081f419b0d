//! Positions: how far a table has consumed each of its inputs. They live in Delta `txn` actions, nowhere else.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// One partition of a source. Files sources have the single partition 0 of topic = source table name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourcePartition {
    /// Kafka topic, or the source table's name.
    pub topic: Arc<str>,
    /// Partition number.
    pub partition: i32,
}

impl fmt::Display for SourcePartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// Next offset to read, per partition. A partition that is absent has never been seen.
pub type Positions = BTreeMap<SourcePartition, i64>;

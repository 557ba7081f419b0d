//! Topics made, extended and deleted: for the generator, the demo and tests. Pipelines never change a cluster.

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication, TopicResult};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::time::Duration;

use super::config::{client_config, refused};
use super::context::Context;
use super::producer::bootstrap;
use crate::error::{Error, Result};
use crate::types::{Positions, SourcePartition};

const PATIENCE: Duration = Duration::from_secs(30);

/// A topic to be made.
#[derive(Debug, Clone)]
pub struct TopicSpec {
    pub name: String,
    pub partitions: i32,
    pub configs: Vec<(String, String)>,
}

impl TopicSpec {
    /// With the cluster's own settings.
    pub fn plain(name: &str, partitions: i32) -> Self {
        TopicSpec { name: name.to_string(), partitions, configs: Vec::new() }
    }

    /// For records that carry the time of their event, which can be long ago: without this retention deletes them within
    /// minutes, and a broker refuses those from the future.
    pub fn event_time(name: &str, partitions: i32) -> Self {
        let configs = [
            ("retention.ms", "-1"),
            ("message.timestamp.type", "CreateTime"),
            ("message.timestamp.after.max.ms", "9223372036854775807"),
        ];
        let configs = configs.map(|(k, v)| (k.to_string(), v.to_string())).to_vec();
        TopicSpec { name: name.to_string(), partitions, configs }
    }
}

/// An administrator of a cluster.
pub struct Admin {
    client: AdminClient<DefaultClientContext>,
    properties: BTreeMap<String, String>,
}

impl Admin {
    /// Connects lazily.
    pub fn new(bootstrap_servers: &str) -> Result<Self> {
        Self::with_properties(bootstrap(bootstrap_servers))
    }

    /// With librdkafka properties.
    pub fn with_properties(properties: BTreeMap<String, String>) -> Result<Self> {
        let client = client_config(&properties)?.create().map_err(refused)?;
        Ok(Admin { client, properties })
    }

    /// Makes a topic that is not there. One that is there stays as it is: also one made outside, on a cluster where topics cannot be
    /// made by everybody.
    pub async fn ensure_topic(&self, topic: &TopicSpec) -> Result<()> {
        if self.partitions(&topic.name).await? > 0 {
            return Ok(());
        }
        self.create_topic(topic).await
    }

    /// How many partitions the broker tells clients of; 0: it knows no such topic.
    async fn partitions(&self, name: &str) -> Result<usize> {
        let mut config = client_config(&self.properties)?;
        config.set("allow.auto.create.topics", "false");
        let client: BaseConsumer<Context> = config.create_with_context(Context::default()).map_err(refused)?;
        let name = name.to_string();
        tokio::task::spawn_blocking(move || {
            let metadata = client.fetch_metadata(Some(&name), PATIENCE).map_err(|e| failed("list topics", &e))?;
            Ok(metadata.topics().iter().find(|t| t.name() == name).map_or(0, |t| t.partitions().len()))
        })
        .await
        .map_err(|e| Error::internal(e.to_string()))?
    }

    /// Makes a topic, and waits until the broker knows it.
    pub async fn create_topic(&self, topic: &TopicSpec) -> Result<()> {
        let mut wanted = NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(-1));
        for (key, value) in &topic.configs {
            wanted = wanted.set(key, value);
        }
        let results = self.client.create_topics([&wanted], &options()).await.map_err(|e| failed("create", &e))?;
        check("create", results)?;
        for _ in 0..100 {
            if self.partitions(&topic.name).await? > 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(Error::environment("kafka-admin", format!("topic {} does not appear", topic.name)))
    }

    /// Makes more partitions, until there are `partitions`, and waits until the broker tells clients of them.
    pub async fn add_partitions(&self, topic: &str, partitions: usize) -> Result<()> {
        let wanted = NewPartitions::new(topic, partitions);
        let done = self.client.create_partitions([&wanted], &options()).await;
        check("add partitions to", done.map_err(|e| failed("add partitions", &e))?)?;
        for _ in 0..100 {
            if self.partitions(topic).await? >= partitions {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(Error::environment("kafka-admin", format!("the new partitions of {topic} do not appear")))
    }

    /// Deletes a topic, and waits until the broker has forgotten it.
    pub async fn delete_topic(&self, topic: &str) -> Result<()> {
        let results = self.client.delete_topics(&[topic], &options()).await.map_err(|e| failed("delete", &e))?;
        check("delete", results)?;
        for _ in 0..100 {
            if self.partitions(topic).await? == 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(Error::environment("kafka-admin", format!("topic {topic} does not go away")))
    }

    /// Deletes the records of a partition below an offset.
    pub async fn delete_records(&self, topic: &str, partition: i32, below: i64) -> Result<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(below))
            .map_err(|e| Error::internal(e.to_string()))?;
        self.client.delete_records(&list, &options()).await.map_err(|e| failed("delete records", &e))?;
        Ok(())
    }

    /// What a consumer group has committed for the partitions of a topic; partitions it has not committed are left out.
    pub async fn committed(&self, group: &str, topic: &str, partitions: i32) -> Result<Positions> {
        let mut config = client_config(&self.properties)?;
        config.set("group.id", group);
        let client: BaseConsumer<Context> = config.create_with_context(Context::default()).map_err(refused)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, partitions - 1);
        tokio::task::spawn_blocking(move || {
            let found = client.committed_offsets(list, PATIENCE).map_err(|e| failed("read offsets", &e))?;
            let mut positions = Positions::new();
            for element in found.elements() {
                if let Offset::Offset(next) = element.offset() {
                    let partition = SourcePartition { topic: element.topic().into(), partition: element.partition() };
                    positions.insert(partition, next);
                }
            }
            Ok(positions)
        })
        .await
        .map_err(|e| Error::internal(e.to_string()))?
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

fn failed(what: &str, error: &KafkaError) -> Error {
    Error::environment("kafka-admin", format!("cannot {what}: {error}"))
}

fn check(what: &str, results: Vec<TopicResult>) -> Result<()> {
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => {
                return Err(Error::environment("kafka-admin", format!("cannot {what} topic {topic}: {code}")));
            }
        }
    }
    Ok(())
}

//! Properties: what the user says, what smelt insists on, and what it sets unless told otherwise.

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::{Error, Result, did_you_mean};

/// What a consumer reads and how.
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    /// Names the source in messages: `telco.calls`.
    pub name: String,
    /// librdkafka properties.
    pub properties: BTreeMap<String, String>,
    /// `group.id` unless the properties name one.
    pub group: String,
    pub topics: TopicChoice,
    pub start: StartAt,
    pub on_data_loss: OnLoss,
    /// Whether chunks carry record headers.
    pub headers: bool,
}

/// Which topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicChoice {
    Named(Vec<String>),
    /// All whose whole name matches the regular expression, also those that appear later; not internal ones.
    Pattern(String),
}

/// Where partitions start when nothing has ever been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartAt {
    Earliest,
    Latest,
    /// First record at or after this instant, µs since 1970 UTC; the end where there is none.
    Timestamp(i64),
    /// By partition; the others start at their beginning.
    Offsets(BTreeMap<i32, i64>),
}

/// What to do when records are gone that were not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLoss {
    Fail,
    Skip,
}

/// Correctness hangs on these: positions come from the lake, lost data must be noticed, ends of partitions reported.
const FIXED: [(&str, &str); 4] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("enable.partition.eof", "true"),
];

/// Good for most; the user's value wins.
const DEFAULTS: [(&str, &str); 8] = [
    ("client.id", "smelt"),
    ("isolation.level", "read_committed"),
    ("allow.auto.create.topics", "false"),
    // Fetched and not yet taken, over all partitions: 64 MB.
    ("queued.max.messages.kbytes", "32768"),
    ("fetch.queue.backoff.ms", "100"),
    // A broker that comes back is noticed within two seconds.
    ("reconnect.backoff.max.ms", "2000"),
    ("socket.keepalive.enable", "true"),
    ("topic.metadata.refresh.interval.ms", "10000"),
];

const BOOTSTRAP: &str = "bootstrap.servers";
const SETUP_TIMEOUT: &str = "socket.connection.setup.timeout.ms";

impl ConsumerConfig {
    pub(super) fn client(&self) -> Result<ClientConfig> {
        for (property, value) in FIXED {
            if self.properties.get(property).is_some_and(|v| v != value) {
                return Err(self.wrong(format!("`{property}` cannot be set: smelt needs it to be {value}")));
            }
        }
        let mut config = client_config(&self.properties).map_err(|e| e.context(format!("source {}", self.name)))?;
        for (property, value) in DEFAULTS {
            if !self.properties.contains_key(property) {
                config.set(property, value);
            }
        }
        for (property, value) in FIXED {
            config.set(property, value);
        }
        if !self.properties.contains_key("group.id") {
            config.set("group.id", &self.group);
        }
        Ok(config)
    }

    fn wrong(&self, message: String) -> Error {
        Error::user("kafka-property", format!("source {}: {message}", self.name))
    }

    /// How long to wait for an answer before a broker counts as unreachable.
    pub(super) fn patience(&self) -> Duration {
        self.millis(SETUP_TIMEOUT, 10_000)
    }

    /// How often new partitions and topics are looked for.
    pub(super) fn refresh(&self) -> Duration {
        self.millis("topic.metadata.refresh.interval.ms", 10_000).max(Duration::from_millis(100))
    }

    /// How long a partition may give nothing although it has more.
    pub(super) fn silence(&self) -> Duration {
        Duration::from_secs(30) + self.millis("fetch.wait.max.ms", 500)
    }

    pub(super) fn bootstrap(&self) -> &str {
        self.properties.get(BOOTSTRAP).map_or("", String::as_str)
    }

    fn millis(&self, property: &str, default: u64) -> Duration {
        Duration::from_millis(self.properties.get(property).and_then(|v| v.parse().ok()).unwrap_or(default))
    }
}

/// The properties as librdkafka takes them.
pub(super) fn client_config(properties: &BTreeMap<String, String>) -> Result<ClientConfig> {
    let servers = properties.get(BOOTSTRAP).or_else(|| properties.get("metadata.broker.list"));
    if servers.is_none_or(|s| s.trim().is_empty()) {
        let error = Error::user("kafka-property", format!("a Kafka connection needs `{BOOTSTRAP}`"));
        return Err(match did_you_mean(BOOTSTRAP, properties.keys().map(String::as_str)) {
            Some(near) => error.with_hint(format!("there is `{near}`: did you mean `{BOOTSTRAP}`?")),
            None => error.with_hint("write it as host:port, several separated by commas"),
        });
    }
    let mut config = ClientConfig::new();
    // Lost connections are known by their log lines only; what a person sees is decided where they arrive.
    config.set_log_level(RDKafkaLogLevel::Info);
    // This one counts until the client is made: its lines would go to stderr.
    config.set("log_level", "3");
    for (property, value) in properties {
        config.set(property, value);
    }
    Ok(config)
}

/// Why a client could not be made. Values are left out: they may be secret.
pub(super) fn refused(error: KafkaError) -> Error {
    match error {
        KafkaError::ClientConfig(_, reason, property, _) => {
            Error::user("kafka-property", format!("Kafka property `{property}`: {reason}"))
                .with_hint("properties are librdkafka's: see its CONFIGURATION.md")
        }
        KafkaError::ClientCreation(reason) => {
            Error::user("kafka-property", format!("the Kafka client refuses its properties: {reason}"))
        }
        other => Error::environment("kafka", other.to_string()),
    }
}

//! Producing: for the generator, the demo and tests.

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use std::collections::BTreeMap;
use std::time::Duration;

use super::config::{client_config, refused};
use crate::error::{Error, Result};

/// How long a flush or a transaction may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause while the queue of records under way is full.
const FULL: Duration = Duration::from_millis(2);

/// A record to send, with everything explicit.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub key: Option<&'a [u8]>,
    /// None: a tombstone.
    pub value: Option<&'a [u8]>,
    /// None: now.
    pub timestamp_millis: Option<i64>,
}

/// Sends records in order: idempotent, so that a retry neither doubles nor reorders them.
pub struct Producer {
    producer: ThreadedProducer<Deliveries>,
    transactional: bool,
    initialised: bool,
}

/// Remembers the first record that could not be delivered.
#[derive(Default)]
struct Deliveries {
    failed: Mutex<Option<String>>,
}

impl ClientContext for Deliveries {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, fac: &str, line: &str) {
        tracing::debug!(target: "librdkafka", fac, "{line}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", "{error}: {reason}");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failed.lock().get_or_insert_with(|| error.to_string());
        }
    }
}

impl Producer {
    /// A producer without transactions.
    pub fn new(bootstrap_servers: &str) -> Result<Self> {
        Self::with_properties(&bootstrap(bootstrap_servers))
    }

    /// A producer with transactions; one with the same id fences the older one.
    pub fn transactional(bootstrap_servers: &str, id: &str) -> Result<Self> {
        let mut properties = bootstrap(bootstrap_servers);
        properties.insert("transactional.id".into(), id.into());
        Self::with_properties(&properties)
    }

    /// A producer with librdkafka properties; `transactional.id` among them makes it transactional.
    pub fn with_properties(properties: &BTreeMap<String, String>) -> Result<Self> {
        let mut config = client_config(properties)?;
        for (property, value) in
            [("client.id", "smelt"), ("enable.idempotence", "true"), ("compression.type", "lz4"), ("linger.ms", "5")]
        {
            if !properties.contains_key(property) {
                config.set(property, value);
            }
        }
        let producer = config.create_with_context(Deliveries::default()).map_err(refused)?;
        Ok(Producer { producer, transactional: properties.contains_key("transactional.id"), initialised: false })
    }

    /// Takes the record over; waits while too many are under way. A record that could not be delivered is reported by a later
    /// call.
    pub async fn send(&mut self, record: Record<'_>) -> Result<()> {
        self.send_with_headers(record, &[]).await
    }

    /// The same with record headers.
    pub async fn send_with_headers(&mut self, record: Record<'_>, headers: &[(&str, Option<&[u8]>)]) -> Result<()> {
        self.check()?;
        let mut message = BaseRecord::<[u8], [u8]>::to(record.topic).partition(record.partition);
        message.key = record.key;
        message.payload = record.value;
        message.timestamp = record.timestamp_millis;
        if !headers.is_empty() {
            let all = OwnedHeaders::new_with_capacity(headers.len());
            message.headers =
                Some(headers.iter().fold(all, |all, (key, value)| all.insert(Header { key, value: *value })));
        }
        loop {
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    message = back;
                    tokio::time::sleep(FULL).await;
                    self.check()?;
                }
                Err((error, _)) => return Err(failed("send", &error)),
            }
        }
    }

    /// Starts a transaction; the first one fences older producers with the same id.
    pub fn begin_transaction(&mut self) -> Result<()> {
        if !self.transactional {
            return Err(Error::internal("a transaction of a producer without transactional.id"));
        }
        if !self.initialised {
            self.producer.init_transactions(PATIENCE).map_err(|e| failed("start transactions", &e))?;
            self.initialised = true;
        }
        self.producer.begin_transaction().map_err(|e| failed("begin a transaction", &e))
    }

    /// Commits the transaction: its records appear, together.
    pub async fn commit_transaction(&mut self) -> Result<()> {
        let producer = self.producer.clone();
        let done = blocking(move || producer.commit_transaction(PATIENCE)).await?;
        done.map_err(|e| failed("commit a transaction", &e))?;
        self.check()
    }

    /// Aborts the transaction: its records never appear.
    pub async fn abort_transaction(&mut self) -> Result<()> {
        let producer = self.producer.clone();
        let done = blocking(move || producer.abort_transaction(PATIENCE)).await?;
        // Records that the abort called back are no failures.
        *self.producer.context().failed.lock() = None;
        done.map_err(|e| failed("abort a transaction", &e))
    }

    /// Waits until every record has been delivered.
    pub async fn flush(&mut self) -> Result<()> {
        let producer = self.producer.clone();
        blocking(move || producer.flush(PATIENCE)).await?.map_err(|e| failed("flush", &e))?;
        self.check()
    }

    fn check(&self) -> Result<()> {
        match self.producer.context().failed.lock().as_ref() {
            None => Ok(()),
            Some(reason) => {
                Err(Error::environment("kafka-produce", format!("a record could not be delivered: {reason}"))
                    .permanent())
            }
        }
    }
}

pub(super) fn bootstrap(servers: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("bootstrap.servers".to_string(), servers.to_string())])
}

async fn blocking<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(body).await.map_err(|e| Error::internal(e.to_string()))
}

fn failed(what: &str, error: &KafkaError) -> Error {
    Error::environment("kafka-produce", format!("cannot {what}: {error}"))
}

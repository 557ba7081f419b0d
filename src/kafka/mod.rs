//! Kafka: the only module that knows rdkafka.
//!
//! How a record comes in ([`Consumer`]):
//!
//! 1. `discover` asks the cluster for its id, the topics, their ids and partitions, and decides where each partition starts: at
//!    the lake's position, at the configured start, or (never seen before) at its beginning. Lost data is noticed here.
//! 2. The partitions are assigned by hand. There is no group membership, no rebalance, no offset of Kafka's that we read.
//! 3. `fetch`, a thread of its own, takes records from librdkafka's queue in batches (`native`) and copies each payload once, into
//!    the Arrow buffers of its partition (`chunk`). While the reader is busy chunks grow; when they are full the thread
//!    waits, then librdkafka's queue fills and it stops fetching: memory is bounded at every step.
//! 4. `watch`, another thread, looks for new partitions, for topics made anew, and for a client that has fallen silent.
//! 5. [`Consumer::next`] hands over [`Delivery`]s: chunks, ends of partitions, gaps where data was lost. In place of a client that
//!    has fallen silent it has another one read on.
//!
//! Invariants: per partition chunks are in offset order without a hole, each record once; a position never moves backwards;
//! an end's position lies past transaction markers; nothing is acknowledged to Kafka except, for lag tools, what
//! [`Consumer::commit`] is told.
//!
//! [`Producer`], [`Admin`] and [`EmbeddedBroker`] serve the generator, the demo and the tests.

mod admin;
mod chunk;
mod config;
mod consumer;
mod context;
mod discover;
mod embedded;
mod fetch;
mod native;
mod newest;
mod producer;
mod watch;

pub use admin::{Admin, TopicSpec};
pub use config::{ConsumerConfig, OnLoss, StartAt, TopicChoice};
pub use consumer::{Consumer, Delivery, Gap};
pub use embedded::EmbeddedBroker;
pub use newest::newest_records;
pub use producer::{Producer, Record};

//! A broker inside the process, for `smelt demo` and quick tests: librdkafka's mock cluster.
//!
//! It keeps about 5 MB per partition and forgets older records, transactions are stubs (aborted records are visible), there is no TLS
//! and no look-up by time. Nothing that is about exactly-once may be shown on it.

use rdkafka::mocking::MockCluster;
use std::sync::mpsc;

use crate::error::{Error, Result};

/// A running mock cluster; ends when dropped.
pub struct EmbeddedBroker {
    bootstrap_servers: String,
    /// Dropping it ends the thread that owns the cluster.
    _quit: mpsc::Sender<()>,
}

impl EmbeddedBroker {
    /// One broker with these topics: (name, partitions).
    pub fn start(topics: &[(&str, i32)]) -> Result<Self> {
        let topics: Vec<(String, i32)> = topics.iter().map(|(name, n)| ((*name).to_string(), *n)).collect();
        let (quit, quitting) = mpsc::channel::<()>();
        let (ready, started) = mpsc::channel::<Result<String>>();
        // The cluster may not change threads, so one thread makes, keeps and ends it.
        std::thread::Builder::new().name("kafka-embedded".into()).spawn(move || {
            let made = MockCluster::new(1).and_then(|cluster| {
                for (topic, partitions) in &topics {
                    cluster.create_topic(topic, *partitions, 1)?;
                }
                Ok(cluster)
            });
            match made {
                Ok(cluster) => {
                    if ready.send(Ok(cluster.bootstrap_servers())).is_ok() {
                        // An error means that the other end is gone, which is what is waited for.
                        let _ = quitting.recv();
                    }
                }
                Err(error) => {
                    let _ = ready.send(Err(Error::environment("embedded-broker", error.to_string())));
                }
            }
        })?;
        let bootstrap_servers =
            started.recv().map_err(|_| Error::internal("the embedded broker's thread has ended"))??;
        Ok(EmbeddedBroker { bootstrap_servers, _quit: quit })
    }

    /// `host:port` of the broker.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }
}

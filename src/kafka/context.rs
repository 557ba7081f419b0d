//! What librdkafka tells its clients besides records: log lines, errors, the health of its connections.

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

/// Remembers what is wrong with the connection, and says it once.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// Names the source in messages.
    name: String,
    /// A consumer in operation says when brokers go and come; while connecting the caller's error says it.
    trouble: Mutex<Trouble>,
}

#[derive(Debug, Default)]
struct Trouble {
    last: Option<String>,
    /// Connected once: from now on losing the broker is news.
    running: bool,
    said: bool,
}

impl Context {
    pub fn new(name: &str) -> Self {
        Context { name: name.to_string(), trouble: Mutex::default() }
    }

    /// The last thing that went wrong and has not been followed by success.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().last.clone()
    }

    /// The broker answered.
    pub fn well(&self) {
        let mut trouble = self.trouble.lock();
        trouble.running = true;
        trouble.last = None;
        if std::mem::take(&mut trouble.said) {
            tracing::info!("{}: the Kafka brokers answer again", self.name);
        }
    }

    /// Something does not work, and is being tried again.
    pub fn unwell(&self, message: &str) {
        let mut trouble = self.trouble.lock();
        trouble.last = Some(message.to_string());
        if trouble.running && !trouble.said {
            trouble.said = true;
            tracing::warn!("{}: Kafka: {message}; trying again until it works", self.name);
        }
    }
}

/// `thrd:127.0.0.1:9092/bootstrap]: 127.0.0.1:9092/bootstrap: Connect to … failed: …` without the thread.
fn without_thread(line: &str) -> &str {
    match line.strip_prefix("[thrd:") {
        Some(rest) => rest.split_once("]: ").map_or(line, |(_, message)| message),
        None => line,
    }
}

/// syslog's `err`.
const ERROR: i32 = 3;

impl Context {
    /// A log line of librdkafka, with its syslog level.
    pub fn line(&self, level: i32, fac: &str, line: &str) {
        let message = without_thread(line);
        // FAIL: a connection failed; ERROR: an error nobody else is told about (authentication). That all brokers are down says
        // less than why.
        if matches!(fac, "FAIL" | "ERROR") && level <= ERROR && !message.ends_with("brokers are down") {
            self.unwell(message);
        }
        tracing::debug!(target: "librdkafka", fac, "{message}");
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, line: &str) {
        self.line(level as i32, fac, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.unwell(&format!("{error}: {reason}"));
    }

    fn stats(&self, _: rdkafka::Statistics) {}
}

impl ConsumerContext for Context {}

//! The calls of librdkafka that the rdkafka crate does not offer: batch consume, topic ids, cached watermarks.
//!
//! Batch consume is needed for more than speed (half the CPU of an event per message): an end-of-partition event of the safe API
//! names neither its topic nor its offset, and that offset, which lies past transaction markers, is the position to go on from.
//!
//! Everything unsafe of the crate's Kafka client is in this file. The proofs lean on two facts: a `BaseConsumer` keeps its
//! `rd_kafka_t` alive as long as it lives, and every function here takes one by reference or holds an `Arc` of it.
#![allow(unsafe_code)]

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use crate::error::{Error, Result};

type Client = BaseConsumer<Context>;

/// The consumer's queue: records and errors of all assigned partitions. Not in parallel with `assign` or `seek`
/// (librdkafka's rule): only the thread that consumes calls those.
pub(super) struct BatchQueue {
    queue: NonNull<sys::rd_kafka_queue_t>,
    batch: Vec<*mut sys::rd_kafka_message_t>,
    // After `queue`: the queue is destroyed in `drop`, before the client it belongs to.
    _client: Arc<Client>,
}

// SAFETY: librdkafka's queues may be used from any thread; `batch` holds no message between calls.
unsafe impl Send for BatchQueue {}

impl BatchQueue {
    /// The queue of `client`, which must have a `group.id`; at most `size` records come at once.
    pub fn new(client: &Arc<Client>, size: usize) -> Result<Self> {
        // SAFETY: the pointer is that of a live client.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(client.client().native_ptr()) };
        let queue = NonNull::new(queue).ok_or_else(|| Error::internal("a Kafka consumer without a queue"))?;
        Ok(BatchQueue { queue, batch: vec![ptr::null_mut(); size.max(1)], _client: Arc::clone(client) })
    }

    /// Waits until there is a record or the time is over, then takes what is there and shows each to `visit`. Returns how many.
    pub fn consume(&mut self, wait: Duration, mut visit: impl FnMut(&Message<'_>)) -> usize {
        // A batch call waits until the batch is full: the first record is waited for alone.
        let mut count = self.take(self.batch.len(), Duration::ZERO, &mut visit);
        if count == 0 && !wait.is_zero() {
            count = self.take(1, wait, &mut visit);
        }
        count
    }

    fn take(&mut self, most: usize, wait: Duration, visit: &mut impl FnMut(&Message<'_>)) -> usize {
        let most = most.min(self.batch.len());
        // SAFETY: the queue is live (we hold a reference to it); `batch` has room for `most` pointers.
        let count = unsafe {
            sys::rd_kafka_consume_batch_queue(
                self.queue.as_ptr(),
                i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
                self.batch.as_mut_ptr(),
                most,
            )
        };
        let count = usize::try_from(count).unwrap_or(0).min(most);
        for slot in &mut self.batch[..count] {
            // Owned from here on: also a panic in `visit` destroys only what has been taken out.
            let message = Owned(std::mem::replace(slot, ptr::null_mut()));
            if !message.0.is_null() {
                // SAFETY: not null, filled in by librdkafka, alive until `message` is dropped at the end of this round.
                visit(&Message { raw: unsafe { &*message.0 }, _batch: PhantomData });
            }
        }
        count
    }
}

impl Drop for BatchQueue {
    fn drop(&mut self) {
        // SAFETY: our own reference, given up once; the client it belongs to is still alive.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

/// The client's log lines. Connections that fail are known by them only: taken here, they reach [`Context`]; from the
/// consumer's queue a batch call would print them to stderr.
pub(super) struct Logs {
    queue: NonNull<sys::rd_kafka_queue_t>,
    client: Arc<Client>,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for Logs {}
// SAFETY: as above; polling one queue from two threads gives each event to one of them.
unsafe impl Sync for Logs {}

impl Logs {
    /// Takes over the log lines of `client`.
    pub fn new(client: &Arc<Client>) -> Result<Self> {
        // SAFETY: the pointer is that of a live client; the queue is checked for null before its use.
        unsafe {
            let rk = client.client().native_ptr();
            let queue = NonNull::new(sys::rd_kafka_queue_new(rk))
                .ok_or_else(|| Error::internal("no queue for Kafka's log lines"))?;
            sys::rd_kafka_set_log_queue(rk, queue.as_ptr());
            Ok(Logs { queue, client: Arc::clone(client) })
        }
    }

    /// Hands the lines that have come to the client's context.
    pub fn drain(&self) {
        loop {
            // SAFETY: our own live queue; each event is destroyed once, after its last use, and its texts are copied.
            unsafe {
                let event = sys::rd_kafka_queue_poll(self.queue.as_ptr(), 0);
                if event.is_null() {
                    return;
                }
                let (mut fac, mut line, mut level) = (ptr::null(), ptr::null(), 0);
                if sys::rd_kafka_event_log(event, &mut fac, &mut line, &mut level) == 0 {
                    let (fac, line) = (text(fac).unwrap_or_default(), text(line).unwrap_or_default());
                    self.client.context().line(level, fac.trim(), line.trim());
                }
                sys::rd_kafka_event_destroy(event);
            }
        }
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        // SAFETY: the client is alive (we hold it); lines go to its main queue again, then our reference is given up, once.
        unsafe {
            sys::rd_kafka_set_log_queue(self.client.client().native_ptr(), ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

/// A message to destroy.
struct Owned(*mut sys::rd_kafka_message_t);

impl Drop for Owned {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: librdkafka gave us this message and nobody else destroys it.
            unsafe { sys::rd_kafka_message_destroy(self.0) };
        }
    }
}

/// A record, or an error in its place, in librdkafka's memory.
pub(super) struct Message<'a> {
    raw: &'a sys::rd_kafka_message_t,
    _batch: PhantomData<&'a ()>,
}

impl Message<'_> {
    /// Why this is no record; the end of a partition is one of the reasons.
    pub fn error(&self) -> Option<RDKafkaErrorCode> {
        (self.raw.err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| self.raw.err.into())
    }

    /// What librdkafka says about the error.
    pub fn reason(&self) -> String {
        // SAFETY: the message is alive; the text belongs to it, or is static.
        unsafe { text(sys::rd_kafka_message_errstr(self.raw)) }.unwrap_or_default()
    }

    /// Topic, in bytes; `None` for errors that concern no topic.
    pub fn topic(&self) -> Option<&[u8]> {
        if self.raw.rkt.is_null() {
            return None;
        }
        // SAFETY: the message keeps its topic alive, and the topic its name, which ends with a NUL.
        let name = unsafe { sys::rd_kafka_topic_name(self.raw.rkt) };
        if name.is_null() {
            return None;
        }
        // SAFETY: as above; the lifetime is that of `self`, which borrows the message.
        Some(unsafe { CStr::from_ptr(name) }.to_bytes())
    }

    pub fn partition(&self) -> i32 {
        self.raw.partition
    }

    /// Of an end-of-partition error the next offset to read.
    pub fn offset(&self) -> i64 {
        self.raw.offset
    }

    pub fn payload(&self) -> Option<&[u8]> {
        // SAFETY: `len` bytes at `payload` belong to the message, which `self` borrows.
        unsafe { bytes(self.raw.payload, self.raw.len) }
    }

    pub fn key(&self) -> Option<&[u8]> {
        // SAFETY: `key_len` bytes at `key` belong to the message, which `self` borrows.
        unsafe { bytes(self.raw.key, self.raw.key_len) }
    }

    /// The broker's timestamp in ms since 1970.
    pub fn timestamp_millis(&self) -> Option<i64> {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive, `kind` is ours to write.
        let millis = unsafe { sys::rd_kafka_message_timestamp(self.raw, &mut kind) };
        (kind != sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && millis >= 0).then_some(millis)
    }

    /// Shows each header to `visit`, in order.
    pub fn headers(&self, mut visit: impl FnMut(&str, Option<&[u8]>)) {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is alive; the list stays the message's.
        let error = unsafe { sys::rd_kafka_message_headers(self.raw, &mut headers) };
        if error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || headers.is_null() {
            return;
        }
        for index in 0.. {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            // SAFETY: a live list; the three results are ours to write, and an index past the end is an error.
            let error = unsafe { sys::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut size) };
            if error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return;
            }
            // SAFETY: name and value belong to the list, which belongs to the message.
            let (name, value) = unsafe { (text(name).unwrap_or_default(), bytes(value.cast_mut(), size)) };
            visit(&name, value);
        }
    }
}

/// # Safety
/// `start` is null, or `len` bytes there live as long as `'a`.
unsafe fn bytes<'a>(start: *mut c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast::<u8>(), len) })
}

/// # Safety
/// `start` is null, or a text that ends with a NUL.
unsafe fn text(start: *const c_char) -> Option<String> {
    // SAFETY: the caller's promise; the text is copied.
    (!start.is_null()).then(|| unsafe { CStr::from_ptr(start) }.to_string_lossy().into_owned())
}

/// Low and high watermark as the client last heard of them, without asking the broker; `None` before the first fetch.
pub(super) fn cached_watermarks(client: &Client, topic: &str, partition: i32) -> Option<(i64, i64)> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: a live client, a text that ends with a NUL, two integers to write.
    let error = unsafe {
        sys::rd_kafka_get_watermark_offsets(
            client.client().native_ptr(),
            topic.as_ptr(),
            partition,
            &mut low,
            &mut high,
        )
    };
    (error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some((low, high))
}

/// Ids of topics. A broker that has none (before Kafka 2.8, some services that speak the protocol) gives an empty map.
pub(super) fn topic_ids(client: &Client, topics: &[&str], timeout: Duration) -> BTreeMap<String, String> {
    let names: Vec<CString> = topics.iter().filter_map(|t| CString::new(*t).ok()).collect();
    let mut ids = BTreeMap::new();
    if names.is_empty() {
        return ids;
    }
    let mut pointers: Vec<*const c_char> = names.iter().map(|n| n.as_ptr()).collect();
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: a live client throughout. Collection, options, queue and event are made here, checked for null, and destroyed
    // once each below; the client copies the names. Descriptions belong to the event, which outlives their use, and their number is `count`.
    unsafe {
        let rk = client.client().native_ptr();
        let collection = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let options = sys::rd_kafka_AdminOptions_new(rk, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let queue = sys::rd_kafka_queue_new(rk);
        if !collection.is_null() && !options.is_null() && !queue.is_null() {
            let mut reason = [0 as c_char; 256];
            sys::rd_kafka_AdminOptions_set_request_timeout(options, millis, reason.as_mut_ptr(), reason.len());
            sys::rd_kafka_DescribeTopics(rk, collection, options, queue);
            let event = sys::rd_kafka_queue_poll(queue, millis);
            let result = if event.is_null() { ptr::null() } else { sys::rd_kafka_event_DescribeTopics_result(event) };
            if !result.is_null() {
                let mut count = 0;
                let found = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
                for i in 0..if found.is_null() { 0 } else { count } {
                    let topic = *found.add(i);
                    let error = sys::rd_kafka_TopicDescription_error(topic);
                    let fine = error.is_null()
                        || sys::rd_kafka_error_code(error) == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
                    let id = sys::rd_kafka_TopicDescription_topic_id(topic);
                    if !fine || id.is_null() {
                        continue;
                    }
                    let none = sys::rd_kafka_Uuid_most_significant_bits(id) == 0
                        && sys::rd_kafka_Uuid_least_significant_bits(id) == 0;
                    if let (false, Some(name), Some(id)) =
                        (none, text(sys::rd_kafka_TopicDescription_name(topic)), text(sys::rd_kafka_Uuid_base64str(id)))
                    {
                        ids.insert(name, id);
                    }
                }
            }
            if !event.is_null() {
                sys::rd_kafka_event_destroy(event);
            }
        }
        if !queue.is_null() {
            sys::rd_kafka_queue_destroy(queue);
        }
        if !options.is_null() {
            sys::rd_kafka_AdminOptions_destroy(options);
        }
        if !collection.is_null() {
            sys::rd_kafka_TopicCollection_destroy(collection);
        }
    }
    ids
}

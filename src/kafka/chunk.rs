//! Records of one partition becoming a [`RawChunk`]: each payload is copied once, from librdkafka's memory into Arrow's.

use arrow::array::{BinaryBuilder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder};
use serde_json::{Map, Value};
use std::fmt::Write as _;
use std::sync::Arc;

use super::native::Message;
use crate::types::{PayloadsBuilder, RawChunk};

/// Builder of chunks of one partition.
pub(super) struct ChunkBuilder {
    values: PayloadsBuilder,
    keys: BinaryBuilder,
    keyed: bool,
    offsets: Int64Builder,
    timestamps: TimestampMicrosecondBuilder,
    headers: Option<StringBuilder>,
    rows: usize,
}

impl ChunkBuilder {
    /// With record headers when asked for.
    pub fn new(headers: bool) -> Self {
        ChunkBuilder {
            values: PayloadsBuilder::default(),
            keys: BinaryBuilder::new(),
            keyed: false,
            offsets: Int64Builder::new(),
            timestamps: TimestampMicrosecondBuilder::new(),
            headers: headers.then(StringBuilder::new),
            rows: 0,
        }
    }

    /// Appends a record; returns the bytes it takes.
    pub fn push(&mut self, message: &Message<'_>) -> usize {
        let (value, key) = (message.payload(), message.key());
        let mut bytes = value.map_or(0, <[u8]>::len) + key.map_or(0, <[u8]>::len) + 32;
        self.values.push(value);
        self.keys.append_option(key);
        self.keyed |= key.is_some();
        self.offsets.append_value(message.offset());
        self.timestamps.append_option(message.timestamp_millis().map(|ms| ms.saturating_mul(1000)));
        if let Some(headers) = &mut self.headers {
            match header_object(message) {
                Some(text) => {
                    bytes += text.len();
                    headers.append_value(text);
                }
                None => headers.append_null(),
            }
        }
        self.rows += 1;
        bytes
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// What has been appended, as a chunk; the builder starts anew.
    pub fn finish(&mut self, topic: &Arc<str>, partition: i32) -> RawChunk {
        self.rows = 0;
        let keys = self.keys.finish();
        RawChunk {
            topic: Arc::clone(topic),
            partition,
            file: None,
            values: self.values.finish(),
            keys: std::mem::take(&mut self.keyed).then_some(keys),
            offsets: self.offsets.finish(),
            timestamps: self.timestamps.finish(),
            headers: self.headers.as_mut().map(StringBuilder::finish),
        }
    }
}

/// Headers as a JSON object; of a repeated name the last, bytes that are no text as `0x…`. `None` when there are none.
fn header_object(message: &Message<'_>) -> Option<String> {
    let mut members = Map::new();
    message.headers(|name, value| {
        let value = match value.map(|v| (std::str::from_utf8(v), v)) {
            None => Value::Null,
            Some((Ok(text), _)) => Value::String(text.to_string()),
            Some((Err(_), bytes)) => Value::String(hex(bytes)),
        };
        members.insert(name.to_string(), value);
    });
    (!members.is_empty()).then(|| Value::Object(members).to_string())
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 + 2 * bytes.len());
    out.push_str("0x");
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

//! Rows as JSON lines, in the spelling that sources read: floats that are no numbers are "NaN", "Infinity" and "-Infinity".

use arrow::array::{Array, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type};
use arrow::error::ArrowError;
use arrow::json::writer::{Encoder, EncoderFactory, EncoderOptions, LineDelimited, NullableEncoder};
use std::io::Write;
use std::sync::Arc;

use crate::error::Result;

/// Writes one JSON object per row, NULLs included.
pub fn write_json_lines(batches: &[RecordBatch], out: impl Write) -> Result<()> {
    let mut writer = arrow::json::WriterBuilder::new()
        .with_explicit_nulls(true)
        .with_encoder_factory(Arc::new(Floats))
        .build::<_, LineDelimited>(out);
    for batch in batches {
        writer.write(batch)?;
    }
    writer.finish()?;
    Ok(())
}

/// At most `count` rows as JSON texts, for messages.
pub fn json_lines(batches: &[RecordBatch], count: usize) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for batch in batches {
        let mut text = Vec::new();
        write_json_lines(&[batch.slice(0, batch.num_rows().min(count - lines.len()))], &mut text)?;
        lines.extend(String::from_utf8_lossy(&text).lines().map(str::to_string));
    }
    Ok(lines)
}

#[derive(Debug)]
struct Floats;

impl EncoderFactory for Floats {
    fn make_default_encoder<'a>(
        &self,
        _field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
            DataType::Float32 => Box::new(FloatEncoder(array.as_primitive::<Float32Type>())),
            DataType::Float64 => Box::new(FloatEncoder(array.as_primitive::<Float64Type>())),
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, array.nulls().cloned())))
    }
}

struct FloatEncoder<'a, T: ArrowPrimitiveType>(&'a PrimitiveArray<T>);

impl<T> Encoder for FloatEncoder<'_, T>
where
    T: ArrowPrimitiveType,
    T::Native: lexical_core::ToLexical + Into<f64>,
{
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let value = self.0.value(row);
        let wide: f64 = value.into();
        if wide.is_finite() {
            let mut digits = [0; lexical_core::BUFFER_SIZE];
            out.extend_from_slice(lexical_core::write(value, &mut digits));
        } else {
            out.extend_from_slice(match (wide.is_nan(), wide > 0.0) {
                (true, _) => b"\"NaN\"".as_slice(),
                (_, true) => b"\"Infinity\"",
                (_, false) => b"\"-Infinity\"",
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Float32Array, Float64Array, ListArray};

    #[test]
    fn floats_that_are_no_numbers_are_not_null() {
        let plain: ArrayRef =
            Arc::new(Float64Array::from(vec![Some(1.5), Some(f64::NAN), Some(f64::INFINITY), None, Some(-0.25)]));
        let lists = ListArray::from_iter_primitive::<Float32Type, _, _>([
            Some(vec![Some(f32::NEG_INFINITY), None, Some(0.1)]),
            None,
            Some(vec![]),
            None,
            None,
        ]);
        let small: ArrayRef = Arc::new(Float32Array::from(vec![1e30, 0.1, f32::NAN, 2.0, 3.0]));
        let batch =
            RecordBatch::try_from_iter([("x", plain), ("l", Arc::new(lists) as ArrayRef), ("s", small)]).unwrap();
        let lines = json_lines(&[batch.clone(), batch], 5).unwrap();
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[0], r#"{"x":1.5,"l":["-Infinity",null,0.1],"s":1.0e30}"#);
        assert_eq!(lines[1], r#"{"x":"NaN","l":null,"s":0.1}"#);
        assert_eq!(lines[2], r#"{"x":"Infinity","l":[],"s":"NaN"}"#);
        assert_eq!(lines[3], r#"{"x":null,"l":null,"s":2.0}"#);
        assert_eq!(lines[4], r#"{"x":-0.25,"l":null,"s":3.0}"#);
    }
}

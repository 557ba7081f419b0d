//! interim
use arrow::array::*;
use arrow::datatypes::{Fields, Schema};
use std::sync::Arc;
use crate::error::Result;
use crate::types::{DecodedChunk, RawChunk, RecordError};
#[derive(Clone, Copy)]
pub enum DecodeFormat { Json, Csv, DebeziumJson }
#[derive(Default, Clone)]
pub struct DecodeOptions { pub fields: Fields, pub timestamp_formats: Vec<Option<String>>, pub rescued: bool, pub primary_key: Vec<String> }
pub trait Decoder: Send { fn decode(&mut self, chunk: &RawChunk) -> Result<DecodedChunk>; }
struct J(Arc<Schema>, DecodeFormat);
fn one(schema: &Arc<Schema>, v: &[u8]) -> std::result::Result<RecordBatch, String> {
    let val: serde_json::Value = serde_json::from_slice(v).map_err(|e| e.to_string())?;
    if !val.is_object() { return Err("root is not an object".into()); }
    if let Some(o) = val.as_object() { for (k, x) in o { if let Ok(f) = schema.field_with_name(k) { match f.data_type() { arrow::datatypes::DataType::Int64|arrow::datatypes::DataType::Int32 => if let Some(fl) = x.as_f64() { if fl.fract()!=0.0 {return Err("not an integer".into())}}, _=>{} } } } }
    let mut d = arrow::json::ReaderBuilder::new(schema.clone()).build_decoder().map_err(|e| e.to_string())?;
    let text = val.to_string();
    d.decode(text.as_bytes()).map_err(|e| e.to_string())?;
    d.flush().map_err(|e| e.to_string())?.ok_or("empty".into())
}
impl Decoder for J {
    fn decode(&mut self, chunk: &RawChunk) -> Result<DecodedChunk> {
        let mut batches = vec![]; let mut records = vec![]; let mut errors = vec![]; let mut weights = vec![];
        for i in 0..chunk.len() {
            match self.1 {
                DecodeFormat::DebeziumJson => {
                    let v: serde_json::Value = serde_json::from_slice(chunk.values.value(i)).unwrap_or_default();
                    let (w, row) = if v["op"] == "d" { (-1, &v["before"]) } else { (1, &v["after"]) };
                    batches.push(one(&self.0, row.to_string().as_bytes()).map_err(crate::error::Error::internal)?); records.push(i as u32); weights.push(w);
                }
                _ => match one(&self.0, chunk.values.value(i)) { Ok(b) => { batches.push(b); records.push(i as u32) }, Err(reason) => errors.push(RecordError { record: i as u32, reason }) }
            }
        }
        let rows = arrow::compute::concat_batches(&self.0, &batches)?;
        Ok(DecodedChunk { rows, records: records.into(), weights: (!weights.is_empty()).then(|| Int64Array::from(weights)), rescued: None, errors })
    }
}
pub fn decoder(f: DecodeFormat, o: &DecodeOptions) -> Result<Box<dyn Decoder>> { Ok(Box::new(J(Arc::new(Schema::new(o.fields.clone())), f))) }

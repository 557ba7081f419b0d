//! Columns ↔ row bytes: equal rows have equal bytes, and bytes order as the rows do.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, Rows, SortField};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::canonical;
use crate::error::{Error, Result};

/// Rows whose encodings, of some hundred bytes each, a core's cache has room for.
const LOT: usize = 2048;

/// Encodes rows of fixed column types. Works for no columns at all: then every row is the empty one.
pub struct RowCodec {
    converter: Option<RowConverter>,
}

impl RowCodec {
    /// Columns of these types, ascending, NULLs first.
    pub fn new(types: impl IntoIterator<Item = DataType>) -> Result<Self> {
        Self::ordered(types.into_iter().map(SortField::new).collect())
    }

    /// Columns with their sort options: bytes compare as `ORDER BY` does.
    pub fn ordered(fields: Vec<SortField>) -> Result<Self> {
        if fields.is_empty() {
            return Ok(RowCodec { converter: None });
        }
        if !RowConverter::supports_fields(&fields) {
            return Err(Error::user("unsupported-key", "rows with a column of this type cannot be compared"));
        }
        Ok(RowCodec { converter: Some(RowConverter::new(fields)?) })
    }

    /// The rows of `columns`, which have `rows` of them each.
    pub fn encode(&self, columns: &[ArrayRef], rows: usize) -> Result<Encoded> {
        let Some(converter) = &self.converter else { return Ok(Encoded { bytes: None, rows }) };
        let columns = columns.iter().map(canonical).collect::<Result<Vec<_>>>()?;
        Ok(Encoded { bytes: Some(converter.convert_columns(&columns)?), rows })
    }

    /// The identities ([`Encoded::identity`]) of rows whose encodings nobody needs: made in a buffer that stays in the caches.
    pub fn identities(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<u128>> {
        let Some(converter) = &self.converter else { return Ok(vec![xxh3_128(&[]); rows]) };
        let columns = columns.iter().map(canonical).collect::<Result<Vec<_>>>()?;
        let mut identities = Vec::with_capacity(rows);
        let mut encoded = converter.empty_rows(rows.min(LOT), 0);
        for from in (0..rows).step_by(LOT) {
            let lot: Vec<ArrayRef> = columns.iter().map(|column| column.slice(from, LOT.min(rows - from))).collect();
            encoded.clear();
            converter.append(&mut encoded, &lot)?;
            identities.extend(encoded.iter().map(|row| xxh3_128(row.data())));
        }
        Ok(identities)
    }

    /// The columns of encoded rows. Dictionaries come back as their values.
    pub fn decode<'a>(&self, rows: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let Some(converter) = &self.converter else { return Ok(vec![]) };
        let parser = converter.parser();
        // The parser must outlive the rows it hands out.
        let bytes: Vec<&[u8]> = rows.into_iter().collect();
        Ok(converter.convert_rows(bytes.iter().map(|b| parser.parse(b)))?)
    }
}

/// Encoded rows of one batch.
pub struct Encoded {
    bytes: Option<Rows>,
    rows: usize,
}

impl Encoded {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Bytes of row `i`.
    pub fn row(&self, i: usize) -> &[u8] {
        match &self.bytes {
            Some(rows) => rows.row(i).data(),
            None => &[],
        }
    }

    /// Hash of row `i`.
    pub fn hash(&self, i: usize) -> u64 {
        xxh3_64(self.row(i))
    }

    /// 128-bit identity of row `i`: among any number of rows we will ever hold, two with one identity are one row.
    pub fn identity(&self, i: usize) -> u128 {
        xxh3_128(self.row(i))
    }
}

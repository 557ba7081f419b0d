//! A checksum of a table that needs no order: the sum over its rows of the first 60 bits of md5(row text). Anything that has
//! md5 can compute it from a table: Rust, SQL, Python.
//!
//! The row text is the columns' texts joined by U+001F: NULL is empty, TIMESTAMP `2026-01-07 14:05:12`, DATE `2026-01-07`,
//! DECIMAL with all its digits, DOUBLE with six, all else as it is.

use md5::{Digest, Md5};

/// Separates the columns of a row text.
pub const SEPARATOR: char = '\u{1f}';

/// md5 in lower-case hex.
pub fn md5_hex(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Rows counted and their digests added up. `u128` holds 2^68 rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableDigest {
    pub rows: u64,
    pub sum: u128,
}

impl TableDigest {
    /// One more row, by its text.
    pub fn add(&mut self, row: &[u8]) {
        let hash = Md5::digest(row);
        let first: [u8; 8] = std::array::from_fn(|i| hash[i]);
        self.rows += 1;
        self.sum += u128::from(u64::from_be_bytes(first) >> 4);
    }

    /// One more row, by the texts of its columns.
    pub fn add_columns(&mut self, columns: &[&str]) {
        let mut row = String::with_capacity(columns.iter().map(|c| c.len() + 1).sum());
        for (i, column) in columns.iter().enumerate() {
            if i > 0 {
                row.push(SEPARATOR);
            }
            row.push_str(column);
        }
        self.add(row.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_of_the_first_fifteen_hex_digits_and_needs_no_order() {
        assert_eq!(md5_hex(b"abc"), "900150983cd24fb0d6963f7d28e17f72");
        let mut one = TableDigest::default();
        one.add(b"abc");
        assert_eq!((one.rows, one.sum), (1, 0x0900_1509_83cd_24fb));
        let (mut ab, mut ba) = (TableDigest::default(), TableDigest::default());
        ab.add_columns(&["a", ""]);
        ab.add_columns(&["b", "1"]);
        ba.add_columns(&["b", "1"]);
        ba.add_columns(&["a", ""]);
        assert_eq!(ab, ba);
        let mut other = TableDigest::default();
        other.add_columns(&["", "a"]);
        other.add_columns(&["b", "1"]);
        assert_ne!(ab, other);
    }
}

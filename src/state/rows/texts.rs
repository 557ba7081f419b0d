//! Texts of a chunk by number: what repeats within some ten thousand rows stands there once.

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, PrimitiveArray, StringArray, StringBuilder, UInt8Array, UInt16Array,
};
use arrow::compute::cast;
use arrow::datatypes::{ArrowDictionaryKeyType, DataType, UInt8Type, UInt16Type};
use hashbrown::HashTable;
use std::collections::HashSet;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::Result;

/// Rows that tell whether to try.
const SAMPLE: usize = 1024;

/// The column with each of its texts once, if that is less than a few for each of them; another column as it is.
pub(super) fn packed(column: &ArrayRef) -> Result<ArrayRef> {
    let Some(texts) = column.as_string_opt::<i32>() else { return Ok(Arc::clone(column)) };
    match numbered(texts) {
        None => Ok(Arc::clone(column)),
        Some((numbers, values)) if values.len() <= 1 << 8 => {
            let keys: UInt8Array = numbers.into_iter().map(|n| n.map(|n| n as u8)).collect();
            Ok(Arc::new(DictionaryArray::<UInt8Type>::try_new(keys, Arc::new(values))?))
        }
        Some((numbers, values)) => {
            let keys = UInt16Array::from(numbers);
            Ok(Arc::new(DictionaryArray::<UInt16Type>::try_new(keys, Arc::new(values))?))
        }
    }
}

/// The number of each row's text, and the texts by number.
fn numbered(texts: &StringArray) -> Option<(Vec<Option<u16>>, StringArray)> {
    let step = (texts.len() / SAMPLE).max(1);
    let sample: Vec<&str> = texts.iter().step_by(step).flatten().collect();
    let distinct: HashSet<&str> = sample.iter().copied().collect();
    // Of a quarter as many texts as rows some would be there twice.
    if distinct.len() == sample.len() && !sample.is_empty() {
        return None;
    }
    let most = (texts.len() / 4).min(1 << 16);
    let mut table: HashTable<u16> = HashTable::new();
    let mut values: Vec<&str> = Vec::new();
    let mut hashes: Vec<u64> = Vec::new();
    let mut numbers = Vec::with_capacity(texts.len());
    for text in texts {
        let Some(text) = text else {
            numbers.push(None);
            continue;
        };
        let hash = xxh3_64(text.as_bytes());
        let is = |number: &u16| values[*number as usize] == text;
        let number = match table.find(hash, is) {
            Some(number) => *number,
            None if values.len() == most => return None,
            None => {
                let number = values.len() as u16;
                values.push(text);
                hashes.push(hash);
                table.insert_unique(hash, number, |number| hashes[*number as usize]);
                number
            }
        };
        numbers.push(Some(number));
    }
    Some((numbers, StringArray::from(values)))
}

/// The column as it was before it was packed.
pub(super) fn plain(column: &ArrayRef) -> Result<ArrayRef> {
    match column.data_type() {
        DataType::Dictionary(_, values) => Ok(cast(column, values)?),
        _ => Ok(Arc::clone(column)),
    }
}

/// Texts of one chunk.
enum Texts<'a> {
    Plain(&'a StringArray),
    Narrow(&'a UInt8Array, &'a StringArray),
    Wide(&'a UInt16Array, &'a StringArray),
}

impl<'a> Texts<'a> {
    fn of(column: &'a ArrayRef) -> Option<Self> {
        fn parts<K: ArrowDictionaryKeyType>(column: &ArrayRef) -> Option<(&PrimitiveArray<K>, &StringArray)> {
            let dictionary = column.as_dictionary_opt::<K>()?;
            Some((dictionary.keys(), dictionary.values().as_string_opt()?))
        }
        let narrow = || parts::<UInt8Type>(column).map(|(keys, values)| Texts::Narrow(keys, values));
        let wide = || parts::<UInt16Type>(column).map(|(keys, values)| Texts::Wide(keys, values));
        column.as_string_opt().map(Texts::Plain).or_else(narrow).or_else(wide)
    }

    #[inline]
    fn get(&self, row: usize) -> Option<&'a str> {
        match self {
            Texts::Plain(texts) => texts.is_valid(row).then(|| texts.value(row)),
            Texts::Narrow(keys, values) => keys.is_valid(row).then(|| values.value(keys.value(row).into())),
            Texts::Wide(keys, values) => keys.is_valid(row).then(|| values.value(keys.value(row).into())),
        }
    }
}

/// Texts at these places (chunk and row; a chunk that is not there gives NULL) of a column some of whose chunks are packed. None if it has no texts.
pub(super) fn gathered<'a>(chunks: impl Iterator<Item = &'a ArrayRef>, places: &[(usize, usize)]) -> Option<ArrayRef> {
    let chunks: Vec<Texts<'_>> = chunks.map(Texts::of).collect::<Option<_>>()?;
    let mut out = StringBuilder::with_capacity(places.len(), places.len() * 8);
    for (chunk, row) in places {
        out.append_option(chunks.get(*chunk).and_then(|texts| texts.get(*row)));
    }
    Some(Arc::new(out.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(rows: usize, distinct: usize) -> ArrayRef {
        let text = |i: usize| (i % 7 != 3).then(|| format!("text {}", i * 31 % distinct));
        Arc::new((0..rows).map(text).collect::<StringArray>())
    }

    #[test]
    fn texts_come_back() {
        for (rows, distinct, is_packed) in [
            (4096, 1, true),
            (4096, 256, true),
            (4096, 257, true),
            (4096, 900, true),
            (4096, 1100, false),
            (4096, 4000, false),
        ] {
            let texts = column(rows, distinct);
            let small = packed(&texts).unwrap();
            assert_eq!(small.as_any_dictionary_opt().is_some(), is_packed, "{distinct}");
            assert_eq!(&plain(&small).unwrap(), &texts);
            let chunks = [small, column(10, 10)];
            let places = [(1, 3), (0, 16), (2, 0), (0, 4095), (1, 9)];
            let found = gathered(chunks.iter(), &places).unwrap();
            let other = chunks[1].as_string::<i32>();
            let one = texts.as_string::<i32>();
            let expected =
                [None, Some(one.value(16)), None, one.is_valid(4095).then(|| one.value(4095)), Some(other.value(9))];
            assert_eq!(found.as_string::<i32>(), &expected.into_iter().collect::<StringArray>());
        }
        let all_null: ArrayRef = Arc::new(StringArray::new_null(1000));
        assert_eq!(&plain(&packed(&all_null).unwrap()).unwrap(), &all_null);
    }
}

//! Deletion vectors: which rows of a data file are gone (protocol: "Deletion Vector Format").
//!
//! In memory a vector is a [`RoaringBitmap`] of row numbers. On disk it is a 64-bit roaring treemap behind a magic number;
//! all vectors of one commit are packed into one file: `0x01`, then per vector its size (big endian), the data, a CRC-32.

use bytes::Bytes;
use roaring::RoaringBitmap;
use std::sync::Arc;
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::actions::Descriptor;
use super::store::TableStore;
use crate::error::{Error, Result};

const MAGIC: u32 = 1_681_511_377;
const FILE_VERSION: u8 = 1;

/// A stored deletion vector, read when first needed.
#[derive(Debug)]
pub struct Vector {
    pub descriptor: Descriptor,
    bitmap: OnceCell<Arc<RoaringBitmap>>,
}

impl Vector {
    /// One that is still only a descriptor.
    pub fn stored(descriptor: Descriptor) -> Self {
        Vector { descriptor, bitmap: OnceCell::new() }
    }

    /// One whose rows are known.
    pub fn known(descriptor: Descriptor, bitmap: Arc<RoaringBitmap>) -> Self {
        Vector { descriptor, bitmap: OnceCell::new_with(Some(bitmap)) }
    }

    /// How many rows it deletes.
    pub fn cardinality(&self) -> u64 {
        self.descriptor.cardinality.max(0) as u64
    }

    /// The deleted rows.
    pub async fn rows(&self, store: &TableStore) -> Result<&Arc<RoaringBitmap>> {
        self.bitmap.get_or_try_init(|| async { Ok(Arc::new(read(&self.descriptor, store).await?)) }).await
    }
}

impl Descriptor {
    /// What makes a file with this vector another file for the log.
    pub fn unique_id(&self) -> String {
        match self.offset {
            Some(offset) => format!("{}{}@{offset}", self.storage_type, self.path_or_inline_dv),
            None => format!("{}{}", self.storage_type, self.path_or_inline_dv),
        }
    }

    /// Path of its file under the table, when it has one.
    pub fn file(&self) -> Option<String> {
        if self.storage_type != "u" || self.path_or_inline_dv.len() < 20 {
            return None;
        }
        let (prefix, id) = self.path_or_inline_dv.split_at_checked(self.path_or_inline_dv.len() - 20)?;
        let uuid = Uuid::from_slice(&z85::decode(id).ok()?).ok()?;
        let name = file_name(&uuid);
        Some(if prefix.is_empty() { name } else { format!("{prefix}/{name}") })
    }
}

fn file_name(uuid: &Uuid) -> String {
    format!("deletion_vector_{uuid}.bin")
}

fn corrupt(why: impl std::fmt::Display) -> Error {
    Error::environment("bad-deletion-vector", format!("deletion vector: {why}")).permanent()
}

async fn read(descriptor: &Descriptor, store: &TableStore) -> Result<RoaringBitmap> {
    let bitmap = match descriptor.storage_type.as_str() {
        "i" => {
            let data = z85::decode(&descriptor.path_or_inline_dv).map_err(corrupt)?;
            parse(&data)?
        }
        "u" => {
            let file = descriptor.file().ok_or_else(|| corrupt("its file name is no UUID"))?;
            let bytes = store.get(&file).await?;
            packed(&bytes, descriptor)?
        }
        other => return Err(corrupt(format!("storage type `{other}` is not read by smelt"))),
    };
    if bitmap.len() != descriptor.cardinality.max(0) as u64 {
        return Err(corrupt(format!("{} rows instead of {}", bitmap.len(), descriptor.cardinality)));
    }
    Ok(bitmap)
}

fn packed(bytes: &Bytes, descriptor: &Descriptor) -> Result<RoaringBitmap> {
    // Without an offset the vector stands right after the version byte.
    let start = descriptor.offset.unwrap_or(1).max(0) as usize;
    let size = descriptor.size_in_bytes.max(0) as usize;
    let entry = bytes.get(start..start + 4 + size + 4).ok_or_else(|| corrupt("its file is too short"))?;
    let (length, rest) = entry.split_at(4);
    let (data, sum) = rest.split_at(size);
    if length != (size as u32).to_be_bytes() {
        return Err(corrupt("its size differs from the log's"));
    }
    if sum != crc32fast::hash(data).to_be_bytes() {
        return Err(corrupt("its checksum is wrong"));
    }
    parse(data)
}

/// Magic number and 64-bit treemap. Rows of one file fit 32 bits, so only the bitmap with key 0 may be there.
fn parse(data: &[u8]) -> Result<RoaringBitmap> {
    let short = || corrupt("it is too short");
    let (magic, data) = data.split_at_checked(4).ok_or_else(short)?;
    if magic != MAGIC.to_le_bytes() {
        return Err(corrupt("its magic number is wrong"));
    }
    let (count, mut data) = data.split_at_checked(8).ok_or_else(short)?;
    let count = u64::from_le_bytes(count.try_into().map_err(|_| short())?);
    let mut all = RoaringBitmap::new();
    for _ in 0..count {
        let (key, rest) = data.split_at_checked(4).ok_or_else(short)?;
        data = rest;
        let bitmap = RoaringBitmap::deserialize_from(&mut data).map_err(corrupt)?;
        if key != [0; 4] && !bitmap.is_empty() {
            return Err(corrupt("a file of more than 2^32 rows"));
        }
        all |= bitmap;
    }
    Ok(all)
}

/// Packs `bitmaps` into one file. Returns its name, its bytes, and one descriptor per bitmap.
pub fn pack(bitmaps: &[Arc<RoaringBitmap>], uuid: Uuid) -> Result<(String, Vec<u8>, Vec<Descriptor>)> {
    let name = z85::encode(uuid.as_bytes());
    // Size, magic number, key count, key and checksum beside each bitmap.
    let size: usize = bitmaps.iter().map(|b| b.serialized_size() + 24).sum();
    let mut bytes = Vec::with_capacity(size + 1);
    bytes.push(FILE_VERSION);
    let mut descriptors = Vec::with_capacity(bitmaps.len());
    for bitmap in bitmaps {
        let offset = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&MAGIC.to_le_bytes());
        bytes.extend_from_slice(&1u64.to_le_bytes());
        bytes.extend_from_slice(&0u32.to_le_bytes());
        bitmap.serialize_into(&mut bytes).map_err(|e| Error::internal(format!("deletion vector: {e}")))?;
        let size = bytes.len() - offset - 4;
        bytes[offset..offset + 4].copy_from_slice(&(size as u32).to_be_bytes());
        let sum = crc32fast::hash(&bytes[offset + 4..]);
        bytes.extend_from_slice(&sum.to_be_bytes());
        descriptors.push(Descriptor {
            storage_type: "u".to_string(),
            path_or_inline_dv: name.clone(),
            offset: Some(offset as i32),
            size_in_bytes: size as i32,
            cardinality: bitmap.len() as i64,
        });
    }
    Ok((file_name(&uuid), bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_vectors_read_back_and_damage_is_noticed() {
        let maps: Vec<Arc<RoaringBitmap>> =
            vec![Arc::new([1u32, 5, 70_000].into_iter().collect()), Arc::new((0..1000u32).collect())];
        let (name, bytes, descriptors) = pack(&maps, Uuid::from_u128(7)).unwrap();
        assert_eq!(descriptors[0].file().unwrap(), name);
        let mut bytes = Bytes::from(bytes);
        for (descriptor, map) in descriptors.iter().zip(&maps) {
            assert_eq!(packed(&bytes, descriptor).unwrap(), **map);
        }
        let mut damaged = bytes.to_vec();
        let last = damaged.len() - 10;
        damaged[last] ^= 1;
        bytes = damaged.into();
        assert!(packed(&bytes, &descriptors[1]).is_err());
    }
}

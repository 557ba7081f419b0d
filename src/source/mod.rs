//! source
pub mod datagen;

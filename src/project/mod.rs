//! project
mod model;
mod source_map;
pub use model::*;
pub use source_map::{Piece, SourceMap};

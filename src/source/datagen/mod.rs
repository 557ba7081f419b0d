//! Sources that make their own rows: the sample project's telecom traffic, and rows by column rules.

pub mod telecom;

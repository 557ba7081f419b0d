//! What was measured of a model's circuit while it ran, as `smelt explain` shows it.

use serde::{Deserialize, Serialize};

/// Figures of one circuit, since it was made or its state was loaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// [`crate::plan::shape`] of the plan that ran.
    pub shape: String,
    /// When they were taken, µs since 1970.
    pub at: i64,
    /// After which epoch.
    pub epoch: i64,
    /// How the last epoch with a change was computed.
    pub path: Option<String>,
    /// An epoch of at least so many changed rows is recomputed rather than stepped; None where none is.
    pub rewrite: Option<u64>,
    /// Of each node, in the order `explain` lists them.
    pub nodes: Vec<NodeFigures>,
}

/// Figures of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFigures {
    /// Rows taken in and given out, retractions included.
    pub rows_in: u64,
    pub rows_out: u64,
    /// Time spent in the node itself, µs.
    pub micros: u64,
    /// Rows, groups or values remembered, and the bytes they take.
    pub state_rows: u64,
    pub state_bytes: u64,
}

impl NodeFigures {
    /// `80 rows in, 20 out; state 20 rows, 1.2 KiB (61 bytes a row); 0.5 ms`.
    pub(super) fn text(&self, has_input: bool) -> String {
        let NodeFigures { rows_in, rows_out, micros, state_rows, state_bytes } = self;
        let rows = match has_input {
            true => format!("{} in, {} out", count(*rows_in, "row"), thousands(*rows_out)),
            false => count(*rows_out, "row"),
        };
        let state = match (state_rows, state_bytes) {
            (0, 0) => String::new(),
            (0, bytes) => format!("; state empty, {}", size(*bytes)),
            (rows, bytes) => {
                format!("; state {}, {} ({} bytes a row)", count(*rows, "row"), size(*bytes), bytes / rows)
            }
        };
        format!("{rows}{state}; {}", time(*micros))
    }
}

fn count(n: u64, what: &str) -> String {
    format!("{} {what}{}", thousands(n), if n == 1 { "" } else { "s" })
}

/// `1,234,567`.
pub(super) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => count(bytes, "byte"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

fn time(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros} µs"),
        1000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_for_people() {
        let figures =
            NodeFigures { rows_in: 1_234_567, rows_out: 1000, micros: 1500, state_rows: 2, state_bytes: 3000 };
        assert_eq!(
            figures.text(true),
            "1,234,567 rows in, 1,000 out; state 2 rows, 2.9 KiB (1500 bytes a row); 1.5 ms"
        );
        let read = NodeFigures { rows_out: 1, micros: 2_345_678, ..NodeFigures::default() };
        assert_eq!(read.text(false), "1 row; 2.35 s");
        let empty = NodeFigures { state_bytes: 64, micros: 7, ..NodeFigures::default() };
        assert_eq!(empty.text(true), "0 rows in, 0 out; state empty, 64 bytes; 7 µs");
    }
}

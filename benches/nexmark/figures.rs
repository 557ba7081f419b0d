//! What others took: CPU-seconds per million events, 10,000,000 events, on a 2-core machine like this one. DBSP is Feldera's hand-written
//! Rust in steps of 40,000 events with decoded input, Flink SQL 2.2, DataFusion 55 one batch over everything.
//! In q5, q7 and q8 DBSP computes only some of the windows.

pub const EVENTS: u64 = 10_000_000;

pub struct Figures {
    pub dbsp: Option<f64>,
    pub flink: Option<f64>,
    pub datafusion: Option<f64>,
}

/// (query, DBSP, Flink, DataFusion); below zero: not measured.
const ALL: [(&str, f64, f64, f64); 21] = [
    ("q0", 0.68, 0.60, 0.12),
    ("q1", 1.20, 1.13, 0.10),
    ("q2", 0.88, 0.27, 0.02),
    ("q3", 0.81, 0.86, 0.00),
    ("q4", 1.58, 3.96, 0.07),
    ("q5", 1.15, 2.21, 0.18),
    ("q6", 1.82, -1.0, 0.35),
    ("q7", 1.66, 5.79, 0.83),
    ("q8", 1.01, 0.82, 0.01),
    ("q9", 5.32, 10.1, 1.38),
    ("q12", 0.88, 1.40, 0.07),
    ("q13", 2.06, 0.43, 0.05),
    ("q14", 1.05, 0.66, 0.14),
    ("q15", 2.63, 6.68, 0.24),
    ("q16", 6.54, 26.9, 0.50),
    ("q17", 3.60, 2.29, 0.10),
    ("q18", 2.93, 4.09, 1.21),
    ("q19", 2.98, 5.50, 0.72),
    ("q20", 2.44, 6.02, 0.16),
    ("q21", 0.90, 2.84, 0.57),
    ("q22", 1.02, 1.64, 0.19),
];

impl Figures {
    pub fn of(query: &str) -> Self {
        let measured = |value: f64| (value >= 0.0).then_some(value);
        match ALL.iter().find(|(name, ..)| *name == query) {
            Some((_, dbsp, flink, datafusion)) => {
                Figures { dbsp: measured(*dbsp), flink: measured(*flink), datafusion: measured(*datafusion) }
            }
            None => Figures { dbsp: None, flink: None, datafusion: None },
        }
    }
}

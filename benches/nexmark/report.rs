//! The table, what it says of the goals, and the JSON file.

use super::figures::Figures;
use super::measure::Cost;
use super::{Format, Options, Outcome, Stepped};

/// What epochs of so many events are compared with: a batch over everything, and others' steps.
const LARGE: u64 = 1_000_000;
const STEP: u64 = 40_000;

fn per_million(cost: &Cost, options: &Options) -> f64 {
    cost.cpu * 1e6 / options.events as f64
}

/// Events per second.
pub fn rate(cost: &Cost, options: &Options) -> f64 {
    options.events as f64 / cost.seconds.max(1e-9)
}

pub fn line(outcome: &Outcome, format: Format, options: &Options) -> String {
    let figure = |value: Option<f64>| value.map_or_else(|| "-".to_string(), |f| format!("{f:.3}"));
    let (rows, batch) = match &outcome.batch {
        Some(batch) => (batch.rows.to_string(), figure(Some(per_million(&batch.cost, options)))),
        None => ("?".to_string(), "memory".to_string()),
    };
    let mut line = format!("{:<5}{:>9}{rows:>10}{batch:>9}", outcome.query, format.name());
    let of_format = |epoch: &u64| outcome.stepped.iter().find(|s| s.epoch == *epoch && s.format == format);
    for epoch in &options.epochs {
        line += &format!("{:>10}", figure(of_format(epoch).map(|s| per_million(&s.cost, options))));
    }
    let read = options.epochs.last().and_then(of_format).filter(|_| format != Format::Arrow);
    line += &format!("{:>9}", figure(read.map(|s| per_million(&s.read, options))));
    let figures = Figures::of(&outcome.query);
    for value in [figures.dbsp, figures.flink, figures.datafusion] {
        line += &format!("{:>9}", value.map_or_else(|| "-".to_string(), |f| format!("{f:.2}")));
    }
    line
}

/// Every outcome that ran long enough to be measured at this epoch size, with its CPU-seconds per million.
fn measured<'a>(outcomes: &'a [Outcome], epoch: u64, options: &'a Options) -> impl Iterator<Item = (&'a Outcome, f64)> {
    outcomes.iter().filter_map(move |o| {
        let stepped = o.stepped.iter().find(|s| s.epoch == epoch && Some(&s.format) == options.formats.first())?;
        // Less than ten of the clock's steps says nothing.
        (stepped.cost.cpu >= 0.1).then(|| (o, per_million(&stepped.cost, options)))
    })
}

/// Geometric means against the stored figures, over the queries that have both.
pub fn means(outcomes: &[Outcome], options: &Options) {
    for epoch in &options.epochs {
        let mean = |figure: fn(&Figures) -> Option<f64>| {
            let ratio =
                |(o, cpu): (&Outcome, f64)| Some((cpu / figure(&Figures::of(&o.query)).filter(|f| *f > 0.0)?).ln());
            let ratios: Vec<f64> = measured(outcomes, *epoch, options).filter_map(ratio).collect();
            match ratios.len() {
                0 => "-".to_string(),
                n => format!("{:.2} ({n} queries)", (ratios.iter().sum::<f64>() / n as f64).exp()),
            }
        };
        println!("@{epoch}: CPU against DBSP {}, against Flink {}", mean(|f| f.dbsp), mean(|f| f.flink));
    }
}

/// Which queries take more than they should.
pub fn goals(outcomes: &[Outcome], options: &Options) {
    let beyond = |epoch: u64, limit: &dyn Fn(&Outcome) -> Option<f64>| -> String {
        let over = measured(outcomes, epoch, options).filter_map(|(o, cpu)| {
            let limit = limit(o)?;
            (cpu > limit).then(|| format!("{} {cpu:.2} > {limit:.2}", o.query))
        });
        let over: Vec<String> = over.collect();
        if over.is_empty() { "none".to_string() } else { over.join(", ") }
    };
    if options.epochs.contains(&STEP) {
        println!("@{STEP}: more than half of DBSP: {}", beyond(STEP, &|o| Some(Figures::of(&o.query).dbsp? / 2.0)));
        println!(
            "@{STEP}: more than a quarter of Flink: {}",
            beyond(STEP, &|o| Some(Figures::of(&o.query).flink? / 4.0))
        );
    }
    if options.epochs.contains(&LARGE) {
        let limit = |o: &Outcome| Some(per_million(&o.batch.as_ref()?.cost, options) * 2.0 + 0.15);
        println!("@{LARGE}: more than twice the batch and 0.15: {}", beyond(LARGE, &limit));
    }
}

pub fn json(outcomes: &[Outcome], options: &Options) -> serde_json::Value {
    let cost = |cost: &Cost| {
        serde_json::json!({
            "cpu_seconds_per_million_events": per_million(cost, options),
            "seconds": cost.seconds,
            "events_per_second": rate(cost, options),
        })
    };
    let stepped = |s: &Stepped| {
        serde_json::json!({
            "input": s.format.name(), "epoch": s.epoch, "cost": cost(&s.cost), "read": cost(&s.read),
            "state_rows": s.state_rows, "state_bytes": s.state_bytes,
            "nodes": s.nodes.iter().map(|(name, seconds)| serde_json::json!({"name": name, "seconds": seconds})).collect::<Vec<_>>(),
        })
    };
    let outcome = |o: &Outcome| {
        let figures = Figures::of(&o.query);
        serde_json::json!({
            "query": o.query, "recomputed": o.recomputed,
            "batch": o.batch.as_ref().map(|batch| cost(&batch.cost)), "rows": o.batch.as_ref().map(|batch| batch.rows),
            "stepped": o.stepped.iter().map(stepped).collect::<Vec<_>>(),
            "before": {"dbsp": figures.dbsp, "flink": figures.flink, "datafusion": figures.datafusion},
        })
    };
    serde_json::json!({
        "events": options.events, "cores": options.cores, "seed": options.seed,
        "queries": outcomes.iter().map(outcome).collect::<Vec<_>>(),
    })
}

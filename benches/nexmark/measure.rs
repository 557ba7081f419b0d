//! Wall time and CPU of this process.

use std::time::Instant;

use super::Failure;

/// What several pieces of work cost together.
#[derive(Debug, Default, Clone, Copy)]
pub struct Cost {
    pub seconds: f64,
    /// Seconds, over all threads; each piece is measured to 10 ms.
    pub cpu: f64,
}

impl Cost {
    /// Does `work` and adds what it costs.
    pub fn add<T>(&mut self, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        let (cpu, started) = (cpu()?, Instant::now());
        let value = work()?;
        self.seconds += started.elapsed().as_secs_f64();
        self.cpu += self::cpu()? - cpu;
        Ok(value)
    }
}

/// User and system seconds of this process.
fn cpu() -> Result<f64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // Fields 14 and 15, counted from 1; the second one may hold spaces, but ends with the last parenthesis.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).ok_or("unexpected /proc/self/stat");
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

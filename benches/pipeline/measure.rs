//! Wall time, CPU and memory of this process.

use std::io::Write;
use std::time::Instant;

use super::Failure;

/// What something cost, with its result.
pub struct Stage<T> {
    pub seconds: f64,
    /// Seconds, over all threads.
    pub cpu: f64,
    /// Peak resident bytes.
    pub peak: u64,
    pub value: T,
}

impl<T> Stage<T> {
    pub async fn measure<F: Future<Output = Result<T, Failure>>>(work: impl FnOnce() -> F) -> Result<Self, Failure> {
        reset_peak();
        let (cpu, started) = (cpu()?, Instant::now());
        let value = work().await?;
        let seconds = started.elapsed().as_secs_f64();
        Ok(Stage { seconds, cpu: self::cpu()? - cpu, peak: peak()?, value })
    }
}

/// A stage's cost per record, as text.
pub struct Cost {
    pub seconds: f64,
    pub cpu: f64,
    pub peak: u64,
    pub records: u64,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let records = self.records as f64;
        write!(
            f,
            "{:>8.0} rows/s, {:>5.2} µs of CPU per row ({:.1} s, {:.1} s of CPU, peak {} MB)",
            records / self.seconds,
            self.cpu * 1e6 / records,
            self.seconds,
            self.cpu,
            self.peak >> 20
        )
    }
}

/// User and system seconds of this process.
pub fn cpu() -> Result<f64, Failure> {
    cpu_of(std::process::id())
}

/// The same of another process.
pub fn cpu_of(process: u32) -> Result<f64, Failure> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // Fields 14 and 15, counted from 1; the second one may hold spaces, but ends with the last parenthesis.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).ok_or("unexpected /proc/…/stat");
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

/// Leaves this process, and what it starts from now on, the first `cores` cores.
pub fn pin_to(cores: usize) -> Result<(), Failure> {
    let (list, process) = (format!("0-{}", cores.max(1) - 1), std::process::id().to_string());
    let done = std::process::Command::new("taskset").args(["-a", "-p", "-c", &list, &process]).output()?;
    if !done.status.success() {
        return Err(format!("taskset: {}", String::from_utf8_lossy(&done.stderr)).into());
    }
    Ok(())
}

fn reset_peak() {
    // Where that is not allowed the peak is that of the whole process so far.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn peak() -> Result<u64, Failure> {
    status("VmHWM:")
}

/// Resident bytes.
pub fn resident() -> Result<u64, Failure> {
    status("VmRSS:")
}

fn status(name: &str) -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|l| l.starts_with(name)).ok_or("unexpected /proc/self/status")?;
    Ok(line.split_whitespace().nth(1).ok_or("unexpected /proc/self/status")?.parse::<u64>()? * 1024)
}

/// What a durable write costs on this machine, whoever asks.
pub fn fsync() -> Result<Percentiles, Failure> {
    let dir = tempfile::tempdir()?;
    let mut times = Vec::new();
    for _ in 0..300 {
        let mut file = std::fs::File::create(dir.path().join("probe"))?;
        file.write_all(&[7; 4096])?;
        let started = Instant::now();
        file.sync_all()?;
        times.push(started.elapsed().as_secs_f64());
    }
    Ok(Percentiles::of(times))
}

/// Milliseconds.
pub struct Percentiles {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Percentiles {
    /// Of seconds.
    pub fn of(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = ((seconds.len() as f64 * share) as usize).min(seconds.len().saturating_sub(1));
            seconds.get(index).map_or(f64::NAN, |s| s * 1e3)
        };
        Percentiles { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "p50 {:.2} ms, p99 {:.2} ms, max {:.1} ms", self.p50, self.p99, self.max)
    }
}

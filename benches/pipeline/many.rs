//! A project of sixty models: how long `compile` takes, and what an idle `up` costs.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::measure::{Percentiles, cpu_of};
use super::project::Sample;
use super::{Failure, traffic};

/// Besides those of the sample.
const MARTS: usize = 36;
/// How long an idle `up` is looked at.
const IDLE: Duration = Duration::from_secs(30);

/// The sample with marts over its fact, `MARTS` more models.
fn project(servers: &str) -> Result<Sample, Failure> {
    let sample = Sample::new(servers)?;
    let dir = sample.path().join("queries/gold/marts");
    std::fs::create_dir_all(&dir)?;
    for n in 0..MARTS {
        let sql = format!(
            "select date_key, status, currency, count(*) as events, sum(amount) as amount, max(event_timestamp) as last_event\n\
             from {{{{ ref('fact_events') }}}}\nwhere date_key % {MARTS} = {n}\ngroup by date_key, status, currency\n"
        );
        std::fs::write(dir.join(format!("mart_{n:02}.sql")), sql)?;
    }
    smelt::source::datagen::telecom::write_reference(
        &smelt::source::datagen::telecom::Telecom::new(Default::default())?,
        &sample.path().join("data"),
    )?;
    Ok(sample)
}

pub async fn measure(servers: &str) -> Result<(), Failure> {
    traffic::topics(servers, "").await?;
    let sample = project(servers)?;
    let smelt = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_smelt"));
        command.args(args).arg("--lake").arg(sample.lake("many")).current_dir(sample.path());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    };
    let mut times = Vec::new();
    for _ in 0..5 {
        let started = Instant::now();
        if !smelt(&["compile", "--quiet"]).status()?.success() {
            return Err("smelt compile failed".into());
        }
        times.push(started.elapsed().as_secs_f64());
    }
    println!("smelt compile, sample and {MARTS} marts: {}", Percentiles::of(times));

    let mut up = smelt(&["up", "--quiet"]).spawn()?;
    // What is there is read, and what a start does is done.
    std::thread::sleep(Duration::from_secs(30));
    let before = cpu_of(up.id())?;
    std::thread::sleep(IDLE);
    let used = cpu_of(up.id())? - before;
    if up.try_wait()?.is_some() {
        return Err("smelt up ended".into());
    }
    up.kill()?;
    up.wait()?;
    println!("smelt up of the same, idle: {:.2} % of a core", used / IDLE.as_secs_f64() * 100.0);
    Ok(())
}

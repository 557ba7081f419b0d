//! `memory_limit` through the binary: a star schema and a mart over it with far less memory than they want have the rows that they have with
//! all of it, whatever is killed.

use crate::support::{Sandbox, eventually};
use std::fmt::Write as _;
use std::time::Duration;

const PROJECT: &str = "name: star
target: free
targets:
  free: {lake: ./free}
  small: {lake: ./small, memory_limit: 1500KB}
";

const SOURCES: &str = "version: 2
sources:
  - name: s
    config: {connector: files, start: earliest, format: json}
    tables:
      - name: calls
        config: {path: ./data/calls-*.json}
        columns: [{name: id, data_type: bigint}, {name: phone, data_type: string}, {name: cell, data_type: bigint}, {name: amount, data_type: bigint}]
      - name: users
        config: {path: ./data/users-*.json}
        columns: [{name: phone, data_type: string}, {name: uid, data_type: bigint}, {name: city, data_type: string}]
      - name: cells
        config: {path: ./data/cells-*.json}
        columns: [{name: cell, data_type: bigint}, {name: region, data_type: string}]
";

const CALLS: u32 = 10_000;

fn star() -> Sandbox {
    let star = Sandbox::with(&[
        ("smelt.yml", PROJECT),
        ("models/sources.yml", SOURCES),
        ("queries/calls.sql", "select * from {{ source('s', 'calls') }}"),
        ("queries/users.sql", "select * from {{ source('s', 'users') }}"),
        ("queries/cells.sql", "select * from {{ source('s', 'cells') }}"),
        (
            "queries/latest.sql",
            "select phone, uid, city from {{ ref('users') }} qualify row_number() over (partition by phone order by uid desc) = 1",
        ),
        (
            "queries/fact.sql",
            "select f.id, u.uid, u.city, c.region, f.amount from {{ ref('calls') }} as f
             left join {{ ref('latest') }} as u on u.phone = f.phone left join {{ ref('cells') }} as c on c.cell = f.cell",
        ),
        (
            "queries/mart.sql",
            "select uid, region, count(*) as n, sum(amount) as total, max(id) as last from {{ ref('fact') }} group by uid, region",
        ),
    ]);
    for number in 0..4 {
        calls(&star, number);
    }
    users(&star, 0);
    star.write(
        "data/cells-0.json",
        (0..100).map(|cell| format!("{{\"cell\": {cell}, \"region\": \"r{}\"}}\n", cell % 7)).collect::<String>(),
    );
    star
}

fn calls(star: &Sandbox, number: u32) {
    let mut lines = String::new();
    for id in number * CALLS..(number + 1) * CALLS {
        let (phone, cell, amount) = (id.wrapping_mul(7919) % 3_000, id % 113, id % 997);
        writeln!(lines, "{{\"id\": {id}, \"phone\": \"+48{phone:07}\", \"cell\": {cell}, \"amount\": {amount}}}")
            .unwrap();
    }
    star.write(&format!("data/calls-{number}.json"), lines);
}

/// Every third user gets another number and city each time.
fn users(star: &Sandbox, number: u32) {
    let mut lines = String::new();
    for phone in (0..3_000).step_by(if number == 0 { 1 } else { 3 }) {
        let (uid, city) = (number * 100_000 + phone, (phone + number) % 50);
        writeln!(lines, "{{\"phone\": \"+48{phone:07}\", \"uid\": {uid}, \"city\": \"city{city}\"}}").unwrap();
    }
    star.write(&format!("data/users-{number}.json"), lines);
}

/// The rows of both views of a target's lake.
fn contents(star: &Sandbox, target: &str) -> [Vec<String>; 2] {
    ["select * from fact order by id", "select * from mart order by uid, region"].map(|sql| {
        let answer = star.smelt(&["query", "--lake", target, "--output", "json", sql]).ok();
        answer.stdout.lines().map(str::to_string).collect()
    })
}

#[test]
fn a_star_has_the_same_rows_with_a_fraction_of_its_memory() {
    let star = star();
    let run = |target: &str| star.smelt(&["run", "--target", target, "--epoch-rows", "5000"]).ok();
    run("free");
    run("small");
    let expected = contents(&star, "free");
    assert_eq!(expected[0].len(), 4 * CALLS as usize);
    assert_eq!(contents(&star, "small"), expected);

    // Users change their numbers: a third of the fact's rows are retracted.
    users(&star, 1);
    calls(&star, 4);
    run("free");
    let expected = contents(&star, "free");
    for kill in 0..3u32 {
        let mut running = star.spawn(&["run", "--target", "small", "--epoch-rows", "2500"], &[]);
        let versions =
            || std::fs::read_dir(star.path().join("small/default/fact/_delta_log")).map_or(0, Iterator::count);
        let before = versions();
        eventually("a commit, or the end", Duration::from_secs(60), || versions() > before || !running.is_running());
        std::thread::sleep(Duration::from_millis(u64::from(kill) * 60));
        running.kill();
    }
    run("small");
    assert_eq!(contents(&star, "small"), expected);
}

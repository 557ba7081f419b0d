//! A lake on a disk that is full: a clear error, no hang, valid tables, and exact rows once there is room again.
//!
//! The disk is a small tmpfs, which only root can mount; with `SMELT_REQUIRE_SERVICES=1` a test that cannot have it fails.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::{Sandbox, eventually};

const PROJECT: &str = "\
name: shop
target: dev
targets:
  dev: {lake: ./disk/lake, epoch: {max_files: 1}}
";

const SOURCES: &str = r#"
version: 2
sources:
  - name: shop
    config: {connector: files, format: json}
    tables:
      - name: notes
        config: {path: "data/notes-*.json"}
        columns:
          - {name: id, data_type: BIGINT}
          - {name: text, data_type: STRING}
"#;

const FILES: u64 = 8;
const ROWS: u64 = 1_000;

/// A mounted tmpfs; unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output();
        if mounted.as_ref().is_ok_and(|m| m.status.success()) {
            return Some(Disk(at.to_path_buf()));
        }
        assert!(std::env::var("SMELT_REQUIRE_SERVICES").as_deref() != Ok("1"), "cannot mount a tmpfs: {mounted:?}");
        eprintln!("skipped: a tmpfs cannot be mounted here");
        None
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Text that no codec makes much smaller.
fn noise(seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut text = String::new();
    while text.len() < 208 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("{:08x}", state >> 32));
    }
    text
}

fn project() -> Sandbox {
    let sandbox = Sandbox::with(&[
        ("smelt.yml", PROJECT),
        ("models/sources.yml", SOURCES),
        (
            "queries/notes.sql",
            "{{ config(materialized='streaming_table') }}\nselect id, text from {{ source('shop', 'notes') }}",
        ),
        ("queries/total.sql", "select count(*) as n, sum(id) as ids from {{ ref('notes') }}"),
    ]);
    for file in 0..FILES {
        let lines: String = (file * ROWS..(file + 1) * ROWS)
            .map(|id| format!("{{\"id\": {id}, \"text\": \"{}\"}}\n", noise(id)))
            .collect();
        sandbox.write(&format!("data/notes-{file}.json"), lines);
    }
    sandbox
}

#[track_caller]
fn assert_exact(sandbox: &Sandbox) {
    let rows = FILES * ROWS;
    let all = format!("{{\"n\":{rows},\"ids\":{}}}", rows * (rows - 1) / 2);
    assert_eq!(sandbox.rows("select * from total"), std::slice::from_ref(&all));
    assert_eq!(sandbox.rows("select count(distinct id) as n, sum(id) as ids from notes"), [all]);
    assert_eq!(sandbox.count("notes"), rows as i64);
}

#[test]
fn a_run_on_a_full_disk_fails_clearly_and_the_next_one_goes_on() {
    let sandbox = project();
    let Some(disk) = Disk::mount(&sandbox.path().join("disk"), "900k") else { return };
    let mut run = sandbox.spawn(&["run"], &[]);
    assert_eq!(run.wait(Duration::from_secs(60)), Some(2), "{}", run.log());
    let log = run.log();
    assert!(log.contains("error[disk-full]") && log.contains("No space left on device"), "{log}");
    assert!(log.contains("free space on the lake's disk"), "{log}");
    // What is committed can be read while the disk is full, and is a prefix of the input.
    let kept = sandbox.count("notes") as u64;
    assert!(kept < FILES * ROWS && kept.is_multiple_of(ROWS), "{kept}");
    disk.resize("50m");
    sandbox.smelt(&["run"]).ok();
    assert_exact(&sandbox);
}

#[test]
fn a_disk_that_fills_while_smelt_is_up_and_is_freed_again_costs_nothing() {
    let sandbox = project();
    let Some(disk) = Disk::mount(&sandbox.path().join("disk"), "900k") else { return };
    let mut up = sandbox.spawn(&["up"], &[]);
    eventually("it says that the disk is full", Duration::from_secs(60), || up.log().contains("error[disk-full]"));
    assert!(up.is_running(), "{}", up.log());
    disk.resize("50m");
    let rows = (FILES * ROWS) as i64;
    eventually("everything has arrived", Duration::from_secs(60), || sandbox.count("notes") == rows);
    assert_eq!(up.stop(), Some(0), "{}", up.log());
    sandbox.smelt(&["run"]).ok();
    assert_exact(&sandbox);
}

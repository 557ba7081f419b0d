//! The profile `ref` has its exact figures, the bytes depend on seed and options alone, and the manifest adds up.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

use super::event::spell;
use super::*;

fn all(options: Options) -> (Vec<GeneratedRecord>, Manifest) {
    let mut telecom = Telecom::new(options).unwrap();
    let records = telecom.by_ref().collect();
    (records, telecom.manifest())
}

fn count(records: &[GeneratedRecord], topic: &str, wanted: impl Fn(RecordKind) -> bool) -> usize {
    records.iter().filter(|r| r.topic == topic && wanted(r.kind)).count()
}

#[test]
fn the_reference_profile_has_its_exact_figures() {
    let (records, manifest) = all(Options::default());
    for (topic, base, duplicates, malformed, impossible, bronze) in
        [("call_event", 3250, 65, 20, 20, 3355), ("sms_event", 1750, 35, 10, 10, 1805)]
    {
        assert_eq!(count(&records, topic, |k| k == RecordKind::Base), base);
        assert_eq!(count(&records, topic, |k| k == RecordKind::Duplicate), duplicates);
        assert_eq!(count(&records, topic, |k| matches!(k, RecordKind::Malformed(_))), malformed);
        assert_eq!(count(&records, topic, |k| k == RecordKind::ImpossibleDate), impossible);
        assert_eq!(count(&records, topic, |_| true), bronze);
        let counted = &manifest.topics[topic];
        assert_eq!((counted.records, counted.base), (bronze as u64, base as u64));
        assert_eq!(counted.partitions.iter().sum::<u64>(), bronze as u64);
        assert!(counted.partitions.iter().all(|n| *n > 0), "every partition is used: {:?}", counted.partitions);
    }
    let rows = |table: &str| manifest.tables[table].rows;
    for (table, expected) in [
        ("bronze_call_events", 3355),
        ("bronze_sms_events", 1805),
        ("bronze_event_users", 1000),
        ("bronze_cell_sites", 166),
        ("bronze_device_tacs", 10),
        ("stg_call_events", 3315),
        ("stg_sms_events", 1785),
        ("silver_call_events", 3250),
        ("silver_sms_events", 1750),
        ("silver_quarantine", 60),
        ("silver_event_users", 500),
        ("silver_cell_sites", 83),
        ("silver_device_tacs", 5),
        ("dim_user", 500),
        ("dim_cell_site", 83),
        ("dim_device_tac", 5),
        ("dim_date", 7),
        ("dim_time", 1440),
        ("fact_events", 5000),
        ("gold_user_360", 500),
    ] {
        assert_eq!(rows(table), expected, "{table}");
    }
    let unknown = &manifest.unknown;
    assert_eq!((unknown.sender_id, unknown.sender_site_id, unknown.sender_device_id), (50, 25, 25));
}

#[test]
fn other_spellings_and_unknown_senders_are_disjoint_and_exact() {
    let (records, _) = all(Options::default());
    let population = Telecom::new(Options::default()).unwrap().population().clone();
    let phones: BTreeSet<&str> = population.users.iter().map(|u| u.phone.as_str()).collect();
    let sites: BTreeSet<&str> = population.sites.iter().map(|s| s.cell_id.as_str()).collect();
    let (mut spelled, mut phone, mut site, mut device, mut several) = (0, 0, 0, 0, 0);
    for record in records.iter().filter(|r| r.kind == RecordKind::Base) {
        let value: Value = serde_json::from_slice(&record.value).unwrap();
        let national = |side: &str| {
            let number = value[side]["number"].as_str().unwrap();
            number.len() == 11 && number.starts_with("01") && number.bytes().all(|b| b.is_ascii_digit())
        };
        let marks = [
            !national("from") || !national("to"),
            national("from") && !phones.contains(value["from"]["number"].as_str().unwrap()),
            !sites.contains(value["from"]["cell_site"].as_str().unwrap()),
            value["from"]["imei"].as_str().unwrap().starts_with("35999917"),
        ];
        for (mark, counter) in marks.into_iter().zip([&mut spelled, &mut phone, &mut site, &mut device]) {
            *counter += usize::from(mark);
        }
        several += usize::from(marks.into_iter().filter(|m| *m).count() > 1);
        assert_ne!(value["from"]["number"], value["to"]["number"], "nobody calls himself");
        assert!(sites.contains(value["to"]["cell_site"].as_str().unwrap()), "receivers are known");
    }
    assert_eq!((spelled, phone, site, device, several), (500, 50, 25, 25, 0));
}

#[test]
fn all_spellings_of_a_number_differ_and_mean_the_same() {
    let spellings: BTreeSet<String> = (0..8).map(|n| spell("01069334417", n)).collect();
    assert_eq!(spellings.len(), 8);
    for spelling in &spellings {
        let user = spelling.trim_start_matches("sip:").split('@').next().unwrap();
        let digits: String = user.chars().filter(char::is_ascii_digit).collect();
        assert!(digits.ends_with("1069334417"), "{spelling}");
    }
}

#[test]
fn the_bytes_depend_on_seed_and_options_alone() {
    let (one, first) = all(Options::default());
    let (two, second) = all(Options { rate: Some(10.0), ..Options::default() });
    assert_eq!(one, two);
    assert_eq!(first.tables, second.tables);
    let (other, _) = all(Options { seed: 2, ..Options::default() });
    assert_ne!(one, other);
}

#[test]
fn slices_put_together_are_the_whole() {
    let (whole, manifest) = all(Options::default());
    assert_eq!(whole.iter().map(|r| r.slice).collect::<BTreeSet<_>>(), (1..=7).collect());
    let mut together = Vec::new();
    for slice in 1..=7 {
        let (records, of_slice) = all(Options { slice: Some(slice), ..Options::default() });
        assert!(records.iter().all(|r| r.slice == slice));
        assert_eq!(of_slice.tables, manifest.tables, "the manifest is that of the whole");
        together.extend(records);
    }
    assert_eq!(together, whole);
    let strip = |mut r: GeneratedRecord| {
        r.slice = 0;
        r
    };
    let (hourly, _) = all(Options { slice_seconds: 3600, ..Options::default() });
    assert_eq!(hourly.into_iter().map(strip).collect::<Vec<_>>(), whole.into_iter().map(strip).collect::<Vec<_>>());
}

#[test]
fn what_is_mixed_in_never_changes_a_base_row() {
    let base = |records: Vec<GeneratedRecord>| -> Vec<GeneratedRecord> {
        records.into_iter().filter(|r| r.kind == RecordKind::Base).collect()
    };
    let (dirty, with) = all(Options { malformed: 0.1, duplicates: 0.3, ..Options::default() });
    let (clean, without) =
        all(Options { malformed: 0.0, duplicates: 0.0, impossible_dates: 0.0, ..Options::default() });
    assert_eq!(clean.len(), 5000);
    assert_eq!(base(dirty), base(clean));
    for table in ["silver_call_events", "silver_sms_events", "fact_events", "gold_user_daily"] {
        assert_eq!(with.tables[table], without.tables[table]);
    }
    assert_eq!(with.tables["silver_quarantine"].rows, 530);
}

#[test]
fn repeats_are_the_same_bytes_later_in_the_same_partition() {
    let (records, _) = all(Options::default());
    let mut originals: BTreeMap<&[u8], &GeneratedRecord> = BTreeMap::new();
    let mut repeats = 0;
    for record in &records {
        match record.kind {
            RecordKind::Base => assert!(originals.insert(&record.value, record).is_none(), "base rows are distinct"),
            RecordKind::Duplicate => {
                let original = originals[record.value.as_slice()];
                assert_eq!((original.partition, &original.key), (record.partition, &record.key));
                assert!(original.timestamp_micros < record.timestamp_micros);
                repeats += 1;
            }
            _ => {}
        }
    }
    assert_eq!(repeats, 100);
}

#[test]
fn records_ascend_in_time_and_happen_when_they_are_sent() {
    let options = Options::default();
    let (records, _) = all(options.clone());
    assert!(records.is_sorted_by_key(|r| r.timestamp_micros));
    for record in &records {
        let second = record.timestamp_micros / 1_000_000;
        assert!((options.start..options.end()).contains(&second));
        if record.kind == RecordKind::Base {
            let value: Value = serde_json::from_slice(&record.value).unwrap();
            let text = chrono::DateTime::from_timestamp(second, 0).unwrap().format("%d-%m-%Y %H:%M:%S").to_string();
            assert_eq!(value["timestamp"], text);
            assert_eq!(value["from"]["number"].as_str().unwrap().as_bytes(), record.key);
        }
    }
}

#[test]
fn every_malformed_kind_is_bad_and_one_line() {
    let (records, manifest) = all(Options { malformed: 0.2, ..Options::default() });
    let mut seen = BTreeMap::new();
    for record in &records {
        let RecordKind::Malformed(kind) = record.kind else { continue };
        *seen.entry(kind).or_insert(0u64) += 1;
        assert!(!record.value.contains(&b'\n'));
        let value = serde_json::from_slice::<Value>(&record.value);
        let number = if record.topic == "call_event" { "call_duration_seconds" } else { "customer_id" };
        match kind {
            Malformed::Array => assert!(value.unwrap().is_array()),
            Malformed::WrongType => assert_eq!(value.unwrap()[number], "abc"),
            Malformed::Empty => assert!(record.value.is_empty()),
            Malformed::InvalidUtf8 => assert!(std::str::from_utf8(&record.value).is_err()),
            Malformed::Truncated | Malformed::PlainText => {
                assert!(value.is_err() && std::str::from_utf8(&record.value).is_ok());
            }
        }
    }
    assert_eq!(seen.len(), 6);
    let kinds: u64 = manifest.topics.values().flat_map(|t| t.malformed_kinds.values()).sum();
    assert_eq!(kinds, seen.values().sum::<u64>());
    let (least, most) = (seen.values().min().unwrap(), seen.values().max().unwrap());
    assert!(most - least <= 2, "kinds rotate: {seen:?}");
}

#[test]
fn impossible_dates_parse_and_are_in_no_calendar() {
    let (records, _) = all(Options::default());
    for record in records.iter().filter(|r| r.kind == RecordKind::ImpossibleDate) {
        let value: Value = serde_json::from_slice(&record.value).unwrap();
        let text = value["timestamp"].as_str().unwrap();
        assert_eq!(text.len(), 19);
        assert!(chrono::NaiveDateTime::parse_from_str(text, "%d-%m-%Y %H:%M:%S").is_err(), "{text}");
    }
}

#[test]
fn records_have_the_shape_of_the_examples() {
    let examples = [
        r#"{"event_type":"call","sid":"CA100004117","from":{"number":"01069334417","cell_site":"CELL00017","imei":"358461032290415","customer_id":1042,"plan_type":"Postpaid"},"to":{"number":"01255510923","cell_site":"CELL00061","imei":"358462701184420","customer_id":1377,"plan_type":"Prepaid"},"call_duration_seconds":754,"status":"completed","timestamp":"07-01-2026 14:05:12","call_type":"Local","billing_info":{"amount":2.01,"currency":"EGP"}}"#,
        r#"{"event_type":"sms","sid":"SM100000902","from":{"number":"01069334417","cell_site":"CELL00017","imei":"358461032290415","customer_id":1042,"plan_type":"Postpaid"},"to":{"number":"01511087765","cell_site":"CELL00002","imei":"869453037715506","customer_id":1200,"plan_type":"Prepaid"},"body":"Running late, start without me","status":"delivered","timestamp":"08-01-2026 09:12:30","customer_id":1042,"registration_date":"2025-06-14","billing_info":{"amount":1.75,"currency":"EGP"}}"#,
    ];
    fn shape(value: &Value) -> Value {
        match value {
            Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
            Value::String(_) => "text".into(),
            Value::Number(_) => "number".into(),
            other => other.clone(),
        }
    }
    let (records, _) = all(Options::default());
    for (topic, example) in ["call_event", "sms_event"].into_iter().zip(examples) {
        let expected = shape(&serde_json::from_str(example).unwrap());
        for record in records.iter().filter(|r| r.topic == topic && r.kind == RecordKind::Base) {
            let value: Value = serde_json::from_slice(&record.value).unwrap();
            assert_eq!(shape(&value).to_string(), expected.to_string(), "members and their order");
            if topic == "call_event" {
                let seconds = value["call_duration_seconds"].as_u64().unwrap();
                let cents = (value["billing_info"]["amount"].as_f64().unwrap() * 100.0).round() as u64;
                assert_eq!(cents, (seconds * 16 + 30) / 60);
                let connected = ["ringing", "in-progress", "completed"].contains(&value["status"].as_str().unwrap());
                assert!(if connected { (60..=3600).contains(&seconds) } else { seconds == 0 });
            }
        }
    }
}

#[test]
fn the_manifest_adds_up() {
    let (_, manifest) = all(Options::default());
    let cents = |text: &str| text.replace('.', "").parse::<u64>().unwrap();
    for (user, days) in manifest
        .users
        .iter()
        .map(|u| (u, manifest.user_daily.iter().filter(|d| d.user_id == u.user_id).collect::<Vec<_>>()))
    {
        assert_eq!(user.calls, days.iter().map(|d| d.calls).sum::<u64>());
        assert_eq!(user.messages, days.iter().map(|d| d.messages).sum::<u64>());
        assert_eq!(user.seconds, days.iter().map(|d| d.seconds).sum::<u64>());
        assert_eq!(cents(&user.amount), days.iter().map(|d| cents(&d.amount)).sum::<u64>());
    }
    let events: u64 = manifest.users.iter().map(|u| u.calls + u.messages).sum();
    assert_eq!(events, 5000 - manifest.unknown.sender_id, "all but those of unknown senders");
    assert_eq!(manifest.tables["gold_user_daily"].rows, manifest.user_daily.len() as u64);
    assert_eq!(manifest.event_dates.len(), 7);
    assert_eq!((manifest.event_dates[0].as_str(), manifest.event_dates[6].as_str()), ("2026-01-05", "2026-01-11"));
    let text = serde_json::to_string(&manifest).unwrap();
    assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), manifest);
}

#[test]
fn shares_scale_with_the_number_of_events() {
    let (records, manifest) = all(Options { events: 200_000, ..Options::default() });
    assert_eq!(records.len(), 200_000 + 4000 + 1200 + 1200);
    assert_eq!(manifest.tables["fact_events"].rows, 200_000);
    assert_eq!(manifest.tables["silver_quarantine"].rows, 2400);
    assert_eq!(manifest.unknown.sender_id, 2000);
    for events in [0, 1, 7, 100] {
        let (_, manifest) = all(Options { events, ..Options::default() });
        assert_eq!(manifest.tables["fact_events"].rows, events);
    }
}

#[test]
fn files_hold_the_values_line_by_line() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { slice_seconds: 12 * 3600, ..Options::default() };
    let manifest = to_dir(options.clone(), dir.path()).unwrap();
    let (records, expected) = all(options);
    assert_eq!(manifest, expected);
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for record in &records {
        let name = format!("{}/slice-{:04}-partition-{}.ndjson", record.topic, record.slice, record.partition);
        let file = files.entry(name).or_default();
        file.extend_from_slice(if record.value.is_empty() { b"\"\"" } else { &record.value });
        file.push(b'\n');
    }
    assert_eq!(files.len(), 2 * 3 * 14);
    for (name, content) in &files {
        assert_eq!(&std::fs::read(dir.path().join(name)).unwrap(), content, "{name}");
    }
    let written: Manifest = serde_json::from_slice(&std::fs::read(dir.path().join("manifest.json")).unwrap()).unwrap();
    assert_eq!(written, manifest);
    let lines = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap().lines().count();
    assert_eq!((lines("event_users/load-1.ndjson"), lines("event_users/load-2.ndjson")), (500, 500));
    assert_eq!((lines("cell_sites/load-1.ndjson"), lines("device_tacs/load-2.ndjson")), (83, 5));
    let names = std::fs::read_dir(dir.path().join("call_event")).unwrap();
    assert!(names.map(|n| n.unwrap().file_name().into_string().unwrap()).all(|n| n.ends_with(".ndjson")));
}

/// Another number here means other bytes for the same seed: everybody's expected figures change with it.
#[test]
fn the_bytes_of_the_reference_profile_are_pinned() {
    let (_, manifest) = all(Options::default());
    let checksum = |table: &str| manifest.tables[table].checksum.clone();
    let pinned = [checksum("bronze_call_events"), checksum("bronze_sms_events"), checksum("bronze_event_users")];
    assert_eq!(pinned, ["1949619108703799334862", "1037002429123211925579", "562693657509249582144"]);
}

//! `smelt docs`: the page of the sample project, looked at in a real browser.

use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::artifacts::{artifact, shop, valid};
use crate::python;
use crate::support::{Sandbox, eventually};

/// Chromium, where `scripts/setup.sh test` has put it. Fails when services are required and it is missing.
fn chromium() -> Option<PathBuf> {
    let found = ["chromium", "chromium-browser", "google-chrome"].iter().find_map(|name| {
        std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(name)).find(|p| p.exists())
    });
    if found.is_none() {
        assert!(
            std::env::var_os("SMELT_REQUIRE_SERVICES").is_none_or(|v| v != "1"),
            "SMELT_REQUIRE_SERVICES=1, but there is no Chromium: run scripts/setup.sh test"
        );
        eprintln!("skipped: no Chromium (scripts/setup.sh test installs it)");
    }
    found
}

/// What scripts find in the page at `url`, and last its requests and errors.
fn browse(chromium: &Path, url: &str, scripts: &[&str]) -> Vec<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/browse.py");
    let mut child = Command::new(python::python())
        .arg(script)
        .arg(chromium)
        .arg(url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for line in scripts {
        writeln!(stdin, "{}", json!(line)).unwrap();
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The sample project in a folder of its own.
fn sample() -> Sandbox {
    let sandbox = Sandbox::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["smelt.yml", "models", "queries", "macros"] {
        let copied = Command::new("cp").arg("-r").arg(root.join(name)).arg(sandbox.path()).status().unwrap();
        assert!(copied.success());
    }
    sandbox
}

const SEARCH: &str = "(() => { const i = document.querySelector('#search'); i.focus(); i.value = 'sender_e164'; \
                      i.dispatchEvent(new Event('input')); \
                      return document.querySelector('#results').innerText; })()";
const OPEN_FIRST: &str = "(() => { document.querySelector('#search').dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter' })); \
                          return new Promise(done => setTimeout(() => done(document.querySelector('h1').textContent + ' ' + \
                          document.querySelector('tr.at td').textContent), 300)); })()";

#[test]
fn the_page_shows_the_sample_project() {
    let Some(chromium) = chromium().filter(|_| python::available()) else { return };
    let sandbox = sample();
    sandbox.smelt(&["generate", "--to-dir", "data", "--events", "300"]).ok();
    sandbox.smelt(&["build", "--target", "files"]).ok();
    sandbox.smelt(&["docs", "generate", "--target", "files"]).ok();
    let manifest = artifact(&sandbox, "manifest.json");
    let models = manifest["nodes"].as_object().unwrap().keys().filter(|id| !id.starts_with("test.")).count();
    assert_eq!(models, 24);
    let shown = models + manifest["sources"].as_object().unwrap().len();
    let among = |id: &str| !id.starts_with("test.");
    let edges: usize = manifest["parent_map"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(id, _)| among(id))
        .map(|(_, parents)| parents.as_array().unwrap().len())
        .sum();

    let mut served = sandbox.spawn(&["docs", "serve", "--port", "0", "--no-browser"], &[]);
    let url = || {
        served.log().split_whitespace().find(|w| w.starts_with("http://")).map(|w| w.trim_end_matches(';').to_string())
    };
    eventually("it serves", Duration::from_secs(60), || url().is_some());
    let url = url().unwrap();
    let found = browse(
        &chromium,
        &url,
        &[
            "document.querySelectorAll('#tree a[data-id^=\"model.\"], #tree a[data-id^=\"snapshot.\"]').length",
            "document.querySelectorAll('#lineage .node').length",
            "document.querySelectorAll('#lineage .edge').length",
            "document.querySelector('#lineage [data-from=\"model.telecom.dim_user\"][data-to=\"model.telecom.fact_events\"]') !== null",
            SEARCH,
            OPEN_FIRST,
            "[...document.querySelectorAll('table.columns tbody tr')].length > 20",
            "[...document.querySelectorAll('.facts dt')].map(d => d.textContent).join()",
            "document.querySelector('#code').innerText.includes('{{ ref(')",
        ],
    );
    assert_eq!(found[..4], [json!(24), json!(shown), json!(edges), json!(true)]);
    assert!(found[4].as_str().unwrap().contains("column sender_e164"), "{}", found[4]);
    assert_eq!(found[5], "silver_call_events sender_e164", "Enter opens the best hit at its column");
    assert_eq!(found[6], true);
    assert!(found[7].as_str().unwrap().starts_with("Rows,Size,Files,Version,Last commit"), "{}", found[7]);
    assert_eq!(found[8], true);
    let last = found.last().unwrap();
    assert_eq!(last["errors"], json!([]));
    for request in last["requests"].as_array().unwrap() {
        assert!(request.as_str().unwrap().starts_with(&url), "{request} is asked for");
    }
    assert_eq!(served.stop(), Some(0));
}

#[test]
fn a_static_page_opens_from_the_disk() {
    let Some(chromium) = chromium().filter(|_| python::available()) else { return };
    let sandbox = shop();
    sandbox.smelt(&["run"]).ok();
    sandbox.smelt(&["docs", "generate", "--static"]).ok();
    let page = sandbox.path().join("target/index.html");
    let url = format!("file://{}", page.display());
    let found = browse(
        &chromium,
        &url,
        &[
            "document.querySelectorAll('#lineage .node').length",
            "location.hash = '/node/model.shop.orders'; new Promise(done => setTimeout(() => done(document.querySelector('.lead strong').textContent), 300))",
        ],
    );
    assert_eq!(found[..2], [json!(6), json!("as sold")]);
    assert_eq!(found[2], json!({"requests": [url], "errors": []}));
}

#[test]
fn the_catalog_says_what_the_tables_hold() {
    let sandbox = shop();
    sandbox.smelt(&["docs", "serve"]).fails(2, "smelt docs generate");
    sandbox.smelt(&["run"]).ok();
    sandbox.smelt(&["docs", "generate"]).ok();
    let catalog = artifact(&sandbox, "catalog.json");
    let orders = &catalog["nodes"]["model.shop.orders"];
    assert_eq!(
        orders["columns"]["amount"],
        json!({"type": "DECIMAL(10,2)", "index": 2, "name": "amount", "comment": null})
    );
    assert_eq!(
        (&orders["stats"]["num_rows"]["value"], &orders["stats"]["num_files"]["value"]),
        (&json!(2.0), &json!(1.0))
    );
    assert_eq!(catalog["nodes"]["model.shop.rich"]["metadata"]["type"], "view");
    // The run's results stay on the page, although run_results.json now says what compiled.
    assert_eq!(artifact(&sandbox, "last_results.json")["args"]["which"], "run");
    assert_eq!(artifact(&sandbox, "run_results.json")["args"]["which"], "generate");
    sandbox.remove("target/last_results.json");
    valid(&sandbox, &["catalog.json", "manifest.json", "run_results.json"]);
}

//! The Python in the README runs as it stands there, on the sample's tables.

use std::path::Path;
use std::process::Command;

use crate::{python, sample};

#[test]
fn the_python_of_the_readme_reads_the_tables() {
    if !python::available() {
        return;
    }
    let sandbox = sample::sample();
    sandbox.smelt(&["generate", "--to-dir", "data"]).ok();
    sandbox.smelt(&["run", "--target", "files", "--lake", "lake"]).ok();
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let snippets: Vec<&str> =
        readme.split("```python\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(snippets.len() >= 2, "the README shows how to read with deltalake and with DuckDB");
    for snippet in snippets {
        let output = Command::new(python::python()).current_dir(sandbox.path()).args(["-c", snippet]).output().unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{snippet}\n{stderr}");
        assert!(stdout.contains("3250") && stdout.contains("1750"), "{snippet}\n{stdout}");
    }
}

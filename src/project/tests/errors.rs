//! Every kind of error, as a person reads it: the cases stand in `golden/*.txt`.
//!
//! A case is `##### title`, files (`=== path`), and after `=== errors` what loading them says. `smelt.yml` is the tests' common one
//! unless given. `UPDATE_GOLDEN=1 cargo test` writes what is said now: read the difference before you commit it.

use std::path::PathBuf;

use super::Folder;

struct Case {
    title: String,
    files: Vec<(String, String)>,
    expected: String,
}

fn parse(text: &str) -> Vec<Case> {
    let case = |part: &str| {
        let (title, rest) = part.split_once('\n').unwrap();
        let mut case = Case { title: title.trim().to_string(), files: Vec::new(), expected: String::new() };
        for section in rest.split("=== ").skip(1) {
            let (name, content) = section.split_once('\n').unwrap_or((section, ""));
            match name.trim() {
                "errors" => case.expected = content.trim_end().to_string(),
                path => case.files.push((path.to_string(), format!("{}\n", content.trim_end()))),
            }
        }
        case
    };
    text.split("##### ").skip(1).map(case).collect()
}

fn run(case: &Case) -> String {
    let files: Vec<(&str, &str)> = case.files.iter().map(|(p, c)| (p.as_str(), c.as_str())).collect();
    let folder = Folder::new(&files).with_vars(&[("SMELT_SECRET_SALT", "pepper")]);
    let said = folder.errors();
    // Every error of these cases stands in a file the user wrote, unless there is no file to stand in.
    let dir = folder.path().to_string_lossy().into_owned();
    said.replace(&dir, "DIR")
}

#[test]
#[allow(clippy::disallowed_methods)]
fn golden() {
    let update = std::env::var("UPDATE_GOLDEN").is_ok();
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/project/tests/golden");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    let mut differences = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let cases = parse(&text);
        assert!(!cases.is_empty(), "{} has no cases", path.display());
        let mut out = String::new();
        for case in &cases {
            let said = run(case);
            if said != case.expected {
                differences.push(format!(
                    "{}: {}\n--- expected\n{}\n--- said\n{said}\n",
                    path.display(),
                    case.title,
                    case.expected
                ));
            }
            out.push_str(&format!("##### {}\n", case.title));
            for (file, content) in &case.files {
                out.push_str(&format!("=== {file}\n{content}"));
            }
            out.push_str(&format!("=== errors\n{said}\n\n"));
        }
        if update {
            std::fs::write(&path, out).unwrap();
        }
    }
    assert!(update || differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn a_folder_without_a_project() {
    let folder = Folder::new(&[]);
    std::fs::remove_file(folder.path().join("smelt.yml")).unwrap();
    let dir = folder.path().to_string_lossy().into_owned();
    assert_eq!(
        folder.errors().replace(&dir, "DIR"),
        "error[no-project]: no smelt.yml or dbt_project.yml in DIR\n  = start one with `smelt init`, or name the folder with --project-dir"
    );
}

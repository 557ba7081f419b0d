//! `smelt init`: a small project that runs at once, on orders that a `datagen` source makes up.
//!
//! Its files stand in `init/` as they are written, with the project's name for `{name}`. Existing files are kept.

use std::path::Path;

use super::session::Session;
use super::{Exit, print};
use crate::error::{Error, Result};

/// Path in the project, text.
const FILES: [(&str, &str); 7] = [
    ("smelt.yml", include_str!("init/smelt.yml")),
    ("models/shop.yml", include_str!("init/models/shop.yml")),
    ("queries/bronze/bronze_orders.sql", include_str!("init/queries/bronze/bronze_orders.sql")),
    ("queries/silver/silver_orders.sql", include_str!("init/queries/silver/silver_orders.sql")),
    ("queries/gold/gold_customers.sql", include_str!("init/queries/gold/gold_customers.sql")),
    ("README.md", include_str!("init/README.md")),
    (".gitignore", include_str!("init/gitignore")),
];

pub(super) fn init(session: &Session, path: &Path) -> Result<Exit> {
    let folder = std::path::absolute(session.dir.join(path))?;
    for project in ["smelt.yml", "smelt.yaml", "dbt_project.yml"] {
        if folder.join(project).exists() {
            return Err(Error::user("exists", format!("{} already holds a project ({project})", folder.display()))
                .with_hint("name another folder: smelt init PATH"));
        }
    }
    let name = project_name(&folder);
    let mut kept = Vec::new();
    for (file, content) in FILES {
        let target = folder.join(file);
        if target.exists() {
            kept.push(file);
            continue;
        }
        let unwritable = |e: std::io::Error| {
            Error::environment("unwritable-project", format!("cannot write {}: {e}", target.display()))
                .permanent()
                .with_hint("choose a folder you may write to")
        };
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).map_err(unwritable)?;
        }
        std::fs::write(&target, content.replace("{name}", &name)).map_err(unwritable)?;
    }
    session.say(&format!("made project {name} in {}: {} files", folder.display(), FILES.len() - kept.len()));
    if !kept.is_empty() {
        session.say(&format!("kept what was there: {}", kept.join(", ")));
    }
    session.say("Next:");
    if folder != session.dir {
        print::line(&format!("  cd {}", shell_word(&path.to_string_lossy())));
    }
    print::line("  smelt run                   # orders → bronze_orders → silver_orders → gold_customers");
    print::line("  smelt show gold_customers   # what each customer has ordered");
    print::line("  smelt test                  # the data tests of models/shop.yml");
    print::line("  smelt up                    # goes on until Ctrl-C; edit a query meanwhile");
    Ok(Exit::Success)
}

/// The folder's name, in letters that a project's name may have.
fn project_name(folder: &Path) -> String {
    let name = folder.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.chars().any(|c| c.is_ascii_alphabetic()) { name } else { "shop".to_string() }
}

/// `text` as a shell reads it as one word.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    match text.chars().all(plain) {
        true => text.to_string(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_the_project_its_name() {
        for (folder, name) in [("/x/shop", "shop"), ("/x/My Shop-2", "my_shop_2"), ("/x/2026", "shop"), ("/", "shop")] {
            assert_eq!(project_name(Path::new(folder)), name);
        }
    }

    #[test]
    fn a_path_to_paste() {
        assert_eq!(shell_word("a/b-1.x"), "a/b-1.x");
        assert_eq!(shell_word("my shop's"), r"'my shop'\''s'");
    }
}

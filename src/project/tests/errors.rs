//! Every kind of error, as a person reads it.

use super::Folder;

#[test]
fn x() {
    assert_eq!(Folder::new(&[("queries/a.sql", "select 1")]).errors(), "no errors");
}

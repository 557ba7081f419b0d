//! A tree is read exactly where a record decodes.

use super::Tree;

#[test]
fn trees_keep_numbers_and_texts_as_written() {
    let tree = Tree::record(br#" {"a": [1.50, -0, "x\u00e9\n"], "b": {"c": null, "c": true}} "#).unwrap();
    let number = |text: &str| Tree::Number(text.into());
    assert_eq!(tree.get("a"), Some(&Tree::List(vec![number("1.50"), number("-0"), Tree::Text("xé\n".into())])));
    assert_eq!(tree.get("b").and_then(|b| b.get("c")), Some(&Tree::Boolean(true)), "the last of duplicate keys");
}

#[test]
fn what_is_no_object_says_why() {
    for (record, reason) in [
        ("", "the record is empty"),
        ("[1]", "the record is no object"),
        ("{\"a\": 1,}", "a key in double quotes"),
        ("{\"a\": [1,]}", "a value"),
        ("{\"a\": 1} x", "after the end of the record"),
        ("{\"a\": 01}", "line 1 column"),
    ] {
        let error = Tree::record(record.as_bytes()).unwrap_err();
        assert!(error.contains(reason), "{record}: {error}");
    }
    assert!(Tree::record(b"{\"a\": \"\xff\"}").unwrap_err().contains("invalid UTF-8"));
}

//! The page itself: one HTML file with its style and script inside.

use serde_json::Value as Json;

const HTML: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/style.css");
const SCRIPT: [&str; 2] = [include_str!("page/graph.js"), include_str!("page/app.js")];

/// A page that fetches its data beside itself.
pub(super) fn beside_data() -> String {
    page("")
}

/// A page that has its data inside: it opens from a disk, where browsers do not let a page fetch.
pub(super) fn with_data(data: &Json) -> String {
    // `</script>` in a text would end the element, and `<!--` changes how it is read.
    let json = data.to_string().replace('<', "\\u003c");
    page(&format!("<script type=\"application/json\" id=\"data\">{json}</script>"))
}

fn page(data: &str) -> String {
    // The data last: nothing in it is a place to fill in.
    let page = HTML.replace("/*STYLE*/", STYLE).replace("/*SCRIPT*/", &SCRIPT.concat());
    page.replacen("<!--DATA-->", data, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_cannot_leave_its_element() {
        let page = with_data(&serde_json::json!({"sql": "</script><script>alert(1)</script><!--DATA-->"}));
        assert_eq!(page.matches("</script>").count(), 2, "one for the data, one for the script");
        assert!(!page.contains("alert(1)</script>"));
    }

    #[test]
    fn the_page_asks_no_other_host_for_anything() {
        let page = beside_data();
        for outside in ["src=\"http", "href=\"http", "@import", "url(http", "//cdn"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(!page.contains("/*STYLE*/") && !page.contains("/*SCRIPT*/"));
    }
}

//! From minijinja's errors to ours: the place in the file, the name that is wrong, and what to do.

use std::error::Error as _;
use std::ops::Range;

use minijinja::{Environment, ErrorKind};

use super::template::Template;
use super::{Engine, MACROS, MacroFile};
use crate::error::{Error, Span};
use crate::project::problems::suggest;
use crate::project::yaml::Node;

impl Engine {
    /// The error of rendering `template`.
    pub(super) fn failure(
        &self,
        error: &minijinja::Error,
        template: &Template,
        environment: Option<&Environment<'_>>,
    ) -> Error {
        let (error, own) = innermost(error);
        let place = self.place(error, template);
        let mut names: Vec<String> =
            environment.map(|e| e.globals().map(|(n, _)| n.to_string()).collect()).unwrap_or_default();
        names.extend(self.macros.iter().flat_map(|m| &m.template.macros).map(|(name, _)| name.clone()));
        names.extend(template.names.iter().cloned());
        if let Some(macros) =
            place.as_ref().and_then(|(in_template, _)| (in_template.file != template.file).then_some(in_template))
        {
            names.extend(macros.names.iter().cloned());
        }
        let undefined = match (error.kind(), &place) {
            (ErrorKind::UndefinedError, Some((in_template, range))) => undefined_name(in_template, range),
            _ => None,
        };
        let name = undefined.clone().and_then(|range| place.as_ref()?.0.text.content.get(range));
        let mut failure = describe(error, own, &names, name);
        if let (ErrorKind::SyntaxError, Some(start)) = (error.kind(), template.unclosed) {
            // minijinja notices at the end of the file.
            return Error::user("jinja-syntax", "invalid Jinja: this tag is not closed")
                .with_hint("it ends with }} or %}, and quotes inside it are closed")
                .with_span(template.text.span(start, usize::MAX / 2));
        }
        if let Some((in_template, range)) = place {
            failure = failure.with_span(span(in_template, undefined.unwrap_or(range), error.kind()));
            if in_template.file != template.file {
                let hint = failure.hint().map(|h| format!("{h} ")).unwrap_or_default();
                failure = failure.with_hint(format!("{hint}(rendering {})", template.text.file.display()));
            }
        } else {
            failure = failure.with_span(template.text.span(0, 1));
        }
        failure
    }

    /// The error of rendering a YAML value: it stands where the value stands.
    pub(super) fn yaml_failure(&self, error: &minijinja::Error, at: &Node, environment: &Environment<'_>) -> Error {
        let (error, own) = innermost(error);
        let names: Vec<String> = environment.globals().map(|(n, _)| n.to_string()).collect();
        let failure = describe(error, own, &names, None).with_span(at.span());
        match failure.hint() {
            // In YAML there is nothing before the expression that could set a variable.
            Some(hint) if hint.starts_with("define it") => {
                failure.with_hint("values come from var('…'), env_var('…') and target")
            }
            _ => failure,
        }
    }

    /// The template and the byte range in its file where `error` stands.
    fn place<'a>(&'a self, error: &minijinja::Error, template: &'a Template) -> Option<(&'a Template, Range<usize>)> {
        let range = error.range()?;
        if let Some(package) = error.name().and_then(|n| n.strip_prefix(MACROS)?.strip_prefix(':')) {
            let MacroFile { template, start, .. } =
                self.macros.iter().rev().find(|m| m.package == package && m.start <= range.start)?;
            let map = |offset: usize| template.in_file(offset.saturating_sub(*start));
            return Some((template, map(range.start)..map(range.end)));
        }
        // In front of the template's own text stands what brings the macros in.
        let prefix = error.template_source().map_or(0, |s| s.len().saturating_sub(template.jinja.len()));
        let map = |offset: usize| template.in_file(offset.saturating_sub(prefix));
        Some((template, map(range.start)..map(range.end)))
    }
}

fn span(template: &Template, range: Range<usize>, kind: ErrorKind) -> Span {
    let content = &template.text.content;
    let mut range = range.start.min(content.len())..range.end.min(content.len()).max(range.start.min(content.len()));
    if matches!(kind, ErrorKind::UnknownFunction) {
        // Of a call only the name is wrong.
        let name = content[range.clone()].find(|c: char| !(c.is_alphanumeric() || c == '_'));
        range.end = name.filter(|n| *n > 0).map_or(range.end, |n| range.start + n);
    }
    template.text.span(range.start, range.len())
}

/// The error that was raised first, and our own error when it carries one.
fn innermost(error: &minijinja::Error) -> (&minijinja::Error, Option<&Error>) {
    let mut deepest = error;
    let mut own = None;
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(cause) = cause.downcast_ref::<minijinja::Error>() {
            if cause.range().is_some() {
                deepest = cause;
            }
        } else if let Some(cause) = cause.downcast_ref::<Error>() {
            own = Some(cause);
        }
        source = cause.source();
    }
    (deepest, own)
}

/// Where the name of an undefined value stands: the path that `range` begins with, or the one in front of the filter that
/// `range` names.
fn undefined_name(template: &Template, range: &Range<usize>) -> Option<Range<usize>> {
    let content = &template.text.content;
    let is_path = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
    let name = match content.get(..range.start)?.trim_end().strip_suffix('|') {
        Some(value) => {
            let value = value.trim_end();
            value.rfind(|c| !is_path(c)).map_or(0, |i| i + 1)..value.len()
        }
        None => {
            let inside = content.get(range.clone())?;
            range.start..range.start + inside.find(|c| !is_path(c)).unwrap_or(inside.len())
        }
    };
    content[name.clone()].starts_with(|c: char| c.is_alphabetic() || c == '_').then_some(name)
}

fn describe(error: &minijinja::Error, own: Option<&Error>, names: &[String], undefined: Option<&str>) -> Error {
    if let Some(own) = own {
        return own.clone();
    }
    let detail = error.detail().unwrap_or("");
    let near = |name: &str| suggest(name, names.iter().map(String::as_str), "known names");
    match error.kind() {
        ErrorKind::UndefinedError => match detail.split('`').nth(1).or(undefined) {
            Some(path) => {
                let failure = Error::user("undefined-variable", format!("`{path}` is not defined"));
                match path.rsplit_once('.') {
                    Some((base, _)) => {
                        failure.with_hint(format!("`{base}` has no such member; give a default: {path} | default(…)"))
                    }
                    None => failure.with_hint(
                        crate::error::did_you_mean(path, names.iter().map(String::as_str)).map_or_else(
                            || format!("define it: {{% set {path} = … %}}, or use var('{path}')"),
                            |near| format!("did you mean `{near}`?"),
                        ),
                    ),
                }
            }
            None => Error::user("undefined-variable", "an undefined value is used"),
        },
        ErrorKind::UnknownFunction => {
            let name = detail.trim_end_matches(" is unknown");
            Error::user("unknown-macro", format!("no macro or function `{name}`")).with_hint(near(name))
        }
        ErrorKind::UnknownFilter => {
            let name = detail.split_whitespace().nth(1).unwrap_or("");
            Error::user("unknown-filter", format!("no filter `{name}`"))
                .with_hint("filters: https://docs.rs/minijinja/latest/minijinja/filters/")
        }
        ErrorKind::SyntaxError => {
            let failure = Error::user("jinja-syntax", format!("invalid Jinja: {detail}"));
            match detail.strip_prefix("unknown statement ") {
                Some("snapshot") => failure.with_hint("write {% snapshot name %} … {% endsnapshot %} in a file of queries, or declare it in YAML under `snapshots:`"),
                Some("docs") => failure.with_hint("docs blocks stand in Markdown files (*.md)"),
                Some("materialization") => {
                    failure.with_hint("smelt makes tables itself: docs/jinja.md, “Not there”")
                }
                Some(name) if names.iter().any(|known| known == name) || ["ref", "source", "var"].contains(&name) => {
                    failure.with_hint(format!("a value is written {{{{ {name}(…) }}}}"))
                }
                None if detail.contains("end of input") => {
                    failure.with_hint("is an {% endif %}, {% endfor %} or {% endmacro %} missing?")
                }
                _ => failure,
            }
        }
        ErrorKind::InvalidOperation if !detail.is_empty() => Error::user("jinja", detail),
        ErrorKind::TooManyArguments | ErrorKind::MissingArgument => Error::user(
            "bad-call",
            if detail.is_empty() { error.kind().to_string() } else { format!("{}: {detail}", error.kind()) },
        ),
        kind => Error::user("jinja", if detail.is_empty() { kind.to_string() } else { format!("{kind}: {detail}") }),
    }
}

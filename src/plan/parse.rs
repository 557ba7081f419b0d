//! SQL text → tokens → AST.
//!
//! The tokens are kept between attempts: [`super::resolve`] corrects the spelling of single words (a column written in
//! another case than its schema's) in place, so that every syntactic position is covered and every place keeps its span.
//!
//! `FROM STREAM x` and `FROM STREAM(x)` are ours, not SQL's: the mark is taken out of the tokens here and remembered by
//! the place of the relation that follows it.

use datafusion::sql::sqlparser::ast::{Query, SetExpr};
use datafusion::sql::sqlparser::dialect::Dialect as SqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError, ParserOptions};
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};
use std::collections::{BTreeMap, BTreeSet};

use super::fault::{Fault, Place};
use super::time_windows::FUNCTIONS;
use super::{advice, precedence};

/// (line, column) of a token's first character.
pub(crate) type At = (u64, u64);

pub(crate) fn at(location: Location) -> At {
    (location.line, location.column)
}

/// The tokens of one query.
#[derive(Debug, Clone)]
pub(crate) struct Sql {
    tokens: Vec<TokenWithSpan>,
    /// Relations marked STREAM, by their first word.
    pub streamed: BTreeSet<At>,
    /// Words whose spelling was corrected, with the spelling that was written.
    pub respelled: BTreeMap<At, String>,
}

impl Sql {
    pub fn tokenize(text: &str, dialect: &dyn SqlDialect) -> Result<Self, Fault> {
        let mut tokens = Vec::new();
        Tokenizer::new(dialect, text).tokenize_with_location_into_buf(&mut tokens).map_err(|e| {
            let place = Place { line: e.location.line, column: e.location.column, width: 1 };
            let fault = Fault::new("syntax", e.message).at(Some(place));
            match advice::syntax(&fault.message) {
                Some(hint) => fault.hint(hint),
                None => fault,
            }
        })?;
        let mut sql = Sql { tokens, streamed: BTreeSet::new(), respelled: BTreeMap::new() };
        sql.take_stream_marks();
        sql.free_offset();
        Ok(sql)
    }

    /// Takes out every STREAM mark (and the parentheses of `STREAM(x)`).
    fn take_stream_marks(&mut self) {
        let words: Vec<usize> =
            (0..self.tokens.len()).filter(|i| !matches!(self.tokens[*i].token, Token::Whitespace(_))).collect();
        let token = |i: usize| words.get(i).map(|t| &self.tokens[*t].token);
        let mut drop = BTreeSet::new();
        let mut streamed = BTreeSet::new();
        for i in 1..words.len() {
            let is_mark = matches!(token(i), Some(Token::Word(w)) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case("stream"));
            let after_from = match token(i - 1) {
                Some(Token::Word(w)) => matches!(w.keyword, Keyword::FROM | Keyword::JOIN),
                Some(Token::Comma) => true,
                // `tumble(STREAM x, …)`
                Some(Token::LParen) if i >= 2 => {
                    matches!(token(i - 2), Some(Token::Word(w)) if FUNCTIONS.iter().any(|f| w.value.eq_ignore_ascii_case(f)))
                }
                _ => false,
            };
            if !is_mark || !after_from {
                continue;
            }
            let relation = match (token(i + 1), token(i + 2)) {
                (Some(Token::LParen), Some(Token::Word(_))) => {
                    // `STREAM(x)` only: the parenthesis must close right behind one (qualified) name.
                    let mut end = i + 3;
                    while matches!(token(end), Some(Token::Period | Token::Word(_))) {
                        end += 1;
                    }
                    if !matches!(token(end), Some(Token::RParen)) {
                        continue;
                    }
                    drop.extend([words[i], words[i + 1], words[end]]);
                    i + 2
                }
                // A quoted name, or the first part of a qualified one: `FROM stream s` is a table named stream.
                (Some(Token::Word(w)), next) if w.quote_style.is_some() || next == Some(&Token::Period) => {
                    drop.insert(words[i]);
                    i + 1
                }
                _ => continue,
            };
            streamed.insert(at(self.tokens[words[relation]].span.start));
        }
        self.streamed = streamed;
        let mut index = 0;
        self.tokens.retain(|_| {
            index += 1;
            !drop.contains(&(index - 1))
        });
    }

    /// `offset` is a column unless a number of rows follows; sqlparser takes it for the clause behind every comma.
    fn free_offset(&mut self) {
        for i in 0..self.tokens.len() {
            let follows = self.tokens[i + 1..].iter().find(|t| !matches!(t.token, Token::Whitespace(_)));
            let count =
                follows.is_some_and(|t| matches!(t.token, Token::Number(..) | Token::Placeholder(_) | Token::LParen));
            if let Token::Word(w) = &mut self.tokens[i].token
                && w.keyword == Keyword::OFFSET
                && !count
            {
                w.keyword = Keyword::NoKeyword;
            }
        }
    }

    pub fn parse(&self, dialect: &dyn SqlDialect) -> Result<Query, Fault> {
        let mut parser = Parser::new(dialect)
            .with_options(ParserOptions::new().with_trailing_commas(false))
            .with_tokens_with_locations(self.tokens.clone());
        let mut query = parser.parse_query().map_err(|e| self.fault(e))?;
        precedence::correct(&mut *query);
        while parser.consume_token(&Token::SemiColon) {}
        let next = parser.peek_token();
        if next.token != Token::EOF {
            let fault = Fault::new("syntax", format!("expected the end of the query, found `{}`", next.token));
            let fault = match advice::leftover(self, &next.token) {
                Some(hint) => fault.hint(hint),
                None => fault,
            };
            return Err(fault.at(place(next.span)));
        }
        if matches!(*query.body, SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_)) {
            return Err(
                Fault::new("syntax", "a model is one SELECT").hint("smelt writes its rows to the model's table")
            );
        }
        Ok(*query)
    }

    fn fault(&self, error: ParserError) -> Fault {
        let message = match error {
            ParserError::TokenizerError(m) | ParserError::ParserError(m) => m,
            ParserError::RecursionLimitExceeded => "the query is nested too deeply".to_string(),
        };
        // "Expected: an expression, found: FROM at Line: 3, Column: 1"
        let (text, location) = match message.rsplit_once(" at Line: ") {
            Some((text, rest)) => {
                let mut numbers = rest.split(", Column: ").map(|n| n.trim().parse::<u64>().ok());
                (text.to_string(), numbers.next().flatten().zip(numbers.next().flatten()))
            }
            None => (message, None),
        };
        let place = match location {
            Some(location) => self.place_of(location),
            // Errors without a place are about the end of the text.
            None => {
                self.tokens.iter().rev().find(|t| !matches!(t.token, Token::Whitespace(_))).and_then(|t| place(t.span))
            }
        };
        let mut text = text.trim_start_matches("sql parser error: ").to_string();
        if let Some(rest) = text.strip_prefix("Expected: ") {
            text = format!("expected {}", rest.replacen(", found: ", ", found ", 1));
        }
        let fault = Fault::new("syntax", text.replace("found EOF", "found the end of the query")).at(place);
        match advice::syntax(&fault.message) {
            Some(hint) => fault.hint(hint),
            None => fault,
        }
    }

    /// How often a keyword stands in the query.
    pub fn count(&self, keyword: Keyword) -> usize {
        self.tokens.iter().filter(|t| matches!(&t.token, Token::Word(w) if w.keyword == keyword)).count()
    }

    /// The first place of a keyword.
    pub fn place_of_keyword(&self, keyword: Keyword) -> Option<Place> {
        let found = self.tokens.iter().find(|t| matches!(&t.token, Token::Word(w) if w.keyword == keyword));
        found.and_then(|t| place(t.span))
    }

    /// Places of all words spelled like `value`, in any case.
    pub fn words_ignoring_case(&self, value: &str) -> Vec<At> {
        let same = |t: &&TokenWithSpan| matches!(&t.token, Token::Word(w) if w.value.eq_ignore_ascii_case(value));
        self.tokens.iter().filter(same).map(|t| at(t.span.start)).collect()
    }

    /// The place of the token that starts at `location`.
    pub fn place_of(&self, location: At) -> Option<Place> {
        let token = self.tokens.iter().find(|t| at(t.span.start) == location);
        Some(token.and_then(|t| place(t.span)).unwrap_or(Place { line: location.0, column: location.1, width: 1 }))
    }

    /// The words of the qualified name that starts at `start`: `a.b.c` gives three.
    pub fn name_at(&self, start: At) -> Vec<(At, String)> {
        let mut name = Vec::new();
        let Some(first) = self.tokens.iter().position(|t| at(t.span.start) == start) else { return name };
        let mut expect_word = true;
        for t in &self.tokens[first..] {
            match &t.token {
                Token::Whitespace(_) => {}
                Token::Word(w) if expect_word => {
                    name.push((at(t.span.start), w.value.clone()));
                    expect_word = false;
                }
                Token::Period if !expect_word => expect_word = true,
                _ => break,
            }
        }
        name
    }

    /// Places of all words spelled exactly `value`, functions (a `(` follows) left out.
    pub fn words(&self, value: &str) -> Vec<At> {
        let mut found = Vec::new();
        for (i, t) in self.tokens.iter().enumerate() {
            let follows = self.tokens[i + 1..].iter().find(|t| !matches!(t.token, Token::Whitespace(_)));
            match &t.token {
                Token::Word(w) if w.value == value && follows.is_none_or(|t| t.token != Token::LParen) => {
                    found.push(at(t.span.start));
                }
                _ => {}
            }
        }
        found
    }

    /// The place of the last of `words` where the query has them as a dotted name, or the end of one.
    pub fn place_of_path(&self, words: &[String]) -> Option<Place> {
        let first = words.first()?;
        self.tokens
            .iter()
            .filter(|t| matches!(&t.token, Token::Word(w) if w.value.eq_ignore_ascii_case(first)))
            .find_map(|t| {
                let name = self.name_at(at(t.span.start));
                let same =
                    name.len() >= words.len() && name.iter().zip(words).all(|(n, w)| n.1.eq_ignore_ascii_case(w));
                same.then(|| self.place_of(name[words.len() - 1].0)).flatten()
            })
    }

    /// The place of the first call of function `name`.
    pub fn place_of_call(&self, name: &str) -> Option<Place> {
        (0..self.tokens.len()).find_map(|i| {
            let follows = self.tokens[i + 1..].iter().find(|t| !matches!(t.token, Token::Whitespace(_)))?;
            match &self.tokens[i].token {
                Token::Word(w) if w.value.eq_ignore_ascii_case(name) && follows.token == Token::LParen => {
                    place(self.tokens[i].span)
                }
                _ => None,
            }
        })
    }

    /// The first `/` whose neighbours are no numbers.
    pub fn first_division(&self) -> Option<Place> {
        let words: Vec<&TokenWithSpan> =
            self.tokens.iter().filter(|t| !matches!(t.token, Token::Whitespace(_))).collect();
        let number = |t: Option<&&TokenWithSpan>| t.is_some_and(|t| matches!(t.token, Token::Number(..)));
        (1..words.len())
            .find(|i| words[*i].token == Token::Div && !number(words.get(i + 1)) && !number(words.get(i - 1)))
            .and_then(|i| place(words[i].span))
    }

    /// The spelling of every word.
    pub fn all_words(&self) -> impl Iterator<Item = &str> {
        self.tokens.iter().filter_map(|t| match &t.token {
            Token::Word(w) => Some(w.value.as_str()),
            _ => None,
        })
    }

    /// Whether a person put the word into quotes: it then means that spelling only.
    pub fn is_quoted(&self, place: At) -> bool {
        !self.respelled.contains_key(&place)
            && self
                .tokens
                .iter()
                .any(|t| at(t.span.start) == place && matches!(&t.token, Token::Word(w) if w.quote_style.is_some()))
    }

    /// Spells the word at `place` as `spelling`, exactly (quoted). False if it already was.
    pub fn respell(&mut self, place: At, spelling: &str) -> bool {
        for t in &mut self.tokens {
            if at(t.span.start) != place {
                continue;
            }
            if let Token::Word(w) = &mut t.token {
                if w.value == spelling {
                    return false;
                }
                self.respelled.entry(place).or_insert_with(|| w.value.clone());
                w.value = spelling.to_string();
                w.quote_style = Some('"');
                w.keyword = Keyword::NoKeyword;
                return true;
            }
        }
        false
    }
}

/// The place a span covers; `None` for sqlparser's empty spans.
pub(crate) fn place(span: Span) -> Option<Place> {
    if span.start.line == 0 {
        return None;
    }
    let width =
        if span.end.line == span.start.line { span.end.column.saturating_sub(span.start.column).max(1) } else { 1 };
    Some(Place { line: span.start.line, column: span.start.column, width })
}

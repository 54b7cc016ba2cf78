//! Words of the text form.
use crate::{Code, Error, Meta, Result};

/// One word.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Token<'a> {
    /// An identifier.
    Word(&'a str),
    /// A string in quotes, escapes resolved.
    Quoted(String),
    /// A number with its sign, as written; `-inf` and `-nan` too.
    Number(&'a str),
    /// A punctuation character.
    Mark(char),
    /// `=>`.
    Arrow,
    /// A `#!` comment.
    Notes(Meta),
    /// The end of the text.
    End,
}

impl Token<'_> {
    /// What it is, for messages.
    pub(super) fn describe(&self) -> String {
        match self {
            Token::Word(w) | Token::Number(w) => format!("`{w}`"),
            Token::Quoted(t) => format!("\"{}\"", t.chars().take(40).collect::<String>()),
            Token::Mark(c) => format!("`{c}`"),
            Token::Arrow => "`=>`".into(),
            Token::Notes(_) => "a `#!` comment".into(),
            Token::End => "the end of the text".into(),
        }
    }
}

/// Splits a text into words.
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Lexer<'a> {
        Lexer { text, at: 0 }
    }
    /// The next word and where it begins.
    pub(super) fn next(&mut self) -> Result<(Token<'a>, usize)> {
        loop {
            self.skip(char::is_whitespace);
            if !self.rest().starts_with('#') || self.rest().starts_with("#!") {
                break;
            }
            self.skip(|c| c != '\n');
        }
        let start = self.at;
        let Some(first) = self.rest().chars().next() else { return Ok((Token::End, start)) };
        let token = match first {
            '"' => Token::Quoted(self.string(|c| c)?),
            '#' => Token::Notes(self.notes()?),
            c if c.is_ascii_alphabetic() || c == '_' => Token::Word(self.word()),
            c if c.is_ascii_digit() || c == '-' || c == '+' => Token::Number(self.number()?),
            '=' if self.rest().starts_with("=>") => {
                self.at += 2;
                Token::Arrow
            }
            c if "<>()[]{},:=@?.".contains(c) => {
                self.at += 1;
                Token::Mark(c)
            }
            c => return Err(self.error(start, format!("unexpected character {c:?}"))),
        };
        Ok((token, start))
    }
    /// An error at a place in the text, given as line and column.
    pub(super) fn error(&self, at: usize, message: impl Into<String>) -> Error {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = 1 + before.matches('\n').count();
        let column = 1 + before.chars().rev().take_while(|&c| c != '\n').count();
        Error::new(Code::TEXT, message).at(format!("{line}:{column}"))
    }
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }
    /// Moves past characters that satisfy `class`, and returns them.
    fn skip(&mut self, class: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let n = rest.find(|c| !class(c)).unwrap_or(rest.len());
        self.at += n;
        rest.get(..n).unwrap_or("")
    }
    fn word(&mut self) -> &'a str {
        self.skip(|c| c.is_ascii_alphanumeric() || c == '_')
    }
    fn number(&mut self) -> Result<&'a str> {
        let start = self.at;
        self.at += usize::from(self.rest().starts_with(['-', '+']));
        if self.rest().starts_with(|c: char| c.is_ascii_alphabetic()) {
            self.word();
        } else if self.skip(|c| c.is_ascii_digit()).is_empty() {
            return Err(self.error(start, "expected a number"));
        }
        if self.rest().starts_with('.') {
            self.at += 1;
            self.skip(|c| c.is_ascii_digit());
        }
        let exponent = self.rest().strip_prefix(['e', 'E']);
        if let Some(after) = exponent
            && after.trim_start_matches(['-', '+']).starts_with(|c: char| c.is_ascii_digit())
        {
            self.at += 1;
            self.at += usize::from(self.rest().starts_with(['-', '+']));
            self.skip(|c| c.is_ascii_digit());
        }
        Ok(self.text.get(start..self.at).unwrap_or(""))
    }
    /// A string in quotes; `escape` says what a character after a backslash stands for.
    fn string(&mut self, escape: fn(char) -> char) -> Result<String> {
        let start = self.at;
        let mut out = String::new();
        let mut escaped = false;
        for (i, c) in self.rest().char_indices().skip(1) {
            match c {
                _ if escaped => {
                    out.push(escape(c));
                    escaped = false;
                }
                '\\' => escaped = true,
                '"' => {
                    self.at += i + 1;
                    return Ok(out);
                }
                c => out.push(c),
            }
        }
        Err(self.error(start, "the string has no end"))
    }
    /// `#! key: "value", "other key": "value"`, up to the end of the line or a further comment.
    fn notes(&mut self) -> Result<Meta> {
        self.at += "#!".len();
        let blank = |c: char| c == ' ' || c == '\t';
        let mut notes = Meta::new();
        loop {
            self.skip(blank);
            let start = self.at;
            let key = if self.rest().starts_with('"') {
                self.string(unescape)?
            } else {
                self.skip(is_key).to_string()
            };
            self.skip(blank);
            if !self.rest().starts_with(':') {
                return Err(self.error(start, "expected `key: \"value\"` in a `#!` comment"));
            }
            self.at += 1;
            self.skip(blank);
            if !self.rest().starts_with('"') {
                return Err(self.error(self.at, "expected a value in quotes in a `#!` comment"));
            }
            notes.insert(key, self.string(unescape)?);
            self.skip(blank);
            if !self.rest().starts_with(',') {
                break;
            }
            self.at += 1;
        }
        let end = self.skip(|c| c != '\n').trim();
        if !end.is_empty() && !end.starts_with('#') {
            return Err(self.error(self.at, "a `#!` comment must end with its line"));
        }
        Ok(notes)
    }
}

/// A character of a note's key that needs no quotes.
fn is_key(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '.'
}

fn unescape(c: char) -> char {
    match c {
        'n' => '\n',
        'r' => '\r',
        c => c,
    }
}

/// A `#!` comment that [`Lexer`] reads back.
pub(super) fn notes(meta: &Meta) -> String {
    let quoted = |t: &str| super::quoted(t).replace('\n', "\\n").replace('\r', "\\r");
    let key = |k: &str| if !k.is_empty() && k.chars().all(is_key) { k.to_string() } else { quoted(k) };
    let pairs: Vec<String> = meta.iter().map(|(k, v)| format!("{}: {}", key(k), quoted(v))).collect();
    format!("#! {}", pairs.join(", "))
}

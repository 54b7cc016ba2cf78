//! The tokens of PTX text.
use crate::Error;

/// A token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Token<'a> {
    /// A name, a number, a directive or an opcode with its dots.
    Word(&'a str),
    /// What stands between quotation marks.
    Text(&'a str),
    /// One character.
    Mark(char),
}

/// A token and its line, counted from 1.
pub(crate) type Located<'a> = (Token<'a>, u32);

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%' | '.')
}

/// Splits `text`; comments are left out.
///
/// # Errors
/// If a comment or a text does not end.
pub(crate) fn tokens(text: &str) -> Result<Vec<Located<'_>>, Error> {
    let (mut rest, mut line) = (text, 1);
    let mut tokens = Vec::new();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => {
                rest.find("*/").ok_or_else(|| Error::new(line, "the comment does not end"))? + 2
            }
            '"' => rest[1..].find('"').ok_or_else(|| Error::new(line, "the text does not end"))? + 2,
            c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        let (token, behind) = rest.split_at(length);
        match first {
            '"' => tokens.push((Token::Text(&token[1..length - 1]), line)),
            c if is_word(c) => tokens.push((Token::Word(token), line)),
            c if c.is_whitespace() || length > 1 => {}
            c => tokens.push((Token::Mark(c), line)),
        }
        line += token.matches('\n').count() as u32;
        rest = behind;
    }
    Ok(tokens)
}

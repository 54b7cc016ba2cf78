//! Numbers of parameters as the table of methods writes them: sums of products such as `rank·(in + out)`.

/// The value of `text`, where `size` knows the names.
///
/// # Panics
/// If the text is no formula.
pub fn value(text: &str, size: &dyn Fn(&str) -> usize) -> usize {
    let spaced: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let (value, rest) = sum(&spaced, size);
    assert!(rest.is_empty(), "`{text}` is no formula");
    value
}

fn sum<'a>(text: &'a str, size: &dyn Fn(&str) -> usize) -> (usize, &'a str) {
    let (mut value, mut rest) = product(text, size);
    while let Some(tail) = rest.strip_prefix('+') {
        let (term, tail) = product(tail, size);
        (value, rest) = (value + term, tail);
    }
    (value, rest)
}

fn product<'a>(text: &'a str, size: &dyn Fn(&str) -> usize) -> (usize, &'a str) {
    let (mut value, mut rest) = atom(text, size);
    while let Some(tail) = rest.strip_prefix('·') {
        let (factor, tail) = atom(tail, size);
        (value, rest) = (value * factor, tail);
    }
    (value, rest)
}

fn atom<'a>(text: &'a str, size: &dyn Fn(&str) -> usize) -> (usize, &'a str) {
    if let Some(inner) = text.strip_prefix('(') {
        let (value, rest) = sum(inner, size);
        return (value, rest.strip_prefix(')').expect("closing bracket"));
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let name = &text[..end];
    (name.parse().unwrap_or_else(|_| size(name)), &text[end..])
}

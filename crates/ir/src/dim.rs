//! A symbolic dimension: an integer polynomial over named sizes such as `batch` and `seq`.
use std::{
    collections::BTreeMap,
    fmt,
    ops::{Add, Mul, Sub},
    sync::Arc,
};

/// A product of symbols, sorted; the empty product is 1.
type Monomial = Vec<Arc<str>>;

/// An integer polynomial in canonical form, so that `==` means "provably equal".
///
/// A size that nobody knows is a symbol of its own (see [`Dim::unknown`]), equal only to itself.
/// Arithmetic saturates at the limits of `i64`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Dim(Vec<(Monomial, i64)>);

impl Dim {
    /// The size called `name`.
    pub fn symbol(name: &str) -> Dim {
        Dim(vec![(vec![name.into()], 1)])
    }
    /// The size of axis `axis` of the value `value`, of which nothing is known; prints as `?`.
    pub fn unknown(value: &str, axis: usize) -> Dim {
        Dim::symbol(&format!("?{value}.{axis}"))
    }
    /// Whether this is a single unknown of [`Dim::unknown`].
    pub fn is_unknown(&self) -> bool {
        matches!(&self.0[..], [(m, 1)] if matches!(&m[..], [s] if s.starts_with('?')))
    }
    /// Reads `2*batch*seq+1`; text that is no such polynomial is one symbol of that name.
    pub fn parse(text: &str) -> Dim {
        polynomial(text).unwrap_or_else(|| Dim::symbol(text))
    }
    /// The number, if no symbol is left.
    pub fn as_const(&self) -> Option<i64> {
        match &self.0[..] {
            [] => Some(0),
            [(m, n)] if m.is_empty() => Some(*n),
            _ => None,
        }
    }
    /// The number as a size, if no symbol is left and it is not negative.
    pub fn as_size(&self) -> Option<usize> {
        self.as_const()?.try_into().ok()
    }
    /// The symbols in it.
    pub fn symbols(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|(m, _)| m).map(|s| &**s)
    }
    /// The polynomial with each symbol that `value` knows replaced.
    #[must_use]
    pub fn substitute(&self, value: impl Fn(&str) -> Option<Dim>) -> Dim {
        let term = |(m, n): &(Monomial, i64)| {
            let factors = m.iter().map(|s| value(s).unwrap_or_else(|| Dim::symbol(s)));
            factors.fold(Dim::from(*n), |product, f| product * f)
        };
        self.0.iter().map(term).fold(Dim::default(), |sum, t| sum + t)
    }
    /// `self / divisor` where that is exact for every value of the symbols (the divisor being one term).
    pub fn div_exact(&self, divisor: &Dim) -> Option<Dim> {
        let [(by, n)] = &divisor.0[..] else {
            return (self == divisor && !self.0.is_empty()).then(|| Dim::from(1i64));
        };
        let mut quotient = Vec::new();
        for (m, c) in &self.0 {
            let mut rest = m.clone();
            for symbol in by {
                rest.remove(rest.iter().position(|s| s == symbol)?);
            }
            if c % n != 0 {
                return None;
            }
            quotient.push((rest, c / n));
        }
        Some(Dim::collect(quotient))
    }
    fn collect(terms: impl IntoIterator<Item = (Monomial, i64)>) -> Dim {
        let mut sum: BTreeMap<Monomial, i64> = BTreeMap::new();
        for (m, n) in terms {
            let entry = sum.entry(m).or_default();
            *entry = entry.saturating_add(n);
        }
        Dim(sum.into_iter().filter(|&(_, n)| n != 0).collect())
    }
}

impl From<i64> for Dim {
    fn from(n: i64) -> Dim {
        Dim::collect([(Vec::new(), n)])
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Dim {
        Dim::from(i64::try_from(n).unwrap_or(i64::MAX))
    }
}

impl Add for Dim {
    type Output = Dim;
    fn add(self, other: Dim) -> Dim {
        Dim::collect(self.0.into_iter().chain(other.0))
    }
}

impl Sub for Dim {
    type Output = Dim;
    fn sub(self, other: Dim) -> Dim {
        self + other * Dim::from(-1i64)
    }
}

impl Mul for Dim {
    type Output = Dim;
    fn mul(self, other: Dim) -> Dim {
        let mut terms = Vec::new();
        for (a, x) in &self.0 {
            for (b, y) in &other.0 {
                let mut m = [&a[..], &b[..]].concat();
                m.sort();
                terms.push((m, x.saturating_mul(*y)));
            }
        }
        Dim::collect(terms)
    }
}

/// The number of elements of a shape.
pub fn product<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
    dims.into_iter().fold(Dim::from(1i64), |p, d| p * d.clone())
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_unknown() {
            return f.write_str("?");
        }
        if self.0.is_empty() {
            return f.write_str("0");
        }
        // Constants last, so that `seq+1` reads as usual.
        let (symbolic, constant): (Vec<_>, Vec<_>) = self.0.iter().partition(|(m, _)| !m.is_empty());
        for (i, (m, n)) in symbolic.iter().chain(&constant).enumerate() {
            if i > 0 && *n > 0 {
                f.write_str("+")?;
            }
            let mut factors: Vec<&str> = m.iter().map(|s| &**s).collect();
            let number = n.to_string();
            match *n {
                1 if !m.is_empty() => {}
                -1 if !m.is_empty() => f.write_str("-")?,
                _ => factors.insert(0, &number),
            }
            f.write_str(&factors.join("*"))?;
        }
        Ok(())
    }
}

/// Parses a sum of products of integers and identifiers.
fn polynomial(text: &str) -> Option<Dim> {
    let mut sum = Dim::default();
    let mut rest = text;
    while !rest.is_empty() || text.is_empty() {
        let sign = if rest.starts_with('-') { -1i64 } else { 1 };
        let body =
            if rest.len() == text.len() { rest.strip_prefix('-').unwrap_or(rest) } else { rest.get(1..)? };
        let end = body.find(['+', '-']).unwrap_or(body.len());
        let factors = body[..end].split('*').map(factor).collect::<Option<Vec<_>>>()?;
        sum = sum + factors.into_iter().fold(Dim::from(sign), |p, f| p * f);
        rest = &body[end..];
    }
    Some(sum)
}

fn factor(text: &str) -> Option<Dim> {
    if let Ok(n) = text.parse::<i64>() {
        return Some(Dim::from(n));
    }
    let plain = |c: char| c.is_alphanumeric() || "_.:?/".contains(c);
    let starts = text.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_' || c == '?');
    (starts && text.chars().all(plain)).then(|| Dim::symbol(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses() {
        for text in ["0", "7", "-1", "batch", "2*batch*seq", "batch*seq+seq-3", "-batch+1"] {
            assert_eq!(Dim::parse(text).to_string(), text);
        }
        assert_eq!(Dim::parse("floor(x / 2)"), Dim::symbol("floor(x / 2)"));
        assert_eq!(Dim::parse("a+"), Dim::symbol("a+"));
    }

    #[test]
    fn is_canonical() {
        assert_eq!(Dim::parse("b*a+a*b"), Dim::parse("2*a*b"));
        assert_eq!(Dim::parse("a") - Dim::parse("a"), Dim::from(0i64));
        assert_eq!(Dim::parse("12*b*s").div_exact(&Dim::parse("4*s")), Some(Dim::parse("3*b")));
        assert_eq!(Dim::parse("b*s+1").div_exact(&Dim::parse("s")), None);
        assert_eq!(Dim::parse("b+1").div_exact(&Dim::parse("b+1")), Some(Dim::from(1i64)));
    }
}

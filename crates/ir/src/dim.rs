//! A symbolic dimension: an integer polynomial over named sizes such as `batch` and `seq`.
use std::{
    cmp::Ordering,
    collections::BTreeMap,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    ops::{Add, Mul, Sub},
    sync::Arc,
};

/// What a product is made of. Every factor is at least 0, because sizes are.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
enum Factor {
    Symbol(Arc<str>),
    /// The lesser of two polynomials that have no monomial in common and no negative coefficient (see [`Dim::min`]).
    Min(Arc<[Dim; 2]>),
}

/// A product of factors, sorted; the empty product is 1.
type Monomial = Vec<Factor>;

/// An integer polynomial in canonical form, so that `==` means "provably equal".
///
/// A size that nobody knows is a symbol of its own (see [`Dim::unknown`]), equal only to itself.
/// Besides symbols it may hold the lesser of two polynomials, which is how a slice is clamped to its axis.
/// Arithmetic saturates at the limits of `i64`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Dim(Vec<(Monomial, i64)>);

/// Beyond these sizes an expression becomes an unknown of its own, so that hostile shapes cost no memory.
const MAX_TERMS: usize = 1 << 10;
const MAX_DEGREE: usize = 32;
/// Longer texts are not read as polynomials, so that parsing takes no time that matters.
const MAX_TEXT: usize = 1 << 12;
/// How deep `min(min(…` may be.
const MAX_NESTING: usize = 6;

impl Dim {
    /// The size called `name`.
    pub fn symbol(name: &str) -> Dim {
        Dim(vec![(vec![Factor::Symbol(name.into())], 1)])
    }
    /// The size of axis `axis` of the value `value`, of which nothing is known; prints as `?`.
    pub fn unknown(value: &str, axis: usize) -> Dim {
        Dim::symbol(&format!("?{value}.{axis}"))
    }
    /// Whether this is a single unknown of [`Dim::unknown`].
    pub fn is_unknown(&self) -> bool {
        matches!(&self.0[..], [(m, 1)] if matches!(&m[..], [Factor::Symbol(s)] if s.starts_with('?')))
    }
    /// Reads `2*batch*seq+1` or `min(64,seq)`; text that is no such polynomial is one symbol of that name.
    pub fn parse(text: &str) -> Dim {
        if text.len() > MAX_TEXT {
            return Dim::symbol(text);
        }
        polynomial(text, MAX_NESTING).unwrap_or_else(|| Dim::symbol(text))
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
        let mut symbols = Vec::new();
        self.push_symbols(&mut symbols);
        symbols.into_iter()
    }
    fn push_symbols<'a>(&'a self, symbols: &mut Vec<&'a str>) {
        for factor in self.0.iter().flat_map(|(m, _)| m) {
            match factor {
                Factor::Symbol(name) => symbols.push(name),
                Factor::Min(sides) => sides.iter().for_each(|side| side.push_symbols(symbols)),
            }
        }
    }
    /// The polynomial with each symbol that `value` knows replaced.
    #[must_use]
    pub fn substitute(&self, value: impl Fn(&str) -> Option<Dim>) -> Dim {
        self.replaced(&value)
    }
    fn replaced(&self, value: &dyn Fn(&str) -> Option<Dim>) -> Dim {
        let replace = |factor: &Factor| match factor {
            Factor::Symbol(name) => value(name).unwrap_or_else(|| Dim::symbol(name)),
            Factor::Min(sides) => Dim::min(&sides[0].replaced(value), &sides[1].replaced(value)),
        };
        let term = |(m, n): &(Monomial, i64)| m.iter().map(replace).fold(Dim::from(*n), |p, f| p * f);
        self.0.iter().map(term).fold(Dim::default(), |sum, t| sum + t)
    }
    /// The lesser of two, exactly: a number or a side where that is provable, else a term `min(…,…)` whose sides are
    /// cleared of what they have in common, so that `seq-min(1,seq)` is the one form of `max(seq-1,0)`.
    #[must_use]
    pub fn min(a: &Dim, b: &Dim) -> Dim {
        let difference = b.clone() - a.clone();
        let negated = Dim::default() - difference.clone();
        if difference.is_non_negative() {
            return a.clone();
        }
        if negated.is_non_negative() {
            return b.clone();
        }
        if a.nesting().max(b.nesting()) >= MAX_NESTING {
            return Dim::opaque("min", a, b);
        }
        // min(a, b) = a + min(0, p - n) = a - n + min(n, p).
        let positive = |d: Dim| Dim(d.0.into_iter().filter(|&(_, c)| c > 0).collect());
        let (p, n) = (positive(difference), positive(negated));
        let sides = if p < n { [p, n.clone()] } else { [n.clone(), p] };
        a.clone() - n + Dim(vec![(vec![Factor::Min(sides.into())], 1)])
    }
    fn nesting(&self) -> usize {
        let depth = |factor: &Factor| match factor {
            Factor::Symbol(_) => 0,
            Factor::Min(sides) => 1 + sides[0].nesting().max(sides[1].nesting()),
        };
        self.0.iter().flat_map(|(m, _)| m).map(depth).max().unwrap_or(0)
    }
    /// An unknown that stands for an expression too large to keep: the same for the same operands.
    fn opaque(op: &str, a: &Dim, b: &Dim) -> Dim {
        let mut hasher = DefaultHasher::new();
        (a, b).hash(&mut hasher);
        Dim::symbol(&format!("?{op}.{:016x}", hasher.finish()))
    }
    fn degree(&self) -> usize {
        self.0.iter().map(|(m, _)| m.len()).max().unwrap_or(0)
    }
    /// The greater of two, exactly; see [`Dim::min`].
    #[must_use]
    pub fn max(a: &Dim, b: &Dim) -> Dim {
        a.clone() + b.clone() - Dim::min(a, b)
    }
    /// Whether it is provably at least 0 for all sizes that the symbols stand for.
    pub fn is_non_negative(&self) -> bool {
        self.is_non_negative_within(4)
    }
    fn is_non_negative_within(&self, depth: usize) -> bool {
        if self.0.iter().all(|&(_, n)| n >= 0) {
            return true;
        }
        // `-min(a,b)` is at least `-a` and at least `-b`.
        let Some((m, n, at)) = self.0.iter().filter(|_| depth > 0).find_map(|(m, n)| {
            let at = m.iter().position(|f| matches!(f, Factor::Min(_))).filter(|_| *n < 0)?;
            Some((m, *n, at))
        }) else {
            return false;
        };
        let mut rest = m.clone();
        let Factor::Min(sides) = rest.remove(at) else { return false };
        let others = self.clone() - Dim(vec![(m.clone(), n)]);
        let rest = Dim(vec![(rest, n)]);
        sides
            .iter()
            .any(|side| (others.clone() + rest.clone() * side.clone()).is_non_negative_within(depth - 1))
    }
    /// Whether the two are provably different for all sizes that the symbols stand for.
    pub fn never_equals(&self, other: &Dim) -> bool {
        let apart = |a: &Dim, b: &Dim| (a.clone() - b.clone() - Dim::from(1i64)).is_non_negative();
        apart(self, other) || apart(other, self)
    }
    /// The size of an axis where sizes `a` and `b` meet in a broadcast that is valid; `None` if it depends on which of
    /// the two is 1.
    pub fn broadcast(a: &Dim, b: &Dim) -> Option<Dim> {
        let one = Dim::from(1i64);
        if a == b || *b == one || a.never_equals(&one) {
            return Some(a.clone());
        }
        if *a == one || b.never_equals(&one) {
            return Some(b.clone());
        }
        // A table of 64 positions cut to `seq` can only meet `seq` where there are no more than 64.
        if a.is_cut_of(b) {
            return Some(b.clone());
        }
        b.is_cut_of(a).then(|| a.clone())
    }
    /// Whether this is `min(n,whole)` with `n` provably above 1.
    fn is_cut_of(&self, whole: &Dim) -> bool {
        let [(m, 1)] = &self.0[..] else { return false };
        let [Factor::Min(sides)] = &m[..] else { return false };
        let above_one = |d: &Dim| (d.clone() - Dim::from(2i64)).is_non_negative();
        let [a, b] = &**sides;
        (a == whole && above_one(b)) || (b == whole && above_one(a))
    }
    /// `self / divisor` where that is exact as polynomials, by long division.
    pub fn div_exact(&self, divisor: &Dim) -> Option<Dim> {
        let (by, n) = divisor.leading()?;
        let mut rest = self.clone();
        let mut quotient = Dim::default();
        while let Some((m, c)) = rest.leading() {
            let mut factors = m.clone();
            for symbol in by {
                factors.remove(factors.iter().position(|s| s == symbol)?);
            }
            if c.checked_rem(*n)? != 0 || quotient.0.len() > MAX_TERMS {
                return None;
            }
            let term = Dim(vec![(factors, c / n)]);
            rest = rest - term.clone() * divisor.clone();
            quotient = quotient + term;
        }
        Some(quotient)
    }
    /// The greatest term in an order that multiplication keeps: by degree, then by the sorted factors.
    fn leading(&self) -> Option<&(Monomial, i64)> {
        let order = |a: &Monomial, b: &Monomial| -> Ordering { a.len().cmp(&b.len()).then_with(|| a.cmp(b)) };
        self.0.iter().max_by(|a, b| order(&a.0, &b.0))
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
        if self.0.len() * other.0.len() > MAX_TERMS || self.degree() + other.degree() > MAX_DEGREE {
            return Dim::opaque("product", &self, &other);
        }
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
            let mut factors: Vec<String> = m.iter().map(Factor::to_string).collect();
            match *n {
                1 if !m.is_empty() => {}
                -1 if !m.is_empty() => f.write_str("-")?,
                _ => factors.insert(0, n.to_string()),
            }
            f.write_str(&factors.join("*"))?;
        }
        Ok(())
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Factor::Symbol(name) => f.write_str(name),
            Factor::Min(sides) => write!(f, "min({},{})", sides[0], sides[1]),
        }
    }
}

/// Parses a sum of products of integers, identifiers and `min(…,…)`.
fn polynomial(text: &str, depth: usize) -> Option<Dim> {
    let mut sum = Dim::default();
    let mut rest = text;
    while !rest.is_empty() || text.is_empty() {
        let sign = if rest.starts_with('-') { -1i64 } else { 1 };
        let body =
            if rest.len() == text.len() { rest.strip_prefix('-').unwrap_or(rest) } else { rest.get(1..)? };
        let end = outside_parentheses(body, &['+', '-']).unwrap_or(body.len());
        sum = sum + product_of(&body[..end], depth)? * Dim::from(sign);
        rest = &body[end..];
    }
    Some(sum)
}

fn product_of(text: &str, depth: usize) -> Option<Dim> {
    let end = outside_parentheses(text, &['*']).unwrap_or(text.len());
    let first = factor(&text[..end], depth)?;
    match text.get(end + 1..) {
        Some(rest) => Some(first * product_of(rest, depth)?),
        None => Some(first),
    }
}

fn factor(text: &str, depth: usize) -> Option<Dim> {
    if let Ok(n) = text.parse::<i64>() {
        return Some(Dim::from(n));
    }
    if let Some(sides) = text.strip_prefix("min(").and_then(|t| t.strip_suffix(')')) {
        let (a, b) = sides.split_at(outside_parentheses(sides, &[','])?);
        let depth = depth.checked_sub(1)?;
        return Some(Dim::min(&polynomial(a, depth)?, &polynomial(&b[1..], depth)?));
    }
    let plain = |c: char| c.is_alphanumeric() || "_.:?/".contains(c);
    let starts = text.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_' || c == '?');
    (starts && text.chars().all(plain)).then(|| Dim::symbol(text))
}

/// The position of the first of `wanted` that stands in no parentheses.
fn outside_parentheses(text: &str, wanted: &[char]) -> Option<usize> {
    let mut depth = 0usize;
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            c if depth == 0 && wanted.contains(&c) => return Some(i),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses() {
        let min = ["min(64,seq)", "2*batch*min(1,seq)-min(2*batch+1,seq)+3"];
        let plain = ["0", "7", "-1", "batch", "2*batch*seq", "batch*seq+seq-3", "-batch+1"];
        for text in plain.into_iter().chain(min) {
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
        let product = Dim::parse("b+s+1") * Dim::parse("2*b*s-s") * Dim::parse("a*a+3");
        assert_eq!(
            product.div_exact(&Dim::parse("2*b*s-s")),
            Some(Dim::parse("b+s+1") * Dim::parse("a*a+3"))
        );
        assert_eq!(product.div_exact(&Dim::parse("0")), None);
    }

    #[test]
    fn min_has_one_form() {
        let d = Dim::parse;
        assert_eq!(Dim::min(&d("seq"), &d("seq+2")), d("seq"));
        assert_eq!(Dim::min(&d("5"), &d("3")), d("3"));
        assert_eq!(Dim::min(&d("seq"), &d("64")).to_string(), "min(64,seq)");
        // x[1:] and x[:-1] have the same length.
        let first = d("seq") - Dim::min(&d("1"), &d("seq"));
        let last = Dim::max(&(d("seq") - d("1")), &d("0"));
        assert_eq!(first, last);
        assert_eq!(first.to_string(), "seq-min(1,seq)");
        let at = |n: i64| first.substitute(|_| Some(Dim::from(n))).as_const();
        assert_eq!([at(0), at(1), at(5)], [Some(0), Some(0), Some(4)]);
    }

    #[test]
    fn signs_are_proved() {
        let d = Dim::parse;
        assert!(d("seq-min(1,seq)").is_non_negative());
        assert!(!d("seq-1").is_non_negative());
        assert!(d("seq+1").never_equals(&d("seq")));
        assert!(d("0").never_equals(&d("b*s+2")));
        assert!(!d("seq").never_equals(&d("64")));
        assert_eq!(d("min(64,seq)*b").symbols().collect::<Vec<_>>(), ["b", "seq"]);
    }

    #[test]
    fn broadcasts_where_that_is_provable() {
        let of = |a: &str, b: &str| Dim::broadcast(&Dim::parse(a), &Dim::parse(b)).map(|d| d.to_string());
        assert_eq!(of("1", "seq").as_deref(), Some("seq"));
        assert_eq!(of("seq", "4").as_deref(), Some("4"));
        assert_eq!(of("seq", "batch"), None);
        assert_eq!(of("min(64,seq)", "seq").as_deref(), Some("seq"));
        assert_eq!(of("seq", "min(64,seq)").as_deref(), Some("seq"));
        assert_eq!(of("min(1,seq)", "seq"), None);
    }

    #[test]
    fn hostile_sizes_cost_little() {
        let wide = (0..100).fold(Dim::default(), |sum, i| sum + Dim::symbol(&format!("s{i}")));
        let product = (0..10).fold(wide.clone(), |p, _| p * wide.clone());
        assert_eq!(product, (0..10).fold(wide.clone(), |p, _| p * wide.clone()));
        let square = (0..100).fold(Dim::symbol("n"), |p, _| p.clone() * p);
        assert!(square.degree() <= MAX_DEGREE);
        let nested = "min(1,".repeat(100_000);
        assert_eq!(Dim::parse(&nested), Dim::symbol(&nested));
    }
}

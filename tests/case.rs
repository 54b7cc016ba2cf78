//! A file test: directives, a graph, and what passes make of it.
//!
//! ```text
//! # passes: inline                     the pipeline; nothing for the verifier alone
//! # feeds: step = 1..4, ids = 0..9     optional: ranges of inputs (others: floats in -1..1, integers in 0..2)
//! # kernels: none                      optional: no call has a kernel (otherwise every call has one)
//! # types: shown                       optional: the expected text tells each value's type
//! # not run: why                       optional: the numbers are not compared
//! <ir_version: 10, opset_import: ["" : 21]>
//! g (float[N] x) => (float[N] y) { … }
//!
//! # says: what the passes said
//! # the expected text; or `unchanged`; or `error: …`
//! ```
use std::collections::BTreeMap;

/// A parsed file.
#[derive(Debug, Default, PartialEq)]
pub struct Case {
    /// The pipeline.
    pub passes: String,
    /// Ranges of inputs: from (inclusive), to (exclusive for integers).
    pub feeds: BTreeMap<String, (f64, f64)>,
    /// Whether calls have kernels.
    pub kernels: bool,
    /// Whether the expected text tells types.
    pub types: bool,
    /// Why the numbers are not compared.
    pub not_run: Option<String>,
    /// Everything before the expectation, directives included.
    pub source: String,
    /// The expectation without its comment signs; empty in a new file.
    pub expected: String,
}

impl Case {
    /// Splits a file's text.
    ///
    /// # Errors
    /// A sentence, if a directive is not understood.
    pub fn parse(text: &str) -> Result<Case, String> {
        let lines: Vec<&str> = text.lines().collect();
        let is_code = |l: &&str| !l.is_empty() && !l.starts_with('#');
        let end = lines.iter().rposition(is_code).map_or(lines.len(), |i| i + 1);
        let mut case = Case { kernels: true, ..Case::default() };
        case.source = lines[..end].iter().map(|l| format!("{l}\n")).collect();
        let comment =
            |l: &&str| l.strip_prefix("# ").or_else(|| l.strip_prefix('#')).map(|l| format!("{l}\n"));
        case.expected = lines[end..].iter().filter_map(comment).collect();
        let mut directives = lines.iter().map_while(|l| l.strip_prefix("# "));
        let passes = directives.next().and_then(|l| l.strip_prefix("passes:"));
        case.passes = passes.ok_or("the first line must be `# passes: …`")?.trim().into();
        directives.try_for_each(|line| case.directive(line))?;
        Ok(case)
    }
    fn directive(&mut self, line: &str) -> Result<(), String> {
        match line.split_once(':').map(|(k, v)| (k, v.trim())) {
            Some(("feeds", list)) => {
                for item in list.split(',') {
                    let (name, range) = feed(item).ok_or(format!("bad feed `{item}`"))?;
                    self.feeds.insert(name, range);
                }
            }
            Some(("kernels", "none")) => self.kernels = false,
            Some(("types", "shown")) => self.types = true,
            Some(("not run", why)) if !why.is_empty() => self.not_run = Some(why.into()),
            // Other comments above the graph say what the file is about.
            Some(("kernels" | "types" | "not run", _)) => {
                return Err(format!("bad directive `{line}`"));
            }
            _ => {}
        }
        Ok(())
    }
    /// The whole file, with this expectation.
    pub fn with_expectation(&self, expected: &str) -> String {
        let comments: String =
            expected.lines().map(|l| if l.is_empty() { "#\n".into() } else { format!("# {l}\n") }).collect();
        format!("{}\n{comments}", self.source)
    }
}

/// `name = low..high`; the name may stand in quotes.
fn feed(item: &str) -> Option<(String, (f64, f64))> {
    let (name, range) = item.split_once('=')?;
    let (low, high) = range.split_once("..")?;
    let range = (low.trim().parse().ok()?, high.trim().parse().ok()?);
    Some((name.trim().trim_matches('"').into(), range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_a_file() {
        let text = "# passes: a, b\n# Why.\n# feeds: \"x.y\" = -1..2\n# types: shown\ng () => () {\n# inner\n}\n\n# g\n#\n# }\n";
        let case = Case::parse(text).unwrap();
        assert_eq!((case.passes.as_str(), case.expected.as_str()), ("a, b", "g\n\n}\n"));
        assert_eq!(case.feeds["x.y"], (-1.0, 2.0));
        assert!(case.types && case.kernels);
        assert_eq!(case.with_expectation(&case.expected), text);
        assert!(Case::parse("g () => () {}").is_err());
        assert!(Case::parse("# passes:\n# feeds: x = 1\n").is_err());
    }
}

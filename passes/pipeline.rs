//! Pipelines: parses `canonicalize, inject{method=lora,rank=4}, fuse` and runs it, with every graph checked.
use crate::{Context, Options, Pass};
use graft_ir::{Code, Error, Graph, Result, check, error::nearest, infer};
use std::{
    fmt,
    time::{Duration, Instant},
};

/// One stage of a pipeline: the name of a pass, and its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// As in [`Pass::name`].
    pub name: String,
    /// What stood between the braces.
    pub options: Options,
}

impl Stage {
    /// A stage without options.
    pub fn new(name: &str) -> Stage {
        Stage { name: name.into(), options: Options::default() }
    }
    /// Adds an option.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl ToString) -> Stage {
        self.options = self.options.with(key, value);
        self
    }
}

/// What has just been done: given to the callback of [`run`] after each stage.
pub struct Step<'a> {
    /// The pass.
    pub name: &'a str,
    /// The graph that it was given.
    pub before: &'a Graph,
    /// The graph that it made, with types inferred, verified.
    pub after: &'a Graph,
    /// The time that the pass itself took, without checks.
    pub elapsed: Duration,
}

/// Runs `stages` on `graph`, each being the pass of that name in `passes`.
///
/// The graph is inferred and verified before the first stage and after each; `after` is called after each.
/// An error names the pass that caused it and those that ran before.
pub fn run(
    passes: &[Pass],
    stages: &[Stage],
    graph: &Graph,
    ctx: &mut Context<'_>,
    after: &mut dyn FnMut(&Step<'_>),
) -> Result<Graph> {
    // A misspelt last stage is reported before the first one runs.
    let found = stages.iter().map(|s| find(passes, &s.name)).collect::<Result<Vec<_>>>()?;
    let mut graph = checked(graph.clone()).map_err(|e| e.at("before the first pass"))?;
    for (i, (pass, stage)) in found.into_iter().zip(stages).enumerate() {
        let place = || place(&stages[..=i]);
        let start = Instant::now();
        let made = (pass.run)(&graph, &stage.options, ctx).map_err(|e| e.at(place()))?;
        let elapsed = start.elapsed();
        let made = checked(made).map_err(|e| e.at(format!("after {}", place())))?;
        after(&Step { name: pass.name, before: &graph, after: &made, elapsed });
        graph = made;
    }
    Ok(graph)
}

/// Reads a pipeline: stages separated by commas, each a name and maybe `{key=value,…}`.
///
/// A key alone means `key=true`. A value may hold commas, spaces and braces inside `"…"` (where `\"` and `\\` are
/// escapes), `(…)`, `[…]` or `{…}`, so that selectors such as `re:.*(q|k)_proj` need no quotes.
pub fn parse(spec: &str) -> Result<Vec<Stage>> {
    let mut rest = Spec { spec, at: 0 };
    let mut stages = Vec::new();
    while rest.peek().is_some() {
        stages.push(rest.stage()?);
        if rest.peek().is_some() {
            rest.expect(',')?;
        }
    }
    Ok(stages)
}

fn find<'a>(passes: &'a [Pass], name: &str) -> Result<&'a Pass> {
    let unknown = || {
        let names = || passes.iter().map(|p| p.name);
        let all: Vec<_> = names().collect();
        let help =
            format!("nearest: `{}`; all passes: `{}`", nearest(name, names()).join("`, `"), all.join("`, `"));
        Error::new(Code::PASS, format!("there is no pass `{name}`")).help(help)
    };
    passes.iter().find(|p| p.name == name).ok_or_else(unknown)
}

fn checked(mut graph: Graph) -> Result<Graph> {
    check(&graph)?;
    infer::infer(&mut graph)?;
    Ok(graph)
}

/// The pass that the last of `stages` names, and those that ran before it.
fn place(stages: &[Stage]) -> String {
    let names: Vec<&str> = stages.iter().map(|s| s.name.as_str()).collect();
    match names.split_last() {
        Some((last, [])) => format!("pass `{last}`"),
        Some((last, ran)) => format!("pass `{last}` (ran: {})", ran.join(", ")),
        None => String::new(),
    }
}

/// A position in the text of a pipeline.
struct Spec<'a> {
    spec: &'a str,
    at: usize,
}

impl<'a> Spec<'a> {
    fn rest(&self) -> &'a str {
        &self.spec[self.at..]
    }
    /// The next character that is no space.
    fn peek(&mut self) -> Option<char> {
        self.at += self.rest().len() - self.rest().trim_start().len();
        self.rest().chars().next()
    }
    fn expect(&mut self, c: char) -> Result<()> {
        if self.peek() != Some(c) {
            return Err(self.error(&format!("expected `{c}`")));
        }
        self.at += c.len_utf8();
        Ok(())
    }
    fn stage(&mut self) -> Result<Stage> {
        let mut stage = Stage::new(self.word("the name of a pass")?);
        if self.peek() == Some('{') {
            self.expect('{')?;
            while self.peek() != Some('}') {
                let key = self.word("an option")?;
                let value = if self.peek() == Some('=') { self.value()? } else { "true".into() };
                stage = stage.with(key, value);
                if self.peek() != Some('}') {
                    self.expect(',')?;
                }
            }
            self.expect('}')?;
        }
        Ok(stage)
    }
    /// A name of letters, digits, `-` and `_`.
    fn word(&mut self, wanted: &str) -> Result<&'a str> {
        self.peek();
        let part_of_word = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
        let word = self.rest().split(|c| !part_of_word(c)).next().unwrap_or("");
        if word.is_empty() {
            return Err(self.error(&format!("expected {wanted}")));
        }
        self.at += word.len();
        Ok(word)
    }
    fn value(&mut self) -> Result<String> {
        self.expect('=')?;
        if self.peek() == Some('"') { self.quoted() } else { self.bare() }
    }
    fn quoted(&mut self) -> Result<String> {
        let mut value = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += i + 1;
                    return Ok(value);
                }
                '\\' => value.extend(chars.next().map(|(_, c)| c)),
                c => value.push(c),
            }
        }
        Err(self.error("unclosed `\"`"))
    }
    /// Up to the next comma or `}` that stands in no brackets.
    fn bare(&mut self) -> Result<String> {
        let mut depth = 0usize;
        for (i, c) in self.rest().char_indices() {
            match c {
                ',' | '}' if depth == 0 => {
                    let value = self.rest()[..i].trim_end();
                    self.at += i;
                    return Ok(value.into());
                }
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        Err(self.error("expected `}`").help("close the brackets, or quote the value with `\"`"))
    }
    fn error(&self, message: &str) -> Error {
        let found = self.rest().chars().next().map_or("the end".into(), |c| format!("`{c}`"));
        Error::new(Code::PASS, format!("{message} at column {}, found {found}", self.at + 1))
            .at(format!("pipeline `{}`", self.spec))
    }
}

impl fmt::Display for Stage {
    /// As [`parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = |v: &String| format!("\"{}\"", v.replace('\\', r"\\").replace('"', "\\\""));
        let pairs = self.options.iter().flat_map(|(k, vs)| vs.iter().map(move |v| (k, v)));
        let pairs: Vec<String> = pairs.map(|(k, v)| format!("{k}={}", quote(v))).collect();
        match &pairs[..] {
            [] => f.write_str(&self.name),
            pairs => write!(f, "{}{{{}}}", self.name, pairs.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSES: &[Pass] = &[
        Pass { name: "fail", about: "", run: |_, _, _| Err(Error::new(Code::GRAPH, "no luck")) },
        Pass { name: "keep", about: "", run: |g, o, _| o.expect_only(&["times"]).map(|()| g.clone()) },
    ];

    fn run_spec(spec: &str) -> Result<Vec<String>> {
        let mut ctx = Context { log: &mut |_| (), has_kernel: &|_, _| false, adapter: None, seed: 0 };
        let mut seen = Vec::new();
        run(PASSES, &parse(spec)?, &Graph::default(), &mut ctx, &mut |step| seen.push(step.name.into()))?;
        Ok(seen)
    }

    #[test]
    fn parses() {
        let spec = r#" canonicalize,inject { method = lora, rank=4,targets=re:.*(q|k,v)\.p{1,2} , only="a, \"b\"", x }, fuse{}"#;
        let inject = Stage::new("inject")
            .with("method", "lora")
            .with("rank", 4)
            .with("targets", r"re:.*(q|k,v)\.p{1,2}")
            .with("only", "a, \"b\"")
            .with("x", true);
        assert_eq!(parse(spec).unwrap(), [Stage::new("canonicalize"), inject, Stage::new("fuse")]);
        assert_eq!(parse(" ").unwrap(), []);
    }

    #[test]
    fn says_where_it_cannot_parse() {
        for (spec, column) in [("a b", 3), ("a{", 3), ("a{b=1", 5), ("a{b=\"1}", 5), ("a,,b", 3), ("{}", 1)] {
            let error = parse(spec).unwrap_err().to_string();
            assert!(error.contains(&format!("column {column},")), "{spec}: {error}");
        }
    }

    #[test]
    fn runs_in_order() {
        assert_eq!(run_spec("keep, keep{times=2}").unwrap(), ["keep", "keep"]);
    }

    #[test]
    fn errors_name_the_pass_and_those_before() {
        let error = run_spec("keep, keep, fail").unwrap_err().to_string();
        assert_eq!(error, "pass `fail` (ran: keep, keep): no luck [G0101]");
        let error = run_spec("keep{tims=2}").unwrap_err().to_string();
        assert!(
            error.contains("unknown option `tims`") && error.contains("known options: `times`"),
            "{error}"
        );
        let error = run_spec("fail, kep").unwrap_err().to_string();
        assert!(error.contains("there is no pass `kep`") && error.contains("nearest: `keep`"), "{error}");
    }

    proptest! {
        #[test]
        fn prints_what_it_parses(pairs in prop::collection::vec(("[a-z][a-z-]{0,3}", "\\PC{0,8}"), 0..3)) {
            let stage = pairs.iter().fold(Stage::new("s"), |s, (k, v)| s.with(k, v));
            prop_assert_eq!(parse(&stage.to_string()).unwrap(), [stage]);
        }

        #[test]
        fn never_panics(spec in "\\PC{0,20}") {
            let _ = parse(&spec);
        }
    }
}

//! Selectors: which linears take an adapter, with PEFT's meaning of a target.
use crate::{Options, target::Linear};
use graft_ir::{Code, Error, Result, error::nearest};
use regex::Regex;

/// A set of module paths.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// Every eligible linear but the output layers ([`Linear::is_output`]).
    AllLinear,
    /// Each entry matches the path that it equals, and those that end with a dot and it.
    List(Vec<String>),
    /// Matches the whole path; with the text that the user wrote.
    Regex(Regex, String),
}

impl Pattern {
    /// Reads `all-linear`, `re:REGEX`, or entries separated by commas.
    pub fn parse(text: &str) -> Result<Pattern> {
        if text == "all-linear" {
            return Ok(Pattern::AllLinear);
        }
        if let Some(regex) = text.strip_prefix("re:") {
            let bad = |e| Error::new(Code::PASS, format!("bad regular expression `{regex}`: {e}"));
            let whole = Regex::new(&format!("^(?:{regex})$")).map_err(bad)?;
            return Ok(Pattern::Regex(whole, text.to_string()));
        }
        let entries: Vec<String> = text.split(',').map(|e| e.trim().to_string()).collect();
        match entries.iter().any(String::is_empty) {
            true => Err(Error::new(Code::PASS, format!("`{text}` has an empty entry"))),
            false => Ok(Pattern::List(entries)),
        }
    }
    /// Whether `linear` is in the set.
    pub fn matches(&self, linear: &Linear) -> bool {
        match self {
            Pattern::AllLinear => linear.is_eligible() && !linear.is_output,
            Pattern::List(entries) => entries.iter().any(|e| is_suffix(e, &linear.path)),
            Pattern::Regex(regex, _) => regex.is_match(&linear.path),
        }
    }
    /// Puts the path of the only module whose path it ends with (after a dot) in the place of an entry that matches
    /// nothing: an exporter may leave out scopes that the model had.
    fn shorten(&mut self, linears: &[Linear]) {
        let Pattern::List(entries) = self else { return };
        for entry in entries {
            let firsts = || linears.iter().filter(|l| l.nth_use == 0);
            let mut ends = firsts().filter(|l| is_suffix(&l.path, entry));
            let only = ends.next().filter(|_| ends.next().is_none());
            if let Some(only) = only.filter(|_| !firsts().any(|l| is_suffix(entry, &l.path))) {
                entry.clone_from(&only.path);
            }
        }
    }
    /// An error for the first part of the pattern that matches none of `linears`.
    fn check(&self, linears: &[Linear]) -> Result<()> {
        let unmatched = match self {
            Pattern::List(entries) => {
                entries.iter().find(|e| !linears.iter().any(|l| is_suffix(e, &l.path))).cloned()
            }
            Pattern::Regex(_, text) if !linears.iter().any(|l| self.matches(l)) => Some(text.clone()),
            Pattern::AllLinear if !linears.iter().any(|l| self.matches(l)) => Some("all-linear".into()),
            _ => None,
        };
        let Some(unmatched) = unmatched else { return Ok(()) };
        // A short name is compared with the last segments, a path with whole paths.
        let depth = unmatched.split('.').count();
        let tail = |l: &Linear| {
            let start = l.path.rmatch_indices('.').nth(depth - 1).map_or(0, |(i, _)| i + 1);
            l.path[start..].to_string()
        };
        let tails: Vec<String> = linears.iter().map(tail).collect();
        let near = nearest(&unmatched, tails.iter().map(String::as_str)).join("`, `");
        let help = if near.is_empty() {
            "the model has no linear node with a constant weight".into()
        } else {
            format!("nearest: `{near}`; `graft targets` lists every linear node")
        };
        Err(Error::new(Code::TARGET, format!("`{unmatched}` matches no linear node")).help(help))
    }
}

/// Whether `path` is `entry`, or ends with a dot and it.
pub(crate) fn is_suffix(entry: &str, path: &str) -> bool {
    path.strip_suffix(entry).is_some_and(|head| head.is_empty() || head.ends_with('.'))
}

/// Which linears take an adapter.
#[derive(Clone, Debug)]
pub struct Selector {
    targets: Pattern,
    exclude: Option<Pattern>,
    layers: Vec<usize>,
    /// Matches a path up to the number of its layer, which is the first group.
    layer: Vec<Regex>,
}

impl Selector {
    /// The options that [`Selector::new`] reads.
    pub const OPTIONS: &'static [&'static str] = &["targets", "exclude", "layers", "layers-pattern"];

    /// Reads `targets`, `exclude`, `layers` (numbers, separated by commas) and `layers-pattern` (the names before the
    /// layer's number; any by default).
    pub fn new(options: &Options) -> Result<Selector> {
        let text = options.get_or("targets", "all-linear".to_string())?;
        let exclude = options.get::<String>("exclude")?;
        let list = |key: &str| -> Result<Vec<String>> {
            let text = options.get_or(key, String::new())?;
            Ok(text.split(',').map(|s| s.trim().to_string()).filter(|s| !s.is_empty()).collect())
        };
        let bad = |n: &str| Error::new(Code::PASS, format!("option `layers`: `{n}` is not a number"));
        let number = |n: &String| n.parse().map_err(|_| bad(n));
        let layer_of = |name: &str| {
            let bad =
                |e| Error::new(Code::PASS, format!("option `layers-pattern`: bad pattern `{name}`: {e}"));
            Regex::new(&format!(r"^(?:.*\.)?{name}\.(\d+)\.")).map_err(bad)
        };
        let names = list("layers-pattern")?;
        let any = [String::from(r"[^.]*")];
        let names = if names.is_empty() { &any[..] } else { &names[..] };
        Ok(Selector {
            targets: Pattern::parse(&text)?,
            exclude: exclude.as_deref().map(Pattern::parse).transpose()?,
            layers: list("layers")?.iter().map(number).collect::<Result<_>>()?,
            layer: names.iter().map(|n| layer_of(n)).collect::<Result<_>>()?,
        })
    }

    /// Takes module paths as adapter files have them: one that matches nothing stands for the only module whose path it
    /// ends with, after a dot.
    pub(crate) fn shorten(&mut self, linears: &[Linear]) {
        self.targets.shorten(linears);
        self.exclude.iter_mut().for_each(|e| e.shorten(linears));
    }
    /// The linears that match; an error for a pattern that matches nothing, and for a linear that is asked for but
    /// cannot take an adapter.
    pub fn select<'a>(&self, linears: &'a [Linear]) -> Result<Vec<&'a Linear>> {
        self.targets.check(linears)?;
        self.exclude.iter().try_for_each(|e| e.check(linears))?;
        let selected: Vec<&Linear> = linears.iter().filter(|l| self.matches(l)).collect();
        if selected.is_empty() {
            let message = "the selector leaves no linear node over";
            return Err(Error::new(Code::TARGET, message).help("loosen `exclude` or `layers`"));
        }
        match selected.iter().find(|l| !l.is_eligible()) {
            Some(l) => {
                let reason = l.reason.as_deref().unwrap_or_default();
                let message = format!("`{}` ({}) cannot take an adapter: {reason}", l.path, l.op);
                Err(Error::new(Code::INELIGIBLE, message).help("leave it out with `exclude`"))
            }
            None => Ok(selected),
        }
    }
    /// Whether `linear` is asked for, be it eligible or not.
    pub fn matches(&self, linear: &Linear) -> bool {
        self.why_not(linear).is_none()
    }
    /// Why `linear` is not asked for; `None` if it is.
    pub fn why_not(&self, linear: &Linear) -> Option<String> {
        if !self.targets.matches(linear) {
            return Some(match &self.targets {
                Pattern::AllLinear if linear.is_eligible() => "its result is an output of the graph".into(),
                Pattern::AllLinear => linear.reason.clone().unwrap_or_default(),
                Pattern::List(_) | Pattern::Regex(..) => "no target matches its path".into(),
            });
        }
        if self.exclude.as_ref().is_some_and(|e| e.matches(linear)) {
            return Some("it is excluded".into());
        }
        let layer = self.layer.iter().find_map(|r| r.captures(&linear.path)?.get(1)?.as_str().parse().ok());
        let has_layer = self.layers.is_empty() || layer.is_some_and(|n: usize| self.layers.contains(&n));
        (!has_layer).then(|| "its layer is not among those asked for".into())
    }
}

/// Values that depend on the module: `PATTERN=VALUE`, the first match wins.
#[derive(Clone, Debug)]
pub struct PerModule<T>(Vec<(Pattern, String, T)>);

impl<T: std::str::FromStr + Copy> PerModule<T> {
    /// Reads every value of the option `key`.
    pub fn new(options: &Options, key: &str) -> Result<PerModule<T>> {
        let bad = |text: &str| {
            Error::new(Code::PASS, format!("option `{key}`: bad value `{text}`"))
                .help("expected PATTERN=NUMBER")
        };
        let entry = |text: &String| {
            let (pattern, value) = text.rsplit_once('=').ok_or_else(|| bad(text))?;
            Ok((Pattern::parse(pattern)?, pattern.to_string(), value.trim().parse().map_err(|_| bad(text))?))
        };
        options.all(key).iter().map(entry).collect::<Result<_>>().map(PerModule)
    }
    /// As [`Selector::shorten`].
    pub(crate) fn shorten(&mut self, linears: &[Linear]) {
        self.0.iter_mut().for_each(|(pattern, ..)| pattern.shorten(linears));
    }
    /// The value for `linear`, where a pattern matches it.
    pub fn get(&self, linear: &Linear) -> Option<T> {
        self.0.iter().find(|(pattern, ..)| pattern.matches(linear)).map(|&(.., value)| value)
    }
    /// An error for a pattern that matches none of the linears that take an adapter.
    pub fn check(&self, linears: &[Linear]) -> Result<()> {
        self.0.iter().try_for_each(|(pattern, ..)| pattern.check(linears))
    }
}

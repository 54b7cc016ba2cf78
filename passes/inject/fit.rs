//! Fits the tensors of an adapter file to the linears of a model, strictly.
use super::{FileForm, Method, Weight, files, plan::Planned};
use crate::{selector::is_suffix, target::Linear};
use graft_ir::{Code, Error, Result, Tensor, error::nearest};
use std::collections::{BTreeMap, BTreeSet};

/// Trained weights by module path and role, in the adapter's own orientation.
pub(super) type Given = BTreeMap<(String, &'static str), Tensor>;

/// Up to this many tensors are listed for each kind of misfit.
const MAX_LISTED: usize = 8;

/// Finds every weight of `plan` among `tensors`, by `<module path>.<suffix>`.
///
/// # Errors
/// [`Code::ADAPTER_FIT`] that lists what is missing, unexpected, ambiguous or of another shape.
pub(super) fn fit(
    method: &Method,
    linears: &[Linear],
    plan: &[Planned<'_>],
    tensors: &BTreeMap<String, Tensor>,
) -> Result<Given> {
    let mut misfits = Misfits::default();
    let mut found: BTreeMap<(&str, String), (&str, &Tensor)> = BTreeMap::new();
    for (key, tensor) in tensors {
        match locate(method, linears, key) {
            Err(why) => misfits.unexpected.push(format!("`{key}` ({why})")),
            Ok((linear, suffix)) => {
                if found.insert((&linear.path, suffix), (key, tensor)).is_some() {
                    misfits.unexpected.push(format!("`{key}` (`{}` has that weight already)", linear.path));
                }
            }
        }
    }
    let mut given = Given::new();
    for p in plan.iter().filter(|p| p.linear.nth_use == 0) {
        for form in p.variant.files {
            let weight = p.parts.weights.iter().find(|w| w.role == form.role);
            if let Some(files) =
                weight.and_then(|w| collect(&p.linear.path, form, w, &mut found, &mut misfits))
            {
                given.insert((p.linear.path.clone(), form.role), form.to_weight(&files)?);
            }
        }
    }
    for ((path, _), (key, _)) in found {
        let is_target = plan.iter().any(|p| p.linear.path == path);
        let why = if is_target { "its adapter has no such weight" } else { "no target" };
        misfits.unexpected.push(format!("`{key}` (`{path}`: {why})"));
    }
    misfits.into_result().map(|()| given)
}

/// Takes the tensors of one weight out of `found`; `None` if one is missing or misshapen.
fn collect<'t>(
    path: &'t str,
    form: &FileForm,
    weight: &Weight,
    found: &mut BTreeMap<(&'t str, String), (&'t str, &'t Tensor)>,
    misfits: &mut Misfits,
) -> Option<Vec<&'t Tensor>> {
    let mut files = Some(Vec::new());
    for (suffix, dims) in form.expected(&weight.dims) {
        match found.remove(&(path, suffix.clone())) {
            None => misfits.missing.push(format!("`{path}.{suffix}`")),
            Some((_, tensor)) if tensor.dims() == dims => {
                files.iter_mut().for_each(|files| files.push(tensor));
                continue;
            }
            Some((key, tensor)) => {
                misfits.misshapen.push(format!("`{key}` is {:?}, expected {dims:?}", tensor.dims()));
            }
        }
        files = None;
    }
    files
}

/// The linears that `tensors` are for, in the order of the nodes.
pub(super) fn linears_of<'a>(
    method: &Method,
    linears: &'a [Linear],
    tensors: &BTreeMap<String, Tensor>,
) -> Result<Vec<&'a Linear>> {
    let mut misfits = Misfits::default();
    let mut paths = BTreeSet::new();
    for key in tensors.keys() {
        match locate(method, linears, key) {
            Ok((linear, _)) if linear.is_eligible() => _ = paths.insert(linear.path.as_str()),
            Ok((linear, _)) => {
                let reason = linear.reason.as_deref().unwrap_or_default();
                misfits.unexpected.push(format!("`{key}` (`{}` cannot take it: {reason})", linear.path));
            }
            Err(why) => misfits.unexpected.push(format!("`{key}` ({why})")),
        }
    }
    misfits.into_result()?;
    Ok(linears.iter().filter(|l| paths.contains(l.path.as_str())).collect())
}

/// The linear that a key of an adapter file is for, and the suffix that it has; else why there is none.
fn locate<'a>(method: &Method, linears: &'a [Linear], key: &str) -> Result<(&'a Linear, String), String> {
    let unknown = || format!("not a weight of method `{}`: {}", method.name, files::suffixes(method));
    let forms = method.variants.iter().flat_map(|v| v.files);
    let (module, suffix) = forms.into_iter().find_map(|form| form.split(key)).ok_or_else(unknown)?;
    if let Some(exact) = linears.iter().find(|l| l.path == module) {
        return Ok((exact, suffix));
    }
    let related = |l: &Linear| is_suffix(module, &l.path) || is_suffix(&l.path, module);
    let matches = |l: &&Linear| l.nth_use == 0 && related(l);
    let candidates: Vec<&Linear> = linears.iter().filter(matches).collect();
    match candidates[..] {
        [one] => Ok((one, suffix)),
        [] => {
            let near = nearest(module, linears.iter().map(|l| l.path.as_str())).join("`, `");
            Err(format!("no linear node has that path; nearest: `{near}`"))
        }
        _ => {
            let paths: Vec<&str> = candidates.iter().map(|l| l.path.as_str()).collect();
            Err(format!("ambiguous: `{}`", paths.join("`, `")))
        }
    }
}

/// What does not fit.
#[derive(Default)]
struct Misfits {
    missing: Vec<String>,
    unexpected: Vec<String>,
    misshapen: Vec<String>,
}

impl Misfits {
    fn into_result(self) -> Result<()> {
        let kinds =
            [("missing", self.missing), ("unexpected", self.unexpected), ("misshapen", self.misshapen)];
        let list = |(kind, all): (&str, Vec<String>)| {
            let rest = all.len().saturating_sub(MAX_LISTED);
            let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
            let shown: Vec<String> = all.into_iter().take(MAX_LISTED).collect();
            (!shown.is_empty()).then(|| format!("{kind}: {}{more}", shown.join(", ")))
        };
        let lists: Vec<String> = kinds.into_iter().filter_map(list).collect();
        if lists.is_empty() {
            return Ok(());
        }
        let help = "method, rank and targets must be those that the adapter was trained with";
        Err(Error::new(Code::ADAPTER_FIT, format!("the adapter does not fit: {}", lists.join("; ")))
            .help(help))
    }
}

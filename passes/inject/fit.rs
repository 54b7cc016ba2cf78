//! Fits the tensors of an adapter file to the linears of a model, strictly.
use super::{FileForm, Method, plan::Planned};
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
    let mut given: Given = BTreeMap::new();
    let planned = |path: &str| plan.iter().find(|p| p.linear.path == path);
    for (key, tensor) in tensors {
        let (linear, form) = match locate(method, linears, key) {
            Ok(found) => found,
            Err(why) => {
                misfits.unexpected.push(format!("`{key}` ({why})"));
                continue;
            }
        };
        let weight = planned(&linear.path).and_then(|p| p.weights.iter().find(|w| w.role == form.role));
        let Some(weight) = weight else {
            misfits.unexpected.push(format!("`{key}` (`{}` is no target)", linear.path));
            continue;
        };
        let expected = form.dims(&weight.dims);
        if tensor.dims() != expected {
            misfits.misshapen.push(format!("`{key}` is {:?}, expected {expected:?}", tensor.dims()));
        }
        if given.insert((linear.path.clone(), form.role), stored(tensor, form)?).is_some() {
            misfits.unexpected.push(format!("`{key}` (`{}` has that weight already)", linear.path));
        }
    }
    for p in plan {
        for form in method.files {
            if !given.contains_key(&(p.linear.path.clone(), form.role)) {
                misfits.missing.push(format!("`{}.{}`", p.linear.path, form.suffix));
            }
        }
    }
    misfits.into_result().map(|()| given)
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

/// The linear and the weight that a key of an adapter file stands for; else why there is none.
fn locate<'a>(
    method: &Method,
    linears: &'a [Linear],
    key: &str,
) -> Result<(&'a Linear, &'static FileForm), String> {
    let split = |form: &'static FileForm| Some((key.strip_suffix(form.suffix)?.strip_suffix('.')?, form));
    let unknown = || format!("not a weight of method `{}`", method.name);
    let (module, form) = method.files.iter().find_map(split).ok_or_else(unknown)?;
    if let Some(exact) = linears.iter().find(|l| l.path == module) {
        return Ok((exact, form));
    }
    let matches = |l: &&Linear| is_suffix(module, &l.path) || is_suffix(&l.path, module);
    let candidates: Vec<&Linear> = linears.iter().filter(matches).collect();
    match candidates[..] {
        [one] => Ok((one, form)),
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

/// The tensor in the adapter's own orientation.
fn stored(tensor: &Tensor, form: &FileForm) -> Result<Tensor> {
    if form.is_transposed { transposed(tensor) } else { Ok(tensor.clone()) }
}

/// A matrix with rows and columns exchanged, bit by bit.
pub(super) fn transposed(tensor: &Tensor) -> Result<Tensor> {
    let size = tensor.dtype().bits() / 8;
    let &[rows, columns] = tensor.dims() else {
        return Err(Error::new(Code::ADAPTER_FIT, format!("expected a matrix, found {:?}", tensor.dims())));
    };
    let data = tensor.data();
    let mut out = Vec::with_capacity(data.len());
    for column in 0..columns {
        for row in 0..rows {
            let at = (row * columns + column) * size;
            out.extend_from_slice(&data[at..at + size]);
        }
    }
    Tensor::new(tensor.dtype(), vec![columns, rows], out.into())
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

//! What the routers of HydraLoRA do on data, and the LoRA that is left where their mean is held fixed:
//! `Σₕ p̄ₕ·(x·a)·bₕ = (x·a)·b̄` with `b̄ = Σₕ p̄ₕ·bₕ`, which has a weight, as the routed sum has not.
use crate::{
    config::Config,
    data::{self, Dataset, Schema, Text},
    init::Init,
    observer::Silent,
    order::{Order, batches},
    prepare::read_data,
    stepper,
};
use graft_exec::{Options, Session};
use graft_ir::{Code, Error, Graph, Result, Tensor, Value};
use graft_passes::{
    inject::{Method, adapters},
    meta,
};
use std::{collections::BTreeMap, path::Path};

/// The mean probability of each head, by the module path of the adapter.
pub type Routing = BTreeMap<String, Vec<f64>>;

/// The mean routing by the domain of the rows; [`ALL`] stands for all of them.
pub type Domains = BTreeMap<String, Routing>;

/// All rows, whatever their domain.
pub const ALL: &str = "all";

/// The method whose adapters route.
const ROUTED: &str = "hydra";
/// The role of the routers' result, of the heads and of what they share in its functions.
const PROBABILITIES: &str = "p";
const HEADS: &str = "b";
const SHARED: &str = "a";
/// The input that marks tokens that are not padding.
const MASK: &str = "attention_mask";
/// Rows of a batch.
const BATCH: usize = 16;

/// Inputs of `graph` to calibrate on, in batches; text where `text` says how it is read.
///
/// # Errors
/// As [`Dataset::read`]'s.
pub fn calibration(
    graph: &Graph,
    path: &Path,
    text: Option<&Text<'_>>,
    note: &mut dyn FnMut(&str),
) -> Result<Vec<Vec<(String, Tensor)>>> {
    let data = Dataset::read(path, &Schema::of(graph, "none")?, text, note)?;
    let rows = batches(Order::Shuffle, data.lengths(), BATCH, 0, 0);
    Ok(rows.iter().map(|rows| data.batch(rows)).collect())
}

/// The mean routing of every HydraLoRA on `graph` over all tokens of `data` that are not padding.
///
/// # Errors
/// [`Code::MERGE`] where nothing on the graph routes; those of running it.
pub fn mean(graph: &Graph, data: &[Vec<(String, Tensor)>]) -> Result<Routing> {
    let routers = routers(graph);
    if routers.is_empty() {
        let message = "the adapter has no router, so there is no mean routing";
        return Err(Error::new(Code::MERGE, message).help("leave `--routing` out"));
    }
    let mut watched = graph.clone();
    watched.outputs = routers.iter().map(|(_, v)| *v).collect();
    watched.sweep();
    let mut session = Session::new(&watched, &[], &Options::default())?;
    let mut sums: BTreeMap<&str, (Vec<f64>, f64)> = BTreeMap::new();
    for batch in data {
        let outputs = stepper::run(&mut session, batch)?;
        let mask = batch.iter().find(|(name, _)| name == MASK).map(|(_, mask)| mask);
        for (path, v) in &routers {
            let p = outputs.get(graph.name(*v));
            p.map_or(Ok(()), |p| add(p, mask, sums.entry(path).or_default()))?;
        }
    }
    let mean = |(path, (sum, weight)): (&str, (Vec<f64>, f64))| {
        (path.to_string(), sum.iter().map(|p| p / f64::max(weight, 1.0)).collect())
    };
    Ok(sums.into_iter().map(mean).collect())
}

/// Whether the adapters on `graph` route.
pub(crate) fn routes(graph: &Graph) -> Result<bool> {
    Ok(adapters(graph)?.iter().any(|adapter| adapter.method == ROUTED))
}

/// The mean routing of every HydraLoRA on `graph` over the rows that a run is evaluated on (else: trained on), by their
/// domain.
pub(crate) fn by_domain(graph: &Graph, config: &Config) -> Result<Domains> {
    let path = config.eval.as_ref().unwrap_or(&config.data);
    let rows = read_data(path, &Schema::of(graph, "none")?, config, &mut Silent)?;
    let mut groups = BTreeMap::from([(ALL.to_string(), (0..rows.rows()).collect::<Vec<usize>>())]);
    for (row, domain) in data::domains(path, &config.label)?.into_iter().enumerate() {
        groups.entry(domain).or_default().push(row);
    }
    let of_rows = |chosen: &[usize]| {
        let lengths: Vec<usize> = chosen.iter().map(|&row| rows.lengths()[row]).collect();
        let batch = |these: &Vec<usize>| rows.batch(&these.iter().map(|&i| chosen[i]).collect::<Vec<_>>());
        mean(graph, &batches(Order::Shuffle, &lengths, BATCH, 0, 0).iter().map(batch).collect::<Vec<_>>())
    };
    groups.into_iter().map(|(domain, chosen)| Ok((domain, of_rows(&chosen)?))).collect()
}

/// The mean over all adapters, which have as many heads each, for a line of text.
pub(crate) fn summary(routing: &Routing) -> String {
    let heads = routing.values().map(Vec::len).max().unwrap_or(0);
    let of_head =
        |h: usize| routing.values().filter_map(|p| p.get(h)).sum::<f64>() / routing.len().max(1) as f64;
    (0..heads).map(|h| format!("{:.3}", of_head(h))).collect::<Vec<_>>().join(" ")
}

/// The results of the routers on `graph`, with the paths of their adapters.
fn routers(graph: &Graph) -> Vec<(String, Value)> {
    let router = |node: &graft_ir::Node| {
        let is_one = node.meta.get(meta::METHOD).is_some_and(|m| m == ROUTED)
            && node.meta.get(meta::ROLE).is_some_and(|r| r == PROBABILITIES);
        is_one.then(|| Some((node.meta.get(meta::TARGET)?.clone(), node.output(0)?))).flatten()
    };
    graph.nodes.iter().filter_map(router).collect()
}

/// Adds probabilities (…, heads) up over the tokens that `mask` has, where it is about these tokens.
fn add(p: &Tensor, mask: Option<&Tensor>, (sum, weight): &mut (Vec<f64>, f64)) -> Result<()> {
    let no_numbers = || Error::new(Code::GRAPH, "the routing is no tensor of numbers");
    let (&heads, tokens) = p.dims().split_last().ok_or_else(no_numbers)?;
    let mask = mask.filter(|mask| mask.dims() == tokens).and_then(Tensor::to_f64);
    sum.resize(heads, 0.0);
    for (i, row) in p.to_f64().ok_or_else(no_numbers)?.chunks_exact(heads.max(1)).enumerate() {
        let share = mask.as_ref().map_or(1.0, |mask| f64::from(u8::from(mask[i] != 0.0)));
        sum.iter_mut().zip(row).for_each(|(sum, p)| *sum += share * p);
        *weight += share;
    }
    Ok(())
}

/// The LoRA that the HydraLoRA `adapter`, which is on `graph`, becomes where its routing is held at `routing`.
///
/// # Errors
/// [`Code::MERGE`] where an adapter is no HydraLoRA, or has no routing.
pub fn as_lora(graph: &Graph, adapter: &Init, routing: &Routing) -> Result<Init> {
    let lora = Method::named("lora")?;
    let mut tensors = BTreeMap::new();
    for adapter in adapters(graph)? {
        let path = &adapter.target;
        let lost =
            || Error::new(Code::MERGE, format!("the adapter of `{path}` has no heads with a mean routing"));
        let shared = weight(graph, path, SHARED).ok_or_else(lost)?.clone();
        let heads = weight(graph, path, HEADS).ok_or_else(lost)?;
        let mean = routing.get(path).and_then(|p| weighted(heads, p)).ok_or_else(lost)?;
        for (role, tensor) in [("a", shared), ("b", mean)] {
            let form = lora.file(role).ok_or_else(lost)?;
            let files = form.to_files(&tensor)?.into_iter();
            tensors.extend(files.map(|(suffix, tensor)| (format!("{path}.{suffix}"), tensor)));
        }
    }
    let options = adapter.options.without("method").without("experts").with("method", lora.name);
    Ok(Init { options, tensors, ..adapter.clone() })
}

/// The weight of an adapter that plays `role`.
fn weight<'g>(graph: &'g Graph, target: &str, role: &str) -> Option<&'g Tensor> {
    let is = |v: Value, key: &str, value: &str| graph[v].meta.get(key).is_some_and(|found| found == value);
    let v = graph.params.iter().find(|v| is(**v, meta::TARGET, target) && is(**v, meta::ROLE, role))?;
    graph[*v].tensor.as_ref()
}

/// `Σₕ pₕ·bₕ` for b (heads, rank, out).
fn weighted(heads: &Tensor, p: &[f64]) -> Option<Tensor> {
    let [n, rank, out] = heads.dims() else { return None };
    let values = heads.to_f64().filter(|_| *n == p.len())?;
    let size = rank * out;
    let sum = |i: usize| p.iter().enumerate().map(|(h, p)| p * values[h * size + i]).sum::<f64>();
    Tensor::from_f64(heads.dtype(), &[*rank, *out], (0..size).map(sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_does_not_count() {
        let p = Tensor::f32(&[1, 3, 2], &[1.0, 0.0, 0.25, 0.75, 0.5, 0.5]);
        let mask = Tensor::i64(&[1, 3], &[1, 1, 0]);
        let mut sums = (Vec::new(), 0.0);
        add(&p, Some(&mask), &mut sums).unwrap();
        assert_eq!(sums, (vec![1.25, 0.75], 2.0));
        // A mask of other tokens says nothing of these.
        add(&p, Some(&Tensor::i64(&[3], &[0, 0, 0])), &mut sums).unwrap();
        assert_eq!(sums, (vec![3.0, 2.0], 5.0));
    }

    #[test]
    fn heads_are_weighted() {
        let heads = Tensor::f32(&[2, 1, 2], &[1.0, 2.0, 3.0, 6.0]);
        assert_eq!(weighted(&heads, &[0.25, 0.75]), Some(Tensor::f32(&[1, 2], &[2.5, 5.0])));
        assert_eq!(weighted(&heads, &[1.0]), None);
    }
}

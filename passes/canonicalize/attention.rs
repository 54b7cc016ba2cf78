//! Attention that is written out, as a call: softmax (scale · q · kᵀ + bias) · v in the words of whatever exporter.
//!
//! Where the factor stands (on q, on k, on both as a root, on the scores), how keys are turned, how masks are added, and what
//! is done for queries that see no key all vary freely, so this is code. `scores` reads what the softmax is of.
mod factor;
mod scores;

use crate::{
    Context,
    rewrite::{Reject, Sites},
};
use graft_ir::{Attr, Builder, DType, Dim, Graph, Node, Result, Value, infer, library};
use scores::{Bias, Scores};

/// The functions called, for heads that have keys and values of their own and for heads that share them.
const OWN: &str = "graft.Attention";
const SHARED: &str = "graft.GroupedAttention";

/// Replaces each attention whose scores nobody else reads.
pub(super) fn raise(graph: &Graph, ctx: &mut Context<'_>) -> Result<Graph> {
    let sites = Sites::new(graph);
    let mut found = Vec::new();
    for node in &graph.nodes {
        found.push(match find(&sites, node) {
            Some(Err(reject)) => {
                (ctx.log)(&format!("attention: not at `{}`: {reject}", infer::node_label(graph, node)));
                None
            }
            judged => judged.and_then(std::result::Result::ok),
        });
    }
    let n = found.iter().flatten().count();
    if n == 0 {
        return Ok(graph.clone());
    }
    let mut out = graph.clone();
    let mut b = Builder::new(&mut out);
    for (node, found) in std::mem::take(&mut b.graph.nodes).into_iter().zip(found) {
        match found {
            Some(attention) => attention.write(&node, &mut b)?,
            None => b.graph.nodes.push(node),
        }
    }
    out.sweep();
    (ctx.log)(&format!("canonicalize: attention × {n}"));
    Ok(out)
}

/// What an attention is made of.
struct Attention {
    scores: Scores,
    v: Value,
    /// How many heads of queries share one of keys and values, which are then those before they were repeated.
    times: Option<i64>,
}

/// The attention whose last product is `node`: `None` where nothing there is a softmax.
fn find(sites: &Sites<'_>, node: &Node) -> Option<std::result::Result<Attention, Reject>> {
    let (shares, v) = (node.input(0)?, node.input(1)?);
    if node.op != "MatMul" || sites.graph.shape(v).is_some_and(|dims| dims.len() < 3) {
        return None;
    }
    Some(scores::behind(sites, shares)?.and_then(|scores| Attention::new(sites, scores, v)))
}

impl Attention {
    fn new(sites: &Sites<'_>, scores: Scores, v: Value) -> std::result::Result<Attention, Reject> {
        let mut found = Attention { scores, v, times: None };
        found.check(sites.graph)?;
        if found.scores.k_perm.is_none()
            && let (Some((k, times)), Some((v, again))) =
                (repeated(sites, found.scores.k), repeated(sites, found.v))
            && times == again
        {
            (found.scores.k, found.v, found.times) = (k, v, Some(times));
        }
        Ok(found)
    }

    /// Ranks, types and sizes must be those of the function, so that its gradient has no broadcasting to undo.
    fn check(&self, graph: &Graph) -> std::result::Result<(), Reject> {
        let Scores { q, k, k_perm, .. } = self.scores;
        let four = |v: Value| match graph.shape(v) {
            Some([a, b, c, d]) if graph.dtype(v) == Some(DType::Float) => Ok([a, b, c, d]),
            _ => Err(format!("`{}` is not known to be float of rank 4", graph.name(v))),
        };
        let (queries, stored, values) = (four(q)?, four(k)?, four(self.v)?);
        let keys = k_perm.map_or(stored, |perm| perm.map(|axis| stored[axis as usize]));
        for (what, (a, others)) in [
            ("batch", (queries[0], [keys[0], values[0]])),
            ("number of heads", (queries[1], [keys[1], values[1]])),
            ("length", (keys[2], [keys[2], values[2]])),
        ] {
            if !others.iter().all(|b| may_be(a, b)) {
                return Err(format!("`{}` and `{}` differ in their {what}", graph.name(k), graph.name(q)));
            }
        }
        let sizes = [queries[0], queries[1], queries[2], keys[2]];
        let fits = |bias: &Bias| bias.shape(graph).is_some_and(|dims| repeats_to(dims, sizes));
        match self.scores.biases.iter().find(|bias| !fits(bias)) {
            Some(bias) => {
                Err(format!("`{}` is not known to broadcast to the scores", graph.name(bias.value())))
            }
            None => Ok(()),
        }
    }

    /// Appends the call in the place of `node`.
    fn write(self, node: &Node, b: &mut Builder<'_>) -> Result<()> {
        let scope = crate::inline::scope(b.graph, node);
        b.scope(scope);
        let Scores { q, k, k_perm, scale, biases } = self.scores;
        let perm = |perm: [i64; 4]| Attr::Ints(perm.to_vec());
        let k = match k_perm {
            Some(order) => b.push("k", Node::new("Transpose", &[k], &[]).with("perm", perm(order)))?,
            None => k,
        };
        let mut bias = None;
        for part in biases {
            let part = part.write(q, b)?;
            bias = Some(bias.map_or(Ok(part), |sum| b.op("bias", "Add", &[sum, part]))?);
        }
        let bias = bias.map_or_else(|| b.scalar_like("bias", 0.0, q), Ok)?;
        let op = if self.times.is_some() { SHARED } else { OWN };
        let heads = b.shape(q)?[1].as_const();
        let mut call = Node { name: node.name.clone(), meta: node.meta.clone(), ..Node::new(op, &[], &[]) }
            .with("scale", Attr::Float(scale as f32));
        if let (Some(times), Some(heads)) = (self.times, heads) {
            call = call.with("heads", Attr::Ints(vec![heads])).with("times", Attr::Ints(vec![times]));
        }
        call.inputs = [q, k, self.v, bias].map(Some).into();
        call.outputs.clone_from(&node.outputs);
        library::require(b.graph, op)?;
        b.append(call)
    }
}

/// Whether two sizes are equal as far as is known; a 1 that may meet another size is not.
fn may_be(a: &Dim, b: &Dim) -> bool {
    a == b || (!a.never_equals(b) && a.as_const() != Some(1) && b.as_const() != Some(1))
}

/// Whether `dims` broadcasts to `sizes` and no further.
fn repeats_to(dims: &[Dim], sizes: [&Dim; 4]) -> bool {
    let pairs = dims.iter().rev().zip(sizes.into_iter().rev());
    dims.len() <= 4 && pairs.into_iter().all(|(d, size)| d.as_const() == Some(1) || may_be(d, size))
}

/// The heads that were repeated to make `v`, each beside itself, and how often: Unsqueeze · Expand · Reshape.
fn repeated(sites: &Sites<'_>, v: Value) -> Option<(Value, i64)> {
    let producer = |v: Value, op: &str| sites.node(v).filter(|node| node.op == op);
    let expanded = producer(v, "Reshape")?.input(0)?;
    let apart = producer(expanded, "Expand")?.input(0)?;
    let x = producer(apart, "Unsqueeze")?.input(0)?;
    let shape = |v: Value| sites.graph.shape(v);
    let ([batch, heads, n, size], [b5, h5, times, n5, s5], [.., one, _, _]) =
        (shape(x)?, shape(expanded)?, shape(apart)?)
    else {
        return None;
    };
    let times = times.as_const()?;
    let joined = [batch.clone(), Dim::from(heads.as_const()? * times), n.clone(), size.clone()];
    // A new axis of one before keys that are one, or behind heads that are one, is the same tensor.
    let is_repeated = [b5, h5, n5, s5] == [batch, heads, n, size]
        && shape(v)? == joined
        && shape(apart)?.len() == 5
        && one.as_const() == Some(1);
    is_repeated.then_some((x, times))
}

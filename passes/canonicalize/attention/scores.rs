//! What a softmax over keys is of: factors, masks and a product, read backwards.
use super::factor::{constant, factor};
use crate::rewrite::{Reject, Sites};
use graft_ir::{Builder, Dim, Graph, Node, Result, Value};
use std::collections::HashSet;

/// A number that hides a key whatever its score: adding it to a score gives the number itself.
const HIDES: f64 = -1e30;
/// More nodes than stand between a softmax and its product.
const FAR: usize = 8;

/// scale · q · kᵀ + the biases.
pub(super) struct Scores {
    pub(super) q: Value,
    pub(super) k: Value,
    /// How the axes of `k` must be moved to be (batch, heads, keys, size).
    pub(super) k_perm: Option<[i64; 4]>,
    pub(super) scale: f64,
    /// In the order in which they are added.
    pub(super) biases: Vec<Bias>,
}

/// What is added to the scores.
pub(super) enum Bias {
    /// A value.
    Given(Value),
    /// `hidden` where the boolean `mask` is `hides`, 0 elsewhere.
    Masked { mask: Value, hides: bool, hidden: f64 },
}

impl Bias {
    pub(super) fn value(&self) -> Value {
        let (Bias::Given(v) | Bias::Masked { mask: v, .. }) = self;
        *v
    }
    pub(super) fn shape<'g>(&self, graph: &'g Graph) -> Option<&'g [Dim]> {
        graph.shape(self.value())
    }
    /// The value to add, of the type of `like`.
    pub(super) fn write(self, like: Value, b: &mut Builder<'_>) -> Result<Value> {
        let (mask, hides, hidden) = match self {
            Bias::Given(v) => return Ok(v),
            Bias::Masked { mask, hides, hidden } => (mask, hides, hidden),
        };
        let (shown, hidden) = (b.scalar_like("shown", 0.0, like)?, b.scalar_like("hidden", hidden, like)?);
        let [yes, no] = if hides { [hidden, shown] } else { [shown, hidden] };
        b.op("mask", "Where", &[mask, yes, no])
    }
}

/// The scores of which `shares` are the softmax, if it is one over the last axis, guarded or not.
pub(super) fn behind(sites: &Sites<'_>, shares: Value) -> Option<std::result::Result<Scores, Reject>> {
    let mut walk = Walk { sites, inner: HashSet::new() };
    let (softmax, guarded) = walk.softmax(shares)?;
    let scores = walk.unguarded(softmax.input(0)?, guarded).and_then(|v| walk.scores(v, FAR));
    Some(scores.and_then(|scores| walk.check_inner(shares).map(|()| scores)))
}

/// A way through the graph, and the values passed that must be of no use elsewhere: as large as the scores.
struct Walk<'s, 'g> {
    sites: &'s Sites<'g>,
    inner: HashSet<Value>,
}

impl<'g> Walk<'_, 'g> {
    fn node(&self, v: Value, op: &str) -> Option<&'g Node> {
        self.sites.node(v).filter(|node| node.op == op)
    }
    fn is_zero(&self, v: Option<Value>) -> bool {
        v.and_then(|v| constant(self.sites, v)) == Some(0.0)
    }

    /// The softmax that `shares` is, and the condition under which a guard puts 0 in its place.
    fn softmax(&mut self, shares: Value) -> Option<(&'g Node, Option<Value>)> {
        self.inner.insert(shares);
        let guard = self.node(shares, "Where").filter(|node| self.is_zero(node.input(1)));
        let of = guard.map_or(Some(shares), |node| node.input(2))?;
        let softmax = self.node(of, "Softmax").filter(|node| is_of_last_axis(self.sites.graph, node))?;
        self.inner.insert(of);
        let Some(guard) = guard.and_then(|node| node.input(0)) else { return Some((softmax, None)) };
        // `IsNaN` of the softmax itself: it is where a query sees no key.
        if self.node(guard, "IsNaN").is_some_and(|node| node.input(0) == Some(of)) {
            self.inner.insert(guard);
            return Some((softmax, None));
        }
        Some((softmax, Some(guard)))
    }

    /// What a softmax is of that was kept from rows in which all is hidden: 0 under the condition of its guard, which
    /// must be that the largest element of a mask is -∞.
    fn unguarded(&mut self, of: Value, guard: Option<Value>) -> std::result::Result<Value, Reject> {
        let Some(guard) = guard else { return Ok(of) };
        let safe =
            self.node(of, "Where").filter(|node| node.input(0) == Some(guard) && self.is_zero(node.input(1)));
        let is_blind = || {
            let equal = self.node(guard, "Equal")?;
            let largest = self.node(equal.input(0)?, "ReduceMax")?;
            (constant(self.sites, equal.input(1)?)? == f64::NEG_INFINITY).then(|| largest.input(0)).flatten()
        };
        let strange =
            || format!("`{}` hides shares in a way that is not known", self.sites.graph.name(guard));
        let inner =
            safe.and_then(|node| node.input(2)).filter(|_| is_blind().is_some()).ok_or_else(strange)?;
        self.inner.extend([of, inner]);
        Ok(inner)
    }

    /// `v` as scores, at most `far` nodes from their product.
    fn scores(&mut self, v: Value, far: usize) -> std::result::Result<Scores, Reject> {
        let name = |v: Value| self.sites.graph.name(v).to_string();
        let lost = format!("`{}` is no sum of a scaled product and a mask", name(v));
        let far = far.checked_sub(1).ok_or_else(|| lost.clone())?;
        let node = self.sites.node(v).ok_or_else(|| lost.clone())?;
        let found = match (&*node.op, node.input(0), node.input(1), node.input(2)) {
            ("MatMul", Some(q), Some(k), None) => Ok(self.product(q, k)),
            ("Mul" | "Div", ..) => self.scaled(node, far).unwrap_or(Err(lost)),
            ("Add", Some(a), Some(b), None) => {
                // Either may be the mask.
                let (x, bias) = if self.leads_to_product(a, far) { (a, b) } else { (b, a) };
                self.biased(x, Bias::Given(bias), far)
            }
            ("Where", Some(mask), Some(a), Some(b)) => {
                let hidden = |v: Value| constant(self.sites, v).filter(|&x| x <= HIDES);
                match (hidden(a), hidden(b)) {
                    (None, Some(hidden)) => self.biased(a, Bias::Masked { mask, hides: false, hidden }, far),
                    (Some(hidden), None) => self.biased(b, Bias::Masked { mask, hides: true, hidden }, far),
                    _ => Err(lost),
                }
            }
            _ => Err(lost),
        }?;
        self.inner.insert(v);
        Ok(found)
    }

    fn leads_to_product(&self, v: Value, far: usize) -> bool {
        let mut probe = Walk { sites: self.sites, inner: HashSet::new() };
        probe.scores(v, far).is_ok()
    }

    fn biased(&mut self, x: Value, bias: Bias, far: usize) -> std::result::Result<Scores, Reject> {
        let mut scores = self.scores(x, far)?;
        scores.biases.push(bias);
        Ok(scores)
    }

    /// Scores times a number; `None` where it is none.
    fn scaled(&mut self, node: &Node, far: usize) -> Option<std::result::Result<Scores, Reject>> {
        let (x, factor) = scaled(self.sites, node)?;
        Some(self.scores(x, far).and_then(|mut scores| {
            if !scores.biases.is_empty() {
                return Err(format!("`{}` is scaled behind its mask", self.sites.graph.name(x)));
            }
            scores.scale *= factor;
            Ok(scores)
        }))
    }

    /// The product of `q` and the transpose `k_t`, without the factors and moves of axes in front of it.
    fn product(&self, q: Value, k_t: Value) -> Scores {
        let (q, q_factor) = unscaled(self.sites, q);
        let (k_t, before) = unscaled(self.sites, k_t);
        let (k, k_perm) = self.turned(k_t);
        let (k, after) = unscaled(self.sites, k);
        Scores { q, k, k_perm, scale: q_factor * before * after, biases: Vec::new() }
    }

    /// The keys of which `k_t` is the transpose, and how their axes are still to be moved.
    fn turned(&self, k_t: Value) -> (Value, Option<[i64; 4]>) {
        if let Some(k) = self.transposed_flat(k_t) {
            return (k, None);
        }
        let moved =
            self.node(k_t, "Transpose").and_then(|node| Some((node.input(0)?, node.ints("perm").ok()??)));
        match moved {
            Some((k, [0, 1, 3, 2])) => (k, None),
            // Transposing (…, size, keys) once more gives keys; both moves in one.
            Some((k, &[a, b, c, d])) => (k, Some([a, b, d, c])),
            _ => (k_t, Some([0, 1, 3, 2])),
        }
    }

    /// The last two axes exchanged with the others as one: Reshape · Transpose · Reshape, as dynamo writes it.
    fn transposed_flat(&self, k_t: Value) -> Option<Value> {
        let flat_t = self.node(k_t, "Reshape")?.input(0)?;
        let transpose = self.node(flat_t, "Transpose")?;
        let flat = transpose.input(0)?;
        let k = self.node(flat, "Reshape")?.input(0)?;
        let shape = |v: Value| self.sites.graph.shape(v);
        let ([a, b, n, size], [_, flat_n, flat_size], [a_t, b_t, size_t, n_t]) =
            (shape(k)?, shape(flat)?, shape(k_t)?)
        else {
            return None;
        };
        let is_turned = transpose.ints("perm").ok()?? == [0, 2, 1]
            && [n, size] == [flat_n, flat_size]
            && [a, b, n, size] == [a_t, b_t, n_t, size_t];
        is_turned.then_some(k)
    }

    /// All that is as large as the scores must go: who reads some of it would have it computed twice.
    fn check_inner(&self, shares: Value) -> std::result::Result<(), Reject> {
        let uses = &self.sites.uses;
        let is_inner =
            |reader: &usize| self.sites.graph.nodes[*reader].defines().any(|v| self.inner.contains(&v));
        for &v in &self.inner {
            // The shares are read by the product with the values, once.
            let allowed = usize::from(v == shares);
            let others = uses.users(v).iter().filter(|reader| !is_inner(reader)).count();
            if uses.is_output(v) || others > allowed {
                return Err(format!("`{}` is used outside the match", self.sites.graph.name(v)));
            }
        }
        Ok(())
    }
}

/// Before opset 13 a softmax goes over all axes from its own on.
fn is_of_last_axis(graph: &Graph, node: &Node) -> bool {
    let default = if graph.opset("").is_some_and(|version| version < 13) { 1 } else { -1 };
    let axis = node.int("axis").ok().flatten().unwrap_or(default);
    let rank = node.input(0).and_then(|x| graph.shape(x)).map(|dims| dims.len() as i64);
    axis == -1 || rank.is_some_and(|rank| axis == rank - 1)
}

/// The operand and the number, if `node` multiplies or divides by one.
fn scaled(sites: &Sites<'_>, node: &Node) -> Option<(Value, f64)> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    match &*node.op {
        "Mul" => factor(sites, b).map(|f| (a, f)).or_else(|| factor(sites, a).map(|f| (b, f))),
        "Div" => factor(sites, b).map(|f| (a, 1.0 / f)),
        _ => None,
    }
}

/// `v` without the factor in front of it.
fn unscaled(sites: &Sites<'_>, v: Value) -> (Value, f64) {
    sites.node(v).and_then(|node| scaled(sites, node)).unwrap_or((v, 1.0))
}

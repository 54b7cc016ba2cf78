//! Binds a pattern to a part of a graph.
use super::{Sites, defaults};
use crate::constant;
use graft_ir::{Array, Attr, Attrs, Code, Data, Error, Function, Graph, Node, Result, Value};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Why a pattern that fits was not applied: a sentence for people.
pub type Reject = String;

/// A function whose body can be looked for.
pub struct Pattern<'f> {
    function: &'f Function,
    /// For each value that the body defines, the position of its node.
    definitions: HashMap<Value, usize>,
    /// What each `Constant` node of the body holds, by position.
    constants: HashMap<usize, Option<Array>>,
    /// The results that no other result depends on, each by value and position: a match has at least one of them.
    sinks: Vec<(Value, usize)>,
}

/// Where a pattern was found.
#[derive(Clone, Default)]
pub struct Match {
    /// Values of the pattern (but constants), and the graph's values that they are.
    pub values: HashMap<Value, Value>,
    /// The pattern's attributes.
    pub attrs: Attrs,
    /// Positions of nodes in the pattern, and of those in the graph that they are; without constants.
    pub nodes: BTreeMap<usize, usize>,
    /// Positions of the graph's `Constant` nodes that play a part: others may read them too.
    pub constants: HashSet<usize>,
}

impl Match {
    /// Whether node `i` of the graph is a part of the match.
    pub fn covers(&self, i: usize) -> bool {
        self.nodes.values().any(|&n| n == i)
    }
}

/// A value of the pattern, and what it would have to be.
type Goal = (Value, Value);

impl<'f> Pattern<'f> {
    /// Checks that each input and each declared attribute occurs in the body, that each attribute that occurs is
    /// declared, and that results are computed.
    pub fn new(function: &'f Function) -> Result<Pattern<'f>> {
        let body = &function.body;
        let wrong = |what: String| Error::new(Code::GRAPH, format!("pattern `{}`: {what}", function.name));
        let read: HashSet<Value> = body.nodes.iter().flat_map(Node::reads).collect();
        if let Some(unused) = body.inputs.iter().find(|v| !read.contains(v)) {
            return Err(wrong(format!("input `{}` does not occur", body.name(*unused))));
        }
        let declared: HashSet<&str> = function
            .attrs
            .iter()
            .map(String::as_str)
            .chain(function.defaults.keys().map(String::as_str))
            .collect();
        let used: HashSet<&str> =
            body.nodes.iter().flat_map(|n| n.attrs.values()).filter_map(reference).collect();
        if let Some(attr) = declared.symmetric_difference(&used).next() {
            return Err(wrong(format!("attribute `{attr}` must be declared and occur")));
        }
        let nodes = || body.nodes.iter().enumerate();
        let definitions: HashMap<Value, usize> =
            nodes().flat_map(|(i, n)| n.defines().map(move |v| (v, i))).collect();
        if let Some(given) = body.outputs.iter().find(|v| !definitions.contains_key(v)) {
            return Err(wrong(format!("result `{}` is not computed", body.name(*given))));
        }
        let constants =
            nodes().filter(|(_, n)| n.op == "Constant").map(|(i, n)| (i, constant::of_node(n))).collect();
        let sinks = sinks(body).into_iter().map(|v| (v, definitions[&v])).collect();
        Ok(Pattern { function, definitions, constants, sinks })
    }

    /// The function.
    pub fn function(&self) -> &'f Function {
        self.function
    }

    /// How many nodes the body has, constants aside.
    pub fn size(&self) -> usize {
        self.body().nodes.len() - self.constants.len()
    }

    /// Looks for the pattern with node `at` of the graph as one of its last nodes; `None` if it does not fit.
    ///
    /// Results that the graph does not compute are left out, unless an input is then unknown; a match that lacks
    /// more than half of the body is none.
    pub fn find(&self, sites: &Sites<'_>, at: usize) -> Option<std::result::Result<Match, Reject>> {
        let node = &sites.graph.nodes[at];
        let starts = self.sinks.iter().filter(|(_, i)| self.body().nodes[*i].op == node.op);
        let full = starts.filter_map(|&(p, i)| {
            let position = self.body().nodes[i].outputs.iter().position(|&o| o == Some(p))?;
            let m = self.solve(sites, Match::default(), vec![(p, node.output(position)?)])?;
            Some(self.with_other_sinks(sites, m))
        });
        let m = full.max_by_key(|m| m.nodes.len()).filter(|m| 2 * m.nodes.len() >= self.size())?;
        Some(self.check_inputs(&m).and_then(|()| self.check_inner_values(sites, &m)).map(|()| m))
    }

    fn body(&self) -> &'f Graph {
        &self.function.body
    }

    /// Adds each further result that the graph computes.
    fn with_other_sinks(&self, sites: &Sites<'_>, mut m: Match) -> Match {
        for &(p, i) in &self.sinks {
            let node = &self.body().nodes[i];
            let Some(position) = node.outputs.iter().position(|&o| o == Some(p)) else { continue };
            let candidates =
                sites.graph.nodes.iter().filter(|n| n.op == node.op && !m.nodes.contains_key(&i));
            let found = candidates
                .filter_map(|n| self.solve(sites, m.clone(), vec![(p, n.output(position)?)]))
                .next();
            m = found.unwrap_or(m);
        }
        m
    }

    /// Reaches all `goals`, the last one first; where a commutative op can be read in two ways, tries both.
    fn solve(&self, sites: &Sites<'_>, mut m: Match, mut goals: Vec<Goal>) -> Option<Match> {
        while let Some((p, v)) = goals.pop() {
            if let Some(&i) = self.definitions.get(&p).filter(|i| self.constants.contains_key(i)) {
                self.bind_constant(sites, i, v, &mut m)?;
                continue;
            }
            match m.values.get(&p) {
                Some(&bound) if bound == v => continue,
                Some(_) => return None,
                None => {}
            }
            let Some(&i) = self.definitions.get(&p) else {
                m.values.insert(p, v);
                continue;
            };
            let n = sites.uses.def(v)?;
            let (pattern, node) = (&self.body().nodes[i], &sites.graph.nodes[n]);
            self.bind_node(pattern, node, &mut m).then_some(())?;
            m.values.get(&p).filter(|&&bound| bound == v)?;
            m.nodes.insert(i, n);
            let mut orders = self.orders(sites, pattern, node);
            let last = orders.pop()?;
            for order in orders {
                let goals = [&goals[..], &order].concat();
                if let Some(m) = self.solve(sites, m.clone(), goals) {
                    return Some(m);
                }
            }
            goals.extend(last);
        }
        Some(m)
    }

    /// Op and attributes must be the same; the results are bound.
    fn bind_node(&self, pattern: &Node, node: &Node, m: &mut Match) -> bool {
        let names: HashSet<&String> = pattern.attrs.keys().chain(node.attrs.keys()).collect();
        let same = pattern.op == node.op
            && names.into_iter().all(|name| {
                match (defaults::attr(pattern, name), defaults::attr(node, name)) {
                    (Some(Attr::Ref { name, .. }), Some(got)) => bind_attr(m, &name, got),
                    (want, got) => want == got,
                }
            });
        for (p, v) in pattern.outputs.iter().zip(&node.outputs) {
            if let (Some(p), Some(v)) = (p, v) {
                m.values.insert(*p, *v);
            }
        }
        same
    }

    /// The ways in which the operands can correspond, the preferred one last, each without those that cannot be.
    fn orders(&self, sites: &Sites<'_>, pattern: &Node, node: &Node) -> Vec<Vec<Goal>> {
        let given = |inputs: &[Option<Value>]| {
            let n = inputs.iter().rposition(Option::is_some).map_or(0, |i| i + 1);
            inputs[..n].to_vec()
        };
        let (wanted, operands) = (given(&pattern.inputs), given(&node.inputs));
        let mut orders = vec![operands.clone()];
        if is_commutative(&node.op) && operands.len() == 2 && operands[0] != operands[1] {
            orders.insert(0, vec![operands[1], operands[0]]);
        }
        let goals = |order: Vec<Option<Value>>| {
            let pairs = wanted.iter().zip(order).rev().filter(|(p, v)| (*p, *v) != (&None, None));
            let goals = pairs.map(|(p, v)| Some(((*p)?, v?))).collect::<Option<Vec<Goal>>>()?;
            goals.iter().all(|goal| self.is_plausible(sites, *goal)).then_some(goals)
        };
        if wanted.len() == operands.len() {
            orders.into_iter().filter_map(goals).collect()
        } else {
            Vec::new()
        }
    }

    /// A cheap look at one operand, so that few wrong orders are followed.
    fn is_plausible(&self, sites: &Sites<'_>, (p, v): Goal) -> bool {
        let Some(&i) = self.definitions.get(&p) else { return true };
        let op = sites.node(v).map(|n| n.op.as_str());
        if self.constants.contains_key(&i) {
            op.is_none_or(|op| op == "Constant")
        } else {
            op == Some(&*self.body().nodes[i].op)
        }
    }

    /// `v` must be a constant that agrees with the pattern's constant node `i`, or that its attribute can take.
    fn bind_constant(&self, sites: &Sites<'_>, i: usize, v: Value, m: &mut Match) -> Option<()> {
        let found = sites.constant(v)?;
        let node = &self.body().nodes[i];
        let agrees = match (&self.constants[&i], node.attrs.values().next()?) {
            (Some(wanted), _) => constant::agree(wanted, &found),
            (None, Attr::Ref { name, kind }) => bind_attr(m, name, as_attr(&found, kind)?),
            (None, _) => false,
        };
        m.constants.extend(sites.uses.def(v));
        agrees.then_some(())
    }

    /// Every input must be known, also those that only a result needs that is left out.
    fn check_inputs(&self, m: &Match) -> std::result::Result<(), Reject> {
        match self.body().inputs.iter().find(|p| !m.values.contains_key(p)) {
            Some(p) => Err(format!("nothing there reads its input `{}`", self.body().name(*p))),
            None => Ok(()),
        }
    }

    /// What is computed on the way and is no result of the pattern must be of no use outside the match.
    fn check_inner_values(&self, sites: &Sites<'_>, m: &Match) -> std::result::Result<(), Reject> {
        let results: HashSet<Value> =
            self.body().outputs.iter().filter_map(|p| m.values.get(p).copied()).collect();
        let inner = m.nodes.values().flat_map(|&n| sites.graph.nodes[n].defines());
        for v in inner.filter(|v| !results.contains(v)) {
            if sites.uses.is_output(v) || sites.uses.users(v).iter().any(|&reader| !m.covers(reader)) {
                return Err(format!("`{}` is used outside the match", sites.graph.name(v)));
            }
        }
        Ok(())
    }
}

/// Ops of two operands whose order does not matter.
pub(crate) fn is_commutative(op: &str) -> bool {
    matches!(op, "Add" | "And" | "Equal" | "Max" | "Min" | "Mul" | "Or" | "Xor")
}

/// The results that no other result depends on, in order.
fn sinks(body: &Graph) -> Vec<Value> {
    let mut needed = HashSet::new();
    for node in body.nodes.iter().rev() {
        if node.defines().any(|v| needed.contains(&v) || body.outputs.contains(&v)) {
            needed.extend(node.reads());
        }
    }
    body.outputs.iter().copied().filter(|v| !needed.contains(v)).collect()
}

/// The call's attribute that an attribute in a body refers to.
fn reference(attr: &Attr) -> Option<&str> {
    if let Attr::Ref { name, .. } = attr { Some(name) } else { None }
}

/// Binds an attribute of the pattern; false if it is bound to something else.
fn bind_attr(m: &mut Match, name: &str, got: Attr) -> bool {
    m.attrs.entry(name.into()).or_insert_with(|| got.clone()) == &got
}

/// A constant as an attribute of type `kind`, if it can be one without loss.
fn as_attr(constant: &Array, kind: &str) -> Option<Attr> {
    let single = |x: f64| Some(x as f32).filter(|&s| f64::from(s) == x);
    match (kind, &constant.data) {
        ("float", Data::Float(v)) if v.len() == 1 => single(v[0]).map(Attr::Float),
        ("floats", Data::Float(v)) => v.iter().map(|&x| single(x)).collect::<Option<_>>().map(Attr::Floats),
        ("int", Data::Int(v)) if v.len() == 1 => Some(Attr::Int(v[0])),
        ("ints", Data::Int(v)) => Some(Attr::Ints(v.clone())),
        ("tensor", _) => constant.to_tensor().ok().map(Attr::Tensor),
        _ => None,
    }
}

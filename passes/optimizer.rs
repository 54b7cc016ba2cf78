//! Ends a graph with gradients in an optimiser's step: weights and state in, their next values out.
mod accumulate;
mod statistics;

pub use accumulate::PASS as ACCUMULATE;

use crate::{Context, Options, Pass, inject::trainable, io, meta, ranks::Ranked};
use graft_ir::{
    Attr, Builder, Code, DType, Error, Graph, Node, Result, Tensor, Type, Value, error::nearest, library,
};
use serde_json::json;

/// Options: `kind`: `adamw` (default) or `sgd`; `beta1` (0.9), `beta2` (0.999), `eps` (1e-8), `weight_decay` (adamw:
/// 0.01, decoupled; sgd: 0); `clip`: the largest global norm of the gradients, 0 (the default) for none;
/// `keep_grads`: the gradients, before clipping, stay outputs; `accumulate=K`: the gradients are the sums that the pass
/// `accumulate` makes of K batches, in place of the graph's own; with K = 0, of as many as the int64 scalar input
/// `batches` says.
///
/// Each trained weight `p` becomes an input, with inputs `p.m` and `p.v` for AdamW's state and scalar inputs `lr`
/// (float) and `step` (int64, from 1); outputs are `p.next`, `p.m.next`, `p.v.next` and `grad_norm`, the norm before
/// clipping. A weight's notes [`meta::LR`] and [`meta::DECAY`] hold for it; where its ranks come and go ([`meta::RANKED`]),
/// those that do not count stay as they are, and each counts its steps from when it began to. What schedules decide on
/// is returned as `stats.<target>`. The note [`meta::STATE`] lists the pairs of state input and output, [`meta::IO`] all names.
pub const PASS: Pass =
    Pass { name: "optimizer", about: "updates the trained weights by their gradients", run: optimizer };

/// The options of [`PASS`].
const OPTIONS: &[&str] =
    &["kind", "beta1", "beta2", "eps", "weight_decay", "clip", "keep_grads", "accumulate"];

/// PyTorch's `clip_grad_norm_` divides by the norm and this.
const CLIP_EPSILON: f64 = 1e-6;

/// An optimiser: the library function of one step, and its state.
struct Rule {
    name: &'static str,
    /// `(p, g, <state…>, lr[, step]) => (p_next, <next state…>)`.
    function: &'static str,
    /// What the state of a weight is called, after the weight's name and a dot.
    state: &'static [&'static str],
    /// Whether the function counts steps.
    counts_steps: bool,
    /// The attributes of the function: option, attribute, default.
    attrs: &'static [(&'static str, &'static str, f32)],
}

/// Every optimiser.
const RULES: &[Rule] = &[
    Rule {
        name: "adamw",
        function: "graft.AdamW",
        state: &["m", "v"],
        counts_steps: true,
        attrs: &[
            ("beta1", "beta1", 0.9),
            ("beta2", "beta2", 0.999),
            ("eps", "epsilon", 1e-8),
            ("weight_decay", "weight_decay", 0.01),
        ],
    },
    Rule {
        name: "sgd",
        function: "graft.Sgd",
        state: &[],
        counts_steps: false,
        attrs: &[("weight_decay", "weight_decay", 0.0)],
    },
];

impl Rule {
    fn named(name: &str) -> Result<&'static Rule> {
        let names = || RULES.iter().map(|r| r.name);
        let unknown = || {
            let near = nearest(name, names()).join("`, `");
            Error::new(Code::PASS, format!("there is no optimiser `{name}`"))
                .help(format!("nearest: `{near}`"))
        };
        RULES.iter().find(|r| r.name == name).ok_or_else(unknown)
    }
    /// The call's attributes, as `options` have them.
    fn attrs(&self, options: &Options) -> Result<Vec<(String, Attr)>> {
        let attr = |&(option, attr, default): &(&str, &str, f32)| {
            let value = options.get_or(option, default)?;
            let bad = || Error::new(Code::PASS, format!("option `{option}`: {value} is out of range"));
            if value.is_finite() && value >= 0.0 {
                Ok((attr.to_string(), Attr::Float(value)))
            } else {
                Err(bad())
            }
        };
        self.attrs.iter().map(attr).collect()
    }
}

fn optimizer(graph: &Graph, options: &Options, _: &mut Context<'_>) -> Result<Graph> {
    options.expect_only(OPTIONS)?;
    let rule = Rule::named(&options.get_or("kind", "adamw".to_string())?)?;
    let attrs = rule.attrs(options)?;
    let unused = ["beta1", "beta2", "eps"]
        .iter()
        .find(|&&o| !options.all(o).is_empty() && !rule.attrs.iter().any(|(option, ..)| *option == o));
    if let Some(option) = unused {
        return Err(Error::new(Code::PASS, format!("`{}` has no option `{option}`", rule.name)));
    }
    let mut out = graph.clone();
    let mut weights = gradients(&out)?;
    let mut state = Vec::new();
    if let Some(batches) = options.get::<u32>("accumulate")? {
        accumulate::use_sums(&mut out, &mut weights, batches, &mut state)?;
    }
    let mut b = Builder::new(&mut out);
    b.scope("optimizer.");
    let counted = counted(&weights, &mut b)?;
    let norm = global_norm(&counted, &mut b)?;
    let coefficient = clip_coefficient(norm, options.get_or("clip", 0.0)?, &mut b)?;
    let lr = io::scalar_input(b.graph, "lr", DType::Float)?;
    let step = if rule.counts_steps { Some(io::scalar_input(b.graph, "step", DType::Int64)?) } else { None };
    let mut outputs = Vec::new();
    let mut updates = Vec::new();
    for &Weight { weight, gradient } in &counted {
        let name = b.graph.name(weight).to_string();
        b.scope(format!("optimizer.{name}."));
        let clipped = match coefficient {
            Some(c) => {
                let c = b.cast_like(c, gradient)?;
                b.mul(gradient, c)?
            }
            None => gradient,
        };
        let pairs = update(rule, &attrs, weight, clipped, lr, step, &mut b)?;
        updates.push(statistics::Update { weight, gradient: clipped, next: pairs[0].1 });
        outputs.extend(pairs.iter().map(|&(_, next)| next));
        state.extend(pairs);
    }
    let more = statistics::append(&updates, &mut b)?;
    outputs.extend(more.iter().map(|&(_, next)| next));
    state.extend(more);
    finish(&mut out, &weights, norm, outputs, state, options.get_or("keep_grads", false)?)?;
    Ok(out)
}

/// A trained weight and its gradient.
struct Weight {
    weight: Value,
    gradient: Value,
}

/// The trained weights that have a gradient, in the graph's order.
fn gradients(graph: &Graph) -> Result<Vec<Weight>> {
    let mut found = Vec::new();
    for weight in trainable(graph) {
        let role = io::role(graph, &format!("{}.grad", graph.name(weight)))?;
        found.extend(role.map(|gradient| Weight { weight, gradient }));
    }
    let none = || Error::new(Code::FROZEN, "the graph has no gradients").help("run the pass `grad` first");
    if found.is_empty() { Err(none()) } else { Ok(found) }
}

/// The weights with gradients that are 0 at ranks which do not count.
fn counted(weights: &[Weight], b: &mut Builder<'_>) -> Result<Vec<Weight>> {
    let one = |&Weight { weight, gradient }: &Weight| {
        let gradient = match Ranked::new(weight, b)? {
            Some(ranked) => b.mul(gradient, ranked.mask)?,
            None => gradient,
        };
        Ok(Weight { weight, gradient })
    };
    weights.iter().map(one).collect()
}

/// The Euclidean norm of all gradients together, in `float`.
fn global_norm(weights: &[Weight], b: &mut Builder<'_>) -> Result<Value> {
    let mut squares = Vec::with_capacity(weights.len());
    for &Weight { gradient, .. } in weights {
        let node = Node::new("ReduceSumSquare", &[gradient], &[]).with("keepdims", Attr::Int(0));
        let square = b.push("square", node)?;
        squares.push(b.cast(square, DType::Float)?);
    }
    let sum = b.op("sum", "Sum", &squares)?;
    b.op("norm", "Sqrt", &[sum])
}

/// `min(1, clip / (norm + 1e-6))`; `None` if nothing is to be clipped.
fn clip_coefficient(norm: Value, clip: f64, b: &mut Builder<'_>) -> Result<Option<Value>> {
    if clip == 0.0 {
        return Ok(None);
    }
    if !(clip > 0.0 && clip.is_finite()) {
        return Err(Error::new(Code::PASS, format!("option `clip`: {clip} is not a norm")));
    }
    let largest = b.scalar_like("clip", clip, norm)?;
    let divisor = b.offset(norm, CLIP_EPSILON)?;
    let ratio = b.div(largest, divisor)?;
    let one = b.scalar_like("one", 1.0, ratio)?;
    b.op("coefficient", "Min", &[ratio, one]).map(Some)
}

/// Appends the update of one weight; returns the pairs of state input and output.
fn update(
    rule: &Rule,
    attrs: &[(String, Attr)],
    weight: Value,
    gradient: Value,
    lr: Value,
    step: Option<Value>,
    b: &mut Builder<'_>,
) -> Result<Vec<(Value, Value)>> {
    let name = b.graph.name(weight).to_string();
    let ty = b.graph[weight].ty.clone();
    let (lr, attrs) = own_course(weight, lr, attrs, b)?;
    let ranked = Ranked::new(weight, b)?;
    let step = match (&ranked, step) {
        (Some(ranked), Some(step)) => Some(ranked.age(step, b)?),
        _ => step,
    };
    make_input(weight, b.graph);
    let mut state = vec![weight];
    for suffix in rule.state {
        let v = state_input(&format!("{name}.{suffix}"), ty.clone(), b.graph);
        state.push(v);
    }
    let mut operands = vec![weight, gradient];
    operands.extend(&state[1..]);
    operands.push(lr);
    operands.extend(step);
    let mut node = Node::new(rule.function, &operands, &[]);
    node.attrs.extend(attrs);
    library::require(b.graph, rule.function)?;
    let mut pairs = Vec::with_capacity(state.len());
    for v in state {
        let next = next_of(v, b.graph);
        pairs.push((v, next));
    }
    node.outputs = pairs.iter().map(|&(_, next)| Some(next)).collect();
    let Some(ranked) = ranked else {
        b.append(node)?;
        return Ok(pairs);
    };
    let moved = b.fresh("moved");
    let moved = b.graph.add_value(moved, None);
    node.outputs[0] = Some(moved);
    b.append(node)?;
    ranked.hold(weight, moved, pairs[0].1, b)?;
    Ok(pairs)
}

/// The learning rate and the attributes of one weight: its notes may change those of the run.
fn own_course(
    weight: Value,
    lr: Value,
    attrs: &[(String, Attr)],
    b: &mut Builder<'_>,
) -> Result<(Value, Vec<(String, Attr)>)> {
    let notes = b.graph[weight].meta.clone();
    let mut attrs = attrs.to_vec();
    if notes.get(meta::DECAY).is_some_and(|decays| decays == "false") {
        let decay = attrs.iter_mut().filter(|(key, _)| key == "weight_decay");
        decay.for_each(|(_, attr)| *attr = Attr::Float(0.0));
    }
    let Some(multiple) = notes.get(meta::LR) else { return Ok((lr, attrs)) };
    let damaged = |_| Error::new(Code::GRAPH, format!("note `{}`: `{multiple}` is not a number", meta::LR));
    let multiple = b.scalar_like("lr_multiple", multiple.parse().map_err(damaged)?, lr)?;
    Ok((b.mul(lr, multiple)?, attrs))
}

/// Makes a param a plain input, which keeps its data as the initial value (see [`initial_state`]).
fn make_input(weight: Value, graph: &mut Graph) {
    graph.params.retain(|&p| p != weight);
    if !graph.inputs.contains(&weight) {
        graph.inputs.push(weight);
    }
}

/// Adds an input that holds state.
fn state_input(name: &str, ty: Option<Type>, graph: &mut Graph) -> Value {
    let name = io::free_name(graph, name);
    let v = graph.add_value(name, ty);
    graph.inputs.push(v);
    v
}

/// Adds the value that `v` is to have next.
fn next_of(v: Value, graph: &mut Graph) -> Value {
    let name = io::free_name(graph, &format!("{}.next", graph.name(v)));
    let ty = graph[v].ty.clone();
    graph.add_value(name, ty)
}

/// Sets outputs and notes, and sweeps what the step does not need.
fn finish(
    graph: &mut Graph,
    weights: &[Weight],
    norm: Value,
    next: Vec<Value>,
    state: Vec<(Value, Value)>,
    keep_grads: bool,
) -> Result<()> {
    graph[norm].name = io::free_name(graph, "grad_norm");
    io::set_role(graph, "grad_norm", norm)?;
    if !keep_grads {
        for weight in weights {
            io::drop_role(graph, &format!("{}.grad", graph.name(weight.weight)))?;
            graph.outputs.retain(|&v| v != weight.gradient);
        }
    }
    graph.outputs.extend(next);
    graph.outputs.push(norm);
    note_state(graph, &state);
    graph.sweep();
    Ok(())
}

/// Adds pairs of state input and output to the note [`meta::STATE`].
fn note_state(graph: &mut Graph, pairs: &[(Value, Value)]) {
    let names: Vec<_> = pairs.iter().map(|&(v, next)| json!([graph.name(v), graph.name(next)])).collect();
    graph.meta.insert(meta::STATE.into(), json!(names).to_string());
}

/// The pairs of state input and output of a training graph, by name.
///
/// # Errors
/// [`Code::GRAPH`] where the note is damaged.
pub fn state(graph: &Graph) -> Result<Vec<(String, String)>> {
    let Some(text) = graph.meta.get(meta::STATE) else { return Ok(Vec::new()) };
    serde_json::from_str(text)
        .map_err(|_| Error::new(Code::GRAPH, format!("note `{}` is damaged", meta::STATE)))
}

/// What each state input holds before the first step: a weight its initial value, all else zeros.
///
/// # Errors
/// [`Code::VALUE`] for a weight without data, [`Code::TYPES`] for state of unknown size.
pub fn initial_state(graph: &Graph) -> Result<Vec<(String, Tensor)>> {
    let mut tensors = Vec::new();
    for (name, _) in state(graph)? {
        let v = graph.inputs.iter().copied().find(|&v| graph.name(v) == name);
        let lost = || Error::new(Code::GRAPH, format!("state `{name}` is not an input of the graph"));
        let data = &graph[v.ok_or_else(lost)?];
        let unknown = || Error::new(Code::TYPES, format!("the size of state `{name}` is not known"));
        let elided = || Error::new(Code::VALUE, format!("the data of weight `{name}` is elided"));
        let tensor = match &data.tensor {
            Some(tensor) => tensor.clone(),
            None if data.meta.contains_key(meta::TRAINABLE) => return Err(elided()),
            None => data.ty.as_ref().and_then(zeros).ok_or_else(unknown)?,
        };
        tensors.push((name, tensor));
    }
    Ok(tensors)
}

fn zeros(ty: &Type) -> Option<Tensor> {
    let dims = ty.sizes()?;
    Tensor::from_f64(ty.dtype, &dims, std::iter::repeat_n(0.0, dims.iter().product()))
}

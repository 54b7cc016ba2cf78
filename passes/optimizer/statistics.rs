//! What a method's schedule decides on, computed from the weights after a step and their gradients.
use super::{next_of, state_input};
use crate::{
    inject::{Adapter, Method, adapters},
    io, ranks,
};
use graft_ir::{Builder, Code, Error, Function, Node, Result, Value, library};

/// The update of one weight.
pub(super) struct Update {
    pub(super) weight: Value,
    /// The gradient that it was made with.
    pub(super) gradient: Value,
    /// The weight after it.
    pub(super) next: Value,
}

/// Adds the output `stats.<target>` for each adapter whose method has a schedule; returns the pairs of state input and
/// output that this takes.
pub(super) fn append(updates: &[Update], b: &mut Builder<'_>) -> Result<Vec<(Value, Value)>> {
    let mut pairs = Vec::new();
    for adapter in adapters(b.graph)? {
        let method = Method::named(&adapter.method)?;
        let config = adapter.config()?;
        if (method.schedule)(&config)?.is_none() {
            continue;
        }
        let missing =
            || Error::new(Code::METHOD, format!("`{}` has no function for statistics", method.name));
        let function = method.companion(&config, "Stats")?.ok_or_else(missing)?;
        b.scope(format!("stats.{}.", adapter.target));
        pairs.extend(call(function, &adapter, updates, b)?);
    }
    Ok(pairs)
}

fn call(
    function: &Function,
    adapter: &Adapter,
    updates: &[Update],
    b: &mut Builder<'_>,
) -> Result<Vec<(Value, Value)>> {
    let (mut operands, mut states) = (Vec::new(), Vec::new());
    for &v in &function.body.inputs {
        let name = function.body.name(v);
        let (operand, is_state) = operand(name, adapter, updates, b)?;
        operands.push(operand);
        states.extend(is_state.then_some(operand));
    }
    library::adopt(b.graph, function)?;
    let results =
        b.push_n("stats", Node::new(&function.name, &operands, &[]), function.body.outputs.len())?;
    let role = ranks::stats_role(&adapter.target);
    b.graph[results[0]].name = io::free_name(b.graph, &role);
    io::set_role(b.graph, &role, results[0])?;
    b.graph.outputs.push(results[0]);
    let pair = |(state, &next): (Value, &Value)| {
        let named = next_of(state, b.graph);
        b.append(Node::new("Identity", &[next], &[named]))?;
        Ok((state, named))
    };
    states.into_iter().zip(&results[1..]).map(pair).collect()
}

/// The operand of that name, and whether it is state: `rank_mask`, a weight after the step, `d<weight>`, its gradient, or
/// `<state>_<weight>`.
fn operand(name: &str, adapter: &Adapter, updates: &[Update], b: &mut Builder<'_>) -> Result<(Value, bool)> {
    if name == ranks::MASK {
        return Ok((ranks::mask(&adapter.target, b)?, false));
    }
    let update = |role: &str, b: &Builder<'_>| {
        let weight = ranks::weight(b.graph, &adapter.target, role)?;
        updates.iter().find(|u| u.weight == weight)
    };
    if let Some(u) = update(name, b) {
        return Ok((u.next, false));
    }
    if let Some(u) = name.strip_prefix('d').and_then(|role| update(role, b)) {
        return Ok((u.gradient, false));
    }
    let (state, role) = name.rsplit_once('_').unwrap_or_default();
    let unknown = || {
        let message = format!("`{name}` is neither trained nor known of the adapter on `{}`", adapter.target);
        Error::new(Code::METHOD, message)
    };
    let u = update(role, b).ok_or_else(unknown)?;
    let (weight, ty) = (b.graph.name(u.weight).to_string(), b.graph[u.weight].ty.clone());
    Ok((state_input(&format!("{weight}.{state}"), ty, b.graph), true))
}

//! The numeric judges: the same outputs, and gradients against finite differences, both in f64.
use crate::sample::{Values, opened};
use graft_ir::{Array, Data, Graph, Precision, eval};

/// The largest difference that is allowed, relative to the largest magnitude (constants are stored in f32, and two
/// spellings of one formula round different ones).
pub const TOLERANCE: f64 = 2e-6;

/// All outputs of `graph` by name.
///
/// # Errors
/// The error of the evaluation, as text.
pub fn run(graph: &Graph, values: &Values) -> Result<Values, String> {
    let (open, inputs) = opened(graph);
    let fed: Vec<Option<Array>> = inputs.iter().map(|&v| values.get(graph.name(v)).cloned()).collect();
    let outputs = eval::eval(&open, &fed, Precision::Exact).map_err(|e| e.to_string())?;
    Ok(graph.outputs.iter().map(|&v| graph.name(v).to_string()).zip(outputs).collect())
}

/// Compares the outputs that both sides have.
///
/// # Errors
/// Which output differs and by how much, or that there is none in common.
pub fn same(a: &Values, b: &Values) -> Result<(), String> {
    let mut compared = 0;
    for (name, x) in a {
        let Some(y) = b.get(name) else { continue };
        compared += 1;
        let (difference, magnitude) = eval::difference(x, y)
            .ok_or_else(|| format!("output `{name}` has sizes {:?} before and {:?} after", x.dims, y.dims))?;
        if difference > TOLERANCE * magnitude.max(1.0) {
            return Err(format!(
                "output `{name}` differs by {difference:e} (largest magnitude {magnitude:e})"
            ));
        }
    }
    if compared == 0 { Err("no output is there before and after".into()) } else { Ok(()) }
}

/// Compares every output `<p>.grad` of `graph` with central differences of its output `loss` along two random
/// directions of `p`.
///
/// # Errors
/// Which gradient is wrong and by how much, or that there is none.
pub fn gradients(graph: &Graph, values: &Values) -> Result<(), String> {
    let outputs = run(graph, values)?;
    let mut checked = 0;
    for (name, gradient) in &outputs {
        let Some(p) = name.strip_suffix(".grad") else { continue };
        checked += 1;
        for seed in 1..=2 {
            let direction = direction(gradient.len(), seed);
            let given = gradient.floats().map_err(|e| e.to_string())?;
            let slope: f64 = given.iter().zip(&direction).map(|(g, d)| g * d).sum();
            let step = 1e-5;
            let up = loss_at(graph, values, p, &direction, step)?;
            let down = loss_at(graph, values, p, &direction, -step)?;
            let expected = (up - down) / (2.0 * step);
            if (slope - expected).abs() > 1e-6 * expected.abs().max(1.0) {
                return Err(format!(
                    "gradient of `{p}`: slope {slope:e}, finite differences say {expected:e}"
                ));
            }
            if slope == 0.0 && given.iter().any(|g| *g != 0.0) {
                return Err(format!("the gradient of `{p}` was not tested"));
            }
        }
    }
    if checked == 0 { Err("there is no output `<weight>.grad`".into()) } else { Ok(()) }
}

fn direction(n: usize, seed: u64) -> Vec<f64> {
    (0..n).map(|i| f64::from(graft_ir::random::uniform(seed, 1, 1, i as u64)) * 2.0 - 1.0).collect()
}

fn loss_at(graph: &Graph, values: &Values, p: &str, direction: &[f64], step: f64) -> Result<f64, String> {
    let mut moved = values.clone();
    let array = moved.get_mut(p).ok_or_else(|| format!("there is no weight `{p}`"))?;
    let Data::Float(data) = &mut array.data else { return Err(format!("`{p}` holds integers")) };
    data.iter_mut().zip(direction).for_each(|(x, d)| *x += step * d);
    let outputs = run(graph, &moved)?;
    let loss = outputs.get("loss").ok_or("there is no output `loss`")?;
    loss.floats().map_err(|e| e.to_string())?.first().copied().ok_or_else(|| "the loss is empty".into())
}

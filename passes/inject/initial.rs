//! The initial values of weights.
use super::Init;
use graft_ir::random;
use std::f64::consts::PI;

/// Random tensors are told apart by a number below this within one step of the generator.
const TENSORS_PER_STEP: u64 = 1 << 12;

/// The initial value of a weight of these sizes; the `index`-th weight of a graph draws the numbers of that tensor.
/// `None` where it depends on the base linear.
pub(crate) fn initial(init: &Init, dims: &[usize], seed: u64, index: u64) -> Option<Vec<f64>> {
    let n: usize = dims.iter().product();
    let (step, tensor) = (index / TENSORS_PER_STEP, index % TENSORS_PER_STEP);
    let draw = |i: usize| f64::from(random::uniform(seed, step, tensor, i as u64));
    Some(match init {
        Init::Constant(c) => vec![*c; n],
        Init::Values(values) => values.clone(),
        Init::KaimingUniform { fan_in } => {
            let bound = 1.0 / ((*fan_in).max(1) as f64).sqrt();
            (0..n).map(|i| (2.0 * draw(i) - 1.0) * bound).collect()
        }
        // Box and Muller: two uniform draws for each normal one.
        Init::Normal { std, zeros } => {
            let normal = |i| (-2.0 * f64::ln(draw(2 * i))).sqrt() * (2.0 * PI * draw(2 * i + 1)).cos();
            (0..n).map(|i| if i < *zeros { 0.0 } else { std * normal(i) }).collect()
        }
        Init::Identity => {
            let columns = dims.last().copied().unwrap_or(1).max(1);
            (0..n).map(|i| if i / columns == i % columns { 1.0 } else { 0.0 }).collect()
        }
        Init::BaseNorms => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_draws_have_their_moments() {
        let values = initial(&Init::Normal { std: 2.0, zeros: 0 }, &[100, 100], 1, 5).unwrap();
        let mean = |power: i32| values.iter().map(|x| x.powi(power)).sum::<f64>() / 1e4;
        assert!(mean(1).abs() < 0.06 && (mean(2) - 4.0).abs() < 0.2 && (mean(4) - 48.0).abs() < 6.0);
        assert_eq!(initial(&Init::Identity, &[2, 2], 0, 0).unwrap(), [1.0, 0.0, 0.0, 1.0]);
    }
}

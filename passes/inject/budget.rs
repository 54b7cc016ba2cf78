//! The size of adapters: the trainable parameters of a choice, and the rank that comes nearest to a number of them.
use super::{Method, expect_known, plan};
use crate::{Options, target};
use graft_ir::{Code, Error, Graph, Result};

/// A rank, and what adapters that have it come to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Size {
    /// The rank.
    pub rank: usize,
    /// Trainable parameters of all adapters together.
    pub parameters: usize,
    /// The factor of the first adapter's contribution; `None` for a method without one.
    pub scale: Option<f64>,
}

/// The size of the adapters that the pass `inject` would put on `graph` with these options.
///
/// # Errors
/// As the pass's.
pub fn size(graph: &Graph, options: &Options) -> Result<Size> {
    let method = Method::named(&options.get_or("method", "lora".to_string())?)?;
    expect_known(method, options)?;
    let linears = target::targets(graph)?;
    let plan = plan::plan(method, &linears, options, None)?;
    let rank: f64 = options.get_or("rank", method.rank as f64)?;
    let scale = plan.first().and_then(|planned| planned.parts.scale());
    Ok(Size { rank: rank as usize, parameters: plan::parameters(&plan), scale })
}

/// Whether the ranks of the adapters come and go in the course of a training: what counts as their size then is the widest
/// that they can be.
///
/// # Errors
/// As the pass `inject`'s.
pub fn adapts(graph: &Graph, options: &Options) -> Result<bool> {
    let method = Method::named(&options.get_or("method", "lora".to_string())?)?;
    let linears = target::targets(graph)?;
    for planned in plan::plan(method, &linears, options, None)? {
        if (method.schedule)(&planned.config)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The rank that brings the adapters nearest to `budget` trainable parameters; of two that are equally near, the
/// smaller. A rank that does not suit one of the linears, as most do not for Bat, is passed over.
///
/// # Errors
/// As the pass `inject`'s, where no rank suits; [`Code::METHOD`] for a budget of nothing.
pub fn within(graph: &Graph, options: &Options, budget: usize) -> Result<Size> {
    if budget == 0 {
        return Err(Error::new(Code::METHOD, "a budget has at least one parameter"));
    }
    let options = options.without("rank");
    // Beyond the sizes of the linears a rank adds nothing, and up to there the parameters grow with it.
    let widest = target::targets(graph)?.iter().map(|l| l.d_in.max(l.d_out)).max().unwrap_or(1);
    let mut best: Option<Size> = None;
    let mut misfit = None;
    for rank in 1..=widest {
        match size(graph, &options.clone().with("rank", rank)) {
            Ok(size) => {
                let is_nearer = |b: Size| size.parameters.abs_diff(budget) < b.parameters.abs_diff(budget);
                if best.is_none_or(is_nearer) {
                    best = Some(size);
                }
                if size.parameters >= budget {
                    break;
                }
            }
            Err(e) => _ = misfit.get_or_insert(e),
        }
    }
    let nothing = || Error::new(Code::TARGET, "there is no linear node to put an adapter on");
    best.ok_or_else(|| misfit.unwrap_or_else(nothing))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two linears, 6 × 4 and 4 × 8.
    fn graph() -> Graph {
        let text = r#"<ir_version: 10, opset_import: ["" : 21]>
g (float[n, 6] x) => (float[n, 8] y) <float[6, 4] u, float[4, 8] v> {
  ["/u/MatMul"] h = MatMul (x, u)
  t = Tanh (h)
  ["/v/MatMul"] y = MatMul (t, v)
}
"#;
        graft_ir::parse(text).unwrap()
    }

    fn options(method: &str) -> Options {
        Options::default().with("method", method).with("targets", "u,v")
    }

    #[test]
    fn the_rank_is_that_of_the_nearest_size() {
        // LoRA has rank·(6 + 4 + 4 + 8) parameters, Bone rank·(4 + 8).
        for (method, budget, rank, parameters) in [
            ("lora", 1, 1, 22),
            ("lora", 60, 3, 66),
            ("lora", 55, 2, 44),
            ("bone", 36, 3, 36),
            ("lora", 9999, 8, 176),
        ] {
            let found = within(&graph(), &options(method), budget).unwrap();
            assert_eq!((found.rank, found.parameters), (rank, parameters), "{method} {budget}");
        }
    }

    #[test]
    fn ranks_that_do_not_suit_are_passed_over() {
        // Bat needs a divisor of 6, 4 and 8, and has rank·(4 + 8) parameters.
        let found = within(&graph(), &options("bat"), 40).unwrap();
        assert_eq!(found, Size { rank: 2, parameters: 24, scale: None });
    }

    #[test]
    fn the_scale_is_divided_by_what_each_method_divides_it_by() {
        let scale = |options: Options| size(&graph(), &options).unwrap().scale.unwrap();
        assert_eq!(scale(options("lora").with("rank", 2)), 8.0);
        assert_eq!(scale(options("lora").with("rank", 4).with("rslora", true)), 8.0);
        let growing = options("tri").with("rank", 1).with("growth", "linear").with("target_rank", 4);
        assert_eq!(scale(growing), 4.0);
        let shrinking = options("adalora").with("rank", 1).with("init_rank", 4).with("target_rank", 2);
        assert!((scale(shrinking) - 4.0).abs() < 1e-4);
    }

    #[test]
    fn what_no_rank_can_mend_is_said() {
        let code = |options: &Options, budget| within(&graph(), options, budget).unwrap_err().code;
        assert_eq!(code(&options("lora"), 0), Code::METHOD);
        assert_eq!(code(&options("lora").with("nonsense", 1), 10), Code::PASS);
        assert_eq!(code(&options("lora").without("targets").with("targets", "w"), 10), Code::TARGET);
        assert_eq!(code(&options("bone").with("mini", 3), 10), Code::METHOD);
    }
}

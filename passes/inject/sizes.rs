//! What the sizes of an adapter's weights tell of the linears that it is for, and those linears by themselves.
use super::{Axis, FileForm, Variant};
use crate::target::{Linear, targets};
use graft_ir::{Code, DType, Error, Graph, Node, Result, Tensor, Type, library};
use std::collections::BTreeMap;

/// What the sizes of an adapter's weights tell.
#[derive(Default)]
pub(super) struct Sizes {
    d_in: Option<usize>,
    d_out: Option<usize>,
    /// The rank.
    pub(super) rank: Option<usize>,
    in_blocks: Option<usize>,
    out_blocks: Option<usize>,
    /// The settings of the method that are sizes.
    pub(super) settings: BTreeMap<&'static str, usize>,
}

impl Sizes {
    /// Reads those of a weight, which must agree with those read before.
    pub(super) fn read(&mut self, form: &FileForm, dims: &[usize]) -> Result<()> {
        let bad = || Error::new(Code::ADAPTER, format!("the sizes {dims:?} do not fit the other weights"));
        if dims.len() != form.axes.len() {
            return Err(bad());
        }
        for (axis, &n) in form.axes.iter().zip(dims) {
            let known = match axis {
                Axis::In => self.d_in.get_or_insert(n),
                Axis::Out => self.d_out.get_or_insert(n),
                Axis::Rank => self.rank.get_or_insert(n),
                Axis::InBlocks => self.in_blocks.get_or_insert(n),
                Axis::OutBlocks => self.out_blocks.get_or_insert(n),
                Axis::Setting(name) => self.settings.entry(name).or_insert(n),
                Axis::One => &mut 1,
            };
            if *known != n {
                return Err(bad());
            }
        }
        Ok(())
    }
    fn width(d: Option<usize>, blocks: Option<usize>, rank: Option<usize>) -> Option<usize> {
        d.or_else(|| blocks?.checked_mul(rank?))
    }
    /// A linear that the weights are for, and whether its sizes are all known; those that are not are as small as can be.
    pub(super) fn linear(&self, path: &str) -> (Linear, bool) {
        let d_in = Sizes::width(self.d_in, self.in_blocks, self.rank);
        let d_out = Sizes::width(self.d_out, self.out_blocks, self.rank);
        let least = self.rank.unwrap_or(1).max(1);
        let linear = Linear {
            path: path.into(),
            nth_use: 0,
            node: String::new(),
            op: "MatMul".into(),
            layout: "(in, out)",
            d_in: d_in.unwrap_or(least),
            d_out: d_out.unwrap_or(least),
            weight: format!("{path}.weight"),
            dtype: DType::Float,
            reason: None,
            is_output: false,
            steps: Vec::new(),
            index: None,
        };
        (linear, d_in.is_some() && d_out.is_some())
    }
}

/// A graph of nothing but the linears that an adapter's files are for, without the data of their weights, and the paths
/// of those whose sizes the files do not tell.
///
/// # Errors
/// [`Code::ADAPTER`] for tensors that are no weights of `variant`, or whose sizes do not agree.
pub fn stand_in(variant: &Variant, tensors: &BTreeMap<String, Tensor>) -> Result<(Graph, Vec<String>)> {
    let mut modules: BTreeMap<&str, Sizes> = BTreeMap::new();
    for (key, tensor) in tensors {
        let unknown = || Error::new(Code::ADAPTER_FIT, format!("`{key}` is no weight of this method"));
        let (form, path) =
            variant.files.iter().find_map(|form| Some((form, form.split(key)?.0))).ok_or_else(unknown)?;
        let (mut dims, sizes) = (tensor.dims().to_vec(), modules.entry(path).or_default());
        if let ([.., rows, columns], true) = (&mut dims[..], form.is_transposed) {
            std::mem::swap(rows, columns);
        }
        match (form.axes, form.is_split()) {
            // One of several slices along the first axis, whose number is a setting.
            ([Axis::Setting(name), rest @ ..], true) => {
                *sizes.settings.entry(name).or_default() += 1;
                sizes.read(&FileForm { axes: rest, ..*form }, &dims)
            }
            _ => sizes.read(&FileForm { axes: form.axes, ..*form }, &dims),
        }
        .map_err(|e| e.at(format!("`{key}`")))?;
    }
    let (mut graph, mut unknown) = (Graph { ir_version: 10, ..Graph::default() }, Vec::new());
    graph.opsets.insert(String::new(), library::WRITTEN_FOR);
    for (path, sizes) in &modules {
        let (linear, is_known) = sizes.linear(path);
        if !is_known {
            unknown.push(path.to_string());
        }
        let x = graph.add_input(format!("{path}.x"), Type::new(DType::Float, [1, linear.d_in]));
        let w = graph.add_value(linear.weight, Some(Type::new(DType::Float, [linear.d_in, linear.d_out])));
        graph.params.push(w);
        let y = graph.add_value(format!("{path}.y"), Some(Type::new(DType::Float, [1, linear.d_out])));
        graph.nodes.push(Node::new("MatMul", &[x, w], &[y]));
        graph.outputs.push(y);
    }
    debug_assert!(targets(&graph).is_ok_and(|linears| linears.len() == modules.len()));
    Ok((graph, unknown))
}

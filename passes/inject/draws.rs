//! What each step of a training draws: the gates' uniform numbers, the elements that dropout leaves out.
use crate::io;
use graft_ir::{Attr, Builder, Code, DType, Error, Meta, Node, Result, Tensor, Value, library};

/// The random generator tells so many tensors apart within a step; the last ones are those of the data's order and of
/// the head.
const TENSORS: i64 = (1 << 12) - 3;

/// The draws that are put into one graph, each of a tensor of its own.
#[derive(Default)]
pub(super) struct Draws {
    n: i64,
}

impl Draws {
    /// `x` with a share of its elements left out, and the others scaled up by as much.
    pub(super) fn dropped(
        &mut self,
        x: Value,
        share: f64,
        notes: Meta,
        b: &mut Builder<'_>,
    ) -> Result<Value> {
        let [seed, step, tensor] = self.counters(b)?;
        let to = b.graph.dtype(x).unwrap_or(DType::Float);
        let node = Node::new("graft.Dropout", &[x, seed, step, tensor], &[])
            .with("threshold", Attr::Int((share * (1u64 << 32) as f64) as i64))
            .with("scale", Attr::Float((1.0 / (1.0 - share)) as f32))
            .with("to", Attr::Int(to as i64));
        push("xd", Node { meta: notes, ..node }, b)
    }

    /// Uniform draws, kept so far from 0 and 1 that their logarithms stay moderate.
    pub(super) fn uniform(
        &mut self,
        dims: &[usize],
        dtype: DType,
        notes: Meta,
        b: &mut Builder<'_>,
    ) -> Result<Value> {
        const MARGIN: f64 = 1e-6;
        let [seed, step, tensor] = self.counters(b)?;
        let sizes: Vec<i64> = dims.iter().map(|&n| n as i64).collect();
        let sizes = b.ints("sizes", &sizes)?;
        let node = Node::new("graft.Uniform", &[seed, step, tensor, sizes], &[]);
        let u = push("u", Node { meta: notes.clone(), ..node }, b)?;
        let bounds = [b.scalar_like("least", MARGIN, u)?, b.scalar_like("most", 1.0 - MARGIN, u)?];
        let u = b.push("u", Node { meta: notes, ..Node::new("Clip", &[u, bounds[0], bounds[1]], &[]) })?;
        b.cast(u, dtype)
    }

    /// The scalars that say which numbers the next draw takes.
    fn counters(&mut self, b: &mut Builder<'_>) -> Result<[Value; 3]> {
        if self.n == TENSORS {
            let message = format!("a step draws for {TENSORS} linears at most");
            return Err(Error::new(Code::SETTING, message).help("choose fewer with `targets`"));
        }
        let seed = io::scalar_input(b.graph, "seed", DType::Int64)?;
        let step = io::scalar_input(b.graph, "step", DType::Int64)?;
        let tensor = b.constant("tensor", Tensor::i64(&[], &[self.n]))?;
        self.n += 1;
        Ok([seed, step, tensor])
    }
}

/// Appends a call of a library function.
fn push(hint: &str, node: Node, b: &mut Builder<'_>) -> Result<Value> {
    library::require(b.graph, &node.op)?;
    b.push(hint, node)
}

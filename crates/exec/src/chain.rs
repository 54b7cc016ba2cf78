//! Runs of neighbouring element-wise steps, each made one launch, or the epilogue of the large product right before it: what
//! one step makes for the next stays in registers, and is stored only if others read it too.
use crate::{
    device::COPY,
    place::{Place, Storage},
    step::{Launches, Step, Work},
};
use graft_ir::{Code, Error, Node, Result};
use graft_kernels::{
    Chain, Source,
    cuda::{Shape, Target},
};
use std::{collections::HashMap, ops::Range, sync::Arc};

/// The most operands and results of a launch: its parameters, with strides along several axes, have to fit into 4 KiB.
const MOST: usize = 24;

/// Makes launches of all element-wise steps; what lies at `read` is read after the last step.
pub(crate) fn chain(steps: Vec<Step>, read: &[&Place], target: Target) -> Result<Vec<Step>> {
    let mut last: HashMap<usize, usize> = HashMap::new();
    for (k, step) in steps.iter().enumerate() {
        last.extend(step.inputs.iter().flatten().filter_map(|p| Some((p.buffer()?, k))));
    }
    last.extend(read.iter().filter_map(|p| Some((p.buffer()?, usize::MAX))));
    let mut done = Vec::with_capacity(steps.len());
    let mut rest = steps.into_iter().enumerate().peekable();
    while let Some((mut k, step)) = rest.next() {
        if !matches!(step.work, Work::Map(_)) {
            done.push(step);
            continue;
        }
        let mut run = Run::default();
        run.push(step);
        while let Some((next, step)) = rest.next_if(|(_, next)| run.takes(next)) {
            run.push(step);
            k = next;
        }
        let is_read = |buffer: usize| last.get(&buffer).is_some_and(|&by| by > k);
        match done.last().and_then(|before| run.follow(before, is_read)) {
            Some(step) => {
                done.pop();
                done.push(step);
            }
            None => done.push(run.launch(is_read, target)?),
        }
    }
    Ok(done)
}

/// Makes launches of all steps that copy.
pub(crate) fn launch_copies(steps: Vec<Step>, target: Target) -> Result<Vec<Step>> {
    let copy = |step: Step| {
        if !matches!(step.work, Work::Copy) {
            return Ok(step);
        }
        let mut run = Run::default();
        run.push(Step { work: Work::Map(COPY.into()), ..step });
        run.launch(|_| true, target)
    };
    steps.into_iter().map(copy).collect()
}

/// Steps that become one.
#[derive(Default)]
struct Run {
    steps: Vec<Step>,
    /// What is read from memory.
    inputs: Vec<Place>,
    /// The steps by the buffers that they write.
    made: HashMap<Storage, usize>,
}

impl Run {
    fn result(step: &Step) -> Option<&Place> {
        step.outputs.first().and_then(Option::as_ref)
    }
    /// Whether a step can join: its result has the same sizes, and what it reads of the run it reads element by element.
    fn takes(&self, step: &Step) -> bool {
        let (Work::Map(_), Some(result)) = (&step.work, Run::result(step)) else { return false };
        let same = |p: &Place| {
            let maker = self.made.get(&p.storage).map(|&k| &self.steps[k]);
            maker.is_none_or(|maker| Run::result(maker) == Some(p))
        };
        let fresh = step.inputs.iter().flatten().filter(|p| !self.inputs.contains(p)).count();
        Run::result(&self.steps[0]).is_some_and(|first| first.dims == result.dims)
            && step.inputs.iter().flatten().all(same)
            && self.inputs.len() + fresh + self.steps.len() < MOST
    }
    fn push(&mut self, step: Step) {
        for place in step.inputs.iter().flatten().filter(|p| !self.made.contains_key(&p.storage)) {
            if !self.inputs.contains(place) {
                self.inputs.push(place.clone());
            }
        }
        self.made.extend(Run::result(&step).map(|p| (p.storage, self.steps.len())));
        self.steps.push(step);
    }
    /// Its ops, behind those that `chain` has, which make what lies at `before`; and those whose results others read, as
    /// `is_read` says of their buffers, each with its place.
    fn write<'p>(
        &'p self,
        chain: &mut Chain<'p>,
        before: &[&Place],
        is_read: impl Fn(usize) -> bool,
    ) -> Vec<(usize, Place)> {
        let mut results = Vec::new();
        for (k, step) in self.steps.iter().enumerate() {
            // One that is left out has no place in a text.
            let source = |place: &Option<Place>| {
                let Some(place) = place.as_ref() else { return Source::Input(usize::MAX) };
                let made = self.made.get(&place.storage).filter(|&&by| by < k).map(|by| before.len() + by);
                let made = made.or_else(|| before.iter().position(|p| p.storage == place.storage));
                let input = || self.inputs.iter().filter(|p| !holds(before, p)).position(|p| p == place);
                made.map_or_else(|| Source::Input(input().unwrap_or(usize::MAX)), Source::Made)
            };
            let sources: Vec<Source> = step.inputs.iter().map(source).collect();
            let (Work::Map(text), Some(result)) = (&step.work, Run::result(step)) else { continue };
            let op = chain.op(text, &sources, result.dtype);
            if result.buffer().is_some_and(&is_read) {
                results.push((op, result.clone()));
            }
        }
        results
    }
    /// A chain over the run's elements that reads from memory what is not made `before`, as operands from `first` on; and
    /// those operands.
    fn read(&self, before: &[&Place], first: usize) -> (Chain<'_>, Vec<Option<Place>>) {
        let mut chain = Chain::new(Run::result(&self.steps[0]).map_or(&[][..], |place| &place.dims));
        let inputs: Vec<&Place> = self.inputs.iter().filter(|p| !holds(before, p)).collect();
        for (i, Place { dtype, dims, strides, .. }) in inputs.iter().enumerate() {
            chain.input(Shape { dtype: *dtype, dims, strides, known: None }, first + i);
        }
        (chain, inputs.into_iter().cloned().map(Some).collect())
    }
    /// One step for all; results are stored where `is_read` says of their buffers that others read them.
    fn launch(self, is_read: impl Fn(usize) -> bool, target: Target) -> Result<Step> {
        let (mut chain, inputs) = self.read(&[], 0);
        let (results, outputs): (Vec<_>, Vec<_>) =
            self.write(&mut chain, &[], is_read).into_iter().map(|(op, place)| (op, Some(place))).unzip();
        let plan = chain.plan(&results, target);
        let node = label(self.steps.iter());
        let none = || Error::new(Code::DEVICE, "no kernel can be made of it").at(format!("`{}`", node.op));
        let pairs = pairs(0..inputs.len(), 0..outputs.len());
        Ok(Step { inputs, outputs, ..launched(plan.ok_or_else(none)?, pairs, None, &node) })
    }
    /// One step for the run and the product `before` it, whose epilogue the run becomes; `None` if the run cannot be one: it
    /// has to read one of the product's results, and that element by element.
    fn follow(&self, before: &Step, is_read: impl Fn(usize) -> bool) -> Option<Step> {
        let Work::Launches(launches) = &before.work else { return None };
        let result = |o: usize| before.outputs.get(o).and_then(Option::as_ref);
        let reads =
            |o: &usize| result(*o).is_some_and(|own| self.inputs.iter().any(|p| p.storage == own.storage));
        let mut read = (0..before.outputs.len()).filter(reads);
        // Another result is in memory only when the last launch of the step is done.
        let (Some(of), None) = (read.next(), read.next()) else { return None };
        let product = result(of)?;
        let is_by_element = |p: &&Place| p.storage != product.storage || is_seen_whole(p, product);
        if !self.inputs.iter().all(|p| is_by_element(&p)) {
            return None;
        }
        let (operands, results) = (before.inputs.len(), before.outputs.len());
        let (mut chain, inputs) = self.read(&[product], operands);
        let op = chain.product(product.dtype);
        let made = self.write(&mut chain, &[product], &is_read);
        let is_stored = product.buffer().is_some_and(is_read);
        let own = is_stored.then_some((op, of));
        let stored = made.iter().enumerate().map(|(i, (op, _))| (*op, results + i));
        let plan = chain.follow(&launches.plan, of, &own.into_iter().chain(stored).collect::<Vec<_>>())?;
        let mut outputs = before.outputs.clone();
        outputs[of] = outputs[of].take().filter(|_| is_stored);
        outputs.extend(made.into_iter().map(|(_, place)| Some(place)));
        let inputs: Vec<_> = before.inputs.iter().cloned().chain(inputs).collect();
        let more = pairs(operands..inputs.len(), results..outputs.len());
        let pairs = launches.pairs.iter().copied().chain(more).collect();
        let node = label([before].into_iter().chain(&self.steps));
        let step = launched(plan, pairs, Some(Arc::new(before.clone())), &node);
        Some(Step { inputs, outputs, scratch: before.scratch, ..step })
    }
}

/// Whether what lies at `place` is made `before`.
fn holds(before: &[&Place], place: &Place) -> bool {
    before.iter().any(|p| p.storage == place.storage)
}

/// Whether all elements of a memory are seen in their order, of whatever sizes.
fn is_seen_whole(place: &Place, whole: &Place) -> bool {
    let is_it = (place.dtype, place.offset, place.len()) == (whole.dtype, whole.offset, whole.len());
    is_it && place.is_row_major()
}

/// All pairs: a thread reads its operands before it stores any result.
fn pairs(operands: Range<usize>, results: Range<usize>) -> Vec<(usize, usize)> {
    operands.flat_map(|i| results.clone().map(move |o| (i, o))).collect()
}

/// A step of no kernel of the table.
fn launched(
    plan: graft_kernels::cuda::Plan,
    pairs: Vec<(usize, usize)>,
    product: Option<Arc<Step>>,
    node: &Node,
) -> Step {
    Step {
        work: Work::Launches(Launches {
            plan: Arc::new(plan),
            pairs,
            kernel: None,
            product,
            calls: Vec::new(),
        }),
        ..Step::of(node)
    }
}

/// A node that stands for several, by the name of the last one.
fn label<'s>(steps: impl Iterator<Item = &'s Step>) -> Node {
    let steps: Vec<&Step> = steps.collect();
    let ops: Vec<&str> = steps.iter().map(|step| step.node.op.as_str()).collect();
    let last = steps.last().map(|step| step.node.clone()).unwrap_or_default();
    Node { op: ops.join("+"), attrs: Default::default(), ..last }
}

#[cfg(test)]
mod tests {
    use crate::{
        constants::Constants,
        plan::{Plan, Planned, Request, plan},
    };
    use graft_ir::{DType, Type};
    use graft_kernels::{Threads, cuda::Target};

    /// The plan of a graph whose inputs have the sizes that stand in its text.
    fn planned(text: &str) -> Plan {
        let text = format!("<ir_version: 10, opset_import: [\"\" : 18]>\ng {text}");
        let graph = graft_ir::parse(&text).expect("a graph");
        let sizes: Vec<Vec<usize>> = graph
            .inputs
            .iter()
            .map(|&v| graph[v].ty.as_ref().and_then(Type::sizes).expect("sizes"))
            .collect();
        let request = Request {
            graph: &graph,
            aliases: &[],
            sizes: &sizes,
            threads: Threads::ONE,
            target: Some(Target::default()),
            format: DType::Float,
        };
        let planned = plan(&request, &mut Constants::default(), &mut |notice| panic!("{notice}"));
        match planned.expect("a plan") {
            Planned::Plan(plan) => *plan,
            Planned::Dynamic(why) => panic!("{why}"),
        }
    }
    fn ops(plan: &Plan) -> Vec<&str> {
        plan.steps.iter().map(|step| step.node.op.as_str()).collect()
    }
    /// How many results of a step are stored.
    fn stored(plan: &Plan, step: usize) -> usize {
        plan.steps[step].outputs.iter().flatten().count()
    }

    const INPUTS: &str = "(float[60, 64] x, float[64, 32] w, float[32] b, float[60, 32] r)";

    #[test]
    fn steps_behind_a_product_become_its_epilogue() {
        let body = "y = MatMul (x, w) s = Add (y, b) t = Tanh (s) z = Add (r, t)";
        for (outputs, count) in [("float[60, 32] z", 1), ("float[60, 32] z, float[60, 32] s", 2)] {
            let plan = planned(&format!("{INPUTS} => ({outputs}) {{ {body} }}"));
            assert_eq!((ops(&plan), stored(&plan, 0)), (vec!["MatMul+Add+Tanh+Add"], count));
            assert!(plan.steps[0].outputs[0].is_none(), "the product itself is not stored");
        }
        let plan = planned(&format!("{INPUTS} => (float[60, 32] z, float[60, 32] y) {{ {body} }}"));
        assert_eq!((ops(&plan), stored(&plan, 0)), (vec!["MatMul+Add+Tanh+Add"], 2));
        // The product's operands, the bias and the residual once, and both results.
        assert_eq!(plan.steps[0].traffic(), 4 * (60 * 64 + 64 * 32 + 32 + 60 * 32 + 2 * 60 * 32));
    }

    #[test]
    fn the_product_may_be_any_operand_and_have_other_axes() {
        let plan = planned(
            "(float[60, 64] x, float[64, 32] w, float[3, 20, 32] r) => (float[3, 20, 32] z) { v = MatMul (x, w) u = Neg (x) \
             y = MatMul (u, w) shape = Constant <value = int64[3] {3, 20, 32}> () seen = Reshape (y, shape) other = Reshape \
             (v, shape) s = Add (r, other) z = Add (s, seen) }",
        );
        assert_eq!(ops(&plan), ["MatMul", "Neg", "MatMul+Add+Add"]);
    }

    #[test]
    fn what_an_epilogue_reads_may_be_overwritten() {
        let plan = planned(&format!(
            "{INPUTS} => (float[60, 32] z) {{ t = Exp (r) y = MatMul (x, w) z = Add (y, t) }}"
        ));
        assert_eq!(ops(&plan), ["Exp", "MatMul+Add"]);
        assert_eq!(plan.steps[1].in_place, [(2, 1)]);
        // What the product itself reads may not.
        let plan = planned(
            "(float[32, 32] x, float[32, 32] w) => (float[32, 32] z) { t = Exp (x) y = MatMul (t, w) z = Add (y, t) }",
        );
        assert_eq!((ops(&plan), plan.steps[1].in_place.len()), (vec!["Exp", "MatMul+Add"], 0));
    }

    #[test]
    fn what_cannot_be_an_epilogue_stays_a_step() {
        let apart = |inputs: &str, body: &str, expected: &[&str]| {
            let plan = planned(&format!("{inputs} => (float[a, b] z) {{ {body} }}"));
            assert_eq!(ops(&plan), expected, "{body}");
        };
        let turned = "y = MatMul (x, w) t = Transpose (y) z = Add (t, r)";
        apart("(float[60, 64] x, float[64, 32] w, float[32, 60] r)", turned, &["MatMul", "Add"]);
        let repeated = "y = MatMul (x, w) z = Add (y, r)";
        apart("(float[1, 64] x, float[64, 32] w, float[60, 32] r)", repeated, &["MatMul", "Add"]);
        let parted = "y = MatMul (x, w) s = Softmax (r) z = Add (y, s)";
        apart(INPUTS, parted, &["MatMul", "Softmax", "Add"]);
        // A sum that is split among blocks has no tile that is done.
        let split = "y = MatMul (x, w) z = Tanh (y)";
        apart("(float[60, 4096] x, float[4096, 32] w)", split, &["MatMul", "Tanh"]);
    }

    #[test]
    fn the_product_by_itself_is_kept_to_be_measured() {
        let plan = planned(&format!("{INPUTS} => (float[60, 32] z) {{ y = MatMul (x, w) z = Add (y, b) }}"));
        let crate::step::Work::Launches(launches) = &plan.steps[0].work else { panic!("no launches") };
        let product = launches.product.as_ref().expect("the product");
        assert_eq!((product.node.op.as_str(), product.inputs.len()), ("MatMul", 2));
        let end = |place: &crate::place::Place| plan.range(place).map_or(0, |range| range.end);
        assert!(product.outputs.iter().flatten().all(|place| end(place) <= plan.arena), "it has room");
    }
}

//! Launch plans of cross-entropy and its gradients.
use super::cpu::IGNORED;
use crate::{
    cuda::{
        Argument::{self, Int, Long},
        Buffer::{self, Null, Operand, Result},
        Element, Launch, Module, Plan, Shape, Site, Source, int, long,
    },
    gather::cuda::is_wide,
};

pub(crate) const SOURCES: &[Source] = &[Source {
    path: PATH,
    text: include_str!("loss.cu"),
    kernels: &["cross_entropy", "cross_entropy_grad", "cross_entropy_share", "cross_entropy_sum"],
    products: &[],
    modules: |module| vec![module.clone().element(Element::Bf16), module.element(Element::F32)],
}];

const PATH: &str = "loss/loss.cu";

/// The logits, and how their labels count.
struct Logits {
    module: Module,
    element: Element,
    /// Labels, classes, and positions of a sample.
    sizes: [usize; 3],
    labels: [Argument; 2],
    ignored: [Argument; 2],
}

impl Logits {
    /// Those of two operands, where the label `ignored` does not count.
    fn of(site: &Site<'_>, [x, labels]: [usize; 2], ignored: Option<i64>) -> Option<Logits> {
        let (logits, given, element): (Shape<'_>, _, _) =
            (site.input(x)?, site.input(labels)?, site.element(x)?);
        let &[_, classes, ref positions @ ..] = logits.dims else { return None };
        Some(Logits {
            module: Module::file(PATH).element(element),
            element,
            sizes: [given.len(), classes, positions.iter().product()],
            labels: [Operand(labels).into(), Int(is_wide(&given))],
            ignored: [Long(ignored.unwrap_or(0)), int(usize::from(ignored.is_some()))],
        })
    }
    fn is_empty(&self) -> bool {
        self.sizes.contains(&0)
    }
    /// A launch of a team for each label: `before` the labels, `then`, sizes and what does not count.
    fn rows(&self, kernel: &'static str, before: &[Buffer], then: &[Buffer]) -> Launch {
        let [rows, classes, _] = self.sizes;
        let arguments = self.arguments(before, then, &self.sizes);
        let launch = Launch::rows(kernel, self.module.clone(), (rows, classes), arguments);
        launch.costs(8 * rows * classes, 2 * rows * classes * self.element.bytes())
    }
    /// A launch of one block.
    fn block(&self, kernel: &'static str, before: &[Buffer], then: &[Buffer], last: &[Argument]) -> Launch {
        let mut arguments = self.arguments(before, then, &self.sizes[..1]);
        arguments.extend(last);
        Launch::new(kernel, self.module.clone(), [1; 3], arguments)
            .costs(2 * self.sizes[0], 16 * self.sizes[0])
    }
    fn arguments(&self, before: &[Buffer], then: &[Buffer], sizes: &[usize]) -> Vec<Argument> {
        let pointers = |of: &[Buffer]| of.iter().map(|&b| b.into()).collect::<Vec<Argument>>();
        let sizes: Vec<Argument> = sizes.iter().copied().map(long).collect();
        [pointers(before), self.labels.to_vec(), pointers(then), sizes, self.ignored.to_vec()].concat()
    }
}

/// The launches of a `SoftmaxCrossEntropyLoss`.
pub(super) fn cross_entropy(site: &Site<'_>) -> Option<Plan> {
    let logits = Logits::of(site, [0, 1], site.node.int("ignore_index").ok()?)?;
    if logits.is_empty() {
        return None;
    }
    let is_mean = site.node.str("reduction").ok()?.unwrap_or("mean") == "mean";
    let mut plan = Plan::default();
    let losses = plan.reserve(8 * logits.sizes[0]);
    let log_prob = if site.wants(1) { Result(1) } else { Null };
    plan.launches.push(logits.rows("cross_entropy", &[Operand(0)], &[losses, log_prob]));
    if site.wants(0) {
        let last = [int(usize::from(is_mean))];
        plan.launches.push(logits.block("cross_entropy_sum", &[losses], &[Result(0)], &last));
    }
    Some(plan)
}

/// The launches of `graft.CrossEntropyGrad (dloss, logits, labels) => (dlogits)`.
pub(super) fn cross_entropy_grad(site: &Site<'_>) -> Option<Plan> {
    let ignored = site.node.int("ignore_index").ok()?.unwrap_or(IGNORED);
    let logits = Logits::of(site, [1, 2], Some(ignored))?;
    let mut plan = Plan::default();
    if logits.is_empty() {
        return Some(plan);
    }
    let share = plan.reserve(8);
    plan.launches.push(logits.block("cross_entropy_share", &[Operand(0)], &[share], &[]));
    plan.launches.push(logits.rows("cross_entropy_grad", &[share, Null, Operand(1)], &[Result(0)]));
    Some(plan)
}

/// The launches of `graft.CrossEntropyRows (share, logits, labels) => (dlogits)`.
pub(super) fn cross_entropy_rows(site: &Site<'_>) -> Option<Plan> {
    let logits = Logits::of(site, [1, 2], None)?;
    let mut plan = Plan::default();
    if !logits.is_empty() {
        let launch = logits.rows("cross_entropy_grad", &[Null, Operand(0), Operand(1)], &[Result(0)]);
        plan.launches.push(launch);
    }
    Some(plan)
}

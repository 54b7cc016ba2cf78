//! Calls of adapted linears that read the same x, done together as `exec` does them: they have the bits that each has by
//! itself, in every order of threads, interpreted and under the sanitizers; and faults planted in what serves several calls.
use crate::{
    LARGEST,
    adapters::{Fault, RACE, WRONG, adapters, fault, find_all, toolchain},
    case::Case,
    device::{How, Machines, lay_as, plan},
    draw::Draw,
    row,
};
use graft_emulate::{Job, Sanitizer};
use graft_ir::{Array, DType, Data};
use graft_kernels::{
    Kernel,
    cuda::{Call, Plan, together},
};
use graft_ptx::Schedule;
use std::path::Path;

/// The kernels of which several calls go together: those of a method that projects or folds x.
const SHARING: &[&str] = &[
    "graft.AdaLora",
    "graft.AdaLoraGrad",
    "graft.BatLeft",
    "graft.Bone",
    "graft.BoneMini",
    "graft.Dora",
    "graft.DoraGrad",
    "graft.Hydra",
    "graft.HydraGrad",
    "graft.Lora",
    "graft.LoraGrad",
    "graft.Salora",
    "graft.SaloraGrad",
    "graft.Tri",
    "graft.TriGrad",
];

/// Tokens for which a sum is cut into slabs of several steps.
const LONG: usize = 2113;

/// Calls that read the same x: their plans, and the operands and results of all.
struct Calls {
    plans: Vec<Plan>,
    /// Which of all operands those of each call are.
    numbers: Vec<Vec<usize>>,
    operands: Vec<Vec<u8>>,
    /// Bytes of the results of one call.
    results: Vec<usize>,
    dtypes: Vec<DType>,
}

/// What x is among a kernel's operands.
fn x_of(kernel: &Kernel) -> usize {
    usize::from(kernel.name.ends_with("Grad"))
}

/// The same case with all floats but those of x made smaller, by a power of two.
fn smaller(case: &Case, x: usize, by: i32) -> Case {
    let mut case = case.clone();
    for (_, operand) in case.operands.iter_mut().enumerate().filter(|(i, _)| *i != x) {
        if let Some(Array { data: Data::Float(elements), .. }) = operand {
            elements.iter_mut().for_each(|element| *element *= 2f64.powi(-by));
        }
    }
    case
}

impl Calls {
    /// So many calls on what a case is made of; `None` if the device does not serve it.
    fn of(kernel: &Kernel, case: &Case, n: usize, element: DType) -> Result<Option<Calls>, String> {
        let (x, how) = (x_of(kernel), How::narrowed(element));
        let mut reference = case.reference(kernel.name).map_err(|e| e.to_string())?;
        for (i, result) in reference.iter_mut().enumerate().filter(|(_, r)| r.dtype == DType::Float) {
            result.dtype = how.element(kernel.device.single.1, i);
        }
        let results: Vec<_> = reference.iter().map(Some).collect();
        let (graph, node) = case.node(kernel.name, &vec![true; case.results]).map_err(|e| e.to_string())?;
        let opset = graph.opset(node.domain_and_name().0).unwrap_or(1);
        let mut calls = Calls {
            plans: Vec::new(),
            numbers: Vec::new(),
            operands: Vec::new(),
            results: reference.iter().map(|r| r.len() * r.dtype.bits() / 8).collect(),
            dtypes: reference.iter().map(|r| r.dtype).collect(),
        };
        for call in 0..n {
            let mut case = smaller(case, x, call as i32);
            let mut draw = Draw::new(0, 1);
            let mut laid = Vec::new();
            for (i, operand) in case.operands.iter_mut().enumerate() {
                let element = how.element(kernel.device.single.0, i);
                let operand = operand.as_mut().map(|array| lay_as(element, array, false, &mut draw));
                laid.push(operand.transpose().map_err(|e| e.to_string())?);
            }
            let Some(plan) = plan(kernel, (&node, opset, how.target), &laid, &results) else {
                return Ok(None);
            };
            let mut numbers = Vec::new();
            for (i, laid) in laid.iter().enumerate() {
                let is_known = call > 0 && i == x;
                numbers.push(if is_known { x } else { calls.operands.len() });
                let bytes = laid.as_ref().map_or(Vec::new(), |o| o.memory.bytes()[..o.bytes()].to_vec());
                calls.operands.extend((!is_known).then_some(bytes));
            }
            calls.plans.push(plan);
            calls.numbers.push(numbers);
        }
        Ok(Some(calls))
    }
    /// Their one plan.
    fn together(&self) -> Option<Plan> {
        let results = |call: usize| call * self.results.len();
        let numbered = self.plans.iter().zip(&self.numbers).enumerate();
        let call = |(n, (plan, operands)): (usize, (_, &'_ Vec<usize>))| (plan, operands.clone(), results(n));
        let calls: Vec<(&Plan, Vec<usize>, usize)> = numbered.map(call).collect();
        let calls: Vec<Call<'_>> = calls
            .iter()
            .map(|(plan, operands, results)| Call { plan, operands, results: *results })
            .collect();
        together(&calls)
    }
    /// The results of each call by itself.
    fn apart(&self, machines: &mut Machines) -> Result<Vec<Vec<u8>>, String> {
        let mut results = Vec::new();
        for (plan, numbers) in self.plans.iter().zip(&self.numbers) {
            let operands = numbers.iter().map(|&i| self.operands[i].clone()).collect();
            let (plan, of_one) = (plan.clone(), self.results.clone());
            let job = Job { plan, operands, results: of_one, ..Job::default() };
            results.extend(machines.emulator.run(&job, 0, 1)?.results);
        }
        Ok(results)
    }
    /// An error if they have other bits together than apart.
    fn check(&self, schedule: Option<Schedule>, machines: &mut Machines) -> Result<(), String> {
        let plan = self.together().ok_or("no launch serves all calls")?;
        let launches: usize = self.plans.iter().map(|plan| plan.launches.len()).sum();
        if plan.launches.len() >= launches {
            return Err(format!("{} launches together, {launches} apart", plan.launches.len()));
        }
        let apart = self.apart(machines)?;
        let n = self.plans.len();
        let job =
            Job { plan, operands: self.operands.clone(), results: self.results.repeat(n), ..Job::default() };
        let found = machines.run(&job, &self.dtypes.repeat(n), schedule)?;
        match found.iter().zip(&apart).position(|(found, apart)| found != apart) {
            Some(i) => Err(format!("not the bits of result {i} apart")),
            None => Ok(()),
        }
    }
}

/// Which cases are run: so many with sizes up to `largest`, of which the first is interpreted, too; and whether one of them
/// has many tokens.
#[derive(Clone, Copy)]
struct Cases {
    element: DType,
    calls: usize,
    n: u64,
    largest: usize,
    and_long: bool,
}

/// What is wrong with the first case where something is.
fn found(kernel: &Kernel, cases: Cases, machines: &mut Machines) -> Option<String> {
    let (_, generate) = row(kernel)?;
    let draw = |seed| match seed {
        1 if cases.and_long => Draw::new(0, 16).with_long(LONG),
        _ => Draw::new(seed, cases.largest),
    };
    let mut served = 0;
    for mut draw in (0..4 * cases.n).map(draw) {
        let case = generate(&mut draw);
        let checked = Calls::of(kernel, &case, cases.calls, cases.element).and_then(|calls| {
            let schedule = (served == 0).then_some(Schedule::Forward);
            calls.map(|calls| calls.check(schedule, machines)).transpose()
        });
        match checked {
            Ok(Some(())) => served += 1,
            Ok(None) => {}
            Err(e) => return Some(format!("{}: {e}", kernel.name)),
        }
        if served == cases.n {
            return None;
        }
    }
    Some(format!("{}: the device serves {served} cases only", kernel.name))
}

/// Fails with what is wrong with cases of these kernels.
fn check_all(names: &[&str], sanitizer: Sanitizer, cases: &[Cases]) {
    let Some(toolchain) = toolchain(sanitizer) else { return };
    let mut machines = Machines::of(toolchain);
    if sanitizer == Sanitizer::None {
        machines = machines.with_interpreter(Path::new(env!("CARGO_TARGET_TMPDIR")));
    }
    let mut failures = Vec::new();
    for kernel in adapters().filter(|kernel| names.contains(&kernel.name)) {
        let wrong = cases.iter().find_map(|&cases| found(kernel, cases, &mut machines));
        if wrong.is_some() {
            // What is wrong may have ended the program.
            machines.restart();
        }
        failures.extend(wrong);
    }
    assert!(failures.is_empty(), "{sanitizer:?}\n{}", failures.join("\n"));
}

const SHORT: Cases = Cases { element: DType::Bfloat16, calls: 3, n: 2, largest: LARGEST, and_long: true };
const SINGLE: Cases = Cases { element: DType::Float, calls: 2, n: 1, largest: LARGEST, and_long: false };

#[test]
fn calls_have_the_same_bits_together_as_apart() {
    check_all(SHARING, Sanitizer::None, &[SHORT, SINGLE]);
}

#[test]
fn sanitizers_find_nothing_in_calls_together() {
    // The others have launches of these.
    let names = ["graft.Bone", "graft.Hydra", "graft.LoraGrad", "graft.Tri"];
    for sanitizer in [Sanitizer::Address, Sanitizer::Thread] {
        check_all(&names, sanitizer, &[Cases { n: 1, largest: 40, and_long: false, ..SHORT }]);
    }
}

#[test]
fn others_have_no_launch_that_serves_several_calls() {
    for kernel in adapters().filter(|kernel| !SHARING.contains(&kernel.name)) {
        let (_, generate) = row(kernel).expect("it has a generator");
        for seed in 0..20 {
            let case = generate(&mut Draw::new(seed, 16));
            if let Some(calls) = Calls::of(kernel, &case, 2, DType::Float).expect("the calls are laid out") {
                assert!(calls.together().is_none(), "{} is not among those that share", kernel.name);
            }
        }
    }
}

const STACK: &str = "cuda/stack.cuh";

const FAULTS: &[Fault] = &[
    fault(
        "the second call with the weights of the first",
        "graft.Lora",
        [STACK, "found = of_1", "found = of_0"],
        WRONG,
    ),
    fault(
        "columns counted from the first call on",
        "graft.LoraGrad",
        [STACK, "col -= call * WIDTH;", ""],
        WRONG,
    ),
    fault(
        "slabs of the second call that overwrite each other",
        "graft.LoraGrad",
        [STACK, "data.of_1 + apart", "data.of_1"],
        WRONG,
    ),
    fault(
        "the matrix of the first call for all",
        "graft.Tri",
        ["lora/middle.cuh", "a.cols, c_of(call)", "a.cols, c_of(0)"],
        WRONG,
    ),
    fault(
        "rows of the next call put where they are still read",
        "graft.Hydra",
        [
            "hydra/hydra.cu",
            "sync_block();  // No thread reads the product's panels, or the rows of the call before",
            "//",
        ],
        RACE,
    ),
    fault(
        "sums that the last call does not get",
        "graft.Bone",
        ["bone/fold.cu", "call < CALLS; call++", "call < (CALLS > 1 ? CALLS - 1 : 1); call++"],
        WRONG,
    ),
];

#[test]
fn every_fault_planted_in_calls_together_is_found() {
    find_all(FAULTS, |kernel, machines| found(kernel, SHORT, machines));
}

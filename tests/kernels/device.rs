//! The device's kernels on the same cases and under the same bounds as the host's, run by the emulator: in five orders of
//! threads, whose results must have the same bits. So must those of what NVRTC makes of them, run by the PTX interpreter.
use crate::{
    DEVICE_CASES, LARGEST,
    case::Case,
    draw::Draw,
    interpreter::Interpreter,
    layout::{Laid, lay},
    outcome::{in_place, judge, wanted},
    row, rows,
};
use graft_emulate::{Emulator, Job, ORDERS, Sanitizer, Toolchain};
use graft_ir::{Array, DType, Error, Node};
use graft_kernels::{
    Kernel, Operands, Work,
    cuda::{Plan, Shape, Site, Target},
    row_major,
};
use graft_ptx::Schedule;
use std::path::Path;

/// Random cases of each kernel; fewer of those whose every case is a source to compile.
fn cases(kernel: &Kernel) -> u64 {
    if matches!(kernel.device.work, Work::Map(_)) { 4 } else { DEVICE_CASES }
}

/// Cases of each kernel that are interpreted, too, each in another order of warps.
fn interpreted(kernel: &Kernel) -> usize {
    match kernel.device.work {
        Work::Map(_) => 1,
        _ if crate::is_sweep() => 6,
        _ => 3,
    }
}

/// What runs kernels.
pub(crate) struct Machines {
    toolchain: Toolchain,
    pub(crate) emulator: Emulator,
    interpreter: Option<Interpreter>,
}

impl Machines {
    /// The emulator; none, and said so, where there is no compiler.
    pub(crate) fn find(folder: &Path, sanitizer: Sanitizer) -> Option<Machines> {
        let Some(toolchain) = Toolchain::find(&folder.join("emulate"), sanitizer) else {
            skip("no C++ compiler for x86-64 Linux: the CUDA kernels are not emulated");
            return None;
        };
        Some(Machines::of(toolchain))
    }
    /// The emulator that a toolchain builds.
    pub(crate) fn of(toolchain: Toolchain) -> Machines {
        let emulator = Emulator::start(toolchain.clone()).unwrap_or_else(|e| panic!("{e}"));
        Machines { toolchain, emulator, interpreter: None }
    }
    /// With the interpreter; none, and said so, where there is no NVRTC.
    pub(crate) fn with_interpreter(self, folder: &Path) -> Machines {
        Machines { interpreter: Interpreter::find(folder).map_err(|why| skip(&why)).ok(), ..self }
    }
    /// Begins anew, after an error that may have ended the emulator.
    pub(crate) fn restart(&mut self) {
        self.emulator = Emulator::start(self.toolchain.clone()).unwrap_or_else(|e| panic!("{e}"));
    }

    /// The results of a job, in one order of threads.
    pub(crate) fn once(&mut self, job: &Job) -> Result<Vec<Vec<u8>>, String> {
        self.emulator.run(job, 0, 1).map(|outcome| outcome.results)
    }
    /// The results of a job, of these types, which must have the same bits in all orders of threads, and interpreted in that
    /// of `schedule`; but for NaN, of which compilers choose the bits by the order of operands.
    pub(crate) fn run(
        &mut self,
        job: &Job,
        dtypes: &[DType],
        schedule: Option<Schedule>,
    ) -> Result<Vec<Vec<u8>>, String> {
        let outcome = self.emulator.run(job, 0, 1)?;
        let (first, conflicts) = (outcome.results, outcome.statistics.bank_conflicts);
        if conflicts > 0 {
            return Err(format!("{conflicts} rows in the banks of others"));
        }
        for order in 1..ORDERS {
            if self.emulator.run(job, order, 7)?.results != first {
                return Err(format!("other bits in order {order}"));
            }
        }
        if let (Some(interpreter), Some(schedule)) = (&mut self.interpreter, schedule) {
            let found = interpreter.run(job, schedule).map_err(|e| format!("interpreted: {e}"))?.results;
            let different =
                dtypes.iter().zip(found.iter().zip(&first)).position(|(&dtype, (found, first))| {
                    with_one_nan(dtype, found) != with_one_nan(dtype, first)
                });
            if let Some(i) = different {
                return Err(format!("other bits of result {i} interpreted, {schedule:?}"));
            }
        }
        Ok(first)
    }
}

/// The bytes of an array with the same bits for every NaN.
fn with_one_nan(dtype: DType, bytes: &[u8]) -> Vec<u8> {
    let width = dtype.bits() / 8;
    let infinity: u64 = match dtype {
        DType::Float16 => 0x7c00,
        DType::Bfloat16 => 0x7f80,
        DType::Float => 0x7f80_0000,
        DType::Double => 0x7ff0_0000_0000_0000,
        _ => return bytes.to_vec(),
    };
    let one = |element: &[u8]| {
        let mut word = [0; 8];
        word[..width].copy_from_slice(element);
        let magnitude = u64::from_le_bytes(word) & (u64::MAX >> (65 - dtype.bits()));
        if magnitude > infinity { vec![0xff; width] } else { element.to_vec() }
    };
    bytes.chunks_exact(width).flat_map(one).collect()
}

/// What a case came to.
pub(crate) enum Outcome {
    Right,
    NotServed,
}

/// Lays an operand out as it is, or with its floats narrowed to `element`; it has the same values then.
pub(crate) fn lay_as(
    element: DType,
    array: &mut Array,
    strided: bool,
    draw: &mut Draw,
) -> Result<Laid, Error> {
    if array.dtype != DType::Float || element == DType::Float {
        return lay(array, strided, draw);
    }
    array.dtype = element;
    *array = Array::from_tensor(&array.to_tensor()?)?;
    let laid = lay(array, strided, draw);
    array.dtype = DType::Float;
    laid
}

/// What a case is run with.
#[derive(Clone, Copy)]
pub(crate) struct How {
    /// What floats are narrowed to, but for those that are always of single precision.
    pub(crate) element: DType,
    /// What launches are planned for.
    pub(crate) target: Target,
    /// The order of warps in which it is interpreted, too.
    pub(crate) schedule: Option<Schedule>,
}

impl How {
    /// With floats narrowed to `element`, and not interpreted.
    pub(crate) fn narrowed(element: DType) -> How {
        How { element, target: Target::default(), schedule: None }
    }
    /// The element of operand or result `i`, of which these are of single precision.
    pub(crate) fn element(&self, single: Operands, i: usize) -> DType {
        if single.contains(i) { DType::Float } else { self.element }
    }
}

/// A case that is laid out for the device, its floats narrowed, and what it should come to.
pub(crate) struct Prepared {
    kernel: &'static str,
    case: Case,
    reference: Vec<Array>,
    wanted: Vec<bool>,
    described: String,
    /// What the device has to do.
    pub(crate) job: Job,
}

impl Prepared {
    /// `None` if the device does not serve the case.
    pub(crate) fn of(
        kernel: &Kernel,
        (mut case, how): (Case, How),
        draw: &mut Draw,
    ) -> Result<Option<Prepared>, String> {
        let mut operands = Vec::new();
        for (i, operand) in case.operands.iter_mut().enumerate() {
            let is_strided = kernel.device.strided.contains(i);
            let laid = operand
                .as_mut()
                .map(|array| lay_as(how.element(kernel.device.single.0, i), array, is_strided, draw));
            operands.push(laid.transpose().map_err(|e| e.to_string())?);
        }
        let mut reference = case.reference(kernel.name).map_err(|e| format!("{e}; {case:?}"))?;
        for (i, result) in reference.iter_mut().enumerate().filter(|(_, r)| r.dtype == DType::Float) {
            result.dtype = how.element(kernel.device.single.1, i);
        }
        let wanted = wanted(kernel, &case, draw)?;
        let (graph, node) = case.node(kernel.name, &wanted).map_err(|e| e.to_string())?;
        let opset = graph.opset(node.domain_and_name().0).unwrap_or(1);
        let results = chosen(&reference, &wanted);
        let Some(plan) = plan(kernel, (&node, opset, how.target), &operands, &results) else {
            return Ok(None);
        };
        let in_place = in_place(kernel.device.in_place, &operands, &results, draw);
        let sizes = operands.iter().flatten().map(|o| (o.dtype, &o.dims, &o.strides)).collect::<Vec<_>>();
        let described = format!(
            "opset {opset}, {:?}, wanted {wanted:?}, in place {in_place:?}, operands {sizes:?}",
            case.attrs
        );
        let bytes =
            |o: &Option<Laid>| o.as_ref().map_or(Vec::new(), |o| o.memory.bytes()[..o.bytes()].to_vec());
        let len = |r: &Option<&Array>| r.map_or(0, |a| a.len() * a.dtype.bits() / 8);
        let job = Job {
            plan,
            operands: operands.iter().map(bytes).collect(),
            results: results.iter().map(len).collect(),
            in_place,
        };
        Ok(Some(Prepared { kernel: kernel.name, case, reference, wanted, described, job }))
    }
    /// The element types of the results.
    fn dtypes(&self) -> Vec<DType> {
        self.reference.iter().map(|r| r.dtype).collect()
    }
    /// What is wrong with what the emulator makes of the job, in all orders, and the interpreter in that of `schedule`.
    pub(crate) fn check(&self, machines: &mut Machines, schedule: Option<Schedule>) -> Result<(), String> {
        self.judge(machines.run(&self.job, &self.dtypes(), schedule))
    }
    /// What is wrong with what a machine made of the job, if anything is.
    pub(crate) fn judge(&self, made: Result<Vec<Vec<u8>>, String>) -> Result<(), String> {
        let judged = made.and_then(|made| {
            let found: Vec<_> =
                made.into_iter().zip(&self.wanted).map(|(bytes, w)| w.then_some(bytes)).collect();
            judge(self.kernel, &self.case, &chosen(&self.reference, &self.wanted), &found)
        });
        judged.map_err(|what| format!("{what}; {}", self.described))
    }
}

/// The results that are wanted.
fn chosen<'a>(results: &'a [Array], wanted: &[bool]) -> Vec<Option<&'a Array>> {
    results.iter().zip(wanted).map(|(r, w)| w.then_some(r)).collect()
}

/// Runs a case, its floats narrowed, if the device serves it.
pub(crate) fn check(
    kernel: &Kernel,
    (case, how): (Case, How),
    draw: &mut Draw,
    machines: &mut Machines,
) -> Result<Outcome, String> {
    let Some(prepared) = Prepared::of(kernel, (case, how), draw)? else { return Ok(Outcome::NotServed) };
    prepared.check(machines, how.schedule)?;
    Ok(Outcome::Right)
}

/// What the device would launch.
pub(crate) fn plan(
    kernel: &Kernel,
    (node, opset, target): (&Node, i64, Target),
    operands: &[Option<Laid>],
    results: &[Option<&Array>],
) -> Option<Plan> {
    let strides: Vec<_> = results.iter().map(|r| r.map_or(Vec::new(), |r| row_major(&r.dims))).collect();
    let outputs = results.iter().zip(&strides).map(|(result, strides)| {
        result.map(|r| Shape { dtype: r.dtype, dims: &r.dims, strides, known: None })
    });
    let inputs = operands.iter().map(|o| o.as_ref().map(shape)).collect();
    let frozen = (0..operands.len()).collect();
    let site = Site::new((node, opset), inputs, outputs.collect(), target).with_frozen(frozen);
    kernel.device.plan(&site)
}

/// An operand as a planner sees it; what is small counts as known beforehand, as axes and bounds are in a graph.
fn shape(laid: &Laid) -> Shape<'_> {
    let view = laid.view();
    let is_known = view.is_row_major() && view.len() <= 16;
    let known = is_known.then(|| &laid.memory.bytes()[..laid.bytes()]);
    Shape { dtype: laid.dtype, dims: &laid.dims, strides: &laid.strides, known }
}

/// Which cases are run, and how.
struct Suite {
    /// What floats are.
    element: DType,
    /// What watches the kernels' memory.
    sanitizer: Sanitizer,
    /// The largest size of one axis.
    largest: usize,
    /// How many cases of a kernel are drawn.
    cases: fn(&Kernel) -> u64,
    /// Which of them are run.
    chosen: fn(&Kernel, &Case) -> bool,
}

impl Suite {
    /// All cases, as they are.
    const ALL: Suite = Suite {
        element: DType::Float,
        sanitizer: Sanitizer::None,
        largest: LARGEST,
        cases,
        chosen: |_, _| true,
    };

    fn run(&self) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let Some(mut machines) = Machines::find(folder, self.sanitizer) else { return };
        if self.sanitizer == Sanitizer::None {
            machines = machines.with_interpreter(folder);
        }
        let kernels = graft_kernels::all().filter(|kernel| kernel.device.is_any());
        let failures: Vec<String> = kernels.filter_map(|kernel| self.kernel(kernel, &mut machines)).collect();
        assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    }

    /// What is wrong with a kernel, if anything is.
    fn kernel(&self, kernel: &Kernel, machines: &mut Machines) -> Option<String> {
        let (_, generate) = row(kernel)?;
        let (mut drawn, mut served) = (0, 0);
        for seed in 0..(self.cases)(kernel) {
            let mut draw = Draw::new(seed, self.largest);
            let case = generate(&mut draw);
            if !(self.chosen)(kernel, &case) {
                continue;
            }
            drawn += 1;
            let schedule = (served < interpreted(kernel)).then(|| Schedule::ALL[served % 3]);
            let how = How { schedule, ..How::narrowed(self.element) };
            match check(kernel, (case, how), &mut draw, machines) {
                Ok(Outcome::Right) => served += 1,
                Ok(Outcome::NotServed) => {}
                Err(e) => {
                    // What is wrong may have ended the program.
                    machines.restart();
                    return Some(format!("{} (seed {seed}): {e}", kernel.name));
                }
            }
        }
        // Sizes of 0 and integers that may divide by 0 need not be served.
        (4 * served < drawn).then(|| format!("{}: the device serves {served} cases only", kernel.name))
    }
}

#[test]
fn every_device_kernel_computes_what_its_op_means() {
    Suite::ALL.run();
}

/// Kernels that serve no other floats.
pub(crate) const OF_F32_ONLY: &[&str] = &["CumSum", "Einsum", "graft.AdamW", "graft.Sgd"];

/// Adapters round in between, and they and generated kernels have suites of their own.
fn is_of_this_suite(kernel: &Kernel) -> bool {
    matches!(kernel.device.work, Work::Launches(_)) && !rows::is_of_adapter(kernel.name)
}

#[test]
fn elements_of_16_bits_make_no_difference_to_the_meaning() {
    let elements: &[DType] =
        if crate::is_sweep() { &[DType::Bfloat16, DType::Float16] } else { &[DType::Bfloat16] };
    for &element in elements {
        let chosen = |kernel: &Kernel, case: &Case| {
            let is_float = case.operands.iter().flatten().any(|o| o.dtype == DType::Float);
            is_float && is_of_this_suite(kernel) && !OF_F32_ONLY.contains(&kernel.name)
        };
        Suite { element, cases: |_| 6, chosen, ..Suite::ALL }.run();
    }
}

#[test]
fn sanitizers_find_nothing_in_device_kernels() {
    let cases = |_: &Kernel| if crate::is_sweep() { 12 } else { 3 };
    for sanitizer in [Sanitizer::Address, Sanitizer::Thread] {
        let chosen = |kernel: &Kernel, _: &Case| is_of_this_suite(kernel);
        Suite { sanitizer, largest: 40, cases, chosen, ..Suite::ALL }.run();
    }
}

#[expect(clippy::print_stderr, reason = "a skipped check says so")]
pub(crate) fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
}

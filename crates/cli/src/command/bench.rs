//! `graft bench`: measures a model's step.
use crate::{
    command::{
        inject::AdapterFlags,
        run::{Machine, print_profile},
    },
    feeds, memory, model,
    ui::{self, Ui},
};
use graft_exec::{Device, Options, Session};
use graft_ir::{Builder, Code, DType, Dim, Error, Graph, Node, Result, Tensor, Type, cost};
use graft_kernels::cuda::{Cache, Table};
use graft_passes::{self as passes, Context, Stage, optimizer, pipeline};
use serde_json::json;
use std::{collections::BTreeMap, fs, num::NonZeroUsize, path::PathBuf, time::Instant};

/// Measure the time of a step
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    /// Measure a training step (a classifier of two classes on the pooled output), not a forward pass
    #[arg(long)]
    train: bool,
    #[command(flatten)]
    adapter: AdapterFlags,
    /// With --train: the output that the classifier reads
    #[arg(long, value_name = "OUTPUT", requires = "train")]
    from: Option<String>,
    /// The first symbolic size of the inputs
    #[arg(long, default_value = "8")]
    batch: NonZeroUsize,
    /// All other symbolic sizes of the inputs
    #[arg(long, default_value = "128")]
    seq: NonZeroUsize,
    /// Steps that are measured, after two that are not
    #[arg(long, default_value = "10")]
    steps: NonZeroUsize,
    /// Run ops alone, with every function written out: what its kernel gains
    #[arg(long)]
    inlined: bool,
    #[command(flatten)]
    machine: Machine,
    /// Measure large products on the GPU, with each tile and with cuBLASLt, keep what is the fastest for later runs, and
    /// print it
    #[arg(long, conflicts_with_all = ["json", "profile"])]
    tune: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Print the time of each op over all steps, and with --verbose of each node
    #[arg(long, conflicts_with = "json")]
    profile: bool,
}

/// Milliseconds of each step, sorted.
struct Times(Vec<f64>);

impl Times {
    fn min(&self) -> f64 {
        self.0.first().copied().unwrap_or(f64::NAN)
    }
    fn median(&self) -> f64 {
        let n = self.0.len();
        if n == 0 { f64::NAN } else { (self.0[(n - 1) / 2] + self.0[n / 2]) / 2.0 }
    }
}

impl Args {
    pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
        let options = self.machine.options(self.profile)?;
        let model = model::load(&self.model, ui)?;
        let sizes = self.sizes(&model.graph);
        let stages = self.stages()?;
        let mut log = |line: &str| ui.detail(line);
        let mut context =
            Context { log: &mut log, has_kernel: &graft_kernels::supports, adapter: None, seed: 0 };
        let graph = pipeline::run(passes::ALL, &stages, &model.graph, &mut context, &mut |_| ())?;
        let mut feeds = feeds::random_feeds(&graph, &sizes, 0)?;
        let mut session = Session::new(&graph, &optimizer::state(&graph)?, &options)?;
        if session.is_emulated() {
            let message = format!("`{}` takes no time that means anything", session.device());
            return Err(Error::new(Code::DEVICE, message).help("measure on a GPU, or with `--device cpu`"));
        }
        for (name, tensor) in optimizer::initial_state(&graph)? {
            session.set_state(&name, &tensor)?;
            feeds.retain(|(fed, _)| *fed != name);
        }
        if self.tune {
            return tune(&mut session, &feeds, ui);
        }
        let times = measure(&mut session, &feeds, self.steps.get())?;
        session.notices().iter().for_each(|notice| ui.say(notice));
        let flops = cost::flops(&graph).count.substitute(|name| sizes.get(name).map(|&n| Dim::from(n)));
        let flops = flops.as_const().unwrap_or(0) as f64;
        let rate = flops / (times.median() / 1e3);
        let fraction = rate / peak(&options)?;
        let tokens = self.batch.get() as f64 * self.seq.get() as f64 / (times.median() / 1e3);
        if self.json {
            return ui.json(&json!({
                "schema": "graft.bench/1", "step_ms": {"median": times.median(), "min": times.min()},
                "tokens_per_s": tokens, "flops_per_s": rate, "peak_fraction": fraction, "rss_mb": memory::peak_rss_mb(),
                "threads": session.threads(), "precision": self.machine.precision.to_string(),
                "method": self.train.then(|| self.adapter.method_or_default()),
            }));
        }
        let rows = [
            ("step, median", format!("{:.3} ms", times.median())),
            ("step, min", format!("{:.3} ms", times.min())),
            ("tokens/s", ui::thousands(tokens as u64)),
            (
                "GFLOP/s",
                format!("{:.1} ({:.0} % of this machine's matrix product)", rate / 1e9, 100.0 * fraction),
            ),
            ("peak memory", memory::peak_rss_mb().map_or("unknown".into(), |mb| format!("{mb:.0} MB"))),
            ("threads", session.threads().to_string()),
        ];
        let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.into(), value]).collect();
        ui.out(&ui::table(&["", ""], &rows))?;
        print_profile(&session, ui)
    }

    /// The first symbol of the inputs is the batch, all others are the length.
    fn sizes<'g>(&self, graph: &'g Graph) -> BTreeMap<&'g str, usize> {
        let mut sizes = BTreeMap::new();
        let shapes = graph.inputs.iter().filter_map(|&v| graph.shape(v));
        for symbol in shapes.flatten().flat_map(Dim::symbols) {
            let size = if sizes.is_empty() { self.batch } else { self.seq }.get();
            sizes.entry(symbol).or_insert(size);
        }
        sizes
    }

    fn stages(&self) -> Result<Vec<Stage>> {
        let mut stages =
            if self.train { self.training()? } else { vec![Stage::new("canonicalize"), Stage::new("fuse")] };
        if self.inlined {
            stages.retain(|stage| stage.name != "fuse");
            stages.push(Stage::new("inline"));
        }
        Ok(stages)
    }

    fn training(&self) -> Result<Vec<Stage>> {
        let mut head = Stage::new("head").with("kind", "classify").with("classes", 2);
        if let Some(from) = &self.from {
            head = head.with("from", from);
        }
        let inject = Stage { name: "inject".into(), options: self.adapter.options()? };
        let loss = Stage::new("loss").with("kind", "cross-entropy").with("label", "label");
        let [canonicalize, fuse, grad, optimizer] =
            ["canonicalize", "fuse", "grad", "optimizer"].map(Stage::new);
        Ok(vec![canonicalize, inject, fuse.clone(), head, loss, grad, optimizer, fuse])
    }
}

/// Measures large products, and puts what is found over what was kept before.
fn tune(session: &mut Session, feeds: &[(String, Tensor)], ui: &mut Ui) -> Result<()> {
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let measured = session.tune(&feeds)?;
    session.notices().iter().for_each(|notice| ui.say(notice));
    let found = measured.table();
    let mut kept = Table::default();
    if let Some(path) = Cache::of_user().tiles() {
        if let Ok(text) = fs::read_to_string(&path) {
            kept = text.parse::<Table>().map_err(|e| e.at(format!("`{}`", path.display())))?;
        }
        kept.extend(found.clone());
        graft_onnx::atomic_write(&path, kept.to_string().as_bytes())?;
        ui.say(&format!("wrote {}", path.display()));
    }
    ui.out(&format!("{measured}{found}"))
}

/// Runs two steps to warm up and `steps` that are timed.
fn measure(session: &mut Session, feeds: &[(String, Tensor)], steps: usize) -> Result<Times> {
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut times = Vec::new();
    for _ in 0..2 {
        session.run(&feeds)?;
    }
    for _ in 0..steps {
        let start = Instant::now();
        session.run(&feeds)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(Times(times))
}

/// What this machine reaches in large matrix products, in FLOP/s: with as many elements as fill a GPU, or a processor. One
/// factor is frozen and the other is the product before, so that nothing is fed and little is copied.
fn peak(options: &Options) -> Result<f64> {
    const PRODUCTS: usize = 4;
    let n: usize = if options.device == Device::Cuda { 4096 } else { 1024 };
    let mut graph = Graph { opsets: BTreeMap::from([(String::new(), 17)]), ..Graph::default() };
    let first = graph.add_input("first", Type::new(DType::Float, [n, n].map(Dim::from)));
    let drawn = feeds::random_feeds(&graph, &BTreeMap::new(), 0)?;
    let (name, values) = drawn.first().ok_or_else(|| Error::new(Code::FEED, "nothing was drawn"))?;
    let factor = graph.add_param("factor", values.clone());
    let mut last = first;
    for i in 0..PRODUCTS {
        let product = Node::new("MatMul", &[last, factor], &[]);
        last = Builder::new(&mut graph).push(&format!("product_{i}"), product)?;
    }
    graph.outputs = vec![last];
    let mut session = Session::new(&graph, &[(name.clone(), graph.name(last).into())], options)?;
    session.set_state(name, values)?;
    let times = measure(&mut session, &[], 5)?;
    Ok(2.0 * PRODUCTS as f64 * (n as f64).powi(3) / (times.min() / 1e3))
}

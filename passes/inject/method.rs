//! What an adapter method is, and the table of all.
use super::{FileForm, Peft, Schedule, adalora, bat, bone, hydra, lora, salora, tri};
use crate::target::Linear;
use graft_ir::{Attrs, Code, Error, Function, Node, Result, error::nearest, library, parse_functions};
use std::{collections::BTreeMap, str::FromStr, sync::OnceLock};

/// The value of a method's function that is the linear that was there.
pub(super) const BASE: &str = "base";

/// The role of the constant weight that is the factor of what an adapter adds.
pub(super) const SCALE: &str = "scale";

/// Every adapter method, alphabetically.
pub const METHODS: &[Method] =
    &[adalora::ADALORA, bat::BAT, bone::BONE, hydra::HYDRA, lora::LORA, salora::SALORA, tri::TRI];

/// An adapter method: what it computes, and the weights that it adds to one linear.
pub struct Method {
    /// The name on the command line.
    pub name: &'static str,
    /// Where it is described.
    pub paper: &'static str,
    /// The rank, where none is given.
    pub rank: usize,
    /// The numerator of the scale, where none is given; `None` if the method has no scale.
    pub alpha: Option<f64>,
    /// The method's own settings, besides rank and alpha.
    pub settings: &'static [Setting],
    /// The formulas that it can stand for; the first is the default.
    pub variants: &'static [Variant],
    /// The functions of all variants, as text. `graft.M (x, w, <weights…>) => (y, <saved…>)` is the adapted linear,
    /// x (…, in), w (in, out), y (…, out) before the bias; `graft.MGrad (dy, <inputs of M>, <saved…>) => (dx,
    /// d<weight>…)` its gradient; `graft.MMerged (w, <weights…>) => (w_merged)` the weight that has the same effect.
    ///
    /// `graft.MDropped (x, xd, w, <weights…>) => (y)` is the adapted linear in training with dropout, which makes xd of
    /// x; where it is not written, everything in `M` but `base` reads xd in place of x.
    ///
    /// `graft.MPenalty (…) => (penalty[, count])` and `graft.MBudget (count, …) => (penalty)` are added to the loss: see
    /// [`crate::penalty`]. `graft.MStats (…) => (statistics)` takes, by name, weights after a step, `d<weight>` (their
    /// gradients), and `rank_mask`; and state `<name>_<weight>`, of the size of that weight and 0 at first, whose next
    /// value is the further result `<name>_<weight>_next`. The method's schedule decides on the statistics.
    ///
    /// `graft.MFolded (<weights…>) => (<weight>_folded, …)` makes a LoRA of an adapter whose schedule is at its end.
    ///
    /// In `M` the product called `base` is the linear that was there. If it is `MatMul (x, w)` its node stays as it
    /// is; otherwise it is rewritten to use what the body computes of `x` or `w`.
    pub functions: &'static str,
    /// Which variant's function a configuration asks for; an error for settings that are out of range.
    pub function: fn(&Config) -> Result<&'static str>,
    /// The parts for one linear; an error where its sizes do not suit the configuration.
    pub parts: fn(&Linear, &Config) -> Result<Parts>,
    /// The coefficients of `graft.MPenalty` that settings give, by the names of its operands, where so many linears are
    /// adapted; empty where the settings ask for no penalty.
    pub penalty: fn(&Config, linears: usize) -> Result<Coefficients>,
    /// What decides on ranks and on further coefficients in the course of a training, if anything does.
    pub schedule: fn(&Config) -> Result<Option<&'static Schedule>>,
}

/// Numbers by the names of the operands that they are.
pub type Coefficients = Vec<(&'static str, f64)>;

/// A formula of a method that has a function of its own.
pub struct Variant {
    /// The name of its function, such as `graft.Dora`.
    pub function: &'static str,
    /// The formula, in one line.
    pub about: &'static str,
    /// Settings that ask for it.
    pub example: &'static [(&'static str, &'static str)],
    /// Trainable parameters of one linear, as a formula in `in`, `out`, `rank` and the settings.
    pub parameters: &'static str,
    /// How trained weights are called and laid out in adapter files.
    pub files: &'static [FileForm],
    /// How it is told in `adapter_config.json`.
    pub peft: Peft,
    /// The oldest opset in which the functions' ops mean what is meant.
    pub opset: i64,
}

/// A setting of a method, which `--set` gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setting {
    /// The key.
    pub name: &'static str,
    /// What it does, in a few words.
    pub about: &'static str,
    /// The value where none is given.
    pub default: &'static str,
}

/// The default of a setting whose value is the adapter's rank where none is given.
pub(super) const RANK: &str = "rank";

/// The default of a setting whose value is the number of steps of the training where none is given.
pub(super) const STEPS: &str = "steps";

/// The setting of methods that take dropout.
pub(super) const DROPOUT: Setting = Setting {
    name: "dropout",
    about: "the share of the adapter's inputs that each step of training leaves out",
    default: "0",
};

/// What an adapter adds to one linear.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Parts {
    /// The weights, in the order of the function's inputs after `x` and `w`.
    pub weights: Vec<Weight>,
    /// The attributes of the functions: the sizes that their reshapes need.
    pub attrs: Attrs,
}

impl Parts {
    /// The factor of what the adapter adds, where it has one.
    pub(super) fn scale(&self) -> Option<f64> {
        self.weights.iter().find(|w| w.role == SCALE).and_then(|w| match w.init {
            Init::Constant(scale) => Some(scale),
            _ => None,
        })
    }
}

/// The settings of a method for one linear.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// The width of the adapter.
    pub rank: usize,
    /// The numerator of the scale; 1 for a method without one.
    pub alpha: f64,
    /// The method's own settings that were given, with their values.
    pub settings: Vec<(String, String)>,
    /// All settings of the method.
    known: &'static [Setting],
}

impl Config {
    /// Settings of `method`; those that are not given have their defaults.
    pub fn new(method: &Method, rank: usize, alpha: f64, settings: Vec<(String, String)>) -> Config {
        Config { rank, alpha, settings, known: method.settings }
    }
    /// The value of a setting as text, given or by default.
    pub fn text(&self, key: &str) -> &str {
        let given = self.settings.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        let default = || self.known.iter().find(|s| s.name == key).map(|s| s.default);
        given.or_else(default).unwrap_or_default()
    }
    /// The value of a setting.
    ///
    /// # Errors
    /// [`Code::METHOD`] if it is no `T`.
    pub fn get<T: FromStr>(&self, key: &str) -> Result<T> {
        self.text(key).parse().map_err(|_| self.bad(key, "is not understood"))
    }
    /// The refusal of a setting's value.
    pub fn bad(&self, key: &str, why: &str) -> Error {
        let about = self.known.iter().find(|s| s.name == key).map_or("", |s| s.about);
        Error::new(Code::METHOD, format!("setting `{key}`: `{}` {why}", self.text(key)))
            .help(format!("`{key}`: {about}"))
    }
    /// The share of the adapter's inputs that training leaves out; 0 for a method that takes no dropout.
    pub fn dropout(&self) -> Result<f64> {
        if !self.known.contains(&DROPOUT) {
            return Ok(0.0);
        }
        let share: f64 = self.get(DROPOUT.name)?;
        if (0.0..1.0).contains(&share) { Ok(share) } else { Err(self.bad(DROPOUT.name, "is not in [0, 1)")) }
    }
    /// alpha / rank.
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }
}

/// A weight of an adapter.
#[derive(Clone, PartialEq, Debug)]
pub struct Weight {
    /// The part that it plays; the name of the function's input.
    pub role: &'static str,
    /// Sizes.
    pub dims: Vec<usize>,
    /// The initial value.
    pub init: Init,
    /// How it is trained; `None` if it is not.
    pub training: Option<Training>,
    /// Whether training puts uniform draws in its place, new ones for each step.
    pub is_drawn: bool,
    /// The axes that count ranks.
    pub rank_axes: &'static [usize],
}

/// How a weight is trained.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Training {
    /// Its learning rate as a multiple of the run's.
    pub lr: f64,
    /// Whether weight decay applies to it.
    pub decays: bool,
}

impl Weight {
    /// A weight that is trained like all others.
    pub fn trained(role: &'static str, dims: &[usize], init: Init) -> Weight {
        let training = Some(Training { lr: 1.0, decays: true });
        Weight { training, ..Weight::frozen(role, dims, init) }
    }
    /// A weight that stays as it is.
    pub fn frozen(role: &'static str, dims: &[usize], init: Init) -> Weight {
        Weight { role, dims: dims.to_vec(), init, training: None, is_drawn: false, rank_axes: &[] }
    }
    /// The same with the axes that count ranks.
    #[must_use]
    pub fn ranked(self, rank_axes: &'static [usize]) -> Weight {
        Weight { rank_axes, ..self }
    }
    /// Trainable parameters.
    pub fn parameters(&self) -> usize {
        if self.training.is_some() { self.dims.iter().product() } else { 0 }
    }
}

/// The initial value of a weight.
#[derive(Clone, PartialEq, Debug)]
pub enum Init {
    /// The same number everywhere.
    Constant(f64),
    /// These numbers.
    Values(Vec<f64>),
    /// Uniform in ±1/√fan_in: PyTorch's `kaiming_uniform_(a=√5)`.
    KaimingUniform {
        /// The number of inputs that each output sums over.
        fan_in: usize,
    },
    /// Normal around 0.
    Normal {
        /// The standard deviation.
        std: f64,
        /// So many elements at the front are 0.
        zeros: usize,
    },
    /// The identity matrix.
    Identity,
    /// For each output of the base linear, the Euclidean norm of its weights.
    BaseNorms,
}

impl Method {
    /// The method of that name.
    pub fn named(name: &str) -> Result<&'static Method> {
        let names = || METHODS.iter().map(|m| m.name);
        let unknown = || {
            let near = nearest(name, names()).join("`, `");
            let all: Vec<&str> = names().collect();
            let help = format!("nearest: `{near}`; all methods: `{}`", all.join("`, `"));
            Error::new(Code::METHOD, format!("there is no method `{name}`")).help(help)
        };
        METHODS.iter().find(|m| m.name == name).ok_or_else(unknown)
    }
    /// The function of `config`'s variant that is called after it and `suffix`, such as `Stats`; one that the variant does
    /// not write is that of the method's first.
    pub fn companion(&self, config: &Config, suffix: &str) -> Result<Option<&'static Function>> {
        let first = self.variants.first().map(|v| v.function);
        let named = [Some(self.variant(config)?.function), first].into_iter().flatten();
        Ok(named.into_iter().find_map(|name| function(&format!("{name}{suffix}"))))
    }
    /// The variant that `config` asks for.
    pub fn variant(&self, config: &Config) -> Result<&'static Variant> {
        let name = (self.function)(config)?;
        let missing = || Error::new(Code::METHOD, format!("method `{}` has no variant `{name}`", self.name));
        self.variants.iter().find(|v| v.function == name).ok_or_else(missing)
    }
    /// The form in files of the weight with this role, where it is stored.
    pub fn file(&self, role: &str) -> Option<&'static FileForm> {
        self.variants.iter().flat_map(|v| v.files).find(|form| form.role == role)
    }
    /// The settings as a sentence.
    pub fn settings_help(&self) -> String {
        let one = |s: &Setting| format!("`{}` ({}; default {})", s.name, s.about, s.default);
        match self.settings.iter().map(one).collect::<Vec<_>>() {
            none if none.is_empty() => format!("method `{}` has no settings of its own", self.name),
            all => format!("settings of method `{}`: {}", self.name, all.join(", ")),
        }
    }
}

impl Variant {
    /// Its function.
    pub fn forward(&self) -> Result<&'static Function> {
        let missing = || Error::new(Code::METHOD, format!("there is no function `{}`", self.function));
        function(self.function).ok_or_else(missing)
    }
    /// Its function in training with dropout: `(x, xd, w, <weights…>) => (y, …)`.
    pub fn dropped(&self) -> Result<Function> {
        if let Some(written) = function(&format!("{}Dropped", self.function)) {
            return Ok(written.clone());
        }
        let mut function = self.forward()?.clone();
        let body = &mut function.body;
        let x = body.inputs[0];
        let xd = body.add_value("xd", body[x].ty.clone());
        for i in 0..body.nodes.len() {
            let is_base = body.nodes[i].output(0).is_some_and(|v| body.name(v) == BASE);
            let reads = body.nodes[i].inputs.iter_mut().filter(|v| !is_base && **v == Some(x));
            reads.for_each(|v| *v = Some(xd));
        }
        body.inputs.insert(1, xd);
        Ok(function)
    }
    /// The function that computes the weight that has the same effect, if there can be one.
    pub fn merged(&self) -> Option<&'static Function> {
        function(&format!("{}Merged", self.function))
    }
    /// The function of its gradient; `None` where that is left to the functions that its body contains.
    pub fn gradient(&self) -> Option<&'static Function> {
        function(&format!("{}Grad", self.function))
    }
    /// Whether what it adds to a weight does not depend on that weight.
    pub fn is_additive(&self) -> bool {
        let Some(merged) = self.merged() else { return false };
        let (body, w) = (&merged.body, merged.body.inputs[0]);
        let is_sum = |n: &Node| n.op == "Add" && n.outputs == [body.outputs.first().copied()];
        body.nodes.iter().filter(|n| n.reads().any(|v| v == w)).all(|n| n.op == "Shape" || is_sum(n))
    }
    /// Its functions that stand in graphs: the adapted linear and its gradient.
    pub fn in_graphs(&self) -> impl Iterator<Item = &'static Function> {
        let gradient = self.gradient();
        gradient.and_then(|_| function(self.function)).into_iter().chain(gradient)
    }
}

/// The function called `name` of whichever method has it.
pub fn function(name: &str) -> Option<&'static Function> {
    static ALL: OnceLock<BTreeMap<String, Function>> = OnceLock::new();
    let all = || {
        let mut all = BTreeMap::new();
        for mut function in METHODS.iter().flat_map(|m| parse_functions(m.functions).expect("methods parse"))
        {
            function.body.opsets.entry(String::new()).or_insert(library::WRITTEN_FOR);
            all.insert(function.name.clone(), function);
        }
        all
    };
    ALL.get_or_init(all).get(name)
}

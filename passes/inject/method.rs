//! What an adapter method is, and the table of all.
use super::lora;
use crate::target::Linear;
use graft_ir::{Code, Error, Function, Result, error::nearest, parse_functions};

/// Every adapter method, alphabetically.
pub const METHODS: &[Method] = &[lora::LORA];

/// An adapter method: what it computes, and the weights that it adds to one linear.
pub struct Method {
    /// The name on the command line.
    pub name: &'static str,
    /// The formula, in one line.
    pub about: &'static str,
    /// Where it is described.
    pub paper: &'static str,
    /// How the adapter meets the base linear.
    pub kind: Kind,
    /// The method's own options, besides `rank` and `alpha`.
    pub options: &'static [&'static str],
    /// The functions, as text. `graft.M (x, w, <weights…>) => (y, <saved…>)` is the adapted linear, x (…, in),
    /// w (in, out), y (…, out) before the bias; `graft.MGrad (dy, <inputs of M>, <saved…>) => (dx, d<weight>…)` its
    /// gradient; `graft.MMerged (w, <weights…>) => (w_merged)` the weight that has the same effect.
    pub functions: &'static str,
    /// Which of the functions a configuration asks for.
    pub function: fn(&Config) -> &'static str,
    /// The weights for one linear, in the order of the function's inputs after `x` and `w`.
    pub weights: fn(&Linear, &Config) -> Result<Vec<Weight>>,
    /// How trained weights are called and laid out in adapter files.
    pub files: &'static [FileForm],
    /// Trainable parameters of one linear, as a formula in `in`, `out` and `rank`.
    pub parameters: &'static str,
    /// The oldest opset in which the functions' ops mean what is meant.
    pub opset: i64,
}

/// How an adapter meets the base linear.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Its function is `MatMul (x, w)` and something that is added; only the rest is put beside the base linear.
    Additive,
    /// The base linear is rewritten to use what the function computes from `w`.
    Replaces,
}

/// The settings of a method for one linear.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// The width of the adapter.
    pub rank: usize,
    /// The numerator of the scale.
    pub alpha: f64,
    /// The method's own options that were given, with their values.
    pub settings: Vec<(String, String)>,
}

impl Config {
    /// Whether a switch of the method is on; an error unless it is `true`, `false` or absent.
    pub fn is_on(&self, key: &str) -> Result<bool> {
        let given = self.settings.iter().find(|(k, _)| k == key);
        let bad =
            |v: &str| Error::new(Code::METHOD, format!("setting `{key}`: `{v}` is neither true nor false"));
        given.map_or(Ok(false), |(_, v)| v.parse().map_err(|_| bad(v)))
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
    /// Whether it is trained.
    pub is_trainable: bool,
}

/// The initial value of a weight.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Init {
    /// The same number everywhere.
    Constant(f64),
    /// Uniform in ±1/√fan_in: PyTorch's `kaiming_uniform_(a=√5)`.
    KaimingUniform {
        /// The number of inputs that each output sums over.
        fan_in: usize,
    },
}

/// How a weight is called and laid out in adapter files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileForm {
    /// The weight.
    pub role: &'static str,
    /// What follows the module path and a dot in the file's key.
    pub suffix: &'static str,
    /// Whether rows and columns are exchanged in the file.
    pub is_transposed: bool,
}

impl FileForm {
    /// The sizes in the file of a weight of sizes `dims`, and the other way round.
    pub fn dims(&self, dims: &[usize]) -> Vec<usize> {
        let mut dims = dims.to_vec();
        if self.is_transposed {
            dims.reverse();
        }
        dims
    }
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
    /// Its functions, parsed.
    pub fn parsed(&self) -> Result<Vec<Function>> {
        parse_functions(self.functions).map_err(|e| e.at(format!("functions of method `{}`", self.name)))
    }
    /// The function called `name`.
    pub fn function_named(&self, name: &str) -> Result<Function> {
        let missing = || Error::new(Code::METHOD, format!("method `{}` has no function `{name}`", self.name));
        self.parsed()?.into_iter().find(|f| f.name == name).ok_or_else(missing)
    }
    /// The form in files of the weight with this role, where it is stored.
    pub fn file(&self, role: &str) -> Option<&'static FileForm> {
        self.files.iter().find(|form| form.role == role)
    }
}

/// The function called `name` of whichever method has it.
pub fn function(name: &str) -> Result<Option<Function>> {
    for method in METHODS {
        if let Some(found) = method.parsed()?.into_iter().find(|f| f.name == name) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

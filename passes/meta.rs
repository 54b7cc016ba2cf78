//! Keys of the notes (ONNX `metadata_props`) that mark what was grafted; detection goes by these, never by names.

/// On nodes and params: the adapter method.
pub const METHOD: &str = "graft.method";
/// On nodes and params: the module path of the linear that is adapted; on the head's: `head`.
pub const TARGET: &str = "graft.target";
/// On nodes: the number of the use that they adapt, where it is not the first of its module.
pub const USE: &str = "graft.use";
/// On nodes and params: the part that it plays in the method, such as `a`, `b`, `scale`, `up`.
pub const ROLE: &str = "graft.role";
/// The role of a node that casts an operand to the type that the adapter computes in.
pub const WIDEN: &str = "widen";
/// The role of a node that leaves out a share of the adapter's input in training.
pub const DROPPED: &str = "dropped";
/// The role of a node between the base linear's weight and what the adapter reads of it.
pub const VIEW: &str = "view";
/// On a base linear that was given other operands: JSON object of its op and attributes before.
pub const ORIGINAL: &str = "graft.original";
/// The role of the adapted linear itself.
pub const BASE: &str = "base";
/// The role of the node that adds the adapted linear's bias, where that was an operand of the linear.
pub const BIAS: &str = "bias";
/// On the first param of an adapter: JSON object of the settings that made it.
pub const CONFIG: &str = "graft.config";
/// On nodes and params: the version of this scheme.
pub const VERSION: &str = "graft.version";
/// The present version.
pub const CURRENT: &str = "1";
/// On params: present where the param is trained.
pub const TRAINABLE: &str = "graft.trainable";
/// On trained params: the learning rate as a multiple of the run's, where it is not 1.
pub const LR: &str = "graft.lr";
/// On trained params: `false` where weight decay does not apply.
pub const DECAY: &str = "graft.decay";
/// On trained params, where an adapter's ranks come and go: the axes that count ranks, separated by commas.
pub const RANKED: &str = "graft.ranked";
/// On params: present where training puts random numbers in their place, new ones for each step.
pub const DRAWN: &str = "graft.drawn";
/// All that mark a param as grafted.
pub(crate) const OF_WEIGHTS: &[&str] =
    &[METHOD, TARGET, ROLE, CONFIG, VERSION, TRAINABLE, LR, DECAY, RANKED, DRAWN];
/// On the model: JSON list of `[input, output]` pairs, the state of a training graph.
pub const STATE: &str = "graft.state";
/// On the model: JSON object from role to name, for every input and output that is not the model's own.
pub const IO: &str = "graft.io";
